"""Plain implementation of da-VAE: the baseline for davae's speed and memory.

It is what a careful user of PyTorch would write first: fp32 in the default memory format; DataLoader workers
that decode PNG files, crop and rotate each sample in every epoch; a latent code repeated for every point of
the folded sheet; a Chamfer distance from the full matrix of distances, kept for the backward pass; three
heads, one after the other; AdamW. Networks, loss and augmentation compute the same values as davae's, as
`tests/test_reference.py` checks. Parts that davae also computes plainly, such as the encoder, are imported.
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

LEARNING_RATE = 1e-3  # initial rate of the paper
CloudLoss = Callable[[Tensor, Tensor], Tensor]  # clouds (b, p, 3) and (b, q, 3) -> (b,)


# Data


class RenderedSamples(Dataset):
    """Samples of a dataset in RHD's form; each access reads, crops and augments.

    If the config asks for masked hands, true or predicted, the true mask is used, since predicting masks is
    not part of a training step.
    """

    def __init__(self, root: Path, split: str, config: DataConfig, dataset: str = "synthhand"):
        self.reader, self.config = READERS[dataset](root, split), config

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, index: int) -> Batch:
        """Decode and augment sample `index`; return a `Batch` without the batch axis."""
        config = self.config
        row = make_row(self.reader.record(index), config)
        angle = config.rotation * (2 * torch.rand(()).item() - 1)
        scale = config.scale_min + (1 - config.scale_min) * torch.rand(()).item()
        drawn = torch.randperm(len(row["clouds"]))[: config.cloud_points].numpy()
        return turn_and_zoom(row | {"clouds": row["clouds"][drawn]}, config, angle, scale)


def turn_and_zoom(row: Mapping[str, NDArray], config: DataConfig, angle: float, scale: float) -> Batch:
    """Rotate a row of `make_row` by `angle` radians and scale its picture by `scale`, with Pillow."""
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
        root=torch.zeros(2),  # the crop is rotated about the root
        zoom=torch.tensor(scale, dtype=torch.float32),
    )


# Networks


class Fold(nn.Module):
    """FoldingNet's fold (arXiv:1712.07262): a network maps each point, concatenated with the code, to 3D."""

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
    """FoldingNet decoder: two folds of a square sheet."""

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
    """davae's image decoder in the default memory format."""

    def forward(self, z: Tensor) -> Tensor:
        return torch.sigmoid(self.out(self.stages(self.start(z))))


class Reference(nn.Module):
    """da-VAE (paper 3.2); it can replace `davae.networks.DaVAE` in training."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.pose_decoder = PoseDecoder(config)
        self.cloud_decoder = CloudDecoder(config)
        self.image_decoder = PlainImageDecoder(config)

    def forward(self, image: Tensor, noise: Tensor | None = None) -> DaVAEOutput:
        """Encode, sample and decode; `noise` (b, z) is drawn if it is not given."""
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


def rename_weights(of_davae: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename davae's weights or gradients as in `Reference`, and join the two parts of a fold's first layer.

    Args:
        of_davae: mapping with davae's names, such as `DaVAE.state_dict()`.
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
    """Return L_cloud of Eq. 3, (b,), from the matrix of all distances, which autograd keeps.

    Distances are exact. For many points `torch.cdist` uses a matrix product by default, which rounds small
    distances and is slower with the backward pass.
    """
    distances = torch.cdist(predicted, true, compute_mode="donot_use_mm_for_euclid_dist")
    forward = distances.min(dim=2).values.square().mean(dim=1)
    backward = distances.min(dim=1).values.square().mean(dim=1)
    return CLOUD_ELEMENTS * torch.maximum(forward, backward)


def plain_loss(
    predicted: DaVAEOutput, true: Truth, weights: LossConfig, cloud_loss: CloudLoss = plain_cloud_loss
) -> Tensor:
    """Return the loss of Eq. 3, a scalar, with davae's reductions."""
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
    """Training of the reference: `epoch` uses its own data, `step` a given batch on the training's device."""

    def __init__(self, config: Config, device: torch.device | str = "cpu"):
        self.config = config
        self.model = Reference(config.model).train().to(device)
        self.optimiser = torch.optim.AdamW(
            self.model.parameters(), LEARNING_RATE, weight_decay=config.train.weight_decay
        )

    def step(self, batch: Batch, cloud_loss: CloudLoss = plain_cloud_loss) -> Tensor:
        """Take one optimiser step and return the loss."""
        loss = plain_loss(self.model(batch.image), batch, self.config.loss, cloud_loss)
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        return loss.detach()

    def epoch(self, samples: RenderedSamples, steps: int, workers: int) -> None:
        """Take `steps` steps, each on a batch of random samples.

        Workers start here and have finished when this returns, so its duration is the whole cost.
        """
        batch = self.config.train.batch_size
        sampler = RandomSampler(samples, replacement=True, num_samples=steps * batch)
        for drawn in DataLoader(samples, batch, sampler=sampler, num_workers=workers):
            self.step(drawn)
