"""Prepared data: every split as plain arrays mapped from disk, with a manifest of checksums.

`prepare` decodes each PNG once and writes `OUT/{train,val,test}/NAME.npy` and `OUT/manifest.json`;
`PreparedSplit.open` maps them, so that private memory does not grow with the dataset. A split is written to
a temporary folder and renamed when complete: a kill at any moment leaves finished splits and one that the
next call completes. Rows are in the order of their ids, but that the place of a sample left out is taken by
one from the end.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from davae import __version__
from davae.config import DataConfig
from davae.data.layout import check_place
from davae.data.manifest import FILE_NAME, FORMAT, SPLITS, digest, read_manifest, write_json
from davae.data.predicted import COMMAND, open_predicted, read_mask_network
from davae.data.readers import complete_options
from davae.data.sample import stored_points, stored_px
from davae.data.writer import Job, write_split
from synthhand.storage import exclusive


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
    """Turn a dataset on disk into arrays; return the folder `out`. If that is done already, return at once.

    The arrays are the same for any number of workers. From a script, more than one worker needs the usual
    `if __name__ == "__main__":`, since worker processes start afresh.

    Args:
        dataset: which reader, a name in `davae.data.readers.READERS`.
        root: folder of the dataset.
        out: folder to write.
        config: crop, image size, smallest scale and number of cloud points; the rotation range, for which
            there is always room, does not matter here.
        options: of the reader, such as STB's rig.
        skip_bad: leave unusable samples out, listed in the manifest, instead of stopping at the first.
        workers: processes; 1 works in this one.
        progress: show bars.

    Raises:
        BadSample: a sample is unusable and `skip_bad` is off; the message names its file.
        FileNotFoundError: the dataset is not there; where it lies, or which other is there, is said if known.
        ValueError: unknown dataset or option, or `out` was prepared otherwise; every difference is named.
        BlockingIOError: another process is writing to `out`.
        OSError: the disk is full; the file is named, and the same call goes on once there is room.
    """
    options = complete_options(dataset, options)
    root, out = Path(root), Path(out)
    settings = {
        "format": FORMAT,
        "dataset": dataset,
        "options": options,
        "root": root.resolve().name,  # a name only: manifests may be published
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
    check_place(dataset, root)
    for job in jobs:
        job.annotations_sha256()  # a dataset that is not there is told before anything is written
    with exclusive(out) as lock:
        out.mkdir(exist_ok=True)
        splits = {job.split: write_split(job, out, settings, workers, progress, lock) for job in jobs}
        manifest = {"davae": __version__, **settings, "digest": digest(splits), "splits": splits}
        write_json(out / FILE_NAME, manifest)
    for split, entry in splits.items():
        if progress and (left_out := len(entry["skipped"])):
            print(f"{split}: {left_out} unusable sample(s) left out; the reasons are in {out / FILE_NAME}")
    return out


def made_from(
    out: str | os.PathLike, dataset: str, root: str | os.PathLike, options: dict[str, str] | None = None
) -> bool:
    """Whether a finished preparation in `out` was made from the dataset in `root`.

    It knows the root's name alone; where the dataset still lies there, its labels must be the same, too.
    """
    root, options = Path(root), complete_options(dataset, options)
    try:
        manifest = read_manifest(out)
    except (FileNotFoundError, ValueError):  # nothing is there, or nothing that can be used
        return False
    if (manifest.get("dataset"), manifest.get("root")) != (dataset, root.name):
        return False
    if manifest.get("options", options) != options:  # which the oldest do not state
        return False
    jobs = [Job(dataset, root, split, DataConfig(), True, options) for split in ("train", "test")]
    try:
        labels = {job.split: job.annotations_sha256() for job in jobs}
    except FileNotFoundError:  # the dataset was deleted since: the arrays are all there is
        return True
    made_with = {split: manifest["splits"][split]["made_with"] for split in labels}
    return all(labels[split] == made_with[split]["annotations_sha256"] for split in labels)


def _refuse_if_different(out: Path, settings: dict[str, Any], jobs: list[Job]) -> None:
    """Raise ValueError naming every way in which the preparation in `out` is not the one asked for."""
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
            # The dataset may have been deleted since; the arrays are all that is needed.
            if job.root.is_dir() and job.annotations_sha256() != entry["made_with"]["annotations_sha256"]:
                differences.append(f"the annotations of {job.split} have changed since")
    if differences:
        raise ValueError(
            f"{out} holds another preparation: {'; '.join(differences)}. Give another folder, or delete "
            "this one to prepare it again"
        )


class StoredArrays(Mapping[str, NDArray]):
    """The arrays of an .npz file by name, each read when it is asked for: most are never needed."""

    def __init__(self, path: Path):
        self.path = path
        with np.load(path, allow_pickle=False) as file:
            self.names = tuple(file.files)

    def __getitem__(self, name: str) -> NDArray:
        if name not in self.names:
            raise KeyError(name)
        with np.load(self.path, allow_pickle=False) as file:
            return file[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class PreparedSplit:
    """One prepared split; its arrays are mapped read-only from disk and share their first axis n.

    Everything shows a right hand. `joints` and `clouds` are view-normalised, relative to the middle MCP and
    in units of the reference bone `scale_mm`. The middle `image_px` window of `images` is the test crop.

    Attributes:
        images: (n, s, s, 3) uint8.
        masks: (n, s, s) uint8, 255 on the hand.
        joints: (n, 21, 3) float32.
        clouds: (n, p, 3) float32, points in random order.
        has_cloud: (n,) bool; where False the row of `clouds` is zeros.
        has_mask: (n,) bool; where False the row of `masks` is zeros.
        visible: (n, 21) bool.
        scale_mm: (n,) float32.
        root_mm: (n, 3) float32, the root in the (mirrored) camera frame.
        rotation: (n, 3, 3) float32, view normalisation R.
        camera: (n, 3, 3) float32, K of the stored crop; `project` says how it is meant.
        mirrored: (n,) bool, the photograph showed a left hand.
        ids: (n,) int64, number in the dataset.
        factors: SynthHand's generative factors, each with first axis n, read when asked for; empty for other
            datasets.
        manifest: the preparation's manifest.
        name: "train", "val" or "test".
        predicted_masks: (n, s, s) uint8, soft, by the mask network; None where none were predicted.
        mask_network: which network that was, as `davae.data.predicted` says; None likewise.
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
    def open(cls, data_dir: str | os.PathLike, split: Literal["train", "val", "test"]) -> "PreparedSplit":
        """Map one split of a prepared folder.

        Raises:
            FileNotFoundError: nothing, or not everything, is prepared there.
            ValueError: unknown split, or a file does not match the manifest.
        """
        if split not in SPLITS:
            raise ValueError(f"unknown split {split!r}; choose one of {', '.join(SPLITS)}")
        folder = Path(data_dir) / split
        manifest = read_manifest(data_dir)
        entry = manifest["splits"][split]
        advice = f"delete {data_dir} and run `python -m davae prepare` again"
        arrays = {}
        for name, expected in entry["arrays"].items():
            path = folder / f"{name}.npy"
            if not path.exists():
                raise FileNotFoundError(f"{path}: missing; {advice}")
            try:
                array = np.load(path, mmap_mode="r")
            except (ValueError, EOFError) as error:
                raise ValueError(f"{path}: damaged ({error}); {advice}") from error
            if (list(array.shape), array.dtype.name) != (expected["shape"], expected["dtype"]):
                raise ValueError(
                    f"{path}: holds {array.dtype.name} of shape {list(array.shape)}, the manifest says "
                    f"{expected['dtype']} of shape {expected['shape']}; {advice}"
                )
            arrays[name] = array
        factors = {}
        if entry["factors_sha256"] is not None:
            if not (folder / "factors.npz").exists():
                raise FileNotFoundError(f"{folder / 'factors.npz'}: missing; {advice}")
            factors = StoredArrays(folder / "factors.npz")
        predicted, network = None, read_mask_network(data_dir)
        if network is not None:
            predicted = open_predicted(data_dir, split, arrays["masks"].shape)
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

    def seen_through(self, mask: str) -> "PreparedSplit":
        """Return this split with the predicted masks only where `mask`, a `DataConfig.mask`, needs them read.

        Raises:
            ValueError: the masks that it asks for are missing; the message says what to do.
        """
        if mask == "network" and self.predicted_masks is None:
            raise ValueError(
                f"{self.name}: mask is 'network', but no masks were predicted for this data; run "
                f"`{COMMAND} DATA` with a mask network trained by `python -m davae train-mask`"
            )
        if mask == "truth" and not self.has_mask.any():
            raise ValueError(
                f"{self.name}: mask is 'truth', but this dataset has no masks; use 'network' with masks "
                f"predicted by a network that was trained on another set, `{COMMAND} DATA`"
            )
        return self if mask == "network" else replace(self, predicted_masks=None)

    def camera_frame_mm(self, joints: NDArray, index: int | NDArray) -> NDArray:
        """Return normalised points (..., p, 3) of samples `index` (...) in mm in the (mirrored) camera."""
        scale = np.asarray(self.scale_mm[index], np.float64)[..., None, None]
        rotation = np.asarray(self.rotation[index], np.float64)
        return joints * scale @ rotation + np.asarray(self.root_mm[index])[..., None, :]

    def project(self, joints: NDArray, index: int | NDArray) -> NDArray:
        """Return pixels (..., p, 2) in the stored crops of samples `index` (...) of points (..., p, 3).

        The points are normalised, as `joints` and `clouds` are. Subtract (stored_px - image_px) / 2 for
        pixels of the test crop. `camera` takes points of the camera frame in the plain crop, and points
        of the view-normalised frame in the rotated camera's.
        """
        points = self.camera_frame_mm(joints, index)
        if self.manifest["crop"] == "rotated-camera":
            points = points @ np.swapaxes(self.rotation[index], -1, -2)
        homogeneous = points @ np.swapaxes(self.camera[index], -1, -2)
        return homogeneous[..., :2] / homogeneous[..., 2:]
