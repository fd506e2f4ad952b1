"""Prepared data: every split as plain arrays mapped from disk, with a manifest of checksums.

`prepare` decodes each picture once and writes `OUT/{train,val,test}/NAME.npy` and `OUT/manifest.json`;
`PreparedSplit.open` maps them, so private memory does not grow with the dataset. A split is written to a
temporary folder and renamed when complete: after a kill at any moment, the next call keeps finished splits
and completes the interrupted one. Rows are in the order of their ids, except that samples from the end take
the places of samples left out.
"""

import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from davae import __version__
from davae.config import DataConfig
from davae.data.arrays import open_array
from davae.data.layout import check_root
from davae.data.manifest import (
    FILE_NAME,
    FORMAT,
    SPLITS,
    check_digest,
    compare_arrays,
    compare_file,
    digest,
    read_manifest,
    write_json,
)
from davae.data.predicted import COMMAND, open_predicted, read_mask_network
from davae.data.readers import complete_options
from davae.data.sample import bone_px, stored_points, stored_px
from davae.data.writer import Job, write_split
from synthhand.formats.npz import open_npz
from synthhand.storage import exclusive

ARRAYS = (  # of a split
    *("images", "masks", "joints", "clouds", "has_cloud", "has_mask", "visible", "scale_mm", "root_mm"),
    *("rotation", "camera", "mirrored", "ids", "factors", "predicted_masks"),
)


def prepare(
    dataset: str,
    root: str | os.PathLike,
    out: str | os.PathLike,
    config: DataConfig,
    *,
    options: dict[str, str] | None = None,
    skip_bad: bool = False,
    workers: int = 1,
    progress: bool = True,
) -> Path:
    """Turn a dataset on disk into arrays; return the folder `out`, at once if it is prepared already.

    The arrays are the same for any number of workers. A script that uses more than one worker needs the
    usual `if __name__ == "__main__":`, since worker processes import it.

    Args:
        dataset: a name in `davae.data.readers.DATASETS`.
        root: folder of the dataset.
        out: folder to write.
        config: crop, image size, smallest scale and number of cloud points. The rotation range does not
            matter: stored crops have room for every angle.
        options: options of the reader, such as STB's rig.
        skip_bad: leave out unusable samples and list them in the manifest; the default is to stop at the
            first.
        workers: number of processes; 1 works in this process.
        progress: show progress bars.

    Raises:
        BadSample: a sample is unusable and `skip_bad` is off; the message names its file.
        FileNotFoundError: the dataset is not there; the message says where it is, or what is there, if known.
        ValueError: unknown dataset or option, an impossible crop, or `out` holds another preparation; the
            message names every difference.
        BlockingIOError: another process is writing to `out`.
        OSError: the disk is full; the message names the file. The same call resumes once there is room.
    """
    options = complete_options(dataset, options)
    if not 0 < config.scale_min <= 1 or config.image_px < 1:
        raise ValueError(
            f"the crop's side is {config.image_px} px (expected 1 or more) and the smallest scale "
            f"{config.scale_min} (expected more than 0, at most 1)"
        )
    root, out = Path(root), Path(out)
    settings = {
        "format": FORMAT,
        "dataset": dataset,
        "options": options,
        "root": root.resolve().name,  # without its path, since manifests may be published
        "image_px": config.image_px,
        "crop": config.crop,
        "scale_min": config.scale_min,
        "stored_px": stored_px(config),
        "stored_points": stored_points(config),
    }
    jobs = [Job(dataset, root, split, config, skip_bad, options) for split in SPLITS]
    if (out / FILE_NAME).exists():
        _refuse_if_different(out, settings, jobs)
        return out
    check_root(dataset, root)
    for job in jobs:
        job.annotations_sha256()  # raises if labels are missing, before anything is written
    with exclusive(out) as lock:
        out.mkdir(exist_ok=True)
        splits = {job.split: write_split(job, out, settings, workers, progress, lock) for job in jobs}
        manifest = {"davae": __version__, **settings, "digest": digest(splits), "splits": splits}
        write_json(out / FILE_NAME, manifest)
    for split, entry in splits.items():
        if progress and (left_out := len(entry["skipped"])):
            print(f"{split}: left out {left_out} unusable sample(s); {out / FILE_NAME} gives the reasons")
    return out


