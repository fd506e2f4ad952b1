"""What our ratios of loss weights are under other reductions; paper 4.3 gives ratios but no reductions.

The product of a weight and its term must stay the same, so a weight grows by what its term is divided by. Our
terms are sums at the paper's sizes: 63 joint coordinates, 2025 points, 3 x 256 x 256 image values, all
dimensions of a block of z (see `davae.losses.REDUCTIONS`).
"""

from davae.config import BLOCKS, ModelConfig
from davae.losses import CLOUD_ELEMENTS, IMAGE_ELEMENTS
from synthhand.skeleton import JOINTS

ELEMENTS = {"pose": 3 * JOINTS, "cloud": CLOUD_ELEMENTS, "image": IMAGE_ELEMENTS}  # a mean divides by these
REDUCTIONS = ("sum/sum", "mean/mean", "mean/sum")  # of errors / of the KL


def convert_beta_ratio(ours: float, reduction: str, block: str = "pose") -> float:
    """Return the beta / alpha_image under another reduction that equals our ratio.

    Args:
        ours: the ratio under our reductions.
        reduction: "sum/sum" (ours), "mean/mean" or "mean/sum": how errors and how the KL are reduced.
        block: the block of z; blocks have different numbers of dimensions.

    Raises:
        ValueError: no such reduction or block.
    """
    errors, kl = _split(reduction)
    if block not in BLOCKS:
        raise ValueError(f"unknown block {block!r}; choose one of {', '.join(BLOCKS)}")
    dimensions = ModelConfig().latent_sizes[block] if kl == "mean" else 1
    return ours * dimensions / (ELEMENTS["image"] if errors == "mean" else 1)


def convert_alpha_ratio(ours: float, reduction: str, term: str) -> float:
    """Return the alpha_term / alpha_image under another reduction that equals our ratio.

    Raises:
        ValueError: no such reduction or term.
    """
    errors, _ = _split(reduction)
    if term not in ELEMENTS:
        raise ValueError(f"unknown term {term!r}; choose one of {', '.join(ELEMENTS)}")
    return ours * ELEMENTS[term] / ELEMENTS["image"] if errors == "mean" else ours


def _split(reduction: str) -> list[str]:
    if reduction not in REDUCTIONS:
        raise ValueError(f"unknown reduction {reduction!r}; choose one of {', '.join(REDUCTIONS)}")
    return reduction.split("/")
