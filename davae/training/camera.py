"""Where on a crop the joints lie: the camera head, which da-VAE lacks since its joints know no pixel.

da-VAE's joints are relative to the root and in units of a bone. To draw them on a photo one must know the
root's pixel and that bone's length in pixels; both are regressed from the features of a finished, frozen
trunk. So is which hand it is, since da-VAE takes every hand for a right one. The head is no part of the paper
and of Eq. 3, and changes nothing of what da-VAE estimates.
"""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from davae.config import CameraConfig, TrainConfig, camera_schedule
from davae.data.augment import augment, hold_on_gpu, load_batch
from davae.data.prepared import PreparedSplit
from davae.networks import DaVAE
from davae.networks.camera import CameraHead, Placement
from davae.training import distributed, runs
from davae.training.trainer import (
    ResumableTrainer,
    batch_indices,
    check_prepared,
    finish,
    learning_rate,
    pick_device,
    step_seed,
)

SIDE_WEIGHT = 0.5  # of the side beside the place; with 0.1 it took thousands of steps to begin to be learnt
TOLERANCE = 0.02  # sides of the crop, or of a bone's logarithm: errors beyond count by their size, not square
VALIDATION_SEED = 1_000_003  # of the crops that validation jitters, always alike


def bone_in_sides(split: PreparedSplit, rows: np.ndarray) -> Tensor:
    """Lengths (b,) of the reference bone in sides of the test crop, seen across at the root's depth."""
    focal_px = np.asarray(split.camera[rows, 0, 0], np.float64)
    length = focal_px * split.scale_mm[rows] / split.root_mm[rows, 2]
    return torch.from_numpy(length / split.manifest["image_px"]).float()


class PlacementLoss(NamedTuple):
    """What the head is trained on."""

    total: Tensor
    terms: dict[str, Tensor]


def placement_loss(found: Placement, mirrored: Placement, root: Tensor, bone: Tensor) -> PlacementLoss:
    """Smooth L1 of the root's place (b, 2) and of the bone's logarithm (b,), cross-entropy of the side.

    A crop and its mirror image show a right and a left hand; which is which is what is asked.

    Args:
        found: of crops of right hands.
        mirrored: of the same crops mirrored, which show left hands.
        root: truth.
        bone: truth.
    """
    terms = {
        "root": F.smooth_l1_loss(found.root, root, beta=TOLERANCE),
        "bone": F.smooth_l1_loss(found.bone.log(), bone.log(), beta=TOLERANCE),
        "side": F.softplus(mirrored.right - found.right).mean(),
    }
    return PlacementLoss(terms["root"] + terms["bone"] + SIDE_WEIGHT * terms["side"], terms)


def train_camera(
    run: Path | str,
    data: Path | str,
    out: Path | str,
    train: TrainConfig | None = None,
    *,
    device: str = "auto",
    progress: bool = True,
) -> Path:
    """Train a camera head on the trunk of a finished run, or go on with it, or find it finished.

    It learns from the run's own data, with the run's own augmentation, except that nothing is blurred, which
    makes left and right hard to tell apart. Crops must be jittered there (`scale_max`, `shift`), or the head
    only ever sees the root in the middle.

    Args:
        run: of `davae.training.loop.train`.
        data: folder written by `davae.data.prepared.prepare`.
        out: the head's own run folder; see `davae.training.runs`.
        train: schedule.
        device: "auto" takes a GPU where there is one.
        progress: show a progress bar.

    Raises:
        davae.training.runs.RunMismatchError: the folder holds another experiment.
        FileNotFoundError: no finished run, or nothing prepared.
        ValueError: the run's crops were not jittered, or the data do not fit it.
    """
    distributed.join()
    model, config = runs.load_model(run)
    if not config.data.shift:
        raise ValueError(
            f"{run}: trained on crops whose middle is the root (data.shift is 0), so there is nothing to "
            "learn about where it lies. Train with `--set data.shift=0.1 data.scale_max=1.25`"
        )
    if config.data.crop != "plain":
        raise ValueError(
            f"{run}: trained on crops of kind {config.data.crop!r}, but photos are cut plainly; train one on "
            "crops of kind 'plain'"
        )
    split, validation = (
        PreparedSplit.open(data, name).seen_through(config.data.mask) for name in ("train", "val")
    )
    check_prepared(split, data, config.data)
    masks = split.mask_network if config.data.mask == "network" else None
    identity = runs.Identity.of(split.manifest["digest"], run, network="camera", masks=masks)
    trained = runs.identity_of(run)
    if (identity.data, identity.mask_network) != (trained.data, trained.mask_network):
        raise ValueError(f"{data}: is not what {run} was trained on, or has other predicted masks; name that")
    sharp = replace(config.data, blur=0.0)
    camera = CameraConfig(sharp, config.model, train=train or camera_schedule(config.train.seed))
    device = pick_device(device)

    def start() -> CameraTrainer:
        return CameraTrainer(camera, model, split, validation, Path(out), device)

    return finish(Path(out), camera, identity, start, progress)


