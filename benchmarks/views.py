"""Measure what looking at fewer squares and views gains and costs, for `predict --quick`.

    python -m davae render --out LARGE --train 1 --val 150 --test 150 --seed 7 --size 960
    python benchmarks/views.py --root LARGE

Validation frames are taken whole and close up, as by `photos.py --perturb` but unchanged. The hand is
searched from each number of squares in `SETTINGS`; what is found is read by each number of views, its side
guessed. Times are those of one core, counted by the processor, so other work on the machine hardly changes
them.
"""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from photos import cut_true_box, cut_views, measure_overlap, measure_p1_mm
from tqdm import tqdm

from davae.photo.finding import KEPT
from davae.photo.hand import Hand
from davae.photo.observer import QUICK, USUAL, Views
from davae.photo.predict import QUICK_KEPT, HandPredictor, Request
from synthhand.formats.record import HandRecord
from synthhand.formats.rhd import RHDSplit

Setting = tuple[int, Views]  # squares to close in from, and views
SETTINGS: tuple[Setting, ...] = (
    (KEPT, USUAL),
    (KEPT, Views(8, 1, 4)),
    (KEPT, Views(4, 4, 4)),
    (KEPT, Views(4, 1, 4)),
    (KEPT, Views(2, 1, 2)),
    (KEPT, Views(1, 1, 1)),
    (QUICK_KEPT, USUAL),
    (QUICK_KEPT, QUICK),
)
MEASURED = ("ms of a core", "P1, mm", "joints, % of the crop", "good box", "right side")

Frame = dict[Setting, list[float]]  # setting -> `MEASURED`


def measure_frame(predictor: HandPredictor, record: HandRecord) -> Frame:
    """Return what each setting needs and how it errs."""
    (request,) = predictor.request([record.image])
    box, frame = cut_true_box(record), Frame()
    for kept in dict.fromkeys(kept for kept, _ in SETTINGS):
        searching = replace(request, kept=kept)
        hand, whole_ms = _time(predictor, searching)
        found = replace(searching, box=hand.box)
        search_ms = whole_ms - _time(predictor, found)[1]
        for views in [views for own, views in SETTINGS if own == kept]:
            read, read_ms = _time(predictor, replace(found, views=views))
            apart = np.linalg.norm(read.joints_px - record.uv_px, axis=1) / (2 * box.half)
            good = measure_overlap(hand.box, box) >= 0.5
            frame[kept, views] = [
                search_ms + read_ms, measure_p1_mm(read, record), 100 * float(np.median(apart)),
                good, read.side == record.side,
            ]  # fmt: skip
    return frame


def _time(predictor: HandPredictor, request: Request) -> tuple[Hand, float]:
    began = time.process_time()
    hand, _ = predictor.answer(request)
    if not isinstance(hand, Hand):
        raise hand
    return hand, 1000 * (time.process_time() - began)


def summarise(frames: list[Frame]) -> list[dict[str, Any]]:
    """Return a row for each of `SETTINGS`."""
    rows = []
    for kept, views in SETTINGS:
        ms, p1, joints, good, right = np.array([frame[kept, views] for frame in frames]).T
        rows.append({
            "squares": kept, "views": views, "ms of a core": float(np.median(ms)),
            "good boxes": good.mean(), "right sides": right.mean(),
            "P1, mm, mean": p1.mean(), "P1, mm, median": float(np.median(p1)),
            "joints on the photo, % of the crop": float(np.median(joints)),
        })  # fmt: skip
    return rows


def format_rows(rows: list[dict[str, Any]]) -> str:
    """Return the rows as a Markdown table."""
    names = [name for name in rows[0] if name not in ("squares", "views")]
    lines = ["| squares; views: joints, mask, side | " + " | ".join(names) + " |"]
    lines.append("|---" * (1 + len(names)) + "|")
    for row in rows:
        setting = row["squares"], row["views"]
        told = {(KEPT, USUAL): ", usual", (QUICK_KEPT, QUICK): ", `--quick`"}.get(setting, "")
        values = [f"{row[name]:.{3 if 'boxes' in name or 'sides' in name else 1}f}" for name in names]
        lines.append(f"| {setting[0]}; {', '.join(map(str, setting[1]))}{told} | {' | '.join(values)} |")
    return "\n".join(lines)


def main(root: Path, weights: Path | None = None, count: int = 150) -> None:
    """Print tables of time and error by numbers of squares and views.

    Args:
        root: Folder of `davae render`, with a seed that the weights were not trained on.
        weights: File of `davae pack`; the default is the file shipped with davae.
        count: Number of validation frames.
    """
    predictor, split = HandPredictor.load(weights), RHDSplit(root, "val")
    frames: dict[str, list[Frame]] = {"whole": [], "close-up": []}
    for number in tqdm(range(min(count, len(split))), unit="frame", disable=None):
        for view, record in cut_views(split.record(number), np.random.default_rng(number)).items():
            frames[view].append(measure_frame(predictor, record))
    for view, own in frames.items():
        print(f"\n{view}, {len(own)} frames\n\n{format_rows(summarise(own))}")


if __name__ == "__main__":
    tyro.cli(main)
