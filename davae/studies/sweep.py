"""Train and evaluate every point of a sweep, each in a folder named by what it is.

The folder's name is a digest of config, data and the sources that shape a result, so a point that was run
before, by this sweep or another, is found and not run again, and one that was stopped goes on from its last
resume point. Each point uses a stated number of threads, so that its result is the same wherever it runs.
"""

import dataclasses
import hashlib
import json
import os
import socket
import textwrap
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Executor, Future, wait
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from davae.config import Config
from davae.config.reading import read_config
from davae.data.prepared import PreparedSplit
from davae.evaluation import evaluate
from davae.evaluation.text_table import format_rows
from davae.studies.board import STARTED, Board, State
from davae.studies.points import Point
from davae.training import runs
from davae.training.davae_task import train

ATTEMPTS = 3  # of a point whose worker is lost
LOCKED_S = 1.0  # between looks at a point that another process is running
LOOK_S = 0.5  # between looks at how far the points are
ERROR = "error.txt"  # in the folder of a point that failed


@dataclass(frozen=True)
class Outcome:
    """What came of a point: a report, or the reason why there is none."""

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
    settled: Callable[[Outcome], object] | None = None,
) -> list[Outcome]:
    """Run the points that have not been run; one that fails is told and stops no other.

    Args:
        points: what to run, from `davae.studies.vary`.
        data: folder written by `davae.data.prepared.prepare`, with masks where the configs ask for them; seen
            by all workers under this path.
        store: folder of the runs, seen by all workers.
        make_executor: from `davae.studies.executors.factory`. Only called when there is work.
        threads: of torch, for each point.
        progress: show a table of the points while they run.
        settled: called with what came of each point, here, as soon as that is known.

    Returns:
        What came of each point, in their order.

    Raises:
        ValueError: the data were prepared for another image size or crop, or lack masks.
        FileNotFoundError: nothing is prepared there.
    """
    data, store = Path(data).resolve(), Path(store).resolve()
    store.mkdir(parents=True, exist_ok=True)
    folders = [store / folder_name(point.config, data) for point in points]
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
        report = None if error else json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        outcomes[folder] = Outcome(owner[folder], folder, report, error)
        board.settle(folder, State.FAILED if error else State.DONE, error)
        if settled is not None:
            settled(outcomes[folder])

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


def folder_name(config: Config, data: Path) -> str:
    """Name of a point's folder: preset and a digest of all that its result depends on."""
    split = PreparedSplit.open(data, "train").seen_through(config.data.mask)
    masks = split.mask_network if config.data.mask == "network" else None
    identity = dataclasses.asdict(runs.Identity.of(split.manifest["digest"], masks=masks))
    del identity["masks"]  # the bits of predicted masks may differ by machine; their network's digest stays
    text = json.dumps([json.loads(config.to_json()), identity], sort_keys=True)
    return f"{config.preset}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def run_point(config: str, data: str, folder: str, threads: int) -> None:
    """Train and evaluate one point, on whatever machine; results are left in its folder, and errors, too.

    Args:
        config: as JSON.
        data: the prepared data.
        folder: of the point.
        threads: of torch.
    """
    where, asked = Path(folder), read_config(Config, config)
    torch.set_num_threads(threads)
    about = {"host": socket.gethostname(), "process": os.getpid(), "time": time.time()}
    runs.write_text(where / STARTED, json.dumps(about) + "\n")
    try:
        while not runs.is_evaluated(where):
            try:
                train(asked, data, where, progress=False, threads=threads)
                if not runs.is_evaluated(where):
                    evaluate(where, data, progress=False)
            except BlockingIOError:  # another sweep is at this very point: its result will serve
                time.sleep(LOCKED_S)
    except Exception:
        runs.write_text(where / ERROR, traceback.format_exc())
        raise


def _run(
    work: list[Path],
    owner: dict[Path, Point],
    data: Path,
    make_executor: Callable[[], Executor],
    threads: int,
    board: Board,
    settle: Callable[..., None],
) -> None:
    """Run the points of these folders, and settle each, with its error if it failed."""
    lost = dict.fromkeys(work, 0)  # how often a point's worker was
    waiting = list(work)
    while waiting:
        with ExitStack() as stack:
            executor = make_executor()
            stack.callback(executor.shutdown, wait=True, cancel_futures=True)
            arguments = ((owner[f].config.to_json(), str(data), str(f), threads) for f in waiting)
            futures = {executor.submit(run_point, *a): f for a, f in zip(arguments, waiting, strict=True)}
            waiting = []
            while futures:
                done, _ = wait(futures, timeout=LOOK_S, return_when=FIRST_COMPLETED)
                board.look()
                for future in done:
                    folder = futures.pop(future)
                    error = _error(future)
                    if error is None:
                        settle(folder)
                    elif _is_loss(error) and _may_try_again(folder, lost):
                        board.settle(folder, State.WAITING)
                        waiting.append(folder)
                    else:
                        settle(folder, _first_line(error))


def _error(future: Future) -> BaseException | None:
    try:
        return future.exception()
    except CancelledError as error:  # by an executor that gave up
        return error


def _is_loss(error: BaseException) -> bool:
    """Whether a worker was lost, which is no fault of the point's until it happens again and again."""
    return isinstance(error, BrokenExecutor | CancelledError) or type(error).__name__ == "KilledWorker"


def _may_try_again(folder: Path, lost: dict[Path, int]) -> bool:
    """Count a lost worker against the point that it was running; one that only waited loses no attempt."""
    if (folder / STARTED).exists():
        (folder / STARTED).unlink()
        lost[folder] += 1
    return lost[folder] < ATTEMPTS


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def format_outcomes(outcomes: Sequence[Outcome]) -> str:
    """Return a text table: each point's errors, or why there are none."""
    rows = []
    for outcome in outcomes:
        if outcome.report is None:
            error = textwrap.shorten(outcome.error, 120, placeholder=" ...")
            cells = ("", "", "", f"failed: {error}; see {outcome.folder / ERROR}")
        else:
            p1, p5 = (outcome.report["protocols"][name] for name in ("P1", "P5"))
            figures = (f"{p1['epe_mm']:.2f}", f"{p1['auc_20_50']:.3f}", f"{p5['epe_mm']:.2f}")
            cells = (*figures, outcome.folder.name)
        rows.append((outcome.point.label, *cells))
    return format_rows(("", "P1 mm", "AUC", "P5 mm", "folder"), rows, left=["folder"]) + "\n"