def is_made_from(
    out: str | os.PathLike, dataset: str, root: str | os.PathLike, options: dict[str, str] | None = None
) -> bool:
    """Return whether `out` holds a finished preparation of the dataset in `root`.

    The manifest holds the root's name without its path. If the dataset is still there, its labels must be
    the same, too.
    """
    root, options = Path(root), complete_options(dataset, options)
    try:
        manifest = read_manifest(out)
    except (FileNotFoundError, ValueError):
        return False
    if (manifest.get("dataset"), manifest.get("root")) != (dataset, root.name):
        return False
    if manifest.get("options", options) != options:  # the oldest manifests have no options
        return False
    jobs = [Job(dataset, root, split, DataConfig(), True, options) for split in ("train", "test")]
    try:
        labels = {job.split: job.annotations_sha256() for job in jobs}
    except FileNotFoundError:  # the dataset was deleted since
        return True
    made_with = {split: manifest["splits"][split]["made_with"] for split in labels}
    return all(labels[split] == made_with[split]["annotations_sha256"] for split in labels)


def _refuse_if_different(out: Path, settings: dict[str, Any], jobs: list[Job]) -> None:
    """Raise ValueError, naming every difference, if `out` does not hold the preparation asked for."""
    manifest = read_manifest(out)
    differences = [
        f"{name} is {manifest.get(name)!r}, asked for {value!r}"
        for name, value in settings.items()
        if manifest.get(name) != value
    ]
    if not differences:
        for job in jobs:
            entry = manifest["splits"][job.split]
            if entry["skipped"] and not job.skip_bad:
                differences.append(f"{len(entry['skipped'])} bad sample(s) of {job.split} were left out")
            # The dataset may have been deleted since: the arrays are enough.
            if job.root.is_dir() and job.annotations_sha256() != entry["made_with"]["annotations_sha256"]:
                differences.append(f"the annotations of {job.split} have changed since")
    if differences:
        raise ValueError(
            f"{out} holds another preparation: {'; '.join(differences)}. Give another folder, or delete "
            "this one to prepare it again"
        )


