"""Backgrounds: photographs, rooms, gardens, surfaces, out-of-focus lights or noise, with objects in front."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from synthhand.render.appearance import skin_colour
from synthhand.render.photos import crop_photo
from synthhand.render.textures import MATERIALS, SIDE, material_colours, shrink_texture

KINDS = ("photo", "room", "garden", "surface", "bokeh", "noise")
_CUMULATIVE = np.cumsum((0.36, 0.22, 0.15, 0.16, 0.05, 0.06))  # of the shares of `KINDS`
_FLOORS = ("planks", "wood", "tiles", "carpet", "marble", "plaster")
_WALLS = ("plaster", "plaster", "clouds", "bricks", "wood", "folds", "tiles", "shelf")
_GROUNDS = ("grass", "gravel", "leaves", "plaster", "carpet")
_OBJECTS = ("plaster", "wood", "cloth", "folds", "print", "shelf", "tiles", "marble")
_SHADOW_OPACITY = [v // 3 for v in range(256)]  # by the opacity of the object that casts the shadow
_UNIT_PX = 160  # pattern sizes are given for a picture of this side


def to_linear(srgb: np.ndarray) -> np.ndarray:
    """Decode display values 0..1 (sRGB) to linear light."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def to_display(linear: np.ndarray) -> np.ndarray:
    """Encode linear light as display values 0..1 (sRGB); light outside 0..1 is clipped."""
    linear = np.clip(linear, 0, 1)
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)


LINEAR = to_linear(np.arange(256) / 255).astype(np.float32)


def paint_backdrop(
    seed: int,
    size: int,
    backgrounds: Path | None = None,
    kind: str | None = None,
    focus: float | None = None,
) -> np.ndarray:
    """Paint a background.

    Args:
        seed: the picture depends on it and on the other arguments alone.
        size: side in pixels.
        backgrounds: a folder of pictures to cut the background from (see `crop_photo`); the default, None,
            uses scikit-image's photographs and painted pictures.
        kind: one of `KINDS`; the default, None, lets the seed choose. Ignored if `backgrounds` is given.
        focus: share of `size` at which the picture is painted; the default, None, lets the seed choose.

    Returns:
        (size, size, 3) float32 linear reflectance.

    Raises:
        FileNotFoundError: the folder does not exist or holds no picture.
        ValueError: a picture in the folder cannot be read; the message names it.
    """
    rng = np.random.default_rng(seed)
    drawn = KINDS[min(int(np.searchsorted(_CUMULATIVE, rng.random())), len(KINDS) - 1)]
    kind = "photo" if backgrounds is not None else kind or drawn
    # Painting small and enlarging makes the background look out of focus.
    drawn_focus = rng.choice([1.0, 0.5, 0.3], p=[0.55, 0.3, 0.15] if kind == "photo" else [0.0, 0.7, 0.3])
    focus = float(drawn_focus) if focus is None else focus
    side = max(16, round(size * focus))
    if kind == "photo":
        gains = np.exp(rng.normal(0, 0.12) + rng.normal(0, 0.05, 3))
        tones = (gains[:, None] * np.arange(256) + 2).clip(0, 255).astype(int)
        canvas = crop_photo(rng, side, backgrounds).point(tones.ravel().tolist())
    else:
        painters = (_paint_room, _paint_garden, _paint_surface, _paint_bokeh, _paint_clouds)
        canvas = _shade(rng, painters[KINDS.index(kind) - 1](rng, side))
    if backgrounds is None:
        for _ in range(int(rng.integers(0, 2 if kind == "photo" else 5))):
            paste_object(rng, canvas)
        if kind in ("room", "garden") and rng.random() < 0.3:
            _paste_person(rng, canvas)
    if kind not in ("photo", "noise"):
        canvas = canvas.filter(ImageFilter.BoxBlur(0.55))  # smooths jagged edges, which no lens produces
    if side != size:
        canvas = canvas.resize((size, size), Image.Resampling.BILINEAR)
    return LINEAR.take(np.asarray(canvas).astype(np.intp), mode="clip")


