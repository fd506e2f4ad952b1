"""Measure the machine's limits: arithmetic, copying, PNG decoding. Other groups report shares of them."""

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
    """A function to time, and the amount of work of one call."""

    run: Callable[[], object]
    amount: float  # GFLOP, GB or images


def choose_dtypes(device: torch.device = CPU) -> list[torch.dtype]:
    """Return the number types to measure; the last is the one that training on `device` uses."""
    return [torch.float32] + [torch.bfloat16] * has_bf16(device)


def make_convolution(dtype: torch.dtype, batch: int = BATCH, device: torch.device = CPU) -> Work:
    """Return a 3x3 convolution of 256 channels, channels-last, forward and backward; amount in GFLOP."""
    x = torch.randn(batch, CHANNELS, MAP, MAP).to(device, dtype, memory_format=torch.channels_last)
    weight = torch.randn(CHANNELS, CHANNELS, 3, 3).to(device, dtype, memory_format=torch.channels_last) / 48
    x.requires_grad_()
    weight.requires_grad_()
    slope = torch.ones_like(x)

    def run() -> None:
        torch.autograd.grad(F.conv2d(x, weight, padding=1), (x, weight), slope)

    # Three passes: forward, gradient of the input, gradient of the weight.
    return Work(run, 3 * 2 * batch * MAP**2 * CHANNELS**2 * 9 / 1e9)


def make_product(dtype: torch.dtype, size: int = MATRIX, device: torch.device = CPU) -> Work:
    """Return a product of two square matrices; amount in GFLOP."""
    a, b = torch.randn(2, size, size).to(device, dtype)
    return Work(lambda: a @ b, 2 * size**3 / 1e9)


def make_copy(numbers: int = COPIED) -> Work:
    """Return a copy from memory to memory; amount in GB read and written."""
    source, target = torch.randn(numbers), torch.zeros(numbers)
    return Work(lambda: target.copy_(source), 2 * source.nbytes / 1e9)


def make_decoding(rendered: Path, images: int) -> Work:
    """Return the decoding, on one core, of colour images of a rendered training split; amount in images."""
    paths = sorted((rendered / "training" / "color").glob("*.png"))[:images]
    return Work(lambda: [read_picture(path, "RGB") for path in paths], len(paths))


def measure_rows(bench: Workbench) -> Iterator[Row]:
    """Yield one row per limit."""
    batch, size, numbers, images = (2, 64, 2**16, 4) if bench.quick else (BATCH, MATRIX, COPIED, 50)
    works = {"copy": make_copy(numbers), "PNG decoding": make_decoding(bench.render(), images)}
    for dtype in choose_dtypes():
        works[f"matrix product, {NAMES[dtype]}"] = make_product(dtype, size)
        works[f"3x3 convolution, {NAMES[dtype]}"] = make_convolution(dtype, batch)
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
