"""The table that a sweep shows while it runs: how many points are done, running, failed, and the time left.

Progress is read from the points' folders, so it does not matter where a point runs.
"""

import enum
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table

from davae.studies.points import Point
from davae.studies.worker import STARTED
from davae.training import runs

MAX_ROWS = 12
TAIL_BYTES = 4096  # of metrics.csv; enough to hold its last row


class State(enum.Enum):
    """State of a point."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class Board:
    """States of the points of one sweep: a table on a terminal, elsewhere one line for every change."""

    def __init__(self, points: Sequence[Point], folders: Sequence[Path], *, show: bool = True):
        self.labels = {folder: point.label for folder, point in zip(folders, points, strict=True)}
        self.steps = {f: point.config.train.steps for f, point in zip(folders, points, strict=True)}
        self.states = {f: State.DONE if runs.is_evaluated(f) else State.WAITING for f in self.labels}
        self.errors: dict[Path, str] = {}
        self.taken = {folder: self._steps_taken(folder) for folder in self.labels}
        self.first, self.began = sum(self.taken.values()), time.monotonic()
        self.console, self.printed = Console(stderr=True), ""
        self.shown = show
        self.live = Live(console=self.console, auto_refresh=False, transient=True)

    def __enter__(self) -> "Board":
        if self.shown and self.console.is_terminal:
            self.live.start()
        self._draw()
        return self

    def __exit__(self, *_: object) -> None:
        self.live.stop()
        if self.shown and self.console.is_terminal:
            self.console.print(self.headline())

    def look(self) -> None:
        """Read states and progress from the folders, and show them."""
        for folder, state in self.states.items():
            if state is State.WAITING and (folder / STARTED).exists() and not runs.is_evaluated(folder):
                self.states[folder] = State.RUNNING
            if state is State.RUNNING and runs.is_evaluated(folder):  # but not settled yet
                self.states[folder] = State.WAITING
            if self.states[folder] is State.RUNNING:
                self.taken[folder] = self._steps_taken(folder)
        self._draw()

    def settle(self, folder: Path, state: State, error: str = "") -> None:
        """Set the state of a point."""
        self.states[folder], self.errors[folder] = state, error
        self.taken[folder] = self._steps_taken(folder)
        self._draw()

    def count(self, state: State) -> int:
        """Return the number of points in a state."""
        return sum(found is state for found in self.states.values())

    def seconds_left(self) -> float | None:
        """Return the time that the other points need at the rate so far; None before the first step."""
        counted = [folder for folder, state in self.states.items() if state is not State.FAILED]
        new = sum(self.taken.values()) - self.first
        left = sum(self.steps[folder] - self.taken[folder] for folder in counted)
        return left * (time.monotonic() - self.began) / new if new > 0 else None

    def headline(self) -> str:
        """Return a line such as "3 of 8 points done, 2 running, 0 failed, about 4 min left"."""
        states = f"{self.count(State.RUNNING)} running, {self.count(State.FAILED)} failed"
        return f"{self.count(State.DONE)} of {len(self.states)} points done, {states}{self._time_left()}"

    def _time_left(self) -> str:
        if not (self.count(State.WAITING) or self.count(State.RUNNING)):
            return ""
        seconds = self.seconds_left()
        return "" if seconds is None else f", about {max(1, round(seconds / 60))} min left"

    def _steps_taken(self, folder: Path) -> int:
        if self.states[folder] is State.DONE:
            return self.steps[folder]
        path = folder / "metrics.csv"
        try:
            with path.open("rb") as file:
                file.seek(max(0, path.stat().st_size - TAIL_BYTES))
                text = file.read().decode(errors="replace")
        except FileNotFoundError:
            return 0
        whole = text[: text.rfind("\n") + 1].splitlines()  # the last row may be incomplete
        step = whole[-1].split(",")[0] if whole else ""
        return int(step) if step.isdigit() else 0

    def _draw(self) -> None:
        if not self.shown:
            return
        if self.console.is_terminal:
            self.live.update(self._table(), refresh=True)
            return
        counts = self.headline().split(", about")[0]
        if counts != self.printed:
            self.printed = counts
            self.console.print(self.headline(), highlight=False)

    def _table(self) -> Table:
        table = Table(title=self.headline(), title_justify="left", box=None, pad_edge=False)
        for name in ("point", "state", "step"):
            table.add_column(name)
        order = (State.FAILED, State.RUNNING)
        shown = [folder for state in order for folder in self.states if self.states[folder] is state]
        for folder in shown[:MAX_ROWS]:
            state = self.states[folder]
            note = self.errors.get(folder) or f"{self.taken[folder]} of {self.steps[folder]}"
            table.add_row(self.labels[folder], state.value, note)
        return table
