"""What the machine can do at most: arithmetic, copying, PNG decoding. Others are given as shares of it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from timing import Row, alternate
from torch.nn import functional as F
from workbench import Workbench

from davae.training.device import has_bf16
from synthhand.formats.pictures import read_picture

CHANNELS, MAP, BATCH = 256, 16, 32
MATRIX = 1024
COPIED = 2**26  # fp32 numbers, 256 MiB: far more than any cache holds
CPU = torch.device("cpu")
NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16"}


class Work(NamedTuple):
    """Something to time, and how much is done by one call."""

    run: Callable[[], object]
    amount: float  # GFLOP, GB or images


def arithmetic(device: torch.device = CPU) -> list[torch.dtype]:
    """The number types to measure, the one that training there uses last."""
    return [torch.float32] + [torch.bfloat16] * has_bf16(device)


def convolution(dtype: torch.dtype, batch: int = BATCH, device: torch.device = CPU) -> Work:
    """A 3x3 convolution, 256 to 256 channels, channels-last, forward and backward; the amount is in GFLOP."""
    x = torch.randn(batch, CHANNELS, MAP, MAP).to(device, dtype, memory_format=torch.channels_last)
    weight = torch.randn(CHANNELS, CHANNELS, 3, 3).to(device, dtype, memory_format=torch.channels_last) / 48
    x.requires_grad_()
    weight.requires_grad_()
    slope = torch.ones_like(x)

    def run() -> None:
        torch.autograd.grad(F.conv2d(x, weight, padding=1), (x, weight), slope)

    # Once forward; backward once for the input's gradient and once for the weight's.
    return Work(run, 3 * 2 * batch * MAP**2 * CHANNELS**2 * 9 / 1e9)


def product(dtype: torch.dtype, size: int = MATRIX, device: torch.device = CPU) -> Work:
    """A product of two square matrices; the amount is in GFLOP."""
    a, b = torch.randn(2, size, size).to(device, dtype)
    return Work(lambda: a @ b, 2 * size**3 / 1e9)


def copy(numbers: int = COPIED) -> Work:
    """A copy from memory to memory; the amount is GB read and written."""
    source, target = torch.randn(numbers), torch.zeros(numbers)
    return Work(lambda: target.copy_(source), 2 * source.nbytes / 1e9)


def decoding(rendered: Path, images: int) -> Work:
    """Decode colour images of a rendered dataset's training split on one core; the amount is images."""
    paths = sorted((rendered / "training" / "color").glob("*.png"))[:images]
    return Work(lambda: [read_picture(path, "RGB") for path in paths], len(paths))


def rows(bench: Workbench) -> Iterator[Row]:
    """Measure all of them."""
    batch, size, numbers, images = (2, 64, 2**16, 4) if bench.quick else (BATCH, MATRIX, COPIED, 50)
    works = {"copy": copy(numbers), "PNG decoding": decoding(bench.rendered(), images)}
    for dtype in arithmetic():
        works[f"matrix product, {NAMES[dtype]}"] = product(dtype, size)
        works[f"3x3 convolution, {NAMES[dtype]}"] = convolution(dtype, batch)
    functions = {name: work.run for name, work in works.items()}
    seconds = alternate(functions, 4 * bench.rounds, title="limits")
    rates = {name: work.amount / seconds[name] for name, work in works.items()}
    for name, rate in rates.items():
        unit = {"copy": "GB/s", "PNG decoding": "images/s"}.get(name, "GFLOP/s")
        slower = name.replace("bf16", "fp32")
        if slower == name:
            yield Row(name, rate, unit)
        else:
            yield Row(name, rate, unit, f"fp32: {rates[slower]:.4g} GFLOP/s", rate / rates[slower])
