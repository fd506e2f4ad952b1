"""Read the pictures of a dataset, and write PNGs."""

import struct
import zlib
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from synthhand.formats.kinds import kind_of_file
from synthhand.formats.record import BadSample

# PNG: the first bytes of a file, two types of colour, and the filter "difference from the row above".
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _RGB, _UP = 0, 2, 2

ADVICE = "copy it again from the dataset, or leave such samples out (--skip-bad)"


def read_picture(
    path: Path, mode: Literal["RGB", "L"], size: tuple[int, int] | None = None, advice: str = ADVICE
) -> NDArray[np.uint8]:
    """Decode a PNG or JPEG.

    Args:
        path: the file.
        mode: "RGB" gives (h, w, 3), "L" gives (h, w). "L" takes the red channel of pictures stored in colour:
            a mask's ids are equal in all channels, and conversion to grey could round them.
        size: expected (height, width); None accepts any.
        advice: what to do about a bad file; the end of the message.

    Raises:
        BadSample: the file is missing, damaged or of another size; the message names it.
    """
    try:
        with Image.open(path) as image:
            if mode == "L" and image.mode != "L":
                pixels = np.asarray(image.convert("RGB"))[..., 0]
            else:
                pixels = np.asarray(image.convert(mode))
    except FileNotFoundError:
        raise BadSample(f"{path}: missing; {advice}") from None
    # Pillow's ways to report a damaged file; the last is of one that claims to be far larger than any frame.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        kind = kind_of_file(path, apart_from="picture")
        if kind:
            raise BadSample(f"{path}: cannot be decoded: it is {kind}, not a picture; {advice}") from error
        raise BadSample(f"{path}: cannot be decoded ({error}); {advice}") from error
    if size is not None:
        check_size(path, pixels, size, advice)
    return pixels


def check_size(path: Path, pixels: NDArray, size: tuple[int, int], advice: str = ADVICE) -> None:
    """Raise BadSample, naming `path`, unless its pixels (h, w, ...) are of `size` (height, width)."""
    if pixels.shape[:2] != size:
        found = pixels.shape[:2]
        raise BadSample(
            f"{path}: is {found[1]}x{found[0]} pixels, expected {size[1]}x{size[0]} as the other images of "
            f"this split; {advice}"
        )


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """Return a grey (h, w) or RGB (h, w, 3) picture, uint8, as the bytes of a PNG file.

    Each row is stored as its difference from the row above. Pillow would try all five of PNG's filters on
    each row, which takes longer than the compression. ISA-L would compress in a fourth of zlib's time, but
    now and then gives the same lines other bytes (seen 2026-11-29, isal 1.9.1).

    Raises:
        ValueError: the array is no such picture, or an empty one.
    """
    colours = {2: _GREY, 3: _RGB}
    if pixels.dtype != np.uint8 or pixels.ndim not in colours or pixels.shape[2:] not in ((), (3,)):
        raise ValueError(f"pixels are {pixels.dtype} {pixels.shape}, expected uint8 (h, w) or (h, w, 3)")
    if pixels.size == 0:
        raise ValueError(f"pixels have shape {pixels.shape}; a picture has at least one pixel")
    height, width = pixels.shape[:2]
    rows = pixels.reshape(height, -1)
    lines = np.empty((height, 1 + rows.shape[1]), np.uint8)
    lines[:, 0] = _UP
    lines[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=lines[1:, 1:])
    header = struct.pack(">IIBBBBB", width, height, 8, colours[pixels.ndim], 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.data, level=1)), (b"IEND", b""))
    return _SIGNATURE + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


def encode_depth(depth_mm: NDArray, range_mm: float) -> NDArray[np.uint8]:
    """Encode depth (h, w) in mm as a picture (h, w, 3): high byte in red, low byte in green, blue 0.

    A step is range_mm / 65535. Depth beyond `range_mm`, including infinity, becomes `range_mm`.

    Raises:
        ValueError: a depth is negative or not a number.
    """
    depth = np.asarray(depth_mm)
    if not (depth >= 0).all():
        raise ValueError("depth_mm holds negative values or NaN; expected mm from the camera, 0 for unknown")
    steps = np.minimum(depth, range_mm, dtype=np.float64)
    steps *= 65535 / range_mm
    code = np.rint(steps, out=steps).astype(np.uint16)
    rgb = np.zeros((*code.shape, 3), np.uint8)
    rgb[..., 0], rgb[..., 1] = code >> 8, code  # of the code, uint8 keeps the low byte
    return rgb


def decode_depth(rgb: NDArray[np.uint8], range_mm: float) -> NDArray[np.float32]:
    """Return the depth (h, w) in mm of such a picture: range_mm (256 R + G) / 65535."""
    # uint8 * 256 overflows (an error in NumPy 2), so convert to uint16 first.
    code = (rgb[..., 0].astype(np.uint16) << 8) | rgb[..., 1]
    return code.astype(np.float32) * np.float32(range_mm / 65535)
