"""The wall behind the hands: how far it is, and the light and shadow on it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from davae.hand.light import Light, disc_directions, golden_fraction

_SAMPLES = 4
_BINOMIAL = np.array([1, 4, 6, 4, 1], np.float32) / 16


@dataclass(frozen=True)
class Wall:
    """The background: a picture on a plane.

    Attributes:
        picture: (size, size, 3) linear reflectance.
        depth_mm: depth at the middle of the frame.
        slope: relative change of depth across the frame, to the right and down.
    """

    picture: np.ndarray
    depth_mm: float
    slope: tuple[float, float]


def pixel_rays(u: np.ndarray, v: np.ndarray, K: np.ndarray) -> np.ndarray:
    """Directions (..., 3) with z = 1 through the pixels (u, v) (...)."""
    rays = np.ones((*np.shape(u), 3), np.float32)
    rays[..., 0], rays[..., 1] = (u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1]
    return rays


def wall_depth(wall: Wall, size: int, least_mm: float) -> np.ndarray:
    """Depth (size, size) of the wall, mm, pushed back to `least_mm` or more, within RHD's 5 m."""
    across = np.arange(size, dtype=np.float32) / np.float32(size - 1) - np.float32(0.5)
    right, down = (np.float32(slope) * across for slope in wall.slope)
    relative = 1 + right + down[:, None]
    return (np.float32(max(wall.depth_mm, least_mm / float(relative.min()))) * relative).clip(0, 4990)


def lit_wall(
    wall: Wall,
    light: Light,
    depth: np.ndarray,
    K: np.ndarray,
    blocked: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> np.ndarray:
    """Linear colour (size, size, 3) of the wall under the bodies' shadow, traced coarsely and enlarged.

    Args:
        wall: the background.
        light: the light on it.
        depth: (size, size) of the wall, mm.
        K: (3, 3) camera.
        blocked: takes origins and directions (h, w, samples, 3) and returns the share (h, w) that is blocked.
    """
    size = len(depth)
    key = light.key_colour * max(0.25, -light.key_direction[2])
    level = (key + 0.5 * (light.sky_colour + light.ground_colour)).astype(np.float32)
    if light.key_direction[2] > -0.1:  # the wall would be lit from behind: plain ambient light
        return wall.picture * level
    step = max(1, size // 48)
    grid = np.arange(step // 2, size, step)
    points = pixel_rays(*np.meshgrid(grid, grid), K) * depth[np.ix_(grid, grid)][..., None]
    turn = (golden_fraction(np.arange(points[..., 0].size)) * np.float32(2 * np.pi)).reshape(points.shape[:2])
    aim = disc_directions(light.key_direction, max(light.key_width, 0.08), turn, _SAMPLES)
    shadow = blocked(np.broadcast_to(points[:, :, None], aim.shape), aim)
    if not shadow.any():
        return wall.picture * level
    shadow = _blur(shadow)
    shadow = np.asarray(Image.fromarray(shadow).resize((size, size), Image.Resampling.BICUBIC)).clip(0, 1)
    lit = np.empty((size, size, 3), np.float32)
    for k in range(3):
        np.multiply(wall.picture[..., k], level[k] - np.float32(0.9 * key[k]) * shadow, out=lit[..., k])
    return lit


def _blur(values: np.ndarray) -> np.ndarray:
    """Average over a 5 x 5 neighbourhood (binomial weights), borders repeated."""
    for axis in (0, 1):
        pad = [(2, 2) if k == axis else (0, 0) for k in (0, 1)]
        padded = np.pad(values, pad, mode="edge")
        n = values.shape[axis]
        values = sum(w * padded.take(range(k, k + n), axis) for k, w in enumerate(_BINOMIAL))
    return values
