"""The manifest of a prepared folder: read it, write it, and check the files beside it against it."""

import hashlib
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray
from tqdm.auto import tqdm

from davae.data.arrays import join_sha256, open_array, rows_sha256, sha256
from synthhand.storage import write_atomically

SPLITS: tuple[Literal["train", "val", "test"], ...] = ("train", "val", "test")
FORMAT = 3  # raise it whenever equal settings give other arrays
FILE_NAME = "manifest.json"
THREADS = 4  # that compute checksums
SHOWN_S = 2.0  # after which a bar is shown
_compared: set[tuple] = set()  # what this process has compared: (file, as the system knows it, checksum)


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


def check_digest(manifest: dict[str, Any], data_dir: str | os.PathLike) -> None:
    """Raise ValueError if a manifest's digest is not that of the checksums in it.

    Raises:
        LookupError, TypeError, AttributeError: the manifest is damaged.
    """
    if digest(manifest["splits"]) != manifest["digest"]:
        raise ValueError(
            f"{Path(data_dir) / FILE_NAME}: has changed since it was written (its digest is not that of its "
            f"checksums); delete {data_dir} and prepare again"
        )


def compare_arrays(
    folder: Path, entry: Mapping[str, Any], arrays: Mapping[str, NDArray], advice: str
) -> None:
    """Compare all numbers of a split with the checksums of its manifest, each file once in a process.

    A bar shows what takes longer than `SHOWN_S`.

    Args:
        folder: of the split.
        entry: of the split in the manifest.
        arrays: by name, as mapped from the folder.
        advice: what to do about a file that has changed; the end of the message.

    Raises:
        ValueError: a file is not the one that was written.
        LookupError, TypeError, AttributeError: the manifest is damaged.
    """
    rows, new = entry["rows_per_checksum"], {}
    if not isinstance(rows, int) or rows < 1:
        raise TypeError(f"rows_per_checksum is {rows!r}")
    for name, array in arrays.items():
        path = folder / f"{name}.npy"
        known = identify(path, entry["arrays"][name]["sha256"])
        if known not in _compared:
            new[known] = path, array
    with (
        ThreadPoolExecutor(THREADS) as pool,
        tqdm(
            total=sum(array.nbytes for _, array in new.values()), delay=SHOWN_S, leave=False,
            desc=f"checking {folder.name}", unit="B", unit_scale=True,
        ) as bar,
    ):  # fmt: skip
        for known, (path, array) in new.items():
            starts, sums = range(0, len(array), rows), []
            stops = (start + rows for start in starts)
            for found in pool.map(rows_sha256, [array] * len(starts), starts, stops):
                sums.append(found)
                bar.update(array[:rows].nbytes)
            if join_sha256(sums) != known[-1]:
                raise ValueError(f"{path}: has changed since it was written; {advice}")
            _compared.add(known)


def compare_file(path: Path, expected: str, advice: str) -> None:
    """Compare a file with its checksum, once in a process.

    Raises:
        ValueError: it has changed; the message ends in `advice`.
    """
    known = identify(path, expected)
    if known not in _compared:
        if sha256(path) != expected:
            raise ValueError(f"{path}: has changed since it was written; {advice}")
        _compared.add(known)


def identify(path: Path, expected: str) -> tuple:
    """Return what changes if a file or its expected checksum does; the checksum is the last."""
    found = path.stat()
    return (
        os.path.abspath(path),
        found.st_ino,
        found.st_size,
        found.st_mtime_ns,
        found.st_ctime_ns,
        expected,
    )


def verify(data_dir: str | os.PathLike) -> None:
    """Recompute every checksum of a prepared folder, also those that this process has compared before.

    Raises:
        FileNotFoundError: nothing is prepared there, or a file is missing.
        ValueError: a file is not the one that was written; the message names it.
    """
    _compared.clear()
    manifest = read_manifest(data_dir)
    check_digest(manifest, data_dir)
    for split, entry in manifest["splits"].items():
        folder = Path(data_dir) / split
        arrays = {
            name: open_array(folder / f"{name}.npy", expected["shape"], expected["dtype"], "prepare again")
            for name, expected in entry["arrays"].items()
        }
        compare_arrays(folder, entry, arrays, "prepare again")
        factors = folder / "factors.npz"
        if entry["factors_sha256"] is not None:
            if not factors.exists():
                raise FileNotFoundError(f"{factors}: missing; prepare again")
            compare_file(factors, entry["factors_sha256"], "prepare again")
