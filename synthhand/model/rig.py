"""A skinned hand: rest mesh, skeleton, weights, and the skinning that poses them.

The rest frame of every rig is that of a right hand whose palm faces the camera, fingers up: x towards the
thumb, y towards the elbow, z from the palm to the back of the hand (camera axes: x right, y down, z forward).

A rig moves in 22 rigid *segments*: segment 0 is the palm, segment c = 1..20 is the bone that ends at joint c
of `synthhand.skeleton`, segment 21 is the forearm. Meshes from other sources (MANO, glTF) use the same ones.

Skinning blends dual quaternions (Kavan et al., 2007, doi:10.1145/1230100.1230107): unlike linear blending it
does not lose volume at a bent knuckle. Joints follow the bones, not the blend, so posed joints agree exactly
with the posed bones.

Proportions, rotations and shape coefficients may have leading batch axes, written "..." below: one call moves
one hand or many. Rendered pictures depend on the last bit of these functions: keep the order of their sums.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy import sparse

from synthhand.skeleton import JOINTS, PARENTS, REFERENCE_BONE, ROOT, WRIST

SEGMENTS = JOINTS + 1
FOREARM = JOINTS  # index of the forearm's segment
SEGMENT_PARENTS = np.append(PARENTS, WRIST)  # palm has none; the forearm hangs on the wrist

PALM_PART = 15  # part ids within a hand follow RHD: 0-2 thumb tip->palm, 3-5 index, ... 12-14 little, 15 palm
FOREARM_PART = 16  # not a hand: rendered as RHD's "person"
KNUCKLES = np.flatnonzero(PARENTS == WRIST)  # the first joint of each finger: thumb CMC and the MCPs
PHALANGES = np.flatnonzero(PARENTS > WRIST)  # the 15 segments of the fingers
# Segments and their parents, from the palm outwards: metacarpals and forearm, then phalanx by phalanx.
LEVELS = (
    (slice(1, SEGMENTS, 4), slice(0, 1)),
    *((slice(k, JOINTS, 4), slice(k - 1, JOINTS - 1, 4)) for k in (2, 3, 4)),
)
_IDENTITY = np.eye(3)
_PIVOTS = SEGMENT_PARENTS.clip(0)  # the joint (22,) about which each segment turns


def segment_parts() -> np.ndarray:
    """Return the part id (22,) of each segment: phalanges tip->palm, metacarpals and palm, forearm."""
    parts = np.full(SEGMENTS, PALM_PART, np.uint8)
    parts[PHALANGES] = np.arange(15).reshape(5, 3)[:, ::-1].ravel()
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
            found = getattr(self, name).shape
            if found != shape:
                raise ValueError(f"rig: {name} has shape {found}, expected {shape}")

    @cached_property
    def sparse_weights(self) -> sparse.csr_array:
        """The weights (v, 22) as a sparse matrix: few segments move a vertex."""
        return sparse.csr_array(self.weights)

    @cached_property
    def bones_mm(self) -> np.ndarray:
        """Rest vectors (20, 3), mm, from the parent of each of joints 1 to 20 to the joint."""
        return self.joints_mm[1:] - self.joints_mm[PARENTS[1:]]

    @cached_property
    def reference_bone_mm(self) -> float:
        """Rest length, mm, of the reference bone (middle MCP to PIP)."""
        return float(np.linalg.norm(self.bones_mm[REFERENCE_BONE[1] - 1]))

    @cached_property
    def turns(self) -> np.ndarray:
        """For `turn_about`: (3, 2, 22, 3, 3) of the axes that are the columns of `frames`."""
        return np.stack([prepare_turns(self.frames[:, :, k]) for k in range(3)])

    @cached_property
    def single_precision(self) -> "Rig":
        """The same hand with its surface in float32, for meshes of many hands: faster, exact to a micron."""
        surface = (self.vertices_mm, self.weights, self.shape_fields)
        vertices, weights, fields = (array.astype(np.float32) for array in surface)
        return replace(self, vertices_mm=vertices, weights=weights, shape_fields=fields)


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
    bones[0] = joints_mm[ROOT] - joints_mm[WRIST]
    bones[FOREARM] = bones[0]
    along = bones / np.linalg.norm(bones, axis=1, keepdims=True)
    towards = palmar - np.sum(palmar * along, axis=1, keepdims=True) * along
    towards = towards / np.linalg.norm(towards, axis=1, keepdims=True)
    return np.stack([np.cross(along, towards), towards, along], axis=2)


def axis_rotation(axes: np.ndarray, angles_rad: np.ndarray) -> np.ndarray:
    """Return rotations (..., 3, 3) about unit axes (..., 3) by angles (...), right-handed (Rodrigues)."""
    return turn_about(prepare_turns(axes), angles_rad)


def prepare_turns(axes: np.ndarray) -> np.ndarray:
    """Return the cross-product matrices of axes (..., 3), and their squares: (2, ..., 3, 3)."""
    cross = cross_matrix(axes)
    return np.stack([cross, np.einsum("...ij,...jk->...ik", cross, cross)])


def turn_about(turns: np.ndarray, angles_rad: np.ndarray) -> np.ndarray:
    """Return rotations (..., 3, 3) by angles (...) about the axes that `turns` was prepared from."""
    cross, square = turns
    sin, cos = np.sin(angles_rad)[..., None, None], np.cos(angles_rad)[..., None, None]
    return _IDENTITY + sin * cross + (1 - cos) * square


def cross_matrix(vectors: np.ndarray) -> np.ndarray:
    """Return matrices (..., 3, 3) such that matrix @ u is the cross product of a vector (..., 3) and u."""
    x, y, z = np.moveaxis(vectors, -1, 0)
    zero = np.zeros_like(x)
    return np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1).reshape(*vectors.shape, 3)


def resize_joints(rig: Rig, palm_scale: np.ndarray, bone_scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Change the bone proportions of the rest skeleton.

    Args:
        rig: the hand.
        palm_scale: (..., 2) factors of the palm's width (x) and length (y).
        bone_scale: (..., 15) factors of the phalanges, in the order of `PHALANGES`.

    Returns:
        Rest joints (..., 21, 3), mm, and the stretch (..., 22, 3, 3) of the flesh around each segment.
    """
    stretch = np.zeros((*bone_scale.shape[:-1], SEGMENTS, 3, 3))
    stretch[..., 0, 0] = palm_scale[..., :1]
    stretch[..., 1, 1] = palm_scale[..., 1:]
    stretch[..., 2, 2] = stretch[..., FOREARM, 1, 1] = 1.0
    along = rig.frames[PHALANGES, :, 2]
    lengthened = (bone_scale - 1)[..., None, None] * along[:, :, None] * along[:, None, :]
    stretch[..., PHALANGES, :, :] = np.eye(3) + lengthened
    bones = (stretch[..., 1:JOINTS, :, :] @ rig.bones_mm[:, :, None])[..., 0]
    return _add_bones(rig.joints_mm[WRIST], bones), stretch


