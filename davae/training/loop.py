"""The training loop (paper 4.2), in plain PyTorch.

Every random draw of step t (which samples, augmentation, latent noise) comes from generators seeded with
(seed, t) alone. So the loop carries no random state: a run that was killed and resumed is, on one machine and
a stated number of threads, bit for bit the run that was not; and several processes that share the batch
(`torchrun`) see the same batch as one.
"""

import dataclasses
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from davae.config import Config
from davae.data.augment import augment, centre, hold_on_gpu, load_batch
from davae.data.prepared import PreparedSplit
from davae.losses import Objective, objective
from davae.networks import DaVAE
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


def train(
    config: Config,
    data: Path | str,
    run: Path | str,
    *,
    init: Path | str | None = None,
    device: str = "auto",
    progress: bool = True,
    threads: int | None = None,
) -> Path:
    """Train one model, or go on with it, or find it finished.

    Where torchrun started several processes, all of them call this and train the one model together, on data
    that each can read. See `davae.training.distributed` for what differs then: BatchNorm takes the
    statistics of each process's share of the batch.

    Args:
        config: the experiment.
        data: folder written by `davae.data.prepared.prepare`.
        run: the run's folder; see `davae.training.runs`.
        init: a finished run to take the first weights from, instead of random ones (RHD first, then STB).
        device: "auto" takes a GPU where there is one.
        progress: show a progress bar.
        threads: of torch on a CPU; None for what OMP_NUM_THREADS says or, where it says nothing, as many as
            pay at the time (`davae.training.threads`). Only a stated number gives the same bits again.

    Returns:
        The run's folder, finished.

    Raises:
        davae.training.runs.RunMismatchError: the folder holds another experiment.
        ValueError: the data was prepared for another image size or crop, or lacks the masks that the config
            asks for, or `init` is another network, or the processes cannot share the batch evenly.
        FileNotFoundError: nothing is prepared in `data`, or `init` is no finished run.
        BlockingIOError: another process is training in that folder.
        TrainingDivergedError: a loss or its gradient is no longer finite; the last resume point is kept.
    """
    distributed.join()
    run = Path(run)
    split, validation = (
        PreparedSplit.open(data, name).seen_through(config.data.mask) for name in ("train", "val")
    )
    check_prepared(split, data, config.data)
    masks = split.mask_network if config.data.mask == "network" else None
    first = None if init is None else initial_weights(init, config)
    identity = runs.Identity.of(split.manifest["digest"], init, masks=masks)

    def start() -> Trainer:
        return Trainer(config, split, validation, run, pick_device(device), first)

    return finish(run, config, identity, start, progress, threads)


def initial_weights(init: Path | str, config: Config) -> dict[str, Tensor]:
    """Return the weights of a finished run, for a run of `config` to begin with.

    Raises:
        FileNotFoundError: no finished run there.
        ValueError: its network is another one.
    """
    model, found = runs.load_model(init)
    unlike = runs.differences(*(dataclasses.asdict(c.model) for c in (found, config)), "model")
    if unlike:
        raise ValueError(
            f"{init}: is a run of another network: {'; '.join(unlike)}. Begin with one of the same preset "
            "and model"
        )
    return model.state_dict()


class Trainer(ResumableTrainer):
    """da-VAE on its way through the steps of Eq. 3."""

    def __init__(
        self,
        config: Config,
        split: PreparedSplit,
        validation: PreparedSplit,
        run: Path,
        device: torch.device,
        first_weights: dict[str, Tensor] | None = None,
    ):
        self.config, self.split, self.validation = config, split, validation
        self.samples = hold_on_gpu(split, device)
        torch.manual_seed(config.train.seed)
        model = DaVAE(config.model)
        if first_weights is not None:
            model.load_state_dict(first_weights)
        super().__init__(model, config.train, run, device)

    def fit(self, progress: bool = True, threads: int | None = None) -> None:
        """Train to the last step and write terms.txt."""
        super().fit(progress, threads)
        distributed.on_first(lambda: runs.write_text(self.run / "terms.txt", self.log.terms_table()))

    def train_step(self) -> Objective:
        """One optimiser step on the batch of the current step."""
        settings, step = self.config.train, self.step
        indices = batch_indices(len(self.split), settings.batch_size, settings.seed, step)
        generator = torch.Generator().manual_seed(step_seed(settings.seed, step))
        own = distributed.share()
        raw = load_batch(self.samples, indices[own], self.device)
        batch = augment(raw, self.config.data, generator, batch=len(indices), rows=own)
        noise = torch.randn(len(indices), self.model.latents, generator=generator)[own].to(self.device)
        self.model.train()
        with self.autocast:
            output = self.replica(batch.image.contiguous(memory_format=torch.channels_last), noise)
        parts = objective(output, batch, self.config.loss)
        self.descend(parts.total, parts.weighted)
        return parts.detach()

    def validation_error(self) -> float:
        """End-point error (mm) of the mean latent on the validation split, protocol P1."""
        model, total = self.tested_model().eval(), 0.0
        rows = np.arange(len(self.validation))[distributed.share()]
        for begin in range(0, len(rows), 100):
            raw = load_batch(self.validation, rows[begin : begin + 100], self.device)
            batch = centre(raw, self.config.data)
            with torch.inference_mode(), self.autocast:
                pose = model(batch.image.contiguous(memory_format=torch.channels_last)).pose
            errors = torch.linalg.vector_norm(pose - batch.joints, dim=2).mean(1) * batch.scale_mm
            total += errors.sum().item()
        return distributed.summed(torch.tensor(total, dtype=torch.float64)).item() / len(self.validation)

    def log_row(self, parts: Objective, validate: bool) -> dict[str, float]:
        """One row of metrics.csv: each term unweighted and weighted, KL also as mean per dimension."""
        sizes, settings = self.config.model.latent_sizes, self.config.train
        row = {
            "step": self.step,
            "seconds": self.seconds,
            "learning_rate": learning_rate(settings, self.step - 1),
            "val_epe_mm": self.validation_error() if validate else math.nan,
            "total": parts.total,
            "elbo": parts.elbo,
        }
        row |= parts.terms | {f"kl_{block}": kl for block, kl in parts.kls.items()}
        row |= {f"kl_{block}_per_dim": kl / sizes[block] for block, kl in parts.kls.items()}
        row |= parts.weighted
        return {name: float(value) for name, value in row.items()}
