"""How SynthHand is written to disk, whatever its form: claim the folder, render what is missing, then label.

A form says which files a sample has and how they are made (`Form`); `write_form` does the rest. Pictures are
written one by one, each atomically, by one or more processes, together with a cache of their labels; label
files come last. Called again, it renders only what is missing.
"""

import hashlib
import json
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator
from concurrent.futures import as_completed
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from tqdm.auto import tqdm

from synthhand.dataset import GENERATOR, MANIFEST
from synthhand.model import FLESH, VIEWPOINTS
from synthhand.render.photos import list_pictures
from synthhand.storage import Lock, exclusive, temporary_path, worker_pool, write_atomically

CHUNK = 25  # samples per job, and per file of cached labels
_ENDS = {".png": b"IEND\xaeB`\x82", ".jpg": b"\xff\xd9"}  # the last bytes of a whole picture


class Form(ABC):
    """What a form has to say. Workers get a copy of it by pickle.

    A *part* of a dataset has label files of its own: a split or a sequence.

    Attributes:
        out: the dataset's folder.
        counts: samples by part.
    """

    out: Path
    counts: dict[str, int]

    @abstractmethod
    def manifest(self) -> dict[str, Any]:
        """Return all that fixes the dataset's content besides `GENERATOR`, as JSON."""

    @abstractmethod
    def picture_paths(self, part: str, index: int) -> list[Path]:
        """Return the paths of a sample's pictures, PNG or JPEG."""

    @abstractmethod
    def label_paths(self, part: str) -> list[Path]:
        """Return the paths of a part's label files."""

    @abstractmethod
    def make_sample(
        self, part: str, index: int, missing: set[Path]
    ) -> tuple[dict[str, np.ndarray], dict[Path, bytes]]:
        """Return the labels of a sample, and at least the `missing` ones of its pictures as files."""

    @abstractmethod
    def write_labels(self, part: str, rows: dict[str, np.ndarray]) -> None:
        """Write a part's label files, each atomically, from the labels of all its samples.

        Each array of `rows` is (samples, ...); without samples there are no arrays.
        """


def check_request(
    seed: int,
    workers: int,
    viewpoint: str = VIEWPOINTS[0],
    flesh: str = FLESH[0],
    **bounds: tuple[int, int, int | None],
) -> None:
    """Check what any form is asked for.

    Args:
        seed: 0 or more.
        workers: 1 or more.
        viewpoint: one of `VIEWPOINTS`.
        flesh: one of `FLESH`.
        bounds: more numbers by name: value, least, and most (None for no limit).

    Raises:
        ValueError: a number is out of its bounds, or the viewpoint or the flesh is unknown.
    """
    for name, given, known in (("viewpoint", viewpoint, VIEWPOINTS), ("flesh", flesh, FLESH)):
        if given not in known:
            raise ValueError(f"unknown {name} {given!r}; choose one of {', '.join(known)}")
    bounds |= {"seed": (seed, 0, None), "workers": (workers, 1, None)}
    for name, (value, least, most) in bounds.items():
        if value < least or (most is not None and value > most):
            expected = f"{least} or more" if most is None else f"{least} to {most}"
            raise ValueError(f"{name} is {value}, expected {expected}")


def write_form(form: Form, workers: int, progress: bool) -> Path:
    """Write a dataset, or finish an interrupted one; nothing is done if the folder is complete.

    Args:
        form: what to write.
        workers: processes; the files do not depend on it.
        progress: show a bar.

    Returns:
        The folder.

    Raises:
        ValueError: the folder holds another SynthHand (the message names the difference) or foreign files.
        BlockingIOError: another process is writing there.
        OSError: the disk is full; the message names the file, and the same call continues once there is room.
    """
    with exclusive(form.out) as lock:
        _claim(form.out, {"generator": GENERATOR, **form.manifest()})
        jobs = [
            (form, part, range(start, min(start + CHUNK, count)))
            for part, count in form.counts.items()
            for start in range(0, count, CHUNK)
        ]
        jobs = [job for job in jobs if not _is_done(*job)]
        total = sum(len(indices) for _, _, indices in jobs)
        with tqdm(total=total, desc="SynthHand", unit="sample", disable=not (progress and jobs)) as bar:
            for rendered in _run(jobs, workers, lock):
                bar.update(rendered)
        for part, count in form.counts.items():
            if not _has_labels(form, part):
                for path in form.label_paths(part):
                    path.parent.mkdir(parents=True, exist_ok=True)
                form.write_labels(part, _gather_rows(form, part, count))
        shutil.rmtree(form.out / ".partial", ignore_errors=True)
    return form.out


def describe_flesh(flesh: str) -> dict[str, str]:
    """Return the flesh as an entry of a manifest: none for the first of `FLESH`, as before others existed."""
    return {} if flesh == FLESH[0] else {"flesh": flesh}


