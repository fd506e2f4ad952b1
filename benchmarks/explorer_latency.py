"""Measure the time from a move of an explorer's slider to three refreshed views, in a notebook kernel.

    python benchmarks/explorer_latency.py --preset laptop     # random weights: time does not depend on them
    python benchmarks/explorer_latency.py --run RUN

A new kernel runs `measure`. One slider of each block and the slider that turns the hand are moved in turns.
The time runs from the new value until all messages, with the pictures, are handed to the channel to the
browser; the time that the browser needs to show them is not included. Medians are printed. Choose the number
of threads by `OMP_NUM_THREADS`.
"""

import itertools
import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
import torch
import tyro
from nbclient import NotebookClient
from timing import FOLDER, Row
from workbench import Workbench

from davae.config import BLOCKS, preset
from davae.networks import DaVAE
from davae.photo.explorer import LatentExplorer
from davae.photo.kernels import OwnKernel
from davae.training.runs import load_model

GOAL_MS, MOVES = 150.0, 30
TURN = "viewpoint"


def make_explorer(name: str, run: str | None) -> LatentExplorer:
    """Return an explorer of a run, or of preset `name` with random weights; codes follow the prior."""
    torch.manual_seed(0)
    model = DaVAE(preset(name).model).eval() if run is None else load_model(run)[0]
    codes = {block: torch.randn(64, size) for block, size in model.config.latent_sizes.items()}
    px = model.config.image_px
    return LatentExplorer(model, torch.rand(64, 3, px, px), codes, bone_mm=44.0)


def measure(name: str, run: str | None, moves: int) -> dict[str, float]:
    """Return slider -> median ms of a move; each slider makes `moves` moves, in turns."""
    explorer = make_explorer(name, run)
    sliders = {block: explorer.sliders[block][0] for block in BLOCKS} | {TURN: explorer.controls["turn_deg"]}
    values = {what: itertools.cycle((-60.0, -20.0, 35.0) if what == TURN else (-2.0, 0.5, 1.5))
              for what in sliders}  # fmt: skip
    spent: dict[str, list[float]] = {what: [] for what in sliders}
    for turn, (what, slider) in itertools.product(range(moves + 1), sliders.items()):
        began = time.perf_counter()
        slider.value = next(values[what])
        if turn:  # the first turn is a warm-up
            spent[what].append(1000 * (time.perf_counter() - began))
    return {what: statistics.median(times) for what, times in spent.items()}


def measure_in_kernel(name: str, run: str | None, moves: int) -> dict[str, float]:
    """Run `measure` in a new kernel, where every changed widget sends its messages."""
    source = f"""
import json, sys
sys.path.insert(0, {str(FOLDER)!r})
import explorer_latency
print(json.dumps(explorer_latency.measure({name!r}, {run!r}, {moves})))
"""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    NotebookClient(notebook, timeout=600, kernel_name="python3", kernel_manager_class=OwnKernel).execute()
    said = "".join(output.get("text", "") for output in notebook.cells[0].outputs if output.name == "stdout")
    return json.loads(said.splitlines()[-1])


def measure_rows(bench: Workbench) -> Iterator[Row]:
    """Yield the suite's rows; the bar applies to `laptop` only."""
    for name in ("smoke",) if bench.quick else ("laptop", "paper"):
        for what, ms in measure_in_kernel(name, None, 2 if bench.quick else MOVES).items():
            bar = f"value <= {GOAL_MS:g}" if name == "laptop" else ""
            yield Row(f"explorer, {name}: {what} moved, three views refreshed", ms, "ms", bar=bar)


def main(preset: str = "laptop", run: Path | None = None, moves: int = MOVES) -> None:
    """Print the medians.

    Args:
        preset: Sizes of a model with random weights; used if no run is given.
        run: Finished run of da-VAE or na-VAE.
        moves: Number of moves of each slider.
    """
    found = measure_in_kernel(preset, None if run is None else str(run.resolve()), moves)
    print(
        f"{run or preset}, {torch.get_num_threads()} thread(s), median of {moves} moves; goal: {GOAL_MS:g} ms"
    )
    for what, ms in found.items():
        print(f"  {what:<12} {ms:7.1f} ms")


if __name__ == "__main__":
    tyro.cli(main)
