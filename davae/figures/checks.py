"""The data doctor's contact sheet: labels and masks drawn over their images."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from davae.data.doctor.labels import EXACT_PX
from davae.data.doctor.sheet import Tile
from davae.figures.hands import draw_hand
from davae.figures.style import common_length, new_figure, show_image, styled
from synthhand.skeleton import BONES

MASK_COLOUR = "#56b4e9"
PROJECTED_COLOUR = "#d6322d"
SHEET_WIDTH_IN = 9.0
ROOM = 0.8  # half the side of a tile, as a multiple of the extent of its joints
LEAST_HALF_PX = 32.0


@styled
def check_sheet(tiles: Sequence[Tile], *, columns: int = 6) -> Figure:
    """Return a contact sheet of hands with their labels drawn on the image.

    The skeleton shows the labelled pixels; joints that are not visible are hollow. Crosses show the 3D joints
    projected by the camera, if one of them misses its pixel. A tint shows the mask.

    Args:
        tiles: samples to draw, at least one.
        columns: images in a row.
    """
    count = common_length(tiles=tiles)
    columns = min(columns, count)
    rows = -(-count // columns)
    width_in = max(SHEET_WIDTH_IN * columns / 6, 3.5)
    figure = new_figure(rows * (width_in / columns + 0.2) + 0.3, width_in)
    axes = figure.subplots(rows, columns, squeeze=False)
    figure.set_layout_engine("constrained", w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01)
    for index, ax in enumerate(axes.flat):
        ax.set_axis_off()
        if index >= count:
            continue
        tile = tiles[index]
        show_image(ax, tile.image)
        if tile.mask is not None:
            _tint(ax, tile.mask)
        draw_hand(ax, tile.uv_px, visible=tile.visible, linewidth=1.2)
        shown = tile.uv_px
        if (np.linalg.norm(tile.projected_px - tile.uv_px, axis=1) > EXACT_PX).any():
            _draw_projected(ax, tile.projected_px)
            shown = np.concatenate([tile.uv_px, tile.projected_px])
        _zoom_to(ax, shown, tile.image.shape[:2])
        ax.set_title(tile.title, fontsize=6, pad=2)
    marks = [
        Line2D([], [], color="#009e73", marker="o", markersize=4, label="labels (hollow: hidden)"),
        Line2D([], [], color=PROJECTED_COLOUR, marker="x", markersize=4, linewidth=0.7,
               label="K · 3D joints, where they miss"),
        Patch(facecolor=MASK_COLOUR, alpha=0.5, label="the hand's mask, or its measured points"),
    ]  # fmt: skip
    figure.legend(handles=marks, loc="outside lower center", ncols=3)
    return figure


def _tint(ax: Axes, mask) -> None:
    mask = np.asarray(mask, bool)
    layer = np.zeros((*mask.shape, 4))
    layer[mask] = (*to_rgb(MASK_COLOUR), 0.18)
    ax.imshow(layer)
    if mask.any() and not mask.all():
        ax.contour(mask, levels=[0.5], colors=MASK_COLOUR, linewidths=0.6)


def _draw_projected(ax: Axes, projected_px: np.ndarray) -> None:
    bones = LineCollection(projected_px[BONES], colors=PROJECTED_COLOUR, linewidths=0.5, zorder=5)
    ax.add_collection(bones)
    ax.scatter(
        projected_px[:, 0], projected_px[:, 1], s=7, marker="x", c=PROJECTED_COLOUR, linewidths=0.5, zorder=6
    )


def _zoom_to(ax: Axes, uv_px: np.ndarray, size: tuple[int, int]) -> None:
    """Show a square around the points inside the image, moved to lie within the image if it fits."""
    height, width = size
    inside = uv_px[((uv_px >= -0.5) & (uv_px < [width - 0.5, height - 0.5])).all(1)]
    if not len(inside):
        inside = np.array([[0.0, 0.0], [width - 1.0, height - 1.0]])
    low, high = inside.min(0), inside.max(0)
    half = min(max(ROOM * (high - low).max(), LEAST_HALF_PX), min(height, width) / 2)
    u, v = np.clip((low + high) / 2, half - 0.5, np.array([width, height]) - half - 0.5)
    ax.set(xlim=(u - half, u + half), ylim=(v + half, v - half))
