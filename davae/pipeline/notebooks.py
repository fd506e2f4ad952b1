"""Run the notebooks headless, through papermill."""

import ast
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

CELL_TIMEOUT_S = 3600  # papermill's own default is to wait for ever
INJECTED = "# Parameters"  # the first line of the cell that papermill puts below the `parameters` cell


class NotebookError(RuntimeError):
    """Notebooks did not come to their end; the message has a sentence for each, and their copies are kept."""


def notebook_folder() -> Path:
    """The project's notebooks.

    Raises:
        FileNotFoundError: davae was installed without them.
    """
    folder = Path(__file__).parents[2] / "notebooks"
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder}: no notebooks; run from a clone of the repository (`pip install -e .`)"
        )
    return folder


def execute(
    out: Path | str,
    parameters: dict[str, Any],
    *,
    only: str = "",
    progress: bool = True,
    timeout_s: int = CELL_TIMEOUT_S,
) -> list[Path]:
    """Execute the notebooks in order, by this interpreter, and write the executed copies to `out`.

    One that fails is reported at the end and stops no other.

    Args:
        out: folder of the executed copies; that of a failed notebook is kept, up to where it stopped.
        parameters: values for the notebooks' `parameters` cells; each notebook gets those that it knows.
        only: run just the notebooks whose name contains this.
        progress: show a bar.
        timeout_s: how long one cell may take; 0 for as long as it wants.

    Returns:
        The executed copies.

    Raises:
        NotebookError: a cell failed or took too long, or a kernel died.
        ValueError: no notebook matches, or none knows a parameter (papermill alone would only warn), or
            `out` is their own folder.
    """
    import papermill

    from davae.photo.kernels import OwnKernel

    sources = [path for path in sorted(notebook_folder().glob("[0-9]*.ipynb")) if only in path.name]
    if not sources:
        raise ValueError(f"no notebook's name contains {only!r} in {notebook_folder()}")
    known = {source: papermill.inspect_notebook(source).keys() for source in sources}
    if unknown := sorted(parameters.keys() - set().union(*known.values())):
        names, own = ", ".join(s.name for s in sources), sorted(set().union(*known.values()))
        raise ValueError(f"{names}: unknown parameter(s) {unknown}; known are {own}")
    out = Path(out)
    if out.resolve() == notebook_folder().resolve():
        raise ValueError(f"{out}: holds the notebooks themselves; name another folder for executed copies")
    out.mkdir(parents=True, exist_ok=True)
    done, failures = [], []
    for source in (bar := tqdm(sources, desc="notebooks", unit="notebook", disable=not progress)):
        bar.set_postfix_str(source.stem)
        executed = out / source.name
        try:
            papermill.execute_notebook(
                source,
                executed,
                parameters={name: parameters[name] for name in parameters if name in known[source]},
                kernel_name="python3",
                kernel_manager_class=OwnKernel,
                cwd=notebook_folder(),
                execution_timeout=timeout_s or None,
                progress_bar=progress,  # of its cells, some of which train for minutes
                extra_arguments=["--IPKernelApp.log_level=ERROR"],  # its warning of unencrypted TCP: loopback
            )
        except (papermill.PapermillExecutionError, TimeoutError, RuntimeError) as error:
            failures.append(f"{source.name}: {_what_failed(error, executed, timeout_s)}")
        else:
            done.append(executed)
    if failures:
        raise NotebookError("\n".join(failures))
    return done


def _what_failed(error: Exception, executed: Path, timeout_s: int) -> str:
    """Say in a sentence where a notebook stopped, why, and what to do; its copy says which cells began."""
    import nbformat
    import papermill

    if isinstance(error, papermill.PapermillExecutionError):
        where = f"code cell {error.exec_count} failed with {error.ename}: {error.evalue}"
        return f"{where}; {executed} shows where"
    code = [cell for cell in nbformat.read(executed, as_version=4).cells if cell.cell_type == "code"]
    begun = [n for n, cell in enumerate(code, 1) if cell.metadata["papermill"]["start_time"]]
    cell = f"code cell {begun[-1]} ({code[begun[-1] - 1].source.splitlines()[0]})" if begun else "its start"
    if isinstance(error, TimeoutError):  # nbclient's
        return (
            f"{cell} took more than {timeout_s} s and was stopped; finished runs are kept, so run it again, "
            "or with `davae notebooks --timeout-s 0`, which sets no limit"
        )
    reason = str(error).partition("\n")[0]  # nbclient's or, where no kernel came up, jupyter_client's
    return (
        f"the kernel died at {cell} ({reason}), most often for want of memory; close other programs or "
        "choose a smaller preset, then run it again"
    )


def check_parameters() -> None:
    """Refuse a parameter that papermill gave this notebook and that its `parameters` cell does not have.

    Called in the cell below the parameters, where it looks at the cells that were run before. Papermill's own
    command line only warns of such a name, and the notebook would then run with the value it was to change.

    Raises:
        ValueError: there is one.
    """
    from IPython import get_ipython

    cells = get_ipython().user_ns["In"][1:3]  # what was run, from the first on
    if len(cells) < 2 or not cells[1].startswith(INJECTED):
        return
    known, given = (
        {name.id for line in ast.parse(cell).body if isinstance(line, ast.Assign) for name in line.targets}
        for cell in cells
    )
    if unknown := sorted(given - known):
        raise ValueError(f"unknown parameter(s) {unknown}; this notebook knows {sorted(known)}")
