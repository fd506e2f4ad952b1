"""The datasets that davae reads, and what every reader of one offers."""

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from synthhand.formats.freihand import FreiHANDSplit
from synthhand.formats.record import HandRecord
from synthhand.formats.rhd import RHDSplit
from synthhand.formats.stb import STBSplit


class Reader(Protocol):
    """One split of a dataset on disk, opened as `Reader(root, split, **options)`.

    Attributes:
        folder: where the split's pictures lie.
        ids: (n,) int64, ascending: number of each sample in its dataset.
    """

    folder: Path
    ids: NDArray[np.int64]

    def __len__(self) -> int:
        """Return the number of samples."""

    def record(self, index: int) -> HandRecord:
        """Decode sample `index`; raises `BadSample`, which names the file."""

    def image_path(self, index: int) -> Path:
        """Return the colour image of sample `index`."""

    def factors(self) -> dict[str, NDArray]:
        """Return the known causes of every sample, (n, ...) each; nothing where they are not known."""

    @staticmethod
    def label_files(root: str | Path, split: str, **options: str) -> list[Path]:
        """Return the files whose content stands for the split's in a manifest."""


READERS: dict[str, type[Reader]] = {
    "synthhand": RHDSplit,
    "rhd": RHDSplit,
    "stb": STBSplit,
    "freihand": FreiHANDSplit,
}

# What a reader can be told beside the folder and the split, and what it does otherwise.
OPTIONS: dict[str, dict[str, str]] = {"stb": {"rig": "sk", "wrist": "ring"}}


def check_dataset(dataset: str) -> None:
    """Raise ValueError, naming the choices, if no reader goes by this name."""
    if dataset not in READERS:
        raise ValueError(f"unknown dataset {dataset!r}; choose one of {', '.join(READERS)}")


def complete_options(dataset: str, options: dict[str, str] | None) -> dict[str, str]:
    """Return the options of a dataset's reader, those not given as they are by default.

    Raises:
        ValueError: unknown dataset, or it has no such option.
    """
    check_dataset(dataset)
    known, given = OPTIONS.get(dataset, {}), options or {}
    for name in given.keys() - known.keys():
        having = ", ".join(other for other, names in OPTIONS.items() if name in names)
        raise ValueError(
            f"{dataset} has no option {name!r}; it is for {having or 'no dataset'}, leave it out"
        )
    return known | given
