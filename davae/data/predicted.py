"""Predicted hand masks beside prepared arrays: DATA/{train,val,test}/predicted_masks.npy and one JSON file.

The masks are soft, uint8 with 255 for certainly the hand, and as large as the stored crops. The JSON file
names the network that made them; it is written last, so that masks without it are nobody's and are not read.

    network   digest of the mask network's weights
    config    its `davae.config.MaskConfig`
    run       name of its run's folder
    iou       what it reached on its own test split, None where it was not measured
    data      digest of the prepared data
    digest    one checksum of all the masks
    arrays    split -> sha256
"""

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from davae.data.manifest import SPLITS, read_manifest, sha256, write_json
from synthhand.storage import allocate, exclusive, explain_full_disk, temporary_path

FILE_NAME = "predicted_masks.json"
COMMAND = "python -m davae predict-masks --mask-run RUN --data"


def read_mask_network(data_dir: str | os.PathLike) -> dict[str, Any] | None:
    """Return the JSON file's content, or None where no masks were predicted.

    Raises:
        ValueError: the file is damaged.
    """
    path = Path(data_dir) / FILE_NAME
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: damaged ({error}); run `{COMMAND} {data_dir}` again") from error


def open_predicted(data_dir: str | os.PathLike, split: str, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Map the predicted masks (n, s, s) of one split.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: it is damaged or not of this shape.
    """
    path = predicted_path(data_dir, split)
    advice = f"delete {Path(data_dir) / FILE_NAME} and run `{COMMAND} {data_dir}`"
    if not path.exists():
        raise FileNotFoundError(f"{path}: missing; {advice}")
    try:
        masks = np.load(path, mmap_mode="r")
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path}: damaged ({error}); {advice}") from error
    if masks.shape != shape or masks.dtype != np.uint8:
        found = f"{masks.dtype} of shape {masks.shape}"
        raise ValueError(f"{path}: holds {found}, expected uint8 of shape {shape}; {advice}")
    return masks


def write_predicted(
    data_dir: str | os.PathLike, about: dict[str, Any], masks: dict[str, Iterable[NDArray[np.uint8]]]
) -> None:
    """Write the predicted masks of every split, replacing those of another network.

    A kill leaves the old masks or none: the JSON file goes first and comes back last.

    Args:
        data_dir: the prepared folder.
        about: network, config, run and iou of the JSON file.
        masks: split -> consecutive pieces (k, s, s) of all its rows.

    Raises:
        BlockingIOError: another process is writing to the folder.
        OSError: the disk is full; the file is named.
    """
    data_dir = Path(data_dir)
    with exclusive(data_dir):
        manifest = read_manifest(data_dir)
        for split in SPLITS:
            path = temporary_path(predicted_path(data_dir, split))
            with explain_full_disk(path):
                shape = tuple(manifest["splits"][split]["arrays"]["masks"]["shape"])
                array = open_memmap(path, "w+", np.uint8, shape)
            allocate(path)
            row = 0
            for piece in masks[split]:
                array[row : row + len(piece)] = piece
                row += len(piece)
            array.flush()
        (data_dir / FILE_NAME).unlink(missing_ok=True)
        for split in SPLITS:
            path = predicted_path(data_dir, split)
            os.replace(temporary_path(path), path)
        arrays = {split: sha256(predicted_path(data_dir, split)) for split in SPLITS}
        digest = hashlib.sha256(" ".join(arrays.values()).encode()).hexdigest()[:16]
        content = about | {"data": manifest["digest"], "digest": digest, "arrays": arrays}
        write_json(data_dir / FILE_NAME, content)


def predicted_path(data_dir: str | os.PathLike, split: str) -> Path:
    """Return where the predicted masks of a split lie."""
    return Path(data_dir) / split / "predicted_masks.npy"
