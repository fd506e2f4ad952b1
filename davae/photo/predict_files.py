"""What is kept of a hand found in a photo: joints and code as JSON, mesh as PLY and GLB, mask, picture."""

import json
import os
import sys
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from davae.photo.finding import DOUBTFUL, SMALL_PX, Box
from davae.photo.hand import Hand, Side
from davae.photo.overlay import photo_overlay
from davae.photo.predict import HandPredictor
from davae.photo.reading import PhotoError, wrap_unexpected
from synthhand.formats.pictures import encode_png
from synthhand.skeleton import ROOT
from synthhand.storage import write_atomically

STEM_BYTES = 200  # of the 255 that file systems allow a name; the rest is for endings and numbers
WRITERS = 2  # threads that write results while the next photos are looked at
ENDINGS = (".json", ".ply", ".glb", "-mask.png", "-overlay.png")  # of the files of one hand


def write_hand(hand: Hand, photo: NDArray[np.uint8], out: Path, stem: str) -> list[Path]:
    """Write OUT/STEM and each of `ENDINGS`, whole or not at all.

    Args:
        hand: of `davae.photo.predict`.
        photo: (h, w, 3) what it was found in.
        out: folder, made where it is missing.
        stem: of the files' names.

    Returns:
        The files.
    """
    out.mkdir(parents=True, exist_ok=True)
    contents = {f".{ending}": content for ending, content in hand.contents().items()}
    contents["-mask.png"] = encode_png(np.rint(255 * hand.mask).astype(np.uint8))
    contents["-overlay.png"] = encode_png(photo_overlay(photo, hand))
    written = []
    for ending in ENDINGS:
        written.append(out / f"{stem}{ending}")
        write_atomically(written[-1], lambda path, ending=ending: path.write_bytes(contents[ending]))
    return written


class Found(NamedTuple):
    """What became of some files."""

    lines: list[str]  # as they were told, one a photo
    failed: int  # how many have no result


def predict_files(
    images: Sequence[Path],
    out: Path,
    box: str = "",
    side: Side | None = None,
    bone_mm: float | None = None,
    intrinsics: str = "",
    weights: Path | None = None,
    progress: bool = True,
    tell: Callable[[str], object] = tqdm.write,
) -> Found:
    """Find the hand in each file and write what was found; arguments as they stand on the command line.

    What becomes of each photo is told as it is known: whatever stops the rest, that much was said. A photo
    that cannot be used, or whose results cannot be made, fails alone. `side` may be in capitals.

    Raises:
        ValueError: an argument makes no sense, or a result would be written over what is no result.
        FileNotFoundError: no weights.
        OSError: a result cannot be written; no more photos are looked at then.
    """
    if not images:
        raise ValueError("no photo is named; give one or more files")
    rectangle = numbers(box, "--box", "10,20,200,200")
    camera = numbers(intrinsics, "--intrinsics", "600,600,320,240")
    if rectangle and min(rectangle[2:]) <= 0:
        raise ValueError(f"--box {box}: expected a width and a height above 0")
    names = stems(images)
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out}: is a file; --out is the folder for the results, so name another")
    _check_places(images, out, names)
    predictor = HandPredictor.load(weights)
    found = predictor.each(
        images,
        boxes=[Box.of_rectangle(*rectangle) if rectangle else None] * len(images),
        side=side and side.lower(),
        bone_mm=bone_mm,
        intrinsics=camera,
    )
    lines: list[str] = []
    failed, writing = 0, deque()

    def settle(left: int) -> None:
        """Tell of what is written, wait until no more than so many are not, and raise what went wrong."""
        nonlocal failed
        while writing and (len(writing) > left or writing[0].done()):
            told = writing.popleft().result()
            failed += isinstance(told, PhotoError)
            line = f"failed: {told}" if isinstance(told, PhotoError) else told
            lines.append(line.encode(errors="backslashreplace").decode())  # of names that are not UTF-8
            tell(lines[-1])

    bar = tqdm(
        found, desc="predict", unit="photo", total=len(images), disable=not progress or len(images) < 2
    )
    with ThreadPoolExecutor(WRITERS) as writers:  # results are written while the next photos are looked at
        for (hand, photo), path, name in zip(bar, images, names, strict=True):
            writing.append(writers.submit(_write, hand, photo, out, path, name))
            settle(WRITERS)  # since what waits holds its photo
        settle(0)
    return Found(lines, failed)


def _check_places(images: Sequence[Path], out: Path, names: list[str]) -> None:
    """Refuse to write over one of the photos, or over a file that is not ours, such as its labels."""
    photos = {Path(path).resolve() for path in images}
    for name in names:
        for place in (out / f"{name}{ending}" for ending in ENDINGS):
            if place.resolve() in photos:
                raise ValueError(
                    f"{place}: is one of the photos, and would be written over; name another --out"
                )
        taken = [place for ending in ENDINGS if (place := out / f"{name}{ending}").exists()]
        if taken and not _is_ours(out / f"{name}.json"):  # which is the first that is written
            raise ValueError(
                f"{taken[0]}: is no result of davae, and would be written over; name another --out"
            )


def _is_ours(report: Path) -> bool:
    try:
        return "latent_means" in json.loads(report.read_bytes())
    except (ValueError, TypeError, OSError, RecursionError):
        return False


def _write(
    hand: Hand | PhotoError, photo: NDArray[np.uint8] | None, out: Path, path: Path, name: str
) -> str | PhotoError:
    """Write what was found in the photo at `path`; return the line that says so, or why there is nothing."""
    if isinstance(hand, PhotoError):
        return hand
    try:
        *_, picture = write_hand(hand, photo, out, name)
    except OSError:  # a full disk is full for all
        raise
    except Exception as error:
        return wrap_unexpected(str(path), error)
    sure = hand.box.confidence
    found = "in the box given" if sure is None else f"confidence {sure:.2f}"
    if sure is not None and sure < DOUBTFUL:
        found += " (little: look at the picture, and give --box if that is not it)"
    if 2 * hand.box.half < SMALL_PX:
        found += f", a square of only {2 * hand.box.half:.0f} pixels"
    away = "" if hand.intrinsics is None else f", about {hand.joints_mm[ROOT, 2]:.0f} mm away"
    return (
        f"{path}: {hand.side} hand, {found}, reference bone taken as {hand.bone_mm:.1f} mm (in mesh and "
        f"posed joints){away}, see {picture}"
    )


def numbers(text: str, name: str, example: str) -> tuple[float, float, float, float] | None:
    """Read four numbers "a,b,c,d"; None of nothing.

    Raises:
        ValueError: not four numbers.
    """
    if not text:
        return None
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) != 4 or not np.isfinite(values).all():
        raise ValueError(
            f"{name} {text!r}: expected four numbers with commas between them, such as {example}"
        )
    return values


def _shortened(name: str) -> str:
    """As much of a name as leaves room for an ending."""
    return os.fsencode(name)[:STEM_BYTES].decode(sys.getfilesystemencoding(), errors="ignore")


def stems(images: Sequence[Path]) -> list[str]:
    """Names of the results: the photos' own, with a number where two are called alike."""
    taken: set[str] = set()
    found = []
    for path in images:
        stem = name = _shortened(Path(path).stem) or "photo"
        number = 1
        while name.casefold() in taken:  # some file systems do not tell X from x
            number += 1
            name = f"{stem}-{number}"
        taken.add(name.casefold())
        found.append(name)
    return found