def _paint_plane(
    rng, name: str, width: int, height: int, near: float = 1.0, tilt: float = 0.0
) -> Image.Image:
    """Return a picture of a flat surface.

    Args:
        rng: chooses offset, angle and colours of the pattern.
        name: the material, one of `MATERIALS`.
        width: width of the picture, px.
        height: height of the picture, px.
        near: repeats of the pattern across `_UNIT_PX`.
        tilt: 0 for a surface that faces the camera, up to about 0.9 for one that recedes fast at the top.
    """
    x = np.linspace(-0.5, 0.5, width, dtype=np.float32) * np.float32(width / _UNIT_PX)
    y = np.linspace(0.5, -0.5, height, dtype=np.float32)
    depth = (1 / (1 - tilt * (0.5 + y)))[:, None].astype(np.float32)  # farther at the top
    across, up = x * depth, (y[:, None] + np.float32(0.5)) * depth * np.float32(height / _UNIT_PX)
    angle = rng.normal(0, 0.1) if rng.random() < 0.7 else rng.uniform(-1.6, 1.6)
    c, s = np.float32(near * SIDE * np.cos(angle)), np.float32(near * SIDE * np.sin(angle))
    level = int(np.clip(np.log2(max(near * SIDE / _UNIT_PX * (1 + 2 * tilt), 1)), 0, 3))
    pattern = shrink_texture(name, level)
    n, scale = SIDE >> level, np.float32(0.5**level)
    u = ((c * across - s * up) * scale + np.float32(rng.uniform(0, n))).astype(np.int32) & (n - 1)
    v = ((s * across + c * up) * scale + np.float32(rng.uniform(0, n))).astype(np.int32) & (n - 1)
    values = pattern.ravel().take((v * n + u).astype(np.intp), mode="clip")
    return Image.fromarray(material_colours(rng, name).take(values.astype(np.intp), axis=0, mode="clip"))


def _paint_surface(rng, side: int) -> Image.Image:
    """Paint one material over the whole frame, such as a table top, a wall or a cloth."""
    name = list(MATERIALS)[int(rng.integers(len(MATERIALS)))]
    return _paint_plane(rng, name, side, side, float(np.exp(rng.uniform(-0.9, 0.6))), rng.uniform(0, 0.75))


def _paint_room(rng, side: int) -> Image.Image:
    """Paint one or two walls and a floor, with windows, pictures and doors."""
    canvas = _paint_plane(rng, str(rng.choice(_WALLS)), side, side, rng.uniform(0.4, 1.6))
    draw = ImageDraw.Draw(canvas)
    if rng.random() < 0.5:  # a second, darker wall on the left of a room corner
        edge, gain = int(side * rng.uniform(0.15, 0.85)), rng.uniform(0.6, 0.9)
        part = canvas.crop((0, 0, edge, side)).point([int(v * gain) for v in range(256)] * 3)
        canvas.paste(part, (0, 0))
    for _ in range(int(rng.integers(0, 3))):  # windows, pictures, doors
        x, y, w, h = rng.uniform((-0.1, -0.2, 0.1, 0.15), (0.9, 0.5, 0.45, 0.7)) * side
        frame = tuple(int(v) for v in material_colours(rng, "wood")[128])
        draw.rectangle(
            [x - 0.02 * side, y - 0.02 * side, x + w + 0.02 * side, y + h + 0.02 * side], fill=frame
        )
        w, h = max(int(w), 2), max(int(h), 2)
        if rng.random() < 0.5:
            pane = Image.new(
                "RGB", (w, h), tuple(int(v) for v in rng.uniform(190, 255) - rng.uniform(0, 40, 3))
            )
        else:
            pane = _paint_plane(rng, str(rng.choice(_OBJECTS)), w, h)
        canvas.paste(pane, (int(x), int(y)))
    horizon = int(side * rng.uniform(0.45, 1.05))
    if horizon < side - 4:
        floor = _paint_plane(
            rng, str(rng.choice(_FLOORS)), side, side - horizon, rng.uniform(0.4, 1.2), rng.uniform(0.5, 0.9)
        )
        canvas.paste(floor, (0, horizon))
        if rng.random() < 0.6:
            board = tuple(int(v) for v in material_colours(rng, "plaster")[int(rng.integers(256))])
            draw.rectangle([0, horizon - 0.03 * side, side, horizon], fill=board)
    return canvas


