"""Tools of the suite: runs in turns, medians, rows with bars, memory of fresh processes."""

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
    """One measured value, its baseline and the bar that it should meet.

    Attributes:
        name: what was measured.
        value: the result, in `unit`.
        unit: unit of `value`.
        baseline: name and value of what `ratio` divides by; it was measured in turns with `value`.
        ratio: comparison with the baseline, or None.
        bar: requirement, such as "ratio >= 3" or "value <= 0.3"; empty if there is none.
    """

    name: str
    value: float
    unit: str
    baseline: str = ""
    ratio: float | None = None
    bar: str = ""

    def __post_init__(self):
        if self.bar:
            quantity, relation, limit = self.bar.split()
            if (
                quantity not in ("ratio", "value")
                or relation not in RELATIONS
                or getattr(self, quantity) is None
            ):
                raise ValueError(
                    f"{self.name}: bar {self.bar!r} is not 'ratio|value >=|<= NUMBER', or there is no ratio"
                )
            float(limit)

    @property
    def met(self) -> bool | None:
        """Whether the bar is met; None without a bar. NaN never meets a bar."""
        if not self.bar:
            return None
        quantity, relation, limit = self.bar.split()
        return RELATIONS[relation](getattr(self, quantity), float(limit))

    def to_dict(self) -> dict[str, Any]:
        """Return the row as a JSON object, with `met`."""
        return dataclasses.asdict(self) | {"met": self.met}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Row":
        """Return the row of `to_dict`; `met` is computed again."""
        return cls(**{name: value for name, value in values.items() if name != "met"})


def alternate(
    functions: Mapping[str, Callable[[], object]],
    rounds: int,
    *,
    warm_up: int = 1,
    title: str = "",
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Run functions in turns (A, B, A, B, ...), so that other load on the machine slows all of them equally.

    Args:
        functions: name -> function to run.
        rounds: number of measured runs of each function.
        warm_up: number of runs before them that are not measured.
        title: title of the progress bar; an empty title shows no bar.
        clock: returns the time in seconds.

    Returns:
        Name -> median seconds of a run.
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


def make_clock(device: torch.device) -> Callable[[], float]:
    """Return a clock, in seconds, that waits for the device to finish its work before it is read."""

    def clock() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return clock if device.type == "cuda" else time.perf_counter


class Stopwatch:
    """Milliseconds by stage, `spent`, of CPU time of this process by default, or of another clock."""

    def __init__(self, clock: Callable[[], float] = time.process_time):
        self.clock, self.spent = clock, {}

    def wrap(self, stage: str, work: Callable):
        """Return a wrapper of `work` that adds the duration of each call to `stage`."""

        @functools.wraps(work, updated=())
        def run(*args, **kwargs):
            start = self.clock()
            try:
                return work(*args, **kwargs)
            finally:
                self.spent[stage] = self.spent.get(stage, 0.0) + 1000 * (self.clock() - start)

        return run


def run_in_fresh_process(module: str, function: str, *arguments: Any) -> Any:
    """Call a function of a module of this folder in a new process; arguments and result pass as JSON.

    Raises:
        RuntimeError: the process failed; the message contains the end of its error output.
    """
    code = f"import sys, json; sys.path.insert(0, sys.argv[1]); import {module}; "
    code += f"print(json.dumps({module}.{function}(*json.loads(sys.argv[2]))))"
    return json.loads(
        run_command([sys.executable, "-c", code, str(FOLDER), json.dumps(arguments)]).splitlines()[-1]
    )


def run_command(command: list[str], **environment: str) -> str:
    """Run a command, with additional environment variables, and return what it prints.

    Raises:
        RuntimeError: the command failed; the message contains the end of its error output.
    """
    environ = os.environ | environment
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", env=environ)
    if done.returncode:
        raise RuntimeError(
            f"{' '.join(command)}: exited with status {done.returncode}: {done.stderr[-2000:]}"
        )
    return done.stdout


def measure_peak_growth_mib(work: Callable[[], object]) -> float:
    """Return the peak growth, MiB, of this process's resident memory while `work` runs.

    Use it in a fresh process only: elsewhere `work` may reuse memory that was freed before.
    """
    gc.collect()
    before = psutil.Process().memory_info().rss / 2**20
    clear = Path("/proc/self/clear_refs")
    if clear.exists():
        clear.write_bytes(b"5")  # reset the peak, which the imports may have set; Linux only
    work()
    return _peak_mib() - before


def _peak_mib() -> float:
    status = Path("/proc/self/status")
    if status.exists():  # on Linux, ru_maxrss of a new process may be that of its parent
        lines = dict(line.split(":", 1) for line in status.read_text(encoding="utf-8").splitlines())
        return int(lines["VmHWM"].split()[0]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
