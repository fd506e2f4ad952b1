"""To batches: rendering, preparing, loading and augmenting, beside PNG decoding and training."""

import tempfile
from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path

from limits import decoding
from timing import Row, alternate
from training import STEPS, Batches, Training, beside_reference
from workbench import Workbench

from davae.config import DataConfig
from davae.data.prepared import prepare
from synthhand.dataset.writer import write_dataset


def rows(bench: Workbench) -> Iterator[Row]:
    """Measure all three."""
    yield from render_rows(bench)
    yield from prepare_rows(bench)
    for name in ("smoke",) if bench.quick else ("laptop", "paper"):
        yield from batch_rows(bench, name)


def render_rows(bench: Workbench) -> Iterator[Row]:
    """Images a second of the renderer, start of its processes included."""
    images, size = (2, 64) if bench.quick else (200, 320)
    with tempfile.TemporaryDirectory(dir=bench.scratch()) as folder:
        numbers = count()

        def render(workers: int) -> None:
            out = Path(folder) / str(next(numbers))
            write_dataset(out, images, 0, 0, seed=5, size=size, workers=workers, progress=False)

        works = {workers: partial(render, workers) for workers in (1, 2)}
        decode = decoding(bench.rendered(), images)
        seconds = alternate(works | {"decode": decode.run}, min(2, bench.rounds), title="render")
    rates = {workers: images / seconds[workers] for workers in works}
    decoded = decode.amount / seconds["decode"]
    name, unit = f"render, {size} px", "images/s"
    yield Row(f"{name}, 1 worker", rates[1], unit, f"PNG decoding: {decoded:.4g}", rates[1] / decoded)
    yield Row(
        f"{name}, 2 workers, start included", rates[2], unit, f"1 worker: {rates[1]:.4g}", rates[2] / rates[1]
    )


def prepare_rows(bench: Workbench) -> Iterator[Row]:
    """Images a second of prepare, against decoding their colour images alone (of three that a sample has)."""
    root = bench.rendered()
    images = len(list(root.glob("*/color/*.png")))
    settings = ((64, 1),) if bench.quick else ((64, 1), (64, 2), (256, 2))
    with tempfile.TemporaryDirectory(dir=bench.scratch()) as folder:
        numbers = count()

        def run(px: int, workers: int) -> None:
            out = Path(folder) / str(next(numbers))
            prepare("synthhand", root, out, DataConfig(image_px=px), workers=workers, progress=False)

        works = {setting: partial(run, *setting) for setting in settings}
        decode = decoding(root, images)
        seconds = alternate(works | {"decode": decode.run}, min(3, bench.rounds), title="prepare")
    decoded = decode.amount / seconds["decode"]
    for px, workers in settings:
        rate = images / seconds[px, workers]
        name = f"prepare, {px} px, " + ("1 worker" if workers == 1 else f"{workers} workers, start included")
        yield Row(name, rate, "images/s", f"PNG decoding, 1 core: {decoded:.4g}", rate / decoded)


def batch_rows(bench: Workbench, name: str) -> Iterator[Row]:
    """Augmented images a second, against what training consumes."""
    config, steps = beside_reference(bench, name), 1 if bench.quick else STEPS[name]
    split, validation = bench.split(config.data), bench.split(config.data, "val")
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
