"""Published weights to begin with: a user's ImageNet weights of torchvision's resnet34 (arXiv:1512.03385)."""

from collections.abc import Mapping

import torch
from torch import Tensor

from davae.networks.blocks import BasicBlock
from davae.networks.encoder import Encoder


@torch.no_grad()
def load_resnet34(encoder: Encoder, weights: Mapping[str, Tensor]) -> list[str]:
    """Copy torchvision's resnet34 weights into the trunk, and into all heads with plain residual blocks.

    Args:
        encoder: of da-VAE (only the trunk is set) or na-VAE (trunk and all three heads).
        weights: a state dict with torchvision's names; `fc.*` is ignored.

    Returns:
        The names of the parameters and buffers that were set.

    Raises:
        ValueError: a required name is missing or has another shape; nothing has been copied.
    """
    targets = {name: [value] for name, value in encoder.trunk.state_dict().items()}
    for head in encoder.heads.values():
        plain = BasicBlock in map(type, head.modules())  # not a subclass of it, such as squeeze-excitation
        for name, value in head.state_dict().items() if plain else ():
            if not name.startswith("fc."):
                targets.setdefault(name, []).append(value)
    for name, values in targets.items():
        if name not in weights:
            raise ValueError(f"resnet34 weights: {name} is missing; expected torchvision's resnet34 names")
        if weights[name].shape != values[0].shape:
            raise ValueError(
                f"resnet34 weights: {name} is {tuple(weights[name].shape)}, this encoder needs "
                f"{tuple(values[0].shape)}; published weights fit width=64, depths=(3, 4, 6, 3)"
            )
    for name, values in targets.items():
        for value in values:
            value.copy_(weights[name])
    return sorted(targets)
