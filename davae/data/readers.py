"""The datasets that davae reads: one table, from which every other list of them follows."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from synthhand.dataset import MANIFEST
from synthhand.formats import freihand, rhd, stb
from synthhand.formats.record import HandRecord


class Reader(Protocol):
    """One split of a dataset on disk, opened by `DATASETS[name].reader(root, split, **options)`.

    Attributes:
        folder: where the split's pictures are.
        ids: (n,) int64, ascending: number of each sample in its dataset.
    """

    folder: Path
    ids: NDArray[np.int64]

    def __len__(self) -> int:
        """Return the number of samples."""

    def record(self, index: int) -> HandRecord:
        """Decode sample `index`; raise `BadSample`, which names the file."""

    def image_path(self, index: int) -> Path:
        """Return the colour image of sample `index`."""

    def factors(self) -> dict[str, NDArray]:
        """Return the generative factors of every sample, (n, ...) each; empty if they are not known."""


@dataclass(frozen=True)
class Dataset:
    """A kind of dataset.

    Attributes:
        title: its name in messages.
        reader: opens a split: (root, split, **options) -> `Reader`.
        label_files: (root, split, **options) -> the files that hold the split's labels.
        marks: files and folders, relative to the root; any one of them shows what the root holds.
        options: options of the reader, with their defaults.
    """

    title: str
    reader: Callable[..., Reader]
    label_files: Callable[..., list[Path]]
    marks: tuple[str, ...]
    options: Mapping[str, str] = field(default_factory=dict)


_RHD_MARKS = tuple(
    mark for name in rhd.FOLDERS.values() for mark in (f"{name}/color", f"{name}/anno_{name}.pickle")
)
_STB_MARKS = tuple(
    mark
    for name in stb.SEQUENCES
    for mark in (f"images/{name}", *(f"labels/{name}_{rig.upper()}.mat" for rig in stb.VIEWS))
)
_FREIHAND_MARKS = tuple(
    mark
    for name in freihand.FOLDERS.values()
    for mark in (f"{name}/rgb", f"{name}_xyz.json", f"{name}_K.json")
)
DATASETS = {
    "synthhand": Dataset("SynthHand", rhd.RHDSplit, rhd.RHDSplit.label_files, (MANIFEST,)),
    "rhd": Dataset("RHD", rhd.RHDSplit, rhd.RHDSplit.label_files, _RHD_MARKS),
    "stb": Dataset("STB", stb.STBSplit, stb.STBSplit.label_files, _STB_MARKS, {"rig": "sk", "wrist": "ring"}),
    "freihand": Dataset(
        "FreiHAND", freihand.FreiHANDSplit, freihand.FreiHANDSplit.label_files, _FREIHAND_MARKS
    ),
}
READERS = {name: dataset.reader for name, dataset in DATASETS.items()}


def check_dataset(dataset: str) -> None:
    """Raise ValueError, naming the choices, unless `dataset` is in `DATASETS`."""
    if dataset not in DATASETS:
        raise ValueError(f"unknown dataset {dataset!r}; choose one of {', '.join(DATASETS)}")


def complete_options(dataset: str, options: dict[str, str] | None) -> dict[str, str]:
    """Return all options of a dataset's reader, with defaults for those not given.

    Raises:
        ValueError: unknown dataset, or it has no such option.
    """
    check_dataset(dataset)
    known, given = DATASETS[dataset].options, options or {}
    for name in given.keys() - known.keys():
        having = ", ".join(other for other, entry in DATASETS.items() if name in entry.options)
        raise ValueError(
            f"{dataset} has no option {name!r}; it is for {having or 'no dataset'}, leave it out"
        )
    return {**known, **given}
