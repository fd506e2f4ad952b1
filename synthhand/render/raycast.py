"""Ray casting: colour, depth, part mask and joint visibility of posed hands, in one pass.

Open3D's `RaycastingScene` (Embree) finds what each pixel sees; the rest is NumPy on all pixels at once.
Shadow and ambient light are gathered per vertex, over a wide light, and interpolated: soft and free of
noise. One thread throughout, so that a picture does not depend on how many are drawn at a time.
"""

import os
import re
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import Any

import numpy as np
from scipy import sparse

from synthhand.model.body import Body, face_normals, incidence, vertex_normals
from synthhand.model.rig import FOREARM, FOREARM_PART, PALM_PART, SEGMENT_PARENTS, Rig, segment_parts
from synthhand.render.appearance import Skin, Surface, shade_skin
from synthhand.render.light import Light, disc_directions, golden_fraction, hemisphere
from synthhand.render.wall import Wall, lit_wall, pixel_rays, wall_depth
from synthhand.skeleton import JOINTS, WRIST

LEFT_BASE, RIGHT_BASE, PERSON = 2, 18, 1  # part ids of RHD: 0 background, 1 person, 2..17 left, 18..33 right
_LIGHT_SAMPLES = 2
_SKY_SAMPLES = 2
_WRAP = (0.34, 0.17, 0.11)  # red light travels furthest under the skin, around what faces away
_FILL_WRAP = 0.2
_BLEED = (0.25, 0.0, -0.08)  # and into shadows
# What Open3D's wheel expects of the system, and the packages of Debian and Ubuntu that hold it: a bare
# container has few of them.
_PACKAGES = {
    "libGL.so.1": "libgl1",
    "libX11.so.6": "libx11-6",
    "libgomp.so.1": "libgomp1",
    "libstdc++.so.6": "libstdc++6",
    "libudev.so.1": "libudev1",
    "libusb-1.0.so.0": "libusb-1.0-0",
}
_NOT_LOADED = re.compile(r"(\S+\.so[.\d]*): cannot open shared object file")  # in the words of glibc


@dataclass(frozen=True)
class Raster:
    """Linear colour (h, w, 3), depth_mm (h, w), RHD part mask (h, w), and visible (21,) of each body."""

    colour: np.ndarray
    depth_mm: np.ndarray
    mask: np.ndarray
    visible: list[np.ndarray]


def cast(
    rig: Rig,
    bodies: list[Body],
    sides: list[str],
    skin: Skin,
    light: Light,
    wall: Wall,
    K: np.ndarray,
    size: int,
    joint_radii_mm: np.ndarray,
) -> Raster:
    """Render bodies (in the camera frame) before a wall.

    Args:
        rig: the hand all bodies were made from.
        bodies: hands with their arms.
        sides: "left" or "right" per body.
        skin: appearance of all bodies.
        light: the light.
        wall: the background.
        K: (3, 3) camera.
        size: side of the frame, px.
        joint_radii_mm: (21,) flesh radius at the joints. A joint is visible if it projects into the frame
            and what its ray first meets is its own body within 1.35 radii, or within 3 radii and on one of
            the two segments that meet in the joint (seen obliquely, flesh is thicker).
    """
    mesh = _Mesh(bodies, sides, light)
    v, u = np.nonzero(_occupied(mesh, size, K))
    rays = pixel_rays(u, v, K)
    to_joints = [(body.joints_mm / body.joints_mm[:, 2:]).astype(np.float32) for body in bodies]
    hits, *joint_hits = mesh.cast(rays, *to_joints)
    depth = wall_depth(wall, size, float(mesh.vertices[:, 2].max()) + 25.0)
    colour = lit_wall(wall, light, depth, K, mesh.vertices, mesh.faces)
    parts = np.zeros((size, size), np.uint8)
    met = v[hits.found], u[hits.found]
    if len(met[0]):
        parts[met] = mesh.ids[hits.nearest]
        depth[met] = hits.distance[hits.found]
        mesh.light_up(light, hits)
        shaded = mesh.shade(rig, skin, light, rays[hits.found], hits).T
        _paint(colour, met, shaded, depth, parts, mesh, K)
    visible = [
        mesh.sees(b, body.joints_mm, K, size, joint_radii_mm, found)
        for b, (body, found) in enumerate(zip(bodies, joint_hits, strict=True))
    ]
    return Raster(colour, depth, parts, visible)


