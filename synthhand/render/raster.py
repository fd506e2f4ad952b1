"""From posed hands to a frame: colour, depth, part mask and joint visibility, in one pass."""

from dataclasses import dataclass

import numpy as np

from synthhand.model.body import Body, long_rows
from synthhand.model.rig import FOREARM, FOREARM_PART, PALM_PART, SEGMENT_PARENTS, Rig, segment_parts
from synthhand.render.light import Light
from synthhand.render.raycast import Hits, Mesh
from synthhand.render.shading import Look, gather_light, shade
from synthhand.render.wall import Wall, light_wall, pixel_rays, wall_depth
from synthhand.skeleton import JOINTS, WRIST

LEFT_BASE, RIGHT_BASE, PERSON = 2, 18, 1  # part ids of RHD: 0 background, 1 person, 2..17 left, 18..33 right
THING = 34  # while a picture is drawn; in its mask things are background
WHOSE = ("left", "right", "person", "thing")  # a body is a hand that counts, another person's, or a thing

WALL_GAP_MM = 25.0  # the wall stays at least so far behind the farthest vertex
# A joint is seen through flesh of so many of its radii; more where flesh is seen obliquely, near the joint.
COVER, COVER_OBLIQUE = 1.35, 3

# Smoothing of edges
EDGE_MM = 7.0  # neighbouring pixels whose depths differ by more lie on two sides of an edge
NOTHING_MM = 1e4  # depth of pixels without a body, far behind any
SUBPIXEL_PX = 0.25  # the four rays of a pixel on an edge pass its middle at this distance, along u and v
BRIGHTEST = 4  # linear light above this would outshine the other rays of its pixel
HIDDEN_GRID = 80  # see `_measure_hidden`
NO_BODY_MM = 1e6  # added to the gap of a neighbouring pixel without a body, which rules it out


@dataclass(frozen=True)
class Raster:
    """Linear colour (h, w, 3), depth_mm (h, w), RHD part mask (h, w), and visible (21,) of each body.

    `hidden` is the share of the first body's hand that things cover, of its pixels in the frame.
    """

    colour: np.ndarray
    depth_mm: np.ndarray
    mask: np.ndarray
    visible: list[np.ndarray]
    hidden: float = 0.0


def draw_bodies(
    rig: Rig,
    bodies: list[Body],
    sides: list[str],
    looks: Look | list[Look],
    light: Light,
    wall: Wall,
    K: np.ndarray,
    size: int,
    joint_radii_mm: np.ndarray,
) -> Raster:
    """Draw bodies (in the camera frame) before a wall.

    Args:
        rig: the hand that bodies were made from, but for things.
        bodies: hands with their arms, and things.
        sides: one of `WHOSE` per body.
        looks: appearance of all bodies, or of each.
        light: the light.
        wall: the background.
        K: (3, 3) camera.
        size: side of the frame, px.
        joint_radii_mm: (21,) flesh radius at the joints. A joint is visible if it projects into the frame and
            its ray first meets its own body, either within `COVER` radii of the joint, or within
            `COVER_OBLIQUE` radii and on one of the two segments that meet in the joint.

    Raises:
        ValueError: a side is none of `WHOSE`.
    """
    mesh = Mesh(bodies, light)
    ids = np.concatenate([rhd_ids(b.parts, side) for b, side in zip(bodies, sides, strict=True)])
    pixels = np.flatnonzero(find_occupied(mesh, size, K))
    v, u = np.divmod(pixels, size)
    rays = pixel_rays(u, v, K)
    to_joints = [(body.joints_mm / body.joints_mm[:, 2:]).astype(np.float32) for body in bodies]
    hits, *joint_hits = mesh.cast(rays, *to_joints)
    depth = wall_depth(wall, size, float(mesh.vertices[:, 2].max()) + WALL_GAP_MM)
    colour = light_wall(wall, light, depth, K, mesh.vertices, mesh.faces)
    parts = np.zeros((size, size), np.uint8)
    found = np.flatnonzero(hits.found)
    met = pixels.take(found)
    if len(met):
        parts.reshape(-1)[met] = ids.take(hits.nearest)
        depth.reshape(-1)[met] = hits.distance.take(found)
        received = gather_light(mesh, light, hits)
        shaded = shade(mesh, rig, looks, light, received, rays.take(found, axis=0), hits).T
        paint_bodies(colour, met, shaded, depth, parts, mesh, K)
    visible = [
        _find_visible(mesh, b, body.joints_mm, K, size, joint_radii_mm, first)
        for b, (body, first) in enumerate(zip(bodies, joint_hits, strict=True))
    ]
    hidden = _measure_hidden(mesh, parts, ids, K) if "thing" in sides else 0.0
    parts[parts == THING] = 0
    return Raster(colour, depth, parts, visible, hidden)