class StoredArrays(Mapping[str, NDArray]):
    """The arrays of an .npz file by name, each read only when it is asked for.

    Args:
        path: the file.
        advice: what to do about a damaged file; the end of the ValueError that is then raised.
    """

    def __init__(self, path: Path, advice: str):
        self.path, self.advice = path, advice
        with open_npz(path, advice) as file:
            self.names = tuple(file.files)

    def __getitem__(self, name: str) -> NDArray:
        if name not in self.names:
            raise KeyError(name)
        with open_npz(self.path, self.advice) as file:
            return file[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class PreparedSplit:
    """One prepared split; its arrays are mapped read-only from disk and share their first axis n.

    All hands are right hands; left ones were mirrored. `joints` and `clouds` are view-normalised, relative
    to the middle MCP and in units of the reference bone `scale_mm`. The window of `image_px` in the middle
    of `images` is the test crop.

    Attributes:
        images: (n, s, s, 3) uint8.
        masks: (n, s, s) uint8, 255 on the hand.
        joints: (n, 21, 3) float32.
        clouds: (n, p, 3) float32, points in random order.
        has_cloud: (n,) bool; where it is False, the row of `clouds` is zeros.
        has_mask: (n,) bool; where it is False, the row of `masks` is zeros.
        visible: (n, 21) bool.
        scale_mm: (n,) float32.
        root_mm: (n, 3) float32, the root in the (mirrored) camera frame.
        rotation: (n, 3, 3) float32, view normalisation R.
        camera: (n, 3, 3) float32, K of the stored crop; see `project`.
        mirrored: (n,) bool, True if the photograph showed a left hand.
        ids: (n,) int64, number in the dataset.
        factors: SynthHand's generative factors, each with first axis n, read when asked for; empty for other
            datasets.
        manifest: the preparation's manifest.
        name: "train", "val" or "test".
        predicted_masks: (n, s, s) uint8, soft masks by the mask network; None if none were predicted.
        mask_network: the network that predicted them (see `davae.data.predicted`); None likewise.
    """

    images: NDArray[np.uint8]
    masks: NDArray[np.uint8]
    joints: NDArray[np.float32]
    clouds: NDArray[np.float32]
    has_cloud: NDArray[np.bool_]
    has_mask: NDArray[np.bool_]
    visible: NDArray[np.bool_]
    scale_mm: NDArray[np.float32]
    root_mm: NDArray[np.float32]
    rotation: NDArray[np.float32]
    camera: NDArray[np.float32]
    mirrored: NDArray[np.bool_]
    ids: NDArray[np.int64]
    factors: Mapping[str, NDArray]
    manifest: dict[str, Any]
    name: str
    predicted_masks: NDArray[np.uint8] | None = None
    mask_network: dict[str, Any] | None = None

    @classmethod
    def open(
        cls,
        data_dir: str | os.PathLike,
        split: Literal["train", "val", "test"],
        *,
        compare: Collection[str] = ARRAYS,
    ) -> "PreparedSplit":
        """Map one split of a prepared folder.

        Args:
            data_dir: the folder.
            split: which.
            compare: arrays, "factors" and "predicted_masks" among them, whose numbers are compared with their
                checksums, once in a process; of others, only shapes and types are. By default this reads the
                whole split.

        Raises:
            FileNotFoundError: nothing is prepared there, or a file is missing.
            ValueError: unknown split, or a file does not match the manifest.
        """
        if split not in SPLITS:
            raise ValueError(f"unknown split {split!r}; choose one of {', '.join(SPLITS)}")
        folder = Path(data_dir) / split
        manifest = read_manifest(data_dir)
        advice = f"delete {data_dir} and run `python -m davae prepare` again"
        try:
            entry = manifest["splits"][split]
            has_factors = entry["factors_sha256"] is not None
            arrays = {
                name: open_array(folder / f"{name}.npy", expected["shape"], expected["dtype"], advice)
                for name, expected in entry["arrays"].items()
            }
            if arrays.keys() != (named := set(ARRAYS) - {"factors", "predicted_masks"}):
                raise LookupError(f"lacks or adds {sorted(arrays.keys() ^ named)}")
            check_digest(manifest, data_dir)
            compared = {name: array for name, array in arrays.items() if name in compare}
            compare_arrays(folder, entry, compared, advice)
        except (LookupError, TypeError, AttributeError) as error:
            path = Path(data_dir) / FILE_NAME
            raise ValueError(f"{path}: damaged ({type(error).__name__}: {error}); {advice}") from error
        factors: Mapping[str, NDArray] = {}
        if has_factors:
            if not (folder / "factors.npz").exists():
                raise FileNotFoundError(f"{folder / 'factors.npz'}: missing; {advice}")
            if "factors" in compare:
                compare_file(folder / "factors.npz", entry["factors_sha256"], advice)
            factors = StoredArrays(folder / "factors.npz", advice)
        predicted, network = None, read_mask_network(data_dir)
        if network is not None:
            predicted = open_predicted(
                data_dir, split, arrays["masks"].shape, network, compare="predicted_masks" in compare
            )
        return cls(
            **arrays,
            factors=factors,
            manifest=manifest,
            name=split,
            predicted_masks=predicted,
            mask_network=network,
        )

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def bone_px(self) -> NDArray[np.float32]:
        """Length (n,) of the reference bone in pixels of the stored crop, held across the view."""
        return bone_px(self.camera, self.scale_mm, self.root_mm, self.manifest["crop"])

    def seen_through(self, mask: str) -> "PreparedSplit":
        """Return this split for a `DataConfig.mask`: without predicted masks, unless it is "network".

        Raises:
            ValueError: the masks that `mask` needs are missing; the message says what to do.
        """
        if mask == "network" and self.predicted_masks is None:
            raise ValueError(
                f"{self.name}: mask is 'network', but no masks were predicted for this data; run "
                f"`{COMMAND} DATA` with a mask network trained by `python -m davae train-mask`"
            )
        if mask == "truth" and not self.has_mask.any():
            raise ValueError(
                f"{self.name}: mask is 'truth', but this dataset has no masks; use 'network', after "
                f"predicting masks with a network trained on another set: `{COMMAND} DATA`"
            )
        return self if mask == "network" else replace(self, predicted_masks=None)

    def camera_frame_mm(self, joints: NDArray, index: int | NDArray) -> NDArray:
        """Return normalised points (..., p, 3) of samples `index` (...) in mm, in the camera frame."""
        scale = np.asarray(self.scale_mm[index], np.float64)[..., None, None]
        rotation = np.asarray(self.rotation[index], np.float64)
        return joints * scale @ rotation + np.asarray(self.root_mm[index])[..., None, :]

    def project(self, joints: NDArray, index: int | NDArray) -> NDArray:
        """Return pixels (..., p, 2), in stored crops, of normalised points (..., p, 3) of samples `index`.

        Subtract (stored_px - image_px) / 2 for pixels of the test crop. `camera` applies to points of the
        camera frame if `crop` is "plain", and to view-normalised points if it is "rotated-camera".
        """
        points = self.camera_frame_mm(joints, index)
        if self.manifest["crop"] == "rotated-camera":
            points = points @ np.swapaxes(self.rotation[index], -1, -2)
        homogeneous = points @ np.swapaxes(self.camera[index], -1, -2)
        return homogeneous[..., :2] / homogeneous[..., 2:]