@dataclass(frozen=True)
class _Hits:
    found: np.ndarray  # (r...) bool, for all rays
    distance: np.ndarray  # (r...) mm along z, inf where nothing was met
    triangles: np.ndarray  # (n,) indices, for the rays that met something
    corners: np.ndarray  # (n, 3) their vertices
    weights: np.ndarray  # (n, 3) barycentric

    @cached_property
    def nearest(self) -> np.ndarray:
        """Closest of the three corners (n,)."""
        return self.corners[np.arange(len(self.corners)), np.argmax(self.weights, axis=1)]


class _Mesh:
    """All bodies as one triangle soup, with what is needed to shade it.

    Triangles that face neither the camera nor the light are left out: the surface is closed, so that a ray
    meets others before or besides, and half the time of a picture's tracing goes into sorting triangles.
    """

    def __init__(self, bodies: list[Body], sides: list[str], light: Light):
        starts = np.cumsum([0] + [len(b.vertices_mm) for b in bodies])
        self.vertices = np.concatenate([b.vertices_mm for b in bodies])
        faces = np.concatenate([b.faces + s for b, s in zip(bodies, starts, strict=False)])
        self.body = np.concatenate([np.full(len(b.vertices_mm), k) for k, b in enumerate(bodies)])
        across = face_normals(self.vertices, faces)
        self.normals = vertex_normals(self.vertices, faces, across)
        inward = _dot(across, np.ascontiguousarray(self.vertices[faces[:, 0]].T))
        # A wide light also reaches what looks a little away from its middle.
        towards = _dot(across, light.key_direction.astype(np.float32)[:, None])
        area = np.sqrt(_dot(across, across))
        self.faces = faces[(inward < 0) | (towards > -light.key_width * area)]
        self.parts = np.concatenate([b.parts for b in bodies])
        self.ids = np.concatenate([rhd_ids(b.parts, side) for b, side in zip(bodies, sides, strict=True)])
        self.rest = np.concatenate([b.rest_mm for b in bodies])
        self.palmar = np.concatenate([b.palmar for b in bodies])
        self.scene = load_open3d().t.geometry.RaycastingScene(nthreads=1)
        self.scene.add_triangles(self.vertices, self.faces.astype(np.uint32))

    def cast(self, *bundles: np.ndarray) -> list[_Hits]:
        """Follow bundles of rays (n, 3) from the camera, all at once; z = 1 makes the distance a depth."""
        answer = self._trace(np.concatenate(bundles))
        ends = np.cumsum([len(directions) for directions in bundles])[:-1]
        names = ("t_hit", "primitive_ids", "primitive_uvs")
        return [
            self._hits(*pieces)
            for pieces in zip(*(np.split(answer[name].numpy(), ends) for name in names), strict=True)
        ]

    def _hits(self, distance: np.ndarray, triangles: np.ndarray, uv: np.ndarray) -> _Hits:
        found = np.isfinite(distance)
        triangles, (second, third) = triangles[found], uv[found].T
        weights = np.stack([1 - second - third, second, third], axis=1)
        return _Hits(found, distance, triangles, self.faces.take(triangles, axis=0), weights)

    def depths(self, directions: np.ndarray) -> np.ndarray:
        """As `cast`, the distances (...) alone: inf where nothing is met."""
        return self._trace(directions)["t_hit"].numpy()

    def _trace(self, directions: np.ndarray) -> dict[str, Any]:
        rays = np.zeros((*directions.shape[:-1], 6), np.float32)
        rays[..., 3:] = directions
        return self.scene.cast_rays(load_open3d().core.Tensor(rays), nthreads=1)

    def blocked(self, origins: np.ndarray, directions: np.ndarray, reach_mm: float = np.inf) -> np.ndarray:
        """Share (n,) of the rays from (n, 3) along (n, samples, 3) that meet anything within `reach_mm`."""
        rays = np.empty((*directions.shape[:2], 6), np.float32)
        rays[..., :3] = origins[:, None]
        rays[..., 3:] = directions
        rays = load_open3d().core.Tensor(rays)
        hit = self.scene.test_occlusions(rays, tnear=0.0, tfar=float(reach_mm), nthreads=1)
        return hit.numpy().sum(axis=1, dtype=np.float32) * np.float32(1 / directions.shape[1])

    def light_up(self, light: Light, hits: _Hits) -> None:
        """Gather the shares (v, 2) of key light and of sky that reach the vertices behind the hits."""
        seen, faces = np.zeros(len(self.vertices), bool), np.zeros(len(self.faces), bool)
        faces[hits.triangles] = True
        faces = self.faces[faces]
        seen[faces] = True
        chosen = np.flatnonzero(seen)
        normals = self.normals[chosen]
        origins = self.vertices[chosen] + 1.2 * normals
        turn = golden_fraction(chosen) * np.float32(2 * np.pi)
        values = np.zeros((len(seen), 3), np.float32)
        # What faces away from the light by more than it wraps around lies in its own shadow: no ray needed.
        lit = np.flatnonzero(normals @ light.key_direction.astype(np.float32) > -_WRAP[0])
        aim = disc_directions(light.key_direction, light.key_width, turn[lit], _LIGHT_SAMPLES)
        values[chosen[lit], 0] = 1 - self.blocked(origins[lit], aim)
        values[chosen, 1] = 1 - self.blocked(origins, hemisphere(normals, turn, _SKY_SAMPLES), 55.0)
        values[chosen, 2] = 1
        # Few rays are noisy: average over the triangles around, twice, counting only what was gathered.
        corners = incidence(faces, len(seen))
        for _ in range(2):
            values = corners @ (corners.T @ values)
        self.received = values[:, :2] / values[:, 2:].clip(1e-6)

    def shade(self, rig: Rig, skin: Skin, light: Light, rays: np.ndarray, hits: _Hits) -> np.ndarray:
        """Linear colour (3, n) of the points met: diffuse light that bleeds red, a highlight, a faint rim."""
        carried = np.concatenate([self.normals, self.rest, self.palmar[:, None], self.received], axis=1)
        n = len(rays)
        between = sparse.csr_array(
            (hits.weights.ravel(), hits.corners.ravel(), np.arange(0, 3 * n + 1, 3)), (n, len(carried))
        )
        # One long row per coordinate (9, n): NumPy is several times faster along those.
        values = np.ascontiguousarray((between @ carried).T)
        normal, (key, sky) = _unit(values[:3]), values[7:]
        albedo, gloss = shade_skin(skin, rig, Surface(values[3:6], self.parts[hits.nearest], values[6]))
        view = _unit(-rays.T)
        to_light = light.key_direction.astype(np.float32)[:, None]
        facing = _dot(normal, to_light)
        shine = _dot(normal, _unit(view + to_light)).clip(0)
        shine_12 = _power_4(shine * shine * shine)
        lobe = (0.6 * shine_12 + 1.4 * _power_4(shine_12)) * key * (facing > 0)
        # The second light has no rays of its own: what the sky does not reach, it reaches little.
        filled = _dot(normal, light.fill_direction.astype(np.float32)[:, None])
        rim = 0.9 * _power_4(1 - _dot(normal, view).clip(0, 1)) * sky
        up = 0.5 - 0.5 * normal[1]
        open_sky = 0.15 + 0.85 * sky
        second = (filled + _FILL_WRAP).clip(0) * (open_sky * (1 / (1 + _FILL_WRAP)))
        lights = (light.key_colour, light.fill_colour, light.sky_colour, light.ground_colour, _WRAP, _BLEED)
        colour = np.empty_like(albedo)
        for k, (bright, weak, above, below, wrap, bleed) in enumerate(
            [float(x) for x in channel] for channel in zip(*lights, strict=True)
        ):
            # Shadows are reddish at their borders: x + b x (1 - x), close to the power x^(1 - b).
            diffuse = ((facing + wrap) * (1 / (1 + wrap))).clip(0) * (key + bleed * key * (1 - key))
            ambient = (below + (above - below) * up) * (open_sky + 0.8 * bleed * open_sky * (1 - open_sky))
            colour[k] = albedo[k] * (diffuse * bright + second * weak + ambient) + gloss * (
                lobe * bright + rim * above
            )
        return colour

    def sees(self, body: int, joints_mm, K, size: int, radii_mm: np.ndarray, hits: _Hits) -> np.ndarray:
        """Visibility (21,) of joints, given what their rays met; see `cast`."""
        z = joints_mm[:, 2]
        uv = joints_mm[:, :2] / z[:, None] * K[[0, 1], [0, 1]] + K[:2, 2]
        inside = (z > 0) & np.all((uv >= -0.5) & (uv < size - 0.5), axis=1)
        first = hits.nearest
        own, beside = np.zeros((2, len(z)), bool)
        own[hits.found] = self.body[first] == body
        beside[hits.found] = np.any(_JOINT_PARTS[hits.found] == self.parts[first][:, None], axis=1)
        gap = np.abs(np.where(hits.found, hits.distance, np.inf) - z)
        return inside & own & ((gap <= 1.35 * radii_mm) | (beside & (gap <= 3 * radii_mm)))


