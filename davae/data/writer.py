"""Write one prepared split: every row into arrays mapped from disk, by one process or several."""

import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from tqdm.auto import tqdm

from davae.config import DataConfig
from davae.data.folders import Lock, allocate, naming_a_full_disk, worker_pool
from davae.data.manifest import sha256, write_json
from davae.data.readers import READERS, Reader
from davae.data.record import BadSample
from davae.data.sample import make_row, row_layout

CHUNK = 32  # rows a worker writes at a time


@dataclass(frozen=True)
class Job:
    """One split to prepare."""

    dataset: str
    root: Path
    split: str
    config: DataConfig
    skip_bad: bool
    options: dict[str, str] = field(default_factory=dict)  # of the reader

    def reader(self) -> Reader:
        """Open the split on disk."""
        return READERS[self.dataset](self.root, self.split, **self.options)

    def annotations_sha256(self) -> str:
        """Return the checksum of the split's annotation files, which stands for its content."""
        return sha256(*READERS[self.dataset].label_files(self.root, self.split, **self.options))


def write_split(
    job: Job, out: Path, settings: dict[str, Any], workers: int, progress: bool, lock: Lock
) -> dict:
    """Write `out`/SPLIT, a folder locked by `lock`, and return its entry for the manifest.

    The folder appears complete or not at all. One that is complete and was made from the same annotations
    with the same settings is taken as it is: an interrupted preparation resumes at the split it was in.

    Raises:
        BadSample: a sample is unusable and `job.skip_bad` is off, or no sample is usable.
        ValueError: the folder exists and is someone else's.
        OSError: the disk is full; the file is named.
    """
    final, partial = out / job.split, out / f".{job.split}.partial"
    made_with = settings | {"skip_bad": job.skip_bad, "annotations_sha256": job.annotations_sha256()}
    if final.exists():
        if not (final / "split.json").exists():
            raise ValueError(f"{final} exists and was not written by prepare; give another output folder")
        entry = json.loads((final / "split.json").read_text())
        if entry["made_with"] == made_with:
            return entry
        # Part of an unfinished preparation with other settings; renamed, so that no half of it can stay.
        shutil.rmtree(partial, ignore_errors=True)
        os.replace(final, partial)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()

    reader = job.reader()
    layout = row_layout(job.config)
    for name, (shape, dtype) in layout.items():
        _new_array(partial / f"{name}.npy", dtype, (len(reader), *shape))
    skipped = _fill(job, reader, partial, workers, progress, lock)
    kept = np.delete(np.arange(len(reader)), sorted(skipped))
    if len(kept) == 0:
        raise BadSample(f"{reader.folder}: none of its {len(reader)} samples can be used")
    if skipped:
        _keep_rows(partial, layout, kept)
    factors = _copy_factors(reader, partial, kept)

    arrays = {}
    for name, (shape, dtype) in tqdm(layout.items(), desc=f"checksums {job.split}", disable=not progress):
        checksum = sha256(partial / f"{name}.npy")
        arrays[name] = {"shape": [len(kept), *shape], "dtype": dtype, "sha256": checksum}
    entry = {
        "count": len(kept),
        "with_cloud": int(np.load(partial / "has_cloud.npy").sum()),
        "with_mask": int(np.load(partial / "has_mask.npy").sum()),
        "skipped": {str(reader.ids[row]): reason for row, reason in sorted(skipped.items())},
        "arrays": arrays,
        "factors_sha256": factors,
        "made_with": made_with,
    }
    write_json(partial / "split.json", entry)
    os.replace(partial, final)
    return entry


def _new_array(path: Path, dtype: str | np.dtype, shape: tuple[int, ...]) -> NDArray:
    """Map a new array of zeros from disk, with room for all of it."""
    with naming_a_full_disk(path):
        array = open_memmap(path, "w+", dtype, shape)
    allocate(path)
    return array


class _Filler:
    """Converts samples and writes them to their rows; each process has one."""

    def __init__(self, job: Job, reader: Reader, folder: Path):
        self.job, self.reader = job, reader
        self.arrays = {name: open_memmap(folder / f"{name}.npy", "r+") for name in row_layout(job.config)}

    def fill(self, start: int, stop: int) -> dict[int, str]:
        """Fill rows [start, stop); return {row: reason} of those left out."""
        skipped = {}
        for row in range(start, stop):
            try:
                values = self.convert(row)
            except BadSample as error:
                if not self.job.skip_bad:
                    raise
                # The manifest may be published: no path of this machine belongs in it.
                skipped[row] = str(error).replace(f"{self.job.root}{os.sep}", "")
                continue
            for name, value in values.items():
                self.arrays[name][row] = value
        return skipped

    def convert(self, row: int) -> dict[str, NDArray]:
        """Decode and convert one sample, naming its file if it is bad."""
        record = self.reader.record(row)
        try:
            return make_row(record, self.job.config, evaluation=self.job.split == "test")
        except BadSample as error:
            raise BadSample(
                f"{self.reader.image_path(row)}, its mask or its labels: {error}; mend the sample, or leave "
                "such samples out (--skip-bad)"
            ) from None


_filler: _Filler | None = None  # of this worker process


def _start_worker(job: Job, folder: Path) -> None:
    global _filler
    _filler = _Filler(job, job.reader(), folder)


def _fill_in_worker(start: int, stop: int) -> dict[int, str]:
    return _filler.fill(start, stop)


def _fill(job: Job, reader: Reader, folder: Path, workers: int, progress: bool, lock: Lock) -> dict[int, str]:
    """Fill every row of the arrays in `folder`; return {row: reason} of those left out."""
    chunks = [(start, min(start + CHUNK, len(reader))) for start in range(0, len(reader), CHUNK)]
    skipped: dict[int, str] = {}
    with tqdm(total=len(reader), desc=f"prepare {job.split}", unit="img", disable=not progress) as bar:
        if workers <= 1 or len(chunks) <= 1:
            filler = _Filler(job, reader, folder)
            for start, stop in chunks:
                skipped |= filler.fill(start, stop)
                bar.update(stop - start)
            return skipped
        with worker_pool(min(workers, len(chunks)), lock, _start_worker, (job, folder)) as pool:
            futures = [pool.submit(_fill_in_worker, start, stop) for start, stop in chunks]
            for (start, stop), future in zip(chunks, futures, strict=True):
                skipped |= future.result()
                bar.update(stop - start)
    return skipped


def _keep_rows(folder: Path, layout: dict, kept: NDArray) -> None:
    """Rewrite each array with the rows `kept`, a chunk at a time."""
    for name in layout:
        path, shorter = folder / f"{name}.npy", folder / f"{name}.short"
        source = np.load(path, mmap_mode="r")
        target = _new_array(shorter, source.dtype, (len(kept), *source.shape[1:]))
        for start in range(0, len(kept), CHUNK):
            target[start : start + CHUNK] = source[kept[start : start + CHUNK]]
        target.flush()
        os.replace(shorter, path)


def _copy_factors(reader: Reader, folder: Path, kept: NDArray) -> str | None:
    """Copy SynthHand's generative factors of the kept samples; return their checksum, None for other data."""
    factors = reader.factors()
    if not factors:
        return None
    with naming_a_full_disk(folder / "factors.npz"):
        np.savez(folder / "factors.npz", **{key: rows[kept] for key, rows in factors.items()})
    return sha256(folder / "factors.npz")
