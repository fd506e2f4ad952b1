"""Faster inference: BatchNorm folded into the layer before it."""

import copy
from itertools import pairwise
from typing import TypeVar

from torch import channels_last, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

Network = TypeVar("Network", bound=nn.Module)


def fold_batchnorm(network: Network) -> Network:
    """Return a frozen copy for inference: the same function up to rounding, but faster.

    BatchNorm in evaluation mode is an affine map of each channel, which the convolution or linear layer
    before it can absorb. Weights are stored channels-last, the faster order for convolutions on a CPU.

    Args:
        network: one of this project's, in which a layer defined right before a BatchNorm also runs right
            before it. The image decoder's first BatchNorm follows a change of shape and stays.
    """
    network = copy.deepcopy(network).eval().requires_grad_(False)
    for parent in list(network.modules()):
        for (name, layer), (norm_name, norm) in pairwise(list(parent.named_children())):
            if not isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
                continue
            folded: nn.Module
            if isinstance(layer, nn.Linear):
                folded = fuse_linear_bn_eval(layer, norm)
            elif isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                folded = fuse_conv_bn_eval(layer, norm, transpose=isinstance(layer, nn.ConvTranspose2d))
            else:
                continue
            setattr(parent, name, folded)
            setattr(parent, norm_name, nn.Identity())
    return network.to(memory_format=channels_last)  # type: ignore[call-overload, no-any-return]  # stub lacks it
