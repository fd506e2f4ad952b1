"""How the suite measures: runs that take turns, medians, rows with bars, memory of fresh processes."""

import dataclasses
import functools
import gc
import json
import operator
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from tqdm.auto import tqdm

FOLDER = Path(__file__).parent
RELATIONS = {">=": operator.ge, "<=": operator.le}


@dataclass(frozen=True)
class Row:
    """One figure. What it is compared with was measured in turns with it."""

    name: str
    value: float
    unit: str
    baseline: str = ""  # what `ratio` has below its line, with its own value
    ratio: float | None = None
    bar: str = ""  # such as "ratio >= 3" or "value <= 0.3"; empty where nothing is asked

    def __post_init__(self):
        if self.bar:
            quantity, relation, limit = self.bar.split()
            if (
                quantity not in ("ratio", "value")
                or relation not in RELATIONS
                or getattr(self, quantity) is None
            ):
                raise ValueError(
                    f"{self.name}: bar {self.bar!r} is not 'ratio|value >=|<= NUMBER' of a known one"
                )
            float(limit)

    @property
    def met(self) -> bool | None:
        """Whether the bar is met, or None where there is none. What is not a number meets nothing."""
        if not self.bar:
            return None
        quantity, relation, limit = self.bar.split()
        return RELATIONS[relation](getattr(self, quantity), float(limit))

    def to_dict(self) -> dict[str, Any]:
        """The row as JSON holds it."""
        return dataclasses.asdict(self) | {"met": self.met}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Row":
        """The inverse of `to_dict`; whether the bar is met is judged anew."""
        return cls(**{name: value for name, value in values.items() if name != "met"})


def alternate(
    functions: Mapping[str, Callable[[], object]],
    rounds: int,
    *,
    warm_up: int = 1,
    title: str = "",
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Run functions in turns (A, B, A, B, ...), so that what else the machine does meets all of them alike.

    Args:
        functions: what to run, by name.
        rounds: how often each runs.
        warm_up: rounds before that, which do not count.
        title: of the progress bar; none is shown where it is empty.
        clock: seconds.

    Returns:
        The median of each one's seconds.
    """
    spent: dict[str, list[float]] = {name: [] for name in functions}
    with tqdm(total=(warm_up + rounds) * len(functions), desc=title, leave=False, disable=not title) as bar:
        for turn in range(warm_up + rounds):
            for name, function in functions.items():
                began = clock()
                function()
                if turn >= warm_up:
                    spent[name].append(clock() - began)
                bar.update()
    return {name: statistics.median(times) for name, times in spent.items()}


def clock_of(device: torch.device) -> Callable[[], float]:
    """A clock in seconds that first waits until the device has done all it was asked for."""

    def clock() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return clock if device.type == "cuda" else time.perf_counter


class Stopwatch:
    """Milliseconds by stage: CPU time of this process, or of another clock."""

    def __init__(self, clock: Callable[[], float] = time.process_time):
        self.clock, self.spent = clock, {}

    def timed(self, stage: str, work: Callable):
        """`work`, such that the time of its calls is added to `stage`."""

        @functools.wraps(work, updated=())
        def run(*args, **kwargs):
            start = self.clock()
            try:
                return work(*args, **kwargs)
            finally:
                self.spent[stage] = self.spent.get(stage, 0.0) + 1000 * (self.clock() - start)

        return run


def in_fresh_process(module: str, function: str, *arguments: Any) -> Any:
    """Call a function of a module of this folder in a process of its own; arguments and result pass as JSON.

    Raises:
        RuntimeError: it failed; the message holds the end of what it said.
    """
    code = f"import sys, json; sys.path.insert(0, sys.argv[1]); import {module}; "
    code += f"print(json.dumps({module}.{function}(*json.loads(sys.argv[2]))))"
    return json.loads(run([sys.executable, "-c", code, str(FOLDER), json.dumps(arguments)]).splitlines()[-1])


def run(command: list[str], **environment: str) -> str:
    """Run a command and return what it prints.

    Raises:
        RuntimeError: it failed; the message holds the end of what it said.
    """
    environ = os.environ | environment
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", env=environ)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: ended with status {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout


def peak_growth_mib(work: Callable[[], object]) -> float:
    """How far this process's resident memory rises, at most, above what it is now while `work` runs, MiB.

    Of use in a fresh process alone: elsewhere `work` may find memory that was given back before.
    """
    gc.collect()
    before = psutil.Process().memory_info().rss / 2**20
    clear = Path("/proc/self/clear_refs")
    if clear.exists():
        clear.write_bytes(b"5")  # forget the peak so far, that of the imports; Linux alone can
    work()
    return _peak_mib() - before


def _peak_mib() -> float:
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss of a process just started may be its parent's there
        lines = dict(line.split(":", 1) for line in status.read_text(encoding="utf-8").splitlines())
        return int(lines["VmHWM"].split()[0]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
