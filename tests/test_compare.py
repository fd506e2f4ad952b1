"""Comparison of models over seeds and images: interval coverage, and minimum numbers for a claim."""

import numpy as np
import pytest
from scipy import stats

from davae.evaluation.compare import Difference, paired_difference, verdict

RNG = np.random.default_rng(0)


def two_models(seeds, images, gain, rng, between_seeds=0.5, between_images=4.0):
    """Errors of two models on the same images; seeds and images move both, and each pair by itself."""
    common = 20 + rng.normal(scale=between_images, size=images)
    of_seed = rng.normal(scale=between_seeds, size=(2, seeds, 1))
    noise = rng.normal(scale=2.0, size=(2, seeds, images))
    first, second = common + of_seed + noise
    return first + gain, second


def test_mean_and_pairs_are_plain_means():
    first, second = two_models(4, 50, -1.0, RNG)
    found = paired_difference(first, second, resamples=200)
    assert found.mean == pytest.approx((first - second).mean())
    np.testing.assert_allclose(found.per_seed, (first - second).mean(1))
    assert found.low < found.mean < found.high
    reverse = paired_difference(second, first, resamples=200)
    assert (reverse.low, reverse.high) == pytest.approx((-found.high, -found.low))


def test_images_alone_give_the_bootstrap_of_scipy():
    first, second = two_models(1, 300, -1.0, RNG)
    found = paired_difference(first, second)
    scipy = stats.bootstrap((first[0] - second[0],), np.mean, n_resamples=4000, method="percentile", rng=1)
    assert found.low == pytest.approx(scipy.confidence_interval.low, abs=0.03)
    assert found.high == pytest.approx(scipy.confidence_interval.high, abs=0.03)


def test_doubt_about_seeds_widens_the_interval():
    """Many images cannot make up for few seeds: the interval over both is wider than that over images."""
    first, second = two_models(6, 1000, 0.0, RNG, between_seeds=1.0)
    both = paired_difference(first, second)
    images = paired_difference(first.mean(0, keepdims=True), second.mean(0, keepdims=True))
    assert both.high - both.low > 2 * (images.high - images.low)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng, hits, trials = np.random.default_rng(5), 0, 200
    for trial in range(trials):
        first, second = two_models(12, 60, -0.7, rng)
        found = paired_difference(first, second, resamples=400, seed=trial)
        hits += found.low <= -0.7 <= found.high
    assert 0.86 < hits / trials <= 1.0  # a percentile bootstrap over twelve seeds is a little narrow


def test_equal_models_differ_by_nothing():
    errors = RNG.random((3, 10))
    assert tuple(paired_difference(errors, errors)[:3]) == (0, 0, 0)
    assert verdict(paired_difference(np.tile(errors, (2, 1)), np.tile(errors, (2, 1)))) == "not confirmed"


@pytest.mark.parametrize(
    ("low", "high", "pairs", "words"),
    [
        (-2, -1, 6, "confirmed"),
        (-2, -1, 5, "not confirmed"),
        (-2, 1, 9, "not confirmed"),
        (1, 2, 6, "contradicted"),
        (1, 2, 5, "not confirmed"),
    ],
)
def test_a_verdict_needs_an_interval_without_zero_and_enough_seeds(low, high, pairs, words):
    assert verdict(Difference((low + high) / 2, low, high, np.zeros(pairs))) == words


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(3, 3\)"):
        paired_difference(np.ones((2, 3)), np.ones((3, 3)))
    with pytest.raises(ValueError, match="not finite"):
        paired_difference(np.full((2, 3), np.nan), np.ones((2, 3)))
    with pytest.raises(ValueError, match="shapes"):
        paired_difference(np.ones((0, 3)), np.ones((0, 3)))
