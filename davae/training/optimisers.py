"""How weights change: the optimisers, and a moving average of the weights."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from davae.config import TrainConfig
from davae.training.device import has_bf16
from davae.training.muon import Muon

AVERAGE_EVERY = 4  # steps between updates of the weight average


def build_optimisers(network: nn.Module, settings: TrainConfig) -> list[Optimizer]:
    """Return the optimisers of a network's weights: AdamW, or Muon for all matrices and AdamW for the rest.

    AdamW (arXiv:1711.05101) is Adam itself when weight_decay is 0, as in `paper`. Frozen weights have none.
    """
    learning = [p for p in network.parameters() if p.requires_grad]
    matrices = [p for p in learning if p.ndim > 1 and settings.optimiser == "muon"]
    taken = set(map(id, matrices))
    rest = [p for p in learning if id(p) not in taken]
    adam = torch.optim.AdamW(rest, settings.learning_rate, weight_decay=settings.weight_decay, fused=True)
    bf16 = has_bf16(next(network.parameters()).device)
    return [adam, Muon(matrices, settings.learning_rate, bf16=bf16)] if matrices else [adam]


def measure_gradient(optimisers: list[Optimizer], limit: float) -> Tensor:
    """Return the norm of all gradients together; then scale them to the norm `limit` if that is exceeded.

    A limit of 0 leaves them as they are. A norm that is not finite tells of a gradient that is not.
    """
    weights = [
        weight for optimiser in optimisers for group in optimiser.param_groups for weight in group["params"]
    ]
    if limit:
        return nn.utils.clip_grad_norm_(weights, limit)
    return nn.utils.get_total_norm([weight.grad for weight in weights if weight.grad is not None])


def take_step(optimisers: list[Optimizer], rate: float) -> None:
    """Take one step of each optimiser at this learning rate."""
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["lr"] = rate
        optimiser.step()


def build_average(network: nn.Module, decay: float) -> AveragedModel | None:
    """Return an exponential moving average of a network's weights and buffers, or None if decay is 0.

    After n updates the decay is at most (1 + n) / (10 + n), so that the initial weights are soon forgotten
    (the rule of TensorFlow's ExponentialMovingAverage with `num_updates`).
    """

    def update(average: Sequence[Tensor], current: Sequence[Tensor], updates: Tensor | int) -> None:
        n = int(updates)
        if not average[0].is_floating_point():  # counts of BatchNorm, which averaging would cut
            for own, new in zip(average, current, strict=True):
                own.copy_(new)
            return
        get_ema_multi_avg_fn(min(decay, (1 + n) / (10 + n)))(average, current, n)

    return AveragedModel(network, multi_avg_fn=update, use_buffers=True) if decay > 0 else None
