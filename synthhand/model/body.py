"""Triangles of a posed hand with its arm in the camera frame."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import sparse

from synthhand.model.anatomy import forearm_radii
from synthhand.model.rig import FOREARM, FOREARM_PART, Rig, cross_rows, resize, segment_motion, skin
from synthhand.skeleton import ROOT

_RING = 18  # vertices around the arm
_SOCKET_MM = 94.0  # where the arm's tube starts, inside the rig's own forearm


@dataclass(frozen=True)
class Body:
    """One hand with its arm, in the camera frame.

    Attributes:
        vertices_mm: (v, 3) float32.
        faces: (f, 3) int32.
        joints_mm: (21, 3), in the order of `synthhand.skeleton`.
        rest_mm: (v, 3) float32, where each vertex lies on the rest hand (texture coordinates).
        parts: (v,) part id within the hand.
        palmar: (v,) float32, 1 where the rest surface faces the palm's side, -1 on the back.
    """

    vertices_mm: np.ndarray
    faces: np.ndarray
    joints_mm: np.ndarray
    rest_mm: np.ndarray
    parts: np.ndarray
    palmar: np.ndarray


def build_body(
    rig: Rig,
    rotations: np.ndarray,
    shape: np.ndarray,
    palm_scale: np.ndarray,
    bone_scale: np.ndarray,
    *,
    size: float,
    root_mm: np.ndarray,
    left: bool,
    arm_angle_rad: float,
) -> Body:
    """Pose the rig, add an arm, and place both in front of the camera.

    Args:
        rig: the hand.
        rotations: (22, 3, 3) of the segments, see `segment_motion`.
        shape: (k,) coefficients of the rig's shape fields.
        palm_scale: (2,) width and length of the palm, see `resize_joints`.
        bone_scale: (15,) lengths of the phalanges, see `resize_joints`.
        size: factor of overall size.
        root_mm: (3,) position of the middle MCP of the *right* hand; a left hand is mirrored, x' = -x.
        left: whether to make a left hand.
        arm_angle_rad: on-screen direction in which an arm that points at the camera is bent away.
    """
    vertices, joints = resize(rig, palm_scale, bone_scale, shape)
    turned, shifts, posed = segment_motion(joints, rotations)
    vertices = skin(vertices, rig.sparse_weights, turned, shifts)
    to_camera = root_mm - size * posed[ROOT]
    vertices, posed = size * vertices + to_camera, size * posed + to_camera
    plump = 0.55 * shape[0] + 1.8 * shape[-1]
    socket = size * (shifts[FOREARM] + turned[FOREARM] @ np.array([0, _SOCKET_MM, 0.5])) + to_camera
    rings, ring_faces, ring_rest = _arm(socket, turned[FOREARM], size, palm_scale[0], plump, arm_angle_rad)
    faces = np.concatenate([rig.faces, ring_faces + len(vertices)])
    vertices = np.concatenate([vertices, rings])
    if left:
        mirror = np.array([-1.0, 1.0, 1.0])
        vertices, posed, faces = vertices * mirror, posed * mirror, faces[:, ::-1]
    ring_parts = np.full(len(rings), FOREARM_PART, np.uint8)
    return Body(
        vertices_mm=vertices.astype(np.float32),
        faces=np.ascontiguousarray(faces),
        joints_mm=posed,
        rest_mm=np.concatenate([rig.vertices_mm, ring_rest]).astype(np.float32),
        parts=np.concatenate([rig.parts, ring_parts]),
        palmar=np.concatenate([rest_palmar(rig), np.full(len(rings), -0.4)]).astype(np.float32),
    )


def _arm(start, turned, size, breadth, plump, arm_angle_rad):
    """A tube from inside the forearm to outside the frame that never points at the camera."""
    forward = turned[:, 1]  # the rest forearm points along +y
    aside = np.array([forward[0], forward[1], 0.0])
    if np.linalg.norm(aside) < 0.25:
        aside = aside + 0.5 * np.array([np.cos(arm_angle_rad), np.sin(arm_angle_rad), 0.0])
    aside /= np.linalg.norm(aside)
    elbow = start + size * 130 * forward
    far = elbow + size * (60 * forward + np.array([0, 0, 60.0])) + max(900.0, 1.4 * start[2]) * aside
    elbow[2], far[2] = max(elbow[2], 200.0), max(far[2], 350.0)
    bend = start + size * 32 * forward  # straight through the rig's forearm, then a curve
    straight = np.linspace(0, 1, 4)[:-1, None]
    t = np.linspace(0, 1, 12)[:, None] ** 1.5
    curve = (1 - t) ** 2 * bend + 2 * t * (1 - t) * elbow + t**2 * far
    centres = np.concatenate([start + straight * (bend - start), curve])
    along = np.gradient(centres, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    sideways = turned[:, 0] - np.einsum("ni,i->n", along, turned[:, 0])[:, None] * along
    sideways /= np.linalg.norm(sideways, axis=1, keepdims=True).clip(1e-6)
    up = cross_rows(along.T, sideways.T).T
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(centres, axis=0), axis=1))]) / size
    y = _SOCKET_MM + length
    wide, deep = forearm_radii(y)
    ease = np.interp(y, [_SOCKET_MM, 108], [-0.8, 0.25])  # emerges from the rig's forearm, then hides its end
    wide, deep = (wide * breadth + plump + ease) * size, (deep + plump + ease) * size
    angle, faces = _tube(len(centres))
    points = (
        centres[:, None]
        + (wide[:, None] * np.cos(angle))[:, :, None] * sideways[:, None]
        + (deep[:, None] * np.sin(angle))[:, :, None] * up[:, None]
    )
    rest = np.stack(
        [38 * np.cos(angle) + 0 * y[:, None], np.broadcast_to(y[:, None], points.shape[:2]),
         25 * np.sin(angle) + 0 * y[:, None]], axis=-1,
    )  # fmt: skip
    # sideways x up = -along or +along: pick the winding whose normals look outwards.
    p, q, r = (points.reshape(-1, 3)[faces[0, i]] for i in range(3))
    if np.cross(q - p, r - p) @ ((p + q + r) / 3 - centres[0]) < 0:
        faces = faces[:, ::-1]
    return points.reshape(-1, 3), faces, rest.reshape(-1, 3)


@lru_cache
def _tube(rings: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the angles (n,), radians, of a ring's vertices, and the faces (f, 3) of a tube of rings."""
    ring, k = np.meshgrid(np.arange(rings - 1), np.arange(_RING), indexing="ij")
    a, b = ring * _RING + k, ring * _RING + (k + 1) % _RING
    quads = np.stack([a, b, b + _RING, a + _RING], axis=-1).reshape(-1, 4)
    faces = np.concatenate([quads[:, [0, 2, 1]], quads[:, [0, 3, 2]]]).astype(np.int32)
    return np.linspace(0, 2 * np.pi, _RING, endpoint=False), faces


