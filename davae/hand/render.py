"""Ray casting: colour, depth, part mask and joint visibility of posed hands, in one pass.

Open3D's `RaycastingScene` (Embree) finds what each pixel sees; the rest is NumPy on all pixels at once.
Shadow and ambient light are gathered per vertex, over a wide light, and interpolated: soft and free of
noise. One thread throughout, so that a picture does not depend on how many are drawn at a time.
"""

import os
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse

# Open3D looks for a notebook when imported, and there starts and announces a viewer that nobody uses here.
os.environ.setdefault("OPEN3D_DISABLE_WEB_VISUALIZER", "true")
import open3d as o3d

# ruff: isort: split
from davae.hand.appearance import Skin, Surface, shade_skin
from davae.hand.body import Body, incidence, vertex_normals
from davae.hand.light import Light, disc_directions, golden_fraction, hemisphere
from davae.hand.rig import FOREARM, FOREARM_PART, PALM_PART, SEGMENT_PARENTS, Rig, segment_parts
from davae.hand.wall import Wall, lit_wall, pixel_rays, wall_depth
from davae.skeleton import JOINTS, WRIST

LEFT_BASE, RIGHT_BASE, PERSON = 2, 18, 1  # part ids of RHD: 0 background, 1 person, 2..17 left, 18..33 right
_LIGHT_SAMPLES = 3
_SKY_SAMPLES = 3
_BLOCK = 4  # pixels a side, of the coarse look for where the bodies are
_WRAP = (0.34, 0.17, 0.11)  # red light travels furthest under the skin, around what faces away
_BLEED = (0.25, 0.0, -0.08)  # and into shadows


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
    mesh = _Mesh(bodies, sides)
    v, u = np.nonzero(_occupied(mesh, size, K))
    rays = pixel_rays(u, v, K)
    hits = mesh.cast(rays)
    depth, parts = np.full((size, size), np.inf, np.float32), np.zeros((size, size), np.uint8)
    depth[v, u] = hits.distance
    met = v[hits.found], u[hits.found]
    parts[met] = mesh.ids[hits.nearest]

    behind = wall_depth(wall, size, float(mesh.vertices[:, 2].max()) + 25.0)
    background = lit_wall(wall, light, behind, K, mesh.blocked)
    colour = background.copy()
    mesh.light_up(light, hits)
    colour[met] = mesh.shade(rig, skin, light, rays[hits.found], hits).T
    _smooth_edges(colour, background, depth, parts, mesh, K)
    visible = [mesh.sees(b, body.joints_mm, K, size, joint_radii_mm) for b, body in enumerate(bodies)]
    return Raster(colour, np.where(np.isfinite(depth), depth, behind), parts, visible)


@dataclass(frozen=True)
class _Hits:
    found: np.ndarray  # (r...) bool, for all rays
    distance: np.ndarray  # (r...) mm along z, inf where nothing was met
    corners: np.ndarray  # (n, 3) vertex indices, for the rays that met something
    weights: np.ndarray  # (n, 3) barycentric

    @cached_property
    def nearest(self) -> np.ndarray:
        """Closest of the three corners (n,)."""
        return self.corners[np.arange(len(self.corners)), np.argmax(self.weights, axis=1)]


