"""Operations of a training step as kernels, each with its gradient.

Each equals a few operations of PyTorch up to rounding: BatchNorm, sums, ReLU and pooling; a selective
kernel's fuse and select; a convolution's gradient on small maps; the image decoder's last steps and the error
of the image.
Maps are (b, c, h, w) in channels-last memory, in fp32 or bf16.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from davae.networks.native import call, explain_missing

LANES, PIECES = 16, 32  # of kernels.c
FEW = 16  # places of a map on which a weight's gradient is faster by a matrix product
Pair = tuple[Tensor, Tensor]  # one map twice, so that the gradients of its two readers are added in one pass
NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}


def is_supported(x: Tensor) -> bool:
    """Return whether the kernels know a map (b, c, h, w): its type, its memory order and its size."""
    return (
        x.dtype in NAMES
        and x.device.type == "cpu"
        and x.is_contiguous(memory_format=torch.channels_last)
        and x.numel() % LANES == 0
        and x.numel() > x.shape[1]
    )


def _order(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _workspace(columns: int, pieces: int = PIECES) -> Tensor:
    return torch.empty((2 * max(pieces, PIECES) + 5) * columns)


class _Normalise(torch.autograd.Function):
    """BatchNorm, a residual or a code if there is one, and ReLU if asked for; for one to three readers."""

    @staticmethod
    def forward(ctx, x, residual, code, weight, bias, mean, var, momentum, eps, relu, readers):
        channels = x.shape[1]
        rows, columns = x.numel() // channels, _columns(channels)
        y, saved = torch.empty_like(x), x.new_empty(4, channels, dtype=torch.float32)
        call(
            f"bn_forward_{NAMES[x.dtype]}", x, residual, code, y, weight, bias, mean, var, saved,
            _workspace(columns), momentum, eps, len(x), rows, channels, relu,
        )  # fmt: skip
        ctx.save_for_backward(x, saved, y if relu and residual is not None else None, code)
        ctx.relu, ctx.has_residual = relu, residual is not None
        return y if readers == 1 else (y, *(y.view_as(y) for _ in range(readers - 1)))

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient, other=None, third=None):
        x, saved, y, code = ctx.saved_tensors
        channels = x.shape[1]
        rows, columns = x.numel() // channels, _columns(channels)
        gradient, other, third = (None if g is None else _order(g) for g in (gradient, other, third))
        of_x, affine = torch.empty_like(x), x.new_empty(2, channels, dtype=torch.float32)
        of_code = None if code is None else torch.empty_like(code)
        written = ctx.has_residual and (ctx.relu or other is not None)
        of_residual = torch.empty_like(x) if written else gradient if ctx.has_residual else None
        call(
            f"bn_backward_{NAMES[x.dtype]}", gradient, other, third, x, y, code, saved, of_x,
            of_residual if written else None, of_code, affine,
            _workspace(columns, PIECES if code is None else len(x)), len(x), rows, channels, ctx.relu,
        )  # fmt: skip
        return of_x, of_residual, of_code, affine[0], affine[1], *(None,) * 6


class _NormaliseAndPool(torch.autograd.Function):
    """BatchNorm, ReLU, and the largest of 3 x 3 pixels at stride 2."""

    @staticmethod
    def forward(ctx, x, weight, bias, mean, var, momentum, eps):
        batch, channels, height, width = x.shape
        y = x.new_empty(batch, channels, (height + 1) // 2, (width + 1) // 2)
        y = y.contiguous(memory_format=torch.channels_last)
        chosen = torch.empty_like(y, dtype=torch.uint8)
        saved = x.new_empty(4, channels, dtype=torch.float32)
        call(
            f"pool_forward_{NAMES[x.dtype]}", x, y, chosen, weight, bias, mean, var, saved,
            _workspace(channels), momentum, eps, batch, height, width, channels,
        )  # fmt: skip
        ctx.save_for_backward(x, saved, chosen)
        return y, y.view_as(y)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient, other):
        x, saved, chosen = ctx.saved_tensors
        batch, channels, height, width = x.shape
        gradient, other = _order(gradient), _order(other)
        of_x, affine = torch.empty_like(x), x.new_empty(2, channels, dtype=torch.float32)
        call(
            f"pool_backward_{NAMES[x.dtype]}", gradient, other, chosen, x, saved, of_x, affine,
            _workspace(channels), batch, height, width, channels,
        )  # fmt: skip
        return of_x, affine[0], affine[1], *(None,) * 4


class _Subpixel(torch.autograd.Function):
    """Maps (b, 4 x 4 x 3, h, w) to pictures (b, 3, 4 h, 4 w): the sigmoid of each, put at its place."""

    @staticmethod
    def forward(ctx, x):
        batch, _, height, width = x.shape
        y = x.new_empty(batch, 4 * height, 4 * width, 3, dtype=torch.float32)
        call(f"subpixel_forward_{NAMES[x.dtype]}", x, y, batch, height, width)
        ctx.save_for_backward(y)
        ctx.like = x.dtype, x.shape
        return y.permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        (y,), (dtype, shape) = ctx.saved_tensors, ctx.like
        gradient = _order(gradient.float())
        of_x = torch.empty(shape, dtype=dtype, memory_format=torch.channels_last)
        call(f"subpixel_backward_{NAMES[dtype]}", gradient, y, of_x, shape[0], shape[2], shape[3])
        return of_x


class _Paint(torch.autograd.Function):
    """Logits (b, 4 s s, h, w) of a mask and three colours to image and mask, s h x s w."""

    @staticmethod
    def forward(ctx, logits, stride):
        batch, _, height, width = logits.shape
        ctx.sizes = batch, height, width, stride
        image = logits.new_empty(batch, stride * height, stride * width, 3, dtype=torch.float32)
        seen = torch.empty_like(image[:, None, :, :, 0], memory_format=torch.contiguous_format)
        call(f"paint_forward_{NAMES[logits.dtype]}", logits, image, seen, *ctx.sizes)
        ctx.save_for_backward(logits)
        return image.permute(0, 3, 1, 2), seen

    @staticmethod
    @once_differentiable
    def backward(ctx, of_image, of_seen):
        (logits,) = ctx.saved_tensors
        of_image, of_seen = _order(of_image.float()), of_seen.float().contiguous()
        found = torch.empty_like(logits)
        call(f"paint_backward_{NAMES[logits.dtype]}", logits, of_image, of_seen, found, *ctx.sizes)
        return found, None


def unfold(x: Tensor, size: int, stride: int, padding: int, dilation: int, rows: int, columns: int) -> Tensor:
    """Return the patches (b rows columns, size size c) of x (b, c, h, w) that a convolution reads."""
    batch, channels, height, width = x.shape
    out = x.new_empty(batch * rows * columns, size * size * channels)
    call(
        f"unfold_{NAMES[x.dtype]}", x, out, batch, height, width, channels, rows, columns, size,
        stride, padding, dilation,
    )  # fmt: skip
    return out


class _Convolve(torch.autograd.Function):
    """A convolution whose weights get their gradient from a matrix product of patches and gradient.

    On small maps that is two to five times as fast as oneDNN's own way (bf16, a Xeon with AMX).
    """

    @staticmethod
    def forward(ctx, x, weight, stride, padding, dilation):
        weight = weight.to(x.dtype)
        ctx.save_for_backward(x, weight)
        ctx.how = stride, padding, dilation
        with torch.autocast("cpu", enabled=False):
            return F.conv2d(x, weight, None, *ctx.how)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        x, weight = ctx.saved_tensors
        gradient = _order(gradient)
        of_x = None
        if ctx.needs_input_grad[0]:
            lists = ([number, number] for number in ctx.how)
            of_x, _, _ = torch.ops.aten.convolution_backward(
                gradient, x, weight, None, *lists, False, [0, 0], 1, [True, False, False]
            )
        size = weight.shape[2]
        patches = unfold(x, size, *ctx.how, *gradient.shape[2:])
        transposed = gradient.permute(0, 2, 3, 1).flatten(0, 2).T
        if len(patches) <= FEW * len(x):  # a copy costs less than a product that reads across the rows
            transposed = transposed.contiguous()
        product = transposed @ patches
        of_weight = product.view(len(weight), size, size, -1).permute(0, 3, 1, 2).float()
        return of_x, of_weight, None, None, None


class _Select(torch.autograd.Function):
    """A selective kernel's fuse and select: two maps (b, c, h, w) to their sum, weighted by `attend`.

    `attend` maps the mean (b, c) of the maps' sum to weights (b, 2, c). Its small graph is kept and
    differentiated inside, so that each large map is read twice and written once on the way back.
    """

    @staticmethod
    def forward(ctx, first, second, attend, *parameters):
        batch, channels, height, width = first.shape
        ctx.sizes = batch, height * width, channels
        mean = first.new_empty(batch, channels, dtype=torch.float32)
        call(f"mean_of_sum_{NAMES[first.dtype]}", first, second, mean, *ctx.sizes)
        with torch.enable_grad():
            mean.requires_grad_()
            weights = attend(mean).float()
        y, shares = torch.empty_like(first), weights.detach().contiguous()
        call(f"select_forward_{NAMES[first.dtype]}", first, second, shares, y, *ctx.sizes)
        ctx.save_for_backward(first, second)
        ctx.mean, ctx.weights, ctx.parameters = mean, weights, parameters
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        first, second = ctx.saved_tensors
        name = NAMES[first.dtype]
        gradient = _order(gradient)
        of_weights = torch.empty_like(ctx.weights, memory_format=torch.contiguous_format)
        call(f"select_weights_{name}", gradient, first, second, of_weights, *ctx.sizes)
        of_mean, *others = torch.autograd.grad(ctx.weights, (ctx.mean, *ctx.parameters), of_weights)
        of_first, of_second = torch.empty_like(first), torch.empty_like(second)
        shared = (of_mean / ctx.sizes[1]).contiguous()
        weights = ctx.weights.detach().contiguous()
        call(f"select_backward_{name}", gradient, weights, shared, of_first, of_second, *ctx.sizes)
        return of_first, of_second, None, *others


class _FanOut(torch.autograd.Function):
    """One map for two to six readers, whose gradients are added in one pass."""

    @staticmethod
    def forward(ctx, x, readers):
        return tuple(x.view_as(x) for _ in range(readers))

    @staticmethod
    @once_differentiable
    def backward(ctx, *gradients):
        ordered = [_order(gradient) for gradient in gradients]
        total = torch.empty_like(ordered[0])
        missing = [None] * (6 - len(ordered))
        call(f"add_maps_{NAMES[total.dtype]}", *ordered, *missing, total, total.numel())
        return total, None


class _FoldIn(torch.autograd.Function):
    """relu(code + points @ weight.T): codes (b, h), points (p, d) or (b, p, d), weights (h, d)."""

    @staticmethod
    def forward(ctx, code, points, weight, dtype):
        code, points, weight = code.float().contiguous(), points.float().contiguous(), weight.T.contiguous()
        shared = points.ndim == 2
        ctx.sizes = len(code), points.shape[-2], points.shape[-1], code.shape[1], shared
        y = code.new_empty(len(code), points.shape[-2], code.shape[1], dtype=dtype)
        call(f"fold_in_forward_{NAMES[dtype]}", code, points, weight, y, *ctx.sizes)
        ctx.save_for_backward(points, weight, y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        points, weight, y = ctx.saved_tensors
        batch, count, axes, width, shared = ctx.sizes
        of_code, of_weight = weight.new_empty(batch, width), weight.new_empty(batch, axes, width)
        of_points = weight.new_empty(batch, count, axes)
        call(
            f"fold_in_backward_{NAMES[y.dtype]}", gradient.contiguous(), y, points, weight, of_code,
            of_points, of_weight, *ctx.sizes,
        )  # fmt: skip
        return of_code, of_points.sum(0) if shared else of_points, of_weight.sum(0).T, None


class _FoldOut(torch.autograd.Function):
    """relu(x) @ weight.T + bias in fp32, of x (b, p, h), weights (3, h) and a bias (3,): (b, p, 3)."""

    @staticmethod
    def forward(ctx, x, weight, bias):
        ctx.sizes = x.shape[0] * x.shape[1], x.shape[2]
        y = x.new_empty(*x.shape[:2], 3, dtype=torch.float32)
        call(f"fold_out_forward_{NAMES[x.dtype]}", x, weight.contiguous(), bias, y, *ctx.sizes)
        ctx.save_for_backward(x, weight)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        x, weight = ctx.saved_tensors
        of_x, of_weight = torch.empty_like(x), weight.new_empty(PIECES, *weight.shape)
        gradient = gradient.contiguous()
        call(
            f"fold_out_backward_{NAMES[x.dtype]}",
            gradient,
            x,
            weight.contiguous(),
            of_x,
            of_weight,
            *ctx.sizes,
        )
        return of_x, of_weight.sum(0), gradient.sum((0, 1))


class _Enlarge(torch.autograd.Function):
    """skip + x, enlarged twofold: (b, c, 2 h, 2 w) and (b, c, h, w) to (b, c, 2 h, 2 w)."""

    @staticmethod
    def forward(ctx, skip, x):
        batch, channels, height, width = ctx.shape = x.shape
        y = torch.empty_like(skip)
        call(f"enlarge_forward_{NAMES[x.dtype]}", skip, x, y, batch, height, width, channels)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        batch, channels, height, width = ctx.shape
        gradient = _order(gradient)
        of_x = torch.empty(ctx.shape, dtype=gradient.dtype, memory_format=torch.channels_last)
        call(f"enlarge_backward_{NAMES[of_x.dtype]}", gradient, of_x, batch, height, width, channels)
        return gradient, of_x


class _Project(torch.autograd.Function):
    """A 1 x 1 convolution to one channel in fp32, of maps (b, c, h, w), weights (1, c, 1, 1), a bias (1,)."""

    @staticmethod
    def forward(ctx, x, weight, bias):
        batch, channels, height, width = x.shape
        y = x.new_empty(batch, 1, height, width, dtype=torch.float32)
        call(f"project_forward_{NAMES[x.dtype]}", x, weight, bias, y, y.numel(), channels)
        ctx.save_for_backward(x, weight)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        x, weight = ctx.saved_tensors
        gradient = gradient.contiguous()  # of one channel: in either memory order
        of_x, of_weight = torch.empty_like(x), weight.new_empty(PIECES, *weight.shape[1:])
        call(
            f"project_backward_{NAMES[x.dtype]}", gradient, x, weight, of_x, of_weight, gradient.numel(),
            x.shape[1],
        )  # fmt: skip
        return of_x, of_weight.sum(0, keepdim=True), gradient.sum().view(1)


class _MaskErrors(torch.autograd.Function):
    """Logits (b, 1, h, w) and true masks (b, 1, 2 h, 2 w) to cross-entropies and 1 - soft IoUs: (2, b)."""

    @staticmethod
    def forward(ctx, logits, truth):
        ctx.sizes = len(logits), *logits.shape[2:]
        probability, errors = torch.empty_like(truth), logits.new_empty(4, len(logits))
        call("mask_errors", logits, truth, probability, errors, *ctx.sizes)
        ctx.save_for_backward(errors, truth, probability)
        ctx.shape = logits.shape
        return errors[:2]

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        errors, truth, probability = ctx.saved_tensors
        of_logits = gradient.new_empty(ctx.shape)
        call("mask_errors_backward", gradient.contiguous(), errors, truth, probability, of_logits, *ctx.sizes)
        return of_logits, None


class _SquaredError(torch.autograd.Function):
    """The squared error of each pair of pictures (b, 3, h, w), summed over all its numbers: (b,)."""

    @staticmethod
    def forward(ctx, predicted, target):
        sums = predicted.new_empty(len(predicted))
        call("squared_error", predicted, target, sums, len(sums), predicted[0].numel())
        ctx.save_for_backward(predicted, target)
        return sums

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        predicted, target = ctx.saved_tensors
        out = torch.empty_like(predicted)
        factor = 2 * gradient.contiguous()
        call("scaled_difference", predicted, target, factor, out, len(factor), predicted[0].numel())
        return out, None


def _columns(channels: int) -> int:
    """Return the channels of as many rows as are joined to one by the kernels."""
    return next(count for count in range(channels, (LANES + 1) * channels, channels) if count % LANES == 0)


def _statistics(norm: nn.BatchNorm2d) -> tuple[Any, ...]:
    """Return what a kernel needs of a BatchNorm in training mode; count the batch."""
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    return norm.weight, norm.bias, norm.running_mean, norm.running_var, norm.momentum, norm.eps


def normalise(
    norm: nn.BatchNorm2d, x: Tensor, residual: Tensor | None = None, *, relu: bool = True, readers: int = 1
) -> Any:
    """Return act(norm(x) + residual), (b, c, h, w); for more readers than one, a tuple of it for each.

    Args:
        norm: BatchNorm; in evaluation mode, and for maps that the kernels do not know, PyTorch computes.
        x: (b, c, h, w).
        residual: (b, c, h, w) to be added; None adds nothing.
        relu: whether a ReLU follows.
        readers: how many layers read the result, 1 to 3; their gradients are added in one pass.
    """
    known = residual is None or (residual.dtype == x.dtype and is_supported(residual))
    if norm.training and known and is_supported(x):
        return _Normalise.apply(x, residual, None, *_statistics(norm), relu, readers)
    y = norm(x) if residual is None else norm(x) + residual
    y = F.relu(y) if relu else y
    return y if readers == 1 else (y,) * readers


def normalise_and_shift(norm: nn.BatchNorm2d, x: Tensor, code: Tensor) -> Tensor:
    """Return relu(norm(x) + code) of a map (b, c, h, w) and a code (b, c) for all its places."""
    if norm.training and is_supported(x) and x[0].numel() % _columns(x.shape[1]) == 0:
        y: Tensor = _Normalise.apply(x, None, code.float().contiguous(), *_statistics(norm), True, 1)
        return y
    return F.relu(norm(x) + code[..., None, None])


def normalise_and_pool(norm: nn.BatchNorm2d, x: Tensor, pool: nn.Module) -> Pair:
    """Return pool(relu(norm(x))), where `pool` is the stem's: 3 x 3 at stride 2, padded by 1."""
    if norm.training and is_supported(x) and x.shape[1] % LANES == 0:
        first, second = _NormaliseAndPool.apply(x, *_statistics(norm))
        return first, second
    y = pool(normalise(norm, x))
    return y, y


