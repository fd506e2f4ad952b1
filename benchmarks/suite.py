"""Measure davae's speed and memory, and write all results into one table: `make bench`.

    python benchmarks/suite.py [--only GROUP,GROUP] [--quick] [--out outputs/bench]

Every comparison is a ratio of medians of runs that took turns on this machine, so it can be compared between
machines; the limits of the machine are measured too. After each group, its results are written to
OUT/GROUP.json and OUT/table.md is rewritten from all groups in OUT, so a kill loses one group at most. The
first run renders the data into OUT/data, which takes a minute. The exit status is 1 if a group failed. Missed
bars are marked in the table and do not change the exit status.

A group is a function that takes a `Workbench` and yields `Row`s. Add its module and name to `GROUPS`.
"""

import argparse
import datetime
import importlib
import json
import os
import shutil
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from davae.pipeline.streams import escape_unprintable
from synthhand.storage import write_atomically

# Modules are imported when their group runs, since every worker of `render` and `prepare` imports this file.
GROUPS = {
    "limits": ("limits", "measure_rows"),
    "training": ("training", "measure_rows"),
    "card": ("card", "measure_rows"),
    "inference": ("inference_rows", "measure_rows"),
    "data": ("data_path", "measure_rows"),
    "chamfer": ("chamfer", "measure_rows"),
    "explorer": ("explorer_latency", "measure_rows"),
    "startup": ("commands", "measure_start"),
    "photos": ("commands", "measure_predict"),
    "busy": ("busy", "measure_rows"),
    "growth": ("commands", "measure_growth"),
    "ranks": ("commands", "measure_ranks"),
}


def describe_machine() -> dict[str, Any]:
    """Return the date and a description of the machine."""
    import torch

    from davae.training.device import has_bf16
    from davae.training.runs import environment

    found = dict(line.split(" ", 1) for line in environment().splitlines())
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        **{name: found[name] for name in ("processor", "platform", "python", "torch")},
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "bf16": has_bf16(torch.device("cpu")),
    }


def measure(name: str, bench) -> dict[str, Any]:
    """Run one group, print its rows and write them; rows measured before an error are kept."""
    result: dict[str, Any] = {"machine": describe_machine(), "quick": bench.quick, "rows": [], "error": None}
    began = time.perf_counter()
    try:
        module, function = GROUPS[name]
        for row in getattr(importlib.import_module(module), function)(bench):
            print(format_line(row.to_dict()), flush=True)
            result["rows"].append(row.to_dict())
    except Exception as error:  # recorded and reflected in the exit status; other groups continue
        traceback.print_exc()
        result["error"] = f"{type(error).__name__}: {error}"
    result["seconds"] = round(time.perf_counter() - began, 1)
    write_text(bench.out / f"{name}.json", json.dumps(result, indent=2) + "\n")
    write_text(bench.out / "table.md", format_table(bench.out))
    return result


def write_text(path: Path, text: str) -> None:
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def format_table(folder: Path) -> str:
    """Return the results of all groups in `folder` as Markdown."""
    lines = ["# Benchmarks", "", "Written by `make bench`. Ratios are of medians of runs that took turns."]
    for name in GROUPS:
        path = folder / f"{name}.json"
        if not path.exists():
            continue
        group = json.loads(path.read_text(encoding="utf-8"))
        about = ", ".join(f"{key} {value}" for key, value in group["machine"].items())
        quick = " Quick run: these figures are not measurements." if group["quick"] else ""
        lines += ["", f"## {name}", "", f"{about}; {group['seconds']:.0f} s.{quick}"]
        if group["error"]:
            lines += ["", f"Failed: {group['error'].splitlines()[0]}"]
        if group["rows"]:
            lines += ["", "| what | value | beside | ratio | bar |", "|---|---|---|---|---|"]
            lines += map(format_line, group["rows"])
    return "\n".join(lines) + "\n"


def format_line(row: dict[str, Any]) -> str:
    """Return one row of the table."""
    ratio = "" if row["ratio"] is None else format_number(row["ratio"])
    bar = f"{row['bar']}: {'met' if row['met'] else 'MISSED'}" if row["bar"] else ""
    value = f"{format_number(row['value'])} {row['unit']}"
    return f"| {row['name']} | {value} | {row['baseline']} | {ratio} | {bar} |"


def format_number(value: float) -> str:
    """Return a number with three significant digits, or as a whole number from 100 on."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def main(argv: list[str] | None = None) -> int:
    """Measure the requested groups and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", default=",".join(GROUPS), help="groups, separated by commas")
    parser.add_argument("--quick", action="store_true", help="run everything once at a tiny size, as a check")
    parser.add_argument("--out", type=Path, default=Path("outputs") / "bench", help="folder for the results")
    args = parser.parse_args(argv)
    escape_unprintable()
    chosen = args.only.split(",")
    if unknown := sorted(set(chosen) - GROUPS.keys()):
        parser.error(f"--only: unknown group {', '.join(unknown)}; choose from {', '.join(GROUPS)}")
    from workbench import Workbench

    bench = Workbench(args.out, args.quick)
    shutil.rmtree(bench.make_scratch(), ignore_errors=True)
    results = {}
    for name in chosen:
        print(f"\n{name}", flush=True)
        results[name] = measure(name, bench)
    found = [(name, row) for name, result in results.items() for row in result["rows"]]
    missed = [f"{name}: {row['name']} ({row['bar']})" for name, row in found if row["met"] is False]
    failed = [name for name, result in results.items() if result["error"]]
    minutes = sum(result["seconds"] for result in results.values()) / 60
    print(f"\n{len(found)} rows in {minutes:.1f} min: {bench.out / 'table.md'}")
    print(*[f"missed: {what}" for what in missed], *[f"failed: {name}" for name in failed], sep="\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
