"""Ray casting: colour, depth, part mask and joint visibility of posed hands, in one pass.

Open3D's `RaycastingScene` (Embree) finds what each pixel sees; the rest is NumPy on all pixels at once.
Shadow and ambient light are gathered per vertex, over a wide light, and interpolated: soft and free of
noise. One thread throughout, so that a picture does not depend on how many are drawn at a time.
"""

from dataclasses import dataclass

import numpy as np
import open3d as o3d
from PIL import Image

from davae.hand.appearance import Skin, Surface, shade_skin
from davae.hand.body import Body, vertex_normals
from davae.hand.light import Light, disc_directions, golden_fraction, hemisphere
from davae.hand.rig import FOREARM, FOREARM_PART, PALM_PART, SEGMENT_PARENTS, Rig, segment_parts
from davae.skeleton import JOINTS, WRIST

LEFT_BASE, RIGHT_BASE, PERSON = 2, 18, 1  # part ids of RHD: 0 background, 1 person, 2..17 left, 18..33 right
_LIGHT_SAMPLES = 4
_SKY_SAMPLES = 4
_BLOCK = 4  # pixels a side, of the coarse look for where the bodies are
_WALL_SAMPLES = 4
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
    rays = _pixel_rays(K, size)
    where = np.nonzero(_occupied(mesh, rays, K))
    hits = mesh.cast(rays[where])
    depth, parts = np.full((size, size), np.inf, np.float32), np.zeros((size, size), np.uint8)
    depth[where] = hits.distance
    met = tuple(axis[hits.found] for axis in where)
    parts[met] = mesh.ids[hits.nearest]

    wall_depth = _wall_depth(wall, size, mesh)
    mesh.light_up(light, K, size)
    background = wall.picture * _wall_light(mesh, light, wall_depth, rays)
    colour = background.astype(np.float32)
    colour[met] = mesh.shade(rig, skin, light, rays[met], hits)
    _smooth_edges(colour, background, depth, parts, mesh, rig, skin, light, K)
    visible = [mesh.sees(b, body.joints_mm, K, size, joint_radii_mm) for b, body in enumerate(bodies)]
    return Raster(colour, np.where(np.isfinite(depth), depth, wall_depth), parts, visible)


