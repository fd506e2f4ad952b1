"""Exercises of the notebooks: checks that tell right from wrong, and copies without the solutions.

An exercise is four cells, told apart by their tags:

- `exercise`, Markdown: the task, and its number, as 02.1;
- `solution`, code: defines the names that the task asks for. A student's copy keeps imports, `def` lines with
  their docstrings and the left sides of assignments; `...` stands for the rest;
- `check`, code: calls `check_answer`;
- `mistakes`, code: calls `reject` with common wrong answers. A student's copy leaves it out.
"""

import ast
import copy
import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from synthhand.storage import write_atomically

BLANK = "...  # your answer"
LEFT_OUT = "mistakes"  # tag of cells that a student's copy does not have
ANSWER = re.compile(r"^\*\*Answer\b.*?(?=^\*\*Notice|\Z)", re.MULTILINE | re.DOTALL)  # to what was predicted

_checks: dict[str, tuple[Callable[[Any], bool], str]] = {}  # of this kernel, by number of the exercise


class NotAnsweredError(Exception):
    """An exercise still has its blank."""


class WrongAnswerError(Exception):
    """The answer to an exercise is wrong. The message gives a hint, not the solution."""


def check_answer(number: str, answer: Any, is_right: Callable[[Any], bool], hint: str) -> None:
    """Say whether the answer to an exercise is right.

    Args:
        number: of the exercise, as 02.1.
        answer: what the student defined: a value, a tuple of values, or a function. Neither may be None,
            and a function must not return None.
        is_right: returns whether an answer is right. It should compare with something that does not show the
            solution: a library's function, a property, brute force.
        hint: a sentence for those whose answer is wrong.

    Raises:
        NotAnsweredError: the blank is still there.
        WrongAnswerError: `is_right` says no, or it fails on what was given as the answer.
        Exception: whatever a student's function raises is shown as it is.
    """
    _checks[number] = is_right, hint
    _judge(number, answer)
    print(f"Exercise {number}: right.")


def reject(number: str, *mistakes: Any) -> None:
    """Make sure that a check refuses common mistakes.

    Args:
        number: of an exercise whose `check_answer` was called before.
        mistakes: wrong answers, each of the form of a right one.

    Raises:
        AssertionError: the check lets one pass.
    """
    for place, mistake in enumerate(mistakes, 1):
        try:
            _judge(number, mistake)
        except WrongAnswerError:
            continue
        raise AssertionError(
            f"exercise {number}: the check lets wrong answer {place} of {len(mistakes)} pass"
        )


def _judge(number: str, answer: Any) -> None:
    is_right, hint = _checks[number]
    _require_answer(number, answer)
    own: list[Exception] = []  # raised by the student's function, as opposed to the check
    try:
        right = is_right(_watch(number, answer, own) if callable(answer) else answer)
    except NotAnsweredError:
        raise
    except Exception as error:
        if error in own:
            raise
        form = f"The check could not use what you gave it ({type(error).__name__}: {error})."
        raise WrongAnswerError(f"Exercise {number}: not right yet. {form} {hint}") from error
    if not right:
        raise WrongAnswerError(f"Exercise {number}: not right yet. {hint}")


def _watch(number: str, function: Callable, own: list[Exception]) -> Callable:
    """Return a student's function as one that must return something; what it raises is added to `own`."""

    def watched(*args: Any, **kwargs: Any) -> Any:
        try:
            answer = function(*args, **kwargs)
        except Exception as error:
            own.append(error)
            raise
        return _require_answer(number, answer)

    return watched


def _require_answer(number: str, answer: Any) -> Any:
    parts = answer if isinstance(answer, tuple) else (answer,)
    if any(part is None or part is ... for part in parts):
        raise NotAnsweredError(
            f"Exercise {number} has no answer yet: replace `...` in the cell above, "
            "run it, then run this cell again. "
            "If no `...` is left, your function returns None: is a `return` missing?"
        )
    return answer


