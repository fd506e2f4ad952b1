"""Train and evaluate every point of a sweep.

Each point uses a stated number of threads, so its result is the same wherever it runs.
"""

import dataclasses
import json
import textwrap
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Executor, Future, wait
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from davae.data.manifest import read_json
from davae.evaluation.text_table import format_rows
from davae.studies.board import Board, State
from davae.studies.points import Point
from davae.studies.worker import ERROR, STARTED, name_folder, run_point
from davae.training import runs

ATTEMPTS = 3  # for a point whose worker is lost
LOOK_S = 0.5  # between looks at the progress of the points


@dataclass(frozen=True)
class Outcome:
    """The report of a point, or the reason why there is none."""

    point: Point
    folder: Path
    report: dict[str, Any] | None
    error: str = ""

    @property
    def ok(self) -> bool:
        """Whether there is a report."""
        return self.report is not None


def sweep(
    points: Sequence[Point],
    data: Path | str,
    store: Path | str,
    make_executor: Callable[[], Executor],
    *,
    threads: int = 1,
    progress: bool = True,
    on_outcome: Callable[[Outcome], object] | None = None,
) -> list[Outcome]:
    """Run the points that have not been run. Failures are reported; other points continue.

    Args:
        points: what to run, from `davae.studies.points.vary`.
        data: folder written by `davae.data.prepared.prepare`, with masks if the configs need them; all
            workers must see it under this path.
        store: folder of the runs; all workers must see it.
        make_executor: from `davae.studies.executors.executor_factory`; only called if there is work.
        threads: number of torch threads, for each point.
        progress: show a table of the points while they run.
        on_outcome: called in this process with each outcome, as soon as it is known.

    Returns:
        The points' outcomes, in their order.

    Raises:
        ValueError: the data were prepared for another image size or crop, or lack masks.
        FileNotFoundError: `data` holds no prepared data.
    """
    data, store = Path(data).resolve(), Path(store).resolve()
    store.mkdir(parents=True, exist_ok=True)
    folders = [store / name_folder(point.config, data) for point in points]
    for point, folder in zip(points, folders, strict=True):
        folder.mkdir(exist_ok=True)
        runs.write_text(folder / "point.json", json.dumps(point.varied, indent=2) + "\n")
    work = list(dict.fromkeys(f for f in folders if not runs.is_evaluated(f)))
    owner = dict(zip(folders, points, strict=True))
    for folder in work:  # of an earlier sweep that was killed
        for name in (STARTED, ERROR):
            (folder / name).unlink(missing_ok=True)
    outcomes: dict[Path, Outcome] = {}

    def settle(folder: Path, error: str = "") -> None:
        report = None if error else read_json(folder / "metrics.json", "delete it and repeat the command")
        outcomes[folder] = Outcome(owner[folder], folder, report, error)
        board.settle(folder, State.FAILED if error else State.DONE, error)
        if on_outcome is not None:
            on_outcome(outcomes[folder])

    with Board(points, folders, show=progress) as board:
        for folder in owner:
            if folder not in work:
                settle(folder)
        if work:
            _run(work, owner, data, make_executor, threads, board, settle)
    return [
        dataclasses.replace(outcomes[folder], point=point)  # points of one config share a folder
        for point, folder in zip(points, folders, strict=True)
    ]


def _run(
    work: list[Path],
    owner: dict[Path, Point],
    data: Path,
    make_executor: Callable[[], Executor],
    threads: int,
    board: Board,
    settle: Callable[..., None],
) -> None:
    """Run the points of these folders and settle each, with its error if it failed."""
    losses = dict.fromkeys(work, 0)  # how often a point lost its worker
    waiting = list(work)
    while waiting:
        with ExitStack() as stack:
            executor = make_executor()
            stack.push(partial(_shut_down, executor))
            arguments = ((owner[f].config.to_json(), str(data), str(f), threads) for f in waiting)
            futures = {executor.submit(run_point, *a): f for a, f in zip(arguments, waiting, strict=True)}
            waiting = []
            while futures:
                done, _ = wait(futures, timeout=LOOK_S, return_when=FIRST_COMPLETED)
                board.look()
                for future in done:
                    folder = futures.pop(future)
                    error = _find_error(future)
                    if error is None:
                        settle(folder)
                    elif _is_loss(error) and _may_try_again(folder, losses):
                        board.settle(folder, State.WAITING)
                        waiting.append(folder)
                    else:
                        settle(folder, f"{type(error).__name__}: {error}".splitlines()[0])


def _shut_down(executor: Executor, interruption: type[BaseException] | None, *_: object) -> None:
    """Close an executor; what still runs is not waited for if the sweep is interrupted."""
    executor.shutdown(wait=True, cancel_futures=interruption is not None)


def _find_error(future: Future) -> BaseException | None:
    try:
        return future.exception()
    except CancelledError as error:  # by an executor that gave up
        return error


def _is_loss(error: BaseException) -> bool:
    """Whether a worker was lost, which is not the point's fault unless it happens repeatedly."""
    return isinstance(error, BrokenExecutor | CancelledError) or type(error).__name__ == "KilledWorker"


def _may_try_again(folder: Path, losses: dict[Path, int]) -> bool:
    """Count a lost worker against the point that it was running, but not against points that waited."""
    if (folder / STARTED).exists():
        (folder / STARTED).unlink()
        losses[folder] += 1
    return losses[folder] < ATTEMPTS


def format_outcomes(outcomes: Sequence[Outcome]) -> str:
    """Return a text table: each point's errors, or the reason why there are none."""
    rows = []
    for outcome in outcomes:
        if outcome.report is None:
            error = textwrap.shorten(outcome.error, 240, placeholder=" ...")
            cells = ("", "", "", f"failed: {error}; see {outcome.folder / ERROR}")
        else:
            p1, p5 = (outcome.report["protocols"][name] for name in ("P1", "P5"))
            figures = (f"{p1['epe_mm']:.2f}", f"{p1['auc_20_50']:.3f}", f"{p5['epe_mm']:.2f}")
            cells = (*figures, outcome.folder.name)
        rows.append((outcome.point.label, *cells))
    return format_rows(("", "P1 mm", "AUC", "P5 mm", "folder"), rows, left=["folder"]) + "\n"
