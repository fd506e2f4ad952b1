"""Whole commands: how long davae takes to start, what grows with the data, what a second process brings."""

import csv
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import median

from full_size import link_tree
from private_memory import watch
from timing import Row, alternate, run
from workbench import Workbench

from davae.config import preset

DAVAE = [sys.executable, "-m", "davae"]
TIMES = (1, 4, 16)  # as much data
FLAT = "ratio <= 1.1"
FIRST_STEP, LAST_STEP = 10, 30  # between which a run's images a second are counted
PATIENCE_S = 300


def start_rows(bench: Workbench) -> Iterator[Row]:
    """Seconds of whole processes that do nothing but start."""
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "import davae": [sys.executable, "-c", "import davae"],
        "python -m davae --help": [*DAVAE, "--help"],
    }
    works = {name: partial(run, command) for name, command in commands.items()}
    seconds = alternate(works, bench.rounds, title="start")
    own, *others = seconds
    yield Row(own, seconds[own], "s")
    for name, limit in zip(others, (0.3, 1.0), strict=True):
        baseline = f"{own}: {seconds[own]:.3g}"
        yield Row(name, seconds[name], "s", baseline, seconds[name] / seconds[own], f"value <= {limit}")


def growth_rows(bench: Workbench) -> Iterator[Row]:
    """Time and private memory of prepare, train and evaluate at 1, 4 and 16 times the data, one run each.

    Memory is what every process of a command holds for itself; see `private_memory`.
    """
    # As many to validate and to test as go through a network at a time: fewer would need less memory.
    counts = {"train": 15, "val": 5, "test": 5} if bench.quick else {"train": 300, "val": 100, "test": 100}
    samples = sum(counts.values())
    found = {}
    with tempfile.TemporaryDirectory(dir=bench.scratch()) as folder:
        for times in TIMES[:2] if bench.quick else TIMES:
            tree, prepared, trained = (Path(folder) / name for name in ("tree", "prepared", "run"))
            link_tree(bench.rendered(), tree, {split: times * count for split, count in counts.items()})
            stages = {
                "prepare": [
                    "--dataset",
                    "rhd",
                    "--root",
                    tree,
                    "--out",
                    prepared,
                    "--size",
                    64,
                    "--workers",
                    2,
                ],
                "train": ["--preset", "smoke", "--data", prepared, "--run", trained],
                "evaluate": ["--run", trained, "--data", prepared, "--out", Path(folder) / "report.json"],
            }
            for stage, options in stages.items():
                print(f"{stage}, {times} x {samples} samples", flush=True)
                log = Path(folder) / "log"
                with log.open("w", encoding="utf-8") as file:
                    done = watch([*DAVAE, stage, *map(str, options)], stdout=file, stderr=file)
                if done.status:
                    raise RuntimeError(
                        f"davae {stage} ended with {done.status}: {log.read_text('utf-8', 'replace')[-2000:]}"
                    )
                found[stage, times] = done
            for path in (tree, prepared, trained):
                shutil.rmtree(path)
    for (stage, times), done in found.items():
        least = found[stage, 1]
        name = f"{stage}, {times} x {samples} samples"
        yield Row(
            f"{name}: time", done.seconds, "s", f"1 x: {least.seconds:.3g}", done.seconds / least.seconds
        )
        yield Row(
            f"{name}: private memory", done.peak_mib, "MiB", f"1 x: {least.peak_mib:.4g}",
            done.peak_mib / least.peak_mib, FLAT if times > 1 else "",
        )  # fmt: skip
        if stage == "prepare":
            yield Row(f"{name}, 64 px, 2 workers: rate", times * samples / done.seconds, "images/s")


def rank_rows(bench: Workbench) -> Iterator[Row]:
    """Images a second of two processes of torchrun, one thread each, and of one process with two threads."""
    name = "smoke" if bench.quick else "sweep"
    data = bench.prepared(preset(name).data)
    train = ["davae", "train", "--preset", name, "--mask", "truth", "--data", str(data), "--run"]
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    kinds = {
        "one process, two threads": (["-m", *train], "2"),
        # torchrun would take --run for a short form of an option of its own, but for the dashes.
        "two processes, one thread each": ([*launch, "-m", "--", *train], "1"),
    }
    rates: dict[str, list[float]] = {kind: [] for kind in kinds}
    for turn in range(min(3, bench.rounds)):
        for kind, (options, threads) in kinds.items():
            print(f"{kind}, turn {turn + 1}", flush=True)
            with tempfile.TemporaryDirectory(dir=bench.scratch()) as folder:
                pace = steps_per_second([sys.executable, *options], Path(folder) / "run", threads)
            rates[kind].append(pace * preset(name).train.batch_size)
    one, two = (median(values) for values in rates.values())
    yield Row(
        f"{name}: two processes, one thread each", two, "images/s", f"one process: {one:.4g}", two / one
    )


def steps_per_second(command: list[str], folder: Path, threads: str) -> float:
    """Train into `folder` until step `LAST_STEP` is in its metrics.csv, end the training, return its pace."""
    log = folder.parent / "log"
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            [*command, str(folder)], stdout=file, stderr=file, env=os.environ | {"OMP_NUM_THREADS": threads}
        )
        began = time.perf_counter()
        while (at := seconds_at(folder / "metrics.csv")).keys().isdisjoint({LAST_STEP}):
            if process.poll() is not None or time.perf_counter() - began > PATIENCE_S:
                process.terminate()
                process.wait()
                raise RuntimeError(
                    f"{' '.join(command)}: no step {LAST_STEP}: {log.read_text('utf-8', 'replace')[-2000:]}"
                )
            time.sleep(0.2)
        process.terminate()
        process.wait()
    return (LAST_STEP - FIRST_STEP) / (at[LAST_STEP] - at[FIRST_STEP])


def seconds_at(metrics: Path) -> dict[int, float]:
    """Seconds of training at each step in metrics.csv, but for a last row that is only half written."""
    if not metrics.exists():
        return {}
    with metrics.open(newline="", encoding="utf-8") as file:
        whole = [line for line in file if line.endswith("\n")]
    return {int(row["step"]): float(row["seconds"]) for row in csv.DictReader(whole)}
