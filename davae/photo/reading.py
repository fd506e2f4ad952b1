"""Photos as people have them: turned by EXIF, transparent, grey, CMYK, 16 bits deep, animated, damaged.

What a file says beside its pixels may be damaged, hostile or of odd types, and never decides whether the
pixels are read: `davae.photo.metadata` and `davae.photo.colour` take from it what can be understood.
"""

import contextlib
import io
import os
import re
import struct
import threading
import warnings
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from davae.photo.colour import stated_profile, to_srgb
from davae.photo.metadata import Info, without_metadata
from synthhand.formats.kinds import HEIF, kind_of

MAX_PIXELS = 250_000_000  # phones take 200 million; a file of a few bytes can claim far more
WHOLE_PIXELS = 100_000_000  # of a photo beyond which it is reduced, since Pillow holds four bytes of each
MAX_ASPECT = 50  # a strip longer than that shows no hand
MIN_SIDE = 16  # pixels, of the whole photo
ADVICE = "expected a photo of a hand as JPEG, PNG, WebP or whatever else Pillow reads"
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # how a picture of such an orientation is turned upright
LAID_DOWN = (TURNS[5], TURNS[6], TURNS[7], TURNS[8])  # which exchange width and height
WHOLE_NUMBERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i"}  # types of EXIF
AVIF = (b"avif", b"avis")
_QUIET = threading.Lock()  # `warnings.catch_warnings` in two threads at once would silence both for good

Photo = str | os.PathLike | bytes | NDArray[np.uint8] | Image.Image


class PhotoError(ValueError):
    """A photo that cannot be used; the message names it, what was found and what was expected."""


class Reduced(np.ndarray):
    """Pixels (h, w, 3) of a photo that is too large to be held whole.

    Attributes:
        photo_px: (width, height) of the whole photo, whose pixels are what results are told in. Of anything
            cut out of it, None.
    """

    photo_px: tuple[int, int] | None = None

    def __array_finalize__(self, other: NDArray | None) -> None:
        """Keep the size with a copy alone."""
        same = isinstance(other, Reduced) and other.shape == self.shape
        self.photo_px = other.photo_px if same else None


def photo_px(pixels: NDArray[np.uint8]) -> tuple[int, int]:
    """(width, height) of the photo that `read_photo` read as these pixels (h, w, 3)."""
    return getattr(pixels, "photo_px", None) or (pixels.shape[1], pixels.shape[0])


def read_photo(photo: Photo, name: str = "") -> NDArray[np.uint8]:
    """Decode a photo as one looks at it: (h, w, 3) RGB, in sRGB.

    It is turned by the orientation that EXIF states or, where EXIF states none, XMP. Colours are converted
    from the colour space that it is in (`davae.photo.colour.stated_profile`), transparency is laid over
    white, of an animation the first picture taken, and 16 bits reduced to 8. A photo of more than
    `WHOLE_PIXELS` is reduced to half its sides or less, and `photo_px` tells its own size.

    Args:
        photo: a file, its content, a Pillow image, or an array (h, w), (h, w, 3) or (h, w, 4) of uint8.
        name: by which errors call it; a file's own name where nothing is said.

    Raises:
        PhotoError: it is missing, a folder, damaged, no picture, or of a type or size that no photo has.
    """
    if isinstance(photo, Reduced) and photo.photo_px:
        return photo
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
        with _QUIET, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about odd metadata, which is no reason to refuse a photo
            return _decode(picture, own=not isinstance(photo, Image.Image))
    except Image.DecompressionBombError as error:
        raise _too_large(name, error) from error
    except (OSError, SyntaxError, ValueError, EOFError, MemoryError) as error:
        raise PhotoError(f"{name}: is damaged ({_first_line(error)}); {ADVICE}") from error
    except Exception as error:
        raise wrap_unexpected(name, error) from error


