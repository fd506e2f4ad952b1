"""The commands of the drill, each a row: its words, what reads its result, and when two results are equal."""

import hashlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import psutil

from drill.nursery import Child, Nursery

LIMIT_S = 600  # a command that takes longer hangs
END_S = 30  # until the workers of a killed command have ended, too
# One thread makes trainings repeatable; a kernel's history would be written outside the drill's folder.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg", "PYTHONUNBUFFERED": "1"}
STEPS = ["train.batch_size=4", "train.checkpoint_every=2", "train.warmup_steps=1"]
LOCK = re.compile(r"\..+\.lock")
NOISE = re.compile(
    r"[0-9a-f]{8}-[0-9a-f-]{27}|\d+(\.\d+)?"
)  # random names; sizes of a machine's memory and disk


@dataclass(frozen=True)
class Command:
    """A command of davae that writes to a folder.

    Attributes:
        name: as on the command line.
        words: the command line that writes to a folder.
        read_by: the command line that reads the first folder and writes to the second; None if none does.
        workers: words that make it work in several processes; None if it never does, [] if it always does.
        trains: it has a resume point and a learning rate.
    """

    name: str
    words: Callable[[Path], list[str]]
    read_by: Callable[[Path, Path], list[str]] | None = None
    workers: list[str] | None = None
    trains: bool = False

    @property
    def reads_itself(self) -> bool:
        """Whether the same command is what reads its result."""
        return self.read_by is not None and self.read_by(Path("made"), Path("out"))[0] == self.name


def make_world(home: Path) -> Path:
    """Write what the commands read: a dataset, its prepared form and a photo. Let Ctrl-C reach them."""
    from PIL import Image
    from rhd_fixture import write_dataset

    from davae.config import preset
    from davae.data.prepared import prepare

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    # More samples than a worker's share, so that two workers have something to do.
    root = write_dataset(home / "world" / "hands", train=34, val=4, test=4)
    prepare("synthhand", root, home / "world" / "data", preset("smoke").data, progress=False)
    pixels = np.random.default_rng(0).integers(0, 255, (96, 96, 3), np.uint8)
    Image.fromarray(pixels).save(home / "world" / "photo.png")
    return home / "world"


def list_commands(world: Path) -> list[Command]:
    """Return the commands of the drill, on what `make_world` wrote."""
    hands, data = str(world / "hands"), str(world / "data")
    smoke = ["--preset", "smoke", "--data", data]
    prepare = words("prepare --dataset synthhand --size 64 --root")
    dozen = ["--set", "train.steps=12", *STEPS]

    def sweep(out: Path) -> list[str]:
        return ["sweep", *smoke, "--store", str(out), *words("--jobs 1 --vary train.steps=6,8"), *STEPS]

    return [
        Command(
            "render",
            lambda out: [*words("render --train 6 --val 2 --test 2 --size 48 --seed 1 --out"), str(out)],
            lambda made, out: [*prepare, str(made), "--out", str(out)],
            ["--workers", "2"],
        ),
        Command(
            "prepare",
            lambda out: [*prepare, hands, "--out", str(out)],
            lambda made, out: [*words("train --preset smoke --data"), str(made), "--run", str(out), *dozen],
            ["--workers", "2"],
        ),
        Command(
            "train",
            lambda out: ["train", *smoke, "--run", str(out), *dozen],
            lambda made, out: [
                *("evaluate", "--data", data, "--run", str(made), "--out", str(out / "report.json"))
            ],
            trains=True,
        ),
        Command("train-mask", lambda out: ["train-mask", *smoke, "--run", str(out), *dozen], trains=True),
        Command(
            "sweep",
            sweep,
            lambda made, out: sweep(made),
            workers=[],
            trains=True,
        ),
        Command("unpack", lambda out: ["unpack", "--out", str(out)]),
        Command("predict", lambda out: ["predict", str(world / "photo.png"), "--out", str(out)]),
        Command(
            "notebooks",
            lambda out: [
                *words("notebooks --preset smoke --only 00"), "--out", str(out), "--home", str(out.parent)
            ],
            workers=[],
        ),
    ]  # fmt: skip


def words(text: str) -> list[str]:
    """Return the words of a text."""
    return text.split()


def read_contents(folder: Path) -> dict[str, str]:
    """Return name -> digest of all files below a folder, hidden ones too, but for locks.

    Left out is what says when and where something was made: seconds in logs, times in executed notebooks.
    """
    return {
        str(path.relative_to(folder)): hashlib.sha256(read_lasting(path)).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not LOCK.fullmatch(path.name)
    }


def read_lasting(path: Path) -> bytes:
    """Return what two results have in common, of a file; all of it, if it is not what its name says."""
    content = path.read_bytes()
    try:
        return _leave_noise_out(path, content)
    except (ValueError, LookupError):  # half a file
        return content