def leave_blank(solution: str) -> str:
    """Return what a student's copy has in place of a solution.

    Args:
        solution: source of a cell. Comments at its head, imports, `def` lines with their docstrings and the
            left sides of assignments stay; other statements go. Names that are assigned together, as
            `near, far = ...`, get a blank each, since a blank cannot be unpacked.

    Raises:
        ValueError: it defines nothing, so nothing could be checked.
    """
    lines, tree = solution.splitlines(), ast.parse(solution)
    if not any(isinstance(part, ast.FunctionDef | ast.Assign) for part in tree.body):
        raise ValueError(f"a solution defines no function and assigns no name:\n{solution}")
    kept = lines[: tree.body[0].lineno - 1]
    for part in tree.body:
        if isinstance(part, ast.Import | ast.ImportFrom):
            kept += lines[part.lineno - 1 : part.end_lineno]
        elif isinstance(part, ast.FunctionDef):
            documented = ast.get_docstring(part) is not None
            begin = part.body[0].end_lineno if documented else part.body[0].lineno - 1
            kept += [*_with_room(kept), *lines[part.lineno - 1 : begin], f"    {BLANK}"]
        elif isinstance(part, ast.Assign):
            kept += [f"{names} = {BLANK}" for names in _left_sides(part)]
    return "\n".join(kept)


def _left_sides(assignment: ast.Assign) -> list[str]:
    """What an assignment assigns to: `a = b` of `a = b = 1`, and both `a` and `b` of `a, b = 1, 2`."""
    if len(assignment.targets) == 1 and isinstance(assignment.targets[0], ast.Tuple):
        return [ast.unparse(target) for target in assignment.targets[0].elts]
    return [" = ".join(ast.unparse(target) for target in assignment.targets)]


def _with_room(before: list[str]) -> list[str]:
    """Two empty lines between a function and what stands before it, as its style wants."""
    return ["", ""] if before and not before[-1].startswith("#") else []


def make_student_copy(notebook: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of a notebook whose exercises are open and whose answers are folded.

    Args:
        notebook: as nbformat reads it; it is not changed. Solutions are cells tagged `solution`; answers to
            the questions before experiments are paragraphs that begin with "**Answer".
    """
    student = copy.deepcopy(notebook)
    student["cells"] = [cell for cell in student["cells"] if LEFT_OUT not in _tags(cell)]
    for cell in student["cells"]:
        if "solution" in _tags(cell):
            cell["source"] = leave_blank(cell["source"])
            cell["metadata"]["tags"] = ["blank" if tag == "solution" else tag for tag in _tags(cell)]
        elif cell["cell_type"] == "markdown":
            cell["source"] = fold_answers(cell["source"])
    return student


def fold_answers(text: str) -> str:
    """Return Markdown whose answers to what was to be predicted must be opened to be read."""
    return ANSWER.sub(_fold, text)


def _fold(answer: re.Match[str]) -> str:
    summary = "<details><summary>Answer: open it when you have predicted</summary>"
    return f"{summary}\n\n{answer[0].rstrip()}\n\n</details>" + "\n\n" * (answer.end() < len(answer.string))


def _tags(cell: dict[str, Any]) -> list[str]:
    return cell["metadata"].get("tags", [])


def write_student_copies(sources: list[Path], out: Path | str) -> list[Path]:
    """Write a student's copy of each notebook to a folder, and return their paths.

    Raises:
        FileExistsError: a copy is there already and may hold a student's work, or `out` is a file.
        ValueError: `out` is the folder of the notebooks themselves.
    """
    import nbformat

    out = Path(out)
    copies = [out / source.name for source in sources]
    if any(out.resolve() == source.parent.resolve() for source in sources):
        raise ValueError(
            f"{out}: holds the notebooks themselves; name another folder for the student's copies"
        )
    if there := [path for path in copies if path.exists()]:
        raise FileExistsError(
            f"{there[0]}: is there already and may hold a student's work; name another folder, or remove it"
        )
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"{out}: is a file; name a folder for the student's copies")
    out.mkdir(parents=True, exist_ok=True)
    for source, path in zip(sources, copies, strict=True):
        student = make_student_copy(nbformat.read(source, as_version=4))
        project = Path(os.path.relpath(source.resolve().parents[1], out.resolve())).as_posix()
        for cell in student["cells"]:
            if cell["cell_type"] == "markdown":  # links to the documentation, wherever the copy is
                cell["source"] = cell["source"].replace("](../", f"]({project}/")
        text = nbformat.writes(student)
        write_atomically(path, partial(Path.write_text, data=text, encoding="utf-8"))
    return copies
