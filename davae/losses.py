"""The objective of cmSIMO-beta-VAE (paper Eq. 3), its terms, and the one table of their reductions.

The paper names neither the reductions nor the absolute weights, and a weight means nothing without its
reduction. `REDUCTIONS` fixes them for the whole project; changing one rescales the matching weight of
`davae.config.LossConfig`. Every L2 is squared, so that each reconstruction term is a Gaussian log-likelihood
up to its weight. All terms are computed in fp32.

Derived by hand in `notebooks/02_training.ipynb`.
"""

from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from davae.config import BLOCKS, TERMS, LossConfig

REDUCTIONS = {
    "pose": "squared error summed over 21 joints and 3 axes (normalised units: reference bone = 1)",
    "cloud": "2025 x the mean squared distance to the nearest point, the larger of the two directions",
    "image": "squared error on [0, 1] summed over channels, mean over pixels, times 256 x 256",
    "kl": "summed over the dimensions of a block of z (nats)",
    "batch": "mean over the batch: divided by its size, also where some samples lack a term",
}
CLOUD_ELEMENTS, IMAGE_ELEMENTS = 2025, 3 * 256 * 256  # at the paper's sizes


class Prediction(Protocol):
    """What the objective reads of a network's output (see `davae.networks.DaVAEOutput`)."""

    pose: Tensor
    cloud: Tensor
    image: Tensor
    means: dict[str, Tensor]
    logvars: dict[str, Tensor]


class Truth(Protocol):
    """What the objective reads of a batch (see `davae.data.augment.Batch`)."""

    joints: Tensor
    cloud: Tensor
    target: Tensor
    has_cloud: Tensor


class Objective(NamedTuple):
    """The loss of a batch with its parts; scalars, mean over the batch."""

    total: Tensor  # Eq. 3, to be minimised
    terms: dict[str, Tensor]  # unweighted reconstruction terms: pose, cloud, image
    kls: dict[str, Tensor]  # unweighted KL per block: pose, appearance, shape (nats, summed over dimensions)
    weighted: dict[str, Tensor]  # the six summands of Eq. 3, named alpha_<term> and beta_<block>

    @property
    def elbo(self) -> Tensor:
        """Evidence lower bound with unit weights (Table 2's quantity under our reductions)."""
        return -(sum(self.terms.values()) + sum(self.kls.values()))

    def detach(self) -> "Objective":
        """Return the same values without their graph."""
        parts = ({name: part.detach() for name, part in group.items()} for group in self[1:])
        return Objective(self.total.detach(), *parts)


def gaussian_kl(mean: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mean, exp(logvar)) || N(0, 1)) of each latent dimension (last term of Eq. 2).

    Args:
        mean: (b, z).
        logvar: (b, z), natural logarithm of the variance.

    Returns:
        (b, z) nats, each >= 0.

    Raises:
        ValueError: the shapes differ.
    """
    if mean.shape != logvar.shape:
        raise ValueError(f"gaussian_kl: mean is {tuple(mean.shape)} but logvar is {tuple(logvar.shape)}")
    mean, logvar = mean.float(), logvar.float()
    return 0.5 * (mean.square() + torch.expm1(logvar) - logvar)


def pose_loss(predicted: Tensor, true: Tensor) -> Tensor:
    """L_pose of Eq. 3: squared error of joints (b, j, 3), summed over joints and axes -> (b,)."""
    return (predicted.float() - true.float()).square().sum(dim=(1, 2))


def image_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """L_RGB of Eq. 3 for images (b, 3, h, w) on [0, 1] -> (b,).

    Summed over channels, mean over pixels, times 256 x 256: beta/alpha_image means the same at any size.
    """
    squared = F.mse_loss(predicted.float(), target.float(), reduction="none")  # one pass over the pixels
    return squared.mean(dim=(1, 2, 3)) * IMAGE_ELEMENTS


def cloud_loss(predicted: Tensor, true: Tensor) -> Tensor:
    """L_cloud of Eq. 3 for clouds (b, p, 3) and (b, q, 3) -> (b,).

    2025 times the mean squared nearest distance, the larger of the two directions: FoldingNet's maximum of
    directions with a squared distance, so that the term is a log-likelihood like the other two.
    """
    forward, backward = nearest_squared_distances(predicted, true)
    return CLOUD_ELEMENTS * torch.maximum(forward.mean(1), backward.mean(1))


def chamfer_distance(a: Tensor, b: Tensor) -> Tensor:
    """FoldingNet's Chamfer distance: mean nearest distance (not squared), larger of the two directions.

    Args:
        a: (b, n, 3) point clouds in any unit.
        b: (b, m, 3) in the same unit.

    Returns:
        (b,) in that unit.

    Raises:
        ValueError: the shapes are not batched point clouds, or a cloud is empty.
    """
    forward, backward = nearest_squared_distances(a, b)
    return torch.maximum(_sqrt(forward).mean(1), _sqrt(backward).mean(1))


def nearest_squared_distances(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Squared distance from each point to the nearest point of the other cloud.

    Args:
        a: (b, n, 3).
        b: (b, m, 3).

    Returns:
        (b, n) from `a` to `b`, and (b, m) from `b` to `a`, differentiable in both clouds.

    Raises:
        ValueError: the shapes are not batched point clouds, or a cloud is empty.
    """
    if a.ndim != 3 or b.ndim != 3 or a.shape[0] != b.shape[0] or a.shape[2] != 3 or b.shape[2] != 3:
        raise ValueError(
            f"expected clouds (b, n, 3) and (b, m, 3), found {tuple(a.shape)} and {tuple(b.shape)}"
        )
    if not (a.shape[1] and b.shape[1]):
        raise ValueError(f"a cloud is empty: shapes {tuple(a.shape)} and {tuple(b.shape)}")
    a, b = a.float(), b.float()
    nearest_in_b, nearest_in_a = mutual_nearest(a, b)
    return _squared_distance(a, b, nearest_in_b), _squared_distance(b, a, nearest_in_a)


