"""Everything that davae's speed and memory are judged by, in one table: `make bench`.

    python benchmarks/suite.py [--only GROUP,GROUP] [--quick] [--out outputs/bench]

Each figure that compares two things is a ratio of medians of runs that took turns on this machine, so that
it means the same on another; the machine's own limits are among the rows. Results are written after each
group, as OUT/GROUP.json and, with what other groups left there before, OUT/table.md: a kill costs one group.
The data is rendered into OUT/data by the first run, which takes a minute. Exit status 1 says that a group
failed; a bar that is missed is said in the table.

A group is a function that takes a `Workbench` and yields `Row`s: add its module and name to `GROUPS`.
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

# Imported when it is their turn: each worker process of `render` and `prepare` imports this file anew.
GROUPS = {
    "limits": ("limits", "rows"),
    "training": ("training", "rows"),
    "card": ("card", "rows"),
    "inference": ("inference_rows", "rows"),
    "data": ("data_path", "rows"),
    "chamfer": ("chamfer", "rows"),
    "explorer": ("explorer_latency", "rows"),
    "startup": ("commands", "start_rows"),
    "busy": ("busy", "rows"),
    "growth": ("commands", "growth_rows"),
    "ranks": ("commands", "rank_rows"),
}


def machine() -> dict[str, Any]:
    """What figures were measured on, and when."""
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
    """Run one group, tell its rows, and write them; what was measured before an error stays."""
    result: dict[str, Any] = {"machine": machine(), "quick": bench.quick, "rows": [], "error": None}
    began = time.perf_counter()
    try:
        module, function = GROUPS[name]
        for row in getattr(importlib.import_module(module), function)(bench):
            print(line(row.to_dict()), flush=True)
            result["rows"].append(row.to_dict())
    except Exception as error:  # told, written down and answered by the exit status: other groups go on
        traceback.print_exc()
        result["error"] = f"{type(error).__name__}: {error}"
    result["seconds"] = round(time.perf_counter() - began, 1)
    write(bench.out / f"{name}.json", json.dumps(result, indent=2) + "\n")
    write(bench.out / "table.md", table(bench.out))
    return result


def write(path: Path, text: str) -> None:
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def table(folder: Path) -> str:
    """All groups that are in `folder`, as Markdown."""
    lines = ["# Benchmarks", "", "Written by `make bench`. Ratios are of medians of runs that took turns."]
    for name in GROUPS:
        path = folder / f"{name}.json"
        if not path.exists():
            continue
        group = json.loads(path.read_text(encoding="utf-8"))
        about = ", ".join(f"{key} {value}" for key, value in group["machine"].items())
        quick = " Quick: these figures mean nothing." if group["quick"] else ""
        lines += ["", f"## {name}", "", f"{about}; {group['seconds']:.0f} s.{quick}"]
        if group["error"]:
            lines += ["", f"Failed: {group['error'].splitlines()[0]}"]
        if group["rows"]:
            lines += ["", "| what | value | beside | ratio | bar |", "|---|---|---|---|---|"]
            lines += map(line, group["rows"])
    return "\n".join(lines) + "\n"


def line(row: dict[str, Any]) -> str:
    """One row of the table."""
    ratio = "" if row["ratio"] is None else number(row["ratio"])
    bar = f"{row['bar']}: {'met' if row['met'] else 'MISSED'}" if row["bar"] else ""
    return f"| {row['name']} | {number(row['value'])} {row['unit']} | {row['baseline']} | {ratio} | {bar} |"


def number(value: float) -> str:
    """Three digits that count, without an exponent."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def main(argv: list[str] | None = None) -> int:
    """Measure the groups asked for; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", default=",".join(GROUPS), help="groups, with commas between them")
    parser.add_argument("--quick", action="store_true", help="everything once and tiny, to see that it runs")
    parser.add_argument("--out", type=Path, default=Path("outputs") / "bench", help="folder of results")
    args = parser.parse_args(argv)
    escape_unprintable()
    chosen = args.only.split(",")
    if unknown := sorted(set(chosen) - GROUPS.keys()):
        parser.error(f"--only names no group {', '.join(unknown)}; there are {', '.join(GROUPS)}")
    from workbench import Workbench

    bench = Workbench(args.out, args.quick)
    shutil.rmtree(bench.scratch(), ignore_errors=True)
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
