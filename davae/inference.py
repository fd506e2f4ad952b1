"""Inference at speed: joints alone from an image, and networks with BatchNorm folded into their layers.

`fused(JointNet(model))(image)`, under `torch.inference_mode()`, is `model(image).pose` of a model in
evaluation mode, without the other two heads and decoders.
"""

import copy
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor, channels_last, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from davae.data.augment import MID_GREY, over_grey
from davae.networks import DaVAE, HandMaskNet
from davae.training.masks import enlarge

# How much a look is enlarged: crops have 1.3 times the room that the joints need, and a larger hand is read
# better, by one percent on validation images (1.06 to 1.18 were tried).
ZOOM = 1.12

Network = TypeVar("Network", bound=nn.Module)


class JointNet(nn.Module):
    """Images on [0, 1] (b, 3, h, w) to normalised joints (b, 21, 3): trunk, pose head and pose decoder.

    Args:
        model: da-VAE or na-VAE, whose parameters are shared and not copied.
        mask_network: without it, the input is what `model` takes. With it, it is the crop as photographed,
            and is laid over grey here, by the mask that one look of this network finds.
    """

    def __init__(self, model: DaVAE, mask_network: HandMaskNet | None = None):
        super().__init__()
        self.px = model.config.image_px
        self.probability = None if mask_network is None else HandProbability(mask_network)
        self.trunk, self.head = model.encoder.trunk, model.encoder.heads["pose"]
        self.decoder = model.pose_decoder

    def forward(self, image: Tensor) -> Tensor:
        """Estimate joints from posterior means.

        Raises:
            ValueError: the images are not of the size that the network was built for.
        """
        if image.ndim != 4 or tuple(image.shape[1:]) != (3, self.px, self.px):
            raise ValueError(
                f"JointNet takes images of shape (b, 3, {self.px}, {self.px}), found {tuple(image.shape)}"
            )
        if self.probability is not None:
            image = over_grey(image, self.probability(image))
        mean, _ = self.head(self.trunk(image))
        return self.decoder(mean)


class HandProbability(nn.Module):
    """Images on [0, 1] (b, 3, h, w) to the probability (b, 1, h, w) that a pixel is the hand's: one look."""

    def __init__(self, network: HandMaskNet):
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        """Apply the mask network at the crop's resolution."""
        return enlarge(self.network(image), image).sigmoid()


def turned(images: Tensor, count: int) -> list[Tensor]:
    """Return hands over mid-grey (b, 3, h, w) turned by equal parts of a full turn about their middle.

    Where there is more than one look, each is enlarged by `ZOOM`, too.
    """
    if count == 1:
        return [images]
    seen = []
    for angle in _angles(count):
        # Which place of the image, on [-1, 1], each place of a look shows.
        shown = torch.tensor([[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0]])
        grid = F.affine_grid((shown / ZOOM).to(images).expand(len(images), 2, 3), list(images.shape), False)
        seen.append(F.grid_sample(images - MID_GREY, grid, align_corners=False) + MID_GREY)
    return seen


def turned_back(points: Sequence[Tensor]) -> Tensor:
    """Return points (..., 2 or 3) that were seen in k images `turned`, turned back: (k, ..., 2 or 3).

    A network is not quite the same from all sides, so that the mean of eight looks errs less than one.

    Args:
        points: of each look, relative to the middle or to each other: x right, y down, and z, if there is
            one, along the axis of turning. Lengths on the image remain `ZOOM` times as long.
    """
    back = []
    for angle, seen in zip(_angles(len(points)), points, strict=True):
        x, y = seen[..., 0], seen[..., 1]
        x, y = math.cos(angle) * x - math.sin(angle) * y, math.sin(angle) * x + math.cos(angle) * y
        back.append(torch.cat([torch.stack([x, y], dim=-1), seen[..., 2:]], dim=-1))
    return torch.stack(back)


def _angles(count: int) -> list[float]:
    return [2 * math.pi * number / count for number in range(count)]


def fused(network: Network) -> Network:
    """Return a frozen copy for inference: the same function, faster, up to rounding.

    BatchNorm at test is an affine map of each channel, so the convolution or linear layer before it takes it
    over. Weights lie in channels-last order, which convolutions of a processor prefer, whatever the image's.

    Args:
        network: one of this project's, in which a layer defined right before a BatchNorm also runs right
            before it. The image decoder's first BatchNorm, behind a change of shape, stays.
    """
    network = copy.deepcopy(network).eval().requires_grad_(False)
    for parent in list(network.modules()):
        for (name, layer), (norm_name, norm) in pairwise(list(parent.named_children())):
            if not isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
                continue
            if isinstance(layer, nn.Linear):
                folded = fuse_linear_bn_eval(layer, norm)
            elif isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                folded = fuse_conv_bn_eval(layer, norm, transpose=isinstance(layer, nn.ConvTranspose2d))
            else:
                continue
            setattr(parent, name, folded)
            setattr(parent, norm_name, nn.Identity())
    return network.to(memory_format=channels_last)
