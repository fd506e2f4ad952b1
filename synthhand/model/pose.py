"""What hands do: joint angles, their limits and couplings, gestures, and sampling without self-intersection.

An articulation is 22 angles in radians, in this order: for index, middle, ring and little finger the
flexion of the MCP joint, its abduction (positive towards the thumb), the flexion of PIP and of DIP; for the
thumb the flexion of the CMC joint, its abduction (positive away from the palm), its twist (negative turns the
pad towards the fingers), the flexion of MCP and of IP; last the cupping of the palm. Zero is the rest hand:
straight fingers, slightly spread.
"""

import numpy as np

from synthhand.model.contact import overlap_mm
from synthhand.model.rig import FOREARM, SEGMENTS, Rig, axis_rotation

ANGLES = 22
_FINGER_COLUMNS = np.arange(16).reshape(4, 4)  # finger, (mcp, abduction, pip, dip)
_THUMB = slice(16, 21)
_CUP = 21

# Degrees. Fingers: active ranges of the American Academy of Orthopaedic Surgeons, Joint Motion (1965): MCP 45
# extension to 90 flexion (hyperextension kept small, as hands rarely hold it), PIP 0 to 100, DIP 0 to 90 (80
# with the coupling below), thumb MCP to 50 and IP 20 extension to 80 flexion; a few degrees of slack. The
# thumb's saddle joint counts from our rest hand, whose thumb stands half way out.
LIMITS_DEG = np.array(
    [(-20, 92), (-15, 15), (-5, 103), (-6, 80)] * 4
    + [(-22, 45), (-26, 45), (-65, 20), (-12, 58), (-20, 80)]
    + [(-2, 16)],
    dtype=float,
)

# Degrees. The thumb (flexion, abduction, twist, mcp, ip); (mcp, pip) of index, middle, ring and little, whose
# DIP follows the PIP; the spread: the abduction of the index, which the others follow, or that of all four.
GESTURES = {
    "open": ((-8, -6, 0, 4, 4), (0, 4), (0, 4), (0, 4), (0, 5), 2),
    "spread": ((-18, 4, 0, 0, -6), (-6, 2), (-6, 2), (-6, 2), (-6, 2), 10),
    "flat": ((6, -18, 0, 6, 6), (4, 3), (4, 3), (4, 3), (4, 3), (-6, 0, 4, 9)),
    "relaxed": ((4, 6, 0, 14, 18), (20, 30), (26, 36), (31, 40), (35, 40), -2),
    "fist": ((32, 31, -20, 40, 20), (89, 101), (90, 102), (87, 100), (84, 96), -3),
    "loose_fist": ((23, 9, -32, 10, 13), (58, 74), (64, 78), (68, 80), (70, 78), -2),
    "point": ((41, 34, -34, 32, 17), (4, 6), (88, 102), (87, 100), (84, 96), 2),
    "victory": ((44, 44, -17, 42, 4), (0, 4), (0, 4), (86, 99), (78, 92), 11),
    "two_together": ((42, 42, -16, 42, 2), (4, 6), (2, 4), (86, 100), (82, 94), (-8, 1, 0, 0)),
    "three": ((39, 42, 1, 56, 20), (0, 4), (0, 4), (0, 5), (82, 98), 8),
    "four": ((39, 3, -32, 55, 58), (0, 4), (0, 4), (0, 4), (0, 5), 6),
    "thumbs_up": ((-22, -16, 0, 0, -8), (87, 101), (89, 102), (87, 100), (84, 96), -3),
    "call": ((-18, 0, 0, 0, 0), (82, 98), (84, 100), (76, 98), (8, 8), 2),
    "love_you": ((-18, -4, 0, 0, 0), (0, 4), (84, 100), (78, 98), (4, 6), 4),
    "horns": ((38, 35, -33, 40, 7), (0, 4), (84, 100), (78, 98), (2, 6), 4),
    "gun": ((-20, -6, 0, 0, -4), (0, 4), (4, 6), (82, 99), (80, 97), -4),
    "vulcan": ((-18, 2, 0, 2, 0), (0, 4), (0, 4), (0, 4), (0, 5), (4, 8, -8, -6)),
    "pinch": ((28, 36, -35, 26, -8), (73, 18), (44, 36), (36, 34), (30, 32), 0),
    "ok": ((26, 35, -33, 25, -10), (72, 22), (14, 18), (8, 10), (2, 8), 6),
    "key_pinch": ((27, -10, -32, 0, -4), (40, 66), (56, 74), (64, 78), (66, 76), -2),
    "thumb_to_little": ((45, 45, -6, 31, 4), (12, 14), (14, 18), (34, 30), (78, 26), 0),
    "beak": ((36, 35, -30, 24, -6), (60, 32), (68, 36), (60, 28), (60, 30), -5),
    "tripod": ((21, 27, -15, 36, -10), (60, 31), (69, 38), (66, 72), (68, 74), -2),
    "cup": ((10, 8, 0, 12, 14), (34, 22), (36, 24), (40, 26), (44, 28), -6),
    "sphere_grip": ((-2, 26, 0, 16, 20), (30, 36), (30, 38), (32, 38), (34, 38), 8),
    "cylinder_grip": ((4, 28, 6, 22, 28), (42, 48), (46, 50), (48, 50), (50, 48), 0),
    "claw": ((-4, 20, 0, 20, 40), (6, 62), (4, 64), (6, 62), (10, 58), 8),
    "hook": ((0, -12, 0, 8, 10), (4, 88), (4, 90), (4, 90), (4, 88), -4),
    "typing": ((-4, 10, 0, 8, 14), (14, 42), (10, 48), (12, 46), (16, 40), 4),
}  # fmt: skip
GESTURE_NAMES = tuple(GESTURES)