def _claim(out: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest of a new folder, or check that an old folder's manifest is the same."""
    path = out / MANIFEST
    if path.exists():
        absent = {"flesh": FLESH[0], "world": []}  # what a manifest without the entries means
        found, asked = absent | json.loads(path.read_text(encoding="utf-8")), absent | manifest
        differing = [
            f"{key} is {found.get(key)} there, {asked.get(key)} asked for"
            for key in sorted(found.keys() | asked.keys())
            if found.get(key) != asked.get(key)
        ]
        if differing:
            raise ValueError(
                f"{out}: already holds another SynthHand ({'; '.join(differing)}); "
                "choose another folder or delete it"
            )
        return
    if out.exists() and any(found != temporary_path(path) for found in out.iterdir()):
        raise ValueError(f"{out}: is not empty and has no {MANIFEST}; choose an empty or a new folder")
    write_file(path, (json.dumps(manifest, indent=2) + "\n").encode())


def _run(jobs: list[tuple[Form, str, range]], workers: int, lock: Lock) -> Iterator[int]:
    """Do the jobs, here or in a pool; yield the number of samples of each one that is done."""
    if workers == 1 or len(jobs) <= 1:
        yield from (_make_chunk(*job) for job in jobs)
        return
    with worker_pool(min(workers, len(jobs)), lock) as pool:
        for future in as_completed([pool.submit(_make_chunk, *job) for job in jobs]):
            yield future.result()


def _make_chunk(form: Form, part: str, indices: range) -> int:
    """Make the missing pictures of some samples and cache their labels; return the number of samples."""
    have_rows = _has_labels(form, part) or _has_rows(form, part, indices)
    rows = []
    for index in indices:
        missing = {path for path in form.picture_paths(part, index) if not is_whole(path)}
        if missing or not have_rows:
            row, files = form.make_sample(part, index, missing)
            rows.append(row)
            for path in sorted(missing):
                write_file(path, files[path])
    if not have_rows:
        cache = _cache_path(form, part, indices.start)
        write_npz(cache, {name: np.stack([row[name] for row in rows]) for name in rows[0]})
    return len(indices)


def _is_done(form: Form, part: str, indices: range) -> bool:
    if not (_has_labels(form, part) or _has_rows(form, part, indices)):
        return False
    return all(is_whole(path) for index in indices for path in form.picture_paths(part, index))


def _has_labels(form: Form, part: str) -> bool:
    return all(path.exists() for path in form.label_paths(part))


def _gather_rows(form: Form, part: str, count: int) -> dict[str, np.ndarray]:
    starts = range(0, count, CHUNK)
    chunks = [_read_rows(form, part, range(start, min(start + CHUNK, count))) for start in starts]
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in (chunks[0] if chunks else ())}


def _has_rows(form: Form, part: str, indices: range) -> bool:
    try:
        _read_rows(form, part, indices)
    except (OSError, ValueError):
        return False
    return True


def _read_rows(form: Form, part: str, indices: range) -> dict[str, np.ndarray]:
    """Return the cached labels of some samples.

    Raises:
        OSError: there is no such file.
        ValueError: the file is damaged, as a crash of the machine can leave it.
    """
    path = _cache_path(form, part, indices.start)
    try:
        with path.open("rb") as file, np.load(file) as chunk:  # a damaged file is closed, too
            rows = dict(chunk)
    except (EOFError, ValueError, BadZipFile) as error:
        raise ValueError(f"{path}: damaged; repeat the command, which makes it anew") from error
    if not rows or any(values.shape[:1] != (len(indices),) for values in rows.values()):
        raise ValueError(f"{path}: not the labels of {len(indices)} samples; repeat the command")
    return rows


def _cache_path(form: Form, part: str, start: int) -> Path:
    return form.out / ".partial" / part / f"{start:05d}.npz"


def is_whole(path: Path) -> bool:
    """Return whether a picture (PNG or JPEG) is there and ends as such files do."""
    end = _ENDS[path.suffix]
    try:
        with path.open("rb") as file:
            file.seek(-len(end), os.SEEK_END)
            return file.read() == end
    except OSError:  # missing, or shorter than any picture
        return False


def write_file(path: Path, content: bytes) -> None:
    """Write a file atomically, and its folder before it where that is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, partial(Path.write_bytes, data=content))


def write_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays to an .npz file, as `write_file` does."""

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:  # given a name, NumPy would append .npz to it
            np.savez(file, allow_pickle=False, **arrays)

    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, write)


def hash_backgrounds(backgrounds: Path | None) -> str | None:
    """Return the SHA-256 of a folder's pictures, names and contents; None for no folder."""
    if backgrounds is None:
        return None
    sha256 = hashlib.sha256()
    for path in list_pictures(backgrounds):
        sha256.update(path.name.encode() + path.read_bytes())
    return sha256.hexdigest()
