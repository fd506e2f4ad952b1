"""A dataset as the checks see it: parts, each with its labels, pictures and reader, whatever the format."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from davae.data.doctor.findings import Finding
from davae.data.readers import DATASETS, Reader
from synthhand.formats.record import HandRecord
from synthhand.pinhole import Array

PUBLISHED = "the published set has"
PART_OF_PUBLISHED = Finding(
    "note",
    "",
    "a part of the published set",
    advice="usable for trials; results on it cannot be compared with published ones",
)


@dataclass(frozen=True, eq=False)  # arrays do not compare
class Pictures:
    """Picture files of one kind, `folder/{prefix}{number}{suffix}`.

    Attributes:
        folder: where they are.
        prefix: start of their names.
        digits: numbers are padded with zeros to this many digits; 1 does not pad.
        suffix: .png or .jpg.
        numbers: (n,) int64, the numbers that the labels ask for.
        size: expected (height, width).
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
    """All labelled hands of a part, one per row; damaged labels are NaN.

    Attributes:
        samples: (n,) int64, number of the sample that a hand belongs to.
        left: (n,) bool, True for hands labelled left.
        joints_mm: (n, 21, 3) float64 in the camera frame, in the order of `synthhand.skeleton`.
        uv_px: (n, 21, 2) float64 labelled pixels, or None if the dataset has no pixel labels.
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

    def are_finite(self) -> NDArray[np.bool_]:
        """Return which rows (n,) are free of NaN and infinity."""
        finite = np.isfinite(self.joints_mm).all((1, 2)) & np.isfinite(self.K).all((1, 2))
        if self.uv_px is not None:
            finite &= np.isfinite(self.uv_px).all((1, 2))
        return np.asarray(finite)

    def project(self) -> Array:
        """Return the joints' pixels (n, 21, 2) by their camera; NaN for joints behind it."""
        points = np.where(self.joints_mm[..., 2:] > 0, self.joints_mm, np.nan)
        homogeneous = points @ np.swapaxes(self.K, -1, -2)
        return homogeneous[..., :2] / homogeneous[..., 2:]


@dataclass(frozen=True, eq=False)  # arrays do not compare
class Part:
    """One folder of samples with its own labels.

    Attributes:
        name: its name in messages.
        split: "training", "validation" or "evaluation".
        labels: the label file, as messages name it.
        all_labels: a pattern for all label files of this kind, as messages name them.
        noun: what one entry of the labels is called: "sample" or "frame".
        expected: how many entries there should be, or None if that is not known.
        unit: unit of lengths in the label file.
        ids: (n,) int64, ascending: numbers of the labelled samples.
        pictures: the pictures that the labels ask for.
        hands: the labels, as far as they can be read.
        readers: id -> reader and index, for every sample that can be decoded.
        source: where `expected` comes from: "more labels than {source}".
        if_fewer: the finding, without place and numbers, if there are fewer entries than expected.
        labels_visibility: whether the labels say which joints are visible.
        read_part_ids: returns the mask (h, w) of RHD's part ids of a sample; None if there are none.
        depth_path: returns the depth file of a sample; None if there is no depth.
        swap_depth: returns a record as if the two bytes of its depth file were the other way round; None if
            there is no depth.
    """

    name: str
    split: str
    labels: str
    all_labels: str
    noun: str
    expected: int | None
    unit: str
    ids: NDArray[np.int64]
    pictures: tuple[Pictures, ...]
    hands: Hands
    readers: dict[int, tuple[Reader, int]] = field(repr=False)
    source: str = PUBLISHED
    if_fewer: Finding = PART_OF_PUBLISHED
    labels_visibility: bool = True
    read_part_ids: Callable[[int], NDArray[np.uint8]] | None = None
    depth_path: Callable[[int], Path] | None = None
    swap_depth: Callable[[HandRecord], HandRecord] | None = None

    @property
    def has_both_sides(self) -> bool:
        """Whether the labels have left and right hands."""
        return bool(self.hands.left.any() and not self.hands.left.all())

    def hand_name(self, hands: Hands, row: int) -> str:
        """Return the name of a hand in messages: its sample, and its side if both occur."""
        name = f"{self.noun} {hands.samples[row]}"
        if not self.has_both_sides:
            return name
        return f"{name}, {'left' if hands.left[row] else 'right'} hand"

    def record(self, sample: int) -> HandRecord:
        """Decode a sample of `readers`; raise `BadSample` if it cannot be read."""
        reader, index = self.readers[sample]
        return reader.record(index)

    def image_path(self, sample: int) -> Path:
        """Return the colour image of a sample of `readers`."""
        reader, index = self.readers[sample]
        return reader.image_path(index)


# What opening a dataset gives: the parts that can be read, and a finding for each part that cannot.
Opened = tuple[list[Part], list[Finding]]


def open_readers(
    dataset: str, root: Path, splits: Iterable[str], **options: str
) -> dict[int, tuple[Reader, int]]:
    """Return the reader and index of each id of some splits.

    Splits whose labels the reader refuses are left out: the checks of labels say what is wrong with them.
    """
    readers: dict[int, tuple[Reader, int]] = {}
    for split in splits:
        try:
            reader = DATASETS[dataset].reader(root, split, **options)
        except (ValueError, OSError):
            continue
        readers |= {int(sample): (reader, index) for index, sample in enumerate(reader.ids)}
    return readers


def report_missing(root: Path, name: str) -> Finding:
    """Return the finding for a split that is missing."""
    advice = "unpack it from the archive into the same folder"
    return Finding("ERROR", str(root / name), "missing split", "no such folder or file", advice)


def report_unreadable(path: Path, error: Exception) -> Finding:
    """Return the finding for a label file that cannot be read, with the reader's reason."""
    reason = str(error).removeprefix(f"{path}: ")
    return Finding("ERROR", str(path), reason, advice="this part was not checked, since it has no labels")
