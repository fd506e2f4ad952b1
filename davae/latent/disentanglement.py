"""What a move through the latent space changes, measured (paper 4.5, which shows two pairs of images).

Decoded joints read the pose block alone and cannot move with another, so nothing is learnt from them. What
can fail is the decoded picture, which reads all blocks: does moving appearance leave the hand's outline
alone, and the joints that the encoder finds when it sees that picture again? On SynthHand the same move is
rendered.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from davae.config import BLOCKS, DataConfig
from davae.data.sample import stored_px
from davae.latent.blend import blend, photographed
from davae.latent.codes import Code, combined, hand_colour
from davae.losses import chamfer_distance
from davae.networks import DaVAE
from davae.networks.handmask import MID_GREY, composite_over_grey
from synthhand.dataset.factors import Factors

EDGE = 0.35  # the largest share that still keeps hands whole whose shadows are near the grey behind them
VISIBLE = 0.02  # differences from grey below that are rounding of an empty picture
FRACTION = 0.2  # of what pose (or appearance) changes: "without significant impact", made a number


class Effect(NamedTuple):
    """What moving one block from one image's code to another's changes, (n,) each, one for every pair."""

    silhouette: NDArray[np.float64]  # 1 - IoU of the decoded hands' outlines
    joints_mm: NDArray[np.float64]  # mean distance of the joints found by encoding the decoded pictures again
    colour: NDArray[np.float64]  # of the hands' mean colours, mean over channels, of 255


def silhouette(images: Tensor) -> Tensor:
    """Where pictures (..., 3, h, w) of hands over mid-grey show the hand: (..., h, w) bool.

    Where a pixel differs from grey by `EDGE` of what the hand as a whole does. A fixed difference would draw
    another outline around a blurred hand, and decoded hands are blurred, as soon as only its colour changes:
    of test hands blurred by 2 pixels of 64 and then brightened or darkened, it moves a third of the outline.
    """
    contrast = (images - MID_GREY).abs().amax(-3)
    hand = contrast.square().sum((-2, -1)) / contrast.sum((-2, -1)).clamp(min=1e-6)  # weighted by itself
    return contrast > (EDGE * hand).clamp(min=VISIBLE)[..., None, None]


def silhouette_change(a: Tensor, b: Tensor) -> Tensor:
    """1 - IoU (n,) of the outlines in pictures (n, 3, h, w); two without a hand agree."""
    a, b = silhouette(a), silhouette(b)
    both, either = (a & b).sum((1, 2)).double(), (a | b).sum((1, 2)).double()
    return torch.where(either > 0, 1 - both / either.clamp(min=1), 0.0)


def colour_change(a: Tensor, b: Tensor) -> Tensor:
    """Difference (n,) of the hands' mean colours, mean over channels, of 255; NaN where there is no hand."""
    colours = [torch.stack([hand_colour(image) for image in images]) for images in (a, b)]
    return 255 * (colours[0] - colours[1]).abs().mean(1).double()


@torch.inference_mode()
def effects(model: DaVAE, codes: Code, pairs: NDArray, scale_mm: NDArray) -> dict[str, Effect]:
    """Measure what each block's move changes, from the code of one image to that of another.

    Args:
        model: in evaluation mode.
        codes: block -> (m, z) posterior means.
        pairs: (n, 2) indices of start and end.
        scale_mm: (m,) reference bones, in which joints are measured; that of the start counts.

    Returns:
        Block -> its effect over the pairs.
    """
    start, end = ({block: codes[block][pairs[:, k]] for block in BLOCKS} for k in (0, 1))
    bones = torch.from_numpy(np.asarray(scale_mm, np.float64)[pairs[:, 0]])
    before = model.decode(start).image
    joints_before = _seen_again(model, before)
    found = {}
    for block in BLOCKS:
        after = model.decode(combined(dict.fromkeys(BLOCKS, start) | {block: end})).image
        moved = torch.linalg.vector_norm(_seen_again(model, after) - joints_before, dim=2).mean(1)
        found[block] = Effect(
            silhouette_change(before, after).numpy(),
            (moved.double() * bones).numpy(),
            colour_change(before, after).numpy(),
        )
    return found


def _seen_again(model: DaVAE, images: Tensor) -> Tensor:
    """Normalised joints (n, 21, 3) that the encoder finds in decoded pictures."""
    return model.pose_decoder(model.encode(images.clamp(0, 1)).means["pose"])


class Frame(NamedTuple):
    """The rendered truth of one place on a way."""

    image: Tensor  # (3, h, w), the hand over mid-grey
    cloud: Tensor  # (p, 3) normalised
    joints: Tensor  # (21, 3) normalised
    scale_mm: float


def rendered_way(
    a: Factors, b: Factors, group: str, shares: Sequence[float], data: DataConfig
) -> list[Frame]:
    """Render the hands between two hands, of which one group of factors moves.

    Raises:
        synthhand.formats.record.BadSample: a hand on the way cannot be cropped.
    """
    return [rendered(blend(a, b, group, share), data) for share in shares]


def rendered(factors: Factors, data: DataConfig) -> Frame:
    """Render one hand as the network's target shows it."""
    row = photographed(factors, data)
    begin = (stored_px(data) - data.image_px) // 2
    window = slice(begin, begin + data.image_px)
    image = torch.from_numpy(row["images"][window, window]).permute(2, 0, 1)[None].float() / 255
    mask = torch.from_numpy(row["masks"][window, window])[None, None].float() / 255
    cloud, joints = (torch.from_numpy(row[name]) for name in ("clouds", "joints"))
    return Frame(composite_over_grey(image, mask)[0], cloud, joints, float(row["scale_mm"]))


class Agreement(NamedTuple):
    """How near a decoded frame is to the rendered truth of the same factors."""

    iou: float  # of the outlines
    colour: float  # difference of mean colours, of 255
    chamfer_mm: float


def agreement(image: Tensor, cloud: Tensor, truth: Frame) -> Agreement:
    """Compare a decoded picture (3, h, w) and cloud (p, 3), normalised, with the truth."""
    return Agreement(
        1 - silhouette_change(image[None], truth.image[None]).item(),
        colour_change(image[None], truth.image[None]).item(),
        chamfer_distance(cloud[None], truth.cloud[None]).item() * truth.scale_mm,
    )


class Verdict(NamedTuple):
    """One claim of "without significant impact" as a ratio of medians, and whether it holds."""

    claim: str
    ratio: float
    bound: float

    @property
    def holds(self) -> bool:
        """Whether the ratio is within its bound."""
        return self.ratio <= self.bound


def verdicts(found: dict[str, Effect]) -> list[Verdict]:
    """Hold effects against the bounds: a fifth of what the block changes whose business it is."""
    pose, appearance = found["pose"], found["appearance"]

    def median(values: NDArray) -> float:
        return float(np.nanmedian(values)) if np.isfinite(values).any() else float("nan")

    pairs = {
        "appearance moves the outline, over what pose does": (appearance.silhouette, pose.silhouette),
        "appearance moves the joints seen again, over what pose does": (appearance.joints_mm, pose.joints_mm),
        "pose changes the colour, over what appearance does": (pose.colour, appearance.colour),
    }
    return [
        Verdict(claim, median(a) / median(b) if median(b) else float("nan"), FRACTION)
        for claim, (a, b) in pairs.items()
    ]
