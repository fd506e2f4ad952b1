"""Photographs as backgrounds: those that come with scikit-image, or the user's own folder."""

from functools import lru_cache
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image

from synthhand.render.textures import material_colours

# Part of scikit-image's package (nothing is downloaded), and free of rights: CC0 or public domain.
# Colour pictures are listed twice, so they come twice as often. Grey pictures get colours of their material.
_SHIPPED = (*("astronaut", "chelsea", "coffee", "rocket") * 2, "camera", "brick", "grass", "gravel")
_GREY = {"brick": "bricks", "grass": "grass", "gravel": "gravel"}
_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")
_LONGEST_PX = 640  # longest side of pictures kept in memory; a frame rarely shows more
_SHARP_PX = 1280  # of those that are cut sharp: at most 4 MB each, 32 of them


def crop_photo(
    rng: np.random.Generator, side: int, folder: Path | None = None, sharp: bool = False
) -> Image.Image:
    """Cut a random square out of a photograph, mirrored half of the time, and scale it.

    Args:
        rng: chooses the photograph, the square and whether to mirror it.
        side: side of the result in pixels.
        folder: where to look for photographs, sorted by name; None for those of scikit-image.
        sharp: cut no square that would have to be enlarged, and keep pictures of the folder larger for that.

    Raises:
        FileNotFoundError: the folder does not exist or holds no picture.
        ValueError: a picture cannot be read; the message names it.
    """
    pick = rng.random()
    if folder is None:
        name = _SHIPPED[int(pick * len(_SHIPPED))]
        picture = _load_shipped(name)
    else:
        paths = list_pictures(Path(folder))
        picture = _read(paths[int(pick * len(paths))], _SHARP_PX if sharp else _LONGEST_PX)
    least = min(1.0, side / min(picture.size)) if sharp else 0.4
    cut = min(picture.size) * rng.uniform(least, 1.0)
    left, top = (rng.random() * (length - cut) for length in picture.size)
    crop = picture.resize(
        (side, side), Image.Resampling.BILINEAR, (left, top, left + cut, top + cut), reducing_gap=1.5
    )
    if folder is None and name in _GREY:
        colours = material_colours(rng, _GREY[name])
        crop = Image.fromarray(colours.take(np.asarray(crop.getchannel(0)).astype(np.intp), axis=0))
    return crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else crop


@lru_cache
def _load_shipped(name: str) -> Image.Image:
    return Image.fromarray(np.asarray(getattr(skimage.data, name)())).convert("RGB")


@lru_cache(maxsize=4)
def list_pictures(folder: Path) -> list[Path]:
    """Return the pictures in a folder, by name.

    Raises:
        FileNotFoundError: the folder does not exist or holds no picture.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; expected a folder of background pictures")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in _ENDINGS)
    if not paths:
        raise FileNotFoundError(f"{folder}: holds no picture; expected files ending in {', '.join(_ENDINGS)}")
    return paths


@lru_cache(maxsize=32)
def _read(path: Path, longest_px: int) -> Image.Image:
    try:
        with Image.open(path) as file:
            file.draft("RGB", (longest_px, longest_px))  # decodes JPEGs at a smaller size
            picture = file.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: cannot be read as a picture ({error}); repair or remove it") from error
    picture.thumbnail((longest_px, longest_px))
    return picture
