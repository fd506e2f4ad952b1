"""The canonical frame of a hand: its pose without the viewpoint (arXiv:1705.01389, section 3.3)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from davae.rivals.sight import turn
from synthhand.skeleton import JOINT_NAMES, ROOT, WRIST

INDEX, LITTLE = (JOINT_NAMES.index(f"{finger}_mcp") for finger in ("index", "little"))


def to_canonical(joints: Tensor) -> tuple[Tensor, Tensor]:
    """Split joints (b, 21, 3) into canonical pose (b, 21, 3) and viewpoint (b, 3, 3).

    The wrist lies on the negative y axis, seen from the middle MCP, and the knuckle of the little finger
    beside that of the index in the plane of x and y. joints = canonical @ viewpoint (row vectors).
    """
    up = F.normalize(joints[:, ROOT] - joints[:, WRIST], dim=1)
    viewpoint = orthonormalise(up, joints[:, INDEX] - joints[:, LITTLE])
    return turn(joints, viewpoint.transpose(1, 2)), viewpoint


def orthonormalise(up: Tensor, across: Tensor) -> Tensor:
    """Return rotations (b, 3, 3) with rows x, y, z: y along `up` (b, 3), x towards `across` (b, 3).

    Gram and Schmidt's way, the continuous representation of rotations by six numbers (arXiv:1812.07035).
    """
    y = F.normalize(up, dim=1)
    x = F.normalize(across - (across * y).sum(1, keepdim=True) * y, dim=1)
    return torch.stack([x, y, torch.linalg.cross(x, y)], 1)


def view_loss(predicted: Tensor, true: Tensor) -> Tensor:
    """Return |R - R'|^2, summed over the elements of rotations (b, 3, 3) -> (b,).

    For a hand whose joints spread by s^2 along each axis, turning it wrongly costs s^2 times this in
    `davae.losses.pose_loss`; of SynthHand's hands that s^2, summed over joints, is about 14.
    """
    return (predicted.float() - true.float()).square().sum((1, 2))
