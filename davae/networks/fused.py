"""Faster training on a CPU: the same networks, with fewer passes over memory.

`fuse` exchanges the forward passes of a network's parts for ones that use `davae.networks.native`. BatchNorm,
the sum with a skip connection, ReLU and pooling become one operation each way, as do a selective kernel's
sums, the image decoder's last steps and the image's error. Parameters, their names and the mathematics stay;
results differ by rounding. In evaluation mode, on a GPU, and for shapes that the kernels do not know,
PyTorch's own operations run.
"""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from davae.config import CANVAS
from davae.networks.blocks import (
    BasicBlock,
    SelectiveKernel,
    SelectiveKernelBlock,
    SqueezeExcitationBlock,
)
from davae.networks.decoders import Fold, ImageDecoder
from davae.networks.encoder import Encoder, Head, Posterior, Trunk
from davae.networks.handmask import HandMaskNet, ResNet
from davae.networks.limbs import REACH, LimbDecoder, project_bones
from davae.networks.native import explain_missing
from davae.networks.native.operations import (
    FEW,
    LANES,
    Pair,
    arrange_cells,
    convolve,
    draw_bones,
    enlarge_and_add,
    fan_out,
    fold_in,
    fold_out,
    is_supported,
    normalise,
    normalise_and_pool,
    normalise_and_shift,
    paint,
    project,
    select,
    subpixel,
)


class FusedSequential(nn.Sequential):
    """Layers in a row, of which each BatchNorm and the ReLU after it run as one."""

    def forward(self, x: Any) -> Any:
        """Apply the layers."""
        layers = list(self)
        while layers:
            layer = layers.pop(0)
            if isinstance(layer, nn.BatchNorm2d):
                relu = bool(layers) and isinstance(layers[0], nn.ReLU)
                x = normalise(layer, x, relu=relu)
                layers = layers[relu:]
            else:
                x = layer(x)
        return x


class FusedConvolution(nn.Conv2d):
    """A convolution whose weights get their gradient by a matrix product, where that is faster."""

    def forward(self, x: Tensor) -> Tensor:
        """As `torch.nn.Conv2d`."""
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        stride, padding, dilation = (int(pair[0]) for pair in (self.stride, self.padding, self.dilation))
        places = x.shape[2] * x.shape[3] // stride**2
        if self.training and self.bias is not None and self._projects(x):
            logits: Tensor = project(x, self.weight, self.bias)
            return logits
        few = places <= FEW or (places <= 4 * FEW and stride > 1)
        plain = self.bias is None and self.groups == 1
        if not (self.training and few and plain and x.dtype == torch.bfloat16 and is_supported(x)):
            return super().forward(x)
        y: Tensor = convolve(x, self.weight, stride, padding, dilation)
        return y

    def _projects(self, x: Tensor) -> bool:
        plain = self.out_channels == 1 and self.kernel_size == self.stride == (1, 1) and not any(self.padding)
        return plain and x.dtype == torch.float32 and is_supported(x) and x.shape[1] >= LANES


class FusedSelectiveKernel(SelectiveKernel):
    """`SelectiveKernel` that reads its branches' maps fewer times."""

    def weigh(self, first: Tensor, second: Tensor) -> Tensor:
        """As `SelectiveKernel`."""
        if not (self.training and is_supported(first) and first.shape[1] % LANES == 0):
            return super().weigh(first, second)
        y: Tensor = select(
            first, second, self.attention, [*self.fuse.parameters(), *self.select.parameters()]
        )
        return y


class FusedBlock(BasicBlock):
    """`BasicBlock` with BatchNorm, sum and ReLU as one. `readers`: layers that read its map, 1 to 3."""

    readers = 1

    def forward(self, x: Tensor | Pair) -> Any:
        """Map (b, c_in, h, w) to (b, c_out, h / stride, w / stride)."""
        x, skip = x if isinstance(x, tuple) else (x, x)
        y, skip = self.conv2(normalise(self.bn1, self.conv1(x))), self.downsample(skip)
        if isinstance(self.weigh, nn.Identity):
            return normalise(self.bn2, y, skip, readers=self.readers)
        y = F.relu(self.weigh(normalise(self.bn2, y, relu=False)) + skip)
        return y if self.readers == 1 else (y,) * self.readers


