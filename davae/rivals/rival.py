"""What all rivals share: da-VAE's encoder of images, the form of a network, and its training as a `Task`.

Fair by construction: a rival reads the image by da-VAE's trunk and its three heads side by side, with plain
residual blocks, so that both spend the same arithmetic on it. Data, augmentation, masks, optimiser, schedule,
weight average and validation are the trainer's.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from functools import reduce
from itertools import pairwise
from pathlib import Path
from typing import ClassVar, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from davae.config import BLOCKS, ModelConfig, RivalConfig
from davae.losses import gaussian_kl
from davae.networks.blocks import conv3x3, run_in_fp32
from davae.networks.encoder import LOGVAR_MAX, LOGVAR_MIN, Head, Trunk
from davae.rivals.sight import lines_of_sight
from davae.training import runs
from davae.training.log import MetricsLog
from davae.training.task import Examples, Loss, Task
from synthhand.skeleton import JOINTS

MAP_STRIDE = 4  # pixels of the crop per cell of a heat map


class Rival(nn.Module, ABC):
    """A network that estimates joints from an image."""

    @abstractmethod
    def predict(self, image: Tensor, lines: Tensor) -> Tensor:
        """Return normalised joints (b, 21, 3), relative to the root, of test crops.

        Args:
            image: (b, 3, h, w) on [0, 1].
            lines: (b, 3, 3), see `davae.rivals.sight.lines_of_sight`; most methods need none.
        """


class Gaussian(NamedTuple):
    """A code's posterior N(mean, exp(logvar))."""

    mean: Tensor  # (b, z)
    logvar: Tensor  # (b, z)

    @classmethod
    def of(cls, numbers: Tensor) -> "Gaussian":
        """Return the Gaussian of a network's numbers (b, 2 z)."""
        mean, logvar = numbers.float().chunk(2, dim=1)
        return cls(mean, logvar.clamp(LOGVAR_MIN, LOGVAR_MAX))

    def draw(self, noise: Tensor) -> Tensor:
        """Return codes (b, z) for standard normal draws."""
        return self.mean + torch.exp(0.5 * self.logvar) * noise

    def kl(self) -> Tensor:
        """Return the divergence (b,) from the standard normal, nats summed over dimensions."""
        return gaussian_kl(self.mean, self.logvar).sum(1)


class Features(nn.Module):
    """da-VAE's encoder without its last layers: trunk, and the three heads' maps side by side."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.trunk = Trunk(config)
        self.heads = nn.ModuleDict({block: Head(config, block) for block in BLOCKS})
        for head in self.heads.values():
            del head.fc
        self.channels = sum(config.head_widths(block)[1] for block in BLOCKS)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Map images (b, 3, h, w) to the trunk's features and the heads' maps, (b, c, h', w') each."""
        features = self.trunk(image)
        maps = [cast(Head, head).layer4(cast(Head, head).layer3(features)) for head in self.heads.values()]
        return features, torch.cat(maps, 1)


class ImageEncoder(nn.Module):
    """An image to so many numbers, as `davae.networks.encoder.Head` does: pooled or not, then linear."""

    def __init__(self, config: ModelConfig, outputs: int):
        super().__init__()
        self.features = Features(config)
        self.pooled, self.places = config.head_pool == "mean", config.last_px**2
        self.fc = nn.Linear(self.features.channels * (1 if self.pooled else self.places), outputs)

    def forward(self, image: Tensor) -> Tensor:
        """Map images (b, 3, h, w) to (b, outputs), in fp32."""
        _, maps = self.features(image)
        return run_in_fp32(self.fc, maps.mean((2, 3)) if self.pooled else maps.flatten(1) / self.places)


