"""Predict on files: write joints and code as JSON, the mesh as PLY and GLB, the mask and an overlay.

Of several photos there is a table of all joints, too (`davae.photo.table`).
"""

import json
import os
import struct
import sys
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Thread
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm.auto import tqdm

from davae.photo.finding import DOUBTFUL, SMALL_PX, Box
from davae.photo.hand import Hand, Side, built_in_rig
from davae.photo.overlay import draw_overlay
from davae.photo.predict import HandPredictor, Request
from davae.photo.reading import PhotoError, wrap_unexpected
from davae.photo.table import NAME as TABLE
from davae.photo.table import format_rows, is_table, write_table
from davae.photo.workers import map_in_order
from synthhand.skeleton import ROOT
from synthhand.storage import write_atomically

STEM_BYTES = 200  # of the 255 that file systems allow a name; the rest is for endings and numbers
ENDINGS = (".json", ".ply", ".glb", "-mask.png", "-overlay.png")  # of the files of one hand
# What Pillow knows and is no photograph: videos, data, drawings.
NO_PHOTOS = {"BUFR", "EPS", "FITS", "GRIB", "HDF5", "MPEG", "WMF"}


class Summary(NamedTuple):
    """What became of some files."""

    lines: list[str]  # as they were reported, one for each photo
    failed: int  # number of photos without a result
    table: Path | None = None  # of the joints of all photos; None if a single file was named


def predict_files(
    images: Sequence[Path],
    out: Path,
    box: str = "",
    side: Side | None = None,
    bone_mm: float | None = None,
    intrinsics: str = "",
    weights: Path | None = None,
    hands: int = 1,
    progress: bool = True,
    report: Callable[[str], object] = tqdm.write,
    quick: bool = False,
) -> Summary:
    """Find the hands in each file and write the results; arguments are as on the command line.

    A folder stands for the photos in it. Of several photos a table of all joints is written at the end, or
    when the run is stopped, with what was done by then.

    Each photo is reported as soon as it is done, so an error that stops the run loses no earlier report.
    Unusable photos, and photos whose results cannot be made, are reported and skipped. `side` may be in
    capitals.

    Raises:
        ValueError: an argument makes no sense, or a result would overwrite a file that is no result.
        FileNotFoundError: the weights do not exist.
        OSError: a result cannot be written; the run stops there.
    """
    if not images:
        raise ValueError("no photo is named; give one or more files")
    several, images = len(images) > 1 or images[0].is_dir(), list_photos(images)
    rectangle = parse_numbers(box, "--box", "10,20,200,200")
    camera = parse_numbers(intrinsics, "--intrinsics", "600,600,320,240")
    if rectangle and min(rectangle[2:]) <= 0:
        raise ValueError(f"--box {box}: expected a width and a height above 0")
    if hands < 1 or (rectangle and hands > 1):
        raise ValueError(f"--hands {hands}: expected 1 or more, and 1 with --box, which holds one hand")
    stems = name_results(images)
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out}: is a file; --out is the folder for the results, so name another")
    _check_places(images, out, stems, hands)
    table = out / TABLE if several else None
    if table is not None and table.exists() and not is_table(table):
        raise ValueError(f"{table}: is no table of davae, and would be overwritten; name another --out")
    sides: dict[str, Side] = {"left": "left", "right": "right"}
    Thread(target=built_in_rig).start()  # a third of a second, meanwhile the networks find the first hand
    predictor = HandPredictor.load(weights)
    requests = predictor.request(
        images,
        boxes=[Box.of_rectangle(*rectangle) if rectangle else None] * len(images),
        side=side and sides.get(side.lower(), side),
        bone_mm=bone_mm,
        intrinsics=camera,
        quick=quick,
    )

    def work(job: tuple[Request, Path, str]) -> tuple[str, str | None]:
        request, path, stem = job
        return _write(*predictor.answer_hands(request, hands), out, path, stem)

    jobs = list(zip(requests, images, stems, strict=True))
    results = map_in_order(work, jobs, predictor.workers)
    bar = tqdm(
        results, desc="predict", unit="photo", total=len(images), disable=not progress or len(images) < 2
    )
    lines: list[str] = []
    rows: list[str] = []
    try:
        for line, own_rows in bar:
            lines.append(line.encode(errors="backslashreplace").decode())  # names may be no UTF-8
            rows += [] if own_rows is None else [own_rows]
            report(lines[-1])
    finally:
        if table is not None and (
            rows or len(lines) == len(images)
        ):  # stopped at once, it keeps an old table
            write_table(table, rows)
    return Summary(lines, len(lines) - len(rows), table)


