"""Rendered SynthHand hands with one group of factors held or exchanged, and their codes."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from davae.config import BLOCKS, DataConfig
from davae.data.augment import RawBatch, stack_rows
from davae.data.prepared import PreparedSplit
from davae.latent.blend import blend, read_factors, render_row
from davae.latent.codes import Code
from davae.latent.reading import Reader, Reading, concatenate
from synthhand.formats.record import BadSample

OWN_GROUP = {block: block for block in BLOCKS}  # block -> the group of factors that it should hold
HeldImages = dict[str, list[RawBatch]]  # group -> one batch of images for each value at which it is held
HeldReading = dict[str, Reading]  # group -> readings (a * l, z) of a held values, l images of each


def render_held(
    split: PreparedSplit,
    rows: NDArray[np.int64],
    data: DataConfig,
    *,
    values: int,
    images: int,
    seed: int = 0,
    progress: bool = False,
) -> HeldImages:
    """Render hands in which one group of factors is held and all else is another sample's.

    Pose is held as `davae.latent.blend.blend` moves it: the hand shows the viewer the same side.

    Args:
        split: of SynthHand.
        rows: (n,) samples whose factors are used.
        data: crop and sizes.
        values: at which each group is held.
        images: of each value.
        seed: of the choice.
        progress: show a progress bar.
    """
    flat, rng = dict(split.factors), np.random.default_rng(seed)
    found: HeldImages = {group: [] for group in OWN_GROUP.values()}
    total = len(OWN_GROUP) * values * images
    with tqdm(total=total, desc="interventions", unit="hand", disable=not progress) as bar:
        for group in OWN_GROUP.values():
            for _ in range(values):
                held = read_factors(flat, rng.choice(rows))
                some: list[dict[str, NDArray]] = []
                while len(some) < images:
                    other = read_factors(flat, rng.choice(rows))
                    try:
                        some.append(render_row(blend(other, held, group, 1.0), data))
                    except BadSample:  # no joint is visible in that place: draw another
                        continue
                    bar.update()
                found[group].append(stack_rows(some, data.crop))
    return found


def read_held(reader: Reader, held: HeldImages) -> HeldReading:
    """Encode what `render_held` returns, as any number of networks of the same crop may."""
    return {group: concatenate([reader.read(raw) for raw in raws]) for group, raws in held.items()}


def shape_held(codes: Mapping[str, Code], images: int) -> dict[str, dict[str, NDArray]]:
    """Return codes (a * l, z) of held groups as `davae.latent.interventions` takes them, (a, l, z)."""
    return {
        group: {block: z.numpy().reshape(-1, images, z.shape[1]) for block, z in code.items()}
        for group, code in codes.items()
    }
