"""Lengths and thicknesses of the built-in hand: an adult right hand, from published measurements.

Bones: Buryanov and Kotiuk (2010), Proportions of hand segments, Int. J. Morphol. 28(3), 755-758,
doi:10.4067/S0717-95022010000300015; means of radiographs of 66 adults. A joint lies in the head of the bone
before it. The distance between two joints is therefore the length of the bone, plus the radius of the head
before it, minus the radius of its own head. A finger's last joint is the tip of its last bone. The pulp
beyond that tip is from the same paper.
"""

import numpy as np

# Length (mm) of proximal, middle and distal phalanx, then of the pulp beyond the last bone.
_BONES = {
    "thumb": (46.2, 31.6, 21.7, 5.7),  # metacarpal, proximal, distal
    "index": (39.8, 22.4, 15.8, 3.8),
    "middle": (44.6, 26.3, 17.4, 4.0),
    "ring": (41.4, 25.7, 17.3, 4.0),
    "little": (32.7, 18.1, 16.0, 3.7),
}
# Radius (mm) of the bone's head at the joints of `_BONES`, our estimate: half the bone's depth there.
_HEADS = {"thumb": (4.0, 5.5, 3.8, 0.0), **dict.fromkeys(("index", "middle", "ring"), (7.0, 4.2, 3.0, 0.0))}
_HEADS["little"] = (5.8, 3.6, 2.8, 0.0)

# First joint (mm) and spread from straight up (degrees, towards the thumb). With a carpus of about 33 mm the
# middle MCP's 91 mm leave the 58 mm of a metacarpal of 64.6 mm up to the centre of its head.
_ROOTS = {
    "index": ((25.0, -87.0, 1.0), 7.0),
    "middle": ((4.0, -91.0, 3.0), 0.5),
    "ring": ((-15.5, -85.0, 1.5), -6.5),
    "little": ((-33.0, -74.5, -3.0), -15.0),
}
_THUMB_ROOT = (21.0, -19.0, -9.0)
_THUMB_DIRECTIONS = ((0.70, -0.62, -0.36), (0.60, -0.76, -0.25), (0.55, -0.82, -0.16))
THUMB_PAD = (-0.74, -0.48, -0.46)  # direction that the thumb's pad faces, and towards which it bends

# Flesh radius (mm) at the joints, root to tip. Finger breadths at PIP and DIP of about 19 and 17 mm.
_RADII = {
    "thumb": (14.0, 11.0, 9.6, 8.2),
    "index": (10.4, 9.0, 7.8, 6.6),
    "middle": (10.6, 9.2, 8.0, 6.8),
    "ring": (10.0, 8.7, 7.6, 6.5),
    "little": (9.0, 7.5, 6.6, 5.7),
}
WRIST_RADIUS_MM = 18.0
FOREARM_MM = 120.0


def bone_lengths_mm() -> np.ndarray:
    """Return the distances (5, 3) between the joints of thumb to little finger, root to tip, mm."""
    bones = np.array(list(_BONES.values()))[:, :3]
    heads = np.array([_HEADS[finger] for finger in _BONES])
    return bones + heads[:, :3] - heads[:, 1:]


def pulp_mm() -> np.ndarray:
    """Return the flesh (5,) beyond the last joint of thumb to little finger, mm."""
    return np.array([lengths[3] for lengths in _BONES.values()])


def rest_joints_mm() -> np.ndarray:
    """Return the joints (21, 3), mm, of the rest hand: palm to the viewer, fingers up."""
    lengths = bone_lengths_mm()
    joints = [np.zeros(3), np.array(_THUMB_ROOT)]
    for direction, length in zip(np.array(_THUMB_DIRECTIONS), lengths[0], strict=True):
        joints.append(joints[-1] + length * direction / np.linalg.norm(direction))
    for (root, spread), row in zip(_ROOTS.values(), lengths[1:], strict=True):
        joints.append(np.array(root))
        direction = np.array([np.sin(np.radians(spread)), -np.cos(np.radians(spread)), 0.0])
        for length in row:
            joints.append(joints[-1] + length * direction)
    return np.stack(joints)


def flesh_radii() -> np.ndarray:
    """Return the flesh radius (21,) at each joint, mm."""
    return np.array([WRIST_RADIUS_MM, *(radius for radii in _RADII.values() for radius in radii)])


def forearm_radii(y_mm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return half width and half depth (mm) of the arm, `y_mm` below the wrist."""
    at = [-24, -8, 4, 30, 120, 230, 330, 450]
    wide = np.interp(y_mm, at, [29.0, 27.5, 27.0, 28.5, 38.5, 44, 47, 52])
    deep = np.interp(y_mm, at, [14.5, 17.0, 18.2, 19.3, 26, 36, 42, 47])
    return wide.astype(np.float32), deep.astype(np.float32)
