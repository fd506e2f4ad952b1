"""Quick pictures of a mesh and of a cloud from any side, for views that follow a slider.

A rasteriser in NumPy, without perspective, textures or cast shadows: everything is drawn from far to near,
so that the near covers the far (painter's algorithm). The triangles of a hand are a few pixels large, which
leaves no visible fault and needs no depth per pixel. Images of a dataset are made by
`synthhand.render.raycast`.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from synthhand.model.body import face_normals, incidence

BACKGROUND = np.array([246, 246, 246], np.float32)
FLESH = np.array([214, 190, 172], np.float32)  # of every mesh, since joints do not say what colour a hand is
LIGHT = np.array([-0.45, -0.65, -0.75], np.float32) / np.linalg.norm([0.45, 0.65, 0.75])  # towards the light
AMBIENT, WRAP = 0.42, 0.25  # light that reaches everything; how far light reaches around an edge
HALF_BONES = 2.6  # a hand from knuckles to tips and wrist fits in twice that many reference bones
OVERSAMPLING = 2  # pictures are drawn larger by this factor and averaged down: smooth edges
DEPTH_SHARE = 0.7  # of the picture's half side: hands seldom reach further from the middle knuckle
# Near points bright: viridis from its yellow end to its purple end.
DEPTH_COLOURS = np.array(
    [[253, 231, 37], [94, 201, 98], [33, 145, 140], [59, 82, 139], [68, 1, 84]], np.float32
)


def viewpoint(turn_deg: float, tilt_deg: float) -> NDArray[np.float32]:
    """Rotation (3, 3) that shows an object turned about the upright axis, then tilted towards the viewer."""
    turn, tilt = np.radians([turn_deg, tilt_deg])
    (ct, st), (ci, si) = (np.cos(turn), np.sin(turn)), (np.cos(tilt), np.sin(tilt))
    about_y = np.array([[ct, 0, st], [0, 1, 0], [-st, 0, ct]])
    about_x = np.array([[1, 0, 0], [0, ci, -si], [0, si, ci]])
    return (about_x @ about_y).astype(np.float32)


def mesh_view(
    vertices_mm: NDArray, faces: NDArray, rotation: NDArray, *, half_mm: float, px: int = 240
) -> NDArray[np.uint8]:
    """Draw a closed mesh, shaded smoothly, as seen along z.

    Args:
        vertices_mm: (v, 3) in a camera's axes (x right, y down, z forward), about the centre of the picture.
        faces: (f, 3), counter-clockwise seen from outside.
        rotation: (3, 3), by which it is turned first.
        half_mm: half of what the picture shows, from its middle to its border.
        px: side of the picture.

    Returns:
        (px, px, 3) RGB.
    """
    side = OVERSAMPLING * px
    vertices = np.asarray(vertices_mm, np.float32) @ rotation.T
    pixels = vertices[:, :2] * np.float32(side / (2 * half_mm)) + np.float32((side - 1) / 2)
    seen = _facing(pixels, faces)
    seen = faces[seen[np.argsort(-vertices[:, 2][faces[seen]].sum(1))]]
    places, light = _filled(pixels[seen], _lit(_unit_normals(vertices, faces))[seen], side)
    shown = np.zeros((2, side * side), np.float32)  # light, and whether there is a hand
    shown[:, places] = light, np.ones_like(light)  # of equal places NumPy keeps the last: the nearest
    light, hand = _averaged(shown.reshape(2, side, side))[..., None]
    return _rounded(FLESH * light + BACKGROUND * (1 - hand))


def cloud_view(
    points_mm: NDArray, rotation: NDArray, *, half_mm: float, px: int = 240, radius_mm: float | None = None
) -> NDArray[np.uint8]:
    """Draw a cloud (p, 3) as small balls, near ones bright, as seen along z; the rest as `mesh_view`.

    Args:
        points_mm: about the centre of the picture.
        rotation: (3, 3), by which it is turned first.
        half_mm: half of what the picture shows. Colours run from `DEPTH_SHARE` of it before the middle to as
            much behind, so that a colour means one depth whatever the cloud.
        px: side of the picture.
        radius_mm: of a ball; by default smaller the more points there are.
    """
    side = OVERSAMPLING * px
    points = np.asarray(points_mm, np.float32) @ rotation.T
    points = points[np.argsort(-points[:, 2], kind="stable")]
    radius_mm = radius_mm or 0.22 * half_mm / max(len(points), 1) ** 0.4
    scale = side / (2 * half_mm)
    ball = _ball(max(1, round(radius_mm * scale)))
    centres = np.rint(points[:, :2] * scale + (side - 1) / 2).astype(int)
    x = (centres[:, :1] + ball[:, 0].astype(int)).ravel()
    y = (centres[:, 1:] + ball[:, 1].astype(int)).ravel()
    depth = (points[:, 2] / (DEPTH_SHARE * half_mm) + 1) / 2 * (len(DEPTH_COLOURS) - 1)
    steps = np.arange(len(DEPTH_COLOURS))
    colours = np.stack([np.interp(depth, steps, channel) for channel in DEPTH_COLOURS.T], axis=1)
    lit = (colours[:, None] * ball[:, 2, None]).reshape(-1, 3)
    shown = (x >= 0) & (x < side) & (y >= 0) & (y < side)
    picture = np.tile(BACKGROUND, (side * side, 1))
    picture[y[shown] * side + x[shown]] = lit[shown]
    return _rounded(np.moveaxis(_averaged(np.moveaxis(picture.reshape(side, side, 3), 2, 0)), 0, 2))


def _facing(pixels: NDArray, faces: NDArray) -> NDArray[np.intp]:
    """Which triangles (f, 3) of points (v, 2) show their outside, which runs clockwise since y points down.

    Those seen almost from the side cover no pixel, and what they would interpolate is rounding.
    """
    (ax, ay), (bx, by) = (pixels[faces[:, k]].T - pixels[faces[:, 0]].T for k in (1, 2))
    return np.flatnonzero(ax * by - ay * bx < -1e-3)


def _filled(corners: NDArray, values: NDArray, side: int) -> tuple[NDArray, NDArray]:
    """Fill triangles with what runs evenly from corner to corner.

    Args:
        corners: (f, 3, 2) float32 pixels, of triangles that have an area.
        values: (f, 3) float32, at the corners.
        side: of the picture.

    Returns:
        (n,) places v * side + u of the pixels that lie in a triangle, one triangle after the other, and the
        values (n,) there.
    """
    low = np.ceil(corners.min(1)).astype(np.int32).clip(0)
    spans = (np.floor(corners.max(1)).astype(np.int32).clip(max=side - 1) - low + 1).clip(0)
    first = corners[:, 0]
    (ax, ay), (bx, by) = corners[:, 1].T - first.T, corners[:, 2].T - first.T
    dx, dy = (low - first).T
    area = ax * by - ay * bx
    # Two barycentric coordinates and the value are linear: at the corner of a triangle's box, and what one
    # pixel to the right and one down add. They are carried to the rows of all boxes, then to the pixels.
    right, down = np.stack([by, -ay]) / area, np.stack([-bx, ax]) / area
    rises = (values[:, 1:] - values[:, :1]).T
    right, down = (np.concatenate([step, (rises * step).sum(0, keepdims=True)]) for step in (right, down))
    start = right * dx + down * dy
    start[2] += values[:, 0]
    row = _count_up(spans[:, 1])
    start = start.repeat(spans[:, 1], axis=1) + down.repeat(spans[:, 1], axis=1) * row
    right = right.repeat(spans[:, 1], axis=1)
    place = (low[:, 1] * side + low[:, 0]).repeat(spans[:, 1]) + row * side
    wide = spans[:, 0].repeat(spans[:, 1])
    column = _count_up(wide)
    second, third, value = start.repeat(wide, axis=1) + right.repeat(wide, axis=1) * column
    edge = np.float32(-1e-3)  # what lies on an edge belongs to both sides, else rounding leaves gaps
    inside = np.flatnonzero((second >= edge) & (third >= edge) & (second + third <= 1 - edge))
    return (place.repeat(wide) + column)[inside], value[inside]


def _count_up(counts: NDArray) -> NDArray[np.int32]:
    """0, 1, ..., up to each count (n,) in turn."""
    ends = np.cumsum(counts, dtype=np.int32)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total, dtype=np.int32) - (ends - counts).astype(np.int32).repeat(counts)


@lru_cache(maxsize=8)
def _ball(radius: int) -> NDArray[np.float32]:
    """Pixels of a ball: (n, 3) columns of x and y from its middle, and how much light it reflects there."""
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1].astype(np.float32).reshape(2, -1) / radius
    height = 1 - (x**2 + y**2)
    inside = height >= 0
    x, y = x[inside], y[inside]
    normals = np.stack([x, y, -np.sqrt(height[inside])], axis=1)
    return np.stack([x * radius, y * radius, 0.35 + 0.65 * _lit(normals) / _lit(LIGHT[None])], axis=1)


def _lit(normals: NDArray) -> NDArray[np.float32]:
    """Light (n,) that reaches surfaces with unit normals (n, 3)."""
    towards = normals @ LIGHT
    return AMBIENT + (1.12 - AMBIENT) * ((towards + WRAP) / (1 + WRAP)).clip(0)


def _unit_normals(vertices: NDArray, faces: NDArray) -> NDArray[np.float32]:
    """Outward unit normals (v, 3)."""
    normals = (
        _faces_of_vertices(faces.tobytes(), faces.dtype.str, len(vertices)) @ face_normals(vertices, faces).T
    )
    return normals / np.sqrt(np.einsum("vi,vi->v", normals, normals)).clip(1e-12)[:, None]


@lru_cache(maxsize=4)
def _faces_of_vertices(faces: bytes, dtype: str, vertices: int):
    """Which face belongs to which vertex: the same for every pose, and dearer than a product with it."""
    return incidence(np.frombuffer(faces, dtype).reshape(-1, 3), vertices).tocsr()


def _averaged(large: NDArray) -> NDArray[np.float32]:
    """Average squares of `OVERSAMPLING` pixels of a picture (c, h, w) into one."""
    k = OVERSAMPLING
    return sum(large[:, i::k, j::k] for i in range(k) for j in range(k)) / np.float32(k * k)


def _rounded(picture: NDArray) -> NDArray[np.uint8]:
    return (picture + 0.5).clip(0, 255).astype(np.uint8)
