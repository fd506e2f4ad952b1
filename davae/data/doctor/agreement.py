"""Checks of decoded samples: do picture, mask, depth and labels show the same hand?"""

from collections.abc import Callable

import numpy as np

from davae.data.doctor.findings import Check, Finding, Level, count, judge_share
from davae.data.doctor.measurements import MISSED_SHARE, Measurement, depth_share
from davae.data.doctor.parts import Part

EXPLAINED_SHARE = 0.75  # swapped bytes explain a depth file if they make this share of its joints fit
HIDDEN_SHARE = 0.15  # up to this share of hands may be hidden, if labels do not say which joints are
HIDDEN_FEW = 3  # so many hands of a part may be hidden, whatever their share of the part
FIT_SAMPLES = 5  # masks needed to judge a camera
ZOOM_RANGE = (0.6, 1.7)  # spread of a mask's pixels over that of its joints: near 1 if K is right


def check_decoding(measured: list[Measurement], total: int) -> Check:
    """List the samples that cannot be decoded."""
    bad = tuple(m.bad for m in measured if m.bad)
    findings: tuple[Finding, ...] = ()
    if bad:
        detail = f"{len(bad):,} of {len(measured):,} checked"
        findings = (Finding("ERROR", "decoding", "samples cannot be read", detail, "", bad),)
    found = f"{len(bad):,} bad" if bad else "all read"
    return Check("decoding", f"{len(measured):,} of {total:,}", found, findings)


def check_masks(measured: list[Measurement]) -> Check | None:
    """Check that visible joints lie on the hand's mask; return None if no sample has one."""
    if all(m.mask_pixels is None for m in measured):
        return None
    judged = [m for m in measured if not np.isnan(m.mask_share)]
    overall = sum(m.mask_share < MISSED_SHARE for m in judged) / max(len(judged), 1)
    again = "labels, cameras and masks must be of one release: copy them again"
    findings = []
    for part, own in _group_by_part(judged):
        missed = sorted((m for m in own if m.mask_share < MISSED_SHARE), key=lambda m: m.mask_share)
        camera = describe_camera_error(own) if part.hands.uv_px is None else ""
        if camera:
            what = "wrong K: joints and masks differ in size or place"
            findings.append(Finding("ERROR", part.labels, what, camera, again))
        if missed:
            level, advice = _judge_misses(part, missed, own, overall, again)
            what, detail = "joints do not lie on the hand's mask", f"{len(missed):,} of {len(own):,} samples"
            examples = tuple(f"{m.name}: {m.mask_share:.0%} of its joints on it" for m in missed)
            findings.append(Finding(level, part.name, what, detail, advice, examples))
    found = "no joint on a mask"
    if judged:
        found = f"median {np.median([m.mask_share for m in judged]):.0%} of joints on the mask"
    return Check("masks", count(len(judged), "sample"), found, tuple(findings))


def _judge_misses(
    part: Part, bad: list[Measurement], judged: list[Measurement], overall: float, advice: str
) -> tuple[Level, str]:
    """Return level and advice for samples whose joints miss mask or depth.

    Hidden joints miss them, too. If the labels do not say which joints are hidden, some misses are expected.

    Args:
        part: the part.
        bad: its samples that miss.
        judged: all its samples that could be judged.
        overall: share of misses in all parts; a part of few frames may have many by chance.
        advice: the advice for damage.
    """
    natural = overall <= HIDDEN_SHARE and len(bad) <= max(HIDDEN_SHARE * len(judged), HIDDEN_FEW)
    if natural and not part.labels_visibility:
        return "note", "hands behind an arm or an object look like this; see the contact sheet"
    return judge_share(len(bad), len(judged)), advice


def describe_camera_error(measured: list[Measurement]) -> str:
    """Return how K would have to change for the joints to cover their masks; empty if it need not.

    A single mask may be cut by an object or include an arm; the median over many is as large as the joints.
    """
    if len(measured) < FIT_SAMPLES:
        return ""
    mask, joint = (np.array([getattr(m, of) for m in measured]) for of in ("mask_spread", "joint_spread"))
    zoom = np.median(mask[:, 2:] / np.maximum(joint[:, 2:], 1e-6))
    aside = np.median(mask[:, :2] - joint[:, :2], axis=0)
    if not ZOOM_RANGE[0] < zoom < ZOOM_RANGE[1]:
        return f"the masks suggest a focal length about {zoom:.2g} times as long"
    if np.abs(aside).max() > np.median(mask[:, 2:]):
        return f"masks lie ({aside[0]:+.0f}, {aside[1]:+.0f}) px aside: the principal point disagrees"
    return ""


def check_sides(measured: list[Measurement]) -> Check | None:
    """Compare labelled sides with part ids at the joints' pixels; return None if there are no part ids."""
    if not any(m.bad is None and m.part.read_part_ids is not None for m in measured):
        return None
    judged = [m for m in measured if m.tells_side]
    findings = []
    for part, own in _group_by_part(judged):
        swapped = [m for m in own if m.looks_swapped]
        if swapped:
            what = "left and right look swapped: labels of one hand lie on part ids of the other"
            detail = f"{len(swapped):,} of {count(len(own), 'sample')}"
            advice = (
                "rows 0..20 of xyz and uv_vis are the left hand, as are ids 2..17 of masks; copy labels and "
                "masks again from the dataset"
            )
            examples = tuple(
                f"{m.name}: {m.votes[1]} of {sum(m.votes)} joints on the other hand" for m in swapped
            )
            level = judge_share(len(swapped), len(own))
            findings.append(Finding(level, part.labels, what, detail, advice, examples))
    own_votes, other_votes = np.array([m.votes for m in judged]).reshape(-1, 2).sum(0)
    found = f"{own_votes / max(own_votes + other_votes, 1):.1%} of joints on their own hand"
    return Check("sides by mask", count(len(judged), "sample"), found, tuple(findings))


