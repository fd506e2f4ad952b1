"""Open a dataset as the doctor needs it: every part that can be read, and a finding for each that cannot."""

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from davae.data import freihand, rhd, stb
from davae.data.doctor.findings import Finding
from davae.data.doctor.parts import Hands, Part, Pictures
from davae.data.pictures import read_picture
from davae.data.readers import READERS, Reader, check_dataset
from davae.data.record import HandRecord
from davae.data.stb_cameras import K_BB, K_COLOUR, SIZE, decode_depth, depth_to_colour
from davae.data.stb_labels import load_labels
from davae.data.synthhand import MANIFEST
from davae.skeleton import JOINTS, RHD_ORDER

Opened = tuple[list[Part], list[Finding]]

PART_OF_IT = Finding("note", "", "good for trials; results on it cannot be compared with published ones")
UNFINISHED = Finding("ERROR", "", "the rendering is not finished: repeat the same `davae render` command")


def open_parts(dataset: str, root: Path) -> Opened:
    """Open every part of a dataset.

    Raises:
        ValueError: unknown dataset.
        FileNotFoundError: there is no such folder.
    """
    check_dataset(dataset)
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder; give the folder that {dataset} was unpacked to")
    return {"rhd": _rhd, "synthhand": _synthhand, "stb": _stb, "freihand": _freihand}[dataset](root)


def _views(dataset: str, root: Path, splits: Iterable[str], **options) -> dict[int, tuple[Reader, int]]:
    """Map each id of some splits to its reader and index; empty where the reader refuses the labels.

    Why it does is told by the checks of the labels themselves, file by file.
    """
    views = {}
    for split in splits:
        try:
            reader = READERS[dataset](root, split, **options)
        except (ValueError, OSError):
            continue
        views |= {int(sample): (reader, index) for index, sample in enumerate(reader.ids)}
    return views


def _missing(root: Path, name: str, wanted: str) -> Finding:
    """Say that a split is not there, and whether the dataset lies one folder further down."""
    below = sorted(path.parent for path in root.glob(f"*/{wanted}"))
    advice = f"unpack it from the archive into {root}"
    if below:
        advice = f"did you mean --root {below[0]}?"
    return Finding("ERROR", f"missing split: {root / name} is not there", advice)


# RHD and SynthHand


def _rhd(root: Path) -> Opened:
    due = {rhd.FOLDERS[split]: count for split, count in rhd.PUBLISHED.items()}
    size = (rhd.SIZE_PX, rhd.SIZE_PX)
    return _rhd_parts("rhd", root, due, size, "RHD as published", "RHD's are", PART_OF_IT)


def _synthhand(root: Path) -> Opened:
    path = root / MANIFEST
    try:
        manifest = json.loads(path.read_text())
        due = {folder: int(manifest[split]) for split, folder in rhd.FOLDERS.items()}
        size = (int(manifest["size"]),) * 2
    except (OSError, ValueError, KeyError, TypeError) as error:
        missing = not path.exists()
        reason = "missing" if missing else f"damaged ({error!r})"
        what = f"{path}: {reason}, so nothing says how many samples there should be"
        note = Finding("note" if missing else "ERROR", what, "render the dataset again, or copy this file")
        return [], [note]
    return _rhd_parts("synthhand", root, due, size, MANIFEST, f"{MANIFEST} says", UNFINISHED)


def _rhd_parts(
    dataset: str,
    root: Path,
    due: dict[str, int],
    size: tuple[int, int],
    due_is: str,
    size_is: str,
    short: Finding,
) -> Opened:
    parts, findings = [], []
    own_validation = (root / rhd.FOLDERS["val"]).is_dir()
    for split, name in rhd.FOLDERS.items():
        folder = root / name
        if not folder.is_dir():
            if due.get(name):
                findings.append(_missing(root, name, name))
            continue
        path = folder / f"anno_{name}.pickle"
        try:
            annotations = rhd.load_annotations(path)
            ids = np.array(sorted(annotations), np.int64)
        except (ValueError, TypeError, OverflowError, FileNotFoundError) as error:
            findings.append(
                Finding("ERROR", _with_path(path, error), "the samples of this folder were not checked")
            )
            continue
        splits = ("train", "val") if split == "train" and not own_validation else (split,)
        parts.append(
            Part(
                name=name,
                split=name,
                labels=str(path),
                sample="sample",
                due=due.get(name),
                due_is=due_is,
                short=short,
                unit="metres",
                ids=ids,
                pictures=tuple(
                    Pictures(folder / kind, "", 5, ".png", ids, size, size_is)
                    for kind in ("color", "mask", "depth")
                ),
                hands=_rhd_hands(annotations, ids),
                views=_views(dataset, root, splits),
                part_ids=_reader_of_part_ids(folder / "mask"),
                swapped=_swapped_rhd,
            )
        )
    return parts, findings


