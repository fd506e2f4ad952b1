"""Grade students' copies of the notebooks: which exercises are right, wrong, open or fail."""

import csv
import io
import os
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from davae.pipeline.notebooks import find_notebooks, notebook_folder, read_with_parameters
from synthhand.storage import write_atomically

NUMBER = re.compile(r"check_answer\(\s*[\"'](\d\d\.\d)[\"']")  # of the exercise that a cell checks
RIGHT = "right"
# Of exceptions that a check raises; nbclient interrupts a cell that takes longer than its limit.
OUTCOMES = {"WrongAnswerError": "wrong", "NotAnsweredError": "open", "KeyboardInterrupt": "too slow"}
COLUMNS = ("copy", "exercise", "outcome", "reason")
Row = dict[str, str]


def find_copies(folder: Path | str, only: str = "") -> dict[Path, Path]:
    """Return the notebook of each copy below a folder, by the copy's path.

    Args:
        folder: of copies, or of folders of them, as one for each student.
        only: take only the copies of notebooks whose names contain this.

    Raises:
        ValueError: there is none.
    """
    originals = {path.name: path for path in find_notebooks(only)}
    found = [path for path in sorted(Path(folder).rglob("*.ipynb")) if ".ipynb_checkpoints" not in path.parts]
    copies = {path: originals[path.name] for path in found if path.name in originals}
    if not copies:
        raise ValueError(
            f"{folder}: no copy of {', '.join(originals)}; copies keep their names, in folders of any name"
        )
    return copies


def grade(
    copies: dict[Path, Path], out: Path | str, parameters: dict[str, Any], *, timeout_s: int
) -> list[Row]:
    """Execute students' copies from start to end, whatever fails, and tell the outcome of each exercise.

    The checks that are executed are those of the notebooks here, not those of the copies. The copies
    themselves are not changed. They are programs of others: they can do what you can do on this machine.

    Args:
        copies: from `find_copies`.
        out: folder for the executed copies and `grades.csv`.
        parameters: values for the `parameters` cells; each notebook gets those that it knows.
        timeout_s: time limit of one cell; 0 for none. A cell that takes longer is stopped; others continue.

    Returns:
        For each copy and exercise: `copy`, `exercise`, `outcome` and `reason`, as in `grades.csv`. The
        outcome is right, wrong, open (no answer), too slow, the name of an error that the answer raises, or
        missing (the check was removed). A copy that cannot be read has one row, unreadable. Copies are
        named, and stored in `out`, by their paths from the folder that holds them all.

    Raises:
        ValueError: `out` lies in that folder.
    """
    out = Path(out)
    common = os.path.commonpath([path.parent for path in copies])
    if out.resolve().is_relative_to(Path(common).resolve()):
        raise ValueError(
            f"{out}: lies among the students' copies, in {common}, where executed copies would be taken for "
            "theirs or replace them; give a folder elsewhere"
        )
    out.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    for path, original in (bar := tqdm(copies.items(), desc="copies", unit="copy")):
        name = path.relative_to(common).as_posix()
        bar.set_postfix_str(name)
        found = _grade_one(path, original, out / name, parameters, timeout_s)
        rows += [dict(zip(COLUMNS, (name, *cells), strict=True)) for cells in found]
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(
        out / "grades.csv", partial(Path.write_text, data=text.getvalue(), encoding="utf-8", newline="")
    )
    return rows


def summarise(rows: Sequence[Row]) -> list[tuple[str, str, str]]:
    """Return for each copy its name, how many of its exercises are right, and what the others are."""
    lines = []
    for copy in dict.fromkeys(row["copy"] for row in rows):
        own = [row for row in rows if row["copy"] == copy]
        right = sum(row["outcome"] == RIGHT for row in own)
        rest = [f"{row['exercise']} {row['outcome']}".strip() for row in own if row["outcome"] != RIGHT]
        lines.append((copy, f"{right} of {len(own)}", ", ".join(rest)))
    return lines


def _grade_one(
    path: Path, original: Path, executed: Path, parameters: dict[str, Any], timeout_s: int
) -> list[tuple[str, str, str]]:
    """Return number, outcome and reason of each exercise of a copy, and keep the executed copy."""
    import nbformat
    from nbclient import NotebookClient

    from davae.photo.kernels import OwnKernel

    found = [(NUMBER.search(cell.source), cell) for cell in nbformat.read(original, 4).cells]
    checks = {cell.id: (match[1], cell.source) for match, cell in found if match}
    try:
        notebook = read_with_parameters(path, original, parameters)
    except Exception as error:  # of JSON, of the schema, of papermill
        return [("", "unreadable", f"{type(error).__name__}: {error}".partition("\n")[0])]
    for cell in notebook.cells:
        if cell.get("id") in checks:
            cell.source = checks[cell["id"]][1]
    client = NotebookClient(
        notebook,
        timeout=timeout_s or None,
        interrupt_on_timeout=True,
        allow_errors=True,
        kernel_name="python3",
        kernel_manager_class=OwnKernel,
        resources={"metadata": {"path": str(notebook_folder())}},
        extra_arguments=["--IPKernelApp.log_level=ERROR"],
    )
    stopped = ""
    try:
        client.execute()
    except (TimeoutError, RuntimeError) as error:  # nbclient's, of a cell and of a kernel that died
        stopped = str(error).partition("\n")[0]
    executed.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(executed, partial(Path.write_text, data=nbformat.writes(notebook), encoding="utf-8"))
    cells = {cell.get("id"): cell for cell in notebook.cells}
    return [(number, *_read_outcome(cells.get(key), stopped)) for key, (number, _) in checks.items()]


def _read_outcome(cell: Any, stopped: str) -> tuple[str, str]:
    """Return outcome and reason of an executed check; the cell is None if the copy lacks it."""
    if cell is None:
        return "missing", "the copy has no such cell"
    if cell.get("execution_count") is None:
        return "not reached", stopped
    errors = [output for output in cell.outputs if output.output_type == "error"]
    if not errors:
        return RIGHT, ""
    return OUTCOMES.get(errors[0].ename, errors[0].ename), errors[0].evalue.partition("\n")[0]
