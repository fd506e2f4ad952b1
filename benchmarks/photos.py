"""Measure the errors and the speed of a weights file on whole frames that it was not trained on.

    python -m davae render --out FRAMES --train 500 --val 1 --test 2000 --seed 7
    python benchmarks/photos.py --root FRAMES --weights FILE.safetensors

Every frame of the test split is predicted in three ways: with the true box and side, as in evaluation; with
the detected box and the true side; with the detected box and the guessed side. Errors are those of P1 (root
and reference bone length known) and of joints on the photo, in units of the side of the true crop. Distances
are from the camera to the root, computed with the true camera and bone length, relative to the true distance.
Bones are the length of the decoded reference bone, which is 1 for perfect joints. Speed is that of
`HandPredictor.predict_all` on encoded photos, including hand detection.

    python -m davae render --out LARGE --train 1 --val 100 --test 200 --seed 7 --size 960
    python benchmarks/photos.py --root LARGE --perturb --count 100

measures instead what photographs do to the finding of hands. Frames are taken whole, and cut so that the hand
fills them: the side of the true crop is 1.0 to 1.4 times theirs. Both are reduced to 320 px and changed in
one of `CHANGES`. Frames three times as large give close-ups the fine detail of photographs.

    python benchmarks/photos.py --root LARGE --peer mediapipe --perturb --count 20
    python benchmarks/photos.py --root LARGE --peer mediapipe --photos FOLDER

ask MediaPipe Hands about the same photos, each after davae: those of --perturb or, without it, the unchanged
ones; and photographs with annotated joints in FOLDER (`peers.read_annotated` says in which form), if given.
MediaPipe is installed into a virtual environment of its own, --peer-env: 1 GB. Boxes are the squares about
the joints that are returned, of both by the rule of training crops. The scale of joints is fitted to the
truth, since neither knows it. "Both" are the photos in which both boxes are good.
"""

import io
import itertools
import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro
from numpy.typing import NDArray
from peers import (
    DIGITS,
    FEW,
    Photo,
    Reader,
    ask_davae,
    compare,
    format_rows,
    measure_overlap,
    open_mediapipe,
    read_annotated,
    surround,
    to_photo,
)
from peers import (
    summarise as summarise_readers,
)
from PIL import Image
from scipy.ndimage import gaussian_filter
from tqdm import tqdm

from davae.data.sample import warp_image
from davae.metrics import endpoint_error
from davae.photo.finding import Box
from davae.photo.hand import Hand
from davae.photo.predict import HandPredictor
from synthhand.formats.record import HandRecord
from synthhand.formats.rhd import RHDSplit
from synthhand.pinhole import apply_homography, pixel_ray, view_rotation
from synthhand.skeleton import REFERENCE_BONE, ROOT

UNIT_CAMERA = (
    1.0,
    1.0,
    0.0,
    0.0,
)  # distance is proportional to focal length, so each frame's own is applied later
AT_ONCE = 32  # frames in one batch
WAYS = ("true box, true side", "found box, true side", "found box, guessed side")
SEEN_PX = 320  # side of the photos that are changed
FILLED = (1.0, 1.4)  # side of the true crop over that of a close-up
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601

Pixels = NDArray[np.float32]  # (h, w, 3), 0 to 255


def _blur(pixels: Pixels, spread_px: float) -> Pixels:
    return gaussian_filter(pixels, (spread_px, spread_px, 0), mode="nearest")


def _store_as_jpeg(pixels: Pixels, quality: int) -> Pixels:
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file), np.float32)


