"""Arrays as .npy files that are mapped from disk: create, open and checksum them."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from synthhand.storage import allocate, explain_full_disk


def create_array(path: Path, shape: Sequence[int], dtype: str) -> np.memmap:
    """Create an array file with all of its room on disk, and map it for writing.

    Raises:
        OSError: the disk is full; the message names the file.
    """
    with explain_full_disk(path):
        array = open_memmap(path, "w+", np.dtype(dtype), tuple(shape))
    allocate(path)
    return array


def open_array(path: Path, shape: Sequence[int], dtype: str, advice: str) -> NDArray[Any]:
    """Map an array file for reading.

    Args:
        path: the file.
        shape: the shape it must have.
        dtype: the name of the dtype it must have.
        advice: what to do about a bad file; the end of the message.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: the file is damaged, or holds an array of another shape or dtype.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: missing; {advice}")
    try:
        array = open_memmap(path, mode="r")  # unlike `np.load`, it reads nothing but .npy files
    except OSError:
        raise
    except Exception as error:  # the head of a damaged file may raise anything
        raise ValueError(f"{path}: damaged ({error}); {advice}") from error
    if (array.shape, array.dtype.name) != (tuple(shape), dtype):
        raise ValueError(
            f"{path}: holds {array.dtype.name} of shape {list(array.shape)}, "
            f"expected {dtype} of shape {list(shape)}; {advice}"
        )
    return array


def sha256(*paths: Path) -> str:
    """Return the checksum of a file, read in pieces; of several files, the checksum of their checksums."""
    sums = []
    for path in paths:
        with open(path, "rb") as file:
            sums.append(hashlib.file_digest(file, "sha256").hexdigest())
    return sums[0] if len(sums) == 1 else join_sha256(sums)


def rows_sha256(array: NDArray, start: int, stop: int) -> str:
    """Return the checksum of rows [start, stop) of an array."""
    return hashlib.sha256(np.ascontiguousarray(array[start:stop]).data).hexdigest()


def join_sha256(sums: Sequence[str]) -> str:
    """Return the checksum of a sequence of checksums: of an array, those of its chunks."""
    return hashlib.sha256(" ".join(sums).encode()).hexdigest()
