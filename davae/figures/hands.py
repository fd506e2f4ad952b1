"""Skeletons over a photo and in space, estimate against truth (paper Fig. 8)."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from mpl_toolkits.mplot3d import Axes3D

from davae.figures.style import ESTIMATE, TRUTH, common_length, new_axes, new_figure, show_image, styled
from synthhand.skeleton import BONES, JOINT_COLOURS, JOINTS

DARK = "#1a1a1a"  # edge of an estimate over a photo: on skin, red-blind readers see no red
PHOTO_VIEW = (12.0, -78.0)  # elevation and azimuth, degrees: near the camera's view, turned to show depth


@styled
def draw_hand(
    ax: Axes,
    uv_px,
    image=None,
    *,
    colour: str | None = None,
    visible=None,
    linewidth: float = 1.8,
    halo: bool | str = True,
) -> None:
    """Draw a 2D skeleton, over a photo if one is given.

    Args:
        ax: where to draw.
        uv_px: (21, 2) pixels.
        image: (h, w, 3) to draw below; it also sets the limits of the axes.
        colour: of the whole hand; the default is one colour per finger.
        visible: (21,) bool; joints that are not visible are drawn hollow.
        linewidth: in points.
        halo: whether to draw a thin white edge, which separates the lines from the photo; or its colour.
    """
    uv_px = _joints("uv_px", uv_px, 2)
    if image is not None:
        show_image(ax, image)
    colours = [colour] * JOINTS if colour else list(JOINT_COLOURS)
    if halo:  # below all bones, so that the edge of one does not cover another
        light, width = halo is True, linewidth + (0.9 if halo is True else 0.7)
        edge = LineCollection(
            uv_px[BONES], colors="white" if light else halo, linewidths=width, capstyle="round", zorder=2
        )
        ax.add_collection(edge)
    own = [colours[child] for _, child in BONES]
    bones = LineCollection(uv_px[BONES], colors=own, linewidths=linewidth, capstyle="round", zorder=3)
    ax.add_collection(bones)
    shown = [True] * JOINTS if visible is None else visible
    faces = [c if seen else "white" for c, seen in zip(colours, shown, strict=True)]
    size = (1.8 * linewidth) ** 2
    u, v = uv_px.T
    ax.scatter(u, v, s=size, c=faces, edgecolors=colours, linewidths=0.4 * linewidth, zorder=4)
    if image is None:
        ax.set_aspect("equal")
        ax.autoscale_view()
        if not ax.yaxis_inverted():  # v grows downwards
            ax.invert_yaxis()
        ax.set(xlabel="u (px)", ylabel="v (px)")
    else:
        height, width = np.shape(image)[:2]
        ax.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))


def draw_estimate(ax: Axes, uv_px, linewidth: float) -> None:
    """Draw an estimate (21, 2) over a photo on which the truth is drawn: red with a dark edge."""
    draw_hand(ax, uv_px, colour=ESTIMATE, linewidth=linewidth, halo=DARK)


@styled
def draw_hand_3d(
    ax: Axes3D,
    joints,
    *,
    colour: str | None = None,
    limits: tuple[np.ndarray, float] | None = None,
    unit: str = "bone lengths",
    ticks: bool = True,
    linewidth: float = 1.8,
    linestyle: str = "-",
    label: str | None = None,
) -> None:
    """Draw a skeleton in space, seen nearly from the camera.

    Args:
        ax: a 3D axes.
        joints: (21, 3) in the camera frame (x right, y down, z forward).
        colour: of the whole hand; the default is one colour per finger.
        limits: centre (3,) and half the side of the cube to show; the default is the hand's own.
        unit: of the joints, named on the axes.
        ticks: whether to draw numbers and labels.
        linewidth: in points.
        linestyle: of the bones.
        label: of the hand, for a legend.
    """
    joints = _joints("joints", joints, 3)
    for index, (parent, child) in enumerate(BONES):
        ends = to_plot(joints[[parent, child]])
        own = colour or JOINT_COLOURS[child]
        ax.plot(
            *ends.T, color=own, linewidth=linewidth, linestyle=linestyle, solid_capstyle="round",
            label=None if index else label,
        )  # fmt: skip
    size = (1.7 * linewidth) ** 2
    ax.scatter(*to_plot(joints).T, s=size, c=[colour or c for c in JOINT_COLOURS], depthshade=False)
    set_space(ax, limits or cube(joints), unit, ticks)


def to_plot(points) -> np.ndarray:
    """Return camera-frame points (..., 3) in the order (x, z, y): matplotlib's third axis is vertical."""
    return np.asarray(points)[..., [0, 2, 1]]


