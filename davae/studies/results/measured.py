"""Our runs of record: `measured.csv`, one row for each."""

import csv
import dataclasses
import hashlib
import io
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from davae.config import BLOCKS, TERMS, Config
from davae.config.reading import to_oldest_json
from davae.config.rivals import read_experiment
from davae.metrics import PROTOCOLS
from synthhand.storage import write_atomically

FOLDER = Path(__file__).parent
MEASURED, ERRORS, CURVES = (FOLDER / name for name in ("measured.csv", "errors.npz", "curves.npz"))

MEASURED_COLUMNS = (
    *("dataset", "data", "crop", "mask", "split", "n", "model", "preset", "config", "seed", "commit"),
    *(f"alpha_{term}" for term in TERMS),
    *(f"beta_{block}" for block in BLOCKS),
    *("steps", "batch_size", "last_px", "seconds", "val_P1_epe_mm"),
    *(f"{p}_{value}" for p in PROTOCOLS for value in ("epe_mm", "epe_low_mm", "epe_high_mm", "auc_20_50")),
    *("mean_pose_P1_epe_mm", "mean_hand_P5_epe_mm", "chamfer_mm", "psnr_db", "psnr_hand_db", "elbo"),
    *(f"kl_{block}" for block in BLOCKS),
    *(f"active_{block}" for block in BLOCKS),
)


def make_row(report: dict[str, Any], config: Config, log: Mapping[str, str], commit: str) -> dict[str, str]:
    """Return the row of measured.csv that records one evaluated run.

    Args:
        report: from `davae.evaluation.evaluate`.
        config: of the run; the row has a digest of it, and the fields that our studies vary.
        log: the last row of the run's metrics.csv.
        commit: of the code that made the run.
    """
    row = {name: report[name] for name in ("dataset", "split", "n", "model", "preset", "seed")}
    row |= {"data": report["data"][:12], "commit": commit, "crop": config.data.crop, "mask": config.data.mask}
    row["config"] = config_digest(config)
    row |= dataclasses.asdict(config.loss)
    row |= {"steps": config.train.steps, "batch_size": config.train.batch_size}
    row |= {"last_px": config.model.last_px}
    row |= {"seconds": float(log["seconds"]), "val_P1_epe_mm": float(log["val_epe_mm"])}
    for name, result in report["protocols"].items():
        low, high = result["epe_interval_mm"]
        row |= {f"{name}_epe_mm": result["epe_mm"], f"{name}_epe_low_mm": low, f"{name}_epe_high_mm": high}
        row[f"{name}_auc_20_50"] = result["auc_20_50"]
    row["mean_pose_P1_epe_mm"] = report["mean_pose"]["P1"]["epe_mm"]
    row["mean_hand_P5_epe_mm"] = report["mean_hand"]["P5"]["epe_mm"]
    if "latent" not in report:  # of a rival joints alone are measured
        row = dict.fromkeys(MEASURED_COLUMNS) | row
    else:
        row |= {"elbo": report["elbo"], "chamfer_mm": report["cloud"]["chamfer_mm"]}
        row |= {name: report["image"][name] for name in ("psnr_db", "psnr_hand_db")}
        row |= {f"kl_{block}": report["latent"][block]["kl"] for block in BLOCKS}
        row |= {f"active_{block}": report["latent"][block]["active_units"] for block in BLOCKS}
    return {name: format_cell(row[name]) for name in MEASURED_COLUMNS}


def format_cell(value: Any, digits: int = 5) -> str:
    """Return a table cell: a float with so many significant digits, None as the empty text."""
    if value is None:
        return ""
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)


def config_digest(config: Config) -> str:
    """Return the 12 hex digits that identify an experiment, seed included, in measured.csv."""
    return hashlib.sha256(to_oldest_json(config).encode()).hexdigest()[:12]


def read_run(run: Path | str) -> dict[str, str]:
    """Return the row of measured.csv for a finished and evaluated run.

    Raises:
        FileNotFoundError: the run is not finished or not evaluated.
    """
    run = Path(run)
    report, log = (run / name for name in ("metrics.json", "metrics.csv"))
    for needed in (run / "config.json", report, log):
        if not needed.exists():
            raise FileNotFoundError(f"{needed}: missing; train and evaluate the run before recording it")
    with log.open(newline="", encoding="utf-8") as file:
        *_, last = csv.DictReader(file)
    config = read_experiment((run / "config.json").read_text(encoding="utf-8"))
    return make_row(json.loads(report.read_text(encoding="utf-8")), config, last, find_commit())


def find_commit() -> str:
    """Return the commit of this clone, with "+" if the code differs from it; "unknown" outside a clone."""
    clone = FOLDER.parents[2]

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(clone), *arguments]
        return subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout.strip()

    try:
        # The record itself does not count: it changes with every run that is recorded.
        record = [f":(exclude){path.relative_to(clone).as_posix()}" for path in (MEASURED, ERRORS, CURVES)]
        changed = git("status", "--porcelain", "--", "davae", "synthhand", *record)
        return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def read_measured(path: Path | str = MEASURED) -> list[dict[str, str]]:
    """Return our runs of record, oldest first.

    Raises:
        ValueError: the file has other columns than `MEASURED_COLUMNS`.
    """
    with Path(path).open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != MEASURED_COLUMNS:
            odd = sorted(set(reader.fieldnames or ()) ^ set(MEASURED_COLUMNS))
            raise ValueError(
                f"{path}: columns differ from this version's ({', '.join(odd) or 'in their order'})"
            )
        return list(reader)


def append_measured(row: dict[str, str], path: Path | str = MEASURED) -> None:
    """Add a run of record, unless it is there already; the commit does not distinguish two rows."""
    path = Path(path)
    rows = read_measured(path)
    if any(row | {"commit": other["commit"]} == other for other in rows):
        return
    text = io.StringIO()
    writer = csv.DictWriter(text, MEASURED_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows([*rows, row])
    write_atomically(path, lambda temporary: temporary.write_text(text.getvalue(), encoding="utf-8"))
