"""A process that has imported davae and forks into its commands: imports are most of a short command's time.

    PYTHONPATH=tests python -m drill.nursery

reads a request per line, a JSON object with the words of a command and the file for what it says. It writes
the number of the process that it forks, and later that number with the exit code. A forked process is a
command from there on: in a session of its own, with `davae` as its main module, and Python ends as usual.

Two things differ from a fresh process, so the drill starts every tenth case without a nursery: what is
imported early here may be imported late there, and all forks of a nursery have the same hashes of strings.
"""

import gc
import importlib
import json
import os
import runpy
import selectors
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

# What the commands import sooner or later, but for what starts threads (Open3D), which a fork would lose.
IMPORTS = (
    "torch._dynamo",
    "papermill",
    "davae.data.prepared",
    "davae.pipeline.cli",
    "davae.pipeline.notebooks",
    "davae.rivals",
    "davae.studies",
    "davae.training.mask_task",
)


class Child:
    """A command that a nursery has started; as `subprocess.Popen`, as far as the drill needs it."""

    def __init__(self, pid: int):
        self.pid, self.ended = pid, Future[int]()

    def poll(self) -> int | None:
        """Return its exit code if it has ended."""
        return self.ended.result() if self.ended.done() else None

    def wait(self, timeout: float | None = None) -> int:
        """Return its exit code once it has ended; raise `subprocess.TimeoutExpired` if that takes longer."""
        try:
            return self.ended.result(timeout)
        except TimeoutError as late:
            raise subprocess.TimeoutExpired("davae", timeout or 0.0) from late


class Nursery:
    """The process, seen from the drill; several threads may start commands."""

    def __init__(self, environment: dict[str, str]):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "drill.nursery"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment | {"PYTHONPATH": str(Path(__file__).parents[1])},
            text=True,
            start_new_session=True,  # Ctrl-C is the drill's
        )
        self._lock, self._children, self._born = threading.Lock(), dict[int, Child](), list[Future[Child]]()
        self._ended = False
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def start(self, words: Sequence[str], log: Path) -> Child:
        """Start a command of davae; what it says goes to a file.

        Raises:
            ChildProcessError: this process has ended; `Child.poll` and `Child.wait` raise it then, too.
        """
        born = Future[Child]()
        assert self.process.stdin is not None
        with self._lock:
            if self._ended:  # a command that is being born may still hold the pipe open
                raise ChildProcessError("the nursery has ended")
            self._born.append(born)
            try:
                request = json.dumps({"words": list(words), "log": str(log)})
                print(request, file=self.process.stdin, flush=True)
            except OSError as error:
                raise ChildProcessError("the nursery has ended") from error
        return born.result()

    def stop(self) -> None:
        """End it; commands that run go on."""
        assert self.process.stdin is not None and self.process.stdout is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()
        self._listener.join()
        self.process.stdout.close()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            pid, *code = map(int, line.split())
            if code:
                self._children.pop(pid).ended.set_result(code[0])
            else:
                self._children[pid] = Child(pid)
                self._born.pop(0).set_result(self._children[pid])
        with self._lock:
            self._ended = True
        for future in (*self._born, *(child.ended for child in self._children.values())):
            future.set_exception(ChildProcessError("the nursery has ended"))


@contextmanager
def open_nursery(environment: dict[str, str]) -> Iterator[Nursery | None]:
    """Yield a nursery, or None where the system has no descriptors of processes; it ends afterwards."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):  # not Linux; an old kernel, or a container that forbids it
        yield None
        return
    nursery = Nursery(environment)
    try:
        yield nursery
    finally:
        nursery.stop()


def serve(answers: TextIO) -> dict | None:
    """Fork for each request and report ends; return the request in a forked process, None at the end."""
    selector = selectors.DefaultSelector()
    selector.register(sys.stdin.fileno(), selectors.EVENT_READ)
    with os.fdopen(sys.stdin.fileno(), "rb", buffering=0, closefd=False) as requests:
        while True:
            for key, _ in selector.select():
                if key.data is not None:  # one has ended
                    selector.unregister(key.fd)
                    os.close(key.fd)
                    code = os.waitstatus_to_exitcode(os.waitpid(key.data, 0)[1])
                    print(key.data, code, file=answers, flush=True)
                    continue
                line = requests.readline()
                if not line:
                    return None
                ready, told = os.pipe()
                pid = os.fork()
                if pid == 0:
                    for other in selector.get_map().values():
                        if other.data is not None:
                            os.close(other.fd)
                    selector.close()
                    os.setsid()  # before its number is known, so that signals to its group reach it
                    os.close(ready)
                    os.close(told)
                    return json.loads(line)
                os.close(told)
                os.read(ready, 1)  # returns when the child has closed its end
                os.close(ready)
                selector.register(os.pidfd_open(pid), selectors.EVENT_READ, pid)
                print(pid, file=answers, flush=True)


def main() -> None:
    """Import, then serve; a forked process becomes the command."""
    with os.fdopen(os.dup(sys.stdout.fileno()), "w") as answers:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what is printed meanwhile is no answer
        for name in IMPORTS:
            importlib.import_module(name)
        if (count := threading.active_count()) > 1 or len(os.listdir("/proc/self/task")) > 1:
            sys.exit(f"an import has started threads ({count} of Python), which a fork would lose")
        gc.collect()
        gc.freeze()  # else the end of each command would look through all that was imported, and copy it
        request = serve(answers)
    if request is None:
        return
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for kept, stream in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(kept, stream)
    os.close(log)
    os.close(nothing)
    sys.argv = ["davae", *request["words"]]
    runpy.run_module("davae", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