def _joint_parts() -> np.ndarray:
    """Part ids (21, 2) of the segments that meet at each joint."""
    parts = segment_parts()
    parents = SEGMENT_PARENTS.tolist()
    children = [parents.index(j) if j in parents else j for j in range(JOINTS)]
    children[WRIST] = FOREARM
    return np.stack([parts[:JOINTS], parts[children]], axis=1)


_JOINT_PARTS = _joint_parts()


def rhd_ids(parts: np.ndarray, side: str) -> np.ndarray:
    """Map part ids within a hand to RHD's mask ids: left 2..17, right 18..33, the arm 1 (person).

    Raises:
        ValueError: the side is neither "left" nor "right".
    """
    if side not in ("left", "right"):
        raise ValueError(f"side is {side!r}, expected 'left' or 'right'")
    table = np.arange(FOREARM_PART + 1, dtype=np.uint8) + (LEFT_BASE if side == "left" else RIGHT_BASE)
    table[FOREARM_PART] = PERSON
    assert table[PALM_PART] in (17, 33)
    return table[parts]


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Inner products (n,) of the columns of a and b (3, n)."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _unit(a: np.ndarray) -> np.ndarray:
    return a / np.sqrt(_dot(a, a)).clip(1e-6)


def _power_4(x: np.ndarray) -> np.ndarray:
    square = x * x
    return square * square


