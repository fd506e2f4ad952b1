"""C code for training on a CPU, compiled where it runs: `load_kernels`.

PyTorch passes over a map once for each operation, and small networks spend more of a training step on memory
than on arithmetic. `kernels.c` does in one pass what belongs together. The machine's own C compiler compiles
it when it is first needed, which takes a second, into the user's cache folder. Where that is not possible,
training uses PyTorch's operations: the same mathematics, but slower.
"""

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch  # which also brings the OpenMP library whose threads the kernels share
from torch import Tensor

SOURCES = ("kernels.c", "maps.h", "pictures.h", "points.h")
# Without -ffast-math: NaN must stay NaN, since a diverged training is noticed by it.
FLAGS = ("-O3", "-march=native", "-ffp-contract=fast", "-fno-math-errno", "-shared", "-fPIC", "-fopenmp")
SWITCH = "DAVAE_KERNELS"  # an environment variable; 0 turns the kernels off


class NoKernelsError(RuntimeError):
    """The kernels cannot be compiled or loaded here; the message gives the reason."""


def load_kernels() -> ctypes.CDLL:
    """Return the compiled kernels; compile them first if this machine has not done so.

    Raises:
        NoKernelsError: there is no C compiler, it failed, or the environment variable DAVAE_KERNELS is 0.
    """
    found = _find_kernels()
    if isinstance(found, str):
        raise NoKernelsError(found)
    return found


def explain_missing() -> str | None:
    """Return why there are no kernels here, or None if there are."""
    found = _find_kernels()
    return found if isinstance(found, str) else None


@lru_cache(maxsize=1)
def _find_kernels() -> ctypes.CDLL | str:
    """Return the kernels, or why there are none; found out once in a process."""
    if os.environ.get(SWITCH) == "0":
        return f"{SWITCH} is 0"
    try:
        compiler = shlex.split(os.environ.get("CC", "cc"))
        if not compiler or shutil.which(compiler[0]) is None:
            return f"no C compiler: {' '.join(compiler) or 'CC'} is not installed"
        library = _find_cache() / f"kernels-{_fingerprint(compiler)}.so"
        if library.exists():
            try:
                return ctypes.CDLL(str(library))
            except OSError:  # damaged, as a crash of the machine can leave it: made anew
                library.unlink()
        _compile(compiler, library)
        return ctypes.CDLL(str(library))
    except (OSError, ValueError, RuntimeError) as error:
        return f"{error}"


def call(name: str, *arguments: Tensor | float | None) -> None:
    """Call a kernel: tensors become pointers, None a null pointer; the number of threads comes last."""
    converted: list[Any] = []
    for value in arguments:
        if value is None or isinstance(value, Tensor):
            converted.append(ctypes.c_void_p(None if value is None else value.data_ptr()))
        else:
            converted.append(ctypes.c_double(value) if isinstance(value, float) else ctypes.c_int64(value))
    getattr(load_kernels(), name)(*converted, ctypes.c_int64(torch.get_num_threads()))


def _find_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "davae"


def _fingerprint(compiler: list[str]) -> str:
    """Return a digest of all that the compiled code depends on: sources, compiler, flags, processor."""
    version = subprocess.run([*compiler, "--version"], capture_output=True, check=False).stdout
    parts = [version, " ".join([*compiler, *FLAGS]).encode(), _describe_processor().encode()]
    parts += [(Path(__file__).parent / name).read_bytes() for name in SOURCES]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _describe_processor() -> str:
    """Return the instruction set: home folders are shared by machines of different kinds."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    flags = [line for line in lines if line.startswith(("flags", "Features"))]
    return flags[0] if flags else platform.machine() + platform.processor()


def _compile(compiler: list[str], library: Path) -> None:
    """Compile to a temporary file and rename it, so that other processes never see half a library."""
    library.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        made = Path(folder) / library.name
        source = Path(__file__).parent / SOURCES[0]
        ran = subprocess.run(
            [*compiler, *FLAGS, str(source), "-o", str(made), "-lm"],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
        if ran.returncode:
            raise NoKernelsError(f"{' '.join(compiler)} failed: {ran.stderr.strip()[-500:]}")
        made.replace(library)