_FOLLOW = np.array([1.0, 0.1, -0.75, -1.25])  # how index, middle, ring, little take part in a spread
VIEWPOINTS = ("sphere", "frontal")
_DIP = 2 / 3  # DIP flexion over PIP flexion, one tendon bends both (Rijpkema and Girard, 1991)
# Degrees that index, middle, ring and little MCP can stay straighter than the straighter of their neighbours:
# the extensor tendons are joined over the back of the hand. That neighbours bound each other was measured by
# Gracia-Ibanez et al. (2016); the numbers are ours. Index and little finger have tendons of their own.
_INDEPENDENCE_DEG = (95.0, 88.0, 62.0, 90.0)
TOLERANCE_MM = 0.5  # flesh of two fingers may press this deep into each other


def gesture_angles(name: str) -> np.ndarray:
    """Return the articulation (22,), radians, of a named gesture.

    Raises:
        ValueError: the gesture does not exist.
    """
    if name not in GESTURES:
        raise ValueError(f"unknown gesture {name!r}; choose one of {', '.join(GESTURES)}")
    thumb, *fingers, spread = GESTURES[name]
    angles = np.zeros(ANGLES)
    aside = _FOLLOW * spread if np.isscalar(spread) else spread
    for row, (mcp, pip), abduction in zip(_FINGER_COLUMNS, fingers, aside, strict=True):
        angles[row] = mcp, abduction, pip, _DIP * pip
    angles[_THUMB] = thumb
    angles[_CUP] = 0.08 * np.mean([mcp for mcp, _ in fingers[2:]])
    return np.radians(angles)


def limit(angles: np.ndarray) -> np.ndarray:
    """Clip an articulation (22,) to `LIMITS_DEG`; a finger bent at its root cannot spread."""
    low, high = np.radians(LIMITS_DEG).T
    angles = np.clip(angles, low, high)
    mcp, abduction = _FINGER_COLUMNS[:, 0], _FINGER_COLUMNS[:, 1]
    bent = angles[mcp]
    neighbours = np.minimum(np.append(bent[1:], np.inf), np.append(np.inf, bent[:-1]))
    angles[mcp] = np.maximum(bent, np.minimum(neighbours - np.radians(_INDEPENDENCE_DEG), high[mcp]))
    angles[abduction] *= np.cos(np.clip(angles[mcp], 0, np.pi / 2)) * 0.85 + 0.15
    return angles