class _Mesh:
    """All bodies as one triangle soup, with what is needed to shade it."""

    def __init__(self, bodies: list[Body], sides: list[str]):
        starts = np.cumsum([0] + [len(b.vertices_mm) for b in bodies])
        self.vertices = np.concatenate([b.vertices_mm for b in bodies])
        self.faces = np.concatenate([b.faces + s for b, s in zip(bodies, starts, strict=False)])
        self.body = np.concatenate([np.full(len(b.vertices_mm), k) for k, b in enumerate(bodies)])
        self.normals = vertex_normals(self.vertices, self.faces)
        self.parts = np.concatenate([b.parts for b in bodies])
        self.ids = np.concatenate([rhd_ids(b.parts, side) for b, side in zip(bodies, sides, strict=True)])
        self.rest = np.concatenate([b.rest_mm for b in bodies])
        self.palmar = np.concatenate([b.palmar for b in bodies])
        self.scene = o3d.t.geometry.RaycastingScene(nthreads=1)
        self.scene.add_triangles(self.vertices, self.faces.astype(np.uint32))

    def cast(self, directions: np.ndarray) -> _Hits:
        """Follow rays (..., 3) from the camera; directions with z = 1 make the distance a depth."""
        answer = self._trace(directions)
        distance = answer["t_hit"].numpy()
        found = np.isfinite(distance)
        uv = answer["primitive_uvs"].numpy()[found]
        corners = self.faces[answer["primitive_ids"].numpy()[found]]
        return _Hits(
            found, distance, corners, np.stack([1 - uv[:, 0] - uv[:, 1], uv[:, 0], uv[:, 1]], axis=1)
        )

    def depths(self, directions: np.ndarray) -> np.ndarray:
        """As `cast`, the distances (...) alone: inf where nothing is met."""
        return self._trace(directions)["t_hit"].numpy()

    def _trace(self, directions: np.ndarray) -> dict[str, o3d.core.Tensor]:
        rays = np.zeros((*directions.shape[:-1], 6), np.float32)
        rays[..., 3:] = directions
        return self.scene.cast_rays(o3d.core.Tensor(rays), nthreads=1)

    def blocked(self, origins: np.ndarray, directions: np.ndarray, reach_mm: float = np.inf) -> np.ndarray:
        """Share (...) of the rays (..., samples, 3) that meet anything within `reach_mm`."""
        rays = np.concatenate([origins, directions], axis=-1).astype(np.float32)
        hit = self.scene.test_occlusions(o3d.core.Tensor(rays), tnear=0.0, tfar=float(reach_mm), nthreads=1)
        samples = np.moveaxis(hit.numpy(), -1, 0).astype(np.float32)
        return sum(samples) / np.float32(len(samples))

    def light_up(self, light: Light, hits: _Hits) -> None:
        """Gather the shares (v, 2) of key light and of sky that reach the vertices behind the hits."""
        seen = np.zeros(len(self.vertices), np.float32)
        seen[hits.corners] = 1
        chosen = np.flatnonzero(seen)
        normals = self.normals[chosen]
        origins = (self.vertices[chosen] + 1.2 * normals)[:, None]
        turn = golden_fraction(chosen) * np.float32(2 * np.pi)
        aim = disc_directions(light.key_direction, light.key_width, turn, _LIGHT_SAMPLES)
        around = hemisphere(normals, turn, _SKY_SAMPLES)
        values = np.zeros((len(seen), 3), np.float32)
        values[chosen, 0] = 1 - self.blocked(np.broadcast_to(origins, aim.shape), aim)
        values[chosen, 1] = 1 - self.blocked(np.broadcast_to(origins, around.shape), around, 55.0)
        values[:, 2] = seen
        # Few rays are noisy: average over the triangles around, twice, counting only what was gathered.
        corners = incidence(self.faces, len(seen))
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
        rim = 0.9 * _power_4(1 - _dot(normal, view).clip(0, 1)) * sky
        up = 0.5 - 0.5 * normal[1]
        open_sky = 0.15 + 0.85 * sky
        lights = zip(light.key_colour, light.sky_colour, light.ground_colour, _WRAP, _BLEED, strict=True)
        colour = np.empty_like(albedo)
        for k, (bright, above, below, wrap, bleed) in enumerate(
            [float(x) for x in channel] for channel in lights
        ):
            # Shadows are reddish at their borders: x + b x (1 - x), close to the power x^(1 - b).
            diffuse = ((facing + wrap) * (1 / (1 + wrap))).clip(0) * (key + bleed * key * (1 - key))
            ambient = (below + (above - below) * up) * (open_sky + 0.8 * bleed * open_sky * (1 - open_sky))
            colour[k] = albedo[k] * (diffuse * bright + ambient) + gloss * (lobe * bright + rim * above)
        return colour

    def sees(self, body: int, joints_mm, K, size: int, radii_mm: np.ndarray) -> np.ndarray:
        """Visibility (21,) of joints, see `cast`."""
        z = joints_mm[:, 2]
        uv = joints_mm[:, :2] / z[:, None] * K[0, 0] + K[:2, 2]
        inside = (z > 0) & np.all((uv >= -0.5) & (uv < size - 0.5), axis=1)
        hits = self.cast((joints_mm / z[:, None]).astype(np.float32))
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
    """Pixels (size, size) that may show a body, in blocks: those near a vertex or a hit of a coarse look."""
    blocks = np.zeros(((size - 1) // _BLOCK + 1,) * 2, bool)
    middle = np.arange(len(blocks)) * _BLOCK + _BLOCK // 2
    middle[0], middle[-1] = 0, size - 1  # what only just enters the frame enters at its border
    looks = pixel_rays(*np.meshgrid(middle, middle), K)[:, :, None]
    blocks |= mesh.blocked(np.zeros_like(looks), looks) > 0
    front = mesh.vertices[mesh.vertices[:, 2] > 30]
    uv = np.floor((front[:, :2] * K[0, 0] / front[:, 2:] + K[:2, 2] + 0.5) / _BLOCK)
    u, v = uv[np.all((uv >= 0) & (uv < len(blocks)), axis=1)].astype(int).T
    blocks[v, u] = True
    for axis in (0, 1):  # and the blocks around
        grown = blocks.copy()
        lower, upper = _neighbours(axis)
        grown[lower] |= blocks[upper]
        grown[upper] |= blocks[lower]
        blocks = grown
    return blocks.repeat(_BLOCK, 0).repeat(_BLOCK, 1)[:size, :size]


def _neighbours(axis: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Index of all but the last, and of all but the first, row (axis 0) or column (axis 1)."""
    every, but_last, but_first = slice(None), slice(None, -1), slice(1, None)
    return ((but_last, every), (but_first, every)) if axis == 0 else ((every, but_last), (every, but_first))


def _smooth_edges(colour, background, depth, parts, mesh, K) -> None:
    """Antialias in place, with four rays each, the pixels where depth jumps or a body ends.

    A ray that meets a body takes the colour of that of the pixels around it whose depth is closest.
    """
    near = np.where(np.isfinite(depth), depth, np.float32(1e4))
    edge = np.zeros(depth.shape, bool)
    for axis in (0, 1):
        first, second = _neighbours(axis)
        jump = np.abs(near[first] - near[second]) > 7.0
        jump |= (parts[first] > 0) != (parts[second] > 0)
        edge[first] |= jump
        edge[second] |= jump
    v, u = np.nonzero(edge)
    if len(v) == 0:
        return
    quarter = np.array([(-1, -1), (1, -1), (-1, 1), (1, 1)])
    met = mesh.depths(pixel_rays(u[:, None] + 0.25 * quarter[:, 0], v[:, None] + 0.25 * quarter[:, 1], K))
    samples = background[v, u][:, None].repeat(4, axis=1)
    pixel, corner = np.nonzero(np.isfinite(met))
    right, down = quarter[corner].T
    last = len(depth) - 1
    around = [
        ((v[pixel] + y * down).clip(0, last), (u[pixel] + x * right).clip(0, last))
        for x, y in ((0, 0), (1, 0), (0, 1), (1, 1))
    ]
    gap = np.abs(np.stack([near[at] for at in around]) - met[pixel, corner])
    best = np.argmin(gap, axis=0)
    rows, columns = (np.choose(best, [at[k] for at in around]) for k in range(2))
    samples[pixel, corner] = colour[rows, columns]
    colour[v, u] = samples.clip(0, 4).mean(1)
