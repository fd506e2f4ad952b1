"""Checks of files, without decoding them: what is there, what should be, and whether a picture ends early."""

import os
import re
import struct
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm.auto import tqdm

from davae.data.doctor.findings import Check, Finding, counted
from davae.data.doctor.parts import Part, Pictures
from synthhand.formats.kinds import kind_of_file

THREADS = 8  # most of the time goes into waiting for the disk
_TAIL = 4096  # bytes at a file's end in which its end mark is looked for: some programs append a few
_KINDS = {  # suffix -> name, first bytes, end mark
    ".png": ("PNG", b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"),
    ".jpg": ("JPEG", b"\xff\xd8\xff", b"\xff\xd9"),
}
_COPY = "copy or unpack these files again from the archive; after that run this check again"


def check_counts(parts: list[Part]) -> Check:
    """Compare the number of labelled samples with what the dataset should have, and look for gaps."""
    findings, found = [], []
    for part in parts:
        count = len(part.ids)
        if part.due is None:
            found.append(f"{count:,}")
        else:
            found.append(f"{count:,} of {part.due:,}")
            findings += _shortage(part)
        gaps = missing_between(part.ids)
        if len(gaps):
            what = f"{part.sample} ids are missing in the middle"
            detail = f"{len(gaps):,} of the numbers 0 to {part.ids[-1]:,}"
            advice = "labels were cut or edited: copy this file again from the dataset"
            examples = tuple(f"{part.sample} {number}" for number in gaps)
            findings.append(Finding("ERROR", part.labels, what, detail, advice, examples))
    if len(found) > 3:  # sequences by the dozen
        total, due = sum(len(part.ids) for part in parts), sum(part.due or 0 for part in parts)
        found = [f"{total:,} of {due:,}"]
    return Check("samples", counted(len(parts), "label file"), "; ".join(found), tuple(findings))


def _shortage(part: Part) -> list[Finding]:
    count, due = len(part.ids), part.due
    detail = f"{count:,} of {due:,} {part.sample}s"
    if count > due:
        advice = "make sure that no other dataset was mixed in"
        return [Finding("warning", part.labels, f"more labels than {part.due_is}", detail, advice)]
    if count < due:
        return [Finding(part.short.level, part.name, part.short.what, detail, part.short.advice)]
    return []


def missing_between(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the numbers from 0 to the largest that are not among `numbers`."""
    if not len(numbers):
        return np.zeros(0, np.int64)
    return np.setdiff1d(np.arange(numbers.max() + 1), numbers)


def check_pictures(parts: list[Part], progress: bool = True) -> Check:
    """Check that every picture is there, has its size, begins as a picture and is not cut off."""
    kinds = [pictures for part in parts for pictures in part.pictures]
    findings: list[Finding] = []
    looked, damaged, absent = 0, 0, 0
    with tqdm(
        total=sum(len(pictures.numbers) for pictures in kinds),
        desc="files",
        unit="file",
        disable=not progress,
    ) as bar:
        for pictures in kinds:
            missing, present = _inventory(pictures, findings)
            absent += len(missing)
            bar.update(len(missing))
            sizes: Counter = Counter()
            other_size, broken = [], []
            for path, size, problem in _peek_all(present):
                bar.update()
                looked += 1
                if problem:
                    broken.append(f"{path}: {problem}")
                elif size != pictures.size:
                    sizes[size] += 1
                    other_size.append(f"{path}: {size[1]}x{size[0]}")
            damaged += len(broken) + len(other_size)
            if broken:
                what = "pictures are damaged or truncated"
                detail = f"{len(broken):,} of {counted(len(present), 'file')}"
                findings.append(Finding("ERROR", str(pictures.folder), what, detail, _COPY, tuple(broken)))
            findings += _wrong_sizes(pictures, sizes, other_size, len(present))
    found = (
        ", ".join(f"{n:,} {word}" for n, word in ((absent, "missing"), (damaged, "bad")) if n) or "all whole"
    )
    return Check("picture files", counted(looked, "file"), found, tuple(findings))


def _inventory(pictures: Pictures, findings: list[Finding]) -> tuple[list[str], list[Path]]:
    """Compare names on disk with those the labels ask for; returns missing names and present paths."""
    expected = [pictures.name(number) for number in pictures.numbers]
    try:
        names = {entry.name for entry in os.scandir(pictures.folder)}
    except (FileNotFoundError, NotADirectoryError):
        what, detail = "no such folder", f"labels ask for {counted(len(expected), 'picture')} in it"
        advice = "unpack the dataset again: this folder belongs to it"
        findings.append(Finding("ERROR", str(pictures.folder), what, detail, advice))
        return expected, []
    pattern = re.compile(rf"{re.escape(pictures.prefix)}\d+{re.escape(pictures.suffix)}")
    missing = [name for name in expected if name not in names]
    surplus = sorted({name for name in names if pattern.fullmatch(name)}.difference(expected))
    for which, what, advice in (
        (missing, "labels without images", _COPY),
        (
            surplus,
            "images without labels",
            "labels and pictures are not of one release, or the label file was cut: copy both again",
        ),
    ):
        if which:
            where, detail = str(pictures.folder), counted(len(which), "picture")
            paths = tuple(str(pictures.folder / name) for name in which)
            findings.append(Finding("ERROR", where, what, detail, advice, paths))
    return missing, [pictures.folder / name for name in expected if name in names]


def _wrong_sizes(pictures: Pictures, sizes: Counter, examples: list[str], present: int) -> list[Finding]:
    if not examples:
        return []
    height, width = pictures.size
    advice = _COPY
    if len(examples) == present and len(sizes) == 1:
        advice = "labels, cameras and masks belong to the original size: use the pictures as published"
    detail = f"{len(examples):,} of {counted(present, 'file')}; {width}x{height} are due"
    where = str(pictures.folder)
    return [Finding("ERROR", where, "pictures have the wrong image size", detail, advice, tuple(examples))]


def _peek_all(paths: list[Path]) -> Iterator[tuple[Path, tuple[int, int] | None, str | None]]:
    with ThreadPoolExecutor(THREADS) as pool:
        for path, (size, problem) in zip(paths, pool.map(peek, paths, chunksize=64), strict=True):
            yield path, size, problem


def peek(path: Path) -> tuple[tuple[int, int] | None, str | None]:
    """Read a PNG's or JPEG's first and last bytes; return its (height, width) and what is wrong with it."""
    name, start, end = _KINDS[path.suffix]
    try:
        with open(path, "rb") as file:
            head = file.read(24)
            length = file.seek(0, os.SEEK_END)
            file.seek(max(0, length - _TAIL))
            tail = file.read()
        if length == 0:
            return None, "empty file"
        if not head.startswith(start):
            return None, f"is no {name} ({kind_of_file(path) or f'it begins with {head[:8]!r}'})"
        if end not in tail:
            return None, f"truncated: its {length:,} bytes do not end as a {name} does"
        if path.suffix == ".png":
            width, height = struct.unpack(">II", head[16:24])
            return (height, width), None
        with Image.open(path) as image:  # reads the header alone
            return image.size[::-1], None
    except (OSError, SyntaxError, struct.error) as error:
        return None, f"cannot be read ({error})"
