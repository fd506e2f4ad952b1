"""Checks of decoded samples: do picture, mask, depth and labels show the same hand?"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from davae.camera import Array, depth_to_points, project
from davae.data.doctor.findings import Check, Finding, by_share, counted
from davae.data.doctor.parts import Part
from davae.data.record import BadSample, HandRecord
from davae.data.rhd import LEFT_IDS, RIGHT_IDS
from davae.data.sample import CLOUD_REACH_MM
from davae.skeleton import JOINTS

# A joint lies inside the flesh: about so far behind the surface that is measured at its pixel. Labels of
# photographs are less exact than rendered ones.
BEHIND_MM = (-20.0, 60.0)
ENOUGH = 4  # joints that a verdict on one sample needs
MISSED_SHARE = 0.5  # of its joints; a sample of which more miss mask or depth is a suspect
POINT_REACH_PX = 4.0  # around a joint's pixel, where depth comes as points from another camera
FIT_SAMPLES = 5  # fewer masks than these tell nothing of a camera


@dataclass(frozen=True)
class Look:
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
        mask_box: (4,) mean u, v and spread of u, v of the hand's pixels.
        joint_box: (4,) the same of the projected joints.
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
    mask_box: Array | None = None
    joint_box: Array | None = None

    @property
    def name(self) -> str:
        """The sample's picture."""
        return str(self.part.image_path(self.sample))

    @property
    def mask_share(self) -> float | None:
        """The share of visible joints on the hand's mask, or None if too few tell."""
        if self.on_mask is None or np.isfinite(self.on_mask).sum() < ENOUGH:
            return None
        return float(np.nanmean(self.on_mask))

    def suspicion(self) -> tuple[float, str]:
        """Return how far mask, depth and side speak against the labels, and which of them most; 0 if none."""
        shares = {"mask": self.mask_share, "depth": fitting_share(self.behind_mm)}
        against = {name: 1 - share for name, share in shares.items() if share is not None}
        if self.votes is not None and self.votes[1] > self.votes[0]:
            against["side"] = 1.0
        worst = max(against, key=against.get, default="")
        return sum(against.values()), f"{worst} disagrees"


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


def look_at(chosen: list[tuple[Part, int]], progress: bool = True) -> list[Look]:
    """Decode samples and measure each of them."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # decoding a PNG needs no interpreter lock
        looks = pool.map(lambda item: look(*item), chosen)
        return list(tqdm(looks, total=len(chosen), desc="pictures", unit="sample", disable=not progress))


def look(part: Part, sample: int) -> Look:
    """Decode one sample and measure it."""
    try:
        record = part.record(sample)
        part_ids = None if part.part_ids is None else part.part_ids(sample)
        swapped = None if part.swapped is None else part.swapped(record)
    except BadSample as error:
        return Look(part, sample, bad=str(error))
    in_frame, pixels = _pixels(record)
    measured: dict = {"visible": int(record.visible.sum())}
    if record.hand_mask is not None:
        rows, columns = np.nonzero(record.hand_mask)
        measured["mask_pixels"] = len(rows)
        measured["on_mask"] = np.where(in_frame, record.hand_mask[pixels[:, 1], pixels[:, 0]], np.nan)
        if len(rows) and in_frame.all():
            measured["mask_box"] = _box(np.stack([columns, rows], axis=1))
            measured["joint_box"] = _box(project(record.joints_mm, record.K))
    measured["cloud_points"] = _cloud_points(record)
    measured["behind_mm"] = _behind(record, in_frame, pixels)
    if swapped is not None:
        measured["behind_swapped_mm"] = _behind(swapped, in_frame, pixels)
    if part_ids is not None:
        measured["votes"] = _votes(part, sample, part_ids)
    return Look(part, sample, **measured)


def _pixels(record: HandRecord) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Return which joints are visible inside the picture, (21,), and all joints' pixels, kept inside it."""
    height, width = record.image.shape[:2]
    near = np.clip(np.rint(record.uv_px), -1, max(height, width)).astype(np.int64)
    inside = ((near >= 0) & (near < [width, height])).all(1)
    return inside & record.visible, np.clip(near, 0, [width - 1, height - 1])


def _box(points: NDArray) -> Array:
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


