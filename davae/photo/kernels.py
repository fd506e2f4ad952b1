"""Jupyter kernels of the running Python, for whatever runs a notebook here: papermill, Voila.

Looked up by name on the Jupyter path, "python3" may be another Python's kernel.
"""

import signal

from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager
from traitlets import default


class OwnKernels(KernelSpecManager):
    """Know one kernel, python3: with no folders to search, jupyter_client makes it from `sys.executable`."""

    @default("kernel_dirs")
    def _search_no_folders(self) -> list[str]:
        return []


class OwnKernel(AsyncKernelManager):
    """Start that kernel."""

    @default("kernel_spec_manager")
    def _use_own_kernels(self) -> OwnKernels:
        return OwnKernels(parent=self)

    def kill_now(self) -> None:
        """Kill the kernel, if it runs, from any thread."""
        process = getattr(self.provisioner, "process", None)
        if process is not None:
            process.kill()


def block_stops(how: str = "SIG_BLOCK") -> None:
    """Let Ctrl-C and SIGTERM wait until they are unblocked, `how` being SIG_UNBLOCK; not on Windows."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(getattr(signal, how), {signal.SIGINT, signal.SIGTERM})
