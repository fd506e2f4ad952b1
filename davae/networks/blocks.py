"""Residual blocks: ResNet-34's (paper ref. 35), with a selective kernel (36), with squeeze-excitation (38).

Parameter names of the plain block are torchvision's, so that published ResNet-34 weights load.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def conv3x3(channels_in: int, channels_out: int, *, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    """Return a 3x3 convolution without bias that keeps the map's size at stride 1."""
    return nn.Conv2d(
        channels_in, channels_out, 3, stride=stride, padding=dilation, dilation=dilation, bias=False
    )


class SelectiveKernel(nn.Module):
    """Selective-kernel convolution (paper 3.3; arXiv:1903.06586): split, fuse, select.

    Two 3x3 branches, one dilated by 2 (which covers 5x5), are summed, pooled to one vector and turned into a
    softmax *across branches* for every channel; the output is the weighted sum of the branches.

    Differs from the SK paper: the input channels are split between the branches (as timm's `split_input`)
    and not grouped. The layer then has as many weights as a plain 3x3 convolution, so that da-VAE and na-VAE
    are "equivalent" in parameters, as paper 4.4 asks. `reduced` is the SK paper's reduction width d.
    """

    def __init__(self, channels_in: int, channels_out: int, *, stride: int, reduced: int):
        if channels_in % 2:
            raise ValueError(f"SelectiveKernel splits its input in two: {channels_in} channels are odd")
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(
                conv3x3(channels_in // 2, channels_out, stride=stride, dilation=dilation),
                nn.BatchNorm2d(channels_out),
                nn.ReLU(inplace=True),
            )
            for dilation in (1, 2)
        )
        self.fuse = nn.Sequential(
            nn.Linear(channels_out, reduced, bias=False), nn.BatchNorm1d(reduced), nn.ReLU(inplace=True)
        )
        self.select = nn.Linear(reduced, 2 * channels_out, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, c_in, h, w) to (b, c_out, h / stride, w / stride)."""
        # Convolving the halves as strided views of x takes a sixth more time than copying them first.
        last = x.is_contiguous(memory_format=torch.channels_last)
        layout = torch.channels_last if last else torch.contiguous_format
        halves = (half.contiguous(memory_format=layout) for half in x.chunk(2, dim=1))
        return self.weigh(*(branch(half) for branch, half in zip(self.branches, halves, strict=True)))

    def weigh(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the weighted sum of the branches' maps (b, c, h, w)."""
        weights = self.attention((first + second).mean(dim=(2, 3)))[..., None, None]
        return first * weights[:, 0] + second * weights[:, 1]

    def attention(self, mean: Tensor) -> Tensor:
        """Map the mean (b, c) of the branches' sum to weights (b, 2, c), which sum to 1 over the branches."""
        logits: Tensor = self.select(self.fuse(mean))
        return logits.view(mean.shape[0], 2, -1).softmax(dim=1)


class BasicBlock(nn.Module):
    """ResNet-34's block (arXiv:1512.03385): two 3x3 convolutions around a skip connection."""

    def __init__(self, channels_in: int, channels_out: int, *, stride: int = 1):
        super().__init__()
        self.conv1 = conv3x3(channels_in, channels_out, stride=stride)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = conv3x3(channels_out, channels_out)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.weigh: nn.Module = nn.Identity()
        self.downsample = _skip_connection(channels_in, channels_out, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, c_in, h, w) to (b, c_out, h / stride, w / stride)."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.weigh(self.bn2(self.conv2(y)))
        return F.relu(y + self.downsample(x), inplace=True)


class SelectiveKernelBlock(nn.Module):
    """ResNet-34's block with a selective kernel in place of its first convolution."""

    def __init__(self, channels_in: int, channels_out: int, *, stride: int = 1, reduced: int):
        super().__init__()
        self.selective = SelectiveKernel(channels_in, channels_out, stride=stride, reduced=reduced)
        self.conv2 = conv3x3(channels_out, channels_out)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.downsample = _skip_connection(channels_in, channels_out, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, c_in, h, w) to (b, c_out, h / stride, w / stride)."""
        y = self.bn2(self.conv2(self.selective(x)))
        return F.relu(y + self.downsample(x), inplace=True)


class SqueezeExcitation(nn.Module):
    """Weigh each channel by a number in (0, 1) that depends on all channels' means (arXiv:1709.01507)."""

    def __init__(self, channels: int, reduced: int):
        super().__init__()
        self.squeeze, self.excite = nn.Linear(channels, reduced), nn.Linear(reduced, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, c, h, w) to the same shape."""
        weights: Tensor = self.excite(F.relu(self.squeeze(x.mean(dim=(2, 3))))).sigmoid()
        return x * weights[..., None, None]


class SqueezeExcitationBlock(BasicBlock):
    """ResNet-34's block with squeeze-excitation before the sum with its skip connection."""

    def __init__(self, channels_in: int, channels_out: int, *, stride: int = 1, reduced: int):
        super().__init__(channels_in, channels_out, stride=stride)
        self.weigh = SqueezeExcitation(channels_out, reduced)


def residual_layer(
    block: Callable[..., nn.Module], channels_in: int, channels_out: int, *, depth: int, stride: int
) -> nn.Sequential:
    """Return `depth` residual blocks in a row, of which the first changes width and size."""
    first = block(channels_in, channels_out, stride=stride)
    return nn.Sequential(first, *(block(channels_out, channels_out) for _ in range(depth - 1)))


def initialise(module: nn.Module) -> None:
    """Initialise every convolution and linear layer below `module` as He et al. (arXiv:1502.01852)."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.kaiming_normal_(part.weight, mode="fan_in", nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def run_in_fp32(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply `layer` in fp32, also under autocast: the rounding of last layers costs millimetres."""
    with torch.autocast(x.device.type, enabled=False):
        return layer(x.float())


def _skip_connection(channels_in: int, channels_out: int, stride: int) -> nn.Module:
    if stride == 1 and channels_in == channels_out:
        return nn.Identity()
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 1, stride=stride, bias=False), nn.BatchNorm2d(channels_out)
    )
