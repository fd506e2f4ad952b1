"""Open STB as parts: one for each sequence and rig."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from davae.data.doctor.findings import Finding
from davae.data.doctor.parts import (
    Hands,
    Opened,
    Part,
    Pictures,
    open_readers,
    report_missing,
    report_unreadable,
)
from davae.data.readers import Reader
from synthhand.formats import stb
from synthhand.formats.pictures import read_picture
from synthhand.formats.record import HandRecord
from synthhand.formats.stb_cameras import K_BB, K_COLOUR, SIZE, decode_depth, depth_to_colour
from synthhand.formats.stb_labels import load_labels
from synthhand.skeleton import JOINTS


def open_stb(root: Path) -> Opened:
    """Open the sequences of both rigs; it is no error if one rig is absent."""
    findings = [report_missing(root, name) for name in ("images", "labels") if not (root / name).is_dir()]
    if findings:
        return [], findings
    parts, absent = [], []
    for rig in stb.VIEWS:
        labels = f"*_{rig.upper()}.mat"
        if any((root / "labels").glob(labels)):
            opened, found = _open_rig(root, rig)
            parts += opened
            findings += found
        else:
            advice = f"only `prepare --rig {rig}` needs them"
            where = str(root / "labels" / labels)
            absent.append(Finding("note", where, f"no labels of the rig {rig}", "", advice))
    if len(absent) == len(stb.VIEWS):
        return [], [report_missing(root, f"labels/{stb.SEQUENCES[0]}_SK.mat")]
    return parts, findings + absent


def _open_rig(root: Path, rig: str) -> Opened:
    parts, findings = [], []
    readers: dict[str, dict[int, tuple[Reader, int]]] = {name: {} for name in stb.SEQUENCES}
    for sample, reader in open_readers("stb", root, ("train", "val", "test"), rig=rig).items():
        readers[stb.frame_of(sample, rig).sequence][sample] = reader
    kinds = (*stb.VIEWS[rig], *(("SK_depth",) if rig == "sk" else ()))
    for sequence in stb.SEQUENCES:
        split = "evaluation" if sequence in stb.TEST_SEQUENCES else "training"
        path = root / "labels" / f"{sequence}_{rig.upper()}.mat"
        if not path.is_file():
            what = f"missing split: a sequence of {split} has no labels"
            advice = f"copy them from the dataset; without them {split} cannot be prepared"
            findings.append(Finding("ERROR", str(path), what, "no such file", advice))
            continue
        try:
            joints_mm = load_labels(path)
        except ValueError as error:
            findings.append(report_unreadable(path, error))
            continue
        frames, folder = np.arange(len(joints_mm)), root / "images" / sequence
        parts.append(
            Part(
                name=f"{sequence} {rig.upper()}",
                split=split,
                labels=str(path),
                all_labels=f"labels/*_{rig.upper()}.mat",
                noun="frame",
                expected=stb.FRAMES,
                unit="millimetres",
                ids=frames,
                pictures=tuple(Pictures(folder, f"{kind}_", 1, ".png", frames, SIZE) for kind in kinds),
                hands=_place_hands(joints_mm, rig),
                readers=readers[sequence],
                labels_visibility=False,
                depth_path=partial(_depth_path, root) if rig == "sk" else None,
                swap_depth=partial(_swap_depth, root) if rig == "sk" else None,
            )
        )
    return parts, findings


def _place_hands(joints_mm: NDArray, rig: str) -> Hands:
    """Return the labels in the frame of a rig's first camera; joint 0 stays the palm's centre."""
    n = len(joints_mm)
    joints = depth_to_colour(joints_mm) if rig == "sk" else joints_mm
    K = np.broadcast_to(K_COLOUR if rig == "sk" else K_BB, (n, 3, 3))
    return Hands(np.arange(n), np.ones(n, bool), joints, None, np.ones((n, JOINTS), bool), K)


def _depth_path(root: Path, sample: int) -> Path:
    frame = stb.frame_of(sample, "sk")
    return root / "images" / frame.sequence / f"SK_depth_{frame.number}.png"


def _swap_depth(root: Path, record: HandRecord) -> HandRecord:
    if record.points_mm is None:
        return record
    depth = decode_depth(read_picture(_depth_path(root, record.id), "RGB")[..., [1, 0, 2]])
    return replace(record, points_mm=stb.hand_points(depth, record.uv_px, record.visible))
