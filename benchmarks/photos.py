"""Measure the errors and the speed of a weights file on whole frames that it was not trained on.

    python -m davae render --out FRAMES --train 500 --val 1 --test 2000 --seed 7
    python benchmarks/photos.py --root FRAMES --weights FILE.safetensors

Every frame of the test split is predicted in three ways: with the true box and side, as in evaluation; with
the detected box and the true side; with the detected box and the guessed side. Errors are those of P1 (root
and reference bone length known) and of joints on the photo, in units of the side of the true crop. Distances
are from the camera to the root, computed with the true camera and bone length, relative to the true distance.
Bones are the length of the decoded reference bone, which is 1 for perfect joints. Speed is that of
`HandPredictor.predict_all` on encoded photos, including hand detection.
"""

import io
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from PIL import Image
from tqdm import tqdm

from davae.metrics import endpoint_error
from davae.photo.finding import Box
from davae.photo.hand import Hand
from davae.photo.predict import HandPredictor
from synthhand.formats.record import HandRecord
from synthhand.formats.rhd import RHDSplit
from synthhand.pinhole import hand_crop, pixel_ray, view_rotation
from synthhand.skeleton import REFERENCE_BONE, ROOT

UNIT_CAMERA = (
    1.0,
    1.0,
    0.0,
    0.0,
)  # distance is proportional to focal length, so each frame's own is applied later
AT_ONCE = 32  # frames in one batch
WAYS = ("true box, true side", "found box, true side", "found box, guessed side")


def cut_true_box(record: HandRecord) -> Box:
    """Return the square that evaluation crops."""
    centre, half = hand_crop(record.uv_px, record.visible if record.visible.any() else np.ones(21, bool))
    return Box((float(centre[0]), float(centre[1])), half)


def measure_p1_mm(hand: Hand, record: HandRecord) -> float:
    """Return the mean joint error, mm, with the true root and bone length."""
    joints = record.joints_mm.astype(float)
    scale_mm = np.linalg.norm(np.subtract(*joints[list(REFERENCE_BONE)]))
    seen = (joints - joints[ROOT]) @ view_rotation(pixel_ray(record.uv_px[ROOT], record.K)).T
    return float(endpoint_error(hand.joints * scale_mm, seen).mean())


def measure_distance(hand: Hand, record: HandRecord) -> float:
    """Return the distance of a hand that was placed with `UNIT_CAMERA`, relative to the true distance."""
    joints, K = record.joints_mm.astype(float), record.K
    bone_mm = np.linalg.norm(np.subtract(*joints[list(REFERENCE_BONE)]))
    root_mm = hand.joints_mm[ROOT, 2] * bone_mm / hand.bone_mm * np.sqrt(K[0, 0] * K[1, 1])
    return float(root_mm / joints[ROOT, 2])


def measure_overlap(a: Box, b: Box) -> float:
    """Return the IoU of two squares."""
    sides = [
        min(p + a.half, q + b.half) - max(p - a.half, q - b.half)
        for p, q in zip(a.centre, b.centre, strict=True)
    ]
    both = max(sides[0], 0.0) * max(sides[1], 0.0)
    return both / (4 * a.half**2 + 4 * b.half**2 - both)


def measure(predictor: HandPredictor, records: list[HandRecord]) -> dict[str, list]:
    """Return name -> one value per frame, for a batch of frames and all `WAYS`."""
    photos, boxes = [record.image for record in records], [cut_true_box(record) for record in records]
    found = predictor.predict_all(photos, intrinsics=UNIT_CAMERA)
    hands = {
        WAYS[0]: predict_by_side(predictor, records, photos, boxes),
        WAYS[1]: predict_by_side(predictor, records, photos, [None] * len(records)),
        WAYS[2]: found,
    }
    rows: dict[str, list] = {"iou": [measure_overlap(h.box, b) for h, b in zip(found, boxes, strict=True)]}
    rows["confidence"] = [hand.box.confidence for hand in found]
    rows["side"] = [hand.side == record.side for hand, record in zip(found, records, strict=True)]
    for way, those in hands.items():
        rows[f"{way}: distance"] = [measure_distance(h, r) for h, r in zip(those, records, strict=True)]
        bones = [np.subtract(*hand.joints[list(REFERENCE_BONE)]) for hand in those]
        rows[f"{way}: bone"] = np.linalg.norm(bones, axis=1).tolist()
        rows[f"{way}: P1"] = [measure_p1_mm(h, r) for h, r in zip(those, records, strict=True)]
        rows[f"{way}: joints"] = [
            np.median(np.linalg.norm(h.joints_px - r.uv_px, axis=1)) / (2 * b.half)
            for h, r, b in zip(those, records, boxes, strict=True)
        ]
    return rows


