"""The hand mask network (paper 3.2): which pixels of a crop belong to the hand in its middle."""

from functools import reduce

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from davae.config import MID_GREY as MID_GREY
from davae.config import MaskConfig
from davae.networks.blocks import BasicBlock, conv3x3, initialise, residual_layer, run_in_fp32
from davae.networks.encoder import ResNetBase


class ResNet(ResNetBase):
    """ResNet-34 without its classifier: an image to maps of five sizes."""

    def __init__(self, config: MaskConfig):
        super().__init__(config)
        width, (_, _, third, fourth) = config.width, config.depths
        self.layer3 = residual_layer(BasicBlock, 2 * width, 4 * width, depth=third, stride=2)
        self.layer4 = residual_layer(BasicBlock, 4 * width, 8 * width, depth=fourth, stride=2)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Map images on [0, 1] (b, 3, h, w) to the stem's map, at half their side, and each layer's."""
        maps = [self.stem(image)]
        x = self.maxpool(maps[0])
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            maps.append(x := layer(x))
        return maps


class HandMaskNet(nn.Module):
    """ResNet-34 and a light decoder (our choice): enlarge the coarsest map, add the next finer, repeat.

    The middle of a crop shows the hand, so the mean colour there is subtracted: pixels that look like the
    hand are then near zero from the first layer on.
    """

    def __init__(self, config: MaskConfig):
        super().__init__()
        self.encoder = ResNet(config)
        channels = [config.width * factor for factor in (1, 1, 2, 4, 8)]
        self.lateral = nn.ModuleList(nn.Conv2d(c, config.decoder, 1) for c in channels)
        self.smooth = nn.Sequential(
            conv3x3(config.decoder, config.decoder), nn.BatchNorm2d(config.decoder), nn.ReLU(inplace=True)
        )
        self.logit = nn.Conv2d(config.decoder, 1, 1)
        initialise(self)

    def forward(self, image: Tensor) -> Tensor:
        """Map images on [0, 1] (b, 3, h, w) of 4 px or more to logits (b, 1, h / 2, w / 2), rounded up."""
        top, left = (side // 2 - max(1, side // 20) for side in image.shape[2:])
        middle = image[:, :, top:-top, left:-left].mean(dim=(2, 3), keepdim=True)
        maps = self.encoder(image - middle + 0.5)
        *finer, x = (lateral(m) for lateral, m in zip(self.lateral, maps, strict=True))
        return run_in_fp32(self.logit, self.smooth(reduce(self.add_finer, reversed(finer), x)))

    def add_finer(self, x: Tensor, skip: Tensor) -> Tensor:
        """Return the sum of `skip` (b, c, h, w) and a coarser map x, interpolated to its size."""
        return skip + F.interpolate(x, size=skip.shape[2:], mode="bilinear")


def composite_over_grey(image: Tensor, mask: Tensor) -> Tensor:
    """Composite images (b, 3, h, w) over mid-grey by masks (b, 1, h, w) in [0, 1]."""
    return torch.lerp(image.new_tensor(MID_GREY), image, mask)  # mask * image + (1 - mask) * grey


def enlarge(logits: Tensor, like: Tensor) -> Tensor:
    """Interpolate logits (b, 1, h / 2, w / 2) to the resolution of `like` (b, c, h, w), in fp32."""
    return F.interpolate(logits.float(), size=like.shape[2:], mode="bilinear")
