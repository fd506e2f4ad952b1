"""Table 3, measured: the methods that the paper compares da-VAE with, all on the same hands (docs/rivals.md).

Each method's learning rate and one weight of its loss were chosen on the validation split, among equally
many tried values: `davae/studies/results/tried.csv`, written by `benchmarks/rivals.py tune`. The runs of
record use the best of them.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import kendalltau

from davae.config import RIVALS, Config
from davae.config.rivals import UNDIVIDED
from davae.config.settings import Value, set_variable
from davae.metrics import PROTOCOLS
from davae.studies.paper import Study
from davae.studies.points import Point, vary
from davae.studies.records import Record, Runs
from davae.studies.results.measured import FOLDER
from davae.studies.results.tables import parse_number, read_reported
from synthhand.storage import write_atomically

TRIED = FOLDER / "tried.csv"
SEEDS = (0, 1, 2)
METHODS = ("da", "na", UNDIVIDED, *RIVALS)
VAES = ("cm-vae", "d-vae", "latent-align")  # group 1 of Table 3, beside da-VAE
PRINTED = {
    "da": "da-VAE", "cm-vae": "CM-VAE", "d-vae": "d-VAE", "latent-align": "Latent Align",
    "heatmaps": "Iqbal", "lifting": "Zimmermann",
}  # fmt: skip  # method -> its name in Table 3

RATE = "train.learning_rate"
RATES = (0.5, 1.0, 2.0)  # tried first, times the preset's
FACTORS = (0.3, 3.0)  # tried at the best rate, times the preset's weight
FAR_RATES = (0.25, 4.0)  # tried instead by a method that has no such weight
WEIGHTS = {"regressor": "", "heatmaps": "rival.alpha_depth", "lifting": "rival.alpha_map"}  # of others: beta
LIKE = dict.fromkeys(("na", "se"), "da")  # what has another's settings, as it differs in its blocks alone


@dataclass(frozen=True)
class Trial:
    """Settings that were tried for a method.

    Attributes:
        model: one of `METHODS`.
        settings: fields, or variables, that differ from the preset's.
        steps: of the run.
        data: digest of the data.
        val_mm: error on the validation split, P1; NaN before the run.
    """

    model: str
    settings: dict[str, Value]
    steps: int = 0
    data: str = ""
    val_mm: float = np.nan

    def settle(self, config: Config) -> Config:
        """Return the preset's config with these settings."""
        config = set_variable(config, "model", self.model)
        for name, value in self.settings.items():
            config = set_variable(config, name, value)
        return config

    def point(self, config: Config, seed: int = 0) -> Point:
        """Return the run of these settings."""
        told = ", ".join(f"{name} {value:g}" for name, value in self.settings.items())
        (point,) = vary(self.settle(config), {}, (seed,))
        return Point(
            point.config, {"model": self.model, **self.settings, "seed": seed}, f"{self.model}, {told}"
        )


def list_rates(config: Config, model: str) -> list[Trial]:
    """Return what is tried first for a method: learning rates."""
    return [Trial(model, {RATE: round(factor * config.train.learning_rate, 12)}) for factor in RATES]


def list_weights(config: Config, best: Trial) -> list[Trial]:
    """Return what is tried next for a method, at the best learning rate: weights, or further rates."""
    name = WEIGHTS.get(best.model, "beta")
    if not name:
        rate = config.train.learning_rate
        return [Trial(best.model, {RATE: round(factor * rate, 12)}) for factor in FAR_RATES]
    own = set_variable(config, "model", best.model)
    part, _, last = ("loss.beta_pose" if name == "beta" else name).rpartition(".")
    usual = getattr(getattr(own, part), last)
    return [Trial(best.model, {**best.settings, name: round(factor * usual, 12)}) for factor in FACTORS]


