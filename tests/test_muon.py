"""Muon against the singular value decomposition and PyTorch's implementation, and on convolutions."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from davae.networks.native import explain_missing
from davae.training import muon
from davae.training.muon import BF16_FROM, ITERATIONS, QUINTIC, Muon, as_matrix, orthogonalise


@given(
    n=st.integers(1, 40),
    m=st.integers(1, 40),
    seed=st.integers(0, 1000),
    scale=st.sampled_from([1e-6, 1, 1e6]),
)
def test_orthogonal_step_keeps_singular_vectors_and_evens_out_values(n, m, seed, scale):
    """Against the iteration's definition, applied to the singular values one by one, in double precision."""
    matrix = torch.randn(n, m, generator=torch.Generator().manual_seed(seed))
    u, s, vh = torch.linalg.svd(matrix.double(), full_matrices=False)
    s = s / s.square().sum().sqrt()
    a, b, c = QUINTIC
    for _ in range(ITERATIONS):
        s = a * s + b * s**3 + c * s**5
    (found,) = orthogonalise([scale * matrix])
    assert_close(found, ((u * s) @ vh).float(), rtol=0, atol=2e-3)
    assert found.shape == matrix.shape


def test_singular_values_that_matter_come_near_one():
    matrix = torch.randn(64, 576, generator=torch.Generator().manual_seed(0)) * torch.logspace(0, -2, 576)
    before, after = torch.linalg.svdvals(matrix), torch.linalg.svdvals(orthogonalise([matrix])[0])
    assert before.max() / before.min() > 2
    assert after.min() > 0.6 and after.max() < 1.25
    assert torch.isfinite(orthogonalise([torch.zeros(3, 5)])[0]).all()


def test_matrices_do_not_depend_on_their_company():
    generator = torch.Generator().manual_seed(3)
    shapes = [(8, 20), (20, 8), (8, 8), (5, 8), (8, 30)]  # four with Grams of 8 x 8, which go together
    matrices = [torch.randn(shape, generator=generator) for shape in shapes] + [torch.zeros(8, 8)]
    alone = [orthogonalise([matrix])[0] for matrix in matrices]
    assert_close(orthogonalise(matrices), alone, rtol=1e-4, atol=1e-5)
    assert orthogonalise([]) == []


def test_steps_equal_those_of_pytorchs_own():
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(24, 48))
    theirs = torch.nn.Parameter(weight.detach().clone())
    ours = Muon([weight], lr=0.02)
    oracle = torch.optim.Muon(
        [theirs], lr=0.02, weight_decay=0.0, ns_steps=ITERATIONS, adjust_lr_fn="match_rms_adamw"
    )
    start = weight.detach().clone()
    for _ in range(4):
        weight.grad = torch.randn(24, 48)
        theirs.grad = weight.grad.clone()
        ours.step()
        oracle.step()
    moved = (weight - start).abs().mean()
    assert (weight - theirs).abs().mean() < 0.02 * moved  # theirs iterates in bf16


@pytest.mark.parametrize("layer", [torch.nn.Conv2d(6, 10, 3), torch.nn.ConvTranspose2d(6, 10, 4)])
def test_a_convolution_steps_as_the_matrix_it_is_in_either_memory_layout(layer):
    generator = torch.Generator().manual_seed(1)
    gradient = torch.randn(layer.weight.shape, generator=generator)
    moves = []
    for layout in (torch.contiguous_format, torch.channels_last):
        weight = torch.nn.Parameter(layer.weight.detach().clone(memory_format=layout))
        weight.grad = gradient.clone(memory_format=layout)
        before = weight.detach().clone()
        Muon([weight], lr=1.0).step()
        moves.append(before - weight.detach())
    assert_close(moves[0], moves[1])
    as_columns = gradient.flatten(1)  # the order of a matrix's columns does not matter to its directions
    expected = orthogonalise([as_columns])[0] * 0.2 * max(as_columns.shape) ** 0.5
    assert_close(moves[0].flatten(1), expected, rtol=1e-3, atol=1e-3)
    assert as_matrix(gradient).shape == as_columns.shape


def test_larger_matrices_step_alike_in_bf16_and_small_ones_are_left_in_fp32():
    generator = torch.Generator().manual_seed(2)
    for side, bound in ((BF16_FROM, 0.03), (BF16_FROM - 1, 0.0)):
        gradient = torch.randn(side, 3 * side, generator=generator)
        moves = []
        for bf16 in (False, True):
            weight = torch.nn.Parameter(torch.zeros_like(gradient))
            weight.grad = gradient.clone()
            Muon([weight], lr=1.0, bf16=bf16).step()
            moves.append(weight.detach())
        apart = (moves[0] - moves[1]).norm() / moves[0].norm()
        assert apart <= bound and (apart > 0) == (bound > 0)


def test_steps_with_kernels_are_those_without_whatever_the_order_of_the_gradient(monkeypatch):
    generator = torch.Generator().manual_seed(4)
    shapes = [(6, 10, 3, 3), (40, 5), (1, 7, 1, 1), (BF16_FROM, 15, 3, 3)]
    gradients = [[torch.randn(shape, generator=generator) for shape in shapes] for _ in range(3)]
    moved = []
    for missing in (None, "this test does without"):
        monkeypatch.setattr(muon, "explain_missing", lambda missing=missing: missing or explain_missing())
        weights = [torch.nn.Parameter(torch.zeros(shape)) for shape in shapes]
        weights[0].data = weights[0].data.contiguous(memory_format=torch.channels_last)
        optimiser = Muon(weights, lr=1.0, bf16=True)
        for step in gradients:
            for weight, gradient in zip(weights, step, strict=True):
                weight.grad = gradient.clone()
            optimiser.step()
        moved.append([weight.detach() for weight in weights])
    for own, other in zip(*moved, strict=True):
        assert (own - other).norm() <= 2e-3 * other.norm()
