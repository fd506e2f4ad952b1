"""The training loop, in plain PyTorch (paper 4.2): the same for da-VAE, the mask network and the camera head.

All random draws of step t (samples, augmentation, noise) come from generators seeded with (seed, t) alone.
So a trainer has no random state: on one machine with a fixed number of threads, a run that was killed and
resumed has bit for bit the weights of an uninterrupted run. (A number that neither OMP_NUM_THREADS nor the
caller fixes is chosen by speed, which changes the last bits: `davae.training.threads`.) Several processes
started by torchrun share every batch of a run: `davae.training.distributed`.
"""

import math
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import nn
from tqdm.auto import tqdm

from davae.config import DataConfig
from davae.data.augment import RawBatch, augment, centre, hold_on_gpu, load_batch
from davae.data.prepared import PreparedSplit
from davae.networks.fused import fuse
from davae.training import distributed, runs
from davae.training.device import has_bf16, move_to, pick_device
from davae.training.heap import keep_freed_memory
from davae.training.identity import Identity
from davae.training.log import MetricsLog
from davae.training.optimisers import (
    AVERAGE_EVERY,
    build_average,
    build_optimisers,
    measure_gradient,
    take_step,
)
from davae.training.schedule import batch_indices, learning_rate, step_seed
from davae.training.task import Examples, Loss, Task
from davae.training.threads import ThreadChoice, get_requested_threads, single_threaded
from synthhand.storage import exclusive

LOG_EVERY = 10  # steps between rows of metrics.csv
VALIDATIONS = 8  # how many times a run is validated
VALIDATION_BATCH = 100  # samples
VALIDATION_SEED = 1_000_003  # of jittered validation crops, so that they are always the same
ARITHMETIC = {True: "bf16 arithmetic", False: "fp32 arithmetic (no bf16 on this processor)"}


class TrainingDivergedError(FloatingPointError):
    """A loss or its gradient became infinite or not a number."""


def train_task(
    task: Task,
    data: Path | str,
    run: Path | str,
    *,
    device: str = "auto",
    progress: bool = True,
    threads: int | None = None,
) -> Path:
    """Train a task in folder `run`, resume its training there, or find it finished.

    All processes of a group call this; rank 0 alone opens the folder, writes to it and shows progress. For
    arguments, return value and errors see `davae.training.davae_task.train`.
    """
    distributed.join()
    run, config = Path(run), task.config
    split, validation = (
        PreparedSplit.open(data, name).seen_through(config.data.mask) for name in ("train", "val")
    )
    check_prepared(split, data, config.data)
    init = None if task.init is None else runs.weights_digest(task.init)
    masks = split.mask_network if config.data.mask == "network" else None
    identity = Identity.of(split.manifest["digest"], init, network=task.kind, masks=masks)
    task.check(data, split, validation, identity)
    distributed.check_batch(config.train.batch_size)
    with ExitStack() as held:

        def claim() -> bool:
            held.enter_context(exclusive(run))
            runs.open_run(run, config, identity)
            return runs.is_finished(run)

        if not distributed.run_on_first_rank(claim):
            held.enter_context(keep_freed_memory())
            trainer = Trainer(task, split, validation, run, pick_device(device))
            trainer.fit(progress and distributed.rank() == 0, threads)
            distributed.run_on_first_rank(lambda: runs.save_model(run, trainer.model_for_test()))
        distributed.run_on_first_rank(lambda: (run / "resume.pt").unlink(missing_ok=True))
    return run


def check_prepared(split: PreparedSplit, data: Path | str, config: DataConfig) -> None:
    """Raise ValueError if `split` of folder `data` was prepared for another image size or crop."""
    for name in ("image_px", "crop", "scale_min"):
        if split.manifest[name] != (asked := getattr(config, name)):
            raise ValueError(
                f"{data} was prepared with {name} {split.manifest[name]!r}, this run needs {asked!r}; "
                "prepare into another folder with that, or change the run's config"
            )


