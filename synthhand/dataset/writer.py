"""SynthHand, the embedded dataset: rendered hands with known factors, on disk in the form of RHD.

`write_dataset` fills a folder that `synthhand.formats.rhd` reads like the real thing, with a `validation`
split
besides, plus `factors.npz` per split: every factor as an array `group/name`, row by row with the ids, and
`appearance/mean_colour`, the rendered hand's mean display colour. Sample i of a split depends only on
(seed, split, i). `write_rhd` fills one as RHD was published, with no more than that has.

One sample is `render(sample_factors(seed, split, i))`; `dataclasses.replace` changes any factor, or a whole
group of them, and leaves all others as they are. `synthhand.dataset.sheets` draws contact sheets that way.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from synthhand.dataset import MANIFEST
from synthhand.dataset.factors import FRAME_PX, SPLITS, Factors, sample_factors
from synthhand.dataset.scene import Rendering, render
from synthhand.formats.png import write_png
from synthhand.formats.rhd import FOLDERS, encode_depth, write_annotations
from synthhand.model.pose import VIEWPOINTS
from synthhand.render.photos import list_pictures
from synthhand.storage import Lock, exclusive, temporary_path, worker_pool, write_atomically

__all__ = [
    "GENERATOR",
    "MANIFEST",
    "Factors",
    "Rendering",
    "render",
    "sample_factors",
    "write_dataset",
    "write_rhd",
]

GENERATOR = 6  # raised whenever the same seed would give other pictures
_CHUNK = 25  # samples per job, and per cached piece of annotation
_PNG_END = b"IEND\xaeB`\x82"


def write_dataset(
    out: str | os.PathLike,
    train: int,
    val: int,
    test: int,
    seed: int,
    size: int = 320,
    workers: int = 1,
    progress: bool = True,
    viewpoint: str = "sphere",
    backgrounds: str | os.PathLike | None = None,
) -> Path:
    """Render SynthHand to a folder, or finish an interrupted rendering of it.

    Images are written one by one, each atomically; a split's `factors.npz` and then its annotations come
    last. Called again, it renders only what is missing, and nothing if the folder is complete.

    Args:
        out: folder to write, created if need be.
        train: samples of the training split; 0 leaves a split empty.
        val: samples of the validation split.
        test: samples of the evaluation split.
        seed: 0 or more.
        size: side of the pictures, px.
        workers: processes; the result does not depend on it.
        progress: show a bar.
        viewpoint: from where hands are seen, see `synthhand.model.pose.sample_orientation`.
        backgrounds: folder of pictures to put behind the hands instead of those that are painted or come with
            scikit-image; part of what the dataset is, by content.

    Returns:
        The folder.

    Raises:
        FileNotFoundError: `backgrounds` does not exist or holds no picture.
        ValueError: the folder holds another SynthHand (the difference is named) or foreign files; or a
            picture in `backgrounds` cannot be read.
        BlockingIOError: another process is writing there.
        OSError: the disk is full; the file is named, and the same call goes on once there is room.
    """
    counts = dict(zip(SPLITS, (train, val, test), strict=True))
    look = _Look(seed, size, viewpoint, None if backgrounds is None else Path(backgrounds))
    return _write(Path(out), counts, look, workers, progress)


def write_rhd(
    out: str | os.PathLike,
    train: int,
    test: int,
    seed: int,
    workers: int = 1,
    progress: bool = True,
    viewpoint: str = "sphere",
    backgrounds: str | os.PathLike | None = None,
) -> Path:
    """Render SynthHand as RHD was published: what `write_dataset` does, without `validation` and factors.

    Pictures have 320 px, and pixels in the labels four significant digits, as the published ones seem to have
    (a few hundredths of a pixel). Arguments, resuming and errors are those of `write_dataset`.
    """
    look = _Look(seed, FRAME_PX, viewpoint, None if backgrounds is None else Path(backgrounds), as_rhd=True)
    return _write(Path(out), {"train": train, "test": test}, look, workers, progress)


@dataclass(frozen=True)
class _Look:
    """What all samples of a dataset share."""

    seed: int
    size: int
    viewpoint: str
    backgrounds: Path | None
    as_rhd: bool = False

    def manifest(self) -> dict:
        """These as JSON."""
        return {
            "seed": self.seed,
            "size": self.size,
            "viewpoint": self.viewpoint,
            "backgrounds_sha256": backgrounds_sha256(self.backgrounds),
            **({"form": "rhd"} if self.as_rhd else {}),
        }


def backgrounds_sha256(backgrounds: Path | None) -> str | None:
    """Return the hash of a folder's pictures, which stands for it wherever it lies; None for no folder."""
    if backgrounds is None:
        return None
    sha256 = hashlib.sha256()
    for path in list_pictures(backgrounds):
        sha256.update(path.name.encode() + path.read_bytes())
    return sha256.hexdigest()


