"""Rendered SynthHand hands with one group of factors held or exchanged, and their codes."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from davae.config import BLOCKS
from davae.data.augment import stack_rows
from davae.data.prepared import PreparedSplit
from davae.latent.blend import blend, read_factors, render_row
from davae.latent.codes import Code
from davae.latent.reading import Reader, Reading, concatenate
from synthhand.formats.record import BadSample

OWN_GROUP = {block: block for block in BLOCKS}  # block -> the group of factors that it should hold
HeldReading = dict[str, Reading]  # group -> readings (a * l, z) of a held values, l images of each


def read_held(
    reader: Reader,
    split: PreparedSplit,
    rows: NDArray[np.int64],
    *,
    values: int,
    images: int,
    seed: int = 0,
    progress: bool = False,
) -> HeldReading:
    """Render hands in which one group of factors is held and all else is another sample's; encode them.

    Pose is held as `davae.latent.blend.blend` moves it: the hand shows the viewer the same side.

    Args:
        reader: of the codes.
        split: of SynthHand.
        rows: (n,) samples whose factors are used.
        values: at which each group is held.
        images: of each value.
        seed: of the choice.
        progress: show a progress bar.
    """
    flat, rng = dict(split.factors), np.random.default_rng(seed)
    found = {}
    total = len(OWN_GROUP) * values * images
    with tqdm(total=total, desc="interventions", unit="hand", disable=not progress) as bar:
        for group in OWN_GROUP.values():
            parts = []
            for _ in range(values):
                held = read_factors(flat, rng.choice(rows))
                some: list[dict[str, NDArray]] = []
                while len(some) < images:
                    other = read_factors(flat, rng.choice(rows))
                    try:
                        some.append(render_row(blend(other, held, group, 1.0), reader.data))
                    except BadSample:  # no joint is visible in that place: draw another
                        continue
                    bar.update()
                parts.append(reader.read(stack_rows(some, reader.data.crop)))
            found[group] = concatenate(parts)
    return found


def shape_held(codes: Mapping[str, Code], images: int) -> dict[str, dict[str, NDArray]]:
    """Return codes (a * l, z) of held groups as `davae.latent.interventions` takes them, (a, l, z)."""
    return {
        group: {block: z.numpy().reshape(-1, images, z.shape[1]) for block, z in code.items()}
        for group, code in codes.items()
    }
