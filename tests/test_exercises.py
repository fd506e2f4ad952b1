"""Exercises: checks tell right from wrong, and students' copies lack the solutions alone."""

import csv

import nbformat
import pytest

from davae.pipeline import exercises, grading, notebooks
from davae.pipeline.exercises import (
    NotAnsweredError,
    WrongAnswerError,
    check_answer,
    leave_blank,
    make_student_copy,
    reject,
    write_student_copies,
)
from davae.pipeline.notebooks import NotebookError, execute

ALL = notebooks.find_notebooks()
SOLUTION = '''# Use the definition.
import math

def area(radius):
    """Area of a disc."""
    square = radius**2
    return math.pi * square

radius = other = 3
print(area(radius))
'''


def doubles(answer):
    return answer(4) == 8


@pytest.fixture(autouse=True)
def _no_checks_of_before(monkeypatch):
    monkeypatch.setattr(exercises, "_checks", {})


def test_a_right_answer_is_told(capsys):
    check_answer("02.1", lambda x: 2 * x, doubles, "Twice?")
    check_answer("02.2", 0, lambda answer: answer == 0, "Nought?")
    assert capsys.readouterr().out == "Exercise 02.1: right.\nExercise 02.2: right.\n"


def test_a_wrong_answer_gets_the_hint_and_not_the_solution():
    with pytest.raises(WrongAnswerError, match=r"^Exercise 02.1: not right yet. Twice\?$"):
        check_answer("02.1", lambda x: 3 * x, doubles, "Twice?")


@pytest.mark.parametrize("blank", [..., None, (1, ...), lambda x: None, lambda x: ..., lambda x: (1, ...)])
def test_a_blank_stops_with_a_sentence(blank):
    with pytest.raises(
        NotAnsweredError, match=r"^Exercise 02.1 has no answer yet: replace `\.\.\.` in the cell above"
    ):
        check_answer("02.1", blank, lambda answer: callable(answer) and doubles(answer), "Twice?")


def test_an_error_in_an_answer_is_the_students_own():
    with pytest.raises(ZeroDivisionError):
        check_answer("02.1", lambda x: x / 0, doubles, "Twice?")


@pytest.mark.parametrize("answer", [[1], "two", {}])
def test_an_answer_of_another_form_is_wrong_in_words(answer):
    with pytest.raises(
        WrongAnswerError,
        match=r"^Exercise 02.1: not right yet\. The check could not use .*Error: .* A shape\?$",
    ):
        check_answer("02.1", answer, lambda values: values.shape == (3,), "A shape?")


def test_a_functions_answer_of_another_form_is_wrong_in_words():
    with pytest.raises(WrongAnswerError, match=r"could not use what you gave it \(TypeError: "):
        check_answer("02.1", lambda x: "four", lambda answer: answer(2) - 4 == 0, "Twice?")


def test_mistakes_must_be_rejected():
    check_answer("02.1", lambda x: 2 * x, doubles, "Twice?")
    reject("02.1", lambda x: x, lambda x: x + 3)
    with pytest.raises(AssertionError, match=r"exercise 02\.1: the check lets wrong answer 2 of 2 pass"):
        reject("02.1", lambda x: x, lambda x: x + 4)


def test_a_blank_keeps_what_the_task_asks_for():
    assert leave_blank(SOLUTION) == (
        "# Use the definition.\nimport math\n\n\n"
        'def area(radius):\n    """Area of a disc."""\n    ...  # your answer\n'
        "radius = other = ...  # your answer"
    )


def test_names_assigned_together_get_a_blank_each():
    blank = leave_blank("near, far = sorted([3, 1])")
    assert blank == "near = ...  # your answer\nfar = ...  # your answer"
    exec(blank, {})  # one blank for both could not be unpacked, and the student would see a TypeError


def test_a_solution_that_defines_nothing_is_refused():
    with pytest.raises(ValueError, match="defines no function and assigns no name"):
        leave_blank("print(1)")


def exercise(number="02.1"):
    """The cells of a notebook with one exercise."""
    lines = (
        ("", "from davae.pipeline.exercises import check_answer, reject"),
        ("solution", "def double(x):\n    return x + x"),
        ("check", f"check_answer({number!r}, double, lambda f: f(4) == 8, 'Twice?')"),
        ("mistakes", f"reject({number!r}, lambda x: x)"),
    )
    cells = [nbformat.v4.new_code_cell(text, metadata={"tags": [tag]} if tag else {}) for tag, text in lines]
    return nbformat.v4.new_notebook(cells=cells)


