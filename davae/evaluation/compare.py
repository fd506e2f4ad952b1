"""Is one model better than another? Differences of error with the doubt that seeds and images leave.

Two trainings that differ in their seed alone differ in error, and so do two sets of test images; a claim must
hold over both. Runs of all seeds are tested on the same images, so seeds and images are drawn independently
of one another, and a drawn image counts for every drawn seed (a two-way, or "pigeonhole", bootstrap).
"""

from typing import NamedTuple

import numpy as np

MIN_PAIRS = 6  # of seeds, below which no interval over seeds means much


class Difference(NamedTuple):
    """Mean of (first - second) with its interval, and each seed's own."""

    mean: float
    low: float
    high: float
    per_seed: np.ndarray  # (s,)

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval does."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        return f"{self.mean:+.2f} [{self.low:+.2f}, {self.high:+.2f}]"


def paired_difference(
    first, second, *, resamples: int = 4000, seed: int = 0, level: float = 0.95
) -> Difference:
    """Compare two models, trained with the same seeds and tested on the same images.

    Args:
        first: (s, n) errors of one model: a row for each seed, a column for each image.
        second: the same of the other.
        resamples: how many.
        seed: of the resampling; the same seed gives the same interval.
        level: coverage of the interval.

    Returns:
        Mean of first - second: negative where the first errs less.

    Raises:
        ValueError: shapes that differ or are empty, or errors that are not finite.
    """
    first, second = (np.asarray(errors, dtype=np.float64) for errors in (first, second))
    if first.shape != second.shape or first.ndim != 2 or first.size == 0:
        raise ValueError(
            f"expected two equal arrays (seeds, images), found shapes {first.shape} and {second.shape}"
        )
    difference = first - second
    if not np.isfinite(difference).all():
        raise ValueError("errors hold values that are not finite; both models need one for every image")
    seeds, images = difference.shape
    rng = np.random.default_rng(seed)
    rows = max(1, min(resamples, 500_000 // images))  # at a time: some MB of draw counts at most
    means = []
    for start in range(0, resamples, rows):
        count = min(rows, resamples - start)
        of_seeds = rng.multinomial(seeds, np.full(seeds, 1 / seeds), count)
        of_images = rng.multinomial(images, np.full(images, 1 / images), count)
        means.append(((of_seeds @ difference) * of_images).sum(1) / (seeds * images))
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
    return Difference(float(difference.mean()), float(low), float(high), difference.mean(axis=1))


def verdict(difference: Difference, *, min_pairs: int = MIN_PAIRS) -> str:
    """Say what a difference means for the claim that the first model errs less.

    Returns:
        "confirmed": the interval lies below zero, over enough seeds. "not confirmed": it lies above.
        "undecided": it holds zero, or the seeds are too few.
    """
    if len(difference.per_seed) < min_pairs or not difference.excludes_zero:
        return "undecided"
    return "confirmed" if difference.high < 0 else "not confirmed"
