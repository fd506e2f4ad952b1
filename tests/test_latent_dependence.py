"""Dependence of blocks: closed forms, definitions written out, and codes of known dependence."""

from itertools import permutations

import numpy as np
import pytest

from davae.latent import dependence as d

RNG = np.random.default_rng(1)
A, NOISE = RNG.normal(size=(200, 3)), RNG.normal(size=(200, 2))


def gram(codes: np.ndarray) -> np.ndarray:
    codes = (codes - codes.mean(0)) / codes.std(0)
    squares = ((codes[:, None] - codes[None]) ** 2).sum(2)
    return np.exp(-squares / (2 * np.median(squares[np.triu_indices(len(codes), 1)])))


def test_hsic_is_the_u_statistic_of_its_definition():
    a, b = RNG.normal(size=(7, 2)), RNG.normal(size=(7, 1))

    def by_definition(first, second):
        terms = [
            first[i, j] * (second[i, j] + second[q, r] - 2 * second[i, q])
            for i, j, q, r in permutations(range(7), 4)
        ]
        return np.mean(terms)

    one, other = gram(a), gram(b)
    expected = by_definition(one, other) / np.sqrt(by_definition(one, one) * by_definition(other, other))
    assert d.measure_hsic(a, b, permutations=1).value == pytest.approx(expected)


@pytest.mark.parametrize("measure", [d.measure_hsic, lambda a, b: d.total_correlation([a, b])])
def test_independent_dependent_and_constant_blocks(measure):
    independent, shifted = measure(A, NOISE), measure(A, A[:, :1] + 0.3 * NOISE)
    assert independent.p > 0.05 and abs(independent.value - independent.shuffled) < 0.05
    assert shifted.p == pytest.approx(1 / (1 + d.PERMUTATIONS)) and shifted.value > shifted.shuffled + 0.1


def test_only_hsic_sees_a_square_and_only_it_is_one_for_equal_blocks():
    square = A[:, :1] ** 2
    assert d.measure_hsic(A[:, :1], square).p < 0.01
    assert d.total_correlation([A[:, :1], square]).value < 0.05
    assert d.measure_hsic(A, A).value == pytest.approx(1)
    assert np.isinf(d.total_correlation([A, A @ RNG.normal(size=(3, 3))]).value)


def test_a_block_that_does_not_vary_depends_on_nothing():
    still = np.full((200, 2), 0.3)
    assert np.isnan(d.measure_hsic(A, still)).all()
    assert d.total_correlation([A, still]).value == pytest.approx(0)


def test_total_correlation_of_gaussians_is_the_closed_form():
    """Of two numbers of correlation r it is -1/2 log(1 - r²); turning or scaling a block changes nothing."""
    r = 0.8
    x = RNG.normal(size=(20_000, 1))
    y = r * x + np.sqrt(1 - r**2) * RNG.normal(size=x.shape)
    found = d.total_correlation([x, y], permutations=9)
    assert found.value == pytest.approx(-0.5 * np.log(1 - r**2), abs=0.02) and found.shuffled < 1e-3
    other = A + RNG.normal(size=A.shape)
    turned = d.total_correlation([A @ RNG.normal(size=(3, 3)), 5 * other + 1], permutations=1)
    assert turned.value == pytest.approx(d.total_correlation([A, other], permutations=1).value)


def test_three_blocks_are_shuffled_against_each_other():
    """The first block depends on none, the others on each other: a common order would leave that."""
    shared = RNG.normal(size=(300, 1))
    others = [shared + 0.1 * RNG.normal(size=(300, 1)) for _ in range(2)]
    found = d.total_correlation([RNG.normal(size=(300, 1)), *others])
    assert found.value > 1 and found.shuffled < 0.05 and found.p < 0.01
