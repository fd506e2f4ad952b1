"""Read RHD (Zimmermann and Brox, 2017, arXiv:1705.01389) and sets in its form, such as SynthHand.

A split is a folder with `color/%05d.png`, `depth/%05d.png`, `mask/%05d.png` and
`anno_<folder>.pickle`, a dict {id: {"xyz": (42, 3) metres, "uv_vis": (42, 3), "K": (3, 3)}}. Rows 0..20 are
the left hand and 21..41 the right, each wrist first and then every finger from *tip to palm*; the third
column of `uv_vis` is 1 where the joint is visible. Masks carry part ids: 0 background, 1 body, 2..17 left
hand, 18..33 right hand. The published set has `training` (41,258 samples) and `evaluation` (2,728).
"""

import os
import pickle
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from synthhand.formats import pictures
from synthhand.formats.npz import open_npz
from synthhand.formats.pictures import check_size, read_picture
from synthhand.formats.record import BadSample, HandRecord
from synthhand.formats.unpickle import UnsafePickle as UnsafePickle
from synthhand.formats.unpickle import load_pickle
from synthhand.skeleton import JOINTS, RHD_ORDER
from synthhand.storage import write_atomically

FOLDERS = {"train": "training", "val": "validation", "test": "evaluation"}
PUBLISHED = {"train": 41258, "test": 2728}  # samples of the published set
SIZE_PX = 320  # height and width of its pictures
HOLD_OUT_EVERY = 40  # without a validation folder, every 40th id of training is for validation
LEFT_IDS = (2, 17)
RIGHT_IDS = (18, 33)
DEPTH_RANGE_MM = 5000.0  # depth of the 16-bit code 65535


def encode_depth(depth_mm: NDArray) -> NDArray[np.uint8]:
    """Encode depth (h, w) in mm as RHD does: (h, w, 3), high byte in red, low byte in green, blue 0.

    A step is 5000/65535 = 0.076 mm; see `pictures.encode_depth`.
    """
    return pictures.encode_depth(depth_mm, DEPTH_RANGE_MM)


