"""The manifest of a prepared folder: read it, write it, and check the files beside it against it."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any, Literal

from davae.data.arrays import join_sha256, open_array, rows_sha256, sha256
from synthhand.storage import write_atomically

SPLITS: tuple[Literal["train", "val", "test"], ...] = ("train", "val", "test")
FORMAT = 3  # raise it whenever equal settings give other arrays
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
    return read_json(path, f"delete {data_dir} and prepare again")


def read_json(path: Path, advice: str) -> dict[str, Any]:
    """Read a JSON file; raise ValueError, ending in `advice`, if it is damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: damaged ({error}); {advice}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: damaged (expected an object with fields); {advice}")
    return content


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON under a temporary name and rename it."""
    write_atomically(
        path, lambda temporary: temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    )


def digest(splits: dict[str, dict]) -> str:
    """Return one checksum of the arrays of all splits: equal data, equal digest."""
    total = hashlib.sha256()
    for split, entry in sorted(splits.items()):
        for name, array in sorted(entry["arrays"].items()):
            total.update(f"{split}/{name} {array['sha256']}\n".encode())
        total.update(f"{split}/factors {entry['factors_sha256']}\n".encode())
    return total.hexdigest()


def verify(data_dir: str | os.PathLike) -> None:
    """Recompute every checksum of a prepared folder; this reads all of it.

    Raises:
        FileNotFoundError: nothing is prepared there, or a file is missing.
        ValueError: a file is not the one that was written; the message names it.
    """
    for split, entry in read_manifest(data_dir)["splits"].items():
        folder, rows = Path(data_dir) / split, entry["rows_per_checksum"]
        for name, expected in entry["arrays"].items():
            path = folder / f"{name}.npy"
            array = open_array(path, expected["shape"], expected["dtype"], "prepare again")
            sums = [rows_sha256(array, start, start + rows) for start in range(0, len(array), rows)]
            if join_sha256(sums) != expected["sha256"]:
                raise ValueError(f"{path}: changed since it was prepared; prepare again")
        factors = folder / "factors.npz"
        if entry["factors_sha256"] is not None:
            if not factors.exists():
                raise FileNotFoundError(f"{factors}: missing; prepare again")
            if sha256(factors) != entry["factors_sha256"]:
                raise ValueError(f"{factors}: changed since it was prepared; prepare again")
