"""The error on each test image in our runs of record, so that intervals between runs can be computed again.

A mean with its interval does not say how two models differ on the *same* images. For each row of measured.csv
that was recorded with it, `errors.npz` therefore keeps the errors of all test images, in hundredths of a
millimetre.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from davae.evaluation.predictions import load_predictions
from davae.metrics import endpoint_error
from davae.studies.results.measured import ERRORS, MEASURED, append_measured, read_run
from synthhand.storage import write_atomically

UNIT_MM = 0.01
_LARGEST_MM = UNIT_MM * np.iinfo(np.uint16).max

Key = tuple[str, str]  # the columns data and config of measured.csv


def record(run: Path | str, measured: Path | str = MEASURED, errors: Path | str = ERRORS) -> None:
    """Add a finished and evaluated run to the runs of record: its row, and its error on each test image.

    Raises:
        FileNotFoundError: the run is not finished or not evaluated.
        ValueError: an error is not finite or too large to be stored; nothing is recorded then.
    """
    row = read_run(run)
    stored = _pack({**read_errors(errors), (row["data"], row["config"]): measure_errors(run)})
    append_measured(row, measured)
    _write(stored, errors)


def measure_errors(run: Path | str) -> NDArray[np.float64]:
    """Return each test image's error (n,), mm: the mean over joints under protocol P1."""
    found = load_predictions(Path(run) / "predictions.npz")
    return endpoint_error(found.pose_mm, found.joints_mm).mean(1)


def read_errors(path: Path | str = ERRORS) -> dict[Key, NDArray[np.float64]]:
    """Return the errors (n,), mm, of each run of record that has them."""
    if not Path(path).exists():
        return {}
    with np.load(path) as file:
        keys = (name.partition("-") for name in file.files)
        return {(data, config): file[f"{data}-{config}"] * UNIT_MM for data, _, config in keys}


def write_errors(errors: dict[Key, NDArray], path: Path | str = ERRORS) -> None:
    """Write the errors of all runs of record atomically.

    Raises:
        ValueError: an error is not finite, negative, or larger than 655 mm.
    """
    _write(_pack(errors), path)


def _pack(errors: dict[Key, NDArray]) -> dict[str, NDArray[np.uint16]]:
    stored = {}
    for key, values in errors.items():
        if not np.isfinite(values).all() or values.min() < 0 or values.max() > _LARGEST_MM:
            raise ValueError(f"errors of {key}: expected 0 to {_LARGEST_MM:.0f} mm, one per test image")
        stored["-".join(key)] = np.rint(np.asarray(values) / UNIT_MM).astype(np.uint16)
    return dict(sorted(stored.items()))


def _write(stored: dict[str, Any], path: Path | str) -> None:
    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez_compressed(file, **stored)

    write_atomically(Path(path), write)
