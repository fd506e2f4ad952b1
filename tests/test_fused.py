"""davae.networks.fused: each operation against PyTorch's own and against float64; whole networks."""

import copy
import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from davae.config import mask_preset, preset
from davae.networks import DaVAE
from davae.networks.blocks import SelectiveKernel
from davae.networks.fused import FUSED, fuse
from davae.networks.handmask import HandMaskNet
from davae.networks.native import explain_missing, operations
from davae.networks.native.operations import (
    is_supported,
    mean_squared_error,
    normalise,
    normalise_and_shift,
    unfold,
)
from davae.training.mask_task import _measure_masks, mask_loss

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


def plain_normalise(relu, readers):
    def function(norm, x, residual=None):
        y = norm(x) if residual is None else norm(x) + residual
        y = F.relu(y) if relu else y
        return tuple(y * 1 for _ in range(readers)) if readers > 1 else y

    return function


def compare_norms(x, residual, *, relu, readers):
    norm, maps = make_norm(x.shape[1]), [x] if residual is None else [x, residual]
    plain = plain_normalise(relu, readers)

    def ours(norm, x, residual=None):
        return normalise(norm, x, residual, relu=relu, readers=readers)

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
    compare_norms(x, other if residual else None, relu=relu, readers=1)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("readers", [2, 3])
def test_the_gradients_of_readers_are_added(dtype, residual, relu, readers):
    x, other = make_map(2, 16, 6, 4, dtype=dtype), make_map(2, 16, 6, 4, dtype=dtype)
    compare_norms(x, other if residual else None, relu=relu, readers=readers)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(2, 16, 5, 7), (4, 48, 8, 8), (3, 24, 4, 5), (40, 12, 6, 6)])
def test_normalise_and_shift_is_batchnorm_a_code_for_all_places_and_relu(dtype, shape):
    x, code = make_map(*shape, dtype=dtype), torch.randn(shape[:2])

    def plain(norm, x, code):
        return F.relu(norm(x) + code[..., None, None])

    norm = make_norm(shape[1])
    truth = run_norm(norm, plain, [x, code], torch.float64)
    results = [run_norm(norm, function, [x, code], dtype) for function in (normalise_and_shift, plain)]
    small = {torch.float32: 2e-6, torch.bfloat16: 4e-3}[dtype]
    for own, other, true in zip(*results, truth, strict=True):
        assert distance(own, true) <= 2 * distance(other, true) + 4 * small


def test_normalise_and_shift_leaves_other_maps_to_torch():
    """Rows of 12 channels are joined in fours, which must not join two samples."""
    x, code, norm = make_map(16, 12, 3, 3), torch.randn(16, 12), make_norm(12)
    theirs = copy.deepcopy(norm)
    expected = F.relu(theirs(x) + code[..., None, None])
    assert torch.equal(normalise_and_shift(norm, x, code), expected)


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
    plain = plain_normalise(relu, 1)(theirs, x, x if residual else None)
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


def pool(norm, x):
    return operations._NormaliseAndPool.apply(
        x, norm.weight, norm.bias, norm.running_mean, norm.running_var, norm.momentum, norm.eps
    )


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("size", [(8, 8), (7, 9), (1, 5), (6, 1), (2, 3)])
def test_the_stem_is_batchnorm_relu_and_pooling(dtype, size):
    x = make_map(3, 32, *size, dtype=dtype)

    def plain(norm, x):
        y = F.max_pool2d(F.relu(norm(x)), 3, stride=2, padding=1)
        return y, y * 1

    def ours(norm, x):
        norm.num_batches_tracked.add_(1)
        return pool(norm, x)

    norm = make_norm(32)
    results = [run_norm(norm, function, [x], dtype) for function in (ours, plain)]
    truth = run_norm(norm, plain, [x], torch.float64)
    if dtype == torch.float32:
        assert_no_worse(*results, truth, dtype)
    else:  # which of nearly equal pixels is the largest depends on rounding
        for own, other, true in zip(*results, truth, strict=True):
            assert distance(own, true) <= 1.5 * distance(other, true) + 0.02


