"""The 21-joint hand skeleton: names, tree, reference bone, joint order of RHD, colours.

All code uses one joint order: the wrist, then thumb, index, middle, ring and little finger, each from root to
tip (the order of FreiHAND, OpenPose and MediaPipe). Readers of other orders convert to it, writers from it.
"""

import numpy as np

FINGERS = ("thumb", "index", "middle", "ring", "little")

JOINT_NAMES = (
    "wrist",
    *("thumb_cmc", "thumb_mcp", "thumb_ip", "thumb_tip"),
    *("index_mcp", "index_pip", "index_dip", "index_tip"),
    *("middle_mcp", "middle_pip", "middle_dip", "middle_tip"),
    *("ring_mcp", "ring_pip", "ring_dip", "ring_tip"),
    *("little_mcp", "little_pip", "little_dip", "little_tip"),
)
JOINTS = len(JOINT_NAMES)

# Parent of each joint; -1 marks the wrist, which has none.
PARENTS = np.array([-1, 0, 1, 2, 3, 0, 5, 6, 7, 0, 9, 10, 11, 0, 13, 14, 15, 0, 17, 18, 19])

# (parent, child) of the 20 bones, in the order of their child joint.
BONES = np.array([(int(p), j) for j, p in enumerate(PARENTS) if p >= 0])

WRIST = 0
ROOT = 9  # middle MCP: poses and clouds are stored relative to it (paper 4.2)
REFERENCE_BONE = (9, 10)  # middle MCP to middle PIP: its length is the unit of a normalised pose
PALM_CENTRE = (0, 9)  # hand3d's palm centre on RHD is the midpoint of these two joints

# RHD lists each finger from tip to palm. The map is its own inverse:
# our_joints = rhd_joints[RHD_ORDER] and rhd_joints = our_joints[RHD_ORDER].
RHD_ORDER = np.array([0, 4, 3, 2, 1, 8, 7, 6, 5, 12, 11, 10, 9, 16, 15, 14, 13, 20, 19, 18, 17])

# Colour of each finger in all figures: Okabe and Ito's palette, which colour-blind readers can tell apart.
FINGER_COLOURS = {
    "wrist": "#6b6b6b",
    "thumb": "#d55e00",
    "index": "#e69f00",
    "middle": "#009e73",
    "ring": "#0072b2",
    "little": "#cc79a7",
}


def finger_of(joint: int) -> str:
    """Return the finger that joint index `joint` (0..20) belongs to, or "wrist" for joint 0."""
    return "wrist" if joint == WRIST else FINGERS[(joint - 1) // 4]


JOINT_COLOURS = tuple(FINGER_COLOURS[finger_of(joint)] for joint in range(JOINTS))
