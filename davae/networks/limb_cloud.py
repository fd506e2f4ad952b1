"""A cloud decoder that knows the bones: sheets around them, which two folds shape into flesh.

It takes the place of FoldingNet where `ModelConfig.cloud_decoder` is "limbs". One flat sheet must be torn to
become five fingers, and a continuous function cannot tear it: at the sizes that a laptop trains it becomes a
crumpled leaf. Here each finger has a sheet of its own, which begins as half a tube around its bones, the half
that faces the camera, since true clouds come from depth pictures.

What it costs: pose reaches the cloud through 63 numbers, the joints, and through nothing else.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from davae.config import ModelConfig
from davae.networks.decoders import Fold
from synthhand.skeleton import JOINTS, PARENTS

FINGERS, PHALANGES = 5, 4  # sheets, and bones of each: a metacarpal and three phalanges
RADIUS = 0.2  # of the tubes, in reference bones
REACH = 0.3  # reference bones by which an output of 1 moves a point


class LimbCloudDecoder(nn.Module):
    """Joints (b, 21, 3) and z_shape (b, z) to a cloud (b, p, 3) of the side of the hand that the camera sees.

    Two folds (`davae.networks.decoders.Fold`) move the points of the tubes. The first reads a point's place
    on its sheet and moves it along, across and out of its bone, so that it need not learn directions; the
    second reads where the point has come to.
    """

    places: Tensor  # (p, 3), see `_make_places`

    def __init__(self, config: ModelConfig):
        super().__init__()
        code = JOINTS * 3 + config.latent_shape
        self.register_buffer("places", _make_places(config.fold_grid**2), persistent=False)
        self.first = Fold(code, 3, config.fold_hidden)
        self.second = Fold(code, 3, config.fold_hidden)

    def forward(self, joints: Tensor, z_shape: Tensor, points: int | None = None) -> Tensor:
        """Decode clouds of at least fold_grid^2 points, or `points` of the same surface, in fp32."""
        places = self.places if points is None else _make_places(points).to(self.places)
        joints = joints.float()
        code = torch.cat([joints.flatten(1), z_shape], dim=1)
        cloud = wrap_bones(joints, places, REACH * self.first(code, places))
        cloud = cloud + REACH * self.second(code, cloud)
        return cloud


def wrap_bones(joints: Tensor, places: Tensor, moves: Tensor) -> Tensor:
    """Return points (b, p, 3) on half tubes around the bones of joints (b, 21, 3).

    Args:
        joints: in the camera frame.
        places: (p, 3) on the sheets.
        moves: (b, p, 3) from the tubes, in the axes of each point's bone: along it, across it as the camera
            sees it, and out of it towards the camera.
    """
    finger, length, across = places.T
    bone = length.long().clamp(max=PHALANGES - 1)
    child = finger.long() * PHALANGES + bone + 1
    start = joints[:, torch.tensor(PARENTS, device=child.device)[child]]
    way = joints[:, child] - start
    along = F.normalize(way, dim=2)
    x, y, _ = along.unbind(2)
    # A bone that points at the camera has no such direction; its tube shrinks.
    aside = F.normalize(torch.stack([-y, x, torch.zeros_like(x)], 2), dim=2, eps=0.1)
    out = torch.linalg.cross(aside, along)
    angle = across * (math.pi / 2)
    u, v, w = moves.unbind(2)
    v, w = v + RADIUS * torch.sin(angle), w + RADIUS * torch.cos(angle)
    on_bone = start + (length - bone)[:, None] * way
    moved: Tensor = on_bone + u[..., None] * along + v[..., None] * aside + w[..., None] * out
    return moved


def _make_places(points: int) -> Tensor:
    """Return at least `points` places (p, 3): finger 0 to 4, length 0 to 4 in bones, across -1 to 1."""
    across = max(2, math.ceil(math.sqrt(points / (FINGERS * PHALANGES))))
    return torch.cartesian_prod(
        torch.arange(float(FINGERS)),
        torch.linspace(0, PHALANGES, PHALANGES * across),
        torch.linspace(-1, 1, across),
    )
