"""Write tiny datasets in FreiHAND's form: flat pictures whose colour encodes their number."""

import json
from pathlib import Path

import numpy as np
from PIL import Image
from rhd_fixture import open_hand_mm

SIDE = 224
FOCAL = 400.0


def joints_m(frame: int) -> np.ndarray:
    """Joints (21, 3) in metres: an open hand in the middle, a little to the right with every frame."""
    hand = open_hand_mm() - open_hand_mm()[9]
    return (hand + np.array([10.0 * frame, 20.0, 600.0])) / 1000


def camera(frame: int) -> np.ndarray:
    """Camera (3, 3) of a frame; no two are equal, nor are its two focal lengths."""
    return np.array([[FOCAL + frame, 0, 112], [0, FOCAL + frame + 1, 112], [0, 0, 1]], float)


def colour_of(number: int) -> np.ndarray:
    """Flat colour (3,) of image `number`."""
    return np.array([20 + 9 * number, 120, 220 - 9 * number], np.uint8)


def mask_of(frame: int) -> np.ndarray:
    """Mask (224, 224) bool of a frame: a rectangle around the joints' pixels, wider with every frame."""
    mask = np.zeros((SIDE, SIDE), bool)
    mask[20:200, 70 : 160 + 5 * frame] = True
    return mask


def save(path: Path, pixels: np.ndarray) -> None:
    """Write a JPEG as the published ones are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=95)


def write_labels(root: Path, folder: str, frames: int) -> None:
    """Write the label files of a split."""
    labels = {"xyz": joints_m, "K": camera}
    for name, label in labels.items():
        entries = [label(frame).tolist() for frame in range(frames)]
        (root / f"{folder}_{name}.json").write_text(json.dumps(entries))


def write_tree(root: Path, train: int = 3, versions: int = 4, test: int = 2) -> Path:
    """Write both splits; return the root."""
    for folder, frames, images in (("training", train, train * versions), ("evaluation", test, test)):
        for number in range(images):
            save(root / folder / "rgb" / f"{number:08d}.jpg", np.full((SIDE, SIDE, 3), colour_of(number)))
        write_labels(root, folder, frames)
    for frame in range(train):
        grey = np.where(mask_of(frame), np.uint8(255), np.uint8(0))
        save(root / "training" / "mask" / f"{frame:08d}.jpg", grey[..., None].repeat(3, axis=2))
    return root
