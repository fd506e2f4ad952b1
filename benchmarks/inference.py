"""Measure the latency from a crop to joints, beside a bare ResNet-34 at the same resolution.

    python benchmarks/inference.py --preset paper            # random weights: time does not depend on them
    python benchmarks/inference.py --run RUN --mask-run RUN

Two paths are timed: from the masked crop to joints (trunk, pose head, pose decoder), and from the crop to
joints including the mask network. Each runs in plain torch, with folded BatchNorm, in bf16 if the processor
supports it, in ONNX Runtime, and in ONNX Runtime with int8. All run in turns within one process, so that
other work on the machine slows them equally. Printed are medians, their ratios to the ResNet-34 in plain
torch (the goals refer to these), and their ratios to the ResNet-34 run in the same way. Choose the number of
threads by `OMP_NUM_THREADS`; ONNX Runtime uses as many as torch.
"""

import functools
import itertools
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import tyro
from torch import Tensor, nn
from tqdm.auto import tqdm

from davae.config import MaskConfig, mask_preset, preset
from davae.evaluation.joints import JointNet
from davae.networks import DaVAE, HandMaskNet
from davae.networks.folding import fold_batchnorm
from davae.networks.handmask import ResNet
from davae.photo.graph import open_session, quantise, trace
from davae.training.device import has_bf16
from davae.training.runs import load_mask_network, load_model

BARE, MASKED, WHOLE = "ResNet-34", "masked crop to joints", "crop, mask network, joints"
GOALS = {MASKED: 1.2, WHOLE: 1.6}  # times the bare ResNet-34 in plain torch, one image
LEAST_ROUNDS = 3


class ResNet34(nn.Module):
    """ResNet-34 with 1,000 classes, as published (arXiv:1512.03385)."""

    def __init__(self):
        super().__init__()
        self.layers = ResNet(MaskConfig())  # width 64, depths 3, 4, 6, 3, stride and pool in the stem
        self.fc = nn.Linear(512, 1000)

    def forward(self, image: Tensor) -> Tensor:
        return self.fc(self.layers(image)[-1].mean(dim=(2, 3)))


def load_networks(name: str, run: Path | None, mask_run: Path | None) -> tuple[dict[str, nn.Module], int]:
    """Return the three networks in evaluation mode, and the side of their images, px.

    Weights come from the runs; without a run, sizes come from preset `name` and weights are random.
    """
    torch.manual_seed(0)
    model = DaVAE(preset(name).model) if run is None else load_model(run)[0]
    mask_network = HandMaskNet(mask_preset(name)) if mask_run is None else load_mask_network(mask_run)[0]
    found = {BARE: ResNet34(), MASKED: JointNet(model), WHOLE: JointNet(model, mask_network)}
    return {what: network.eval() for what, network in found.items()}, model.config.image_px


def build_engines(network: nn.Module, px: int) -> dict[str, Callable[[Tensor], Any]]:
    """Return way to run `network` -> function of images (b, 3, px, px)."""
    folded = fold_batchnorm(network)
    graph = trace(network, px, ("output",))
    random = (torch.rand(4, 3, px, px).numpy() for _ in range(2))
    ways = {"torch": network, "folded": folded}
    if has_bf16(torch.device("cpu")):
        ways["folded, bf16"] = torch.autocast("cpu", torch.bfloat16)(folded.forward)
    for way, model in (("ONNX", graph), ("ONNX, int8", quantise(graph, random))):
        ways[way] = functools.partial(_run, open_session(model))
    return ways


def _run(runtime: Any, images: Tensor) -> Any:
    return runtime.run(None, {"image": images.numpy()})


