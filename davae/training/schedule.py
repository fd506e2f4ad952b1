"""What a training step is given, as a pure function of its number: samples, random seed and learning rate."""

import math

import numpy as np
from numpy.typing import NDArray

from davae.config import TrainConfig


def batch_indices(samples: int, batch: int, seed: int, step: int) -> NDArray[np.int64]:
    """Return which samples (batch,) of a split of size `samples` make up the batch of a step.

    Each epoch is one random permutation, drawn from (seed, epoch); batches are consecutive pieces of it.
    """
    positions = np.arange(step * batch, (step + 1) * batch)
    epochs = positions // samples
    order = {e: np.random.default_rng([seed, int(e)]).permutation(samples) for e in np.unique(epochs)}
    return np.array([order[e][p % samples] for e, p in zip(epochs, positions, strict=True)])


def step_seed(seed: int, step: int) -> int:
    """Return the seed of a step's random draws."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> 1)


def learning_rate(settings: TrainConfig, step: int) -> float:
    """Return the learning rate of a step, counted from 0.

    Schedule "cosine": linear warm-up, then half a cosine down to the final rate (arXiv:1608.03983, without
    restarts). Schedule "milestones" (paper 4.2): from the initial to the final rate in factors of ten, each
    rate for an equal share of the steps.
    """
    peak, final = settings.learning_rate, settings.final_learning_rate
    if settings.schedule == "milestones":
        stages = round(math.log10(peak / final)) + 1
        return peak * 10.0 ** -(step * stages // settings.steps)
    if step < settings.warmup_steps:
        return peak * (step + 1) / settings.warmup_steps
    done = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
    return final + 0.5 * (peak - final) * (1.0 + math.cos(math.pi * done))
