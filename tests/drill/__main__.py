"""The drill as a command: `PYTHONPATH=tests python -m drill`, see `make drill`.

It gives every reader files that are damaged at random, prints a table of what became of them, and ends with 1
if a reader failed. The same seed draws the same cases.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from drill import hostile


def main() -> int:
    """Run the drill."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=20_000, help="hostile files, over all readers")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="dávae drill 手 ") as name:  # spaces and other alphabets
        watched = hostile.Watched(Path(name) / "readers")
        each = -(-chosen.cases // len(watched.seeds))
        results = hostile.run_cases(watched, each, chosen.seed, progress=True)
        wrong = [f"{name}: {text}" for name, result in results.items() for text in result.failures]
        wrong += hostile.plant(watched, Path(name) / "planted")
        watched.stop()
    print(hostile.format_table(results))
    print(*wrong, f"failures: {len(wrong)}; {time.monotonic() - began:.0f} s; seed {chosen.seed}", sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