@pytest.mark.parametrize("dtype", TYPES)
def test_subpixel_is_pixel_shuffle_and_sigmoid(dtype):
    x = 4 * torch.randn(2, 48, 3, 5)
    inner = x.unflatten(1, (3, 16)).transpose(1, 2).flatten(1, 2)  # channels in the order of pixels
    x, inner = (t.to(dtype).contiguous(memory_format=LAST) for t in (x, inner))

    def ours(x):
        return operations._Subpixel.apply(x)

    def plain(x):
        return torch.sigmoid(
            F.pixel_shuffle(x, 4).float() if x.dtype != torch.float64 else F.pixel_shuffle(x, 4)
        )

    def reorder(results):
        y, gradient = results
        return [y, gradient.unflatten(1, (16, 3)).transpose(1, 2).flatten(1, 2)]

    truth = differentiate(plain, [x], torch.float64)
    assert_no_worse(
        reorder(differentiate(ours, [inner], dtype)), differentiate(plain, [x], dtype), truth, dtype
    )


def test_subpixel_keeps_its_bounds_and_what_is_no_number():
    x = torch.zeros(1, 48, 1, 1)
    x[0, :3, 0, 0] = torch.tensor([float("nan"), 200, -200])
    y = operations._Subpixel.apply(x).flatten(1)
    assert y[0].isnan().sum() == 1 and y[y.isfinite()].max() == 1 and 0 <= y[y.isfinite()].min() < 1e-30


@pytest.mark.parametrize("shape", [(3, 3, 8, 8), (2, 3, 5, 7), (1, 3, 33, 31)])
@pytest.mark.parametrize("dtype", TYPES)
def test_squared_error(shape, dtype):
    predicted, target = torch.rand(shape).to(dtype), torch.rand(shape)

    def plain(x):
        wide = torch.float64 if x.dtype == torch.float64 else torch.float32
        return (x.to(wide) - target.to(wide)).square().mean(dim=(1, 2, 3))

    truth = differentiate(plain, [predicted], torch.float64)
    ours = differentiate(lambda x: mean_squared_error(x, target), [predicted], dtype)
    assert_no_worse(ours, differentiate(plain, [predicted], dtype), truth, dtype)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("channels", [16, 24, 32, 47])
def test_a_projection_is_a_convolution_to_one_channel_in_fp32(channels, dtype):
    x, weight, bias = make_map(3, channels, 4, 8, dtype=dtype), torch.randn(1, channels, 1, 1), torch.randn(1)

    def ours(x, weight, bias):
        return operations.project(x.to(dtype), weight, bias)  # weights stay fp32

    truth = differentiate(F.conv2d, [x, weight, bias], torch.float64)
    found = differentiate(ours, [x, weight, bias], torch.float32)
    for own, true in zip(found, truth, strict=True):
        assert own.shape == true.shape
        assert distance(own, true) < {torch.float32: 2e-6, torch.bfloat16: 4e-3}[dtype]


def test_a_mask_network_reads_its_last_map_by_the_projection():
    network = HandMaskNet(dataclasses.replace(mask_preset("smoke"), decoder=24)).to(memory_format=LAST)
    assert fuse(network) is None
    image = torch.rand(2, 3, 32, 32).contiguous(memory_format=LAST)
    assert type(network(image).grad_fn).__name__.startswith("_Project")


@pytest.mark.parametrize("size", [(2, 2), (1, 4), (5, 12), (32, 32)])
@pytest.mark.parametrize("spread", [0.1, 3, 30])
def test_mask_errors_are_torchs(size, spread, monkeypatch):
    logits, truth = spread * torch.randn(3, 1, *size), torch.rand(3, 1, 2 * size[0], 2 * size[1])
    truth[0], truth[1] = 0, truth[1].round()

    def ours(logits):
        errors = operations.measure_masks(logits, truth)
        assert errors is not None, "this shape does not test the kernel"
        return torch.stack(errors)

    plain = differentiate(
        lambda x: torch.stack(_measure_masks(x, truth.to(x.dtype))), [logits], torch.float32
    )
    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "float", torch.Tensor.double)
        exact = differentiate(
            lambda x: torch.stack(_measure_masks(x, truth.to(x.dtype))), [logits], torch.float64
        )
    assert_no_worse(differentiate(ours, [logits], torch.float32), plain, exact, torch.float32)


