"""The built-in hand: the distance field of `synthhand.model.field`, meshed once into a `Rig`.

An adult right hand of about 190 mm length and 85 mm breadth, with the proportions of
`synthhand.model.anatomy`. Nothing is scanned or downloaded, so the mesh is free of other licences.
"""

from functools import lru_cache
from itertools import pairwise

import numpy as np
from scipy import sparse
from skimage.measure import marching_cubes

from synthhand.model.anatomy import FOREARM_MM, THUMB_PAD, flesh_radii, rest_joints_mm
from synthhand.model.field import capsule, hand_field
from synthhand.model.rig import FOREARM, SEGMENTS, Rig, segment_frames, segment_parts
from synthhand.skeleton import JOINTS

_CELLS_MM = (4.2, 4.0, 4.1)  # of the grid, along x, y (fingers) and z

SHAPE_NAMES = (
    *("thickness", "finger_thickness", "finger_taper", "knuckles", "pads"),
    *("palm_breadth", "palm_depth", "thenar", "hypothenar", "wrist"),
)


def _gradient(points: np.ndarray, field) -> np.ndarray:
    """Unit normals (v, 3) of a distance field by differences over half a millimetre."""
    # Four corners of a cube replace the six points of central differences: sum of corner times field.
    corners = np.array([(1, -1, -1), (-1, -1, 1), (-1, 1, -1), (1, 1, 1)], float)
    difference = sum(field(points + 0.3 * c).astype(np.float64)[:, None] * c for c in corners)
    return difference / np.linalg.norm(difference, axis=1, keepdims=True).clip(1e-9)


def _adjacency(faces: np.ndarray, vertices: int) -> sparse.csr_matrix:
    """Row-normalised neighbour matrix (v, v) of a mesh: times values = mean over neighbours."""
    i = faces[:, [0, 1, 2, 1, 2, 0]].ravel()
    j = faces[:, [1, 2, 0, 0, 1, 2]].ravel()
    matrix = sparse.coo_matrix((np.ones(len(i)), (i, j)), (vertices, vertices)).tocsr()
    matrix.data[:] = 1.0  # an inner edge was counted twice
    return sparse.diags_array(1.0 / np.asarray(matrix.sum(1)).ravel()) @ matrix


def _mesh(field) -> tuple[np.ndarray, np.ndarray]:
    """Run marching cubes over the hand's box; cells of the forearm are more than twice as long."""
    dx, dy, dz = _CELLS_MM
    xs, zs = np.arange(-64, 112, dx), np.arange(-50, 38, dz)
    palm = np.arange(-90, 12, 1.1 * dy)
    ys = np.concatenate([np.arange(palm[0] - 31 * dy, palm[0] - 1, dy), palm])
    ys = np.concatenate([ys, np.arange(ys[-1] + 2 * dy, FOREARM_MM + 36, 2.5 * dy)])
    grid = np.stack(np.meshgrid(xs, ys, zs, indexing="ij"), axis=-1)
    values = field(grid.reshape(-1, 3)).reshape(grid.shape[:3])
    vertices, faces, _, _ = marching_cubes(values, 0.0, gradient_direction="ascent")
    axes = [np.interp(vertices[:, k], np.arange(len(axis)), axis) for k, axis in enumerate((xs, ys, zs))]
    vertices = np.stack(axes, axis=1)
    around = _adjacency(faces, len(vertices))
    for back in (1, 1, 2):  # even out the triangles, then return to the surface
        vertices = vertices + 0.6 * (around @ vertices - vertices)
        for _ in range(back):
            vertices = vertices - field(vertices)[:, None].astype(np.float64) * _gradient(vertices, field)
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    if np.einsum("fi,fi->", np.cross(b - a, c - a), _gradient((a + b + c) / 3, field)) < 0:
        faces = faces[:, ::-1]
    return vertices, np.ascontiguousarray(faces, dtype=np.int32)


