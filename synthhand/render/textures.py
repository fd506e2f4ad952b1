"""Seamless grey patterns of common materials: wood, cloth, bricks, leaves and others.

Each pattern is computed once and cached. It holds a grey level per pixel; `material_colours` maps levels to
colours.
"""

from functools import lru_cache

import numpy as np

SIDE = 256  # period of every pattern, px; a power of two
Rgb = tuple[float, float, float]

# Pairs of display colours: the dark and the light parts of a material.
_WOOD = (((70, 40, 22), (150, 98, 58)), ((110, 74, 44), (200, 156, 108)), ((50, 34, 26), (98, 70, 52)),
         ((140, 116, 92), (214, 194, 166)), ((96, 84, 74), (160, 148, 136)))  # fmt: skip
_LEAF = (((18, 30, 12), (98, 128, 54)), ((30, 44, 20), (140, 152, 82)), ((40, 38, 18), (168, 140, 70)),
         ((14, 26, 18), (70, 104, 74)))  # fmt: skip
_STONE = (((92, 88, 82), (176, 170, 160)), ((60, 60, 64), (128, 130, 134)), ((124, 112, 96), (204, 192, 172)),
          ((70, 62, 54), (150, 136, 118)))  # fmt: skip
_BRICK = (((104, 52, 40), (178, 112, 88)), ((120, 112, 104), (196, 188, 176)),
          ((168, 160, 150), (232, 226, 218)), ((84, 64, 56), (150, 122, 104)))  # fmt: skip
_PAINT = (((196, 190, 180), (226, 220, 210)), ((170, 168, 166), (200, 198, 196)),
          ((206, 196, 172), (232, 224, 204)), ((140, 154, 164), (176, 190, 200)),
          ((154, 164, 144), (188, 198, 178)), ((214, 214, 212), (242, 242, 240)),
          ((120, 116, 112), (150, 146, 142)), ((176, 150, 138), (206, 182, 170)))  # fmt: skip
_CLOTH = (((24, 28, 42), (62, 70, 94)), ((20, 20, 22), (56, 56, 60)), ((96, 92, 86), (156, 152, 144)),
          ((92, 28, 30), (160, 64, 62)), ((40, 62, 92), (98, 126, 160)), ((150, 140, 122), (214, 206, 190)),
          ((44, 58, 46), (96, 112, 92)), ((168, 168, 170), (228, 228, 230)), ((98, 84, 110), (150, 138, 164)),
          ((150, 112, 50), (212, 176, 104)))  # fmt: skip
MATERIALS = {
    "plaster": _PAINT,
    "clouds": _PAINT + _STONE,
    "wood": _WOOD,
    "planks": _WOOD,
    "cloth": _CLOTH,
    "folds": _CLOTH,
    "carpet": _CLOTH + _STONE,
    "bricks": _BRICK,
    "tiles": _PAINT + _STONE,
    "leaves": _LEAF,
    "grass": _LEAF,
    "gravel": _STONE,
    "marble": _STONE + _PAINT,
    "shelf": _WOOD + _CLOTH,
    "print": (((40, 40, 44), (232, 230, 224)), ((70, 62, 54), (222, 212, 190))),
}


@lru_cache
def make_texture(name: str) -> np.ndarray:
    """Return the pattern (SIDE, SIDE) uint8, dark to light; its opposite borders match.

    Args:
        name: a key of `MATERIALS`.
    """
    rng = np.random.default_rng(list(MATERIALS).index(name))
    pattern = _PATTERNS[name](rng)
    low, high = np.quantile(pattern, [0.02, 0.98])
    return (((pattern - low) / (high - low)).clip(0, 1) * 255).astype(np.uint8)