def _leave_noise_out(path: Path, content: bytes) -> bytes:
    if path.name == "started.json":  # the process of a sweep's point, and its time
        return b""
    if path.name == "metrics.csv":
        rows = np.genfromtxt(io.BytesIO(content), str, delimiter=",", ndmin=2, comments=None)
        return "\n".join(",".join(row) for row in rows[:, rows[0] != "seconds"]).encode()
    if path.suffix == ".ipynb":
        cells = json.loads(content)["cells"]
        # That cell holds a path of the run.
        cells = [c for c in cells if "injected-parameters" not in c["metadata"].get("tags", [])]
        return json.dumps(
            [(c["source"], [read_output(o) for o in join_streams(c.get("outputs", []))]) for c in cells]
        ).encode()
    return content


def join_streams(outputs: list[dict]) -> list[dict]:
    """Return outputs of a cell with what was printed in one piece: how it is cut depends on the time."""
    joined: list[dict] = []
    for output in outputs:
        if joined and output["output_type"] == "stream" and output.get("name") == joined[-1].get("name"):
            joined[-1] = joined[-1] | {"text": [*joined[-1]["text"], *output["text"]]}
        else:
            joined.append(output)
    return joined


def read_output(output: dict) -> object:
    """Return what two executions of a cell have in common."""
    shown = {kind: value for kind, value in output.get("data", {}).items() if kind.startswith("image/")}
    text = "".join(output.get("text", [])) or "".join(output.get("data", {}).get("text/plain", []))
    return output["output_type"], shown, NOISE.sub("#", text)


def is_marked(path: Path) -> bool:
    """Return whether this is a notebook whose first cell says that it stopped before its end."""
    if path.suffix != ".ipynb":
        return False
    try:
        first = json.loads(path.read_bytes())["cells"][0]
    except (ValueError, LookupError):  # half a file
        return False
    return "papermill-error-cell-tag" in first["metadata"].get("tags", [])


def find_damage(folder: Path, expected: dict[str, str]) -> str | None:
    """Say which file of an interrupted command looks finished and is not; None if all are whole.

    Hidden files and folders are never taken for a result. A log grows while its training does. A notebook may
    say above its cells that it is not whole.
    """
    there = read_contents(folder) if folder.exists() else {}
    wrong = [
        name
        for name in there.keys() & expected.keys()
        if there[name] != expected[name] and Path(name).name != "metrics.csv" and not is_marked(folder / name)
    ]
    return f"{', '.join(sorted(wrong))} looks whole and is not" if wrong else None


@dataclass
class Running:
    """A command that runs; what it says goes to a file."""

    process: subprocess.Popen | Child
    log: Path

    @classmethod
    def start(
        cls,
        command: Sequence[str],
        log: Path,
        before: Sequence[str] = (),
        environment: Mapping[str, str] = MappingProxyType({}),
        nursery: Nursery | None = None,
    ) -> "Running":
        """Start a command of davae in a session of its own, by way of the words `before`.

        A nursery, if there is one, starts what has neither such words nor variables of its own.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        if nursery is not None and not before and not environment:
            log.touch()  # the process may be killed before it does so
            return cls(nursery.start(command, log), log)
        with log.open("wb") as said:
            process = subprocess.Popen(
                [*before, sys.executable, "-m", "davae", *command],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                env={**os.environ, **ENVIRONMENT, **environment},
                start_new_session=True,
            )
        return cls(process, log)

    def wait(self) -> "Ended":
        """Wait until it has ended. One that hangs is killed and counts as failed."""
        try:
            code = self.process.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            self.send(signal.SIGKILL, group=True)
            self.process.wait()
            code = -signal.SIGALRM
        return Ended(code, self.log.read_text(encoding="utf-8", errors="replace"))

    def wait_for_file(self, folder: Path) -> bool:
        """Wait until something is in a folder; return False if the command ended before."""
        while self.process.poll() is None:
            if folder.exists() and any(folder.iterdir()):
                return True
            time.sleep(0.002)
        return False

    def children(self) -> list[psutil.Process]:
        """Return all processes that it has started and that run."""
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def send(self, sent: signal.Signals, group: bool = False) -> bool:
        """Send a signal, to all of its processes if `group`; return False if it had ended before."""
        if self.process.poll() is not None:
            return False
        try:
            (os.killpg if group else os.kill)(self.process.pid, sent)
        except ProcessLookupError:  # a nursery tells of the end a moment later
            return False
        return True


@dataclass(frozen=True)
class Ended:
    """What became of a command."""

    code: int
    said: str

    def describe(self) -> str:
        """Return its exit code and its last words."""
        lines = [line for line in re.split(r"[\r\n]+", self.said) if line.strip()]
        return f"exit code {self.code}, {' / '.join(lines[-2:])[-400:]!r}"


def find_leftovers(processes: Sequence[psutil.Process]) -> str | None:
    """Say which of these processes do not end; None if all do."""
    _, alive = psutil.wait_procs(processes, timeout=END_S)
    for process in alive:
        process.kill()
    return f"{len(alive)} of its processes outlive it" if alive else None
