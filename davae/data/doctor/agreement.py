"""Checks of decoded samples: do picture, mask, depth and labels show the same hand?"""

from collections.abc import Callable

import numpy as np

from davae.data.doctor.findings import Check, Finding, Level, by_share, counted
from davae.data.doctor.parts import Part
from davae.data.doctor.sampling import MISSED_SHARE, Measured, fitting_share

EXPLAINED_SHARE = 0.75  # of joints that fit with bytes swapped, for that to be the explanation
HIDDEN_SHARE = 0.15  # where hidden joints are not labelled, so many hands may lie behind something
HIDDEN_FEW = 3  # hands of a part, whatever their share, as long as the share of all parts is small
FIT_SAMPLES = 5  # fewer masks than these tell nothing of a camera
ZOOM_RANGE = (0.6, 1.7)  # spread of a mask's pixels over that of joints, near 1 if K is right


def check_decoding(looks: list[Measured], of: int) -> Check:
    """List the samples that cannot be decoded."""
    bad = tuple(look.bad for look in looks if look.bad)
    findings = ()
    if bad:
        detail = f"{len(bad):,} of {len(looks):,} looked at"
        findings = (Finding("ERROR", "decoding", "samples cannot be read", detail, "", bad),)
    found = f"{len(bad):,} bad" if bad else "all read"
    return Check("decoding", f"{len(looks):,} of {of:,}", found, findings)


def check_masks(looks: list[Measured]) -> Check | None:
    """Ask whether visible joints lie on the hand's mask; None if no sample has one."""
    if not any(look.on_mask is not None for look in looks):
        return None
    seen = [look for look in looks if look.mask_share is not None]
    everywhere = sum(look.mask_share < MISSED_SHARE for look in seen) / max(len(seen), 1)
    again = "labels, cameras and masks must be of one release: copy them again"
    findings = []
    for part, own in _by_part(seen):
        missed = sorted((k for k in own if k.mask_share < MISSED_SHARE), key=lambda k: k.mask_share)
        camera = camera_words(own) if part.hands.uv_px is None else ""
        if camera:
            what = "wrong K: joints and masks differ in size or place"
            findings.append(Finding("ERROR", part.labels, what, camera, again))
        if missed:
            level, advice = _level(part, missed, own, everywhere, again)
            what, detail = "joints do not lie on the hand's mask", f"{len(missed):,} of {len(own):,} samples"
            examples = tuple(f"{look.name}: {look.mask_share:.0%} of its joints on it" for look in missed)
            findings.append(Finding(level, part.name, what, detail, advice, examples))
    found = "no joint on a mask"
    if seen:
        found = f"median {np.median([look.mask_share for look in seen]):.0%} of joints on the mask"
    return Check("masks", counted(len(seen), "sample"), found, tuple(findings))


def _level(
    part: Part, bad: list[Measured], judged: list[Measured], everywhere: float, advice: str
) -> tuple[Level, str]:
    """Judge joints of a part that miss mask or depth: some may, where labels do not say which are hidden.

    Args:
        part: it is about.
        bad: its samples that miss.
        judged: all its samples that could tell.
        everywhere: share of those that miss in all parts: of a few frames many may, by chance.
        advice: for damage.
    """
    natural = everywhere <= HIDDEN_SHARE and len(bad) <= max(HIDDEN_SHARE * len(judged), HIDDEN_FEW)
    if natural and not part.visibility:
        return "note", "hands behind an arm or an object look like this; see the contact sheet"
    return by_share(len(bad), len(judged)), advice


def camera_words(looks: list[Measured]) -> str:
    """Say how K would have to change for the joints to cover their masks; empty if it need not.

    Single masks are cut by objects or have an arm; of many, size and place are those of the joints.
    """
    if len(looks) < FIT_SAMPLES:
        return ""
    mask, joint = (np.array([getattr(look, of) for look in looks]) for of in ("mask_spread", "joint_spread"))
    zoom = np.median(mask[:, 2:] / np.maximum(joint[:, 2:], 1e-6))
    aside = np.median(mask[:, :2] - joint[:, :2], axis=0)
    if not ZOOM_RANGE[0] < zoom < ZOOM_RANGE[1]:
        return f"the masks suggest a focal length about {zoom:.2g} times as long"
    if np.abs(aside).max() > np.median(mask[:, 2:]):
        return f"masks lie ({aside[0]:+.0f}, {aside[1]:+.0f}) px aside: the principal point disagrees"
    return ""


def check_sides(looks: list[Measured]) -> Check | None:
    """Compare left and right of labels with the part ids under their pixels; None if there are none."""
    if not any(look.votes is not None for look in looks):
        return None
    voting = [look for look in looks if look.decided]
    findings = []
    for part, own in _by_part(voting):
        swapped = [look for look in own if look.votes[1] > look.votes[0]]
        if swapped:
            what = "left and right look swapped: labels of one hand lie on part ids of the other"
            detail = f"{len(swapped):,} of {counted(len(own), 'sample')}"
            advice = (
                "rows 0..20 of xyz and uv_vis are the left hand, as are the ids 2..17 of masks; copy labels "
                "and masks again from the dataset"
            )
            examples = tuple(
                f"{k.name}: {k.votes[1]} of {sum(k.votes)} joints on the other hand" for k in swapped
            )
            level = by_share(len(swapped), len(own))
            findings.append(Finding(level, part.labels, what, detail, advice, examples))
    own, other = np.array([look.votes for look in voting]).reshape(-1, 2).sum(0)
    found = f"{own / max(own + other, 1):.1%} of joints on their own hand"
    return Check("sides by mask", counted(len(voting), "sample"), found, tuple(findings))


