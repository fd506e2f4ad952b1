"""Measure whether moving one latent block changes one property only, beside the rendered truth.

    python benchmarks/interpolation.py --run RUN --data PREPARED

For many pairs of SynthHand test images, each block moves from the code of one image to that of the other
while the other blocks stay fixed. Printed are the paper's claims of "without significant impact"
(`davae.latent.disentanglement.measure_leaks`), the change of the outline with shape relative to the rendered
truth, and the agreement of each decoded frame with the rendering of the same factors. The floor of that
agreement is the reconstruction of the two images themselves.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from davae.config import BLOCKS, RenderConfig
from davae.data.augment import centre, load_batch
from davae.data.prepared import PreparedSplit
from davae.figures import latent_strip
from davae.latent import disentanglement as d
from davae.latent.blend import Frame, read_factors, render_frame, render_path
from davae.latent.codes import encode, lerp
from davae.networks import Decoded
from davae.training.runs import load_model, weights_digest
from synthhand.dataset.factors import Factors, sample_factors
from synthhand.dataset.world import find_world
from synthhand.formats.record import BadSample

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
SHAPE_BOUND = 1.5  # largest accepted change of the outline with shape, relative to the rendered truth


def decode_and_render(model, codes, pair, factors, config) -> dict[str, tuple[Decoded, list[Frame]]]:
    """Return, for a pair, block -> decoded frames at `SHARES` of the path, and their rendered truth.

    Raises:
        synthhand.formats.record.BadSample: a hand on the path cannot be cropped.
    """
    start, end = ({block: codes[block][n : n + 1] for block in BLOCKS} for n in pair)
    found = {}
    for block in BLOCKS:
        truth = render_path(*factors, block, SHARES, config.data)
        code = {name: start[name].repeat(len(SHARES), 1) for name in BLOCKS}
        code[block] = torch.cat([lerp(start[block], end[block], share) for share in SHARES])
        found[block] = model.decode(code), truth
    return found


def measure_pair(model, codes, pair, factors, config) -> tuple[dict[str, list], float]:
    """Return the agreement of a pair's decoded frames with the truth, and the true change of the outline.

    The agreement is a mapping: block -> one entry per frame, "floor" -> one entry for each of the two images.
    The change of the outline is that of the rendered truth from one shape to the other.

    Raises:
        synthhand.formats.record.BadSample: a hand on the path cannot be cropped.
    """
    ways = decode_and_render(model, codes, pair, factors, config)
    frames = {
        block: [
            d.measure_agreement(*frame) for frame in zip(decoded.image, decoded.cloud, truth, strict=True)
        ]
        for block, (decoded, truth) in ways.items()
    }
    first, *_, last = ways["shape"][1]
    own = model.decode({block: codes[block][pair] for block in BLOCKS})
    ends = [render_frame(one, config.data) for one in factors]
    frames["floor"] = [d.measure_agreement(*f) for f in zip(own.image, own.cloud, ends, strict=True)]
    return frames, d.silhouette_change(first.image[None], last.image[None]).item()


def draw_paths(model, codes, images: Tensor, pair, factors, config) -> Figure:
    """Draw the three paths of a pair, decoded above rendered, between its two input images (3, h, w)."""
    strips = {}
    for block, (decoded, truth) in decode_and_render(model, codes, pair, factors, config).items():
        strips[f"{block}\ndecoded"] = to_arrays(decoded.image)
        strips[f"{block}\nrendered"] = to_arrays([frame.image for frame in truth])
    start, end = to_arrays(images[pair])
    return latent_strip(strips, [f"{share:.2f}" for share in SHARES], [""] * len(SHARES), start, end)


def to_arrays(images) -> list[NDArray]:
    """Return images (3, h, w) as arrays (h, w, 3) in 0..1."""
    return [image.permute(1, 2, 0).clamp(0, 1).numpy() for image in images]


def check_drawn_with(drawn_by: RenderConfig, test: PreparedSplit, row: int) -> None:
    """Check that the stored factors of a test image are those that seed and range of flesh draw.

    Raises:
        ValueError: factors are missing or differ, so the truth cannot be rendered.
    """
    number, seed = int(test.ids[row]), drawn_by.seed
    world = find_world(test.factors)
    for name, drawn in sample_factors(seed, "test", number, flesh=drawn_by.flesh, world=world).flat().items():
        if name not in test.factors:
            raise ValueError(
                f"--data: no {name} is stored with these images, so their truth cannot be rendered; give "
                "SynthHand data from `davae render`, which stores its factors"
            )
        if not np.array_equal(test.factors[name][row], drawn):
            raise ValueError(
                f"--data: {name} of test image {number} is not what the run's preset draws, of seed {seed} "
                f"and {drawn_by.flesh} flesh; give data rendered with these"
            )


@torch.inference_mode()
def measure(
    run: Path, data: Path, pairs: int = 100, seed: int = 0, figure: Path | None = None
) -> dict[str, Any]:
    """Return claims, effects and agreement over random pairs of test images.

    If `figure` is given, the paths of the pair with the largest change of colour by appearance are drawn
    there, of the half of the pairs that is reconstructed better.

    Raises:
        ValueError: the data were not rendered with the seed of the run's preset, or no pair can be rendered.
    """
    model, config = load_model(run)
    test = PreparedSplit.open(data, "test").seen_through(config.data.mask)
    rng = np.random.default_rng(seed)
    drawn = np.stack([rng.choice(len(test), 2, replace=False) for _ in range(pairs)])
    used, rows = np.unique(drawn, return_inverse=True)
    check_drawn_with(config.render, test, used[0])
    images = centre(load_batch(test, used), config.data).image
    codes = encode(model, images)
    rows = rows.reshape(drawn.shape)
    effects = d.measure_effects(model, codes, rows, np.asarray(test.scale_mm[used]))
    agreements: dict[str, list] = {}
    outline: list[tuple[float, float]] = []
    drawn_well = np.full(len(rows), -1.0)  # worse IoU of the two ends, reconstructed; -1: not rendered

    def factors_of(pair) -> list[Factors]:
        return [read_factors(test.factors, int(used[n])) for n in pair]

    for number, pair in enumerate(tqdm(rows, unit="pair", disable=None)):
        factors = factors_of(pair)
        try:
            frames, truly = measure_pair(model, codes, pair, factors, config)
        except BadSample:
            continue
        drawn_well[number] = min(one.iou for one in frames["floor"])
        for name, found in frames.items():
            agreements.setdefault(name, []).extend(found)
        outline.append((effects["shape"].silhouette[number], truly))
    if not outline:
        raise ValueError(f"none of the {pairs} pairs could be rendered; give a larger --pairs")
    if figure is not None:
        colour = np.nan_to_num(effects["appearance"].colour)
        rendered = drawn_well >= 0
        colour[~rendered | (drawn_well < np.median(drawn_well[rendered]))] = -1
        pair = rows[colour.argmax()]
        draw_paths(model, codes, images, pair, factors_of(pair), config).savefig(figure, dpi=150)
    moved, truly = np.median(np.array(outline), axis=0).tolist()
    ratio = moved / truly if truly else float("nan")
    verdicts = [
        *d.measure_leaks(effects),
        d.Leak("shape moves the outline, over what it does in the truth", ratio, SHAPE_BOUND),
    ]
    return {
        "weights": weights_digest(run),
        "pairs": pairs,
        "left out": int((drawn_well < 0).sum()),
        "claims": {
            v.claim: {"ratio": finite_median([v.ratio]), "bound": v.bound, "holds": v.holds} for v in verdicts
        },
        "effects": {
            block: {name: finite_median(values) for name, values in zip(e._fields, e, strict=True)}
            for block, e in effects.items()
        },
        "agreement": {
            name: {
                field: finite_median(values)
                for field, values in zip(d.Agreement._fields, np.array(found, float).T, strict=True)
            }
            for name, found in agreements.items()
        },
    }


def finite_median(values) -> float | None:
    """Return the median of the finite values, or None without any (colour of pictures without a hand)."""
    known = np.asarray(values, float)
    known = known[np.isfinite(known)]
    return float(np.median(known)) if known.size else None


def main(
    run: Path, data: Path, pairs: int = 100, out: Path | None = None, figure: Path | None = None
) -> None:
    """Measure a run on SynthHand.

    Args:
        run: Folder of a finished run.
        data: SynthHand, prepared for that run.
        pairs: Number of pairs.
        out: JSON file to write in addition.
        figure: PNG file to draw in addition: of the half of the pairs that is reconstructed better, the paths
            of the one with the largest change of colour by appearance.
    """
    result = measure(run, data, pairs, figure=figure)
    print(json.dumps(result, indent=2))
    if out is not None:
        out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    tyro.cli(main)
