"""Read FreiHAND (Zimmermann et al., 2019, arXiv:1909.04349), version 2, and sets in its form.

The root holds `training/rgb/%08d.jpg` and `evaluation/rgb/%08d.jpg` (224 x 224). For each of the two folders,
`<folder>_xyz.json` (21 x 3, metres, camera frame, in the order of `synthhand.skeleton`) and `<folder>_K.json`
(3 x 3) are lists with one entry per frame. All hands are right hands. The published set has 32,560 frames for
training and 3,960 for evaluation.

A frame of training has four images. With f frames, image i shows frame i mod f in version i // f: first with
the green screen, then with three kinds of replaced background (`gs`, `hom`, `sample`, `auto`). All versions
share labels and the mask `training/mask/%08d.jpg`. Masks are JPEG, black and white with noise; evaluation has
none. There is no depth, hence no cloud, and there are no visibility labels: a joint counts as visible if it
lies inside the picture, even behind a finger. `<folder>_scale.json`, the length of the bone from middle MCP
to PIP, is not read.
"""

import json
import os
import re
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from synthhand.formats.kinds import kind_of_file
from synthhand.formats.pictures import read_picture
from synthhand.formats.record import BadSample, HandRecord
from synthhand.formats.rhd import HOLD_OUT_EVERY
from synthhand.pinhole import project
from synthhand.skeleton import JOINTS

FOLDERS = {"train": "training", "val": "training", "test": "evaluation"}
PUBLISHED = {"train": 32560, "test": 3960}  # frames of the published set
VERSIONS = {"train": 4, "test": 1}  # images of a frame
SIZE_PX = 224
MASK_THRESHOLD = 127  # JPEG turns 0 and 255 into values near them
_IMAGE_NAME = re.compile(r"(\d{8})\.jpg")


class FreiHANDSplit:
    """One split on disk: `len`, `ids` (the images' numbers) and `record(index)`, which decodes its files.

    "val" is every 40th frame of training, with all of its versions, and "train" is the rest. Several cameras
    took frames at once, but the files name neither camera, moment nor person: "train" may hold other views of
    a hand in "val".

    Attributes:
        folder: `training` or `evaluation`.
        ids: (n,) int64, ascending.
        frames: number of labelled frames of the folder.
        versions: number of images of each frame.
    """

    def __init__(self, root: str | os.PathLike, split: Literal["train", "val", "test"]):
        """Read the labels of a split and count its images.

        Raises:
            ValueError: unknown split; label files that are damaged, misshapen or of different lengths; more
                or fewer images than belong to them.
            FileNotFoundError: the root does not have the folders of FreiHAND, or a label file is missing.
        """
        xyz_path, K_path = self.label_files(root, split)
        self.folder = Path(root) / FOLDERS[split]
        self._xyz_path, self._K_path = xyz_path, K_path
        self._joints_m = load_labels(xyz_path, (JOINTS, 3)).astype(np.float32)
        self._K = load_labels(K_path, (3, 3))
        self.frames = len(self._joints_m)
        if len(self._K) != self.frames:
            raise ValueError(
                f"{K_path}: has {len(self._K)} entries, but {xyz_path.name} has {self.frames}; unpack both "
                "again, from the same archive"
            )
        self.versions = _count_versions(self.folder / "rgb", self.frames, xyz_path.name)
        if split == "test" and self.versions > 1:
            raise ValueError(
                f"{self.folder / 'rgb'}: holds {self.versions} images for each entry of {xyz_path.name}, but "
                "evaluation has no versions; unpack both again, from the same archive"
            )
        every_id = np.arange(self.frames * self.versions, dtype=np.int64)
        if split != "test":
            every_id = every_id[(every_id % self.frames % HOLD_OUT_EVERY == 0) == (split == "val")]
        self.ids = every_id
        self._has_masks = (self.folder / "mask").is_dir()

    @staticmethod
    def label_files(root: str | os.PathLike, split: str) -> list[Path]:
        """Return the files of joints and of cameras of a split.

        Raises:
            ValueError: unknown split.
            FileNotFoundError: the root does not have the folders of FreiHAND, or one of the files is missing.
        """
        if split not in FOLDERS:
            raise ValueError(f"unknown split {split!r}; choose one of {', '.join(FOLDERS)}")
        root, name = Path(root), FOLDERS[split]
        if not (root / name / "rgb").is_dir():
            found = f"no folder '{name}/rgb' in it" if root.is_dir() else "no such folder"
            raise FileNotFoundError(
                f"{root}: {found}; give the folder that holds 'training', 'evaluation' and the JSON files "
                "(where FreiHAND_pub_v2.zip was unpacked)"
            )
        paths = [root / f"{name}_xyz.json", root / f"{name}_K.json"]
        for path in paths:
            if path.is_file():
                continue
            if path.name == "evaluation_xyz.json":
                raise FileNotFoundError(
                    f"{path}: missing. The labels of evaluation were published later, in an archive of their "
                    "own: download FreiHAND_pub_v2_eval.zip from the dataset's page and unpack "
                    "evaluation_xyz.json into this folder"
                )
            raise FileNotFoundError(f"{path}: missing; unpack it from FreiHAND_pub_v2.zip")
        return paths

    def __len__(self) -> int:
        return len(self.ids)

    def image_path(self, index: int) -> Path:
        """Return the image of sample `index`."""
        return self.folder / "rgb" / f"{self.ids[index]:08d}.jpg"

    def mask_path(self, index: int) -> Path | None:
        """Return the mask of sample `index`, None if the split has none."""
        frame = self.ids[index] % self.frames
        return self.folder / "mask" / f"{frame:08d}.jpg" if self._has_masks else None

    def factors(self) -> dict[str, NDArray]:
        """Return no factors: those of photographs are not known."""
        return {}

    def record(self, index: int) -> HandRecord:
        """Decode sample `index`. The mask may be empty.

        Raises:
            BadSample: a picture is missing, damaged or not 224 x 224, a label is not finite, or a joint lies
                behind the camera.
        """
        sample = int(self.ids[index])
        frame = sample % self.frames
        size = (SIZE_PX, SIZE_PX)
        image = read_picture(self.image_path(index), "RGB", size)
        mask_path = self.mask_path(index)
        mask = None if mask_path is None else read_picture(mask_path, "L", size) > MASK_THRESHOLD
        joints_m, K = self._joints_m[frame], self._K[frame]
        for path, values in ((self._xyz_path, joints_m), (self._K_path, K)):
            if not np.isfinite(values).all():
                raise BadSample(f"{path}: entry {frame} holds NaN or infinity; leave it out (--skip-bad)")
        if not (joints_m[:, 2] > 0).all():
            raise BadSample(
                f"{self._xyz_path}: entry {frame} has a joint behind the camera "
                f"(z = {joints_m[:, 2].min():g} m); leave it out (--skip-bad)"
            )
        joints_mm = 1000 * joints_m
        uv = project(joints_mm, K)
        return HandRecord(
            image=image,
            hand_mask=mask,
            depth_mm=None,
            joints_mm=joints_mm,
            uv_px=uv.astype(np.float32),
            visible=np.all((uv >= -0.5) & (uv < SIZE_PX - 0.5), axis=1),
            K=K.copy(),
            side="right",
            id=sample,
        )