def cube(*point_sets) -> tuple[np.ndarray, float]:
    """Return the centre (3,) and half the side of a cube around all points, with a margin."""
    points = np.concatenate([np.reshape(p, (-1, 3)) for p in point_sets])
    low, high = points.min(axis=0), points.max(axis=0)
    return (low + high) / 2, float(max((high - low).max() / 2 * 1.05, 1e-6))


def set_space(ax: Axes3D, limits: tuple[np.ndarray, float], unit: str, ticks: bool = True) -> None:
    """Set equal scales, the view near the camera's, and labels of the camera's axes."""
    (x, y, z), half = limits
    ax.set(xlim=(x - half, x + half), ylim=(z - half, z + half), zlim=(y + half, y - half))  # y points down
    ax.set_box_aspect((1, 1, 1), zoom=0.85 if ticks else 1.35)
    ax.set_proj_type("persp", focal_length=1.5)
    ax.view_init(*PHOTO_VIEW)
    for axis, name in ((ax.xaxis, "x"), (ax.yaxis, "z"), (ax.zaxis, "y")):
        axis.set_pane_color((0.965, 0.965, 0.965, 1.0))
        axis.set_major_locator(MaxNLocator(4))
        if ticks:
            axis.set_label_text(f"{name} ({unit})" if name == "x" else name, fontsize=8)
            axis.labelpad = -1
        else:
            axis.set_ticks([])
            axis.line.set_visible(False)
    if ticks:
        ax.tick_params(labelsize=7, pad=-2)


