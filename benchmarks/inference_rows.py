"""The suite's rows of inference, from `benchmarks/inference.py`."""

import importlib.util
from collections.abc import Iterator

from timing import Row
from workbench import Workbench


def rows(bench: Workbench) -> Iterator[Row]:
    """What `inference.measure(preset, run)` finds: {"rows": [...]}, each a dict with the fields of `Row`."""
    if importlib.util.find_spec("inference") is None:
        print("benchmarks/inference.py is not there: nothing to measure")
        return
    import inference

    for name in ("smoke",) if bench.quick else ("laptop", "paper"):
        yield from map(Row.from_dict, inference.measure(name, None)["rows"])