def convolve(x: Tensor, weight: Tensor, stride: int, padding: int, dilation: int) -> Any:
    """Return the convolution of a bf16 map by square fp32 weights (o, c, k, k)."""
    return _Convolve.apply(x, weight, stride, padding, dilation)


def fan_out(x: Tensor, readers: int) -> tuple[Tensor, ...]:
    """Return a map `readers` times, 2 to 6; the gradients of all its readers are added in one pass."""
    return tuple(_FanOut.apply(x, readers))


def select(
    first: Tensor, second: Tensor, attend: Callable[[Tensor], Tensor], parameters: Iterable[Tensor]
) -> Any:
    """Return the weighted sum of two maps (b, c, h, w), c a multiple of `LANES`.

    Args:
        first, second: the maps.
        attend: maps the mean (b, c) of the maps' sum to weights (b, 2, c).
        parameters: all that `attend` depends on and that needs a gradient.
    """
    return _Select.apply(first, second, attend, *parameters)


def subpixel(x: Tensor) -> Any:
    """Return pictures (b, 3, 4 h, 4 w) in fp32: the sigmoids of (b, 4 x 4 x 3, h, w), each at its place."""
    return _Subpixel.apply(x)


def paint(logits: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """Return image (b, 3, s h, s w) and mask (b, 1, s h, s w), fp32; see `davae.networks.limbs.LimbDecoder`.

    Args:
        logits: (b, 4 s s, h, w), channels-last: of the mask, then of each colour.
        stride: s, 2 or 4.
    """
    image, seen = _Paint.apply(logits, stride)
    return image, seen


def arrange_cells(image: Tensor, step: int, before: int, cells: int, dtype: torch.dtype) -> Tensor:
    """Return 2 image - 1 with the pixels of each cell of step x step as channels, in channels-last memory.

    Args:
        image: (b, 3, px, px) on [0, 1], fp32 and channels-last, px a multiple of `step`.
        step: side of a cell.
        before: number of cells of zeros above and to the left.
        cells: number of cells in a row of the result.
        dtype: of the result, (b, step x step x 3, cells, cells).
    """
    out = image.new_empty(len(image), cells, cells, step * step * 3, dtype=dtype)
    call(f"arrange_cells_{NAMES[dtype]}", image, out, len(image), image.shape[-1], step, before, cells)
    return out.permute(0, 3, 1, 2)


def draw_bones(bones: Tensor, side: int, canvas: float, reach: float, dtype: torch.dtype) -> Tensor:
    """Return maps (b, 40, side, side) of `dtype`, channels-last; see `davae.networks.limbs.draw_limbs`.

    Args:
        bones: (b, 7, 20) fp32: x, y, depth of starts and of ways to ends, reciprocals of squared lengths.
        side: of the maps.
        canvas: side of the picture, in the unit of `bones`.
        reach: of the profile, in the same unit.
        dtype: fp32 or bf16.
    """
    bones = F.pad(bones, (0, 2 * LANES - bones.shape[2]), value=1.0).contiguous()
    maps = bones.new_empty(len(bones), side, side, 40, dtype=dtype)
    call(f"draw_bones_{NAMES[dtype]}", bones, maps, canvas, reach, len(bones), side)
    return maps.permute(0, 3, 1, 2)


def enlarge_and_add(skip: Tensor, x: Tensor) -> Tensor:
    """Return skip + x, (b, c, h, w), where x is interpolated to the size of skip."""
    if skip.shape[2:] == x.shape[2:]:
        return skip + x
    twofold = tuple(skip.shape[2:]) == (2 * x.shape[2], 2 * x.shape[3]) and x.shape[1] >= LANES
    if twofold and x.dtype == skip.dtype and is_supported(x) and is_supported(skip):
        y: Tensor = _Enlarge.apply(skip, x)
        return y
    return skip + F.interpolate(x, size=skip.shape[2:], mode="bilinear")


def project(x: Tensor, weight: Tensor, bias: Tensor) -> Any:
    """Return the 1 x 1 convolution (b, 1, h, w), in fp32, of a map (b, c, h, w), c at least `LANES`."""
    return _Project.apply(x, weight, bias)


def measure_masks(logits: Tensor, truth: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return each mask's mean cross-entropy and 1 - soft IoU, (b,) each, or None if the kernels cannot.

    Both are as `davae.training.mask_task.mask_loss` defines them.

    Args:
        logits: (b, 1, h, w), interpolated to the size of `truth`.
        truth: (b, 1, 2 h, 2 w) on [0, 1]; kernels want twice the sides, and a multiple of `LANES` pixels.
    """
    twofold = tuple(truth.shape[2:]) == (2 * logits.shape[2], 2 * logits.shape[3])
    known = logits.device.type == "cpu" and truth.dtype == torch.float32 and not truth.requires_grad
    if not (twofold and known and truth[0].numel() % LANES == 0) or explain_missing():
        return None
    entropy, soft_iou = _MaskErrors.apply(logits.float().contiguous(), truth.contiguous())
    return entropy, soft_iou


def fold_in(code: Tensor, points: Tensor, weight: Tensor, dtype: torch.dtype) -> Any:
    """Return relu(code + points @ weight.T), (b, p, h) of `dtype`, in one pass.

    Args:
        code: (b, h), h a multiple of `LANES`.
        points: (p, d), the same for all, or (b, p, d); d at most 3.
        weight: (h, d), fp32.
        dtype: fp32 or bf16.
    """
    return _FoldIn.apply(code, points, weight, dtype)


def fold_out(x: Tensor, weight: Tensor, bias: Tensor) -> Any:
    """Return relu(x) @ weight.T + bias, (b, p, 3) in fp32, of x (b, p, h), h a multiple of `LANES`."""
    return _FoldOut.apply(x.contiguous(), weight, bias)


def mean_squared_error(predicted: Tensor, target: Tensor) -> Tensor:
    """Return the mean squared error of each pair of pictures (b, 3, h, w), in fp32: (b,)."""
    predicted, target = predicted.float(), target.float()
    if predicted.device.type != "cpu" or target.requires_grad or explain_missing():
        return F.mse_loss(predicted, target, reduction="none").mean(dim=(1, 2, 3))
    sums: Tensor = _SquaredError.apply(_order(predicted), _order(target))
    return sums / predicted[0].numel()


def average_gradient(gradient: Tensor, average: Tensor, update: Tensor, momentum: float) -> None:
    """Let `average` move towards a gradient, and write the update of Nesterov's momentum.

    Args:
        gradient, average: fp32, in one memory order.
        update: of as many numbers in that order, fp32 or bf16; written.
        momentum: the share of the old average in the new one, and of the new one in the update.
    """
    call(f"average_gradient_{NAMES[update.dtype]}", gradient, average, update, momentum, gradient.numel())


def find_nearest(points: Tensor, others: Tensor) -> Tensor:
    """Return the index (b, n) of the nearest of `others` (b, m, 3) to each of `points` (b, n, 3), in fp32.

    All pairs are compared, by exact differences. Up to some thousand points that is faster than a k-d tree.
    """
    points = points.detach().contiguous()
    room = -others.shape[1] % LANES
    others = F.pad(others.detach().transpose(1, 2), (0, room), value=float("inf")).contiguous()
    nearest = torch.empty(points.shape[:2], dtype=torch.int64)
    call("find_nearest", points, others, nearest, *points.shape[:2], others.shape[2])
    return nearest