@styled
def hands_grid(
    images: Sequence,
    uv_px_true=None,
    uv_px_pred=None,
    titles: Sequence[str] | None = None,
    *,
    visible=None,
    columns: int = 6,
) -> Figure:
    """Return a contact sheet of photos with their skeletons.

    The truth alone is drawn with one colour per finger; with an estimate, the truth is blue with a light edge
    and the estimate red with a dark one.

    Args:
        images: n images (h, w, 3).
        uv_px_true: (n, 21, 2) or None.
        uv_px_pred: (n, 21, 2) or None.
        titles: n short texts, of one line or several, or None.
        visible: (n, 21) bool or None; hidden joints of the truth are drawn hollow.
        columns: images in a row.
    """
    count = common_length(
        images=images, uv_px_true=uv_px_true, uv_px_pred=uv_px_pred, titles=titles, visible=visible
    )
    columns = min(columns, count)
    rows = -(-count // columns)
    side_in = 6.5 / columns
    legend_in = 0.25 if uv_px_pred is not None else 0.0
    lines = max((title.count("\n") + 1 for title in titles or ()), default=0)
    title_in = 0.08 + 0.155 * lines if lines else 0.0  # a line of 8 points is 0.155 inches high
    figure, axes = new_axes(rows * (side_in + title_in) + legend_in, rows, columns)
    figure.set_layout_engine("constrained", w_pad=0.02, h_pad=0.035, wspace=0.01, hspace=0.01)
    compared = uv_px_pred is not None
    thickness = 2.0 / columns**0.35
    for index, ax in enumerate(axes.flat):
        if index >= count:
            ax.set_axis_off()
            continue
        show_image(ax, images[index])
        ax.set_anchor("N")  # where the layout takes its title to be; in the middle, the title would be cut
        if uv_px_true is not None:
            seen = None if visible is None else visible[index]
            colour = TRUTH if compared else None
            draw_hand(ax, uv_px_true[index], colour=colour, visible=seen, linewidth=thickness)
        if compared:
            draw_estimate(ax, uv_px_pred[index], thickness)
        height, width = np.shape(images[index])[:2]
        ax.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
        if titles:
            ax.set_title(titles[index], fontsize=8, pad=2)
    if compared:
        _legend(figure)
    return figure


@styled
def best_median_worst(
    images: Sequence, uv_px_true, uv_px_pred, joints_true, joints_pred, errors_mm, *, each: int = 4
) -> Figure:
    """Return the hands with the smallest, the median and the largest errors, over the photo and in space.

    Args:
        images: n images (h, w, 3).
        uv_px_true: (n, 21, 2).
        uv_px_pred: (n, 21, 2).
        joints_true: (n, 21, 3) in the camera frame.
        joints_pred: (n, 21, 3) in the same frame.
        errors_mm: (n,) mean error of each hand.
        each: hands of each kind.
    """
    count = common_length(images=images, uv_px_true=uv_px_true, uv_px_pred=uv_px_pred,
                          joints_true=joints_true, joints_pred=joints_pred, errors_mm=errors_mm)  # fmt: skip
    each = min(each, count)
    side_in = 6.2 / each
    figure = new_figure(3 * (2 * side_in + 0.22) + 0.3)
    figure.set_layout_engine("constrained", w_pad=0.02, h_pad=0.02, wspace=0.0, hspace=0.01)
    for row, (name, chosen) in enumerate(choose_extremes(errors_mm, each).items()):
        for column, index in enumerate(chosen):
            flat = figure.add_subplot(6, each, 2 * row * each + column + 1)
            draw_hand(flat, uv_px_true[index], images[index], colour=TRUTH, linewidth=1.2)
            draw_estimate(flat, uv_px_pred[index], 1.2)
            height, width = np.shape(images[index])[:2]
            flat.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
            flat.set_title(f"{name}, {errors_mm[index]:.1f} mm", fontsize=8, pad=2)
            space = figure.add_subplot(6, each, (2 * row + 1) * each + column + 1, projection="3d")
            compare_3d(space, joints_true[index], joints_pred[index])
    _legend(figure, "estimate (dashed in space)")
    return figure


def choose_extremes(errors, each: int) -> dict[str, np.ndarray]:
    """Return the indices (each,) of the best, the median and the worst of at least `each` errors, by name."""
    order = np.argsort(errors, kind="stable")
    middle = (len(order) - each) // 2
    return {
        "best": order[:each],
        "median": order[middle : middle + each],
        "worst": order[len(order) - each :],
    }


@styled
def compare_3d(ax: Axes3D, joints_true, joints_pred, *, ticks: bool = False) -> None:
    """Draw the truth (blue) and the estimate (red, dashed) of one hand (21, 3) in space, as paper Fig. 8."""
    limits = cube(joints_true, joints_pred)
    draw_hand_3d(ax, joints_true, colour=TRUTH, limits=limits, ticks=ticks, linewidth=1.4, label="truth")
    draw_hand_3d(
        ax, joints_pred, colour=ESTIMATE, limits=limits, ticks=ticks, linewidth=1.4, linestyle="--",
        label="estimate",
    )  # fmt: skip


def _legend(figure: Figure, estimate: str = "estimate") -> None:
    lines = [
        Line2D([], [], color=colour, linewidth=2, path_effects=[withStroke(linewidth=3.4, foreground=edge)])
        for colour, edge in ((TRUTH, "white"), (ESTIMATE, DARK))
    ]
    figure.legend(lines, ["truth", estimate], loc="outside lower center", ncols=2)


def _joints(name: str, points, width: int) -> np.ndarray:
    points = np.asarray(points, dtype=np.float64)
    if points.shape != (JOINTS, width):
        raise ValueError(f"{name} must be ({JOINTS}, {width}), found {points.shape}")
    return points
