"""Meshes of many hands that `synthhand.model.kinematics` has posed (`synthhand.model.rig.skin`: of one)."""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from synthhand.model.kinematics import STEPS, Pose, Skeleton, solve
from synthhand.model.rig import SEGMENT_PARENTS, SEGMENTS, Rig
from synthhand.skeleton import REFERENCE_BONE

MESHES_AT_ONCE = 16  # whose coordinates fit a processor's cache


def fitted(rig: Rig, joints_mm: Tensor, bone_mm: float, steps: int = STEPS) -> tuple[Tensor, Tensor]:
    """Pose a hand through joints: its mesh (b, v, 3) and its own joints (b, 21, 3), mm.

    It is posed at the rig's own size and then enlarged as a whole, so that a child's hand is a small hand and
    not an adult's with short bones. Its reference bone is exactly as long as is said, also where that of the
    joints is not.

    Args:
        rig: a right hand.
        joints_mm: (b, 21, 3) joints of right hands, in any frame.
        bone_mm: length of their reference bone.
        steps: of `solve`.

    Raises:
        ValueError: as `solve`.
    """
    larger = bone_mm / float(np.linalg.norm(np.subtract(*rig.joints_mm[list(REFERENCE_BONE)])))
    pose = solve(rig, joints_mm / larger, steps, known=REFERENCE_BONE[1:])
    return skinned(rig, pose) * larger, pose.joints_mm * larger


def skinned(rig: Rig, pose: Pose, shape: Tensor | None = None) -> Tensor:
    """Return the mesh (b, v, 3), mm, of posed hands: flesh, then proportions, then articulation.

    The same as `synthhand.model.rig.pose_vertices` for each hand, by dual quaternions.

    Args:
        rig: the hand that was solved for.
        pose: of `solve`.
        shape: (b, k) coefficients of the rig's shape fields, or None for the mean hand.
    """
    skeleton, flesh = Skeleton.of(rig), _Flesh.of(rig)
    stretch, joints = skeleton.stretched(pose.bone_scale, pose.palm_scale)
    pivots = SEGMENT_PARENTS.clip(0)
    offsets = joints[:, pivots] - torch.einsum("bsij,sj->bsi", stretch, skeleton.joints[pivots])
    moves = torch.cat([stretch, offsets[..., None]], dim=3).flatten(2)  # (b, 22, 12)
    posed = torch.cat([pose.joints_mm, pose.joints_mm[:, :1]], dim=1)
    shifts = posed[:, pivots] - torch.einsum("bsij,bsj->bsi", pose.turned, joints[:, pivots])
    motion = _dual_quaternions(pose.turned, shifts)
    meshes = []
    for few in torch.arange(len(moves)).split(MESHES_AT_ONCE):
        # Coordinate by coordinate (b, 3, v), which is several times faster than point by point.
        blended = (moves[few].transpose(1, 2).float() @ flesh.weights).unflatten(1, (3, 4))
        points = (blended[:, :, :3] * flesh.vertices).sum(2) + blended[:, :, 3]
        if shape is not None:
            points = points + torch.einsum("bk,kiv->biv", shape[few].float().cpu(), flesh.shape_fields)
        meshes.append(_blend(points, motion[few].transpose(1, 2).float() @ flesh.weights).transpose(1, 2))
    return torch.cat(meshes) if meshes else torch.zeros(0, flesh.vertices.shape[1], 3)


class _Flesh:
    """A rig's surface as tensors, coordinate by coordinate; float32, on the CPU."""

    def __init__(self, rig: Rig):
        self.vertices = torch.from_numpy(rig.vertices_mm.T.astype(np.float32))  # (3, v)
        self.weights = torch.from_numpy(rig.weights.T.astype(np.float32))  # (22, v)
        self.shape_fields = torch.from_numpy(np.moveaxis(rig.shape_fields, 2, 1).astype(np.float32))

    @staticmethod
    @lru_cache(maxsize=4)
    def of(rig: Rig) -> "_Flesh":
        return _Flesh(rig)


def _dual_quaternions(rotations: Tensor, shifts: Tensor) -> Tensor:
    """Rigid motions (b, 22, 3, 3) and (b, 22, 3) of the segments as dual quaternions (b, 22, 8)."""
    real = _quaternions(rotations)
    for c in range(1, SEGMENTS):  # q and -q turn alike: neighbours must agree in sign before they are blended
        agree = (real[:, c] * real[:, SEGMENT_PARENTS[c]]).sum(1, keepdim=True)
        real[:, c] = torch.where(agree < 0, -real[:, c], real[:, c])
    w, axis = real[..., :1], real[..., 1:]
    dual = torch.cat(
        [-(shifts * axis).sum(2, keepdim=True), w * shifts + torch.linalg.cross(shifts, axis)], 2
    )
    return torch.cat([real, 0.5 * dual], dim=2)


def _blend(points: Tensor, blended: Tensor) -> Tensor:
    """Move points (b, 3, v) by blends (b, 8, v) of dual quaternions, which need not be of unit length."""
    blended = blended / torch.linalg.vector_norm(blended[:, :4], dim=1, keepdim=True)
    w, axis, dual_w, dual_axis = blended.split((1, 3, 1, 3), dim=1)
    turned = points + 2 * _cross(axis, _cross(axis, points) + w * points)
    return turned + 2 * (w * dual_axis - dual_w * axis + _cross(axis, dual_axis))


def _cross(a: Tensor, b: Tensor) -> Tensor:
    """Cross products (b, 3, v) of columns."""
    (ax, ay, az), (bx, by, bz) = a.unbind(1), b.unbind(1)
    return torch.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], dim=1)


def _quaternions(rotations: Tensor) -> Tensor:
    """Unit quaternions (..., 4), real part first, of rotation matrices (..., 3, 3)."""
    r = rotations
    diagonal = r.diagonal(dim1=-2, dim2=-1)
    trace = diagonal.sum(-1)
    table = r.new_empty(*r.shape[:-2], 4, 4)  # four times the products q_i q_j; the largest row is sound
    table[..., 0, 0] = 1 + trace
    for i in range(3):
        j, k = (i + 1) % 3, (i + 2) % 3
        table[..., i + 1, i + 1] = 1 + 2 * diagonal[..., i] - trace
        table[..., 0, i + 1] = table[..., i + 1, 0] = r[..., k, j] - r[..., j, k]
        table[..., j + 1, k + 1] = table[..., k + 1, j + 1] = r[..., k, j] + r[..., j, k]
    best = table.diagonal(dim1=-2, dim2=-1).argmax(-1)
    rows = table.gather(-2, best[..., None, None].expand(*best.shape, 1, 4)).squeeze(-2)
    return rows / torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
