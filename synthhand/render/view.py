"""Quick pictures of a mesh and of a cloud from any side, for views that follow a slider.

A rasteriser in NumPy, without perspective, textures or cast shadows. Everything is drawn from far to near,
so that near surfaces cover far ones (painter's algorithm). The triangles of a hand are a few pixels large, so
this leaves no visible fault and needs no depth per pixel. `synthhand.render.raster` makes dataset images.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from synthhand.model.body import face_normals, incidence

BACKGROUND = np.array([246, 246, 246], np.float32)
FLESH = np.array([214, 190, 172], np.float32)  # of every mesh: joints do not say what colour a hand is
LIGHT = np.array([-0.45, -0.65, -0.75], np.float32) / np.linalg.norm([0.45, 0.65, 0.75])  # towards the light
AMBIENT, FULL = 0.42, 1.12  # brightness of what faces away from the light, and of what faces it
WRAP = 0.25  # cosine by which light reaches around an edge
HALF_BONES = 2.6  # a hand, from knuckles to tips and wrist, fits in a view of twice so many reference bones
OVERSAMPLING = 2  # pictures are drawn larger by this factor and averaged down, for smooth edges
DEPTH_SHARE = 0.7  # of half the picture's side: hands seldom reach further from the middle knuckle
BALL_SHARE, BALL_POWER = 0.22, 0.4  # radius of a cloud's balls: share of the half side / points ** power
BALL_AMBIENT = 0.35  # as AMBIENT, of the cloud's balls, where FULL is 1
NEIGHBOURS = 16  # of a cloud's point, itself among them, to which its plane is fitted
DISC_SHARE = 1.1  # radius of a surface's discs: share of the half side / sqrt(points); closes most gaps
# Near points bright: viridis from its yellow end to its purple end.
DEPTH_COLOURS = np.array(
    [[253, 231, 37], [94, 201, 98], [33, 145, 140], [59, 82, 139], [68, 1, 84]], np.float32
)


def view_from(turn_deg: float, tilt_deg: float) -> NDArray[np.float64]:
    """Return the rotation (3, 3) that shows an object from a place on the globe around it.

    The object is turned about the upright axis, then tilted towards the viewer.

    Args:
        turn_deg: azimuth; of the rest hand, a right hand with its fingers up, 0 looks at the palm.
        tilt_deg: elevation above the horizon; 90 looks down on the finger tips.
    """
    turn, tilt = np.radians([turn_deg, tilt_deg])
    (ct, st), (ci, si) = (np.cos(turn), np.sin(turn)), (np.cos(tilt), np.sin(tilt))
    about_y = np.array([[ct, 0, st], [0, 1, 0], [-st, 0, ct]])
    about_x = np.array([[1, 0, 0], [0, ci, -si], [0, si, ci]])
    return about_x @ about_y


def draw_mesh(
    vertices_mm: NDArray, faces: NDArray, rotation: NDArray, *, half_mm: float, px: int = 240
) -> NDArray[np.uint8]:
    """Draw a closed mesh, shaded smoothly, as seen along z.

    Args:
        vertices_mm: (v, 3) in a camera's axes (x right, y down, z forward), about the centre of the picture.
        faces: (f, 3), counter-clockwise seen from outside.
        rotation: (3, 3), applied first.
        half_mm: from the middle of the picture to its border.
        px: side of the picture.

    Returns:
        (px, px, 3) RGB.
    """
    side = OVERSAMPLING * px
    vertices = np.asarray(vertices_mm, np.float32) @ rotation.T.astype(np.float32)
    pixels = vertices[:, :2] * np.float32(side / (2 * half_mm)) + np.float32((side - 1) / 2)
    seen = _find_facing(pixels, faces)
    seen = faces[seen[np.argsort(-vertices[:, 2][faces[seen]].sum(1))]]
    brightness = _light(_unit_normals(vertices, faces)).astype(np.float32)
    places, light = _fill(pixels[seen], brightness[seen], side)
    shown = np.zeros((2, side * side), np.float32)  # light, and whether there is a hand
    shown[0, places] = light  # for equal places NumPy keeps the last value: the nearest
    shown[1, places] = 1
    light, hand = _average(shown.reshape(2, side, side))
    picture = np.full((px, px, 3), BACKGROUND.astype(np.uint8))
    drawn = hand > 0
    light, hand = light[drawn, None], hand[drawn, None]
    picture[drawn] = _round(FLESH * light + BACKGROUND * (1 - hand))
    return picture


def draw_cloud(
    points_mm: NDArray,
    rotation: NDArray,
    *,
    half_mm: float,
    px: int = 240,
    radius_mm: float | None = None,
    normals: NDArray | None = None,
) -> NDArray[np.uint8]:
    """Draw a cloud, near points bright, as seen along z: as small balls, or as the surface that it samples.

    Args:
        points_mm: (p, 3), about the centre of the picture, in axes as for `draw_mesh`.
        rotation: (3, 3), applied first.
        half_mm: from the middle of the picture to its border. Colours run over `DEPTH_SHARE` of it on either
            side of the middle, so that a colour means the same depth in every cloud.
        px: side of the picture.
        radius_mm: of a ball or disc; the default is smaller the more points there are.
        normals: (p, 3) of unit length, of either sign, as of `fit_normals`. With them each point is a disc,
            lit as the surface there, and discs that overlap look like one surface. That needs about a
            thousand points of a hand.

    Returns:
        (px, px, 3) RGB.
    """
    side, count = OVERSAMPLING * px, max(len(points_mm), 1)
    rotation = rotation.T.astype(np.float32)
    points = np.asarray(points_mm, np.float32) @ rotation
    far_to_near = np.argsort(-points[:, 2], kind="stable")
    points = points[far_to_near]
    share = BALL_SHARE / count**BALL_POWER if normals is None else DISC_SHARE / count**0.5
    scale = side / (2 * half_mm)
    ball = _draw_ball(max(1, round((radius_mm or share * half_mm) * scale)))
    centres = np.rint(points[:, :2] * scale + (side - 1) / 2).astype(int)
    x = (centres[:, :1] + ball[:, 0].astype(int)).ravel()
    y = (centres[:, 1:] + ball[:, 1].astype(int)).ravel()
    depth = (points[:, 2] / (DEPTH_SHARE * half_mm) + 1) / 2 * (len(DEPTH_COLOURS) - 1)
    steps = np.arange(len(DEPTH_COLOURS))
    colours = np.stack([np.interp(depth, steps, channel) for channel in DEPTH_COLOURS.T], axis=1)
    if normals is None:
        lit = (colours[:, None] * ball[:, 2, None]).reshape(-1, 3)
    else:
        lit = (colours * light_towards_viewer(normals[far_to_near] @ rotation)).repeat(len(ball), 0)
    shown = (x >= 0) & (x < side) & (y >= 0) & (y < side)
    picture = np.tile(BACKGROUND, (side * side, 1))
    picture[y[shown] * side + x[shown]] = lit[shown]
    return _round(np.moveaxis(_average(np.moveaxis(picture.reshape(side, side, 3), 2, 0)), 0, 2))


def fit_normals(points: NDArray) -> NDArray[np.float32]:
    """Return unit normals (p, 3), of either sign, of the surface that a cloud (p, 3) samples.

    Each is the direction in which the point's `NEIGHBOURS` nearest points spread least.
    """
    from scipy.spatial import cKDTree  # imported late: it takes as long as all else here

    points = np.asarray(points, np.float64)
    near = points[cKDTree(points).query(points, min(NEIGHBOURS, len(points)))[1].reshape(len(points), -1)]
    spread = near - near.mean(1, keepdims=True)
    return np.linalg.eigh(spread.swapaxes(1, 2) @ spread)[1][:, :, 0].astype(np.float32)


def light_towards_viewer(normals: NDArray) -> NDArray:
    """Return the brightness (p, 1) of a surface as seen along z, from its unit normals of either sign."""
    return _light(np.where(normals[:, 2:] > 0, -normals, normals))[:, None]


def _find_facing(pixels: NDArray, faces: NDArray) -> NDArray[np.intp]:
    """Return which triangles (f, 3) of points (v, 2) show their outside, clockwise in pixels (y points down).

    Triangles seen almost from the side are left out: they cover no pixel and interpolate rounding errors.
    """
    (ax, ay), (bx, by) = (pixels[faces[:, k]].T - pixels[faces[:, 0]].T for k in (1, 2))
    return np.flatnonzero(ax * by - ay * bx < -1e-3)


def _fill(corners: NDArray, values: NDArray, side: int) -> tuple[NDArray, NDArray]:
    """Fill triangles, interpolating linearly between their corners.

    Args:
        corners: (f, 3, 2) float32 pixels, of triangles whose area is not zero.
        values: (f, 3) float32, at the corners.
        side: of the picture.

    Returns:
        (n,) places v * side + u of the pixels in each triangle in turn, and the values (n,) there.
    """
    low = np.ceil(corners.min(1)).astype(np.int32).clip(0)
    spans = (np.floor(corners.max(1)).astype(np.int32).clip(max=side - 1) - low + 1).clip(0)
    first = corners[:, 0]
    (ax, ay), (bx, by) = corners[:, 1].T - first.T, corners[:, 2].T - first.T
    dx, dy = (low - first).T
    area = ax * by - ay * bx
    # Two barycentric coordinates and the value are linear in the pixel. `start` holds them at the first pixel
    # of each triangle's box, `right` and `down` their change to the next pixel. They are extended to the rows
    # of all boxes, then to the pixels.
    right, down = np.stack([by, -ay]) / area, np.stack([-bx, ax]) / area
    rises = (values[:, 1:] - values[:, :1]).T
    right, down = (np.concatenate([step, (rises * step).sum(0, keepdims=True)]) for step in (right, down))
    start = right * dx + down * dy
    start[2] += values[:, 0]
    triangle, row = _enumerate(spans[:, 1])
    start = start[:, triangle] + down[:, triangle] * row.astype(np.float32)
    right = right[:, triangle]
    place = low[triangle, 1] * side + low[triangle, 0] + row * side
    line, column = _enumerate(spans[triangle, 0])
    steps = column.astype(np.float32)
    second, third = (start[k][line] + right[k][line] * steps for k in (0, 1))
    edge = np.float32(-1e-3)  # pixels on an edge belong to both sides, or rounding would leave gaps
    inside = np.flatnonzero((second >= edge) & (third >= edge) & (second + third <= 1 - edge))
    line, column, steps = line[inside], column[inside], steps[inside]
    return place[line] + column, start[2][line] + right[2][line] * steps


def _enumerate(counts: NDArray) -> tuple[NDArray[np.intp], NDArray[np.int32]]:
    """Return for counts (n,) of parts which of the n each part belongs to, and its number there: 0, 1, ..."""
    ends = np.cumsum(counts, dtype=np.int32)
    whole = np.arange(len(counts)).repeat(counts)
    return whole, np.arange(len(whole), dtype=np.int32) - (ends - counts.astype(np.int32))[whole]


@lru_cache(maxsize=8)
def _draw_ball(radius: int) -> NDArray[np.float32]:
    """Return the pixels of a ball: (n, 3) columns of x and y from its middle, and its brightness there."""
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1].astype(np.float32).reshape(2, -1) / radius
    height = 1 - (x**2 + y**2)
    inside = height >= 0
    x, y = x[inside], y[inside]
    normals = np.stack([x, y, -np.sqrt(height[inside])], axis=1)
    return np.stack([x * radius, y * radius, _light_ball(normals)], axis=1)


def _light(normals: NDArray) -> NDArray:
    """Return the brightness (n,) of surfaces with unit normals (n, 3)."""
    towards = normals @ LIGHT
    return AMBIENT + (FULL - AMBIENT) * ((towards + WRAP) / (1 + WRAP)).clip(0)


def _light_ball(normals: NDArray) -> NDArray:
    return BALL_AMBIENT + (1 - BALL_AMBIENT) * _light(normals) / _light(LIGHT[None])


def _unit_normals(vertices: NDArray, faces: NDArray) -> NDArray:
    """Return outward unit normals (v, 3)."""
    normals = _incidence(faces.tobytes(), faces.dtype.str, len(vertices)) @ face_normals(vertices, faces).T
    return normals / np.sqrt(np.einsum("vi,vi->v", normals, normals)).clip(1e-12)[:, None]


@lru_cache(maxsize=4)
def _incidence(faces: bytes, dtype: str, vertices: int):
    """As `incidence`, kept: it is the same for every pose, and takes longer to make than to multiply with."""
    return incidence(np.frombuffer(faces, dtype).reshape(-1, 3), vertices).tocsr()


def _average(large: NDArray) -> NDArray:
    """Average squares of `OVERSAMPLING` pixels of a picture (c, h, w) into one."""
    k = OVERSAMPLING
    return np.add.reduce([large[:, i::k, j::k] for i in range(k) for j in range(k)]) / np.float32(k * k)


def _round(picture: NDArray) -> NDArray[np.uint8]:
    return (picture + 0.5).clip(0, 255).astype(np.uint8)
