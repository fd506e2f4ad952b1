"""Blocks under interventions: FactorVAE's metric and interventional robustness, by groups and blocks.

Both read codes of images in which one group of factors is held and all others are drawn anew: group -> block
-> (a, l, z), for `a` values at which the group is held and `l` images of each. Who makes the images does not
matter here; `davae.latent.rendered` renders SynthHand's.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from davae.latent.prediction import Array, varies

Held = Mapping[str, Mapping[str, NDArray]]  # group -> block -> (a, l, z)
QUANTILE = 0.99  # of deviations, which stands for the largest, as in Locatello et al.'s disentanglement_lib


class Votes(NamedTuple):
    """FactorVAE's metric (Kim and Mnih 2018, arXiv:1802.05983, section 4) of groups and blocks.

    Attributes:
        matrix: (blocks, groups) number of held values for which the block varied least.
        accuracy: share of votes that a classifier gets right which names for each block its most frequent
            group. It classifies the votes that it learnt from, as there.
        chance: what it is for a block that is chosen at random, from the size of the largest group.
    """

    matrix: NDArray[np.int64]
    accuracy: float
    chance: float


def measure_votes(held: Held, reference: Mapping[str, NDArray]) -> Votes:
    """Let the block that varies least, while a group is held, vote for the group.

    A block's variance is the mean over dimensions of their variance among the images of one held value, over
    their variance in `reference`. A block that does not vary in `reference` has no vote.

    Args:
        held: see above.
        reference: block -> (n, z) codes of unchanged images.
    """
    blocks = [block for block, codes in reference.items() if varies(codes).any()]
    matrix = np.zeros((len(reference), len(held)), np.int64)
    names = list(reference)
    for column, codes in enumerate(held.values()):
        if not blocks:
            break
        variances = []
        for block in blocks:
            kept = varies(reference[block])
            spread = np.asarray(reference[block], np.float64)[:, kept].var(0)
            variances.append((np.asarray(codes[block], np.float64)[..., kept].var(1) / spread).mean(1))
        for winner in np.argmin(variances, axis=0):
            matrix[names.index(blocks[winner]), column] += 1
    total = matrix.sum()
    if not total:
        return Votes(matrix, float("nan"), float("nan"))
    return Votes(matrix, float(matrix.max(1).sum() / total), float(matrix.sum(0).max() / total))


def measure_robustness(held: Held, reference: Mapping[str, NDArray]) -> Array:
    """Return the interventional robustness (blocks, groups) of Suter et al. 2019 (arXiv:1811.00007).

    1 minus the mean over held values of the largest deviation that other groups cause in the block, over the
    largest deviation in `reference` from its mean: 1 if the group alone decides the block's code, 0 if
    holding the group makes no difference. NaN for a block that does not vary. Deviations are lengths in
    standardised dimensions, the largest is their 99th percentile.

    Args:
        held: see above.
        reference: block -> (n, z) codes of unchanged images.
    """
    found = np.full((len(reference), len(held)), np.nan)
    for row, (block, codes) in enumerate(reference.items()):
        kept = varies(codes)
        if not kept.any():
            continue
        codes = np.asarray(codes, np.float64)[:, kept]
        spread = codes.std(0)
        largest = _deviation((codes / spread)[None])[0]
        for column, images in enumerate(held.values()):
            moved = _deviation(np.asarray(images[block], np.float64)[..., kept] / spread)
            found[row, column] = 1 - moved.mean() / largest
    return found


def _deviation(codes: Array) -> Array:
    """Return the largest distance (a,) of codes (a, l, z) from their mean over l."""
    distances = np.linalg.norm(codes - codes.mean(1, keepdims=True), axis=2)
    return np.asarray(np.quantile(distances, QUANTILE, axis=1))