def _occupied(mesh: _Mesh, size: int, K: np.ndarray) -> np.ndarray:
    """Pixels (size, size) that may show a body: those in the box around some triangle's picture."""
    x, y, z = mesh.vertices.T
    if z.min() < 1:  # behind the camera, where projection means nothing
        return np.ones((size, size), bool)
    corners = np.ascontiguousarray(mesh.faces.T)
    first, end = [], []
    for along, focal, centre in ((y, K[1, 1], K[1, 2]), (x, K[0, 0], K[0, 2])):
        a, b, c = (along / z * np.float32(focal) + np.float32(centre)).astype(np.float32)[corners]
        first.append(np.minimum(np.minimum(a, b), c) - np.float32(0.01))
        end.append(np.maximum(np.maximum(a, b), c) + np.float32(1.01))
    first, end = (np.clip(np.stack(bounds), 0, size) for bounds in (first, end))
    first, end = np.ceil(first).astype(np.intp), np.floor(end).astype(np.intp)
    (top, left), (bottom, right) = (box[:, np.all(first < end, axis=0)] for box in (first, end))
    # Count boxes by what changes at their corners, summed up along rows and columns.
    wide, bins = size + 1, (size + 1) ** 2
    change = np.bincount(np.concatenate([top * wide + left, bottom * wide + right]), minlength=bins)
    change -= np.bincount(np.concatenate([top * wide + right, bottom * wide + left]), minlength=bins)
    change = change.astype(np.int32).reshape(wide, wide)
    return np.cumsum(np.cumsum(change, axis=0, dtype=np.int32), axis=1, dtype=np.int32)[:size, :size] > 0


