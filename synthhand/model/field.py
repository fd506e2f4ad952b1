"""The signed distance field of the built-in hand: a smooth union of tapered, flattened capsules.

Fingers are blended with the palm but hardly with each other: they stay apart, and the blend makes the web
between them. Distances are exact for round capsules and slightly short for flattened ones; the mesher
corrects that by projecting its vertices onto the surface.
"""

from collections.abc import Iterable
from functools import reduce

import numpy as np

from synthhand.model.anatomy import FOREARM_MM, forearm_radii, pulp_mm
from synthhand.model.rig import KNUCKLES


def capsule(points: np.ndarray, a, b, radius_a: float, radius_b: float) -> np.ndarray:
    """Return the distance (n,) of points (3, n) to a capsule; its radius changes linearly from end to end."""
    ax, ay, az = (float(value) for value in a)
    dx, dy, dz = (float(end) - float(start) for start, end in zip(a, b, strict=True))
    x, y, z = points[0] - ax, points[1] - ay, points[2] - az
    length = dx * dx + dy * dy + dz * dz
    if length < 1e-6:  # a ball
        return np.sqrt(x * x + y * y + z * z) - radius_a
    t = ((x * dx + y * dy + z * dz) * (1 / length)).clip(0, 1)
    x, y, z = x - t * dx, y - t * dy, z - t * dz
    return np.sqrt(x * x + y * y + z * z) - (radius_a + (radius_b - radius_a) * t)


def smooth_min(a: np.ndarray, b: np.ndarray, blend_mm: float) -> np.ndarray:
    """Return the union of two distance fields, rounded over `blend_mm` (polynomial smooth minimum)."""
    h = (0.5 + (0.5 / blend_mm) * (b - a)).clip(0, 1)
    return b + (a - b) * h - blend_mm * h * (1 - h)


def _union(fields: Iterable[np.ndarray], blend_mm: float) -> np.ndarray:
    """Smooth minimum of distance fields, in their order."""
    return reduce(lambda a, b: smooth_min(a, b, blend_mm), fields)


def _finger_field(points, joints, radii, frames, first: int) -> np.ndarray:
    """Distance to one finger whose base is joint `first`: three phalanges, knuckles, pads and a nail."""
    thumb, finger = first == 1, (first - 1) // 4
    phalanges = []
    for c in range(first + 1, first + 4):
        # Work in the phalanx's own axes (across, palmar, along), where it is wider than deep.
        length = np.linalg.norm(joints[c] - joints[c - 1])
        x, y, z = (frames[c].T @ points - (frames[c].T @ joints[c - 1])[:, None]).astype(np.float32)
        last = c == first + 3
        flat = (1.13 if thumb else 1.05) if last else 1.03
        local = np.stack([x / flat, y, z])
        start, end = radii[c - 1] * (1.0 if thumb or c > first + 1 else 0.94), radii[c]
        middle = 0.5 * (start + end) * (0.99 if last else 0.96)
        stop = length - max(0.0, end - pulp_mm()[finger]) if last else length
        half = 0.5 * length
        bones = (
            ((0, 0, 0), (0, 0.3, half), start, middle),
            ((0, 0.3, half), (0, 0.5 if last else 0, stop), middle, end),
        )
        # Flesh hangs on the palmar side of each phalanx; the back stays close to the bone.
        swell = (0.60 if last else 0.5) * length
        sag, pad = (1.7 if last else 2.0), middle * (0.97 if last else 0.95)
        low, high = (0, sag, swell - 0.2 * length), (0, sag, swell + 0.2 * length)
        pads = (low, high, pad, pad * (0.97 if last else 1))
        own = _union((capsule(local, *piece) for piece in (*bones, pads)), 3.0)
        if last:  # the nail's bed is flat: cut across the back of the tip
            bed = -y - (0.80 * end + 0.30 * (z - 0.55 * length).clip(-4, 0) ** 2)
            own = -smooth_min(-own, -bed, 2.0)
        else:  # a knuckle is broad, and stands out on the back
            own = smooth_min(own, capsule(local, (0, -0.9, length), (0, -0.9, length), 0.98 * end, end), 2.5)
        phalanges.append(own)
    return _union(phalanges, 2.5)