def list_photos(named: Sequence[Path]) -> list[Path]:
    """Return the files named and, of each folder, the pictures directly in it, in the order of their names.

    What davae has drawn into a folder is none of its photos.

    Raises:
        ValueError: a folder holds no picture.
    """
    photos: list[Path] = []
    of_endings = Image.registered_extensions()  # first: it loads the plug-ins that fill Image.OPEN
    kinds = Image.OPEN.keys() - NO_PHOTOS
    endings = {ending for ending, kind in of_endings.items() if kind in kinds}
    endings |= {".heic", ".heif"}  # without their plug-in, the error of each says what to install
    for path in named:
        if not path.is_dir():
            photos.append(path)
            continue
        inside = [file for file in sorted(path.iterdir()) if file.suffix.lower() in endings]
        # A broken symbolic link stays in the list, so that it is reported.
        inside = [file for file in inside if file.is_file() or not file.exists()]
        inside = [file for file in inside if file.name[0] != "." and not _is_drawn(file)]
        if not inside:
            raise ValueError(f"{path}: holds no pictures (folders in it are not searched); name another")
        photos += inside
    return photos


def _is_drawn(file: Path) -> bool:
    """Return whether a picture is a mask or an overlay of a result beside it."""
    drawn = [ending for ending in ENDINGS if ending.endswith(".png") and file.name.endswith(ending)]
    return any(_is_result(file.with_name(f"{file.name.removesuffix(ending)}.json")) for ending in drawn)


def write_hand(hand: Hand, photo: NDArray[np.uint8], out: Path, stem: str, *further: Hand) -> list[Path]:
    """Write OUT/STEM with each of `ENDINGS`, each file whole or not at all.

    Args:
        hand: of `davae.photo.predict`.
        photo: (h, w, 3) in which it was found.
        out: folder; made if it does not exist.
        stem: of the files' names.
        further: other hands in the photo. Each is a row of the overlay and has files of its own beside it.

    Returns:
        The files, the overlay last.
    """
    out.mkdir(parents=True, exist_ok=True)
    contents: dict[str, bytes] = {}
    for number, one in enumerate((hand, *further), 1):
        encoded = one.encode_files() | {"png": _encode_png(np.rint(255 * one.mask).astype(np.uint8))}
        own = _name_endings(number)[:-1]
        contents |= dict(zip(own, (encoded[ending.rsplit(".")[-1]] for ending in own), strict=True))
    contents[ENDINGS[-1]] = _encode_png(draw_overlay(photo, hand, *further))
    return [_write_file(out / f"{stem}{ending}", content) for ending, content in contents.items()]


def _name_endings(number: int) -> list[str]:
    """Return the endings of the files of a photo's hand: `ENDINGS`, or -hand2.json and so on."""
    return [ending if number == 1 else f"-hand{number}{ending}" for ending in ENDINGS]


def parse_numbers(text: str, name: str, example: str) -> tuple[float, float, float, float] | None:
    """Return the four numbers of "a,b,c,d", or None for an empty text.

    Raises:
        ValueError: the text is not four finite numbers.
    """
    if not text:
        return None
    try:
        a, b, c, d = (float(part) for part in text.split(","))
    except ValueError:
        a = b = c = d = np.nan
    if not np.isfinite([a, b, c, d]).all():
        raise ValueError(
            f"{name} {text!r}: expected four numbers with commas between them, such as {example}"
        )
    return a, b, c, d


