"""A skinned hand: rest mesh, skeleton, weights, and the skinning that poses them.

The rest frame of every rig is that of a right hand whose palm faces the camera, fingers up: x towards the
thumb, y towards the elbow, z from the palm to the back of the hand (camera axes: x right, y down, z forward).

A rig moves in 22 rigid *segments*: segment 0 is the palm, segment c = 1..20 is the bone that ends at joint c
of `synthhand.skeleton`, segment 21 is the forearm. Meshes from other sources (MANO, glTF) map onto the same
ones.

Skinning blends dual quaternions (Kavan et al., 2007): unlike linear blending it does not lose volume at a
bent knuckle. Joints follow the bones, not the blend, so posed joints agree with the posed bones exactly.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse

from synthhand.skeleton import JOINTS, PARENTS, WRIST

SEGMENTS = JOINTS + 1
FOREARM = JOINTS  # index of the forearm's segment
SEGMENT_PARENTS = np.append(PARENTS, WRIST)  # palm has none; the forearm hangs on the wrist

PALM_PART = 15  # part ids within a hand follow RHD: 0-2 thumb tip->palm, 3-5 index, ... 12-14 little, 15 palm
FOREARM_PART = 16  # not a hand: rendered as RHD's "person"
PHALANGES = np.array([c for c in range(1, JOINTS) if PARENTS[c] != WRIST])  # the 15 segments of the fingers


def segment_parts() -> np.ndarray:
    """Return the part id (22,) of each segment: phalanges tip->palm, metacarpals and palm, forearm."""
    parts = np.full(SEGMENTS, PALM_PART, np.uint8)
    for c in PHALANGES:
        finger, position = divmod(int(c) - 1, 4)  # position 1, 2, 3 = proximal, middle, distal
        parts[c] = 3 * finger + 3 - position
    parts[FOREARM] = FOREARM_PART
    return parts


@dataclass(frozen=True, eq=False)  # compared by identity: a rig is large, shared and never changed
class Rig:
    """A right hand in its rest pose.

    Attributes:
        vertices_mm: (v, 3) rest surface.
        faces: (f, 3) vertex indices, counter-clockwise seen from outside.
        weights: (v, 22) share of each segment in each vertex; rows sum to one.
        joints_mm: (21, 3) rest joints, wrist at the origin.
        frames: (22, 3, 3) per segment, columns = flexion axis, palmar direction, bone direction.
        parts: (v,) part id within the hand (see `PALM_PART`).
        shape_fields: (k, v, 3) displacement in mm per unit of each shape parameter.
        shape_names: k names.
    """

    vertices_mm: np.ndarray
    faces: np.ndarray
    weights: np.ndarray
    joints_mm: np.ndarray
    frames: np.ndarray
    parts: np.ndarray
    shape_fields: np.ndarray
    shape_names: tuple[str, ...]

    def __post_init__(self):
        v = len(self.vertices_mm)
        expected = {
            "vertices_mm": (v, 3),
            "faces": (len(self.faces), 3),
            "weights": (v, SEGMENTS),
            "joints_mm": (JOINTS, 3),
            "frames": (SEGMENTS, 3, 3),
            "parts": (v,),
            "shape_fields": (len(self.shape_names), v, 3),
        }
        for name, shape in expected.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"rig: {name} has shape {getattr(self, name).shape}, expected {shape}")

    @cached_property
    def sparse_weights(self) -> sparse.csr_array:
        """The weights (v, 22) without their zeros: few segments move a vertex."""
        return sparse.csr_array(self.weights)


def segment_frames(joints_mm: np.ndarray, palmar: np.ndarray) -> np.ndarray:
    """Build the frame of each segment from rest joints and a palmar direction per segment.

    Args:
        joints_mm: (21, 3).
        palmar: (22, 3) directions towards which each segment flexes; need not be orthogonal to the bone.

    Returns:
        (22, 3, 3), columns flexion axis, palmar direction, bone direction: orthonormal, and left-handed.
        A turn by +angle about the first column bends the bone towards the palm.
    """
    bones = np.empty((SEGMENTS, 3))
    bones[1:JOINTS] = joints_mm[1:] - joints_mm[PARENTS[1:]]
    bones[0] = joints_mm[9] - joints_mm[WRIST]
    bones[FOREARM] = bones[0]
    along = bones / np.linalg.norm(bones, axis=1, keepdims=True)
    towards = palmar - np.sum(palmar * along, axis=1, keepdims=True) * along
    towards = towards / np.linalg.norm(towards, axis=1, keepdims=True)
    return np.stack([np.cross(along, towards), towards, along], axis=2)


def axis_rotation(axes: np.ndarray, angles_rad: np.ndarray) -> np.ndarray:
    """Rotation matrices (..., 3, 3) about unit axes (..., 3) by angles (...), right-handed (Rodrigues)."""
    x, y, z = np.moveaxis(axes, -1, 0)
    zero = np.zeros_like(x)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1).reshape(*axes.shape[:-1], 3, 3)
    sin, cos = np.sin(angles_rad)[..., None, None], np.cos(angles_rad)[..., None, None]
    return np.eye(3) + sin * cross + (1 - cos) * np.einsum("...ij,...jk->...ik", cross, cross)


def resize_joints(rig: Rig, palm_scale: np.ndarray, bone_scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Change the bone proportions of the rest skeleton.

    Args:
        rig: the hand.
        palm_scale: (2,) factors of the palm's width (x) and length (y).
        bone_scale: (15,) factors of the phalanges, in the order of `PHALANGES`.

    Returns:
        Rest joints (21, 3), mm, and the stretch (22, 3, 3) of the flesh around each segment.
    """
    stretch = np.tile(np.diag([palm_scale[0], palm_scale[1], 1.0]), (SEGMENTS, 1, 1))
    stretch[FOREARM] = np.diag([palm_scale[0], 1.0, 1.0])
    along = rig.frames[PHALANGES, :, 2]
    stretch[PHALANGES] = np.eye(3) + (bone_scale - 1)[:, None, None] * along[:, :, None] * along[:, None, :]
    joints = np.empty_like(rig.joints_mm)
    joints[WRIST] = rig.joints_mm[WRIST]
    for c in range(1, JOINTS):
        parent = PARENTS[c]
        joints[c] = joints[parent] + stretch[c] @ (rig.joints_mm[c] - rig.joints_mm[parent])
    return joints, stretch