@dataclass(frozen=True)
class _Hits:
    found: np.ndarray  # (r...) bool, for all rays
    distance: np.ndarray  # (r...) mm along z, inf where nothing was met
    corners: np.ndarray  # (n, 3) vertex indices, for the rays that met something
    weights: np.ndarray  # (n, 3) barycentric

    @property
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
        self.normals = vertex_normals(self.vertices.astype(np.float64), self.faces).astype(np.float32)
        self.parts = np.concatenate([b.parts for b in bodies])
        self.ids = np.concatenate([rhd_ids(b.parts, side) for b, side in zip(bodies, sides, strict=True)])
        self.rest = np.concatenate([b.rest_mm for b in bodies])
        self.palmar = np.concatenate([b.palmar for b in bodies])
        self.scene = o3d.t.geometry.RaycastingScene(nthreads=1)
        self.scene.add_triangles(self.vertices, self.faces.astype(np.uint32))

    def cast(self, directions: np.ndarray) -> _Hits:
        """Follow rays (..., 3) from the camera; directions with z = 1 make the distance a depth."""
        rays = np.concatenate([np.zeros_like(directions), directions], axis=-1)
        answer = self.scene.cast_rays(o3d.core.Tensor(rays), nthreads=1)
        distance = answer["t_hit"].numpy()
        found = np.isfinite(distance)
        uv = answer["primitive_uvs"].numpy()[found]
        corners = self.faces[answer["primitive_ids"].numpy()[found]]
        return _Hits(
            found, distance, corners, np.stack([1 - uv[:, 0] - uv[:, 1], uv[:, 0], uv[:, 1]], axis=1)
        )

    def blocked(self, origins: np.ndarray, directions: np.ndarray, reach_mm: float = np.inf) -> np.ndarray:
        """Share (...) of the unit rays (..., samples, 3) that meet anything within `reach_mm`."""
        rays = np.concatenate([origins, directions], axis=-1).astype(np.float32)
        hit = self.scene.test_occlusions(o3d.core.Tensor(rays), tnear=0.0, tfar=float(reach_mm), nthreads=1)
        samples = np.moveaxis(hit.numpy(), -1, 0).astype(np.float32)
        return sum(samples) / np.float32(len(samples))

    def light_up(self, light: Light, K: np.ndarray, size: int) -> None:
        """Gather the share of key light and of sky that reaches each vertex the camera may see."""
        facing = np.einsum("vi,vi->v", self.normals, self.vertices) < 0.3 * np.linalg.norm(
            self.vertices, axis=1
        )
        near = self.vertices[:, 2].clip(1.0)
        uv = self.vertices[:, :2] * K[0, 0] / near[:, None] + K[:2, 2]
        seen = np.flatnonzero(
            facing & (self.vertices[:, 2] > 30) & np.all((uv > -12) & (uv < size + 12), axis=1)
        )
        origins = self.vertices[seen] + 1.2 * self.normals[seen]
        turn = golden_fraction(seen) * np.float32(2 * np.pi)

        aim = disc_directions(light.key_direction, light.key_width, turn, _LIGHT_SAMPLES)
        key = np.ones(len(self.vertices), np.float32)
        key[seen] = 1 - self.blocked(np.broadcast_to(origins[:, None], aim.shape), aim)
        sky = np.ones(len(self.vertices), np.float32)
        around = hemisphere(self.normals[seen], turn, _SKY_SAMPLES)
        sky[seen] = 1 - self.blocked(np.broadcast_to(origins[:, None], around.shape), around, 55.0)
        self.key, self.sky = self._diffuse(key), self._diffuse(sky)

    def _diffuse(self, values: np.ndarray) -> np.ndarray:
        """Average a vertex value (v,) over its triangles, twice."""
        flat = self.faces.ravel()
        count = np.bincount(flat, minlength=len(values)).clip(1)
        for _ in range(2):
            of_face = (values[self.faces[:, 0]] + values[self.faces[:, 1]] + values[self.faces[:, 2]]) / 3
            values = np.bincount(flat, np.repeat(of_face, 3), len(values)) / count
        return values.astype(np.float32)

    def shade(self, rig: Rig, skin: Skin, light: Light, rays: np.ndarray, hits: _Hits) -> np.ndarray:
        """Linear colour (n, 3) of the points met: diffuse light that bleeds red, a highlight, a faint rim."""
        carried = np.concatenate(
            [self.normals, self.rest, np.stack([self.palmar, self.key, self.sky], axis=1)], axis=1
        )
        values = sum(hits.weights[:, k, None] * carried[hits.corners[:, k]] for k in range(3))
        normal = values[:, :3] / np.linalg.norm(values[:, :3], axis=1, keepdims=True).clip(1e-6)
        parts = self.parts[hits.nearest]
        albedo, gloss = shade_skin(skin, rig, Surface(values[:, 3:6], parts, values[:, 6]))
        key, sky = values[:, 7:8], values[:, 8:9]
        view = -rays / np.linalg.norm(rays, axis=1, keepdims=True)

        to_light = light.key_direction.astype(np.float32)
        facing = np.einsum("ni,i->n", normal, to_light)[:, None]
        wrap = np.array([0.34, 0.17, 0.11], np.float32)  # red light travels furthest under the skin
        diffuse = ((facing + wrap) / (1 + wrap)).clip(0) * key ** np.array([0.8, 1.0, 1.08], np.float32)
        up = 0.5 - 0.5 * normal[:, 1:2]
        sky_colour, ground, bright = (
            c.astype(np.float32) for c in (light.sky_colour, light.ground_colour, light.key_colour)
        )
        ambient = ground + (sky_colour - ground) * up
        ambient = ambient * (0.15 + 0.85 * sky) ** np.array([0.85, 1.0, 1.05], np.float32)
        half = view + to_light
        half /= np.linalg.norm(half, axis=1, keepdims=True).clip(1e-6)
        shine = np.einsum("ni,ni->n", normal, half).clip(0)[:, None]
        lobe = 0.6 * shine**12 + 1.4 * shine**45
        rim = (1 - np.einsum("ni,ni->n", normal, view).clip(0, 1)[:, None]) ** 4
        glossy = gloss[:, None] * (lobe * key * bright * (facing > 0) + 0.9 * rim * sky * sky_colour)
        return (albedo * (diffuse * bright + ambient) + glossy).astype(np.float32)

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