class CameraTrainer(ResumableTrainer):
    """The camera head on its way through its steps; the trunk that it reads stays as it is."""

    def __init__(
        self,
        config: CameraConfig,
        model: DaVAE,
        split: PreparedSplit,
        validation: PreparedSplit,
        run: Path,
        device: torch.device,
    ):
        self.config, self.split, self.validation = config, split, validation
        self.samples = hold_on_gpu(split, device)
        self.trunk = model.encoder.trunk.to(device, memory_format=torch.channels_last).eval()
        torch.manual_seed(config.train.seed)
        super().__init__(CameraHead(config), config.train, run, device)

    def train_step(self) -> PlacementLoss:
        """One optimiser step on the batch of the current step."""
        settings, step = self.settings, self.step
        indices = batch_indices(len(self.split), settings.batch_size, settings.seed, step)
        seed, own = step_seed(settings.seed, step), distributed.share()
        self.model.train()
        loss = self._loss(self.samples, self.split, indices, seed, self.replica, own)
        self.descend(loss.total, loss.terms)
        return PlacementLoss(loss.total.detach(), {name: term.detach() for name, term in loss.terms.items()})

    def _loss(
        self, samples, split: PreparedSplit, indices: np.ndarray, seed: int, head, own: slice = slice(None)
    ) -> PlacementLoss:
        """The loss on this process's own share of a batch, whose jitter is drawn for all of it."""
        raw = load_batch(samples, indices[own], self.device)
        generator = torch.Generator().manual_seed(seed)
        batch = augment(raw, self.config.data, generator, batch=len(indices), rows=own)
        both = torch.cat([batch.image, batch.image.flip(3)])
        with torch.no_grad(), self.autocast:
            features = self.trunk(both.contiguous(memory_format=torch.channels_last))
        with self.autocast:
            found = head(features)
        seen, mirrored = (Placement(*parts) for parts in zip(*(x.chunk(2) for x in found), strict=True))
        bone = bone_in_sides(split, indices[own]).to(self.device) * batch.zoom
        return placement_loss(seen, mirrored, batch.root, bone)

    def log_row(self, parts: PlacementLoss, validate: bool) -> dict[str, float]:
        """One row of metrics.csv."""
        row = {
            "step": self.step,
            "seconds": self.seconds,
            "learning_rate": learning_rate(self.settings, self.step - 1),
            "val_total": self.validation_loss() if validate else np.nan,
            "total": parts.total,
        }
        return {name: float(value) for name, value in (row | parts.terms).items()}

    def validation_loss(self) -> float:
        """The loss on jittered crops of the validation split, always the same ones."""
        head, total = self.tested_model().eval(), 0.0
        every = np.arange(len(self.validation))
        for begin in range(0, len(every), 100):
            rows = every[begin : begin + 100]
            with torch.inference_mode():
                loss = self._loss(self.validation, self.validation, rows, VALIDATION_SEED + begin, head)
            total += loss.total.item() * len(rows)
        return total / len(every)


def load_camera(run: Path | str) -> tuple[CameraHead, CameraConfig]:
    """Open a finished camera head, frozen; errors as `davae.training.runs.load_model`."""
    head, config = runs.load(Path(run), CameraConfig, CameraHead, "train-camera")
    return head.requires_grad_(False), config
