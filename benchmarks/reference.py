"""da-VAE written plainly from the paper: what davae's speed and memory are compared with.

This is what a careful user of PyTorch would write first: fp32 in the default memory format; a DataLoader
whose workers decode PNG files, crop and turn each sample anew in every epoch; the code tiled to every point
of the folded sheet; a Chamfer distance through the full matrix of distances, kept for the backward pass;
three heads one after the other; AdamW. Networks, loss and augmentation are davae's own in what they compute,
which `tests/test_reference.py` proves; only how they compute it differs. What davae computes plainly too,
such as its encoder, is imported.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, RandomSampler

from davae.config import BLOCKS, Config, DataConfig, LossConfig, ModelConfig
from davae.data.augment import Batch
from davae.data.readers import READERS
from davae.data.sample import make_row
from davae.losses import CLOUD_ELEMENTS, IMAGE_ELEMENTS, Truth
from davae.networks import DaVAEOutput
from davae.networks.decoders import GRID_HALF_WIDTH, ImageDecoder, PoseDecoder
from davae.networks.encoder import Encoder
from davae.networks.handmask import MID_GREY

LEARNING_RATE = 1e-3  # the paper's first
CloudLoss = Callable[[Tensor, Tensor], Tensor]  # clouds (b, p, 3) and (b, q, 3) -> (b,)


# Data


class RenderedSamples(Dataset):
    """Samples of a dataset in RHD's form, read, cropped and augmented whenever they are asked for.

    Where the config wants the hand masked, by whatever mask, the true one is taken: predicting masks is no
    part of a training step.
    """

    def __init__(self, root: Path, split: str, config: DataConfig, dataset: str = "synthhand"):
        self.reader, self.config = READERS[dataset](root, split), config

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, index: int) -> Batch:
        """Decode and augment sample `index`; a `Batch` without the batch axis."""
        config = self.config
        row = make_row(self.reader.record(index), config)
        angle = config.rotation * (2 * torch.rand(()).item() - 1)
        scale = config.scale_min + (1 - config.scale_min) * torch.rand(()).item()
        drawn = torch.randperm(len(row["clouds"]))[: config.cloud_points].numpy()
        return turn_and_zoom(row | {"clouds": row["clouds"][drawn]}, config, angle, scale)


def turn_and_zoom(row: Mapping[str, NDArray], config: DataConfig, angle: float, scale: float) -> Batch:
    """Turn a row of `make_row` by `angle` radians and scale its picture's hand by `scale`, with Pillow."""
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    to_stored = turn[:2, :2].T / scale
    stored = len(row["images"])
    shift = stored / 2 - to_stored @ np.full(2, config.image_px / 2)

    def resample(pixels: NDArray[np.uint8]) -> Tensor:
        picture = Image.fromarray(pixels).transform(
            (config.image_px, config.image_px),
            Image.Transform.AFFINE,
            (*to_stored[0], shift[0], *to_stored[1], shift[1]),
            resample=Image.Resampling.BILINEAR,
        )
        return torch.from_numpy(np.array(picture)).float() / 255

    image = resample(row["images"]).permute(2, 0, 1)
    mask = resample(row["masks"])[None] if row["has_mask"] else torch.ones(1, *image.shape[1:])
    target = mask * image + (1 - mask) * MID_GREY
    return Batch(
        image if config.mask == "none" else target,
        target,
        mask,
        torch.from_numpy((row["joints"] @ turn.T).astype(np.float32)),
        torch.from_numpy((row["clouds"] @ turn.T).astype(np.float32)),
        torch.from_numpy(row["has_cloud"]),
        torch.from_numpy(row["has_mask"]),
        torch.from_numpy(row["scale_mm"]),
        root=torch.zeros(2),  # the crop turns about it
        zoom=torch.tensor(scale, dtype=torch.float32),
    )


# Networks


class Fold(nn.Module):
    """FoldingNet's fold: the code is repeated for every point, joined to it, and goes through a network."""

    def __init__(self, code: int, point: int, hidden: int):
        super().__init__()
        self.joined = nn.Linear(code + point, hidden)
        self.hidden = nn.Linear(hidden, hidden)
        self.out = nn.Linear(hidden, 3)

    def forward(self, code: Tensor, points: Tensor) -> Tensor:
        tiled = code[:, None].repeat(1, points.shape[1], 1)
        x = F.relu(self.joined(torch.cat([tiled, points], dim=2)))
        return self.out(F.relu(self.hidden(x)))


class CloudDecoder(nn.Module):
    """Two folds of a square sheet."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        code = config.latent_pose + config.latent_shape
        line = torch.linspace(-GRID_HALF_WIDTH, GRID_HALF_WIDTH, config.fold_grid)
        self.register_buffer("sheet", torch.cartesian_prod(line, line), persistent=False)
        self.first = Fold(code, 2, config.fold_hidden)
        self.second = Fold(code, 3, config.fold_hidden)

    def forward(self, z_pose: Tensor, z_shape: Tensor) -> Tensor:
        code = torch.cat([z_pose, z_shape], dim=1)
        sheet = self.sheet.repeat(len(code), 1, 1)
        return self.second(code, self.first(code, sheet))


class PlainImageDecoder(ImageDecoder):
    """davae's image decoder, in the default memory format."""

    def forward(self, z: Tensor) -> Tensor:
        return torch.sigmoid(self.out(self.stages(self.start(z))))


