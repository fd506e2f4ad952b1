"""Checks of labels without pictures: finite numbers, cameras, bone lengths, left and right."""

import numpy as np

from davae.data.doctor.findings import Check, Finding, count, judge_share
from davae.data.doctor.parts import Hands, Part
from synthhand.pinhole import Array

EXACT_PX = 1.0  # labels are rounded to four digits, which moves a projection by a tenth of this
FOCAL_TOLERANCE, CENTRE_TOLERANCE_PX = 0.005, 1.0  # within these a fitted camera agrees with the labelled one
IN_FRAME_SHARE = 0.6  # a hand is outside its picture if fewer of its joints project into it

MIDDLE_FINGER = (9, 10, 11, 12)
FINGER_MM = (40.0, 160.0)  # middle finger, knuckle to tip; lengths outside are not in mm
ADULT_FINGER_MM = (65.0, 120.0)  # range of the median over adults
_ADULTS = "{:.0f}..{:.0f}".format(*ADULT_FINGER_MM)
MM_IN = {"metres": 1000.0, "decimetres": 100.0, "centimetres": 10.0, "millimetres": 1.0}

CLEAR_MM = 25.0  # a hand that bends less than this does not show its side
CLEAR_HANDS = 5  # bent hands needed to judge a part


def check_labels(parts: list[Part]) -> Check:
    """Find labels that are absent, misshapen or not finite, and joints behind the camera."""
    findings, bad = [], 0
    for part in parts:
        hands = part.hands
        finite = hands.are_finite()
        behind = finite & (hands.joints_mm[..., 2] <= 0).any(1)
        for rows, what in (
            (~finite, "labels hold NaN or infinity, or lack a field or its shape"),
            (behind, "a joint lies behind the camera (z is not positive)"),
        ):
            samples = np.unique(hands.samples[rows])
            bad += len(samples)
            if len(samples):
                level, detail = judge_share(len(samples), len(part.ids)), count(len(samples), part.noun)
                advice = "copy the label file again; if that does not help, use `prepare --skip-bad`"
                examples = tuple(f"{part.noun} {sample}" for sample in samples)
                findings.append(Finding(level, part.labels, what, detail, advice, examples))
    total = sum(len(part.hands) for part in parts)
    return Check(
        "labels", count(total, "hand"), f"{bad:,} unusable" if bad else "all finite", tuple(findings)
    )


def check_camera(parts: list[Part]) -> Check:
    """Check that K projects joints onto their labelled pixels or, without pixel labels, into the picture.

    If it does not, a camera is fitted to joints and pixels. If one fits, K is wrong and the fit shows which
    of its numbers; if none fits, joints and pixels contradict each other.
    """
    findings, errors = [], []
    for part in parts:
        hands = _select_sound(part.hands)
        if not len(hands):
            continue
        if hands.uv_px is None:
            findings += _find_outside(part, hands)
        else:
            error = reprojection_error_px(hands)
            errors.append(error)
            if (error > EXACT_PX).any():
                findings += _explain_errors(
                    part, hands[error > EXACT_PX], error[error > EXACT_PX], len(hands)
                )
    if errors:
        every = np.concatenate(errors)
        low, high = np.percentile(every, [50, 99])
        found = f"K joints - pixels: median {low:.2f}, 99% {high:.2f}, worst {every.max():.2f} px"
    else:
        found = "joints in the picture" if not findings else "joints outside the picture"
    total = sum(len(part.hands) for part in parts)
    return Check("camera K", count(total, "hand"), found, tuple(findings))


def reprojection_error_px(hands: Hands) -> Array:
    """Return the largest distance (n,) of each hand's visible joints from their labelled pixels."""
    assert hands.uv_px is not None, "these hands have no pixel labels"
    distance = np.linalg.norm(hands.project() - hands.uv_px, axis=-1)
    return np.where(hands.visible, distance, 0.0).max(axis=1)


def fit_camera(joints_mm: Array, uv_px: Array) -> tuple[Array, float]:
    """Fit u = fx x/z + cx and v = fy y/z + cy to one hand.

    Args:
        joints_mm: (n, 3) in the camera frame.
        uv_px: (n, 2).

    Returns:
        (fx, fy, cx, cy), and the largest remaining distance in px.
    """
    rays = joints_mm[:, :2] / joints_mm[:, 2:]
    numbers, left_over = np.zeros((2, 2)), np.zeros_like(uv_px)
    for axis in range(2):
        design = np.stack([rays[:, axis], np.ones(len(rays))], axis=1)
        numbers[:, axis] = np.linalg.lstsq(design, uv_px[:, axis], rcond=None)[0]
        left_over[:, axis] = design @ numbers[:, axis] - uv_px[:, axis]
    return numbers.ravel(), float(np.linalg.norm(left_over, axis=1).max())


