"""What opening any dataset for the doctor needs: its readers, and words for what is not there."""

from collections.abc import Iterable
from pathlib import Path

from davae.data.doctor.findings import Finding
from davae.data.doctor.parts import Part
from davae.data.readers import DATASETS, Reader

Opened = tuple[list[Part], list[Finding]]  # what can be read, and a finding for each part that cannot

AS_PUBLISHED = "the published set has"
PART_OF_IT = Finding(
    "note",
    "",
    "a part of the published set",
    advice="good for trials; results on it cannot be compared with published ones",
)


def views(dataset: str, root: Path, splits: Iterable[str], **options: str) -> dict[int, tuple[Reader, int]]:
    """Map each id of some splits to its reader and index; empty where the reader refuses the labels.

    Why it does is told by the checks of the labels themselves, file by file.
    """
    found = {}
    for split in splits:
        try:
            reader = DATASETS[dataset].reader(root, split, **options)
        except (ValueError, OSError):
            continue
        found |= {int(sample): (reader, index) for index, sample in enumerate(reader.ids)}
    return found


def missing(root: Path, name: str) -> Finding:
    """Say that a split is not there."""
    advice = "unpack it from the archive into the same folder"
    return Finding("ERROR", str(root / name), "missing split", "no such folder or file", advice)


def unreadable(path: Path, error: Exception) -> Finding:
    """Pass on why a label file cannot be read."""
    reason = str(error).removeprefix(f"{path}: ")
    advice = "without its labels nothing of this part could be checked"
    return Finding("ERROR", str(path), reason, advice=advice)
