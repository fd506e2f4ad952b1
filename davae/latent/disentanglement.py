"""Measures of what changes when one block of the code changes (paper 4.5, which shows two pairs of images).

The pose decoder reads only the pose block, so decoded joints cannot change with another block and prove
nothing. The decoded image reads all blocks. Two questions test it: does a change of appearance leave the
hand's outline unchanged, and does it leave the joints unchanged that the encoder finds in the decoded image?
For SynthHand, `davae.latent.blend` renders the true images for comparison.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from davae.config import BLOCKS
from davae.latent.blend import Frame
from davae.latent.codes import Code, combine, hand_colour
from davae.losses import chamfer_distance
from davae.networks import DaVAE
from davae.networks.handmask import MID_GREY

EDGE = 0.35  # of the hand's contrast; the largest value that keeps hands whole that have shadows near grey
VISIBLE = 0.02  # least difference from grey; smaller ones are rounding errors in an empty image
FRACTION = 0.2  # this project's bound for the paper's "without significant impact"


class Effect(NamedTuple):
    """Changes (n,) in n pairs of images, caused by replacing one block of a code by the other image's."""

    silhouette: NDArray[np.float64]  # 1 - IoU of the decoded hands' outlines
    joints_mm: NDArray[np.float64]  # mean distance between the joints that the encoder finds in both images
    colour: NDArray[np.float64]  # difference of the hands' mean colours, mean over channels, 0 to 255


def silhouette(images: Tensor) -> Tensor:
    """Return the pixels (..., h, w) that show the hand, bool, of images (..., 3, h, w) over mid-grey.

    A pixel belongs to the hand if its difference from grey is at least `EDGE` times that of the hand as a
    whole. With a fixed threshold, a change of colour alone would move the outline of a blurred hand, and
    decoded hands are blurred: for test hands blurred by 2 of 64 pixels and then brightened or darkened, a
    third of the outline would move.
    """
    contrast = (images - MID_GREY).abs().amax(-3)
    hand = contrast.square().sum((-2, -1)) / contrast.sum((-2, -1)).clamp(min=1e-6)  # weighted by itself
    return contrast > (EDGE * hand).clamp(min=VISIBLE)[..., None, None]


def silhouette_change(a: Tensor, b: Tensor) -> Tensor:
    """Return 1 - IoU (n,) of the hands in images (n, 3, h, w); it is 0 for two images without a hand."""
    a, b = silhouette(a), silhouette(b)
    both, either = (a & b).sum((1, 2)).double(), (a | b).sum((1, 2)).double()
    return torch.where(either > 0, 1 - both / either.clamp(min=1), 0.0)


def colour_change(a: Tensor, b: Tensor) -> Tensor:
    """Return the difference (n,) of the hands' mean colours, mean over channels, 0 to 255, or NaN."""
    colours = [torch.stack([hand_colour(image) for image in images]) for images in (a, b)]
    return 255 * (colours[0] - colours[1]).abs().mean(1).double()


@torch.inference_mode()
def measure_effects(model: DaVAE, codes: Code, pairs: NDArray, scale_mm: NDArray) -> dict[str, Effect]:
    """Measure what changes when each block in turn is replaced by that of another image.

    Args:
        model: in evaluation mode.
        codes: block -> (m, z) posterior means.
        pairs: (n, 2) indices of start and end.
        scale_mm: (m,) reference bone lengths; joints are measured with that of the start.

    Returns:
        Block -> its effect over the pairs.
    """
    start, end = ({block: codes[block][pairs[:, k]] for block in BLOCKS} for k in (0, 1))
    bones = torch.from_numpy(np.asarray(scale_mm, np.float64)[pairs[:, 0]])
    before = model.decode(start).image
    joints_before = see_joints(model, before)
    found = {}
    for block in BLOCKS:
        after = model.decode(combine(dict.fromkeys(BLOCKS, start) | {block: end})).image
        moved = torch.linalg.vector_norm(see_joints(model, after) - joints_before, dim=2).mean(1)
        found[block] = Effect(
            silhouette_change(before, after).numpy(),
            (moved.double() * bones).numpy(),
            colour_change(before, after).numpy(),
        )
    return found


def see_joints(model: DaVAE, images: Tensor) -> Tensor:
    """Return the normalised joints (n, 21, 3) that the encoder finds in decoded images."""
    return model.decode_pose(model.encode(images.clamp(0, 1)).means)


class Agreement(NamedTuple):
    """How near a decoded image and cloud are to the rendered truth of the same factors."""

    iou: float  # of the hands
    colour: float  # difference of mean colours, mean over channels, 0 to 255
    chamfer_mm: float


def measure_agreement(image: Tensor, cloud: Tensor, truth: Frame) -> Agreement:
    """Compare a decoded image (3, h, w) and cloud (p, 3), normalised, with the truth."""
    return Agreement(
        1 - silhouette_change(image[None], truth.image[None]).item(),
        colour_change(image[None], truth.image[None]).item(),
        chamfer_distance(cloud[None], truth.cloud[None]).item() * truth.scale_mm,
    )


class Leak(NamedTuple):
    """How much one block changes what belongs to another: a ratio of medians and its bound."""

    claim: str
    ratio: float
    bound: float

    @property
    def holds(self) -> bool:
        """Whether the ratio is within its bound."""
        return self.ratio <= self.bound


def measure_leaks(effects: dict[str, Effect]) -> list[Leak]:
    """Divide what a block should not change by what the block responsible for it changes.

    Args:
        effects: what `measure_effects` returns.
    """
    pose, appearance = effects["pose"], effects["appearance"]

    def median(values: NDArray) -> float:
        return float(np.nanmedian(values)) if np.isfinite(values).any() else float("nan")

    pairs = {
        "appearance moves the outline, over what pose does": (appearance.silhouette, pose.silhouette),
        "appearance moves the joints seen again, over what pose does": (appearance.joints_mm, pose.joints_mm),
        "pose changes the colour, over what appearance does": (pose.colour, appearance.colour),
    }
    return [
        Leak(claim, median(a) / median(b) if median(b) else float("nan"), FRACTION)
        for claim, (a, b) in pairs.items()
    ]
