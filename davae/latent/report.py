"""The report of `davae latent-report`: what the blocks of a code hold, measured on prepared data.

    n, dataset, split, data, mask, seed, weights
    blocks.B              dimensions, kl (nats: the rate it pays), kl_per_dim, active_units
    prediction.C.K.B.G    `r2` [R², low, high] of group G from block B (or "all") on held-out images, and
                          `shuffled`, the same with the truth of other images
    importance.C.K        blocks, groups, matrix, informativeness; disentanglement and completeness, each with
                          its `floor`, that of a rotated and so wholly entangled code
    dependence.C          hsic and total_correlation (nats) of each pair of blocks: value, shuffled, p
    interventions.C       votes and robustness (blocks x groups); accuracy and chance of FactorVAE's metric
    pictures              of hands decoded from means; `other` is the same against another hand's picture
    swaps.B.M             errors, floor, ceiling: [mean, low, high]

C is "means" or "samples" of the posterior, K is "linear" (ridge) or "rbf" (kernel ridge). Dimensions that say
nothing have means of hardly any spread, which still follow the picture; only samples show what arrives. The
last four need SynthHand's renderer; `absent` gives the reason where they are not measured. Intervals are 95 %
bootstrap intervals over images.
"""

import dataclasses
import math
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm.auto import tqdm

from davae.config import BLOCKS
from davae.data.augment import centre, load_batch
from davae.data.prepared import PreparedSplit
from davae.evaluation.report import measure_rate
from davae.latent.codes import Code
from davae.latent.dependence import Dependence, measure_hsic, total_correlation
from davae.latent.importance import entangled_floor, measure_importance
from davae.latent.interventions import measure_robustness, measure_votes
from davae.latent.pictures import PictureScores, score_pictures, summarise_pictures
from davae.latent.prediction import KERNELS, Kernel, cross_predict, explained
from davae.latent.reading import BATCH, Reader, Reading
from davae.latent.rendered import read_held, render_held, shape_held
from davae.latent.swaps import Example, measure_swaps, render_pairs, show_swaps, summarise_swaps
from davae.latent.targets import ASPECTS, Target, read_targets
from davae.training.threads import single_threaded

EXAMPLES = 2  # pairs whose pictures are returned
LEAST = 30  # images; with fewer, regressions say nothing


class Findings(NamedTuple):
    """The report, and pictures for its figure."""

    measured: dict[str, Any]
    examples: list[Example]


def measure_latent(
    reader: Reader,
    split: PreparedSplit,
    *,
    samples: int = 1000,
    swap_pairs: int = 50,
    held_values: int = 20,
    held_images: int = 8,
    seed: int = 0,
    progress: bool = True,
) -> Findings:
    """Measure what the blocks of a code hold.

    Args:
        reader: of the codes.
        split: held-out data.
        samples: number of images; all, if there are fewer.
        swap_pairs: number of pairs of hands that exchange blocks, at most half of `samples`.
        held_values: values at which each group of factors is held by intervention.
        held_images: images of each.
        seed: of the choice of images, of draws and of resampling.
        progress: show progress bars.

    Raises:
        ValueError: there are fewer than 30 images.
    """
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(split))[:samples]
    if len(rows) < LEAST:
        raise ValueError(f"{split.name}: {len(rows)} images; a latent report needs at least {LEAST}")
    reading = reader.read_rows(split, rows, progress=progress)
    codes = {"means": reading.means, "samples": reading.sample(seed)}
    targets = read_targets(split, rows)
    aspects = {name: targets[name] for name in ASPECTS if name in targets}
    measured: dict[str, Any] = {
        "n": len(rows),
        "dataset": split.manifest["dataset"],
        "split": split.name,
        "data": split.manifest["digest"],
        "mask": reader.data.mask,
        "seed": seed,
        "divided": reader.model.config.divided,
        "blocks": {
            block: {"dimensions": reading.means[block].shape[1]}
            | measure_rate(reading.means[block].numpy(), reading.logvars[block].numpy())
            for block in BLOCKS
        },
        "prediction": _predict(codes, targets, seed, progress),
        "importance": {name: _weigh(code, aspects, seed) for name, code in codes.items()},
        "dependence": {name: _compare(code, seed) for name, code in codes.items()},
    }
    measured["pictures"] = _draw(reader, split, rows, reading)
    if not split.factors:
        absent = {"absent": "this dataset does not record the factors from which hands are rendered"}
        return Findings(measured | {"interventions": absent, "swaps": absent}, [])
    images = render_held(
        split, rows, reader.data, values=held_values, images=held_images, seed=seed, progress=progress
    )
    held = read_held(reader, images)
    held_codes = {
        "means": {group: one.means for group, one in held.items()},
        "samples": {group: one.sample(seed + 1) for group, one in held.items()},
    }
    measured["interventions"] = {
        name: _intervene(held_codes[name], code, held_images) for name, code in codes.items()
    }
    pairs = render_pairs(split, rows[: 2 * swap_pairs], reader.data, progress=progress)
    measured["swaps"] = summarise_swaps(measure_swaps(reader.model, reading.means, pairs))
    return Findings(measured, show_swaps(reader.model, reading.means, pairs[:EXAMPLES]))


