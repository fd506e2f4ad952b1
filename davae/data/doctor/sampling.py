"""Decode samples, many at a time, and measure how picture, mask, depth and labels of each agree."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from davae.data.doctor.parts import Part
from davae.data.sample import CLOUD_REACH_MM
from synthhand.formats.record import BadSample, HandRecord
from synthhand.formats.rhd import LEFT_IDS, RIGHT_IDS
from synthhand.pinhole import Array, depth_to_points, project
from synthhand.skeleton import JOINTS

# A joint lies inside the flesh: about so far behind the surface that is measured at its pixel. Labels of
# photographs are less exact than rendered ones.
BEHIND_MM = (-20.0, 60.0)
ENOUGH = 4  # joints that a verdict on one sample needs
MISSED_SHARE = 0.5  # of its joints; a sample of which more miss mask or depth is a suspect
POINT_REACH_PX = 4.0  # around a joint's pixel, where depth comes as points from another camera


@dataclass(frozen=True, eq=False)  # arrays do not compare
class Measured:
    """What one decoded sample tells; fields that its dataset has no files for are None or NaN.

    Attributes:
        part: it belongs to.
        sample: its id.
        bad: why it could not be read, or None.
        visible: number of joints labelled visible.
        mask_pixels: of the hand.
        cloud_points: measured points of the hand; also None if this sample's depth is not there.
        on_mask: (21,) 1 where a visible joint's pixel is the hand's, 0 where not, NaN if not seen.
        behind_mm: (21,) how far a visible joint lies behind the measured surface at its pixel, or NaN.
        behind_swapped_mm: the same, had the depth file its two bytes the other way round.
        votes: visible joints on pixels of their own hand and of the other, by part ids.
        mask_spread: (4,) mean u, v and spread of u, v of the hand's pixels.
        joint_spread: (4,) the same of the projected joints.
    """

    part: Part
    sample: int
    bad: str | None = None
    visible: int = 0
    mask_pixels: int | None = None
    cloud_points: int | None = None
    on_mask: Array | None = None
    behind_mm: Array | None = None
    behind_swapped_mm: Array | None = None
    votes: tuple[int, int] | None = None
    mask_spread: Array | None = None
    joint_spread: Array | None = None

    @property
    def name(self) -> str:
        """The sample's picture."""
        return str(self.part.image_path(self.sample))

    @property
    def depth_name(self) -> str:
        """The sample's depth file."""
        return str(self.part.depth_path(self.sample))

    @property
    def decided(self) -> bool:
        """Whether enough joints lie on part ids to tell sides by them."""
        return self.votes is not None and sum(self.votes) >= ENOUGH

    @property
    def mask_share(self) -> float | None:
        """The share of visible joints on the hand's mask; None if it is empty or too few joints tell."""
        if not self.mask_pixels or np.isfinite(self.on_mask).sum() < ENOUGH:
            return None
        return float(np.nanmean(self.on_mask))

    def suspicion(self) -> tuple[float, str]:
        """Return how far mask, depth and side speak against the labels, and which of them most; 0 if none."""
        shares = {"mask": self.mask_share, "depth": fitting_share(self.behind_mm)}
        against = {name: 1 - share for name, share in shares.items() if share is not None}
        if self.decided and self.votes[1] > self.votes[0]:
            against["side"] = 1.0
        worst = max(against, key=against.get, default="")
        return sum(against.values()), f"{worst} off"


def choose(parts: list[Part], count: int | None, seed: int) -> list[tuple[Part, int]]:
    """Draw about `count` samples, as many of each part as it has share in all; None takes every one."""
    total = sum(len(part.views) for part in parts)
    chosen = []
    for part in parts:
        ids = np.array(sorted(part.views), np.int64)
        if count is not None and count < total:
            own = min(len(ids), max(1, round(count * len(ids) / total)))
            rng = np.random.default_rng([seed, len(ids), sum(map(ord, part.name))])
            ids = np.sort(rng.choice(ids, own, replace=False)) if len(ids) else ids
        chosen += [(part, int(sample)) for sample in ids]
    return chosen


