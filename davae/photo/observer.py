"""What the networks read off crops of hands: masks, sides, codes and joints, averaged over several views.

A view is the crop rotated about its middle (`davae.data.views`). The mean over views is nearer to the
truth than one view. How much the views disagree tells crops of one whole hand from others.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from davae.config import MID_GREY
from davae.data.views import ZOOM, rotate_back, rotate_views
from davae.photo.engine import Estimate, Images, Networks
from davae.photo.hand import Side, mirror
from synthhand.skeleton import ROOT

TINY = 1e-9  # what views that agree wholly are taken to differ by
# Weights of the signs of a side beside the camera head's log-odds; `benchmarks/sides.py` fits them.
AGREEMENT = 1.7  # of how well views agree about the joints
INFORMATION = 1.3  # of a nat of information about the pose
SURENESS = 0.7  # log-odds of a side for a unit of its score; `benchmarks/side_probability.py` fits it


class Views(NamedTuple):
    """How many views of a crop are looked at.

    If as many tell the joints as the side, and one the mask, then the views that tell the side serve for the
    joints, too.
    """

    joints: int  # rotations over which joints and their place are averaged
    mask: int  # quarter turns over which the mask is averaged
    side: int  # rotations of the crop, and as many of its mirror image, from which the side is guessed


USUAL = Views(joints=8, mask=4, side=4)
QUICK = Views(joints=4, mask=1, side=4)  # `benchmarks/views.py` measured others
COARSE = Views(joints=1, mask=1, side=1)


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


class Signs(NamedTuple):
    """What b crops show of a hand: (2, b) if it is taken for a right hand and for a left one, or (b,)."""

    right: NDArray[np.float32]  # (2, b) score of a right hand, of the camera head
    disagreement: NDArray[np.float32]  # (2, b) mean distance of the views' joints from their mean, normalised
    information: NDArray[np.float32]  # (2, b) about the pose, nats
    certainty: NDArray[np.float32]  # (b,) mean probability over the mask's pixels above 0.5; 0 if none is
    cut_off: NDArray[np.float64]  # (b,) share of the crop's border that is the mask's


class Guess(NamedTuple):
    """Which hand b crops show, and how likely each shows one."""

    sides: list[Side]  # the likelier, unless it was known
    probability: NDArray[np.float64]  # (b,) that this is the side, 0..1; below 0.5 only of a known side
    confidence: NDArray[np.float64]  # (b,) how likely the crop shows one whole hand, 0..1


class Observer:
    """The networks of a file of weights, ready for crops (b, 3, px, px) on [0, 1]."""

    def __init__(self, networks: Networks):
        self.networks, self.px = networks, networks.px

    def segment(self, crops: Images, views: int = USUAL.mask) -> NDArray[np.float32]:
        """Return the hands' masks (b, 1, px, px), a mean over quarter turns."""
        return self.networks.mask.segment(crops, views)

    def read(self, crops: Images, sides: Sequence[Side], views: Views = USUAL) -> list[Reading]:
        """Read b hands of known sides."""
        left = _are_left(sides)
        crops = np.where(left, crops[..., ::-1], crops)  # networks know right hands only
        masks = self.segment(crops, views.mask)
        image = _lay_over_grey(crops, masks)
        alone = views.joints == 1  # which is the crop as it is
        # The code is that of the crop as it is, joints and their place are means over the views.
        shown = image[None] if alone else np.concatenate([image[None], rotate_views(image, views.joints)])
        seen = self._estimate(shown)
        joints, root, bone = (
            one.reshape(-1, len(crops), *one.shape[1:])[-views.joints :]
            for one in (seen.joints, seen.root, seen.bone)
        )
        return self._combine(sides, masks, seen, joints, root, bone, 1.0 if alone else ZOOM)

    def guess(self, crops: Images, known: Sequence[Side | None], views: int = USUAL.side) -> Guess:
        """Guess the sides that are not `known`, and how likely each crop shows one whole hand."""
        return judge(self.measure_signs(crops, views), known)

    def measure_signs(self, crops: Images, views: int = USUAL.side) -> Signs:
        """Measure signs of a hand, and of its side, in each crop and in its mirror image.

        The model knows right hands only: of a left one its views contradict each other more, and its encoder
        draws less information about the pose, so that the code stays nearer to the prior.
        """
        return _measure_signs(self._look_both_ways(crops, views))

    def guess_and_read(self, crops: Images, views: Views = USUAL) -> tuple[Guess, list[Reading]]:
        """Guess the sides of b hands, and read the hands of these sides."""
        both = self._look_both_ways(crops, views.side)
        guess = judge(_measure_signs(both), [None] * len(crops))
        if (views.joints, views.mask) != (views.side, 1):
            return guess, self.read(crops, guess.sides, views)
        left = _are_left(guess.sides)
        rows = np.arange(len(crops)) + len(crops) * left.ravel()
        masks = np.where(left, both.masks[..., ::-1], both.masks)
        joints, root, bone = (
            one.reshape(views.side, 2 * len(crops), *one.shape[1:])[:, rows]
            for one in (both.seen.joints, both.seen.root, both.seen.bone)
        )
        code = self._estimate(both.images[None, rows])
        return guess, self._combine(guess.sides, masks, code, joints, root, bone, ZOOM)

    def _combine(
        self,
        sides: Sequence[Side],
        masks: NDArray[np.float32],
        code: Estimate,
        joints: NDArray[np.float32],
        root: NDArray[np.float32],
        bone: NDArray[np.float32],
        zoom: float,
    ) -> list[Reading]:
        """Return what is read off b crops of right hands, as the hands of these sides.

        Args:
            sides: of the b hands.
            masks: (b, 1, px, px).
            code: whose first b rows are of the crops as they are.
            joints: (k, b, 21, 3) in views enlarged by `zoom`, as `root` (k, b, 2) and `bone` (k, b) are.
            root, bone, zoom: see `joints`.
        """
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
            means = {block: mean[row] for block, mean in code.means.items()}
            spreads = {block: np.exp(0.5 * logvar[row]) for block, logvar in code.logvars.items()}
            own_joints = mirror(joints[row].astype(float), side)
            readings.append(Reading(side, mask, own_joints, uv, float(bone[row]), means, spreads))
        return readings

    def _look_both_ways(self, crops: Images, views: int) -> "_BothWays":
        masks = self.segment(crops, 1)  # one view tells left from right
        upright = _lay_over_grey(crops, masks)
        images = np.concatenate([upright, upright[..., ::-1]])
        return _BothWays(masks, images, self._estimate(rotate_views(images, views)))

    def _estimate(self, views: NDArray[np.float32]) -> Estimate:
        """Return what is estimated from images (k, b, 3, px, px), in rows (k * b)."""
        return self.networks.estimate(views.reshape(-1, *views.shape[2:]))


