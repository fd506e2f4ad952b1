r"""Write the tables in the model card of the shipped weights from the measured reports.

    python -m davae render --out FRAMES --train 500 --val 1 --test 2000 --seed 7 --workers 2
    python -m davae prepare --dataset synthhand --root FRAMES --out UNSEEN --size 128 --workers 2
    python -m davae predict-masks --mask-run outputs/runs/mask-all --data UNSEEN
    python -m davae evaluate --run outputs/runs/photo-all --data UNSEEN --views 8 \
        --out docs/results/photo_evaluation.json
    python -m davae evaluate --run outputs/runs/photo-all --data UNSEEN \
        --out docs/results/photo_one_view.json
    python -m davae pack ... --out davae/photo/weights/hand.safetensors
    python benchmarks/photos.py --root FRAMES --out docs/results/photo_frames.json
    python -m davae predict-masks --mask-run outputs/runs/mask-all --data DIR
    python benchmarks/interpolation.py --run outputs/runs/photo-all --data DIR \
        --out docs/results/photo_interpolation.json --figure docs/figures/photo_interpolation.png
    python benchmarks/model_card.py

docs/photos.md explains DIR and how the runs are trained and packed. The last command replaces the tables
between the markers in davae/photo/weights/README.md; the rest of that file is written by hand.
"""

import itertools
import json
from pathlib import Path
from typing import Any

from davae.latent.disentanglement import Agreement
from davae.photo.predict import WEIGHTS
from synthhand.skeleton import JOINT_NAMES
from synthhand.storage import write_atomically

REPOSITORY = Path(__file__).parents[1]
RESULTS = REPOSITORY / "docs" / "results"
CARD = WEIGHTS.with_name("README.md")
LEAST_CONSTANTS = 500  # least number of training hands in the mean that serves as constant answer
BEGIN, END = "<!-- measured -->\n", "<!-- end -->"


