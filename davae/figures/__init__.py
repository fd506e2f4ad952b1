"""Arrays in, matplotlib `Figure` out: the project's figures, in one style."""

from davae.figures.checks import check_sheet
from davae.figures.clouds import cloud_figure, draw_cloud, plotly_hand, reconstructions
from davae.figures.curves import (
    draw_pck,
    draw_shares,
    error_by_joint,
    kl_bars,
    loss_curves,
    pck_beside_reported,
    pck_curves,
    term_bars,
)
from davae.figures.diagram import model_diagram, rooms_diagram
from davae.figures.disentanglement import block_map, block_maps
from davae.figures.hands import best_median_worst, compare_3d, draw_hand, draw_hand_3d, hands_grid
from davae.figures.latents import code_bars, latent_strip
from davae.figures.masks import iou_histogram, mask_comparison
from davae.figures.statistics import (
    bone_length_histogram,
    factor_histograms,
    palm_normal,
    skin_tone_histogram,
    viewpoint_scatter,
)
from davae.figures.style import new_axes, new_figure, styled, use_style
from davae.figures.sweeps import (
    draw_sweep,
    kl_profiles,
    leak_curves,
    paired_seeds,
    rate_distortion,
    sweep_curve,
    trend,
)

__all__ = [
    "best_median_worst", "block_map", "block_maps", "bone_length_histogram", "check_sheet",
    "cloud_figure", "code_bars", "compare_3d", "draw_cloud", "draw_hand", "draw_hand_3d", "draw_pck",
    "draw_shares", "draw_sweep", "error_by_joint", "factor_histograms", "hands_grid", "iou_histogram",
    "kl_bars", "kl_profiles", "latent_strip", "leak_curves", "loss_curves", "mask_comparison",
    "model_diagram", "new_axes", "new_figure", "paired_seeds", "palm_normal", "pck_beside_reported",
    "pck_curves", "plotly_hand", "rate_distortion", "reconstructions", "rooms_diagram",
    "skin_tone_histogram", "styled", "sweep_curve", "term_bars", "trend", "use_style",
    "viewpoint_scatter",
]  # fmt: skip
