"""The paper's claims on loss weights (4.3) and attention (4.4), judged by our runs of record.

Reads `davae/studies/results/measured.csv` and `errors.npz` alone: whoever has the repository can draw the
figures and
the verdicts again in seconds, without a run. Notebooks 03 and 04 derive the same from runs of their own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from davae import figures
from davae.config import BLOCKS, VARIANTS
from davae.config.settings import Value, experiment
from davae.evaluation.compare import MIN_PAIRS, Difference, paired_difference, verdict
from davae.studies.paper import Study, studies
from davae.studies.results.errors import ERRORS, read_errors
from davae.studies.results.tables import MEASURED, config_digest, read_measured

PRESET = "sweep"
MIN_SEEDS = 3  # of a claim on weights, whose effects are large; attention asks for `MIN_PAIRS`


@dataclass(frozen=True)
class Claim:
    """That the error is smaller for values of a study from `low` to `high` than for others."""

    text: str
    study: str
    low: float
    high: float


CLAIMS = (
    Claim("r = β/α₃ from 3 to 30", "beta_ratio", 3, 30),
    Claim("α₁/α₃ ≥ 1000", "alpha_pose", 1000, np.inf),
    Claim("α₂/α₃ ≥ 100", "alpha_cloud", 100, np.inf),
)


class Record:
    """What was recorded of one study.

    Attributes:
        study: what was planned.
        rows: (seed, value) -> row of measured.csv, of the runs that have been made.
        errors: (seed, value) -> (n,) errors of the test images, mm, of those recorded with them.
    """

    def __init__(self, study: Study, rows: Sequence[dict[str, str]], errors: dict):
        self.study = study
        latest = {row["config"]: row for row in rows}  # where a run was made twice, the later one counts
        self.rows, self.errors = {}, {}
        for point in study.points(experiment(PRESET)):
            row = latest.get(config_digest(point.config))
            if row is None:
                continue
            place = point.varied["seed"], point.varied[study.variable]
            self.rows[place] = row
            if (found := errors.get((row["data"], row["config"]))) is not None:
                self.errors[place] = found

    def table(self, column: str) -> NDArray[np.float64]:
        """Numbers (seeds, values) of a column of measured.csv; NaN where there is no run yet."""
        seeds, values = self.study.seeds, self.study.values
        found = [[self.rows.get((s, v), {}).get(column) or "nan" for v in values] for s in seeds]
        return np.array(found, float)

    def best(self, among: Sequence[Value]) -> Value | None:
        """The value of lowest mean error, or None where none has been run."""
        means = dict(zip(self.study.values, _mean(self.table("P1_epe_mm")), strict=True))
        known = [value for value in among if not np.isnan(means[value])]
        return min(known, key=means.get) if known else None

    def compare(self, first: Value, second: Value) -> Difference | None:
        """Errors at `first` minus those at `second`, over the seeds that have both; None without any."""
        both = [s for s in self.study.seeds if {(s, first), (s, second)} <= self.errors.keys()]
        if not both:
            return None
        return paired_difference(*(np.stack([self.errors[s, v] for s in both]) for v in (first, second)))

    def column_difference(self, column: str, first: Value, second: Value) -> Difference | None:
        """The same of a column of measured.csv, of which there is one number a run."""
        table = self.table(column)[:, [self.study.values.index(value) for value in (first, second)]]
        both = table[np.isfinite(table).all(1)]
        return paired_difference(both[:, :1], both[:, 1:]) if len(both) else None


def records(measured: Path | str = MEASURED, errors: Path | str = ERRORS) -> dict[str, Record]:
    """What was recorded of each study, by its name."""
    rows, images = read_measured(measured), read_errors(errors)
    return {name: Record(study, rows, images) for name, study in studies(experiment(PRESET)).items()}


def report(found: dict[str, Record]) -> str:
    """Verdicts and the numbers behind them, as Markdown."""
    return "\n".join(
        [
            *("### Loss weights (paper 4.3), under sums", "", *_weights(found), ""),
            *("### β itself, at the paper's α", "", *_collapse(found["beta"]), ""),
            *("### Attention (paper 4.4, Tables 1 and 2)", "", *_attention(found["attention"]), ""),
        ]
    )


def draw(found: dict[str, Record], out: Path) -> list[Path]:
    """Draw Figs. 2 and 3, the error over β, and the models of Table 1 seed by seed; return the files."""
    out.mkdir(parents=True, exist_ok=True)
    guesses = (float(row["mean_pose_P1_epe_mm"]) for one in found.values() for row in one.rows.values())
    guess = next(guesses, None)
    claims = {claim.study: (claim.low, claim.high) for claim in CLAIMS}

    def options(name: str, variable: str) -> dict:
        return {"variable": variable, "claim": claims.get(name), "guess": guess}

    drawn = {}
    for name, variable, file in (
        ("beta_ratio", "r, r = β/α₃", "record_fig2_beta_ratio"),
        ("beta", "β, at fixed α", "record_beta"),
    ):
        if found[name].rows:
            values, errors = _drawable(found[name])
            drawn[file] = figures.sweep_curve(values, errors, **options(name, variable))
    figure, axes = figures.new_axes(2.9, 1, 2, sharey=True)
    for ax, name, variable in zip(
        axes[0], ("alpha_pose", "alpha_cloud"), ("α₁/α₃ (pose)", "α₂/α₃ (cloud)"), strict=True
    ):
        if found[name].rows:
            figures.draw_sweep(ax, *_drawable(found[name]), **options(name, variable))
            drawn["record_fig3_alphas"] = figure
    attention = found["attention"]
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


def _weights(found: dict[str, Record]) -> list[str]:
    lines = [
        "| claim | best inside, mm | best outside, mm | inside minus outside, mm (95 %) | seeds | verdict |",
        "|---|---:|---:|---:|---:|---|",
    ]
    for claim in CLAIMS:
        record = found[claim.study]
        means = dict(zip(record.study.values, _mean(record.table("P1_epe_mm")), strict=True))
        inside, outside = (
            record.best([v for v in record.study.values if (claim.low <= v <= claim.high) == within])
            for within in (True, False)
        )
        difference = None if None in (inside, outside) else record.compare(inside, outside)
        ends = ["–" if value is None else f"{means[value]:.2f} at {value:g}" for value in (inside, outside)]
        lines.append(f"| {claim.text} | {' | '.join(ends)} | {_judged(difference, MIN_SEEDS)} |")
    return lines


def _collapse(record: Record) -> list[str]:
    lines = [
        "| β | EPE P1, mm | " + " | ".join(f"{block}: nats, active" for block in BLOCKS) + " | seeds |",
        "|---:|---:|" + "---:|" * len(BLOCKS) + "---:|",
    ]
    error, seeds = _mean(record.table("P1_epe_mm")), np.isfinite(record.table("P1_epe_mm")).sum(0)
    for column, value in enumerate(record.study.values):
        if not seeds[column]:
            continue
        cells = []
        for block in BLOCKS:
            nats, active = (_mean(record.table(f"{what}_{block}"))[column] for what in ("kl", "active"))
            cells.append(f"{nats:.1f}, {active:.1f}")
        lines.append(f"| {value:g} | {error[column]:.2f} | {' | '.join(cells)} | {seeds[column]} |")
    return lines


def _attention(record: Record) -> list[str]:
    lines = [
        "| claim | da-VAE | the other | da-VAE minus the other (95 %) | seeds | verdict |",
        "|---|---:|---:|---:|---:|---|",
    ]
    made = {value for _, value in record.rows}
    for other in [name for name in VARIANTS if name != "da" and name in made]:
        measures = {"a lower EPE P1, mm": "P1_epe_mm"}
        measures |= {f"a lower KL of {block}, nats": f"kl_{block}" for block in BLOCKS}
        measures["a lower negative ELBO"] = "elbo"
        for text, column in measures.items():
            sign = -1 if column == "elbo" else 1
            values = sign * record.table(column)
            pair = values[:, [record.study.values.index(name) for name in ("da", other)]]
            if column == "P1_epe_mm":
                difference = record.compare("da", other)
            else:
                difference = record.column_difference(column, *(("da", other)[::sign]))
            ends = [_cell(value) for value in _mean(pair[np.isfinite(pair).all(1)])]
            lines.append(
                f"| {text}, than {other}-VAE | {' | '.join(ends)} | {_judged(difference, MIN_PAIRS)} |"
            )
    return lines


def _cell(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.2f}"


def _judged(difference: Difference | None, least: int) -> str:
    """Cells of a table: the difference, the number of seeds, the verdict."""
    if difference is None:
        return "– | 0 | undecided"
    return f"{difference} | {len(difference.per_seed)} | {verdict(difference, min_pairs=least)}"


def _drawable(record: Record) -> tuple[list[float], NDArray[np.float64]]:
    """Values that have been run, and errors (seeds, values) of the seeds that have any."""
    table = record.table("P1_epe_mm")
    columns, rows = np.isfinite(table).any(0), np.isfinite(table).any(1)
    return [v for v, there in zip(record.study.values, columns, strict=True) if there], table[rows][
        :, columns
    ]


def _mean(table: NDArray) -> NDArray[np.float64]:
    """Means over seeds (values,) of those that have been run; NaN where none has."""
    counts = np.isfinite(table).sum(0)
    return np.where(counts, np.nansum(table, axis=0) / counts.clip(1), np.nan)
