"""The paper's Tables 1-4 as printed, beside our measurements, as Markdown, CSV and LaTeX.

`reported.csv` holds what the paper prints, digit for digit ("0.920" keeps its zero, a dash is an empty cell,
"*[16]" is a footnote). Reported and measured numbers are never mixed: the paper does not say which root,
scale and joints its numbers assume, so ours are in columns of their own, named after their protocol.
"""

import csv
import io
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

from davae.studies.results.measured import FOLDER, format_cell
from synthhand.storage import write_atomically

REPORTED = FOLDER / "reported.csv"

TITLES = {
    1: "Attention in the encoder: pose error on RHD",
    2: "Attention in the encoder: ELBO and KL on RHD",
    3: "RHD, compared with others",
    4: "STB, compared with others",
}
_NUMBERS = {"epe_mm": "EPE (mm)", "auc": "AUC", "elbo": "ELBO", "kl_pose": "KL pose", "kl_cloud": "KL cloud",
            "kl_rgb": "KL RGB"}  # fmt: skip

Measured = Mapping[str, Mapping[str, float]]  # method -> {column title -> value}


def parse_number(cell: str) -> float | None:
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


class Layout(NamedTuple):
    """The cells of a table as text."""

    title: str
    head: list[str]
    body: list[list[str]]
    notes: list[str]  # "(a) ...", "(b) ...", ...
    words: int  # number of columns, from the left, that hold words


def lay_out(table: int, measured: Measured | None = None) -> Layout:
    """Lay out one of the paper's tables, with our numbers in columns of their own.

    Args:
        table: 1 to 4.
        measured: such as {"da-VAE": {"EPE P1 (mm)": 11.2}}. Methods that the paper does not list get rows
            below the paper's.
    """
    rows, left = read_reported(table), dict(measured or {})
    numbers = [name for name in _NUMBERS if any(row[name] for row in rows)]
    ours = list(dict.fromkeys(title for values in left.values() for title in values))
    grouped = any(row["group"] for row in rows)
    head = [*(["group"] if grouped else []), "method", *(f"{_NUMBERS[name]}, reported" for name in numbers)]
    head += [f"{title}, measured" for title in ours]
    body: list[list[str]] = []
    notes: list[str] = []

    def add(group: str, method: str, reported: list[str], values: Mapping[str, float]) -> None:
        cells = [*([group] if grouped else []), method, *(cell or "–" for cell in reported)]
        body.append(cells + [format_cell(values.get(title), digits=4) or "–" for title in ours])

    for row in rows:
        method = row["method"] + (f" [{row['reference']}]" if row["reference"] else "")
        if row["footnote"]:
            if row["footnote"] not in notes:
                notes.append(row["footnote"])
            method += f" ({_letter(notes.index(row['footnote']))})"
        # Only an entry without a reference is this paper's own model, which we measure too.
        values = {} if row["reference"] else left.pop(row["method"], {})
        add(row["group"], method, [row[name] for name in numbers], values)
    for method, values in left.items():
        add("", method, [""] * len(numbers), values)
    notes = [f"({_letter(i)}) {note}" for i, note in enumerate(notes)]
    return Layout(f"Table {table}. {TITLES[table]}", head, body, notes, 2 if grouped else 1)


def _letter(index: int) -> str:
    return chr(ord("a") + index)


def format_markdown(table: int, measured: Measured | None = None) -> str:
    """Return a table as Markdown; see `lay_out`."""
    made = lay_out(table, measured)
    name, _, title = made.title.partition(" ")[2].partition(" ")
    lines = [f"**Table {name}** {title}", "", _markdown_line(made.head)]
    lines += [_markdown_line(["---"] * made.words + ["---:"] * (len(made.head) - made.words))]
    lines += map(_markdown_line, made.body)
    if made.notes:
        lines += ["", *(f"{note}  " for note in made.notes)]
    return "\n".join(lines) + "\n"


def format_csv(table: int, measured: Measured | None = None) -> str:
    """Return a table as CSV; a dash is an empty cell, and the last column has the notes."""
    made = lay_out(table, measured)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*made.head, "note"])
    for row in made.body:
        marks = [note[4:] for note in made.notes if row[made.words - 1].endswith(note[:3])]
        writer.writerow(["" if cell == "–" else cell for cell in row] + ["; ".join(marks)])
    return text.getvalue()


def format_latex(table: int, measured: Measured | None = None) -> str:
    """Return a table as LaTeX for the package booktabs; see `lay_out`."""
    made = lay_out(table, measured)
    columns = "l" * made.words + "r" * (len(made.head) - made.words)
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{_escape(made.title.partition('. ')[2])}}}"]
    lines += [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", _latex_line(made.head), r"\midrule"]
    lines += [*map(_latex_line, made.body), r"\bottomrule", r"\end{tabular}"]
    lines += [rf"\par\footnotesize {_escape(note)}" for note in made.notes]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


FORMATS: dict[str, Callable[[int, Measured | None], str]] = {
    "md": format_markdown,
    "csv": format_csv,
    "tex": format_latex,
}


def write_tables(folder: Path | str, measured: Mapping[int, Measured]) -> list[Path]:
    """Write all four tables as table1.md, .csv and .tex, ...; return their paths.

    Args:
        folder: created if it does not exist.
        measured: by table; see `lay_out`.
    """
    folder, written = Path(folder), []
    folder.mkdir(parents=True, exist_ok=True)
    for table in TITLES:
        for ending, format_table in FORMATS.items():
            path, text = folder / f"table{table}.{ending}", format_table(table, measured.get(table))
            write_atomically(path, partial(Path.write_text, data=text, encoding="utf-8"))
            written.append(path)
    return written


def _latex_line(cells: list[str]) -> str:
    return " & ".join("--" if cell == "–" else _escape(cell) for cell in cells) + r" \\"


def _escape(text: str) -> str:
    return "".join("\\" + letter if letter in "&%$#_{}" else letter for letter in text)


def _markdown_line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"
