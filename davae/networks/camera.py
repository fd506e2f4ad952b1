"""The camera head: the pixel of the root, the scale in pixels, and the side of a hand in a crop.

da-VAE's joints are relative to the root and in units of a bone. To draw them on a photo one must know the
root's pixel and that bone's length in pixels. Both are regressed from the features of a trained, frozen
trunk, and so is the side, since da-VAE takes every hand for a right one. The head is not part of the paper or
of Eq. 3, and does not change what da-VAE estimates.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from davae.config import CameraConfig, ModelConfig
from davae.networks.blocks import BasicBlock, initialise, residual_layer, run_in_fp32


class Placement(NamedTuple):
    """Where a hand is in a crop, in units of the crop's side, and whether it is a right one."""

    root: Tensor  # (b, 2) right and down of the crop's middle
    bone: Tensor  # (b,) length of the reference bone as if it were parallel to the image
    right: Tensor  # (b,) score of a right hand; minus the score of the mirror image, the log-odds


class CameraHead(nn.Module):
    """The trunk's features (b, c, h, w) to the root's place, the reference bone's length, and the side.

    Two residual layers, as in the heads of na-VAE, and no pooling, which would lose where things are. A
    network that saw each place of the trunk's map by itself found the root, but not left and right.
    """

    def __init__(self, config: CameraConfig):
        super().__init__()
        channels, side, _ = trunk_shape(config.model)
        layers: list[nn.Module] = []
        for wider in config.channels:
            layers += residual_layer(BasicBlock, channels, wider, depth=1, stride=2)
            channels, side = wider, -(-side // 2)
        self.layers = nn.Sequential(*layers)
        self.hidden = nn.Linear(channels * side**2, config.hidden)
        self.last = nn.Linear(config.hidden, 4)
        initialise(self)
        nn.init.zeros_(self.last.weight)  # start from the middle of the crop and a likely length
        with torch.no_grad():
            self.last.bias.copy_(torch.tensor([0.0, 0.0, -1.8, 0.0]))

    def forward(self, features: Tensor) -> Placement:
        """Locate the hands."""
        x = run_in_fp32(self.hidden, self.layers(features).flatten(1))
        x = run_in_fp32(self.last, F.relu(x))
        return Placement(x[:, :2], x[:, 2].exp(), x[:, 3])


def trunk_shape(config: ModelConfig) -> tuple[int, int, int]:
    """Return channels, height and width of the trunk's features; each stride rounds up.

    Computed by hand, since running the trunk on torch's meta device loads torch's compiler: three seconds.
    """
    side = config.image_px
    for stride in (config.stem_stride, 2 if config.stem_pool else 1, 2):
        side = -(-side // stride)
    return 2 * config.width, side, side


def project_to_crop(joints: Tensor, placement: Placement, px: int) -> Tensor:
    """Project normalised joints (b, 21, 3) to pixels (b, 21, 2) of crops of side `px`, without perspective.

    Pixel centres lie at integers, as everywhere in davae.
    """
    offsets = placement.root[:, None] + placement.bone[:, None, None] * joints[..., :2]
    return offsets * px + (px - 1) / 2
