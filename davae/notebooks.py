"""Run the notebooks headless, through papermill."""

from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

CELL_TIMEOUT_S = 3600  # papermill's own default is to wait for ever


class NotebookError(RuntimeError):
    """A notebook stopped at an error; its executed copy holds the traceback."""


def notebook_folder() -> Path:
    """The project's notebooks.

    Raises:
        FileNotFoundError: davae was installed without them.
    """
    folder = Path(__file__).parents[1] / "notebooks"
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder}: no notebooks; run from a clone of the repository (`pip install -e .`)"
        )
    return folder


def execute(
    out: Path | str, parameters: dict[str, Any], *, only: str = "", progress: bool = True
) -> list[Path]:
    """Execute the notebooks in order and write the executed copies to `out`.

    Args:
        out: folder of the executed copies; a failed one is kept too, with its traceback.
        parameters: values for the notebooks' `parameters` cells.
        only: run just the notebooks whose name contains this.
        progress: show a bar.

    Returns:
        The executed copies.

    Raises:
        NotebookError: a cell failed.
        ValueError: no notebook matches, or one does not know a parameter (papermill alone would only warn).
    """
    import papermill

    sources = [path for path in sorted(notebook_folder().glob("[0-9]*.ipynb")) if only in path.name]
    if not sources:
        raise ValueError(f"no notebook's name contains {only!r} in {notebook_folder()}")
    for source in sources:
        known = papermill.inspect_notebook(source)
        if unknown := sorted(parameters.keys() - known.keys()):
            raise ValueError(f"{source.name}: unknown parameter(s) {unknown}; known are {sorted(known)}")
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    done = []
    for source in (bar := tqdm(sources, desc="notebooks", unit="notebook", disable=not progress)):
        bar.set_postfix_str(source.stem)
        try:
            papermill.execute_notebook(
                source,
                out / source.name,
                parameters=parameters,
                kernel_name="python3",
                cwd=notebook_folder(),
                execution_timeout=CELL_TIMEOUT_S,
                progress_bar=progress,  # of its cells, some of which train for minutes
                extra_arguments=["--IPKernelApp.log_level=ERROR"],  # its warning of unencrypted TCP: loopback
            )
        except papermill.PapermillExecutionError as error:
            raise NotebookError(
                f"{source.name}: code cell {error.exec_count} failed with {error.ename}: {error.evalue}; "
                f"{out / source.name} shows where"
            ) from error
        done.append(out / source.name)
    return done
