"""Point clouds, and reconstructions of image and cloud."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from davae.figures.hands import cube, draw_hand, draw_hand_3d, set_space, to_plot
from davae.figures.style import DEPTH_COLOURS, common_length, new_axes, new_figure, show_image, styled
from synthhand.render.view import fit_normals, light_towards_viewer
from synthhand.skeleton import BONES, JOINT_COLOURS

SURFACE = 500  # points from which on a cloud is dense enough to be lit as the surface that it samples


@styled
def cloud_figure(cloud, joints=None, *, unit: str = "bone lengths") -> Figure:
    """Return a cloud seen by the camera and from the side, coloured by depth and, if it is dense, lit.

    Args:
        cloud: (p, 3) in the camera frame (x right, y down, z forward).
        joints: (21, 3) in the same frame, drawn as a skeleton, or None.
        unit: of the points, named on the axes.
    """
    cloud = _cloud("cloud", cloud)
    figure = new_figure(3.7)
    front, space = figure.add_subplot(1, 2, 1), figure.add_subplot(1, 2, 2, projection="3d")
    limits = cube(cloud) if joints is None else cube(cloud, joints)
    colours = draw_cloud(front, cloud, limits=limits, size=8.0)
    figure.colorbar(
        colours,
        ax=[front, space],
        label=f"depth z ({unit})",
        location="bottom",
        shrink=0.6,
        aspect=40,
        pad=0.03,
    )
    front.set(xlabel=f"x ({unit})", ylabel=f"y ({unit})", title="as the camera sees it")
    space.scatter(*to_plot(cloud).T, c=_light_depths(cloud, colours), s=2.0, depthshade=False, linewidths=0)
    if joints is not None:
        draw_hand(front, np.asarray(joints)[:, :2], linewidth=1.2)
        front.set(xlabel=f"x ({unit})", ylabel=f"y ({unit})")
        draw_hand_3d(space, joints, limits=limits, linewidth=1.2)
    set_space(space, limits, unit)
    space.view_init(20, -50)
    space.set_title("from the side")
    return figure


@styled
def draw_cloud(ax: Axes, cloud, *, limits=None, depth_range=None, size: float = 2.0) -> ScalarMappable:
    """Draw a cloud (p, 3) as the camera sees it, near points on top; return depths' colours for a bar.

    A cloud of `SURFACE` points or more is also lit as the surface that it samples.
    """
    cloud = _cloud("cloud", cloud)
    far_to_near = cloud[np.argsort(-cloud[:, 2])]
    low, high = depth_range or (cloud[:, 2].min(), cloud[:, 2].max())
    colours = ScalarMappable(Normalize(low, high), DEPTH_COLOURS)
    x, y, _ = far_to_near.T
    ax.scatter(x, y, c=_light_depths(far_to_near, colours), s=size, linewidths=0)
    centre, half = limits or cube(cloud)
    ax.set(
        xlim=(centre[0] - half, centre[0] + half), ylim=(centre[1] + half, centre[1] - half), aspect="equal"
    )
    return colours


def _light_depths(cloud: np.ndarray, colours: ScalarMappable) -> np.ndarray:
    """Return colours (p, 3) of the depths of a cloud, lit if it is dense."""
    shown = np.asarray(colours.to_rgba(cloud[:, 2]))[:, :3]
    if len(cloud) < SURFACE:
        return shown
    return (shown * light_towards_viewer(fit_normals(cloud))).clip(0, 1)


def plotly_hand(cloud=None, joints=None, *, unit: str = "bone lengths"):
    """Return a plotly figure of a cloud and a skeleton that can be rotated with the mouse.

    Args:
        cloud: (p, 3) in the camera frame, or None.
        joints: (21, 3), or None.
        unit: of the points, named on the axes.

    Raises:
        ValueError: neither a cloud nor joints are given.
    """
    import plotly.graph_objects as go

    if cloud is None and joints is None:
        raise ValueError("plotly_hand needs a cloud, joints or both")
    figure = go.Figure()
    if cloud is not None:
        x, y, z = _cloud("cloud", cloud).T
        colours = {"color": z, "colorscale": "Viridis", "reversescale": True, "size": 2}
        colours["colorbar"] = {"title": f"depth ({unit})", "thickness": 12, "len": 0.6}
        figure.add_scatter3d(x=x, y=y, z=z, mode="markers", marker=colours, name="cloud")
    if joints is not None:
        joints = np.asarray(joints)
        for parent, child in BONES:
            x, y, z = joints[[parent, child]].T
            line = {"color": JOINT_COLOURS[child], "width": 7}
            figure.add_scatter3d(x=x, y=y, z=z, mode="lines", line=line, hoverinfo="skip", name="bone")
        x, y, z = joints.T
        figure.add_scatter3d(
            x=x, y=y, z=z, mode="markers", marker={"color": JOINT_COLOURS, "size": 4}, name="joints"
        )
    # The view is that of the real camera: from -z, with y pointing down.
    camera = {"eye": {"x": 0.4, "y": -0.4, "z": -1.9}, "up": {"x": 0, "y": -1, "z": 0}}
    axes = {f"{axis}axis": {"title": f"{axis} ({unit})"} for axis in "xyz"}
    figure.update_layout(
        scene={**axes, "aspectmode": "data", "camera": camera},
        showlegend=False,
        margin={"l": 0, "r": 0, "t": 0, "b": 0},
        height=480,
    )
    return figure


@styled
def reconstructions(
    inputs: Sequence, targets: Sequence, outputs: Sequence, clouds_true=None, clouds_pred=None
) -> Figure:
    """Return one row per sample: input, image target, reconstruction and, if given, true and decoded clouds.

    Args:
        inputs: n images (h, w, 3) as the network sees them.
        targets: n images, the hand over grey.
        outputs: n decoded images.
        clouds_true: (n, p, 3) in the camera frame, or None.
        clouds_pred: (n, q, 3), or None.
    """
    count = common_length(
        inputs=inputs, targets=targets, outputs=outputs, clouds_true=clouds_true, clouds_pred=clouds_pred
    )
    clouds = {"true cloud": clouds_true, "decoded cloud": clouds_pred}
    clouds = {name: points for name, points in clouds.items() if points is not None}
    images = {"input": inputs, "target": targets, "reconstruction": outputs}
    columns = len(images) + len(clouds)
    figure, axes = new_axes(count * 6.5 / columns + (0.5 if clouds else 0.3), count, columns)
    figure.set_layout_engine("constrained", w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01)
    for row in range(count):
        for ax, pictures in zip(axes[row], images.values(), strict=False):
            show_image(ax, pictures[row])
        points = [np.asarray(cloud[row]) for cloud in clouds.values()]
        for ax, cloud in zip(axes[row, len(images) :], points, strict=True):
            # Both clouds share the limits, and the colours of the true one, so that a shift in depth shows.
            depth = points[0][:, 2]
            draw_cloud(ax, cloud, limits=cube(*points), depth_range=(depth.min(), depth.max()), size=5.0)
            ax.set(xticks=[], yticks=[])
            ax.spines[["left", "bottom"]].set_visible(False)
    for ax, title in zip(axes[0], [*images, *clouds], strict=True):
        ax.set_title(title)
    if clouds:
        words = "points: the brighter, the nearer; both clouds of a row on the scale of the true one"
        figure.supxlabel(words, fontsize=8)
    return figure


def _cloud(name: str, points) -> np.ndarray:
    points = np.asarray(points, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 3 or not len(points):
        raise ValueError(f"{name} must be (points, 3), found {points.shape}")
    return points