def _write(out: Path, counts: dict[str, int], look: _Look, workers: int, progress: bool) -> Path:
    _check_request(counts, look.seed, look.size, workers, look.viewpoint)
    with exclusive(out) as lock:
        claim(out, {"generator": GENERATOR, **counts, **look.manifest()})
        _write_splits(out, counts, look, workers, progress, lock)
    return out


def _write_splits(
    out: Path, counts: dict[str, int], look: _Look, workers: int, progress: bool, lock: Lock
) -> None:
    jobs = [
        (str(out), split, list(range(start, min(start + _CHUNK, count))), look)
        for split, count in counts.items()
        for start in range(0, count, _CHUNK)
    ]
    jobs = [job for job in jobs if not _is_done(*job[:3])]
    with tqdm(
        total=sum(len(job[2]) for job in jobs),
        desc="SynthHand",
        unit="image",
        disable=not (progress and jobs),
    ) as bar:
        for rendered in run_jobs(_render_chunk, jobs, workers, lock):
            bar.update(rendered)
    for split, count in counts.items():
        _finish_split(out, split, count, look.as_rhd)
    shutil.rmtree(out / ".partial", ignore_errors=True)


def _check_request(counts: dict[str, int], seed: int, size: int, workers: int, viewpoint: str) -> None:
    if viewpoint not in VIEWPOINTS:
        raise ValueError(f"unknown viewpoint {viewpoint!r}; choose one of {', '.join(VIEWPOINTS)}")
    for name, value, least in [*((k, v, 0) for k, v in counts.items()), ("seed", seed, 0), ("size", size, 16),
                               ("workers", workers, 1)]:  # fmt: skip
        if value < least:
            raise ValueError(f"{name} is {value}, expected {least} or more")


def claim(out: Path, manifest: dict) -> None:
    """Write the manifest of a new folder, or check that an old one asks for the same dataset."""
    path = out / MANIFEST
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        differing = [
            f"{key} is {found.get(key)} there, {manifest.get(key)} asked for"
            for key in sorted(found.keys() | manifest.keys())
            if found.get(key) != manifest.get(key)
        ]
        if differing:
            raise ValueError(
                f"{out}: already holds another SynthHand ({'; '.join(differing)}); "
                "choose another folder or delete it"
            )
        return
    if out.exists() and any(found != temporary_path(path) for found in out.iterdir()):
        raise ValueError(f"{out}: is not empty and has no {MANIFEST}; choose an empty or a new folder")
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(
        path, lambda temporary: temporary.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    )


def run_jobs(work: Callable[[tuple], Any], jobs: list[tuple], workers: int, lock: Lock) -> Iterator[Any]:
    """Do `work` on each job, here or in a pool; yields what it returns, in the order in which jobs finish."""
    if workers == 1 or len(jobs) <= 1:
        yield from map(work, jobs)
        return
    with worker_pool(min(workers, len(jobs)), lock) as pool:
        for future in as_completed([pool.submit(work, job) for job in jobs]):
            yield future.result()


