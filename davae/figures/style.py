"""One look for every figure: a text column wide, colour-blind-safe, nothing cut off.

Figures are made closed: they belong to no pyplot state, are shown once by a notebook that returns them, and
vanish with their last reference.
"""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

WIDTH_IN = 6.5  # of a text column

# Truth and estimate as in paper Fig. 8, in hues that colour-blind readers can tell apart.
TRUTH, ESTIMATE = "#2166ac", "#d6322d"
# What belongs together in Eq. 3 shares a hue: a term and the block of z that only it reads.
HUES = {
    "pose": "#0072b2",
    "cloud": "#009e73",
    "shape": "#009e73",
    "image": "#d55e00",
    "appearance": "#d55e00",
}
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#6b6b6b")
DEPTH_COLOURS = "viridis_r"  # near points bright

STYLE = {
    "figure.dpi": 110,
    "savefig.dpi": 200,
    "figure.constrained_layout.use": True,
    "font.size": 9,
    "font.family": "DejaVu Sans",
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "figure.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.5,
    "axes.prop_cycle": matplotlib.cycler(color=SERIES),
    "image.interpolation": "nearest",
}

# Decorator of every figure function, so that a reader's own settings neither reach it nor are changed by it.
styled = matplotlib.rc_context(STYLE)


def use_style() -> None:
    """Give this session's own matplotlib figures the look of these."""
    matplotlib.rcParams.update(STYLE)


@styled
def new_figure(height_in: float, width_in: float = WIDTH_IN) -> Figure:
    """Return an empty figure that pyplot does not keep."""
    figure = plt.figure(figsize=(width_in, height_in))  # by pyplot, so that a notebook knows how to show it
    plt.close(figure)
    FigureCanvasAgg(figure)  # closing takes the canvas away
    return figure


@styled
def new_axes(height_in: float, rows: int = 1, columns: int = 1, **options) -> tuple[Figure, np.ndarray]:
    """Return a figure and its axes (rows, columns)."""
    figure = new_figure(height_in)
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def show_image(ax: Axes, image) -> None:
    """Draw an image (h, w, 3), uint8 or [0, 1], without axes; pixel centres at integers."""
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"an image must be (h, w, 3), found {image.shape}")
    ax.imshow(image if image.dtype == np.uint8 else np.clip(image, 0.0, 1.0))
    ax.set_axis_off()


def same_length(**arrays) -> int:
    """Return the common first axis of the arrays that are given.

    Raises:
        ValueError: they differ, or there is nothing to draw.
    """
    lengths = {name: len(array) for name, array in arrays.items() if array is not None}
    if len(set(lengths.values())) != 1 or not next(iter(lengths.values())):
        found = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise ValueError(f"arrays must have equal, positive lengths, found {found}")
    return next(iter(lengths.values()))
