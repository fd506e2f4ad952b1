"""What every training here shares: a loop around one step, and the state that a kill must not cost.

Every random draw of step t (which samples, augmentation, noise) comes from generators seeded with (seed, t)
alone. So a trainer carries no random state: a run that was killed and resumed is, on one machine and a stated
number of threads, bit for bit the run that was not. (Where none is stated, by OMP_NUM_THREADS or by the
caller, as many are used as pay at the time, which moves last bits: see `davae.training.threads`.) Started by
torchrun, several processes share every batch of a run: see `davae.training.distributed`.
"""

import csv
import math
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm.auto import tqdm

from davae.config import DataConfig, Saved, TrainConfig
from davae.data.prepared import PreparedSplit
from davae.training import distributed, runs
from davae.training.heap import freed_memory_kept
from davae.training.muon import Muon
from davae.training.threads import ThreadChoice, single_threaded, stated_threads
from synthhand.storage import exclusive

LOG_EVERY = 10  # steps between rows of metrics.csv
AVERAGE_EVERY = 4  # steps between updates of the weight average
VALIDATIONS = 8  # how many times the validation error is measured in a run
ARITHMETIC = {True: "bf16 arithmetic", False: "fp32 arithmetic (no bf16 on this processor)"}


class TrainingDivergedError(FloatingPointError):
    """A loss became infinite or not a number."""


class Parts(Protocol):
    """What one step leaves for the log."""

    terms: Mapping[str, Tensor]  # of the loss, unweighted


class ResumableTrainer:
    """Model, optimisers, weight average and log of one run, at one step.

    A subclass says what a step is (`train_step`) and what of it is logged (`log_row`).
    """

    def __init__(self, model: torch.nn.Module, settings: TrainConfig, run: Path, device: torch.device):
        self.settings, self.run, self.device = settings, run, device
        self.model = model.to(device, memory_format=torch.channels_last)
        self.optimisers = optimisers(self.model, settings)
        self.average = averaged(self.model, settings.average_decay)
        self.step, self.seconds = 0, 0.0
        self.autocast = torch.autocast(device.type, torch.bfloat16, enabled=has_bf16(device))
        self.log = MetricsLog(run / "metrics.csv")
        if (state := distributed.on_first(lambda: runs.load_resume_point(run))) is not None:
            self.restore(state)
        distributed.on_first(lambda: self.log.truncate(self.step))
        self.replica = distributed.replicate(self.model)  # what a step calls

    def train_step(self) -> Parts:
        """Take the current step: compute a loss and `descend` it."""
        raise NotImplementedError

    def log_row(self, parts: Parts, validate: bool) -> dict[str, float]:
        """Return one row of metrics.csv; `validate` asks for the error on the validation split, too."""
        raise NotImplementedError

    def fit(self, progress: bool = True, threads: int | None = None) -> None:
        """Train from the current step to the last, leaving resume points behind.

        Args:
            progress: show a progress bar.
            threads: of torch on a CPU in one process; elsewhere torch's own number stays. None for what
                OMP_NUM_THREADS says or, where it says nothing, what pays.
        """
        settings, first = self.settings, self.step
        if self.device.type != "cpu" or distributed.ranks() > 1:
            threads = torch.get_num_threads()  # a GPU's steps need few, and torchrun shares them out
        choice = ThreadChoice(threads or stated_threads())
        began = time.perf_counter()
        earlier = self.seconds
        bar = tqdm(total=settings.steps, initial=first, desc="train", unit="step", disable=not progress)
        while self.step < settings.steps:
            with choice.piece():
                parts = self.train_step()
            self.step += 1
            self.seconds = earlier + time.perf_counter() - began
            bar.update()
            last = self.step == settings.steps
            validate = last or self.step % math.ceil(settings.steps / VALIDATIONS) == 0
            if validate:
                distributed.share_buffers(self.tested_model())
            if validate or self.step == 1 or self.step % LOG_EVERY == 0:
                with single_threaded():
                    row = distributed.mean(self.log_row(parts, validate))
                bar.set_postfix({name: f"{row[name]:.3g}" for name in parts.terms}, refresh=False)
                distributed.on_first(lambda row=row: self.log.append(row))
            if progress and self.step == first + 20:
                minutes = (time.perf_counter() - began) / 20 * (settings.steps - first) / 60
                used = f"{choice.threads} thread{'s' * (choice.threads > 1)}"
                bar.write(f"{ARITHMETIC[has_bf16(self.device)]}, {used}; about {minutes:.0f} min to go")
            if not last and self.step % settings.checkpoint_every == 0:
                distributed.on_first(lambda: runs.save_resume_point(self.run, self.state()))
        bar.close()

    def descend(self, total: Tensor, terms: Mapping[str, Tensor]) -> None:
        """Move the weights down the slope of `total`, and their average after them.

        Raises:
            TrainingDivergedError: the loss or its gradient is not finite, on whichever rank; names the
                `terms` that are not.
        """
        self.model.zero_grad(set_to_none=True)
        total.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip_norm or math.inf)
        total = distributed.summed(total.detach())  # as the gradients are: all ranks see what one of them has
        if not (torch.isfinite(total) and torch.isfinite(norm)):  # before they reach the weights
            raise TrainingDivergedError(_divergence(terms, float(norm), self.run, self.step))
        take_step(self.optimisers, learning_rate(self.settings, self.step))
        if self.average is not None and self.step % AVERAGE_EVERY == 0:
            self.average.update_parameters(self.model)

    def tested_model(self) -> torch.nn.Module:
        """The model whose weights are used at test: the average, where one is kept."""
        return self.model if self.average is None else self.average.module

    def state(self) -> dict[str, Any]:
        """Everything that a resumed run needs; `restore`'s inverse."""
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


