"""What our ratios of loss weights are under other reductions (paper 4.3 gives ratios and no reductions).

A weight times a term must stay what it is, so a weight grows by what its term is divided by. Ours are sums at
the paper's sizes: 63 coordinates of joints, 2025 points, 3 x 256 x 256 values of the picture, every
dimension of a block of z (see `davae.losses.REDUCTIONS`).
"""

from davae.config import BLOCKS, ModelConfig
from davae.losses import CLOUD_ELEMENTS, IMAGE_ELEMENTS
from synthhand.skeleton import JOINTS

# What a mean divides by, of each term; and the two halves of a reduction's name: of errors, of KL.
ELEMENTS = {"pose": 3 * JOINTS, "cloud": CLOUD_ELEMENTS, "image": IMAGE_ELEMENTS}
REDUCTIONS = ("sum/sum", "mean/mean", "mean/sum")


def beta_ratio(ours: float, reduction: str, block: str = "pose") -> float:
    """Return beta / alpha_image as it would read under another reduction.

    Args:
        ours: the ratio under ours.
        reduction: "sum/sum" (ours), "mean/mean" or "mean/sum": how errors and how the KL are reduced.
        block: whose KL; blocks have different numbers of dimensions.

    Raises:
        ValueError: no such reduction or block.
    """
    errors, kl = _split(reduction)
    if block not in BLOCKS:
        raise ValueError(f"unknown block {block!r}; choose one of {', '.join(BLOCKS)}")
    dimensions = ModelConfig().latent_sizes[block] if kl == "mean" else 1
    return ours * dimensions / (ELEMENTS["image"] if errors == "mean" else 1)


def alpha_ratio(ours: float, reduction: str, term: str) -> float:
    """Return alpha_term / alpha_image as it would read under another reduction; see `beta_ratio`.

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