def _with_path(path: Path, error: Exception) -> str:
    return str(error) if str(path) in str(error) else f"{path}: cannot be used ({error})"


def _rhd_hands(annotations: dict[int, dict[str, NDArray]], ids: NDArray[np.int64]) -> Hands:
    """Tell the two hands of each sample apart, and keep those of which a joint is visible.

    Of a sample without one both are kept if its labels are damaged, so that this comes to light.
    """
    raw = {}
    for key, shape in (("xyz", (2 * JOINTS, 3)), ("uv_vis", (2 * JOINTS, 3)), ("K", (3, 3))):
        raw[key] = np.stack([_array(annotations[int(i)].get(key), shape) for i in ids]) if len(ids) else (
            np.zeros((0, *shape)))  # fmt: skip
    xyz, uv_vis = (raw[key].reshape(len(ids), 2, JOINTS, 3)[:, :, RHD_ORDER] for key in ("xyz", "uv_vis"))
    visible = uv_vis[..., 2] == 1
    seen = visible.any(2)
    broken = ~(np.isfinite(xyz).all((1, 2, 3)) & np.isfinite(uv_vis).all((1, 2, 3)))
    broken |= ~np.isfinite(raw["K"]).all((1, 2))
    seen |= (broken & ~seen.any(1))[:, None]
    sample, side = np.nonzero(seen)
    return Hands(
        samples=ids[sample],
        left=side == 0,
        joints_mm=1000 * xyz[sample, side],
        uv_px=uv_vis[sample, side, :, :2],
        visible=visible[sample, side],
        K=raw["K"][sample],
    )


