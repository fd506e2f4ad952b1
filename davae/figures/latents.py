"""Paths through the latent space as strips of images (paper Figs. 5 and 6), and single codes."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from davae.figures.style import ESTIMATE, HUES, TRUTH, common_length, new_figure, show_image, styled

START, END = ESTIMATE, TRUTH  # the paper's red and blue boxes


@styled
def latent_strip(
    strips: Mapping[str, Sequence],
    titles: Sequence[str],
    notes: Sequence[str],
    start,
    end,
    *,
    title: str = "",
) -> Figure:
    """Return one row per view of a path between the codes of two images, with the two images at its ends.

    Args:
        strips: view -> n images (h, w, 3), uint8 or on [0, 1].
        titles: n, above the columns.
        notes: n, below the columns.
        start: (h, w, 3), the image at the start; boxed in red.
        end: (h, w, 3), the image at the end; boxed in blue.
        title: of the whole figure.

    Raises:
        ValueError: the numbers of images, titles and notes differ or are 0.
    """
    count = common_length(**strips, titles=titles, notes=notes)
    width, rows = count + 2, len(strips)
    figure = new_figure(6.5 / (width + 0.35) * rows + 1.0)
    figure.set_layout_engine("constrained", w_pad=0.02, h_pad=0.04, wspace=0.0, hspace=0.0)
    if title:
        figure.suptitle(title)
    axes = figure.subplots(rows, width, squeeze=False, width_ratios=[1, *[1] * count, 1])
    for column, (name, image, colour) in {0: ("start", start, START), width - 1: ("end", end, END)}.items():
        show_image(axes[0, column], image)
        _frame(axes[0, column], colour, 2.0)
        axes[0, column].set_title(name, color=colour)
        for ax in axes[1:, column]:
            ax.set_axis_off()
    for row, (view, pictures) in enumerate(strips.items()):
        for column, picture in enumerate(pictures, start=1):
            ax = axes[row, column]
            show_image(ax, picture)
            _frame(ax, "#d0d0d0", 0.6)
            if row == 0:
                ax.set_title(titles[column - 1])
            if row == rows - 1:
                ax.set_xlabel(notes[column - 1], fontsize=7)
        axes[row, 1].set_ylabel(view)
    return figure


def _frame(ax: Axes, colour: str, width: float) -> None:
    """Draw a frame around an image, and restore the labels of its axes."""
    ax.set_axis_on()
    ax.set(xticks=[], yticks=[])
    ax.grid(False)
    for spine in ax.spines.values():
        spine.set(visible=True, color=colour, linewidth=width)


@styled
def code_bars(means: Mapping[str, Sequence[float]], spreads: Mapping[str, Sequence[float]]) -> Figure:
    """Return one posterior, block by block: means as bars, standard deviations as whiskers.

    Args:
        means: block -> (z,).
        spreads: block -> (z,).
    """
    figure = new_figure(2.2)
    sizes = [len(values) for values in means.values()]
    axes = figure.subplots(1, len(means), sharey=True, width_ratios=sizes, squeeze=False)[0]
    for ax, (block, values) in zip(axes, means.items(), strict=True):
        ax.bar(range(len(values)), values, color=HUES[block], width=0.7)
        ax.errorbar(range(len(values)), values, spreads[block], fmt="none", ecolor="#404040", elinewidth=0.8)
        ax.axhline(0, color="#808080", linewidth=0.6)
        ax.set(title=f"z of {block}", xlabel="dimension", xlim=(-0.7, len(values) - 0.3))
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=4))
    axes[0].set_ylabel("mean ± deviation")
    return figure