def finish(
    run: Path,
    config: Saved,
    identity: runs.Identity,
    start: Callable[[], ResumableTrainer],
    progress: bool,
    threads: int | None = None,
) -> Path:
    """Train in folder `run`, or go on there, or find it finished; return the folder.

    All of a process group call it; rank 0 alone opens the folder, writes there and shows progress.

    Raises:
        ValueError: the batch cannot be shared evenly by the processes that torchrun started.
        davae.training.runs.RunMismatchError: the folder holds another experiment.
        BlockingIOError: another process is training in that folder.
        TrainingDivergedError: a loss or its gradient is no longer finite; the last resume point is kept.
    """
    distributed.check_batch(config.train.batch_size)
    with ExitStack() as held:

        def claim() -> bool:
            held.enter_context(exclusive(run))
            runs.open_run(run, config, identity)
            return runs.is_finished(run)

        if not distributed.on_first(claim):
            held.enter_context(freed_memory_kept())
            trainer = start()
            trainer.fit(progress and distributed.rank() == 0, threads)
            distributed.on_first(lambda: runs.save_model(run, trainer.tested_model()))
        distributed.on_first(lambda: (run / "resume.pt").unlink(missing_ok=True))
    return run


def check_prepared(split: PreparedSplit, data: Path | str, config: DataConfig) -> None:
    """Raise ValueError if `split` of folder `data` was prepared for another image size or crop."""
    for name in ("image_px", "crop", "scale_min"):
        if split.manifest[name] != (asked := getattr(config, name)):
            raise ValueError(
                f"{data} was prepared with {name} {split.manifest[name]!r}, this run needs {asked!r}; "
                "prepare into another folder with that, or change the run's config"
            )


def optimisers(model: torch.nn.Module, settings: TrainConfig) -> list[Optimizer]:
    """Return what moves a model's weights: AdamW alone, or Muon for all matrices and AdamW for the rest.

    AdamW is Adam itself where weight_decay is 0, as in `paper`.
    """
    matrices = [p for p in model.parameters() if p.ndim > 1 and settings.optimiser == "muon"]
    taken = set(map(id, matrices))
    rest = [p for p in model.parameters() if id(p) not in taken]
    adam = torch.optim.AdamW(rest, settings.learning_rate, weight_decay=settings.weight_decay, fused=True)
    bf16 = has_bf16(next(model.parameters()).device)
    return [adam, Muon(matrices, settings.learning_rate, bf16=bf16)] if matrices else [adam]


def take_step(optimisers: list[Optimizer], rate: float) -> None:
    """Let each optimiser step at this learning rate."""
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["lr"] = rate
        optimiser.step()


