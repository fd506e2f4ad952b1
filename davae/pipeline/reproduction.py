"""Run all stages in order and report what was made."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from davae.pipeline.workspace import Workspace

SMOKE = (
    "Preset smoke only proves that everything runs. It learns next to nothing: expect errors close to those",
    "of the constant baselines, or larger, and drawings that are not hands yet.",
    "",
)


def reproduce(space: Workspace) -> str:
    """Run every stage and all notebooks; return the report: paths of what was made, then the table.

    Raises:
        NotebookError: notebooks failed; the report on everything else has been printed.
    """
    from davae.pipeline.notebooks import NotebookError, execute

    measured: dict[str, Any] = {}
    stages: list[tuple[str, Path, Callable[[], object]]] = [
        ("render and prepare", space.prepared, space.ensure_prepared)
    ]
    if space.config.data.mask == "network":
        stages.append(("hand mask network", space.mask_run, space.ensure_masks))
    stages += [
        ("train", space.run, space.ensure_trained),
        ("evaluate", space.run / "metrics.json", lambda: measured.update(space.ensure_evaluated())),
        ("notebooks", space.executed, lambda: execute(space.executed, space.notebook_parameters)),
    ]
    failed = None
    for number, (name, folder, work) in enumerate(stages, start=1):
        print(f"[{number}/{len(stages)}] {name}: {folder}", flush=True)
        try:
            work()
        except NotebookError as error:  # only the last stage raises it
            failed = error
    report = format_report(space, measured)
    if failed is not None:
        print(report, flush=True)
        raise failed
    return report


def format_report(space: Workspace, measured: dict[str, Any]) -> str:
    """Return a text: paths of figures and executed notebooks, loss terms, and last the table of errors."""
    from davae.evaluation import format_table

    return "\n".join(
        [
            "",
            "Figures:",
            *(f"  {path}" for path in sorted(space.figures.glob("*.png"))),
            "Executed notebooks:",
            *(f"  {path}" for path in sorted(space.executed.glob("*.ipynb"))),
            "",
            (space.run / "terms.txt").read_text(encoding="utf-8"),
            *(SMOKE if space.config.preset == "smoke" else ()),
            format_table(measured),
        ]
    )