def _array(values: object, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return a label as an array; NaN if it is absent, not numeric or of another shape."""
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        return np.full(shape, np.nan)
    return array if array.shape == shape else np.full(shape, np.nan)


def _reader_of_part_ids(folder: Path) -> Callable[[int], NDArray[np.uint8]]:
    return lambda sample: read_picture(folder / f"{sample:05d}.png", "L")


def _swapped_rhd(record: HandRecord) -> HandRecord:
    if record.depth_mm is None:
        return record
    return replace(record, depth_mm=rhd.decode_depth(rhd.encode_depth(record.depth_mm)[..., [1, 0, 2]]))


# STB


def _stb(root: Path) -> Opened:
    findings = []
    for name in ("images", "labels"):
        if not (root / name).is_dir():
            findings.append(_missing(root, name, name))
    if findings:
        return [], findings
    parts = []
    for rig in stb.VIEWS:
        present = sorted((root / "labels").glob(f"*_{rig.upper()}.mat"))
        if not present:
            what = f"{root / 'labels'}: no labels of the rig {rig}, *_{rig.upper()}.mat"
            findings.append(Finding("note", what, f"`prepare --rig {rig}` needs them; else nothing to do"))
            continue
        opened, found = _stb_rig(root, rig)
        parts += opened
        findings += found
    if not parts and not any(finding.level == "ERROR" for finding in findings):
        findings.append(_missing(root, "labels/B1Counting_SK.mat", "labels/B1Counting_SK.mat"))
    return parts, findings


def _stb_rig(root: Path, rig: str) -> Opened:
    parts, findings = [], []
    views = _views("stb", root, ("train", "val", "test"), rig=rig)
    by_sequence: dict[str, dict[int, tuple[Reader, int]]] = {name: {} for name in stb.SEQUENCES}
    for sample, view in views.items():
        by_sequence[stb.frame_of(sample, rig).sequence][sample] = view
    for sequence in stb.SEQUENCES:
        split = "evaluation" if sequence in stb.TEST_SEQUENCES else "training"
        path = root / "labels" / f"{sequence}_{rig.upper()}.mat"
        if not path.is_file():
            what = f"missing split: {path} is not there, a sequence of {split}"
            findings.append(Finding("ERROR", what, f"copy it from the dataset into {path.parent}"))
            continue
        try:
            joints = load_labels(path)
        except ValueError as error:
            findings.append(Finding("ERROR", str(error), "the frames of this sequence were not checked"))
            continue
        frames = np.arange(len(joints))
        kinds = (*stb.VIEWS[rig], *(("SK_depth",) if rig == "sk" else ()))
        parts.append(
            Part(
                name=f"{sequence} {rig.upper()}",
                split=split,
                labels=str(path),
                sample="frame",
                due=stb.FRAMES,
                due_is="STB as published",
                short=PART_OF_IT,
                unit="millimetres",
                ids=frames,
                pictures=tuple(
                    Pictures(root / "images" / sequence, f"{kind}_", 1, ".png", frames, SIZE, "STB's are")
                    for kind in kinds
                ),
                hands=_stb_hands(joints, rig),
                views=by_sequence[sequence],
                swapped=_swapper(root, rig) if rig == "sk" else None,
            )
        )
    return parts, findings


def _stb_hands(joints_mm: NDArray, rig: str) -> Hands:
    """Labels as the first camera of a rig sees them; joint 0 is the palm's centre, which no check minds."""
    n = len(joints_mm)
    joints = depth_to_colour(joints_mm) if rig == "sk" else joints_mm
    K = K_COLOUR if rig == "sk" else K_BB
    return Hands(
        np.arange(n),
        np.ones(n, bool),
        joints,
        None,
        np.ones((n, JOINTS), bool),
        np.broadcast_to(K, (n, 3, 3)),
    )


def _swapper(root: Path, rig: str) -> Callable[[HandRecord], HandRecord]:
    def swapped(record: HandRecord) -> HandRecord:
        frame = stb.frame_of(record.id, rig)
        path = root / "images" / frame.sequence / f"SK_depth_{frame.number}.png"
        if record.points_mm is None or not path.exists():
            return record
        depth = decode_depth(read_picture(path, "RGB")[..., [1, 0, 2]])
        return replace(record, points_mm=stb.hand_points(depth, record.uv_px, record.visible))

    return swapped


# FreiHAND


def _freihand(root: Path) -> Opened:
    parts, findings = [], []
    for split, due in freihand.PUBLISHED.items():
        name = freihand.FOLDERS[split]
        folder = root / name
        if not (folder / "rgb").is_dir():
            findings.append(_missing(root, f"{name}/rgb", f"{name}/rgb"))
            continue
        try:
            xyz_path, K_path = freihand.FreiHANDSplit.label_files(root, split)
            joints_m = freihand.load_labels(xyz_path, (JOINTS, 3))
            K = freihand.load_labels(K_path, (3, 3))
        except (ValueError, OSError) as error:
            findings.append(Finding("ERROR", str(error), "without its labels nothing of it could be checked"))
            continue
        if len(K) != len(joints_m):
            what = f"{K_path}: has {len(K):,} entries where {xyz_path.name} has {len(joints_m):,}"
            findings.append(Finding("ERROR", what, "unpack both again, from the same archive"))
        frames = np.arange(min(len(joints_m), len(K)))
        images = np.arange(len(frames) * _versions(folder / "rgb", len(frames), freihand.VERSIONS[split]))
        size = (freihand.SIZE_PX, freihand.SIZE_PX)
        pictures = [Pictures(folder / "rgb", "", 8, ".jpg", images, size, "FreiHAND's are")]
        if split == "train":  # evaluation has no masks
            pictures.append(Pictures(folder / "mask", "", 8, ".jpg", frames, size, "FreiHAND's are"))
        all_seen = np.ones((len(frames), JOINTS), bool)
        hands = Hands(frames, np.zeros(len(frames), bool), 1000 * joints_m[frames], None, all_seen, K[frames])
        parts.append(
            Part(
                name=name,
                split=name,
                labels=f"{xyz_path}, {K_path.name}",
                sample="frame",
                due=due,
                due_is="FreiHAND as published",
                short=PART_OF_IT,
                unit="metres",
                ids=frames,
                pictures=tuple(pictures),
                hands=hands,
                views=_views("freihand", root, ("train", "val") if split == "train" else (split,)),
            )
        )
    return parts, findings


def _versions(folder: Path, frames: int, published: int) -> int:
    """Return how many images of each frame should be there, to judge by those that are."""
    there = sum(entry.name.endswith(".jpg") for entry in os.scandir(folder))
    return min(max(1, -(-there // max(frames, 1))), published)
