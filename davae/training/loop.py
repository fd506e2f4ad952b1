"""The training loop (paper 4.2), in plain PyTorch.

Every random draw of step t (which samples, augmentation, latent noise) comes from generators seeded with
(seed, t) alone. So the loop carries no random state: a run that was killed and resumed is, on one machine and
thread count, bit for bit the run that was not.
"""

import csv
import dataclasses
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm.auto import tqdm

from davae.config import Config, TrainConfig
from davae.data.augment import augment, centre, load_batch
from davae.data.folders import exclusive
from davae.data.prepared import PreparedSplit
from davae.losses import Objective, objective
from davae.networks import DaVAE
from davae.training import runs
from davae.training.muon import Muon

LOG_EVERY = 10  # steps between rows of metrics.csv
AVERAGE_EVERY = 4  # steps between updates of the weight average
VALIDATIONS = 8  # how many times the validation error is measured in a run
ARITHMETIC = {True: "bf16 arithmetic", False: "fp32 arithmetic (no bf16 on this processor)"}


class TrainingDivergedError(FloatingPointError):
    """A loss became infinite or not a number."""


def train(
    config: Config,
    data: Path | str,
    run: Path | str,
    *,
    init: Path | str | None = None,
    device: str = "auto",
    progress: bool = True,
) -> Path:
    """Train one model, or go on with it, or find it finished.

    Args:
        config: the experiment.
        data: folder written by `davae.data.prepared.prepare`.
        run: the run's folder; see `davae.training.runs`.
        init: a finished run to take the first weights from, instead of random ones (RHD first, then STB).
        device: "auto" takes a GPU where there is one.
        progress: show a progress bar.

    Returns:
        The run's folder, finished.

    Raises:
        davae.training.runs.RunMismatchError: the folder holds another experiment.
        ValueError: the data was prepared for another image size or crop, or `init` is another network.
        FileNotFoundError: nothing is prepared in `data`, or `init` is no finished run.
        BlockingIOError: another process is training in that folder.
        TrainingDivergedError: a loss or its gradient is no longer finite; the last resume point is kept.
    """
    run = Path(run)
    split, validation = PreparedSplit.open(data, "train"), PreparedSplit.open(data, "val")
    for name in ("image_px", "crop", "scale_min"):
        if split.manifest[name] != (asked := getattr(config.data, name)):
            raise ValueError(
                f"{data} was prepared with {name} {split.manifest[name]!r}, this run needs {asked!r}; "
                "prepare into another folder with that, or change the run's config"
            )
    with exclusive(run):
        first = None if init is None else initial_weights(init, config)
        runs.open_run(run, config, runs.Identity.of(split.manifest["digest"], init))
        if not runs.is_finished(run):
            trainer = Trainer(config, split, validation, run, pick_device(device), first)
            trainer.fit(progress)
            runs.save_model(run, trainer.tested_model())
        (run / "resume.pt").unlink(missing_ok=True)
    return run


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


