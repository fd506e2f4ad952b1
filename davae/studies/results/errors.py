"""The error on each test image in our runs of record, so that intervals between runs can be computed again.

A mean with its interval does not say how two models differ on the *same* images. For each row of measured.csv
that was recorded with it, `errors.npz` therefore keeps the errors of all test images, in hundredths of a
millimetre. `curves.npz` keeps the PCK curve over all joints, which the means of images do not give.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from davae.evaluation.predictions import load_predictions
from davae.metrics import endpoint_error, pck
from davae.studies.results.measured import CURVES, ERRORS, MEASURED, append_measured, read_run
from synthhand.storage import write_atomically

UNIT_MM = 0.01
CURVE_MM = np.linspace(0, 50, 101)  # thresholds of a PCK curve
_LARGEST_MM = UNIT_MM * np.iinfo(np.uint16).max

Key = tuple[str, str]  # the columns data and config of measured.csv


def record(
    run: Path | str,
    measured: Path | str = MEASURED,
    errors: Path | str = ERRORS,
    curves: Path | str = CURVES,
) -> None:
    """Add a finished and evaluated run to the runs of record: its row, its errors and its PCK curve.

    Raises:
        FileNotFoundError: the run is not finished or not evaluated.
        ValueError: an error is not finite or too large to be stored; nothing is recorded then.
    """
    row = read_run(run)
    key = row["data"], row["config"]
    stored = _pack({**read_errors(errors), key: measure_errors(run)})
    found = {**read_curves(curves), key: measure_curve(run)}
    append_measured(row, measured)
    _write(stored, errors)
    _write({"-".join(key): found[key].astype(np.float32) for key in sorted(found)}, curves)


def measure_errors(run: Path | str) -> NDArray[np.float64]:
    """Return each test image's error (n,), mm: the mean over joints under protocol P1."""
    found = load_predictions(Path(run) / "predictions.npz")
    return endpoint_error(found.pose_mm, found.joints_mm).mean(1)


def measure_curve(run: Path | str) -> NDArray[np.float64]:
    """Return the share (101,) of joints within each of `CURVE_MM`, under protocol P1."""
    found = load_predictions(Path(run) / "predictions.npz")
    return pck(endpoint_error(found.pose_mm, found.joints_mm), CURVE_MM)


def read_curves(path: Path | str = CURVES) -> dict[Key, NDArray[np.float64]]:
    """Return the PCK curve (101,), over `CURVE_MM`, of each run of record that has one."""
    return {key: values.astype(np.float64) for key, values in _read(path).items()}


def read_errors(path: Path | str = ERRORS) -> dict[Key, NDArray[np.float64]]:
    """Return the errors (n,), mm, of each run of record that has them."""
    return {key: values * UNIT_MM for key, values in _read(path).items()}


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


def _read(path: Path | str) -> dict[Key, NDArray]:
    if not Path(path).exists():
        return {}
    with np.load(path) as file:
        keys = (name.partition("-") for name in file.files)
        return {(data, config): file[f"{data}-{config}"] for data, _, config in keys}


def _write(stored: dict[str, Any], path: Path | str) -> None:
    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez_compressed(file, **stored)

    write_atomically(Path(path), write)
