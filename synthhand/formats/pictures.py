"""Read the pictures of a dataset, and write PNGs."""

import io
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from synthhand.formats.kinds import kind_of_file
from synthhand.formats.record import BadSample

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
    except (OSError, SyntaxError, ValueError) as error:  # Pillow's ways to report a damaged file
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


def write_png(file: Path | BinaryIO, pixels: NDArray[np.uint8]) -> None:
    """Write a grey (h, w) or RGB (h, w, 3) picture as PNG, at the quickest level of compression."""
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """Return a grey (h, w) or RGB (h, w, 3) picture as the bytes of a PNG file."""
    file = io.BytesIO()
    write_png(file, pixels)
    return file.getvalue()


def encode_depth(depth_mm: NDArray, range_mm: float) -> NDArray[np.uint8]:
    """Encode depth (h, w) in mm as a picture (h, w, 3): high byte in red, low byte in green, blue 0.

    A step is range_mm / 65535. Depth beyond `range_mm`, including infinity, becomes `range_mm`.

    Raises:
        ValueError: a depth is negative or not a number.
    """
    depth = np.asarray(depth_mm, np.float64)
    if not (depth >= 0).all():
        raise ValueError("depth_mm holds negative values or NaN; expected mm from the camera, 0 for unknown")
    code = np.rint(np.minimum(depth, range_mm) * (65535 / range_mm)).astype(np.uint16)
    return np.stack([code >> 8, code & 255, np.zeros_like(code)], axis=-1).astype(np.uint8)


def decode_depth(rgb: NDArray[np.uint8], range_mm: float) -> NDArray[np.float32]:
    """Return the depth (h, w) in mm of such a picture: range_mm (256 R + G) / 65535."""
    # uint8 * 256 overflows (an error in NumPy 2), so convert to uint16 first.
    code = (rgb[..., 0].astype(np.uint16) << 8) | rgb[..., 1]
    return code.astype(np.float32) * np.float32(range_mm / 65535)
