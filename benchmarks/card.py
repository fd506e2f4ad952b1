"""Measure training of `paper` on a GPU: share of the GPU's rate, and ratio to plain eager PyTorch.

Batches hold 32 images and more. Without a GPU, no rows are produced. GPU memory is what torch allocates.
"""

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from limits import NAMES, choose_dtypes, make_convolution, make_product
from reference import ReferenceTraining
from timing import Row, alternate, make_clock
from training import Batches, Training, measure_share
from workbench import Workbench, replace_batch

from davae import losses

BATCHES = (32, 64, 128, 256)
MATRIX = 8192


def measure_rows(bench: Workbench) -> Iterator[Row]:
    """Yield the rows of the GPU; yield none without a GPU."""
    if torch.cuda.is_available():
        yield from measure_device(bench, torch.device("cuda"))
    else:
        print("no GPU found: nothing to measure")


def measure_device(bench: Workbench, device: torch.device) -> Iterator[Row]:
    """Yield all rows, on any device."""
    name, batches, size = ("smoke", (4,), 64) if bench.quick else ("paper", BATCHES, MATRIX)
    works = {}
    for dtype in choose_dtypes(device):
        works[f"matrix product, {NAMES[dtype]}"] = make_product(dtype, size, device)
        works[f"3x3 convolution, {NAMES[dtype]}"] = make_convolution(dtype, device=device)
    functions = {work: amount.run for work, amount in works.items()}
    seconds = alternate(functions, 4 * bench.rounds, title="GPU", clock=make_clock(device))
    for work, measured in works.items():
        yield Row(f"GPU: {work}", measured.amount / seconds[work], "GFLOP/s")
    for batch in batches:
        title = f"GPU, {name}, batches of {batch}"
        try:
            yield from measure_against_eager(bench, name, title, device, batch)
            yield from measure_share(bench, name, title, device, batch)
        except torch.OutOfMemoryError:
            print(f"{title}: out of memory; larger batches are skipped")
            return


def measure_against_eager(
    bench: Workbench, name: str, title: str, device: torch.device, batch: int
) -> Iterator[Row]:
    """Yield images per second and memory beside plain eager fp32 with TF32, on equal batches and Chamfer."""
    config = replace_batch(bench.load_config(name), batch)
    split, validation = bench.open_split(config.data), bench.open_split(config.data, "val")
    batches, plain = Batches(config, split, device), ReferenceTraining(config, device)
    allowed = torch.get_float32_matmul_precision()
    with tempfile.TemporaryDirectory() as run:
        works = {
            "davae": partial(Training(config, split, validation, Path(run), device).steps, 4),
            "plain": lambda: [plain.step(batches.next(), losses.cloud_loss) for _ in range(4)],
        }
        torch.set_float32_matmul_precision("high")  # allows TF32, as cuDNN's convolutions do by default
        try:
            seconds = alternate(works, bench.rounds, warm_up=2, title=title, clock=make_clock(device))
            rates = {work: 4 * batch / spent for work, spent in seconds.items()}
            yield Row(
                f"{title}: training",
                rates["davae"],
                "images/s",
                f"eager fp32 with TF32: {rates['plain']:.4g}",
                rates["davae"] / rates["plain"],
                "ratio >= 1.5",
            )
            if device.type == "cuda":
                held = {work: measure_peak_gib(run, device) for work, run in works.items()}
                baseline = f"eager fp32 with TF32: {held['plain']:.4g}"
                yield Row(
                    f"{title}: memory of a step, the weights of both included", held["davae"], "GiB", baseline
                )
        finally:
            torch.set_float32_matmul_precision(allowed)


def measure_peak_gib(work: Callable[[], object], device: torch.device) -> float:
    """Return the peak GPU memory that torch allocates while `work` runs, GiB."""
    torch.cuda.reset_peak_memory_stats(device)
    work()
    return torch.cuda.max_memory_allocated(device) / 2**30
