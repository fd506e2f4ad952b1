"""Does moving one block of the code change one thing, over many pairs and beside the rendered truth?

    python benchmarks/interpolation.py --run RUN --data PREPARED

Between the codes of two SynthHand test images each block is moved from end to end while the others are held.
Printed are the claims of "without significant impact" (`davae.latent.disentanglement.measure_leaks`), the
change of the outline with shape beside that of the rendered truth, and how near each decoded frame comes to
the truth of the same factors, beside the floor: the two images themselves, encoded and decoded.
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

from davae.config import BLOCKS
from davae.data.augment import centre, load_batch
from davae.data.prepared import PreparedSplit
from davae.figures import latent_strip
from davae.latent import disentanglement as d
from davae.latent.blend import Frame, render_frame, render_path
from davae.latent.codes import encode, lerp
from davae.networks import Decoded
from davae.training.runs import load_model, weights_digest
from synthhand.dataset.factors import Factors, sample_factors
from synthhand.formats.record import BadSample

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
SHAPE_BOUND = 1.5  # the outline's change with shape over that of the truth


def decoded_and_rendered(model, codes, pair, factors, config) -> dict[str, tuple[Decoded, list[Frame]]]:
    """The ways of a pair, block -> what is decoded in `SHARES` steps, and the rendered truth of each.

    Raises:
        synthhand.formats.record.BadSample: a hand on the way cannot be cropped.
    """
    start, end = ({block: codes[block][n : n + 1] for block in BLOCKS} for n in pair)
    found = {}
    for block in BLOCKS:
        truth = render_path(*factors, block, SHARES, config.data)
        code = {name: start[name].repeat(len(SHARES), 1) for name in BLOCKS}
        code[block] = torch.cat([lerp(start[block], end[block], share) for share in SHARES])
        found[block] = model.decode(code), truth
    return found


def frames_of_pair(model, codes, pair, factors, config) -> tuple[dict[str, list], float]:
    """Agreement of a pair's decoded frames with the truth, block -> one a frame, "floor" -> its two ends.

    With it how much of the outline shape changes in the truth.

    Raises:
        synthhand.formats.record.BadSample: a hand on the way cannot be cropped.
    """
    ways = decoded_and_rendered(model, codes, pair, factors, config)
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


def ways_figure(model, codes, images: Tensor, pair, factors, config) -> Figure:
    """Decoded over rendered frames of a pair's three ways, between the two images (3, h, w) themselves."""
    strips = {}
    for block, (decoded, truth) in decoded_and_rendered(model, codes, pair, factors, config).items():
        strips[f"{block}\ndecoded"] = pictures(decoded.image)
        strips[f"{block}\nrendered"] = pictures([frame.image for frame in truth])
    start, end = pictures(images[pair])
    return latent_strip(strips, [f"{share:.2f}" for share in SHARES], [""] * len(SHARES), start, end)


def pictures(images) -> list[NDArray]:
    """Images (3, h, w) as arrays (h, w, 3)."""
    return [image.permute(1, 2, 0).clamp(0, 1).numpy() for image in images]


def check_drawn_with(seed: int, test: PreparedSplit, row: int) -> None:
    """Raise ValueError unless a test image shows the hand that `seed` draws, whose truth is rendered here."""
    number = int(test.ids[row])
    for name, drawn in sample_factors(seed, "test", number).flat().items():
        if name not in test.factors:
            raise ValueError(
                f"--data: no {name} is stored with these images, so what they show cannot be rendered; give "
                "SynthHand, which `davae render` draws with its factors"
            )
        if not np.array_equal(test.factors[name][row], drawn):
            raise ValueError(
                f"--data: {name} of test image {number} is not what seed {seed} of the run's preset draws; "
                "give data that were rendered with that seed"
            )


@torch.inference_mode()
def measure(
    run: Path, data: Path, pairs: int = 100, seed: int = 0, figure: Path | None = None
) -> dict[str, Any]:
    """Claims and agreement over random pairs of test images.

    `figure` shows the pair between which appearance changes the decoded colour most.
    """
    model, config = load_model(run)
    test = PreparedSplit.open(data, "test").seen_through(config.data.mask)
    rng = np.random.default_rng(seed)
    drawn = np.stack([rng.choice(len(test), 2, replace=False) for _ in range(pairs)])
    used, rows = np.unique(drawn, return_inverse=True)
    check_drawn_with(config.render.seed, test, used[0])
    images = centre(load_batch(test, used), config.data).image
    codes = encode(model, images)
    rows = rows.reshape(drawn.shape)
    effects = d.measure_effects(model, codes, rows, np.asarray(test.scale_mm[used]))
    agreements: dict[str, list] = {}
    outline: list[tuple[float, float]] = []
    left_out: list[int] = []

    def factors_of(pair) -> list[Factors]:
        return [sample_factors(config.render.seed, "test", int(test.ids[used[n]])) for n in pair]

    for number, pair in enumerate(tqdm(rows, unit="pair", disable=None)):
        factors = factors_of(pair)
        try:
            frames, truly = frames_of_pair(model, codes, pair, factors, config)
        except BadSample:
            left_out.append(number)
            continue
        for name, found in frames.items():
            agreements.setdefault(name, []).extend(found)
        outline.append((effects["shape"].silhouette[number], truly))
    if not outline:
        raise ValueError(f"none of the {pairs} pairs could be rendered; give more")
    if figure is not None:
        colour = np.nan_to_num(effects["appearance"].colour)
        colour[left_out] = -1
        pair = rows[colour.argmax()]
        ways_figure(model, codes, images, pair, factors_of(pair), config).savefig(figure, dpi=150)
    moved, truly = np.median(np.array(outline), axis=0).tolist()
    ratio = moved / truly if truly else float("nan")
    verdicts = [
        *d.measure_leaks(effects),
        d.Leak("shape moves the outline, over what it does in the truth", ratio, SHAPE_BOUND),
    ]
    return {
        "weights": weights_digest(run),
        "pairs": pairs,
        "left out": len(left_out),
        "claims": {
            v.claim: {"ratio": median([v.ratio]), "bound": v.bound, "holds": v.holds} for v in verdicts
        },
        "effects": {
            block: {name: median(values) for name, values in zip(e._fields, e, strict=True)}
            for block, e in effects.items()
        },
        "agreement": {
            name: {
                field: median(values)
                for field, values in zip(d.Agreement._fields, np.array(found, float).T, strict=True)
            }
            for name, found in agreements.items()
        },
    }


def median(values) -> float | None:
    """Of what is a number; None where nothing is, such as the colour of pictures without a hand."""
    known = np.asarray(values, float)
    known = known[np.isfinite(known)]
    return float(np.median(known)) if known.size else None


def main(
    run: Path, data: Path, pairs: int = 100, out: Path | None = None, figure: Path | None = None
) -> None:
    """Measure a run on SynthHand.

    Args:
        run: Folder of a finished run.
        data: Its prepared SynthHand.
        pairs: How many.
        out: JSON to write besides.
        figure: PNG to draw besides: the ways of the pair between which appearance changes the colour most.
    """
    result = measure(run, data, pairs, figure=figure)
    print(json.dumps(result, indent=2))
    if out is not None:
        out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    tyro.cli(main)
