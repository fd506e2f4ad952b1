"""Codes of prepared or rendered samples, through the network's own input: posterior means and samples."""

import dataclasses
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm.auto import tqdm

from davae.config import BLOCKS, DataConfig
from davae.data.augment import Batch, RawBatch, centre, load_batch
from davae.data.prepared import PreparedSplit
from davae.latent.codes import Code
from davae.networks import DaVAE, HandMaskNet
from davae.networks.handmask import composite_over_grey
from davae.training.mask_inference import predict_probability
from davae.training.threads import single_threaded

BATCH = 32


class Reading(NamedTuple):
    """Posteriors of n pictures: block -> (n, z)."""

    means: Code
    logvars: Code

    def sample(self, seed: int = 0) -> Code:
        """Draw one code for each picture from its posterior."""
        generator = torch.Generator().manual_seed(seed)
        return {
            block: mean + torch.exp(0.5 * self.logvars[block]) * torch.randn(mean.shape, generator=generator)
            for block, mean in self.means.items()
        }


@dataclasses.dataclass(frozen=True)
class Reader:
    """Encodes stored samples as the network was trained to see them.

    Attributes:
        model: in evaluation mode, on the CPU.
        data: crop, sizes, and the mask of the input.
        mask_network: makes the masks of the input where `data.mask` is "network" and the samples have none.
    """

    model: DaVAE
    data: DataConfig
    mask_network: HandMaskNet | None = None

    def show(self, raw: RawBatch) -> Batch:
        """Return stored samples as input and targets of the network.

        Where neither masks nor a mask network are there, as for hands rendered for a run, true masks serve.
        """
        if self.data.mask != "network" or raw.predicted_masks is not None:
            return centre(raw, self.data)
        if self.mask_network is None:
            return centre(raw, dataclasses.replace(self.data, mask="truth"))
        batch = centre(raw, dataclasses.replace(self.data, mask="none"))
        hand = predict_probability(self.mask_network, batch.image)
        return batch._replace(image=composite_over_grey(batch.image, hand))

    @single_threaded()
    def read(self, raw: RawBatch) -> Reading:
        """Encode stored samples (n, ...)."""
        with torch.inference_mode():
            found = self.model.encode(self.show(raw).image)
        return Reading(found.means, found.logvars)

    def read_rows(self, split: PreparedSplit, rows: NDArray[np.int64], *, progress: bool = False) -> Reading:
        """Encode samples `rows` (n,) of a prepared split."""
        parts = [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]
        read = [self.read(load_batch(split, part)) for part in tqdm(parts, "encode", disable=not progress)]
        return concatenate(read)


def concatenate(readings: list[Reading]) -> Reading:
    """Return several readings as one, in order."""

    def join(part: str) -> Code:
        return {block: torch.cat([getattr(one, part)[block] for one in readings]) for block in BLOCKS}

    return Reading(join("means"), join("logvars"))
