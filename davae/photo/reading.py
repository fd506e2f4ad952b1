"""Read photos as people have them: rotated by EXIF, transparent, grey, CMYK, 16 bits deep, animated, damaged.

Metadata may be damaged, hostile or of odd types, and never keeps the pixels from being read:
`davae.photo.metadata` and `davae.photo.colour` use what can be understood.
"""

import contextlib
import io
import os
import struct
import threading
import warnings
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from davae.photo.colour import find_profile, to_srgb
from davae.photo.metadata import Info, read_orientation, strip_metadata
from synthhand.formats.kinds import HEIF, kind_of

MAX_PIXELS = 250_000_000  # phones take 200 million; a file of a few bytes can claim far more
WHOLE_PIXELS = 100_000_000  # a photo of more is reduced, since Pillow holds four bytes for each
MAX_ASPECT = 50  # a longer strip shows no hand
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
}  # EXIF orientation -> how to turn the picture upright
TRANSPOSING = (TURNS[5], TURNS[6], TURNS[7], TURNS[8])  # turns that exchange width and height
AVIF = (b"avif", b"avis")
PROGRAMS = (b"%!PS", b"\xc5\xd0\xd3\xc6")  # EPS: Pillow would have Ghostscript run the program in the file
_QUIET = threading.Lock()  # `warnings.catch_warnings` in two threads at once would silence both for good

Photo = str | os.PathLike | bytes | NDArray[np.uint8] | Image.Image


class PhotoError(ValueError):
    """A photo that cannot be used; the message names it, says what was found and what was expected."""


class Reduced(np.ndarray):
    """Pixels (h, w, 3) of a photo that is too large to be held whole.

    Attributes:
        photo_px: (width, height) of the whole photo; results are in its pixels. None for a part that was cut
            out of these pixels.
    """

    photo_px: tuple[int, int] | None = None

    def __array_finalize__(self, other: NDArray | None) -> None:
        """Keep the photo's size in a copy, not in a part."""
        self.photo_px = None
        if isinstance(other, Reduced) and other.shape == self.shape:
            self.photo_px = other.photo_px


def photo_px(pixels: NDArray[np.uint8]) -> tuple[int, int]:
    """Return (width, height) of the photo that `read_photo` read as these pixels (h, w, 3)."""
    return getattr(pixels, "photo_px", None) or (pixels.shape[1], pixels.shape[0])


def read_photo(photo: Photo, name: str = "") -> NDArray[np.uint8]:
    """Return a photo as people see it: (h, w, 3) RGB, in sRGB.

    It is turned upright by the orientation in EXIF or, if EXIF states none, in XMP. Colours are converted to
    sRGB (`davae.photo.colour`), transparency is laid over white, an animation gives its first picture, and 16
    bits are reduced to 8. A photo of more than `WHOLE_PIXELS` is reduced to half its width and height, or
    less; `photo_px` returns its own size.

    Args:
        photo: a file, its content, a Pillow image, or an array (h, w), (h, w, 3) or (h, w, 4) of uint8.
        name: of the photo in errors; the default is the file's name.

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
            warnings.simplefilter("ignore")  # odd metadata is no reason to refuse a photo
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
    """Return the error of a photo in a format whose decoder has a limit of its own, such as TIFF's."""
    return PhotoError(
        f"{name}: is larger than Pillow reads pictures of its kind ({_first_line(error)}); save it as JPEG, "
        "or make it smaller"
    )


