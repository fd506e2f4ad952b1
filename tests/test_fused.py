"""davae.networks.fused: each operation against PyTorch's own and against float64; whole networks."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from davae.networks.fused import is_supported, normalise, unfold
from davae.networks.native import explain_missing

TYPES = [torch.float32, torch.bfloat16]
LAST = torch.channels_last


@pytest.fixture(autouse=True)
def _kernels(require):
    require(explain_missing() is None, f"no kernels here: {explain_missing()}")


def make_map(*shape, dtype=torch.float32):
    """A map whose channels have means and spreads of their own."""
    channels = shape[1]
    x = torch.randn(shape) * torch.linspace(0.5, 2, channels)[:, None, None]
    x += torch.linspace(-1, 3, channels)[:, None, None]
    return x.to(dtype).contiguous(memory_format=LAST)


def make_norm(channels):
    """A BatchNorm whose gammas include 0 and negative ones."""
    norm = nn.BatchNorm2d(channels)
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(-1, 1.5, channels))
        norm.weight[0] = 0
        norm.bias.normal_()
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    return norm


def differentiate(function, inputs, dtype):
    """The outputs of a function of maps and the gradients of its inputs, all in float64."""
    inputs = [x.detach().to(dtype).requires_grad_() for x in inputs]
    outputs = function(*inputs)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    torch.manual_seed(1)
    weights = [torch.randn(y.shape).bfloat16().to(y.dtype) for y in outputs]
    torch.autograd.backward(outputs, weights)
    return [x.detach().double() for x in (*outputs, *(x.grad for x in inputs))]


def distance(x, truth):
    return (x - truth).norm() / (truth.norm() + 1e-12)


def assert_no_worse(ours, torchs, truth, dtype):
    """Demand that our errors are near those of PyTorch in the same type, and small."""
    small = {torch.float32: 2e-6, torch.bfloat16: 4e-3}[dtype]
    for k, (own, other, true) in enumerate(zip(ours, torchs, truth, strict=True)):
        assert own.shape == true.shape
        assert distance(own, true) <= 1.5 * distance(other, true) + small, f"result {k}"


def run_norm(norm, function, inputs, dtype):
    """Results of `differentiate`, and the BatchNorm's gradients and statistics."""
    norm = copy.deepcopy(norm)
    norm = norm.double() if dtype == torch.float64 else norm
    out = differentiate(lambda *maps: function(norm, *maps), inputs, dtype)
    own = (norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var)
    assert norm.num_batches_tracked == 1
    return [*out, *(x.detach().double() for x in own)]


def plain_normalise(relu, twice):
    def function(norm, x, residual=None):
        y = norm(x) if residual is None else norm(x) + residual
        y = F.relu(y) if relu else y
        return (y, y * 1) if twice else y

    return function


def compare_norms(x, residual, *, relu, twice):
    norm, maps = make_norm(x.shape[1]), [x] if residual is None else [x, residual]
    plain = plain_normalise(relu, twice)

    def ours(norm, x, residual=None):
        return normalise(norm, x, residual, relu=relu, twice=twice)

    truth = run_norm(norm, plain, maps, torch.float64)
    results = [run_norm(norm, function, maps, x.dtype) for function in (ours, plain)]
    if not relu:
        assert_no_worse(*results, truth, x.dtype)
    else:  # the signs of numbers near 0 depend on rounding, and with them whole gradients
        small = {torch.float32: 2e-6, torch.bfloat16: 4e-3}[x.dtype]
        for own, other, true in zip(*results, truth, strict=True):
            assert distance(own, true) <= 2 * distance(other, true) + 4 * small
    return results


SHAPES = [
    (2, 16, 5, 7),
    (4, 32, 8, 8),
    (1, 48, 3, 3),
    (4, 12, 6, 6),
    (2, 24, 4, 5),
    (16, 3, 4, 4),
    (64, 16, 17, 17),
]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("relu", [False, True])
def test_normalise_is_batchnorm_sum_and_relu(dtype, shape, residual, relu):
    x, other = make_map(*shape, dtype=dtype), torch.randn(shape).to(dtype).contiguous(memory_format=LAST)
    assert is_supported(x)
    compare_norms(x, other if residual else None, relu=relu, twice=False)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("relu", [False, True])
