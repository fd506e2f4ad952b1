"""Measure a training step of each preset: images per second, time by part, memory, beside the reference.

In both, the allocator keeps freed memory. davae's training always does so; the reference would not by itself.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from unittest import mock

import torch
from limits import CPU, NAMES, choose_dtypes, make_convolution
from reference import ReferenceTraining, RenderedSamples
from timing import Row, Stopwatch, alternate, make_clock, measure_peak_growth_mib, run_in_fresh_process
from torch.utils.flop_counter import FlopCounterMode
from workbench import Workbench, replace_batch

from davae import losses
from davae.config import Config
from davae.data.augment import Batch, augment, load_batch
from davae.data.prepared import PreparedSplit
from davae.losses import objective
from davae.networks import DaVAE, native
from davae.training import davae_task, trainer
from davae.training.heap import keep_freed_memory
from davae.training.schedule import batch_indices

STEPS = {
    "smoke": 20,
    "laptop": 8,
    "photo": 3,
    "paper": 1,
}  # steps per turn; a step of sweep equals one of laptop
BARS = {  # per preset: speed relative to the reference, share of the convolution rate
    "laptop": {"reference": "ratio >= 3", "share": "ratio >= 0.4", "kernels": "ratio >= 1.4"},
    "photo": {"kernels": "ratio >= 1.6"},
    "paper": {"share": "ratio >= 0.7", "kernels": "ratio >= 1.2"},
}
REFERENCE_BATCH = 8  # batch size of paper when it is compared with the reference
OTHER = "the rest"


class Training:
    """davae's trainer, run step by step on the suite's data."""

    def __init__(
        self,
        config: Config,
        split: PreparedSplit,
        validation: PreparedSplit,
        run: Path,
        device: torch.device = CPU,
    ):
        self.trainer = trainer.Trainer(davae_task.DaVAETask(config), split, validation, run, device)

    def steps(self, count: int) -> None:
        """Take `count` steps."""
        for _ in range(count):
            self.trainer.train_step()
            self.trainer.step += 1


class Batches:
    """Successive augmented batches, made as davae's trainer makes them."""

    def __init__(self, config: Config, split: PreparedSplit, device: torch.device = CPU):
        self.config, self.split, self.step, self.device = config, split, 0, device

    def next(self) -> Batch:
        """Return the batch of the next step."""
        indices = batch_indices(len(self.split), self.config.train.batch_size, 0, self.step)
        self.step += 1
        raw = load_batch(self.split, indices, self.device)
        return augment(raw, self.config.data, torch.Generator().manual_seed(0))


def measure_rows(bench: Workbench) -> Iterator[Row]:
    """Yield the rows of all presets."""
    for name in ("smoke",) if bench.quick else STEPS:
        yield from measure_preset(bench, name)


def measure_preset(bench: Workbench, name: str) -> Iterator[Row]:
    """Yield the rows of one preset."""
    title = {"laptop": "laptop and sweep"}.get(name, name)
    yield from measure_against_reference(bench, name, title)
    yield from measure_kernels(bench, name, title)
    yield from measure_share(bench, name, title)
    yield from measure_memory(bench, name, title)


def choose_counts(bench: Workbench, name: str) -> tuple[int, int]:
    """Return the number of steps per turn and of turns."""
    return (1, 1) if bench.quick else (STEPS[name], 3 if name == "paper" else bench.rounds)


def measure_against_reference(bench: Workbench, name: str, title: str) -> Iterator[Row]:
    """Yield images per second beside those of the reference."""
    config = shrink_batch(bench, name)
    split, validation = bench.open_split(config.data), bench.open_split(config.data, "val")
    steps, rounds = choose_counts(bench, name)
    images = steps * config.train.batch_size
    batches, plain = Batches(config, split), ReferenceTraining(config)
    samples = RenderedSamples(bench.render(), "train", config.data)
    workers = 0 if bench.quick else torch.get_num_threads()
    with tempfile.TemporaryDirectory() as run, keep_freed_memory():
        works = {
            "davae": partial(Training(config, split, validation, Path(run)).steps, steps),
            "whole": partial(plain.epoch, samples, steps, workers),
            "equal": lambda: [plain.step(batches.next(), losses.cloud_loss) for _ in range(steps)],
        }
        seconds = alternate(works, rounds, title=f"{title} and reference")
    rates = {work: images / seconds[work] for work in works}
    for work, meaning in (("whole", "reference"), ("equal", "reference with davae's data and Chamfer")):
        yield Row(
            f"{title}: training, batches of {config.train.batch_size}",
            rates["davae"],
            "images/s",
            f"{meaning}: {rates[work]:.4g}",
            rates["davae"] / rates[work],
            BARS.get(name, {}).get("reference", ""),
        )


