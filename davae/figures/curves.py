"""Figures of training and error: loss terms, KL per dimension, PCK, error by joint."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.patches import Patch

from davae.config import BLOCKS
from davae.figures.style import DASHES, HUES, SERIES, new_axes, styled
from davae.metrics import AUC_THRESHOLDS_MM, auc, pck
from synthhand.skeleton import FINGER_COLOURS, JOINT_COLOURS, JOINT_NAMES

# The six summands of Eq. 3: column of metrics.csv -> label.
SUMMANDS = {
    "alpha_pose": "α₁ pose",
    "alpha_cloud": "α₂ cloud",
    "alpha_image": "α₃ image",
    "beta_pose": "β₁ KL pose",
    "beta_shape": "β₂ KL shape",
    "beta_appearance": "β₃ KL appearance",
}


@styled
def loss_curves(metrics: Mapping[str, np.ndarray]) -> Figure:
    """Return each weighted summand of Eq. 3 over the steps, and the validation error if it was measured.

    Args:
        metrics: columns (rows,) of a run's metrics.csv: `step`, the six summands `alpha_*` and `beta_*`,
            `total`, and optionally `val_epe_mm`. NaN marks a missing value.
    """
    steps = np.asarray(metrics["step"], dtype=float)
    epe_mm = np.asarray(metrics.get("val_epe_mm", np.full(len(steps), np.nan)), dtype=float)
    measured = np.isfinite(epe_mm)
    figure, axes = new_axes(
        2.9, 1, 2 if measured.any() else 1, width_ratios=[3, 2] if measured.any() else None
    )
    ax = axes[0, 0]
    curves = {"total": ("sum (Eq. 3)", "#b0b0b0", "-")}  # wide, since its largest summand lies on it
    curves |= {name: (label, *_summand_style(name)) for name, label in SUMMANDS.items()}
    for name, (label, colour, dashes) in curves.items():
        values = np.asarray(metrics[name], dtype=float)
        there = np.isfinite(values)
        ax.plot(steps[there], values[there], color=colour, linewidth=0.6, alpha=0.35)
        width = 4.0 if name == "total" else 1.5
        ax.plot(steps[there], _smooth(values[there]), color=colour, linestyle=dashes, linewidth=width,
                label=label)  # fmt: skip
    ax.set(xlabel="step", ylabel="weighted term of Eq. 3 (nats)", yscale="log")
    ax.legend(loc="upper right", ncols=2, handlelength=1.8, columnspacing=1.0)
    low, high = ax.get_ylim()
    ax.set_ylim(low, high * (high / low) ** 0.35)  # room for the legend above the curves
    if measured.any():
        right = axes[0, 1]
        right.plot(steps[measured], epe_mm[measured], "o-", color=SERIES[0], markersize=3)
        right.set(xlabel="step", ylabel="validation EPE, P1 (mm)", ylim=(0, 1.08 * epe_mm[measured].max()))
        last = steps[measured][-1], epe_mm[measured][-1]
        right.annotate(f"{last[1]:.1f} mm", last, (2, -13), textcoords="offset points", ha="right")
    return figure


@styled
def term_bars(metrics: Mapping[str, np.ndarray]) -> Figure:
    """Return each weighted summand of Eq. 3 at the first and the last logged step.

    A term without influence shows as a bar that is far shorter than the others.

    Args:
        metrics: as for `loss_curves`.
    """
    figure, axes = new_axes(2.6)
    ax = axes[0, 0]
    logged = np.flatnonzero(np.isfinite(np.asarray(metrics["alpha_pose"], dtype=float)))
    ends = {"first": logged[0], "last": logged[-1]}
    places = np.arange(len(SUMMANDS))
    for offset, row, alpha in zip((-0.2, 0.2), ends.values(), (0.45, 1.0), strict=True):
        values = [float(metrics[name][row]) for name in SUMMANDS]
        bars = ax.bar(
            places + offset, values, 0.38, color=[_summand_style(n)[0] for n in SUMMANDS], alpha=alpha
        )
        ax.bar_label(bars, [_shorten(value) for value in values], fontsize=7, padding=1)
    ax.set_xticks(places, SUMMANDS.values())
    ax.set(ylabel="weighted term of Eq. 3 (nats)", yscale="log")
    low, high = ax.get_ylim()
    ax.set_ylim(low, high * (high / low) ** 0.1)
    ax.grid(axis="x", visible=False)
    step = np.asarray(metrics["step"], dtype=float)
    keys = [Patch(color="#6b6b6b", alpha=alpha) for alpha in (0.45, 1.0)]
    ax.legend(
        keys, [f"{when} logged step ({step[row]:.0f})" for when, row in ends.items()], loc="upper right"
    )
    return figure


@styled
def kl_bars(kl_per_dim: Mapping[str, np.ndarray], *, active: float = 0.05) -> Figure:
    """Return the KL of each latent dimension, block by block, in falling order.

    Args:
        kl_per_dim: block -> (z,) nats, mean over images.
        active: in nats. Dimensions below it are drawn pale: they equal the prior and carry no information.
            Dimensions above it need not carry any: a spread that is equal for all images also costs nats.
    """
    sizes = [len(kl_per_dim[block]) for block in BLOCKS]
    figure, axes = new_axes(2.3, 1, len(BLOCKS), sharey=True, width_ratios=[max(size, 12) for size in sizes])
    for ax, block in zip(axes[0], BLOCKS, strict=True):
        values = np.sort(np.asarray(kl_per_dim[block], dtype=float))[::-1]
        bars = ax.bar(np.arange(1, len(values) + 1), values, color=HUES[block], width=0.8)
        for bar, value in zip(bars, values, strict=True):
            bar.set_alpha(1.0 if value >= active else 0.3)
        above = f"{(values >= active).sum()} of {len(values)} above {active:g}"
        ax.set_title(f"{block}: {values.sum():.1f} nats,\n{above}")
        ax.set_xticks([1, *range(4, len(values) + 1, 4)])
        ax.grid(axis="x", visible=False)
    axes[0, 0].set_ylabel("KL to the prior (nats)")
    figure.supxlabel(f"dimension of the block, in order of KL (pale: below {active:g} nats)", fontsize=9)
    return figure


@styled
def pck_curves(errors_mm: Mapping[str, np.ndarray], *, colours: Mapping[str, str] | None = None) -> Figure:
    """Return PCK from 0 to 50 mm with the window of the AUC shaded (paper Figs. 4 and 7).

    Args:
        errors_mm: label -> errors of any shape, in mm; NaN is left out.
        colours: label -> colour; other labels take the colours of the style.
    """
    figure, axes = new_axes(3.0)
    draw_pck(axes[0, 0], errors_mm, colours)
    return figure


@styled
def draw_pck(ax: Axes, errors_mm: Mapping[str, np.ndarray], colours: Mapping[str, str] | None = None) -> None:
    """Draw the curves of `pck_curves` into an axes."""
    thresholds_mm = np.linspace(0, 50, 201)
    found = {label: np.asarray(errors, dtype=float) for label, errors in errors_mm.items()}
    shares = {label: pck(errors[~np.isnan(errors)], thresholds_mm) for label, errors in found.items()}
    draw_shares(ax, shares, thresholds_mm, colours)


@styled
def draw_shares(
    ax: Axes,
    shares: Mapping[str, np.ndarray],
    thresholds_mm: np.ndarray,
    colours: Mapping[str, str] | None = None,
) -> None:
    """Draw PCK curves that are known at some thresholds, those of the AUC's window among them.

    Args:
        ax: the axes.
        shares: label -> (t,) shares of joints.
        thresholds_mm: (t,) ascending.
        colours: label -> colour.

    Raises:
        ValueError: the thresholds do not reach over the AUC's window, 20 to 50 mm.
    """
    window = AUC_THRESHOLDS_MM
    if thresholds_mm[0] > window[0] or thresholds_mm[-1] < window[-1]:
        raise ValueError(
            f"thresholds from {thresholds_mm[0]:g} to {thresholds_mm[-1]:g} mm: expected some that reach "
            f"over the window of the AUC, {window[0]:g} to {window[-1]:g} mm"
        )
    ax.axvspan(window[0], window[-1], color="#f1f1f1", zorder=0, linewidth=0)
    for index, (label, share) in enumerate(shares.items()):
        colour = (colours or {}).get(label, SERIES[index % len(SERIES)])
        area = auc(window, np.interp(window, thresholds_mm, share))
        ax.plot(
            thresholds_mm, share, color=colour, label=f"{label} ({area:.3f})",
            linestyle=DASHES[index % len(DASHES)],
        )  # fmt: skip
    ax.set(
        xlim=(0, 50),
        ylim=(0, 1.02),
        xlabel="error threshold (mm)",
        ylabel="fraction of joints within it (PCK)",
    )
    ax.legend(title="AUC over 20-50 mm (shaded)", loc="best", alignment="left", title_fontsize=8)


@styled
def pck_beside_reported(
    errors_mm: Mapping[str, np.ndarray], reported: Mapping[str, float], *, on: str, reported_on: str
) -> Figure:
    """Return our PCK curves beside AUCs: ours as dots, published ones as rings (paper Fig. 7).

    Other methods' curves are published only as images, so they are not drawn.

    Args:
        errors_mm: label -> our errors in mm, of any shape.
        reported: method -> AUC as printed.
        on: the dataset on which ours were measured.
        reported_on: the dataset of the published AUCs.
    """
    figure, axes = new_axes(3.4, 1, 2, width_ratios=[3, 2])
    draw_pck(axes[0, 0], errors_mm)
    axes[0, 0].set_title(f"measured on {on}")
    window, ax = AUC_THRESHOLDS_MM, axes[0, 1]
    ours = {label: auc(window, pck(np.asarray(e)[~np.isnan(e)], window)) for label, e in errors_mm.items()}
    rows = sorted([(value, name, False) for name, value in reported.items()]
                  + [(value, label, True) for label, value in ours.items()])  # fmt: skip
    for place, (value, name, measured) in enumerate(rows):
        colour = SERIES[list(ours).index(name) % len(SERIES)] if measured else "#555555"
        ax.plot(
            value, place, "o", color=colour, markerfacecolor=colour if measured else "white", markersize=5
        )
    names = [f"{name}, measured" if measured else name for _, name, measured in rows]
    ax.set_yticks(range(len(rows)), names, fontsize=7)
    ax.set(xlabel="AUC, 20-50 mm", ylim=(-0.7, len(rows) - 0.3))
    ax.set_title(f"rings: as printed, on {reported_on}")
    return figure


@styled
def error_by_joint(per_joint_mm: Mapping[str, np.ndarray] | np.ndarray, *, protocol: str = "P1") -> Figure:
    """Return the mean error of each joint, finger by finger from root to tip.

    Args:
        per_joint_mm: (21,) of one model, or label -> (21,) of several; NaN for a joint without a value.
        protocol: named on the axis.
    """
    models = per_joint_mm if isinstance(per_joint_mm, Mapping) else {"": per_joint_mm}
    figure, axes = new_axes(2.9)
    ax = axes[0, 0]
    places = np.array([0.0, *(1.5 + joint + 0.5 * (joint // 4) for joint in range(20))])
    width = 0.8 / len(models)
    hatches = ("", "////", "....", "xxxx")
    keys = {}  # of the legend: bar and line of the mean, together
    for index, (label, values) in enumerate(models.items()):
        offset = (index - (len(models) - 1) / 2) * width
        values = np.asarray(values, dtype=float)
        ax.bar(places + offset, values, width, color=JOINT_COLOURS, edgecolor="white", linewidth=0.4,
               hatch=hatches[index % 4])  # fmt: skip
        mean = float(np.nanmean(values))
        line = ax.axhline(mean, color="#444444", linewidth=0.9, linestyle=DASHES[index % 4])
        bar = Patch(facecolor="#8a8a8a", edgecolor="white", hatch=hatches[index % 4])
        keys[f"{label + ': ' if label else ''}mean {mean:.1f} mm"] = (bar, line)
    names = [name.split("_")[-1].upper() if "_" in name else "wrist" for name in JOINT_NAMES]
    ax.set_xticks(places, [n if n != "TIP" else "tip" for n in names], rotation=90)
    for finger, colour in FINGER_COLOURS.items():
        if finger != "wrist":
            own = [p for p, name in zip(places, JOINT_NAMES, strict=True) if name.startswith(finger)]
            ax.text(np.mean(own), -0.27, finger, color=colour, ha="center", va="top", weight="bold",
                    transform=ax.get_xaxis_transform())  # fmt: skip
    ax.set(ylabel=f"mean error, {protocol} (mm)", xlim=(-1, places[-1] + 1))
    ax.grid(axis="x", visible=False)
    top = max(np.nanmax(np.asarray(v, dtype=float)) for v in models.values())
    ax.set_ylim(0, top * 1.22)
    ax.legend(
        keys.values(), keys, loc="upper left", ncols=len(models), handlelength=4.0,
        handler_map={tuple: HandlerTuple(ndivide=None)},
    )  # fmt: skip
    return figure


def _shorten(value: float) -> str:
    """Return a number to three digits, thousands as k and millions as M, to fit above a bar."""
    for unit, name in ((1e6, "M"), (1e3, "k")):
        if abs(float(f"{value:.3g}")) >= unit:
            return f"{value / unit:.3g}{name}"
    return f"{value:.3g}"


def _summand_style(name: str) -> tuple[str, str]:
    """Return the colour and the line style of a summand: one hue for each block, dashes for KL."""
    kind, meaning = name.split("_")
    return HUES[meaning], "-" if kind == "alpha" else "--"


def _smooth(values: np.ndarray, share: float = 0.04) -> np.ndarray:
    """Return the running mean over a share of the points; the window shrinks symmetrically near the ends."""
    reach = int(len(values) * share / 2)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    near = np.minimum(reach, np.minimum(index, len(values) - 1 - index))
    return (sums[index + near + 1] - sums[index - near]) / (2 * near + 1)