def check_depth(measured: list[Measurement]) -> Check | None:
    """Check that visible joints lie just behind the measured surface; return None if no sample has depth."""
    with_depth = [m for m in measured if m.has_depth]
    if not with_depth:
        return None
    judged: list[Measurement] = []
    swapped: list[Measurement] = []
    off: list[Measurement] = []
    for m in with_depth:
        plain, turned = depth_share(m.behind_mm), depth_share(m.behind_swapped_mm)
        is_explained = turned >= EXPLAINED_SHARE  # NaN is not
        if np.isnan(plain) and not is_explained:
            continue  # too few joints
        judged.append(m)
        if not plain >= MISSED_SHARE:
            (swapped if is_explained else off).append(m)
    findings = []
    for part, own in _group_by_part(judged):
        own_swapped, own_off = ([m for m in group if m.part is part] for group in (swapped, off))
        if own_swapped:
            what = "high and low byte of depth look swapped"
            advice = (
                "exchange red and green of these files (programs that read BGR and write RGB do this), or "
                "copy them again from the dataset"
            )
            detail = f"{len(own_swapped):,} of {count(len(own), 'sample')}"
            examples = tuple(_describe_depth(m) for m in own_swapped)
            level = judge_share(len(own_swapped), len(own))
            findings.append(Finding(level, part.name, what, detail, advice, examples))
        if own_off:
            what = "joints are not where depth was measured"
            advice = "depth and labels must be of one release and unconverted: copy depth again"
            level, advice = _judge_misses(part, own_off, own, len(off) / len(judged), advice)
            detail = f"{len(own_off):,} of {count(len(own), 'sample')}"
            examples = tuple(_describe_depth(m) for m in own_off)
            findings.append(Finding(level, part.name, what, detail, advice, examples))
    behind_mm = np.concatenate([m.behind_mm for m in with_depth])
    behind_mm = behind_mm[np.isfinite(behind_mm)]
    found = "no joint met a measured point"
    if len(behind_mm):
        low, middle, high = np.percentile(behind_mm, [5, 50, 95])
        found = f"joints {middle:.0f} mm behind the surface (5..95%: {low:.0f}..{high:.0f})"
    return Check("depth", count(len(with_depth), "sample"), found, tuple(findings))


def _describe_depth(m: Measurement) -> str:
    seen = m.behind_mm[np.isfinite(m.behind_mm)]
    if not len(seen):
        return f"{m.depth_name}: no measured point near the joints"
    middle = np.median(seen)
    where = "behind" if middle >= 0 else "in front of"
    return f"{m.depth_name}: joints {abs(middle):,.0f} mm {where} the measured surface"


def check_use(parts: list[Part], measured: list[Measurement], total: int) -> Check:
    """List samples without a visible joint, a mask pixel or a measured point.

    The first two are left out of training; the last train without their cloud. Labels without a visible
    joint of either hand are found among all samples, the rest among the decoded ones.
    """
    left_out = "`prepare --skip-bad` leaves them out of training and lists them"
    rules: list[tuple[str, str, Callable[[Measurement], bool]]] = [
        ("no visible joint", left_out, lambda m: m.visible == 0),
        ("an empty mask", left_out, lambda m: m.mask_pixels == 0),
        (
            "an empty cloud",
            "they train without the cloud term",
            lambda m: m.cloud_points == 0 and m.mask_pixels != 0,
        ),
    ]
    read = [m for m in measured if m.bad is None]
    candidates = [*read, *_find_hidden(parts, measured)]
    findings, found = [], []
    for words, consequence, rule in rules:
        hit = [m for m in candidates if rule(m)]
        if hit:
            found.append(f"{len(hit):,} with {words}")
        for part, own in _group_by_part(hit):
            most = len(own) > sum(m.part.name == part.name for m in candidates) / 2
            advice = "so many are no accident: the other checks may say why" if most else consequence
            examples = tuple(f"{part.noun} {m.sample}: {m.name}" for m in own)
            level: Level = "ERROR" if most else "note"
            detail = count(len(own), part.noun)
            findings.append(Finding(level, part.name, f"hands with {words}", detail, advice, examples))
    words = "; ".join(found) or "all that were checked"
    return Check("usable hands", f"{len(read):,} of {total:,}", words, tuple(findings))


def _find_hidden(parts: list[Part], measured: list[Measurement]) -> list[Measurement]:
    """Return the samples that were not decoded and have no visible joint by their labels."""
    decoded = {(m.part.name, m.sample) for m in measured}
    return [
        Measurement(part, int(sample))
        for part in parts
        for sample in np.setdiff1d(part.ids, part.hands.samples)
        if int(sample) in part.readers and (part.name, int(sample)) not in decoded
    ]


def _group_by_part(measured: list[Measurement]) -> list[tuple[Part, list[Measurement]]]:
    groups: dict[str, list[Measurement]] = {}
    for m in measured:
        groups.setdefault(m.part.name, []).append(m)
    return [(own[0].part, own) for own in groups.values()]
