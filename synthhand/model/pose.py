"""Joint angles of a hand: their limits and couplings, gestures, and sampling without self-intersection.

An articulation is 22 angles in radians, in this order: for index, middle, ring and little finger the
flexion of the MCP joint, its abduction (positive towards the thumb), the flexion of PIP and of DIP; for the
thumb the flexion of the CMC joint, its abduction (positive away from the palm), its twist (negative turns the
pad towards the fingers), the flexion of MCP and of IP; last the cupping of the palm. Zero is the rest hand:
straight fingers, slightly spread. The constants below name the columns.
"""

import numpy as np

from synthhand.model import VIEWPOINTS
from synthhand.model.contact import overlap_mm
from synthhand.model.procedural import procedural_rig
from synthhand.model.rig import (
    FOREARM,
    KNUCKLES,
    LEVELS,
    PHALANGES,
    SEGMENTS,
    Rig,
    axis_rotation,
    turn_about,
)

ANGLES = 22
FINGER_ANGLES = np.arange(16).reshape(4, 4)  # of index, middle, ring and little finger
MCP, MCP_ABDUCTION, PIP, DIP = FINGER_ANGLES.T  # the first, third and fourth are flexions
THUMB_ANGLES = np.arange(16, 21)
CMC, CMC_ABDUCTION, CMC_TWIST, THUMB_MCP, THUMB_IP = THUMB_ANGLES
CUP = 21

FLEXION, ABDUCTION, TWIST = range(3)  # rotations about columns 0, 1 (negative) and 2 of a segment's frame
_CUPPING = KNUCKLES[3:]  # the segments along which the palm folds: ring and little metacarpal
_CUP_SHARES = np.array([0.5, 1.0])  # by this much of the angle


def _turns() -> tuple[np.ndarray, ...]:
    """Segment, kind, driving angle, and share of that angle, each (26,), of every elementary rotation."""
    rows: list[tuple] = []
    (first, second, third), *fingers = PHALANGES.reshape(5, 3)
    rows += [(first, FLEXION, CMC, 1), (first, ABDUCTION, CMC_ABDUCTION, 1), (first, TWIST, CMC_TWIST, 1)]
    rows += [(second, FLEXION, THUMB_MCP, 1), (third, FLEXION, THUMB_IP, 1)]
    for (first, second, third), (mcp, abduction, pip, dip) in zip(fingers, FINGER_ANGLES, strict=True):
        rows += [(first, FLEXION, mcp, 1), (first, ABDUCTION, abduction, 1)]
        rows += [(second, FLEXION, pip, 1), (third, FLEXION, dip, 1)]
    rows += [(c, FLEXION, CUP, share) for c, share in zip(_CUPPING, _CUP_SHARES, strict=True)]
    return tuple(np.array(column) for column in zip(*rows, strict=True))


