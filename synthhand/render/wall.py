"""The wall behind the hands: how far it is, and the light and shadow on it."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from synthhand.render.light import Light

_CELLS = 96  # across the plane on which shadows are marked


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
    wall: Wall, light: Light, depth: np.ndarray, K: np.ndarray, vertices: np.ndarray, faces: np.ndarray
) -> np.ndarray:
    """Linear colour (size, size, 3) of the wall under the shadow of what stands before it.

    Args:
        wall: the background.
        light: the light on it.
        depth: (size, size) of the wall, mm.
        K: (3, 3) camera.
        vertices: (v, 3) of the bodies, mm.
        faces: (f, 3) their triangles.
    """
    size = len(depth)
    key = light.key_colour * max(0.25, -light.key_direction[2])
    level = (key + 0.5 * (light.sky_colour + light.ground_colour)).astype(np.float32)
    if light.key_direction[2] > -0.1:  # the wall would be lit from behind: plain ambient light
        return wall.picture * level
    shadow = _shadow(light, depth, K, vertices, faces)
    if not shadow.any():
        return wall.picture * level
    shadow = np.asarray(Image.fromarray(shadow).resize((size, size), Image.Resampling.BICUBIC)).clip(0, 1)
    lit = np.empty((size, size, 3), np.float32)
    for k in range(3):
        np.multiply(wall.picture[..., k], level[k] - np.float32(0.9 * key[k]) * shadow, out=lit[..., k])
    return lit


def _shadow(light: Light, depth: np.ndarray, K: np.ndarray, vertices, faces) -> np.ndarray:
    """Share (h, w) of the key light that is kept from a coarse grid of the wall's points.

    Along the light everything falls onto one plane, in whose cells the bodies' points are marked; the mark is
    blurred by the width of the half-shadow at the bodies' mean distance.
    """
    size = len(depth)
    step = max(1, size // 80)
    grid = np.arange(step // 2, size, step)
    x, y, z = light.key_direction.astype(np.float32)
    slant = np.array([x / z, y / z], np.float32)

    there = depth[np.ix_(grid, grid)]
    rays = pixel_rays(*np.meshgrid(grid, grid), K)
    points = np.stack([there * (rays[..., k] - slant[k]) for k in (0, 1)])
    low, high = points.min((1, 2)), points.max((1, 2))
    cell = float(max(high - low)) / _CELLS
    aside = light.key_width * float(np.mean(there) - np.median(vertices[:, 2])) / float(-z) / cell
    aside = min(max(aside, 0.6), 12.0)
    margin = int(2 * aside) + 2
    across = _CELLS + 2 * margin
    flat = [
        (vertices[:, k] - vertices[:, 2] * slant[k] - low[k]) * np.float32(1 / cell) + margin for k in (0, 1)
    ]
    blurred = Image.fromarray(_marked(np.stack(flat), faces, across))
    for _ in range(2):
        blurred = blurred.filter(ImageFilter.BoxBlur(aside / 1.6))
    blurred = np.asarray(blurred, np.float32) * np.float32(1 / 255)
    column, row = ((points - low[:, None, None]) * np.float32(1 / cell) + margin).astype(np.intp)
    return blurred[row, column]


def _marked(points: np.ndarray, faces: np.ndarray, side: int) -> np.ndarray:
    """Picture (side, side) uint8: 255 in cells that triangles with corners among `points` (2, v) cover."""
    corners = points[:, np.ascontiguousarray(faces.T)]
    least, most = corners.min(1), corners.max(1)
    extent = np.where(np.all((least < side) & (most > 0), axis=0), (most - least).max(0), 0)
    picture = Image.new("L", (side, side))
    draw = ImageDraw.Draw(picture)
    for triangle in corners[:, :, extent > 6].T.tolist():  # a few, of the arm
        draw.polygon([tuple(corner) for corner in triangle], fill=255)
    marked, found = np.array(picture), [points]
    for parts, above, below in ((3, 1.5, 3.0), (6, 3.0, 6.0)):  # most triangles are smaller still
        a, b, c = corners[:, :, (extent > above) & (extent <= below)].swapaxes(0, 1)
        u, v = _lattice(parts)
        inner = a[:, None] + u[:, None] * (b - a)[:, None] + v[:, None] * (c - a)[:, None]
        found.append(inner.reshape(2, -1))
    column, row = np.concatenate(found, axis=1).clip(-1, side).astype(np.intp)
    inside = (row >= 0) & (row < side) & (column >= 0) & (column < side)
    marked[row[inside], column[inside]] = 255
    return marked


@lru_cache
def _lattice(parts: int) -> np.ndarray:
    """Two barycentric coordinates (2, p) of the points that cut each side of a triangle into `parts`."""
    a, b = np.meshgrid(np.arange(parts + 1), np.arange(parts + 1))
    inside = a + b <= parts
    return np.stack([a[inside], b[inside]]).astype(np.float32) / np.float32(parts)