@contextmanager
def switch_kernels(on: bool) -> Iterator[None]:
    """Let davae use its kernels, or PyTorch alone, within this context."""
    with mock.patch.dict(os.environ, {native.SWITCH: "1" if on else "0"}):
        native._find_kernels.cache_clear()
        yield
    native._find_kernels.cache_clear()


def measure_kernels(bench: Workbench, name: str, title: str) -> Iterator[Row]:
    """Yield images per second with davae's kernels beside those with PyTorch's operations alone."""
    config = shrink_batch(bench, name)
    split, validation = bench.open_split(config.data), bench.open_split(config.data, "val")
    steps, rounds = choose_counts(bench, name)
    with tempfile.TemporaryDirectory() as folder, keep_freed_memory():
        trainings = {}
        for on in (True, False):
            with switch_kernels(on):
                trainings[on] = Training(config, split, validation, Path(folder) / str(on))

        def run(on: bool) -> None:
            with switch_kernels(on):
                trainings[on].steps(steps)

        seconds = alternate(
            {str(on): partial(run, on) for on in trainings}, rounds, title=f"{title}, kernels"
        )
    rates = {on: steps * config.train.batch_size / seconds[str(on)] for on in trainings}
    yield Row(
        f"{title}: training with kernels, batches of {config.train.batch_size}",
        rates[True],
        "images/s",
        f"PyTorch alone: {rates[False]:.4g}",
        rates[True] / rates[False],
        BARS.get(name, {}).get("kernels", ""),
    )


def shrink_batch(bench: Workbench, name: str) -> Config:
    """Return the preset; `paper` gets a smaller batch, since the fp32 reference would take minutes."""
    config = bench.load_config(name)
    return replace_batch(config, min(REFERENCE_BATCH, config.train.batch_size)) if name == "paper" else config


def measure_share(
    bench: Workbench, name: str, title: str, device: torch.device = CPU, batch: int | None = None
) -> Iterator[Row]:
    """Yield the share of the device's convolution rate that a training step reaches, and the time by part.

    The batch size is that of the preset unless `batch` is given.
    """
    config = bench.load_config(name) if batch is None else replace_batch(bench.load_config(name), batch)
    split, validation = bench.open_split(config.data), bench.open_split(config.data, "val")
    steps, rounds = choose_counts(bench, name)
    steps *= 20 if device.type == "cuda" else 1
    size, number = config.train.batch_size, choose_dtypes(device)[-1]
    limit = make_convolution(number, device=device)
    with tempfile.TemporaryDirectory() as run, keep_freed_memory():
        davae = Training(config, split, validation, Path(run), device)
        works = {"convolution": limit.run, "davae": partial(davae.steps, steps)}
        seconds = alternate(works, rounds, title=title, clock=make_clock(device))
        gflop = count_flops(config) / 1e9
        yield Row(f"{title}: convolutions and matrix products, forward and backward", gflop, "GFLOP/image")
        rate, most = steps * size / seconds["davae"], limit.amount / seconds["convolution"]
        yield Row(
            f"{title}: arithmetic of a step, batches of {size}, {rate:.4g} images/s",
            gflop * rate,
            "GFLOP/s",
            f"3x3 convolution, {NAMES[number]}: {most:.4g}",
            gflop * rate / most,
            BARS.get(name, {}).get("share", ""),
        )
        yield from list_parts(title, time_parts(davae.trainer, 4 * steps, make_clock(device)))


