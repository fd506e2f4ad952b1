"""Disentanglement and completeness of blocks (DCI, Eastwood and Williams 2018) from the importance of blocks.

One regressor reads every group of factors from the whole code. The importance of a block for a group is the
R² that is lost on held-out images when that block is exchanged between images (permutation importance), so
that it does not depend on how a block's dimensions are turned. The scores depend on the importance chosen and
on the sizes of blocks: beside them stand those of the same code, turned at random as a whole, in which every
block of that size knows a share of everything.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from davae.latent.prediction import Array, Kernel, Regressor, explained, varies

ROTATIONS = 3


class Importance(NamedTuple):
    """Importance of blocks for groups of factors, and the scores that follow from it.

    Attributes:
        matrix: (blocks, groups) lost R², at least 0.
        informativeness: (groups,) R² of the whole code.
        disentanglement: 1 if each block serves one group alone, 0 if all groups equally; blocks are weighed
            by their importance. NaN if no block is of any importance.
        completeness: 1 if each group is served by one block alone, 0 if by all equally; likewise.
    """

    matrix: Array
    informativeness: Array
    disentanglement: float
    completeness: float


def measure_importance(
    code: Mapping[str, NDArray],
    groups: Mapping[str, NDArray],
    kernel: Kernel = "rbf",
    *,
    folds: int = 3,
    repeats: int = 3,
    seed: int = 0,
) -> Importance:
    """Measure how much each group of factors needs each block.

    Args:
        code: block -> (n, z).
        groups: group -> (n, k) of columns in one unit; R² is pooled over them. Groups should not overlap: two
            that say the same count as two that share a block.
        kernel: of the regressor.
        folds: of the held-out predictions.
        repeats: number of exchanges whose loss is averaged.
        seed: of folds and exchanges.
    """
    sizes = [block.shape[1] for block in code.values()]
    whole, targets = (
        np.concatenate(list(code.values()), axis=1),
        np.concatenate(list(groups.values()), axis=1),
    )
    places = dict(zip(code, np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1]), strict=True))
    n, rng = len(whole), np.random.default_rng(seed)
    intact = np.empty(targets.shape)
    exchanged = {(block, turn): np.empty(targets.shape) for block in code for turn in range(repeats)}
    for held in np.array_split(rng.permutation(n), folds):
        kept = np.setdiff1d(np.arange(n), held)
        regressor = Regressor.fit(whole[kept], targets[kept], kernel)
        intact[held] = regressor.predict(whole[held])
        for (block, _), predictions in exchanged.items():
            mixed = whole[held]
            mixed[:, places[block]] = whole[np.ix_(rng.permutation(held), places[block])]
            predictions[held] = regressor.predict(mixed)
    ends = np.cumsum([group.shape[1] for group in groups.values()])
    columns = np.split(np.arange(ends[-1]), ends[:-1])

    def r2(predictions: Array) -> Array:
        return np.array(
            [explained(targets[:, c], predictions[:, c], pooled=True, resamples=1).value for c in columns]
        )

    known = r2(intact)
    lost = [
        np.mean([known - r2(exchanged[block, turn]) for turn in range(repeats)], axis=0) for block in code
    ]
    matrix = np.nan_to_num(np.array(lost)).clip(0)
    return Importance(matrix, known, _focus(matrix), _focus(matrix.T))


def _focus(importance: Array) -> float:
    """Return 1 minus the normalised entropy of each row (r, c), averaged with the rows' sums as weights."""
    sums = importance.sum(1)
    rows = importance[sums > 0] / sums[sums > 0, None]
    if not len(rows):
        return float("nan")
    entropy = -(rows * np.log(np.where(rows > 0, rows, 1))).sum(1) / np.log(importance.shape[1])
    return float(np.average(1 - entropy, weights=sums[sums > 0]))


def rotate_code(code: Mapping[str, NDArray], rng: np.random.Generator) -> dict[str, Array]:
    """Return a code that holds the same, wholly entangled: standardised, turned at random, divided again."""
    whole = np.concatenate(list(code.values()), axis=1).astype(np.float64)
    whole = (whole - whole.mean(0)) / np.where(varies(whole), whole.std(0), np.inf)
    turn, triangle = np.linalg.qr(rng.normal(size=(whole.shape[1],) * 2))
    turn *= np.sign(np.diag(triangle))  # uniform over all rotations and reflections
    sizes = np.cumsum([block.shape[1] for block in code.values()])[:-1]
    return dict(zip(code, np.split(whole @ turn, sizes, axis=1), strict=True))


def entangled_floor(
    code: Mapping[str, NDArray],
    groups: Mapping[str, NDArray],
    kernel: Kernel = "rbf",
    *,
    rotations: int = ROTATIONS,
    seed: int = 0,
) -> tuple[float, float]:
    """Return disentanglement and completeness of rotated codes, mean over `rotations`: 0 is not reached."""
    rng = np.random.default_rng(seed)
    found = [measure_importance(rotate_code(code, rng), groups, kernel, seed=seed) for _ in range(rotations)]
    return (
        float(np.mean([one.disentanglement for one in found])),
        float(np.mean([one.completeness for one in found])),
    )