def _paint_garden(rng, side: int) -> Image.Image:
    """Paint sky, leaves and ground."""
    horizon = int(side * rng.uniform(0.1, 0.85))
    top, low = (
        np.array([(88, 128, 190), (196, 212, 230)], float) + rng.normal(0, 18, (2, 3)) + rng.normal(0, 25)
    )
    ramp = top + (low - top) * np.linspace(0, 1, side)[:, None]
    sky = np.broadcast_to(ramp[:, None], (side, side, 3)).clip(0, 255).astype(np.uint8)
    canvas = Image.fromarray(np.ascontiguousarray(sky))
    ground = _paint_plane(
        rng,
        str(rng.choice(_GROUNDS)),
        side,
        max(side - horizon, 2),
        rng.uniform(0.6, 1.5),
        rng.uniform(0.4, 0.9),
    )
    canvas.paste(ground, (0, horizon))
    leaves = _paint_plane(rng, "leaves", side, side, rng.uniform(0.4, 1.4))
    # Leaves appear where a low-frequency noise exceeds a threshold; the threshold rises with height.
    rough = shrink_texture("clouds" if rng.random() < 0.5 else "leaves", 3)
    at = rng.integers(0, 32, 2)
    field = np.roll(rough, at, (0, 1))[:24, :24]
    field = np.asarray(Image.fromarray(field).resize((side, side), Image.Resampling.BICUBIC), np.float32)
    above = (horizon - np.arange(side, dtype=np.float32))[:, None] * (255 / side / rng.uniform(0.2, 1.2))
    mask = ((field - above + rng.uniform(-40, 120)) * 6).clip(0, 255)
    mask[min(horizon + int(rng.uniform(-0.02, 0.1) * side), side) :] = 0
    canvas.paste(leaves, (0, 0), Image.fromarray(mask.astype(np.uint8)))
    draw = ImageDraw.Draw(canvas)
    for _ in range(int(rng.integers(0, 4))):  # trunks and posts
        x, width = rng.uniform(0, side), max(1, int(side * rng.uniform(0.008, 0.06)))
        bark = tuple(int(v) for v in material_colours(rng, "wood")[60])
        draw.line(
            [x, rng.uniform(-0.2, 0.5) * side, x + rng.normal(0, 0.06) * side, horizon],
            fill=bark,
            width=width,
        )
    return canvas


