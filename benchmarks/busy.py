"""What other programs on the same cores cost davae: a photo, a training, the app's first photo.

    python benchmarks/suite.py --only busy

Each is timed in fresh processes: on a machine left alone, beside programs that keep one and two cores busy,
and beside a training by plain torch on all cores. On two cores a fair share beside one busy program is half.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

from timing import Row, in_fresh_process
from workbench import Workbench

PHOTOS = 9  # looked at by one predictor; the median counts
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
IMPORTED_S = 4  # until a competitor's own imports are over


def rows(bench: Workbench) -> Iterator[Row]:
    """Seconds of each work alone and beside each kind of other programs, median over the rounds."""
    from davae.config import preset

    photo = min((bench.rendered() / "evaluation" / "color").glob("*.png"))
    data = bench.prepared(preset("smoke").data)
    works = {
        "one photo, predictor loaded": ("seconds_of_a_photo", str(photo)),
        "training at smoke": ("seconds_of_training", str(data)),
        "the app's first photo": ("seconds_of_first_photo", str(photo)),
    }
    for name, (function, argument) in works.items():
        seconds: dict[str, list[float]] = {beside: [] for beside in BESIDE}
        for turn in range(min(3, bench.rounds)):
            for beside, programs in BESIDE.items():
                print(f"{name}, {beside}, turn {turn + 1}", flush=True)
                with others(programs):
                    seconds[beside].append(in_fresh_process("busy", function, argument))
        alone = median(seconds["alone"])
        for beside, times in seconds.items():
            baseline = f"alone: {alone:.3g}" if beside != "alone" else ""
            ratio = median(times) / alone if baseline else None
            yield Row(f"{name}, {beside}", median(times), "s", baseline, ratio, FAIR.get(beside, ""))


@contextmanager
def others(programs: list[str]) -> Iterator[None]:
    """Let these programs run meanwhile."""
    with ExitStack() as running:
        for program in programs:
            process = subprocess.Popen([sys.executable, "-c", program])
            running.callback(process.wait)
            running.callback(process.kill)
        if programs:
            time.sleep(IMPORTED_S)
        yield


def seconds_of_a_photo(photo: str) -> float:
    """Median of `HandPredictor.predict`, the first call apart."""
    from davae.photo.predict import HandPredictor

    predictor = HandPredictor.load()
    times = []
    for _ in range(1 + PHOTOS):
        began = time.perf_counter()
        predictor.predict(photo)
        times.append(time.perf_counter() - began)
    return median(times[1:])


def seconds_of_training(data: str) -> float:
    """A whole training at preset smoke."""
    from davae.config import preset
    from davae.training.davae_task import train

    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        train(preset("smoke"), data, Path(folder) / "run", progress=False)
        return time.perf_counter() - began


def seconds_of_first_photo(photo: str) -> float:
    """What a page's kernel does until the first hand stands there: imports, weights, photo, mesh, files."""
    began = time.perf_counter()
    from davae.photo.app.pages import Pages

    page = Pages.open().photo
    page.open(Path(photo).read_bytes(), "photo.png")
    if page.hand is None:
        raise RuntimeError(page.message.value)
    return time.perf_counter() - began
