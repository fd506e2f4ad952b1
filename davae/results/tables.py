"""The paper's Tables 1-4 as printed, our runs of record, and the two side by side.

`reported.csv` holds what the paper prints, figure for figure ("0.920" keeps its zero, a dash is an empty
cell, "*[16]" is a footnote). `measured.csv` holds what this project measured, one row per run of record.
They are never mixed: the paper does not say which root, scale and joints its numbers assume, so ours stand in
their own columns, under their protocol's name.
"""

import csv
import hashlib
import io
import json
from pathlib import Path
from typing import Any

from davae.config import BLOCKS
from davae.data.folders import write_atomically
from davae.metrics import PROTOCOLS

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
    *(f"{p}_{value}" for p in PROTOCOLS for value in ("epe_mm", "epe_low_mm", "epe_high_mm", "auc_20_50")),
    *("mean_pose_P1_epe_mm", "mean_hand_P5_epe_mm", "chamfer_mm", "psnr_db", "psnr_hand_db", "elbo"),
    *(f"kl_{block}" for block in BLOCKS),
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


def measured_row(report: dict[str, Any], config_json: str, commit: str) -> dict[str, str]:
    """Return the row of measured.csv that records one evaluated run.

    Args:
        report: from `davae.evaluation.evaluate`.
        config_json: the run's config.json, recorded by its digest, its crop and its mask.
        commit: of the code that made it.
    """
    row = {name: report[name] for name in ("dataset", "split", "n", "model", "preset", "seed", "elbo")}
    row |= {"data": report["data"][:12], "commit": commit}
    row |= {name: json.loads(config_json)["data"][name] for name in ("crop", "mask")}
    row["config"] = hashlib.sha256(config_json.encode()).hexdigest()[:12]
    for name, result in report["protocols"].items():
        low, high = result["epe_interval_mm"]
        row |= {f"{name}_epe_mm": result["epe_mm"], f"{name}_epe_low_mm": low, f"{name}_epe_high_mm": high}
        row[f"{name}_auc_20_50"] = result["auc_20_50"]
    row["mean_pose_P1_epe_mm"] = report["mean_pose"]["P1"]["epe_mm"]
    row["mean_hand_P5_epe_mm"] = report["mean_hand"]["P5"]["epe_mm"]
    row |= {"chamfer_mm": report["cloud"]["chamfer_mm"]}
    row |= {name: report["image"][name] for name in ("psnr_db", "psnr_hand_db")}
    row |= {f"kl_{block}": report["latent"][block]["kl"] for block in BLOCKS}
    return {name: _cell(row[name]) for name in MEASURED_COLUMNS}


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
    """Add a run of record; one that is already there, cell for cell, is not added twice."""
    path = Path(path)
    rows = read_measured(path)
    if row in rows:
        return
    text = io.StringIO()
    writer = csv.DictWriter(text, MEASURED_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows([*rows, row])
    write_atomically(path, lambda temporary: temporary.write_text(text.getvalue(), encoding="utf-8"))


def markdown(table: int, measured: dict[str, dict[str, float]] | None = None) -> str:
    """Return one of the paper's tables as Markdown, with our figures in columns of their own.

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
        body.append(cells + [_cell(values.get(title)) or "–" for title in ours])
    for method, values in measured.items():
        cells = [*([""] if grouped else []), method, *("–" for _ in numbers)]
        body.append(cells + [_cell(values.get(title)) or "–" for title in ours])
    left = 2 if grouped else 1
    lines = [f"**Table {table}.** {TITLES[table]}", "", _line(head)]
    lines += [_line(["---"] * left + ["---:"] * (len(head) - left)), *map(_line, body)]
    if notes:
        lines += ["", *(f"({chr(ord('a') + i)}) {note}  " for i, note in enumerate(notes))]
    return "\n".join(lines) + "\n"


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.5g}" if isinstance(value, float) else str(value)