def write_trials(trials: Sequence[Trial], path: Path | str = TRIED) -> None:
    """Write what was tried, with its errors."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("model", "settings", "steps", "data", "val_P1_epe_mm"))
    for trial in trials:
        settings = " ".join(f"{name}={value:g}" for name, value in trial.settings.items())
        writer.writerow((trial.model, settings, trial.steps, trial.data, f"{trial.val_mm:.5g}"))
    write_atomically(Path(path), lambda temporary: temporary.write_text(text.getvalue(), encoding="utf-8"))


def read_trials(path: Path | str = TRIED) -> list[Trial]:
    """Return what was tried, in order."""
    with Path(path).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found = []
    for row in rows:
        pairs = (text.partition("=") for text in row["settings"].split())
        settings: dict[str, Value] = {name: float(value) for name, _, value in pairs}
        steps, error = int(row["steps"]), float(row["val_P1_epe_mm"])
        found.append(Trial(row["model"], settings, steps, row["data"], error))
    return found


def choose(trials: Sequence[Trial], model: str) -> Trial:
    """Return the best of what was tried for a method.

    Raises:
        ValueError: nothing was.
    """
    own = [trial for trial in trials if trial.model == LIKE.get(model, model)]
    if not own:
        raise ValueError(f"{model}: nothing was tried for it; run benchmarks/rivals.py tune")
    best = min(own, key=lambda trial: trial.val_mm)
    return Trial(model, best.settings, best.steps, best.data, best.val_mm)


@dataclass(frozen=True)
class MethodStudy(Study):
    """The study whose variable is the method; each has the best settings that were tried for it."""

    trials: tuple[Trial, ...] = ()

    def points(self, config: Config) -> list[Point]:
        """Return the runs of this study at a preset's config."""
        config = self.settle(config)
        chosen = [choose(self.trials, str(model)) for model in self.values]
        return [trial.point(config, seed) for seed in self.seeds for trial in chosen]


def plan_methods(
    trials: Sequence[Trial] | None = None,
    models: Sequence[str] = METHODS,
    seeds: Sequence[int] = SEEDS,
    steps: int = 0,
) -> MethodStudy:
    """Return the study of the methods.

    Args:
        trials: what was tried; by default, that of record.
        models: methods.
        seeds: of the trainings.
        steps: of each run; 0 leaves the preset's.
    """
    found = tuple(read_trials() if trials is None else trials)
    fixed: dict[str, Value] = {"train.steps": steps, "train.warmup_steps": steps // 8} if steps else {}
    return MethodStudy("methods", {"model": tuple(models)}, tuple(seeds), fixed, trials=found)


def read_methods(runs: Runs) -> Record:
    """Return what was run of the study of the methods."""
    return Record(plan_methods(), runs.rows, runs.errors, runs.preset)


def read_printed() -> dict[str, float]:
    """Return method -> its error in Table 3, mm, as printed."""
    rows = {row["method"]: parse_number(row["epe_mm"]) for row in read_reported(3)}
    found = {model: rows[name] for model, name in PRINTED.items()}
    return {model: error for model, error in found.items() if error is not None}


def compare_orders(printed: Mapping[str, float], measured: Mapping[str, float]) -> float:
    """Return Kendall's tau of two orders of the methods that both have: 1 if equal, -1 if reversed."""
    both = [model for model in printed if np.isfinite(measured.get(model, np.nan))]
    return float(kendalltau([printed[m] for m in both], [measured[m] for m in both]).statistic)


def best_rival(record: Record, among: Sequence[str] = VAES) -> str:
    """Return the rival of lowest mean error, P1; the empty text if none of them has a run."""
    best = record.best(among)
    return "" if best is None else str(best)


def format_twins(record: Record) -> str:
    """Return Table 3's methods as printed beside ours as measured, as Markdown; they never share a column."""
    rows = {row["method"]: row for row in read_reported(3)}
    names = {model: rows[name] for model, name in PRINTED.items()}
    head = ["method", "EPE, printed, RHD", "AUC, printed, RHD", "seeds"]
    head += [f"{name}, measured (mm)" for name in PROTOCOLS] + ["AUC P1, measured"]
    lines = [f"| {' | '.join(head)} |", "|---" + "|---:" * (len(head) - 1) + "|"]
    for place, model in enumerate(record.study.values):
        own, row = names.get(str(model)), record.rows.get((record.study.seeds[0], model))
        if own is None and row is None:
            continue
        title = row["model"] if row is not None else PRINTED[str(model)]
        if own is not None and own["reference"]:
            title += f" [{own['reference']}]"
        count = int(np.isfinite(record.table("P1_epe_mm")[:, place]).sum())
        cells = [title, *((own[name] or "–") if own else "–" for name in ("epe_mm", "auc")), str(count)]
        for protocol in PROTOCOLS:
            mean, low, high = (record.means(f"{protocol}_epe_{e}mm")[place] for e in ("", "low_", "high_"))
            cells.append(f"{mean:.2f} [{low:.2f}, {high:.2f}]" if count else "–")
        cells.append(f"{record.means('P1_auc_20_50')[place]:.3f}" if count else "–")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
