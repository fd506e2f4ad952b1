"""One style for every figure: as wide as a text column, with colours that colour-blind readers can separate.

Figures are closed when they are made: pyplot keeps no reference, and a notebook shows them once.
"""

from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.rcsetup import cycler

WIDTH_IN = 6.5  # of a text column

# As in paper Fig. 8.
TRUTH, ESTIMATE = "#2166ac", "#d6322d"
# A decoder's term of Eq. 3 and the block of z that the paper adds for it share a hue.
HUES = {
    "pose": "#0072b2",
    "cloud": "#009e73",
    "shape": "#009e73",
    "image": "#d55e00",
    "appearance": "#d55e00",
}
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#6b6b6b")
# Beside colours, so that curves differ in grey, too: as many of each as there are colours.
DASHES: tuple[Any, ...] = (*("-", "--", "-.", ":", (0, (7, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (9, 3))),)
MARKERS = ("o", "s", "D", "v", "P", "X", "*")
DEPTH_COLOURS = "viridis_r"  # near points bright

STYLE: dict[Any, Any] = {  # matplotlib's stubs admit only its own literal keys
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
    "axes.prop_cycle": cycler(color=SERIES),
    "image.interpolation": "nearest",
}

# Decorator of every figure function: a reader's own settings neither affect it nor are changed by it.
styled = matplotlib.rc_context(STYLE)


def use_style() -> None:
    """Apply this style to all further matplotlib figures of the session."""
    matplotlib.rcParams.update(STYLE)


@styled
def new_figure(height_in: float, width_in: float = WIDTH_IN) -> Figure:
    """Return an empty figure that pyplot does not keep."""
    figure = plt.figure(figsize=(width_in, height_in))  # made by pyplot, so that notebooks can show it
    plt.close(figure)
    FigureCanvasAgg(figure)  # closing removes the canvas
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


def common_length(**arrays) -> int:
    """Return the common length of the arrays that are not None.

    Raises:
        ValueError: the lengths differ or are 0.
    """
    lengths = {name: len(array) for name, array in arrays.items() if array is not None}
    if len(set(lengths.values())) != 1 or not next(iter(lengths.values())):
        found = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise ValueError(f"arrays must have equal, positive lengths, found {found}")
    return next(iter(lengths.values()))