# Name -> what it does to a photo; the generator is its own.
CHANGES: dict[str, Callable[[Pixels, np.random.Generator], Pixels]] = {
    "none": lambda pixels, _: pixels,
    "blurred, 1.5 px": lambda pixels, _: _blur(pixels, 1.5),
    "blurred, 3 px": lambda pixels, _: _blur(pixels, 3.0),
    "darker, x 0.6": lambda pixels, _: 0.6 * pixels,
    "brighter, x 1.4": lambda pixels, _: 1.4 * pixels,
    "cooler": lambda pixels, _: pixels * np.array([0.8, 0.97, 1.2], np.float32),
    "warmer": lambda pixels, _: pixels * np.array([1.2, 1.0, 0.75], np.float32),
    "grey": lambda pixels, _: np.repeat(pixels @ np.array(LUMA, np.float32)[:, None], 3, axis=2),
    "noise of 20 levels": lambda pixels, generator: pixels + generator.normal(0, 20, pixels.shape),
    "sharpened": lambda pixels, _: pixels + 2 * (pixels - _blur(pixels, 1.0)),
    "JPEG of quality 30": lambda pixels, _: _store_as_jpeg(pixels, 30),
}


def cut_true_box(record: HandRecord) -> Box:
    """Return the square that evaluation crops."""
    return surround(record.uv_px, record.visible if record.visible.any() else np.ones(21, bool))


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


def cut_frame(record: HandRecord, frame: Box, px: int = SEEN_PX) -> HandRecord:
    """Return a record as a camera sees it that shows a square of its frame in `px` pixels."""
    to_seen = frame.to_crop(px)
    return replace(
        record,
        image=warp_image(record.image, to_seen, px),
        uv_px=apply_homography(to_seen, record.uv_px),
        K=to_seen @ record.K,
        hand_mask=None,
        depth_mm=None,
    )


def cut_views(record: HandRecord, generator: np.random.Generator) -> dict[str, HandRecord]:
    """Return a record's square frame whole and, inside it, close up around the hand."""
    side, box = record.image.shape[0], cut_true_box(record)
    half = min(box.half / generator.uniform(*FILLED), side / 2)
    jitter = generator.uniform(-0.1, 0.1, 2) * half
    centre = np.clip(np.array(box.centre) + jitter, half - 0.5, side - half - 0.5)
    whole = Box(((side - 1) / 2,) * 2, side / 2)
    frames = {"whole": whole, "close-up": Box((float(centre[0]), float(centre[1])), half)}
    return {name: cut_frame(record, frame) for name, frame in frames.items()}


def change(record: HandRecord, name: str, seed: int) -> HandRecord:
    """Return a record whose image is changed in one of `CHANGES`."""
    pixels = CHANGES[name](record.image.astype(np.float32), np.random.default_rng(seed))
    return replace(record, image=np.clip(np.rint(pixels), 0, 255).astype(np.uint8))


def measure_changes(predictor: HandPredictor, split: RHDSplit, count: int) -> list[dict[str, Any]]:
    """Return a row for each of `CHANGES` and each view: shares of good boxes and right sides, error."""
    results: dict[tuple[str, str], list[tuple[float, ...]]] = {}
    for number in tqdm(range(count), unit="frame", disable=None):
        views = cut_views(split.record(number), np.random.default_rng(number))
        seen = {(c, v): change(record, c, number) for c in CHANGES for v, record in views.items()}
        hands = predictor.predict_all([record.image for record in seen.values()])
        for (key, record), hand in zip(seen.items(), hands, strict=True):
            good = measure_overlap(hand.box, cut_true_box(record)) >= 0.5
            values = good, hand.side == record.side, measure_p1_mm(hand, record), hand.box.confidence
            results.setdefault(key, []).append(values)
    rows = []
    for (changed, view), values in results.items():
        good, right, error, confidence = np.array(values).T
        rows.append({
            "change": changed, "view": view, "good boxes": good.mean(), "right sides": right.mean(),
            "right sides in good boxes": right[good > 0].mean() if good.any() else None,
            "P1, mm, mean": error.mean(), "P1, mm, median": np.median(error), "confidence": confidence.mean(),
        })  # fmt: skip
    return rows


def format_changes(rows: list[dict[str, Any]]) -> str:
    """Return the rows of `measure_changes` as a Markdown table, with their means at the end of each view."""
    names = [name for name in rows[0] if name not in ("change", "view")]
    lines = ["| photo, change | " + " | ".join(names) + " |", "| --- " * (1 + len(names)) + "|"]
    for view in dict.fromkeys(row["view"] for row in rows):
        own = [row for row in rows if row["view"] == view]
        known = {name: [row[name] for row in own if row[name] is not None] for name in names}
        mean = {name: float(np.mean(values)) if values else None for name, values in known.items()}
        for row in [*own, {"change": "mean of these", "view": view, **mean}]:
            values = ["-" if row[n] is None else f"{row[n]:.{1 if 'mm' in n else 2}f}" for n in names]
            lines.append(f"| {view}, {row['change']} | " + " | ".join(values) + " |")
    return "\n".join(lines)


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