TURN_SEGMENTS, TURN_KINDS, TURN_ANGLES, TURN_SHARES = _turns()

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
GESTURES: dict[str, tuple] = {
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
_DIP_PER_PIP = 2 / 3  # one tendon bends both (Rijpkema and Girard, 1991, doi:10.1145/127719.122754)
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
    angles[MCP], angles[PIP] = np.transpose(fingers)
    angles[MCP_ABDUCTION] = _FOLLOW * spread if np.isscalar(spread) else spread
    angles[DIP] = _DIP_PER_PIP * angles[PIP]
    angles[THUMB_ANGLES] = thumb
    angles[CUP] = 0.08 * angles[MCP[2:]].mean()
    return np.radians(angles)


def limit(angles: np.ndarray) -> np.ndarray:
    """Clip an articulation (22,) to `LIMITS_DEG`; a finger bent at its root cannot spread."""
    low, high = np.radians(LIMITS_DEG).T
    angles = np.clip(angles, low, high)
    bent = angles[MCP]
    neighbours = np.minimum(np.append(bent[1:], np.inf), np.append(np.inf, bent[:-1]))
    angles[MCP] = np.maximum(bent, np.minimum(neighbours - np.radians(_INDEPENDENCE_DEG), high[MCP]))
    angles[MCP_ABDUCTION] *= np.cos(np.clip(angles[MCP], 0, np.pi / 2)) * 0.85 + 0.15
    return angles


def limits_deg(rig: Rig) -> np.ndarray:
    """Return the lowest and highest angles (22, 2), degrees, of a rig; zero is that rig's own rest pose.

    `LIMITS_DEG` counts from the built-in hand's rest pose. For another rig, the angles between the two rest
    poses are subtracted.
    """
    built_in = procedural_rig()
    if rig is built_in:
        return LIMITS_DEG
    rest = np.degrees(_rest_angles(rig, built_in)).clip(*LIMITS_DEG.T)  # so that its own rest is allowed
    return LIMITS_DEG - rest[:, None]


def _rest_angles(rig: Rig, other: Rig) -> np.ndarray:
    """Angles (22,), radians, that rotate the rest segments of `other` to those of `rig`.

    They are read off the frames and not solved for from the joints: the joints of a straight thumb do not
    show its twist, and a bone of another shape would be taken for a bent one.
    """
    rotations = rig.frames @ other.frames.transpose(0, 2, 1)

    def decompose(segments, parents: np.ndarray) -> np.ndarray:
        """Rotations (n, 3) of each kind, radians, of segments, given the rotations of their parents."""
        frames = other.frames[segments]
        local = frames.transpose(0, 2, 1) @ parents.transpose(0, 2, 1) @ rotations[segments] @ frames
        # The columns are a left-handed set of axes, so every sign changes; abduction is negative itself.
        from scipy.spatial.transform import Rotation  # a tenth of a second, which reading a photo saves

        abduction, flexion, twist = Rotation.from_matrix(local).as_euler("YXZ").T
        return np.stack([-flexion, abduction, -twist], axis=1)

    angles = np.zeros(ANGLES)
    folds = decompose(_CUPPING, np.tile(np.eye(3), (2, 1, 1)))[:, FLEXION]
    angles[CUP] = folds @ _CUP_SHARES / (_CUP_SHARES @ _CUP_SHARES)  # least squares
    # Any other difference of a metacarpal is the shape of the palm, and not a movement.
    palm = np.tile(np.eye(3), (5, 1, 1))
    palm[3:] = axis_rotation(other.frames[_CUPPING, :, 0], _CUP_SHARES * angles[CUP])
    proximal, middle, distal = (level for level, _ in LEVELS[1:])
    first, second, third = (
        decompose(level, parents)
        for level, parents in ((proximal, palm), (middle, rotations[proximal]), (distal, rotations[middle]))
    )
    angles[[CMC, CMC_ABDUCTION, CMC_TWIST]] = first[0]
    angles[THUMB_MCP], angles[THUMB_IP] = second[0, FLEXION], third[0, FLEXION]
    angles[MCP], angles[MCP_ABDUCTION] = first[1:, FLEXION], first[1:, ABDUCTION]
    angles[PIP], angles[DIP] = second[1:, FLEXION], third[1:, FLEXION]
    return angles


def turn_amounts(angles: np.ndarray) -> np.ndarray:
    """Return the rotations (..., 3, 22), radians, of each kind and segment of an articulation (..., 22)."""
    amounts = np.zeros((*angles.shape[:-1], 3, SEGMENTS))
    amounts[..., TURN_KINDS, TURN_SEGMENTS] = angles[..., TURN_ANGLES] * TURN_SHARES
    return amounts


def segment_rotations(
    rig: Rig, angles: np.ndarray, orientation: np.ndarray, wrist: np.ndarray | None = None
) -> np.ndarray:
    """Turn an articulation into the segment rotations (..., 22, 3, 3) that `segment_motion` takes.

    Args:
        rig: the hand, for its frames.
        angles: (..., 22) articulation, radians.
        orientation: (..., 3, 3) of the palm, from the rest frame to the camera frame.
        wrist: (..., 2) flexion and deviation of the forearm against the palm, radians; None: straight.
    """
    amounts = turn_amounts(angles)
    if wrist is not None:
        amounts[..., :TWIST, FOREARM] = -wrist  # the arm turns against the hand
    bend, side, twist = np.moveaxis(amounts, -2, 0)
    across, palmar, along = rig.turns
    rotations = turn_about(palmar, -side)
    rotations = rotations @ turn_about(across, bend)
    rotations = rotations @ turn_about(along, twist)
    rotations[..., 0, :, :] = orientation
    return rotations


def flesh_overlap_mm(rig: Rig, joints_mm: np.ndarray, radii_mm: np.ndarray, angles: np.ndarray) -> float:
    """Return how deep (mm) two fingers, or a finger and the palm, cut into each other; negative = apart.

    Args:
        rig: the hand, for its frames.
        joints_mm: (21, 3) rest joints of the proportioned hand.
        radii_mm: (21,) flesh radius at each joint.
        angles: (22,) articulation.
    """
    rotations = segment_rotations(rig, angles, np.eye(3))
    return overlap_mm(rig, joints_mm, radii_mm, rotations)


def sample_articulation(rng: np.random.Generator, rig: Rig, joints_mm, radii_mm) -> tuple[np.ndarray, int]:
    """Draw an articulation: a gesture, blended with another or with random angles, without deep overlaps.

    Args:
        rng: source of randomness.
        rig: the hand, for its frames.
        joints_mm: (21, 3) rest joints of the proportioned hand.
        radii_mm: (21,) flesh radius at each joint.

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
    jitter = rng.normal(size=ANGLES) * np.radians(np.where(np.arange(ANGLES) < FINGER_ANGLES.size, 4.5, 4.0))
    jitter[MCP_ABDUCTION] *= 0.6
    angles = angles + (1 - calm) * jitter
    angles[DIP] = _DIP_PER_PIP * angles[PIP] + rng.normal(size=4) * np.radians(4)
    return angles


def _random_angles(rng: np.random.Generator) -> np.ndarray:
    """Draw angles (22,), radians, from all of the limits; neighbouring fingers are alike."""
    angles = np.zeros(ANGLES)
    shared = rng.beta(0.8, 1.0, size=2)
    for mcp, pip in zip(MCP, PIP, strict=True):
        curl = 0.6 * shared + 0.4 * rng.beta(0.8, 1.0, size=2)
        angles[mcp], angles[pip] = 88 * curl[0] - 6, 100 * curl[1]
    angles[MCP_ABDUCTION] = _FOLLOW * rng.uniform(-8, 11) + rng.normal(size=4) * 2
    low, high = LIMITS_DEG.T
    span = high - low
    angles[THUMB_ANGLES] = low[THUMB_ANGLES] + span[THUMB_ANGLES] * rng.beta(1.5, 1.5, size=5)
    # The saddle joint turns the thumb's pad towards the fingers as it swings before the palm (opposition).
    twist = -8 - 0.5 * angles[[CMC, CMC_ABDUCTION]].clip(0).sum() + 6 * rng.normal()
    angles[CMC_TWIST] = twist.clip(low[CMC_TWIST], high[CMC_TWIST])
    angles[CUP] = rng.uniform(0, 12)
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
    roll_matrix, tilt_matrix, back_matrix = axis_rotation(axes, np.array([roll, tilt, back]))
    return tilt_matrix @ roll_matrix @ back_matrix


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
    """Draw wrist flexion and deviation (2,), radians; the arm seldom hides the hand.

    An arm that would point at the camera is bent away from it, within the range of a wrist.
    """
    wrist = np.radians((rng.normal(size=2) * [26, 9]).clip([-65, -22], [65, 22]))
    others = np.radians(rng.uniform(-68, 68, size=16))
    if _arm_depth(wrist[:1], orientation)[0] < -0.2:
        wrist[0] = others[np.argmax(_arm_depth(others, orientation))]
    return wrist


def _arm_depth(flexions: np.ndarray, orientation: np.ndarray) -> np.ndarray:
    """Depth component (n,) of the forearm's direction; at rest it is (0, 1, 0), and it bends about x."""
    return orientation[2, 1] * np.cos(flexions) - orientation[2, 2] * np.sin(flexions)
