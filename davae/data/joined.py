"""Prepared folders joined to one, to train on several renderings at once."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from davae.data.arrays import create_array, join_sha256, rows_sha256, sha256
from davae.data.manifest import FILE_NAME, SPLITS, digest, read_manifest, write_json
from davae.data.prepared import PreparedSplit
from davae.data.writer import CHUNK
from synthhand.storage import exclusive, explain_full_disk

_EQUAL = ("format", "image_px", "crop", "scale_min", "stored_px", "stored_points")


def join_prepared(
    folders: Sequence[str | os.PathLike], out: str | os.PathLike, *, progress: bool = True
) -> Path:
    """Copy prepared folders into one, whose splits hold the rows of each in turn; return the folder `out`.

    Predicted masks are not copied: they must be one network's. Of the factors those are kept that every
    folder has, in equal shapes. A kill leaves nothing that could be taken for data.

    Args:
        folders: two or more folders of `prepare`.
        out: folder to write.
        progress: show a progress bar for each split.

    Raises:
        FileNotFoundError: a folder is not prepared, or a file is missing.
        ValueError: fewer than two folders, a folder is damaged, their crops differ, or `out` is not empty.
        BlockingIOError: another process is writing to `out`.
        OSError: the disk is full; the message names the file.
    """
    sources, out = [Path(folder) for folder in folders], Path(out)
    if len(sources) < 2:
        raise ValueError(f"joining takes two or more prepared folders, got {len(sources)}")
    manifests = [read_manifest(folder) for folder in sources]
    first = manifests[0]
    for folder, manifest in zip(sources[1:], manifests[1:], strict=True):
        for name in _EQUAL:
            if manifest.get(name) != first.get(name):
                raise ValueError(
                    f"{folder / FILE_NAME}: {name} is {manifest.get(name)!r}, but {first.get(name)!r} in "
                    f"{sources[0]}; prepare both with the same options"
                )
    with exclusive(out):
        if out.exists() and any(out.iterdir()):
            raise ValueError(f"{out} is not empty; give another output folder, or delete this one")
        partial = out.with_name(f".{out.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        splits: dict[str, dict[str, Any]] = {}
        for split in SPLITS:
            parts = [PreparedSplit.open(folder, split) for folder in sources]
            splits[split] = _join_split(parts, partial / split, progress)
        about = {name: value for name, value in first.items() if name not in ("splits", "digest")}
        about["dataset"] = " + ".join(dict.fromkeys(manifest["dataset"] for manifest in manifests))
        about["root"] = " + ".join(manifest["root"] for manifest in manifests)
        write_json(partial / FILE_NAME, {**about, "digest": digest(splits), "splits": splits})
        if out.exists():
            out.rmdir()
        os.replace(partial, out)
    return out


def _join_split(parts: Sequence[PreparedSplit], folder: Path, progress: bool) -> dict[str, Any]:
    """Write one split of all parts; return its entry for the manifest."""
    folder.mkdir(parents=True)
    entries = [part.manifest["splits"][part.name] for part in parts]
    count = sum(map(len, parts))
    arrays = {}
    with tqdm(
        total=len(entries[0]["arrays"]) * count, desc=f"join {parts[0].name}", disable=not progress
    ) as bar:
        for name, first in entries[0]["arrays"].items():
            shape = [count, *first["shape"][1:]]
            sums = _join_array([getattr(part, name) for part in parts], folder / f"{name}.npy", shape, bar)
            arrays[name] = {"shape": shape, "dtype": first["dtype"], "sha256": join_sha256(sums)}
    entry = {
        "count": count,
        "with_cloud": sum(part["with_cloud"] for part in entries),
        "with_mask": sum(part["with_mask"] for part in entries),
        "skipped": {},
        "rows_per_checksum": CHUNK,
        "arrays": arrays,
        "factors_sha256": _join_factors(parts, folder / "factors.npz"),
        "made_with": {"joined": [part["made_with"] for part in entries]},
    }
    write_json(folder / "split.json", entry)
    return entry


def _join_array(parts: Sequence[NDArray], path: Path, shape: Sequence[int], bar: tqdm) -> list[str]:
    """Write the rows of all parts to one file; return the checksums of its chunks."""
    joined = create_array(path, shape, parts[0].dtype.name)
    start = 0
    for part in parts:
        for row in range(0, len(part), CHUNK):
            piece = part[row : row + CHUNK]
            joined[start : start + len(piece)] = piece
            start += len(piece)
            bar.update(len(piece))
    joined.flush()
    return [rows_sha256(joined, row, min(row + CHUNK, len(joined))) for row in range(0, len(joined), CHUNK)]


def _join_factors(parts: Sequence[PreparedSplit], path: Path) -> str | None:
    """Write the factors that all parts have in equal shapes; return the file's checksum, None without any."""
    shapes = [{name: values.shape[1:] for name, values in part.factors.items()} for part in parts]
    common = [name for name in shapes[0] if all(other.get(name) == shapes[0][name] for other in shapes)]
    if not common:
        return None
    rows: dict[str, Any] = {name: np.concatenate([part.factors[name] for part in parts]) for name in common}
    with explain_full_disk(path):
        np.savez(path, **rows)
    return sha256(path)