def test_a_students_copy_lacks_solutions_and_mistakes_alone():
    solved = exercise()
    student = make_student_copy(solved)
    assert solved == exercise() | {"cells": solved["cells"]}
    assert [cell["metadata"].get("tags", []) for cell in student["cells"]] == [[], ["blank"], ["check"]]
    assert student["cells"][1]["source"] == "def double(x):\n    ...  # your answer"
    assert student["cells"][2] == solved["cells"][2]


def test_a_students_copy_folds_answers_and_keeps_what_follows():
    text = "Words.\n\n**Answer.** Two.\n\n- more of it\n\n**Notice.** Open."
    solved = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_markdown_cell(t) for t in (text, "**Answer,** if so. **Answer.** Both", "None.")
        ]
    )
    first, second, third = (cell["source"] for cell in make_student_copy(solved)["cells"])
    before, folded, after = first.replace("</details>", "<details>").split("<details>")
    assert (before, after) == ("Words.\n\n", "\n\n**Notice.** Open.")
    assert folded.endswith("</summary>\n\n**Answer.** Two.\n\n- more of it\n\n")
    assert second.startswith("<details>") and second.endswith("</details>") and second.count("<details>") == 1
    assert third == "None."


def test_links_of_copies_lead_to_the_documentation(tmp_path):
    source = tmp_path / "davae" / "notebooks" / "02_x.ipynb"
    source.parent.mkdir(parents=True)
    (tmp_path / "davae" / "docs").mkdir()
    (tmp_path / "davae" / "docs" / "paper.md").write_text("here")
    link = nbformat.v4.new_markdown_cell("[paper](../docs/paper.md)")
    nbformat.write(nbformat.v4.new_notebook(cells=[link]), source)
    for out in (tmp_path / "davae" / "student", tmp_path / "courses" / "one"):
        (copy,) = write_student_copies([source], out)
        target = nbformat.read(copy, 4).cells[0].source.split("(")[1][:-1]
        assert (out / target).read_text() == "here"


def test_copies_never_replace_a_students_work(tmp_path):
    source = tmp_path / "notebooks" / "02_x.ipynb"
    source.parent.mkdir()
    nbformat.write(exercise(), source)
    (copy,) = write_student_copies([source], tmp_path / "course")
    copy.write_text("mine")
    with pytest.raises(FileExistsError, match=r"02_x.ipynb: is there already and may hold a student's work"):
        write_student_copies([source], tmp_path / "course")
    assert copy.read_text() == "mine"
    with pytest.raises(ValueError, match="holds the notebooks themselves"):
        write_student_copies([source], source.parent)


def test_a_students_copy_stops_at_its_first_blank_and_the_solved_one_does_not(tmp_path, monkeypatch):
    folder = tmp_path / "notebooks"
    folder.mkdir()
    parameters = nbformat.v4.new_code_cell("preset = 'smoke'", metadata={"tags": ["parameters"]})
    solved = exercise()
    solved["cells"].insert(0, parameters)
    solved["metadata"] = {"kernelspec": {"name": "python3", "display_name": "Python", "language": "python"}}
    nbformat.write(solved, folder / "02_x.ipynb")
    monkeypatch.setattr(notebooks, "notebook_folder", lambda: folder)
    assert execute(tmp_path / "solved", {}, progress=False)
    write_student_copies([folder / "02_x.ipynb"], tmp_path / "course")
    monkeypatch.setattr(notebooks, "notebook_folder", lambda: tmp_path / "course")
    with pytest.raises(
        NotebookError, match=r"failed with NotAnsweredError: Exercise 02\.1 has no answer yet"
    ):
        execute(tmp_path / "stopped", {}, progress=False)


ANSWERS = (
    ("def double(x):\n    return x * 2", "right"),
    ("def double(x):\n    return x", "wrong"),
    ("def double(x):\n    return x / 0", "ZeroDivisionError"),
    ("double = ...", "open"),
    ("def double(x):\n    while True:\n        pass", "too slow"),
    ("def double(x):\n    return 2 * x", "missing"),
)


