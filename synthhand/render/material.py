"""Colour and gloss of things: a pattern or a photograph on each piece, laid on by its form."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from synthhand.model.things import Piece, Thing
from synthhand.render.appearance import Surface
from synthhand.render.backdrop import LINEAR
from synthhand.render.photos import crop_photo
from synthhand.render.textures import MATERIALS, SIDE, material_colours, shrink_texture

_LEAST_PX, _PHOTO_PX = 8, 256  # bounds of the side of a photograph on a thing
_MOST_SHRUNK = 5  # patterns are halved so many times at most
_SHINY = {"metal": 0.55, "plastic": 0.18, "matt": 0.03, "glass": 0.35}


@dataclass(frozen=True)
class Coat:
    """What covers a piece.

    Attributes:
        picture: (s, s, 3) of linear reflectance, float32, periodic.
        px_per_mm: its scale.
        gloss: strength of highlights.
    """

    picture: np.ndarray
    px_per_mm: float
    gloss: float


@dataclass(frozen=True)
class Material:
    """The look of a thing.

    Attributes:
        pieces: the thing's.
        coats: one for each piece.
    """

    pieces: tuple[Piece, ...]
    coats: tuple[Coat, ...]


def sample_material(
    rng: np.random.Generator, thing: Thing, mm_per_px: float, backgrounds: Path | None = None
) -> Material:
    """Sample a look for a thing: printed photographs, woven, painted, plain, of metal, plastic or wood.

    Args:
        rng: source of randomness.
        thing: what gets the look.
        mm_per_px: size of a pixel of the frame at the thing; finer detail is averaged.
        backgrounds: folder of photographs, see `synthhand.render.photos.crop_photo`.
    """
    coats = [_sample_coat(rng, thing.pieces[0], mm_per_px, backgrounds)]
    for piece in thing.pieces[1:]:
        coats.append(coats[0] if rng.random() < 0.3 else _sample_coat(rng, piece, mm_per_px, None))
    return Material(thing.pieces, tuple(coats))


def _sample_coat(rng: np.random.Generator, piece: Piece, mm_per_px: float, backgrounds: Path | None) -> Coat:
    kind = rng.random()
    gloss = float(rng.choice([*_SHINY.values()]) * rng.uniform(0.6, 1.2))
    if kind < 0.3:  # a label, a cover or a screen
        repeat = int(rng.integers(1, 3)) if piece.form == "tube" else 1
        extent = 2 * np.pi * piece.half[0] / repeat if piece.form != "block" else 2 * np.sort(piece.half)[1]
        side = int(np.clip(extent / mm_per_px, _LEAST_PX, _PHOTO_PX))
        picture = np.asarray(crop_photo(rng, side, backgrounds))
        scale = side / max(extent, 4.0)
    elif kind < 0.45:  # plain, as moulded plastic or bare metal
        base = rng.uniform(8, 245) * np.exp(rng.uniform(0.0, 0.7) * rng.normal(size=3))
        picture = np.broadcast_to(base.clip(4, 250).astype(np.uint8), (16, 16, 3))
        scale = 1.0
    else:
        name = list(MATERIALS)[int(rng.integers(len(MATERIALS)))]
        scale = SIDE / float(np.exp(rng.uniform(np.log(45), np.log(260))))
        level = int(np.clip(np.round(np.log2(scale * mm_per_px)), 0, _MOST_SHRUNK))
        pattern = shrink_texture(name, level)
        picture, scale = material_colours(rng, name).take(pattern.astype(np.intp), axis=0), scale * 0.5**level
    return Coat(LINEAR.take(picture.astype(np.intp), mode="clip"), float(scale), gloss)


def shade_material(material: Material, at: Surface) -> tuple[np.ndarray, np.ndarray]:
    """Return the reflectance (3, n), linear RGB, and the gloss (n,) of points of a thing."""
    colour = np.empty((3, len(at.parts)), np.float32)
    gloss = np.empty(len(at.parts), np.float32)
    for number, (piece, coat) in enumerate(zip(material.pieces, material.coats, strict=True)):
        there = np.flatnonzero(at.parts == number)
        if len(there):
            u, v = _unroll(piece, at.rest_mm.take(there, axis=1))
            colour[:, there] = _read(coat, u, v).T
            gloss[there] = coat.gloss
    return colour, gloss


def _unroll(piece: Piece, rest_mm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return places (n,), (n,) in mm on a flat coat, of points (3, n) within the piece."""
    x, y, z = rest_mm
    if piece.form == "block":
        a, b, c = (np.abs(row) / half for row, half in zip(rest_mm, piece.half, strict=True))
        on_z, on_y = (c >= a) & (c >= b), b > a
        u = np.where(on_z, x, np.where(on_y, x, y))
        return u + piece.half[0], np.where(on_z, y, z) + piece.half[1]
    around = np.arctan2(y, x) * piece.half[0]
    if piece.form == "ball":
        return around, np.arcsin((z / piece.half[0]).clip(-1, 1)) * piece.half[0]
    cap = np.abs(z) > piece.half[2] - np.float32(0.3)
    return np.where(cap, x, around), np.where(cap, y, z)


def _read(coat: Coat, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Return the colours (n, 3) at places (n,), (n,) in mm, between the four nearest pixels."""
    picture = coat.picture
    side, scale = len(picture), np.float32(coat.px_per_mm)
    column, row = u * scale, v * scale
    left, top = np.floor(column), np.floor(row)
    across, down = (column - left)[:, None], (row - top)[:, None]
    left, top = left.astype(np.intp) % side, top.astype(np.intp) % side
    right, low = (left + 1) % side, (top + 1) % side
    flat = picture.reshape(-1, 3)
    upper = (
        flat.take(top * side + left, axis=0) * (1 - across) + flat.take(top * side + right, axis=0) * across
    )
    lower = (
        flat.take(low * side + left, axis=0) * (1 - across) + flat.take(low * side + right, axis=0) * across
    )
    return upper * (1 - down) + lower * down
