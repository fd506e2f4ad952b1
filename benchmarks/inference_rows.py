"""Turn the results of `benchmarks/inference.py` into rows of the suite."""

from collections.abc import Iterator

import inference
from timing import Row
from workbench import Workbench

SECONDS = 15.0  # per preset and batch size; at least three rounds are made


def measure_rows(bench: Workbench) -> Iterator[Row]:
    """Yield the milliseconds of each network in each way to run it, beside a bare ResNet-34 in plain torch.

    Goals apply to one image at a time and to the fastest way that keeps the trained model; int8 does not
    count, since it changes the model's output.
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
