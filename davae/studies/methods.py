"""Table 3, measured: da-VAE and its rivals, all on the same hands (docs/rivals.md).

Each method's learning rate, and the weights of its loss that one factor scales, were chosen on the validation
split among five tried settings (the plain regressor, which has no such weight: among five rates):
`davae/studies/results/tried.csv`, written by `benchmarks/rivals.py tune`. The runs of record use the best.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path

import numpy as np
from scipy.stats import kendalltau

from davae.config import BLOCKS, RIVALS, Config
from davae.config.rivals import UNDIVIDED, title_of
from davae.config.settings import Value, experiment, set_variable
from davae.metrics import PROTOCOLS
from davae.studies.paper import Study
from davae.studies.points import Point
from davae.studies.records import PRESET, Record, Runs
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
FACTORS = (0.3, 3.0)  # tried at the best rate, times the preset's weights
FAR_RATES = (0.25, 4.0)  # tried instead by a method that has no such weight
BETAS = tuple(f"loss.beta_{block}" for block in BLOCKS)
WEIGHTS = {"regressor": (), "heatmaps": ("rival.alpha_depth",), "lifting": ("rival.alpha_map",)}  # else BETAS
LIKE = dict.fromkeys(("na", "se"), "da")  # what has another's settings, as it differs in its blocks alone


@dataclass(frozen=True)
class Trial:
    """Settings that were tried for a method.

    Attributes:
        model: a method that is trained by `davae train --model`.
        settings: fields that differ from the preset's.
        preset: of the run.
        steps: of the run, fewer than the preset's.
        data: the first 12 digits of the data's digest.
        val_mm: error on the validation split, P1; NaN before the run.
    """

    model: str
    settings: dict[str, float]
    preset: str = PRESET
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
        config = set_variable(self.settle(config), "train.seed", seed)
        told = "".join(f", {name} {value:g}" for name, value in self.settings.items())
        varied: dict[str, Value] = {"model": self.model, **self.settings, "seed": seed}
        return Point(config, varied, f"{self.model}{told}, seed {seed}")


def list_rates(config: Config, model: str, factors: Sequence[float] = RATES) -> list[Trial]:
    """Return what is tried first for a method: learning rates."""
    usual = config.train.learning_rate
    return [Trial(model, {RATE: round(factor * usual, 12)}, config.preset) for factor in factors]


def list_weights(config: Config, best: Trial) -> list[Trial]:
    """Return what is tried next for a method, at the best learning rate: weights, or further rates."""
    names = WEIGHTS.get(best.model, BETAS)
    if not names:
        return list_rates(config, best.model, FAR_RATES)
    own = set_variable(config, "model", best.model)
    usual = {name: attrgetter(name)(own) for name in names}
    scaled = [{name: round(factor * value, 12) for name, value in usual.items()} for factor in FACTORS]
    return [Trial(best.model, {**best.settings, **weights}, config.preset) for weights in scaled]


def write_trials(trials: Sequence[Trial], path: Path | str = TRIED) -> None:
    """Write what was tried, with its errors."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("preset", "model", "settings", "steps", "data", "val_P1_epe_mm"))
    for trial in trials:
        settings = " ".join(f"{name}={value:g}" for name, value in trial.settings.items())
        cells = (trial.preset, trial.model, settings, trial.steps, trial.data, f"{trial.val_mm:.5g}")
        writer.writerow(cells)
    write_atomically(Path(path), lambda temporary: temporary.write_text(text.getvalue(), encoding="utf-8"))


def read_trials(path: Path | str = TRIED) -> list[Trial]:
    """Return what was tried, in order.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a row does not hold what `write_trials` writes.
    """
    with Path(path).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found = []
    for number, row in enumerate(rows, 1):
        try:
            pairs = (text.split("=") for text in row["settings"].split())
            settings = {name: float(value) for name, value in pairs}
            steps, error = int(row["steps"]), float(row["val_P1_epe_mm"])
            found.append(Trial(row["model"], settings, row["preset"], steps, row["data"], error))
        except (KeyError, TypeError, ValueError) as cause:
            raise ValueError(
                f"{path}, row {number}: {dict(row)} is not what `rivals.py tune` writes; run it again"
            ) from cause
    return found


def choose(trials: Sequence[Trial], model: str) -> Trial:
    """Return the best of what was tried for a method.

    Raises:
        ValueError: nothing was, or no run was finished.
    """
    own = [t for t in trials if t.model == LIKE.get(model, model) and np.isfinite(t.val_mm)]
    if not own:
        raise ValueError(f"{model}: nothing was tried for it; run `benchmarks/rivals.py tune`")
    return replace(min(own, key=lambda trial: trial.val_mm), model=model)


@dataclass(frozen=True)
class MethodStudy(Study):
    """The study whose variable is the method.

    Each has the best settings that were tried for it at the preset; at a preset at which nothing was tried,
    all have the preset's.
    """

    trials: tuple[Trial, ...] = ()

    def points(self, config: Config) -> list[Point]:
        """Return the runs of this study at a preset's config.

        Raises:
            ValueError: at this preset, something was tried for other methods, but nothing for one of these.
        """
        own, config = [t for t in self.trials if t.preset == config.preset], self.settle(config)
        models = map(str, self.values)
        chosen = [choose(own, model) if own else Trial(model, {}, config.preset) for model in models]
        return [trial.point(config, seed) for seed in self.seeds for trial in chosen]

    def command(self, preset: str, data: Path | str, mask: str = "") -> str:
        """Return the command line that runs the study at a preset."""
        return f"python benchmarks/rivals.py compare --preset {preset} --data {data}"


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
    """Return Kendall's tau of two orders of the methods that both have: 1 if equal, -1 if reversed.

    NaN if they share fewer than two methods.
    """
    both = [model for model in printed if np.isfinite(measured.get(model, np.nan))]
    return float(kendalltau([printed[m] for m in both], [measured[m] for m in both]).statistic)


def best_rival(record: Record, among: Sequence[str] = VAES) -> str:
    """Return the rival of lowest mean error, P1; the empty text unless all of them have runs."""
    best = record.best(among)
    complete = set(among) <= {str(model) for _, model in record.rows}
    return str(best) if complete and best is not None else ""


def format_twins(record: Record, preset: str = PRESET) -> str:
    """Return Table 3's methods as printed beside ours as measured, as Markdown; they never share a column."""
    rows = {row["method"]: row for row in read_reported(3)}
    names = {model: rows[name] for model, name in PRINTED.items()}
    head = ["method", "EPE, printed, RHD", "AUC, printed, RHD", "seeds"]
    head += [f"{name}, measured (mm)" for name in PROTOCOLS] + ["AUC P1, measured"]
    lines = [f"| {' | '.join(head)} |", "|---" + "|---:" * (len(head) - 1) + "|"]
    for place, model in enumerate(map(str, record.study.values)):
        own = names.get(model)
        count = int(np.isfinite(record.table("P1_epe_mm")[:, place]).sum())
        if own is None and not count:
            continue
        title = title_of(experiment(preset, model=model))
        if own is not None and own["reference"]:
            title += f" [{own['reference']}]"
        cells = [title, *((own[name] or "–") if own else "–" for name in ("epe_mm", "auc")), str(count)]
        for protocol in PROTOCOLS:
            mean, low, high = (record.means(f"{protocol}_epe_{e}mm")[place] for e in ("", "low_", "high_"))
            cells.append(f"{mean:.2f} [{low:.2f}, {high:.2f}]" if count else "–")
        cells.append(f"{record.means('P1_auc_20_50')[place]:.3f}" if count else "–")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
