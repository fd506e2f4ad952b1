"""A model's predictions on a split, and their file predictions.npz.

The file holds one row per image, in the order of the prepared split:

    pose, joints          (n, 21, 3)  predicted and true, normalised, view-normalised, right hand
    scale_mm, visible     (n,), (n, 21)  reference bone length; whether the image shows the joint
    ids, mirrored         (n,)  sample number in its dataset; whether a left hand was mirrored
    mean_B, logvar_B      (n, z)  posterior of block B: pose, appearance, shape
    term_T                (n,)  unweighted reconstruction term T (pose, cloud, image) of one seeded draw of z
    chamfer_mm            (n,)  Chamfer distance of the clouds, NaN without a true cloud
    psnr_db, psnr_hand_db (n,)  of the whole image, and of the hand's pixels (NaN without a mask)
    psnr_grey_db          (n,)  of a plain mid-grey image, which is what an image without a hand reaches

A rival's file (`davae.rivals`) has joints alone: its posteriors have no dimension, other measures are NaN.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from davae.config import BLOCKS, TERMS
from synthhand.formats.npz import open_npz
from synthhand.storage import write_atomically

# Field of `Predictions` -> keys of its dict, and the prefix of their arrays in the file.
_GROUPS = {"means": (BLOCKS, "mean"), "logvars": (BLOCKS, "logvar"), "terms": (TERMS, "term")}


@dataclasses.dataclass(frozen=True)
class Predictions:
    """The arrays of predictions.npz, described at the top of this file."""

    pose: np.ndarray
    joints: np.ndarray
    scale_mm: np.ndarray
    visible: np.ndarray
    ids: np.ndarray
    mirrored: np.ndarray
    means: dict[str, np.ndarray]
    logvars: dict[str, np.ndarray]
    terms: dict[str, np.ndarray]
    chamfer_mm: np.ndarray
    psnr_db: np.ndarray
    psnr_hand_db: np.ndarray
    psnr_grey_db: np.ndarray

    @property
    def pose_mm(self) -> np.ndarray:
        """(n, 21, 3) predicted joints at the true scale, relative to the root (P1)."""
        return self.pose * self.scale_mm[:, None, None]

    @property
    def joints_mm(self) -> np.ndarray:
        """(n, 21, 3) true joints relative to the root."""
        return self.joints * self.scale_mm[:, None, None]

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays under their names in predictions.npz."""
        arrays = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for group, (_, prefix) in _GROUPS.items():
            arrays |= {f"{prefix}_{name}": array for name, array in arrays.pop(group).items()}
        return arrays

    @property
    def has_code(self) -> bool:
        """Whether a latent code was measured, as da-VAE's is and a rival's is not."""
        return any(mean.shape[1] for mean in self.means.values())

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> "Predictions":
        """Undo `to_arrays`.

        Raises:
            ValueError: an array is missing.
        """
        plain = [field.name for field in dataclasses.fields(cls) if field.name not in _GROUPS]
        grouped = {
            group: {name: f"{prefix}_{name}" for name in names} for group, (names, prefix) in _GROUPS.items()
        }
        wanted = plain + [key for keys in grouped.values() for key in keys.values()]
        if missing := [name for name in wanted if name not in arrays]:
            raise ValueError(f"predictions: no array {', '.join(missing)}; evaluate the run again")
        values: dict[str, Any] = {name: arrays[name] for name in plain}
        values |= {
            group: {name: arrays[key] for name, key in keys.items()} for group, keys in grouped.items()
        }
        return cls(**values)


def save_predictions(path: Path | str, predictions: Predictions) -> None:
    """Write predictions.npz; a kill leaves either the old file or the new one."""

    def write(temporary: Path) -> None:
        arrays: dict[str, Any] = predictions.to_arrays()
        with temporary.open("wb") as file:  # NumPy would append .npz to a file name
            np.savez_compressed(file, **arrays)

    write_atomically(Path(path), write)


def load_predictions(path: Path | str) -> Predictions:
    """Read predictions.npz.

    Raises:
        FileNotFoundError: the run has not been evaluated.
        ValueError: the file is damaged, or an array is missing.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(
            f"{path}: not found. Write it with `python -m davae evaluate --run {path.parent} ...`"
        )
    with open_npz(path, "evaluate the run again") as file:
        arrays = dict(file)
    return Predictions.from_arrays(arrays)