def _decode(picture: Image.Image, own: bool) -> NDArray[np.uint8]:
    """Return the pixels of an opened picture, which may be modified if it is our `own`."""
    width, height = picture.size
    if picture.format == "PNG":
        picture.load()  # else `getexif` does, and the error of damaged pixels is lost
    turn, profile = TURNS.get(read_orientation(picture)), find_profile(picture)
    if picture.format == "TIFF":  # Pillow turns these itself, and rewrites all tags for it
        if own:
            _remove_tags(picture, keep_orientation=turn is not None)
        turn = None
    if own and width * height > WHOLE_PIXELS and picture.format == "JPEG" and isinstance(picture, ImageFile):
        picture.draft(None, (width // 2, height // 2))
    if picture.width * picture.height > WHOLE_PIXELS and picture.mode in ("L", "LA", "RGB", "RGBA"):
        picture = picture.reduce(2)  # before conversions, which take several times its memory
    found = _to_rgb(picture, profile)
    if found.width * found.height > WHOLE_PIXELS:
        found = found.reduce(2)
    if turn is not None:
        found = found.transpose(turn)
    pixels = np.asarray(found)
    if width * height <= WHOLE_PIXELS:
        return pixels
    reduced = pixels.view(Reduced)
    reduced.photo_px = (height, width) if turn in TRANSPOSING else (width, height)
    return reduced


def _remove_tags(picture: Image.Image, keep_orientation: bool) -> None:
    """Remove what Pillow would rewrite among a TIFF's tags."""
    exif = picture.getexif()
    for tag in list(exif):
        if not (keep_orientation and tag == ExifTags.Base.Orientation):
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
    if content.startswith(PROGRAMS):
        raise PhotoError(f"{name}: is EPS, a program that draws, and davae runs none; save it as PNG or JPEG")
    try:
        with _QUIET, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _identify(*strip_metadata(content))
    except Image.DecompressionBombError as error:
        raise _too_large(name, error) from error
    except UnidentifiedImageError:
        raise PhotoError(f"{name}: is not a picture ({_describe(content)}); {ADVICE}") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise PhotoError(f"{name}: is damaged ({_first_line(error)}); {ADVICE}") from error
    except Exception as error:
        raise wrap_unexpected(name, error) from error


def _identify(content: bytes, info: Info) -> Image.Image:
    """Open a picture of any size; `Image.open` refuses large ones."""
    if content[8:12] in HEIF:
        _register_heif()
    picture: Image.Image
    try:
        picture = Image.open(io.BytesIO(content))
    except Image.DecompressionBombError:  # its limit is the whole process's, so it stays
        picture = _open_large(content)
    except (UnidentifiedImageError, ValueError):
        if content[8:12] not in AVIF:
            raise
        # Pillow opens no AVIF with EXIF that it cannot read; under another name it ignores it.
        boxes, data, rest = content.partition(b"mdat")
        picture = Image.open(io.BytesIO(boxes.replace(b"Exif", b"none") + data + rest))
    picture.info.update(info)
    return picture


def _open_large(content: bytes) -> Image.Image:
    for factory, accepts in Image.OPEN.values():
        if accepts is not None and accepts(content[:16]) is True:
            with contextlib.suppress(SyntaxError, IndexError, TypeError, struct.error):  # another format's
                return factory(io.BytesIO(content), "")
    raise UnidentifiedImageError("no plug-in of Pillow knows it")


@lru_cache(maxsize=1)
def _register_heif() -> None:
    """Register pillow-heif, with which Pillow reads HEIC, if it is installed."""
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


def _to_rgb(picture: Image.Image, profile: bytes) -> Image.Image:
    """Return a picture of any mode as RGB, in sRGB."""
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        return to_srgb(Image.fromarray(_reduce_depth(np.asarray(picture))), profile)
    if picture.mode in ("LA", "PA", "RGBa", "La") or picture.has_transparency_data:
        grey = picture.mode in ("1", "L", "LA", "La")
        clear = picture.convert("RGBA")
        found = to_srgb(clear.getchannel("R") if grey else clear.convert("RGB"), profile).convert("RGB")
        found.putalpha(clear.getchannel("A"))
        return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), found).convert("RGB")
    return to_srgb(picture, profile)


def _reduce_depth(deep: NDArray) -> NDArray[np.uint8]:
    """Return deeper greys on 0..255, by their type's range or, if they exceed it, by their own."""
    if deep.dtype.kind == "u" and deep.dtype.itemsize == 2:  # by a table, in an eighth of the memory
        full = 255.0 if deep.max(initial=0) <= 255 else 65535.0
        return np.rint(np.arange(65536) * (255.0 / full)).clip(0, 255).astype(np.uint8)[deep]
    grey = np.nan_to_num(np.asarray(deep, np.float64), posinf=0.0, neginf=0.0).clip(0)
    top = grey.max(initial=0.0)
    ranges = (1.0, 255.0, 65535.0) if np.issubdtype(deep.dtype, np.floating) else (255.0, 65535.0)
    full = next((full for full in ranges if top <= full), top)
    return np.rint(grey * (255.0 / full)).astype(np.uint8)


def _describe(content: bytes) -> str:
    """Say in a few words what a file seems to be."""
    if content[4:8] == b"ftyp" and content[8:12] in HEIF:
        return (
            "HEIC, which phones can send as JPEG; davae reads it with pillow-heif: "
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
