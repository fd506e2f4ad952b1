"""Colour and gloss of things: a pattern or a photograph on each piece, laid on by its form."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from synthhand.model.things import Piece, Thing
from synthhand.render.appearance import Surface
from synthhand.render.backdrop import LINEAR
from synthhand.render.photos import crop_photo
from synthhand.render.textures import MATERIALS, SIDE, make_texture, material_colours

_PHOTO_PX = 192  # side of a photograph on a thing
_SHINY = {"metal": 0.55, "plastic": 0.18, "matt": 0.03, "glass": 0.35}


@dataclass(frozen=True)
class Coat:
    """What covers a piece.

    Attributes:
        levels: pictures (s, s, 3) of linear reflectance, float32, periodic, each half as large as the last.
        px_per_mm: scale of the first.
        gloss: strength of highlights.
    """

    levels: tuple[np.ndarray, ...]
    px_per_mm: float
    gloss: float


@dataclass(frozen=True)
class Material:
    """The look of a thing.

    Attributes:
        pieces: the thing's.
        coats: one for each piece.
        mm_per_px: size of a pixel of the frame at the thing; finer detail is averaged.
    """

    pieces: tuple[Piece, ...]
    coats: tuple[Coat, ...]
    mm_per_px: float


def sample_material(
    rng: np.random.Generator, thing: Thing, mm_per_px: float, backgrounds: Path | None = None
) -> Material:
    """Sample a look for a thing: printed photographs, woven, painted, plain, of metal, plastic or wood."""
    main = _sample_coat(rng, thing.pieces[0], backgrounds)
    others = [main if rng.random() < 0.3 else _sample_coat(rng, piece, None) for piece in thing.pieces[1:]]
    return Material(thing.pieces, (main, *others), mm_per_px)


def _sample_coat(rng: np.random.Generator, piece: Piece, backgrounds: Path | None) -> Coat:
    kind = rng.random()
    gloss = float(rng.choice([*_SHINY.values()]) * rng.uniform(0.6, 1.2))
    if kind < 0.3:  # a label, a cover or a screen
        picture = np.asarray(crop_photo(rng, _PHOTO_PX, backgrounds))
        repeat = int(rng.integers(1, 3)) if piece.form == "tube" else 1
        extent = 2 * np.pi * piece.half[0] / repeat if piece.form != "block" else 2 * np.sort(piece.half)[1]
        scale = _PHOTO_PX / max(extent, 4.0)
    elif kind < 0.45:  # plain, as moulded plastic or bare metal
        base = rng.uniform(8, 245) * np.exp(rng.uniform(0.0, 0.7) * rng.normal(size=3))
        picture = np.broadcast_to(base.clip(4, 250).astype(np.uint8), (16, 16, 3))
        scale = 1.0
    else:
        name = list(MATERIALS)[int(rng.integers(len(MATERIALS)))]
        picture = material_colours(rng, name).take(make_texture(name).astype(np.intp), axis=0)
        scale = SIDE / float(np.exp(rng.uniform(np.log(45), np.log(260))))
    level = LINEAR.take(picture.astype(np.intp), mode="clip")
    levels = [level]
    while len(level) > 8:
        level = (level[::2, ::2] + level[1::2, ::2] + level[::2, 1::2] + level[1::2, 1::2]) * np.float32(0.25)
        levels.append(level)
    return Coat(tuple(levels), float(scale), gloss)


def shade_material(material: Material, at: Surface) -> tuple[np.ndarray, np.ndarray]:
    """Return the reflectance (3, n), linear RGB, and the gloss (n,) of points of a thing."""
    colour = np.empty((3, len(at.parts)), np.float32)
    gloss = np.empty(len(at.parts), np.float32)
    for number, (piece, coat) in enumerate(zip(material.pieces, material.coats, strict=True)):
        there = np.flatnonzero(at.parts == number)
        if len(there):
            u, v = _unroll(piece, at.rest_mm.take(there, axis=1))
            colour[:, there] = _read(coat, u, v, material.mm_per_px).T
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


def _read(coat: Coat, u: np.ndarray, v: np.ndarray, mm_per_px: float) -> np.ndarray:
    """Return the colours (n, 3) at places (n,), (n,) in mm, between the four nearest pixels."""
    level = int(np.clip(np.round(np.log2(max(coat.px_per_mm * mm_per_px, 1e-6))), 0, len(coat.levels) - 1))
    picture = coat.levels[level]
    side, scale = len(picture), np.float32(coat.px_per_mm * 0.5**level)
    column, row = u * scale, v * scale
    left, top = np.floor(column), np.floor(row)
    across, down = (column - left)[:, None], (row - top)[:, None]
    left, top = left.astype(np.intp) % side, top.astype(np.intp) % side
    right, low = (left + 1) % side, (top + 1) % side
    flat = picture.reshape(-1, 3)
    upper = flat.take(top * side + left, axis=0) * (1 - across) + flat.take(top * side + right, axis=0) * across
    lower = flat.take(low * side + left, axis=0) * (1 - across) + flat.take(low * side + right, axis=0) * across
    return upper * (1 - down) + lower * down
