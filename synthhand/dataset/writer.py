"""SynthHand, the embedded dataset: rendered hands with known factors, on disk in the form of RHD.

`write_dataset` fills a folder that `synthhand.formats.rhd` reads as it reads RHD. It has a `validation` split
and a `factors.npz` per split besides: every factor as an array `group/name`, row by row with the ids, and
`appearance/mean_colour`, the rendered hand's mean display colour. Sample i of a split depends only on
(seed, split, i). `write_rhd` writes RHD as it was published, and nothing else.

One sample is `render(sample_factors(seed, split, i))`. `dataclasses.replace` changes any factor, or a whole
group of them, and leaves all others as they are. `synthhand.dataset.sheets` draws contact sheets that way.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from synthhand.dataset.factors import FRAME_PX, sample_factors
from synthhand.dataset.jobs import (
    Form,
    check_request,
    describe_flesh,
    hash_backgrounds,
    write_form,
    write_npz,
)
from synthhand.dataset.scene import LEAST_PX, render
from synthhand.dataset.world import choose_world
from synthhand.formats.pictures import encode_png
from synthhand.formats.rhd import FOLDERS, encode_depth, write_annotations

KINDS = ("color", "depth", "mask")
LABELS = ("xyz", "uv_vis", "K")  # what annotations hold; all else goes to `factors.npz`


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
    flesh: str = "realistic",
    world: str | Iterable[str] = (),
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
            scikit-image; the manifest records a hash of them.
        flesh: range of flesh and bone proportions, see `synthhand.dataset.flesh`.
        world: what of the world of photographs is switched on, see `synthhand.dataset.world`.

    Returns:
        The folder.

    Raises:
        FileNotFoundError: `backgrounds` does not exist or holds no picture.
        ValueError: the folder holds another SynthHand (the message names the difference) or foreign files; or
            a picture in `backgrounds` cannot be read.
        BlockingIOError: another process is writing there.
        OSError: the disk is full; the message names the file, and the same call continues once there is room.
    """
    counts = {"train": train, "val": val, "test": test}
    chosen = choose_world(world)
    form = _RHDForm(Path(out), counts, seed, size, viewpoint, _folder(backgrounds), flesh, world=chosen)
    return _write(form, workers, progress)


def write_rhd(
    out: str | os.PathLike,
    train: int,
    test: int,
    seed: int,
    workers: int = 1,
    progress: bool = True,
    viewpoint: str = "sphere",
    backgrounds: str | os.PathLike | None = None,
    flesh: str = "realistic",
) -> Path:
    """Render SynthHand as RHD was published: what `write_dataset` does, without `validation` and factors.

    Pictures have 320 px, and pixels in the labels four significant digits, as the published ones seem to have
    (a few hundredths of a pixel). Arguments, resuming and errors are those of `write_dataset`.
    """
    counts = {"train": train, "test": test}
    folder = _folder(backgrounds)
    form = _RHDForm(Path(out), counts, seed, FRAME_PX, viewpoint, folder, flesh, published=True)
    return _write(form, workers, progress)


def _folder(path: str | os.PathLike | None) -> Path | None:
    return None if path is None else Path(path)


def _write(form: "_RHDForm", workers: int, progress: bool) -> Path:
    bounds = {name: (count, 0, None) for name, count in form.counts.items()}
    check_request(form.seed, workers, form.viewpoint, form.flesh, size=(form.size, LEAST_PX, None), **bounds)
    return write_form(form, workers, progress)


@dataclass(frozen=True)
class _RHDForm(Form):
    out: Path
    counts: dict[str, int]
    seed: int
    size: int
    viewpoint: str
    backgrounds: Path | None
    flesh: str
    published: bool = False  # as RHD was, without factors
    world: tuple[str, ...] = ()

    def manifest(self) -> dict[str, Any]:
        return {
            **self.counts,
            "seed": self.seed,
            "size": self.size,
            "viewpoint": self.viewpoint,
            "backgrounds_sha256": hash_backgrounds(self.backgrounds),
            **describe_flesh(self.flesh),
            **({"world": list(self.world)} if self.world else {}),
            **({"form": "rhd"} if self.published else {}),
        }

    def picture_paths(self, part: str, index: int) -> list[Path]:
        return [self.out / FOLDERS[part] / kind / f"{index:05d}.png" for kind in KINDS]

    def label_paths(self, part: str) -> list[Path]:
        return [self.out / FOLDERS[part] / f"anno_{FOLDERS[part]}.pickle"]

    def make_sample(
        self, part: str, index: int, missing: set[Path]
    ) -> tuple[dict[str, np.ndarray], dict[Path, bytes]]:
        factors = sample_factors(self.seed, part, index, self.viewpoint, self.flesh, self.world)
        rendering = render(factors, self.size, self.backgrounds)
        row = {
            **factors.flat(),
            **rendering.outcomes,
            "appearance/mean_colour": rendering.mean_colour,
            "xyz": (rendering.joints_mm / 1000).astype(np.float32),
            "uv_vis": rendering.uv_vis.astype(np.float32),
            "K": rendering.K.astype(np.float32),
        }
        pictures = (rendering.image, encode_depth(rendering.depth_mm), rendering.part_mask)
        files = {
            path: encode_png(pixels)
            for path, kind, pixels in zip(self.picture_paths(part, index), KINDS, pictures, strict=True)
        }
        return row, files

    def write_labels(self, part: str, rows: dict[str, np.ndarray]) -> None:
        (path,) = self.label_paths(part)
        labels = {name: rows.pop(name) for name in LABELS if name in rows}
        if not self.published:
            write_npz(path.parent / "factors.npz", rows)
        elif labels:
            labels["uv_vis"] = _round_to_four_digits(labels["uv_vis"])
        samples = range(self.counts[part])
        write_annotations(path, {i: {name: values[i] for name, values in labels.items()} for i in samples})


def _round_to_four_digits(values: np.ndarray) -> np.ndarray:
    """Round to four significant digits."""
    leading = np.floor(np.log10(np.maximum(np.abs(values, dtype=np.float64), 1e-3)))
    step = 10.0 ** (leading - 3)
    return (np.rint(values / step) * step).astype(values.dtype)
