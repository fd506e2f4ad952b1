"""Figures of many runs: error over a varied weight (paper Figs. 2 and 3), information, paired seeds."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from davae.config import BLOCKS
from davae.figures.style import DASHES, HUES, MARKERS, SERIES, common_length, new_axes, styled

CLAIM = "#f3e3c3"  # shade of the paper's range of best values
WIDE_IN = 4.0  # axes that are wider have their legend in one line


@styled
def sweep_curve(values: Sequence[float], errors: np.ndarray, **options) -> Figure:
    """Return a figure of `draw_sweep`, with the same arguments."""
    figure, axes = new_axes(2.9)
    draw_sweep(axes[0, 0], values, errors, **options)
    return figure


@styled
def draw_sweep(
    ax: Axes,
    values: Sequence[float],
    errors: np.ndarray,
    *,
    variable: str,
    claim: tuple[float, float] | None = None,
    guess: float | None = None,
    measure: str = "EPE, P1 (mm)",
) -> None:
    """Draw the error over the decimal logarithm of a variable, with the range over seeds (Figs. 2, 3).

    Args:
        ax: where to draw.
        values: (k,) of the variable, positive.
        errors: (s, k), a row for each seed; NaN if a run failed.
        variable: its name, such as "r".
        claim: the paper's range of best values, which is shaded. An end may be infinite.
        guess: the error of a constant guess, drawn as a line.
        measure: name and unit of the errors.
    """
    x, errors = np.log10(np.asarray(values, dtype=float)), np.atleast_2d(np.asarray(errors, dtype=float))
    common_length(values=x, errors=errors.T)
    ends, colour = (x.min() - 0.25, x.max() + 0.25), SERIES[0]
    if claim is not None:
        low, high = (np.clip(np.log10(max(end, 1e-300)), *ends) for end in claim)
        ax.axvspan(low, high, color=CLAIM, zorder=0, linewidth=0, label="the paper's best")
    if guess is not None:
        ax.axhline(guess, color="#777777", linestyle=":", linewidth=1.2, label="always the mean pose")
    if len(errors) > 1:
        fewest, most = (int(end) for end in np.percentile(np.isfinite(errors).sum(0), (0, 100)))
        ax.fill_between(
            x, np.nanmin(errors, 0), np.nanmax(errors, 0), color=colour, alpha=0.22, linewidth=0,
            label=f"range over {fewest if fewest == most else f'{fewest} to {most}'} seeds",
        )  # fmt: skip
        ax.plot(np.tile(x, len(errors)), errors.ravel(), ".", color=colour, markersize=4, alpha=0.6)
    label = "mean over seeds" if len(errors) > 1 else "one seed"
    ax.plot(x, np.nanmean(errors, 0), "o-", color=colour, markersize=4, label=label)
    ax.set(xlim=ends, xlabel=f"lg {variable}", ylabel=measure)
    # Above the axes: within, it would lie on the line of the guess or on the shade.
    wide = ax.get_window_extent().width > WIDE_IN * ax.figure.dpi
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4 if wide else 2, fontsize=7.5,
              handlelength=1.4, handletextpad=0.5, columnspacing=1.0)  # fmt: skip


@styled
def rate_distortion(
    rates: Mapping[str, np.ndarray],
    distortions: Mapping[str, np.ndarray],
    values: Sequence[float],
    *,
    measures: Mapping[str, str],
    variable: str,
) -> Figure:
    """Return, for each block of z, the error of its decoder over the KL of the block.

    Args:
        rates: block -> (k,) KL in nats, summed over its dimensions.
        distortions: block -> (k,) error of its decoder.
        values: (k,) of the variable, written beside the points.
        measures: block -> name and unit of its error.
        variable: its name.
    """
    figure, axes = new_axes(2.6, 1, len(BLOCKS))
    for ax, block in zip(axes[0], BLOCKS, strict=True):
        common_length(rates=rates[block], distortions=distortions[block], values=values)
        ax.plot(rates[block], distortions[block], "-", color=HUES[block], linewidth=0.8, alpha=0.6)
        ax.plot(rates[block], distortions[block], "o", color=HUES[block], markersize=4)
        for rate, distortion, value in zip(rates[block], distortions[block], values, strict=True):
            ax.annotate(
                f"{value:g}", (rate, distortion), xytext=(3, 3), textcoords="offset points", fontsize=6.5
            )
        ax.set(title=block, xlabel="KL (nats)", ylabel=measures[block])
        ax.margins(0.15)
    figure.suptitle(f"numbers at the points: {variable}", fontsize=8)
    return figure


@styled
def leak_curves(
    values: Sequence[float],
    ratios: Mapping[str, Sequence[float]],
    *,
    bound: float,
    variable: str,
    claim: tuple[float, float],
    claimed: str,
    top: float = 1.2,
) -> Figure:
    """Return the leaks between blocks over the decimal logarithm of a variable.

    A ratio above `top` is drawn at the edge as a triangle with its value. A ratio that is not finite is left
    out.

    Args:
        values: (k,) of the variable, positive.
        ratios: label -> (k,) effect of a block over that of the responsible block, see
            `davae.latent.disentanglement.measure_leaks`.
        bound: largest ratio that counts as no leak, drawn as a line.
        variable: its name.
        claim: a range of the variable, which is shaded.
        claimed: the legend's text for that range.
        top: upper end of the axis.
    """
    figure, axes = new_axes(2.8)
    ax, x = axes[0, 0], np.log10(np.asarray(values, dtype=float))
    for index, (label, found) in enumerate(ratios.items()):
        y, colour = np.asarray(found, dtype=float), SERIES[index % len(SERIES)]
        common_length(values=x, ratios=y)
        ax.plot(
            x, y, color=colour, label=label, marker=MARKERS[index % len(MARKERS)], markersize=5,
            linestyle=DASHES[index % len(DASHES)],
        )  # fmt: skip
        for place, value in zip(x, y, strict=True):
            if np.isfinite(value) and value > top:
                ax.plot(place, top, "^", color=colour, markersize=7, clip_on=False)
                ax.annotate(
                    f"{float(f'{value:.3g}'):,.6g}", (place, top), (0, -13), textcoords="offset points",
                    ha="center", color=colour,
                )  # fmt: skip
    ax.axhline(bound, color="#777777", linestyle=":", label="bound: no leak below")
    ax.axvspan(*np.log10(claim), color=CLAIM, zorder=0, label=claimed)
    ax.set(xlabel=f"lg {variable}", ylabel="ratio of medians", ylim=(0, top))
    ax.legend(fontsize=7, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.04))
    return figure


@styled
def kl_profiles(profiles: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """Return the KL of each dimension, largest first, of several runs; a collapsed block is a line at zero.

    Args:
        profiles: label of a run -> block -> (z,) nats of each dimension.
    """
    figure, axes = new_axes(2.5, 1, len(BLOCKS), sharey=True)
    for ax, block in zip(axes[0], BLOCKS, strict=True):
        for index, (label, blocks) in enumerate(profiles.items()):
            ordered = np.sort(np.asarray(blocks[block], dtype=float))[::-1]
            ax.plot(
                np.arange(1, len(ordered) + 1), ordered, marker=".", color=SERIES[index % len(SERIES)],
                linestyle=DASHES[index % len(DASHES)], label=label,
            )  # fmt: skip
        ax.set(title=block, xlabel="dimension, by its KL")
    axes[0, 0].set_ylabel("KL (nats)")
    axes[0, -1].legend()
    return figure


@styled
def paired_seeds(errors: Mapping[str, np.ndarray], *, measure: str = "EPE, P1 (mm)") -> Figure:
    """Return each model's error for each seed, with lines between equal seeds, and the means as bars.

    Args:
        errors: model -> (s,) one error per seed, in the same order; NaN if the model lacks a seed.
        measure: name and unit of the errors.
    """
    common_length(**{label: values for label, values in errors.items()})
    figure, axes = new_axes(2.6)
    ax = axes[0, 0]
    table = np.array(list(errors.values()), dtype=float)  # (models, seeds)
    places = np.arange(len(errors))
    ax.plot(places, table, "-", color="#bbbbbb", linewidth=0.8, zorder=1)
    for place, values, colour in zip(places, table, SERIES, strict=False):
        ax.plot(np.full(len(values), place), values, "o", color=colour, markersize=4, zorder=2)
        mean = np.nanmean(values)
        ax.hlines(mean, place - 0.18, place + 0.18, color=colour, linewidth=2.5, zorder=3)
        ax.annotate(f"{mean:.2f}", (place + 0.2, mean), va="center", color=colour, fontsize=8)
    counts = np.isfinite(table).sum(1)
    keys = [Line2D([], [], color="#bbbbbb", linewidth=0.8), Line2D([], [], color="#555555", linewidth=2.5)]
    ax.legend(
        keys, ["the same seed", "mean over seeds"], loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2
    )
    ticks = [f"{label}\n{n} seed{'s' * (n > 1)}" for label, n in zip(errors, counts.tolist(), strict=True)]
    ax.set_xticks(places, ticks)
    ax.set(xlim=(-0.5, len(errors) - 0.4), ylabel=measure)
    ax.grid(axis="x", visible=False)
    return figure


@styled
def trend(
    factor: np.ndarray, series: Mapping[str, np.ndarray], *, xlabel: str, ylabel: str, bins: int = 8
) -> Figure:
    """Return the mean of each series in bins of a factor that hold equally many images.

    Error bars are twice the standard error of the mean.

    Args:
        factor: (n,) one number per image.
        series: label -> (n,); the name of a block of z gives that block's hue.
        xlabel: the factor and its unit.
        ylabel: name and unit of the series.
        bins: their number, reduced to at least ten images per bin.
    """
    count = common_length(factor=factor, **dict(series))
    bins = max(1, min(bins, count // 10))
    figure, axes = new_axes(2.6)
    ax = axes[0, 0]
    parts = np.array_split(np.argsort(factor), bins)
    x = np.array([np.mean(factor[part]) for part in parts])
    apart = 0.006 * np.ptp(x)  # so that error bars do not hide each other
    for index, (label, values) in enumerate(series.items()):
        means = np.array([np.mean(values[part]) for part in parts])
        errors = np.array([2 * np.std(values[part]) / np.sqrt(len(part)) for part in parts])
        shift = apart * (index - (len(series) - 1) / 2)
        ax.errorbar(
            x + shift, means, errors, marker=MARKERS[index % len(MARKERS)], markersize=3.5, capsize=2,
            linestyle=DASHES[index % len(DASHES)], color=HUES.get(label, SERIES[index % len(SERIES)]),
            label=label,
        )  # fmt: skip
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(series))
    return figure