def choose_part(network: nn.Module, name: str) -> nn.Module:
    """Return the part of a network that learns; all else is frozen, BatchNorm's statistics included."""
    if not name:
        return network
    network.eval().requires_grad_(False)
    return network.get_submodule(name).requires_grad_(True).train()


class Trainer:
    """The state of one run: network, optimisers, weight average and log, at one step."""

    def __init__(
        self, task: Task, split: PreparedSplit, validation: PreparedSplit, run: Path, device: torch.device
    ):
        self.task, self.split, self.validation, self.run, self.device = task, split, validation, run, device
        self.settings = settings = task.config.train
        self.samples = hold_on_gpu(split, device)
        for network in task.frozen:
            move_to(network, device).eval()
        torch.manual_seed(settings.seed)
        self.model = move_to(task.build(), device)
        self.learning = choose_part(self.model, settings.only)
        self.unfused = fuse(self.model) if device.type == "cpu" else None  # why it trains without kernels
        self.optimisers = build_optimisers(self.model, settings)
        self.average = build_average(self.model, settings.average_decay)
        self.step, self.seconds = 0, 0.0
        self.autocast = torch.autocast(device.type, torch.bfloat16, enabled=has_bf16(device))
        self.log = MetricsLog(run / "metrics.csv")
        if (state := distributed.run_on_first_rank(lambda: runs.load_resume_point(run))) is not None:
            self.restore(state)
        distributed.run_on_first_rank(lambda: self.log.truncate(self.step))
        self.replica = distributed.replicate(self.model)  # what a training step calls

    def fit(self, progress: bool = True, threads: int | None = None) -> None:
        """Train from the current step to the last, writing resume points.

        Args:
            progress: show a progress bar.
            threads: of torch, for one process on a CPU. None uses OMP_NUM_THREADS or, if that is not set, the
                number that is fastest at the time. On a GPU or with several processes torch's number stays.
        """
        settings, first = self.settings, self.step
        if self.device.type != "cpu" or distributed.world_size() > 1:
            threads = torch.get_num_threads()  # a GPU needs few, and torchrun divides the cores
        choice = ThreadChoice(threads or get_requested_threads())
        began = time.perf_counter()
        earlier = self.seconds
        bar = tqdm(total=settings.steps, initial=first, desc="train", unit="step", disable=not progress)
        while self.step < settings.steps:
            with choice.piece():
                loss = self.train_step()
            self.step += 1
            self.seconds = earlier + time.perf_counter() - began
            bar.update()
            last = self.step == settings.steps
            validate = last or self.step % math.ceil(settings.steps / VALIDATIONS) == 0
            if validate:
                distributed.broadcast_buffers(self.model_for_test())
            if validate or self.step == 1 or self.step % LOG_EVERY == 0:
                row = self._log(loss, validate)
                bar.set_postfix({name: f"{row[name]:.3g}" for name in self.task.shown}, refresh=False)
            if progress and self.step == first + 20:
                minutes = round((time.perf_counter() - began) / 20 * (settings.steps - first) / 60)
                left = f"about {minutes} min" if minutes else "less than a minute"
                used = f"{choice.threads} thread{'s' * (choice.threads > 1)}"
                bar.write(f"{ARITHMETIC[has_bf16(self.device)]}, {used}; {left} to go")
                if self.unfused:
                    bar.write(
                        f"training uses PyTorch alone, which is slower (docs/install.md): {self.unfused}"
                    )
            if not last and self.step % settings.checkpoint_every == 0:
                distributed.run_on_first_rank(lambda: runs.save_resume_point(self.run, self.state()))
        bar.close()
        distributed.run_on_first_rank(lambda: self.task.report(self.run, self.log))

    def train_step(self) -> Loss:
        """Train on the batch of the current step; return its loss, detached."""
        settings = self.settings
        indices = batch_indices(len(self.split), settings.batch_size, settings.seed, self.step)
        seed = step_seed(settings.seed, self.step)
        examples = self._load_examples(self.samples, self.split, indices, seed, jittered=True)
        if not self.learning.training:  # a walk through all of its parts
            self.learning.train()
        with self.autocast:
            output = self.task.forward(self.replica, examples)
        loss = self.task.loss(output, examples)
        self.update_weights(loss)
        return loss.detach()

    def _load_examples(
        self,
        samples: PreparedSplit | RawBatch,
        split: PreparedSplit,
        indices: NDArray,
        seed: int,
        jittered: bool,
    ) -> Examples:
        """Return this process's share of a batch: randomly augmented, or as test crops.

        Random draws are those of the whole batch, whatever the number of processes.
        """
        own = distributed.share()
        data = self.task.config.data
        raw = load_batch(samples, indices[own], self.device)
        generator = torch.Generator().manual_seed(seed)
        batch = augment(raw, data, generator, batch=len(indices), rows=own) if jittered else centre(raw, data)
        return Examples(batch, split, indices, own, generator)

    def update_weights(self, loss: Loss) -> None:
        """Take an optimiser step, then update the weight average.

        Raises:
            TrainingDivergedError: the loss or its gradient is not finite, on any rank; names what is not
                finite. The weights are not changed.
        """
        for optimiser in self.optimisers:
            optimiser.zero_grad()
        loss.total.backward()
        norm = measure_gradient(self.optimisers, self.settings.clip_norm)
        # Summed, as gradients are: so all ranks learn of a value that is not finite on one of them.
        total = distributed.sum_over_ranks(loss.total.detach())
        if not (torch.isfinite(total) and torch.isfinite(norm)):
            values = {"total": loss.total} | loss.terms | {"gradient norm": norm}
            self._raise_diverged({name: float(value.detach()) for name, value in values.items()})
        take_step(self.optimisers, learning_rate(self.settings, self.step))
        if self.average is not None and self.step % AVERAGE_EVERY == 0:
            self.average.update_parameters(self.model)

    def _raise_diverged(self, values: dict[str, float]) -> None:
        values = distributed.average_over_ranks(values)
        bad = [name for name, value in values.items() if not math.isfinite(value)]
        raise TrainingDivergedError(
            f"{self.run}: training diverged at step {self.step}: {', '.join(bad)} not finite, of {values}. "
            "In a new run folder, lower train.learning_rate or set train.clip_norm; the last resume point of "
            "this run is kept"
        )

    @single_threaded()
    def _log(self, loss: Loss, validate: bool) -> dict[str, float]:
        """Add a row to metrics.csv, with the validation measure if `validate`, and return it."""
        row = {
            "step": self.step,
            "seconds": self.seconds,
            "learning_rate": learning_rate(self.settings, self.step - 1),
            self.task.measured: self.validate() if validate else math.nan,
        }
        row |= {name: float(value) for name, value in ({"total": loss.total} | loss.terms).items()}
        row = distributed.average_over_ranks(row)
        distributed.run_on_first_rank(lambda: self.log.append(row))
        return row

    def validate(self) -> float:
        """Return the mean of the task's validation measure over the validation split, on all ranks."""
        task, model, total = self.task, self.model_for_test().eval(), 0.0
        rows = task.validation_rows(self.validation)
        for begin in range(0, len(rows), VALIDATION_BATCH):
            indices = rows[begin : begin + VALIDATION_BATCH]
            if len(indices) <= distributed.rank():
                continue  # fewer samples than processes, and none for this one
            seed = VALIDATION_SEED + begin
            examples = self._load_examples(self.validation, self.validation, indices, seed, task.jittered)
            with torch.inference_mode(), self.autocast:
                total += task.measure(model, examples)
        return distributed.sum_over_ranks(torch.tensor(total, dtype=torch.float64)).item() / len(rows)

    def model_for_test(self) -> nn.Module:
        """Return the network whose weights are used at test: the weight average, if there is one."""
        return self.model if self.average is None else self.average.module

    def state(self) -> dict[str, Any]:
        """Return everything that a resumed run needs, for `restore`."""
        return {
            "step": self.step,
            "seconds": self.seconds,
            "model": self.model.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "average": None if self.average is None else self.average.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a resume point."""
        self.step, self.seconds = state["step"], state["seconds"]
        self.model.load_state_dict(state["model"])
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        if self.average is not None:
            self.average.load_state_dict(state["average"])
