"""Draw where a training step's time goes, beside what memory and arithmetic of this machine allow.

    python benchmarks/roofline.py --out docs/figures/roofline.png [--preset photo] [--bench outputs/bench]

For each part of a step: its time with PyTorch's operations alone and with davae's kernels, and the least time
that the part's numbers would take. That is the longer of two times: its bytes (each tensor read or written
once) at the speed of a copy, and its FLOPs at the speed of a 3x3 convolution, both measured in the same run.
"""

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import matplotlib.pyplot as plt
from limits import choose_dtypes, make_convolution, make_copy
from timing import alternate
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry
from training import Training, switch_kernels
from workbench import Workbench

from davae.data import augment
from davae.figures.style import SERIES, WIDTH_IN, styled
from davae.networks import native
from davae.networks.native import operations
from davae.training import trainer
from davae.training.heap import keep_freed_memory

OTHER = "Python, and starting operations"
PARTS = {  # part -> how the names of its kernels and operations begin
    "convolutions and products": ("convolution", "mm", "addmm", "bmm", "baddbmm", "unfold", "arrange"),
    "BatchNorm, sums, ReLU, pooling, folds": (
        *("bn_", "pool_", "native_batch_norm", "relu", "threshold", "clamp_min", "max_pool", "add_maps"),
        *("add", "mean", "mul", "select_", "mean_of", "softmax", "_softmax", "sum", "fold_"),
    ),
    "picture: last steps and error": (
        *("subpixel", "squared", "scaled", "mse", "sigmoid", "pixel_"),
    ),
    "copies and conversions": ("_to_copy", "copy", "clone", "cat", "fill", "zero", "constant_pad", "new_"),
}  # fmt: skip
REST = "other operations"
STEPS = 3


class Meter(TorchDispatchMode):
    """Time, bytes and FLOPs of every operation of PyTorch and of davae's kernels, by part of the step."""

    def __init__(self):
        super().__init__()
        self.stage = ""
        self.seconds: dict[str, float] = defaultdict(float)
        self.bytes: dict[str, float] = defaultdict(float)
        self.flops: dict[str, float] = defaultdict(float)

    def measure(self, name: str, run: Callable[[], Any], tensors: list[Any], flops: Callable[[Any], float]):
        """Run an operation, and add what it took to its part."""
        began = time.perf_counter()
        result = run()
        spent = time.perf_counter() - began
        part = self.stage or next((part for part, names in PARTS.items() if name.startswith(names)), REST)
        self.seconds[part] += spent
        touched = [t for t in [*tensors, *tree_leaves(result)] if isinstance(t, Tensor)]
        self.bytes[part] += sum({t.data_ptr(): t.nbytes for t in touched}.values())
        self.flops[part] += flops(result)
        return result

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func.is_view or "empty" in func.overloadpacket.__name__:  # no number is read or written
            return func(*args, **kwargs)
        count = flop_registry.get(func.overloadpacket)
        return self.measure(
            func.overloadpacket.__name__,
            lambda: func(*args, **kwargs),
            tree_leaves((args, kwargs)),
            lambda result: count(*args, **kwargs, out_val=result) if count else 0.0,
        )

    def call(self, name: str, *arguments: Any) -> None:
        """Measure a kernel; what takes the place of `davae.networks.native.call`."""
        self.measure(name, lambda: native.call(name, *arguments), list(arguments), lambda result: 0.0)

    @contextmanager
    def in_stage(self, stage: str) -> Iterator[None]:
        """Count all operations within this context as one part."""
        before, self.stage = self.stage, stage
        try:
            yield
        finally:
            self.stage = before