def _add_bones(wrist: np.ndarray, bones: np.ndarray) -> np.ndarray:
    """Return joints (..., 21, 3) of a wrist (..., 3) and the vectors (..., 20, 3) from joint to joint."""
    joints = np.empty((*bones.shape[:-2], JOINTS, 3), bones.dtype)
    joints[..., WRIST, :] = wrist
    fingers = bones.reshape(*bones.shape[:-2], len(KNUCKLES), 4, 3).copy()
    fingers[..., 0, :] += wrist[..., None, :]
    joints[..., 1:, :] = np.cumsum(fingers, axis=-2).reshape(bones.shape)
    return joints


def resize(
    rig: Rig, palm_scale: np.ndarray, bone_scale: np.ndarray, shape: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Change proportions and flesh of the rest hand; a longer bone stretches its flesh lengthwise only.

    Args:
        rig: the hand.
        palm_scale: (..., 2) see `resize_joints`.
        bone_scale: (..., 15) see `resize_joints`.
        shape: (..., k) coefficients of the rig's shape fields, or None for the mean hand.

    Returns:
        Vertices (..., v, 3), in the precision of the rig's, and joints (..., 21, 3), mm, in the rest pose.
    """
    joints, stretch = resize_joints(rig, palm_scale, bone_scale)
    offsets = joints[..., _PIVOTS, :] - np.einsum("...sij,sj->...si", stretch, rig.joints_mm[_PIVOTS])
    moves = np.concatenate([stretch, offsets[..., None]], axis=-1)
    moves = moves.reshape(*moves.shape[:-2], 12).astype(rig.vertices_mm.dtype)
    blended = _blend(rig.sparse_weights, moves)
    moves = blended.reshape(*blended.shape[:-2], 3, 4, -1)
    x, y, z = rig.vertices_mm.T
    vertices = moves[..., 0, :] * x + moves[..., 2, :] * z + moves[..., 1, :] * y + moves[..., 3, :]
    vertices = vertices.swapaxes(-1, -2)
    if shape is not None:
        fields = rig.shape_fields
        vertices = vertices + np.einsum("...k,kvi->...vi", shape.astype(fields.dtype), fields)
    return vertices, joints


def _blend(weights: sparse.csr_array, values: np.ndarray) -> np.ndarray:
    """Blend what the segments do, (..., 22, n), at each vertex: (..., n, v), whose long rows are fast to use.

    Unlike a product of dense matrices, a sparse one gives the same bits on any number of threads.
    """
    columns = np.moveaxis(values, -2, 0)
    blended = weights @ columns.reshape(SEGMENTS, -1)
    return np.ascontiguousarray(blended.T).reshape(*columns.shape[1:], -1)


def segment_motion(joints_mm: np.ndarray, rotations: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute the motion of the 22 segments (forward kinematics).

    Args:
        joints_mm: (..., 21, 3) rest joints.
        rotations: (..., 22, 3, 3) rotation of each segment relative to its parent segment, in the rest frame;
            entry 0 is the global orientation.

    Returns:
        Global rotations (..., 22, 3, 3), translations (..., 22, 3) such that x -> R x + t, and posed joints
        (..., 21, 3).
    """
    turned = np.empty_like(rotations)
    turned[..., 0, :, :] = rotations[..., 0, :, :]
    for level, parents in LEVELS:
        turned[..., level, :, :] = turned[..., parents, :, :] @ rotations[..., level, :, :]
    bones = joints_mm[..., 1:, :] - joints_mm[..., PARENTS[1:], :]
    bones = (turned[..., 1:JOINTS, :, :] @ bones[..., None])[..., 0]
    posed = _add_bones((turned[..., 0, :, :] @ joints_mm[..., WRIST, :, None])[..., 0], bones)
    shifts = posed[..., _PIVOTS, :] - np.einsum("...sij,...sj->...si", turned, joints_mm[..., _PIVOTS, :])
    return turned, shifts, posed


def quaternions(rotations: np.ndarray) -> np.ndarray:
    """Return unit quaternions (..., 4), real part first, of rotation matrices (..., 3, 3)."""
    r = rotations
    diagonal = np.einsum("...ii->...i", r)
    trace = diagonal.sum(-1)
    # Four times the products q_i q_j; the row of the largest component is the best conditioned.
    table = np.empty((*r.shape[:-2], 4, 4))
    table[..., 0, 0] = 1 + trace
    for i in range(3):
        j, k = (i + 1) % 3, (i + 2) % 3
        table[..., i + 1, i + 1] = 1 + 2 * diagonal[..., i] - trace
        table[..., 0, i + 1] = table[..., i + 1, 0] = r[..., k, j] - r[..., j, k]
        table[..., j + 1, k + 1] = table[..., k + 1, j + 1] = r[..., k, j] + r[..., j, k]
    best = np.argmax(np.einsum("...ii->...i", table), axis=-1)
    rows = table.reshape(-1, 4, 4)[np.arange(best.size), best.ravel()].reshape(*best.shape, 4)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def skin(
    vertices_mm: np.ndarray,
    weights: np.ndarray | sparse.csr_array,
    rotations: np.ndarray,
    shifts: np.ndarray,
) -> np.ndarray:
    """Move vertices by dual-quaternion blending of rigid segments.

    Args:
        vertices_mm: (..., v, 3) in the rest pose.
        weights: (v, 22), dense or sparse.
        rotations: (..., 22, 3, 3) global rotations of the segments, from `segment_motion`.
        shifts: (..., 22, 3) their translations.

    Returns:
        (..., v, 3) posed vertices in the units and the precision of the input.
    """
    real = quaternions(rotations)
    for level, parents in LEVELS:  # q and -q are one rotation: neighbours must agree in sign to be blended
        own = real[..., level, :]
        opposed = np.sum(own * real[..., parents, :], axis=-1, keepdims=True) < 0
        real[..., level, :] = np.where(opposed, -own, own)
    dual = np.empty_like(real)
    dual[..., 0] = -0.5 * np.einsum("...i,...i->...", shifts, real[..., 1:])
    dual[..., 1:] = 0.5 * (real[..., :1] * shifts + np.cross(shifts, real[..., 1:]))
    motion = np.concatenate([real, dual], axis=-1).astype(vertices_mm.dtype)
    blended = _blend(weights if sparse.issparse(weights) else sparse.csr_array(weights), motion)
    blended /= np.sqrt(np.einsum("...qv,...qv->...v", blended[..., :4, :], blended[..., :4, :]))[..., None, :]
    w, axis, dual_w, dual_axis = np.split(blended, [1, 4, 5], axis=-2)
    points = np.ascontiguousarray(vertices_mm.swapaxes(-1, -2))
    turned = points + 2 * cross_rows(axis, cross_rows(axis, points) + w * points)
    moved = turned + 2 * (w * dual_axis - dual_w * axis + cross_rows(axis, dual_axis))
    return moved.swapaxes(-1, -2)


def cross_rows(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the cross products (..., 3, n) of the columns of a and b (..., 3, n)."""
    product = np.empty(np.broadcast_shapes(a.shape, b.shape), np.result_type(a, b))
    for k, (i, j) in enumerate(((1, 2), (2, 0), (0, 1))):
        row = np.multiply(a[..., i, :], b[..., j, :], out=product[..., k, :])
        row -= a[..., j, :] * b[..., i, :]
    return product


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
        rotations: (..., 22, 3, 3) per segment relative to its parent, entry 0 the global orientation.
        shape: (..., k) coefficients of the rig's shape fields, or None for the mean hand.
        palm_scale: (..., 2) see `resize_joints`; None keeps the rig's own proportions.
        bone_scale: (..., 15) likewise.

    Returns:
        Posed vertices (..., v, 3) and joints (..., 21, 3), mm, wrist at the origin.
    """
    batch = rotations.shape[:-3]
    vertices, joints = resize(
        rig,
        np.ones((*batch, 2)) if palm_scale is None else palm_scale,
        np.ones((*batch, len(PHALANGES))) if bone_scale is None else bone_scale,
        shape,
    )
    turned, shifts, posed = segment_motion(joints, rotations)
    return skin(vertices, rig.sparse_weights, turned, shifts), posed
