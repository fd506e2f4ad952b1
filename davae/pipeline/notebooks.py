"""Run the notebooks headless, through papermill."""

import ast
import asyncio
import errno
import os
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from synthhand.storage import exclusive, explain_full_disk

CELL_TIMEOUT_S = 3600  # papermill's own default is no limit
EXHAUSTED = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE)  # of a machine on which too much runs
INJECTED = "# Parameters"  # first line of the cell that papermill inserts below the `parameters` cell


class NotebookError(RuntimeError):
    """Notebooks failed. The message has one sentence for each; their executed copies are kept."""


def notebook_folder() -> Path:
    """Return the folder of the project's notebooks.

    Raises:
        FileNotFoundError: davae was installed without them.
    """
    folder = Path(__file__).parents[2] / "notebooks"
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder}: no notebooks; run from a clone of the repository (`pip install -e .`)"
        )
    return folder


def find_notebooks(only: str = "") -> list[Path]:
    """Return the paths of the notebooks whose names contain `only`, in order.

    Raises:
        ValueError: there is none.
    """
    sources = [path for path in sorted(notebook_folder().glob("[0-9]*.ipynb")) if only in path.name]
    if not sources:
        raise ValueError(f"no notebook's name contains {only!r} in {notebook_folder()}")
    return sources


def select(
    out: Path | str, parameters: dict[str, Any], *, only: str = "", timeout_s: int = CELL_TIMEOUT_S
) -> dict[Path, set[str]]:
    """Check a request to `execute` notebooks; return each notebook that it names, with its parameters' names.

    Args:
        out: as for `execute`, like the other arguments.
        parameters: values for the notebooks' `parameters` cells.
        only: select the notebooks whose names contain this.
        timeout_s: time limit of one cell.

    Raises:
        ValueError: no notebook has such a name; no notebook knows a parameter (papermill alone would only
            warn); `weights` are given to a notebook that would train a model of its own; `out` is the
            folder of the notebooks themselves; or the time limit is negative.
    """
    import papermill

    if timeout_s < 0:
        raise ValueError(f"the time limit of a cell is {timeout_s} s; give at least 1, or 0 for no limit")
    sources = find_notebooks(only)
    known = {source: set(papermill.inspect_notebook(source)) for source in sources}
    training = [
        source.name for source in sources if needs_run(known[source]) and "weights" not in known[source]
    ]
    if "weights" in parameters and training:
        raise ValueError(
            f"weights is {parameters['weights']!r}, but {', '.join(training)} would still train a model; "
            "add `--only 05` or `--only 07`"
        )
    unknown = sorted(parameters.keys() - set().union(*known.values()))
    if unknown and (unknown := sorted({*unknown} - _names_of_an_experiment())):
        names, own = ", ".join(s.name for s in sources), sorted(set().union(*known.values()))
        raise ValueError(f"{names}: unknown parameter(s) {unknown}; known are {own}")
    if Path(out).resolve() == notebook_folder().resolve():
        raise ValueError(f"{out}: holds the notebooks themselves; name another folder for executed copies")
    return known


def read_with_parameters(path: Path, original: Path, parameters: dict[str, Any]) -> Any:
    """Read a copy of a notebook and insert the parameters that the original knows, as papermill does.

    Raises:
        Exception: what nbformat or papermill raise on a file that is no notebook.
    """
    import papermill
    from papermill.iorw import load_notebook_node
    from papermill.parameterize import parameterize_notebook

    given = {name: parameters[name] for name in papermill.inspect_notebook(original) if name in parameters}
    notebook = load_notebook_node(str(path))
    return parameterize_notebook(notebook, given, kernel_name="python3", language="python")


def needs_run(known: set[str]) -> bool:
    """Tell by the names of a notebook's parameters whether it needs data and a run: 00 has no preset."""
    return "preset" in known


def _names_of_an_experiment() -> set[str]:
    """Return the parameters that every notebook with a run has; 00 may be given them, and ignores them."""
    import papermill

    known = [set(papermill.inspect_notebook(source)) for source in find_notebooks()]
    on_data = [names for names in known if needs_run(names)]
    return set.intersection(*on_data) if on_data else set()


def execute(
    out: Path | str,
    parameters: dict[str, Any],
    *,
    only: str = "",
    progress: bool = True,
    timeout_s: int = CELL_TIMEOUT_S,
) -> list[Path]:
    """Execute the notebooks in order, with this interpreter, and write the executed copies to `out`.

    Failures are reported at the end; other notebooks continue. Ctrl-C ends the notebook and its kernel.

    Args:
        out: folder of the executed copies, each of which appears when its notebook has ended; the copy of a
            failed notebook is kept, up to where it stopped, with a first cell that says so.
        parameters: values for the notebooks' `parameters` cells; each notebook gets those that it knows.
        only: execute the notebooks whose names contain this.
        progress: show a bar.
        timeout_s: time limit of one cell; 0 for none.

    Returns:
        The executed copies.

    Raises:
        NotebookError: a cell failed or took too long, a kernel died, or a notebook could not start.
        ValueError: see `select`.
        BlockingIOError: another process is executing the same notebook to the same folder.
        OSError: the disk is full; the message names the file.
    """
    known = select(out, parameters, only=only, timeout_s=timeout_s)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    done, failures = [], []
    for source in (bar := tqdm(known, desc="notebooks", unit="notebook", disable=not progress)):
        bar.set_postfix_str(source.stem)
        executed = out / source.name
        try:
            with exclusive(out / source.stem), explain_full_disk(executed):
                _execute(
                    source,
                    executed,
                    parameters={name: parameters[name] for name in parameters if name in known[source]},
                    kernel_name="python3",
                    cwd=notebook_folder(),
                    execution_timeout=timeout_s or None,
                    progress_bar=progress,  # of its cells, some of which train for minutes
                    extra_arguments=["--IPKernelApp.log_level=ERROR"],  # hides a warning on TCP, on loopback
                )
        except NotebookError as error:
            failures.append(f"{source.name}: {error}")
        else:
            done.append(executed)
    if failures:
        raise NotebookError("\n".join(failures))
    return done


