"""Write one prepared split: fill every row of arrays mapped from disk, in one process or several.

Rows are filled in chunks. A note beside the arrays keeps the checksums of each finished chunk. After a kill,
the next call resumes after the finished chunks, and fills again those with other checksums.
"""

import json
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from tqdm.auto import tqdm

from davae.config import DataConfig
from davae.data.arrays import create_array, join_sha256, open_array, rows_sha256, sha256
from davae.data.manifest import write_json
from davae.data.readers import DATASETS, Reader
from davae.data.sample import make_row, row_layout
from synthhand.formats.record import BadSample
from synthhand.storage import Lock, explain_full_disk, worker_pool

CHUNK = 32  # rows that a worker writes at a time; each chunk has its own checksum
_NOTES = ".chunks"  # folder of the notes on finished chunks, deleted when the split is complete


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
        return DATASETS[self.dataset].reader(self.root, self.split, **self.options)

    def annotations_sha256(self) -> str:
        """Return the checksum of the split's label files, by which a changed dataset is noticed."""
        return sha256(*DATASETS[self.dataset].label_files(self.root, self.split, **self.options))


def write_split(
    job: Job, out: Path, settings: dict[str, Any], workers: int, progress: bool, lock: Lock
) -> dict:
    """Write the folder `out`/SPLIT, while holding `lock`, and return its entry for the manifest.

    The folder appears when it is complete. A complete one made from the same labels with the same settings
    is kept; of an interrupted one the finished chunks are kept.

    Raises:
        BadSample: a sample is unusable and `job.skip_bad` is off, or no sample is usable.
        ValueError: the folder exists and was not written by `prepare`.
        OSError: the disk is full; the message names the file.
    """
    final, partial = out / job.split, out / f".{job.split}.partial"
    made_with = settings | {"skip_bad": job.skip_bad, "annotations_sha256": job.annotations_sha256()}
    if final.exists():
        if not (final / "split.json").exists():
            raise ValueError(f"{final} exists and was not written by prepare; give another output folder")
        entry = json.loads((final / "split.json").read_text(encoding="utf-8"))
        if entry["made_with"] == made_with:
            return entry
        # From an unfinished preparation with other settings. Renamed first, so a kill while it is deleted
        # does not leave half a split under its final name.
        shutil.rmtree(partial, ignore_errors=True)
        os.replace(final, partial)

    reader, layout = job.reader(), row_layout(job.config)
    _open_arrays(partial, layout, len(reader), made_with)
    chunks = _fill(job, reader, partial, workers, progress, lock)
    skipped = {row: reason for chunk in chunks for row, reason in chunk.skipped.items()}
    kept = _close_gaps(len(reader), sorted(skipped))
    if len(kept) == 0:
        raise BadSample(f"{reader.folder}: none of its {len(reader)} samples can be used")
    arrays = {}
    for name, (shape, dtype) in layout.items():
        sums = [chunk.sha256[name] for chunk in chunks]
        if skipped:
            sums = _keep_rows(partial / f"{name}.npy", kept, sums)
        arrays[name] = {"shape": [len(kept), *shape], "dtype": dtype, "sha256": join_sha256(sums)}
    entry = {
        "count": len(kept),
        "with_cloud": int(np.load(partial / "has_cloud.npy").sum()),
        "with_mask": int(np.load(partial / "has_mask.npy").sum()),
        "skipped": {str(reader.ids[row]): reason for row, reason in sorted(skipped.items())},
        "rows_per_checksum": CHUNK,
        "arrays": arrays,
        "factors_sha256": _copy_factors(reader, partial, kept),
        "made_with": made_with,
    }
    shutil.rmtree(partial / _NOTES)
    write_json(partial / "split.json", entry)
    os.replace(partial, final)
    return entry


def _open_arrays(folder: Path, layout: dict, rows: int, made_with: dict[str, Any]) -> None:
    """Create the folder's arrays, unless an interrupted preparation of the same rows left them there.

    `skip_bad` may differ: it does not change the rows of usable samples.
    """
    same = {name: value for name, value in made_with.items() if name != "skip_bad"}
    started = folder / _NOTES / "made_with.json"
    if _read_note(started) == same:
        with suppress(FileNotFoundError, ValueError):  # then they are created anew
            for name, (shape, dtype) in layout.items():
                open_array(folder / f"{name}.npy", (rows, *shape), dtype, "")
            return
    shutil.rmtree(folder, ignore_errors=True)
    started.parent.mkdir(parents=True)
    for name, (shape, dtype) in layout.items():
        create_array(folder / f"{name}.npy", (rows, *shape), dtype)
    write_json(started, same)


