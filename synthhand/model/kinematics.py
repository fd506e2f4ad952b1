"""From 21 joints to a posed hand: joint rotations and bone lengths of a `Rig`.

With `synthhand.model.skinning`, which makes its mesh, it plays the part of BiHand and MANO in the paper's
Figs. 5
and 6. Orientation, proportions and angles are first read off the joints in closed form, finger by finger; a
few Gauss-Newton steps on all of them then share out what a rig cannot follow, such as a finger that is bent
sideways. Angles stay within the anatomical limits of `synthhand.model.pose` throughout. All hands of a batch
are solved side by side.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from synthhand.model.pose import ANGLES, LIMITS_DEG
from synthhand.model.rig import FOREARM, PHALANGES, SEGMENT_PARENTS, SEGMENTS, Rig, axis_rotation
from synthhand.skeleton import JOINTS, PARENTS, WRIST

LEVELS = [np.arange(first, JOINTS, 4) for first in (1, 2, 3, 4)]  # one segment of each finger, from the palm
BONES = PHALANGES  # whose lengths are free; metacarpals go with the palm's breadth and length
SCALES = (0.4, 2.5)  # of bones and palm against the rig's; a hand given in another unit ends up beyond
STEPS = 5
HANDS_AT_ONCE = 256  # of a thousand at once the numbers leave a processor's cache
DAMPING = 1e-3  # of the first step, relative to the curvature of each parameter
PRIOR_MM = (1.0, 3.0)  # pull on an angle (mm per radian) and on a scale, where joints do not say what it is

_EYE = torch.eye(3, dtype=torch.float64)
FLEXION, ABDUCTION, TWIST = range(3)  # about columns 0, 1 (backwards) and 2 of a segment's frame
# Every elementary turn: the segment that it moves, about what, by which angle and how much of it.
_TURNS = [
    *((6 + 4 * f + k, FLEXION, 4 * f + a, 1.0) for f in range(4) for k, a in ((0, 0), (1, 2), (2, 3))),
    *((6 + 4 * f, ABDUCTION, 4 * f + 1, 1.0) for f in range(4)),
    *((2, FLEXION, 16, 1.0), (2, ABDUCTION, 17, 1.0), (2, TWIST, 18, 1.0)),
    *((3, FLEXION, 19, 1.0), (4, FLEXION, 20, 1.0)),
    *((13, FLEXION, 21, 0.5), (17, FLEXION, 21, 1.0)),  # cupping
]


@dataclass(frozen=True)
class Pose:
    """How b hands are posed, and what that makes of their joints.

    Attributes:
        angles: (b, 22) radians, an articulation as in `synthhand.model.pose`.
        orientation: (b, 3, 3) of the palm, from the rest frame.
        wrist_mm: (b, 3).
        bone_scale: (b, 15) lengths of the phalanges over the rig's, in the order of `PHALANGES`.
        palm_scale: (b, 2) the palm's breadth and length over the rig's.
        joints_mm: (b, 21, 3) the rig's joints in this pose.
        turned: (b, 22, 3, 3) rotation of each segment from the rest frame.
    """

    angles: Tensor
    orientation: Tensor
    wrist_mm: Tensor
    bone_scale: Tensor
    palm_scale: Tensor
    joints_mm: Tensor
    turned: Tensor

    def bone_lengths_mm(self) -> Tensor:
        """Lengths (b, 20), mm, of the bones that end at joints 1 to 20."""
        return torch.linalg.vector_norm(self.joints_mm[:, 1:] - self.joints_mm[:, PARENTS[1:]], dim=2)


def solve(rig: Rig, joints_mm: Tensor, steps: int = STEPS, known: tuple[int, ...] = ()) -> Pose:
    """Find the pose and proportions of a rig whose joints lie nearest to given ones.

    Args:
        rig: a right hand.
        joints_mm: (b, 21, 3) joints of right hands in the order of `synthhand.skeleton`, in any frame, mm.
        steps: of refinement; 0 is the closed form alone.
        known: joints, of `PHALANGES`, whose bones keep the rig's own lengths.

    Returns:
        The poses: finite, and within all limits, whatever the joints.

    Raises:
        ValueError: another shape, or joints that are not finite.
    """
    if joints_mm.ndim != 3 or joints_mm.shape[1:] != (JOINTS, 3):
        raise ValueError(f"solve: expected joints (b, {JOINTS}, 3), found {tuple(joints_mm.shape)}")
    if not joints_mm.isfinite().all():
        bad = (~joints_mm.isfinite()).flatten(1).any(1).nonzero().flatten().tolist()
        raise ValueError(f"solve: joints of hand(s) {bad[:5]} are not finite; leave those hands out")
    skeleton = Skeleton.of(rig, known)
    batches = joints_mm.detach().double().cpu().split(HANDS_AT_ONCE)
    solved = [_parts(_solve(skeleton, target, steps)) for target in batches or (joints_mm.double().cpu(),)]
    return Pose(*(torch.cat(values) for values in zip(*solved, strict=True)))


def _solve(skeleton: "Skeleton", target: Tensor, steps: int) -> Pose:
    """Levenberg-Marquardt from the closed form; each hand keeps a step only if it helped."""
    pose = skeleton.pose(*skeleton.first_guess(target))
    error = skeleton.error(pose, target)
    damping = torch.full((len(target), 1), DAMPING, dtype=torch.float64)
    for _ in range(steps):
        tried = skeleton.pose(*skeleton.step(pose, target, damping))
        found = skeleton.error(tried, target)
        better = found < error
        pose = Pose(
            *(_choose(better, new, old) for new, old in zip(_parts(tried), _parts(pose), strict=True))
        )
        error = torch.where(better, found, error)
        damping = torch.where(better[:, None], damping * 0.3, damping * 10).clamp(1e-9, 1e6)
    return pose


class Skeleton:
    """A rig's joints and frames as tensors, and how they move; float64, on the CPU."""

    def __init__(self, rig: Rig, known: tuple[int, ...] = ()):
        self.joints = torch.from_numpy(np.array(rig.joints_mm, np.float64))
        self.frames = torch.from_numpy(np.array(rig.frames, np.float64))
        self.offsets = torch.zeros(SEGMENTS, 3, dtype=torch.float64)
        self.offsets[1:JOINTS] = self.joints[1:] - self.joints[PARENTS[1:]]
        self.limits = torch.from_numpy(np.radians(limits_deg(rig)))
        scales = torch.tensor(SCALES, dtype=torch.float64).repeat(len(BONES) + 2, 1)
        scales[[BONES.tolist().index(joint) for joint in known]] = 1.0
        self.scales = scales.T  # lowest and highest, of the bones and then of the palm
        self.below = _descendants()
        self.segments = torch.tensor([turn[0] for turn in _TURNS])
        self.kinds = torch.tensor([turn[1] for turn in _TURNS])
        self.mixing = torch.zeros(len(_TURNS), ANGLES, dtype=torch.float64)
        for row, (_, _, angle, share) in enumerate(_TURNS):
            self.mixing[row, angle] = share
        axes = self.frames * torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64)  # abduction turns backwards
        self.axes = axes.transpose(1, 2)  # (22, kind, 3)

    @staticmethod
    @lru_cache(maxsize=4)
    def of(rig: Rig, known: tuple[int, ...] = ()) -> "Skeleton":
        """That of a rig, made once; `known` as in `solve`."""
        return Skeleton(rig, known)

    def local_turns(self, angles: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Matrices (b, 22, 3, 3) of each segment's abduction, flexion and twist, applied from the right."""
        amounts = torch.zeros(len(angles), SEGMENTS, 3, dtype=torch.float64)
        amounts[:, self.segments, self.kinds] = angles @ self.mixing.T
        matrices = _turn(self.axes, amounts)  # (b, 22, kind, 3, 3)
        return matrices[:, :, ABDUCTION], matrices[:, :, FLEXION], matrices[:, :, TWIST]

    def stretched(self, bone_scale: Tensor, palm_scale: Tensor) -> tuple[Tensor, Tensor]:
        """Stretch (b, 22, 3, 3) of the flesh of each segment, and rest joints (b, 21, 3)."""
        b = len(bone_scale)
        palm = torch.diag_embed(torch.cat([palm_scale, torch.ones(b, 1, dtype=torch.float64)], dim=1))
        stretch = palm[:, None].repeat(1, SEGMENTS, 1, 1)
        stretch[:, FOREARM, 1, 1] = 1.0
        along = self.frames[BONES, :, 2]
        outer = along[:, :, None] * along[:, None, :]
        stretch[:, BONES] = torch.eye(3, dtype=torch.float64) + (bone_scale - 1)[..., None, None] * outer
        joints = torch.zeros(b, JOINTS, 3, dtype=torch.float64)
        joints[:, WRIST] = self.joints[WRIST]
        for level in LEVELS:
            moved = torch.einsum("bsij,sj->bsi", stretch[:, level], self.offsets[level])
            joints[:, level] = joints[:, PARENTS[level]] + moved
        return stretch, joints

    def pose(
        self, angles: Tensor, orientation: Tensor, wrist: Tensor, bone_scale: Tensor, palm_scale: Tensor
    ) -> Pose:
        """Forward kinematics."""
        aside, bent, twisted = self.local_turns(angles)
        local = aside @ bent @ twisted
        turned = torch.empty(len(angles), SEGMENTS, 3, 3, dtype=torch.float64)
        turned[:, 0] = turned[:, FOREARM] = orientation
        posed = torch.empty(len(angles), JOINTS, 3, dtype=torch.float64)
        posed[:, WRIST] = wrist
        _, rest = self.stretched(bone_scale, palm_scale)
        for level in LEVELS:
            parents = PARENTS[level]
            turned[:, level] = turned[:, parents] @ local[:, level]
            offsets = rest[:, level] - rest[:, parents]
            posed[:, level] = posed[:, parents] + torch.einsum("bsij,bsj->bsi", turned[:, level], offsets)
        return Pose(angles, orientation, wrist, bone_scale, palm_scale, posed, turned)

    def first_guess(self, target: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Read orientation, proportions and angles off joints (b, 21, 3), one after the other."""
        bones = target[:, 1:] - target[:, PARENTS[1:]]
        rest = self.offsets[1:JOINTS]
        lengths = torch.linalg.vector_norm(bones, dim=2) / torch.linalg.vector_norm(rest, dim=1)
        bone_scale = lengths[:, BONES - 1].clamp(*self.scales[:, : len(BONES)])
        knuckles = LEVELS[0]
        seen, known = target[:, knuckles] - target[:, :1], self.joints[knuckles] - self.joints[WRIST]
        palm_scale = torch.ones(len(target), 2, dtype=torch.float64)
        for _ in range(3):  # orientation for the proportions, proportions for the orientation
            flat = known * torch.cat([palm_scale, torch.ones_like(palm_scale[:, :1])], dim=1)[:, None]
            orientation = _best_rotation(flat, seen)
            local = seen @ orientation  # rows: R^T p
            fitted = (local * known).sum(1) / known.square().sum(0)
            palm_scale = fitted[:, :2].clamp(*SCALES)
        angles = torch.zeros(len(target), ANGLES, dtype=torch.float64)
        turned = orientation[:, None].expand(-1, 5, -1, -1)  # of the segment before, finger by finger
        thumb, fingers = 0, slice(1, None)
        for place, level in enumerate(LEVELS[1:]):
            frames = self.frames[level]
            directions = torch.einsum("bfij,bfi->bfj", turned, bones[:, level - 1])
            side, palm, along = torch.einsum("fij,bfi->jbf", frames, directions)
            if place == 0:  # a joint of two axes; bent beyond a right angle it seems to point backwards
                bend = torch.atan2(palm, torch.hypot(side, along))
                back = (along < 0) & (palm > 0)
                bend = torch.where(back, torch.pi - bend, bend)
                aside = torch.where(back, torch.atan2(-side, -along), torch.atan2(side, along))
                angles[:, 1:16:4], angles[:, 17] = aside[:, fingers], aside[:, thumb]
                angles[:, 0:16:4], angles[:, 16] = bend[:, fingers], bend[:, thumb]
            else:
                bend = torch.atan2(palm, along)
                angles[:, 1 + place : 16 : 4], angles[:, 18 + place] = bend[:, fingers], bend[:, thumb]
            angles = angles.clamp(*self.limits.T)
            aside, bent, twisted = self.local_turns(angles)
            turned = turned @ (aside @ bent @ twisted)[:, level]
        return angles, orientation, target[:, WRIST], bone_scale, palm_scale

    def error(self, pose: Pose, target: Tensor) -> Tensor:
        """What is minimised (b,), mm^2: squared distances of the joints, and the pull of the priors."""
        distance = (pose.joints_mm - target).square().sum((1, 2))
        return distance + self.priors(pose).square().sum(1)

    def priors(self, pose: Pose) -> Tensor:
        """Pull (b, 22 + 15 + 2), mm, on each angle towards rest and on each scale towards 1."""
        scales = torch.cat([pose.bone_scale, pose.palm_scale], dim=1) - 1
        return torch.cat([PRIOR_MM[0] * pose.angles, PRIOR_MM[1] * scales], dim=1)

    def step(self, pose: Pose, target: Tensor, damping: Tensor) -> tuple[Tensor, ...]:
        """One damped Gauss-Newton step (Levenberg-Marquardt), cut off at the limits.

        What stands at a limit and would go beyond is held there, so that the others make up for it.
        """
        jacobian = self.jacobian(pose)  # (b, 63, p): angles, scales, orientation, wrist
        residual = (target - pose.joints_mm).flatten(1)
        pull = self.priors(pose)
        weights = torch.tensor([PRIOR_MM[0]] * ANGLES + [PRIOR_MM[1]] * pull[:, ANGLES:].shape[1]).double()
        gradient = torch.einsum("bri,br->bi", jacobian, residual)
        gradient[:, : len(weights)] -= weights * pull
        values = torch.cat([pose.angles, pose.bone_scale, pose.palm_scale], dim=1)
        low, high = self.bounds()
        held = torch.zeros_like(gradient, dtype=torch.bool)
        inner = gradient[:, : len(low)]
        held[:, : len(low)] = ((values <= low) & (inner < 0)) | ((values >= high) & (inner > 0))
        jacobian = jacobian.masked_fill(held[:, None], 0.0)
        gradient = gradient.masked_fill(held, 0.0)
        curvature = jacobian.transpose(1, 2) @ jacobian
        diagonal = curvature.diagonal(dim1=1, dim2=2)
        diagonal[:, : len(weights)] += weights.square()
        diagonal += damping * diagonal + 1e-6
        factor, _ = torch.linalg.cholesky_ex(curvature)
        moved = torch.cholesky_solve(gradient[..., None], factor)[..., 0]
        values = torch.minimum(torch.maximum(values + moved[:, : len(low)], low), high)
        turn = moved[:, len(low) : len(low) + 3]
        size = torch.linalg.vector_norm(turn, dim=1, keepdim=True)
        turned = _turn(turn / size.clamp(min=1e-12), size[:, 0]) @ pose.orientation
        n = len(BONES)
        return (
            values[:, :ANGLES], turned, pose.wrist_mm + moved[:, -3:],
            values[:, ANGLES : ANGLES + n], values[:, ANGLES + n :],
        )  # fmt: skip

    def bounds(self) -> tuple[Tensor, Tensor]:
        """Lowest and highest value (39,) of each angle and scale."""
        low, high = torch.cat([self.limits, self.scales.T]).T
        return low, high

    def jacobian(self, pose: Pose) -> Tensor:
        """Derivatives (b, 63, 22 + 15 + 2 + 3 + 3) of the joints by angles, scales, orientation and wrist."""
        joints, b = pose.joints_mm, len(pose.angles)
        aside, bent, _ = self.local_turns(pose.angles)
        before = pose.turned[:, SEGMENT_PARENTS[self.segments]]
        # A turn's axis as it stands: abduction is done first, then flexion, then twist.
        then = torch.where((self.kinds != ABDUCTION)[:, None, None], aside[:, self.segments], _EYE)
        last = torch.where((self.kinds == TWIST)[:, None, None], bent[:, self.segments], _EYE)
        axes = torch.einsum("btij,tj->bti", before @ then @ last, self.axes[self.segments, self.kinds])
        pivots = joints[:, PARENTS[self.segments]]
        arms = (joints[:, None] - pivots[:, :, None]) * self.below[self.segments][:, :, None]
        turns = torch.linalg.cross(axes[:, :, None].expand_as(arms), arms).flatten(2)  # (b, turns, 63)
        by_angle = torch.einsum("btr,ta->bra", turns, self.mixing)
        along = torch.einsum("bsij,sj->bsi", pose.turned[:, BONES], self.offsets[BONES])
        by_bone = (along[:, :, None] * self.below[BONES][:, :, None]).flatten(2).transpose(1, 2)
        knuckles = LEVELS[0]
        columns = pose.turned[:, knuckles][..., :2] * self.offsets[knuckles][:, None, :2]  # (b, 5, 3, 2)
        by_palm = torch.einsum("bsip,sk->bkip", columns, self.below[knuckles]).flatten(1, 2)
        arms = joints - pose.wrist_mm[:, None]
        unit = torch.eye(3, dtype=torch.float64)
        by_turn = torch.stack([torch.linalg.cross(e.expand_as(arms), arms).flatten(1) for e in unit], dim=2)
        by_wrist = unit.repeat(JOINTS, 1).expand(b, -1, -1)
        return torch.cat([by_angle, by_bone, by_palm, by_turn, by_wrist], dim=2)


def limits_deg(rig: Rig) -> np.ndarray:
    """Lowest and highest angles (22, 2), degrees, of a rig, whose own rest is at zero.

    Those of `synthhand.model.pose` count from the built-in hand's rest. Another rig rests otherwise, by the
    angles at which the built-in hand's segments stand as its own do.
    """
    from synthhand.model.procedural import procedural_rig

    built_in = procedural_rig()
    if rig is built_in:
        return LIMITS_DEG
    rest = np.degrees(_rest_angles(rig, built_in)).clip(*LIMITS_DEG.T)  # so that its own rest is allowed
    return LIMITS_DEG - rest[:, None]


def _rest_angles(rig: Rig, other: Rig) -> np.ndarray:
    """Angles (22,), radians, that turn the segments of another rig at rest as those of this one lie.

    They are read off the frames, not solved for from the joints: those of a straight thumb say nothing of its
    twist, and a bone that is only of another shape would be taken for a bent one.
    """
    turned = rig.frames @ other.frames.transpose(0, 2, 1)

    def turns(segments, parents):
        """Angles (n, 3) about the columns of the segments' frames, given their parents' rotations."""
        frames = other.frames[segments]
        local = frames.transpose(0, 2, 1) @ parents.transpose(0, 2, 1) @ turned[segments] @ frames
        # The columns are a left-handed set of axes, which turns every sign, and abduction counts backwards.
        abduction, flexion, twist = Rotation.from_matrix(local).as_euler("YXZ").T
        return np.stack([-flexion, abduction, -twist], axis=1)

    still = np.tile(np.eye(3), (5, 1, 1))
    ring, little = turns(np.array([13, 17]), still[:2])[:, FLEXION]
    cup = (0.5 * ring + little) / 1.25  # the best compromise, since they fold by half of it and by all
    palm = still.copy()  # a metacarpal that only points elsewhere has not moved: the palm is of another shape
    for finger, share in ((3, 0.5), (4, 1.0)):
        palm[finger] = axis_rotation(other.frames[1 + 4 * finger, :, 0], np.array(share * cup))
    angles = np.zeros(ANGLES)
    angles[21] = cup
    first = turns(LEVELS[1], palm)
    second, third = (turns(LEVELS[k + 1], turned[LEVELS[k]]) for k in (1, 2))
    angles[0:16:4], angles[1:16:4] = first[1:, FLEXION], first[1:, ABDUCTION]
    angles[2:16:4], angles[3:16:4] = second[1:, FLEXION], third[1:, FLEXION]
    angles[16:19] = first[0]
    angles[19], angles[20] = second[0, FLEXION], third[0, FLEXION]
    return angles


@lru_cache(maxsize=1)
def _descendants() -> Tensor:
    """(22, 21): whether a segment moves a joint."""
    below = torch.zeros(SEGMENTS, JOINTS, dtype=torch.float64)
    for joint in range(1, JOINTS):
        segment = joint
        while segment > 0:
            below[segment, joint] = 1.0
            segment = int(PARENTS[segment])
    return below


def _turn(axes: Tensor, angles: Tensor) -> Tensor:
    """Rotation matrices (..., 3, 3) about unit axes (..., 3) by angles (...), right-handed (Rodrigues)."""
    x, y, z = axes.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
    sin, cos = torch.sin(angles)[..., None, None], torch.cos(angles)[..., None, None]
    return torch.eye(3, dtype=axes.dtype) + sin * cross + (1 - cos) * (cross @ cross)


def _best_rotation(known: Tensor, seen: Tensor) -> Tensor:
    """Rotations (b, 3, 3) about the origin that bring points (b, k, 3) nearest to others (Kabsch)."""
    u, _, vh = torch.linalg.svd(seen.transpose(1, 2) @ known)
    proper = torch.ones(len(u), 3, dtype=torch.float64)
    proper[:, 2] = torch.linalg.det(u @ vh).sign()
    return u * proper[:, None] @ vh


def _parts(pose: Pose) -> tuple[Tensor, ...]:
    return tuple(getattr(pose, name) for name in Pose.__dataclass_fields__)


def _choose(which: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(which.view(-1, *[1] * (new.ndim - 1)), new, old)
