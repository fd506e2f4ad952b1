"""Each test image's error in our runs of record: from these, intervals between runs can be drawn anew.

A mean with an interval says nothing of how two models differ on the *same* images. `errors.npz` therefore
keeps, for each row of measured.csv that has been recorded with it, the errors of all test images, in
hundredths of a millimetre.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from davae.evaluation.predictions import load_predictions
from davae.metrics import endpoint_error
from davae.studies.results.tables import FOLDER, MEASURED, append_measured, row_of
from synthhand.storage import write_atomically

ERRORS = FOLDER / "errors.npz"
UNIT_MM = 0.01
_LARGEST_MM = UNIT_MM * np.iinfo(np.uint16).max

Key = tuple[str, str]  # data and config, as measured.csv knows them


def record(run: Path | str, measured: Path | str = MEASURED, errors: Path | str = ERRORS) -> None:
    """Add a finished and evaluated run to the runs of record: its row, and its error on each test image.

    Raises:
        FileNotFoundError: it is not finished or not evaluated.
        ValueError: an error is not finite or too large to be kept; nothing is recorded then.
    """
    row = row_of(run)
    stored = _packed({**read_errors(errors), (row["data"], row["config"]): p1_errors(run)})
    append_measured(row, measured)
    _write(stored, errors)


def p1_errors(run: Path | str) -> NDArray[np.float64]:
    """Mean error (n,) over the joints of each test image, mm, under protocol P1."""
    found = load_predictions(Path(run) / "predictions.npz")
    return endpoint_error(found.pose_mm, found.joints_mm).mean(1)


def read_errors(path: Path | str = ERRORS) -> dict[Key, NDArray[np.float64]]:
    """Return the errors (n,), mm, of each run of record that has them."""
    if not Path(path).exists():
        return {}
    with np.load(path) as file:
        return {tuple(name.split("-")): file[name] * UNIT_MM for name in file.files}


def write_errors(errors: dict[Key, NDArray], path: Path | str = ERRORS) -> None:
    """Write the errors of all runs of record, whole or not at all.

    Raises:
        ValueError: one is not finite, negative, or of more than 655 mm.
    """
    _write(_packed(errors), path)


def _packed(errors: dict[Key, NDArray]) -> dict[str, NDArray[np.uint16]]:
    stored = {}
    for key, values in errors.items():
        if not np.isfinite(values).all() or values.min() < 0 or values.max() > _LARGEST_MM:
            raise ValueError(f"errors of {key}: expected 0 to {_LARGEST_MM:.0f} mm, one per test image")
        stored["-".join(key)] = np.rint(np.asarray(values) / UNIT_MM).astype(np.uint16)
    return dict(sorted(stored.items()))


def _write(stored: dict[str, NDArray[np.uint16]], path: Path | str) -> None:
    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez_compressed(file, **stored)

    write_atomically(Path(path), write)
