"""One annotated view of one hand, in the form that every reader returns."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from synthhand.pinhole import mirror_camera


class BadSample(ValueError):
    """A sample that cannot be used. Its message names the file, what was found and what was expected."""


@dataclass(frozen=True)
class HandRecord:
    """A picture of a hand and its annotations, before cropping and normalisation.

    Attributes:
        image: (h, w, 3) uint8, RGB.
        hand_mask: (h, w) bool, pixels of this hand alone; None if the dataset has no masks.
        depth_mm: (h, w) float32 depth of the whole scene along z, or None.
        joints_mm: (21, 3) float32 in the camera frame, in the order of `synthhand.skeleton`.
        uv_px: (21, 2) float32 pixels of the joints.
        visible: (21,) bool.
        K: (3, 3) float64 camera.
        side: left or right hand.
        id: number of the sample in its split.
        points_mm: (p, 3) float32 measured points of this hand in the camera frame, if depth is from another
            camera than the picture; otherwise None, and points follow from depth and mask.
    """

    image: NDArray[np.uint8]
    hand_mask: NDArray[np.bool_] | None
    depth_mm: NDArray[np.float32] | None
    joints_mm: NDArray[np.float32]
    uv_px: NDArray[np.float32]
    visible: NDArray[np.bool_]
    K: NDArray[np.float64]
    side: Literal["left", "right"]
    id: int
    points_mm: NDArray[np.float32] | None = None


def mirror(record: HandRecord) -> HandRecord:
    """Return the mirror image of a record, which turns left hands into right hands and back.

    u' = W-1-u, x' = -x, cx' = W-1-cx. Mirroring twice returns the original.
    """
    width = record.image.shape[1]
    uv = record.uv_px.copy()
    flip_x = np.array([-1, 1, 1], np.float32)
    uv[:, 0] = width - 1 - uv[:, 0]
    return replace(
        record,
        image=record.image[:, ::-1],
        hand_mask=None if record.hand_mask is None else record.hand_mask[:, ::-1],
        depth_mm=None if record.depth_mm is None else record.depth_mm[:, ::-1],
        joints_mm=record.joints_mm * flip_x,
        uv_px=uv,
        K=mirror_camera(record.K, width),
        side="right" if record.side == "left" else "left",
        points_mm=None if record.points_mm is None else record.points_mm * flip_x,
    )