def format_table(head: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def format_number(value: float | None, digits: int = 1) -> str:
    """Return a number as text, or a dash for None."""
    return "-" if value is None else f"{value:.{digits}f}"


def format_interval(value: float | None, bounds: list[float] | None) -> str:
    """Return a number with its 95 % interval as text, or a dash for None."""
    return "-" if value is None or bounds is None else f"{value:.1f} ({bounds[0]:.1f} to {bounds[1]:.1f})"


def format_errors(reports: list[dict[str, Any]]) -> str:
    """Return the table of P1 and P5 errors beside constant answers, one row per number of views."""
    rows = []
    kinds = (("P1", "mean_pose", "P1_to_mean_pose"), ("P5", "mean_hand", "P5_to_mean_hand"))
    for (name, baseline, ratio), report in itertools.product(kinds, reports):
        found = report["protocols"][name]
        rows.append([
            name, str(report["views"]), format_interval(found["epe_mm"], found["epe_interval_mm"]),
            format_number(found["median_mm"]), format_number(found["auc_20_50"], 3),
            format_number(report[baseline][name]["epe_mm"]), format_number(report["ratios"][ratio], 3),
        ])  # fmt: skip
    head = [
        "protocol", "views", "EPE mm (95 % interval)", "median mm", "AUC 20-50 mm", "constant answer, mm",
        "ratio",
    ]  # fmt: skip
    return format_table(head, rows)


def format_joints(report: dict[str, Any]) -> str:
    """Return the table of errors by joint."""
    p1, p5 = (report["protocols"][name]["per_joint_mm"] for name in ("P1", "P5"))
    rows = [
        [name, format_number(a), format_number(b)] for name, a, b in zip(JOINT_NAMES, p1, p5, strict=True)
    ]
    return format_table(["joint", "P1 mm", "P5 mm"], rows)


def format_skin_tones(report: dict[str, Any]) -> str:
    """Return the table of errors by skin tone."""
    rows = [
        [
            name,
            str(c["n"]),
            format_interval(c["epe_mm"], c["epe_mm_interval"]),
            format_number(c["share_of_grey"], 2),
        ]
        for name, c in report["skin_tone"]["classes"].items()
    ]
    return format_table(
        ["skin tone", "hands", "P1 mm (95 % interval)", "share of grey's picture error"], rows
    )


def format_frames(found: dict[str, Any]) -> str:
    """Return the table of errors on whole photos, with the true crop and with the detected one."""
    rows = [
        [
            way,
            format_number(cell["P1 mm, mean"]),
            format_number(cell["P1 mm, median"]),
            f"{100 * cell['joints on the photo, median of sides']:.1f} %",
        ]
        for way, cell in found.items()
        if isinstance(cell, dict)
    ]
    head = ["crop, side", "P1 mm, mean", "P1 mm, median", "joints on the photo, of the crop's side"]
    names = ("boxes of IoU 0.5 or more", "sides guessed", "sides guessed, of those")
    boxes, sides, there = (100 * found[name] for name in names)
    return format_table(head, rows) + (
        f"\nOf the boxes found, {boxes:.0f} % overlap the true one by half or more (IoU). Of all sides "
        f"guessed {sides:.0f} % are right, in those boxes {there:.0f} %.\n"
    )


def format_moves(found: dict[str, Any]) -> str:
    """Return the table of leaks between blocks, over random pairs of codes."""
    rows = [
        [claim, format_number(cell["ratio"], 2), f"{cell['bound']:g}", "yes" if cell["holds"] else "no"]
        for claim, cell in found["claims"].items()
    ]
    return format_table(["moved end to end", "ratio", "bound", "holds"], rows)


def format_usage(report: dict[str, Any]) -> str:
    """Return a sentence with the active dimensions and the KL divergence of each block."""
    said = [
        f"{block} {cell['active_units']} of {len(cell['kl_per_dim'])} dimensions ({cell['kl']:.1f} nats)"
        for block, cell in report["latent"].items()
    ]
    return (
        f"In use (variance of the mean above 0.01) on the {report['n']:,} crops above: {', '.join(said)}.\n"
    )


def format_likeness(found: dict[str, Any]) -> str:
    """Return the table of agreement with the rendered truth: decoded paths, and plain reconstruction."""
    names = {"floor": "both ends, reconstructed"}
    rows = [
        [
            names.get(name, f"way of {name}"),
            *(format_number(cell[f], digits) for f, digits in zip(Agreement._fields, (2, 1, 1), strict=True)),
        ]
        for name, cell in found["agreement"].items()
    ]
    return format_table(["frames, medians", "outline IoU", "colour error, of 255", "cloud, Chamfer mm"], rows)


def format_tables(folder: Path = RESULTS) -> str:
    """Return all tables as Markdown.

    Raises:
        ValueError: the reports belong to different weights, or the constant answers are means of too few
            hands.
    """
    report, one_view, photos, walks = (
        json.loads((folder / f"photo_{name}.json").read_text(encoding="utf-8"))
        for name in ("evaluation", "one_view", "frames", "interpolation")
    )
    if len({found["weights"] for found in (report, one_view, photos, walks)}) > 1:
        raise ValueError(
            f"{folder}: the reports photo_*.json belong to different weights; make all of them again"
        )
    if report["constants_of"] < LEAST_CONSTANTS:
        raise ValueError(
            f"{folder / 'photo_evaluation.json'}: its constant answers are means of {report['constants_of']} "
            f"hands; render the frames with --train {LEAST_CONSTANTS} or more"
        )
    parts = {
        f"{report['n']:,} crops, cut as the truth says, masks predicted": format_errors([report, one_view]),
        f"{photos['frames']:,} of the same as whole photos, as `predict` takes them": format_frames(photos),
        "By skin tone": format_skin_tones(report),
        "By joint": format_joints(report),
        f"Blocks of the code, moved between {walks['pairs']} pairs of other test images": format_moves(walks)
        + "\n"
        + format_usage(report)
        + "\n"
        + format_likeness(walks),
    }
    return "\n".join(f"### {title}\n\n{text}" for title, text in parts.items())


def fill_card(card: str, text: str) -> str:
    """Return the card with its measured part replaced by `text`."""
    head, rest = card.split(BEGIN)
    return head + BEGIN + "\n" + text + "\n" + END + rest.split(END)[1]


if __name__ == "__main__":
    renewed = fill_card(CARD.read_text(encoding="utf-8"), format_tables())
    write_atomically(CARD, lambda path: path.write_text(renewed, encoding="utf-8"))
