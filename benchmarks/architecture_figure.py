"""Draw the figure of docs/architecture.md: the rooms of both packages, and a picture's path through them.

python benchmarks/architecture_figure.py --out docs/figures/architecture.png
"""

import argparse
from pathlib import Path

from davae.figures.diagram import rooms_diagram


def main(arguments: list[str] | None = None) -> None:
    """Draw the figure and save it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    rooms_diagram().savefig(parser.parse_args(arguments).out, dpi=200, pil_kwargs={"optimize": True})


if __name__ == "__main__":
    main()
