"""Sharp backgrounds with fine texture: photographs at their own resolution, and patterns of many scales.

Photographs of the real world have sharp edges at all scales, which painted backgrounds lack. The model of
dead leaves (discs that cover each other, their sizes following a power law) has edges with the statistics of
natural pictures: Lee, Mumford and Huang, "Occlusion models for natural images", doi:10.1023/A:1011109015675.
"""

from functools import lru_cache
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image, ImageDraw, ImageFont

from synthhand.render.backdrop import LINEAR, paint_backdrop, paste_object
from synthhand.render.photos import crop_photo
from synthhand.render.textures import SIDE, make_texture

KINDS = ("none", "photo", "painted", "leaves", "print", "weave")
_SHEET_PX = 512
_SHEETS = 5  # of leaves and of print, each drawn once
_LEAVES = 2600  # in a sheet
_LEAF_PX = (2.0, 110.0)  # radii; as many in each octave of area
_BELOW = 150  # large ones, drawn first
_PALETTES = ("astronaut", "chelsea", "coffee", "rocket")
_LETTERS = "etaoinshrdlucmfwypvbgkjqxzETAOINSHRDLUCM0123456789.,-:;()"
_PAINTED = ("room", "garden", "surface")


def paint_detail(kind: str, seed: int, size: int, backgrounds: Path | None = None) -> np.ndarray:
    """Paint a sharp background of one of `KINDS`, but for "none".

    Args:
        kind: what to paint.
        seed: the picture depends on it and on the other arguments alone.
        size: side in pixels.
        backgrounds: folder of photographs, see `crop_photo`; None for those of scikit-image.

    Returns:
        (size, size, 3) float32 linear reflectance.

    Raises:
        FileNotFoundError, ValueError: as `paint_backdrop`.
    """
    rng = np.random.default_rng(seed)
    if kind == "painted":
        chosen = _PAINTED[int(rng.integers(len(_PAINTED)))]
        return paint_backdrop(seed, size, kind=chosen, focus=1.0)
    if kind == "photo":
        canvas = crop_photo(rng, size, backgrounds, sharp=True)
        gains = np.exp(rng.normal(0, 0.15) + rng.normal(0, 0.06, 3))
        canvas = canvas.point((gains[:, None] * np.arange(256)).clip(0, 255).astype(int).ravel().tolist())
    elif kind == "weave":
        canvas = _weave(rng, size)
    else:
        draw = _draw_leaves if kind == "leaves" else _draw_print
        canvas = _cut(rng, draw(int(rng.integers(_SHEETS))), size)
    for _ in range(int(rng.integers(0, 3))):
        paste_object(rng, canvas)
    return LINEAR.take(np.asarray(canvas).astype(np.intp), mode="clip")


def _cut(rng: np.random.Generator, sheet: Image.Image, size: int) -> Image.Image:
    """Cut a turned and mirrored square out of a sheet, in other colours."""
    cut = min(_SHEET_PX, size * float(np.exp(rng.uniform(np.log(0.6), np.log(1.6)))))
    left, top = rng.uniform(0, _SHEET_PX - cut, 2)
    piece = sheet.resize((size, size), Image.Resampling.BICUBIC, (left, top, left + cut, top + cut))
    piece = piece.transpose(Image.Transpose(int(rng.integers(7))))
    # Mix the colours a little, then let brightness and contrast vary.
    mix = np.eye(3) + rng.normal(0, 0.13, (3, 3))
    mix /= mix.sum(1, keepdims=True)
    gain, lift = np.exp(rng.normal(0, 0.25)), rng.normal(0, 18)
    return piece.convert("RGB", tuple(np.column_stack([gain * mix, np.full(3, lift)]).ravel().tolist()))