def _execute(source: Path, executed: Path, **options: Any) -> None:
    """Let papermill execute one notebook to a hidden file, and rename that when it has ended or failed.

    Raises:
        NotebookError: it failed; the copy says so, too.
    """
    import papermill

    partial, failure = executed.with_name(f".{executed.name}"), ""
    partial.unlink(missing_ok=True)  # of a killed process
    try:
        try:
            _let_papermill_work(source, partial, options)
        except papermill.PapermillExecutionError as error:  # papermill has marked the copy
            where = f"code cell {error.exec_count} failed with {error.ename}: {error.evalue}"
            failure = f"{where}; {executed} shows where"
        except (OSError, RuntimeError) as error:
            if isinstance(error, OSError) and not (
                isinstance(error, TimeoutError) or error.errno in EXHAUSTED
            ):
                raise
            if not partial.exists():  # it failed before papermill first wrote
                why = f"did not start ({error}); close other programs, then run it again"
                raise NotebookError(why) from error
            failure = _mark_stop(partial, error, options["execution_timeout"])
        os.replace(partial, executed)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    if failure:
        raise NotebookError(failure)


def _let_papermill_work(source: Path, partial: Path, options: dict[str, Any]) -> None:
    """Execute a notebook in another thread; Ctrl-C ends its kernel.

    In the main thread papermill's client would take Ctrl-C for itself, report that the kernel died, and the
    next notebook would begin.
    """
    import papermill

    from davae.photo.kernels import OwnKernel

    kernels: list[OwnKernel] = []

    class Kernel(OwnKernel):
        def __init__(self, *arguments: Any, **named: Any):
            super().__init__(*arguments, **named)
            kernels.append(self)

    def work() -> None:
        try:
            papermill.execute_notebook(source, partial, kernel_manager_class=Kernel, **options)
        finally:
            with suppress(RuntimeError):  # papermill came to none
                asyncio.get_event_loop().close()  # the thread's own

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(work)
        try:
            future.result()
        except KeyboardInterrupt:
            while not future.done():  # the kernel may be starting
                for kernel in kernels:
                    kernel.kill_now()
                wait([future], timeout=0.5)
            raise


def _mark_stop(partial: Path, error: Exception, timeout_s: int | None) -> str:
    """Write above a stopped notebook's cells where it stopped, why, and what to do; return this sentence.

    Papermill marks a copy only where a cell raised an exception: any other would look as if it had ended.
    """
    import nbformat
    from papermill.execute import ERROR_MARKER_TAG

    notebook = nbformat.v4.upgrade(nbformat.read(partial, as_version=4))
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    begun = [n for n, cell in enumerate(code, 1) if cell.metadata["papermill"]["start_time"]]
    first_lines = ["", *(cell.source.partition("\n")[0] for cell in code)]
    cell = f"code cell {begun[-1]} ({first_lines[begun[-1]]})" if begun else "its start"
    if "IOPub" in str(error):  # nbclient's word for a kernel's messages
        said = f"what {cell} printed did not arrive in time; close other programs, then run it again"
    elif isinstance(error, TimeoutError):  # nbclient's
        said = (
            f"{cell} took more than {timeout_s} s and was stopped; finished runs are kept, so run it again, "
            "or use `davae notebooks --timeout-s 0`, which sets no limit"
        )
    else:
        reason = str(error).partition("\n")[0]  # nbclient's or, if no kernel started, jupyter_client's
        said = (
            f"the kernel died at {cell} ({reason}), usually because memory ran out; close other programs or "
            "choose a smaller preset, then run it again"
        )
    text = f"**This copy is not whole.**\n\n```text\n{said}\n```"
    mark = nbformat.v4.new_markdown_cell(text, metadata={"tags": [ERROR_MARKER_TAG]})
    notebook.cells.insert(0, mark)
    nbformat.write(notebook, partial)
    return said


def check_parameters() -> None:
    """Refuse a parameter that papermill gave this notebook and that its `parameters` cell does not have.

    Notebooks call this below their parameters. Papermill's own command line only warns about an unknown name,
    and the notebook would then run with the value that the reader meant to change.

    Raises:
        ValueError: there is such a parameter.
    """
    from IPython import get_ipython

    cells = get_ipython().user_ns["In"][1:3]  # the first two cells that were run
    if len(cells) < 2 or not cells[1].startswith(INJECTED):
        return
    known, given = map(_assigned_names, cells)
    if unknown := sorted(given - known):
        raise ValueError(f"unknown parameter(s) {unknown}; this notebook knows {sorted(known)}")


def _assigned_names(cell: str) -> set[str]:
    lines = [line for line in ast.parse(cell).body if isinstance(line, ast.Assign)]
    return {target.id for line in lines for target in line.targets if isinstance(target, ast.Name)}
