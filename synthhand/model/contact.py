"""Self-contact of a posed hand: fingers and palm as tapered capsules, all pairs measured at once.

It serves the sampling of poses: it takes a fraction of a millisecond, the mesh a tenth of a second. The radii
of the capsules were fitted to measurements on the mesh (`benchmarks/self_penetration.py`).
"""

import numpy as np

from synthhand.model.rig import KNUCKLES, PHALANGES, SEGMENT_PARENTS, Rig, segment_motion

_SINK = 0.15  # flesh hangs below the bone by this share of its radius
_FLESH = (1.32, 1.05, 1.10, 1.10)  # radius over that of the joints: palm, proximal to distal phalanx
_PALM = 9  # stands for the palm in a list of fingers; larger than the number of any finger


def overlap_mm(rig: Rig, joints_mm: np.ndarray, radii_mm: np.ndarray, rotations: np.ndarray) -> float:
    """Return how deep (mm) two fingers, or a finger and the palm, cut into each other; negative = apart.

    Args:
        rig: the hand, for its frames.
        joints_mm: (21, 3) rest joints of the proportioned hand.
        radii_mm: (21,) flesh radius at each joint.
        rotations: (22, 3, 3) of the segments, see `segment_motion`.
    """
    return float(np.max(_pair_overlaps(rig, joints_mm, radii_mm, rotations)))


def _pair_overlaps(rig, joints_mm, radii_mm, rotations) -> np.ndarray:
    turned, _, posed = segment_motion(joints_mm, rotations)
    palmar = np.einsum("sij,sj->si", turned[_SEGMENT], rig.frames[_SEGMENT, :, 1])
    root, tip = posed[_ROOT], posed[_SEGMENT]
    thin, thick = radii_mm[_SEGMENT], np.where(_IS_PALM, radii_mm[_SEGMENT], radii_mm[_ROOT])
    a = root + _START[:, None] * (tip - root) + (_SINK * thin)[:, None] * palmar
    b = root + _END[:, None] * (tip - root) + (_SINK * thin)[:, None] * palmar
    radius_a, radius_b = (_SHARE * (thick + t * (thin - thick)) for t in (_START, _END))
    i, j = _PAIRS
    distance, s, t = segment_distance(a[i], b[i], a[j], b[j])
    reach_i = radius_a[i] + s * (radius_b - radius_a)[i]
    reach_j = radius_a[j] + t * (radius_b - radius_a)[j]
    return reach_i + reach_j - distance


def segment_distance(p, q, u, v) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the distance (n,) of segments p-q and u-v, ends (n, 3), and the nearest place on each (0..1)."""
    d, e, r = q - p, v - u, p - u
    dd, ee, de = (np.einsum("ni,ni->n", x, y) for x, y in ((d, d), (e, e), (d, e)))
    dr, er = np.einsum("ni,ni->n", d, r), np.einsum("ni,ni->n", e, r)
    # Closest points of the two lines, the first clipped to its segment; then each from the other.
    s = ((de * er - dr * ee) / (dd * ee - de * de).clip(1e-9)).clip(0, 1)
    t = ((de * s + er) / ee).clip(0, 1)
    s = ((de * t - dr) / dd).clip(0, 1)
    gap = r + s[:, None] * d - t[:, None] * e
    return np.sqrt(np.einsum("ni,ni->n", gap, gap)), s, t


def _capsules():
    """Segment, first joint, start and end on the bone (0..1), whether palm, radius factor of each capsule.

    Last come the pairs to look at.
    """
    rows = []
    for c in PHALANGES.tolist():
        finger, position = divmod(c - 1, 4)
        # The root of a finger, and the thumb's metacarpal, are embedded in the palm.
        start = (0.8 if finger == 0 else 0.45) if position == 1 else 0.0
        stop = 0.85 if position == 3 else 1.0
        rows.append((c, SEGMENT_PARENTS[c], start, stop, finger, position))
    rows += [(c, 0, 0.35, 0.95, _PALM, 0) for c in KNUCKLES[1:]]
    segment, root, starts, stops, fingers, positions = (np.array(x) for x in zip(*rows, strict=True))
    palm = fingers == _PALM
    pairs = (fingers[:, None] < fingers) & ~(palm & (positions[:, None] == 1))
    return segment, root, starts, stops, palm, np.array(_FLESH)[positions], np.nonzero(pairs)


_SEGMENT, _ROOT, _START, _END, _IS_PALM, _SHARE, _PAIRS = _capsules()
