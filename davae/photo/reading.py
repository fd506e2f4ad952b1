"""Photos as people have them: turned by EXIF, transparent, grey, CMYK, 16 bits deep, animated, damaged."""

import io
import os
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from davae.file_kinds import kind_of

MAX_PIXELS = 100_000_000  # more than any camera's; a file of a few bytes can claim far more
MAX_ASPECT = 50  # a strip longer than that shows no hand
MIN_SIDE = 16  # pixels, of the whole photo
ADVICE = "expected a photo of a hand as JPEG, PNG, WebP or whatever else Pillow reads"

Photo = str | os.PathLike | bytes | NDArray[np.uint8] | Image.Image


class PhotoError(ValueError):
    """A photo that cannot be used; the message names it, what was found and what was expected."""


def read_photo(photo: Photo, name: str = "") -> NDArray[np.uint8]:
    """Decode a photo as one looks at it: (h, w, 3) RGB.

    EXIF's orientation is applied, transparency laid over white, of an animation the first picture taken, and
    16 bits reduced to 8.

    Args:
        photo: a file, its content, a Pillow image, or an array (h, w), (h, w, 3) or (h, w, 4) of uint8.
        name: by which errors call it; a file's own name where nothing is said.

    Raises:
        PhotoError: it is missing, a folder, damaged, no picture, or of a type or size that no photo has.
    """
    name = name or (str(photo) if isinstance(photo, str | os.PathLike) else "photo")
    if isinstance(photo, np.ndarray):
        picture = _from_array(photo, name)
    elif isinstance(photo, Image.Image):
        picture = photo
    elif isinstance(photo, str | os.PathLike | bytes):
        picture = _open(photo, name)
    else:
        raise PhotoError(f"{name}: is of type {type(photo).__name__}; {ADVICE}, its bytes, or an array")
    _check_size(picture.size, name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about odd metadata, which is no reason to refuse a photo
            return np.asarray(_as_rgb(ImageOps.exif_transpose(picture)))
    except (OSError, SyntaxError, ValueError, EOFError, MemoryError, Image.DecompressionBombError) as error:
        raise PhotoError(f"{name}: is damaged ({_first_line(error)}); {ADVICE}") from error


def _open(photo: str | os.PathLike | bytes, name: str) -> Image.Image:
    try:
        content = photo if isinstance(photo, bytes) else Path(photo).read_bytes()
    except FileNotFoundError:
        raise PhotoError(f"{name}: no such file; {ADVICE}") from None
    except IsADirectoryError:
        raise PhotoError(f"{name}: is a folder; name its photos, as in {name}/*.jpg") from None
    except OSError as error:
        raise PhotoError(f"{name}: cannot be read ({error.strerror or error}); {ADVICE}") from error
    if not content:
        raise PhotoError(f"{name}: is empty; {ADVICE}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Image.open(io.BytesIO(content))
    except UnidentifiedImageError:
        raise PhotoError(f"{name}: is no picture ({_kind(content)}); {ADVICE}") from None
    except Image.DecompressionBombError:
        raise PhotoError(f"{name}: claims more than {MAX_PIXELS:,} pixels; {ADVICE}") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise PhotoError(f"{name}: is damaged ({_first_line(error)}); {ADVICE}") from error


def _from_array(pixels: NDArray, name: str) -> Image.Image:
    sound = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))
    if pixels.dtype != np.uint8 or not sound or not pixels.size:
        raise PhotoError(
            f"{name}: is an array of {pixels.dtype} of shape {pixels.shape}; expected uint8 of shape (h, w), "
            "(h, w, 3) or (h, w, 4)"
        )
    return Image.fromarray(pixels)


def _check_size(size: tuple[int, int], name: str) -> None:
    width, height = size
    found = f"{name}: is {width} x {height} pixels"
    if width * height > MAX_PIXELS:
        raise PhotoError(f"{found}; expected no more than {MAX_PIXELS:,} in all, so make it smaller")
    if min(size) < MIN_SIDE:
        raise PhotoError(f"{found}; expected at least {MIN_SIDE} on each side for a hand to be seen")
    if max(size) > MAX_ASPECT * min(size):
        raise PhotoError(f"{found}; expected no side more than {MAX_ASPECT} times as long as the other")


def _as_rgb(picture: Image.Image) -> Image.Image:
    """Convert any mode to RGB."""
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        return Image.fromarray(_eight_bits(np.asarray(picture))).convert("RGB")
    if picture.mode in ("LA", "PA", "RGBa", "La") or picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture).convert("RGB")
    return picture.convert("RGB")


def _eight_bits(deep: NDArray) -> NDArray[np.uint8]:
    """Reduce deeper greys to 0..255 by their full range, or their own where they exceed it."""
    grey = np.nan_to_num(np.asarray(deep, np.float64), posinf=0.0, neginf=0.0).clip(0)
    top = grey.max(initial=0.0)
    ranges = (1.0, 255.0, 65535.0) if np.issubdtype(deep.dtype, np.floating) else (255.0, 65535.0)
    full = next((full for full in ranges if top <= full), top)
    return np.rint(grey * (255.0 / full)).astype(np.uint8)


def _kind(content: bytes) -> str:
    """Say in a word what a file seems to be."""
    kind = kind_of(content)
    if kind:
        return kind
    try:
        content[:512].decode()
    except UnicodeDecodeError:
        return f"{len(content):,} bytes of something else"
    return "text" if b"\0" not in content[:512] else f"{len(content):,} bytes of something else"


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
