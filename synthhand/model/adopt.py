"""Make a `Rig` of a hand from a file: rotate it to the rest frame, find bending directions, divide its palm.

A file gives a mesh, 21 joints, and the joints that move each vertex. It does not say in which direction each
finger bends and how the palm folds: both are taken from the built-in hand.
"""

import numpy as np
from scipy.spatial.transform import Rotation

from synthhand.model.kinematics import solve
from synthhand.model.procedural import procedural_rig
from synthhand.model.rig import FOREARM, KNUCKLES, SEGMENTS, Rig, segment_frames, segment_parts
from synthhand.skeleton import JOINT_NAMES, JOINTS, PARENTS, ROOT, WRIST

PALM_MM = (40.0, 160.0)  # from wrist to middle MCP, of an infant and of a giant
REACH_MM = 600.0  # largest distance of a vertex from the wrist; a file may include a piece of arm
MISFIT_MM = 12.0  # above this mean distance from every pose of the built-in hand, joints are not a hand's
LEFT_MM = 1.0  # a hand is a left one if its mirrored joints fit better by more than this
BEND = (0.35, 0.8)  # sum of sines of a finger's bends from which its own plane counts, and counts alone
SHARE_MM = 5.0  # distance over which the flesh of the palm passes from one metacarpal to the next
ARM_MM = (-14.0, 16.0)  # y at which flesh begins to move with the forearm, and from which it does so entirely


def adopt(
    vertices_mm: np.ndarray,
    faces: np.ndarray,
    joints_mm: np.ndarray,
    weights: np.ndarray,
    shape_fields: np.ndarray,
    shape_names: tuple[str, ...],
) -> Rig:
    """Return the `Rig` of a right hand in any position and orientation.

    Args:
        vertices_mm: (v, 3) surface at rest.
        faces: (f, 3) vertex indices.
        joints_mm: (21, 3) joints at rest, in the same frame, in the order of `synthhand.skeleton`.
        weights: (v, 22) share of each segment, up to a factor per vertex. Column 0 holds what moves with the
            wrist; this function divides it between the palm and the forearm.
        shape_fields: (k, v, 3) displacements, mm, in the same frame.
        shape_names: k names.

    Raises:
        ValueError: it is not a hand, not a right one, or not of a hand's size. The caller adds the name of
            the file.
    """
    joints = joints_mm - joints_mm[WRIST]
    vertices = vertices_mm - joints_mm[WRIST]
    _check(vertices, faces, joints, weights, shape_fields)
    built_in = procedural_rig()
    turn = Rotation.align_vectors(built_in.joints_mm[KNUCKLES], joints[KNUCKLES])[0].as_matrix()
    joints, vertices = joints @ turn.T, vertices @ turn.T
    frames = segment_frames(joints, palmar_directions(joints))
    weights = _share_palm(vertices, joints, weights / weights.sum(1, keepdims=True))
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    if np.einsum("fi,fi->", a, np.cross(b, c)) < 0:  # six times the volume; negative if inside out
        faces = faces[:, ::-1]
    return Rig(
        vertices_mm=vertices,
        faces=np.ascontiguousarray(faces, np.int32),
        weights=weights,
        joints_mm=joints,
        frames=frames,
        parts=segment_parts()[np.argmax(weights, axis=1)],
        shape_fields=shape_fields @ turn.T,
        shape_names=shape_names,
    )


def palmar_directions(joints_mm: np.ndarray) -> np.ndarray:
    """Find the direction (22, 3) towards which each segment of a hand in the rest frame bends.

    A finger has one bending axis. The joints of a finger that rests well bent show it. A straight finger gets
    the axis of the built-in hand, swung with the finger's first phalanx. In between the two are blended. Palm
    and metacarpals bend towards the palm.

    Args:
        joints_mm: (21, 3) of a right hand, wrist at the origin, palm to the camera, fingers up.
    """
    built_in = procedural_rig()
    along = _bones(joints_mm)
    palmar = np.tile([0.0, 0.0, -1.0], (SEGMENTS, 1))
    for first in range(2, JOINTS, 4):
        swing = _shortest_turn(built_in.frames[first, :, 2], along[first])
        axis = swing @ built_in.frames[first, :, 0]
        chain = along[first : first + 3]
        own = np.cross(chain[:-1], chain[1:]).sum(0)  # sine of the bend times its axis
        amount = float(np.linalg.norm(own))
        if amount > BEND[0]:
            share = min((amount - BEND[0]) / (BEND[1] - BEND[0]), 1.0)
            backwards = -1.0 if own @ axis < 0 else 1.0
            axis = (1 - share) * axis + share * backwards * own / amount
        palmar[first : first + 3] = np.cross(axis, chain)
    return palmar


