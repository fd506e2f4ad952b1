"""Decode samples and measure, for each, how picture, mask, depth and labels agree."""

import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from davae.data.doctor.parts import Part
from davae.data.sample import CLOUD_REACH_MM
from synthhand.formats.record import BadSample, HandRecord
from synthhand.formats.rhd import LEFT_IDS, RIGHT_IDS
from synthhand.pinhole import Array, depth_to_points, project
from synthhand.skeleton import JOINTS, ROOT

# A joint lies inside the flesh, so the surface measured at its pixel is this much nearer. The range is wide
# because labels of photographs are less exact than those of rendered hands.
BEHIND_MM = (-20.0, 60.0)
ENOUGH = 4  # joints needed to judge a sample
MISSED_SHARE = 0.5  # a sample is suspect if fewer of its joints than this fit the mask or the depth
POINT_REACH_PX = 4.0  # around a joint's pixel, if depth is given as points of another camera


def _nothing() -> Array:
    return np.full(JOINTS, np.nan)


@dataclass(frozen=True, eq=False)  # arrays do not compare
class Measurement:
    """What was measured on one decoded sample; NaN for joints on which nothing was measured.

    Attributes:
        part: the sample's part.
        sample: its id.
        bad: why it could not be read, or None.
        visible: number of joints labelled visible.
        mask_pixels: number of the hand's pixels; None if there is no mask.
        cloud_points: number of measured points of the hand; None if there is no depth.
        has_depth: whether there is depth, as a picture or as points.
        on_mask: (21,) 1 if a visible joint's pixel is the hand's, 0 if not.
        behind_mm: (21,) how far a visible joint lies behind the surface measured at its pixel.
        behind_swapped_mm: (21,) the same if the depth file had its two bytes the other way round.
        votes: number of visible joints on part ids of their own hand, and of the other hand.
        mask_spread: (4,) mean u, v and standard deviation of u, v of the hand's pixels.
        joint_spread: (4,) the same of the projected joints.
    """

    part: Part
    sample: int
    bad: str | None = None
    visible: int = 0
    mask_pixels: int | None = None
    cloud_points: int | None = None
    has_depth: bool = False
    on_mask: Array = field(default_factory=_nothing)
    behind_mm: Array = field(default_factory=_nothing)
    behind_swapped_mm: Array = field(default_factory=_nothing)
    votes: tuple[int, int] = (0, 0)
    mask_spread: Array | None = None
    joint_spread: Array | None = None

    @property
    def name(self) -> str:
        """The sample's picture."""
        return str(self.part.image_path(self.sample))

    @property
    def depth_name(self) -> str:
        """The sample's depth file."""
        return str(self.part.depth_path(self.sample)) if self.part.depth_path else ""

    @property
    def tells_side(self) -> bool:
        """Whether enough joints lie on part ids to tell the side by them."""
        return sum(self.votes) >= ENOUGH

    @property
    def looks_swapped(self) -> bool:
        """Whether more joints lie on part ids of the other hand than on those of their own."""
        return self.tells_side and self.votes[1] > self.votes[0]

    @property
    def mask_share(self) -> float:
        """The share of visible joints on the hand's mask; NaN if it is empty or too few are visible."""
        if not self.mask_pixels or np.isfinite(self.on_mask).sum() < ENOUGH:
            return math.nan
        return float(np.nanmean(self.on_mask))

    def suspicion(self) -> tuple[float, str]:
        """Return how strongly mask, depth and side contradict the labels (0: not), and which does most."""
        shares = {"mask": self.mask_share, "depth": depth_share(self.behind_mm)}
        against = {name: 1 - share for name, share in shares.items() if not math.isnan(share)}
        if self.looks_swapped:
            against["side"] = 1.0
        worst = max(against, key=lambda name: against[name], default="")
        return sum(against.values()), f"{worst} off"


def depth_share(behind_mm: Array) -> float:
    """Return the share of joints (21,) at a plausible depth below the surface; NaN for too few."""
    seen = behind_mm[np.isfinite(behind_mm)]
    if len(seen) < ENOUGH:
        return math.nan
    return float(((seen > BEHIND_MM[0]) & (seen < BEHIND_MM[1])).mean())


def draw_samples(parts: list[Part], count: int | None, seed: int) -> list[tuple[Part, int]]:
    """Draw about `count` samples, from each part in proportion to its size; None takes all."""
    total = sum(len(part.readers) for part in parts)
    drawn = []
    for part in parts:
        ids = np.array(sorted(part.readers), np.int64)
        if count is not None and count < total:
            own = min(len(ids), max(1, round(count * len(ids) / total)))
            rng = np.random.default_rng([seed, len(ids), sum(map(ord, part.name))])
            ids = np.sort(rng.choice(ids, own, replace=False)) if len(ids) else ids
        drawn += [(part, int(sample)) for sample in ids]
    return drawn


