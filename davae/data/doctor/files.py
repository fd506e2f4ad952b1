"""Checks of files without decoding them: which are there, which should be, and which are cut off."""

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

from davae.data.doctor.findings import Check, Finding, count
from davae.data.doctor.parts import Part, Pictures
from synthhand.formats.kinds import kind_of_file

THREADS = 8  # most of the time is spent waiting for the disk
_TAIL = 4096  # bytes at a file's end that are searched for its end mark: some programs append a few
_KINDS = {  # suffix -> name, first bytes, end mark
    ".png": ("PNG", b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"),
    ".jpg": ("JPEG", b"\xff\xd8\xff", b"\xff\xd9"),
}
_COPY = "copy or unpack these files again from the archive, then repeat this check"


def check_counts(parts: list[Part]) -> Check:
    """Compare the number of labelled samples with the expected one, and find gaps between their ids."""
    findings, found = [], []
    for part in parts:
        labelled = len(part.ids)
        found.append(f"{labelled:,}" if part.expected is None else f"{labelled:,} of {part.expected:,}")
        findings += _compare_count(part)
        gaps = find_gaps(part.ids)
        if len(gaps):
            what = f"{part.noun} ids are missing in the middle"
            detail = f"{len(gaps):,} of the numbers 0 to {part.ids[-1]:,}"
            advice = "labels were cut or edited: copy this file again from the dataset"
            examples = tuple(f"{part.noun} {number}" for number in gaps)
            findings.append(Finding("ERROR", part.labels, what, detail, advice, examples))
    if len(found) > 3:  # the sequences of STB
        total, expected = sum(len(part.ids) for part in parts), sum(part.expected or 0 for part in parts)
        found = [f"{total:,} of {expected:,}"]
    return Check("samples", count(len(parts), "label file"), "; ".join(found), tuple(findings))


def _compare_count(part: Part) -> list[Finding]:
    labelled, expected = len(part.ids), part.expected
    if expected is None or labelled == expected:
        return []
    detail = f"{labelled:,} of {expected:,} {part.noun}s"
    if labelled > expected:
        advice = "make sure that no other dataset was mixed in"
        return [Finding("warning", part.labels, f"more labels than {part.source}", detail, advice)]
    return [Finding(part.if_fewer.level, part.name, part.if_fewer.what, detail, part.if_fewer.advice)]


def find_gaps(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the numbers from 0 to the largest of `numbers` that are not among them."""
    if not len(numbers):
        return np.zeros(0, np.int64)
    return np.setdiff1d(np.arange(numbers.max() + 1), numbers)


def check_pictures(parts: list[Part], progress: bool = True) -> Check:
    """Check that every picture is there, has its size, begins as a picture and is not cut off."""
    kinds = [pictures for part in parts for pictures in part.pictures]
    findings: list[Finding] = []
    checked, damaged, absent = 0, 0, 0
    with tqdm(
        total=sum(len(pictures.numbers) for pictures in kinds),
        desc="files",
        unit="file",
        disable=not progress,
    ) as bar:
        for pictures in kinds:
            missing, present, found = _compare_names(pictures)
            findings += found
            absent += len(missing)
            bar.update(len(missing))
            sizes: Counter[tuple[int, int]] = Counter()
            other_size, broken = [], []
            for path, size, problem in _peek_all(present):
                bar.update()
                checked += 1
                if size is None:
                    broken.append(f"{path}: {problem}")
                elif size != pictures.size:
                    sizes[size] += 1
                    other_size.append(f"{path}: {size[1]}x{size[0]}")
            damaged += len(broken) + len(other_size)
            if broken:
                what = "pictures are damaged or truncated"
                detail = f"{len(broken):,} of {count(len(present), 'file')}"
                findings.append(Finding("ERROR", str(pictures.folder), what, detail, _COPY, tuple(broken)))
            if other_size:
                findings.append(_report_sizes(pictures, sizes, other_size, len(present)))
    words = [f"{n:,} {word}" for n, word in ((absent, "missing"), (damaged, "bad")) if n]
    return Check("picture files", count(checked, "file"), ", ".join(words) or "all whole", tuple(findings))


def _compare_names(pictures: Pictures) -> tuple[list[str], list[Path], list[Finding]]:
    """Compare names on disk with those the labels ask for; return missing names, present paths, findings."""
    expected = [pictures.name(number) for number in pictures.numbers]
    try:
        names = {entry.name for entry in os.scandir(pictures.folder)}
    except (FileNotFoundError, NotADirectoryError):
        what, detail = "no such folder", f"labels ask for {count(len(expected), 'picture')} in it"
        advice = "unpack the dataset again: this folder belongs to it"
        return expected, [], [Finding("ERROR", str(pictures.folder), what, detail, advice)]
    pattern = re.compile(rf"{re.escape(pictures.prefix)}\d+{re.escape(pictures.suffix)}")
    missing = [name for name in expected if name not in names]
    surplus = sorted({name for name in names if pattern.fullmatch(name)}.difference(expected))
    other_release = "labels and pictures are of different releases, or the labels were cut: copy both again"
    findings = []
    for which, what, advice in (
        (missing, "labels without images", _COPY),
        (surplus, "images without labels", other_release),
    ):
        if which:
            where, detail = str(pictures.folder), count(len(which), "picture")
            paths = tuple(str(pictures.folder / name) for name in which)
            findings.append(Finding("ERROR", where, what, detail, advice, paths))
    return missing, [pictures.folder / name for name in expected if name in names], findings


def _report_sizes(pictures: Pictures, sizes: Counter, examples: list[str], present: int) -> Finding:
    height, width = pictures.size
    advice = _COPY
    if len(examples) == present and len(sizes) == 1:
        advice = "labels, cameras and masks belong to the original size: use the pictures as published"
    detail = f"{len(examples):,} of {count(present, 'file')}; expected {width}x{height}"
    where = str(pictures.folder)
    return Finding("ERROR", where, "pictures have the wrong image size", detail, advice, tuple(examples))


def _peek_all(paths: list[Path]) -> Iterator[tuple[Path, tuple[int, int] | None, str | None]]:
    with ThreadPoolExecutor(THREADS) as pool:
        for path, (size, problem) in zip(paths, pool.map(peek, paths, chunksize=64), strict=True):
            yield path, size, problem


def peek(path: Path) -> tuple[tuple[int, int] | None, str | None]:
    """Read the first and last bytes of a PNG or JPEG; return its (height, width), or None and the problem."""
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