@lru_cache(maxsize=4)
def rest_palmar(rig: Rig) -> np.ndarray:
    """Return how far (v,) each vertex of the rest hand faces the palmar side of its segment: -1..1."""
    normals = vertex_normals(rig.vertices_mm, rig.faces)
    palmar_axes = rig.frames[np.argmax(rig.weights, axis=1), :, 1]
    return np.einsum("vi,vi->v", normals, palmar_axes)


def face_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return the normals (3, f) of triangles, of twice their area; outwards for counter-clockwise ones."""
    a, b, c = face_corners(vertices, faces)
    return cross_rows(b - a, c - a)


def face_corners(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return the corners (3, 3, f) of triangles: first, second, third; x, y, z of each as long rows."""
    # `take` along long rows, by indices of the machine's own kind, is several times faster than indexing.
    return np.ascontiguousarray(vertices.T).take(long_rows(faces), axis=1).swapaxes(0, 1)


def long_rows(faces: np.ndarray) -> np.ndarray:
    """Return the three corners (3, f) of triangles (f, 3), as indices that `take` need not convert."""
    return faces.T.astype(np.intp, order="C")


def vertex_normals(vertices: np.ndarray, faces: np.ndarray, across: np.ndarray | None = None) -> np.ndarray:
    """Return area-weighted unit normals (v, 3), outwards; `across` are the `face_normals`, if known."""
    across = face_normals(vertices, faces) if across is None else across
    normals = incidence(faces, len(vertices), across.dtype) @ across.T
    return normals / np.sqrt(np.einsum("vi,vi->v", normals, normals)).clip(1e-12)[:, None]


def incidence(faces: np.ndarray, vertices: int, dtype=np.float32) -> sparse.csc_array:
    """Return the matrix (v, f) that is 1 where a vertex belongs to a face: it sums face values per vertex."""
    ends = np.arange(0, faces.size + 1, 3, dtype=faces.dtype)
    return sparse.csc_array((np.ones(faces.size, dtype), faces.ravel(), ends), (vertices, len(faces)))