def _measure_hidden(mesh: Mesh, parts: np.ndarray, ids: np.ndarray, K: np.ndarray) -> float:
    """Return the share of the first body's hand that is behind things, of its pixels in the frame.

    Of large frames, every so many pixels along each axis are looked at (`HIDDEN_GRID` across the frame).
    """
    own = (mesh.body == 0) & (ids != PERSON)
    step = max(1, len(parts) // HIDDEN_GRID)
    coarse = parts[::step, ::step]
    shown = np.isin(coarse, np.unique(ids[own])).sum()
    v, u = np.nonzero(coarse == THING)
    passed = mesh.find_passed(pixel_rays(step * u, step * v, K), own).sum() if len(v) else 0
    return float(passed / max(passed + shown, 1))


def rhd_ids(parts: np.ndarray, side: str) -> np.ndarray:
    """Map part ids within a hand to RHD's mask ids: left 2..17, right 18..33, the arm 1 (person).

    Another person's hand is all person; a thing's parts become `THING`.

    Raises:
        ValueError: the side is none of `WHOSE`.
    """
    if side not in WHOSE:
        raise ValueError(f"side is {side!r}, expected one of {', '.join(WHOSE)}")
    if side in ("person", "thing"):
        return np.full(len(parts), PERSON if side == "person" else THING, np.uint8)
    table = np.arange(FOREARM_PART + 1, dtype=np.uint8) + (LEFT_BASE if side == "left" else RIGHT_BASE)
    table[FOREARM_PART] = PERSON
    assert table[PALM_PART] in (17, 33)
    return table[parts]


def _joint_parts() -> np.ndarray:
    """Part ids (21, 2) of the segments that meet at each joint."""
    parts = segment_parts()
    parents = SEGMENT_PARENTS.tolist()
    children = [parents.index(j) if j in parents else j for j in range(JOINTS)]
    children[WRIST] = FOREARM
    return np.stack([parts[:JOINTS], parts[children]], axis=1)


_JOINT_PARTS = _joint_parts()


def _find_visible(
    mesh: Mesh, body: int, joints_mm: np.ndarray, K: np.ndarray, size: int, radii_mm: np.ndarray, hits: Hits
) -> np.ndarray:
    """Return which joints (21,) of a body are visible, given what their rays met; see `draw_bodies`."""
    z = joints_mm[:, 2]
    uv = joints_mm[:, :2] / z[:, None] * K[[0, 1], [0, 1]] + K[:2, 2]
    inside = (z > 0) & np.all((uv >= -0.5) & (uv < size - 0.5), axis=1)
    first = hits.nearest
    own, beside = np.zeros((2, len(z)), bool)
    own[hits.found] = mesh.body[first] == body
    beside[hits.found] = np.any(_JOINT_PARTS[hits.found] == mesh.parts[first][:, None], axis=1)
    gap = np.abs(np.where(hits.found, hits.distance, np.inf) - z)
    return inside & own & ((gap <= COVER * radii_mm) | (beside & (gap <= COVER_OBLIQUE * radii_mm)))


def find_occupied(mesh: Mesh, size: int, K: np.ndarray) -> np.ndarray:
    """Return the pixels (size, size) that may show a body: those in the bounding box of some triangle."""
    x, y, z = mesh.vertices.T
    if z.min() < 1:  # behind the camera, where projection means nothing
        return np.ones((size, size), bool)
    corners = long_rows(mesh.faces)
    firsts, ends = [], []
    for along, focal, centre in ((y, K[1, 1], K[1, 2]), (x, K[0, 0], K[0, 2])):
        a, b, c = (along / z * np.float32(focal) + np.float32(centre)).take(corners)
        # A hundredth of a pixel wider, for rounding; the end is the first pixel that is not in the box.
        low = np.minimum(np.minimum(a, b), c) - np.float32(0.01)
        high = np.maximum(np.maximum(a, b), c) + np.float32(1.01)
        firsts.append(np.ceil(low.clip(0, size)).astype(np.int32))
        ends.append(high.clip(0, size).astype(np.int32))
    within = np.flatnonzero((firsts[0] < ends[0]) & (firsts[1] < ends[1]))
    occupied = np.zeros((size, size), bool)
    if len(within) == 0:
        return occupied
    top, left, bottom, right = (side.take(within) for side in (*firsts, *ends))
    # Count boxes, in the rectangle that holds them all, by what changes at their corners, summed up along
    # rows and columns.
    row, column = slice(top.min(), bottom.max()), slice(left.min(), right.max())
    wide = column.stop - column.start + 1
    bins = wide * (row.stop - row.start + 1)
    top, bottom = ((side - row.start) * wide - column.start for side in (top, bottom))
    change = np.bincount(np.concatenate([top + left, bottom + right]), minlength=bins)
    change -= np.bincount(np.concatenate([top + right, bottom + left]), minlength=bins)
    counts = change.astype(np.int32).reshape(-1, wide)
    for axis in (0, 1):
        counts = np.cumsum(counts, axis=axis, dtype=np.int32)
    occupied[row, column] = counts[:-1, :-1] > 0
    return occupied


def paint_bodies(
    colour: np.ndarray,
    met: np.ndarray,
    shaded: np.ndarray,
    depth: np.ndarray,
    parts: np.ndarray,
    mesh: Mesh,
    K: np.ndarray,
) -> None:
    """Put the bodies' pixels into the picture, smoothed where depth jumps or a body ends.

    On such edges four rays a pixel are cast. A ray that meets a body takes the colour of the pixel around it
    whose depth is closest.

    Args:
        colour: (size, size, 3) the lit wall; changed in place.
        met: numbers (n,) of the pixels that show a body, in ascending order, counted row by row.
        shaded: (n, 3) their colours.
        depth: (size, size) mm.
        parts: (size, size) part ids, 0 where there is no body.
        mesh: the bodies.
        K: (3, 3) camera.
    """
    size = len(depth)
    v, u = _find_edges(met, depth, parts)
    edges, colours = v * size + u, colour.reshape(-1, 3)
    samples = np.tile(colours.take(edges, axis=0), (4, 1, 1))
    colours[met] = shaded
    if len(v) == 0:
        return
    corners = np.array([(-1, -1), (1, -1), (-1, 1), (1, 1)])
    across, down = (SUBPIXEL_PX * corners).T[:, :, None]
    hit = mesh.cast_depths(pixel_rays(u + across, v + down, K))
    corner, pixel = np.nonzero(np.isfinite(hit))
    distance = hit[corner, pixel]
    right, below = corners.T.take(corner, axis=1)
    u_here, v_here = u.take(pixel), v.take(pixel)
    u_beside, v_beside = (u_here + right).clip(0, size - 1), (v_here + below).clip(0, size - 1)
    depths, bodies = depth.ravel(), parts.ravel()
    around = [
        v_here * size + u_here,
        v_here * size + u_beside,
        v_beside * size + u_here,
        v_beside * size + u_beside,
    ]
    best, least = around[0], np.float32(1e9)
    for at in around:
        gap = np.abs(depths.take(at) - distance) + NO_BODY_MM * (bodies.take(at) == 0)
        best, least = np.where(gap < least, at, best), np.minimum(gap, least)
    samples[corner, pixel] = colours.take(best, axis=0)
    colours[edges] = samples.clip(0, BRIGHTEST).mean(0)


def _find_edges(met: np.ndarray, depth: np.ndarray, parts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return rows (e,) and columns (e,) of the pixels where depth jumps or a body ends."""
    # Only the part of the frame where the bodies are needs a look, and two pixels around it.
    places = np.divmod(met, len(depth))
    row, column = (slice(max(i.min() - 2, 0), i.max() + 3) for i in places)
    near = np.where(parts[row, column] > 0, depth[row, column], np.float32(NOTHING_MM))
    edge = np.zeros(near.shape, bool)
    for first, second in ((np.s_[:-1], np.s_[1:]), (np.s_[:, :-1], np.s_[:, 1:])):
        jump = np.abs(near[first] - near[second]) > EDGE_MM
        edge[first] |= jump
        edge[second] |= jump
    v, u = np.divmod(np.flatnonzero(edge), near.shape[1])
    return v + row.start, u + column.start
