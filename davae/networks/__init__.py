"""The networks of paper section 3.2."""

from davae.networks.davae import DaVAE, DaVAEOutput, Decoded
from davae.networks.encoder import Posterior
from davae.networks.handmask import HandMaskNet
from davae.networks.summary import Part, format_summary, summarise

__all__ = [
    "DaVAE", "DaVAEOutput", "Decoded", "HandMaskNet", "Part", "Posterior", "format_summary", "summarise",
]  # fmt: skip