@pytest.mark.parametrize("inside", [".", "ann", "out"])
def test_grades_are_not_written_among_the_copies(tmp_path, inside):
    copies = {tmp_path / name / "03.ipynb": tmp_path / "original.ipynb" for name in ("ann", "bob")}
    with pytest.raises(ValueError, match=r"among the students' copies, in .*; give a folder elsewhere"):
        grading.grade(copies, tmp_path / inside, {}, timeout_s=5)
    assert list(tmp_path.iterdir()) == []


def test_copies_are_graded_by_the_checks_of_the_originals(tmp_path, monkeypatch):
    folder = tmp_path / "notebooks"
    folder.mkdir()
    solved = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell("seed = 0", metadata={"tags": ["parameters"]})]
        + [cell for n in range(1, 1 + len(ANSWERS)) for cell in exercise(f"02.{n}")["cells"]],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python", "language": "python"}},
    )
    nbformat.write(solved, folder / "02_x.ipynb")
    for module in (notebooks, grading):
        monkeypatch.setattr(module, "notebook_folder", lambda: folder)
    (path,) = write_student_copies([folder / "02_x.ipynb"], tmp_path / "course" / "ann")
    copy = nbformat.read(path, 4)
    blanks = [cell for cell in copy.cells if cell.metadata.get("tags") == ["blank"]]
    checks = [cell for cell in copy.cells if cell.metadata.get("tags") == ["check"]]
    for blank, check, (answer, _) in zip(blanks, checks, ANSWERS, strict=True):
        blank.source, check.source = answer, "print('right')  # what a cheat would write"
    copy.cells.remove(checks[-1])
    nbformat.write(copy, path)
    for place in ("bob", "other/bob"):  # two of one name
        (tmp_path / "course" / place).mkdir(parents=True)
        (tmp_path / "course" / place / "02_x.ipynb").write_text("{}")

    copies = grading.find_copies(tmp_path / "course")
    rows = grading.grade(copies, tmp_path / "out", {"seed": 1}, timeout_s=5)

    found = [(row["copy"], row["exercise"], row["outcome"]) for row in rows]
    assert found == [
        *(("ann/02_x.ipynb", f"02.{n}", outcome) for n, (_, outcome) in enumerate(ANSWERS, 1)),
        ("bob/02_x.ipynb", "", "unreadable"),
        ("other/bob/02_x.ipynb", "", "unreadable"),
    ]
    with (tmp_path / "out" / "grades.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.DictReader(file)) == rows
    others = "02.2 wrong, 02.3 ZeroDivisionError, 02.4 open, 02.5 too slow, 02.6 missing"
    assert grading.summarise(rows) == [
        ("ann/02_x.ipynb", "1 of 6", others),
        ("bob/02_x.ipynb", "0 of 1", "unreadable"),
        ("other/bob/02_x.ipynb", "0 of 1", "unreadable"),
    ]
    executed = nbformat.read(tmp_path / "out" / "ann" / "02_x.ipynb", 4)
    assert executed.cells[1].source.endswith("seed = 1\n") and nbformat.read(path, 4) == copy
    with pytest.raises(ValueError, match=r"nowhere: no copy of 02_x\.ipynb"):
        grading.find_copies(tmp_path / "nowhere")


EXERCISES = {"exercise": "markdown", "solution": "code", "check": "code", "mistakes": "code"}


def tagged(path):
    """The cells of a notebook's exercises, in order: (tag, cell)."""
    cells = nbformat.read(path, as_version=4).cells
    return [(tag, cell) for cell in cells for tag in cell.metadata.get("tags", []) if tag in EXERCISES]


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_every_notebook_has_exercises_in_the_stated_form(path):
    cells = tagged(path)
    count, rest = divmod(len(cells), len(EXERCISES))
    assert rest == 0 and 3 <= count <= 5, f"{count} exercises and {rest} cells"
    assert [tag for tag, _ in cells] == [*EXERCISES] * count
    for place, (tag, cell) in enumerate(cells):
        number = f"{path.name[:2]}.{place // len(EXERCISES) + 1}"
        assert cell.cell_type == EXERCISES[tag]
        if tag == "solution":
            assert leave_blank(cell.source).count("...") >= 1
        else:
            assert number in cell.source, f"{tag} of exercise {number} does not name it"
