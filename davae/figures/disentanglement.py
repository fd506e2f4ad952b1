"""What each block of the code holds: R² as a map of blocks and factors, decoded swaps beneath."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from davae.figures.style import HUES, new_figure, show_image, styled

# Block -> the groups of factors that belong to it, in the order of the map; "" belongs to none.
BELONGS = {
    "pose": ("joints", "joint angles", "bone proportions"),
    "appearance": ("hand colour", "chroma", "melanin", "light level"),
    "shape": ("flesh", "flesh in mm"),
    "": ("mask area",),
}
EMPTY, FULL = "#f7f7f5", "#1f3b57"
COLOURS = LinearSegmentedColormap.from_list("davae.known", [EMPTY, "#9fb6c9", "#4f7798", FULL])
INK = "#2b2b2b"
LEGEND = (
    "R² on held-out images, by kernel ridge, from posterior means (drawn: samples). "
    "Framed: the factors of the block."
)


@styled
def block_map(
    known: Mapping[str, Mapping[str, float | None]],
    drawn: Mapping[str, Mapping[str, float | None]],
    blocks: Mapping[str, Mapping[str, Any]],
    examples: Sequence[Mapping[str, Mapping[str, np.ndarray]]] = (),
    *,
    title: str = "",
) -> Figure:
    """Return a map of what can be read from each block, and hands with exchanged blocks beneath it.

    Args:
        known: block -> group -> R² of posterior means on held-out images, None where nothing varies; it
            colours the cell and is written in it.
        drawn: block -> group -> R² of posterior samples, written small below.
        blocks: block -> dimensions, active_units, kl (nats).
        examples: pairs of hands: "decoded" and "truth" -> start, a block, end -> image (h, w, 3) on [0, 1].
        title: of the whole figure.
    """
    names = [block for block in BELONGS if block in known]
    groups = [group for own in BELONGS.values() for group in own if group in known[names[0]]]
    rows = 2 * len(examples)
    figure = new_figure(2.5 + (0.95 * rows + 0.6 if rows else 0))
    figure.set_layout_engine("none")
    height = figure.get_figheight()
    left, right = 0.185, 0.985
    map_top = 1 - (0.82 if title else 0.6) / height
    ax = figure.add_axes((left, map_top - 1.5 / height, right - left, 1.5 / height))
    _draw_map(ax, names, groups, known, drawn, blocks)
    if title:
        figure.text(left, 1 - 0.08 / height, title, fontsize=10, weight="bold", va="top", color=INK)
    figure.text(left, map_top - 1.56 / height, LEGEND, fontsize=6.5, va="top", color=INK)
    for index, example in enumerate(examples):
        top = map_top - (1.5 + 0.78 + index * 1.9) / height
        _draw_example(figure, example, names, top, height, first=index == 0)
    return figure


@styled
def block_maps(models: Mapping[str, Mapping[str, Mapping[str, Mapping[str, float | None]]]]) -> Figure:
    """Return maps of blocks and factors, one row a model and one column a kind of code, to compare them.

    Args:
        models: model -> kind of code, such as "means" -> block -> group -> R² or None. All have the same
            groups. A frame marks the factors of a block in every map, also where a model has no such blocks.
    """
    kinds = list(next(iter(models.values())))
    figure = new_figure(1.55 + 0.95 * len(models))
    axes = figure.subplots(len(models), len(kinds), squeeze=False)
    for row, (model, by_kind) in enumerate(models.items()):
        for ax, (kind, known) in zip(axes[row], by_kind.items(), strict=True):
            names = [block for block in BELONGS if block in known]
            groups = [group for own in BELONGS.values() for group in own if group in known[names[0]]]
            values = np.array([[known[block][group] or 0.0 for group in groups] for block in names], float)
            ax.imshow(values, cmap=COLOURS, vmin=0, vmax=1, aspect="auto")
            for y, block in enumerate(names):
                for x, group in enumerate(groups):
                    ink = "white" if values[y, x] > 0.45 else INK
                    ax.text(
                        x, y, _share(known[block][group]), ha="center", va="center", fontsize=7, color=ink
                    )
            _frame_own(ax, names, groups, (-0.5, -0.5))
            ax.set_yticks(range(len(names)), names if ax is axes[row, 0] else [""] * len(names), fontsize=7)
            last = row == len(models) - 1
            ax.set_xticks(range(len(groups)), groups if last else [""] * len(groups), fontsize=7, rotation=90)
            ax.tick_params(length=0)
            ax.grid(visible=False)
            ax.set_title(f"{model}: {kind}" if ax is axes[row, 0] else kind, loc="left", fontsize=8)
    figure.supxlabel("numbers: R² on held-out images; framed: the factors of the block", fontsize=8)
    return figure


def _frame_own(ax: Axes, names, groups, origin: tuple[float, float]) -> None:
    """Frame where a disentangled code is dark, and nowhere else in its columns; cells have side 1."""
    for block, own in BELONGS.items():
        places = [groups.index(group) for group in own if group in groups]
        if block in names and places:
            corner = (origin[0] + min(places) + 0.03, origin[1] + names.index(block) + 0.03)
            size = (len(places) - 0.06, 0.94)
            ax.add_patch(Rectangle(corner, *size, fill=False, edgecolor=HUES[block], linewidth=2, zorder=3))


def _draw_map(ax: Axes, names, groups, known, drawn, blocks) -> None:
    for row, block in enumerate(names):
        for column, group in enumerate(groups):
            value = known[block][group]
            shade = COLOURS(float(np.clip(value or 0.0, 0, 1)))
            ax.add_patch(Rectangle((column, row), 1, 1, facecolor=shade, edgecolor="white", linewidth=2))
            ink = "white" if (value or 0.0) > 0.45 else INK
            middle = column + 0.5
            ax.text(middle, row + 0.42, _share(value), ha="center", va="center", fontsize=10, color=ink)
            ax.text(
                middle, row + 0.76, f"drawn {_share(drawn[block][group])}", ha="center", va="center",
                fontsize=6.5, color=ink, alpha=0.8,
            )  # fmt: skip
        facts = blocks[block]
        ax.text(
            -0.12, row + 0.24, block, ha="right", va="center", fontsize=10, weight="bold", color=HUES[block]
        )
        rate = f"{facts['kl']:.1f} nats\n{facts['active_units']} of {facts['dimensions']} active"
        ax.text(-0.12, row + 0.68, rate, ha="right", va="center", fontsize=6.5, color=INK, linespacing=1.1)
    for column, group in enumerate(groups):
        ax.text(column + 0.5, -0.1, group.replace(" ", "\n", 1), ha="center", va="bottom", fontsize=7.5)
    _frame_own(ax, names, groups, (0, 0))
    ax.set(xlim=(0, len(groups)), ylim=(len(names), 0))
    ax.set_axis_off()


def _share(value: float | None) -> str:
    if value is None:
        return "–"
    text = f"{max(value, 0.0):.2f}"
    return text if text.startswith("1") else text[1:]


def _draw_example(figure: Figure, example, names, top: float, height: float, *, first: bool) -> None:
    """Draw truth over decoding of a hand, of its exchanges and of the other hand."""
    titles = {"start": "hand A", **{block: f"A with the\n{block} of B" for block in names}, "end": "hand B"}
    side = 0.92 / height
    width = 0.92 / figure.get_figwidth()
    gap = (0.985 - 0.185 - len(titles) * width) / (len(titles) - 1)
    for column, (name, words) in enumerate(titles.items()):
        x = 0.185 + column * (width + gap)
        for row, kind in enumerate(("truth", "decoded")):
            ax = figure.add_axes((x, top - (row + 1) * side, width, side))
            show_image(ax, example[kind][name])
            if column == 0:
                ax.text(-0.1, 0.5, {"truth": "rendered", "decoded": "decoded"}[kind], fontsize=8, ha="right",
                        va="center", transform=ax.transAxes, color=INK)  # fmt: skip
            if first and row == 0:
                ax.text(0.5, 1.06, words, ha="center", va="bottom", fontsize=8, transform=ax.transAxes,
                        color=HUES.get(name, INK))  # fmt: skip
