"""Distances to the nearest point of another cloud, of which Chamfer distances are made.

Which point is the nearest is found in the quickest way on each machine, without a gradient; the distance to
it has one.
"""

import numpy as np
import torch
from torch import Tensor

from davae.networks.native import explain_missing, operations

TREE_PAIRS = 250_000  # from this many pairs of points in a sample on, a CPU is faster with a k-d tree
CHUNK_PAIRS = 400_000  # pairs of points whose distances fit in a CPU's cache


def nearest_distances(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return the roots of `nearest_squared_distances`; their gradient at 0, where it is infinite, is 0."""
    forward, backward = nearest_squared_distances(a, b)
    return _sqrt(forward), _sqrt(backward)


def nearest_squared_distances(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return the squared distance from each point to the nearest point of the other cloud.

    Of clouds (b, n, 3) and (b, m, 3) -> (b, n) from `a` to `b` and (b, m) back, differentiable in both.

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
    nearest_in_b, nearest_in_a = find_nearest(a, b)
    return _squared_distance(a, b, nearest_in_b), _squared_distance(b, a, nearest_in_a)


@torch.no_grad()
def find_nearest(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return, for each point of two clouds, the index of the nearest point of the other cloud.

    Of float32 clouds (b, n, 3) and (b, m, 3), not empty -> (b, n) and (b, m); of equally near points, any.
    """
    if a.device.type != "cpu":
        distance = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
        return distance.argmin(2), distance.argmin(1)
    search = _search_tree if a.shape[1] * b.shape[1] >= TREE_PAIRS else _search_all_pairs
    search = search if explain_missing() else operations.find_nearest
    return search(a, b), search(b, a)


def _search_tree(points: Tensor, others: Tensor) -> Tensor:
    """Find the nearest `others` by a k-d tree per sample; building an unbalanced one takes half the time."""
    from scipy.spatial import cKDTree  # imported late: small clouds, which students train on, need no SciPy

    if not (points.isfinite().all() and others.isfinite().all()):  # the tree raises on NaN and infinity
        return _search_all_pairs(points, others)
    trees = (cKDTree(other, balanced_tree=False, compact_nodes=False) for other in others.numpy())
    found = [tree.query(sample)[1] for tree, sample in zip(trees, points.numpy(), strict=True)]
    return torch.from_numpy(np.stack(found))


def _search_all_pairs(points: Tensor, others: Tensor) -> Tensor:
    """Find the nearest `others` by comparing all pairs, a few samples at a time.

    One matrix product gives |p - q|^2 - |p|^2, which has the same argmin over q as |p - q|^2. NumPy's argmin
    along contiguous memory is several times as fast as PyTorch's.
    """
    middle = others.mean(1, keepdim=True)  # far from the origin, rounding of |q|^2 would hide differences
    points, others = points - middle, others - middle
    norms = others.square().sum(2, keepdim=True)
    left = torch.cat([-2 * points, torch.ones_like(points[..., :1])], 2)
    right = torch.cat([others, norms], 2).transpose(1, 2)
    samples = max(1, CHUNK_PAIRS // (points.shape[1] * others.shape[1]))
    pieces = zip(torch.split(left, samples), torch.split(right, samples), strict=True)
    with torch.autocast("cpu", enabled=False):  # in bf16 half of the neighbours would be wrong
        return torch.from_numpy(np.concatenate([torch.bmm(p, q).numpy().argmin(2) for p, q in pieces]))


def _squared_distance(points: Tensor, others: Tensor, chosen: Tensor) -> Tensor:
    neighbours = others.gather(1, chosen.unsqueeze(-1).expand(-1, -1, 3))
    return (points - neighbours).square().sum(-1)


def _sqrt(squared: Tensor) -> Tensor:
    """Return the square root, with a gradient of 0 at 0, where the true one is infinite."""
    positive = squared > 0
    return torch.where(positive, torch.where(positive, squared, 1.0).sqrt(), 0.0)
