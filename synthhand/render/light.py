"""Light: a soft key light, a weaker second one, an ambient sky, and the fixed patterns that sample them."""

from dataclasses import dataclass, field

import numpy as np

from synthhand.model.rig import cross_rows

GOLDEN_RATIO = 0.6180339887498949  # multiples of it, modulo 1, fill [0, 1) evenly
GOLDEN_ANGLE_RAD = 2.399963  # turned by it from sample to sample, a spiral fills a disc evenly
_X, _Y = np.eye(3, dtype=np.float32)[:2, :, None]


@dataclass(frozen=True)
class Light:
    """The light of a scene; colours are linear RGB (3,), directions unit vectors towards the light.

    Attributes:
        key_direction, key_colour: main light; `key_width` is the radius of its disc over its distance.
        sky_colour, ground_colour: ambient light from above and below.
        fill_direction, fill_colour: a second light, so weak or so wide that it casts no shadow.
    """

    key_direction: np.ndarray
    key_colour: np.ndarray
    key_width: float
    sky_colour: np.ndarray
    ground_colour: np.ndarray
    fill_direction: np.ndarray = field(default_factory=lambda: np.array([0.0, 0.0, -1.0]))
    fill_colour: np.ndarray = field(default_factory=lambda: np.zeros(3))


def golden_fraction(index: np.ndarray) -> np.ndarray:
    """Return a fixed pseudo-random number in [0, 1) for each integer (golden-ratio sequence)."""
    return ((index * GOLDEN_RATIO) % 1.0).astype(np.float32)


def sample_disc(direction: np.ndarray, width: float, turn: np.ndarray, samples: int) -> np.ndarray:
    """Return directions spread evenly over a disc of light.

    Args:
        direction: (3,) unit vector to the middle of the disc.
        width: radius of the disc over its distance.
        turn: (...) angles by which the pattern is turned, radians.
        samples: number of directions.

    Returns:
        (..., samples, 3) float32 unit vectors.
    """
    helper = np.array([0.0, 0.0, 1.0] if abs(direction[2]) < 0.9 else [1.0, 0.0, 0.0])
    aside = cross_rows(direction[:, None], helper[:, None])
    aside /= np.linalg.norm(aside)
    other = cross_rows(direction[:, None], aside)
    radius = (width * np.sqrt((np.arange(samples) + 0.5) / samples)).astype(np.float32)
    angle = turn[..., None] + np.arange(samples, dtype=np.float32) * np.float32(GOLDEN_ANGLE_RAD)
    across, along = radius * np.cos(angle), radius * np.sin(angle)
    aimed = np.empty((3, *angle.shape), np.float32)
    for k, (middle, right, up) in enumerate(zip(direction, aside[:, 0], other[:, 0], strict=True)):
        aimed[k] = np.float32(middle) + (across * np.float32(right) + along * np.float32(up))
    return np.moveaxis(aimed / _length(aimed), 0, -1)


def sample_hemisphere(normals: np.ndarray, turn: np.ndarray, samples: int) -> np.ndarray:
    """Return cosine-weighted directions (n, samples, 3) around normals (n, 3), turned by (n,) radians."""
    rows = np.ascontiguousarray(normals.T)
    aside = cross_rows(rows, np.where(np.abs(rows[:1]) > 0.8, _Y, _X))
    aside /= _length(aside)
    other = cross_rows(rows, aside)
    radius = np.sqrt((np.arange(samples, dtype=np.float32) + 0.5) / samples)
    height = np.sqrt(1 - radius**2)
    angle = turn[:, None] + np.arange(samples, dtype=np.float32) * np.float32(GOLDEN_ANGLE_RAD)
    across, along = radius * np.cos(angle), radius * np.sin(angle)
    around = np.empty((3, *angle.shape), np.float32)
    for k in range(3):
        spread = across * aside[k, :, None] + along * other[k, :, None]
        around[k] = spread + height * rows[k, :, None]
    return np.moveaxis(around, 0, -1)


def _length(rows: np.ndarray) -> np.ndarray:
    """Return the lengths (...) of vectors whose coordinates are the rows (3, ...)."""
    x, y, z = rows
    return np.sqrt(x * x + y * y + z * z)
