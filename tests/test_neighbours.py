"""Nearest neighbours by all pairs, by k-d tree and by kernel, against all pairs in double precision."""

import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from davae.networks import nearest
from davae.networks.native import explain_missing, operations
from davae.networks.nearest import _search_all_pairs, _search_tree, find_nearest

KERNELS = [] if explain_missing() else [operations.find_nearest]  # tests/test_native.py asks for a compiler
WAYS = pytest.mark.parametrize("search", [_search_all_pairs, _search_tree, *KERNELS])


@pytest.fixture
def without_kernels(monkeypatch):
    monkeypatch.setattr(nearest, "explain_missing", lambda: "turned off")


def excess(points, others, found):
    """How much farther, squared, each point is from the neighbour found than from its nearest."""
    pairs = torch.cdist(points.double(), others.double()).square()
    return pairs.gather(2, found.unsqueeze(2)).squeeze(2) - pairs.amin(2)


@WAYS
@given(
    b=st.integers(1, 4),
    n=st.integers(1, 60),
    m=st.integers(1, 60),
    away=st.sampled_from([0.0, 700.0]),
    seed=st.integers(0, 1000),
)
def test_nobody_is_nearer_than_the_nearest(search, b, n, m, away, seed):
    """Also far from the origin, where squares in single precision drown the differences that decide."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(b, n, 3, generator=generator) + away
    others = torch.randn(b, m, 3, generator=generator) + away
    found = search(points, others)
    assert found.shape == (b, n) and found.dtype == torch.int64
    assert excess(points, others, found).max() < (1e-5 if away == 0 else 1e-2)


def test_without_kernels_the_larger_clouds_go_to_the_tree(monkeypatch, without_kernels):
    torch.manual_seed(0)
    a, b = torch.randn(3, 600, 3), torch.randn(3, 500, 3)
    assert nearest.TREE_PAIRS <= 600 * 500
    asked = []
    monkeypatch.setattr(nearest, "_search_tree", lambda *clouds: asked.append(1) or _search_tree(*clouds))
    in_b, in_a = find_nearest(a, b)
    assert len(asked) == 2
    assert (in_b == _search_all_pairs(a, b)).float().mean() > 0.999  # ties to within rounding may differ
    assert (in_a == _search_all_pairs(b, a)).float().mean() > 0.999
    find_nearest(a[:, :100], b)
    assert len(asked) == 2


def test_small_clouds_need_no_scipy(monkeypatch, without_kernels):
    monkeypatch.setitem(sys.modules, "scipy.spatial", None)  # importing it fails
    a = torch.randn(1, 400, 3)
    assert (find_nearest(a, a)[0] == torch.arange(400)).all()
    with pytest.raises(ImportError):
        find_nearest(*[torch.randn(1, 600, 3)] * 2)


@WAYS
def test_equal_points_and_points_at_nan_are_given_some_index(search):
    same = torch.ones(2, 30, 3)
    assert ((search(same, same) >= 0) & (search(same, same) < 30)).all()
    lost = same.clone()
    lost[0, 3] = torch.nan
    assert ((search(lost, same) >= 0) & (search(lost, same) < 30)).all()


@WAYS
def test_autocast_does_not_change_who_is_nearest(search):
    torch.manual_seed(0)
    a, b = torch.randn(2, 80, 3), torch.randn(2, 90, 3)
    with torch.autocast("cpu", torch.bfloat16):
        found = search(a, b)
    assert torch.equal(found, search(a, b))