def measure(chosen: list[tuple[Part, int]], progress: bool = True) -> list[Measured]:
    """Decode samples and measure each of them."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # decoding a PNG needs no interpreter lock
        looks = pool.map(lambda item: look(*item), chosen)
        return list(tqdm(looks, total=len(chosen), desc="pictures", unit="sample", disable=not progress))


def look(part: Part, sample: int) -> Measured:
    """Decode one sample and measure it."""
    try:
        record = part.record(sample)
        part_ids = None if part.part_ids is None else part.part_ids(sample)
        swapped = None if part.swapped is None else part.swapped(record)
    except BadSample as error:
        return Measured(part, sample, bad=str(error))
    in_frame, pixels = _pixels(record)
    measured: dict = {"visible": int(record.visible.sum())}
    if record.hand_mask is not None:
        rows, columns = np.nonzero(record.hand_mask)
        measured["mask_pixels"] = len(rows)
        measured["on_mask"] = np.where(in_frame, record.hand_mask[pixels[:, 1], pixels[:, 0]], np.nan)
        if len(rows):
            measured["mask_spread"] = _spread(np.stack([columns, rows], axis=1))
            measured["joint_spread"] = _spread(project(record.joints_mm, record.K))
    measured["cloud_points"] = _cloud_points(record)
    measured["behind_mm"] = _behind(record, in_frame, pixels)
    if swapped is not None:
        measured["behind_swapped_mm"] = _behind(swapped, in_frame, pixels)
    if part_ids is not None:
        measured["votes"] = _votes(part, sample, part_ids)
    return Measured(part, sample, **measured)


def _pixels(record: HandRecord) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Return which joints are visible inside the picture, (21,), and all joints' pixels, kept inside it."""
    height, width = record.image.shape[:2]
    near = np.clip(np.rint(record.uv_px), -1, max(height, width)).astype(np.int64)
    inside = ((near >= 0) & (near < [width, height])).all(1)
    return inside & record.visible, np.clip(near, 0, [width - 1, height - 1])


def _spread(points: NDArray) -> Array:
    return np.concatenate([points.mean(0), points.std(0)])


def _cloud_points(record: HandRecord) -> int | None:
    """Count the measured points that `davae.data.sample` would take for the hand's."""
    if record.points_mm is not None:
        points = record.points_mm
    elif record.depth_mm is not None and record.hand_mask is not None:
        points = depth_to_points(record.depth_mm, record.hand_mask, record.K)
    else:
        return None
    return int((np.abs(points - record.joints_mm[9]) < CLOUD_REACH_MM).all(axis=1).sum())


def _behind(record: HandRecord, in_frame: NDArray[np.bool_], pixels: NDArray[np.int64]) -> Array | None:
    if record.depth_mm is not None:
        front = record.depth_mm[pixels[:, 1], pixels[:, 0]].astype(np.float64)
        front[front <= 0] = np.nan
    elif record.points_mm is not None:
        front = np.full(JOINTS, np.nan)
        if len(record.points_mm):
            at = project(record.points_mm, record.K)
            for joint in np.flatnonzero(in_frame):
                near = (np.abs(at - record.uv_px[joint]) <= POINT_REACH_PX).all(1)
                if near.any():
                    front[joint] = record.points_mm[near, 2].min()
    else:
        return None
    return np.where(in_frame, record.joints_mm[:, 2] - front, np.nan)


def _votes(part: Part, sample: int, ids: NDArray[np.uint8]) -> tuple[int, int]:
    """Count the visible joints of both hands that lie on their own hand's part ids, and on the other's."""
    own = other = 0
    height, width = ids.shape
    hands = part.hands
    for row in np.flatnonzero(hands.samples == sample):
        seen = hands.visible[row] & np.isfinite(hands.uv_px[row]).all(1)
        u, v = np.rint(hands.uv_px[row][seen]).T
        inside = (u >= 0) & (u < width) & (v >= 0) & (v < height)
        found = ids[v[inside].astype(int), u[inside].astype(int)]
        left, right = ((found >= low) & (found <= high) for low, high in (LEFT_IDS, RIGHT_IDS))
        mine, others = (left, right) if hands.left[row] else (right, left)
        own, other = own + int(mine.sum()), other + int(others.sum())
    return own, other


def fitting_share(behind_mm: Array | None) -> float | None:
    """Return the share of joints that lie where flesh puts them, or None if too few met a measurement."""
    if behind_mm is None or np.isfinite(behind_mm).sum() < ENOUGH:
        return None
    seen = behind_mm[np.isfinite(behind_mm)]
    return float(((seen > BEHIND_MM[0]) & (seen < BEHIND_MM[1])).mean())
