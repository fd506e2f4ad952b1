"""Predicted hand masks beside prepared arrays: DATA/{train,val,test}/predicted_masks.npy and one JSON file.

The masks are soft (uint8; 255 is certainly the hand) and as large as the stored crops. The JSON file names
the network that made them. It is written last: masks without it are incomplete and are not read.

    network   digest of the mask network's weights
    config    its `davae.config.MaskConfig`
    run       name of its run's folder
    iou       its intersection over union on its own test split, None if that was not measured
    data      digest of the prepared data
    digest    one checksum of all the masks
    arrays    split -> sha256
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from davae.data.arrays import create_array, join_sha256, open_array, sha256
from davae.data.manifest import SPLITS, compare_file, read_json, read_manifest, write_json
from synthhand.storage import exclusive, temporary_path

FILE_NAME = "predicted_masks.json"
COMMAND = "python -m davae predict-masks --mask-run RUN --data"


def read_mask_network(data_dir: str | os.PathLike) -> dict[str, Any] | None:
    """Return the JSON file's content, or None if no masks were predicted.

    Raises:
        ValueError: the file is damaged.
    """
    path = Path(data_dir) / FILE_NAME
    return read_json(path, f"run `{COMMAND} {data_dir}` again") if path.exists() else None


def open_predicted(
    data_dir: str | os.PathLike,
    split: str,
    shape: tuple[int, ...],
    about: Mapping[str, Any],
    *,
    compare: bool = True,
) -> NDArray[np.uint8]:
    """Map the predicted masks (n, s, s) of one split.

    Args:
        data_dir: the prepared folder.
        split: "train", "val" or "test".
        shape: that they must have.
        about: the JSON file's content.
        compare: compare their numbers with the checksum in it, once in a process.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: it is damaged, has changed or is not of this shape.
    """
    path = Path(data_dir) / FILE_NAME
    advice = f"delete {path} and run `{COMMAND} {data_dir}`"
    masks = open_array(predicted_path(data_dir, split), shape, "uint8", advice)
    if compare:
        try:
            expected = str(about["arrays"][split])
        except (LookupError, TypeError) as error:
            raise ValueError(f"{path}: damaged (lacks the checksum of {split}); {advice}") from error
        compare_file(predicted_path(data_dir, split), expected, advice)
    return masks


def write_predicted(
    data_dir: str | os.PathLike, about: dict[str, Any], masks: dict[str, Iterable[NDArray[np.uint8]]]
) -> None:
    """Write the predicted masks of every split, replacing those of another network.

    A kill leaves the old masks or none: the JSON file is deleted first and written last.

    Args:
        data_dir: the prepared folder.
        about: network, config, run and iou of the JSON file.
        masks: split -> consecutive pieces (k, s, s) of all its rows.

    Raises:
        BlockingIOError: another process is writing to the folder.
        OSError: the disk is full; the message names the file.
    """
    data_dir = Path(data_dir)
    with exclusive(data_dir):
        manifest = read_manifest(data_dir)
        for split in SPLITS:
            shape = manifest["splits"][split]["arrays"]["masks"]["shape"]
            array = create_array(temporary_path(predicted_path(data_dir, split)), shape, "uint8")
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
        digest = join_sha256(list(arrays.values()))[:16]
        content = about | {"data": manifest["digest"], "digest": digest, "arrays": arrays}
        write_json(data_dir / FILE_NAME, content)


def predicted_path(data_dir: str | os.PathLike, split: str) -> Path:
    """Return the file of the predicted masks of a split."""
    return Path(data_dir) / split / "predicted_masks.npy"