def predict_by_side(predictor: HandPredictor, records, photos, boxes) -> list[Hand]:
    """Predict hands with their true side, in the given boxes or, for None, in detected ones."""
    hands: list[Hand | None] = [None] * len(records)
    for side in ("left", "right"):
        own = [n for n, record in enumerate(records) if record.side == side]
        if own:
            given = {"boxes": [boxes[n] for n in own], "side": side, "intrinsics": UNIT_CAMERA}
            some = predictor.predict_all([photos[n] for n in own], **given)
            for n, hand in zip(own, some, strict=True):
                hands[n] = hand
    return hands


def summarise(rows: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return the summary of all frames' values."""
    well = rows["iou"] >= 0.5
    result: dict[str, Any] = {
        "frames": len(well),
        "boxes of IoU 0.5 or more": float(well.mean()),
        "median IoU": float(np.median(rows["iou"])),
        "sides guessed": float(rows["side"].mean()),
        "sides guessed, of those": float(rows["side"][well].mean()) if well.any() else float("nan"),
    }
    for way in WAYS:
        p1, joints = rows[f"{way}: P1"], rows[f"{way}: joints"]
        result[way] = {
            "P1 mm, mean": float(p1.mean()),
            "P1 mm, median": float(np.median(p1)),
            "joints on the photo, median of sides": float(np.median(joints)),
            "distance over the true one, 5, 25, 50, 75, 95 %": take_quantiles(rows[f"{way}: distance"]),
            "distance, relative error, 50, 90 %": np.quantile(
                np.abs(rows[f"{way}: distance"] - 1), (0.5, 0.9)
            ).tolist(),
            "decoded bone over the stated one, 5, 25, 50, 75, 95 %": take_quantiles(rows[f"{way}: bone"]),
        }
    return result


def take_quantiles(values: np.ndarray) -> list[float]:
    """Return the 5, 25, 50, 75 and 95 % quantiles."""
    return np.quantile(values, (0.05, 0.25, 0.5, 0.75, 0.95)).tolist()


def measure_rate(predictor: HandPredictor, records: list[HandRecord], count: int = 100) -> float:
    """Return the photos per second of a call on `count` encoded photos, best of three calls."""
    encoded = []
    for number in range(count):
        file = io.BytesIO()
        Image.fromarray(records[number % len(records)].image).save(file, "JPEG", quality=92)
        encoded.append(file.getvalue())
    times = []
    for _ in range(3):
        began = time.perf_counter()
        predictor.predict_all(encoded)
        times.append(time.perf_counter() - began)
    return count / min(times)


def main(root: Path, weights: Path | None = None, count: int = 0, out: Path | None = None) -> None:
    """Measure weights on the test split of a rendered set.

    Args:
        root: Folder of `davae render`, with a seed that the weights were not trained on.
        weights: File of `davae pack`; the default is the file shipped with davae.
        count: Number of frames; 0 means all.
        out: JSON file to write in addition.
    """
    predictor, split = HandPredictor.load(weights), RHDSplit(root, "test")
    count = min(count or len(split), len(split))
    rows: dict[str, list] = {}
    for begin in tqdm(range(0, count, AT_ONCE), unit="batch", disable=None):
        records = [split.record(n) for n in range(begin, min(begin + AT_ONCE, count))]
        for name, values in measure(predictor, records).items():
            rows.setdefault(name, []).extend(values)
    result = summarise({name: np.array(values) for name, values in rows.items()})
    result["photos a second"] = measure_rate(predictor, records)
    result["weights"] = predictor.about["runs"]["model"]
    print(json.dumps(result, indent=2))
    if out is not None:
        out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    tyro.cli(main)