def _paint(colour, met, shaded, depth, parts, mesh, K) -> None:
    """Put the bodies' pixels `met` into the picture, antialiased where depth jumps or a body ends.

    There four rays are cast. One that meets a body takes the colour of that of the pixels around it whose
    depth is closest.
    """
    # Work on the part of the frame where the bodies are.
    size = len(depth)
    row, column = (slice(max(i.min() - 2, 0), i.max() + 3) for i in met)
    near = np.where(parts[row, column] > 0, depth[row, column], np.float32(1e4))
    edge = np.zeros(near.shape, bool)
    for axis in (0, 1):
        first, second = _neighbours(axis)
        jump = np.abs(near[first] - near[second]) > 7.0
        edge[first] |= jump
        edge[second] |= jump
    v, u = np.nonzero(edge)
    v += row.start
    u += column.start
    background = colour[v, u]
    colour[met] = shaded
    if len(v) == 0:
        return
    quarter = np.array([(-1, -1), (1, -1), (-1, 1), (1, 1)])
    hit = mesh.depths(pixel_rays(u[:, None] + 0.25 * quarter[:, 0], v[:, None] + 0.25 * quarter[:, 1], K))
    samples = background[:, None].repeat(4, axis=1)
    pixel, corner = np.nonzero(np.isfinite(hit))
    distance = hit[pixel, corner]
    right, down = quarter[corner].T
    u_here, v_here = u[pixel], v[pixel]
    beside, below = (u_here + right).clip(0, size - 1), (v_here + down).clip(0, size - 1)
    depths, bodies = depth.ravel(), parts.ravel()
    around = [v_here * size + u_here, v_here * size + beside, below * size + u_here, below * size + beside]
    best, least = around[0], np.float32(1e9)
    for at in around:
        gap = np.abs(depths[at] - distance) + 1e6 * (bodies[at] == 0)
        best, least = np.where(gap < least, at, best), np.minimum(gap, least)
    samples[pixel, corner] = colour.reshape(-1, 3)[best]
    colour[v, u] = samples.clip(0, 4).mean(1)


def _neighbours(axis: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Index of all but the last, and of all but the first, row (axis 0) or column (axis 1)."""
    every, but_last, but_first = slice(None), slice(None, -1), slice(1, None)
    return ((but_last, every), (but_first, every)) if axis == 0 else ((every, but_last), (every, but_first))


def load_open3d() -> ModuleType:
    """Import Open3D where it is first needed: that takes seconds, and most of davae does without.

    Raises:
        OSError: a library of the system that it is linked against is missing; says which package brings it.
    """
    # It looks for a notebook when imported, and there starts and announces a viewer that nobody uses here.
    os.environ.setdefault("OPEN3D_DISABLE_WEB_VISUALIZER", "true")
    try:
        import open3d
    except (ImportError, OSError) as error:  # of the dynamic loader, by way of an import or of ctypes
        if (found := _NOT_LOADED.match(str(error))) is None:
            raise
        raise OSError(
            f"{found[1]} is missing, a library of the system that Open3D, which draws the hands, needs; "
            f"{_how_to_get(found[1])}"
        ) from error
    return open3d


def _how_to_get(library: str) -> str:
    if library in _PACKAGES:
        return f"on Debian and Ubuntu `apt-get install {_PACKAGES[library]}` brings it"
    return "install the package of your system that holds it"