class _BothWays(NamedTuple):
    """What is seen in b crops and then in their mirror images."""

    masks: NDArray[np.float32]  # (b, 1, px, px) of the crops
    images: Images  # (2b, 3, px, px) over mid-grey
    seen: Estimate  # of k views of each, in rows (k * 2b)


def _measure_signs(both: _BothWays) -> Signs:
    """Return the signs of b crops that were seen both ways, means over the views."""
    count = len(both.images)
    joints = rotate_back(both.seen.joints.reshape(-1, count, *both.seen.joints.shape[1:]))
    information = measure_information(both.seen.means["pose"], both.seen.logvars["pose"])
    hand = both.masks > 0.5
    return Signs(
        both.seen.right.reshape(-1, 2, count // 2).mean(0),
        np.linalg.norm(joints - joints.mean(0), axis=3).mean((0, 2)).reshape(2, -1),
        information.reshape(-1, 2, count // 2).mean(0),
        (both.masks * hand).sum((1, 2, 3)) / hand.sum((1, 2, 3)).clip(1),
        np.array([np.concatenate([*one[[0, -1]], *one[1:-1, [0, -1]].T]).mean() for one in hand[:, 0]]),
    )


def judge(signs: Signs, known: Sequence[Side | None]) -> Guess:
    """Return the `Guess` of b crops, of which some sides may be known."""
    agreement = -np.log(signs.disagreement.clip(TINY))
    as_right, as_left = signs.right + AGREEMENT * agreement + INFORMATION * signs.information
    score = (as_right - as_left).astype(float)
    right = np.where([side is None for side in known], score >= 0, [side == "right" for side in known])
    disagreement = np.where(right, signs.disagreement[0], signs.disagreement[1])
    return Guess(
        ["right" if one else "left" for one in right],
        expit(SURENESS * np.where(right, score, -score)),
        estimate_confidence(disagreement, signs.certainty, signs.cut_off),
    )


def measure_information(means: NDArray[np.float32], logvars: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what b images tell about a block of the code, nats: KL(q(z|x) || N(0, 1)), summed over z.

    Args:
        means: (b, z) of the posteriors.
        logvars: (b, z) logarithms of their variances.
    """
    return 0.5 * (np.square(means) + np.exp(logvars) - 1 - logvars).sum(1)


def _are_left(sides: Sequence[Side]) -> NDArray[np.bool_]:
    """Return which hands are left ones (b, 1, 1, 1)."""
    return np.array([side == "left" for side in sides])[:, None, None, None]


def _lay_over_grey(crops: Images, masks: NDArray[np.float32]) -> Images:
    """Composite crops over mid-grey by masks (b, 1, px, px), as `composite_over_grey` of tensors."""
    grey = np.float32(MID_GREY)
    return grey + masks * (crops - grey)


def estimate_confidence(disagreement: NDArray, certainty: NDArray, cut_off: NDArray) -> NDArray[np.float64]:
    """Return the share of boxes with such signs (b,), as hands of one side, that overlap the true by half.

    Fitted to 1,500 held-out renderings, in whose boxes hands were hardly ever cut off. The information about
    the pose would tell more, but how much of it a hand has is another for each training.
    """
    doubt = (1 - certainty) / np.maximum(certainty, 1e-6)
    return (1 - cut_off) ** 2 / (1 + (disagreement / 0.215) ** 0.77 * (doubt / 0.1) ** 1.18)