def _pixel_rays(K: np.ndarray, size: int) -> np.ndarray:
    v, u = np.mgrid[:size, :size].astype(np.float32)
    return np.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones_like(u)], axis=-1).astype(
        np.float32
    )


def _occupied(mesh: _Mesh, rays: np.ndarray, K: np.ndarray) -> np.ndarray:
    """Pixels (size, size) that may show a body, in blocks: those near a vertex or a hit of a coarse look."""
    size = len(rays)
    blocks = np.zeros(((size - 1) // _BLOCK + 1,) * 2, bool)
    middle = np.arange(len(blocks)) * _BLOCK + _BLOCK // 2
    middle[0], middle[-1] = 0, size - 1  # what only just enters the frame enters at its border
    blocks |= mesh.cast(rays[np.ix_(middle, middle)]).found
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


def _wall_depth(wall: Wall, size: int, mesh: _Mesh) -> np.ndarray:
    """Depth (size, size) of the wall, pushed behind everything that stands before it, within RHD's 5 m."""
    v, u = np.mgrid[:size, :size].astype(np.float32) / (size - 1) - 0.5
    relative = 1 + wall.slope[0] * u + wall.slope[1] * v
    behind = float(mesh.vertices[:, 2].max()) + 25.0
    return (max(wall.depth_mm, behind / float(relative.min())) * relative).clip(0, 4990).astype(np.float32)


def _wall_light(mesh: _Mesh, light: Light, depth: np.ndarray, rays: np.ndarray) -> np.ndarray:
    """Light (size, size, 3) on the wall: the bodies' soft shadow, traced on a coarse grid and enlarged."""
    size = len(depth)
    level = light.key_colour * max(0.25, -light.key_direction[2]) + 0.5 * (
        light.sky_colour + light.ground_colour
    )
    if light.key_direction[2] > -0.1:  # the wall would be lit from behind: plain ambient light
        return np.broadcast_to(level, (size, size, 3))
    step = max(1, size // 48)
    grid = np.arange(step // 2, size, step)
    points = (rays * depth[..., None])[np.ix_(grid, grid)]
    turn = (golden_fraction(np.arange(points[..., 0].size)) * np.float32(2 * np.pi)).reshape(points.shape[:2])
    aim = disc_directions(light.key_direction, max(light.key_width, 0.08), turn, _WALL_SAMPLES)
    shadow = mesh.blocked(np.broadcast_to(points[:, :, None], aim.shape), aim)
    shadow = _blur(shadow)
    shadow = np.asarray(Image.fromarray(shadow).resize((size, size), Image.Resampling.BICUBIC)).clip(0, 1)
    lost = light.key_colour * max(0.25, -light.key_direction[2])
    return level - 0.9 * shadow[..., None] * lost


def _blur(values: np.ndarray) -> np.ndarray:
    """Average over a 5 x 5 neighbourhood (binomial weights), borders repeated."""
    for axis in (0, 1):
        pad = [(2, 2) if k == axis else (0, 0) for k in (0, 1)]
        padded = np.pad(values, pad, mode="edge")
        n = values.shape[axis]
        values = sum(w * padded.take(range(k, k + n), axis) for k, w in enumerate(_BINOMIAL))
    return values


def _neighbours(axis: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Index of all but the last, and of all but the first, row (axis 0) or column (axis 1)."""
    every, but_last, but_first = slice(None), slice(None, -1), slice(1, None)
    return ((but_last, every), (but_first, every)) if axis == 0 else ((every, but_last), (every, but_first))


def _smooth_edges(colour, background, depth, parts, mesh, rig, skin, light, K) -> None:
    """Re-render, with four rays each, the pixels where part or depth jumps (antialiasing in place)."""
    near = np.where(np.isfinite(depth), depth, 1e4)
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
    corners = np.array([(-0.25, -0.25), (0.25, -0.25), (-0.25, 0.25), (0.25, 0.25)])
    x = (u[:, None] + corners[:, 0] - K[0, 2]) / K[0, 0]
    y = (v[:, None] + corners[:, 1] - K[1, 2]) / K[1, 1]
    rays = np.stack([x, y, np.ones_like(x)], axis=-1).astype(np.float32)
    hits = mesh.cast(rays)
    samples = np.repeat(background[v, u][:, None], 4, axis=1).astype(np.float32)
    samples[hits.found] = mesh.shade(rig, skin, light, rays[hits.found], hits)
    colour[v, u] = samples.clip(0, 4).mean(1)