def _numpy(code: Code) -> dict[str, NDArray]:
    return {block: z.double().numpy() for block, z in code.items()}


def _predict(codes: dict[str, Code], targets: dict[str, Target], seed: int, progress: bool) -> dict[str, Any]:
    """Cross-predict every group, and every group with shuffled rows, from each block and from all of them."""
    stacked = np.concatenate([target.values for target in targets.values()], axis=1)
    shuffled = stacked[np.random.default_rng(seed + 1).permutation(len(stacked))]
    both = np.concatenate([stacked, shuffled], axis=1)
    ends = np.cumsum([target.values.shape[1] for target in targets.values()])
    found: dict[str, Any] = {}
    with tqdm(
        total=len(codes) * len(KERNELS) * (len(BLOCKS) + 1), desc="prediction", disable=not progress
    ) as bar:
        for name, code in codes.items():
            blocks = _numpy(code)
            blocks["all"] = np.concatenate(list(blocks.values()), axis=1)
            for kernel in KERNELS:
                for block, z in blocks.items():
                    predicted = cross_predict(z, both, kernel, seed=seed)
                    cells = found.setdefault(name, {}).setdefault(kernel, {}).setdefault(block, {})
                    for (group, target), end in zip(targets.items(), ends, strict=True):
                        own = np.arange(end - target.values.shape[1], end)
                        score = explained(target.values, predicted[:, own], pooled=target.pooled, seed=seed)
                        control = own + stacked.shape[1]
                        chance = explained(
                            both[:, control], predicted[:, control], pooled=target.pooled, resamples=1
                        )
                        cells[group] = {"r2": list(score), "shuffled": chance.value}
                    bar.update()
    return found


def _weigh(code: Code, aspects: dict[str, Target], seed: int) -> dict[str, Any]:
    groups = {name: target.values for name, target in aspects.items()}
    found: dict[str, Any] = {}
    kernel: Kernel
    for kernel in KERNELS:
        importance = measure_importance(_numpy(code), groups, kernel, seed=seed)
        floors = entangled_floor(_numpy(code), groups, kernel, seed=seed)
        found[kernel] = {
            "importance": "permutation of a block",
            "groups": list(groups),
            "matrix": importance.matrix.tolist(),
            "informativeness": importance.informativeness.tolist(),
            "disentanglement": importance.disentanglement,
            "disentanglement_floor": floors[0],
            "completeness": importance.completeness,
            "completeness_floor": floors[1],
        }
    return found


def _compare(code: Code, seed: int) -> dict[str, Any]:
    blocks = _numpy(code)
    found: dict[str, dict[str, Dependence]] = {"hsic": {}, "total_correlation": {}}
    for a, b in combinations(BLOCKS, 2):
        found["hsic"][f"{a}, {b}"] = measure_hsic(blocks[a], blocks[b], seed=seed)
        found["total_correlation"][f"{a}, {b}"] = total_correlation([blocks[a], blocks[b]], seed=seed)
    found["total_correlation"]["all"] = total_correlation(list(blocks.values()), seed=seed)
    return {name: {pair: one._asdict() for pair, one in pairs.items()} for name, pairs in found.items()}


def _intervene(held: dict[str, Code], code: Code, images: int) -> dict[str, Any]:
    arrays, reference = shape_held(held, images), _numpy(code)
    votes = measure_votes(arrays, reference)
    return {
        "groups": list(arrays),
        "votes": votes.matrix.tolist(),
        "accuracy": votes.accuracy,
        "chance": votes.chance,
        "robustness": measure_robustness(arrays, reference).tolist(),
    }


@single_threaded()
@torch.inference_mode()
def _draw(reader: Reader, split: PreparedSplit, rows: NDArray[np.int64], reading: Reading) -> dict[str, Any]:
    """Measure the pictures decoded from means against their own and against their neighbour's truth."""
    if not split.has_mask[rows].all():
        return {"absent": "this dataset has no true masks"}
    own, other = [], []
    data = dataclasses.replace(reader.data, mask="none")  # targets do not depend on the mask of the input
    for start in range(0, len(rows), BATCH):
        part = slice(start, start + BATCH)
        batch = centre(load_batch(split, rows[part]), data)
        found = reader.model.decode({block: z[part] for block, z in reading.means.items()})
        hand = batch.mask[:, 0] > 0.5
        drawn = None if found.mask is None else found.mask[:, 0] > 0.5
        own.append(score_pictures(found.image, batch.target, hand, drawn))
        drawn = None if drawn is None else drawn.roll(1, 0)
        other.append(score_pictures(found.image.roll(1, 0), batch.target, hand, drawn))

    def summarise(parts: list[PictureScores]) -> dict[str, list[float]]:
        joined = PictureScores(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))
        return {name: list(score) for name, score in summarise_pictures(joined).items()}

    return {**summarise(own), "other": summarise(other)}


def to_plain(measured: Any) -> Any:
    """Return a report for JSON: numbers that are not finite (nothing varied, or copies) become None."""
    if isinstance(measured, dict):
        return {name: to_plain(value) for name, value in measured.items()}
    if isinstance(measured, list | tuple):
        return [to_plain(value) for value in measured]
    return None if isinstance(measured, float) and not math.isfinite(measured) else measured
