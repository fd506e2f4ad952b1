"""The objective of da-VAE (Eq. 3 of doi:10.1007/s10044-021-01048-x), its terms, and their reductions.

The paper states neither the reductions nor the absolute weights, and a weight means nothing without its
reduction. `REDUCTIONS` fixes them for the whole project. Every reconstruction term is a squared error, that
is, a Gaussian log-likelihood up to its weight. All terms are computed in fp32.

Derived by hand in `notebooks/02_training.ipynb`.
"""

from functools import reduce
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from davae.config import BLOCKS, TERMS, LossConfig
from davae.networks import DaVAEOutput, Decoded
from davae.networks.native import operations
from davae.networks.nearest import nearest_distances, nearest_squared_distances

REDUCTIONS = {
    "pose": "squared error summed over 21 joints and 3 axes (normalised units: reference bone = 1)",
    "cloud": "2025 x the mean squared distance to the nearest point, the larger of the two directions",
    "image": "squared error on [0, 1] summed over channels, mean over pixels, times 256 x 256",
    "kl": "summed over the dimensions of a block of z (nats)",
    "batch": "mean over the batch: divided by its size, also where some samples lack a term",
}
CLOUD_ELEMENTS, IMAGE_ELEMENTS = 2025, 3 * 256 * 256  # at the paper's sizes


class Truth(Protocol):
    """What the objective reads of a batch (see `davae.data.augment.Batch`)."""

    @property
    def joints(self) -> Tensor:
        """(b, j, 3), normalised."""

    @property
    def cloud(self) -> Tensor:
        """(b, p, 3), normalised."""

    @property
    def target(self) -> Tensor:
        """(b, 3, h, w), the image to reconstruct, on [0, 1]."""

    @property
    def mask(self) -> Tensor:
        """(b, 1, h, w) on [0, 1], of the hand in `target`."""

    @property
    def has_mask(self) -> Tensor:
        """(b,) bool, False for a sample without a true mask."""

    @property
    def has_cloud(self) -> Tensor:
        """(b,) bool, False for a sample without a cloud."""


class Objective(NamedTuple):
    """The loss of a batch and its parts; scalars, mean over the batch."""

    total: Tensor  # Eq. 3, to be minimised
    terms: dict[str, Tensor]  # unweighted reconstruction terms: pose, cloud, image
    kls: dict[str, Tensor]  # unweighted KL per block: pose, appearance, shape (nats, summed over dimensions)
    weighted: dict[str, Tensor]  # the six summands of Eq. 3, named alpha_<term> and beta_<block>

    @property
    def elbo(self) -> Tensor:
        """Evidence lower bound with unit weights (the quantity of Table 2, under our reductions)."""
        return -(reduce(torch.add, self.terms.values()) + reduce(torch.add, self.kls.values()))

    def detach(self) -> "Objective":
        """Return the same values without their graph."""
        parts = ({name: part.detach() for name, part in group.items()} for group in self[1:])
        return Objective(self.total.detach(), *parts)


def gaussian_kl(mean: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mean, exp(logvar)) || N(0, 1)) = (mean^2 + exp(logvar) - 1 - logvar) / 2 (last term of Eq. 2).

    Of means and natural logarithms of variances (b, z) -> nats per latent dimension (b, z), >= 0.

    Raises:
        ValueError: the shapes differ.
    """
    if mean.shape != logvar.shape:
        raise ValueError(f"gaussian_kl: mean is {tuple(mean.shape)} but logvar is {tuple(logvar.shape)}")
    mean, logvar = mean.float(), logvar.float()
    return 0.5 * (mean.square() + torch.expm1(logvar) - logvar)


def pose_loss(predicted: Tensor, true: Tensor) -> Tensor:
    """L_pose of Eq. 3, sum_j |p_j - q_j|^2, of joints (b, j, 3) -> (b,)."""
    return (predicted.float() - true.float()).square().sum(dim=(1, 2))


def image_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """L_RGB of Eq. 3, of images (b, 3, h, w) on [0, 1] -> (b,).

    256 x 256 / (h w) times the squared error summed over channels and pixels: beta/alpha_image then means the
    same at every resolution.
    """
    return IMAGE_ELEMENTS * operations.mean_squared_error(predicted, target)


def picture_loss(predicted: Decoded | DaVAEOutput, true: Truth) -> Tensor:
    """L_RGB of Eq. 3 of the samples that have a decoded image, the first ones -> (b,).

    A decoded mask counts as a fourth channel, where its truth is known.
    """
    seen = len(predicted.image)
    term = image_loss(predicted.image, true.target[:seen])
    if predicted.mask is None:
        return term
    return term + image_loss(predicted.mask, true.mask[:seen]) / 3 * true.has_mask[:seen]


def cloud_loss(predicted: Tensor, true: Tensor) -> Tensor:
    """L_cloud of Eq. 3, of clouds P (b, p, 3) and Q (b, q, 3) -> (b,).

    2025 max(mean_P min_Q |p - q|^2, mean_Q min_P |p - q|^2): FoldingNet's maximum of two directions
    (arXiv:1712.07262) with a squared distance, so that the term is a log-likelihood like the other two.
    """
    forward, backward = nearest_squared_distances(predicted, true)
    return CLOUD_ELEMENTS * torch.maximum(forward.mean(1), backward.mean(1))


def chamfer_distance(a: Tensor, b: Tensor) -> Tensor:
    """FoldingNet's Chamfer distance, max(mean_A min_B |p - q|, mean_B min_A |p - q|), not squared.

    Of point clouds (b, n, 3) and (b, m, 3) in one unit -> (b,) in that unit. Raises as
    `nearest_squared_distances`.
    """
    forward, backward = nearest_distances(a, b)
    return torch.maximum(forward.mean(1), backward.mean(1))


def objective(predicted: DaVAEOutput, true: Truth, weights: LossConfig) -> Objective:
    """Eq. 3: sum_i alpha_i L_i + beta_i KL_i over pose, cloud/shape and image/appearance.

    A sample without a cloud adds 0 x prediction to that term, so that every parameter always has a gradient.
    The image term is the mean over the samples that have a decoded image.
    """
    has_cloud = true.has_cloud.to(predicted.cloud.device, torch.float32)
    terms = {
        "pose": pose_loss(predicted.pose, true.joints).mean(),
        "cloud": (cloud_loss(predicted.cloud, true.cloud) * has_cloud).mean(),
        "image": picture_loss(predicted, true).mean(),
    }
    kls = {
        block: gaussian_kl(predicted.means[block], predicted.logvars[block]).sum(1).mean() for block in BLOCKS
    }
    weighted = {f"alpha_{term}": getattr(weights, f"alpha_{term}") * terms[term] for term in TERMS}
    weighted |= {f"beta_{block}": getattr(weights, f"beta_{block}") * kls[block] for block in BLOCKS}
    return Objective(reduce(torch.add, weighted.values()), terms, kls, weighted)
