"""What is kept of a hand found in a photo: joints and code as JSON, the mesh as PLY and GLB, a picture."""

from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from davae.data.folders import write_atomically
from davae.data.png import encode_png
from davae.photo.finding import Box
from davae.photo.hand import Hand, Side
from davae.photo.overlay import photo_overlay
from davae.photo.reading import PhotoError
from davae.predict import AT_ONCE, HandPredictor


def write_hand(hand: Hand, photo: NDArray[np.uint8], out: Path, stem: str) -> list[Path]:
    """Write OUT/STEM.json, .ply, .glb and OUT/STEM-overlay.png, each whole or not at all.

    Args:
        hand: of `davae.predict`.
        photo: (h, w, 3) what it was found in.
        out: folder, made where it is missing.
        stem: of the files' names.

    Returns:
        The four files.
    """
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for ending, content in hand.contents().items():
        written.append(out / f"{stem}.{ending}")
        write_atomically(written[-1], lambda path, content=content: path.write_bytes(content))
    written.append(out / f"{stem}-overlay.png")
    write_atomically(written[-1], lambda path: path.write_bytes(encode_png(photo_overlay(photo, hand))))
    return written


class Found(NamedTuple):
    """What became of some files."""

    lines: list[str]  # to print, one a photo
    failed: int  # how many could not be used


def predict_files(
    images: Sequence[Path],
    out: Path,
    box: str = "",
    side: Side | None = None,
    bone_mm: float | None = None,
    intrinsics: str = "",
    weights: Path | None = None,
    progress: bool = True,
) -> Found:
    """Find the hand in each file and write what was found; arguments as they stand on the command line.

    Raises:
        ValueError: an argument makes no sense.
        FileNotFoundError: no weights.
        OSError: a result cannot be written; no more photos are looked at then.
    """
    if not images:
        raise ValueError("no photo is named; give one or more files")
    rectangle, camera = (numbers(text, name) for text, name in ((box, "--box"), (intrinsics, "--intrinsics")))
    if rectangle and min(rectangle[2:]) <= 0:
        raise ValueError(f"--box {box}: expected a width and a height above 0")
    names = stems(images)
    predictor = HandPredictor.load(weights)
    found = predictor.each(
        images,
        boxes=[Box.of_rectangle(*rectangle) if rectangle else None] * len(images),
        side=side,
        bone_mm=bone_mm,
        intrinsics=camera,
    )
    lines: list[str] = []
    failed, writing = 0, deque()

    def settle(left: int) -> None:
        """Wait until no more than so many results are unwritten, and raise what went wrong with one."""
        while len(writing) > left:
            lines.append(writing.popleft().result())

    bar = tqdm(
        found, desc="predict", unit="photo", total=len(images), disable=not progress or len(images) < 2
    )
    with ThreadPoolExecutor(2) as writers:  # results are written while the next photos are looked at
        for (hand, photo), path, name in zip(bar, images, names, strict=True):
            if isinstance(hand, PhotoError):
                failed += 1
                writing.append(writers.submit("failed: {}".format, hand))
            else:
                writing.append(writers.submit(_write, hand, photo, out, path, name))
            settle(AT_ONCE)
        settle(0)
    return Found(lines, failed)


def _write(hand: Hand, photo: NDArray[np.uint8], out: Path, path: Path, name: str) -> str:
    """Write what was found in the photo at `path`; return the line that says so."""
    *_, picture = write_hand(hand, photo, out, name)
    return (
        f"{path}: {hand.side} hand, confidence {hand.box.confidence:.2f}, reference bone assumed "
        f"{hand.bone_mm:.1f} mm, see {picture}"
    )


def numbers(text: str, name: str) -> tuple[float, float, float, float] | None:
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
            f"{name} {text!r}: expected four numbers with commas between them, such as 10,20,200,200"
        )
    return values


def stems(images: Sequence[Path]) -> list[str]:
    """Names of the results: the photos' own, with a number where two are called alike."""
    taken: set[str] = set()
    found = []
    for path in images:
        stem = name = Path(path).stem or "photo"
        number = 1
        while name.casefold() in taken:  # some file systems do not tell X from x
            number += 1
            name = f"{stem}-{number}"
        taken.add(name.casefold())
        found.append(name)
    return found
