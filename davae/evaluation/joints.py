"""Joints from an image, and a hand mask from an image, as single networks, for export and timing.

`fold_batchnorm(JointNet(model))(image)`, under `torch.inference_mode()`, equals `model(image).pose` of a
model in evaluation mode, without the heads and decoders that joints do not need.
"""

import torch
from torch import Tensor, nn

from davae.networks import DaVAE, HandMaskNet
from davae.networks.handmask import composite_over_grey, enlarge


class JointNet(nn.Module):
    """Images on [0, 1] (b, 3, h, w) to normalised joints (b, 21, 3): trunk, pose head, pose decoder.

    If the code is undivided, the other heads, too, since the decoder reads what they find.

    Args:
        model: da-VAE or na-VAE; parameters are shared with it, not copied.
        mask_network: if given, the input is the crop as photographed, and one pass of this network finds the
            mask by which the hand is laid over grey. If not, the input is what `model` takes.
    """

    def __init__(self, model: DaVAE, mask_network: HandMaskNet | None = None):
        super().__init__()
        self.px = model.config.image_px
        self.probability = None if mask_network is None else HandProbability(mask_network)
        self.trunk, heads = model.encoder.trunk, model.encoder.heads
        self.heads = nn.ModuleList(heads[block] for block in model.config.reads("pose"))
        self.decoder = model.pose_decoder

    def forward(self, image: Tensor) -> Tensor:
        """Estimate joints from posterior means.

        Raises:
            ValueError: the images do not have the size that the network was built for.
        """
        if image.ndim != 4 or tuple(image.shape[1:]) != (3, self.px, self.px):
            raise ValueError(
                f"JointNet takes images of shape (b, 3, {self.px}, {self.px}), found {tuple(image.shape)}"
            )
        if self.probability is not None:
            image = composite_over_grey(image, self.probability(image))
        features = self.trunk(image)
        return self.decoder(torch.cat([head(features)[0] for head in self.heads], dim=1))


class HandProbability(nn.Module):
    """Images on [0, 1] (b, 3, h, w) to the probability (b, 1, h, w) that each pixel belongs to the hand."""

    def __init__(self, network: HandMaskNet):
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        """Apply the mask network once, at the crop's resolution."""
        return enlarge(self.network(image), image).sigmoid()
