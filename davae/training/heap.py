"""Memory that a training step frees, and the next one needs again, stays with the process.

By default glibc asks the kernel for every large block anew and gives it back when it is freed, so that each
step's activations arrive as pages that the kernel must clear first: measured in turns, 6 % of a training step
of `paper`, 2 % of one of `laptop` (docs/benchmarks.md).
"""

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

# Parameters of glibc's mallopt(3), and their defaults.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_DEFAULTS = {_TRIM_THRESHOLD: 128 * 1024, _MMAP_MAX: 65_536}
_KEEP = {_TRIM_THRESHOLD: -1, _MMAP_MAX: 0}  # never give back the heap's end; never map a block by itself


@contextmanager
def freed_memory_kept() -> Iterator[bool]:
    """Let the process keep what it frees while this lasts; at the end all of it is given back.

    Yields:
        Whether that could be asked for: the C library is glibc. Without it work is slower, but no other.
    """
    library = ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
    # An allocator put in the place of glibc's, such as jemalloc, may lack these; it keeps memory by itself.
    if not all(hasattr(library, name) for name in ("mallopt", "malloc_trim")):
        yield False
        return
    try:
        # A list: both are to be set, even if one is refused.
        yield all([library.mallopt(parameter, value) for parameter, value in _KEEP.items()])
    finally:
        for parameter, value in _DEFAULTS.items():
            library.mallopt(parameter, value)
        library.malloc_trim(0)
