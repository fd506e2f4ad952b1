"""Training `paper` on a GPU: batches of 32 and more, as a share of its rate and beside plain eager.

Where there is no GPU there are no rows. A GPU's memory is counted by torch, not by the system.
"""

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from limits import NAMES, arithmetic, convolution, product
from reference import ReferenceTraining
from timing import Row, alternate, clock_of
from training import Batches, Training, share_rows
from workbench import Workbench, with_batch

from davae import losses

BATCHES = (32, 64, 128, 256)
MATRIX = 8192


def rows(bench: Workbench) -> Iterator[Row]:
    """Measure the GPU, if there is one."""
    if torch.cuda.is_available():
        yield from rows_on(bench, torch.device("cuda"))
    else:
        print("no GPU here: nothing to measure")


def rows_on(bench: Workbench, device: torch.device) -> Iterator[Row]:
    """All rows, on a device of any kind."""
    name, batches, size = ("smoke", (4,), 64) if bench.quick else ("paper", BATCHES, MATRIX)
    works = {}
    for dtype in arithmetic(device):
        works[f"matrix product, {NAMES[dtype]}"] = product(dtype, size, device)
        works[f"3x3 convolution, {NAMES[dtype]}"] = convolution(dtype, device=device)
    functions = {work: amount.run for work, amount in works.items()}
    seconds = alternate(functions, 4 * bench.rounds, title="GPU", clock=clock_of(device))
    for work, measured in works.items():
        yield Row(f"GPU: {work}", measured.amount / seconds[work], "GFLOP/s")
    for batch in batches:
        title = f"GPU, {name}, batches of {batch}"
        try:
            yield from eager_rows(bench, name, title, device, batch)
            yield from share_rows(bench, name, title, device, batch)
        except torch.OutOfMemoryError:
            print(f"{title}: not enough memory, nor for more")
            return


def eager_rows(bench: Workbench, name: str, title: str, device: torch.device, batch: int) -> Iterator[Row]:
    """Images a second and memory beside plain eager fp32, TF32 allowed, on the same batches and Chamfer."""
    config = with_batch(bench.config(name), batch)
    split, validation = bench.split(config.data), bench.split(config.data, "val")
    batches, plain = Batches(config, split, device), ReferenceTraining(config, device)
    allowed = torch.get_float32_matmul_precision()
    with tempfile.TemporaryDirectory() as run:
        works = {
            "davae": partial(Training(config, split, validation, Path(run), device).steps, 4),
            "plain": lambda: [plain.step(batches.next(), losses.cloud_loss) for _ in range(4)],
        }
        torch.set_float32_matmul_precision("high")  # TF32; cuDNN's convolutions take it by default
        try:
            seconds = alternate(works, bench.rounds, warm_up=2, title=title, clock=clock_of(device))
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
                held = {work: peak_gib(run, device) for work, run in works.items()}
                baseline = f"eager fp32 with TF32: {held['plain']:.4g}"
                yield Row(
                    f"{title}: memory of a step, the weights of both included", held["davae"], "GiB", baseline
                )
        finally:
            torch.set_float32_matmul_precision(allowed)


def peak_gib(work: Callable[[], object], device: torch.device) -> float:
    """The most that torch holds on the GPU while `work` runs, GiB."""
    torch.cuda.reset_peak_memory_stats(device)
    work()
    return torch.cuda.max_memory_allocated(device) / 2**30