def test_mask_errors_of_a_sure_network_are_finite_and_right():
    logits = torch.tensor([1e4, -1e4])[:, None, None, None].expand(2, 1, 4, 4).clone().requires_grad_()
    truth = torch.ones(2, 1, 8, 8)
    entropy, soft_iou = operations.measure_masks(logits, truth)
    assert_close(entropy, torch.tensor([0.0, 1e4]))
    assert_close(soft_iou, torch.tensor([0.0, 64 / 65]))
    (entropy.sum() + soft_iou.sum()).backward()
    assert_close(logits.grad[0], torch.zeros(1, 4, 4))
    assert_close(logits.grad[1], torch.full((1, 4, 4), -1 / 16))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_diverged_logit_stays_visible(value):
    logits, truth = torch.zeros(2, 1, 4, 4), torch.rand(2, 1, 8, 8)
    logits[1, 0, 2, 2] = value
    entropy, _ = operations.measure_masks(logits, truth)
    assert entropy[0].isfinite() and not entropy[1].isfinite()


@pytest.mark.parametrize(("small", "large"), [((3, 3), (5, 6)), ((4, 4), (4, 4)), ((3, 3), (6, 6))])
def test_masks_of_other_sizes_are_left_to_torch(small, large):
    logits, truth = torch.randn(2, 1, *small), torch.rand(2, 1, *large)
    assert operations.measure_masks(logits, truth) is None
    loss = mask_loss(logits, truth, torch.tensor([True, False]))
    entropy, soft_iou = _measure_masks(logits[:1], truth[:1])
    assert_close(loss.total, (entropy + soft_iou).sum())


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("size", [1, 15, 16, 1000, 1037])
def test_averages_of_gradients_are_nesterovs(size, dtype):
    gradient, average = torch.randn(size), torch.randn(size)
    expected = torch.lerp(average, gradient, 0.05)
    update = torch.full((size + 1,), 7.0, dtype=dtype)  # the last number is not the kernel's
    operations.average_gradient(gradient, average, update[:-1], 0.95)
    assert_close(average, expected)
    step = torch.lerp(gradient, expected, 0.95)
    assert_close(
        update[:-1].float(), step, rtol={torch.float32: 1e-6, torch.bfloat16: 5e-3}[dtype], atol=1e-6
    )
    assert update[-1] == 7


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_diverged_picture_stays_visible(value):
    predicted, target = torch.rand(2, 3, 5, 5), torch.rand(2, 3, 5, 5)
    predicted[1, 2, 4, 4] = value
    error = mean_squared_error(predicted, target)
    assert error[0].isfinite() and not error[1].isfinite()


@pytest.mark.parametrize(
    ("size", "stride", "padding", "dilation"), [(3, 1, 1, 1), (3, 2, 1, 1), (3, 1, 2, 2), (1, 2, 0, 1)]
)
def test_the_gradient_of_a_convolutions_weights(size, stride, padding, dilation):
    x = torch.randn(4, 64, 4, 4).bfloat16().contiguous(memory_format=LAST)
    layer = nn.Conv2d(64, 32, size, stride, padding, dilation, bias=False)
    ours = copy.deepcopy(layer)
    ours.__class__ = FUSED[nn.Conv2d]
    assert type(ours(x).grad_fn).__name__.startswith("_Convolve"), "this shape does not test the kernel"

    def run(layer):
        def function(x, weight):
            with torch.autocast("cpu", torch.bfloat16, enabled=x.dtype != torch.float64):
                return torch.func.functional_call(layer, {"weight": weight}, (x,))

        return function

    def gradients(layer, dtype):
        leaves = [x.detach().to(dtype).requires_grad_(), layer.weight.detach().clone().requires_grad_()]
        leaves[1] = (
            leaves[1].detach().bfloat16().double().requires_grad_() if dtype == torch.float64 else leaves[1]
        )
        y = run(layer)(*leaves)
        torch.manual_seed(1)
        y.backward(torch.randn(y.shape).bfloat16().to(y.dtype))
        return [t.detach().double() for t in (y, *(leaf.grad for leaf in leaves))]

    truth = gradients(layer, torch.float64)
    assert_no_worse(gradients(ours, torch.bfloat16), gradients(layer, torch.bfloat16), truth, torch.bfloat16)


