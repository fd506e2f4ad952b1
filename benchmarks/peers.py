"""Ask davae and MediaPipe Hands about the same photos, one after the other; for `photos.py --peer mediapipe`.

MediaPipe runs as a process of its own, in an environment of its own: davae needs none of what it needs.
"""

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from davae.metrics import endpoint_error, procrustes_align
from davae.photo.finding import Box
from davae.photo.hand import Hand
from davae.photo.predict import HandPredictor
from davae.photo.reading import read_photo
from synthhand.formats.record import HandRecord
from synthhand.pinhole import hand_crop, pixel_ray, view_rotation
from synthhand.skeleton import ROOT

MEDIAPIPE = "mediapipe==0.10.21"  # whose wheels hold the models; those of 1.2.3 do not
CHILD = Path(__file__).with_name("mediapipe_hands.py")
GOOD = 0.5  # IoU
LEAST_JOINTS = 11  # of 21 that must be annotated, for a box around them to be one of the hand


class Photo(NamedTuple):
    """A photo, and what is known of the hand in it."""

    pixels: NDArray[np.uint8]  # (h, w, 3)
    uv_px: NDArray[np.float64]  # (21, 2), NaN where it is not known
    side: str | None
    joints_mm: NDArray[np.float64] | None  # (21, 3) in the frame of a camera that looks at the root
    box: Box | None  # the square that evaluation crops


class Answer(NamedTuple):
    """What is said of a photo."""

    ms: float  # by the clock
    core_ms: float  # by the processor, over all its cores
    joints_px: NDArray[np.float64] | None = None  # (21, 2); None if no hand was found
    joints: NDArray[np.float64] | None = None  # (21, 3) in any unit
    side: str | None = None


class Reader(Protocol):
    """What finds a hand in a photo."""

    def __call__(self, pixels: NDArray[np.uint8]) -> Answer: ...


def ask_davae(predictor: HandPredictor, quick: bool = False) -> Reader:
    """Return davae as a reader."""

    def read(pixels: NDArray[np.uint8]) -> Answer:
        (request,) = predictor.request([pixels], quick=quick)
        began, began_core = perf_counter(), process_time()
        hand, _ = predictor.answer(request)
        ms, core_ms = 1000 * (perf_counter() - began), 1000 * (process_time() - began_core)
        if not isinstance(hand, Hand):
            raise hand
        return Answer(ms, core_ms, hand.joints_px, hand.joints, hand.side)

    return read


@contextmanager
def open_mediapipe(folder: Path) -> Iterator[Reader]:
    """Start MediaPipe with the Python of a virtual environment, which is made if it does not exist."""
    child = subprocess.Popen(
        [prepare_environment(folder), CHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "GLOG_minloglevel": "2", "TF_CPP_MIN_LOG_LEVEL": "2"},
    )
    assert child.stdin is not None and child.stdout is not None
    ask, told = child.stdin, child.stdout

    def read(pixels: NDArray[np.uint8]) -> Answer:
        try:
            ask.write(b"%d %d\n" % pixels.shape[:2] + pixels.tobytes())
            ask.flush()
            line = told.readline()
        except BrokenPipeError:
            line = b""
        if not line:
            raise RuntimeError(f"{child.args} ended (status {child.wait()}); its message is above")
        said = json.loads(line)
        if "side" not in said:
            return Answer(said["ms"], said["core_ms"])
        joints_px, joints = np.array(said["joints_px"]), np.array(said["joints_m"])
        return Answer(said["ms"], said["core_ms"], joints_px, joints, said["side"])

    try:
        yield read
    finally:
        ask.close()
        child.wait()
        told.close()


