"""The data doctor: what is there against what should be, and whether pictures, labels and depth agree.

    python -m davae check-data --dataset rhd --root data/RHD_published_v2

is what to run first on a dataset fresh from a download. All labels and all file ends are looked at, which
finds truncated files too; pictures are decoded by the hundred, or all of them with `full`. Problems are found
by rule, never by a list of known bad ids.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from davae.data.doctor.files import check_counts, check_pictures
from davae.data.doctor.findings import Check, Finding, counted, format_checks
from davae.data.doctor.labels import (
    check_bones,
    check_camera,
    check_chirality,
    check_labels,
)
from davae.data.doctor.looks import (
    Look,
    check_decoding,
    check_depth,
    check_masks,
    check_sides,
    check_use,
    choose,
    look_at,
)
from davae.data.doctor.parts import Part
from davae.data.doctor.sets import open_parts
from davae.data.doctor.sights import Sight, choose_sights, see

__all__ = ["Check", "Diagnosis", "Finding", "Sight", "examine", "sights"]

SAMPLE = 1000  # samples that are decoded if not all are


@dataclass(frozen=True)
class Diagnosis:
    """All checks of one dataset.

    Attributes:
        title: which dataset, where.
        checks: rows of the table.
        parts: what could be opened.
        looks: the samples that were decoded.
    """

    title: str
    checks: list[Check]
    parts: list[Part]
    looks: list[Look]

    @property
    def usable(self) -> bool:
        """Whether no check found an error."""
        return all(check.verdict != "ERROR" for check in self.checks)

    def format(self) -> str:
        """Return the table, the findings and a last line that says whether the set can be used."""
        table = format_checks(self.title, self.checks)
        errors = sum(f.level == "ERROR" for check in self.checks for f in check.findings)
        end = "usable" if self.usable else f"not usable as it is: {counted(errors, 'error')}"
        return f"{table}\n\n{end}"


def examine(
    dataset: str, root: str | os.PathLike, *, full: bool = False, seed: int = 0, progress: bool = True
) -> Diagnosis:
    """Check a dataset on disk.

    Args:
        dataset: a name in `davae.data.readers.READERS`.
        root: its folder.
        full: decode every picture instead of a seeded sample.
        seed: of that sample.
        progress: show bars.

    Raises:
        ValueError: unknown dataset.
        FileNotFoundError: there is no such folder.
    """
    parts, missing = open_parts(dataset, Path(root))
    names = ", ".join(part.name for part in parts[:3]) + (" ..." if len(parts) > 3 else "")
    found = f"{len(missing)} not as it should be" if missing else "all there"
    checks = [Check("layout", names or "nothing", found, tuple(missing))]
    looks: list[Look] = []
    if parts:
        checks += [check_counts(parts), check_pictures(parts, progress)]
        checks += [check_labels(parts), check_camera(parts), check_bones(parts), check_chirality(parts)]
        total = sum(len(part.views) for part in parts)
        looks = look_at(choose(parts, None if full else SAMPLE, seed), progress)
        of_pictures = (
            check_decoding(looks, total),
            check_sides(looks),
            check_masks(looks),
            check_depth(looks),
            check_use(parts, looks, total),
        )
        checks += [check for check in of_pictures if check is not None]
    return Diagnosis(f"{dataset} in {root}", checks, parts, looks)


def sights(diagnosis: Diagnosis, count: int = 24, seed: int = 0) -> list[Sight]:
    """Decode the pictures of a contact sheet: the worst samples first, then any, of every split alike."""
    chosen = choose_sights(diagnosis.parts, diagnosis.looks, count, seed)
    return [sight for part, sample, words in chosen if (sight := see(part, sample, words)) is not None]