def _read_note(path: Path) -> dict[str, Any] | None:
    """Return a note's content; None if it is missing, or damaged as a power failure leaves it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


@dataclass(frozen=True)
class _Chunk:
    """The note on a finished chunk: {row: reason} of the samples left out, {array: checksum}."""

    skipped: dict[int, str]
    sha256: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        return {"skipped": {str(row): reason for row, reason in self.skipped.items()}, "sha256": self.sha256}

    @classmethod
    def read(cls, path: Path) -> "_Chunk | None":
        """Return the note that an earlier call left, or None."""
        found = _read_note(path)
        if found is None:
            return None
        return cls({int(row): reason for row, reason in found["skipped"].items()}, found["sha256"])


class _Filler:
    """Converts samples and writes them to their rows; one per process."""

    def __init__(self, job: Job, reader: Reader, folder: Path):
        self.job, self.reader, self.notes = job, reader, folder / _NOTES
        self.arrays = {name: open_memmap(folder / f"{name}.npy", "r+") for name in row_layout(job.config)}

    def fill(self, start: int, stop: int) -> _Chunk:
        """Fill rows [start, stop), unless that was done already."""
        note = self.notes / f"{start}.json"
        found = _Chunk.read(note)
        # If bad samples must now stop the preparation, a chunk that skipped one is filled again.
        if (
            found is not None
            and (self.job.skip_bad or not found.skipped)
            and found.sha256 == self.checksums(start, stop)
        ):
            return found
        skipped = {}
        for row in range(start, stop):
            try:
                values = self.convert(row)
            except BadSample as error:
                if not self.job.skip_bad:
                    raise
                # Manifests may be published, so the path of the dataset is removed.
                skipped[row] = str(error).replace(f"{self.job.root}{os.sep}", "")
                continue
            for name, value in values.items():
                self.arrays[name][row] = value
        chunk = _Chunk(skipped, self.checksums(start, stop))
        write_json(note, chunk.to_json())
        return chunk

    def checksums(self, start: int, stop: int) -> dict[str, str]:
        """Return the checksum of rows [start, stop) of each array."""
        return {name: rows_sha256(array, start, stop) for name, array in self.arrays.items()}

    def convert(self, row: int) -> dict[str, NDArray]:
        """Decode and convert one sample, naming its file if it is bad."""
        record = self.reader.record(row)
        try:
            return make_row(record, self.job.config, evaluation=self.job.split == "test")
        except BadSample as error:
            raise BadSample(
                f"{self.reader.image_path(row)}, its mask or its labels: {error}; correct the sample, or "
                "leave such samples out (--skip-bad)"
            ) from None


_filler: _Filler  # of a worker process


def _start_worker(job: Job, folder: Path) -> None:
    global _filler
    _filler = _Filler(job, job.reader(), folder)


def _fill_in_worker(start: int, stop: int) -> _Chunk:
    return _filler.fill(start, stop)


def _fill(job: Job, reader: Reader, folder: Path, workers: int, progress: bool, lock: Lock) -> list[_Chunk]:
    """Fill every row of the arrays in `folder`; return the notes on all chunks, in order."""
    spans = [(start, min(start + CHUNK, len(reader))) for start in range(0, len(reader), CHUNK)]
    chunks = []
    with tqdm(total=len(reader), desc=f"prepare {job.split}", unit="img", disable=not progress) as bar:
        if workers <= 1 or len(spans) <= 1:
            filler = _Filler(job, reader, folder)
            for start, stop in spans:
                chunks.append(filler.fill(start, stop))
                bar.update(stop - start)
            return chunks
        with worker_pool(min(workers, len(spans)), lock, _start_worker, (job, folder)) as pool:
            futures = [pool.submit(_fill_in_worker, start, stop) for start, stop in spans]
            for (start, stop), future in zip(spans, futures, strict=True):
                chunks.append(future.result())
                bar.update(stop - start)
    return chunks


def _close_gaps(rows: int, skipped: list[int]) -> NDArray[np.int64]:
    """Return the row that goes to each place, if rows from the end take the places of skipped rows.

    Moving up all later rows would rewrite tens of gigabytes for one sample left out.
    """
    count = rows - len(skipped)
    kept = np.arange(count)
    gaps = [row for row in skipped if row < count]
    kept[gaps] = np.setdiff1d(np.arange(count, rows), skipped)
    return kept


def _keep_rows(path: Path, kept: NDArray[np.int64], sums: list[str]) -> list[str]:
    """Move the rows `kept` to the front of an array's file and truncate it; return its new checksums."""
    array = open_memmap(path, "r+")
    moved = np.flatnonzero(kept != np.arange(len(kept)))
    for row in moved:
        array[row] = array[kept[row]]
    changed = {*(moved // CHUNK), (len(kept) - 1) // CHUNK}
    sums = sums[: -(-len(kept) // CHUNK)]
    for chunk in changed:
        sums[chunk] = rows_sha256(array, chunk * CHUNK, min((chunk + 1) * CHUNK, len(kept)))
    header = npy.header_data_from_array_1_0(array[: len(kept)])
    offset, size = array.offset, array[: len(kept)].nbytes
    del array
    with path.open("r+b") as file:
        npy.write_array_header_1_0(file, header)
        assert file.tell() == offset, "NumPy's headers have the same length for any number of rows"
        file.truncate(offset + size)
    return sums


def _copy_factors(reader: Reader, folder: Path, kept: NDArray) -> str | None:
    """Copy SynthHand's factors of the kept samples; return their checksum, None for other datasets."""
    factors = reader.factors()
    if not factors:
        return None
    with explain_full_disk(folder / "factors.npz"):
        np.savez(folder / "factors.npz", **{key: rows[kept] for key, rows in factors.items()})
    return sha256(folder / "factors.npz")
