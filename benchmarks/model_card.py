r"""The tables of the model card of the weights that come with davae, from what was measured.

    python -m davae evaluate --run outputs/runs/photo --data UNSEEN --turns 4 \
        --out docs/results/photo_evaluation.json
    python -m davae evaluate --run outputs/runs/photo --data UNSEEN --out docs/results/photo_one_look.json
    python benchmarks/photos.py --root FRAMES --out docs/results/photo_frames.json
    python benchmarks/interpolation.py --run outputs/runs/photo --data DIR \
        --out docs/results/photo_interpolation.json
    python benchmarks/model_card.py

The last writes them into davae/weights/README.md, between its markers; its words are written by hand.
"""

import itertools
import json
from pathlib import Path
from typing import Any

from davae.data.folders import write_atomically
from davae.predict import WEIGHTS
from davae.skeleton import JOINT_NAMES

REPOSITORY = Path(__file__).parents[1]
RESULTS = REPOSITORY / "docs" / "results"
CARD = WEIGHTS.with_name("README.md")
BEGIN, END = "<!-- measured -->\n", "<!-- end -->"


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def errors(reports: list[dict[str, Any]]) -> str:
    """P1 and P5 beside constant answers, as `predict` does it and by one look at each crop."""
    rows = []
    kinds = (("P1", "mean_pose", "P1_to_mean_pose"), ("P5", "mean_hand", "P5_to_mean_hand"))
    for (name, baseline, ratio), report in itertools.product(kinds, reports):
        found = report["protocols"][name]
        low, high = found["epe_interval_mm"]
        constant = report[baseline][name]["epe_mm"]
        rows.append([
            name, str(report["turns"]), f"{found['epe_mm']:.1f} ({low:.1f} to {high:.1f})",
            f"{found['median_mm']:.1f}", f"{found['auc_20_50']:.3f}", f"{constant:.1f}",
            f"{report['ratios'][ratio]:.3f}",
        ])  # fmt: skip
    head = [
        "protocol", "looks", "EPE mm (95 % interval)", "median mm", "AUC 20-50 mm", "constant answer, mm",
        "ratio",
    ]  # fmt: skip
    return table(head, rows)


def joints(report: dict[str, Any]) -> str:
    """Errors of each joint."""
    p1, p5 = (report["protocols"][name]["per_joint_mm"] for name in ("P1", "P5"))
    rows = [[name, f"{a:.1f}", f"{b:.1f}"] for name, a, b in zip(JOINT_NAMES, p1, p5, strict=True)]
    return table(["joint", "P1 mm", "P5 mm"], rows)


def skin_tones(report: dict[str, Any]) -> str:
    """Errors of hands by how light they look."""
    rows = []
    for name, found in report["skin_tone"]["classes"].items():
        low, high = found["epe_mm_interval"]
        rows.append([
            name, str(found["n"]), f"{found['epe_mm']:.1f} ({low:.1f} to {high:.1f})",
            f"{found['share_of_grey']:.2f}",
        ])  # fmt: skip
    return table(["skin tone", "hands", "P1 mm (95 % interval)", "share of grey's picture error"], rows)


def frames(found: dict[str, Any]) -> str:
    """Whole photos: with the true crop and with the one that was found."""
    rows = [
        [
            way,
            f"{cell['P1 mm, mean']:.1f}",
            f"{cell['P1 mm, median']:.1f}",
            f"{100 * cell['joints on the photo, median of sides']:.1f} %",
        ]
        for way, cell in found.items()
        if isinstance(cell, dict)
    ]
    text = table(
        ["crop, side", "P1 mm, mean", "P1 mm, median", "joints on the photo, of the crop's side"], rows
    )
    boxes, sides = (100 * found[name] for name in ("boxes of IoU 0.5 or more", "sides guessed"))
    return text + (
        f"\nOf {found['frames']:,} boxes, {boxes:.0f} % overlap the true one by half or more (IoU); of the "
        f"sides, {sides:.0f} % are guessed rightly.\n"
    )


def moves(found: dict[str, Any]) -> str:
    """What moves that should not, over random pairs of codes."""
    rows = [
        [claim, f"{cell['ratio']:.2f}", f"{cell['bound']:g}", "yes" if cell["holds"] else "no"]
        for claim, cell in found["claims"].items()
    ]
    return table(["moved end to end", "ratio", "bound", "holds"], rows)


def tables(folder: Path = RESULTS) -> str:
    """Everything measured, as Markdown."""
    report, one_look, photos, walks = (
        json.loads((folder / f"photo_{name}.json").read_text())
        for name in ("evaluation", "one_look", "frames", "interpolation")
    )
    parts = [errors([report, one_look]), frames(photos), skin_tones(report), joints(report), moves(walks)]
    return "\n".join(parts)


def filled(card: str, text: str) -> str:
    """The card with its measured part renewed."""
    head, rest = card.split(BEGIN)
    return head + BEGIN + "\n" + text + "\n" + END + rest.split(END)[1]


if __name__ == "__main__":
    renewed = filled(CARD.read_text(encoding="utf-8"), tables())
    write_atomically(CARD, lambda path: path.write_text(renewed, encoding="utf-8"))