def load_labels(path: Path, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Read a JSON list of entries of one shape as (n, *shape). NaN and infinity are kept.

    Raises:
        ValueError: it is damaged, empty, or an entry has another shape; the message names the first.
    """
    try:
        entries = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:  # not JSON, or not even text
        kind = kind_of_file(path)
        if kind:
            raise ValueError(f"{path}: is {kind}; expected JSON: unpack it again") from error
        raise ValueError(f"{path}: damaged ({error}); unpack it again") from error
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"{path}: expected a list with one entry for each frame; unpack it again")
    try:
        values = np.array(entries, np.float64)
    except (ValueError, TypeError):  # ragged, or not numbers
        values = None
    if values is None or values.shape[1:] != shape:
        wrong = next(i for i, entry in enumerate(entries) if not _has_shape(entry, shape))
        raise ValueError(f"{path}: entry {wrong} is not {shape[0]} x {shape[1]} numbers; unpack it again")
    return values


def _has_shape(entry: object, shape: tuple[int, int]) -> bool:
    try:
        return np.array(entry, np.float64).shape == shape
    except (ValueError, TypeError):
        return False


def _count_versions(folder: Path, frames: int, labels: str) -> int:
    """Return the number of images of each frame, computed from the highest number among `%08d.jpg`.

    Images missing below it are reported when their record is asked for.

    Raises:
        ValueError: there is no image, or the last image does not show the last frame.
    """
    numbers = [int(name[1]) for entry in os.scandir(folder) if (name := _IMAGE_NAME.fullmatch(entry.name))]
    images = max(numbers, default=-1) + 1
    if images == 0 or images % frames:
        last = f"its last image is {images - 1:08d}.jpg" if images else "it holds no image like 00000000.jpg"
        raise ValueError(
            f"{folder}: {last}, but {labels} has {frames} entries, and the number of images must be a "
            "multiple of that; unpack both again, from the same archive"
        )
    return images // frames
