"""The drill as a command: `PYTHONPATH=tests python -m drill`, see `make drill`.

It interrupts every command in every way (`drill.faults`) and gives every reader files that are damaged at
random (`drill.hostile`) and by a fuzzer (`drill.guided`), prints a table of each, and ends with 1 if anything
was lost. The same seed draws the same moments, as shares of a command's duration, and the same cases:
`--only train --fault kill --case 7` tries one of them again alone.
"""

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm.auto import tqdm

from drill import commands, faults, hostile
from drill.nursery import open_nursery

ENVIRONMENT = {**os.environ, **commands.ENVIRONMENT}  # of processes of the drill's own


def main() -> int:
    """Run the drill."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20, help="kills of each command; other faults are fewer")
    parser.add_argument("--cases", type=int, default=20_000, help="hostile files, over all readers")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=[], help="only these commands, or `hostile`")
    parser.add_argument("--fault", choices=["", *faults.FAULTS], default="", help="only this fault")
    parser.add_argument("--case", type=int, help="only the case of this number")
    parser.add_argument("--jobs", type=int, default=2, help="faults tried at a time")
    parser.add_argument("--keep", type=Path, help="folder to work in, which keeps what was lost")
    chosen = parser.parse_args()
    known = ["hostile", *(command.name for command in commands.list_commands(Path()))]
    if unknown := sorted(set(chosen.only) - set(known)):
        parser.error(f"--only {' '.join(unknown)}: unknown; choose of {', '.join(known)}")
    began, wrong = time.monotonic(), []
    with tempfile.TemporaryDirectory(prefix="dávae drill 手 ") as name:  # spaces and other alphabets
        home = chosen.keep or Path(name)
        if not chosen.only or "hostile" in chosen.only:
            wrong += drill_readers(home, chosen)
        if chosen.only != ["hostile"]:
            wrong += drill_commands(home, chosen)
    print(
        *wrong,
        f"the drill: {len(wrong)} lost; {time.monotonic() - began:.0f} s; seed {chosen.seed}",
        sep="\n",
    )
    return 1 if wrong else 0


def drill_readers(home: Path, chosen: argparse.Namespace) -> list[str]:
    """Print the table of the readers; return what is wrong."""
    watched = hostile.Watched(home / "readers")
    each = -(-chosen.cases // len(watched.seeds))
    results = hostile.run_cases(watched, each, chosen.seed, progress=True)
    wrong = [f"{name}: {text}" for name, result in results.items() for text in result.failures]
    wrong += hostile.plant(watched, home / "planted")
    watched.stop()
    print(
        "\nreaders, of files that are damaged at random", hostile.format_table(results), sep="\n", flush=True
    )
    if importlib.util.find_spec("atheris") is None:
        print("no fuzzer guided by coverage: atheris is not installed; `make drill` does so where it can")
        return wrong
    keep = (chosen.keep or Path("outputs")) / "fuzz"
    shutil.rmtree(keep, ignore_errors=True)  # of an earlier drill
    words = ["--runs", str(chosen.cases), "--seed", str(chosen.seed), "--keep", str(keep)]
    guided = subprocess.run([sys.executable, "-m", "drill.guided", *words], env=ENVIRONMENT)
    if guided.returncode != 0:
        wrong.append(f"the fuzzer ended with {guided.returncode}; what failed is listed below its table")
    else:
        shutil.rmtree(keep)
    return wrong


def drill_commands(home: Path, chosen: argparse.Namespace) -> list[str]:
    """Print the table of the commands; return what was lost."""
    scores: dict[str, dict[str, faults.Score]] = {}
    wrong = []
    world = commands.make_world(home)
    with open_nursery(ENVIRONMENT) as nursery:
        for command in commands.list_commands(world):
            if chosen.only and command.name not in chosen.only:
                continue
            try:
                reference = faults.Reference.make(command, home / command.name / "whole", nursery)
            except faults.Lost as how:
                wrong.append(f"{command.name}, without any fault: {how}")
                continue
            cases = [
                faults.Case(
                    *(command, reference, world, home / command.name / f"{fault} {number}"),
                    *(fault, number, count_of(chosen.kills), chosen.seed, nursery),
                )
                for fault, (_, count_of) in faults.FAULTS.items()
                for number in (range(count_of(chosen.kills)) if chosen.case is None else [chosen.case])
                if chosen.fault in ("", fault)
            ]
            row = scores[command.name] = {case.fault: faults.Score() for case in cases}
            with ThreadPoolExecutor(chosen.jobs) as pool:
                trials = [pool.submit(faults.try_fault, case, row[case.fault]) for case in cases]
                for trial in tqdm(trials, desc=command.name, unit="fault"):
                    trial.result()
            print(faults.format_table({command.name: row}), flush=True)  # in case it is stopped later
            print(*(text for score in row.values() for text in score.lost), sep="\n", flush=True)
    print("\nall commands", faults.format_table(scores), sep="\n", flush=True)
    skipped = {f"{fault}: {s.skipped}" for row in scores.values() for fault, s in row.items() if s.skipped}
    print(*(f"- {reason}" for reason in sorted(skipped)), sep="\n", flush=True)
    return wrong + [text for row in scores.values() for score in row.values() for text in score.lost]


if __name__ == "__main__":
    sys.exit(main())