def _step(x: np.ndarray, low: float, high: float) -> np.ndarray:
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def _skin_weights(vertices, faces, joints, radii, frames) -> np.ndarray:
    """Weights (v, 22): finger by distance, phalanx by the position along it, then a little diffusion."""
    distance = np.empty((len(vertices), 5))
    for finger in range(5):
        chain = [0, *range(1 + 4 * finger, 5 + 4 * finger)]
        distance[:, finger] = np.min(
            [
                capsule(vertices.T, joints[a], joints[b], radii[a] if a else 12.0, radii[b])
                for a, b in pairwise(chain)
            ],
            axis=0,
        )
    share = np.exp(-(distance - distance.min(1, keepdims=True)) / 2.0)
    share /= share.sum(1, keepdims=True)
    weights = np.zeros((len(vertices), SEGMENTS))
    for finger in range(5):
        first = 1 + 4 * finger
        left = share[:, finger]
        for c in range(first, first + 3):
            # The joint's plane halves the angle between the two bones it joins.
            across = frames[c][:, 2] + frames[c + 1][:, 2] if c > first else frames[c + 1][:, 2]
            position = (vertices - joints[c]) @ (across / np.linalg.norm(across))
            reach = {0: 13.0, 1: 0.85 * radii[c], 2: 0.8 * radii[c]}[c - first]
            beyond = left * _step(position, -reach, reach)
            weights[:, c] = left - beyond
            left = beyond
        weights[:, first + 3] = left
    arm = _step(vertices[:, 1], -14.0, 16.0)
    weights *= (1 - arm)[:, None]
    weights[:, FOREARM] = arm
    around = _adjacency(faces, len(vertices))
    for _ in range(4):
        weights = 0.5 * weights + 0.5 * (around @ weights)
    weights[weights < 0.004] = 0
    return weights / weights.sum(1, keepdims=True)


def _shape_fields(vertices, faces, normals, weights, joints, radii, frames) -> np.ndarray:
    """Displacements (k, v, 3), mm per unit (a unit is about one standard deviation), of `SHAPE_NAMES`."""
    finger = weights[:, [c for c in range(2, JOINTS) if (c - 1) % 4]].sum(1)
    palm = (1 - finger) * (1 - weights[:, FOREARM])
    distal = weights[:, [4, 8, 12, 16, 20]].sum(1)
    proximal = weights[:, [2, 6, 10, 14, 18]].sum(1)
    owner = np.argmax(weights, axis=1)
    palmar = np.einsum("vi,vi->v", normals, frames[owner][:, :, 1])
    beside = 1 - 0.25 * finger * (1 - np.abs(palmar))  # fingers thicken less where they touch each other
    x, y, z = vertices.T

    def bump(centre, width_mm):
        return np.exp(-np.sum((vertices - centre) ** 2, axis=1) / (2 * width_mm**2))

    knuckles = sum(
        bump(joints[c], 0.9 * radii[c]) for f in range(5) for c in (2 + 4 * f, 3 + 4 * f) if c != 2
    )
    pads = sum(bump(joints[4 * f + 4] + 4 * frames[4 * f + 4][:, 1], 6.0) for f in range(5))
    bones_mm = hand_field(vertices, joints, radii, frames, relief=False).clip(0).astype(float)  # of the back
    outwards = normals * np.array([1.0, 0.0, 1.0])
    fields = {
        "thickness": normals * (0.55 * beside + 0.55 * palm)[:, None],
        "finger_thickness": normals * (0.6 * finger * beside)[:, None],
        "finger_taper": normals * (0.7 * (proximal - distal))[:, None],
        "knuckles": normals * (0.6 * knuckles.clip(0, 1) + 0.3 * bones_mm)[:, None],
        "pads": normals * (0.9 * pads * palmar.clip(0))[:, None],
        "palm_breadth": np.stack([0.055 * x * palm, 0 * x, 0 * x], axis=1),
        "palm_depth": np.stack([0 * x, 0 * x, 0.085 * z * palm], axis=1),
        "thenar": normals * (2.2 * bump(np.array([26.0, -36.0, -22.0]), 15.0))[:, None],
        "hypothenar": normals * (1.9 * bump(np.array([-32.0, -34.0, -12.0]), 15.0))[:, None],
        "wrist": outwards * (1.8 * _step(y, -30.0, 10.0))[:, None],
    }
    around = _adjacency(faces, len(vertices))
    for _ in range(4):  # smooth, so that the sharply curved skin of a web does not fold over
        fields = {name: 0.5 * field + 0.5 * (around @ field) for name, field in fields.items()}
    return np.stack([fields[name] for name in SHAPE_NAMES])


@lru_cache(maxsize=1)
def procedural_rig() -> Rig:
    """Return the built-in right hand (meshed on first use, about half a second, then kept)."""
    joints, radii = rest_joints_mm(), flesh_radii()
    palmar = np.tile([0.0, 0.0, -1.0], (SEGMENTS, 1))
    palmar[2:5] = THUMB_PAD
    frames = segment_frames(joints, palmar)

    def field(points):
        return hand_field(points, joints, radii, frames)

    vertices, faces = _mesh(field)
    normals = _gradient(vertices, field)
    weights = _skin_weights(vertices, faces, joints, radii, frames)
    parts = segment_parts()[np.argmax(weights, axis=1)]
    fields = _shape_fields(vertices, faces, normals, weights, joints, radii, frames)
    arrays = (vertices, faces, weights, joints, frames, parts, fields)
    for array in arrays:
        array.flags.writeable = False  # the rig is shared by everyone in this process
    return Rig(*arrays, shape_names=SHAPE_NAMES)
