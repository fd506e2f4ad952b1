"""What the networks read off crops of hands: masks, sides, codes and joints, averaged over several views.

A view is the crop rotated about its middle (`davae.data.views`). The mean over views is nearer to the
truth than one view. How much the views disagree tells crops of one whole hand from others.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from davae.config import MID_GREY
from davae.data.views import ZOOM, rotate_back, rotate_views
from davae.photo.engine import Estimate, Images, Networks
from davae.photo.hand import Side, mirror
from synthhand.skeleton import ROOT

VIEWS = 8  # rotations over which joints and their place are averaged
MASK_VIEWS = 4  # quarter turns over which the mask is averaged
SIDE_VIEWS = 4  # rotations of the crop, and as many of its mirror image, from which the side is guessed
TINY = 1e-9  # what views that agree wholly are taken to differ by
AGREEMENT = 4.0  # weight of the views' agreement beside log-odds: 96 % of held-out sides right, not 94


@dataclass(frozen=True)
class Reading:
    """What is read off one crop, as the photo shows the hand: a left hand's joints are a left hand's.

    Attributes:
        side: "left" or "right".
        mask: (px, px) probability that a pixel is the hand's.
        joints: (21, 3) normalised.
        joints_px: (21, 2) pixels of the crop.
        bone: length of the reference bone, seen from the side, in sides of the crop.
        means: block -> (z,) of the posterior, of the crop as a right hand.
        spreads: block -> (z,) standard deviations.
    """

    side: Side
    mask: NDArray[np.float32]
    joints: NDArray[np.float64]
    joints_px: NDArray[np.float64]
    bone: float
    means: dict[str, NDArray[np.float32]]
    spreads: dict[str, NDArray[np.float32]]


class Guess(NamedTuple):
    """Which hand b crops show, and how much each looks like one."""

    sides: list[Side]  # the likelier
    disagreement: NDArray[np.float32]  # (b,) mean distance of the views' joints from their mean, normalised
    certainty: NDArray[
        np.float32
    ]  # (b,) mean probability over the mask's pixels above 0.5; 0 if there are none
    cut_off: NDArray[np.float64]  # (b,) share of the crop's border that is the mask's


class Observer:
    """The networks of a file of weights, ready for crops (b, 3, px, px) on [0, 1]."""

    def __init__(self, networks: Networks):
        self.networks, self.px = networks, networks.px

    def segment(self, crops: Images, views: int = MASK_VIEWS) -> NDArray[np.float32]:
        """Return the hands' masks (b, 1, px, px), a mean over quarter turns."""
        return self.networks.mask.segment(crops, views)

    def read(self, crops: Images, sides: Sequence[Side], coarse: bool = False) -> list[Reading]:
        """Read b hands of known sides; coarsely from one view instead of several."""
        count = len(crops)
        left = np.array([side == "left" for side in sides])[:, None, None, None]
        crops = np.where(left, crops[..., ::-1], crops)  # networks know right hands only
        masks = self.segment(crops, 1 if coarse else MASK_VIEWS)
        image = _lay_over_grey(crops, masks)
        views, zoom = (1, 1.0) if coarse else (VIEWS, ZOOM)
        # The code is that of the crop as it is, joints and their place are means over the views.
        shown = image[None] if coarse else np.concatenate([image[None], rotate_views(image, views)])
        seen = self._estimate(shown)
        joints, root, bone = (
            one.reshape(-1, count, *one.shape[1:])[-views:] for one in (seen.joints, seen.root, seen.bone)
        )
        joints = rotate_back(joints).mean(0)
        joints = joints - joints[:, ROOT : ROOT + 1]
        root, bone = rotate_back(root).mean(0) / zoom, bone.mean(0) / zoom
        offsets = root[:, None] + bone[:, None, None] * joints[..., :2]
        joints_px = offsets * self.px + (self.px - 1) / 2  # as davae.networks.camera.project_to_crop
        readings = []
        for row, side in enumerate(sides):
            uv, mask = joints_px[row].astype(float), masks[row, 0]
            if side == "left":
                uv = np.stack([self.px - 1 - uv[:, 0], uv[:, 1]], axis=1)
                mask = np.ascontiguousarray(mask[:, ::-1])
            means = {block: mean[row] for block, mean in seen.means.items()}
            spreads = {block: np.exp(0.5 * logvar[row]) for block, logvar in seen.logvars.items()}
            own_joints = mirror(joints[row].astype(float), side)
            readings.append(Reading(side, mask, own_joints, uv, float(bone[row]), means, spreads))
        return readings

    def guess(self, crops: Images, known: Sequence[Side | None], views: int = SIDE_VIEWS) -> Guess:
        """Guess the sides that are not `known`, and measure how much each crop looks like one hand.

        Two signs, each seen in the crop and in its mirror image, tell the side: the camera head's log-odds,
        and how well several views agree about the joints. The model knows right hands only, and contradicts
        itself more about a left one.
        """
        masks = self.segment(crops, 1)  # one view tells left from right
        upright = _lay_over_grey(crops, masks)
        both = np.concatenate([upright, upright[..., ::-1]])
        seen = self._estimate(rotate_views(both, views))
        joints = rotate_back(seen.joints.reshape(views, len(both), *seen.joints.shape[1:]))
        apart = np.linalg.norm(joints - joints.mean(0), axis=3).mean((0, 2))
        scores = seen.right.reshape(views, len(both)).mean(0) - AGREEMENT * np.log(apart.clip(TINY))
        as_right, as_left = np.split(scores, 2)
        right = np.where(
            [side is None for side in known], as_right >= as_left, [side == "right" for side in known]
        )
        hand = masks > 0.5
        certainty = (masks * hand).sum((1, 2, 3)) / hand.sum((1, 2, 3)).clip(1)
        disagreement = np.where(right, *np.split(apart, 2))
        cut_off = [np.concatenate([*one[[0, -1]], *one[1:-1, [0, -1]].T]).mean() for one in hand[:, 0]]
        return Guess(
            ["right" if one else "left" for one in right], disagreement, certainty, np.array(cut_off)
        )

    def _estimate(self, views: NDArray[np.float32]) -> Estimate:
        """Return what is estimated from images (k, b, 3, px, px), in rows (k * b)."""
        return self.networks.estimate(views.reshape(-1, *views.shape[2:]))


def _lay_over_grey(crops: Images, masks: NDArray[np.float32]) -> Images:
    """Composite crops over mid-grey by masks (b, 1, px, px), as `composite_over_grey` of tensors."""
    grey = np.float32(MID_GREY)
    return grey + masks * (crops - grey)


def estimate_confidence(disagreement: float, certainty: float, cut_off: float) -> float:
    """Return the share of boxes with such a `Guess` that overlap the true box by half.

    Fitted to 1,500 held-out renderings, in whose boxes hands were hardly ever cut off.
    """
    doubt = (1 - certainty) / max(certainty, 1e-6)
    return (1 - cut_off) ** 2 / (1 + (disagreement / 0.215) ** 0.77 * (doubt / 0.1) ** 1.18)
