"""Means and differences of errors with their intervals.

Two trainings that differ only in their seed differ in error, and so do two sets of test images. A claim must
hold over both. Runs of all seeds are tested on the same images, so seeds and images are resampled
independently of each other, and a drawn image counts for every drawn seed: the pigeonhole bootstrap (Owen
2007, doi:10.1214/07-AOAS122). A mean over images alone uses `davae.metrics.bootstrap_interval`.
"""

from typing import Any, NamedTuple

import numpy as np

from davae.metrics import bootstrap_interval

MIN_PAIRS = 6  # seeds; an interval over fewer means little


def mean_with_interval(name: str, values: np.ndarray) -> dict[str, Any]:
    """Return {name: mean, name_interval: [low, high]} of the values (n,) that are not NaN, or None for both.

    The interval is a 95 % bootstrap interval over images.
    """
    values = values[~np.isnan(values)].astype(np.float64)
    if not len(values):
        return {name: None, f"{name}_interval": None}
    return {name: float(values.mean()), f"{name}_interval": list(bootstrap_interval(values))}


class Difference(NamedTuple):
    """Mean of (first - second) with its interval, and the mean difference of each seed."""

    mean: float
    low: float
    high: float
    per_seed: np.ndarray  # (s,)

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        return f"{self.mean:+.2f} [{self.low:+.2f}, {self.high:+.2f}]"


def paired_difference(
    first, second, *, resamples: int = 4000, seed: int = 0, level: float = 0.95
) -> Difference:
    """Compare two models that were trained with the same seeds and tested on the same images.

    Args:
        first: (s, n) errors of one model: a row for each seed, a column for each image.
        second: (s, n) errors of the other model.
        resamples: number of bootstrap resamples.
        seed: of the resampling; the same seed gives the same interval.
        level: coverage of the interval.

    Returns:
        The mean of first - second, which is negative if the first model errs less, and its interval.

    Raises:
        ValueError: the shapes differ, an array is empty, or an error is not finite.
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
    rows = max(1, min(resamples, 500_000 // images))  # resamples at a time: a few MB of draw counts
    means = []
    for start in range(0, resamples, rows):
        count = min(rows, resamples - start)
        of_seeds = rng.multinomial(seeds, np.full(seeds, 1 / seeds), count)
        of_images = rng.multinomial(images, np.full(images, 1 / images), count)
        means.append(((of_seeds @ difference) * of_images).sum(1) / (seeds * images))
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
    return Difference(float(difference.mean()), float(low), float(high), difference.mean(axis=1))


def verdict(difference: Difference, *, min_pairs: int = MIN_PAIRS) -> str:
    """Judge the claim that the first model errs less than the second.

    Returns:
        "confirmed" if the interval lies below zero, "contradicted" if it lies above zero, "not confirmed" if
        it contains zero or there are fewer than `min_pairs` seeds.
    """
    if len(difference.per_seed) < min_pairs or not difference.excludes_zero:
        return "not confirmed"
    return "confirmed" if difference.high < 0 else "contradicted"