def objective(predicted: Prediction, true: Truth, weights: LossConfig) -> Objective:
    """Eq. 3: sum of alpha_i L_i + beta_i KL_i over pose, cloud/shape and image/appearance.

    Samples without a cloud add 0 to that term, as 0 x prediction: every parameter has a gradient always.

    Args:
        predicted: the network's output for a batch of b.
        true: joints (b, j, 3), cloud (b, p, 3), target image (b, 3, h, w), has_cloud (b,).
        weights: the alphas and betas.

    Returns:
        The total and its parts.
    """
    has_cloud = true.has_cloud.to(predicted.cloud.device, torch.float32)
    terms = {
        "pose": pose_loss(predicted.pose, true.joints).mean(),
        "cloud": (cloud_loss(predicted.cloud, true.cloud) * has_cloud).mean(),
        "image": image_loss(predicted.image, true.target).mean(),
    }
    kls = {
        block: gaussian_kl(predicted.means[block], predicted.logvars[block]).sum(1).mean() for block in BLOCKS
    }
    weighted = {f"alpha_{term}": getattr(weights, f"alpha_{term}") * terms[term] for term in TERMS}
    weighted |= {f"beta_{block}": getattr(weights, f"beta_{block}") * kls[block] for block in BLOCKS}
    return Objective(sum(weighted.values()), terms, kls, weighted)


def _squared_distance(points: Tensor, others: Tensor, chosen: Tensor) -> Tensor:
    neighbours = others.gather(1, chosen.unsqueeze(-1).expand(-1, -1, 3))
    return (points - neighbours).square().sum(-1)


def _sqrt(squared: Tensor) -> Tensor:
    """Square root whose gradient at zero is zero, as a distance's is taken to be, not infinite."""
    positive = squared > 0
    return torch.where(positive, torch.where(positive, squared, 1.0).sqrt(), 0.0)


TREE_PAIRS = 250_000  # from so many pairs in a sample on, a tree is quicker than all of them on a CPU
CHUNK_PAIRS = 400_000  # pairs whose distances stay in a processor's cache


@torch.no_grad()
def mutual_nearest(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """For each point of a cloud, the index of the nearest point of the other.

    Of points that are equally near to within rounding, any may be returned.

    Args:
        a: (b, n, 3) float32, n > 0.
        b: (b, m, 3) float32 on the same device, m > 0.

    Returns:
        (b, n) indices into `b`, and (b, m) indices into `a`, int64.
    """
    if a.device.type != "cpu":
        distance = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
        return distance.argmin(2), distance.argmin(1)
    search = _by_table
    if a.shape[1] * b.shape[1] >= TREE_PAIRS:
        search = _by_tree
    return search(a, b), search(b, a)


def _by_tree(points: Tensor, others: Tensor) -> Tensor:
    """Search a k-d tree of each sample's `others`; unbalanced ones are built in half the time."""
    from scipy.spatial import cKDTree  # here, since small clouds, which students train on, need no SciPy

    if not (points.isfinite().all() and others.isfinite().all()):  # trees refuse them; tables do not
        return _by_table(points, others)
    trees = (cKDTree(other, balanced_tree=False, compact_nodes=False) for other in others.numpy())
    found = [tree.query(sample)[1] for tree, sample in zip(trees, points.numpy(), strict=True)]
    return torch.from_numpy(np.stack(found))


def _by_table(points: Tensor, others: Tensor) -> Tensor:
    """Compare all pairs, a few samples at a time.

    |p - q|^2 less |p|^2, which is the same for all q, is one matrix product; NumPy's argmin along
    consecutive numbers is several times as fast as PyTorch's.
    """
    middle = others.mean(1, keepdim=True)  # far from the origin, squares would drown their differences
    points, others = points - middle, others - middle
    norms = others.square().sum(2, keepdim=True)
    left = torch.cat([-2 * points, torch.ones_like(points[..., :1])], 2)
    right = torch.cat([others, norms], 2).transpose(1, 2)
    samples = max(1, CHUNK_PAIRS // (points.shape[1] * others.shape[1]))
    pieces = zip(left.split(samples), right.split(samples), strict=True)
    with torch.autocast("cpu", enabled=False):  # in bf16 half of the neighbours would be wrong
        return torch.from_numpy(np.concatenate([torch.bmm(p, q).numpy().argmin(2) for p, q in pieces]))