def check_depth(looks: list[Measured]) -> Check | None:
    """Ask whether visible joints lie just behind the measured surface; None if no sample has depth."""
    with_depth = [look for look in looks if look.behind_mm is not None]
    if not with_depth:
        return None
    judged, swapped, off = [], [], []
    for look in with_depth:
        plain, turned = fitting_share(look.behind_mm), fitting_share(look.behind_swapped_mm) or 0.0
        if plain is None and turned < EXPLAINED_SHARE:
            continue  # too few joints tell
        judged.append(look)
        if (plain or 0.0) < MISSED_SHARE:
            (swapped if turned >= EXPLAINED_SHARE else off).append(look)
    findings = []
    for part, own in _by_part(judged):
        turned, missed = ([look for look in group if look.part is part] for group in (swapped, off))
        if turned:
            what = "high and low byte of depth look swapped"
            advice = (
                "exchange red and green of these files (programs that read BGR and write RGB do this), or "
                "copy them again from the dataset"
            )
            detail = f"{len(turned):,} of {counted(len(own), 'sample')}"
            examples = tuple(_depth_words(look) for look in turned)
            level = by_share(len(turned), len(own))
            findings.append(Finding(level, part.name, what, detail, advice, examples))
        if missed:
            what = "joints are not where depth was measured"
            advice = "depth and labels must be of one release and unconverted: copy depth again"
            level, advice = _level(part, missed, own, len(off) / len(judged), advice)
            detail = f"{len(missed):,} of {counted(len(own), 'sample')}"
            examples = tuple(_depth_words(look) for look in missed)
            findings.append(Finding(level, part.name, what, detail, advice, examples))
    every = np.concatenate([look.behind_mm for look in with_depth])
    every = every[np.isfinite(every)]
    found = "no joint met a measured point"
    if len(every):
        low, middle, high = np.percentile(every, [5, 50, 95])
        found = f"joints {middle:.0f} mm behind the surface (5..95%: {low:.0f}..{high:.0f})"
    return Check("depth", counted(len(with_depth), "sample"), found, tuple(findings))


def _depth_words(look: Measured) -> str:
    seen = look.behind_mm[np.isfinite(look.behind_mm)]
    if not len(seen):
        return f"{look.depth_name}: no measured point near the joints"
    middle = np.median(seen)
    where = "behind" if middle >= 0 else "before"
    return f"{look.depth_name}: joints {abs(middle):,.0f} mm {where} the measured surface"


def check_use(parts: list[Part], looks: list[Measured], of: int) -> Check:
    """List the samples that lack something by rule: a visible joint, a pixel, or a measured point.

    The first two are left out of training, the last trains without its cloud. Labels without a visible joint
    of either hand are found among all samples, the rest among those looked at.
    """
    left_out = "`prepare --skip-bad` leaves them out of training and lists them"
    rules: list[tuple[str, str, Callable[[Measured], bool]]] = [
        ("no visible joint", left_out, lambda look: look.visible == 0),
        ("an empty mask", left_out, lambda look: look.mask_pixels == 0),
        (
            "an empty cloud",
            "they train without the cloud term",
            lambda look: look.cloud_points == 0 and look.mask_pixels != 0,
        ),
    ]
    read = [look for look in looks if look.bad is None]
    candidates = [*read, *_unseen(parts, looks)]
    findings, found = [], []
    for words, consequence, rule in rules:
        hit = [look for look in candidates if rule(look)]
        if hit:
            found.append(f"{len(hit):,} with {words}")
        for part, own in _by_part(hit):
            most = len(own) > sum(look.part.name == part.name for look in candidates) / 2
            advice = "so many are no accident: the other checks may say why" if most else consequence
            ids = tuple(f"{part.sample} {look.sample}: {look.name}" for look in own)
            level: Level = "ERROR" if most else "note"
            detail = counted(len(own), part.sample)
            findings.append(Finding(level, part.name, f"hands with {words}", detail, advice, ids))
    found = "; ".join(found) or "all that were looked at"
    return Check("usable hands", f"{len(read):,} of {of:,}", found, tuple(findings))


def _unseen(parts: list[Part], looks: list[Measured]) -> list[Measured]:
    """Return the samples that were not looked at, but have no visible joint by their labels."""
    seen = {(look.part.name, look.sample) for look in looks}
    return [
        Measured(part, int(sample))
        for part in parts
        for sample in np.setdiff1d(part.ids, part.hands.samples)
        if int(sample) in part.views and (part.name, int(sample)) not in seen
    ]


def _by_part(looks: list[Measured]) -> list[tuple[Part, list[Measured]]]:
    groups: dict[str, list[Measured]] = {}
    for look in looks:
        groups.setdefault(look.part.name, []).append(look)
    return [(own[0].part, own) for own in groups.values()]