def wrap_unexpected(name: str, error: Exception) -> PhotoError:
    """Return an error that davae did not foresee as the cause of a `PhotoError` that asks to report it."""
    what = f"{type(error).__name__}: {_first_line(error)}"
    wrapped = PhotoError(f"{name}: davae failed on it ({what}); please report it, with the photo if you may")
    wrapped.__cause__ = error
    return wrapped


def _too_large(name: str, error: Exception) -> PhotoError:
    """What is told of a photo in a form whose decoder has a limit of its own, such as TIFF's."""
    return PhotoError(
        f"{name}: is larger than Pillow reads pictures of its kind ({_first_line(error)}); save it as JPEG, "
        "or make it smaller"
    )


def _decode(picture: Image.Image, own: bool) -> NDArray[np.uint8]:
    """Pixels of an opened picture; one that is our `own` may be changed."""
    width, height = picture.size
    if picture.format == "PNG":
        picture.load()  # `getexif` would, and damaged pixels would not be told
    turn, profile = TURNS.get(_orientation(picture)), stated_profile(picture)
    if picture.format == "TIFF" and own:  # which Pillow turns itself, and would rewrite all tags for it
        _forget_tags(picture, keep=turn is not None)
    if picture.format == "TIFF":
        turn = None
    if own and width * height > WHOLE_PIXELS and picture.format == "JPEG":
        picture.draft(None, (width // 2, height // 2))
    if picture.width * picture.height > WHOLE_PIXELS and picture.mode in ("L", "LA", "RGB", "RGBA"):
        picture = picture.reduce(2)  # before it is converted, which takes several times its memory
    found = _as_rgb(picture, profile)
    if found.width * found.height > WHOLE_PIXELS:
        found = found.reduce(2)
    if turn is not None:
        found = found.transpose(turn)
    pixels = np.asarray(found)
    if width * height <= WHOLE_PIXELS:
        return pixels
    reduced = pixels.view(Reduced)
    reduced.photo_px = (height, width) if turn in LAID_DOWN else (width, height)
    return reduced


def _orientation(picture: Image.Image) -> int:
    """1 to 8, as EXIF states it or, where EXIF says nothing, XMP; 1 where nothing can be understood."""
    with contextlib.suppress(Exception):  # tags may hold anything, and then they say nothing
        value = picture.getexif().get(ExifTags.Base.Orientation)
        value = value[0] if isinstance(value, tuple | bytes) else value
        if value in range(1, 9):
            return int(value)
    with contextlib.suppress(KeyError, struct.error, TypeError):  # that of an opened image may be no bytes
        return _first_orientation(picture.info["exif"])
    return 1


def _first_orientation(exif: bytes) -> int:
    """That of EXIF of which Pillow understands no more than what stands before the first damage.

    Raises:
        KeyError: there is none.
        struct.error: EXIF ends before it.
    """
    tiff = re.sub(b"^(Exif\0\0)+", b"", exif)
    order = {b"II": "<", b"MM": ">"}[tiff[:2]]
    (place,) = struct.unpack_from(f"{order}I", tiff, 4)
    (count,) = struct.unpack_from(f"{order}H", tiff, place)
    for entry in range(place + 2, place + 2 + 12 * count, 12):
        tag, kind = struct.unpack_from(f"{order}HH", tiff, entry)
        if tag == ExifTags.Base.Orientation:
            return struct.unpack_from(order + WHOLE_NUMBERS[kind], tiff, entry + 8)[0]
    raise KeyError(ExifTags.Base.Orientation)


def _forget_tags(picture: Image.Image, keep: bool) -> None:
    """Leave Pillow but the orientation among the tags that it rewrites, if that can be understood."""
    exif = picture.getexif()
    for tag in list(exif):
        if not (keep and tag == ExifTags.Base.Orientation):
            del exif[tag]
    picture.info.pop("xmp", None)


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
        with _QUIET, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pixels_alone, info = without_metadata(content)
            return _identified(pixels_alone, info)
    except Image.DecompressionBombError as error:
        raise _too_large(name, error) from error
    except UnidentifiedImageError:
        raise PhotoError(f"{name}: is no picture ({_kind(content)}); {ADVICE}") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise PhotoError(f"{name}: is damaged ({_first_line(error)}); {ADVICE}") from error
    except Exception as error:
        raise wrap_unexpected(name, error) from error


def _identified(content: bytes, info: Info) -> Image.Image:
    """Open a picture of any size, which `Image.open` refuses to."""
    if content[8:12] in HEIF:
        _read_heif()
    try:
        picture = Image.open(io.BytesIO(content))
    except Image.DecompressionBombError:  # its limit is a process's, and not ours to move
        picture = _of_any_size(content)
    except (UnidentifiedImageError, ValueError):
        if content[8:12] not in AVIF:
            raise
        # EXIF that Pillow cannot read keeps it from opening an AVIF; it does not look under another name.
        boxes, data, rest = content.partition(b"mdat")
        picture = Image.open(io.BytesIO(boxes.replace(b"Exif", b"none") + data + rest))
    picture.info |= info
    return picture


def _of_any_size(content: bytes) -> Image.Image:
    for factory, accepts in Image.OPEN.values():
        if accepts is not None and accepts(content[:16]) is True:
            with contextlib.suppress(
                SyntaxError, IndexError, TypeError, struct.error
            ):  # it is of another format
                return factory(io.BytesIO(content), "")
    raise UnidentifiedImageError("no plug-in of Pillow knows it")


@lru_cache(maxsize=1)
def _read_heif() -> None:
    """Let Pillow read HEIC, if its plug-in for that is installed."""
    with contextlib.suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()


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


def _as_rgb(picture: Image.Image, profile: bytes) -> Image.Image:
    """Convert any mode to RGB, in sRGB."""
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        return to_srgb(Image.fromarray(_eight_bits(np.asarray(picture))), profile)
    if picture.mode in ("LA", "PA", "RGBa", "La") or picture.has_transparency_data:
        grey = picture.mode in ("1", "L", "LA", "La")
        clear = picture.convert("RGBA")
        found = to_srgb(clear.getchannel("R") if grey else clear.convert("RGB"), profile).convert("RGB")
        found.putalpha(clear.getchannel("A"))
        return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), found).convert("RGB")
    return to_srgb(picture, profile)


