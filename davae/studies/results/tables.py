"""The paper's Tables 1-4 as printed, our runs of record, and the two side by side.

`reported.csv` holds what the paper prints, figure for figure ("0.920" keeps its zero, a dash is an empty
cell, "*[16]" is a footnote). `measured.csv` holds what this project measured, one row per run of record.
They are never mixed: the paper does not say which root, scale and joints its numbers assume, so ours stand in
their own columns, under their protocol's name.
"""

import csv
import dataclasses
import hashlib
import io
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from davae.config import BLOCKS, TERMS, Config
from davae.config.reading import read_config, to_oldest_json
from davae.metrics import PROTOCOLS
from synthhand.storage import write_atomically

FOLDER = Path(__file__).parent
REPORTED, MEASURED = FOLDER / "reported.csv", FOLDER / "measured.csv"

TITLES = {
    1: "Attention in the encoder: pose error on RHD",
    2: "Attention in the encoder: ELBO and KL on RHD",
    3: "RHD, compared with others",
    4: "STB, compared with others",
}
_NUMBERS = {"epe_mm": "EPE (mm)", "auc": "AUC", "elbo": "ELBO", "kl_pose": "KL pose", "kl_cloud": "KL cloud",
            "kl_rgb": "KL RGB"}  # fmt: skip

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


def number(cell: str) -> float | None:
    """Return the value of a printed number, or None for a dash."""
    return float(cell) if cell else None


def read_reported(table: int | None = None) -> list[dict[str, str]]:
    """Return the rows of one of the paper's tables, or of all four, top to bottom; "" is a dash.

    Raises:
        ValueError: the paper has no such table.
    """
    with REPORTED.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if table is None:
        return rows
    if table not in TITLES:
        raise ValueError(f"the paper has no Table {table}; it has {', '.join(map(str, TITLES))}")
    return [row for row in rows if row["table"] == str(table)]


def measured_row(
    report: dict[str, Any], config: Config, log: Mapping[str, str], commit: str
) -> dict[str, str]:
    """Return the row of measured.csv that records one evaluated run.

    Args:
        report: from `davae.evaluation.evaluate`.
        config: the run's, of which what our studies vary is recorded, and a digest of all.
        log: the last row of the run's metrics.csv.
        commit: of the code that made it.
    """
    row = {name: report[name] for name in ("dataset", "split", "n", "model", "preset", "seed", "elbo")}
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
    row |= {"chamfer_mm": report["cloud"]["chamfer_mm"]}
    row |= {name: report["image"][name] for name in ("psnr_db", "psnr_hand_db")}
    row |= {f"kl_{block}": report["latent"][block]["kl"] for block in BLOCKS}
    row |= {f"active_{block}": report["latent"][block]["active_units"] for block in BLOCKS}
    return {name: _cell(row[name]) for name in MEASURED_COLUMNS}


def config_digest(config: Config) -> str:
    """Return by what measured.csv knows an experiment, its seed included."""
    return hashlib.sha256(to_oldest_json(config).encode()).hexdigest()[:12]


def row_of(run: Path | str) -> dict[str, str]:
    """Return the row of measured.csv of a finished and evaluated run.

    Raises:
        FileNotFoundError: it is not finished or not evaluated.
    """
    run = Path(run)
    report, log = (run / name for name in ("metrics.json", "metrics.csv"))
    for needed in (run / "config.json", report, log):
        if not needed.exists():
            raise FileNotFoundError(f"{needed}: missing; train and evaluate the run before recording it")
    with log.open(newline="", encoding="utf-8") as file:
        *_, last = csv.DictReader(file)
    config = read_config(Config, (run / "config.json").read_text(encoding="utf-8"))
    return measured_row(json.loads(report.read_text(encoding="utf-8")), config, last, commit())