def prepare_environment(folder: Path) -> Path:
    """Return the Python of a virtual environment that has MediaPipe; make it and install that, if need be."""
    python = folder.absolute() / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists():
        print(f"{folder}: installing {MEDIAPIPE} (1 GB)", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    if subprocess.run([python, "-c", "import mediapipe"], capture_output=True).returncode != 0:
        subprocess.run([python, "-m", "pip", "install", "--quiet", MEDIAPIPE], check=True)
    return python


def to_photo(record: HandRecord) -> Photo:
    """Return a rendered frame with its truth."""
    joints = record.joints_mm.astype(float)
    seen = (joints - joints[ROOT]) @ view_rotation(pixel_ray(record.uv_px[ROOT], record.K)).T
    visible = record.visible if record.visible.any() else np.ones(21, bool)
    return Photo(record.image, record.uv_px.astype(float), record.side, seen, surround(record.uv_px, visible))


def surround(uv_px: NDArray, known: NDArray[np.bool_]) -> Box:
    """Return the square that evaluation crops about joints (21, 2)."""
    centre, half = hand_crop(uv_px, known)
    return Box((float(centre[0]), float(centre[1])), half)


def read_annotated(file: Path) -> dict[str, Photo]:
    """Read photographs with annotated joints: name -> photo.

    Args:
        file: JSON, or a folder with a photos.json; the photographs lie beside it. For each name it gives
            `side` ("left", "right" or null) and `joints_px`, 21 times [u, v] or null, in davae's order, or
            null. It may give `joints_mm`, 21 times [x, y, z] in the camera's frame, with `K`, three rows.

    Raises:
        ValueError: an entry is not of this form.
    """
    file = file / "photos.json" if file.is_dir() else file
    photos: dict[str, Photo] = {}
    for name, told in json.loads(file.read_text(encoding="utf-8")).items():
        joints = told.get("joints_px") or [None] * 21
        uv_px = np.array([one if one and None not in one else (np.nan, np.nan) for one in joints], float)
        side = told.get("side")
        if uv_px.shape != (21, 2) or side not in (None, "left", "right"):
            raise ValueError(f"{file}, {name}: expected a side or null, and 21 joints [u, v] or null each")
        known = np.isfinite(uv_px).all(axis=1)
        box = surround(uv_px, known) if known[ROOT] and known.sum() >= LEAST_JOINTS else None
        seen = None
        if told.get("joints_mm") is not None:
            joints_mm, K = np.array(told["joints_mm"], float), np.array(told["K"], float)
            uv_root = (K @ joints_mm[ROOT])[:2] / joints_mm[ROOT, 2]
            seen = (joints_mm - joints_mm[ROOT]) @ view_rotation(pixel_ray(uv_root, K)).T
        photos[name] = Photo(read_photo(file.parent / name, name), uv_px, side, seen, box)
    return photos


def compare(photo: Photo, answer: Answer) -> dict[str, float]:
    """Return what is measured of one answer; NaN where the photo's truth does not tell, or no hand was found.

    `P1` and `P5` are mean errors in mm of joints whose scale is fitted to the truth, `joints` is the median
    distance on the photo in % of the true crop's side.
    """
    found = {
        "found": 0.0, "box": 0.0, "side": 0.0, "P1": np.nan, "P5": np.nan, "joints": np.nan, "scale": np.nan,
        "ms": answer.ms, "core ms": answer.core_ms,
    }  # fmt: skip
    if answer.joints_px is not None and answer.joints is not None:
        found |= {"found": 1.0, "side": float(answer.side == photo.side)}
        if photo.box is not None:
            own = surround(answer.joints_px, np.ones(21, bool))
            found["box"] = float(measure_overlap(own, photo.box) >= GOOD)
            apart = np.linalg.norm(answer.joints_px - photo.uv_px, axis=1)
            found["joints"] = 100 * float(np.nanmedian(apart)) / (2 * photo.box.half)
        if photo.joints_mm is not None:
            own_joints = answer.joints - answer.joints[ROOT]
            scale = max(float((own_joints * photo.joints_mm).sum() / (own_joints**2).sum()), 0.0)
            found["scale"] = scale
            found["P1"] = float(endpoint_error(scale * own_joints, photo.joints_mm).mean())
            moved = procrustes_align(own_joints, photo.joints_mm)
            found["P5"] = float(endpoint_error(moved, photo.joints_mm).mean())
    if photo.side is None:
        found["side"] = np.nan
    if photo.box is None:
        found["box"] = np.nan
    return found


def measure_overlap(a: Box, b: Box) -> float:
    """Return the IoU of two squares."""
    sides = [
        min(p + a.half, q + b.half) - max(p - a.half, q - b.half)
        for p, q in zip(a.centre, b.centre, strict=True)
    ]
    both = max(sides[0], 0.0) * max(sides[1], 0.0)
    return both / (4 * a.half**2 + 4 * b.half**2 - both)


def summarise(answers: dict[str, list[dict[str, float]]]) -> list[dict[str, Any]]:
    """Return a row for each reader of the same photos; "both" are those in which all boxes are good."""
    both = np.all([[one["box"] == 1 for one in own] for own in answers.values()], axis=0)
    rows = []
    for reader, own in answers.items():
        values = {name: np.array([one[name] for one in own]) for name in own[0]}
        rows.append({
            "reader": reader, "photos": len(own), "found": _mean(values["found"]),
            "good boxes": _mean(values["box"]), "right sides": _mean(values["side"]),
            "P1, mm": _mean(values["P1"]), "P5, mm": _mean(values["P5"]),
            "both": int(both.sum()), "P1 of both, mm": _mean(values["P1"][both]),
            "P5 of both, mm": _mean(values["P5"][both]), "joints, %": _median(values["joints"]),
            "scale": _median(values["scale"]), "ms": _median(values["ms"]),
            "core ms": _median(values["core ms"]),
        })  # fmt: skip
    return rows


def _mean(values: NDArray[np.float64]) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None


def _median(values: NDArray[np.float64]) -> float | None:
    known = values[~np.isnan(values)]
    return float(np.median(known)) if len(known) else None


DIGITS = {
    "found": 2, "good boxes": 2, "right sides": 2, "P1, mm": 1, "P5, mm": 1, "P1 of both, mm": 1,
    "P5 of both, mm": 1, "joints, %": 1, "ms": 0, "core ms": 0,
}  # fmt: skip
FEW = ("found", "good boxes", "right sides", "P1, mm", "joints, %")  # where there are many rows


def format_rows(rows: list[dict[str, Any]], names: Sequence[str] = tuple(DIGITS)) -> str:
    """Return rows of `summarise`, each with `of`, the kind of its photos, as a Markdown table.

    The readers of the same photos share a row. Columns are `names`.
    """
    readers = " / ".join(dict.fromkeys(row["reader"] for row in rows))
    lines = [f"| {readers} | photos | {' | '.join(names)} |", "|---" * (2 + len(names)) + "|"]
    for of, own in itertools.groupby(rows, key=lambda row: row["of"]):
        those = list(own)
        values = [
            " / ".join("-" if row[name] is None else f"{row[name]:.{DIGITS[name]}f}" for row in those)
            for name in names
        ]
        lines.append(f"| {of} | {those[0]['photos']} | {' | '.join(values)} |")
    return "\n".join(lines)