class Trainer:
    """Model, optimiser, weight average and log of one run, at one step."""

    def __init__(
        self,
        config: Config,
        split: PreparedSplit,
        validation: PreparedSplit,
        run: Path,
        device: torch.device,
        first_weights: dict[str, Tensor] | None = None,
    ):
        self.config, self.run, self.device = config, run, device
        self.split, self.validation = split, validation
        torch.manual_seed(config.train.seed)
        self.model = DaVAE(config.model).to(device, memory_format=torch.channels_last)
        if first_weights is not None:
            self.model.load_state_dict(first_weights)
        self.optimisers = optimisers(self.model, config.train)
        self.average = averaged(self.model, config.train.average_decay)
        self.step, self.seconds = 0, 0.0
        self.autocast = torch.autocast(device.type, torch.bfloat16, enabled=has_bf16(device))
        self.log = MetricsLog(run / "metrics.csv")
        if (state := runs.load_resume_point(run)) is not None:
            self.restore(state)
        self.log.truncate(self.step)

    def fit(self, progress: bool = True) -> None:
        """Train from the current step to the last, leaving resume points behind."""
        settings, first = self.config.train, self.step
        began = time.perf_counter()
        earlier = self.seconds
        bar = tqdm(total=settings.steps, initial=first, desc="train", unit="step", disable=not progress)
        while self.step < settings.steps:
            parts = self.train_step()
            self.step += 1
            self.seconds = earlier + time.perf_counter() - began
            bar.update()
            last = self.step == settings.steps
            validate = last or self.step % math.ceil(settings.steps / VALIDATIONS) == 0
            if validate or self.step == 1 or self.step % LOG_EVERY == 0:
                bar.set_postfix(
                    {name: f"{float(term):.3g}" for name, term in parts.terms.items()}, refresh=False
                )
                self.log.append(self.log_row(parts, validate))
            if progress and self.step == first + 20:
                minutes = (time.perf_counter() - began) / 20 * (settings.steps - first) / 60
                bar.write(f"{ARITHMETIC[has_bf16(self.device)]}; about {minutes:.0f} min to go")
            if not last and self.step % settings.checkpoint_every == 0:
                runs.save_resume_point(self.run, self.state())
        bar.close()
        runs.write_text(self.run / "terms.txt", self.log.terms_table())

    def train_step(self) -> Objective:
        """One optimiser step on the batch of the current step."""
        settings, step = self.config.train, self.step
        indices = batch_indices(len(self.split), settings.batch_size, settings.seed, step)
        generator = torch.Generator().manual_seed(_step_seed(settings.seed, step))
        batch = augment(load_batch(self.split, indices, self.device), self.config.data, generator)
        noise = torch.randn(len(indices), self.model.latents, generator=generator).to(self.device)
        self.model.train()
        with self.autocast:
            output = self.model(batch.image.contiguous(memory_format=torch.channels_last), noise)
        parts = objective(output, batch, self.config.loss)
        self.model.zero_grad(set_to_none=True)
        parts.total.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), settings.clip_norm or math.inf)
        if not (torch.isfinite(parts.total) and torch.isfinite(norm)):  # before they reach the weights
            raise TrainingDivergedError(_divergence(parts.detach(), float(norm), self.run, step))
        take_step(self.optimisers, learning_rate(settings, step))
        if self.average is not None and step % AVERAGE_EVERY == 0:
            self.average.update_parameters(self.model)
        return parts.detach()

    def tested_model(self) -> DaVAE:
        """The model whose weights are used at test: the average, where one is kept."""
        return self.model if self.average is None else self.average.module

    def validation_error(self) -> float:
        """End-point error (mm) of the mean latent on the validation split, protocol P1."""
        model, total = self.tested_model().eval(), 0.0
        for begin in range(0, len(self.validation), 100):
            indices = np.arange(begin, min(begin + 100, len(self.validation)))
            batch = centre(load_batch(self.validation, indices, self.device), self.config.data)
            with torch.inference_mode(), self.autocast:
                pose = model(batch.image.contiguous(memory_format=torch.channels_last)).pose
            errors = torch.linalg.vector_norm(pose - batch.joints, dim=2).mean(1) * batch.scale_mm
            total += errors.sum().item()
        return total / len(self.validation)

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


def optimisers(model: torch.nn.Module, settings: TrainConfig) -> list[Optimizer]:
    """Return what moves a model's weights: AdamW alone, or Muon for all matrices and AdamW for the rest.

    AdamW is Adam itself where weight_decay is 0, as in `paper`.
    """
    matrices = [p for p in model.parameters() if p.ndim > 1 and settings.optimiser == "muon"]
    taken = set(map(id, matrices))
    rest = [p for p in model.parameters() if id(p) not in taken]
    adam = torch.optim.AdamW(rest, settings.learning_rate, weight_decay=settings.weight_decay, fused=True)
    return [adam, Muon(matrices, settings.learning_rate)] if matrices else [adam]


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
    """Return the named device; "auto" is a GPU where there is one, else the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def has_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bf16 in hardware, which about doubles the speed of training."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    features = torch.cpu.get_capabilities()
    return bool(features.get("avx512_bf16") or features.get("amx_bf16"))


def _step_seed(seed: int, step: int) -> int:
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> 1)


def _divergence(parts: Objective, gradient_norm: float, run: Path, step: int) -> str:
    values = {name: float(value) for name, value in parts.weighted.items()} | {"gradient norm": gradient_norm}
    bad = [name for name, value in values.items() if not math.isfinite(value)]
    return (
        f"{run}: training diverged at step {step}: {', '.join(bad)} not finite, of {values}. In a new run "
        "folder, lower train.learning_rate or set train.clip_norm; the last resume point of this one is kept"
    )
