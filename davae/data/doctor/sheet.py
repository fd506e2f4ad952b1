"""The tiles of the contact sheet: which samples are shown, and what is drawn on each."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from davae.data.doctor.labels import EXACT_PX, reprojection_error_px
from davae.data.doctor.measurements import Measurement
from davae.data.doctor.parts import Part
from synthhand.formats.record import BadSample, HandRecord
from synthhand.pinhole import Array, project

WORST = 1 / 3  # share of the sheet for the worst samples
SUSPECT = 0.5  # suspicion from which a sample counts among the worst


@dataclass(frozen=True, eq=False)  # arrays do not compare
class Tile:
    """One picture of the contact sheet, and what is drawn on it.

    Attributes:
        image: (h, w, 3) uint8.
        mask: (h, w) bool, the hand's mask or, without one, the pixels of its measured points; or None.
        uv_px: (21, 2) labelled pixels of the joints.
        projected_px: (21, 2) the 3D joints through K.
        visible: (21,) bool.
        title: folder and file, side if both occur, and what disagrees.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.bool_] | None
    uv_px: Array
    projected_px: Array
    visible: NDArray[np.bool_]
    title: str


def choose_samples(
    parts: list[Part], measured: list[Measurement], count: int, seed: int
) -> list[tuple[Part, int, str]]:
    """Choose samples for the sheet; return part, id and remark of each.

    The worst come first: those whose labels are furthest from their pixels, then those whose mask or depth
    disagrees most. The rest is drawn from the decoded samples, equally from each split.
    """
    worst: dict[tuple[str, int], tuple[float, Part, int, str]] = {}
    for part in parts:
        if part.hands.uv_px is None or not len(part.hands):
            continue
        hands = part.hands[part.hands.are_finite()]
        error = reprojection_error_px(hands)
        for row in np.argsort(-np.nan_to_num(error))[:count]:
            if error[row] > EXACT_PX and int(hands.samples[row]) in part.readers:
                key = (part.name, int(hands.samples[row]))
                worst.setdefault(key, (100 + error[row], part, key[1], f"off by {error[row]:.0f} px"))
    for m in measured:
        score, words = m.suspicion()
        if score > SUSPECT:
            worst.setdefault((m.part.name, m.sample), (score, m.part, m.sample, words))
    first = sorted(worst.values(), key=lambda item: -item[0])[: int(count * WORST)]
    chosen = {(part.name, sample): (part, sample, words) for _, part, sample, words in first}
    rng = np.random.default_rng(seed)
    by_split: dict[str, list[Measurement]] = {}
    for m in measured:
        if m.bad is None and (m.part.name, m.sample) not in chosen:
            by_split.setdefault(m.part.split, []).append(m)
    piles = [[pile[i] for i in rng.permutation(len(pile))] for pile in by_split.values()]
    while len(chosen) < count and any(piles):
        for pile in piles:
            if pile and len(chosen) < count:
                m = pile.pop()
                chosen[m.part.name, m.sample] = (m.part, m.sample, "")
    return list(chosen.values())


def make_tile(part: Part, sample: int, remark: str) -> Tile | None:
    """Decode one sample for the sheet; return None if it cannot be read."""
    try:
        record = part.record(sample)
    except BadSample:
        return None
    mask = record.hand_mask if record.hand_mask is not None else _mark_points(record)
    with np.errstate(divide="ignore", invalid="ignore"):
        projected = project(record.joints_mm, record.K)
    title = f"{part.name.split()[0]}/{part.image_path(sample).stem}"
    if part.has_both_sides:
        title += f", {record.side}"
    if remark:
        title += f": {remark}"
    return Tile(record.image, mask, record.uv_px.astype(np.float64), projected, record.visible, title)


def _mark_points(record: HandRecord) -> NDArray[np.bool_] | None:
    """Mark the pixels (h, w) of measured points and their neighbours; return None without points."""
    if record.points_mm is None:
        return None
    height, width = record.image.shape[:2]
    u, v = np.rint(project(record.points_mm, record.K)).astype(int).T
    inside = (u >= 0) & (u < width) & (v >= 0) & (v < height)
    mask = np.zeros((height + 2, width + 2), bool)
    for down in range(3):  # neighbours fill the gaps between the pixels of two cameras
        for right in range(3):
            mask[v[inside] + down, u[inside] + right] = True
    return mask[1:-1, 1:-1]