def _render_chunk(job: tuple[str, str, list[int], _Look]) -> int:
    """Render the missing samples of one chunk and cache its annotation rows; returns the chunk's length."""
    out, split, indices, look = job
    folder, cache = Path(out) / FOLDERS[split], _cache_path(Path(out), split, indices)
    for kind in ("color", "depth", "mask"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    have_rows = cache.exists() or _annotation_path(Path(out), split).exists()
    rows = []
    for index in indices:
        if have_rows and _has_images(folder, index):
            continue
        factors = sample_factors(look.seed, split, index, look.viewpoint)
        rendering = render(factors, look.size, look.backgrounds)
        _write_images(folder, index, rendering)
        rows.append(_row(factors, rendering))
    if not have_rows:
        cache.parent.mkdir(parents=True, exist_ok=True)
        _write_npz(cache, {name: np.stack([row[name] for row in rows]) for name in rows[0]})
    return len(indices)


def _row(factors: Factors, rendering: Rendering) -> dict[str, np.ndarray]:
    """Everything of a sample that is not a picture; the names without a slash go to the annotations."""
    return {
        **factors.flat(),
        "appearance/mean_colour": rendering.mean_colour,
        "xyz": (rendering.joints_mm / 1000).astype(np.float32),
        "uv_vis": rendering.uv_vis.astype(np.float32),
        "K": rendering.K.astype(np.float32),
    }


def _write_images(folder: Path, index: int, rendering: Rendering) -> None:
    pictures = {
        "color": rendering.image,
        "depth": encode_depth(rendering.depth_mm),
        "mask": rendering.part_mask,
    }
    for kind, pixels in pictures.items():
        write = partial(write_png, pixels=pixels, noisy=kind == "color")
        write_atomically(folder / kind / f"{index:05d}.png", write)


def _finish_split(out: Path, split: str, count: int, as_rhd: bool) -> None:
    """Gather the cached rows into `factors.npz` and the annotation pickle, the mark of a finished split."""
    annotation = _annotation_path(out, split)
    if annotation.exists():
        return
    annotation.parent.mkdir(parents=True, exist_ok=True)
    chunks = []
    for start in range(0, count, _CHUNK):
        with np.load(_cache_path(out, split, [start])) as chunk:
            chunks.append(dict(chunk))
    rows = {name: np.concatenate([chunk[name] for chunk in chunks]) for name in (chunks[0] if chunks else ())}
    labels = {name: rows.pop(name) for name in ("xyz", "uv_vis", "K") if name in rows}
    if not as_rhd:
        _write_npz(annotation.parent / "factors.npz", rows)
    elif labels:
        labels["uv_vis"] = _four_digits(labels["uv_vis"])
    write_annotations(
        annotation, {i: {name: values[i] for name, values in labels.items()} for i in range(count)}
    )


def _four_digits(values: np.ndarray) -> np.ndarray:
    """Round to four significant digits."""
    leading = np.floor(np.log10(np.maximum(np.abs(values, dtype=np.float64), 1e-3)))
    step = 10.0 ** (leading - 3)
    return (np.rint(values / step) * step).astype(values.dtype)


def _is_done(out: str, split: str, indices: list[int]) -> bool:
    has_rows = _annotation_path(Path(out), split).exists() or _cache_path(Path(out), split, indices).exists()
    return has_rows and all(_has_images(Path(out) / FOLDERS[split], index) for index in indices)


def _has_images(folder: Path, index: int) -> bool:
    return all(is_whole_png(folder / kind / f"{index:05d}.png") for kind in ("color", "depth", "mask"))


def is_whole_png(path: Path) -> bool:
    """Whether a picture is there and ends as PNGs do."""
    try:
        with open(path, "rb") as file:
            file.seek(-len(_PNG_END), os.SEEK_END)
            return file.read() == _PNG_END
    except OSError:  # missing, or shorter than any PNG
        return False


def _annotation_path(out: Path, split: str) -> Path:
    return out / FOLDERS[split] / f"anno_{FOLDERS[split]}.pickle"


def _cache_path(out: Path, split: str, indices: list[int]) -> Path:
    return out / ".partial" / FOLDERS[split] / f"{indices[0]:05d}.npz"


def _write_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:  # given a name, NumPy would append .npz to it
            np.savez(file, **arrays)

    write_atomically(path, write)