def segment_rotations(rig: Rig, angles: np.ndarray, orientation: np.ndarray, wrist: np.ndarray) -> np.ndarray:
    """Turn an articulation into the 22 segment rotations that `segment_motion` takes.

    Args:
        rig: the hand, for its frames.
        angles: (22,) articulation, radians.
        orientation: (3, 3) of the palm, from the rest frame to the camera frame.
        wrist: (2,) flexion and deviation of the forearm against the palm, radians.
    """
    bend, side, twist = np.zeros((3, SEGMENTS))
    for finger, row in enumerate(_FINGER_COLUMNS):
        c = 6 + 4 * finger
        bend[c : c + 3] = angles[row[[0, 2, 3]]]
        side[c] = angles[row[1]]
    bend[2:5] = angles[_THUMB][[0, 3, 4]]
    side[2], twist[2] = angles[_THUMB][1:3]
    bend[[13, 17]] = angles[_CUP] * np.array([0.5, 1.0])  # ring and little metacarpals fold the palm
    bend[FOREARM], side[FOREARM] = -wrist  # the arm turns against the hand
    rotations = axis_rotation(rig.frames[:, :, 1], -side)
    rotations = rotations @ axis_rotation(rig.frames[:, :, 0], bend)
    rotations = rotations @ axis_rotation(rig.frames[:, :, 2], twist)
    rotations[0] = orientation
    return rotations


def flesh_overlap_mm(rig: Rig, joints_mm: np.ndarray, radii_mm: np.ndarray, angles: np.ndarray) -> float:
    """Return how deep (mm) two fingers, or a finger and the palm, cut into each other; negative = apart.

    Args:
        rig: the hand, for its frames.
        joints_mm: (21, 3) rest joints of the proportioned hand.
        radii_mm: (21,) flesh radius at each joint.
        angles: (22,) articulation.
    """
    rotations = segment_rotations(rig, angles, np.eye(3), np.zeros(2))
    return overlap_mm(rig, joints_mm, radii_mm, rotations)


def sample_articulation(rng: np.random.Generator, rig: Rig, joints_mm, radii_mm) -> tuple[np.ndarray, int]:
    """Draw an articulation: a gesture, blended with another or with random angles, without deep overlaps.

    Returns:
        Angles (22,) in radians and the index of the main gesture in `GESTURE_NAMES`.
    """
    gesture = int(rng.integers(len(GESTURES)))
    for attempt in range(12):
        angles = limit(_draw(rng, gesture, calm=attempt / 12))
        if flesh_overlap_mm(rig, joints_mm, radii_mm, angles) <= TOLERANCE_MM:
            return angles, gesture
    # Open the hand just far enough.
    opened = gesture_angles("open")
    for amount in (0.15, 0.3, 0.45, 0.6, 0.8):
        eased = (1 - amount) * angles + amount * opened
        if flesh_overlap_mm(rig, joints_mm, radii_mm, eased) <= TOLERANCE_MM:
            return eased, gesture
    return opened, gesture


def _draw(rng: np.random.Generator, gesture: int, calm: float) -> np.ndarray:
    base = gesture_angles(GESTURE_NAMES[gesture])
    other = gesture_angles(GESTURE_NAMES[int(rng.integers(len(GESTURES)))])
    free = _random_angles(rng)
    kind = rng.random()
    # Four in ten stay near the gesture; the others wander towards a second gesture or anywhere.
    amount = rng.uniform(0, 0.15) if kind < 0.4 else rng.uniform(0.1, 0.9) * (1 - calm)
    target = other if kind < 0.7 else free
    angles = (1 - amount) * base + amount * target
    jitter = rng.normal(size=ANGLES) * np.radians(np.where(np.arange(ANGLES) < 16, 4.5, 4.0))
    jitter[_FINGER_COLUMNS[:, 1]] *= 0.6
    angles = angles + (1 - calm) * jitter
    # DIP follows PIP at about two thirds (shared tendon).
    angles[_FINGER_COLUMNS[:, 3]] = _DIP * angles[_FINGER_COLUMNS[:, 2]] + rng.normal(size=4) * np.radians(4)
    return angles


