"""Diagrams: the network (paper Fig. 1), and the rooms of both packages."""

import math

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

from davae.config import READS, ModelConfig
from davae.figures.style import HUES, new_figure, styled

ROWS = ("pose", "shape", "appearance")  # top to bottom, so that few arrows cross
DECODERS = {"pose": "pose", "shape": "cloud", "appearance": "image"}  # the decoder level with each block
GREY, INK = "#f2f2f2", "#333333"

PAPER, DATA, RESULTS, USE, HAND = "#56b4e9", "#e69f00", "#cc79a7", "#6a51a3", "#6b6b6b"
ROOMS = {  # package -> its rooms from the ground up: colour of the kind, and what the room holds
    "synthhand": {
        "skeleton": (HAND, "21 joints, bones, their order"),
        "pinhole": (HAND, "cameras, crops, projection"),
        "storage": (HAND, "atomic writes, locks"),
        "model": (HAND, "rig, poses, skinning"),
        "render": (HAND, "ray casting, skin, light"),
        "formats": (HAND, "RHD, STB, FreiHAND, MANO"),
        "dataset": (HAND, "SynthHand: factors to files"),
    },
    "davae": {
        "config": (PAPER, "presets, settings"),
        "networks": (PAPER, "encoder, decoders, hand mask"),
        "losses": (PAPER, "Eq. 3"),
        "metrics": (PAPER, "EPE, PCK, AUC, protocols"),
        "data": (DATA, "samples, arrays, batches"),
        "training": (DATA, "loop, runs, resuming"),
        "rivals": (DATA, "the methods of Table 3"),
        "evaluation": (RESULTS, "predictions, report, intervals"),
        "latent": (RESULTS, "interpolation, disentanglement"),
        "figures": (RESULTS, "arrays in, figures out"),
        "studies": (RESULTS, "sweeps, the paper's claims"),
        "photo": (USE, "a photo to a hand, app, ONNX"),
        "pipeline": (USE, "command line, notebooks"),
    },
}
# Paths through the rooms, from the ground up: row, module, what it does, colour.
TO_NETWORK = (
    (0, "dataset", "files of RHD, STB, FreiHAND, SynthHand", None),
    (1, "synthhand.formats", "record: image, depth, joints, camera", HAND),
    (2, "data.sample", "mirror, crop, normalise", DATA),
    (3, "data.prepared", "arrays on disk, mapped into memory", DATA),
    (4, "data.augment", "a batch, rotated and zoomed", DATA),
    (5, "networks.encoder", "shared trunk, one head per block of z", PAPER),
)
FROM_NETWORK = (
    (8, "losses", "Eq. 3: three errors, three KL terms", PAPER),
    (9, "training.trainer", "optimiser steps; a run folder", DATA),
    (10, "evaluation.measure", "predictions on the test split", RESULTS),
    (11, "evaluation.report", "errors P1 to P5, with intervals", RESULTS),
)
PHOTO_PATH = (
    (0, "photo", "any picture file", None),
    (1, "photo.reading", "upright, in sRGB", USE),
    (3, "photo.finding", "where the hand is", USE),
    (6, "photo.observer", "runs the network\non several views,\naverages them", USE),
    (9, "photo.hand", "Hand: side, joints,\nmesh, latent code", USE),
)