def decode_depth(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return depth (h, w) in mm from RHD's encoding (h, w, 3): 5000 (256 R + G) / 65535."""
    return pictures.decode_depth(rgb, DEPTH_RANGE_MM)


def write_annotations(path: str | os.PathLike, annotations: dict[int, dict[str, NDArray]]) -> None:
    """Write {id: {"xyz", "uv_vis", "K"}} as RHD's readers expect it: a plain pickle, protocol 2.

    The same annotations give the same bytes. The file is written under a temporary name and renamed.
    """
    data = pickle.dumps(annotations, protocol=2)
    write_atomically(Path(path), lambda temporary: temporary.write_bytes(data))


def load_annotations(path: str | os.PathLike) -> dict[int, dict[str, NDArray]]:
    """Read an annotation pickle without running anything in it.

    Raises:
        FileNotFoundError: there is no such file.
        UnsafePickle: it refers to something other than NumPy arrays and plain containers.
        ValueError: it is damaged, or not a dict of dicts.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such annotation file; is this the folder of an RHD split?")
    annotations = load_pickle(path, "annotation file", "the authors of the dataset")
    if not isinstance(annotations, dict) or not all(isinstance(a, dict) for a in annotations.values()):
        raise ValueError(f"{path}: expected a dict {{id: {{xyz, uv_vis, K}}}}, found another structure")
    return annotations


class RHDSplit:
    """One split on disk: `len`, `ids` and `record(index)`, which decodes three PNG files.

    If the root has no `validation` folder, as in the published set, "val" is the ids of training that are
    divisible by 40, and "train" is the rest. Annotations do not name the subject, so subjects are not kept
    apart.

    Attributes:
        folder: the split's folder.
        annotation_path: its annotation pickle.
        ids: (n,) int64, ascending.
    """

    def __init__(self, root: str | os.PathLike, split: Literal["train", "val", "test"]):
        """Read the annotations of a split.

        Raises:
            ValueError: unknown split, or annotations that are damaged or unsafe.
            FileNotFoundError: the root does not have the folders of RHD.
        """
        self.folder, self.annotation_path = self.locate(root, split)
        self._annotations = load_annotations(self.annotation_path)
        every_id = np.array(sorted(self._annotations), np.int64)
        keep = np.ones(len(every_id), bool)
        if split != "test" and not (Path(root) / FOLDERS["val"]).is_dir():
            keep = (every_id % HOLD_OUT_EVERY == 0) == (split == "val")
        self.ids, self._kept = every_id[keep], keep
        self._size: tuple[int, int] | None = None

    @staticmethod
    def locate(root: str | os.PathLike, split: str) -> tuple[Path, Path]:
        """Return the folder of a split and its annotation file; raise as the constructor does."""
        if split not in FOLDERS:
            raise ValueError(f"unknown split {split!r}; choose one of {', '.join(FOLDERS)}")
        name = FOLDERS[split]
        if split == "val" and not (Path(root) / name).is_dir():
            name = FOLDERS["train"]
        folder = Path(root) / name
        if not folder.is_dir():
            found = f"no folder {name!r} in it" if Path(root).is_dir() else "no such folder"
            raise FileNotFoundError(
                f"{root}: {found}; give the folder that holds 'training' and 'evaluation' "
                "(RHD_published_v2 of the download, or where SynthHand was written)"
            )
        return folder, folder / f"anno_{name}.pickle"

    @classmethod
    def label_files(cls, root: str | os.PathLike, split: str) -> list[Path]:
        """Return the annotation file of a split; raise as the constructor does."""
        return [cls.locate(root, split)[1]]

    def __len__(self) -> int:
        return len(self.ids)

    def image_path(self, index: int) -> Path:
        """Return the colour image of sample `index`."""
        return self.folder / "color" / f"{self.ids[index]:05d}.png"

    @property
    def size(self) -> tuple[int, int]:
        """The (height, width) of the folder's first readable image, which all others must have."""
        if self._size is None:
            for path in sorted((self.folder / "color").glob("*.png")):
                try:
                    with Image.open(path) as image:
                        self._size = image.size[::-1]
                    break
                except OSError:
                    continue  # `record` reports this file
            else:
                raise FileNotFoundError(f"{self.folder / 'color'}: no readable PNG; copy the images again")
        return self._size

    def record(self, index: int) -> HandRecord:
        """Decode sample `index` and choose its dominant hand, the one that covers more pixels.

        As in hand3d, the right hand is chosen if both cover equally many. Without a depth file `depth_mm` is
        None. The mask may be empty.

        Raises:
            BadSample: a file is missing, damaged or of the wrong size, or a label is absent or not finite.
        """
        sample = int(self.ids[index])
        name = f"{sample:05d}.png"
        image = self._png("color", name, "RGB")
        parts = self._png("mask", name, "L")
        depth = self._png("depth", name, "RGB") if (self.folder / "depth" / name).exists() else None

        left = (parts >= LEFT_IDS[0]) & (parts <= LEFT_IDS[1])
        right = (parts >= RIGHT_IDS[0]) & (parts <= RIGHT_IDS[1])
        side: Literal["left", "right"] = "left" if left.sum() > right.sum() else "right"
        joints = slice(0, JOINTS) if side == "left" else slice(JOINTS, 2 * JOINTS)

        uv_visible = self._label(sample, "uv_vis", (2 * JOINTS, 3), joints)[RHD_ORDER]
        xyz_m = self._label(sample, "xyz", (2 * JOINTS, 3), joints)[RHD_ORDER]
        return HandRecord(
            image=image,
            hand_mask=left if side == "left" else right,
            depth_mm=None if depth is None else decode_depth(depth),
            joints_mm=(1000.0 * xyz_m).astype(np.float32),
            uv_px=uv_visible[:, :2].astype(np.float32),
            visible=uv_visible[:, 2] == 1,  # 1 is visible; other non-zero values are not
            K=self._label(sample, "K", (3, 3), slice(None)),
            side=side,
            id=sample,
        )

    def factors(self) -> dict[str, NDArray]:
        """Return SynthHand's generative factors, (n, ...) each; empty for RHD itself.

        Raises:
            ValueError: the file is damaged, or a factor does not have one row for every sample of the folder.
        """
        source = self.folder / "factors.npz"
        if not source.exists():
            return {}
        with open_npz(source, "render the split again") as file:
            factors = {key: file[key] for key in file.files}
        for key, values in factors.items():
            if values.shape[:1] != self._kept.shape:
                raise ValueError(
                    f"{source}: {key!r} has shape {values.shape}, expected one row for each of the "
                    f"{len(self._kept)} samples; render the split again"
                )
        return {key: rows[self._kept] for key, rows in factors.items()}

    def _png(self, kind: str, name: str, mode: Literal["RGB", "L"]) -> NDArray[np.uint8]:
        path = self.folder / kind / name
        pixels = read_picture(path, mode)
        check_size(path, pixels, self.size)
        return pixels

    def _label(self, sample: int, key: str, shape: tuple[int, int], rows: slice) -> NDArray[np.float64]:
        """Return `rows` of a label as float64; raise BadSample if it is absent, misshapen or not finite."""
        where = f"{self.annotation_path}: sample {sample}, {key!r}"
        try:
            values = np.asarray(self._annotations[sample][key], np.float64)
        except (KeyError, TypeError, ValueError) as error:
            raise BadSample(f"{where}: missing or not numeric; leave it out (--skip-bad)") from error
        if values.shape != shape:
            raise BadSample(f"{where}: shape {values.shape}, expected {shape}; leave it out (--skip-bad)")
        if not np.isfinite(values[rows]).all():
            raise BadSample(f"{where}: holds NaN or infinity; leave the sample out (--skip-bad)")
        return values[rows]
