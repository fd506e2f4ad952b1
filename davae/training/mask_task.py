"""Training of the hand mask network (paper 3.2) on the augmented crops that da-VAE is trained on.

A batch shows what da-VAE would see, never the margin around the crop; predictions are made for test crops.
The truth is the mask of the chosen hand, so the other hand and the arm are background.
"""

import dataclasses
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from davae.config import MaskConfig
from davae.data.prepared import PreparedSplit
from davae.networks import HandMaskNet
from davae.networks.handmask import enlarge
from davae.networks.native import operations
from davae.training import distributed, runs
from davae.training.identity import Identity
from davae.training.mask_inference import mask_iou, predict_probability
from davae.training.task import Examples, Loss, Task
from davae.training.trainer import train_task


def train_mask(
    config: MaskConfig,
    data: Path | str,
    run: Path | str,
    *,
    init: Path | str | None = None,
    device: str = "auto",
    progress: bool = True,
) -> Path:
    """Train one mask network, resume its training, or find it finished.

    Several processes of torchrun train it together, as `davae.training.davae_task.train` says.

    Args:
        config: the network and its schedule.
        data: folder written by `davae.data.prepared.prepare`, of a dataset that has masks.
        run: the run's folder; see `davae.training.runs`.
        init: a finished run whose weights to begin with; None for random weights.
        device: "auto" uses a GPU if there is one.
        progress: show a progress bar.

    Returns:
        The run's folder, finished.

    Raises:
        davae.training.runs.RunMismatchError: the folder holds another experiment.
        ValueError: the data was prepared for another image size or crop, or has no masks to learn from; or
            the config's data.mask, data.steady_target or data.canvas is set; or `init` is another network;
            or the processes cannot share the batch evenly.
        FileNotFoundError: `init` is not a finished run.
        BlockingIOError: another process is training in that folder.
        TrainingDivergedError: a loss or its gradient is not finite; the last resume point is kept.
    """
    if config.data.mask != "none":
        raise ValueError(
            f"data.mask is {config.data.mask!r}, but a mask network must see the crop as photographed; leave "
            "it 'none' here and set it for `train`"
        )
    for field in ("steady_target", "canvas"):
        if getattr(config.data, field):
            raise ValueError(
                f"data.{field} is true, but a mask network's target is the mask of the very crop that it "
                "sees; leave it false here and set it for `train`"
            )
    return train_task(MaskTask(config, init), data, run, device=device, progress=progress)


def mask_loss(logits: Tensor, truth: Tensor, has_mask: Tensor, samples: float | None = None) -> Loss:
    """Return binary cross-entropy plus (1 - soft IoU), each per image at the crop's resolution.

    Cross-entropy makes every pixel a probability. The soft IoU gives small and large hands equal weight, and
    IoU is the reported measure.

    Args:
        logits: (b, 1, h / 2, w / 2).
        truth: (b, 1, h, w) masks in [0, 1].
        has_mask: (b,) bool; a sample without a mask adds nothing.
        samples: divisor of the sums over samples; the default is the number of samples with a mask.
    """
    entropy, soft_iou = operations.measure_masks(logits, truth) or _measure_masks(logits, truth)
    per_image = {"cross_entropy": entropy, "soft_iou": soft_iou}
    share = has_mask / (has_mask.sum().clamp(min=1) if samples is None else samples)
    terms = {name: (values * share).sum() for name, values in per_image.items()}
    return Loss(terms["cross_entropy"] + terms["soft_iou"], terms)


def _measure_masks(logits: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Return each image's cross-entropy and 1 - soft IoU, (b,) each, by PyTorch's operations."""
    logits = enlarge(logits, truth)
    entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none").mean(dim=(1, 2, 3))
    probability = logits.sigmoid()
    both = (probability * truth).sum(dim=(1, 2, 3))
    either = (probability + truth).sum(dim=(1, 2, 3)) - both
    return entropy, 1 - (both + 1) / (either + 1)


def _initial_weights(init: Path | str, config: MaskConfig) -> dict[str, Tensor]:
    """Return the weights of a finished run of a network of the same sizes; it may have seen other crops."""
    network, found = runs.load_mask_network(init)
    sizes, asked = (
        {name: value for name, value in dataclasses.asdict(one).items() if name not in ("data", "train")}
        for one in (found, config)
    )
    runs.require_same_network(init, runs.differences(sizes, asked, "config"))
    return network.state_dict()


class MaskTask(Task):
    """The hand mask network, validated by the IoU of its masks of test crops, each seen in one direction."""

    kind, measured, shown = "mask", "val_iou", ("cross_entropy", "soft_iou")

    def __init__(self, config: MaskConfig, init: Path | str | None = None):
        if config.train.only:
            raise ValueError(f"train.only is {config.train.only!r}, which is no part of a mask network")
        self.config: MaskConfig = config
        self.init = init
        self.first_weights = None if init is None else _initial_weights(init, config)

    def check(
        self, data: Path | str, split: PreparedSplit, validation: PreparedSplit, identity: Identity
    ) -> None:
        """Raise ValueError if a split has no masks."""
        for part in (split, validation):
            if not part.has_mask.any():
                raise ValueError(
                    f"{data}: {part.name} has no masks to learn from; train on a set that has them "
                    "(synthhand, rhd, freihand), then let `python -m davae predict-masks` carry the network "
                    "over to this one"
                )

    def build(self) -> nn.Module:
        """Return the mask network with random weights, or those of `init`."""
        network = HandMaskNet(self.config)
        if self.first_weights is not None:
            network.load_state_dict(self.first_weights)
        return network

    def forward(self, network: nn.Module, examples: Examples) -> Tensor:
        """Return logits (b, 1, h / 2, w / 2)."""
        return network(examples.batch.image.contiguous(memory_format=torch.channels_last))

    def loss(self, output: Tensor, examples: Examples) -> Loss:
        """Return `mask_loss`, divided by each process's even share of the batch's masks.

        One process may hold more masks than another; the mean over processes is then still the mean over the
        samples of the whole batch that have masks.
        """
        masks = max(1, int(examples.split.has_mask[examples.indices].sum()))
        batch = examples.batch
        return mask_loss(output, batch.mask, batch.has_mask, masks / distributed.world_size())

    def measure(self, network: nn.Module, examples: Examples) -> float:
        """Return the sum over samples of the IoU."""
        batch = examples.batch
        return mask_iou(predict_probability(network, batch.image, 1), batch.mask).sum().item()

    def validation_rows(self, validation: PreparedSplit) -> NDArray[np.int64]:
        """Return the samples that have masks."""
        return np.flatnonzero(validation.has_mask)
