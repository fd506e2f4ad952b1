"""The data doctor: what is there against what should be, and whether pictures, labels and depth agree.

    python -m davae check-data --dataset rhd --root data/RHD_published_v2

is what to run first on a dataset fresh from a download. All labels and the ends of all files are looked at,
which finds truncated files; pictures are decoded by the hundred, or all of them with `full`. Problems are
found by rule, never by a list of known bad ids.
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
from davae.data.doctor.findings import Check, Finding, counted, format_checks
from davae.data.doctor.labels import check_bones, check_camera, check_chirality, check_labels
from davae.data.doctor.open_freihand import open_freihand
from davae.data.doctor.open_rhd import open_rhd, open_synthhand
from davae.data.doctor.open_stb import open_stb
from davae.data.doctor.parts import Part
from davae.data.doctor.sampling import Measured, choose, measure
from davae.data.doctor.sights import Sight, choose_sights, see
from davae.data.layout import diagnose_root
from davae.data.readers import check_dataset

__all__ = ["Check", "Diagnosis", "Finding", "Sight", "examine", "sights"]

OPEN = {"synthhand": open_synthhand, "rhd": open_rhd, "stb": open_stb, "freihand": open_freihand}
SAMPLE = 1000  # samples that are decoded if not all are


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """All checks of one dataset.

    Attributes:
        dataset: which it is.
        root: where it lies.
        checks: rows of the table.
        parts: what could be opened.
        looks: the samples that were decoded.
    """

    dataset: str
    root: Path
    checks: list[Check]
    parts: list[Part]
    looks: list[Measured]

    @property
    def usable(self) -> bool:
        """Whether no check found an error."""
        return all(check.verdict != "ERROR" for check in self.checks)

    def format(self) -> str:
        """Return the table, the findings, and a last line that says whether the set can be used.

        Files are named from the dataset's folder on, which the first line gives.
        """
        errors = sum(finding.level == "ERROR" for check in self.checks for finding in check.findings)
        end = "usable" if self.usable else f"not usable as it is: {counted(errors, 'error')}"
        lines = format_checks(self.checks).splitlines()
        # What to do is not cut: commands run where the user is, not in the folder.
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
        full: decode every picture instead of a seeded sample.
        seed: of that sample.
        progress: show bars.

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
    found = f"{counted(errors, 'thing')} missing or damaged" if errors else "splits and label files"
    checks = [Check("layout", names or "nothing", found, tuple(absent))]
    looks: list[Measured] = []
    if parts:
        checks += [check_counts(parts), check_pictures(parts, progress)]
        checks += [check_labels(parts), check_camera(parts), check_bones(parts), check_chirality(parts)]
        total = sum(len(part.views) for part in parts)
        looks = measure(choose(parts, None if full else SAMPLE, seed), progress)
        of_pictures = (
            check_decoding(looks, total),
            check_sides(looks),
            check_masks(looks),
            check_depth(looks),
            check_use(parts, looks, total),
        )
        checks += [check for check in of_pictures if check is not None]
    return Diagnosis(dataset, root, checks, parts, looks)


def sights(diagnosis: Diagnosis, count: int = 24, seed: int = 0) -> list[Sight]:
    """Decode the pictures of a contact sheet: the worst samples first, then any, of every split alike."""
    chosen = choose_sights(diagnosis.parts, diagnosis.looks, count, seed)
    return [sight for part, sample, words in chosen if (sight := see(part, sample, words)) is not None]