class MapNet(nn.Module):
    """An image to maps with a cell for every four pixels a side: a light decoder, as the mask network's."""

    def __init__(self, config: ModelConfig, channels: int, outputs: int):
        super().__init__()
        self.features = Features(config)
        self.side = -(-config.image_px // MAP_STRIDE)
        self.coarse = nn.Conv2d(self.features.channels, channels, 1)
        self.fine = nn.Conv2d(2 * config.width, channels, 1)
        self.smooth = nn.Sequential(conv3x3(channels, channels), nn.BatchNorm2d(channels), nn.ReLU(True))
        self.out = nn.Conv2d(channels, outputs, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Map images (b, 3, h, w) to (b, outputs, h / 4, w / 4), the last layer in fp32."""
        features, maps = self.features(image)
        x = self.fine(features)
        x = x + F.interpolate(self.coarse(maps), size=x.shape[2:], mode="bilinear")
        x = F.interpolate(x, size=(self.side, self.side), mode="bilinear")
        return run_in_fp32(self.out, self.smooth(x))


def mlp(*widths: int) -> nn.Sequential:
    """Return linear layers of these widths with ReLU between them."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers[:-1])


def start_quiet(*layers: nn.Linear) -> None:
    """Let layers that give (mean, log variance) start with small means and little noise, as da-VAE's."""
    for layer in layers:
        nn.init.normal_(layer.weight, std=0.01)
        nn.init.constant_(layer.bias[layer.out_features // 2 :], -2.0)


def one_code(config: ModelConfig, latent: int) -> ModelConfig:
    """Return the config for decoders of da-VAE that all read one code of length `latent`."""
    return replace(config, divided=False, latent_pose=latent, latent_appearance=0, latent_shape=0)


def draw_noise(examples: Examples, size: int) -> Tensor:
    """Return this process's share (b, size) of standard normal draws for the whole batch."""
    noise = torch.randn(len(examples.indices), size, generator=examples.generator)[examples.own]
    return noise.to(examples.batch.image.device)


def weigh(terms: Mapping[str, Tensor], weights: Mapping[str, float]) -> Loss:
    """Return the weighted sum of terms; the log has every term unweighted and weighted."""
    weighted = {f"weighted_{name}": weights[name] * term for name, term in terms.items()}
    return Loss(reduce(torch.add, weighted.values()), {**terms, **weighted})


class RivalTask(Task):
    """The training of a rival, validated as da-VAE is: by its end-point error (mm, protocol P1)."""

    measured = "val_epe_mm"
    network: ClassVar[type[Rival]]

    def __init__(self, config: RivalConfig, init: Path | str | None = None):
        if config.train.only:
            raise ValueError(f"train.only is {config.train.only!r}, which is no part of {config.rival.name}")
        self.config: RivalConfig = config
        self.init = init
        self.first_weights = None if init is None else self._read_weights(init)

    def _read_weights(self, init: Path | str) -> dict[str, Tensor]:
        """Return the weights of a finished run of the same network."""
        network, found = runs.load_network(init, type(self.config), self.network, "train")
        unlike = [
            line
            for part in ("model", "rival")
            for line in runs.differences(vars(getattr(found, part)), vars(getattr(self.config, part)), part)
        ]
        runs.require_same_network(init, unlike)
        return network.state_dict()

    def build(self) -> nn.Module:
        """Return the network with random weights, or those of `init`."""
        network = self.network(self.config)
        if self.first_weights is not None:
            network.load_state_dict(self.first_weights)
        return network

    def image(self, examples: Examples) -> Tensor:
        """Return the network's input in the order that convolutions prefer."""
        return examples.batch.image.contiguous(memory_format=torch.channels_last)

    def measure(self, network: nn.Module, examples: Examples) -> float:
        """Return the sum over samples of the end-point error in mm."""
        batch = examples.batch
        lines = lines_of_sight(examples.split, examples.indices[examples.own]).to(batch.joints.device)
        joints = cast(Rival, network).predict(self.image(examples), lines)
        errors = torch.linalg.vector_norm(joints - batch.joints, dim=2).mean(1) * batch.scale_mm
        return errors.sum().item()

    def report(self, run: Path, log: MetricsLog) -> None:
        """Write terms.txt: each weighted term at the first and last step."""
        rows = log.rows()
        first, last = rows[0], rows[-1]
        lines = [f"{'weighted term':<24}" + "".join(f"{'step ' + row['step']:>14}" for row in (first, last))]
        names = [name for name in first if name.startswith("weighted_")]
        lines += [
            f"{name.removeprefix('weighted_'):<24}{float(first[name]):>14.2f}{float(last[name]):>14.2f}"
            for name in names
        ]
        runs.write_text(run / "terms.txt", "\n".join(lines) + "\n")


def as_joints(numbers: Tensor) -> Tensor:
    """Return numbers (b, 63) as joints (b, 21, 3)."""
    return numbers.view(-1, JOINTS, 3)