def count_flops(config: Config) -> int:
    """Return the FLOPs per image of the networks' convolutions and matrix products, forward and backward.

    A multiply-add counts as two. The optimiser, the Chamfer distance and elementwise operations are not
    counted.
    """
    px, points, b = config.data.image_px, config.data.cloud_points, 2  # BatchNorm needs two images
    model = DaVAE(config.model).train()
    has = torch.ones(b, dtype=torch.bool)
    image = torch.rand(b, 3, px, px)
    true = Batch(
        image, image, image[:, :1], torch.rand(b, 21, 3), torch.rand(b, points, 3), has, has, torch.ones(b)
    )
    with FlopCounterMode(display=False) as counter:
        objective(model(image), true, config.loss).total.backward()
    return counter.get_total_flops() // b


def list_parts(title: str, spent: dict[str, float]) -> Iterator[Row]:
    """Yield the times of the parts of a step, with their shares of the step."""
    whole = sum(spent.values())
    for part, part_ms in spent.items():
        yield Row(f"{title}: {part}", part_ms, "ms/step", f"step: {whole:.4g}", part_ms / whole)


def measure_memory(bench: Workbench, name: str, title: str) -> Iterator[Row]:
    """Yield the peak memory of two steps, including model and optimiser, each measured in a new process."""
    grown = {
        who: run_in_fresh_process(
            "training", "measure_step_memory_mib", who, name, str(bench.out), bench.quick
        )
        for who in ("davae", "reference")
    }
    baseline = f"reference with davae's data: {grown['reference']:.4g}"
    ratio = grown["davae"] / grown["reference"]
    yield Row(f"{title}: memory of training, peak growth", grown["davae"], "MiB", baseline, ratio)


def measure_step_memory_mib(who: str, name: str, out: str, quick: bool) -> float:
    """Return the peak memory growth, MiB, of this fresh process over two steps of davae or the reference."""
    bench = Workbench(Path(out), quick)
    config = shrink_batch(bench, name)
    split, validation = bench.open_split(config.data), bench.open_split(config.data, "val")

    def davae() -> None:
        with tempfile.TemporaryDirectory() as run, keep_freed_memory():
            Training(config, split, validation, Path(run)).steps(2)

    def plain() -> None:
        training, batches = ReferenceTraining(config), Batches(config, split)
        for _ in range(2):
            training.step(batches.next())

    return measure_peak_growth_mib(davae if who == "davae" else plain)


def time_parts(
    subject: trainer.Trainer, steps: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Return part -> milliseconds per training step; `OTHER` is the remaining time."""
    watch, model = Stopwatch(clock), subject.model
    decoders = {kind: getattr(model, f"{kind}_decoder") for kind in ("pose", "cloud", "image")}
    stages: list[tuple[object, str, str]] = [
        (trainer, "load_batch", "data: load"),
        (trainer, "augment", "data: augment"),
        (model.encoder, "forward", "encoder"),
        (model.encoder.trunk, "forward", "trunk"),
        *((head, "forward", f"head {block}") for block, head in model.encoder.heads.items()),
        *((decoder, "forward", f"{kind} decoder") for kind, decoder in decoders.items()),
        (davae_task, "objective", "objective"),
        (losses, "cloud_loss", "Chamfer"),
        (torch.Tensor, "backward", "backward"),
        (torch.nn.utils, "clip_grad_norm_", "gradient norm"),
        (trainer, "take_step", "optimiser"),
    ]
    if subject.average is not None:
        stages.append((subject.average, "update_parameters", "weight average"))

    def step() -> None:
        subject.train_step()
        subject.step += 1

    with ExitStack() as replaced:
        for owner, name, stage in stages:
            timed: Callable = watch.wrap(stage, getattr(owner, name))
            replaced.enter_context(mock.patch.object(owner, name, timed))
        step()
        watch.spent.clear()
        whole = watch.wrap("whole", step)
        for _ in range(steps):
            whole()
    spent = {stage: milliseconds / steps for stage, milliseconds in watch.spent.items()}
    # The encoder may not call its heads one by one; their time then counts as the rest of the encoder.
    inside = sum(value for stage, value in spent.items() if stage == "trunk" or stage.startswith("head "))
    spent["rest of the encoder"] = spent.pop("encoder") - inside
    spent["KL and other losses"] = spent.pop("objective") - spent["Chamfer"]
    total = spent.pop("whole")
    return spent | {OTHER: total - sum(spent.values())}