def _bones(joints_mm: np.ndarray) -> np.ndarray:
    """Unit directions (21, 3) of the bones that end at each joint; the wrist has none."""
    bones = joints_mm - joints_mm[PARENTS.clip(0)]
    bones[1:] /= np.linalg.norm(bones[1:], axis=1, keepdims=True)
    return bones


def _shortest_turn(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Rotation (3, 3) that takes unit vector a to b without a twist."""
    axis, cos = np.cross(a, b), a @ b
    size = np.linalg.norm(axis)
    vector = axis / size * np.arctan2(size, cos) if size > 1e-12 else np.zeros(3)
    return Rotation.from_rotvec(vector).as_matrix()


def _check(vertices, faces, joints, weights, shape_fields) -> None:
    """Raise ValueError unless these are the arrays of a right hand, up to where it lies."""
    for name, values in (("joints", joints), ("vertices", vertices), ("shape directions", shape_fields)):
        if not np.isfinite(values).all():
            raise ValueError(f"its {name} hold NaN or infinity; export or download it again")
    if not np.isfinite(weights).all() or (weights < 0).any() or (weights.sum(1) <= 0).any():
        raise ValueError(
            "its skin weights are not finite, or negative, or all zero for a vertex; "
            "bind every vertex to a joint and export again"
        )
    if len(faces) == 0 or faces.min() < 0 or faces.max() >= len(vertices):
        raise ValueError(f"its faces do not fit its {len(vertices)} vertices; export or download it again")
    palm, reach = np.linalg.norm(joints[ROOT]), np.linalg.norm(vertices, axis=1).max()
    if not PALM_MM[0] <= palm <= PALM_MM[1]:
        raise ValueError(
            f"its palm, wrist to middle MCP, is {palm:.4g} mm long; expected {PALM_MM[0]:g} to "
            f"{PALM_MM[1]:g} mm. Coordinates must be in metres"
        )
    largest = np.abs(shape_fields).max(initial=0.0)
    if largest > REACH_MM:
        raise ValueError(
            f"its shape directions move skin by {largest:.4g} mm; expected a few mm. "
            "Coordinates must be in metres"
        )
    if reach > REACH_MM:
        raise ValueError(
            f"a vertex lies {reach:.4g} mm from the wrist, expected within {REACH_MM:g} mm; "
            "export the hand without the body"
        )
    bones = np.linalg.norm(joints[1:] - joints[PARENTS[1:]], axis=1)
    if bones.min() < 1.0:
        joint = int(np.argmin(bones)) + 1
        raise ValueError(
            f"its joints {JOINT_NAMES[joint]} and {JOINT_NAMES[PARENTS[joint]]} lie on each other; "
            "expected 21 joints in different places"
        )
    both = np.stack([joints, joints * [-1.0, 1.0, 1.0]])
    right, left = np.linalg.norm(solve(procedural_rig(), both).joints_mm - both, axis=2).mean(1)
    if min(right, left) > MISFIT_MM:
        raise ValueError(
            f"its joints lie {min(right, left):.0f} mm from any pose of a hand, on average; expected the "
            "21 joints of one hand, each under its right name"
        )
    if left + LEFT_MM < right:
        raise ValueError(
            "it is a left hand; a rig is a right hand, and left hands are made by mirroring it. "
            "Give the file of the right hand"
        )


def _share_palm(vertices: np.ndarray, joints: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Divide column 0 of weights (v, 22), which moves with the wrist, between metacarpals and forearm.

    As in the built-in hand, each metacarpal moves the flesh near it, with soft borders, so that the palm can
    cup.
    """
    distance = np.stack([distance_to_bone(vertices, joints[WRIST], joints[c]) for c in KNUCKLES], axis=1)
    near = np.exp(-(distance - distance.min(1, keepdims=True)) / SHARE_MM)
    near /= near.sum(1, keepdims=True)
    t = np.clip((vertices[:, 1] - ARM_MM[0]) / (ARM_MM[1] - ARM_MM[0]), 0, 1)
    arm = t * t * (3 - 2 * t)
    shared = weights.copy()
    shared[:, 0] = 0
    shared[:, KNUCKLES] += (weights[:, 0] * (1 - arm))[:, None] * near
    shared[:, FOREARM] += weights[:, 0] * arm
    return shared


def distance_to_bone(points: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the distance (v,) of points (v, 3) from the line segment between a and b."""
    along = np.clip((points - a) @ (b - a) / ((b - a) @ (b - a)), 0, 1)
    return np.linalg.norm(points - a - along[:, None] * (b - a), axis=1)
