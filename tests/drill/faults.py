"""Faults while a command runs. What counts as survived is stated once, here; all else is lost.

A fault is survived if (1) no file that it leaves looks finished and is not, (2) the command ends with the
exit code and the words that davae promises, without a traceback, (3) its processes end with it, and (4) the
same command, repeated, makes the same files as a run without a fault, and no others: hidden ones count.
"""

import contextlib
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from drill.commands import Command, Ended, Running, find_damage, find_leftovers, read_contents
from drill.nursery import Nursery

INTERRUPTED, TERMINATED = 130, 143  # exit codes: 128 and the number of the signal
BEGINNING = 0.1
BUSY = "another process is writing here"
PAGE = 4096  # of a tmpfs
ROW = re.compile(r"[^\r\n]+  \S+-[0-9a-f]{12}(?=[\r\n]|$)")  # of a sweep's table; it ends with a folder
CLOCK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/time.h>
#include <time.h>
#define DAY 86400
int clock_gettime(clockid_t id, struct timespec *t) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(id, t);
    if (!failed && id == CLOCK_REALTIME) t->tv_sec -= DAY;
    return failed;
}
time_t time(time_t *t) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return t ? (*t = now.tv_sec) : now.tv_sec;
}
int gettimeofday(struct timeval *t, void *zone) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    t->tv_sec = now.tv_sec, t->tv_usec = now.tv_nsec / 1000;
    return 0;
}
"""


class Skip(Exception):
    """A fault cannot be tried on this machine, or does not concern this command; the text says why."""


class Lost(Exception):
    """A fault was not survived; the text says how."""


@dataclass
class Reference:
    """A run of a command without a fault."""

    contents: dict[str, str]
    first_s: float  # until it first wrote
    work_s: float  # from then on
    room: int  # bytes that its files take at most while it runs, on a disk of whole pages
    largest: int  # bytes of its largest file
    result: Path  # its folder
    read: dict[str, str]  # what the next command makes of it

    @classmethod
    def make(cls, command: Command, folder: Path, nursery: Nursery | None = None) -> "Reference":
        """Run a command twice: equal results are what all else rests on. The first run warms caches up.

        With a nursery, which starts most of the runs to come, it is run a third time, by that.
        """
        results, room = [], 0
        shutil.rmtree(folder, ignore_errors=True)  # of an earlier drill
        for number, started_by in enumerate([None, None, nursery] if nursery else [None, None]):
            out, began = folder / f"run {number}" / "disk" / "out", time.monotonic()
            running = Running.start(command.words(out), folder / f"run {number}" / "log", nursery=started_by)
            running.wait_for_file(out)
            wrote = time.monotonic()
            if started_by is None:
                first_s = wrote - began
            while running.process.poll() is None:
                room = max(room, measure_room(out))
                time.sleep(0.02)
            work_s, ended = time.monotonic() - wrote, running.wait()
            if ended.code != 0:
                raise Lost(ended.describe())
            results.append(read_contents(out))
            require(describe_difference(results[0], results[-1]))
        largest = max(path.stat().st_size for path in out.rglob("*") if path.is_file())
        read: dict[str, str] = {}
        if command.read_by is not None:
            made = folder / "read"
            made.mkdir()
            ended = Running.start(command.read_by(out, made), folder / "read-log", nursery=nursery).wait()
            if ended.code != 0:
                raise Lost(ended.describe())
            read = read_made(command, ended, made)
        room = max(room, measure_room(out))
        return cls(results[0], first_s, work_s, room, largest, out, read)


def read_made(command: Command, ended: Ended, made: Path) -> dict[str, str]:
    """Return what a reader made of a result: its files; of a sweep that reads itself, its table."""
    if command.reads_itself:
        return {"table": "\n".join(ROW.findall(ended.said))}
    return read_contents(made)


def measure_room(folder: Path) -> int:
    """Return the bytes that a folder's files take on a disk of whole pages, as far as they stay meanwhile."""
    total = 0
    for parent, _, files in os.walk(folder):  # which, unlike rglob, takes it well when a folder vanishes
        for name in files:
            with contextlib.suppress(OSError):
                total += -(-(Path(parent) / name).stat().st_size // PAGE) * PAGE
    return total


@dataclass
class Case:
    """One fault of one command, in a folder of its own: `number` of `count`, spread over its duration."""

    command: Command
    reference: Reference
    world: Path
    folder: Path
    fault: str
    number: int
    count: int
    seed: int
    nursery: Nursery | None = None  # starts the processes of most cases
    runs: int = 0
    share: float = field(init=False)  # of the command's duration, or of the room that it needs

    def __post_init__(self):
        name = f"{self.command.name} {self.fault}"
        self.rng = np.random.default_rng([self.seed, zlib.crc32(name.encode()), self.number])
        self.share = (self.number + self.rng.random()) / self.count

    @property
    def begins(self) -> bool:
        """Whether its moment is before the command first writes, when Python itself may still be starting."""
        return self.share < BEGINNING

    @property
    def out(self) -> Path:
        """Where the command writes."""
        return self.folder / "disk" / "out"

    def start(self, command: list[str] | None = None, **how: Any) -> Running:
        """Start the command, or another one; `how` as for `Running.start`."""
        self.runs += 1
        log = self.folder / f"log-{self.runs}"
        nursery = None if self.begins or self.number % 10 == 9 else self.nursery
        return Running.start(command or self.command.words(self.out), log, nursery=nursery, **how)

    def run(self, command: list[str] | None = None, **how: Any) -> Ended:
        """Run the command, or another one, to its end."""
        return self.start(command, **how).wait()

    def stop(self, sent: signal.Signals, words: list[str] | None = None, group: bool = False) -> Ended:
        """Send a signal at this case's moment. A command that was done before gets it earlier the next time.

        `BEGINNING` of the moments fall into the time before it first writes, which is mostly imports.
        """
        reference = self.reference
        for _ in range(8):
            running = self.start(words)
            if self.begins:
                time.sleep(self.share / BEGINNING * reference.first_s)
            elif running.wait_for_file(self.out):
                later = (self.share - BEGINNING) / (1 - BEGINNING)
                time.sleep(later * reference.work_s)
            children = running.children()
            running.send(sent, group)
            ended = running.wait()
            # A signal that is not handled any more, as the command ends, leaves a whole result.
            done = ended.code == -sent != -signal.SIGKILL and (
                describe_difference(reference.contents, read_contents(self.out)) is None
            )
            if ended.code != 0 and not done:
                require(find_leftovers(children))
                return ended
            shutil.rmtree(self.out)
            self.share *= 0.7
        raise Lost("no moment was early enough")

    def read_result(self, name: str) -> tuple[Ended, dict[str, str]]:
        """Let the next command read what lies there, into a new folder; return what became of it."""
        made = self.folder / name
        made.mkdir()
        assert self.command.read_by is not None
        ended = self.run(self.command.read_by(self.out, made))
        return ended, read_made(self.command, ended, made)

    def check_partial(self) -> None:
        """Raise Lost if a file looks finished and is not."""
        require(find_damage(self.out, self.reference.contents))

    def repeat(self, **how: Any) -> None:
        """Run the same command again; raise Lost unless the result is that of a run without a fault."""
        ended = self.run(**how)
        if ended.code != 0:
            raise Lost(f"the same command then fails: {ended.describe()}")
        require(describe_difference(self.reference.contents, read_contents(self.out)))


def require(wrong: str | None) -> None:
    """Raise Lost if something is wrong."""
    if wrong is not None:
        raise Lost(wrong)


def describe_difference(expected: dict[str, str], found: dict[str, str]) -> str | None:
    """Say which files differ, are missing or too many; None if there are none."""
    names = sorted(n for n in expected.keys() | found.keys() if expected.get(n) != found.get(n))
    told = {True: "is missing", False: "is another one"}
    parts = [f"{n} {'is too many' if n not in expected else told[n not in found]}" for n in names]
    return ", ".join(parts) or None


def require_refusal(ended: Ended, *named: str, code: int = 1) -> None:
    """Raise Lost unless a command ended with this code and in words that name these things."""
    in_words = any(start in ended.said for start in ("davae: ", "failed: "))  # the second in a sweep's table
    if "Traceback" in ended.said or ended.code != code or not in_words:
        raise Lost(f"expected exit code {code} and words: {ended.describe()}")
    said = " ".join(ended.said.split())
    if missing := [name for name in named if " ".join(name.split()) not in said]:
        raise Lost(f"does not name {', '.join(missing)}: {ended.describe()}")


# -- the faults -------------------------------------------------------------------------------------------


def kill(case: Case) -> None:
    """End it with kill -9."""
    case.stop(signal.SIGKILL)
    case.check_partial()
    case.repeat()


def interrupt(case: Case) -> None:
    """Press Ctrl-C, which all processes of a terminal get, or send SIGINT to the command alone."""
    ended = case.stop(signal.SIGINT, group=case.number % 2 == 0)
    if not (case.begins and ended.code == -signal.SIGINT):
        require_refusal(ended, "interrupted", code=INTERRUPTED)
    case.check_partial()
    case.repeat()


def terminate(case: Case) -> None:
    """Send SIGTERM, as schedulers and `kill` do."""
    ended = case.stop(signal.SIGTERM)
    if not (case.begins and ended.code == -signal.SIGTERM):
        require_refusal(ended, "interrupted", code=TERMINATED)
    case.check_partial()
    case.repeat()


def feed_half(case: Case) -> None:
    """Let the next command read what a killed one left: it must refuse by name, or the result was whole."""
    if case.command.read_by is None or case.command.reads_itself:
        raise Skip("no other command reads its result")
    case.stop(signal.SIGKILL)
    missing = describe_difference(case.reference.contents, read_contents(case.out))
    ended, _ = case.read_result("half")
    if ended.code == 0:
        require(missing and f"what reads it did not see that {missing}")
        return
    require_refusal(ended, str(case.out))
    case.repeat()


def fill_disk(case: Case) -> None:
    """Give it a disk that is too small; then make room."""
    disk = case.out.parent
    with mounted(disk, "-t", "tmpfs", "-o", f"size={room_of(case)}", "none"):
        ended = case.run()
        case.check_partial()
        if ended.code != 0:
            require_refusal(ended, str(disk), "No space left")
        elif wrong := describe_difference(case.reference.contents, read_contents(case.out)):
            raise Lost(f"exit code 0 without room, and {wrong}")
        subprocess.run(["mount", "-o", "remount,size=1g", str(disk)], check=True)
        case.repeat()


def room_of(case: Case) -> int:
    """Return the bytes of a disk on which a command has this case's share of the room that it needs."""
    return PAGE * max(1, int(case.share * 0.95 * case.reference.room / PAGE))


def limit_files(case: Case) -> None:
    """Let no file grow beyond a limit: it fails as on a full disk, and no right to mount is needed."""
    if shutil.which("prlimit") is None:
        raise Skip("there is no prlimit")
    limit = max(1, int(case.share * case.reference.largest))
    ended = case.run(before=["prlimit", f"--fsize={limit}"])
    case.check_partial()
    if ended.code != 0:
        require_refusal(ended, str(case.out), "File too large")
    case.repeat()


def write_read_only(case: Case) -> None:
    """Let it write to a read-only disk: it must refuse; and read from one, which must make no difference."""
    case.out.parent.mkdir(parents=True)
    with mounted(case.out.parent, "--bind", "-o", "ro", str(case.out.parent)):
        require_refusal(case.run(), str(case.out.parent), "Read-only file system")
    with mounted(case.world, "--bind", "-o", "ro", str(case.world)):
        case.repeat()


def start_two(case: Case) -> None:
    """Start it twice at once: one of them works, the other waits, works, too, or refuses in words."""
    pair = [case.start(), case.start()]
    ended = [running.wait() for running in pair]
    for one in ended:
        if one.code != 0:
            require_refusal(one, BUSY)
    if all(one.code for one in ended):
        raise Lost("each of two refuses because of the other")
    case.repeat()


def kill_worker(case: Case) -> None:
    """Kill one of its processes but the first: a worker, a notebook's kernel."""
    if case.command.workers is None:
        raise Skip("it is one process")
    running = case.start([*case.command.words(case.out), *case.command.workers])
    moment, wait_s = math.inf, case.rng.uniform(0, 0.9) * case.reference.work_s
    while running.process.poll() is None:
        workers = [p for p in running.children() if "resource_tracker" not in " ".join(p.cmdline())]
        if workers:
            moment = min(moment, time.monotonic() + wait_s)  # counted from the first of them
        if workers and time.monotonic() > moment:
            workers[case.number % len(workers)].kill()
            break
        time.sleep(0.01)
    ended = running.wait()
    if ended.code != 0:
        require_refusal(
            ended, "repeat the command" if case.command.name != "notebooks" else "the kernel died"
        )
    else:
        require(describe_difference(case.reference.contents, read_contents(case.out)))
    case.check_partial()
    case.repeat()


def diverge(case: Case) -> None:
    """Train with an absurd learning rate: it must say so, and keep its last resume point."""
    if not case.command.trains:
        raise Skip("it trains nothing")
    absurd = [*case.command.words(case.out), "train.learning_rate=1e30", "train.checkpoint_every=1"]
    kept = []
    for _ in range(2):
        ended = case.run([word for word in absurd if word != "train.checkpoint_every=2"])
        if "Traceback" in ended.said or ended.code != 1 or "diverged at step 1" not in ended.said:
            raise Lost(f"expected exit code 1 and words: {ended.describe()}")
        kept.append({path: path.read_bytes() for path in case.out.rglob("resume.pt")})
    if not kept[0] or kept[0] != kept[1]:
        raise Lost("the last resume point is not kept")


def set_clock_back(case: Case) -> None:
    """Kill it, then set the clock back by a day: what is there is from tomorrow."""
    case.stop(signal.SIGKILL)
    case.check_partial()
    with tempfile.TemporaryDirectory() as folder:  # LD_PRELOAD takes a space for the end of a path
        case.repeat(environment={"LD_PRELOAD": str(build_clock(Path(folder)))})
    if "cannot be preloaded" in (case.folder / f"log-{case.runs}").read_text(errors="replace"):
        raise Lost("its clock was not set back: the library was not loaded")


def damage_resume_point(case: Case) -> None:
    """Cut off, or change, the resume point of a killed training: it must be refused by name."""
    if not case.command.trains:
        raise Skip("it trains nothing")
    running, found = case.start(), []
    while not found and running.process.poll() is None:
        found = list(case.out.rglob("resume.pt"))
        time.sleep(0.005)
    children = running.children()
    running.send(signal.SIGKILL)
    running.wait()
    require(find_leftovers(children))
    if not found or not found[0].exists():
        raise Lost("no resume point was there to be damaged")
    damage(found[0], case)
    require_refusal(case.run(), str(found[0]))
    found[0].unlink()
    case.repeat()


def damage_result(case: Case) -> None:
    """Cut off a file of the result: what reads it must name it, what does not must not care."""
    if case.command.read_by is None:
        raise Skip("no other command reads its result")
    shutil.copytree(case.reference.result, case.out)
    names = sorted(case.reference.contents)
    path = case.out / names[int(case.share * len(names))]
    damage(path, case, cut=True)
    ended, found = case.read_result("cut")
    if ended.code != 0:
        require_refusal(ended, path.name)
    elif wrong := describe_difference(case.reference.read, found):
        raise Lost(f"{path.name}, cut off, is read as good: {wrong}")


def damage(path: Path, case: Case, cut: bool = False) -> None:
    """Cut off a file at a random place, or change one of its bytes: even numbers cut, odd ones change."""
    content = bytearray(path.read_bytes())
    place = int(case.rng.integers(len(content))) if content else 0
    if cut or case.number % 2 == 0:
        del content[place:]
    else:
        content[place] ^= 1
    path.write_bytes(content)


# Name -> the fault, and how many of each command, of a number of kills.
FAULTS: dict[str, tuple[Callable[[Case], None], Callable[[int], int]]] = {
    "kill": (kill, lambda kills: kills),
    "Ctrl-C": (interrupt, lambda kills: -(-kills // 5)),
    "SIGTERM": (terminate, lambda kills: -(-kills // 10)),
    "half": (feed_half, lambda kills: -(-kills // 10)),
    "disk": (fill_disk, lambda kills: -(-kills // 5)),
    "limit": (limit_files, lambda kills: -(-kills // 10)),
    "two": (start_two, lambda kills: -(-kills // 10)),
    "worker": (kill_worker, lambda kills: -(-kills // 7)),
    "read-only": (write_read_only, lambda kills: 1),
    "NaN": (diverge, lambda kills: 1),
    "clock": (set_clock_back, lambda kills: 1),
    "resume": (damage_resume_point, lambda kills: 2),
    "result": (damage_result, lambda kills: -(-kills // 4)),
}


@contextlib.contextmanager
def mounted(where: Path, *options: str) -> Iterator[None]:
    """Mount something, as root may.

    Raises:
        Skip: this process may not.
    """
    where.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["mount", *options, str(where)], capture_output=True, text=True)
    if done.returncode != 0:
        raise Skip(f"no right to mount ({done.stderr.strip().splitlines()[-1:]}): run it by `unshare -rm`")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(where)], check=True)


def build_clock(folder: Path) -> Path:
    """Return a library that sets the clock back by a day in a process that loads it first.

    Raises:
        Skip: there is no C compiler, or the system is not Linux.
    """
    if sys.platform != "linux" or shutil.which("cc") is None:
        raise Skip("needs Linux and a C compiler")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "clock.c").write_text(CLOCK, encoding="utf-8")
    library = folder / "clock.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, folder / "clock.c", "-ldl"], check=True)
    return library


# -- all of them ------------------------------------------------------------------------------------------


@dataclass
class Score:
    """What became of one fault of one command."""

    tried: int = 0
    lost: list[str] = field(default_factory=list)
    skipped: str = ""  # why it was not tried

    def __str__(self) -> str:
        return "-" if self.skipped or not self.tried else f"{self.tried - len(self.lost)}/{self.tried}"


def try_fault(case: Case, score: Score) -> None:
    """Try a fault and count it. The folder of a case that was lost is kept."""
    shutil.rmtree(case.folder, ignore_errors=True)  # of an earlier drill
    try:
        FAULTS[case.fault][0](case)
    except Skip as reason:
        score.skipped = str(reason)
        return
    except Lost as how:
        score.lost.append(f"{case.command.name}, {case.fault}, case {case.number} of {case.count}: {how}")
    else:
        shutil.rmtree(case.folder, ignore_errors=True)
    score.tried += 1


def format_table(scores: dict[str, dict[str, Score]]) -> str:
    """Return the table of all commands: survived/tried of each fault, and the sums."""
    lines = [
        " ".join([f"{'command':10}", *(f"{name:>9}" for name in FAULTS), f"{'tried':>6}", f"{'lost':>5}"])
    ]
    for command, row in scores.items():
        cells = [f"{row.get(name, Score())!s:>9}" for name in FAULTS]
        tried, lost = sum(s.tried for s in row.values()), sum(len(s.lost) for s in row.values())
        lines.append(" ".join([f"{command:10}", *cells, f"{tried:6}", f"{lost:5}"]))
    return "\n".join(lines)
