"""Whether two blocks of a code depend on each other: HSIC and Gaussian total correlation.

Each comes with the p-value of a permutation test: the rows of one block are shuffled, which leaves each block
as it is and removes every dependence between them.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from davae.latent.prediction import Array, median_distance, squared_distances, varies

PERMUTATIONS = 200
_SINGULAR = 1e-9  # a smaller eigenvalue, or share of the largest, is a rounding error


class Dependence(NamedTuple):
    """A measure of dependence beside what it is between shuffled blocks."""

    value: float
    shuffled: float  # mean over permutations: what this number of images yields without any dependence
    p: float  # share of permutations, counting the data as one, that reach the value


def measure_hsic(a: NDArray, b: NDArray, *, permutations: int = PERMUTATIONS, seed: int = 0) -> Dependence:
    """Return the normalised Hilbert-Schmidt independence criterion of blocks (n, d) and (n, e), n over 3.

    The unbiased estimator of Song et al. 2012 (JMLR 13, eq. 4) with Gaussian kernels of the median distance,
    over the geometric mean of both blocks' HSIC with themselves: 1 for equal blocks, 0 on average for
    independent ones, of which half are therefore negative. NaN if a block does not vary.
    """
    if not (varies(a).any() and varies(b).any()):
        return Dependence(np.nan, np.nan, np.nan)
    first, second = _centred_gram(a), _centred_gram(b)
    size = np.sqrt((first**2).sum() * (second**2).sum())

    def hsic(order: NDArray | slice) -> float:
        return float((first * second[order][:, order]).sum() / size)

    return _permute(hsic, len(first), permutations, seed)


def _centred_gram(codes: NDArray) -> Array:
    """Return the U-centred Gram matrix (n, n), whose rows sum to zero without the diagonal, which is zero.

    With it, Song's estimator is a plain inner product (Székely and Rizzo 2014, doi:10.1214/14-AOS1255).
    """
    codes = np.asarray(codes, np.float64)[:, varies(codes)]
    codes = (codes - codes.mean(0)) / codes.std(0)
    n = len(codes)
    gram = np.exp(squared_distances(codes, codes) / (-2 * median_distance(codes) ** 2))
    np.fill_diagonal(gram, 0)
    rows = gram.sum(0) / (n - 2)
    gram = gram - rows - rows[:, None] + gram.sum() / ((n - 1) * (n - 2))
    np.fill_diagonal(gram, 0)
    return gram


def total_correlation(
    blocks: Sequence[NDArray], *, permutations: int = PERMUTATIONS, seed: int = 0
) -> Dependence:
    """Return the total correlation between blocks (n, d_i), in nats, as if all were jointly Gaussian.

    -1/2 log det of the correlation of the whitened blocks (Watanabe 1960, doi:10.1147/rd.41.0066); of two
    blocks it is their mutual information. Directions in which a block does not vary are left out. Infinite if
    one block is a linear function of others. It sees linear dependence only, and grows by about d e / 2n for
    blocks of d and e dimensions that are independent: compare it with `shuffled`.
    """
    white = [_whiten(block) for block in blocks]
    n = len(white[0])

    def correlation(order: NDArray | slice) -> float:
        moved = [white[0], *(block[_compose(order, times)] for times, block in enumerate(white[1:], 1))]
        joint = np.concatenate(moved, axis=1)
        values = np.linalg.eigvalsh(joint.T @ joint / n)
        return float(np.inf if values[0] < _SINGULAR else -0.5 * np.log(values).sum())

    return _permute(correlation, n, permutations, seed)


def _compose(order: NDArray | slice, times: int) -> NDArray | slice:
    """Return an order applied several times, so that each block is shuffled against every other."""
    if isinstance(order, slice):
        return order
    result = order
    for _ in range(times - 1):
        result = result[order]
    return result


def _whiten(block: NDArray) -> Array:
    """Return uncorrelated columns (n, k) of unit variance that span what a block (n, d) varies in."""
    centred = np.asarray(block, np.float64)[:, varies(block)]
    centred = (centred - centred.mean(0)) / centred.std(0)
    basis, singular, _ = np.linalg.svd(centred, full_matrices=False)
    return basis[:, singular > _SINGULAR * singular.max(initial=0)] * np.sqrt(len(centred))


def _permute(measure: Callable[[NDArray | slice], float], n: int, permutations: int, seed: int) -> Dependence:
    rng = np.random.default_rng(seed)
    value = measure(slice(None))
    shuffled = np.array([measure(rng.permutation(n)) for _ in range(permutations)])
    return Dependence(
        value, float(shuffled.mean()), float((1 + (shuffled >= value).sum()) / (1 + permutations))
    )
