"""Training of the camera head, which finds where on a crop the joints lie (`davae.networks.camera`).

The head is regressed on the features of a finished run's trunk, which stays as it is. It is not part of the
paper nor of Eq. 3, and changes nothing of what da-VAE estimates.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from davae.config import CameraConfig, TrainConfig, camera_schedule
from davae.data.prepared import PreparedSplit
from davae.networks.camera import CameraHead, Placement
from davae.training import runs
from davae.training.identity import Identity
from davae.training.task import Examples, Loss, Task
from davae.training.trainer import train_task

SIDE_WEIGHT = 0.5  # of the side's term; with 0.1 it took thousands of steps before the side was learnt at all
TOLERANCE = 0.02  # in sides of the crop, or in log bone length: where smooth L1 turns from squared to linear


def train_camera(
    run: Path | str,
    data: Path | str,
    out: Path | str,
    train: TrainConfig | None = None,
    *,
    photometric: float | None = None,
    device: str = "auto",
    progress: bool = True,
) -> Path:
    """Train a camera head on the trunk of a finished run, resume its training, or find it finished.

    It learns from the run's own data with the run's own augmentation, but without blur, which makes left and
    right hard to tell apart. The run's crops must be jittered (`scale_max`, `shift`): without shift the root
    is always in the middle of the crop, and there is nothing to learn.

    Args:
        run: a finished run of `davae.training.davae_task.train`.
        data: folder written by `davae.data.prepared.prepare`.
        out: the head's own run folder; see `davae.training.runs`.
        train: schedule; the default is `camera_schedule` with the run's seed.
        photometric: strength, 0 to 1, of photometric augmentation; None takes the run's. A side is harder to
            learn the more light and detail vary.
        device: "auto" uses a GPU if there is one.
        progress: show a progress bar.

    Returns:
        The folder `out`, finished.

    Raises:
        davae.training.runs.RunMismatchError: the folder holds another experiment.
        FileNotFoundError: `run` is not a finished run, or nothing is prepared in `data`.
        ValueError: the run's crops were not jittered, the data is not what the run was trained on, or
            `photometric` is out of range.
        BlockingIOError: another process is training in that folder.
        TrainingDivergedError: a loss or its gradient is not finite; the last resume point is kept.
    """
    model, config = runs.load_model(run)
    if not config.data.shift:
        raise ValueError(
            f"{run}: trained on crops with the root in their middle (data.shift is 0), so there is nothing "
            "to learn about where it lies. Train with `--set data.shift=0.1 data.scale_max=1.25`"
        )
    if config.data.crop != "plain":
        raise ValueError(
            f"{run}: trained on crops of kind {config.data.crop!r}, but photos are cut plainly; train a run "
            "on crops of kind 'plain'"
        )
    seen = replace(config.data, blur=0.0)
    if photometric is not None:
        if not 0 <= photometric <= 1:
            raise ValueError(
                f"photometric (--photometric) is {photometric}; give a strength from 0 (none) to 1"
            )
        seen = replace(seen, photometric=photometric)
    camera = CameraConfig(seen, config.model, train=train or camera_schedule(config.train.seed))
    task = CameraTask(camera, model.encoder.trunk, run)
    return train_task(task, data, out, device=device, progress=progress)


def bone_in_sides(split: PreparedSplit, rows: NDArray[np.int64]) -> Tensor:
    """Return lengths (b,) of the reference bone in sides of the test crop.

    They are the lengths of the image of a bone at the root's depth, perpendicular to the line of sight.
    """
    return torch.from_numpy(split.bone_px[rows] / np.float32(split.manifest["image_px"]))


def placement_loss(found: Placement, mirrored: Placement, root: Tensor, bone: Tensor) -> Loss:
    """Return smooth L1 (arXiv:1504.08083) of root and log bone length, and cross-entropy of the side.

    A crop and its mirror image show a right and a left hand; the head must tell which is which.

    Args:
        found: of crops of right hands.
        mirrored: of the same crops mirrored, which show left hands.
        root: (b, 2) true place of the root, in sides of the crop from its middle.
        bone: (b,) true length of the reference bone in sides of the crop.
    """
    terms = {
        "root": F.smooth_l1_loss(found.root, root, beta=TOLERANCE),
        "bone": F.smooth_l1_loss(found.bone.log(), bone.log(), beta=TOLERANCE),
        "side": F.softplus(mirrored.right - found.right).mean(),
    }
    return Loss(terms["root"] + terms["bone"] + SIDE_WEIGHT * terms["side"], terms)


class CameraTask(Task):
    """The camera head, validated by its loss on jittered crops."""

    kind, measured, shown = "camera", "val_total", ("root", "bone", "side")
    jittered = True

    def __init__(self, config: CameraConfig, trunk: nn.Module, run: Path | str):
        self.config: CameraConfig = config
        self.trunk, self.frozen, self.init = trunk, (trunk,), run

    def check(
        self, data: Path | str, split: PreparedSplit, validation: PreparedSplit, identity: Identity
    ) -> None:
        """Raise ValueError if the trunk was trained on other data or on other predicted masks."""
        assert self.init is not None
        trained = runs.identity_of(self.init)
        if trained is None or (identity.data, identity.mask_network) != (trained.data, trained.mask_network):
            raise ValueError(
                f"{data}: is not what {self.init} was trained on, or has other predicted masks; name the "
                "folder that it was trained on"
            )

    def build(self) -> nn.Module:
        """Return the head with random weights."""
        return CameraHead(self.config)

    def forward(self, network: nn.Module, examples: Examples) -> Placement:
        """Return placements (2 b, ...): of the crops, then of their mirror images."""
        image = examples.batch.image
        both = torch.cat([image, image.flip(3)])
        with torch.no_grad():
            features = self.trunk(both.contiguous(memory_format=torch.channels_last))
        return network(features)

    def loss(self, output: Placement, examples: Examples) -> Loss:
        """Return `placement_loss`."""
        batch = examples.batch
        assert batch.root is not None and batch.zoom is not None  # `augment` sets both
        found, mirrored = (Placement(*half) for half in zip(*(x.chunk(2) for x in output), strict=True))
        bone = bone_in_sides(examples.split, examples.indices[examples.own]).to(batch.zoom.device)
        return placement_loss(found, mirrored, batch.root, bone * batch.zoom)

    def measure(self, network: nn.Module, examples: Examples) -> float:
        """Return the sum over samples of the loss."""
        return self.loss(self.forward(network, examples), examples).total.item() * len(examples.batch.image)
