"""Several looks at a crop of a hand: its mask, which hand it is, and its joints, averaged.

A crop that is turned shows the same hand, of which the networks say nearly the same: the mean is nearer to
the truth than each, and how far they are apart tells crops of one whole hand from others.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from davae.evaluation.tta import ZOOM, rotate_back, rotate_views
from davae.networks import DaVAE, HandMaskNet
from davae.networks.camera import CameraHead, Placement, project_to_crop
from davae.networks.folding import fold_batchnorm
from davae.networks.handmask import composite_over_grey
from davae.photo.hand import Side
from davae.photo.release import Release
from davae.training.masks import predict_probability
from davae.training.trainer import has_bf16
from synthhand.skeleton import ROOT

LOOKS = 8  # at a hand, from all around, for its joints and place
MASK_TURNS = 4  # quarter turns from which its mask is seen
SIDE_LOOKS = 4  # at the crop as it is and mirrored, for its side
AGREEMENT = 4.0  # weight of their agreement beside log-odds: 96 % of held-out hands guessed, not 94


class Reading(NamedTuple):
    """What is read off b crops of right hands."""

    masks: Tensor  # (b, 1, h, w) probability that a pixel is the hand's
    codes: dict[str, tuple[Tensor, Tensor]]  # block -> (b, z) means and log-variances, of the crop as it is
    joints: Tensor  # (b, 21, 3) normalised, mean over the looks
    joints_px: Tensor  # (b, 21, 2) pixels of the crop, by the mean placement
    bone: Tensor  # (b,) length of the reference bone, seen from the side, in sides of the crop


class Guess(NamedTuple):
    """What a first look at b crops tells of them."""

    sides: list[Side]  # the likelier
    apart: Tensor  # (b,) mean distance of the looks' joints from their mean, normalised
    sure: Tensor  # (b,) mean probability of the mask, where it takes a pixel for the hand's; 0 where nowhere


class Observer:
    """The networks of a `Release`, ready for crops (b, 3, px, px) on [0, 1].

    Args:
        release: of `davae.photo.release.unpack`.
        bf16: compute in half precision, in which joints differ by a tenth of a millimetre, no nearer to the
            truth nor farther from it; by default where the processor has it, which saves a third of the time.
    """

    def __init__(self, release: Release, bf16: bool | None = None):
        self.bf16 = has_bf16(torch.device("cpu")) if bf16 is None else bf16
        self.model: DaVAE = fold_batchnorm(release.model)
        self.mask_network: HandMaskNet = fold_batchnorm(release.mask)
        self.mask_network.config = release.configs["mask"]
        self.camera: CameraHead = release.camera
        self.px = release.configs["model"].model.image_px

    def masks(self, crops: Tensor, turns: int = MASK_TURNS) -> Tensor:
        """Masks (b, 1, h, w), each seen from so many quarter turns."""
        with self._arithmetic():
            return predict_probability(self.mask_network, crops, turns)

    def read(self, crops: Tensor, glance: bool = False) -> Reading:
        """Read right hands; a glance is one look, where else there are `LOOKS`."""
        masks = self.masks(crops, 1 if glance else MASK_TURNS)
        with torch.inference_mode(), self._arithmetic():
            trunk, heads = self.model.encoder.trunk, self.model.encoder.heads
            image = composite_over_grey(crops, masks)
            features = trunk(image)
            codes = {block: head(features) for block, head in heads.items()}
            seen = [features] if glance else [trunk(look) for look in rotate_views(image, LOOKS)]
            joints = self._joints(seen).mean(0)
            joints = joints - joints[:, ROOT : ROOT + 1]
            placed = [self.camera(one) for one in seen]
            grown = 1.0 if glance else ZOOM  # as lengths in the looks
            placement = Placement(
                root=rotate_back([one.root for one in placed]).mean(0) / grown,
                bone=torch.stack([one.bone for one in placed]).mean(0) / grown,
                right=torch.stack([one.right for one in placed]).mean(0),
            )
            return Reading(masks, codes, joints, project_to_crop(joints, placement, self.px), placement.bone)

    def guess(self, crops: Tensor, known: Sequence[Side | None], looks: int = SIDE_LOOKS) -> Guess:
        """Which hand each crop shows, where that is not known, and how much it looks like one.

        Two signs tell the side, seen in the crop as it is and mirrored: what the camera head says, and that
        several looks agree about the joints. The model knows right hands alone, and contradicts itself more
        about a left one.
        """
        signs, aparts = [], []
        masks = self.masks(crops, 1)  # one look tells left from right
        upright = composite_over_grey(crops, masks)
        for image in (upright, upright.flip(3)):
            with torch.inference_mode(), self._arithmetic():
                seen = [self.model.encoder.trunk(look) for look in rotate_views(image, looks)]
                odds = torch.stack([self.camera(one).right.float() for one in seen]).mean(0)
                joints = self._joints(seen)
            aparts.append(torch.linalg.vector_norm(joints - joints.mean(0), dim=3).mean((0, 2)))
            signs.append(odds - AGREEMENT * aparts[-1].log())
        right = torch.where(
            torch.tensor([side is None for side in known]),
            signs[0] >= signs[1],
            torch.tensor([side == "right" for side in known]),
        )
        hand = masks > 0.5
        sure = (masks * hand).sum((1, 2, 3)) / hand.sum((1, 2, 3)).clamp(min=1)
        return Guess(["right" if one else "left" for one in right], torch.where(right, *aparts), sure)

    def _joints(self, seen: list[Tensor]) -> Tensor:
        """Joints (k, b, 21, 3) of k looks' features, all turned back to the first."""
        head = self.model.encoder.heads["pose"]
        return rotate_back([self.model.pose_decoder(head(one)[0]).float() for one in seen])

    def _arithmetic(self) -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16, enabled=self.bf16)


def confidence(apart: float, sure: float) -> float:
    """Share of boxes with such a `Guess` that overlap the true one by half (1,500 held-out renderings)."""
    return 1 / (1 + (apart / 0.215) ** 0.77 * ((1 - sure) / max(sure, 1e-6) / 0.1) ** 1.18)