def _palm_field(points, joints, relief: bool) -> np.ndarray:
    """Distance to the palm: metacarpals, thenar and hypothenar, pads and webs at the finger roots.

    Without `relief` the back is smooth: no heads of metacarpals, no tendons.
    """
    bases = joints[KNUCKLES[1:]]
    dorsal = np.array([0, 0, 1.0])
    pieces = [((x, 4.0, 0.0), (x, -20.0, 1.0), 16.5, 15.0) for x in (-10.0, 0.0, 9.0)]  # carpus
    for base, radius in zip(bases, (10.6, 10.8, 10.2, 9.4), strict=True):
        pieces.append((0.22 * base + dorsal * 1.5, base + dorsal * 0.6, 14.0, radius))
    for base, tip in zip(bases, joints[KNUCKLES[1:] + 1], strict=True):  # pads at the finger roots
        centre = base + 0.28 * (tip - base) - dorsal * 4.5
        pieces.append((centre, base + 0.02 * (tip - base) - dorsal * 4.2, 7.6, 8.0))
    for k in range(3):  # the web reaches about two fifths up the proximal phalanx
        here = bases[k] + 0.36 * (joints[6 + 4 * k] - bases[k])
        there = bases[k + 1] + 0.36 * (joints[10 + 4 * k] - bases[k + 1])
        pieces.append((here - dorsal * 2, there - dorsal * 2, 5.6, 5.6))
    pieces += [
        ((-17.0, -2.0, -3.0), (-25.0, -34.0, -6.5), 11.0, 12.6),  # hypothenar
        ((-25.0, -34.0, -6.5), (-31.0, -58.0, -4.5), 12.6, 10.8),
        ((10.0, -10.0, -6.0), (25.0, -38.0, -13.5), 12.0, 14.5),  # thenar
        ((25.0, -38.0, -13.5), joints[2] * 0.9 + np.array([1.0, -6.0, 1.0]), 14.0, 9.0),
        ((28.0, -48.0, -5.0), (26.0, -66.0, -3.0), 8.5, 8.0),  # first web: muscle between thumb and index
    ]
    field = _union((capsule(points, *piece) for piece in pieces), 7.0)
    if not relief:
        return field
    # On the back: the heads of the metacarpals, and the tendons that run to them from the wrist.
    for base, height in zip(bases, (7.6, 8.2, 7.4, 6.6), strict=True):
        below, above = base + np.array([0, 3, height - 1]), base + np.array([0, -3, height - 0.6])
        field = smooth_min(field, capsule(points, below, above, 5.6, 5.6), 3.5)
    for base, height in zip(bases, (11.5, 12.1, 11.5, 9.9), strict=True):
        head, root = base + dorsal * height, np.array([0.22 * base[0], -12.0, 12.8])
        between = 0.6 * head + 0.4 * root + dorsal * 0.5
        field = smooth_min(field, capsule(points, head, between, 2.0, 2.0), 4.0)
        field = smooth_min(field, capsule(points, between, root, 2.0, 1.0), 4.5)
    return field


def _forearm_field(points, relief: bool) -> np.ndarray:
    """Distance to the forearm, an elliptic cone (roughly: exact on the surface, slack elsewhere)."""
    x, y, z = points
    wide, deep = forearm_radii(y)
    hidden = 1.2 * ((y - 88) / 15).clip(0, 1)  # thinner where the tube of `synthhand.model.body` covers it
    wide, deep = wide - hidden, deep - hidden
    around = (np.hypot(x / wide, (z - 0.5) / deep) - 1) * deep
    end = np.maximum(-22.0 - y, y - FOREARM_MM)
    # Rounded where the side meets the ends.
    field = -smooth_min(-around, -end, 12.0)
    if not relief:
        return field
    for x in (1.0, 8.5):  # tendons before the wrist
        field = smooth_min(field, capsule(points, (x, -6, -15.0), (x, 46, -18.6), 2.0, 2.0), 4.0)
    # The head of the ulna, behind it
    return smooth_min(field, capsule(points, (-18.5, 15, 7.5), (-18.5, 19, 7.5), 8.2, 8.0), 5.0)


def hand_field(points: np.ndarray, joints, radii, frames, relief: bool = True) -> np.ndarray:
    """Return the distance (n,) of points (n, 3) to the rest hand, mm; negative inside.

    Args:
        points: mm, rest frame.
        joints: (21, 3) rest joints.
        radii: (21,) flesh radii.
        frames: (22, 3, 3) of the segments, see `synthhand.model.rig.segment_frames`.
        relief: whether to include the knuckles and tendons of the back.
    """
    points = np.ascontiguousarray(points.T, dtype=np.float32)  # long rows: several times faster
    body = smooth_min(_palm_field(points, joints, relief), _forearm_field(points, relief), 12.0)
    thumb, *fingers = (_finger_field(points, joints, radii, frames, first) for first in KNUCKLES.tolist())
    return smooth_min(smooth_min(body, _union(fingers, 1.0), 5.5), thumb, 7.0)
