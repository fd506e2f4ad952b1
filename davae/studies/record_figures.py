"""Figures of our runs of record: Figs. 2 and 3, the error over beta, and the models of Table 1."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from davae import figures
from davae.studies.findings import CLAIMS
from davae.studies.records import Record


def draw(records: dict[str, Record], out: Path) -> list[Path]:
    """Draw the figures for which there are runs; return the files."""
    out.mkdir(parents=True, exist_ok=True)
    guesses = (float(row["mean_pose_P1_epe_mm"]) for one in records.values() for row in one.rows.values())
    guess = next(guesses, None)
    claims = {claim.study: (claim.low, claim.high) for claim in CLAIMS}

    def options(name: str, variable: str) -> dict[str, Any]:
        return {"variable": variable, "claim": claims.get(name), "guess": guess}

    drawn = {}
    for name, variable, file in (
        ("beta_ratio", "r, r = β/α₃", "record_fig2_beta_ratio"),
        ("beta", "β, at fixed α", "record_beta"),
    ):
        if records[name].rows:
            values, errors = _find_errors(records[name])
            drawn[file] = figures.sweep_curve(values, errors, **options(name, variable))
    figure, axes = figures.new_axes(2.9, 1, 2, sharey=True)
    for ax, name, variable in zip(
        axes[0], ("alpha_pose", "alpha_cloud"), ("α₁/α₃ (pose)", "α₂/α₃ (cloud)"), strict=True
    ):
        if records[name].rows:
            figures.draw_sweep(ax, *_find_errors(records[name]), **options(name, variable))
            drawn["record_fig3_alphas"] = figure
    attention = records["attention"]
    table = attention.table("P1_epe_mm")
    models = {f"{v}-VAE": errors for v, errors in zip(attention.study.values, table.T, strict=True)}
    models = {title: errors for title, errors in models.items() if np.isfinite(errors).any()}
    if len(models) > 1:
        drawn["record_attention"] = figures.paired_seeds(models)
    paths = []
    for name, figure in drawn.items():
        paths.append(out / f"{name}.png")
        figure.savefig(paths[-1], dpi=150)
    return paths


def _find_errors(record: Record) -> tuple[list[float], NDArray[np.float64]]:
    """Return the values that have been run, and errors (seeds, values) of the seeds that have any."""
    table = record.table("P1_epe_mm")
    rows, columns = (np.atleast_1d(np.isfinite(table).any(axis)) for axis in (1, 0))
    values = [value for value, there in zip(record.study.numbers, columns, strict=True) if there]
    return values, table[rows][:, columns]