def _paint_bokeh(rng, side: int) -> Image.Image:
    """Paint small out-of-focus lights in front of a dark background."""
    canvas = _paint_plane(rng, "clouds", side, side, 0.4).point([v // 4 for v in range(256)] * 3)
    draw = ImageDraw.Draw(canvas, "RGBA")
    radius = side * rng.uniform(0.02, 0.09)
    warm = rng.uniform(80, 255, (3, 3)) * 0.5 + rng.uniform(120, 255, (3, 1)) * 0.5
    for x, y, size, pick, alpha in rng.uniform((0, 0, 0.6, 0, 40), (side, side, 1.2, 3, 190), (24, 5)):
        r = radius * size
        fill = (*(int(v) for v in warm[int(pick)]), int(alpha))
        draw.ellipse([x - r, y - r, x + r, y + r], fill=fill)
    return canvas


def _paint_clouds(rng, side: int) -> Image.Image:
    """Paint gradients and noise of any colour."""
    light, contrast = rng.uniform(0.08, 0.85), rng.uniform(0.05, 0.3)
    picture = light + contrast * rng.normal(size=(2, 2, 1)) + 0.06 * rng.normal(size=(2, 2, 3))
    roughness, strength = rng.uniform(0.4, 0.9), rng.uniform(0.0, 0.14)
    tint = np.array([1.0, 1.0, 1.0]) + 0.2 * rng.normal(size=3)
    for octave in range(6):  # each finer grid adds weaker noise
        cells = 2 ** (octave + 1) + 1
        picture = _enlarge(picture, cells)
        grey, hue = rng.normal(size=(cells, cells, 1)), rng.normal(size=(cells, cells, 3))
        picture = picture + strength * roughness**octave * (grey * tint + 0.14 * hue)
    canvas = Image.fromarray((picture.clip(0, 1) * 255).astype(np.uint8))
    return canvas.resize((side, side), Image.Resampling.BICUBIC)


def _enlarge(values: np.ndarray, size: int) -> np.ndarray:
    """Enlarge a picture (h, w, 3) smoothly to (size, size, 3)."""
    layers = [Image.fromarray(values[..., k].astype(np.float32)) for k in range(3)]
    return np.stack([np.asarray(p.resize((size, size), Image.Resampling.BICUBIC)) for p in layers], axis=-1)


def _shade(rng, canvas: Image.Image) -> Image.Image:
    """Return the picture under uneven light."""
    cells = int(rng.integers(2, 5))
    field = (0.8 + rng.uniform(0.05, 0.3) * rng.normal(size=(cells, cells))).clip(0.15, 1.25) * 200
    field = Image.fromarray(field.astype(np.uint8)).resize(canvas.size, Image.Resampling.BICUBIC)
    pixels = np.asarray(canvas).astype(np.uint16)
    pixels *= np.asarray(field)[:, :, None]
    return Image.fromarray((pixels // 200).clip(0, 255).astype(np.uint8))


def paste_object(rng, canvas: Image.Image) -> None:
    """Paste an object of a random material or of skin; half of them cast a shadow."""
    size = canvas.width
    side = int(2 * size * np.exp(rng.uniform(np.log(0.04), np.log(0.3)))) + 3
    mask, angle = _draw_outline(rng, side)
    if rng.random() < 0.25:
        skin = to_display(skin_colour(rng.uniform(0, 2.4), rng.uniform(0.1, 0.6)) * rng.uniform(0.3, 1))
        pixels = np.full((side, side, 3), 255 * skin, np.float32)
    else:
        pixels = np.asarray(
            _paint_plane(rng, str(rng.choice(_OBJECTS)), side, side, rng.uniform(0.5, 1.5)), np.float32
        )
    # Brightness changes linearly across the long axis, as under light from one side.
    x = np.linspace(-1, 1, side, dtype=np.float32)
    ramp = np.float32(np.cos(angle)) * x[:, None] - np.float32(np.sin(angle)) * x
    pixels = pixels * (0.85 + np.float32(rng.uniform(-0.5, 0.5)) * ramp).clip(0.2, 1.3)[:, :, None]
    left, top = (int(v) - side // 2 for v in rng.uniform(-0.1, 1.1, 2) * size)
    down, across = (int(v) for v in rng.normal(0, 0.03, 2) * side)
    if rng.random() < 0.5:
        canvas.paste((0, 0, 0), (left + across, top + down), mask.point(_SHADOW_OPACITY))
    canvas.paste(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), (left, top), mask)


def _paste_person(rng, canvas: Image.Image) -> None:
    """Paste a person's head and shoulders."""
    size = canvas.width
    wide, x, y = size * rng.uniform((0.25, 0.0, 0.05), (0.6, 1.0, 0.5))
    side = int(2 * wide)
    mask = Image.new("L", (side, side))
    draw = ImageDraw.Draw(mask)
    draw.rounded_rectangle([0.5 * wide, 0.15 * wide, 1.5 * wide, 3 * wide], 0.3 * wide, fill=255)
    clothes = _paint_plane(rng, str(rng.choice(("cloth", "folds"))), side, side, rng.uniform(0.3, 0.9))
    left, top = int(x - wide), int(y + 0.35 * wide)
    canvas.paste(clothes, (left, top), mask)
    skin = to_display(skin_colour(rng.uniform(0.1, 3.0), 0.3) * rng.uniform(0.3, 0.9))
    hair = tuple(int(v) for v in rng.uniform(10, 90) * np.array([1.0, 0.8, 0.65]))
    face, shaded = (tuple(int(255 * gain * v) for v in skin) for gain in (1.0, 0.75))
    draw = ImageDraw.Draw(canvas)
    r = 0.24 * wide
    draw.rectangle([x - 0.5 * r, y, x + 0.5 * r, y + 0.6 * wide], fill=shaded)
    draw.ellipse([x - 1.08 * r, y - 1.4 * r, x + 1.08 * r, y + 0.9 * r], fill=hair)
    draw.ellipse([x - 0.85 * r, y - 0.9 * r, x + 0.85 * r, y + 1.4 * r], fill=face)


def _draw_outline(rng, side: int) -> tuple[Image.Image, float]:
    """Return the mask (side, side) of a ball, box, scrap, limb or rods, and the angle of its long axis."""
    mask, half = (
        Image.new("L", (2 * side, 2 * side)),
        float(side),
    )  # drawn at twice the size, then reduced: smooth borders
    draw, kind, angle = ImageDraw.Draw(mask), int(rng.integers(5)), rng.uniform(0, 2 * np.pi)
    along = half * np.array([np.cos(angle), np.sin(angle)])
    aside = np.array([-along[1], along[0]])
    middle = np.array([half, half])
    if kind == 0:
        flat = half * rng.uniform(0.5, 1)
        draw.ellipse([0, half - flat, 2 * side - 1, half + flat], fill=255)
    elif kind == 1:
        thin = rng.uniform(0.2, 1)
        corners = [0.7 * (a * along + b * thin * aside) for a, b in ((1, 1), (1, -1), (-1, -1), (-1, 1))]
        draw.polygon([tuple(middle + corner) for corner in corners], fill=255)
    elif kind == 2:
        turns = angle + np.arange(7) * 2 * np.pi / 7
        far = half * rng.uniform(0.4, 1, 7)
        draw.polygon(
            [(half + r * np.cos(t), half + r * np.sin(t)) for r, t in zip(far, turns, strict=True)], fill=255
        )
    elif kind == 3:  # a limb, such as an arm or a table leg
        width = max(1, int(2 * side * rng.uniform(0.08, 0.3)))
        ends = middle - 0.8 * along, middle + 0.8 * along
        draw.line([*ends[0], *ends[1]], fill=255, width=width)
        for x, y in ends:
            draw.ellipse([x - width / 2, y - width / 2, x + width / 2, y + width / 2], fill=255)
    else:  # parallel rods resemble fingers: negative examples for the network
        width, rods = max(1, int(2 * side * rng.uniform(0.06, 0.13))), int(rng.integers(2, 6))
        for k in range(rods):
            start = middle - 0.7 * along + aside * (1.5 * width / half) * (k - rods / 2)
            draw.line([*start, *(start + rng.uniform(0.9, 1.4) * along)], fill=255, width=width)
    return mask.reduce(2), angle
