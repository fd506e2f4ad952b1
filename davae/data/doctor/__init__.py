"""Check a dataset on disk: is it complete, and do pictures, labels and depth agree?

Run this first on a downloaded dataset:

    python -m davae check-data --dataset rhd --root data/RHD_published_v2

All labels are checked, and the first and last bytes of all files, which finds truncated ones. A sample of the
pictures is decoded, or all of them with `full`. Problems are found by rules, not by a list of known bad ids.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from davae.data.doctor.agreement import (
    check_decoding,
    check_depth,
    check_masks,
    check_sides,
    check_use,
)
from davae.data.doctor.files import check_counts, check_pictures
from davae.data.doctor.findings import Check, Finding, count, format_checks
from davae.data.doctor.labels import check_bones, check_camera, check_chirality, check_labels
from davae.data.doctor.measurements import Measurement, draw_samples, measure_all
from davae.data.doctor.open_freihand import open_freihand
from davae.data.doctor.open_rhd import open_rhd, open_synthhand
from davae.data.doctor.open_stb import open_stb
from davae.data.doctor.parts import Part
from davae.data.doctor.sheet import Tile, choose_samples, make_tile
from davae.data.layout import diagnose_root
from davae.data.readers import check_dataset

__all__ = ["Check", "Diagnosis", "Finding", "Tile", "examine", "make_tiles"]

OPEN = {"synthhand": open_synthhand, "rhd": open_rhd, "stb": open_stb, "freihand": open_freihand}
SAMPLE = 1000  # number of samples that are decoded, unless all are


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """All checks of one dataset.

    Attributes:
        dataset: its name in `davae.data.readers.DATASETS`.
        root: its folder.
        checks: rows of the table.
        parts: the parts that could be opened.
        measured: the samples that were decoded.
    """

    dataset: str
    root: Path
    checks: list[Check]
    parts: list[Part]
    measured: list[Measurement]

    @property
    def usable(self) -> bool:
        """Whether no check found an ERROR."""
        return all(check.verdict != "ERROR" for check in self.checks)

    def format(self) -> str:
        """Return the table, the findings, and a last line that says whether the dataset can be used.

        Files are named relative to the dataset's folder, which the first line names.
        """
        errors = sum(finding.level == "ERROR" for check in self.checks for finding in check.findings)
        end = "usable" if self.usable else f"not usable as it is: {count(errors, 'error')}"
        lines = format_checks(self.checks).splitlines()
        # Advice keeps whole paths: users run commands from another folder.
        lines = [
            line if line.startswith("  -> ") else line.replace(f"{self.root}{os.sep}", "") for line in lines
        ]
        return "\n".join([f"{self.dataset} in {self.root}", "", *lines, "", end])


def examine(
    dataset: str, root: str | os.PathLike, *, full: bool = False, seed: int = 0, progress: bool = True
) -> Diagnosis:
    """Check a dataset on disk.

    Args:
        dataset: a name in `davae.data.readers.DATASETS`.
        root: its folder.
        full: decode every picture; the default is a sample of `SAMPLE`.
        seed: seed of that sample.
        progress: show progress bars.

    Raises:
        ValueError: unknown dataset.
        FileNotFoundError: there is no such folder.
    """
    check_dataset(dataset)
    root = Path(root)
    wrong = diagnose_root(dataset, root)
    if not root.is_dir():
        what, advice = wrong or ("no such folder", f"give the folder that {dataset} was unpacked to")
        raise FileNotFoundError(f"{root}: {what}; {advice}")
    if wrong:
        what, advice = wrong
        finding = Finding("ERROR", str(root), what, advice=advice)
        return Diagnosis(
            dataset, root, [Check("layout", "nothing", "another folder is meant", (finding,))], [], []
        )
    parts, absent = OPEN[dataset](root)
    names = ", ".join(part.name for part in parts) if len(parts) <= 3 else f"{len(parts)} parts"
    errors = sum(finding.level == "ERROR" for finding in absent)
    found = f"{count(errors, 'thing')} missing or damaged" if errors else "splits and label files"
    checks = [Check("layout", names or "nothing", found, tuple(absent))]
    measured: list[Measurement] = []
    if parts:
        checks += [check_counts(parts), check_pictures(parts, progress)]
        checks += [check_labels(parts), check_camera(parts), check_bones(parts), check_chirality(parts)]
        total = sum(len(part.readers) for part in parts)
        measured = measure_all(draw_samples(parts, None if full else SAMPLE, seed), progress)
        of_pictures = (
            check_decoding(measured, total),
            check_sides(measured),
            check_masks(measured),
            check_depth(measured),
            check_use(parts, measured, total),
        )
        checks += [check for check in of_pictures if check is not None]
    return Diagnosis(dataset, root, checks, parts, measured)


def make_tiles(diagnosis: Diagnosis, number: int = 24, seed: int = 0) -> list[Tile]:
    """Return the tiles of a contact sheet: the worst samples first, then samples of every split alike."""
    chosen = choose_samples(diagnosis.parts, diagnosis.measured, number, seed)
    tiles = (make_tile(part, sample, remark) for part, sample, remark in chosen)
    return [tile for tile in tiles if tile is not None]
