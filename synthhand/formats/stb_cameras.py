"""STB's cameras, as its authors published them, and the transforms between their frames.

Two rigs recorded every pose. BB is a stereo camera with a left and a right view; its labels are in the left
camera's frame. SK has a colour and a depth camera; its labels are in the *depth* camera's frame. How BB and
SK stood to each other was not published. Units are millimetres and pixels; all pictures are 640 x 480.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from synthhand.formats import pictures
from synthhand.pinhole import Array

SIZE = (480, 640)  # height, width
DEPTH_RANGE_MM = 65535.0  # depth of the 16-bit code 65535
SWAPPED = [1, 0, 2]  # channels: RHD has the two bytes of depth the other way round


def _camera(fx: float, fy: float, cx: float, cy: float) -> Array:
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])


K_BB = _camera(822.79041, 822.79041, 318.47345, 250.31296)  # both cameras
K_COLOUR = _camera(607.92271, 607.88192, 314.78337, 236.42484)
K_DEPTH = _camera(475.62768, 474.77709, 336.41179, 238.77962)

BASELINE_MM = 120.054  # from BB's left camera to its right camera

# X_depth = R X_colour + T, with R as a rotation vector.
ROTATION_VECTOR = np.array([0.00531, -0.01196, 0.00301])
TRANSLATION_MM = np.array([-24.0381, -0.4563, -1.2326])


def rodrigues(rotation_vector: ArrayLike) -> Array:
    """Return the matrix (3, 3) of a rotation vector (3,): axis times angle in radians."""
    vector = np.asarray(rotation_vector, np.float64)
    angle = np.linalg.norm(vector)
    if angle == 0:
        return np.eye(3)
    x, y, z = vector / angle
    across = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * across + (1 - np.cos(angle)) * across @ across


COLOUR_TO_DEPTH = rodrigues(ROTATION_VECTOR)


def depth_to_colour(points_mm: ArrayLike) -> Array:
    """Transform points (..., 3) from SK's depth camera's frame to its colour camera's: R^T (X - T)."""
    return (np.asarray(points_mm, np.float64) - TRANSLATION_MM) @ COLOUR_TO_DEPTH


def colour_to_depth(points_mm: ArrayLike) -> Array:
    """Transform points (..., 3) from SK's colour camera's frame to its depth camera's: R X + T."""
    return np.asarray(points_mm, np.float64) @ COLOUR_TO_DEPTH.T + TRANSLATION_MM


def left_to_right(points_mm: ArrayLike) -> Array:
    """Transform points (..., 3) from BB's left camera's frame to its right camera's, by the baseline."""
    return np.asarray(points_mm, np.float64) - [BASELINE_MM, 0, 0]


def encode_depth(depth_mm: NDArray) -> NDArray[np.uint8]:
    """Encode depth (h, w) in mm as SK does: (h, w, 3), low byte in red, high byte in green, blue 0.

    A step is 1 mm; see `pictures.encode_depth`.
    """
    return pictures.encode_depth(depth_mm, DEPTH_RANGE_MM)[..., SWAPPED]


def decode_depth(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return depth (h, w) in mm from SK's encoding (h, w, 3): R + 256 G."""
    return pictures.decode_depth(rgb[..., SWAPPED], DEPTH_RANGE_MM)


def in_frame(uv_px: NDArray) -> NDArray[np.bool_]:
    """Return which pixels (..., 2) lie inside a picture."""
    height, width = SIZE
    return np.all((uv_px >= -0.5) & (uv_px < [width - 0.5, height - 0.5]), axis=-1)
