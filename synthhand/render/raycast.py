"""Ray casting on the CPU: what rays meet on the triangles of posed hands.

Open3D's `RaycastingScene` (Embree) follows the rays. It uses one thread, so that a picture does not depend on
how many are drawn at a time.
"""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import Any

import numpy as np

from synthhand.model.body import Body, face_corners, vertex_normals
from synthhand.model.rig import cross_rows
from synthhand.render.light import Light

# System libraries that Open3D's wheel is linked against, and the Debian and Ubuntu packages that hold them.
# A bare container lacks most of them.
_PACKAGES = {
    "libGL.so.1": "libgl1",
    "libX11.so.6": "libx11-6",
    "libgomp.so.1": "libgomp1",
    "libstdc++.so.6": "libstdc++6",
    "libudev.so.1": "libudev1",
    "libusb-1.0.so.0": "libusb-1.0-0",
}
_NOT_LOADED = re.compile(r"(\S+\.so[.\d]*): cannot open shared object file")  # glibc's message


@dataclass(frozen=True)
class Hits:
    """What a bundle of rays met; r are all rays, n those that met something.

    Attributes:
        found: (r...) bool, whether a ray met something.
        distance: (r...) mm along z for rays with z = 1, inf where nothing was met.
        triangles: (n,) indices into the mesh's faces.
        corners: (n, 3) the vertices of those triangles.
        weights: (n, 3) barycentric coordinates of the points met.
    """

    found: np.ndarray
    distance: np.ndarray
    triangles: np.ndarray
    corners: np.ndarray
    weights: np.ndarray

    @cached_property
    def nearest(self) -> np.ndarray:
        """The closest of the three corners (n,)."""
        first, second, third = np.ascontiguousarray(self.weights.T)
        which = np.where(third > np.maximum(first, second), 2, second > first)
        return self.corners.ravel().take(3 * np.arange(len(which)) + which)