def test_a_grouped_convolution_on_a_small_map_is_left_to_torch():
    x = torch.randn(4, 64, 4, 4).bfloat16().contiguous(memory_format=LAST)
    layer = nn.Conv2d(64, 32, 3, padding=1, groups=2, bias=False)
    ours = copy.deepcopy(layer)
    ours.__class__ = FUSED[nn.Conv2d]
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ours(x), layer(x))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("readers", [2, 3, 6])
def test_fan_out_adds_gradients(dtype, readers):
    x = make_map(2, 16, 3, 5, dtype=dtype)

    def ours(x):
        return operations._FanOut.apply(x, readers)

    def plain(x):
        return tuple(x * 1 for _ in range(readers))

    truth = differentiate(plain, [x], torch.float64)
    assert_no_worse(differentiate(ours, [x], dtype), differentiate(plain, [x], dtype), truth, dtype)


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize(("channels", "stride"), [(32, 1), (48, 2), (24, 1)])
def test_selective_kernel(bf16, channels, stride):
    x = make_map(4, 16, 6, 7)
    kernel = SelectiveKernel(16, channels, stride=stride, reduced=8)
    ours = copy.deepcopy(kernel)
    ours.__class__ = FUSED[SelectiveKernel]

    def gradients(kernel, dtype):
        kernel = copy.deepcopy(kernel).to(dtype)
        maps = x.to(dtype).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16 and dtype != torch.float64):
            y = kernel(maps)
        torch.manual_seed(1)
        y.backward(torch.randn(y.shape).bfloat16().to(y.dtype))
        return [t.detach().double() for t in (y, maps.grad, *(p.grad for p in kernel.parameters()))]

    truth = gradients(kernel, torch.float64)
    results = [gradients(k, torch.float32) for k in (ours, kernel)]
    for own, other, true in zip(*results, truth, strict=True):
        assert distance(own, true) <= 1.5 * distance(other, true) + (0.02 if bf16 else 2e-5)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("channels", "coarse", "fine"), [
    (16, (1, 1), (2, 2)), (24, (3, 5), (6, 10)), (40, (4, 4), (8, 8)), (16, (3, 3), (3, 3)),
    (16, (3, 4), (5, 8)), (8, (2, 2), (4, 4)),
])  # fmt: skip
def test_a_coarse_map_is_enlarged_and_added(channels, coarse, fine, dtype):
    x, skip = make_map(3, channels, *coarse, dtype=dtype), make_map(3, channels, *fine, dtype=dtype)

    def plain(skip, x):
        return skip + F.interpolate(x, size=skip.shape[2:], mode="bilinear")

    truth = differentiate(plain, [skip, x], torch.float64)
    ours = differentiate(operations.enlarge_and_add, [skip, x], dtype)
    assert_no_worse(ours, differentiate(plain, [skip, x], dtype), truth, dtype)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize(("axes", "width"), [(2, 16), (3, 48)])
def test_first_and_last_layer_of_a_fold(axes, width, shared, dtype):
    code, weight = torch.randn(3, width), torch.randn(width, axes)
    points = torch.randn(axes, 7).T if shared else torch.randn(3, 7, axes)
    out, bias = torch.randn(3, width), torch.randn(3)
    inputs = [code, points, weight, out, bias]

    def ours(code, points, weight, out, bias):
        return operations.fold_out(operations.fold_in(code, points, weight, dtype), out, bias)

    def plain(code, points, weight, out, bias):
        return torch.relu(code[:, None] + points @ weight.T) @ out.T + bias

    truth = differentiate(plain, inputs, torch.float64)
    small = {torch.float32: 1e-5, torch.bfloat16: 2e-2}[dtype]
    for own, true in zip(differentiate(ours, inputs, torch.float32), truth, strict=True):
        assert own.shape == true.shape and distance(own, true) < small