class Reference(nn.Module):
    """da-VAE (paper 3.2); a drop-in for `davae.networks.DaVAE` in training."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.pose_decoder = PoseDecoder(config)
        self.cloud_decoder = CloudDecoder(config)
        self.image_decoder = PlainImageDecoder(config)

    def forward(self, image: Tensor, noise: Tensor | None = None) -> DaVAEOutput:
        """Encode, sample and decode; `noise` (b, z) is drawn where it is not given."""
        means, logvars = self.encoder(image)
        if noise is None:
            noise = torch.randn(len(image), sum(self.config.latent_sizes.values()))
        z, start = {}, 0
        for block, size in self.config.latent_sizes.items():
            z[block] = means[block] + torch.exp(0.5 * logvars[block]) * noise[:, start : start + size]
            start += size
        return DaVAEOutput(
            self.pose_decoder(z["pose"]),
            self.cloud_decoder(z["pose"], z["shape"]),
            self.image_decoder(torch.cat([z[block] for block in BLOCKS], dim=1)),
            means,
            logvars,
            z,
        )


def reference_weights(of_davae: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Name davae's weights, or their gradients, as `Reference` does: of a fold, join what davae keeps apart.

    Args:
        of_davae: by davae's names, such as `DaVAE.state_dict()`.
    """
    renamed = {}
    for name, value in of_davae.items():
        fold, _, rest = name.rpartition(".code.")
        if rest == "weight":
            renamed[f"{fold}.joined.weight"] = torch.cat([value, of_davae[f"{fold}.point.weight"]], dim=1)
        elif rest == "bias":
            renamed[f"{fold}.joined.bias"] = value
        elif not name.endswith(".point.weight"):
            renamed[name] = value
    return renamed


# Loss and training


def plain_cloud_loss(predicted: Tensor, true: Tensor) -> Tensor:
    """L_cloud of Eq. 3, (b,), by the matrix of all distances; autograd keeps the matrix.

    Exact distances: PyTorch's default for many points, by way of a matrix product, rounds small ones, and
    with the backward pass it is slower.
    """
    distances = torch.cdist(predicted, true, compute_mode="donot_use_mm_for_euclid_dist")
    forward = distances.min(dim=2).values.square().mean(dim=1)
    backward = distances.min(dim=1).values.square().mean(dim=1)
    return CLOUD_ELEMENTS * torch.maximum(forward, backward)


def plain_loss(
    predicted: DaVAEOutput, true: Truth, weights: LossConfig, cloud_loss: CloudLoss = plain_cloud_loss
) -> Tensor:
    """Eq. 3, scalar, under davae's reductions."""
    pose = (predicted.pose - true.joints).square().sum(dim=(1, 2)).mean()
    cloud = (cloud_loss(predicted.cloud, true.cloud) * true.has_cloud).mean()
    image = IMAGE_ELEMENTS * (predicted.image - true.target).square().mean(dim=(1, 2, 3)).mean()
    total = weights.alpha_pose * pose + weights.alpha_cloud * cloud + weights.alpha_image * image
    for block in BLOCKS:
        mean, logvar = predicted.means[block], predicted.logvars[block]
        kl = -0.5 * (1 + logvar - mean.square() - logvar.exp()).sum(dim=1).mean()
        total = total + getattr(weights, f"beta_{block}") * kl
    return total


class ReferenceTraining:
    """The reference on its way: with `epoch` from its own data, with `step` from batches that it is given.

    Those are to be on its device.
    """

    def __init__(self, config: Config, device: torch.device | str = "cpu"):
        self.config = config
        self.model = Reference(config.model).train().to(device)
        self.optimiser = torch.optim.AdamW(
            self.model.parameters(), LEARNING_RATE, weight_decay=config.train.weight_decay
        )

    def step(self, batch: Batch, cloud_loss: CloudLoss = plain_cloud_loss) -> Tensor:
        """Take one step; return the loss."""
        loss = plain_loss(self.model(batch.image), batch, self.config.loss, cloud_loss)
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        return loss.detach()

    def epoch(self, samples: RenderedSamples, steps: int, workers: int) -> None:
        """Take so many steps, each with its own batch of samples drawn at random.

        Workers are started here and have nothing left to do when this returns, so that its time is all its
        cost.
        """
        batch = self.config.train.batch_size
        sampler = RandomSampler(samples, replacement=True, num_samples=steps * batch)
        for drawn in DataLoader(samples, batch, sampler=sampler, num_workers=workers):
            self.step(drawn)
