"""Losses against SciPy, torch.distributions, double loops and closed forms."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree
from torch.distributions import Normal, kl_divergence
from torch.testing import assert_close

from davae import losses
from davae.config import LossConfig


def clouds(b=3, n=40, m=55, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(b, n, 3, generator=generator), torch.randn(b, m, 3, generator=generator)


def double_loop(a, b):
    """Squared nearest distances of one pair of clouds, one pair of points at a time."""
    matrix = torch.stack([torch.stack([((p - q) ** 2).sum() for q in b]) for p in a])
    return matrix.min(1).values, matrix.min(0).values


@settings(deadline=None, max_examples=30)
@given(st.floats(-5, 5), st.floats(-8, 4))
def test_kl_is_torch_distributions(mean, logvar):
    mean, logvar = torch.full((2, 3), mean), torch.full((2, 3), logvar)
    expected = kl_divergence(Normal(mean, torch.exp(0.5 * logvar)), Normal(0.0, 1.0))
    assert_close(losses.gaussian_kl(mean, logvar), expected, rtol=1e-4, atol=1e-5)


def test_kl_of_the_prior_is_zero_and_positive_elsewhere():
    assert losses.gaussian_kl(torch.zeros(1, 4), torch.zeros(1, 4)).abs().max() == 0
    assert (losses.gaussian_kl(torch.randn(5, 4), torch.randn(5, 4)) >= 0).all()


def test_kl_refuses_unequal_shapes():
    with pytest.raises(ValueError, match=r"mean is \(2, 3\) but logvar is \(2, 4\)"):
        losses.gaussian_kl(torch.zeros(2, 3), torch.zeros(2, 4))


def test_chamfer_is_ckdtree():
    a, b = clouds()
    for x, y, distance in zip(
        a.double().numpy(), b.double().numpy(), losses.chamfer_distance(a, b), strict=True
    ):
        forward, backward = cKDTree(y).query(x)[0], cKDTree(x).query(y)[0]
        assert distance.item() == pytest.approx(max(forward.mean(), backward.mean()), rel=1e-5)


def test_chamfer_gradient_is_autograd_through_a_double_loop():
    a, b = clouds(b=1, n=7, m=9)
    for ours, naive in (
        (
            lambda x, y: losses.chamfer_distance(x, y).sum(),
            lambda f, g: torch.maximum(f.sqrt().mean(), g.sqrt().mean()),
        ),
        (lambda x, y: losses.cloud_loss(x, y).sum(), lambda f, g: 2025 * torch.maximum(f.mean(), g.mean())),
    ):
        x, y = a.clone().requires_grad_(), b.clone().requires_grad_()
        ours(x, y).backward()
        x2, y2 = a.clone().requires_grad_(), b.clone().requires_grad_()
        naive(*double_loop(x2[0], y2[0])).backward()
        assert_close(x.grad, x2.grad, rtol=1e-4, atol=1e-6)
        assert_close(y.grad, y2.grad, rtol=1e-4, atol=1e-6)


def test_chamfer_of_a_cloud_with_itself_is_zero_with_finite_gradient():
    a = clouds()[0].requires_grad_()
    distance = losses.chamfer_distance(a, a.detach())
    distance.sum().backward()
    assert distance.abs().max() == 0 and torch.isfinite(a.grad).all()


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10_000))
def test_chamfer_ignores_the_order_of_points_and_of_arguments(seed):
    a, b = clouds(seed=seed)
    shuffled = a[:, torch.randperm(a.shape[1], generator=torch.Generator().manual_seed(seed))]
    assert_close(losses.chamfer_distance(a, b), losses.chamfer_distance(shuffled, b))
    assert_close(losses.chamfer_distance(a, b), losses.chamfer_distance(b, a))


@pytest.mark.parametrize(
    "shapes", [((2, 3), (2, 3)), ((1, 4, 3), (2, 4, 3)), ((1, 0, 3), (1, 4, 3)), ((1, 4, 2), (1, 4, 2))]
)
def test_chamfer_refuses_what_is_not_two_batches_of_clouds(shapes):
    with pytest.raises(ValueError, match="cloud"):
        losses.chamfer_distance(*(torch.zeros(s) for s in shapes))


def test_reductions_are_the_documented_ones():
    pose, true = torch.randn(4, 21, 3), torch.randn(4, 21, 3)
    assert_close(losses.pose_loss(pose, true), torch.tensor(((pose - true).numpy() ** 2).sum((1, 2))))
    image, target = torch.rand(4, 3, 8, 6), torch.rand(4, 3, 8, 6)
    per_pixel = ((image - target).numpy() ** 2).sum(1).mean((1, 2))
    assert_close(losses.image_loss(image, target), torch.tensor(per_pixel * 256 * 256))


def test_image_loss_does_not_depend_on_resolution():
    small, target = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8)
    large = [x.repeat_interleave(4, 2).repeat_interleave(4, 3) for x in (small, target)]
    assert_close(losses.image_loss(*large), losses.image_loss(small, target))


def fake(b=4):
    def leaf(*shape):
        return torch.randn(*shape).requires_grad_()

    sizes = {"pose": 24, "appearance": 16, "shape": 8}
    predicted = SimpleNamespace(
        pose=leaf(b, 21, 3),
        cloud=leaf(b, 25, 3),
        image=leaf(b, 3, 8, 8),
        mask=None,
        means={k: leaf(b, n) for k, n in sizes.items()},
        logvars={k: leaf(b, n) for k, n in sizes.items()},
    )
    true = SimpleNamespace(
        joints=torch.randn(b, 21, 3),
        cloud=torch.randn(b, 30, 3),
        target=torch.rand(b, 3, 8, 8),
        has_cloud=torch.ones(b, dtype=torch.bool),
    )
    return predicted, true


def test_total_is_the_weighted_sum_of_eq_3():
    predicted, true = fake()
    weights = LossConfig(1000.0, 100.0, 2.0, 3.0, 5.0, 7.0)
    parts = losses.objective(predicted, true, weights)
    by_hand = 1000 * parts.terms["pose"] + 100 * parts.terms["cloud"] + 2 * parts.terms["image"]
    by_hand = by_hand + 3 * parts.kls["pose"] + 5 * parts.kls["appearance"] + 7 * parts.kls["shape"]
    assert_close(parts.total, by_hand)
    assert_close(parts.elbo, -(sum(parts.terms.values()) + sum(parts.kls.values())))


def test_absent_clouds_count_as_zero_but_keep_a_gradient():
    predicted, true = fake()
    whole = losses.objective(predicted, true, LossConfig()).terms["cloud"]
    per_sample = losses.cloud_loss(predicted.cloud, true.cloud)
    assert_close(whole, per_sample.mean())
    true.has_cloud = torch.tensor([True, False, True, False])
    half = losses.objective(predicted, true, LossConfig())
    assert_close(half.terms["cloud"], (per_sample[0] + per_sample[2]) / 4)
    true.has_cloud = torch.zeros(4, dtype=torch.bool)
    losses.objective(predicted, true, LossConfig()).total.backward()
    assert predicted.cloud.grad is not None and predicted.cloud.grad.abs().max() == 0


def test_zero_beta_removes_the_gradient_of_the_kl():
    predicted, true = fake()
    weights = dataclasses.replace(LossConfig(), beta_pose=0.0)
    losses.objective(predicted, true, weights).total.backward()
    assert predicted.means["pose"].grad.abs().max() == 0
    assert predicted.means["shape"].grad.abs().max() > 0


def test_terms_are_computed_in_fp32():
    a, b = clouds()
    exact = losses.chamfer_distance(a.bfloat16(), b.bfloat16())
    assert exact.dtype == torch.float32
    assert np.isfinite(exact.numpy()).all()
