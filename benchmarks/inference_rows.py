"""The suite's rows of inference, from `benchmarks/inference.py`."""

from collections.abc import Iterator

import inference
from timing import Row
from workbench import Workbench

SECONDS = 15.0  # of a preset and a number of images; three rounds are made in any case


def rows(bench: Workbench) -> Iterator[Row]:
    """Milliseconds of each network in each way to run it, beside a bare ResNet-34 in plain torch.

    Goals are for one image at a time, and for the quickest way to run a network as it was trained: eight
    bits are another model, with errors of its own.
    """
    plan = {"smoke": (1,)} if bench.quick else {"laptop": (1, 32), "paper": (1,)}
    for name, counts in plan.items():
        seconds = 0.0 if bench.quick else SECONDS
        found = inference.measure(name, batches=counts, seconds=seconds)
        for count in counts:
            bare = found["batches"][count][inference.BARE]["torch"]["ms"]
            for network, ways in found["batches"][count].items():
                quickest = min((way for way in ways if "int8" not in way), key=lambda way: ways[way]["ms"])
                for way, measured in ways.items():
                    goal = found["goals"].get(network) if count == 1 and way == quickest else None
                    yield Row(
                        f"{name}: {network}, {way}, {count} at a time", measured["ms"], "ms",
                        f"{inference.BARE} in torch: {bare:.4g}", measured["ratio"],
                        "" if goal is None else f"ratio <= {goal}",
                    )  # fmt: skip
