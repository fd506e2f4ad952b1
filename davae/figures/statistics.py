"""Figures of a dataset: bone lengths, skin tones, factors, viewpoints."""

from collections.abc import Mapping
from typing import cast

import numpy as np
from matplotlib.figure import Figure
from matplotlib.projections.geo import MollweideAxes
from skimage.color import rgb2lab

from davae.figures.style import SERIES, new_axes, new_figure, styled
from synthhand.skeleton import WRIST

INDEX_MCP, LITTLE_MCP = 5, 17


@styled
def bone_length_histogram(lengths_mm: Mapping[str, np.ndarray] | np.ndarray, *, bins: int = 0) -> Figure:
    """Return the distribution of the reference bone (middle MCP to PIP), the unit of a normalised pose.

    Args:
        lengths_mm: (n,) lengths in mm, or split -> (n,).
        bins: of the histogram, common to all splits; 0 derives it from the number of hands.
    """
    import seaborn

    splits = lengths_mm if isinstance(lengths_mm, Mapping) else {"": lengths_mm}
    figure, axes = new_axes(2.5)
    ax = axes[0, 0]
    bins = bins or int(np.clip(1.5 * max(len(v) for v in splits.values()) ** 0.5, 8, 40))
    edges = np.histogram_bin_edges(np.concatenate([np.asarray(v) for v in splits.values()]), bins)
    for (name, values), colour in zip(splits.items(), SERIES, strict=False):
        values = np.asarray(values, dtype=float)
        label = f"{name + ', ' if name else ''}n = {len(values)}, mean {values.mean():.1f} mm"
        seaborn.histplot(x=values, bins=edges, stat="density", element="step", color=colour, alpha=0.25,
                         label=label, ax=ax)  # fmt: skip
        ax.axvline(values.mean(), color=colour, linewidth=1.0, linestyle="--")
    ax.set(xlabel="reference bone, middle MCP to PIP (mm)", ylabel="density (1/mm)")
    low, high = ax.get_ylim()
    ax.set_ylim(low, high * (1.05 + 0.13 * len(splits)))
    ax.legend(loc="upper left")
    return figure


@styled
def skin_tone_histogram(colours, *, bins: int = 24) -> Figure:
    """Return the distribution of the hands' CIE lightness L*; each bar has the mean colour of its hands.

    Args:
        colours: (n, 3) mean skin colour of each hand, sRGB on [0, 1].
        bins: of the histogram.

    Raises:
        ValueError: another shape, or values outside [0, 1].
    """
    colours = np.asarray(colours, dtype=float)
    if colours.ndim != 2 or colours.shape[1] != 3 or colours.min() < 0 or colours.max() > 1:
        raise ValueError(f"colours must be (n, 3) on [0, 1], found {colours.shape}")
    lightness = rgb2lab(colours)[:, 0]
    edges = np.linspace(0, 100, bins + 1)
    member = np.clip(np.digitize(lightness, edges) - 1, 0, bins - 1)
    figure, axes = new_axes(2.3)
    ax = axes[0, 0]
    for index in range(bins):
        own = colours[member == index]
        if len(own):
            ax.bar(edges[index], len(own), edges[1], align="edge", color=own.mean(axis=0), edgecolor="white",
                   linewidth=0.5)  # fmt: skip
    ax.set(xlabel="lightness L* of the rendered hand (0 black, 100 white)", ylabel="hands", xlim=(0, 100))
    ax.grid(axis="x", visible=False)
    return figure


@styled
def factor_histograms(factors: Mapping[str, np.ndarray], *, columns: int = 4, bins: int = 30) -> Figure:
    """Return the distribution of each generative factor that is one number.

    Args:
        factors: name (with its unit, if it has one) -> (n,).
        columns: panels in a row.
        bins: of each histogram.

    Raises:
        ValueError: there is no factor, or one is not (n,).
    """
    import seaborn

    if not factors:
        raise ValueError("factors is empty; only SynthHand has known factors")
    columns = min(columns, len(factors))
    rows = -(-len(factors) // columns)
    figure, axes = new_axes(1.55 * rows + 0.15, rows, columns)
    for ax, (name, values) in zip(axes.flat, factors.items(), strict=False):
        values = np.asarray(values)
        if values.ndim != 1:
            raise ValueError(
                f"factor {name!r} must be (n,), found {values.shape}; give its columns one by one"
            )
        seaborn.histplot(x=values, bins=bins, element="step", color=SERIES[0], alpha=0.3, ax=ax)
        ax.set(xlabel=name, ylabel="", yticks=[])
    for ax in axes.flat[len(factors) :]:
        ax.set_axis_off()
    figure.supylabel("hands", fontsize=9)
    return figure


def palm_normal(joints) -> np.ndarray:
    """Return the unit normals (n, 3) out of the palms of right hands (n, 21, 3), in the camera frame."""
    joints = np.asarray(joints, dtype=float)
    wrist = joints[:, WRIST]
    normal = np.cross(joints[:, INDEX_MCP] - wrist, joints[:, LITTLE_MCP] - wrist)
    return normal / np.linalg.norm(normal, axis=1, keepdims=True)


@styled
def viewpoint_scatter(normals, *, limit: int = 4000) -> Figure:
    """Return the directions that palms face, as points in an equal-area (Mollweide) map of the sphere.

    The middle of the map is a palm that faces the camera, the left and right ends are palms that face away
    from it, and the top is a palm that faces up. Unrestricted viewpoints cover the map evenly.

    Args:
        normals: (n, 3) unit normals out of the palm, camera frame (x right, y down, z forward).
        limit: largest number of points to draw, evenly chosen.

    Raises:
        ValueError: another shape, or no normal.
    """
    normals = np.asarray(normals, dtype=float)
    if normals.ndim != 2 or normals.shape[1] != 3 or not len(normals):
        raise ValueError(f"normals must be (n, 3), found {normals.shape}")
    shown = normals[np.linspace(0, len(normals) - 1, min(limit, len(normals))).astype(int)]
    x, y, z = shown.T
    figure = new_figure(3.5)
    ax = cast(MollweideAxes, figure.add_subplot(projection="mollweide"))
    size = float(np.clip(4000 / len(shown), 1.5, 12))
    ax.scatter(
        np.arctan2(x, -z), np.arcsin(np.clip(-y, -1, 1)), s=size, color=SERIES[0], alpha=0.5, linewidths=0
    )
    ax.set_longitude_grid_ends(90)
    ax.set_xticks(np.radians([-120, -60, 0, 60, 120]), ["", "", "", "", ""])
    ax.set_yticks(np.radians([-60, -30, 0, 30, 60]), ["60° down", "30°", "", "30°", "60° up"])
    words = {0: "to the\ncamera", 90: "to the\nright", -90: "to the\nleft"}
    box = {"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": "none", "alpha": 0.8}
    for degrees, word in words.items():
        ax.text(np.radians(degrees), 0, word, ha="center", va="center", fontsize=8, bbox=box)
    ax.set_title(f"where the palm faces ({len(shown)} hands; both ends: away from the camera)", pad=10)
    return figure
