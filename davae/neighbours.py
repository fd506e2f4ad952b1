"""Which point of another cloud is nearest: the search behind the Chamfer distance.

Who is nearest is a choice, not a derivative, so it is made without a graph and in whichever way is quickest
where the clouds lie; `davae.losses` computes the distances to those chosen. `benchmarks/suite.py` times the
ways beside each other.
"""

from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor

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
    if a.shape[1] * b.shape[1] >= TREE_PAIRS and find_spec("scipy"):
        search = _by_tree
    return search(a, b), search(b, a)


def _by_tree(points: Tensor, others: Tensor) -> Tensor:
    """Search a k-d tree of each sample's `others`; unbalanced ones are built in half the time."""
    from scipy.spatial import cKDTree  # here, since the core needs no SciPy

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
