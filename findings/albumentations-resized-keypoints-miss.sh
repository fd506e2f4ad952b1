#!/usr/bin/env bash
# Belief: an augmentation library that transforms a picture and its keypoints together keeps them together. After
#   any geometric transform of Albumentations, a keypoint lies on the part of the picture that it marked, to a small
#   fraction of a pixel.
# Seen instead: flips, rotations and affine transforms do so, but every transform that resizes does not. Resize,
#   LongestMaxSize, RandomScale and RandomResizedCrop map the picture with pixel centres at integers, and multiply
#   keypoints by the scale as if pixel 0 began at 0. From 320 to 64 pixels a keypoint lies 0.4 pixels right of and
#   below its place, which are 2 pixels of the original. Affine with the same scale is exact.
# Seen with: albumentations 2.0.8, opencv-python-headless 5.0.0, NumPy 2.4.6; 2026-11-28.
# Why it matters: hand pose networks see small crops. A pipeline that resizes pictures and 2D joints together trains
#   on joints that are off by a constant, in one direction, which differs from dataset to dataset with the size of
#   the original. With other libraries' crops or heat maps the offset comes back as an error at test.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check albumentations==2.0.8 opencv-python-headless==5.0.0.93 numpy==2.4.6

cat >"$work/measure.py" <<'PYTHON'
"""Mark a soft blob by a keypoint at its centre, transform both, and compare the blob's centroid with the keypoint."""

import sys

import albumentations
import cv2
import numpy as np

SIDE, MARK = 320, (100.0, 180.0)


def centroid(picture):
    rows, columns = np.indices(picture.shape)
    return np.array([(picture * columns).sum(), (picture * rows).sum()]) / picture.sum()


rows, columns = np.indices((SIDE, SIDE))
blob = np.exp(-((columns - MARK[0]) ** 2 + (rows - MARK[1]) ** 2) / (2 * 12.0**2)).astype(np.float32)
transforms = {
    "HorizontalFlip": (albumentations.HorizontalFlip(p=1), 0.0),
    "Rotate by 37 degrees": (albumentations.Rotate((37, 37), p=1), 0.0),
    "Affine, scale 0.5": (albumentations.Affine(scale=(0.5, 0.5), p=1), 0.0),
    "RandomScale to 0.5": (albumentations.RandomScale((-0.5, -0.5), p=1), 0.25),
    "Resize to 64": (albumentations.Resize(64, 64), 0.4),
    "LongestMaxSize 64": (albumentations.LongestMaxSize(64), 0.4),
    "Resize to 640": (albumentations.Resize(640, 640), -0.5),
}
print(f"albumentations {albumentations.__version__}, OpenCV {cv2.__version__}, NumPy {np.__version__}")
changed = []
for name, (transform, expected) in transforms.items():
    points = albumentations.KeypointParams(format="xy", remove_invisible=False)
    both = albumentations.Compose([transform], keypoint_params=points)(image=blob, keypoints=[MARK])
    off = np.asarray(both["keypoints"][0]) - centroid(both["image"].astype(np.float64))
    print(f"{name:22} keypoint minus blob: {off[0]:+.3f} {off[1]:+.3f} px")
    if np.abs(off - expected).max() > 0.02:
        changed.append(f"{name} ({expected:+.2f} was seen)")
sys.exit(f"The behaviour has changed: {', '.join(changed)}." if changed else 0)
PYTHON
NO_ALBUMENTATIONS_UPDATE=1 "$work/venv/bin/python" -W ignore "$work/measure.py"
