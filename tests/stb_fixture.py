"""Write tiny datasets in STB's form: grey pictures, a rectangle as the hand's depth, labels by SciPy."""

from pathlib import Path

import numpy as np
import scipy.io
from PIL import Image
from rhd_fixture import open_hand_mm

from synthhand.formats import stb

FRAMES = 2  # of each sequence of the fixture
NAMES = (
    "palm",
    *(f"{f}_{part}" for f in ("little", "ring", "middle", "index", "thumb") for part in range(4)),
)


def left_hand_mm(frame: int) -> np.ndarray:
    """A left hand (21, 3), davae order, about 500 mm before a camera; every frame differs."""
    return open_hand_mm() * [-1, 1, 1] * (1 + 0.01 * frame) + [12 * frame - 10, 60, 500]


def stb_order(joints_mm: np.ndarray) -> np.ndarray:
    """Joints (21, 3) in the order that NAMES spells out, from davae's."""
    ours = {"palm": 0, "thumb": 1, "index": 5, "middle": 9, "ring": 13, "little": 17}
    pieces = [name.partition("_") for name in NAMES]
    return joints_mm[[ours[finger] + int(part or 0) for finger, _, part in pieces]]


def save_mat(path: Path, frames: list[np.ndarray], key: str = "handPara") -> None:
    scipy.io.savemat(path, {key: np.stack([stb_order(f).T for f in frames], axis=-1)})


def write_tree(root: Path) -> Path:
    """A set of grey pictures in STB's form; in every depth picture, the hand is a rectangle 500 mm away."""
    (root / "labels").mkdir(parents=True)
    depth = np.full((480, 640), 900)
    depth[150:300, 300:380] = 500
    depth[5, 5], depth[200, 340], depth[201, 340] = 500, 399, 651  # far aside; too near; too far
    code = np.stack([depth % 256, depth // 256, np.zeros_like(depth)], axis=-1).astype(np.uint8)
    for place, sequence in enumerate(stb.SEQUENCES):
        folder = root / "images" / sequence
        folder.mkdir(parents=True)
        for view in ("BB_left", "BB_right", "SK_color"):
            grey = 10 * place + 60 * ("BB_left", "BB_right", "SK_color").index(view)
            for n in range(FRAMES):
                Image.new("RGB", (640, 480), (grey, grey, n)).save(
                    folder / f"{view}_{n}.png", compress_level=1
                )
        for n in range(FRAMES):
            Image.fromarray(code).save(folder / f"SK_depth_{n}.png", compress_level=1)
        hands = [left_hand_mm(n) for n in range(FRAMES)]
        for rig in ("BB", "SK"):
            save_mat(root / "labels" / f"{sequence}_{rig}.mat", hands)
    return root
