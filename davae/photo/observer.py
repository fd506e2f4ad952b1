"""What the networks read off crops of hands: masks, sides, codes and joints, averaged over several views.

A view is the crop rotated about its middle (`davae.evaluation.tta`). The mean over views is nearer to the
truth than one view. How much the views disagree tells crops of one whole hand from others.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from davae.evaluation.tta import ZOOM, rotate_back, rotate_views
from davae.networks import DaVAE
from davae.networks.camera import CameraHead, Placement, project_to_crop
from davae.networks.folding import fold_batchnorm
from davae.networks.handmask import composite_over_grey
from davae.photo.finding import MaskModel
from davae.photo.hand import Side, mirror
from davae.photo.release import Release
from davae.training.device import has_bf16
from synthhand.skeleton import ROOT

VIEWS = 8  # rotations over which joints and their place are averaged
MASK_VIEWS = 4  # quarter turns over which the mask is averaged
SIDE_VIEWS = 4  # rotations of the crop, and as many of its mirror image, from which the side is guessed
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
    disagreement: Tensor  # (b,) mean distance of the views' joints from their mean, normalised
    certainty: Tensor  # (b,) mean probability over the mask's pixels above 0.5; 0 if there are none


class Observer:
    """The networks of a `Release`, ready for crops (b, 3, px, px) on [0, 1].

    Args:
        release: of `davae.photo.release.unpack`.
        bf16: compute in half precision: joints differ by a tenth of a millimetre, no nearer to the truth nor
            farther from it. The default is to do so if the processor has it, which saves a third of the time.
    """

    def __init__(self, release: Release, bf16: bool | None = None):
        self.bf16 = has_bf16(torch.device("cpu")) if bf16 is None else bf16
        self.model: DaVAE = fold_batchnorm(release.model)
        self.camera: CameraHead = release.camera
        self.px = release.configs["model"].model.image_px
        mask_px, finder_px = (release.configs[part].data.image_px for part in ("mask", "finder"))
        self.mask_model = MaskModel(fold_batchnorm(release.mask), mask_px, self.bf16)
        self.finder = MaskModel(fold_batchnorm(release.finder), finder_px, self.bf16)

    def segment(self, crops: Tensor, views: int = MASK_VIEWS) -> Tensor:
        """Return the hands' masks (b, 1, px, px), a mean over quarter turns."""
        return self.mask_model.segment(crops, views)

    def read(self, crops: Tensor, sides: Sequence[Side], coarse: bool = False) -> list[Reading]:
        """Read b hands of known sides; coarsely from one view instead of several."""
        left = torch.tensor([side == "left" for side in sides])
        crops = torch.where(left[:, None, None, None], crops.flip(3), crops)  # networks know right hands only
        masks = self.segment(crops, 1 if coarse else MASK_VIEWS)
        with torch.inference_mode(), self._autocast():
            image = composite_over_grey(crops, masks)
            features = self.model.encoder.trunk(image)
            codes = {block: head(features) for block, head in self.model.encoder.heads.items()}
            views = [features]
            if not coarse:
                views = [self.model.encoder.trunk(view) for view in rotate_views(image, VIEWS)]
            zoom = 1.0 if coarse else ZOOM
            joints = self._decode_joints(views).mean(0)
            joints = joints - joints[:, ROOT : ROOT + 1]
            placed = [self.camera(view) for view in views]
            placement = Placement(
                root=rotate_back([one.root for one in placed]).mean(0) / zoom,
                bone=torch.stack([one.bone for one in placed]).mean(0) / zoom,
                right=torch.stack([one.right for one in placed]).mean(0),
            )
            joints_px = project_to_crop(joints, placement, self.px)
        readings = []
        for row, side in enumerate(sides):
            uv, mask = joints_px[row].double().numpy(), masks[row, 0].numpy()
            if side == "left":
                uv = np.stack([self.px - 1 - uv[:, 0], uv[:, 1]], axis=1)
                mask = np.ascontiguousarray(mask[:, ::-1])
            means = {block: mean[row].numpy() for block, (mean, _) in codes.items()}
            spreads = {block: logvar[row].mul(0.5).exp().numpy() for block, (_, logvar) in codes.items()}
            own_joints = mirror(joints[row].double().numpy(), side)
            readings.append(Reading(side, mask, own_joints, uv, float(placement.bone[row]), means, spreads))
        return readings

    def guess(self, crops: Tensor, known: Sequence[Side | None], views: int = SIDE_VIEWS) -> Guess:
        """Guess the sides that are not `known`, and measure how much each crop looks like one hand.

        Two signs, each seen in the crop and in its mirror image, tell the side: the camera head's log-odds,
        and how well several views agree about the joints. The model knows right hands only, and contradicts
        itself more about a left one.
        """
        scores, disagreements = [], []
        masks = self.segment(crops, 1)  # one view tells left from right
        upright = composite_over_grey(crops, masks)
        for image in (upright, upright.flip(3)):
            with torch.inference_mode(), self._autocast():
                seen = [self.model.encoder.trunk(view) for view in rotate_views(image, views)]
                odds = torch.stack([self.camera(one).right.float() for one in seen]).mean(0)
                joints = self._decode_joints(seen)
            disagreements.append(torch.linalg.vector_norm(joints - joints.mean(0), dim=3).mean((0, 2)))
            scores.append(odds - AGREEMENT * disagreements[-1].log())
        right = torch.where(
            torch.tensor([side is None for side in known]),
            scores[0] >= scores[1],
            torch.tensor([side == "right" for side in known]),
        )
        hand = masks > 0.5
        certainty = (masks * hand).sum((1, 2, 3)) / hand.sum((1, 2, 3)).clamp(min=1)
        disagreement = torch.where(right, disagreements[0], disagreements[1])
        return Guess(["right" if one else "left" for one in right], disagreement, certainty)

    def _decode_joints(self, views: list[Tensor]) -> Tensor:
        """Return joints (k, b, 21, 3) from the features of k views, all in the frame of the first."""
        head = self.model.encoder.heads["pose"]
        return rotate_back([self.model.pose_decoder(head(view)[0]).float() for view in views])

    def _autocast(self) -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16, enabled=self.bf16)


def estimate_confidence(disagreement: float, certainty: float) -> float:
    """Return the share of boxes with such a `Guess` that overlap the true box by half.

    Fitted to 1,500 held-out renderings.
    """
    doubt = (1 - certainty) / max(certainty, 1e-6)
    return 1 / (1 + (disagreement / 0.215) ** 0.77 * (doubt / 0.1) ** 1.18)
