"""Decoded pictures of hands against the truth: outline, gaps between fingers, sharpness.

A decoded picture is the hand over mid-grey; its outline is that of `davae.latent.disentanglement.silhouette`.
Lengths in pixels are given for pictures of 128 px and grow with their side.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from davae.latent.disentanglement import silhouette
from davae.latent.prediction import Array, Score

TOLERANCE = 2 / 128  # of the picture's side: how far an outline may lie from the true one
REACH = 7 / 128  # of the picture's side: radius of the disc that closes the gaps between fingers


class PictureScores(NamedTuple):
    """One row a picture (n,)."""

    outline_f: Array  # F-score of the outline: harmonic mean of the next two
    precision: Array  # share of the decoded outline within the tolerance of the true one
    recall: Array  # share of the true outline within the tolerance of the decoded one
    iou: Array  # of decoded and true silhouette
    gap_px: Array  # pixels between the fingers of the true hand
    gap_filled_px: Array  # how many of them are painted as hand
    laplacian: Array  # variance of the Laplacian of the decoded picture's mean channel
    target_laplacian: Array  # that of the true picture
    psnr_db: Array


def score_pictures(
    decoded: Tensor, targets: Tensor, masks: Tensor, drawn: Tensor | None = None
) -> PictureScores:
    """Compare decoded pictures (n, 3, h, w) with true ones (n, 3, h, w), hands over mid-grey.

    Gaps are the background pixels of the true mask inside its morphological closing by a disc of radius
    `REACH`: between fingers, between thumb and palm, and in corners narrower than the disc.

    Args:
        decoded: on [0, 1].
        targets: on [0, 1].
        masks: (n, h, w) bool, the true hands.
        drawn: (n, h, w) bool, the decoded hands, if the decoder tells; None takes silhouettes.
    """
    found = (silhouette(decoded) if drawn is None else drawn).cpu().numpy()
    true = masks.cpu().numpy()
    side = true.shape[-1]
    precision, recall, iou, gaps, filled = (np.full(len(true), np.nan) for _ in range(5))
    for row, (shown, hand) in enumerate(zip(found, true, strict=True)):
        precision[row], recall[row] = match_outlines(shown, hand, TOLERANCE * side)
        either = (shown | hand).sum()
        iou[row] = (shown & hand).sum() / either if either else 1.0
        between = find_gaps(hand, REACH * side)
        gaps[row], filled[row] = between.sum(), (between & shown).sum()
    f = 2 * precision * recall / np.where(precision + recall > 0, precision + recall, 1)
    squared = (decoded - targets).square().mean((1, 2, 3)).clamp(min=1e-10)
    return PictureScores(
        f, precision, recall, iou, gaps, filled, _sharpness(decoded), _sharpness(targets),
        (-10 * torch.log10(squared)).double().cpu().numpy(),
    )  # fmt: skip


def outline(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the pixels of a mask (h, w) that touch the background with a side; the frame is none."""
    return mask & ~ndimage.binary_erosion(mask, border_value=1)


def match_outlines(
    found: NDArray[np.bool_], true: NDArray[np.bool_], tolerance: float
) -> tuple[float, float]:
    """Return precision and recall of the outline of a mask (h, w) within a tolerance in pixels.

    Both are 1 if neither mask has an outline and 0 if only one has.
    """
    edges = [outline(found), outline(true)]
    if not all(edge.any() for edge in edges):
        both = float(not any(edge.any() for edge in edges))
        return both, both
    away = [ndimage.distance_transform_edt(~edge) for edge in edges]
    return float((away[1][edges[0]] <= tolerance).mean()), float((away[0][edges[1]] <= tolerance).mean())


def find_gaps(mask: NDArray[np.bool_], radius: float) -> NDArray[np.bool_]:
    """Return the background pixels (h, w) inside the closing of a mask (h, w) by a disc.

    Dilation by a disc is what lies within its radius, which distance transforms tell at once.
    """
    if not mask.any():
        return np.zeros_like(mask)
    edge = int(np.ceil(radius)) + 1
    padded = np.pad(mask, edge)
    grown = ndimage.distance_transform_edt(~padded) <= radius
    closed = ndimage.distance_transform_edt(grown) > radius
    return closed[edge:-edge, edge:-edge] & ~mask


def _sharpness(images: Tensor) -> Array:
    """Return the variance (n,) of the Laplacian (sum of the four neighbours minus four times the pixel)."""
    grey = images.mean(1).double().cpu().numpy()
    return np.array([ndimage.laplace(image, mode="nearest").var() for image in grey])


def summarise_pictures(scores: PictureScores, *, resamples: int = 1000, seed: int = 0) -> dict[str, Score]:
    """Return means over pictures with intervals; shares of gaps and sharpness are quotients of two means.

    Returns:
        outline_f, iou, psnr_db, gaps_filled (share of all gap pixels painted as hand), laplacian_ratio.
    """
    ones = np.ones(len(scores.iou))
    pairs = {
        "outline_f": (scores.outline_f, ones),
        "iou": (scores.iou, ones),
        "gaps_filled": (scores.gap_filled_px, scores.gap_px),
        "laplacian_ratio": (scores.laplacian, scores.target_laplacian),
        "psnr_db": (scores.psnr_db, ones),
    }
    n = len(ones)
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), resamples)
    found = {}
    for name, (top, bottom) in pairs.items():
        if not bottom.sum() > 0:
            found[name] = Score(np.nan, np.nan, np.nan)
            continue
        below = drawn @ bottom
        shares = np.divide(drawn @ top, below, out=np.full(resamples, np.nan), where=below > 0)
        low, high = np.nanquantile(shares, [0.025, 0.975])
        found[name] = Score(float(top.sum() / bottom.sum()), float(low), float(high))
    return found