class Mesh:
    """All bodies as one set of triangles, with the attributes of their vertices that shading needs.

    Triangles that face neither the camera nor the light are left out. The surface is closed, so a ray meets
    another triangle first; and half of the time that ray casting takes goes into sorting triangles.

    Attributes:
        vertices: (v, 3) mm, in the camera frame.
        faces: (f, 3) the triangles that are kept.
        normals: (v, 3) unit vectors, outwards.
        body: (v,) index of the body that a vertex belongs to.
        parts, rest, palmar: (v,), (v, 3) and (v,), as in `Body`.
    """

    def __init__(self, bodies: list[Body], light: Light):
        starts = np.cumsum([0] + [len(b.vertices_mm) for b in bodies])
        self.vertices = np.concatenate([b.vertices_mm for b in bodies])
        faces = np.concatenate([b.faces + s for b, s in zip(bodies, starts, strict=False)])
        self.body = np.concatenate([np.full(len(b.vertices_mm), k) for k, b in enumerate(bodies)])
        a, b, c = face_corners(self.vertices, faces)
        across = cross_rows(b - a, c - a)
        self.normals = vertex_normals(self.vertices, faces, across)
        inward = dot(across, a)
        # A wide light also reaches triangles that are turned slightly away from its middle.
        towards = dot(across, light.key_direction.astype(np.float32)[:, None])
        area = np.sqrt(dot(across, across))
        kept = np.flatnonzero((inward < 0) | (towards > -light.key_width * area))
        self.faces = faces.take(kept, axis=0)
        self.parts = np.concatenate([b.parts for b in bodies])
        self.rest = np.concatenate([b.rest_mm for b in bodies])
        self.palmar = np.concatenate([b.palmar for b in bodies])
        self._scene = load_open3d().t.geometry.RaycastingScene(nthreads=1)
        self._scene.add_triangles(self.vertices, self.faces.astype(np.uint32))

    def cast(self, *bundles: np.ndarray) -> list[Hits]:
        """Follow bundles of rays (n, 3) from the camera, all at once; with z = 1 distance is depth."""
        answer = self._trace(np.concatenate(bundles))
        ends = np.cumsum([len(directions) for directions in bundles])[:-1]
        names = ("t_hit", "primitive_ids", "primitive_uvs")
        return [
            self._hits(*pieces)
            for pieces in zip(*(np.split(answer[name].numpy(), ends) for name in names), strict=True)
        ]

    def _hits(self, distance: np.ndarray, triangles: np.ndarray, uv: np.ndarray) -> Hits:
        found = np.isfinite(distance)
        met = np.flatnonzero(found)
        triangles, weights = triangles.take(met), np.empty((len(met), 3), np.float32)
        weights[:, 1:] = uv.take(met, axis=0)
        weights[:, 0] = 1 - weights[:, 1] - weights[:, 2]
        return Hits(found, distance, triangles, self.faces.take(triangles, axis=0), weights)

    def cast_depths(self, directions: np.ndarray) -> np.ndarray:
        """Follow rays (..., 3) as `cast` does; return their distances (...) alone, inf where none is met."""
        return self._trace(directions)["t_hit"].numpy()

    def _trace(self, directions: np.ndarray) -> dict[str, Any]:
        rays = np.zeros((*directions.shape[:-1], 6), np.float32)
        rays[..., 3:] = directions
        return self._scene.cast_rays(load_open3d().core.Tensor(rays), nthreads=1)

    def find_passed(self, directions: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        """Return which rays (n, 3) from the camera pass wanted vertices (v,) bool, be they behind others."""
        rays = np.zeros((len(directions), 6), np.float32)
        rays[:, 3:] = directions
        answer = self._scene.list_intersections(load_open3d().core.Tensor(rays), nthreads=1)
        met = wanted.take(self.faces[:, 0].take(answer["primitive_ids"].numpy()))
        passed = np.zeros(len(directions), bool)
        passed[answer["ray_ids"].numpy()[met]] = True
        return passed

    def measure_occlusion(
        self, origins: np.ndarray, directions: np.ndarray, reach_mm: float = np.inf
    ) -> np.ndarray:
        """Return the share (n,) of the rays from (n, 3) along (n, samples, 3) that are blocked.

        A ray is blocked if it meets a triangle within `reach_mm`.
        """
        rays = np.empty((*directions.shape[:2], 6), np.float32)
        rays[..., :3] = origins[:, None]
        rays[..., 3:] = directions
        hit = self._scene.test_occlusions(
            load_open3d().core.Tensor(rays), tnear=0.0, tfar=float(reach_mm), nthreads=1
        )
        return hit.numpy().sum(axis=1, dtype=np.float32) * np.float32(1 / directions.shape[1])


def dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the inner products (n,) of the columns of a and b (3, n)."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def load_open3d() -> ModuleType:
    """Import Open3D where it is first needed: it takes seconds, and most of the project works without it.

    Raises:
        OSError: a system library that Open3D is linked against is missing; the message names its package.
    """
    # When imported in a notebook, Open3D starts and announces a viewer, which is not used here.
    os.environ.setdefault("OPEN3D_DISABLE_WEB_VISUALIZER", "true")
    try:
        with _postpone("open3d.ml"):  # two thirds of the time: scikit-learn, pandas
            import open3d
    except (ImportError, OSError) as error:  # from the dynamic loader, through an import or through ctypes
        if (found := _NOT_LOADED.match(str(error))) is None:
            raise
        raise OSError(
            f"{found[1]} is missing, a system library that Open3D needs (it draws the hands); "
            f"{_advise(found[1])}"
        ) from error
    return open3d


@contextmanager
def _postpone(name: str) -> Iterator[None]:
    """Let a package be imported without one of its modules, which can be imported afterwards."""
    nothing = ModuleType(name)
    if name.partition(".")[0] in sys.modules or sys.modules.setdefault(name, nothing) is not nothing:
        yield  # it is there, or another thread postpones it
        return
    try:
        yield
    finally:
        del sys.modules[name]


def _advise(library: str) -> str:
    if library in _PACKAGES:
        return f"on Debian and Ubuntu `apt-get install {_PACKAGES[library]}` brings it"
    return "install the package of your system that holds it"
