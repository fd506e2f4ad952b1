"""Measure the data path (render, prepare, load and augment) beside PNG decoding and training."""

import tempfile
from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path

from limits import make_decoding
from timing import Row, alternate
from training import STEPS, Batches, Training, shrink_batch
from workbench import Workbench

from davae.config import DataConfig
from davae.data.prepared import prepare
from synthhand.dataset.writer import write_dataset


def measure_rows(bench: Workbench) -> Iterator[Row]:
    """Yield the rows of all three stages."""
    yield from measure_render(bench)
    yield from measure_prepare(bench)
    for name in ("smoke",) if bench.quick else ("laptop", "paper"):
        yield from measure_batches(bench, name)


def measure_render(bench: Workbench) -> Iterator[Row]:
    """Yield images per second of the renderer, including the start of its processes."""
    images, size = (2, 64) if bench.quick else (200, 320)
    with tempfile.TemporaryDirectory(dir=bench.make_scratch()) as folder:
        numbers = count()

        def render(workers: int) -> None:
            out = Path(folder) / str(next(numbers))
            write_dataset(out, images, 0, 0, seed=5, size=size, workers=workers, progress=False)

        works = {workers: partial(render, workers) for workers in (1, 2)}
        decode = make_decoding(bench.render(), images)
        seconds = alternate(works | {"decode": decode.run}, min(2, bench.rounds), title="render")
    rates = {workers: images / seconds[workers] for workers in works}
    decoded = decode.amount / seconds["decode"]
    name, unit = f"render, {size} px", "images/s"
    yield Row(f"{name}, 1 worker", rates[1], unit, f"PNG decoding: {decoded:.4g}", rates[1] / decoded)
    yield Row(
        f"{name}, 2 workers, start included", rates[2], unit, f"1 worker: {rates[1]:.4g}", rates[2] / rates[1]
    )


def measure_prepare(bench: Workbench) -> Iterator[Row]:
    """Yield images per second of prepare beside decoding the colour images, one of three per sample."""
    root = bench.render()
    images = len(list(root.glob("*/color/*.png")))
    settings = ((64, 1),) if bench.quick else ((64, 1), (64, 2), (256, 2))
    with tempfile.TemporaryDirectory(dir=bench.make_scratch()) as folder:
        numbers = count()

        def run(px: int, workers: int) -> None:
            out = Path(folder) / str(next(numbers))
            prepare("synthhand", root, out, DataConfig(image_px=px), workers=workers, progress=False)

        works = {setting: partial(run, *setting) for setting in settings}
        decode = make_decoding(root, images)
        seconds = alternate(works | {"decode": decode.run}, min(3, bench.rounds), title="prepare")
    decoded = decode.amount / seconds["decode"]
    for px, workers in settings:
        rate = images / seconds[px, workers]
        name = f"prepare, {px} px, " + ("1 worker" if workers == 1 else f"{workers} workers, start included")
        yield Row(name, rate, "images/s", f"PNG decoding, 1 core: {decoded:.4g}", rate / decoded)


def measure_batches(bench: Workbench, name: str) -> Iterator[Row]:
    """Yield augmented images per second, beside the rate at which training consumes them."""
    config, steps = shrink_batch(bench, name), 1 if bench.quick else STEPS[name]
    split, validation = bench.open_split(config.data), bench.open_split(config.data, "val")
    batches = Batches(config, split)
    with tempfile.TemporaryDirectory() as run:
        davae = Training(config, split, validation, Path(run))
        works = {
            "batches": lambda: [batches.next() for _ in range(steps)],
            "training": partial(davae.steps, steps),
        }
        seconds = alternate(works, bench.rounds, title=f"batches, {name}")
    made, used = (steps * config.train.batch_size / seconds[work] for work in works)
    yield Row(
        f"{name}: load and augment", made, "images/s", f"training: {used:.4g}", made / used, "ratio >= 3"
    )
