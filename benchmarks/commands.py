"""Measure whole commands: start-up time, growth with the amount of data, gain of a second process."""

import csv
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median

from full_size import link_tree
from private_memory import watch
from timing import Row, alternate, run_command
from workbench import Workbench

from davae.config import preset
from davae.photo.packed import read_packed
from davae.photo.predict import WEIGHTS
from davae.photo.release import write_packed

DAVAE = [sys.executable, "-m", "davae"]
TIMES = (1, 4, 16)  # multiples of the smallest amount of data
FLAT = "ratio <= 1.1"
FIRST_STEP, LAST_STEP = 10, 30  # the speed of a run is measured between these steps
PATIENCE_S = 300


def measure_start(bench: Workbench) -> Iterator[Row]:
    """Yield the seconds of processes that start and exit."""
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "import davae": [sys.executable, "-c", "import davae"],
        "python -m davae --help": [*DAVAE, "--help"],
    }
    works = {name: partial(run_command, command) for name, command in commands.items()}
    seconds = alternate(works, bench.rounds, title="start")
    own, *others = seconds
    yield Row(own, seconds[own], "s")
    for name, limit in zip(others, (0.3, 1.0), strict=True):
        baseline = f"{own}: {seconds[own]:.3g}"
        yield Row(name, seconds[name], "s", baseline, seconds[name] / seconds[own], f"value <= {limit}")


def measure_predict(bench: Workbench) -> Iterator[Row]:
    """Yield how long `predict` takes with the shipped weights, beside the same weights run by torch.

    One photo from the start of the process to its end, and the rate of the photos after the first.
    """
    photos = sorted(map(str, (bench.render() / "evaluation" / "color").glob("*.png")))
    photos = photos[: 3 if bench.quick else 60]
    with tempfile.TemporaryDirectory(dir=bench.make_scratch()) as folder:
        without = Path(folder) / "without-graphs.safetensors"
        write_packed(replace(read_packed(WEIGHTS), path=without, graphs={}, norms={}, inputs={}))
        out = ["--out", f"{folder}/out", "--weights"]
        works = {
            (count, kind): partial(run_command, [*DAVAE, "predict", *photos[:count], *out, str(file)])
            for count in (1, len(photos))
            for kind, file in (("ONNX Runtime", WEIGHTS), ("torch", without))
        }
        seconds = alternate(works, bench.rounds, title="predict")
    one, by_torch = seconds[1, "ONNX Runtime"], seconds[1, "torch"]
    yield Row("predict, one photo", one, "s", f"torch: {by_torch:.3g}", one / by_torch, "value <= 2")
    rate, by_torch = (
        (len(photos) - 1) / (seconds[len(photos), kind] - seconds[1, kind])
        for kind in ("ONNX Runtime", "torch")
    )
    name = f"predict, each of {len(photos) - 1} more photos"
    yield Row(name, rate, "images/s", f"torch: {by_torch:.3g}", rate / by_torch, "value >= 45")


def measure_growth(bench: Workbench) -> Iterator[Row]:
    """Yield time and private memory of prepare, train and evaluate, one run each, at 1, 4, 16 times the data.

    Private memory is summed over all processes of a command; see `private_memory`.
    """
    # Validation and test fill an evaluation batch, so that the smallest run needs the memory of one.
    counts = {"train": 15, "val": 5, "test": 5} if bench.quick else {"train": 300, "val": 100, "test": 100}
    samples = sum(counts.values())
    found = {}
    with tempfile.TemporaryDirectory(dir=bench.make_scratch()) as folder:
        for times in TIMES[:2] if bench.quick else TIMES:
            tree, prepared, trained = (Path(folder) / name for name in ("tree", "prepared", "run"))
            link_tree(bench.render(), tree, {split: times * count for split, count in counts.items()})
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
                    said = log.read_text("utf-8", "replace")[-2000:]
                    raise RuntimeError(f"davae {stage} exited with status {done.status}: {said}")
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


def measure_ranks(bench: Workbench) -> Iterator[Row]:
    """Yield images per second of two torchrun processes with one thread each, beside one process with two."""
    name = "smoke" if bench.quick else "sweep"
    data = bench.prepare(preset(name).data)
    train = ["davae", "train", "--preset", name, "--mask", "truth", "--data", str(data), "--run"]
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    kinds = {
        "one process, two threads": (["-m", *train], "2"),
        # Without the dashes torchrun would read --run as an abbreviation of one of its own options.
        "two processes, one thread each": ([*launch, "-m", "--", *train], "1"),
    }
    rates: dict[str, list[float]] = {kind: [] for kind in kinds}
    for turn in range(min(3, bench.rounds)):
        for kind, (options, threads) in kinds.items():
            print(f"{kind}, turn {turn + 1}", flush=True)
            with tempfile.TemporaryDirectory(dir=bench.make_scratch()) as folder:
                pace = measure_steps_per_second([sys.executable, *options], Path(folder) / "run", threads)
            rates[kind].append(pace * preset(name).train.batch_size)
    one, two = (median(values) for values in rates.values())
    yield Row(
        f"{name}: two processes, one thread each", two, "images/s", f"one process: {one:.4g}", two / one
    )


def measure_steps_per_second(command: list[str], folder: Path, threads: str) -> float:
    """Train into `folder` until its metrics.csv has step `LAST_STEP`, stop, and return steps per second.

    Raises:
        RuntimeError: the training ended, or took longer than `PATIENCE_S`, before that step.
    """
    log = folder.parent / "log"
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            [*command, str(folder)], stdout=file, stderr=file, env=os.environ | {"OMP_NUM_THREADS": threads}
        )
        began = time.perf_counter()
        while (at := read_seconds(folder / "metrics.csv")).keys().isdisjoint({LAST_STEP}):
            if process.poll() is not None or time.perf_counter() - began > PATIENCE_S:
                process.terminate()
                process.wait()
                said = log.read_text("utf-8", "replace")[-2000:]
                raise RuntimeError(f"{' '.join(command)}: step {LAST_STEP} was not reached: {said}")
            time.sleep(0.2)
        process.terminate()
        process.wait()
    return (LAST_STEP - FIRST_STEP) / (at[LAST_STEP] - at[FIRST_STEP])


def read_seconds(metrics: Path) -> dict[int, float]:
    """Return step -> seconds of training from metrics.csv; an unfinished last line is ignored."""
    if not metrics.exists():
        return {}
    with metrics.open(newline="", encoding="utf-8") as file:
        whole = [line for line in file if line.endswith("\n")]
    return {int(row["step"]): float(row["seconds"]) for row in csv.DictReader(whole)}