def _random_angles(rng: np.random.Generator) -> np.ndarray:
    """Angles all over the limits, neighbouring fingers alike."""
    angles = np.zeros(ANGLES)
    shared = rng.beta(0.8, 1.0, size=2)
    for row in _FINGER_COLUMNS:
        curl = 0.6 * shared + 0.4 * rng.beta(0.8, 1.0, size=2)
        angles[row] = 88 * curl[0] - 6, 0, 100 * curl[1], 0
    angles[_FINGER_COLUMNS[:, 1]] = _FOLLOW * rng.uniform(-8, 11) + rng.normal(size=4) * 2
    low, high = LIMITS_DEG[_THUMB].T
    angles[_THUMB] = low + (high - low) * rng.beta(1.5, 1.5, size=5)
    # The saddle joint turns the thumb's pad towards the fingers as it swings before the palm (opposition).
    angles[18] = (-8 - 0.5 * angles[16:18].clip(0).sum() + 6 * rng.normal()).clip(low[2], high[2])
    angles[_CUP] = rng.uniform(0, 12)
    return np.radians(angles)


def sample_orientation(rng: np.random.Generator, viewpoint: str = "sphere") -> np.ndarray:
    """Draw the rotation (3, 3) of the palm from the rest frame to the camera frame.

    Args:
        rng: source of randomness.
        viewpoint: "sphere", uniform over SO(3), or "frontal": the palm or the back faces the camera within 60
            degrees (directions uniform over that cap), rolled by at most 45 degrees from fingers up.

    Raises:
        ValueError: the viewpoint does not exist.
    """
    if viewpoint == "sphere":
        return random_rotation(rng)
    if viewpoint != "frontal":
        raise ValueError(f"unknown viewpoint {viewpoint!r}; choose one of {', '.join(VIEWPOINTS)}")
    back, azimuth = np.pi * rng.integers(2), rng.uniform(0, 2 * np.pi)
    tilt, roll = np.arccos(rng.uniform(0.5, 1.0)), np.radians(rng.uniform(-45, 45))
    axes = np.array([[0, 0, 1.0], [np.cos(azimuth), np.sin(azimuth), 0], [0, 1.0, 0]])
    rolled, tilted, turned = axis_rotation(axes, np.array([roll, tilt, back]))
    return tilted @ rolled @ turned


def random_rotation(rng: np.random.Generator) -> np.ndarray:
    """Draw a rotation (3, 3) uniformly over SO(3), from a normalised Gaussian quaternion."""
    w, x, y, z = (q := rng.normal(size=4)) / np.linalg.norm(q)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def sample_wrist(rng: np.random.Generator, orientation: np.ndarray) -> np.ndarray:
    """Draw wrist flexion and deviation (2,), radians, such that the arm seldom hides the hand.

    An arm that would come at the camera is bent away, as far as a wrist goes.
    """
    wrist = np.radians((rng.normal(size=2) * [26, 9]).clip([-65, -22], [65, 22]))
    others = np.radians(rng.uniform(-68, 68, size=16))
    if _arm_depth(wrist[:1], orientation)[0] < -0.2:
        wrist[0] = others[np.argmax(_arm_depth(others, orientation))]
    return wrist


def _arm_depth(flexions: np.ndarray, orientation: np.ndarray) -> np.ndarray:
    """Depth component (n,) of the forearm's direction; at rest it is (0, 1, 0), and it bends about x."""
    return orientation[2, 1] * np.cos(flexions) - orientation[2, 2] * np.sin(flexions)


__all__ = [
    "ANGLES", "GESTURES", "GESTURE_NAMES", "LIMITS_DEG", "TOLERANCE_MM", "VIEWPOINTS", "flesh_overlap_mm",
    "gesture_angles", "limit", "random_rotation", "sample_articulation", "sample_orientation", "sample_wrist",
    "segment_rotations",
]  # fmt: skip