def _eight_bits(deep: NDArray) -> NDArray[np.uint8]:
    """Reduce deeper greys to 0..255 by their full range, or their own where they exceed it."""
    if deep.dtype.kind == "u" and deep.dtype.itemsize == 2:  # as a table, which takes an eighth of the memory
        full = 255.0 if deep.max(initial=0) <= 255 else 65535.0
        return np.rint(np.arange(65536) * (255.0 / full)).clip(0, 255).astype(np.uint8)[deep]
    grey = np.nan_to_num(np.asarray(deep, np.float64), posinf=0.0, neginf=0.0).clip(0)
    top = grey.max(initial=0.0)
    ranges = (1.0, 255.0, 65535.0) if np.issubdtype(deep.dtype, np.floating) else (255.0, 65535.0)
    full = next((full for full in ranges if top <= full), top)
    return np.rint(grey * (255.0 / full)).astype(np.uint8)


def _kind(content: bytes) -> str:
    """Say in a word what a file seems to be."""
    if content[4:8] == b"ftyp" and content[8:12] in HEIF:
        return (
            "HEIC, which phones can send as JPEG and which is read where pillow-heif is installed: "
            "`python -m pip install pillow-heif`"
        )
    if content[4:8] == b"ftyp" and content[8:12] in AVIF:
        return "AVIF, damaged or for Pillow 11.3 or later: `python -m pip install --upgrade pillow`"
    if kind := kind_of(content):
        return kind
    try:
        content[:512].decode()
    except UnicodeDecodeError:
        return f"{len(content):,} bytes of something else"
    return "text" if b"\0" not in content[:512] else f"{len(content):,} bytes of something else"


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
