"""Measure how other programs on the same cores slow davae: a photo, a training, the app's first photo.

    python benchmarks/suite.py --only busy

Each task is timed in fresh processes: on an idle machine, beside one and two programs that each keep one core
busy, and beside a plain torch training on all cores. On two cores, a fair share beside one busy program is at
most twice the time.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

from timing import Row, run_in_fresh_process
from workbench import Workbench

PHOTOS = 9  # photos per predictor, of which the median is taken
SPIN = "while True: pass"
TRAIN = (
    "import torch\n"
    "layers = torch.nn.Sequential(*[torch.nn.Conv2d(32, 32, 3, padding=1) for _ in range(8)])\n"
    "images = torch.randn(16, 32, 32, 32)\n"
    "while True: layers(images).sum().backward()"
)
BESIDE = {
    "alone": [],
    "beside one busy program": [SPIN],
    "beside two": [SPIN, SPIN],
    "beside a training on all cores": [TRAIN],
}
FAIR = {"beside one busy program": "ratio <= 2"}
STARTUP_S = 4  # time that another program needs to finish its imports


def measure_rows(bench: Workbench) -> Iterator[Row]:
    """Yield the median seconds of each task, alone and beside each set of other programs."""
    from davae.config import preset

    photo = min((bench.render() / "evaluation" / "color").glob("*.png"))
    data = bench.prepare(preset("smoke").data)
    works = {
        "one photo, predictor loaded": ("time_photo", str(photo)),
        "training at smoke": ("time_training", str(data)),
        "the app's first photo": ("time_first_photo", str(photo)),
    }
    for name, (function, argument) in works.items():
        seconds: dict[str, list[float]] = {beside: [] for beside in BESIDE}
        for turn in range(min(3, bench.rounds)):
            for beside, programs in BESIDE.items():
                print(f"{name}, {beside}, turn {turn + 1}", flush=True)
                with run_beside(programs):
                    seconds[beside].append(run_in_fresh_process("busy", function, argument))
        alone = median(seconds["alone"])
        for beside, times in seconds.items():
            baseline = f"alone: {alone:.3g}" if beside != "alone" else ""
            ratio = median(times) / alone if baseline else None
            yield Row(f"{name}, {beside}", median(times), "s", baseline, ratio, FAIR.get(beside, ""))


@contextmanager
def run_beside(programs: list[str]) -> Iterator[None]:
    """Run these Python programs during the context, then kill them."""
    with ExitStack() as running:
        for program in programs:
            process = subprocess.Popen([sys.executable, "-c", program])
            running.callback(process.wait)
            running.callback(process.kill)
        if programs:
            time.sleep(STARTUP_S)
        yield


def time_photo(photo: str) -> float:
    """Return the median seconds of `HandPredictor.predict`, without the first call."""
    from davae.photo.predict import HandPredictor

    predictor = HandPredictor.load()
    times = []
    for _ in range(1 + PHOTOS):
        began = time.perf_counter()
        predictor.predict(photo)
        times.append(time.perf_counter() - began)
    return median(times[1:])


def time_training(data: str) -> float:
    """Return the seconds of a whole training at preset smoke."""
    from davae.config import preset
    from davae.training.davae_task import train

    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        train(preset("smoke"), data, Path(folder) / "run", progress=False)
        return time.perf_counter() - began


def time_first_photo(photo: str) -> float:
    """Return the seconds that a page needs to show its first hand: imports, weights, photo, mesh, files."""
    began = time.perf_counter()
    from davae.photo.app.pages import Pages

    page = Pages.open().photo
    page.open(Path(photo).read_bytes(), "photo.png")
    if page.hand is None:
        raise RuntimeError(page.message.value)
    return time.perf_counter() - began
