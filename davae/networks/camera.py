"""Where on a crop the joints lie: the camera head, which da-VAE lacks since its joints know no pixel.

da-VAE's joints are relative to the root and in units of a bone. To draw them on a photo one must know the
root's pixel and that bone's length in pixels; both are regressed from the features of a finished, frozen
trunk. So is which hand it is, since da-VAE takes every hand for a right one. The head is no part of the paper
and of Eq. 3, and changes nothing of what da-VAE estimates.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from davae.config import CameraConfig, ModelConfig
from davae.networks.blocks import BasicBlock, full_precision, initialise, residual_layer


class Placement(NamedTuple):
    """Where a hand is in a crop, in sides of the crop, and whether it is a right one."""

    root: Tensor  # (b, 2) right and down of the crop's middle
    bone: Tensor  # (b,) length of the reference bone, seen from the side
    right: Tensor  # (b,) score of a right one; its difference from the mirror image's are log-odds


class CameraHead(nn.Module):
    """The trunk's features (b, c, h, w) to the root's place, the reference bone's length, and the side.

    Two residual layers, as the heads of na-VAE have, and no pooling: where things are is what is asked. A
    single look at each place of the trunk's map finds the root, but never learnt left from right.
    """

    def __init__(self, config: CameraConfig):
        super().__init__()
        channels, side, _ = trunk_shape(config.model)
        layers = []
        for wider in config.channels:
            layers += residual_layer(BasicBlock, channels, wider, blocks=1, stride=2)
            channels, side = wider, -(-side // 2)
        self.layers = nn.Sequential(*layers)
        self.hidden = nn.Linear(channels * side**2, config.hidden)
        self.last = nn.Linear(config.hidden, 4)
        initialise(self)
        nn.init.zeros_(self.last.weight)  # begin with the middle of the crop and a likely length
        with torch.no_grad():
            self.last.bias.copy_(torch.tensor([0.0, 0.0, -1.8, 0.0]))

    def forward(self, features: Tensor) -> Placement:
        """Locate the hands."""
        x = full_precision(self.hidden, self.layers(features).flatten(1))
        x = full_precision(self.last, F.relu(x))
        return Placement(x[:, :2], x[:, 2].exp(), x[:, 3])


def trunk_shape(config: ModelConfig) -> tuple[int, int, int]:
    """Channels, height and width of the trunk's features: each stride rounds up.

    Counted and not tried on torch's meta device, for which torch loads its compiler: three seconds.
    """
    side = config.image_px
    for stride in (config.stem_stride, 2 if config.stem_pool else 1, 2):
        side = -(-side // stride)
    return 2 * config.width, side, side


def on_crop(joints: Tensor, placement: Placement, px: int) -> Tensor:
    """Pixels (b, 21, 2) in crops of `px` of normalised joints (b, 21, 3), as seen by a camera far away.

    Pixel centres lie at integers, as everywhere in davae.
    """
    offsets = placement.root[:, None] + placement.bone[:, None, None] * joints[..., :2]
    return offsets * px + (px - 1) / 2