def compare_camera(K: Array, fitted: Array) -> list[str]:
    """Return a sentence for each number of K (3, 3) that disagrees with a fitted (fx, fy, cx, cy)."""
    said = []
    (fx, fy, cx, cy), (gx, gy, dx, dy) = (K[0, 0], K[1, 1], K[0, 2], K[1, 2]), fitted
    if max(abs(gx / fx - 1), abs(gy / fy - 1)) > FOCAL_TOLERANCE:
        said.append(f"the focal length is {fx:.1f}, {fy:.1f}, the labels fit {gx:.1f}, {gy:.1f}")
    if max(abs(dx - cx), abs(dy - cy)) > CENTRE_TOLERANCE_PX:
        said.append(f"the principal point is ({cx:.1f}, {cy:.1f}), the labels fit ({dx:.1f}, {dy:.1f})")
    return said


def _explain_errors(part: Part, hands: Hands, error: Array, of: int) -> list[Finding]:
    """Sort hands that K does not project onto their pixels by whether another K would."""
    assert hands.uv_px is not None
    wrong_K, contradictory, words = [], [], set()
    for row in np.argsort(-error):
        seen = hands.visible[row]
        name = f"{part.hand_name(hands, row)}: off by up to {error[row]:.1f} px"
        if seen.sum() >= 4:
            fitted, left_over = fit_camera(hands.joints_mm[row][seen], hands.uv_px[row][seen])
            said = compare_camera(hands.K[row], fitted)
            if left_over < EXACT_PX and said:
                wrong_K.append(f"{name}; {' and '.join(said)}")
                words |= {text.split(" is ")[0].removeprefix("the ") for text in said}
                continue
        contradictory.append(name)
    findings = []
    for examples, what, detail, advice in (
        (
            wrong_K,
            "wrong K, another camera fits joints and pixels",
            f"{count(len(wrong_K), 'hand')}; {' and '.join(sorted(words))} disagree",
            "K is not that of the pictures: were those resized or cropped, or K edited?",
        ),
        (
            contradictory,
            "3D joints and pixels contradict each other, whatever the camera",
            count(len(contradictory), "hand"),
            "xyz or uv were edited, or mixed up between samples or hands?",
        ),
    ):
        if examples:
            advice += " Copy the label file again from the dataset"
            level = judge_share(len(examples), of)
            findings.append(Finding(level, part.labels, what, detail, advice, tuple(examples)))
    return findings


def _find_outside(part: Part, hands: Hands) -> list[Finding]:
    """Report hands that K projects outside their picture, for datasets without pixel labels."""
    height, width = part.pictures[0].size
    u, v = np.moveaxis(hands.project(), -1, 0)
    share = ((u >= -0.5) & (u < width - 0.5) & (v >= -0.5) & (v < height - 0.5)).mean(1)
    out = share < IN_FRAME_SHARE
    if not out.any():
        return []
    what = "joints do not project into their picture: wrong K, or joints of another camera"
    detail = f"{int(out.sum()):,} of {count(len(hands), 'hand')}; pictures are {width}x{height}"
    advice = "labels, cameras and pictures must be of one release: copy the label files again"
    examples = tuple(
        f"{part.hand_name(hands, int(row))}: {share[row]:.0%} of its joints inside"
        for row in np.argsort(share, kind="stable")[: out.sum()]
    )
    return [Finding(judge_share(int(out.sum()), len(hands)), part.labels, what, detail, advice, examples)]


