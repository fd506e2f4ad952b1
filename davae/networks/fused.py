"""Faster training on a CPU: the same networks, with fewer passes over memory.

`fuse` exchanges the forward passes of a network's parts for ones that use `davae.networks.native`: BatchNorm,
the sum with a skip connection, ReLU and pooling become one operation each way, as do the image decoder's last
steps. Parameters, their names and the mathematics stay; results differ by rounding. In evaluation mode, on a GPU,
and for shapes that the kernels do not know, PyTorch's own operations run.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from davae.networks.blocks import BasicBlock, SelectiveKernel, SelectiveKernelBlock
from davae.networks.decoders import ImageDecoder
from davae.networks.encoder import Encoder, Head, Posterior, ResNetBase, Trunk
from davae.networks.handmask import ResNet
from davae.networks.native import call, explain_missing

LANES, PIECES = 16, 32  # of kernels.c
FEW = 16  # places of a map on which a weight's gradient is faster by a matrix product
NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
Pair = tuple[Tensor, Tensor]  # one map twice, so that the gradients of its two readers are added in one pass


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


def _workspace(columns: int) -> Tensor:
    return torch.empty((2 * PIECES + 5) * columns)


class _Normalise(torch.autograd.Function):
    """BatchNorm, a residual if there is one, and ReLU if asked for."""

    @staticmethod
    def forward(ctx, x, residual, weight, bias, mean, var, momentum, eps, relu, twice):
        channels = x.shape[1]
        rows, columns = x.numel() // channels, _columns(channels)
        y, saved = torch.empty_like(x), x.new_empty(4, channels, dtype=torch.float32)
        call(
            f"bn_forward_{NAMES[x.dtype]}", x, residual, y, weight, bias, mean, var, saved, _workspace(columns),
            momentum, eps, rows, channels, relu,
        )  # fmt: skip
        ctx.save_for_backward(x, saved, y if relu and residual is not None else None)
        ctx.relu, ctx.has_residual = relu, residual is not None
        return (y, y.view_as(y)) if twice else y

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient, other=None):
        x, saved, y = ctx.saved_tensors
        channels = x.shape[1]
        rows, columns = x.numel() // channels, _columns(channels)
        gradient, other = _order(gradient), None if other is None else _order(other)
        of_x, affine = torch.empty_like(x), x.new_empty(2, channels, dtype=torch.float32)
        written = ctx.has_residual and (ctx.relu or other is not None)
        of_residual = torch.empty_like(x) if written else gradient if ctx.has_residual else None
        call(
            f"bn_backward_{NAMES[x.dtype]}", gradient, other, x, y, saved, of_x,
            of_residual if written else None, affine, _workspace(columns), rows, channels, ctx.relu,
        )  # fmt: skip
        return of_x, of_residual, affine[0], affine[1], *(None,) * 6


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
            f"pool_forward_{NAMES[x.dtype]}", x, y, chosen, weight, bias, mean, var, saved, _workspace(channels),
            momentum, eps, batch, height, width, channels,
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


def unfold(x: Tensor, size: int, stride: int, padding: int, dilation: int, rows: int, columns: int) -> Tensor:
    """Return the patches (b rows columns, size size c) of x (b, c, h, w) that make up a convolution's output."""
    batch, channels, height, width = x.shape
    out = x.new_empty(batch * rows * columns, size * size * channels)
    call(
        f"unfold_{NAMES[x.dtype]}", x, out, batch, height, width, channels, rows, columns, size, stride, padding,
        dilation,
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


class FusedConvolution(nn.Conv2d):
    """A convolution whose weights get their gradient by a matrix product, where that is faster."""

    def forward(self, x: Tensor) -> Tensor:
        """As `torch.nn.Conv2d`."""
        kind, bf16 = x.device.type, torch.bfloat16
        if (
            torch.is_autocast_enabled(kind)
            and torch.get_autocast_dtype(kind) == bf16
            and x.dtype == torch.float32
        ):
            x = x.to(bf16)
        (stride, _), (padding, _), (dilation, _) = self.stride, self.padding, self.dilation
        places = len(x[0, 0].flatten()) // stride**2
        few = places <= FEW or (places <= 4 * FEW and stride > 1)
        if not (self.training and few and x.dtype == bf16 and self.bias is None and is_supported(x)):
            return super().forward(x)
        return _Convolve.apply(x, self.weight, stride, padding, dilation)


class _FanOut(torch.autograd.Function):
    """One map for two to six readers, whose gradients are added in one pass."""

    @staticmethod
    def forward(ctx, x, readers):
        return tuple(x.view_as(x) for _ in range(readers))

    @staticmethod
    @once_differentiable
    def backward(ctx, *gradients):
        gradients = [_order(gradient) for gradient in gradients]
        total = torch.empty_like(gradients[0])
        missing = [None] * (6 - len(gradients))
        call(f"add_maps_{NAMES[total.dtype]}", *gradients, *missing, total, total.numel())
        return total, None


class _Select(torch.autograd.Function):
    """A selective kernel's fuse and select: two maps (b, c, h, w) to their sum, weighted by `attend`.

    `attend` maps the mean (b, c) of the maps' sum to weights (b, 2, c). Its small graph is kept and differentiated
    inside, so that each large map is read twice and written once on the way back.
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
        y = torch.empty_like(first)
        call(
            f"select_forward_{NAMES[first.dtype]}",
            first,
            second,
            weights.detach().contiguous(),
            y,
            *ctx.sizes,
        )
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


class FusedSelectiveKernel(SelectiveKernel):
    """`SelectiveKernel` that reads its maps fewer times."""

    def forward(self, x: Tensor) -> Tensor:
        """As `SelectiveKernel`."""
        if not self.training or self.select.out_features % (2 * LANES):
            return super().forward(x)
        maps = self.split(x)
        return _Select.apply(*maps, self.attention, *self.fuse.parameters(), *self.select.parameters())


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
    joined = next(rows for rows in range(1, LANES + 1) if channels * rows % LANES == 0)
    return joined * channels


def normalise(
    norm: nn.BatchNorm2d, x: Tensor, residual: Tensor | None = None, *, relu: bool = True, twice: bool = False
) -> Any:
    """Return act(norm(x) + residual), (b, c, h, w); twice, as a `Pair`, if asked for."""
    if (
        norm.training
        and is_supported(x)
        and (residual is None or (residual.dtype == x.dtype and is_supported(residual)))
    ):
        _count(norm)
        return _Normalise.apply(
            x, residual, norm.weight, norm.bias, norm.running_mean, norm.running_var, norm.momentum, norm.eps,
            relu, twice,
        )  # fmt: skip
    y = norm(x) if residual is None else norm(x) + residual
    y = F.relu(y, inplace=True) if relu else y
    return (y, y) if twice else y


def _count(norm: nn.BatchNorm2d) -> None:
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)


def mean_squared_error(predicted: Tensor, target: Tensor) -> Tensor:
    """Return the mean squared error of each pair of pictures (b, 3, h, w), in fp32: (b,)."""
    if predicted.device.type != "cpu" or explain_missing():
        return F.mse_loss(predicted.float(), target.float(), reduction="none").mean(dim=(1, 2, 3))
    pictures = (x.float().contiguous(memory_format=torch.channels_last) for x in (predicted, target))
    return _SquaredError.apply(*pictures) / predicted[0].numel()


def _split(x: Tensor | Pair) -> Pair:
    return x if isinstance(x, tuple) else (x, x)


class FusedSequential(nn.Sequential):
    """Layers in a row, of which each BatchNorm and the ReLU after it run as one."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layers."""
        layers = [*self, None]
        done = -1
        for place, layer in enumerate(layers[:-1]):
            if place == done:
                continue
            if isinstance(layer, nn.BatchNorm2d):
                relu = isinstance(layers[place + 1], nn.ReLU)
                x = normalise(layer, x, relu=relu)
                done = place + 1 if relu else done
            else:
                x = layer(x)
        return x


class FusedBlock(BasicBlock):
    """`BasicBlock` with its BatchNorm, sum and ReLU as one; gives a `Pair` to a block after it."""

    twice = False

    def forward(self, x: Tensor | Pair) -> Any:
        """Map (b, c_in, h, w) to (b, c_out, h / stride, w / stride)."""
        x, skip = _split(x)
        y = normalise(self.bn1, self.conv1(x))
        return normalise(self.bn2, self.conv2(y), self.downsample(skip), twice=self.twice)


class FusedSelectiveBlock(SelectiveKernelBlock):
    """`SelectiveKernelBlock` likewise."""

    twice = False

    def forward(self, x: Tensor | Pair) -> Any:
        """Map (b, c_in, h, w) to (b, c_out, h / stride, w / stride)."""
        x, skip = _split(x)
        return normalise(self.bn2, self.conv2(self.selective(x)), self.downsample(skip), twice=self.twice)


def convolve_stem(conv: nn.Conv2d, image: Tensor) -> Tensor:
    """Return conv(2 image - 1) of images (b, 3, h, h) on [0, 1], for the 7 x 7 convolution of a stem.

    A convolution of stride s over 3 channels equals one without stride over s x s x 3 channels, the pixels of
    cells of the picture, which suits the processor better.
    """
    (stride, _), px = conv.stride, image.shape[-1]
    supported = conv.training and is_supported(image) and image.dtype == torch.float32 and not image.requires_grad
    if not supported or stride not in (2, 4) or px % stride or image.shape[2] != px or conv.kernel_size != (7, 7):
        x: Tensor = conv(2.0 * image - 1.0)
        return x
    size = 8 // stride  # cells that the kernel, with a row and a column of zeros before it, covers
    cells = px // stride + size - 1
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32
    out = image.new_empty(len(image), cells, cells, stride * stride * 3, dtype=dtype)
    call(f"arrange_cells_{NAMES[dtype]}", image, out, len(image), px, stride, size // 2, cells)
    weight = F.pad(conv.weight, (1, 0, 1, 0)).unflatten(3, (size, stride)).unflatten(2, (size, stride))
    weight = weight.permute(0, 3, 5, 1, 2, 4).flatten(1, 3)
    return F.conv2d(out.permute(0, 3, 1, 2), weight.contiguous(memory_format=torch.channels_last))


class _FusedStem(ResNetBase):
    def stem(self, image: Tensor) -> Tensor:
        return normalise(self.bn1, convolve_stem(self.conv1, image))


class FusedTrunk(_FusedStem, Trunk):
    """`Trunk` whose BatchNorm, ReLU and pooling after the first convolution run as one."""

    def forward(self, image: Tensor) -> Tensor:
        """As `Trunk`."""
        x, norm = convolve_stem(self.conv1, image), self.bn1
        pools = not isinstance(self.maxpool, nn.Identity)
        y: Tensor | Pair
        if pools and norm.training and is_supported(x) and x.shape[1] % LANES == 0:
            _count(norm)
            y = _NormaliseAndPool.apply(
                x, norm.weight, norm.bias, norm.running_mean, norm.running_var, norm.momentum, norm.eps
            )
        elif pools:
            y = self.maxpool(normalise(norm, x))
        else:
            y = normalise(norm, x, twice=True)
        return self.layer2(self.layer1(y))


class FusedEncoder(Encoder):
    """`Encoder` in which the gradients of the trunk's features, from all heads, are added in one pass."""

    def forward(self, image: Tensor) -> Posterior:
        """As `Encoder`."""
        features = self.trunk(image)
        if not (self.training and is_supported(features)):
            return self.apply_heads([features] * len(self.heads))
        readers = iter(_FanOut.apply(features, 2 * len(self.heads)))
        return self.apply_heads(list(zip(readers, readers, strict=True)))


class FusedResNet(_FusedStem, ResNet):
    """`ResNet` of the mask network whose stem is fused."""


class FusedImageDecoder(ImageDecoder):
    """`ImageDecoder` whose last steps, in sub-pixel form, run as one."""

    def forward(self, z: Tensor) -> Tensor:
        """As `ImageDecoder`."""
        if not (self.training and isinstance(self.out, nn.Sequential)):
            return super().forward(z)
        x = self.stages(self.start(z).contiguous(memory_format=torch.channels_last))
        # Channels in the order of pixels, (4, 4, 3) instead of (3, 4, 4), are put at their places in pieces.
        weight, bias = (
            w.unflatten(0, (3, 16)).transpose(0, 1).flatten(0, 1) for w in self.out[0].parameters()
        )
        return _Subpixel.apply(F.conv2d(x, weight, bias, padding=1))


FUSED: dict[type[nn.Module], type[nn.Module]] = {
    nn.Sequential: FusedSequential,
    nn.Conv2d: FusedConvolution,
    SelectiveKernel: FusedSelectiveKernel,
    BasicBlock: FusedBlock,
    SelectiveKernelBlock: FusedSelectiveBlock,
    Encoder: FusedEncoder,
    Trunk: FusedTrunk,
    ResNet: FusedResNet,
    ImageDecoder: FusedImageDecoder,
}


def fuse(network: nn.Module) -> str | None:
    """Let a network's parts train by the kernels; return why not, or None if they do."""
    if reason := explain_missing():
        return reason
    for module in list(network.modules()):
        layers = [(part,) for part in module.children() if isinstance(part, nn.Sequential)]
        if isinstance(module, Trunk | Head):  # whose layers follow each other with nothing between
            layers = [tuple(part for (part,) in layers)]
        for layer in layers:
            blocks = [block for part in layer for block in part]
            for block in blocks[:-1]:
                if isinstance(block, BasicBlock | SelectiveKernelBlock):
                    block.twice = True
    for module in list(network.modules()):
        if type(module) in FUSED:
            module.__class__ = FUSED[type(module)]
    return None