def render_photos(split: RHDSplit, count: int, perturb: bool) -> Iterator[tuple[str, Photo]]:
    """Yield frames of a split whole and close up, unchanged or in each of `CHANGES`, and what each is."""
    for number in tqdm(range(count), unit="frame", disable=None):
        for view, record in cut_views(split.record(number), np.random.default_rng(number)).items():
            for name in CHANGES if perturb else ("none",):
                yield (
                    f"rendered, {view}" + (f", {name}" if perturb else ""),
                    to_photo(change(record, name, number)),
                )


def measure_readers(readers: dict[str, Reader], photos: Iterator[tuple[str, Photo]]) -> list[dict[str, Any]]:
    """Return rows of `peers.summarise` for photos of several kinds; each reader sees each photo in turn.

    Of kinds with changes, the last rows are of all changes together.
    """
    found: dict[str, dict[str, list[dict[str, float]]]] = {}
    for of, photo in photos:
        for name, read in readers.items():
            own = found.setdefault(of, {}).setdefault(name, [])
            own.append(compare(photo, read(photo.pixels)))
    for of in [of for of in found if of.endswith(", none")]:
        kind = of.removesuffix("none")
        changed = [answers for other, answers in found.items() if other.startswith(kind)]
        found[f"{kind}all of these"] = {n: [one for each in changed for one in each[n]] for n in readers}
    return [{"of": of, **row} for of, answers in found.items() for row in summarise_readers(answers)]


def main(
    root: Path | None = None,
    weights: Path | None = None,
    count: int = 0,
    out: Path | None = None,
    perturb: bool = False,
    part: Literal["test", "val"] = "test",
    photos: Path | None = None,
    peer: Literal["mediapipe"] | None = None,
    peer_env: Path = Path("outputs/mediapipe"),
    quick: bool = False,
) -> None:
    """Measure weights on a split of a rendered set, or on annotated photographs.

    Args:
        root: Folder of `davae render`, with a seed that the weights were not trained on.
        weights: File of `davae pack`; the default is the file shipped with davae.
        count: Number of frames; 0 means all.
        out: JSON file to write in addition.
        perturb: Measure how boxes and sides are found in changed photos and close-ups, and print a table.
        part: Split of the set; choices are made on "val".
        photos: Folder of photographs with a photos.json, which says where joints are.
        peer: Measure this, too, on the same photos, and print a table of both.
        peer_env: Virtual environment of the peer; made if it does not exist.
        quick: With `peer` or `photos`, measure `predict --quick` besides.
    """
    if root is None and photos is None:
        raise ValueError("nothing to measure: name a rendered set (--root) or photographs (--photos)")
    predictor = HandPredictor.load(weights)
    split = None if root is None else RHDSplit(root, part)
    count = 0 if split is None else min(count or len(split), len(split))
    if split is None or photos is not None or peer is not None:
        shown: Iterator[tuple[str, Photo]] = iter(())
        if split is not None:
            shown = render_photos(split, count, perturb)
        if photos is not None:
            annotated = ((str(photos), photo) for photo in read_annotated(photos).values())
            shown = itertools.chain(shown, annotated)
        readers = {"davae": ask_davae(predictor)}
        readers |= {"davae, quick": ask_davae(predictor, True)} if quick else {}
        with ExitStack() as stack:
            if peer is not None:
                readers["MediaPipe"] = stack.enter_context(open_mediapipe(peer_env))
            rows = measure_readers(readers, shown)
        print(format_rows(rows, FEW if perturb else tuple(DIGITS)))
        if out is not None:
            out.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
        return
    if perturb:
        table = measure_changes(predictor, split, count)
        print(format_changes(table))
        if out is not None:
            out.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
        return
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