def averaged(model: torch.nn.Module, decay: float) -> AveragedModel | None:
    """Return an exponential moving average of a model's weights and buffers, or None for decay 0.

    Early on the decay is smaller, (1 + n) / (10 + n) after n steps, so that the average soon forgets the
    weights that training began with.
    """

    def move(average: list[Tensor], current: list[Tensor], n: Tensor) -> None:
        n = int(n)
        get_ema_multi_avg_fn(min(decay, (1 + n) / (10 + n)))(average, current, n)

    return AveragedModel(model, multi_avg_fn=move, use_buffers=True) if decay > 0 else None


class MetricsLog:
    """metrics.csv: rows are appended, and those after a resume point taken back."""

    def __init__(self, path: Path):
        self.path = path

    def append(self, row: dict[str, float]) -> None:
        """Add a row; an absent value (nan) is left empty."""
        new = not self.path.exists()
        with self.path.open("a", newline="") as file:
            writer = csv.DictWriter(file, row)
            if new:
                writer.writeheader()
            writer.writerow({name: "" if math.isnan(v) else f"{v:.6g}" for name, v in row.items()})

    def rows(self) -> list[dict[str, str]]:
        """All whole rows; a kill may have cut the last one short."""
        if not self.path.exists():
            return []
        with self.path.open(newline="") as file:
            return [row for row in csv.DictReader(file) if None not in row.values()]

    def truncate(self, step: int) -> None:
        """Forget the rows after `step`."""
        rows = [row for row in self.rows() if float(row["step"]) <= step]
        if not rows:
            self.path.unlink(missing_ok=True)
            return
        lines = [",".join(rows[0])] + [",".join(row.values()) for row in rows]
        runs.write_text(self.path, "\n".join(lines) + "\n")

    def terms_table(self) -> str:
        """Each weighted term of Eq. 3 at the first and at the last step, so that none is silently nothing."""
        rows = self.rows()
        names = [name for name in rows[0] if name.startswith(("alpha_", "beta_"))]
        lines = [
            f"{'weighted term':<18}" + "".join(f"{'step ' + row['step']:>14}" for row in (rows[0], rows[-1]))
        ]
        lines += [f"{name:<18}{float(rows[0][name]):>14.2f}{float(rows[-1][name]):>14.2f}" for name in names]
        return "\n".join(lines) + "\n"


def batch_indices(samples: int, batch: int, seed: int, step: int) -> np.ndarray:
    """Samples of one step: consecutive pieces of one shuffle an epoch, each from (seed, epoch) alone."""
    positions = np.arange(step * batch, (step + 1) * batch)
    epochs = positions // samples
    order = {e: np.random.default_rng([seed, int(e)]).permutation(samples) for e in np.unique(epochs)}
    return np.array([order[e][p % samples] for e, p in zip(epochs, positions, strict=True)])


def learning_rate(settings: TrainConfig, step: int) -> float:
    """Learning rate of a step (counted from 0).

    "cosine": linear warm-up, then half a cosine down to the final rate. "milestones" (paper 4.2): from the
    initial rate to the final one in factors of ten, each for an equal share of the steps.
    """
    peak, final = settings.learning_rate, settings.final_learning_rate
    if settings.schedule == "milestones":
        stages = round(math.log10(peak / final)) + 1
        return peak * 10.0 ** -(step * stages // settings.steps)
    if step < settings.warmup_steps:
        return peak * (step + 1) / settings.warmup_steps
    done = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
    return final + 0.5 * (peak - final) * (1.0 + math.cos(math.pi * done))


def pick_device(name: str) -> torch.device:
    """Return the named device; "auto" is a GPU where there is one, of torchrun's processes each its own."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def has_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bf16 in hardware, which about doubles the speed of training."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    features = torch.cpu.get_capabilities()
    return bool(features.get("avx512_bf16") or features.get("amx_bf16"))


def step_seed(seed: int, step: int) -> int:
    """Seed of a step's random draws."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> 1)


def _divergence(terms: Mapping[str, Tensor], gradient_norm: float, run: Path, step: int) -> str:
    values = {name: float(value.detach()) for name, value in terms.items()} | {"gradient norm": gradient_norm}
    values = distributed.mean(values)
    bad = [name for name, value in values.items() if not math.isfinite(value)]
    return (
        f"{run}: training diverged at step {step}: {', '.join(bad)} not finite, of {values}. In a new run "
        "folder, lower train.learning_rate or set train.clip_norm; the last resume point of this one is kept"
    )
