"""The networks of paper section 3.2."""

from davae.networks.davae import DaVAE, DaVAEOutput, Decoded
from davae.networks.encoder import Posterior
from davae.networks.handmask import HandMaskNet

__all__ = [
    "DaVAE", "DaVAEOutput", "Decoded", "HandMaskNet", "Posterior",
]  # fmt: skip
