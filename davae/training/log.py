"""metrics.csv, the log of a run."""

import csv
import math
from pathlib import Path

from davae.training import runs
from synthhand.storage import explain_full_disk


class MetricsLog:
    """The rows of metrics.csv. A resumed run removes the rows after its resume point and continues."""

    def __init__(self, path: Path):
        self.path = path

    def append(self, row: dict[str, float]) -> None:
        """Add a row; a missing value (nan) is written as an empty field."""
        new = not self.path.exists()
        with explain_full_disk(self.path), self.path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, row)
            if new:
                writer.writeheader()
            writer.writerow({name: "" if math.isnan(v) else f"{v:.6g}" for name, v in row.items()})

    def rows(self) -> list[dict[str, str]]:
        """Return all complete rows; a kill may have cut off the last one."""
        if not self.path.exists():
            return []
        with self.path.open(newline="", encoding="utf-8") as file:
            return [row for row in csv.DictReader(file) if None not in row.values()]

    def truncate(self, step: int) -> None:
        """Remove the rows after `step`."""
        rows = [row for row in self.rows() if float(row["step"]) <= step]
        if not rows:
            self.path.unlink(missing_ok=True)
            return
        lines = [",".join(rows[0])] + [",".join(row.values()) for row in rows]
        runs.write_text(self.path, "\n".join(lines) + "\n")