def measure_all(samples: list[tuple[Part, int]], progress: bool = True) -> list[Measurement]:
    """Decode and measure samples, several at a time."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # decoding a PNG needs no interpreter lock
        measured = pool.map(lambda item: measure(*item), samples)
        return list(tqdm(measured, total=len(samples), desc="pictures", unit="sample", disable=not progress))


def measure(part: Part, sample: int) -> Measurement:
    """Decode one sample and measure it."""
    try:
        record = part.record(sample)
        part_ids = None if part.read_part_ids is None else part.read_part_ids(sample)
        swapped = None if part.swap_depth is None else part.swap_depth(record)
    except BadSample as error:
        return Measurement(part, sample, bad=str(error))
    in_frame, pixels = _locate_joints(record)
    measured: dict[str, Any] = {
        "visible": int(record.visible.sum()),
        "cloud_points": _count_cloud_points(record),
        "has_depth": record.depth_mm is not None or record.points_mm is not None,
        "behind_mm": _measure_behind(record, in_frame, pixels),
    }
    if record.hand_mask is not None:
        rows, columns = np.nonzero(record.hand_mask)
        measured["mask_pixels"] = len(rows)
        measured["on_mask"] = np.where(in_frame, record.hand_mask[pixels[:, 1], pixels[:, 0]], np.nan)
        if len(rows):
            measured["mask_spread"] = _measure_spread(np.stack([columns, rows], axis=1))
            measured["joint_spread"] = _measure_spread(project(record.joints_mm, record.K))
    if swapped is not None:
        measured["behind_swapped_mm"] = _measure_behind(swapped, in_frame, pixels)
    if part_ids is not None:
        measured["votes"] = _count_votes(part, sample, part_ids)
    return Measurement(part, sample, **measured)


def _locate_joints(record: HandRecord) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Return which joints (21,) are visible in the picture, and all pixels (21, 2), clipped to it."""
    height, width = record.image.shape[:2]
    near = np.clip(np.rint(record.uv_px), -1, max(height, width)).astype(np.int64)
    inside = ((near >= 0) & (near < [width, height])).all(1)
    return inside & record.visible, np.clip(near, 0, [width - 1, height - 1])


def _measure_spread(points: NDArray) -> Array:
    return np.concatenate([points.mean(0), points.std(0)])


def _count_cloud_points(record: HandRecord) -> int | None:
    """Count the measured points that `davae.data.sample` would take for the hand's."""
    if record.points_mm is not None:
        points: NDArray = record.points_mm
    elif record.depth_mm is not None and record.hand_mask is not None:
        points = depth_to_points(record.depth_mm, record.hand_mask, record.K)
    else:
        return None
    return int((np.abs(points - record.joints_mm[ROOT]) < CLOUD_REACH_MM).all(axis=1).sum())


def _measure_behind(record: HandRecord, in_frame: NDArray[np.bool_], pixels: NDArray[np.int64]) -> Array:
    """Return how far joints (21,) lie behind the surface measured at their pixels; NaN where it was not."""
    surface_mm = _nothing()
    if record.depth_mm is not None:
        surface_mm = record.depth_mm[pixels[:, 1], pixels[:, 0]].astype(np.float64)
        surface_mm[surface_mm <= 0] = np.nan
    elif record.points_mm is not None and len(record.points_mm):
        at = project(record.points_mm, record.K)
        for joint in np.flatnonzero(in_frame):
            near = (np.abs(at - record.uv_px[joint]) <= POINT_REACH_PX).all(1)
            if near.any():
                surface_mm[joint] = record.points_mm[near, 2].min()
    return np.where(in_frame, record.joints_mm[:, 2] - surface_mm, np.nan)


def _count_votes(part: Part, sample: int, ids: NDArray[np.uint8]) -> tuple[int, int]:
    """Count the visible joints of both hands on part ids (h, w) of their own hand, and of the other."""
    own = other = 0
    height, width = ids.shape
    hands = part.hands
    if hands.uv_px is None:
        return own, other
    for row in np.flatnonzero(hands.samples == sample):
        seen = hands.visible[row] & np.isfinite(hands.uv_px[row]).all(1)
        u, v = np.rint(hands.uv_px[row][seen]).T
        inside = (u >= 0) & (u < width) & (v >= 0) & (v < height)
        found = ids[v[inside].astype(int), u[inside].astype(int)]
        left, right = ((found >= low) & (found <= high) for low, high in (LEFT_IDS, RIGHT_IDS))
        mine, others = (left, right) if hands.left[row] else (right, left)
        own, other = own + int(mine.sum()), other + int(others.sum())
    return own, other
