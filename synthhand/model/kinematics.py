"""From 21 joints to a posed hand (inverse kinematics): joint angles, bone lengths and mesh of a `Rig`.

This takes the part of BiHand and MANO in the paper's Figs. 5 and 6. Orientation, proportions and angles are
first read off the joints in closed form, finger by finger. A few Levenberg-Marquardt steps
(doi:10.1137/0111030) on all of them then spread the error where the rig cannot follow, for example at a
finger that is bent sideways. Angles always stay within the anatomical limits of `synthhand.model.pose`. All
hands of a batch are solved side by side.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from synthhand.model.pose import (
    ABDUCTION,
    ANGLES,
    CMC,
    CMC_ABDUCTION,
    DIP,
    FLEXION,
    MCP,
    MCP_ABDUCTION,
    PIP,
    THUMB_IP,
    THUMB_MCP,
    TURN_ANGLES,
    TURN_KINDS,
    TURN_SEGMENTS,
    TURN_SHARES,
    TWIST,
    limits_deg,
    segment_rotations,
    turn_amounts,
)
from synthhand.model.rig import (
    KNUCKLES,
    LEVELS,
    PHALANGES,
    SEGMENT_PARENTS,
    SEGMENTS,
    Rig,
    axis_rotation,
    cross_matrix,
    resize,
    resize_joints,
    segment_motion,
    skin,
)
from synthhand.skeleton import JOINTS, PARENTS, REFERENCE_BONE, WRIST

BONES = len(PHALANGES)  # of free length; metacarpals follow the breadth and length of the palm
VALUES = ANGLES + BONES + 2  # unknowns that have bounds: angles, bone scales, palm scales
SCALES = (0.4, 2.5)  # limits of bones and palm relative to the rig; a hand in another unit ends up there
STEPS = 5
HANDS_AT_ONCE = 256  # more do not fit a processor's cache
MESHES_AT_ONCE = 4  # likewise
DAMPING = 1e-3  # of the first step, relative to the curvature of each parameter
PRIOR_MM = (1.0, 3.0)  # pull on an angle (mm per radian) and on a scale, for those that the joints leave open


class Pose(NamedTuple):
    """Poses and proportions of b hands, and their joints.

    Attributes:
        angles: (b, 22) radians, articulations as in `synthhand.model.pose`.
        orientation: (b, 3, 3) of the palm, from the rest frame.
        wrist_mm: (b, 3).
        bone_scale: (b, 15) lengths of the phalanges relative to the rig, in the order of `PHALANGES`.
        palm_scale: (b, 2) breadth and length of the palm relative to the rig.
        joints_mm: (b, 21, 3) the rig's joints in this pose.
        rotations: (b, 22, 3, 3) of each segment, from the rest frame.
        shifts_mm: (b, 22, 3) such that x -> R x + t moves a point of a segment.
    """

    angles: np.ndarray
    orientation: np.ndarray
    wrist_mm: np.ndarray
    bone_scale: np.ndarray
    palm_scale: np.ndarray
    joints_mm: np.ndarray
    rotations: np.ndarray
    shifts_mm: np.ndarray

    def bone_lengths_mm(self) -> np.ndarray:
        """Return the lengths (b, 20), mm, of the bones that end at joints 1 to 20."""
        return np.linalg.norm(self.joints_mm[:, 1:] - self.joints_mm[:, PARENTS[1:]], axis=2)


def fit_mesh(
    rig: Rig, joints_mm: np.ndarray, bone_mm: float, steps: int = STEPS
) -> tuple[np.ndarray, np.ndarray]:
    """Pose a hand through joints: its mesh (b, v, 3), float32, and its own joints (b, 21, 3), mm.

    The hand is posed at the rig's own size and then enlarged as a whole, so that a child's hand is a small
    hand and not an adult's with short bones. Its reference bone is exactly `bone_mm` long, even if that of
    the joints is not.

    Args:
        rig: a right hand.
        joints_mm: (b, 21, 3) joints of right hands, in any frame.
        bone_mm: length of their reference bone.
        steps: see `solve`.

    Raises:
        ValueError: see `solve`.
    """
    scale = bone_mm / rig.reference_bone_mm
    pose = solve(rig, joints_mm / scale, steps, known=REFERENCE_BONE[1:])
    return make_meshes(rig, pose) * np.float32(scale), pose.joints_mm * scale


def make_meshes(rig: Rig, pose: Pose, shape: np.ndarray | None = None) -> np.ndarray:
    """Return the meshes (b, v, 3), mm, float32, of posed hands.

    Args:
        rig: the hand that was solved for.
        pose: see `solve`.
        shape: (b, k) coefficients of the rig's shape fields, or None for the mean hand.
    """
    rig, (count, axes) = rig.single_precision, rig.vertices_mm.shape
    meshes = np.empty((len(pose.angles), axes, count), np.float32).swapaxes(1, 2)  # as `skin` lays them out
    for start in range(0, len(meshes), MESHES_AT_ONCE):
        few = slice(start, start + MESHES_AT_ONCE)
        coefficients = None if shape is None else shape[few]
        vertices, _ = resize(rig, pose.palm_scale[few], pose.bone_scale[few], coefficients)
        meshes[few] = skin(vertices, rig.sparse_weights, pose.rotations[few], pose.shifts_mm[few])
    return meshes


def solve(rig: Rig, joints_mm: np.ndarray, steps: int = STEPS, known: tuple[int, ...] = ()) -> Pose:
    """Find the poses and proportions of a rig that bring its joints nearest to given ones.

    Args:
        rig: a right hand.
        joints_mm: (b, 21, 3) joints of right hands in the order of `synthhand.skeleton`, in any frame, mm.
        steps: of refinement; 0 is the closed form alone.
        known: joints, of `PHALANGES`, whose bones keep the rig's own lengths.

    Returns:
        The poses, float64: finite, and within all limits, for any joints.

    Raises:
        ValueError: `joints_mm` has another shape, or is not finite.
    """
    joints_mm = np.asarray(joints_mm, np.float64)
    if joints_mm.ndim != 3 or joints_mm.shape[1:] != (JOINTS, 3):
        raise ValueError(f"solve: expected joints (b, {JOINTS}, 3), found {joints_mm.shape}")
    bad = np.flatnonzero(~np.isfinite(joints_mm).all(axis=(1, 2)))
    if len(bad):
        raise ValueError(f"solve: joints of hand(s) {bad[:5].tolist()} are not finite; leave those hands out")
    solver = Solver.of(rig, known)
    starts = range(0, max(len(joints_mm), 1), HANDS_AT_ONCE)
    poses = [solver.solve(joints_mm[start : start + HANDS_AT_ONCE], steps) for start in starts]
    return Pose(*(np.concatenate(parts) for parts in zip(*poses, strict=True)))


class Solver:
    """Levenberg-Marquardt for one rig; the unknowns of each hand are bounded."""

    def __init__(self, rig: Rig, known: tuple[int, ...] = ()):
        self.rig = rig
        scales = np.tile(SCALES, (BONES + 2, 1))
        scales[np.flatnonzero(np.isin(PHALANGES, known))] = 1.0
        self.low, self.high = np.concatenate([np.radians(limits_deg(rig)), scales]).T  # (39,) each
        self.weights = np.repeat(PRIOR_MM, (ANGLES, BONES + 2))  # of the priors

    @staticmethod
    @lru_cache(maxsize=4)
    def of(rig: Rig, known: tuple[int, ...] = ()) -> "Solver":
        """Return the solver of a rig, made once; `known` as in the function `solve`."""
        return Solver(rig, known)

    def solve(self, target: np.ndarray, steps: int) -> Pose:
        """Refine the closed form for joints (b, 21, 3); each hand keeps a step only if its error falls."""
        pose = self.first_guess(target)
        error = self.error(pose, target)
        damping = np.full((len(target), 1), DAMPING)
        for _ in range(steps):
            tried = self.step(pose, target, damping)
            tried_error = self.error(tried, target)
            better = tried_error < error
            for kept, new in zip(pose, tried, strict=True):
                kept[better] = new[better]
            error[better] = tried_error[better]
            damping = np.where(better[:, None], damping * 0.3, damping * 10).clip(1e-9, 1e6)
        return pose

    def pose(self, values: np.ndarray, orientation: np.ndarray, wrist: np.ndarray) -> Pose:
        """Compute joints and segments (forward kinematics) of `values` (b, 39)."""
        angles, bones, palm = (part.copy() for part in np.split(values, [ANGLES, ANGLES + BONES], axis=1))
        rest, _ = resize_joints(self.rig, palm, bones)
        rotations, shifts, joints = segment_motion(rest, segment_rotations(self.rig, angles, orientation))
        to_wrist = (wrist - joints[:, WRIST])[:, None]
        return Pose(angles, orientation, wrist, bones, palm, joints + to_wrist, rotations, shifts + to_wrist)

    def values(self, pose: Pose) -> np.ndarray:
        """Return the unknowns (b, 39) that have bounds: angles, bone scales, palm scales."""
        return np.concatenate([pose.angles, pose.bone_scale, pose.palm_scale], axis=1)

    def first_guess(self, target: np.ndarray) -> Pose:
        """Read orientation, proportions and angles off joints (b, 21, 3), one after the other."""
        rig, b = self.rig, len(target)
        bones = target[:, 1:] - target[:, PARENTS[1:]]
        values = np.zeros((b, VALUES))
        angles = values[:, :ANGLES]
        lengths = np.linalg.norm(bones, axis=2) / np.linalg.norm(rig.bones_mm, axis=1)
        values[:, ANGLES : ANGLES + BONES] = lengths[:, PHALANGES - 1]
        seen, known = target[:, KNUCKLES] - target[:, :1], rig.joints_mm[KNUCKLES] - rig.joints_mm[WRIST]
        palm_scale = np.ones((b, 3))
        for _ in range(3):  # orientation from the proportions, proportions from the orientation
            orientation = _best_rotation(known * palm_scale[:, None], seen)
            local = seen @ orientation  # rows: R^T p
            palm_scale[:, :2] = ((local * known).sum(1) / np.square(known).sum(0)).clip(*SCALES)[:, :2]
        values[:, -2:] = palm_scale[:, :2]
        parents = orientation[:, None]  # of the segments before, finger by finger, the thumb first
        flexions = ((CMC, *MCP), (THUMB_MCP, *PIP), (THUMB_IP, *DIP))
        for (level, _), columns in zip(LEVELS[1:], flexions, strict=True):
            along = bones[:, level.start - 1 :: 4, :, None]
            local = rig.frames[level].transpose(0, 2, 1) @ parents.swapaxes(2, 3) @ along
            side, palm, ahead = np.moveaxis(local[..., 0], 2, 0)
            bend = np.arctan2(palm, ahead)
            if columns[0] == CMC:  # joints of two axes; beyond a right angle they seem to point backwards
                bend = np.arctan2(palm, np.hypot(side, ahead))
                back = (ahead < 0) & (palm > 0)
                bend, sign = np.where(back, np.pi - bend, bend), np.where(back, -1.0, 1.0)
                angles[:, [CMC_ABDUCTION, *MCP_ABDUCTION]] = np.arctan2(sign * side, sign * ahead)
            angles[:, columns] = bend
            values = values.clip(self.low, self.high)
            angles = values[:, :ANGLES]
            parents = parents @ segment_rotations(rig, angles, orientation)[:, level]
        return self.pose(values, orientation, target[:, WRIST].copy())

    def error(self, pose: Pose, target: np.ndarray) -> np.ndarray:
        """Return what is minimised (b,), mm^2: squared distances of the joints, plus squared priors."""
        distances = np.square(pose.joints_mm - target).sum(axis=(1, 2))
        return distances + np.square(self.priors(pose)).sum(1)

    def priors(self, pose: Pose) -> np.ndarray:
        """Return the pull (b, 39), mm, of angles towards zero and of scales towards one."""
        return self.weights * (self.values(pose) - (np.arange(VALUES) >= ANGLES))

    def step(self, pose: Pose, target: np.ndarray, damping: np.ndarray) -> Pose:
        """Take one damped Gauss-Newton step, cut off at the limits.

        An unknown at its limit that would go beyond is held there, so that the others make up for it.
        """
        jacobian = self.jacobian(pose).swapaxes(1, 2)  # (b, 45, 63)
        residual = (target - pose.joints_mm).reshape(-1, 3 * JOINTS, 1)
        gradient = (jacobian @ residual)[..., 0]
        gradient[:, :VALUES] -= self.weights * self.priors(pose)
        values, inner = self.values(pose), gradient[:, :VALUES]
        held = ((values <= self.low) & (inner < 0)) | ((values >= self.high) & (inner > 0))
        jacobian[:, :VALUES][held] = 0.0
        inner[held] = 0.0
        curvature = jacobian @ jacobian.swapaxes(1, 2)
        diagonal = np.einsum("bii->bi", curvature)  # a view
        diagonal[:, :VALUES] += np.square(self.weights)
        diagonal += damping * diagonal + 1e-6
        moved = np.linalg.solve(curvature, gradient[..., None])[..., 0]
        values = (values + moved[:, :VALUES]).clip(self.low, self.high)
        turn, shift = moved[:, VALUES : VALUES + 3], moved[:, VALUES + 3 :]
        size = np.linalg.norm(turn, axis=1)
        turned = axis_rotation(turn / size.clip(min=1e-12)[:, None], size) @ pose.orientation
        return self.pose(values, turned, pose.wrist_mm + shift)

    def jacobian(self, pose: Pose) -> np.ndarray:
        """Return derivatives (b, 63, 39 + 3 + 3) of the joints by values, rotation and shift of the whole."""
        b, rig = len(pose.angles), self.rig
        rows = np.zeros((b, VALUES + 6, JOINTS, 3))  # one for each unknown
        by_angle, by_bone, by_palm, by_turn, by_shift = np.split(
            rows, [ANGLES, ANGLES + BONES, VALUES, VALUES + 3], axis=1
        )
        arms = pose.joints_mm - pose.wrist_mm[:, None]
        by_turn[:] = cross_matrix(arms).transpose(0, 2, 1, 3)  # row i: unit vector i times each arm
        by_shift[:] = np.eye(3)[:, None]
        # Axes of the elementary rotations as they stand: abduction comes first, then flexion, then twist.
        parents = pose.rotations[:, SEGMENT_PARENTS.clip(0)]
        side = turn_amounts(pose.angles)[:, ABDUCTION, :, None]
        across, palmar, along = np.moveaxis(rig.frames, 2, 0)
        axes = np.empty((b, SEGMENTS, 3, 3))
        axes[:, :, FLEXION] = _times(parents, np.cos(side) * across - np.sin(side) * along)
        axes[:, :, ABDUCTION] = -_times(parents, palmar)
        axes[:, :, TWIST] = _times(pose.rotations, along)
        segment = TURN_SEGMENTS[_TURN]
        levers = arms[:, _TURNED] - arms[:, PARENTS[segment]]
        turned = np.cross(axes[:, segment, TURN_KINDS[_TURN]], levers)
        by_angle[:, TURN_ANGLES[_TURN], _TURNED] = TURN_SHARES[_TURN, None] * turned
        bones = _times(pose.rotations[:, PHALANGES], rig.bones_mm[PHALANGES - 1])
        by_bone[:, _BONE, _MOVED] = bones[:, _BONE]
        columns = pose.rotations[:, KNUCKLES, :, :2] * rig.bones_mm[::4, None, :2]  # (b, 5, 3, 2)
        by_palm[:, :, 1:] = columns.transpose(0, 3, 1, 2).repeat(4, axis=2)
        return rows.reshape(b, VALUES + 6, 3 * JOINTS).swapaxes(1, 2)


def _moved_joints(segments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (n,) and (n,): the place of a segment in `segments`, and a joint that it moves.

    Those are the joint at its end and all beyond it on the same finger.
    """
    joint, segment = np.arange(JOINTS), segments[:, None]
    place, moved = np.nonzero((joint >= segment) & ((joint - 1) // 4 == (segment - 1) // 4))
    return place, moved


_TURN, _TURNED = _moved_joints(TURN_SEGMENTS)
_BONE, _MOVED = _moved_joints(PHALANGES)


def _times(matrices: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Products (b, n, 3) of matrices (b, n, 3, 3) and vectors (n, 3) or (b, n, 3)."""
    return (matrices @ vectors[..., None])[..., 0]


def _best_rotation(known: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Rotations (b, 3, 3) about the origin that bring points (b, k, 3) nearest to others.

    Kabsch, doi:10.1107/S0567739476001873.
    """
    u, _, vh = np.linalg.svd(seen.swapaxes(1, 2) @ known)
    proper = np.ones((len(u), 3))
    proper[:, 2] = np.sign(np.linalg.det(u @ vh))
    return u * proper[:, None] @ vh