def check_bones(parts: list[Part]) -> Check:
    """Compare the middle finger's length with that of humans, which shows wrong units."""
    findings, every = [], []
    again = "copy the label file again from the dataset, not from a copy that someone converted"
    for part in parts:
        hands = _select_sound(part.hands, in_front=False)
        if not len(hands):
            continue
        length = finger_length_mm(hands.joints_mm)
        every.append(length)
        odd = (length < FINGER_MM[0]) | (length > FINGER_MM[1])
        if odd.mean() > 0.5:
            median = float(np.median(length))
            unit = guess_unit(median, part.unit)
            what = f"labels are in {unit}, expected {part.unit}"
            if unit is None:
                what = "lengths of bones are in no known unit"
            detail = f"middle finger, knuckle to tip, {median:.4g} mm as read; adults have {_ADULTS}"
            findings.append(Finding("ERROR", part.labels, what, detail, again))
        elif odd.any():
            what = "hands of no human size; were units mixed up?"
            examples = tuple(
                f"{part.hand_name(hands, int(row))}: middle finger {length[row]:.4g} mm"
                for row in np.flatnonzero(odd)
            )
            level, detail = judge_share(int(odd.sum()), len(hands)), count(int(odd.sum()), "hand")
            findings.append(Finding(level, part.labels, what, detail, again, examples))
    lengths = np.concatenate(every) if every else np.zeros(0)
    found = "nothing to measure"
    if len(lengths):
        low, median, high = np.percentile(lengths, [5, 50, 95])
        found = f"middle finger {median:.4g} mm (5..95%: {low:.4g}..{high:.4g})"
        if not findings and not ADULT_FINGER_MM[0] < median < ADULT_FINGER_MM[1]:
            detail = f"middle finger {median:.0f} mm, adults {_ADULTS}"
            advice = "fine for children and drawn figures; otherwise doubt the labels"
            findings.append(Finding("warning", "all parts", "hands are of unusual size", detail, advice))
    return Check("bone lengths", count(len(lengths), "hand"), found, tuple(findings))


def finger_length_mm(joints_mm: Array) -> Array:
    """Return the middle finger's length (n,) from knuckle to tip of joints (n, 21, 3)."""
    return np.linalg.norm(np.diff(joints_mm[:, list(MIDDLE_FINGER)], axis=1), axis=-1).sum(1)


def guess_unit(median_mm: float, read_as: str) -> str | None:
    """Return the unit in which a finger read as `median_mm`, wrongly in `read_as`, has human length."""
    stored = median_mm / MM_IN[read_as]
    for unit, mm in MM_IN.items():
        if FINGER_MM[0] < stored * mm < FINGER_MM[1]:
            return unit
    return None


def check_chirality(parts: list[Part]) -> Check:
    """Compare the labelled side with how hands bend: fingers and thumb bend towards the palm.

    A stretched hand shows little, many hands show enough; parts with few hands are judged together.
    """
    bends: dict[tuple[bool, str], list[Array]] = {}
    for part in parts:
        hands = _select_sound(part.hands, in_front=False)
        bend = bend_mm(hands.joints_mm)
        for left in (True, False):
            own = bend[(hands.left == left) & (np.abs(bend) > CLEAR_MM)]
            where = part.labels if len(own) >= CLEAR_HANDS else part.all_labels
            bends.setdefault((left, where), []).append(-own if left else own)
    findings, right_way, judged = [], 0, 0
    for (left, where), pieces in bends.items():
        bend = np.concatenate(pieces)
        if len(bend) < CLEAR_HANDS:
            continue
        as_labelled = int((bend > 0).sum())
        right_way, judged = right_way + as_labelled, judged + len(bend)
        if as_labelled < len(bend) / 2:
            side, other = ("left", "right") if left else ("right", "left")
            what = f"left and right look swapped: hands labelled {side} bend as {other} hands do"
            detail = f"{1 - as_labelled / len(bend):.0%} of {len(bend):,} hands"
            advice = (
                "were joints mirrored (x negated), or the rows of the two hands exchanged? Copy the "
                "label file again from the dataset"
            )
            findings.append(Finding("ERROR", where, what, detail, advice))
    found = f"{right_way / judged:.1%} bend as their side does" if judged else "too few to tell"
    return Check("left or right", count(judged, "bent hand"), found, tuple(findings))


def bend_mm(joints_mm: Array) -> Array:
    """Return how far (n,) thumb and fingers reach out of the palm's plane, positive for right hands.

    The normal (index MCP - wrist) x (little MCP - wrist) points out of the palm of a right hand, and out of
    the back of a left hand, its mirror image.
    """
    wrist = joints_mm[:, 0]
    normal = np.cross(joints_mm[:, 5] - wrist, joints_mm[:, 17] - wrist)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
    fingers = (joints_mm[:, [8, 12, 16, 20]] - joints_mm[:, [5, 9, 13, 17]]).mean(1)
    thumb = joints_mm[:, 4] - wrist
    return ((fingers + thumb) * normal).sum(1)


def _select_sound(hands: Hands, in_front: bool = True) -> Hands:
    """Return the hands with finite labels and, if `in_front`, all joints in front of the camera."""
    good = hands.are_finite()
    if in_front:
        good &= (hands.joints_mm[..., 2] > 0).all(1)
    return hands[good]