@styled
def model_diagram(config: ModelConfig) -> Figure:
    """Return the architecture for one config, from image to joints, cloud and image."""
    from davae.evaluation.summary import summarise

    parameters = {part.name: part.parameters for part in summarise(config)}
    figure = new_figure(4.1)
    ax = figure.add_subplot()
    ax.set(xlim=(0, 104), ylim=(4, 61))
    ax.set_axis_off()
    px, width = config.image_px, config.width
    map_px = math.ceil(math.ceil(px / config.stem_stride) / (4 if config.stem_pool else 2))
    head_px = math.ceil(math.ceil(map_px / 2) / config.last_stride)
    heights = dict(zip(ROWS, (47.5, 30.0, 12.5), strict=True))
    unit = {"sk": "selective-kernel", "se": "squeeze-excitation", "none": "residual"}[config.attention]

    _box(ax, 6.5, 30, 12, 12, f"image\n3×{px}×{px}", "white")
    trunk = f"trunk\nstem, layer1,\nlayer2\n{2 * width}×{map_px}×{map_px}\n{_count(parameters['trunk'])}"
    _box(ax, 23, 30, 14.5, 19, trunk, GREY)
    _arrow(ax, (12.5, 30), (15.75, 30))
    for block, y in heights.items():
        colour = HUES[block]
        size = f"{config.head_widths(block)[1]}×{head_px}×{head_px}"
        head = f"{block} head\n{unit}\n{size}\n{_count(parameters[f'head {block}'])}"
        _box(ax, 43.5, y, 17.5, 14.5, head, _tint(colour), colour)
        _arrow(ax, (30.25, 30), (34.75, y))
        _box(ax, 63, y, 13, 9, f"{block}\n{config.latent_sizes[block]}", colour, colour, "white")
        _arrow(ax, (52.25, y), (56.5, y))
        _text(ax, 54.2, y + 1.8, r"$\mu,\sigma$")
    points = config.fold_grid**2
    outputs = {"pose": "21×3 joints", "cloud": f"{points}×3 points", "image": f"3×{px}×{px}"}
    how = {  # limb decoders read the pose as decoded joints
        "pose": "MLP",
        "cloud": {"paper": "FoldingNet", "limbs": "tubes on joints"}[config.cloud_decoder],
        "image": {"paper": "transposed conv.", "limbs": "maps of joints"}[config.image_decoder],
    }
    for block, name in DECODERS.items():
        y, colour = heights[block], HUES[name]
        text = f"{name} decoder\n{how[name]}\n{_count(parameters[f'{name} decoder'])}\n→ {outputs[name]}"
        _box(ax, 89.5, y, 19, 14.5, text, _tint(colour), colour)
        limbs = getattr(config, f"{name}_decoder", None) == "limbs"  # which reads joints in place of z_pose
        reads = [row for row in reversed(ROWS) if row in config.reads(name) and not (limbs and row == "pose")]
        if limbs:
            top = heights["pose"] + (1.6 if name == "image" else -1.6)
            side = 102.5 if name == "image" else 101.0
            ax.plot([99, side, side], [top, top, y], color=HUES["pose"], linewidth=1.1, zorder=2)
            _arrow(ax, (side, y), (99, y), HUES["pose"])
        for index, source in enumerate(reads):  # a block's own decoder is level with it
            _arrow(ax, (69.5, heights[source]), (80, y + 2.7 * index), HUES[source])
    for x, word in (
        (23, "shared features"),
        (43.5, "one head a block"),
        (63, "latent code z"),
        (89.5, "decoders"),
    ):
        _text(ax, x, 58.5, word, weight="bold")
    total = f"{config.title}: {_count(parameters['total'])} parameters"
    _text(ax, 15, 10.5, total, weight="bold")
    _text(ax, 15, 7.5, "in each box: its own")
    return figure


@styled
def rooms_diagram() -> Figure:
    """Return the rooms of both packages from the ground up, and the paths of two images through them.

    A room imports only rooms below it. The modules on the paths have the colours of their rooms.
    """
    figure = new_figure(5.9)
    ax = figure.add_subplot()
    ax.set(xlim=(-0.5, 120.5), ylim=(-1, 105))
    ax.set_axis_off()
    _draw_rooms(ax)
    y = [3.0 + 8.4 * row for row in range(12)]  # of the rows' middles
    for path, x, width in ((TO_NETWORK, 75.0, 40), (FROM_NETWORK, 75.0, 40), (PHOTO_PATH, 110.0, 20)):
        _draw_path(ax, path, x, width, y)
    columns = dict(zip(ROWS, (61.5, 75, 88.5), strict=True))
    for block, x in columns.items():
        decoder, colour = DECODERS[block], HUES[block]
        _box(ax, x, y[6], 13, 4.2, block, colour, colour, "white")
        _box(ax, x, y[7], 13, 5.8, f"{decoder}\ndecoder", _tint(colour), colour)
        _arrow(ax, (x, y[5] + 2.9), (x, y[6] - 2.1))
        _arrow(ax, (x, y[7] + 2.9), (x, y[8] - 2.9), colour)
        reads = [row for row in reversed(ROWS) if row in READS[decoder]]
        for index, source in enumerate(reads):  # a block's own decoder is above it
            _arrow(ax, (columns[source], y[6] + 2.1), (x - 2.4 * index, y[7] - 2.9), HUES[source])
    left, right = 53.6, 96.4  # of the network
    ax.add_patch(Rectangle((left, y[5] - 3.6), right - left, y[7] - y[5] + 7.2, facecolor="none",
                           edgecolor=PAPER, linestyle="--"))  # fmt: skip
    _arrow(ax, (right, y[6]), (100, y[6]), style="<|-|>")
    ax.plot([55, 51, 51], [y[9], y[9], y[6]], color=INK, linewidth=1.1)
    _arrow(ax, (51, y[6]), (left, y[6]))
    ax.text(
        49.6, (y[6] + y[9]) / 2, "new weights", rotation=90, va="center", ha="center", fontsize=7, color=INK
    )
    for x, words in ((23.5, "rooms: each imports only those below"), (75, "path of a labelled image"),
                     (110, "path of a photo")):  # fmt: skip
        _text(ax, x, 103.5, words, weight="bold")
    return figure