def resize(rig: Rig, palm_scale: np.ndarray, bone_scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Change the bone proportions of the rest hand; flesh is stretched along the bones only.

    Args and joints as in `resize_joints`.

    Returns:
        Vertices (v, 3) and joints (21, 3), mm, in the rest pose.
    """
    joints, stretch = resize_joints(rig, palm_scale, bone_scale)
    pivots = SEGMENT_PARENTS.clip(0)
    offsets = joints[pivots] - np.einsum("sij,sj->si", stretch, rig.joints_mm[pivots])
    # One product for matrix and offset; sparse, unlike BLAS, it gives the same bits on any number of threads.
    moves = np.concatenate([stretch, offsets[:, :, None]], axis=2).reshape(SEGMENTS, 12)
    blended = (rig.sparse_weights @ moves).reshape(-1, 3, 4)
    return np.einsum("vij,vj->vi", blended[:, :, :3], rig.vertices_mm) + blended[:, :, 3], joints


def segment_motion(joints_mm: np.ndarray, rotations: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Forward kinematics of the 22 segments.

    Args:
        joints_mm: (21, 3) rest joints.
        rotations: (22, 3, 3) turn of each segment relative to its parent segment, in the rest frame;
            entry 0 is the global orientation.

    Returns:
        Global rotations (22, 3, 3), translations (22, 3) such that x -> R x + t, and posed joints (21, 3).
    """
    turned = np.empty_like(rotations)
    posed = np.empty_like(joints_mm)
    turned[0] = rotations[0]
    posed[WRIST] = rotations[0] @ joints_mm[WRIST]
    for c in range(1, SEGMENTS):
        parent = SEGMENT_PARENTS[c]
        turned[c] = turned[parent] @ rotations[c]
        if c < JOINTS:
            posed[c] = posed[parent] + turned[c] @ (joints_mm[c] - joints_mm[parent])
    pivots = SEGMENT_PARENTS.clip(0)
    shifts = posed[pivots] - np.einsum("sij,sj->si", turned, joints_mm[pivots])
    return turned, shifts, posed


def quaternions(rotations: np.ndarray) -> np.ndarray:
    """Unit quaternions (n, 4), real part first, of rotation matrices (n, 3, 3)."""
    r = rotations
    diagonal = np.einsum("nii->ni", r)
    trace = diagonal.sum(1)
    # Four times the products q_i q_j; the row of the largest component is the best conditioned.
    table = np.empty((len(r), 4, 4))
    table[:, 0, 0] = 1 + trace
    for i in range(3):
        j, k = (i + 1) % 3, (i + 2) % 3
        table[:, i + 1, i + 1] = 1 + 2 * diagonal[:, i] - trace
        table[:, 0, i + 1] = table[:, i + 1, 0] = r[:, k, j] - r[:, j, k]
        table[:, j + 1, k + 1] = table[:, k + 1, j + 1] = r[:, k, j] + r[:, j, k]
    best = np.argmax(np.einsum("nii->ni", table), axis=1)
    rows = table[np.arange(len(r)), best]
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def skin(
    vertices_mm: np.ndarray,
    weights: np.ndarray | sparse.csr_array,
    rotations: np.ndarray,
    shifts: np.ndarray,
) -> np.ndarray:
    """Move vertices (v, 3) with dual-quaternion blending of rigid segments.

    Args:
        vertices_mm: (v, 3) in the rest pose.
        weights: (v, 22), dense or sparse.
        rotations: (22, 3, 3) global rotations of the segments, from `segment_motion`.
        shifts: (22, 3) their translations.

    Returns:
        (v, 3) posed vertices in the units of the input.
    """
    real = quaternions(rotations)
    for c in range(1, SEGMENTS):  # q and -q turn alike: neighbours must agree in sign before they are blended
        if real[c] @ real[SEGMENT_PARENTS[c]] < 0:
            real[c] = -real[c]
    dual = np.empty_like(real)
    dual[:, 0] = -0.5 * np.einsum("si,si->s", shifts, real[:, 1:])
    dual[:, 1:] = 0.5 * (real[:, :1] * shifts + np.cross(shifts, real[:, 1:]))
    blended = sparse.csr_array(weights) @ np.concatenate([real, dual], axis=1)
    # Coordinate by coordinate (8, v): NumPy is several times faster along long rows.
    blended = np.ascontiguousarray(blended.T)
    blended /= np.sqrt(np.einsum("qv,qv->v", blended[:4], blended[:4]))
    w, axis, dual_w, dual_axis = blended[0], blended[1:4], blended[4], blended[5:]
    points = np.ascontiguousarray(vertices_mm.T)
    turned = points + 2 * cross_rows(axis, cross_rows(axis, points) + w * points)
    return (turned + 2 * (w * dual_axis - dual_w * axis + cross_rows(axis, dual_axis))).T


def cross_rows(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cross products (3, n) of the columns of a and b (3, n)."""
    return np.stack(
        [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]],
    )


def pose_vertices(
    rig: Rig,
    rotations: np.ndarray,
    shape: np.ndarray | None = None,
    palm_scale: np.ndarray | None = None,
    bone_scale: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Pose a rig: flesh, then bone proportions, then articulation.

    Args:
        rig: the hand.
        rotations: (22, 3, 3) per segment relative to its parent, entry 0 the global orientation.
        shape: (k,) coefficients of the rig's shape fields, or None for the mean hand.
        palm_scale: (2,) see `resize_joints`; None keeps the rig's own proportions.
        bone_scale: (15,) likewise.

    Returns:
        Posed vertices (v, 3) and joints (21, 3), mm, wrist at the origin.
    """
    if palm_scale is None and bone_scale is None:
        vertices, joints = rig.vertices_mm, rig.joints_mm
    else:
        vertices, joints = resize(
            rig,
            np.ones(2) if palm_scale is None else palm_scale,
            np.ones(len(PHALANGES)) if bone_scale is None else bone_scale,
        )
    if shape is not None:
        vertices = vertices + np.einsum("k,kvi->vi", shape, rig.shape_fields)
    turned, shifts, posed = segment_motion(joints, rotations)
    return skin(vertices, rig.sparse_weights, turned, shifts), posed
