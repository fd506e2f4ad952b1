"""Where a hand is in the frame under the factor "framing": from small to larger than the frame."""

from typing import NamedTuple

import numpy as np

from synthhand.dataset.world import Framing

FLESH = 0.08  # of the joints' box that flesh adds on each end
NEAREST_MM, ARM_MM = 110.0, 340.0  # least depth of any joint, and of the arm
FARTHEST_MM = 2600.0  # most depth of the root
# Over the frame's side. A hand that is not shown is outside any frame of the shortest.
LEAST_FOCAL, MOST_FOCAL = 0.72, 12.0
LEAST_INSIDE = 12  # joints that stay in the frame
_ROUNDS = 4


class View(NamedTuple):
    """Focal length and pixel (2,) of the root, both over the frame's side; its depth, mm."""

    focal: float
    root: np.ndarray
    root_mm: float


def frame_hand(joints_mm: np.ndarray, arm_mm: np.ndarray, framing: Framing) -> View:
    """Return the camera that sees a hand as the framing asks for.

    The asked focal length is kept unless the hand would come too near the camera or too far from it. The hand
    moves towards the middle until `LEAST_INSIDE` of its joints are in the frame.

    Args:
        joints_mm: (21, 3) posed, from the root, in the camera's axes.
        arm_mm: (3,) a point of the arm, likewise: an arm that comes towards the camera would fill the frame.
        framing: what is asked for.
    """
    wanted = framing.share / (1 + 2 * FLESH)
    nearest_mm = max(NEAREST_MM - float(joints_mm[:, 2].min()), ARM_MM - float(arm_mm[2]))
    focal, root_mm, middle, aside = framing.focal, 400.0, np.zeros(2), framing.aside
    for _ in range(_ROUNDS):  # the box depends on the distance, through perspective
        extent = float(np.ptp(_see(joints_mm, np.zeros(2), root_mm), axis=0).max())
        root_mm = float(np.clip(root_mm * focal * extent / wanted, nearest_mm, FARTHEST_MM))
    extent = float(np.ptp(_see(joints_mm, np.zeros(2), root_mm), axis=0).max())
    focal = float(np.clip(wanted / extent, LEAST_FOCAL, MOST_FOCAL))
    for _ in range(_ROUNDS):
        # The root's offset from the optical axis shifts nearer joints further.
        seen = focal * _see(joints_mm, (aside - middle) / focal, root_mm)
        middle = middle + (seen.min(0) + seen.max(0)) / 2 - aside
        if np.all(np.abs(seen) < 0.5, axis=1).sum() < LEAST_INSIDE:
            aside = 0.7 * aside
    return View(focal, 0.5 + aside - middle, root_mm)


def _see(joints_mm: np.ndarray, root: np.ndarray, root_mm: float) -> np.ndarray:
    """Return where joints (21, 3) are seen (21, 2), over the depth, with their root at `root` and a depth."""
    return (joints_mm[:, :2] + root * root_mm) / (joints_mm[:, 2:] + root_mm)
