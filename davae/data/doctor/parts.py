"""The parts of a dataset, as the doctor sees them: labels, pictures and records, whatever their format."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from davae.data.doctor.findings import Finding
from davae.data.readers import Reader
from synthhand.formats.record import HandRecord
from synthhand.pinhole import Array


@dataclass(frozen=True, eq=False)  # arrays do not compare
class Pictures:
    """Picture files of one kind, `folder/{prefix}{number}{suffix}`.

    Attributes:
        folder: where they lie.
        prefix: of their names.
        digits: to which numbers are padded with zeros; 1 does not pad.
        suffix: .png or .jpg.
        numbers: (n,) int64, those that should be there, by the labels.
        size: (height, width) that all should have.
    """

    folder: Path
    prefix: str
    digits: int
    suffix: str
    numbers: NDArray[np.int64]
    size: tuple[int, int]

    def name(self, number: int) -> str:
        """Return a file's name."""
        return f"{self.prefix}{number:0{self.digits}d}{self.suffix}"


@dataclass(frozen=True, eq=False)  # arrays do not compare
class Hands:
    """All labelled hands of a part, one row each; damaged labels are NaN.

    Attributes:
        samples: (n,) int64, number of the sample a hand belongs to.
        left: (n,) bool, the side the labels say.
        joints_mm: (n, 21, 3) float64 in the camera frame, in the order of `synthhand.skeleton`.
        uv_px: (n, 21, 2) float64 labelled pixels, or None where pixels are not labelled but computed.
        visible: (n, 21) bool.
        K: (n, 3, 3) float64.
    """

    samples: NDArray[np.int64]
    left: NDArray[np.bool_]
    joints_mm: Array
    uv_px: Array | None
    visible: NDArray[np.bool_]
    K: Array

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, rows: NDArray) -> "Hands":
        uv = None if self.uv_px is None else self.uv_px[rows]
        return Hands(
            self.samples[rows], self.left[rows], self.joints_mm[rows], uv, self.visible[rows], self.K[rows]
        )

    def finite(self) -> NDArray[np.bool_]:
        """Return which rows hold numbers only, (n,)."""
        fine = np.isfinite(self.joints_mm).all((1, 2)) & np.isfinite(self.K).all((1, 2))
        return fine if self.uv_px is None else fine & np.isfinite(self.uv_px).all((1, 2))

    def projected(self) -> Array:
        """Return the pixels (n, 21, 2) of the joints by their camera; NaN where one is not in front of it."""
        points = np.where(self.joints_mm[..., 2:] > 0, self.joints_mm, np.nan)
        homogeneous = points @ np.swapaxes(self.K, -1, -2)
        return homogeneous[..., :2] / homogeneous[..., 2:]


@dataclass(frozen=True, eq=False)  # arrays do not compare
class Part:
    """One folder of samples with its own labels.

    Attributes:
        name: as messages call it.
        split: "training", "validation" or "evaluation".
        labels: the file of the labels, as messages call it.
        alike: these and all label files of the same kind, as messages call them.
        sample: what one entry of it is called.
        due: how many samples there should be, or None where nothing says it.
        due_is: who says so.
        short: what it means if there are fewer, a `Finding` without place and numbers.
        unit: of lengths in the label file.
        ids: (n,) int64, ascending: numbers of the labelled samples.
        pictures: what should lie beside the labels.
        hands: the labels, as far as they can be told.
        views: id -> reader and index, of every sample that can be decoded.
        part_ids: gives the mask (h, w) of RHD's part ids of a sample; None where there are none.
        visibility: whether the labels say which joints are visible.
        depth_path: gives the depth file of a sample; None where there is no depth.
        swapped: gives a record as if the two bytes of its depth file were the other way round; None where
            there is no depth.
    """

    name: str
    split: str
    labels: str
    alike: str
    sample: str
    due: int | None
    due_is: str
    short: Finding
    unit: str
    ids: NDArray[np.int64]
    pictures: tuple[Pictures, ...]
    hands: Hands
    views: dict[int, tuple[Reader, int]] = field(repr=False)
    visibility: bool = True
    part_ids: Callable[[int], NDArray[np.uint8]] | None = None
    depth_path: Callable[[int], Path] | None = None
    swapped: Callable[[HandRecord], HandRecord] | None = None

    def hand_name(self, hands: Hands, row: int) -> str:
        """Return what messages call one of its hands: the sample, and the side where it may be either."""
        name = f"{self.sample} {hands.samples[row]}"
        if self.hands.left.all() or not self.hands.left.any():
            return name
        return f"{name}, {'left' if hands.left[row] else 'right'} hand"

    def record(self, sample: int) -> HandRecord:
        """Decode one of `views`; raises `BadSample`."""
        reader, index = self.views[sample]
        return reader.record(index)

    def image_path(self, sample: int) -> Path:
        """Return the colour image of one of `views`."""
        reader, index = self.views[sample]
        return reader.image_path(index)