def measure_step(bench: Workbench, preset: str, kernels: bool) -> dict[str, tuple[float, float, float]]:
    """Return part -> (seconds, bytes, FLOPs) of a training step, with the kernels or without."""
    config = bench.load_config(preset)
    split, validation = bench.open_split(config.data), bench.open_split(config.data, "val")
    with switch_kernels(kernels), tempfile.TemporaryDirectory() as run, keep_freed_memory():
        training = Training(config, split, validation, Path(run))
        training.steps(2)
        began = time.perf_counter()
        training.steps(STEPS)
        whole = (time.perf_counter() - began) / STEPS
        meter = Meter()

        def staged(stage: str, function: Callable) -> Callable:
            def run_staged(*args, **kwargs):
                with meter.in_stage(stage):
                    return function(*args, **kwargs)

            return run_staged

        with (
            mock.patch.object(operations, "call", meter.call),
            mock.patch.object(augment, "call", meter.call),
            mock.patch.object(trainer, "load_batch", staged("batch", trainer.load_batch)),
            mock.patch.object(trainer, "augment", staged("batch", trainer.augment)),
            mock.patch.object(trainer, "take_step", staged("optimiser", trainer.take_step)),
            meter,
        ):
            training.steps(STEPS)
    found = {
        part: (meter.seconds[part] / STEPS, meter.bytes[part] / STEPS, meter.flops[part] / STEPS)
        for part in meter.seconds
    }
    return found | {OTHER: (max(0.0, whole - sum(s for s, _, _ in found.values())), 0.0, 0.0)}


@styled
def draw(plain: dict, fused: dict, bandwidth: float, arithmetic: float, title: str) -> plt.Figure:
    """Draw times of both variants and the least times; rates in bytes and FLOPs a second."""
    order = sorted(plain, key=lambda part: -plain[part][0])
    figure, axes = plt.subplots(figsize=(WIDTH_IN, 0.42 * len(order) + 1.2))
    for row, part in enumerate(order):
        before, (after, size, flops) = plain[part][0], fused.get(part, (0.0, 0.0, 0.0))
        least = max(size / bandwidth, flops / arithmetic)
        axes.barh(row - 0.19, before * 1e3, 0.36, color=SERIES[6], label="PyTorch alone" if not row else None)
        axes.barh(row + 0.19, after * 1e3, 0.36, color=SERIES[0], label="with kernels" if not row else None)
        axes.plot(
            [least * 1e3] * 2, [row, row + 0.38], color=SERIES[1], linewidth=2,
            label="least time of its numbers" if not row else None,
        )  # fmt: skip
    axes.set_yticks(range(len(order)), order)
    axes.invert_yaxis()
    axes.set_xlabel("ms of a training step")
    axes.set_title(title)
    axes.legend(loc="lower right")
    axes.grid(axis="y", visible=False)
    plt.close(figure)
    return figure


def main(arguments: list[str] | None = None) -> None:
    """Measure both variants and the limits, print the parts, and save the figure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--preset", default="photo")
    parser.add_argument("--bench", type=Path, default=Path("outputs/bench"))
    parser.add_argument("--quick", action="store_true", help="a check at a tiny size, no measurement")
    given = parser.parse_args(arguments)
    bench = Workbench(given.bench, given.quick)
    works = {
        "copy": make_copy(2**16 if given.quick else 2**26),
        "conv": make_convolution(choose_dtypes()[-1]),
    }
    seconds = alternate({name: work.run for name, work in works.items()}, bench.rounds, title="limits")
    bandwidth, arithmetic = (works[name].amount * 1e9 / seconds[name] for name in ("copy", "conv"))
    plain, fused = (measure_step(bench, given.preset, kernels) for kernels in (False, True))
    for part in sorted(plain, key=lambda part: -plain[part][0]):
        before, (after, size, flops) = plain[part][0], fused.get(part, (0.0, 0.0, 0.0))
        print(
            f"{part:<34}{before * 1e3:8.1f} -> {after * 1e3:7.1f} ms, "
            f"{size / 1e6:8.0f} MB, {flops / 1e9:7.2f} GFLOP"
        )
    total = [sum(s for s, _, _ in parts.values()) for parts in (plain, fused)]
    size = bench.load_config(given.preset).train.batch_size
    title = (
        f"A step of {given.preset}: {size / total[0]:.0f} -> {size / total[1]:.0f} images/s\n"
        f"limits: copy {bandwidth / 1e9:.0f} GB/s, 3x3 convolution {arithmetic / 1e9:.0f} GFLOP/s"
    )
    given.out.parent.mkdir(parents=True, exist_ok=True)
    draw(plain, fused, bandwidth, arithmetic, title).savefig(
        given.out, dpi=200, pil_kwargs={"optimize": True}
    )


if __name__ == "__main__":
    main()
