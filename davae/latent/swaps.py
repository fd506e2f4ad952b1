"""Swap test: each block of a code is exchanged with another hand's; the decoding is compared with the truth.

The truth is rendered: the same hand with the group of factors of the other. Each measure stands between a
floor, the plain reconstruction of hands against their pictures, and a ceiling, the same decoding against the
opposite exchange, in which everything has the wrong owner.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm.auto import tqdm

from davae.config import BLOCKS, DataConfig
from davae.data.prepared import PreparedSplit
from davae.data.sample import row_layout
from davae.latent.blend import Frame, blend, read_factors, render_frame, to_frame
from davae.latent.codes import Code, combine
from davae.latent.disentanglement import measure_agreement, see_joints
from davae.latent.prediction import mean_score
from davae.latent.rendered import OWN_GROUP
from davae.networks import DaVAE
from davae.training.threads import single_threaded
from synthhand.formats.record import BadSample

MEASURES = ("joints_mm", "colour", "outline", "chamfer_mm")

Errors = NDArray[np.float64]  # (4,) in the order of MEASURES


class Swap(NamedTuple):
    """Errors (n, 4) of n swaps of one block, in the order of MEASURES.

    joints_mm: mean distance of the joints that the encoder sees in the decoded picture from the true ones.
    colour: difference of the hands' mean colours, mean over channels, 0 to 255. outline: 1 - IoU of the
    silhouettes. chamfer_mm: of the decoded cloud. Joints, colour and outline are NaN without a decoded hand.
    """

    errors: Errors  # against the hand of exchanged factors
    floor: Errors  # plain reconstruction, against the hand's own picture
    ceiling: Errors  # against the hand of the opposite exchange


class Example(NamedTuple):
    """A hand, and what each block of another hand's code makes of it: "start", a block, "end" -> picture."""

    decoded: dict[str, Tensor]  # (3, h, w)
    truth: dict[str, Tensor]  # (3, h, w)


class Pair(NamedTuple):
    """Two hands, and the rendered truth of exchanging each group between them."""

    places: tuple[int, int]  # of both hands, among the codes
    hands: tuple[Frame, Frame]
    exchanged: dict[str, tuple[Frame, Frame]]  # block -> each hand with the group of the other


def render_pairs(
    split: PreparedSplit, rows: NDArray[np.int64], data: DataConfig, *, progress: bool = False
) -> list[Pair]:
    """Render the exchanges between hands of SynthHand.

    Args:
        split: prepared for `data`.
        rows: (2 p,) samples; each two consecutive ones are a pair.
        data: crop and sizes.
        progress: show a progress bar.

    Returns:
        Up to p pairs: one that would show a hand without any visible joint is left out.
    """
    flat, found = dict(split.factors), []
    for first in tqdm(range(0, len(rows) - 1, 2), "swaps", unit="pair", disable=not progress):
        a, b = (read_factors(flat, rows[first + k]) for k in (0, 1))
        try:
            exchanged = {
                block: (
                    render_frame(blend(a, b, group, 1.0), data),
                    render_frame(blend(b, a, group, 1.0), data),
                )
                for block, group in OWN_GROUP.items()
            }
        except BadSample:
            continue
        one, other = (_stored(split, rows[first + k], data) for k in (0, 1))
        found.append(Pair((first, first + 1), (one, other), exchanged))
    return found


def _stored(split: PreparedSplit, row: int, data: DataConfig) -> Frame:
    return to_frame({name: np.array(getattr(split, name)[row]) for name in row_layout(data)}, data)


@single_threaded()
@torch.inference_mode()
def measure_swaps(model: DaVAE, code: Code, pairs: list[Pair]) -> dict[str, Swap]:
    """Exchange each block between the hands of pairs, in both directions.

    Args:
        model: in evaluation mode.
        code: block -> (n, z), the codes that `Pair.places` refers to.
        pairs: p of them.

    Returns:
        Block -> its 2 p swaps.
    """
    results: dict[str, list[tuple[Errors, Errors, Errors]]] = {block: [] for block in BLOCKS}
    for pair in pairs:
        for own, other in ((0, 1), (1, 0)):
            start, end = (_take(code, pair.places[k]) for k in (own, other))
            floor = _measure(model, start, pair.hands[own])
            for block, truth in pair.exchanged.items():
                swapped = combine(dict.fromkeys(BLOCKS, start) | {block: end})
                errors, ceiling = (_measure(model, swapped, truth[k]) for k in (own, other))
                results[block].append((errors, floor, ceiling))
    return {
        block: Swap(*np.array(rows).reshape(-1, 3, 4).transpose(1, 0, 2)) for block, rows in results.items()
    }


def _take(code: Code, place: int) -> Code:
    return {block: z[place : place + 1] for block, z in code.items()}


def _measure(model: DaVAE, code: Code, truth: Frame) -> Errors:
    decoded = model.decode(code)
    agreement = measure_agreement(decoded.image[0], decoded.cloud[0], truth)
    seen = see_joints(model, decoded.image)[0]
    joints_mm = torch.linalg.vector_norm(seen - truth.joints, dim=1).mean().item() * truth.scale_mm
    return np.array([joints_mm, agreement.colour, 1 - agreement.iou, agreement.chamfer_mm])


@single_threaded()
@torch.inference_mode()
def show_swaps(model: DaVAE, code: Code, pairs: list[Pair]) -> list[Example]:
    """Return the pictures of exchanges from the first hand of each pair to the second."""
    found = []
    for pair in pairs:
        start, end = (_take(code, place) for place in pair.places)
        codes = {"start": start, "end": end}
        codes |= {block: combine(dict.fromkeys(BLOCKS, start) | {block: end}) for block in BLOCKS}
        truths = {"start": pair.hands[0], "end": pair.hands[1]}
        truths |= {block: frames[0] for block, frames in pair.exchanged.items()}
        decoded = {name: model.decode(one).image[0] for name, one in codes.items()}
        found.append(Example(decoded, {name: frame.image for name, frame in truths.items()}))
    return found


def summarise_swaps(swaps: dict[str, Swap]) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Return block -> measure -> errors, floor, ceiling -> [mean, low, high] over swaps."""
    return {
        block: {
            measure: {name: list(mean_score(rows[:, k])) for name, rows in swap._asdict().items()}
            for k, measure in enumerate(MEASURES)
        }
        for block, swap in swaps.items()
    }
