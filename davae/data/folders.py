"""Folders that programs write: one writer at a time, and no half-written file."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # not on Windows, where a second writer is not noticed
    fcntl = None


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold a folder for this process alone, by a lock beside it, which a kill releases too.

    Raises:
        BlockingIOError: another process is writing there.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f".{folder.name}.lock").open("w") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise BlockingIOError(
                    f"{folder}: another process is writing here; wait for it, then repeat the command"
                ) from error
        yield


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a file beside `path`, then rename it: a kill leaves the old file or the new one.

    The temporary name is always the same, so that what a kill left behind is overwritten, not collected.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    write(temporary)
    os.replace(temporary, path)
