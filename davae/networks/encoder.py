"""The encoder of da-VAE (paper 3.2): one shared trunk, three heads, a Gaussian posterior per block of z."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from davae.config import BLOCKS, MaskConfig, ModelConfig
from davae.networks.blocks import (
    BasicBlock,
    SelectiveKernelBlock,
    SqueezeExcitationBlock,
    residual_layer,
    run_in_fp32,
)

# Bounds of the log variance: exp(-12) is far below any useful noise, exp(8) far above the prior's.
LOGVAR_MIN, LOGVAR_MAX = -12.0, 8.0


class Posterior(NamedTuple):
    """q(z|x) = N(mean, exp(logvar)), each a dict from block name to (b, z)."""

    means: dict[str, Tensor]
    logvars: dict[str, Tensor]


class ResNetBase(nn.Module):
    """Stem, layer1 and layer2 of ResNet-34 (arXiv:1512.03385), under torchvision's names."""

    def __init__(self, config: ModelConfig | MaskConfig):
        super().__init__()
        width = config.width
        self.conv1 = nn.Conv2d(3, width, 7, stride=config.stem_stride, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if config.stem_pool else nn.Identity()
        self.layer1 = residual_layer(BasicBlock, width, width, depth=config.depths[0], stride=1)
        self.layer2 = residual_layer(BasicBlock, width, 2 * width, depth=config.depths[1], stride=2)

    def stem(self, image: Tensor) -> Tensor:
        """Map images on [0, 1] (b, 3, h, w) to (b, width, h / stride, w / stride), before pooling."""
        return F.relu(self.bn1(self.conv1(2.0 * image - 1.0)), inplace=True)


class Trunk(ResNetBase):
    """The features that all heads share."""

    def forward(self, image: Tensor) -> Tensor:
        """Map images on [0, 1] (b, 3, h, w) to (b, 2 width, h / 8, w / 8), at full strides."""
        features: Tensor = self.layer2(self.layer1(self.maxpool(self.stem(image))))
        return features


class Head(nn.Module):
    """layer3 and layer4, pooled or not, and one linear layer to (mean, log variance) of one block of z."""

    def __init__(self, config: ModelConfig, block: str):
        super().__init__()
        third, fourth = config.head_widths(block)
        kinds: dict[str, Callable[..., nn.Module]] = {
            "sk": SelectiveKernelBlock, "se": SqueezeExcitationBlock, "none": BasicBlock
        }  # fmt: skip

        def layer(channels_in: int, channels_out: int, depth: int, stride: int) -> nn.Sequential:
            kind = kinds[config.attention]
            if config.attention != "none":
                # max(C/16, 32) at full width, the SK paper's r = 16 and L = 32; L in proportion below it.
                kind = partial(kind, reduced=max(channels_out // 16, third // 8))
            return residual_layer(kind, channels_in, channels_out, depth=depth, stride=stride)

        self.layer3 = layer(2 * config.width, third, config.depths[2], 2)
        self.layer4 = layer(third, fourth, config.depths[3], config.last_stride)
        self.pooled = config.head_pool == "mean"
        self.places = config.last_px**2
        self.fc = nn.Linear(fourth * (1 if self.pooled else self.places), 2 * config.latent_sizes[block])

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Map the trunk's features to mean and log variance, each (b, z)."""
        x = self.layer4(self.layer3(features))
        # Divided by their number, the places of an unpooled map together move the code as far as their mean.
        x = x.mean(dim=(2, 3)) if self.pooled else x.flatten(1) / self.places
        mean, logvar = run_in_fp32(self.fc, x).chunk(2, dim=1)
        return mean, logvar.clamp(LOGVAR_MIN, LOGVAR_MAX)


class Encoder(nn.Module):
    """Trunk and one head per block of z, in the order of `BLOCKS`."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.trunk = Trunk(config)
        self.heads = nn.ModuleDict({block: Head(config, block) for block in BLOCKS})

    def forward(self, image: Tensor) -> Posterior:
        """Map images on [0, 1] (b, 3, h, w) to the posterior of each block."""
        features = self.trunk(image)
        codes = {block: head(features) for block, head in self.heads.items()}
        return Posterior(*({block: code[k] for block, code in codes.items()} for k in (0, 1)))
