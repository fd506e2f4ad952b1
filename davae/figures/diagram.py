"""da-VAE drawn: every part with its shape and its number of parameters (paper Fig. 1)."""

import math

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from davae.config import ModelConfig
from davae.figures.style import HUES, new_figure, styled

ROWS = ("pose", "shape", "appearance")  # top to bottom, so that few arrows cross
DECODERS = {"pose": "pose", "shape": "cloud", "appearance": "image"}  # the decoder level with each block
READS = {"pose": ("pose",), "cloud": ("pose", "shape"), "image": ROWS}  # which blocks a decoder reads
GREY, INK = "#f2f2f2", "#333333"


@styled
def model_diagram(config: ModelConfig) -> Figure:
    """Return the architecture for one config, from image to joints, cloud and image."""
    from davae.evaluation.summary import summarise

    parameters = {part.name: part.parameters for part in summarise(config)}
    figure = new_figure(4.1)
    ax = figure.add_subplot()
    ax.set(xlim=(0, 100), ylim=(4, 61))
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
    how = {"pose": "MLP", "cloud": "FoldingNet", "image": "transposed conv."}
    for block, name in DECODERS.items():
        y, colour = heights[block], HUES[name]
        text = f"{name} decoder\n{how[name]}\n{_count(parameters[f'{name} decoder'])}\n→ {outputs[name]}"
        _box(ax, 89.5, y, 19, 14.5, text, _tint(colour), colour)
        for index, source in enumerate(reversed(READS[name])):  # a block's own decoder is level with it
            _arrow(ax, (69.5, heights[source]), (80, y + 2.7 * index), HUES[source])
    for x, word in (
        (23, "shared features"),
        (43.5, "one head a block"),
        (63, "latent code z"),
        (89.5, "decoders"),
    ):
        _text(ax, x, 58.5, word, weight="bold")
    total = f"{config.title}: {_count(parameters['total'])} parameters"
    _text(ax, 15, 9, total, weight="bold")
    return figure


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


def _arrow(ax: Axes, start, end, colour: str = INK) -> None:
    ax.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=7, color=colour, linewidth=1.1,
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
