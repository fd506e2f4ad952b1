"""Folders that programs write: one writer at a time, workers that die with it, and no half-written file."""

import errno
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import reduction
from multiprocessing.connection import wait
from pathlib import Path

try:
    import fcntl
except ImportError:  # not on Windows, where a second writer is not noticed
    fcntl = None

_NO_PROMISES = {errno.EOPNOTSUPP, errno.EINVAL, errno.ENODEV, errno.ENOSYS}  # of room, by some file systems
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Lock:
    """The right to write to a folder. A worker process that is given it holds it too."""

    def __init__(self, descriptor: int):
        self.descriptor = descriptor

    def __reduce__(self):
        # Only possible while a worker is being started, which is when it is needed.
        return _inherit, (None if fcntl is None else reduction.DupFd(self.descriptor),)


def _inherit(copy) -> Lock:
    return Lock(-1 if copy is None else copy.detach())


@contextmanager
def exclusive(folder: Path) -> Iterator[Lock]:
    """Hold a folder for this process and its workers alone, by a lock beside it, which a kill releases too.

    Raises:
        BlockingIOError: another process is writing there.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f".{folder.name}.lock").open("w", encoding="utf-8") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise BlockingIOError(
                    f"{folder}: another process is writing here; wait for it, then repeat the command"
                ) from error
        yield Lock(file.fileno())


@contextmanager
def worker_pool(
    workers: int, lock: Lock, start: Callable[..., object] | None = None, arguments: tuple = ()
) -> Iterator[ProcessPoolExecutor]:
    """Run worker processes that share `lock`, and that end with this process however it ends.

    A killed parent cannot stop its workers, and by themselves they would go on writing and then wait for
    ever. Here they watch for its death; and until the last of them is gone the folder stays locked.

    Args:
        workers: how many.
        lock: of the folder they write to.
        start: called in each worker before anything else.
        arguments: of `start`.

    Raises:
        ChildProcessError: a worker died, most likely for want of memory.
    """
    pool = ProcessPoolExecutor(
        workers,
        # Spawned, not forked: forking a process that has threads (a notebook's kernel) can hang.
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
        initargs=(lock, start, arguments),
    )
    try:
        yield pool
    except BrokenProcessPool as error:
        raise ChildProcessError(
            "a worker process was killed, most likely for want of memory; the same command goes on where it "
            "stopped, perhaps with fewer workers"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_held: Lock | None = None  # by this worker, until it ends


def _start_worker(lock: Lock, start: Callable[..., object] | None, arguments: tuple) -> None:
    global _held
    _held = lock
    end_with_parent()
    if start is not None:
        start(*arguments)


def end_with_parent() -> None:
    """From now on let this worker process end when the one that started it does, however that ends."""

    def watch() -> None:
        wait([multiprocessing.parent_process().sentinel])
        os._exit(1)  # not `sys.exit`, which would only end this thread

    threading.Thread(target=watch, daemon=True).start()


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a file beside `path`, then rename it: a kill leaves the old file or the new one.

    The temporary name is always the same, so that what a kill left behind is overwritten, not collected.

    Raises:
        OSError: there is no room for it; nothing is left of the attempt.
    """
    temporary = temporary_path(path)
    try:
        with naming_a_full_disk(path):
            write(temporary)
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def temporary_path(path: Path) -> Path:
    """Return the name under which `write_atomically` writes `path`."""
    return path.with_name(f".{path.name}.tmp")


@contextmanager
def naming_a_full_disk(path: Path) -> Iterator[None]:
    """Where a write fails for want of room, say for which file and what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        advice = f"{os.strerror(error.errno)}; make room, then repeat the command"
        raise OSError(error.errno, advice, str(path)) from error


def allocate(path: Path) -> None:
    """Give the file `path` room on the disk for all of its length.

    An array mapped from a new file takes room only when written to, and if there is none left the system
    kills the process without a word; so what is missing must be missed before.

    Raises:
        OSError: there is no room for it.
    """
    if not hasattr(os, "posix_fallocate"):  # on Windows and macOS
        return
    with naming_a_full_disk(path), path.open("r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
        except OSError as error:
            if error.errno not in _NO_PROMISES:
                raise