def name_results(images: Sequence[Path | str]) -> list[str]:
    """Return the stems of the results' names: the photos' own, numbered where two are the same."""
    taken: set[str] = set()
    stems = []
    for path in images:
        encoded = os.fsencode(Path(path).stem)[:STEM_BYTES]
        stem = own = encoded.decode(sys.getfilesystemencoding(), errors="ignore") or "photo"
        number = 1
        while stem.casefold() in taken:  # some file systems do not distinguish X from x
            number += 1
            stem = f"{own}-{number}"
        taken.add(stem.casefold())
        stems.append(stem)
    return stems


def _write(
    hands: list[Hand] | PhotoError, photo: NDArray[np.uint8] | None, out: Path, path: Path, stem: str
) -> tuple[str, str | None]:
    """Write the result of the photo at `path`; return the line about it and its rows of the table, if any."""
    if isinstance(hands, PhotoError) or photo is None:
        return f"failed: {hands}", None
    hand, *further = hands
    try:
        *_, overlay = write_hand(hand, photo, out, stem, *further)
    except OSError:  # a full disk is full for all
        raise
    except Exception as error:
        return f"failed: {wrap_unexpected(str(path), error)}", None
    told = "; ".join(map(_describe, hands))
    return (
        f"{path}: {told}, reference bone assumed to be {hand.bone_mm:.1f} mm (exact in mesh and "
        f"posed joints), see {overlay}",
        format_rows(hands),
    )


def _describe(hand: Hand) -> str:
    """Return which hand was found, and how surely."""
    confidence = hand.box.confidence
    found = "in the box given" if confidence is None else f"confidence {confidence:.2f}"
    if confidence is not None and confidence < DOUBTFUL:
        found += " (low: check the overlay, and give --box if the box is wrong)"
    if 2 * hand.box.half < SMALL_PX:
        found += f", a square of only {2 * hand.box.half:.0f} pixels"
    distance = "" if hand.intrinsics is None else f", about {hand.joints_mm[ROOT, 2]:.0f} mm away"
    return f"{hand.describe_side()}, {found}{distance}"


def _write_file(path: Path, content: bytes) -> Path:
    write_atomically(path, lambda temporary: temporary.write_bytes(content))
    return path


def _encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """Return a picture, (h, w) or (h, w, 3), as PNG, each row as its difference from the row above.

    Pillow tries five ways of storing each row, which takes twice as long and saves no space here: it would be
    a tenth of the time spent on a photo.
    """
    height, width = pixels.shape[:2]
    rows = pixels.reshape(height, -1)
    stored = np.empty((height, 1 + rows.shape[1]), np.uint8)
    stored[:, 0] = 2  # the filter "up"
    stored[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=stored[1:, 1:])
    deflate = zlib.compressobj(level=1, strategy=zlib.Z_RLE)
    colour = 2 if pixels.ndim == 3 else 0
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0),
        b"IDAT": deflate.compress(stored.tobytes()) + deflate.flush(),
        b"IEND": b"",
    }
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks.items()
    )


def _check_places(images: Sequence[Path], out: Path, stems: list[str], hands: int) -> None:
    """Refuse to overwrite one of the photos, or a file that is not ours, such as the photos' labels."""
    photos = {Path(path).resolve() for path in images}
    for stem in stems:
        endings = [ending for number in range(1, hands + 1) for ending in _name_endings(number)]
        places = [out / f"{stem}{ending}" for ending in endings]
        for place in places:
            if place.resolve() in photos:
                raise ValueError(
                    f"{place}: is one of the photos, and would be overwritten; name another --out"
                )
        taken = [place for place in places if place.exists()]
        if taken and not _is_result(places[0]):  # the JSON, which is written first
            raise ValueError(
                f"{taken[0]}: is no result of davae, and would be overwritten; name another --out"
            )


def _is_result(report: Path) -> bool:
    try:
        return "latent_means" in json.loads(report.read_bytes())
    except (ValueError, TypeError, OSError, RecursionError):
        return False
