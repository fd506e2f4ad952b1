"""Training of the hand mask network (paper 3.2): on the same turned and zoomed crops as da-VAE, then frozen.

The network sees the test crop, never the margin around it: a training batch is what da-VAE would be trained
on, and a prediction is made on the test crop alone. Its truth is the mask of the chosen hand, so the other
hand, or the arm, is background.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from davae.config import MaskConfig
from davae.data.augment import augment, centre, hold_on_gpu, load_batch
from davae.data.prepared import PreparedSplit
from davae.networks import HandMaskNet
from davae.networks.handmask import enlarge
from davae.training import distributed, runs
from davae.training.threads import single_threaded
from davae.training.trainer import (
    ResumableTrainer,
    batch_indices,
    check_prepared,
    finish,
    learning_rate,
    pick_device,
    step_seed,
)


class MaskLoss(NamedTuple):
    """What the network is trained on."""

    total: Tensor
    terms: dict[str, Tensor]


def mask_loss(logits: Tensor, batch_mask: Tensor, has_mask: Tensor, samples: float | None = None) -> MaskLoss:
    """Return binary cross-entropy plus one minus the soft IoU of each image, both at the crop's resolution.

    The first makes every pixel a probability; the second weighs small hands as much as large ones, and is
    what is reported.

    Args:
        logits: (b, 1, h / 2, w / 2).
        batch_mask: (b, 1, h, w) truth in [0, 1].
        has_mask: (b,) bool; a sample without a mask counts for nothing.
        samples: what to divide sums over samples by; the number of those with a mask where nothing is said.
    """
    logits = enlarge(logits, batch_mask)
    entropy = F.binary_cross_entropy_with_logits(logits, batch_mask, reduction="none").mean(dim=(1, 2, 3))
    probability = logits.sigmoid()
    both = (probability * batch_mask).sum(dim=(1, 2, 3))
    either = (probability + batch_mask).sum(dim=(1, 2, 3)) - both
    terms = {"cross_entropy": entropy, "soft_iou": 1 - (both + 1) / (either + 1)}
    share = has_mask / (has_mask.sum().clamp(min=1) if samples is None else samples)
    terms = {name: (values * share).sum() for name, values in terms.items()}
    return MaskLoss(terms["cross_entropy"] + terms["soft_iou"], terms)


def mask_iou(predicted: Tensor, truth: Tensor) -> Tensor:
    """Return intersection over union (b,) of masks (b, 1, h, w), each cut at a half; two empty ones agree."""
    predicted, truth = predicted > 0.5, truth > 0.5
    both = (predicted & truth).sum(dim=(1, 2, 3))
    either = (predicted | truth).sum(dim=(1, 2, 3))
    return torch.where(either > 0, both / either.clamp(min=1), 1.0)


@single_threaded()
def predict_probability(network: HandMaskNet, images: Tensor, quarter_turns: int = 4) -> Tensor:
    """Return the probability (b, 1, h, w) that each pixel of crops (b, 3, h, w) is the hand's.

    It is the mean over what the network, in evaluation mode, says of the crop turned by 0, 1, 2, ... right
    angles, since a hand has no side that is up.
    """
    probability = torch.zeros_like(images[:, :1])
    with torch.inference_mode():
        for turn in range(quarter_turns):
            turned = torch.rot90(images, turn, (2, 3)).contiguous(memory_format=torch.channels_last)
            found = enlarge(network(turned), turned).sigmoid()
            probability += torch.rot90(found, -turn, (2, 3)) / quarter_turns
    return probability


def train_mask(
    config: MaskConfig, data: Path | str, run: Path | str, *, device: str = "auto", progress: bool = True
) -> Path:
    """Train one mask network, or go on with it, or find it finished.

    Several processes of torchrun train it together, as `davae.training.loop.train` says.

    Args:
        config: the network and its schedule.
        data: folder written by `davae.data.prepared.prepare`, of a dataset that has masks.
        run: the run's folder; see `davae.training.runs`.
        device: "auto" takes a GPU where there is one.
        progress: show a progress bar.

    Returns:
        The run's folder, finished.

    Raises:
        davae.training.runs.RunMismatchError: the folder holds another experiment.
        ValueError: the data was prepared for another image size or crop, or has no masks to learn from, or
            the processes cannot share the batch evenly, or its target is to stay put.
        BlockingIOError: another process is training in that folder.
        TrainingDivergedError: a loss or its gradient is no longer finite; the last resume point is kept.
    """
    distributed.join()
    run = Path(run)
    split, validation = (PreparedSplit.open(data, name).seen_through("none") for name in ("train", "val"))
    check_prepared(split, data, config.data)
    if config.data.steady_target:
        raise ValueError(
            "data.steady_target is true, but a mask network's target is the mask of the very crop that it "
            "sees; leave it false here and set it for `train`"
        )
    for part in (split, validation):
        if not part.has_mask.any():
            raise ValueError(
                f"{data}: {part.name} has no masks to learn from; train on a set that has them (synthhand, "
                "rhd, freihand), then let `python -m davae predict-masks` carry the network over to this one"
            )
    identity = runs.Identity.of(split.manifest["digest"], network="mask")
    device = pick_device(device)
    return finish(
        run, config, identity, lambda: MaskTrainer(config, split, validation, run, device), progress
    )


class MaskTrainer(ResumableTrainer):
    """The mask network on its way through its steps."""

    def __init__(
        self,
        config: MaskConfig,
        split: PreparedSplit,
        validation: PreparedSplit,
        run: Path,
        device: torch.device,
    ):
        self.config, self.split, self.validation = config, split, validation
        self.samples = hold_on_gpu(split, device)
        torch.manual_seed(config.train.seed)
        super().__init__(HandMaskNet(config), config.train, run, device)

    def train_step(self) -> MaskLoss:
        """One optimiser step on the batch of the current step."""
        settings, step = self.settings, self.step
        indices = batch_indices(len(self.split), settings.batch_size, settings.seed, step)
        generator = torch.Generator().manual_seed(step_seed(settings.seed, step))
        own = distributed.share()
        raw = load_batch(self.samples, indices[own], self.device)
        batch = augment(raw, self.config.data, generator, batch=len(indices), rows=own)
        self.model.train()
        with self.autocast:
            logits = self.replica(batch.image.contiguous(memory_format=torch.channels_last))
        # Of the whole batch, where a rank may hold more or fewer: the mean over ranks is that over samples.
        masked = max(1, int(self.split.has_mask[indices].sum()))
        loss = mask_loss(logits, batch.mask, batch.has_mask, masked / distributed.ranks())
        self.descend(loss.total, loss.terms)
        return MaskLoss(loss.total.detach(), {name: term.detach() for name, term in loss.terms.items()})

    def validation_iou(self) -> float:
        """Mean IoU on the test crops of the validation split, from one look at each."""
        network, total = self.tested_model().eval(), 0.0
        every = np.flatnonzero(self.validation.has_mask)
        rows = every[distributed.share()]
        for begin in range(0, len(rows), 100):
            raw = load_batch(self.validation, rows[begin : begin + 100], self.device)
            batch = centre(raw, self.config.data)
            with self.autocast:
                found = mask_iou(predict_probability(network, batch.image, 1), batch.mask)
            total += found.sum().item()
        return distributed.summed(torch.tensor(total, dtype=torch.float64)).item() / len(every)

    def log_row(self, parts: MaskLoss, validate: bool) -> dict[str, float]:
        """One row of metrics.csv."""
        row = {
            "step": self.step,
            "seconds": self.seconds,
            "learning_rate": learning_rate(self.settings, self.step - 1),
            "val_iou": self.validation_iou() if validate else np.nan,
            "total": parts.total,
        }
        return {name: float(value) for name, value in (row | parts.terms).items()}