@lru_cache(maxsize=_SHEETS)
def _draw_leaves(number: int) -> Image.Image:
    """Draw a sheet of dead leaves: discs, boxes and blades in the colours of a photograph, with texture."""
    rng = np.random.default_rng(number)
    palette = np.asarray(getattr(skimage.data, _PALETTES[number % len(_PALETTES)])()).reshape(-1, 3)
    colours = palette[rng.integers(len(palette), size=_LEAVES)].astype(float)
    colours = colours * np.exp(0.15 * rng.normal(size=(_LEAVES, 1)))
    low, high = (radius**-2.0 for radius in _LEAF_PX)
    radii = (low + (high - low) * rng.random(_LEAVES)) ** -0.5
    # Large ones come first, so that no ground shows between leaves.
    radii[:_BELOW] = np.exp(rng.uniform(np.log(30), np.log(_LEAF_PX[1]), _BELOW))
    fine = 2  # drawn larger and reduced, for smooth edges
    canvas = Image.new("RGB", (fine * _SHEET_PX,) * 2, tuple(int(v) for v in colours[0].clip(0, 255)))
    draw = ImageDraw.Draw(canvas)
    for radius, colour in zip(radii, colours, strict=True):
        x, y = rng.uniform(0, fine * _SHEET_PX, 2)
        angle, thin, form = rng.uniform(0, np.pi), rng.uniform(0.12, 1), rng.random()
        along = fine * radius * np.array([np.cos(angle), np.sin(angle)])
        aside = thin * np.array([-along[1], along[0]])
        fill = tuple(int(v) for v in colour.clip(0, 255))
        if form < 0.3:
            draw.ellipse(
                [x - fine * radius, y - fine * radius, x + fine * radius, y + fine * radius], fill=fill
            )
            continue
        if form < 0.6:
            ways = [(1, 1), (1, -1), (-1, -1), (-1, 1)]
        else:  # a blade
            ways = [
                (1.6 * np.cos(t), np.sin(t) * (1 + 0.4 * np.cos(t))) for t in np.linspace(0, 2 * np.pi, 12)
            ]
        draw.polygon([tuple(np.array([x, y]) + a * along + b * aside) for a, b in ways], fill=fill)
    pixels = np.asarray(canvas.reduce(fine)).astype(np.float32)
    return Image.fromarray((pixels * _grain(rng)[..., None]).clip(0, 255).astype(np.uint8))


def _grain(rng: np.random.Generator) -> np.ndarray:
    """Return a fine pattern (sheet, sheet) about 1, of several materials in patches."""
    names = rng.choice(["grass", "gravel", "cloth", "carpet", "wood", "leaves"], 3, replace=False)
    times = _SHEET_PX // SIDE
    layers = [
        np.tile(make_texture(str(name)), (times, times)).astype(np.float32) / 255 - 0.5 for name in names
    ]
    patches = np.tile(make_texture("clouds"), (times, times)) // 86
    return 1 + 0.55 * np.choose(patches.clip(0, 2), layers)


@lru_cache(maxsize=_SHEETS)
def _draw_print(number: int) -> Image.Image:
    """Draw a sheet of columns of letters in several sizes, on paper or on a screen, between pictures."""
    rng = np.random.default_rng(100 + number)
    paper, ink = rng.uniform(170, 255, 3), rng.uniform(0, 70, 3)
    if rng.random() < 0.4:
        paper, ink = ink, paper
    canvas = Image.new("RGB", (_SHEET_PX, _SHEET_PX), tuple(int(v) for v in paper))
    draw = ImageDraw.Draw(canvas)
    letters = np.array([*_LETTERS, *[" "] * 12])
    y = 4
    while y < _SHEET_PX:
        height = int(rng.choice([8, 9, 10, 12, 15, 22, 40], p=[0.2, 0.2, 0.2, 0.15, 0.1, 0.1, 0.05]))
        font = ImageFont.load_default(height)
        lines = int(rng.integers(1, 9)) if height < 20 else 1
        colour = ink if rng.random() < 0.75 else rng.uniform(0, 255, 3)
        left = int(rng.integers(0, 60))
        for _ in range(lines):
            words = "".join(rng.choice(letters, int((_SHEET_PX - left) / height * 2)))
            draw.text((left, y), words, fill=tuple(int(v) for v in colour), font=font)
            y += int(1.3 * height)
        if rng.random() < 0.25:
            wide = int(rng.integers(60, 260))
            canvas.paste(crop_photo(rng, wide), (int(rng.integers(0, _SHEET_PX - wide)), y))
        y += height
    return canvas


def _weave(rng: np.random.Generator, size: int) -> Image.Image:
    """Paint a woven cloth: stripes, checks or a tartan of coloured threads, at times with printed spots."""
    count = int(rng.integers(2, 6))
    colours = rng.uniform(8, 245, (count, 1)) * np.exp(0.3 * rng.normal(size=(count, 3)))
    thread_px = rng.uniform(1.2, 4.0) * size / 320
    order = np.repeat(rng.integers(count, size=14), rng.integers(1, 15, 14))
    along = colours[np.concatenate([order, order[::-1]])]
    across = along if rng.random() < 0.6 else colours[rng.integers(count, size=1)]
    angle = rng.uniform(0, np.pi)
    c, s = np.float32(np.cos(angle) / thread_px), np.float32(np.sin(angle) / thread_px)
    x = np.arange(size, dtype=np.float32)
    bend = rng.uniform(0, 2.5) * np.sin(x / size * np.float32(rng.uniform(2, 9)))  # cloth is not flat
    u = (c * x + s * x[:, None] + bend.astype(np.float32)[:, None] + 999).astype(np.int32)
    v = (-s * x + c * x[:, None] + bend.astype(np.float32) + 4999).astype(np.int32)
    over = ((u + v) % (4 if rng.random() < 0.5 else 2) < 2)[..., None]
    pixels = np.where(over, along[u % len(along)], across[v % len(across)]).clip(2, 250)
    return Image.fromarray(pixels.astype(np.uint8))
