"""Figures of hand masks: truth against prediction, and IoU by skin tone."""

from collections.abc import Mapping

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from davae.figures.hands import choose_extremes
from davae.figures.style import ESTIMATE, SERIES, TRUTH, common_length, new_axes, show_image, styled

ROWS = ("image", "truth", "predicted", "difference")


@styled
def mask_comparison(images, truth, predicted, ious, *, each: int = 3) -> Figure:
    """Return the best, the median and the worst masks: image, truth, prediction and their difference.

    Args:
        images: n images (h, w, 3).
        truth: (n, h, w) masks in [0, 1].
        predicted: (n, h, w) soft masks in [0, 1].
        ious: (n,) intersection over union.
        each: images of each kind.
    """
    count = common_length(images=images, truth=truth, predicted=predicted, ious=ious)
    groups = choose_extremes(-np.asarray(ious), min(each, count))
    columns = [(name, index) for name, chosen in groups.items() for index in chosen]
    figure, axes = new_axes(len(ROWS) * 6.2 / len(columns) + 0.65, len(ROWS), len(columns))
    figure.set_layout_engine("constrained", w_pad=0.01, h_pad=0.01, wspace=0.0, hspace=0.0)
    for column, (name, index) in enumerate(columns):
        true, soft = np.asarray(truth[index], float), np.asarray(predicted[index], float)
        pictures = (images[index], _grey(true), _grey(soft), _difference(true > 0.5, soft > 0.5))
        for row, picture in enumerate(pictures):
            show_image(axes[row, column], picture)
        axes[0, column].set_title(f"{name}\nIoU {ious[index]:.2f}", fontsize=8, pad=2)
    for ax, title in zip(axes[:, 0], ROWS, strict=True):
        ax.text(-0.06, 0.5, title, fontsize=8, rotation=90, ha="right", va="center", transform=ax.transAxes)
    kinds = {"hand that was missed": TRUTH, "background taken for hand": ESTIMATE}
    handles = [Patch(color=colour, label=kind) for kind, colour in kinds.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


def _grey(mask: np.ndarray) -> np.ndarray:
    return np.repeat(mask[..., None], 3, axis=2)


def _difference(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return an image (h, w, 3) of two masks (h, w): grey where both are true, colours where they differ."""
    picture = np.full((*truth.shape, 3), 1.0)
    picture[truth & predicted] = 0.8
    picture[truth & ~predicted] = to_rgb(TRUTH)
    picture[~truth & predicted] = to_rgb(ESTIMATE)
    return picture


@styled
def iou_histogram(ious: Mapping[str, np.ndarray], *, target: float | None = None, bins: int = 40) -> Figure:
    """Return the distribution of the IoU in each class, one row a class, with its mean.

    Args:
        ious: class (such as a skin tone) -> (n,) intersection over union; empty classes are left out.
        target: the mean to reach, drawn as a dashed line.
        bins: of the histograms, over 0 to 1.

    Raises:
        ValueError: all classes are empty.
    """
    ious = {name: np.asarray(values) for name, values in ious.items() if len(values)}
    if not ious:
        raise ValueError("ious holds no image")
    figure, axes = new_axes(0.55 * len(ious) + 0.75, len(ious), 1, sharex=True)
    edges = np.linspace(0, 1, bins + 1)
    for ax, (name, values) in zip(axes[:, 0], ious.items(), strict=True):
        ax.hist(values, edges, weights=np.full(len(values), 1 / len(values)), color=SERIES[0], alpha=0.45)
        ax.axvline(values.mean(), color=SERIES[0], label="mean")
        if target is not None:
            ax.axvline(target, color=SERIES[-1], linestyle="--", linewidth=1.0, label="mean to be reached")
        ax.text(0.01, 0.9, f"{name}: n = {len(values)}, mean {values.mean():.3f}", fontsize=8, va="top",
                transform=ax.transAxes)  # fmt: skip
        ax.set(xlim=(0, 1), yticks=[])
        ax.spines["left"].set_visible(False)
    figure.legend(handles=axes[0, 0].lines, loc="outside upper right", ncols=2)
    axes[-1, 0].set_xlabel("intersection over union of predicted and true mask")
    return figure
