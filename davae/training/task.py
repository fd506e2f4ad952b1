"""What is particular to the training of one network: a `Task`. `davae.training.trainer` does the rest.

A task names the network, its forward pass, its loss and its validation measure. Batches, random seeds,
arithmetic, optimiser steps, log, resume points and the sharing of batches by several processes are the
trainer's, and the same for all tasks.
"""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from davae.config import CameraConfig, Config, MaskConfig
from davae.data.augment import Batch
from davae.data.prepared import PreparedSplit
from davae.training.identity import Identity, Kind
from davae.training.log import MetricsLog


class Examples(NamedTuple):
    """The share of a batch that this process computes."""

    batch: Batch  # images and truth, on the device
    split: PreparedSplit  # which they were loaded from
    indices: NDArray[np.int64]  # samples of the whole batch in `split`
    own: slice  # which of `indices` are this process's share
    generator: torch.Generator  # for further random draws, each of them for the whole batch


class Loss(NamedTuple):
    """A loss, mean over the batch, and its terms."""

    total: Tensor  # scalar, to be minimised
    terms: dict[str, Tensor]  # scalars for metrics.csv, in the order of its columns

    def detach(self) -> "Loss":
        """Return the same values without their graph."""
        return Loss(self.total.detach(), {name: term.detach() for name, term in self.terms.items()})


class Task(ABC):
    """The training of one network.

    Attributes:
        config: data, network and schedule.
        init: finished run whose weights the network begins with or reads; None if there is none.
        frozen: networks that the forward pass reads and training does not change.
        kind: which sources shape the result, see `davae.training.identity`.
        measured: column of metrics.csv with the validation measure.
        shown: terms of the loss that the progress bar shows.
        jittered: whether validation uses randomly augmented crops, always the same ones, instead of the
            plain test crops.
    """

    config: Config | MaskConfig | CameraConfig
    init: Path | str | None = None
    frozen: tuple[nn.Module, ...] = ()
    kind: ClassVar[Kind]
    measured: ClassVar[str]
    shown: ClassVar[tuple[str, ...]]
    jittered: ClassVar[bool] = False

    def check(  # noqa: B027, most tasks can learn from any data
        self, data: Path | str, split: PreparedSplit, validation: PreparedSplit, identity: Identity
    ) -> None:
        """Raise ValueError if the network cannot learn from these splits of folder `data`."""

    @abstractmethod
    def build(self) -> nn.Module:
        """Return the network with its first weights, drawn from torch's global generator."""

    @abstractmethod
    def forward(self, network: nn.Module, examples: Examples) -> Any:
        """Return the network's output in training, under autocast."""

    @abstractmethod
    def loss(self, output: Any, examples: Examples) -> Loss:
        """Return the loss of `forward`'s output, in fp32."""

    @abstractmethod
    def measure(self, network: nn.Module, examples: Examples) -> float:
        """Return the sum over samples of the validation measure, of a network in evaluation mode."""

    def validation_rows(self, validation: PreparedSplit) -> NDArray[np.int64]:
        """Return the samples of the validation split that can be measured; the default is all."""
        return np.arange(len(validation))

    def report(self, run: Path, log: MetricsLog) -> None:  # noqa: B027
        """Write further files to the run's folder after the last step; the default is none."""
