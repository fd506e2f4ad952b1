"""The hand mask network applied to crops, and how well a mask fits the truth."""

from collections.abc import Callable

import torch
from torch import Tensor

from davae.networks.handmask import enlarge
from davae.training.threads import single_threaded


@single_threaded()
def predict_probability(
    network: Callable[[Tensor], Tensor], images: Tensor, quarter_turns: int = 4
) -> Tensor:
    """Return the probability (b, 1, h, w) that each pixel of crops (b, 3, h, w) belongs to the hand.

    A hand may point in any direction. So the crop is turned by 0, 1, 2, ... right angles, and the result is
    the mean of the network's predictions, turned back.

    Args:
        network: a `HandMaskNet` in evaluation mode.
        images: on [0, 1].
        quarter_turns: how many of the four directions to use.
    """
    probability = torch.zeros_like(images[:, :1])
    with torch.inference_mode():
        for turn in range(quarter_turns):
            turned = torch.rot90(images, turn, (2, 3)).contiguous(memory_format=torch.channels_last)
            found = enlarge(network(turned), turned).sigmoid()
            probability += torch.rot90(found, -turn, (2, 3)) / quarter_turns
    return probability


def mask_iou(predicted: Tensor, truth: Tensor) -> Tensor:
    """Return intersection over union (b,) of masks (b, 1, h, w), each thresholded at 0.5.

    The IoU of two empty masks is 1.
    """
    predicted, truth = predicted > 0.5, truth > 0.5
    both = (predicted & truth).sum(dim=(1, 2, 3))
    either = (predicted | truth).sum(dim=(1, 2, 3))
    return torch.where(either > 0, both / either.clamp(min=1), 1.0)