def test_the_gradients_of_two_readers_are_added(dtype, residual, relu):
    x, other = make_map(2, 16, 6, 4, dtype=dtype), make_map(2, 16, 6, 4, dtype=dtype)
    compare_norms(x, other if residual else None, relu=relu, twice=True)


@pytest.mark.parametrize(
    "x",
    [
        make_map(1, 3, 5, 5),  # 75 numbers
        torch.randn(2, 16, 4, 4),  # another memory order
        make_map(2, 16, 4, 4).half(),
        make_map(2, 16, 4, 4).double(),
    ],
    ids=["size", "order", "fp16", "fp64"],
)
def test_what_the_kernels_do_not_know_is_left_to_torch(x):
    assert not is_supported(x)
    norm = make_norm(x.shape[1]).double() if x.dtype == torch.float64 else make_norm(x.shape[1])
    theirs = copy.deepcopy(norm)
    assert torch.equal(normalise(norm, x, x), F.relu(theirs(x) + x))
    assert torch.equal(norm.running_var, theirs.running_var)
    assert torch.equal(norm.num_batches_tracked, theirs.num_batches_tracked)


def test_one_value_a_channel_is_refused_as_by_torch():
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        normalise(make_norm(16), make_map(1, 16, 1, 1))


@settings(deadline=None, max_examples=60)
@given(
    batch=st.integers(1, 9), channels=st.integers(1, 50), height=st.integers(1, 9), width=st.integers(1, 9),
    bf16=st.booleans(), residual=st.booleans(), relu=st.booleans(),
)  # fmt: skip
def test_normalise_any_shape(batch, channels, height, width, bf16, residual, relu):
    if batch * height * width < 2:
        return
    x = make_map(batch, channels, height, width, dtype=TYPES[bf16])
    norm, theirs = make_norm(channels), make_norm(channels)
    theirs.load_state_dict(norm.state_dict())
    plain = plain_normalise(relu, False)(theirs, x, x if residual else None)
    y = normalise(norm, x, x if residual else None, relu=relu)
    assert y.dtype == x.dtype and y.shape == x.shape
    bound = {torch.float32: 2e-5, torch.bfloat16: 3e-2}[x.dtype]
    assert_close(y.float(), plain.float(), rtol=bound, atol=bound)
    assert_close(norm.running_mean, theirs.running_mean, rtol=1e-5, atol=1e-5)
    assert_close(norm.running_var, theirs.running_var, rtol=1e-4, atol=1e-5)


@settings(deadline=None, max_examples=60)
@given(
    batch=st.integers(1, 3), channels=st.integers(1, 20), height=st.integers(1, 7), width=st.integers(1, 7),
    size=st.integers(1, 3), stride=st.integers(1, 3), padding=st.integers(0, 2), dilation=st.integers(1, 2),
    bf16=st.booleans(),
)  # fmt: skip
def test_unfold_is_torchs(batch, channels, height, width, size, stride, padding, dilation, bf16):
    reach = dilation * (size - 1) + 1
    if min(height, width) + 2 * padding < reach:
        return
    rows, columns = ((side + 2 * padding - reach) // stride + 1 for side in (height, width))
    x = make_map(batch, channels, height, width, dtype=TYPES[bf16])
    expected = F.unfold(x.float(), size, dilation, padding, stride)  # (b, c size size, places)
    expected = expected.unflatten(1, (channels, size * size)).permute(0, 3, 2, 1)
    ours = unfold(x, size, stride, padding, dilation, rows, columns)
    assert torch.equal(ours.float(), expected.reshape(ours.shape))


def test_a_large_mean_does_not_drown_the_spread():
    """The variance is summed about a value of the map, so that little is lost."""
    x = (torch.randn(8, 16, 6, 6) + 1000).contiguous(memory_format=LAST)
    norm = nn.BatchNorm2d(16)
    y = normalise(norm, x, relu=False)
    truth = F.batch_norm(x.double(), None, None, training=True)
    assert_close(y.double(), truth, rtol=0, atol=1e-3)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("place", [0, 37])
@pytest.mark.parametrize("residual", [False, True])
def test_a_diverged_map_stays_visible(value, place, residual):
    x = make_map(2, 16, 6, 4)
    x.permute(0, 2, 3, 1).view(-1, 16)[place, 5] = value
    y = normalise(make_norm(16), x, x if residual else None)
    assert not y[:, 5].isfinite().all()
    assert y[:, :5].isfinite().all() and y[:, 6:].isfinite().all()
