"""Jupyter kernels of this very Python, for whatever runs a notebook here: papermill, Voila.

By its name a kernel is looked for on the Jupyter path, where another Python's may be called python3, too.
"""

from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager
from traitlets import default


class OwnKernels(KernelSpecManager):
    """Knows one kernel, python3: where no folder holds one, jupyter_client makes it of `sys.executable`."""

    @default("kernel_dirs")
    def _no_folders(self) -> list[str]:
        return []


class OwnKernel(AsyncKernelManager):
    """Starts it."""

    @default("kernel_spec_manager")
    def _own(self) -> OwnKernels:
        return OwnKernels(parent=self)
