"""Keep the memory that a training step frees, for the next step.

By default glibc asks the kernel for every large block and gives it back when it is freed. So each step's
activations get new pages, which the kernel must clear first: measured in alternation, that takes 6 % of a
training step of `paper` and 2 % of a step of `laptop` (docs/benchmarks.md).
"""

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

# Parameters of glibc's mallopt(3), and their defaults.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_DEFAULTS = {_TRIM_THRESHOLD: 128 * 1024, _MMAP_MAX: 65_536}
_KEEP = {_TRIM_THRESHOLD: -1, _MMAP_MAX: 0}  # never give back the end of the heap; never map a single block


@contextmanager
def keep_freed_memory() -> Iterator[bool]:
    """Within this context the process keeps the memory that it frees; at the end all of it is given back.

    Yields:
        Whether that is possible, i.e. the C library is glibc. If not, work is slower but otherwise the same.
    """
    library = ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
    # An allocator loaded instead of glibc's, such as jemalloc, may lack these; it keeps memory by itself.
    if library is None or not all(hasattr(library, name) for name in ("mallopt", "malloc_trim")):
        yield False
        return
    try:
        # A list, so that both are set even if one is refused.
        yield all([library.mallopt(parameter, value) for parameter, value in _KEEP.items()])
    finally:
        for parameter, value in _DEFAULTS.items():
            library.mallopt(parameter, value)
        library.malloc_trim(0)
