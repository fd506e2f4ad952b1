"""The wall behind the hands: how far it is, and the light and shadow on it."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from synthhand.model.body import long_rows
from synthhand.render.light import Light

FARTHEST_MM = 4990  # RHD's depth coding ends at 5 m

# Light on the wall. "Slant" is the light's -z, 1 for light from behind the camera.
LEAST_SLANT = 0.25  # the key light never gets weaker than at this slant
SHADOW_SLANT = 0.1  # below it there is no shadow: the wall would be lit from the side or from behind
AMBIENT = 0.5  # share of the sky's and of the ground's colour that reaches a wall, each
SHADOW_DEPTH = 0.9  # share of the key light that a full shadow takes away

# The shadow is marked on a plane of cells, read on a grid of the wall's points, and enlarged.
GRID = 80  # points across the frame, about
CELLS = 96  # across the plane
SOFTEST_CELLS, SHARPEST_CELLS = 12.0, 0.6  # bounds of the half-shadow's width
WIDTH_PER_BOX = 1.6  # that width over the radius of the box filter that makes it
BOXES = 2  # times that the filter is applied
# Triangles by the cells they extend over. The largest are drawn as polygons; smaller ones are marked at a
# lattice of points, (parts of a side, extent above, extent up to); the others at their corners.
POLYGON_CELLS = 6
LATTICES = ((3, 1.5, 3.0), (6, 3.0, 6.0))


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
    """Return directions (..., 3) with z = 1 through the pixels (u, v) (...)."""
    rays = np.ones((*np.shape(u), 3), np.float32)
    rays[..., 0], rays[..., 1] = (u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1]
    return rays


def wall_depth(wall: Wall, size: int, least_mm: float) -> np.ndarray:
    """Return the depth (size, size) of the wall, mm, pushed back to `least_mm` or more, within RHD's 5 m."""
    across = np.arange(size, dtype=np.float32) / np.float32(size - 1) - np.float32(0.5)
    right, down = (np.float32(slope) * across for slope in wall.slope)
    relative = 1 + right + down[:, None]
    middle_mm = np.float32(max(wall.depth_mm, least_mm / float(relative.min())))
    return (middle_mm * relative).clip(0, FARTHEST_MM)


def light_wall(
    wall: Wall, light: Light, depth: np.ndarray, K: np.ndarray, vertices: np.ndarray, faces: np.ndarray
) -> np.ndarray:
    """Return the linear colour (size, size, 3) of the wall, with the shadow of the bodies before it.

    Args:
        wall: the background.
        light: the light on it.
        depth: (size, size) of the wall, mm.
        K: (3, 3) camera.
        vertices: (v, 3) of the bodies, mm.
        faces: (f, 3) their triangles.
    """
    size = len(depth)
    picture = wall.picture.reshape(size, -1)  # long rows: NumPy is slow along an axis of three
    slant = -light.key_direction[2]
    key = light.key_colour * max(LEAST_SLANT, slant)
    level = (key + AMBIENT * (light.sky_colour + light.ground_colour)).astype(np.float32)
    levels = np.tile(level, size)
    coarse = None if slant < SHADOW_SLANT else _cast_shadow(light, depth, K, vertices, faces)
    if coarse is None or not coarse.any():
        lit = picture * levels
    else:
        shadow = Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)
        lit = np.asarray(shadow).clip(0, 1).repeat(3, axis=1)
        lit *= np.tile((SHADOW_DEPTH * key).astype(np.float32), size)
        np.subtract(levels, lit, out=lit)
        lit *= picture
    return lit.reshape(wall.picture.shape)


def _cast_shadow(
    light: Light, depth: np.ndarray, K: np.ndarray, vertices: np.ndarray, faces: np.ndarray
) -> np.ndarray:
    """Return the share (h, w) of the key light that is kept from a coarse grid of the wall's points.

    Everything is projected along the light onto one plane of cells, in which the bodies' points are marked.
    The mark is blurred by the width of the half-shadow at the bodies' mean distance.
    """
    size = len(depth)
    step = max(1, size // GRID)
    grid = np.arange(step // 2, size, step)
    x, y, z = light.key_direction.astype(np.float32)
    slope = np.array([x / z, y / z], np.float32)

    there = depth[np.ix_(grid, grid)]
    rays = pixel_rays(*np.meshgrid(grid, grid), K)
    points = np.stack([there * (rays[..., k] - slope[k]) for k in (0, 1)])
    low, high = points.min((1, 2)), points.max((1, 2))
    cell_mm = float(max(high - low)) / CELLS
    behind_mm = float(np.mean(there) - np.median(vertices[:, 2]))
    softness = light.key_width * behind_mm / float(-z) / cell_mm
    softness = min(max(softness, SHARPEST_CELLS), SOFTEST_CELLS)
    margin = int(2 * softness) + 2
    flat = [
        (vertices[:, k] - vertices[:, 2] * slope[k] - low[k]) * np.float32(1 / cell_mm) + margin
        for k in (0, 1)
    ]
    marks = Image.fromarray(_mark(np.stack(flat), faces, CELLS + 2 * margin))
    for _ in range(BOXES):
        marks = marks.filter(ImageFilter.BoxBlur(softness / WIDTH_PER_BOX))
    shadow = np.asarray(marks, np.float32) * np.float32(1 / 255)
    column, row = ((points - low[:, None, None]) * np.float32(1 / cell_mm) + margin).astype(np.intp)
    return shadow[row, column]


def _mark(points: np.ndarray, faces: np.ndarray, side: int) -> np.ndarray:
    """Return a picture (side, side) uint8: 255 in cells that triangles with corners at (2, v) cover."""
    corners = points.take(long_rows(faces), axis=1)
    least, most = corners.min(1), corners.max(1)
    (left, top), (right, bottom) = least, most
    inside = (left < side) & (top < side) & (right > 0) & (bottom > 0)
    extent = np.where(inside, np.maximum(right - left, bottom - top), 0)
    picture = Image.new("L", (side, side))
    draw = ImageDraw.Draw(picture)
    large = np.flatnonzero(extent > POLYGON_CELLS)  # a few, of the arm
    for triangle in corners.take(large, axis=2).T.reshape(-1, 6).tolist():
        draw.polygon(triangle, fill=255)
    found = [points]
    for parts, above, below in LATTICES:
        few = np.flatnonzero((extent > above) & (extent <= below))
        a, b, c = corners.take(few, axis=2).swapaxes(0, 1)
        u, v = _lattice(parts)
        inner = a[:, None] + u[:, None] * (b - a)[:, None] + v[:, None] * (c - a)[:, None]
        found.append(inner.reshape(2, -1))
    column, row = np.concatenate(found, axis=1).clip(-1, side).astype(np.intp)
    marked = np.pad(np.asarray(picture), 1)  # points outside fall on the border
    marked.reshape(-1)[(row + 1) * (side + 2) + column + 1] = 255
    return marked[1:-1, 1:-1]


@lru_cache
def _lattice(parts: int) -> np.ndarray:
    """Two barycentric coordinates (2, p) of the points that cut each side of a triangle into `parts`."""
    a, b = np.meshgrid(np.arange(parts + 1), np.arange(parts + 1))
    inside = a + b <= parts
    return np.stack([a[inside], b[inside]]).astype(np.float32) / np.float32(parts)
