"""What lies behind the hand: gradients, cloudy noise, stripes, shapes, and things of the colour of skin."""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from davae.hand.appearance import skin_colour


def to_linear(srgb: np.ndarray) -> np.ndarray:
    """Decode display values 0..1 (sRGB) to linear light."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def to_display(linear: np.ndarray) -> np.ndarray:
    """Encode linear light to display values 0..1 (sRGB), clipping what is too bright."""
    linear = np.clip(linear, 0, 1)
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)


_LINEAR = to_linear(np.arange(256) / 255).astype(np.float32)


def backdrop(seed: int, size: int) -> np.ndarray:
    """Paint a background.

    Args:
        seed: the same seed gives the same picture.
        size: side in pixels.

    Returns:
        (size, size, 3) float32 linear reflectance.
    """
    rng = np.random.default_rng(seed)
    light, contrast = rng.uniform(0.08, 0.85), rng.uniform(0.05, 0.3)
    picture = light + contrast * rng.normal(size=(2, 2, 1)) + 0.06 * rng.normal(size=(2, 2, 3))
    roughness, strength = rng.uniform(0.4, 0.9), rng.uniform(0.0, 0.14)
    tint = np.array([1.0, 1.0, 1.0]) + 0.2 * rng.normal(size=3)
    for octave in range(6):  # clouds: each finer grid adds its own, weaker noise
        cells = 2 ** (octave + 1) + 1
        picture = _enlarge(picture, cells)
        grey, hue = rng.normal(size=(cells, cells, 1)), rng.normal(size=(cells, cells, 3))
        picture = picture + strength * roughness**octave * (grey * tint + 0.14 * hue)
    canvas = Image.fromarray((picture.clip(0, 1) * 255).astype(np.uint8))
    canvas = canvas.resize((size, size), Image.Resampling.BICUBIC)
    for _ in range(int(rng.integers(0, 4)) if rng.random() < 0.5 else int(rng.integers(4, 16))):
        _draw_something(rng, canvas)
    blur = rng.uniform(0, 3.5) * size / 320 if rng.random() < 0.7 else 0.0
    if blur > 0.2:
        canvas = canvas.filter(ImageFilter.BoxBlur(blur))
    return _LINEAR.take(np.asarray(canvas).astype(np.intp), mode="clip")


def _enlarge(values: np.ndarray, size: int) -> np.ndarray:
    """Resample a picture (h, w, 3) to (size, size, 3), smoothly."""
    layers = [Image.fromarray(values[..., k].astype(np.float32)) for k in range(3)]
    return np.stack([np.asarray(p.resize((size, size), Image.Resampling.BICUBIC)) for p in layers], axis=-1)


def _draw_something(rng: np.random.Generator, canvas: Image.Image) -> None:
    size = canvas.width
    draw = ImageDraw.Draw(canvas)
    skin = rng.random() < 0.25
    if skin:
        display = to_display(skin_colour(rng.uniform(0, 2.4), rng.uniform(0.1, 0.6)) * rng.uniform(0.3, 1))
    else:
        display = (rng.uniform(0, 1) + 0.18 * rng.normal(size=3)).clip(0, 1)
    colour = tuple(int(255 * c) for c in display)
    x, y = rng.uniform(-0.1, 1.1, size=2) * size
    kind = rng.integers(5)
    reach = size * np.exp(rng.uniform(np.log(0.03), np.log(0.45)))
    if kind == 0:
        draw.ellipse([x - reach, y - reach * 0.7, x + reach, y + reach * 0.7], fill=colour)
    elif kind == 1 or kind == 2:
        corners = 4 if kind == 1 else int(rng.integers(3, 8))
        turn = rng.uniform(0, 2 * np.pi) + np.arange(corners) * 2 * np.pi / corners
        lengths = reach * (np.ones(corners) if kind == 1 else rng.uniform(0.4, 1.2, corners))
        stretch = rng.uniform(0.3, 1)
        draw.polygon(
            [(x + r * np.cos(a), y + stretch * r * np.sin(a)) for r, a in zip(lengths, turn, strict=True)],
            fill=colour,
        )
    elif kind == 3:
        angle, width = rng.uniform(0, np.pi), max(1, int(reach * 0.25))
        dx, dy = size * np.cos(angle), size * np.sin(angle)
        draw.line([x - dx, y - dy, x + dx, y + dy], fill=colour, width=width)
    else:  # a few fingers' worth of parallel rods: the shape a network must not fall for
        angle, width = rng.uniform(0, np.pi), max(2, int(size * rng.uniform(0.015, 0.04)))
        dx, dy = np.cos(angle), np.sin(angle)
        for k in range(int(rng.integers(2, 6))):
            px, py = x - dy * 1.6 * width * k, y + dx * 1.6 * width * k
            draw.line([px, py, px + dx * reach, py + dy * reach], fill=colour, width=width)


__all__ = ["backdrop", "to_display", "to_linear"]
