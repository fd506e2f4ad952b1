"""Lifting: score maps, from them canonical pose and viewpoint (Zimmermann and Brox 2017, arXiv:1705.01389).

The paper's ref. 1. PoseNet gives a score map for each joint; PosePrior reads the maps by two streams,

    L = sum_j |s_j - s_j'|^2  +  |w^c - w^c'|^2  +  |R - R'|^2,   joints = w^c R

with Gaussians s' around true places, the canonical pose w^c (a frame fixed to the hand) and the viewpoint R,
which is regressed as three numbers, axis times angle.

Known: the two streams are alike: convolutions in pairs, the second of each with a stride, then two wide
layers; the networks are trained one after the other; the hand's side is a further input.

Chosen: all are trained in one run, but no gradient passes from the lifting into the maps, so that each still
learns what it would learn alone, and the lifting sees the maps that it will see at test; no hand side, since
every hand here is a right one; the canonical frame has the middle MCP as its origin, as all poses here do;
the streams' widths; the maps have a cell for every four pixels.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from davae.config.rivals import LiftingConfig
from davae.losses import pose_loss
from davae.networks.blocks import conv3x3, initialise, run_in_fp32
from davae.rivals.canonical import to_canonical, view_loss
from davae.rivals.rival import MapNet, Rival, RivalTask, as_joints, mlp, weigh
from davae.rivals.sight import places_in_batch, turn
from davae.training.task import Examples, Loss
from synthhand.skeleton import JOINTS

STREAM = (32, 64, 128)  # channels of a stream's pairs of convolutions


class Lifted(NamedTuple):
    """Score maps and what they were lifted to."""

    maps: Tensor  # (b, 21, h, w)
    canonical: Tensor  # (b, 21, 3)
    view: Tensor  # (b, 3, 3)


def draw_scores(places: Tensor, side: int, spread: float) -> Tensor:
    """Return maps (b, j, side, side): exp(-d^2 / spread^2) of the distance to places (b, j, 2)."""
    axis = (torch.arange(side, device=places.device) + 0.5) / side - 0.5
    right, down = (torch.exp(-((axis - places[..., k, None]) / spread).square()) for k in (0, 1))
    return down[..., :, None] * right[..., None, :]


def rotation_from(vector: Tensor) -> Tensor:
    """Return the rotations (b, 3, 3) of row vectors by axis times angle (b, 3): exp of its cross product."""
    x, y, z = vector.float().unbind(1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, z, -y, -z, zero, x, y, -x, zero], 1).view(-1, 3, 3)
    return torch.linalg.matrix_exp(cross)


class Stream(nn.Module):
    """Score maps (b, 21, side, side) to so many numbers."""

    def __init__(self, side: int, hidden: int, outputs: int):
        super().__init__()
        layers: list[nn.Module] = []
        channels = JOINTS
        for wider in STREAM:
            for before, stride in ((channels, 1), (wider, 2)):
                layers += [conv3x3(before, wider, stride=stride), nn.BatchNorm2d(wider), nn.ReLU(True)]
            channels, side = wider, -(-side // 2)
        self.layers = nn.Sequential(*layers)
        self.last = mlp(channels * side**2, hidden, hidden, outputs)

    def forward(self, maps: Tensor) -> Tensor:
        """Map score maps to (b, outputs), in fp32."""
        return run_in_fp32(self.last, self.layers(maps).flatten(1))


class Lifting(Rival):
    """Images to score maps to canonical pose and viewpoint."""

    def __init__(self, config: LiftingConfig):
        super().__init__()
        self.maps = MapNet(config.model, config.rival.channels, JOINTS)
        hidden = config.model.pose_hidden
        self.pose = Stream(self.maps.side, hidden, JOINTS * 3)
        self.view = Stream(self.maps.side, hidden, 3)
        initialise(self)
        for last in (self.maps.out, self.pose.last[-1], self.view.last[-1]):
            nn.init.normal_(last.get_parameter("weight"), std=0.01)

    def forward(self, image: Tensor) -> Lifted:
        """Estimate maps, and lift them."""
        maps = self.maps(image)
        seen = maps.detach()
        return Lifted(maps, as_joints(self.pose(seen)), run_in_fp32(rotation_from, self.view(seen)))

    def predict(self, image: Tensor, lines: Tensor) -> Tensor:
        """As `Rival.predict`."""
        _, canonical, view = self(image)
        return turn(canonical, view)


class LiftingTask(RivalTask):
    """Training on score maps, canonical poses and viewpoints."""

    kind, network, shown = "lifting", Lifting, ("map", "canonical", "view")
    config: LiftingConfig

    def forward(self, network: nn.Module, examples: Examples) -> Lifted:
        """Return maps, canonical pose and viewpoint."""
        return network(self.image(examples))

    def loss(self, output: Lifted, examples: Examples) -> Loss:
        """Return the weighted terms; that of maps is the mean over cells."""
        rival, alpha = self.config.rival, self.config.loss.alpha_pose
        canonical, view = to_canonical(examples.batch.joints)
        scores = draw_scores(places_in_batch(examples), output.maps.shape[-1], rival.spread)
        terms = {
            "map": (output.maps - scores).square().sum(1).mean(),
            "canonical": pose_loss(output.canonical, canonical).mean(),
            "view": view_loss(output.view, view).mean(),
        }
        weights = {"map": rival.alpha_map, "canonical": 1.0, "view": rival.alpha_view}
        return weigh(terms, {name: alpha * weight for name, weight in weights.items()})
