"""The encoder of da-VAE (paper 3.2): one shared trunk, three heads, a Gaussian posterior per block of z."""

from functools import partial
from typing import NamedTuple

from torch import Tensor, nn

from davae.config import BLOCKS, ModelConfig
from davae.networks.blocks import (
    BasicBlock,
    SelectiveKernelBlock,
    SqueezeExcitationBlock,
    full_precision,
    residual_layer,
)

# Bounds of the log variance: exp(-12) is far below any useful noise, exp(8) far above the prior's.
LOGVAR_MIN, LOGVAR_MAX = -12.0, 8.0


class Posterior(NamedTuple):
    """q(z|x) = N(mean, exp(logvar)), each a dict from block name to (b, z)."""

    means: dict[str, Tensor]
    logvars: dict[str, Tensor]


class Trunk(nn.Module):
    """Stem, layer1 and layer2 of ResNet-34: (b, 3, h, w) to (b, 2 width, h / 8, w / 8) at full strides."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        width = config.width
        self.conv1 = nn.Conv2d(3, width, 7, stride=config.stem_stride, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if config.stem_pool else nn.Identity()
        self.layer1 = residual_layer(BasicBlock, width, width, blocks=config.blocks[0], stride=1)
        self.layer2 = residual_layer(BasicBlock, width, 2 * width, blocks=config.blocks[1], stride=2)

    def forward(self, image: Tensor) -> Tensor:
        """Map images on [0, 1] (b, 3, h, w) to shared features."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(2.0 * image - 1.0))))
        return self.layer2(self.layer1(x))


class Head(nn.Module):
    """layer3 and layer4, pooled or not, and one linear layer to (mean, log variance) of one block of z."""

    def __init__(self, config: ModelConfig, block: str):
        super().__init__()
        channels, (third, fourth) = 2 * config.width, config.head_widths(block)
        layers = (
            ("layer3", third, config.blocks[2], 2),
            ("layer4", fourth, config.blocks[3], config.last_stride),
        )
        for name, wide, blocks, stride in layers:
            # max(C/16, 32) at full width, the SK paper's r = 16 and L = 32; L in proportion below it.
            reduced = max(wide // 16, third // 8)
            kind = {
                "sk": partial(SelectiveKernelBlock, reduced=reduced),
                "se": partial(SqueezeExcitationBlock, reduced=reduced),
                "none": BasicBlock,
            }[config.attention]
            setattr(self, name, residual_layer(kind, channels, wide, blocks=blocks, stride=stride))
            channels = wide
        self.pooled = config.head_pool == "mean"
        self.places = config.last_px**2
        self.fc = nn.Linear(channels * (1 if self.pooled else self.places), 2 * config.latent_sizes[block])

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Map the trunk's features to mean and log variance, each (b, z)."""
        x = self.layer4(self.layer3(features))
        # Divided, what all places of an unpooled map share moves the code as much as their mean would.
        x = x.mean(dim=(2, 3)) if self.pooled else x.flatten(1) / self.places
        mean, logvar = full_precision(self.fc, x).chunk(2, dim=1)
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
        return Posterior(
            {block: mean for block, (mean, _) in codes.items()},
            {block: logvar for block, (_, logvar) in codes.items()},
        )