def commit() -> str:
    """Return the commit of this clone, "+" after it where the package differs, "unknown" outside of one."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(FOLDER.parent), *arguments]
        return subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout.strip()

    try:
        # The record itself does not count: it changes with every run that is recorded.
        record = [f":(exclude){FOLDER.name}/{name}" for name in (MEASURED.name, "errors.npz")]
        changed = git("status", "--porcelain", "--", ".", *record)
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
    """Add a run of record; one that is there already, whichever commit found it, is not added twice."""
    path = Path(path)
    rows = read_measured(path)
    if any(row | {"commit": other["commit"]} == other for other in rows):
        return
    text = io.StringIO()
    writer = csv.DictWriter(text, MEASURED_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows([*rows, row])
    write_atomically(path, lambda temporary: temporary.write_text(text.getvalue(), encoding="utf-8"))


class Layout(NamedTuple):
    """A table as text: titles, cells, and how many columns on the left hold words."""

    title: str
    head: list[str]
    body: list[list[str]]
    notes: list[str]  # (a), (b), ...
    words: int


def layout(table: int, measured: Mapping[str, Mapping[str, float]] | None = None) -> Layout:
    """Lay out one of the paper's tables, with our figures in columns of their own.

    Args:
        table: 1 to 4.
        measured: method -> {column title -> value}, such as {"da-VAE": {"EPE P1 (mm)": 11.2}}. Methods that
            the paper does not list get rows below its own.
    """
    rows, measured = read_reported(table), dict(measured or {})
    numbers = [name for name in _NUMBERS if any(row[name] for row in rows)]
    ours = list(dict.fromkeys(title for values in measured.values() for title in values))
    grouped = any(row["group"] for row in rows)
    head = [*(["group"] if grouped else []), "method", *(f"{_NUMBERS[name]}, reported" for name in numbers)]
    head += [f"{title}, measured" for title in ours]
    body, notes = [], []
    for row in rows:
        method = row["method"] + (f" [{row['reference']}]" if row["reference"] else "")
        if row["footnote"]:
            if row["footnote"] not in notes:
                notes.append(row["footnote"])
            method += f" ({chr(ord('a') + notes.index(row['footnote']))})"
        cells = [*([row["group"]] if grouped else []), method, *(row[name] or "–" for name in numbers)]
        # Only an entry without a reference is this paper's own model and may carry a measurement of ours.
        values = {} if row["reference"] else measured.pop(row["method"], {})
        body.append(cells + [_cell(values.get(title), digits=4) or "–" for title in ours])
    for method, values in measured.items():
        cells = [*([""] if grouped else []), method, *("–" for _ in numbers)]
        body.append(cells + [_cell(values.get(title), digits=4) or "–" for title in ours])
    notes = [f"({chr(ord('a') + i)}) {note}" for i, note in enumerate(notes)]
    return Layout(f"Table {table}. {TITLES[table]}", head, body, notes, 2 if grouped else 1)


def markdown(table: int, measured: Mapping[str, Mapping[str, float]] | None = None) -> str:
    """Return a table as Markdown; see `layout`."""
    made = layout(table, measured)
    name, _, title = made.title.partition(" ")[2].partition(" ")
    lines = [f"**Table {name}** {title}", "", _line(made.head)]
    lines += [_line(["---"] * made.words + ["---:"] * (len(made.head) - made.words)), *map(_line, made.body)]
    if made.notes:
        lines += ["", *(f"{note}  " for note in made.notes)]
    return "\n".join(lines) + "\n"


def csv_text(table: int, measured: Mapping[str, Mapping[str, float]] | None = None) -> str:
    """Return a table as CSV, a dash as an empty cell; notes stand in a last column."""
    made = layout(table, measured)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*made.head, "note"])
    for row in made.body:
        marks = [note[4:] for note in made.notes if row[made.words - 1].endswith(note[:3])]
        writer.writerow(["" if cell == "–" else cell for cell in row] + ["; ".join(marks)])
    return text.getvalue()


def latex(table: int, measured: Mapping[str, Mapping[str, float]] | None = None) -> str:
    """Return a table as LaTeX for the package booktabs; see `layout`."""
    made = layout(table, measured)
    columns = "l" * made.words + "r" * (len(made.head) - made.words)
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{_escape(made.title.partition('. ')[2])}}}"]
    lines += [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", _latex_line(made.head), r"\midrule"]
    lines += [*map(_latex_line, made.body), r"\bottomrule", r"\end{tabular}"]
    lines += [rf"\par\footnotesize {_escape(note)}" for note in made.notes]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def write_tables(folder: Path | str, measured: Mapping[int, Mapping[str, Mapping[str, float]]]) -> list[Path]:
    """Write all four tables as table1.md, .csv and .tex, ...; return their paths.

    Args:
        folder: made where it is not there.
        measured: table -> method -> {column title -> value}.
    """
    folder, kinds, written = Path(folder), {"md": markdown, "csv": csv_text, "tex": latex}, []
    folder.mkdir(parents=True, exist_ok=True)
    for table in TITLES:
        for ending, make in kinds.items():
            path, text = folder / f"table{table}.{ending}", make(table, measured.get(table))
            write_atomically(path, lambda temporary, text=text: temporary.write_text(text, encoding="utf-8"))
            written.append(path)
    return written


def _latex_line(cells: list[str]) -> str:
    return " & ".join("--" if cell == "–" else _escape(cell) for cell in cells) + r" \\"


def _escape(text: str) -> str:
    return "".join("\\" + letter if letter in "&%$#_{}" else letter for letter in text)


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(value: Any, digits: int = 5) -> str:
    if value is None:
        return ""
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)
