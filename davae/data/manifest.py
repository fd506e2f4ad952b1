"""The manifest of a prepared folder: how it is written, read, and checked against the files beside it."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from synthhand.storage import write_atomically

SPLITS: tuple[Literal["train", "val", "test"], ...] = ("train", "val", "test")
FORMAT = 3  # raise whenever equal settings give other arrays
FILE_NAME = "manifest.json"


def read_manifest(data_dir: str | os.PathLike) -> dict[str, Any]:
    """Return the manifest of a prepared folder.

    Raises:
        FileNotFoundError: nothing is prepared there; the message says what to run.
        ValueError: the file is damaged.
    """
    path = Path(data_dir) / FILE_NAME
    if not path.exists():
        raise FileNotFoundError(
            f"{path}: missing, so nothing is prepared there; run `python -m davae prepare` with this "
            "folder as its output first (`python -m davae prepare --help`)"
        )
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: damaged ({error}); delete {data_dir} and prepare again") from error


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON under a temporary name and rename it."""
    write_atomically(
        path, lambda temporary: temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    )


def sha256(*paths: Path) -> str:
    """Return the checksum of a file, read in pieces; of several, that of their checksums."""
    sums = []
    for path in paths:
        with open(path, "rb") as file:
            sums.append(hashlib.file_digest(file, "sha256").hexdigest())
    return sums[0] if len(sums) == 1 else hashlib.sha256(" ".join(sums).encode()).hexdigest()


def rows_sha256(array: NDArray, start: int, stop: int) -> str:
    """Return the checksum of rows [start, stop) of an array."""
    return hashlib.sha256(np.ascontiguousarray(array[start:stop])).hexdigest()


def array_sha256(sums: list[str]) -> str:
    """Return the checksum of an array whose pieces have these checksums."""
    return hashlib.sha256(" ".join(sums).encode()).hexdigest()


def digest(splits: dict[str, dict]) -> str:
    """Return one checksum of the arrays of all splits: equal data, equal digest."""
    total = hashlib.sha256()
    for split, entry in sorted(splits.items()):
        for name, array in sorted(entry["arrays"].items()):
            total.update(f"{split}/{name} {array['sha256']}\n".encode())
        total.update(f"{split}/factors {entry['factors_sha256']}\n".encode())
    return total.hexdigest()


def verify(data_dir: str | os.PathLike) -> None:
    """Recompute every checksum of a prepared folder; reads all of it.

    Raises:
        FileNotFoundError: nothing is prepared there.
        ValueError: a file is missing or not the one that was written; it is named.
    """
    for split, entry in read_manifest(data_dir)["splits"].items():
        folder, rows = Path(data_dir) / split, entry["rows_per_checksum"]
        for name, expected in entry["arrays"].items():
            path = folder / f"{name}.npy"
            if not path.exists():
                raise ValueError(f"{path}: missing; prepare again")
            array = np.load(path, mmap_mode="r")
            sums = [rows_sha256(array, start, start + rows) for start in range(0, len(array), rows)]
            if array_sha256(sums) != expected["sha256"]:
                raise ValueError(f"{path}: changed since it was prepared; prepare again")
        factors = folder / "factors.npz"
        if entry["factors_sha256"] is not None and (
            not factors.exists() or sha256(factors) != entry["factors_sha256"]
        ):
            raise ValueError(f"{factors}: missing, or changed since it was prepared; prepare again")