# What all looks together tell


def check_decoding(looks: list[Look], of: int) -> Check:
    """List the samples that cannot be decoded."""
    bad = [look.bad for look in looks if look.bad]
    findings = []
    if bad:
        what = f"{counted(len(bad), 'sample')} cannot be read"
        findings.append(Finding("ERROR", what, "see each file's message", tuple(bad)))
    return Check(
        "decoding", f"{len(looks):,} of {of:,}", f"{len(bad):,} bad" if bad else "all read", tuple(findings)
    )


def check_masks(looks: list[Look]) -> Check | None:
    """Ask whether visible joints lie on the hand's mask; None if no sample has one."""
    seen = [look for look in looks if look.mask_share is not None]
    if not any(look.on_mask is not None for look in looks):
        return None
    shares = np.array([look.mask_share for look in seen])
    findings = []
    for part, own in _by_part(seen):
        share = np.array([look.mask_share for look in own])
        missed = share < MISSED_SHARE
        if missed.any():
            words = _mask_words(own)
            what = (
                f"{part.name}: joints of {counted(int(missed.sum()), 'sample')} do not lie on the hand's mask"
            )
            if words:
                what += f": wrong K? {words}"
            examples = tuple(
                f"{own[i].name}: {share[i]:.0%} of its joints on the mask"
                for i in np.argsort(share, kind="stable") if missed[i]
            )  # fmt: skip
            advice = f"labels ({part.labels}) and masks must be of one release: copy both again"
            findings.append(Finding(by_share(int(missed.sum()), len(own)), what, advice, examples))
    found = f"median {np.median(shares):.0%} of joints on the mask" if len(shares) else "no joint on a mask"
    return Check("masks", counted(len(seen), "sample"), found, tuple(findings))


def _mask_words(looks: list[Look]) -> str:
    """Say how cameras would have to change for the joints to cover the masks, where many would alike."""
    pairs = [(look.mask_box, look.joint_box) for look in looks if look.mask_box is not None]
    if len(pairs) < FIT_SAMPLES:
        return ""
    mask, joint = (np.array(boxes) for boxes in zip(*pairs, strict=True))
    zoom = np.median(mask[:, 2:] / np.maximum(joint[:, 2:], 1e-6))
    shift = np.median(mask[:, :2] - joint[:, :2], axis=0)
    said = []
    if not 0.75 < zoom < 1.35:
        said.append(f"the masks suggest a focal length about {zoom:.1f} times as long")
    if np.abs(shift).max() > np.median(mask[:, 2:]) / 2:
        said.append(f"they lie ({shift[0]:+.0f}, {shift[1]:+.0f}) px off, which suggests the principal point")
    return "; ".join(said)


def check_sides(looks: list[Look]) -> Check | None:
    """Compare left and right of labels with the part ids under their pixels; None if there are none."""
    voting = [look for look in looks if look.votes is not None and sum(look.votes) >= ENOUGH]
    if not any(look.votes is not None for look in looks):
        return None
    findings = []
    total = np.array([look.votes for look in voting]).reshape(-1, 2).sum(0)
    for part, own in _by_part(voting):
        swapped = [look for look in own if look.votes[1] > look.votes[0]]
        if not swapped:
            continue
        what = (
            f"{part.labels}: left and right look swapped in {len(swapped):,} of {counted(len(own), 'sample')}"
        )
        advice = (
            "rows 0..20 of xyz and uv_vis are the left hand, part ids 2..17 of masks, too; "
            "copy labels and masks again from the dataset"
        )
        examples = tuple(
            f"{look.name}: {look.votes[1]} of {sum(look.votes)} joints on the other hand's part ids"
            for look in swapped
        )
        findings.append(Finding(by_share(len(swapped), len(own)), what, advice, examples))
    share = total[0] / max(total.sum(), 1)
    return Check(
        "sides by mask", counted(len(voting), "sample"), f"{share:.1%} on their own hand", tuple(findings)
    )