@lru_cache
def shrink_texture(name: str, level: int) -> np.ndarray:
    """Return the pattern reduced by 2^level, for surfaces that are far away."""
    if level == 0:
        return make_texture(name)
    fine = shrink_texture(name, level - 1).astype(np.uint16)
    return ((fine[::2, ::2] + fine[1::2, ::2] + fine[::2, 1::2] + fine[1::2, 1::2]) // 4).astype(np.uint8)


def material_colours(rng: np.random.Generator, name: str) -> np.ndarray:
    """Draw colours (256, 3) uint8 for the levels of a pattern: the material's own, or (12 %) any colours."""
    choices = MATERIALS[name]
    dark, light = np.array(choices[int(rng.integers(len(choices)))], float)
    if rng.random() < 0.12:
        dark, light = rng.uniform(10, 240, (2, 3)) * 0.4 + 0.6 * rng.uniform(10, 240, (2, 1))
    fade = rng.uniform(0, 0.6)  # lowers the contrast, to 40 % at least
    middle = (dark + light) / 2
    dark, light = dark + fade * (middle - dark), light + fade * (middle - light)
    gain = np.exp(rng.normal(0, 0.2) + rng.normal(0, 0.05, 3))
    share = np.linspace(0, 1, 256)[:, None]
    return ((dark + (light - dark) * share) * gain).clip(2, 252).astype(np.uint8)


def _noise(rng, slope: float, stretch: float = 1.0, least: float = 0.0) -> np.ndarray:
    """Return noise (SIDE, SIDE) of unit deviation; its amplitude is frequency to the power `-slope`.

    Args:
        rng: source of the noise.
        slope: exponent; a larger one gives smoother noise.
        stretch: how many times longer structures are along x than along y.
        least: frequencies below this, in cycles per side, are left out.
    """
    frequency = np.fft.fftfreq(SIDE) * SIDE
    radius = np.hypot(frequency[:, None], stretch * frequency)
    gain = np.maximum(radius, 1.0) ** -slope * ((radius >= least) & (radius > 0))
    values = np.fft.ifft2(np.fft.fft2(rng.standard_normal((SIDE, SIDE))) * gain).real
    return values / values.std()


def _grid():
    """Return the columns x and rows y (SIDE, SIDE) of all pixels."""
    return np.meshgrid(np.arange(SIDE), np.arange(SIDE))


def _wood(rng):
    _, y = _grid()
    rings = np.sin(2 * np.pi * (6 * y / SIDE + 0.35 * _noise(rng, 1.6, stretch=8)))
    return 0.6 * rings + 0.9 * _noise(rng, 0.8, stretch=30) + 0.4 * _noise(rng, 1.5, stretch=6)


def _planks(rng):
    _, y = _grid()
    plank = y // 32
    shifted = np.stack([np.roll(row, 67 * k) for row, k in zip(_wood(rng), plank[:, 0], strict=True)])
    return shifted + 1.2 * rng.standard_normal(8)[plank] - 5.0 * (y % 32 < 1.5)


def _cloth(rng):
    x, y = _grid()
    over = ((x // 4 + y // 4) % 2).astype(float)
    thread = np.where(over > 0, np.sin(np.pi * (x % 4 + 0.5) / 4), np.sin(np.pi * (y % 4 + 0.5) / 4))
    return thread + 0.25 * over + 0.35 * _noise(rng, 0.3) + 0.5 * _noise(rng, 1.6)


def _folds(rng):
    ridges = np.sin(1.6 * _noise(rng, 2.2, stretch=2.5))
    return ridges + 0.15 * _noise(rng, 0.2)


def _blocks(rng, high: int, wide: int, shift: int, joint: float):
    """Draw bricks or tiles of `high` x `wide` px: each has a random level, the joints the level `joint`.

    Odd rows are shifted by `shift` px.
    """
    x, y = _grid()
    row = y // high
    x = x + shift * (row % 2)
    column = (x // wide) % (SIDE // wide)
    levels = rng.standard_normal((SIDE // high, SIDE // wide))
    seam = (y % high < 3) | (x % wide < 3)
    return np.where(seam, joint, 0.7 * levels[row, column]) + 0.5 * _noise(rng, 0.9)


def _leaves(rng):
    sizes = [_noise(rng, 1.0, least=least) for least in (3, 9, 22)]
    light = np.maximum.reduce([sizes[0] - 0.3, sizes[1], 0.9 * sizes[2]])
    return light + 0.7 * _noise(rng, 2.0)


def _grass(rng):
    return np.maximum(_noise(rng, 0.6, stretch=0.25), _noise(rng, 0.5, stretch=0.5)) + 0.6 * _noise(rng, 1.8)


def _gravel(rng):
    return -(np.abs(_noise(rng, 0.7, least=9)) ** 0.5) + 0.5 * _noise(rng, 1.2)


def _marble(rng):
    x, y = _grid()
    return np.sin(2 * np.pi * (2 * x + y) / SIDE + 2.2 * _noise(rng, 1.7)) ** 3 + 0.3 * _noise(rng, 1.3)


def _shelf(rng):
    """Draw four rows of upright objects, such as books, bottles and boxes."""
    rows = []
    for _ in range(4):
        ends = np.sort(rng.choice(np.arange(2, SIDE // 4), 17, replace=False)) * 4
        level = np.repeat(rng.standard_normal(18), np.diff([0, *ends, SIDE]))
        height = np.repeat(rng.integers(2, 26, 18), np.diff([0, *ends, SIDE]))
        down = np.arange(64)[:, None]
        row = np.where(down < height, -2.0, level)
        row[:, ends] = -2.0
        rows.append(np.where(down > 58, 1.0, row))
    return np.concatenate(rows) + 0.15 * _noise(rng, 1.0)


def _print(rng):
    """Draw lines of dashes that look like a printed page seen from afar."""
    x, y = _grid()
    ink = np.repeat(rng.random((SIDE // 8, SIDE // 4)) < 0.72, 4, axis=1).repeat(8, axis=0)
    written = ink & (y % 8 >= 3) & (y % 8 < 6) & (x > 20) & (x < 236)
    return 1.0 - 1.6 * written + 0.1 * _noise(rng, 1.5)


_PATTERNS = {
    "plaster": lambda rng: _noise(rng, 1.4) + 0.3 * _noise(rng, 0.2),
    "clouds": lambda rng: _noise(rng, 2.1),
    "wood": _wood,
    "planks": _planks,
    "cloth": _cloth,
    "folds": _folds,
    "carpet": lambda rng: _noise(rng, 0.4) + 0.5 * _noise(rng, 1.5),
    "bricks": lambda rng: _blocks(rng, 32, 64, 32, 1.6),
    "tiles": lambda rng: _blocks(rng, 64, 64, 0, -1.8),
    "leaves": _leaves,
    "grass": _grass,
    "gravel": _gravel,
    "marble": _marble,
    "shelf": _shelf,
    "print": _print,
}
