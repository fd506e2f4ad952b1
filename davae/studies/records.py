"""Runs, arranged by the paper's studies: our runs of record, or those in folders of yours.

Our runs of record are `davae/studies/results/measured.csv` and `errors.npz`, so anyone who has the repository
can draw the figures and compute the verdicts again in seconds, without a run.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from davae.config.settings import Value, experiment
from davae.evaluation.compare import Difference, paired_difference
from davae.studies.paper import Study, plan_studies
from davae.studies.results.errors import Key, measure_errors, read_errors
from davae.studies.results.measured import ERRORS, MEASURED, config_digest, read_measured, read_run
from davae.training.runs import is_evaluated

PRESET = "sweep"


class Record:
    """What was recorded of one study.

    Attributes:
        study: what was planned.
        rows: (seed, value) -> row of measured.csv, for the runs that have been made.
        errors: (seed, value) -> (n,) errors of the test images, mm, for the runs recorded with them.
    """

    def __init__(
        self,
        study: Study,
        rows: Sequence[dict[str, str]],
        errors: dict[Key, NDArray[np.float64]],
        preset: str = PRESET,
    ):
        self.study = study
        self.rows: dict[tuple[Value, Value], dict[str, str]] = {}
        self.errors: dict[tuple[Value, Value], NDArray[np.float64]] = {}
        latest = {row["config"]: row for row in rows}  # if a run was made twice, the later row counts
        for point in study.points(experiment(preset)):
            row = latest.get(config_digest(point.config))
            if row is None:
                continue
            place = point.varied["seed"], point.varied[study.variable]
            self.rows[place] = row
            if (found := errors.get((row["data"], row["config"]))) is not None:
                self.errors[place] = found

    def table(self, column: str) -> NDArray[np.float64]:
        """Return the numbers (seeds, values) of a column of measured.csv; NaN if there is no run yet."""
        seeds, values = self.study.seeds, self.study.values
        found = [[self.rows.get((s, v), {}).get(column) or "nan" for v in values] for s in seeds]
        return np.array(found, float)

    def means(self, column: str) -> NDArray[np.float64]:
        """Return the means (values,) over seeds of a column of measured.csv; see `mean_over_seeds`."""
        return mean_over_seeds(self.table(column))

    def best(self, among: Sequence[Value]) -> Value | None:
        """Return the value of lowest mean error, or None if none has been run."""
        means = dict(zip(self.study.values, self.means("P1_epe_mm").tolist(), strict=True))
        known = [value for value in among if not np.isnan(means[value])]
        return min(known, key=means.__getitem__) if known else None

    def compare(self, first: Value, second: Value) -> Difference | None:
        """Return errors at `first` minus those at `second`, over the seeds that have both, if any."""
        both = [s for s in self.study.seeds if {(s, first), (s, second)} <= self.errors.keys()]
        if not both:
            return None
        return paired_difference(*(np.stack([self.errors[s, v] for s in both]) for v in (first, second)))

    def compare_column(self, column: str, first: Value, second: Value) -> Difference | None:
        """Return the same for a column of measured.csv, which has one number for each run."""
        table = self.table(column)[:, [self.study.values.index(value) for value in (first, second)]]
        both = table[np.isfinite(table).all(1)]
        return paired_difference(both[:, :1], both[:, 1:]) if len(both) else None


@dataclass(frozen=True)
class Runs:
    """Runs, as rows and as records of the paper's studies.

    Attributes:
        rows: a row of measured.csv for each run.
        errors: (data, config) of a row -> (n,) errors of its test images, mm.
        preset: whose studies `records` holds.
        source: where the runs were read, in words.
    """

    rows: list[dict[str, str]]
    errors: dict[Key, NDArray[np.float64]]
    preset: str
    source: str

    @cached_property
    def records(self) -> dict[str, Record]:
        """What was run of each study, by the study's name."""
        planned = plan_studies(experiment(self.preset))
        return {name: Record(study, self.rows, self.errors, self.preset) for name, study in planned.items()}


def read_runs_of_record(measured: Path | str = MEASURED, errors: Path | str = ERRORS) -> Runs:
    """Return our runs of record."""
    return Runs(read_measured(measured), read_errors(errors), PRESET, "our runs of record, on SynthHand")


def read_records(measured: Path | str = MEASURED, errors: Path | str = ERRORS) -> dict[str, Record]:
    """Return what was recorded of each study, by the study's name."""
    return read_runs_of_record(measured, errors).records


def read_run_folders(folder: Path | str) -> Runs:
    """Return the finished and evaluated runs at any depth below a folder, such as the store of a sweep.

    Raises:
        FileNotFoundError: there is none.
        ValueError: they differ in preset or in data; differences between such runs are not the study's.
    """
    files = sorted(Path(folder).rglob("predictions.npz"))
    found = [path.parent for path in files if is_evaluated(path.parent)]
    if not found:
        raise FileNotFoundError(f"{folder}: no finished and evaluated run below it; train and evaluate first")
    rows = [read_run(run) for run in found]
    for column in ("preset", "dataset", "data"):
        if len(values := sorted({row[column] for row in rows})) > 1:
            raise ValueError(
                f"{folder}: runs of {len(values)} kinds of {column} ({', '.join(values)}); "
                "name a folder that holds one kind"
            )
    keys = [(row["data"], row["config"]) for row in rows]
    errors = {key: measure_errors(run) for key, run in zip(keys, found, strict=True)}
    kind = f"preset {rows[0]['preset']} on {rows[0]['dataset']}"
    return Runs(rows, errors, rows[0]["preset"], f"{len(found)} of your runs, {kind}")


def mean_over_seeds(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the means (values,) of a table (seeds, values) over the seeds that were run; NaN if none was."""
    counts = np.isfinite(table).sum(0)
    return np.where(counts, np.nansum(table, axis=0) / counts.clip(1), np.nan)
