"""The notebook runner: choice of Python, parameters, and reports of failed notebooks."""

import ast
import errno
import os
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import IPython
import nbformat
import papermill
import psutil
import pytest

from davae.pipeline import notebooks
from synthhand.storage import exclusive

PARAMETERS = "preset = 'smoke'\nseed = 0"
ALL = sorted(notebooks.notebook_folder().glob("[0-9]*.ipynb"))


def write(path, *cells):
    """A notebook of a parameters cell and these code cells."""
    tagged = nbformat.v4.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]})
    rest = [nbformat.v4.new_code_cell(cell) for cell in cells]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=[tagged, *rest], metadata=kernel), path)
    return path


def printed(path):
    """What the cells of an executed copy printed."""
    cells = nbformat.read(path, as_version=4).cells
    return "".join(o.get("text", "") for cell in cells for o in cell.get("outputs", []))


def mark_of(path):
    """What an executed copy says above all else, if that says that it is not whole."""
    first = nbformat.read(path, as_version=4).cells[0]
    return first.source if "papermill-error-cell-tag" in first.metadata.tags else ""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder that the runner takes for the project's."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    monkeypatch.setattr(notebooks, "notebook_folder", lambda: folder)
    return folder


def test_a_foreign_kernel_of_the_same_name_is_not_used(folder, tmp_path, monkeypatch, foreign_kernel):
    monkeypatch.setenv("JUPYTER_PATH", str(foreign_kernel))
    write(folder / "01_which.ipynb", "import sys\nprint(sys.executable, preset, seed)")
    (done,) = notebooks.execute(tmp_path / "out", {"preset": "laptop"}, progress=False)
    assert printed(done).split() == [sys.executable, "laptop", "0"]


def test_notebooks_that_stop_are_reported_in_a_sentence_each_and_stop_no_other(folder, tmp_path):
    write(folder / "01_dies.ipynb", "print('so far')", "import os  # and out\nos._exit(1)", "print('never')")
    write(folder / "02_fails.ipynb", "1 / 0")
    write(folder / "03_works.ipynb", "print('whole')")
    with pytest.raises(notebooks.NotebookError) as told:
        notebooks.execute(tmp_path / "out", {}, progress=False)
    dies, fails = str(told.value).splitlines()
    assert dies.startswith("01_dies.ipynb: the kernel died at code cell 3 (import os  # and out) (")
    assert "choose a smaller preset" in dies
    assert fails.startswith("02_fails.ipynb: code cell 2 failed with ZeroDivisionError: division by zero; ")
    assert printed(tmp_path / "out" / "01_dies.ipynb") == "so far\n"
    assert dies.partition(": ")[2] in mark_of(tmp_path / "out" / "01_dies.ipynb")
    assert "An Exception was encountered" in mark_of(tmp_path / "out" / "02_fails.ipynb")
    assert printed(tmp_path / "out" / "03_works.ipynb") == "whole\n"
    assert not mark_of(tmp_path / "out" / "03_works.ipynb")


def test_a_cell_that_runs_out_of_time_is_reported_in_a_sentence(folder, tmp_path):
    sleeps = nbformat.v4.new_code_cell("import time\ntime.sleep(60)")  # no cell before it can be late
    nbformat.write(nbformat.v4.new_notebook(cells=[sleeps]), folder / "01_sleeps.ipynb")
    with pytest.raises(notebooks.NotebookError) as told:
        notebooks.execute(tmp_path / "out", {}, progress=False, timeout_s=1)
    assert str(told.value).startswith("01_sleeps.ipynb: code cell 1 (import time) took more than 1 s and ")
    assert "--timeout-s 0" in str(told.value) and "\n" not in str(told.value)
    assert str(told.value).partition(": ")[2] in mark_of(tmp_path / "out" / "01_sleeps.ipynb")


def test_output_that_does_not_arrive_is_told_from_a_cell_that_takes_long(tmp_path):
    """nbclient raises the same error, and the last cell that began may be empty."""
    path = write(tmp_path / "01_shows.ipynb", "print('much')", "")
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        cell.metadata["papermill"] = {"start_time": "2026-11-30T00:00:00"}
    nbformat.write(notebook, path)
    said = notebooks._mark_stop(path, TimeoutError("Timeout waiting for IOPub output"), None)
    assert said.startswith("what code cell 3 () printed did not arrive in time")
    assert said in mark_of(path)


@pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), OSError(errno.EMFILE, "too many")])
def test_an_error_before_the_first_cell_leaves_no_copy(folder, tmp_path, monkeypatch, error):
    """Not even of a process that was killed before. It is reported; other notebooks continue."""
    execute = papermill.execute_notebook

    def fail_once(*arguments, **options):
        monkeypatch.setattr(papermill, "execute_notebook", execute)
        raise error

    write(folder / "01_first.ipynb", "print('whole')")
    write(folder / "02_works.ipynb", "print('whole')")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".01_first.ipynb").write_text("half")
    monkeypatch.setattr(papermill, "execute_notebook", fail_once)
    with pytest.raises(notebooks.NotebookError, match=r"^01_first\.ipynb: did not start \(.*(thread|many)"):
        notebooks.execute(tmp_path / "out", {}, progress=False)
    assert not list((tmp_path / "out").glob("*01_first.ipynb"))
    assert printed(tmp_path / "out" / "02_works.ipynb") == "whole\n"


def test_an_interruption_ends_the_kernel_and_keeps_the_copy_of_before(folder, tmp_path):
    """In the main thread papermill's client would take the signal, and the next notebook would begin."""
    begun, out = tmp_path / "begun", tmp_path / "out"
    tells = f"import os, pathlib, time\npathlib.Path({str(begun)!r}).write_text(str(os.getpid()))"
    write(folder / "01_sleeps.ipynb", f"{tells}\ntime.sleep(600)")
    write(folder / "02_never.ipynb", "print('never')")
    out.mkdir()
    (out / "01_sleeps.ipynb").write_text("whole")

    def interrupt():
        while not (begun.exists() and begun.read_text()):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        threading.Thread(target=interrupt, daemon=True).start()
        with pytest.raises(KeyboardInterrupt):
            notebooks.execute(out, {}, progress=False)
    finally:
        signal.signal(signal.SIGINT, before)
    assert not psutil.pid_exists(int(begun.read_text()))
    assert (out / "01_sleeps.ipynb").read_text() == "whole"
    assert {path.name for path in out.iterdir()} == {"01_sleeps.ipynb", ".01_sleeps.lock"}


def test_a_notebook_is_executed_to_one_folder_by_one_process(folder, tmp_path):
    write(folder / "01_works.ipynb", "print('whole')")
    with (
        exclusive(tmp_path / "out" / "01_works"),
        pytest.raises(BlockingIOError, match="01_works: another process is writing here"),
    ):
        notebooks.execute(tmp_path / "out", {}, progress=False)


def test_each_notebook_gets_the_parameters_that_it_knows(folder, tmp_path):
    write(folder / "01_knows.ipynb", "print(preset)")
    nbformat.write(nbformat.v4.new_notebook(), folder / "02_knows_none.ipynb")
    assert len(notebooks.execute(tmp_path / "out", {"preset": "paper"}, progress=False)) == 2
    assert printed(tmp_path / "out" / "01_knows.ipynb") == "paper\n"


def test_papermill_itself_stops_at_a_parameter_that_the_notebook_does_not_know(tmp_path):
    check = "from davae.pipeline.notebooks import check_parameters\ncheck_parameters()"
    path = write(tmp_path / "one.ipynb", check, "print('went on')")
    command = [sys.executable, "-m", "papermill", path, tmp_path / "out.ipynb", "-p", "sed", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "unknown parameter(s) ['sed']; this notebook knows ['preset', 'seed']" in done.stderr
    assert "went on" not in printed(tmp_path / "out.ipynb")


@pytest.mark.parametrize(
    "below",
    [
        None,  # run by hand: the next cell is the one that asks
        "# Parameters\nseed = 3\npreset = 'laptop'",
        "sed = 3",  # a reader's own cell, typed above
    ],
)
def test_parameters_that_a_notebook_knows_pass(below, monkeypatch):
    cells = ["", PARAMETERS, *([below] if below else []), "check_parameters()"]
    shell = SimpleNamespace(user_ns={"In": cells})
    monkeypatch.setattr(IPython, "get_ipython", lambda: shell)
    notebooks.check_parameters()


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_every_notebook_checks_its_parameters_before_anything_else(path):
    code = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert code[0].metadata.tags == ["parameters"]
    lines = "\n".join(cell.source for cell in code[1:]).splitlines()
    before = lines[: lines.index("check_parameters()")]
    imports = ast.parse("\n".join(line for line in before if not line.startswith("%")))
    installs = [node for node in imports.body if isinstance(node, ast.If)]  # nothing can be imported before
    assert all("'google.colab' in sys.modules" in ast.unparse(node.test) for node in installs)
    assert {type(node) for node in imports.body if node not in installs} == {ast.Import, ast.ImportFrom}
