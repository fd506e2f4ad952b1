"""Safe writing to folders: one writer at a time, workers that end with it, no half-written files."""

import errno
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing import reduction
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows: a second writer is not noticed
    fcntl = None  # type: ignore[assignment]  # mypy knows no optional module

_CANNOT_ALLOCATE = {errno.EOPNOTSUPP, errno.EINVAL, errno.ENODEV, errno.ENOSYS}  # of some file systems
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Lock:
    """The right to write to a folder. A worker process that receives it as an argument holds it too."""

    def __init__(self, descriptor: int):
        self.descriptor = descriptor

    def __reduce__(self) -> tuple[Callable[..., "Lock"], tuple[Any]]:
        # `DupFd` works only while a worker is being started, which is when a lock is passed on.
        return _inherit, (None if fcntl is None else reduction.DupFd(self.descriptor),)


def _inherit(copy: Any) -> Lock:
    return Lock(-1 if copy is None else copy.detach())


@contextmanager
def exclusive(folder: Path) -> Iterator[Lock]:
    """Reserve a folder for this process and its workers, by a lock file beside it; a kill releases it too.

    Raises:
        BlockingIOError: another process is writing there.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    place = folder.absolute()  # "." has no name
    with place.with_name(f".{place.name}.lock").open("w", encoding="utf-8") as file:
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
    workers: int, lock: Lock, start: Callable[..., object] | None = None, arguments: tuple[Any, ...] = ()
) -> Iterator[ProcessPoolExecutor]:
    """Run worker processes that share `lock` and end with this process, however it ends.

    The folder stays locked until the last worker has ended. An error, or Ctrl-C, ends all workers at once.

    Args:
        workers: their number.
        lock: of the folder they write to.
        start: called in each worker before anything else.
        arguments: of `start`.

    Raises:
        ChildProcessError: a worker was killed, most likely because memory ran out.
    """
    pool, failed = Workers(workers, _hold, (lock, start, arguments)), True
    try:
        yield pool
        failed = False
    except BrokenProcessPool as error:
        raise ChildProcessError(
            "a worker process was killed, most likely because memory ran out; repeat the command, perhaps "
            "with fewer workers: it goes on where it stopped"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=failed)


_held: Lock | None = None  # the lock that this worker holds until it ends


def _hold(lock: Lock, start: Callable[..., object] | None, arguments: tuple[Any, ...]) -> None:
    global _held
    _held = lock
    if start is not None:
        start(*arguments)


class Workers(ProcessPoolExecutor):
    """Worker processes that end with this process, however it ends, or when it gives up.

    A killed parent cannot stop its workers, which would finish their work and then wait for ever. So each of
    them watches its parent. To give up is to call `shutdown` with `cancel_futures`: a plain pool would then
    let its workers finish what they are doing, after Ctrl-C a training of hours, say.

    Args:
        count: their number.
        start: called in each worker before anything else.
        arguments: of `start`.
    """

    def __init__(self, count: int, start: Callable[..., object], arguments: tuple[Any, ...] = ()):
        # Spawned, not forked: forking a process with threads (such as a notebook's kernel) can hang.
        context = multiprocessing.get_context("spawn")
        self._watched, self._kept = context.Pipe(duplex=False)
        arguments = (self._watched, start, arguments)
        super().__init__(count, mp_context=context, initializer=_start_worker, initargs=arguments)

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        """Start a call in a worker, and the worker first if that does not run yet."""
        # A terminal sends Ctrl-C to workers, too. They start with that blocked: it is the parent's to act on.
        with _block_interrupts():
            return super().submit(function, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let the workers finish what was submitted, or end them at once if `cancel_futures`."""
        if cancel_futures:
            self._kept.close()
        super().shutdown(wait, cancel_futures=cancel_futures)
        if wait:
            self._kept.close()
            self._watched.close()


@contextmanager
def _block_interrupts() -> Iterator[None]:
    """Let Ctrl-C wait; processes that are started meanwhile never get it."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(watched: Connection, start: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    """Watch for the end of the process that started this one, or of its hold on the pipe; call `start`."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel, watched])
        os._exit(1)  # not `sys.exit`, which would only end this thread

    threading.Thread(target=watch, daemon=True).start()
    start(*arguments)


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a temporary file, then rename it to `path`: a kill leaves the old file or the new one.

    The temporary name is always the same, so that the next attempt overwrites what a kill left behind. Of
    several processes that write the same file, each waits for the one before; the last one's file stays.

    Raises:
        OSError: the disk is full; the temporary file is removed.
    """
    temporary = temporary_path(path)
    with explain_full_disk(path), _reserve(temporary):
        try:
            write(temporary)
            os.replace(temporary, path)
        except BaseException:  # Ctrl-C, too
            temporary.unlink(missing_ok=True)
            raise


@contextmanager
def _reserve(temporary: Path) -> Iterator[None]:
    """Hold a lock on a temporary file, which is made where it is missing.

    Otherwise a process could rename the file that another one is still writing.
    """
    if fcntl is None:
        yield
        return
    while True:
        with temporary.open("ab") as file:
            with suppress(OSError):  # some network file systems have no locks
                fcntl.flock(file, fcntl.LOCK_EX)
            if _is_open_at(file.fileno(), temporary):
                yield
                return


def _is_open_at(descriptor: int, path: Path) -> bool:
    """Return whether a file is still there: the process that held its lock may have renamed or removed it."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def temporary_path(path: Path) -> Path:
    """Return the name under which `write_atomically` writes `path`."""
    return path.with_name(f".{path.name}.tmp")


@contextmanager
def explain_full_disk(path: Path) -> Iterator[None]:
    """Let the error of a full disk name the file `path` and say what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        advice = f"{os.strerror(error.errno)}; make room, then repeat the command"
        raise OSError(error.errno, advice, str(path)) from error


def allocate(path: Path) -> None:
    """Reserve disk space for the whole length of the file `path`.

    An array mapped from a new file takes disk space only when it is written to, and the system kills the
    process, without a message, if the disk is full by then. So the space is reserved before.

    Raises:
        OSError: the disk is full.
    """
    if not hasattr(os, "posix_fallocate"):  # on Windows and macOS
        return
    with explain_full_disk(path), path.open("r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
        except OSError as error:
            if error.errno not in _CANNOT_ALLOCATE:
                raise
