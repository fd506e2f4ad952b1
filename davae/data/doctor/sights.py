"""What goes on the contact sheet: which samples, and what is drawn on each."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from davae.data.doctor.labels import EXACT_PX, reprojection_error_px
from davae.data.doctor.parts import Part
from davae.data.doctor.sampling import Measured
from synthhand.formats.record import BadSample, HandRecord
from synthhand.pinhole import Array, project

WORST = 1 / 3  # of the sheet


@dataclass(frozen=True, eq=False)  # arrays do not compare
class Sight:
    """One picture of the contact sheet, with what is drawn on it.

    Attributes:
        image: (h, w, 3) uint8.
        mask: (h, w) bool pixels of the hand's mask, or those its measured points fall on, or None.
        uv_px: (21, 2) pixels of the joints as labelled.
        projected_px: (21, 2) the 3D joints through K.
        visible: (21,) bool.
        title: folder and file, side where it may be either, and what disagrees.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.bool_] | None
    uv_px: Array
    projected_px: Array
    visible: NDArray[np.bool_]
    title: str


def choose_sights(
    parts: list[Part], looks: list[Measured], count: int, seed: int
) -> list[tuple[Part, int, str]]:
    """Choose samples for the sheet; returns part, sample and what is remarkable about it.

    First those whose labels miss their pixels most, then those whose mask or depth disagrees most; the rest
    is drawn from what was looked at, equally from each split.
    """
    worst: dict[tuple[str, int], tuple[float, Part, int, str]] = {}
    for part in parts:
        if part.hands.uv_px is None or not len(part.hands):
            continue
        hands = part.hands[part.hands.finite()]
        error = reprojection_error_px(hands)
        for row in np.argsort(-np.nan_to_num(error))[:count]:
            if error[row] > EXACT_PX and int(hands.samples[row]) in part.views:
                key = (part.name, int(hands.samples[row]))
                worst.setdefault(key, (100 + error[row], part, key[1], f"off by {error[row]:.0f} px"))
    for look in looks:
        score, words = look.suspicion()
        if score > 0.5:
            worst.setdefault((look.part.name, look.sample), (score, look.part, look.sample, words))
    first = sorted(worst.values(), key=lambda item: -item[0])[: int(count * WORST)]
    chosen = {(part.name, sample): (part, sample, words) for _, part, sample, words in first}
    rng = np.random.default_rng(seed)
    by_split: dict[str, list[Measured]] = {}
    for look in looks:
        if look.bad is None and (look.part.name, look.sample) not in chosen:
            by_split.setdefault(look.part.split, []).append(look)
    piles = [[pile[i] for i in rng.permutation(len(pile))] for pile in by_split.values()]
    while len(chosen) < count and any(piles):
        for pile in piles:
            if pile and len(chosen) < count:
                look = pile.pop()
                chosen[look.part.name, look.sample] = (look.part, look.sample, "")
    return list(chosen.values())


def see(part: Part, sample: int, words: str) -> Sight | None:
    """Decode one sample for the sheet; None if it cannot be read."""
    try:
        record = part.record(sample)
    except BadSample:
        return None
    mask = record.hand_mask if record.hand_mask is not None else _measured_pixels(record)
    with np.errstate(divide="ignore", invalid="ignore"):
        projected = project(record.joints_mm, record.K)
    title = f"{part.name.split()[0]}/{part.image_path(sample).stem}"
    if part.hands.left.any() and not part.hands.left.all():
        title += f", {record.side}"
    if words:
        title += f": {words}"
    return Sight(record.image, mask, record.uv_px.astype(np.float64), projected, record.visible, title)


def _measured_pixels(record: HandRecord) -> NDArray[np.bool_] | None:
    """Mark the pixels (h, w) that measured points fall on."""
    if record.points_mm is None:
        return None
    height, width = record.image.shape[:2]
    u, v = np.rint(project(record.points_mm, record.K)).astype(int).T
    inside = (u >= 0) & (u < width) & (v >= 0) & (v < height)
    mask = np.zeros((height + 2, width + 2), bool)
    for down in range(3):  # each point with its neighbours, since two cameras' pixels leave gaps
        for right in range(3):
            mask[v[inside] + down, u[inside] + right] = True
    return mask[1:-1, 1:-1]