def _draw_path(ax: Axes, path: tuple, x: float, width: float, y: list[float]) -> None:
    """Draw a column of modules, each with an arrow to the next."""
    top = None
    for row, name, what, colour in path:
        height = 3 + 2.75 * (what.count("\n") + 1)
        if top is not None:
            _arrow(ax, (x, top), (x, y[row] - height / 2))
        face, edge = ("white", INK) if colour is None else (_tint(colour), colour)
        _box(ax, x, y[row], width, height, f"{name}\n{what}", face, edge)
        top = y[row] + height / 2


def _draw_rooms(ax: Axes) -> None:
    """Draw the rooms of both packages at the left of a diagram."""
    y = 1.0
    for package, rooms in ROOMS.items():
        bottom = y - 1
        for room, (colour, what) in rooms.items():
            y += 4.4
            _box(ax, 8, y - 2.2, 13, 3.5, room, _tint(colour), colour)
            ax.text(16, y - 2.2, what, va="center", fontsize=7, color=INK)
        ax.text(1.5, y + 2.6, package, va="center", fontsize=8, color=INK, weight="bold")
        ax.add_patch(Rectangle((0, bottom), 47, y + 5 - bottom, facecolor="none", edgecolor="#bbbbbb"))
        y += 6.5


def _box(
    ax: Axes, x: float, y: float, w: float, h: float, text: str, face: str, edge: str = INK, ink: str = INK
):
    """Draw a box of size (w, h) centred on (x, y) with text in it."""
    ax.add_patch(FancyBboxPatch((x - w / 2, y - h / 2), w, h, boxstyle="round,pad=0,rounding_size=1.2",
                                facecolor=face, edgecolor=edge, linewidth=1.0, zorder=3))  # fmt: skip
    title, _, rest = text.partition("\n")
    lines = text.count("\n") + 1
    step = 2.75
    top = y + step * (lines - 1) / 2
    _text(ax, x, top, title, colour=ink, weight="bold")
    for index, line in enumerate(rest.split("\n") if rest else []):
        _text(ax, x, top - step * (index + 1), line, colour=ink)


def _text(ax: Axes, x: float, y: float, text: str, *, colour: str = INK, weight: str = "normal") -> None:
    ax.text(x, y, text, ha="center", va="center", fontsize=7, color=colour, weight=weight, zorder=4)


def _arrow(ax: Axes, start, end, colour: str = INK, style: str = "-|>") -> None:
    ax.add_patch(FancyArrowPatch(start, end, arrowstyle=style, mutation_scale=7, color=colour, linewidth=1.1,
                                 shrinkA=0, shrinkB=0, zorder=2))  # fmt: skip


def _tint(colour: str) -> str:
    """Return a colour mixed with nine parts of white in ten."""
    channels = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(255 - 0.12 * (255 - c)):02x}" for c in channels)


def _count(parameters: int) -> str:
    """Return a number of parameters as people write it."""
    if parameters >= 1e6:
        return f"{parameters / 1e6:.1f} M"
    return f"{parameters / 1e3:.0f} k" if parameters >= 1e4 else f"{parameters / 1e3:.1f} k"