def measure(
    name: str = "laptop",
    *,
    run: Path | None = None,
    mask_run: Path | None = None,
    batches: tuple[int, ...] = (1, 32),
    seconds: float = 60.0,
    progress: bool = True,
) -> dict[str, Any]:
    """Time every network in every way.

    Args:
        name: preset that gives the sizes if no run is given; weights are then random.
        run: finished run of da-VAE or na-VAE.
        mask_run: finished run of the mask network.
        batches: batch sizes.
        seconds: time spent on each batch size; at least three rounds are made.
        progress: show a progress bar.

    Returns:
        `px`, `threads`, `goals` (network -> ratio), and `batches`: batch size -> network -> way to run ->
        `ms` (median of a call), `ratio` (to the ResNet-34 in plain torch), `ratio_alike` (to the ResNet-34
        run in the same way).
    """
    found, px = load_networks(name, run, mask_run)
    calls = {}
    for what, network in tqdm(found.items(), desc="trace", disable=not progress):
        calls |= {(what, way): function for way, function in build_engines(network, px).items()}
    tables = {}
    for count in batches:
        medians = time_in_turn(calls, torch.rand(count, 3, px, px), seconds, progress)
        tables[count] = {
            what: {
                way: {
                    "ms": medians[what, way],
                    "ratio": medians[what, way] / medians[BARE, "torch"],
                    "ratio_alike": medians[what, way] / medians[BARE, way],
                }
                for other, way in calls
                if other == what
            }
            for what in found
        }
    return {"px": px, "threads": torch.get_num_threads(), "goals": GOALS, "batches": tables}


def time_in_turn(
    calls: dict[Any, Callable[[Tensor], Any]], images: Tensor, seconds: float, progress: bool
) -> dict[Any, float]:
    """Run all calls in turns; return the median ms of each. The first round, which allocates, is left out."""
    spent: dict[Any, list[float]] = {key: [] for key in calls}
    with (
        torch.inference_mode(),
        tqdm(desc=f"{len(images)} at a time", unit="round", disable=not progress) as bar,
    ):
        for number in itertools.count():
            for key, call in calls.items():
                start = time.perf_counter()
                call(images)
                spent[key].append(1000 * (time.perf_counter() - start))
            bar.update()
            if number == 0:
                begin = time.perf_counter()
            elif number >= LEAST_ROUNDS and time.perf_counter() - begin > seconds:
                return {key: statistics.median(times[1:]) for key, times in spent.items()}


def format_tables(measured: dict[str, Any]) -> str:
    """Return the result of `measure` as text tables."""
    lines = [f"{measured['px']} px, {measured['threads']} thread(s)"]
    for count, table in measured["batches"].items():
        ways = list(table[BARE])
        head = f"{count} at a time, ms"
        lines += ["", f"{head:<32}" + "".join(f"{way:>15}" for way in ways)]
        for what, row in table.items():
            lines.append(f"{what:<32}" + "".join(f"{row[way]['ms']:>15.2f}" for way in ways))
            if what == BARE:
                continue
            for label, key in (("/ ResNet-34 in torch", "ratio"), ("/ ResNet-34, same way", "ratio_alike")):
                lines.append(f"  {label:<30}" + "".join(f"{row[way][key]:>15.2f}" for way in ways))
    for what, goal in measured["goals"].items():
        for way, cell in measured["batches"].get(1, {}).get(what, {}).items():
            verdict = "met" if cell["ratio"] <= goal else "missed"
            lines.append(f"goal: {what}, one image, at most {goal} x: {way} {cell['ratio']:.2f}, {verdict}")
    return "\n".join(lines)


def main(
    preset: str = "laptop",
    run: Path | None = None,
    mask_run: Path | None = None,
    batches: tuple[int, ...] = (1, 32),
    seconds: float = 60.0,
) -> None:
    """Print the tables.

    Args:
        preset: Sizes of networks with random weights; used if no run is given.
        run: Finished run of da-VAE or na-VAE.
        mask_run: Finished run of the mask network.
        batches: Batch sizes.
        seconds: Time spent on each batch size.
    """
    print(format_tables(measure(preset, run=run, mask_run=mask_run, batches=batches, seconds=seconds)))


if __name__ == "__main__":
    tyro.cli(main)