class FusedSelectiveBlock(SelectiveKernelBlock):
    """`SelectiveKernelBlock` likewise."""

    readers = 1

    def forward(self, x: Tensor | Pair) -> Any:
        """Map (b, c_in, h, w) to (b, c_out, h / stride, w / stride)."""
        x, skip = x if isinstance(x, tuple) else (x, x)
        return normalise(self.bn2, self.conv2(self.selective(x)), self.downsample(skip), readers=self.readers)


def convolve_stem(conv: nn.Conv2d, image: Tensor) -> Tensor:
    """Return conv(2 image - 1) of images (b, 3, h, h) on [0, 1], for the 7 x 7 convolution of a stem.

    A convolution of stride s over 3 channels equals one without stride over s x s x 3 channels, the pixels of
    cells of the picture, which suits the processor better.
    """
    stride, (height, px) = int(conv.stride[0]), image.shape[2:]
    known = conv.kernel_size == (7, 7) and stride in (2, 4) and height == px and px % stride == 0
    known = known and is_supported(image) and image.dtype == torch.float32 and not image.requires_grad
    if not (conv.training and known):
        y: Tensor = conv(2.0 * image - 1.0)
        return y
    size = 8 // stride  # cells that the kernel, with a row and a column of zeros before it, covers
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32
    x = arrange_cells(image, stride, size // 2, px // stride + size - 1, dtype)
    weight = F.pad(conv.weight, (1, 0, 1, 0)).reshape(-1, 3, size, stride, size, stride)
    weight = weight.permute(0, 3, 5, 1, 2, 4).flatten(1, 3)
    return F.conv2d(x, weight.contiguous(memory_format=torch.channels_last))


class FusedTrunk(Trunk):
    """`Trunk` whose BatchNorm, ReLU and pooling after the first convolution run as one."""

    def forward(self, image: Tensor) -> Tensor:
        """As `Trunk`."""
        x = convolve_stem(self.conv1, image)
        if isinstance(self.maxpool, nn.Identity):
            pair = normalise(self.bn1, x, readers=2)
        else:
            pair = normalise_and_pool(self.bn1, x, self.maxpool)
        features: Tensor = self.layer2(self.layer1(pair))
        return features


class FusedEncoder(Encoder):
    """`Encoder` in which the gradients of the trunk's features, from all heads, are added in one pass."""

    def forward(self, image: Tensor) -> Posterior:
        """As `Encoder`."""
        features = self.trunk(image)
        if not (self.training and is_supported(features)):
            pairs = [(features, features)] * len(self.heads)
        else:
            readers = iter(fan_out(features, 2 * len(self.heads)))
            pairs = list(zip(readers, readers, strict=True))
        codes = {block: head(pair) for (block, head), pair in zip(self.heads.items(), pairs, strict=True)}
        return Posterior(*({block: code[k] for block, code in codes.items()} for k in (0, 1)))


class FusedResNet(ResNet):
    """`ResNet` of the mask network, in which the gradients of a map's readers are added in one pass."""

    def forward(self, image: Tensor) -> list[Tensor]:
        """As `ResNet`."""
        pooled = not isinstance(self.maxpool, nn.Identity)
        stem, *pair = normalise(self.bn1, convolve_stem(self.conv1, image), readers=2 if pooled else 3)
        maps, x = [stem], self.maxpool(pair[0]) if pooled else tuple(pair)
        for layer in (self.layer1, self.layer2, self.layer3):
            own, *pair = layer(x)
            maps, x = [*maps, own], tuple(pair)
        return [*maps, self.layer4(x)]


class FusedHandMaskNet(HandMaskNet):
    """`HandMaskNet` whose decoder enlarges and adds in one pass."""

    def add_finer(self, x: Tensor, skip: Tensor) -> Tensor:
        """As `HandMaskNet`."""
        return enlarge_and_add(skip, x) if self.training else super().add_finer(x, skip)


class FusedImageDecoder(ImageDecoder):
    """`ImageDecoder` whose last steps, in sub-pixel form, run as one."""

    def forward(self, z: Tensor) -> Tensor:
        """As `ImageDecoder`."""
        if not (self.training and isinstance(self.out, nn.Sequential)):
            return super().forward(z)
        x = self.stages(self.start(z).contiguous(memory_format=torch.channels_last))
        # Channels in the order of pixels, (4, 4, 3) instead of (3, 4, 4), are put at their places in pieces.
        parameters = self.out[0].parameters()
        weight, bias = (w.reshape(3, 16, *w.shape[1:]).transpose(0, 1).reshape(w.shape) for w in parameters)
        y: Tensor = subpixel(F.conv2d(x, weight, bias, padding=1))
        return y


class FusedLimbDecoder(LimbDecoder):
    """`LimbDecoder` in fewer passes, above all of drawing bones and of putting the hand over grey."""

    def draw(self, joints: Tensor) -> Tensor:
        """As `LimbDecoder`."""
        if not (self.training and joints.device.type == "cpu") or joints.requires_grad:
            return super().draw(joints)
        lines = project_bones(joints)
        bones = torch.cat([lines.start, lines.way, lines.scale[..., None]], 2).transpose(1, 2)
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32
        return draw_bones(bones, self.side, CANVAS, REACH * CANVAS / self.side, dtype)

    def add_coarse(self, x: Tensor, coarse: Tensor) -> Tensor:
        """As `LimbDecoder`."""
        return enlarge_and_add(x, coarse) if self.training else super().add_coarse(x, coarse)

    def tell(self, x: Tensor, code: Tensor) -> Tensor:
        """As `LimbDecoder`."""
        return normalise_and_shift(self.norm, x, code)

    def paint(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """As `LimbDecoder`."""
        if not (self.training and self.stride in (2, 4) and is_supported(logits)):
            return super().paint(logits)
        return paint(logits, self.stride)


class FusedFold(Fold):
    """`Fold` whose first and last layer, each with its ReLU, run as one."""

    def forward(self, code: Tensor, points: Tensor) -> Tensor:
        """As `Fold`."""
        if not (self.training and code.device.type == "cpu" and self.hidden.in_features % LANES == 0):
            return super().forward(code, points)
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32
        x = fold_in(self.code(code), points, self.point.weight, dtype)
        y: Tensor = fold_out(self.hidden(x), self.out.weight, self.out.bias)
        return y


FUSED_BLOCKS = (FusedBlock, FusedSelectiveBlock)
FUSED: dict[type[nn.Module], type[nn.Module]] = {
    nn.Sequential: FusedSequential,
    nn.Conv2d: FusedConvolution,
    SelectiveKernel: FusedSelectiveKernel,
    BasicBlock: FusedBlock,
    SqueezeExcitationBlock: FusedBlock,
    SelectiveKernelBlock: FusedSelectiveBlock,
    Encoder: FusedEncoder,
    Trunk: FusedTrunk,
    ResNet: FusedResNet,
    Fold: FusedFold,
    LimbDecoder: FusedLimbDecoder,
    HandMaskNet: FusedHandMaskNet,
    ImageDecoder: FusedImageDecoder,
}


def fuse(network: nn.Module) -> str | None:
    """Let a network's parts train by the kernels; return why they cannot, or None if they do."""
    if reason := explain_missing():
        return reason
    for module in list(network.modules()):
        if type(module) in FUSED:
            module.__class__ = FUSED[type(module)]
    for module in list(network.modules()):
        layers = [list(layer) for layer in module.children() if isinstance(layer, nn.Sequential)]
        if isinstance(module, Trunk | Head):  # in these, one layer reads what the one before it gives
            layers = [[block for layer in layers for block in layer]]
        for block, reader in (pair for layer in layers for pair in pairwise(layer)):
            if isinstance(block, FUSED_BLOCKS) and isinstance(reader, FUSED_BLOCKS):
                block.readers = 2
        if isinstance(module, FusedResNet):  # the decoder reads the maps of its layers, too
            for layer in (module.layer1, module.layer2, module.layer3):
                block = layer[-1]
                assert isinstance(block, FusedBlock)
                block.readers = 3
    return None