@pytest.mark.parametrize("dtype", TYPES)
def test_results_do_not_depend_on_the_number_of_threads(dtype):
    x, other = make_map(16, 16, 17, 17, dtype=dtype), make_map(16, 16, 17, 17, dtype=dtype)

    def run():
        norm = make_norm(16)
        results = run_norm(norm, lambda n, a, b: normalise(n, a, b, readers=3), [x, other], dtype)
        leaf = x.clone().requires_grad_()
        norm = make_norm(16)
        y, again = pool(norm, leaf)
        (y.float().square().sum() + again.float().sum()).backward()
        logits = x[:, :1, :16, :16].float().requires_grad_()
        errors = torch.stack(operations.measure_masks(logits, torch.rand(16, 1, 32, 32)))
        weight = torch.randn(1, 16, 1, 1).requires_grad_()
        (errors.sum() + operations.project(x, weight, torch.zeros(1)).square().sum()).backward()
        average, update = torch.rand(1037), torch.empty(1037)
        operations.average_gradient(torch.rand(1037), average, update, 0.9)
        new = [errors.detach(), logits.grad, weight.grad, average, update]
        return [*results, y.detach(), leaf.grad, norm.weight.grad, mean_squared_error(x, other), *new]

    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            torch.manual_seed(0)
            results.append(run())
    finally:
        torch.set_num_threads(before)
    for one, two in zip(*results, strict=True):
        assert torch.equal(one, two)


def small(name):
    """A network of each kind that is trained, and an image for it."""
    if name == "mask":
        return HandMaskNet(mask_preset("smoke")), 48
    config = preset("smoke").model
    if name in ("se", "none"):
        config = dataclasses.replace(config, attention=name)
    elif name == "laptop":
        config = dataclasses.replace(preset("laptop").model, width=16)
    elif name == "limbs":
        config = dataclasses.replace(
            config, image_decoder="limbs", image_last_stride=4, cloud_decoder="limbs"
        )
    elif name == "gpu":
        config = dataclasses.replace(
            preset("gpu").model, width=16, image_px=64, last_stride=2, fold_grid=6, fold_hidden=16
        )
    return DaVAE(config), config.image_px


def leaves(output):
    """All tensors of nested outputs, in order."""
    if output is None:
        return []
    if isinstance(output, torch.Tensor):
        return [output]
    if not isinstance(output, dict | list | tuple):
        output = vars(output)
    parts = output.values() if isinstance(output, dict) else output
    return [x for part in parts for x in leaves(part)]


def step(network, image):
    torch.manual_seed(3)
    outputs = leaves(network(image))
    loss = sum((k + 1) * y.square().mean() for k, y in enumerate(outputs))
    loss.backward()
    return [y.detach() for y in outputs]


# Blocks with squeeze-excitation are not fused, so that fused sequences must not hand them a map twice.


@pytest.mark.parametrize("name", ["smoke", "se", "none", "limbs", "laptop", "gpu", "mask"])
def test_a_fused_network_is_the_same_network(name, monkeypatch):
    network, px = small(name)
    with torch.no_grad():
        for part in network.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.weight.uniform_(0.5, 1.5)
                part.bias.normal_(std=0.1)
    network = network.to(memory_format=LAST)
    image = torch.rand(6, 3, px, px).contiguous(memory_format=LAST)
    quick = copy.deepcopy(network)
    assert fuse(quick) is None
    assert any(type(part) in FUSED.values() for part in quick.modules())
    assert list(quick.state_dict()) == list(network.state_dict())

    wide = copy.deepcopy(network).double()
    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "float", torch.Tensor.double)  # last layers run in fp32
        truth = step(wide, image.double())
    for own, other, true in zip(step(quick, image), step(network, image), truth, strict=True):
        assert_close(own, other, rtol=1e-3, atol=2e-4)
        assert distance(own.double(), true.double()) <= 3 * distance(other.double(), true.double()) + 1e-5
    exact = dict(wide.named_parameters())
    # Of the sum over all: single gradients, as that of a bias before BatchNorm, may be nothing but rounding.
    total = torch.stack([p.grad.norm() for p in exact.values() if p.grad is not None]).norm()
    errors = {
        key: torch.stack(
            [(p.grad - exact[n].grad).norm() for n, p in net.named_parameters() if p.grad is not None]
        ).norm()
        / total
        for key, net in (("ours", quick), ("torch", network))
    }
    assert errors["ours"] <= 3 * errors["torch"] + 1e-5
    for key, value in quick.state_dict().items():
        if "running" in key or "tracked" in key:
            assert_close(value, network.state_dict()[key], rtol=1e-4, atol=1e-5)

    average = copy.deepcopy(quick)  # as the average of weights is made
    network.load_state_dict(quick.state_dict())
    with torch.no_grad():
        evaluated = [leaves(net.eval()(image)) for net in (network, quick, average)]
    for plain, own, copied in zip(*evaluated, strict=True):
        assert torch.equal(plain, own) and torch.equal(own, copied)