def check_depth(looks: list[Look]) -> Check | None:
    """Ask whether visible joints lie just behind the measured surface; None if no sample has depth."""
    with_depth = [look for look in looks if look.behind_mm is not None]
    if not with_depth:
        return None
    findings, every = [], []
    judged = [
        look
        for look in with_depth
        if fitting_share(look.behind_mm) is not None or fitting_share(look.behind_swapped_mm)
    ]
    for part, own in _by_part(judged):
        swapped, off = [], []
        for look in own:
            plain, turned = fitting_share(look.behind_mm) or 0.0, fitting_share(look.behind_swapped_mm) or 0.0
            if plain >= MISSED_SHARE:
                continue
            (swapped if turned >= 0.75 else off).append(look)
        for group, what, advice in (
            (
                swapped,
                "high and low byte of depth look swapped",
                "exchange red and green of these files, or copy depth again from the dataset (programs that "
                "read BGR and write RGB do this)",
            ),
            (
                off,
                "joints are not where depth was measured",
                "depth and labels must be of one release and unconverted: copy depth again",
            ),
        ):
            if group:
                what = f"{part.name}: {what}, {len(group):,} of {counted(len(own), 'sample')}"
                examples = tuple(_depth_words(look) for look in group)
                findings.append(Finding(by_share(len(group), len(own)), what, advice, examples))
    every = np.concatenate([look.behind_mm for look in with_depth]) if with_depth else np.zeros(0)
    every = every[np.isfinite(every)]
    found = "no joint met a measured point"
    if len(every):
        low, middle, high = np.percentile(every, [5, 50, 95])
        found = f"joints {middle:.0f} mm behind the surface (5..95%: {low:.0f}..{high:.0f})"
    return Check("depth", counted(len(with_depth), "sample"), found, tuple(findings))


def fitting_share(behind_mm: Array | None) -> float | None:
    """Return the share of joints that lie where flesh puts them, or None if too few met a measurement."""
    if behind_mm is None or np.isfinite(behind_mm).sum() < ENOUGH:
        return None
    seen = behind_mm[np.isfinite(behind_mm)]
    return float(((seen > BEHIND_MM[0]) & (seen < BEHIND_MM[1])).mean())


def _depth_words(look: Look) -> str:
    seen = look.behind_mm[np.isfinite(look.behind_mm)]
    if not len(seen):
        return f"{look.name}: no measured point near its joints"
    return f"{look.name}: joints {np.median(seen):.0f} mm behind the measured surface"


def check_use(parts: list[Part], looks: list[Look], of: int) -> Check:
    """List the samples that training leaves out by rule: no visible joint, no pixel, no measured point.

    Labels without a visible joint of either hand are found among all samples, the rest among those looked at.
    """
    seen = {(look.part.name, look.sample) for look in looks}
    unseen = [
        Look(part, int(sample))
        for part in parts
        for sample in np.setdiff1d(part.ids, part.hands.samples)
        if int(sample) in part.views and (part.name, int(sample)) not in seen
    ]
    rules: list[tuple[str, Callable[[Look], bool]]] = [
        ("no visible joint", lambda look: look.visible == 0),
        ("an empty mask", lambda look: look.mask_pixels == 0),
        ("an empty cloud", lambda look: look.cloud_points == 0 and look.mask_pixels != 0),
    ]
    read = [look for look in looks if look.bad is None]
    findings, found = [], []
    for words, rule in rules:
        hit = [look for look in [*read, *unseen] if rule(look)]
        if not hit:
            continue
        found.append(f"{len(hit):,} with {words}")
        for part, own in _by_part(hit):
            level = "ERROR" if len(own) > len(part.views) / 2 else "note"
            what = f"{part.name}: {counted(len(own), part.sample)} with {words}"
            advice = "no accident but most of them: see the other checks"
            if level == "note":
                advice = "`prepare --skip-bad` leaves them out of training and lists them; nothing to do here"
            ids = tuple(f"id {look.sample}: {look.name}" for look in own)
            findings.append(Finding(level, what, advice, ids))
    looked_at = f"{len(read):,} of {of:,}"
    return Check("usable hands", looked_at, "; ".join(found) or "all", tuple(findings))


def _by_part(looks: list[Look]) -> list[tuple[Part, list[Look]]]:
    groups: dict[str, list[Look]] = {}
    for look in looks:
        groups.setdefault(look.part.name, []).append(look)
    return [(own[0].part, own) for own in groups.values()]
