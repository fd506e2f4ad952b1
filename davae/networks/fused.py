"""Faster training on a CPU: the same networks, with fewer passes over memory.

`fuse` exchanges the forward passes of a network's parts for ones that use `davae.networks.native`: BatchNorm,
the sum with a skip connection, ReLU and pooling become one operation each way, as do the image decoder's last
steps. Parameters, their names and the mathematics stay; results differ by rounding. In evaluation mode, on a GPU,
and for shapes that the kernels do not know, PyTorch's own operations run.
"""

import ctypes
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from davae.networks.blocks import BasicBlock, SelectiveKernelBlock, run_in_fp32
from davae.networks.decoders import ImageDecoder
from davae.networks.encoder import ResNetBase, Trunk
from davae.networks.handmask import ResNet
from davae.networks.native import explain_missing, load_kernels

LANES, PIECES = 16, 32  # of kernels.c
NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
Pair = tuple[Tensor, Tensor]  # one map twice, so that the gradients of its two readers are added in one pass


def call(name: str, *arguments: Tensor | float | None) -> None:
    """Call a kernel: tensors become pointers, None a null pointer; the number of threads comes last."""
    converted: list[Any] = []
    for value in arguments:
        if value is None or isinstance(value, Tensor):
            converted.append(ctypes.c_void_p(None if value is None else value.data_ptr()))
        else:
            converted.append(ctypes.c_double(value) if isinstance(value, float) else ctypes.c_int64(value))
    getattr(load_kernels(), name)(*converted, ctypes.c_int64(torch.get_num_threads()))


def is_supported(x: Tensor) -> bool:
    """Return whether the kernels know a map (b, c, h, w): its type, its memory order and its size."""
    return (
        x.dtype in NAMES
        and x.device.type == "cpu"
        and x.is_contiguous(memory_format=torch.channels_last)
        and x.numel() % LANES == 0
        and x.numel() > x.shape[1]
    )


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
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        other = None if other is None else other.contiguous(memory_format=torch.channels_last)
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
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        x, saved, chosen = ctx.saved_tensors
        batch, channels, height, width = x.shape
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        of_x, affine = torch.empty_like(x), x.new_empty(2, channels, dtype=torch.float32)
        call(
            f"pool_backward_{NAMES[x.dtype]}", gradient, chosen, x, saved, of_x, affine, _workspace(channels),
            batch, height, width, channels,
        )  # fmt: skip
        return of_x, affine[0], affine[1], *(None,) * 4


class _Subpixel(torch.autograd.Function):
    """Maps (b, 48, h, w) to pictures (b, 3, 4 h, 4 w): the sigmoid of each, put at its place."""

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
        gradient = gradient.float().contiguous(memory_format=torch.channels_last)
        of_x = torch.empty(shape, dtype=dtype, memory_format=torch.channels_last)
        call(f"subpixel_backward_{NAMES[dtype]}", gradient, y, of_x, shape[0], shape[2], shape[3])
        return of_x


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
    if norm.training and is_supported(x) and (residual is None or (residual.dtype == x.dtype and is_supported(residual))):
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


def squared_error(predicted: Tensor, target: Tensor) -> Tensor:
    """Return the squared error of pictures (b, 3, h, w), summed over all but the first axis, (b,)."""
    predicted, target = predicted.float(), target.float().contiguous(memory_format=torch.channels_last)
    return _SquaredError.apply(predicted.contiguous(memory_format=torch.channels_last), target)


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


class _FusedStem(ResNetBase):
    def stem(self, image: Tensor) -> Tensor:
        return normalise(self.bn1, self.conv1(2.0 * image - 1.0))


class FusedTrunk(_FusedStem, Trunk):
    """`Trunk` whose BatchNorm, ReLU and pooling after the first convolution run as one."""

    def forward(self, image: Tensor) -> Tensor:
        """As `Trunk`."""
        if isinstance(self.maxpool, nn.Identity):
            return super().forward(image)
        x, norm = self.conv1(2.0 * image - 1.0), self.bn1
        if norm.training and is_supported(x) and x.shape[1] % LANES == 0:
            _count(norm)
            x = _NormaliseAndPool.apply(
                x, norm.weight, norm.bias, norm.running_mean, norm.running_var, norm.momentum, norm.eps
            )
        else:
            x = self.maxpool(normalise(norm, x))
        return self.layer2(self.layer1(x))


class FusedResNet(_FusedStem, ResNet):
    """`ResNet` of the mask network whose stem is fused."""


class FusedImageDecoder(ImageDecoder):
    """`ImageDecoder` whose last steps, in sub-pixel form, run as one."""

    def forward(self, z: Tensor) -> Tensor:
        """As `ImageDecoder`."""
        x = self.stages(self.start(z).contiguous(memory_format=torch.channels_last))
        if isinstance(self.out, nn.Sequential):
            x = self.out[0](x)
            if self.training and is_supported(x):
                return _Subpixel.apply(x)
            return torch.sigmoid(self.out[1](x).float())
        return torch.sigmoid(run_in_fp32(self.out, x))


FUSED: dict[type[nn.Module], type[nn.Module]] = {
    nn.Sequential: FusedSequential,
    BasicBlock: FusedBlock,
    SelectiveKernelBlock: FusedSelectiveBlock,
    Trunk: FusedTrunk,
    ResNet: FusedResNet,
    ImageDecoder: FusedImageDecoder,
}


def fuse(network: nn.Module) -> str | None:
    """Let a network's parts train by the kernels; return why not, or None if they do."""
    if reason := explain_missing():
        return reason
    for module in list(network.modules()):
        blocks = list(module) if isinstance(module, nn.Sequential) else []
        for block in blocks[:-1]:
            if type(block) in (BasicBlock, SelectiveKernelBlock, FusedBlock, FusedSelectiveBlock):
                block.twice = True
        if type(module) in FUSED:
            module.__class__ = FUSED[type(module)]
    return None
