"""Open FreiHAND as parts."""

import os
from pathlib import Path

import numpy as np

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
from synthhand.formats import freihand
from synthhand.skeleton import JOINTS


def open_freihand(root: Path) -> Opened:
    """Open both folders. An entry of the labels is a frame; training has several images of each."""
    parts, findings = [], []
    for split, expected in freihand.PUBLISHED.items():
        name = freihand.FOLDERS[split]
        folder = root / name
        if not (folder / "rgb").is_dir():
            findings.append(report_missing(root, f"{name}/rgb"))
            continue
        xyz_path, K_path = (root / f"{name}_{kind}.json" for kind in ("xyz", "K"))
        try:
            freihand.FreiHANDSplit.label_files(root, split)
            joints_m = freihand.load_labels(xyz_path, (JOINTS, 3))
            K = freihand.load_labels(K_path, (3, 3))
        except (ValueError, OSError) as error:
            findings.append(report_unreadable(K_path if str(K_path) in str(error) else xyz_path, error))
            continue
        if len(K) != len(joints_m):
            what = "not as many cameras as joints"
            detail, advice = f"{len(K):,} for {len(joints_m):,}", "unpack both again, from one archive"
            findings.append(Finding("ERROR", str(K_path), what, detail, advice))
        frames = np.arange(min(len(joints_m), len(K)))
        images = np.arange(
            len(frames) * _count_versions(folder / "rgb", len(frames), freihand.VERSIONS[split])
        )
        size = (freihand.SIZE_PX, freihand.SIZE_PX)
        pictures = [Pictures(folder / "rgb", "", 8, ".jpg", images, size)]
        if split == "train":  # evaluation has no masks
            pictures.append(Pictures(folder / "mask", "", 8, ".jpg", frames, size))
        seen, left = np.ones((len(frames), JOINTS), bool), np.zeros(len(frames), bool)
        parts.append(
            Part(
                name=name,
                split=name,
                labels=f"{xyz_path} and {K_path.name}",
                all_labels="*_xyz.json",
                noun="frame",
                expected=expected,
                unit="metres",
                ids=frames,
                pictures=tuple(pictures),
                hands=Hands(frames, left, 1000 * joints_m[frames], None, seen, K[frames]),
                readers=open_readers("freihand", root, ("train", "val") if split == "train" else (split,)),
                labels_visibility=False,
            )
        )
    return parts, findings


def _count_versions(folder: Path, frames: int, published: int) -> int:
    """Estimate how many images of each frame there should be from the number that are there."""
    images = sum(entry.name.endswith(".jpg") for entry in os.scandir(folder))
    return min(max(1, -(-images // max(frames, 1))), published)
