"""Pinhole geometry: projection, hand crop, view normalisation, mirroring, in-plane rotation.

Camera frame: x right, y down, z forward. Pixel (u, v) names the *centre* of a pixel, and centres lie at
integers: an image of width W covers u from -0.5 to W-0.5, and its mirror image is u' = W-1-u. Lengths are in
mm, pixel coordinates in px, all arrays float64.

The ray through the pixel of the middle MCP is the one centre of crop, view normalisation and in-plane
rotation. View normalisation (paper 4.2, its reference 39) turns the camera, without roll, until that ray is
the optical axis, so that a hand has the same coordinates wherever it stood in the frame.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from synthhand.skeleton import ROOT

Array = NDArray[np.float64]

MIN_HALF_SIZE_PX = 8.0  # a hand in a crop of less than 16 px is too small to enlarge


def project(points_mm: ArrayLike, K: ArrayLike) -> Array:
    """Project points (..., 3) in front of a camera K (3, 3) to pixels (..., 2)."""
    homogeneous: Array = np.asarray(points_mm, np.float64) @ np.asarray(K, np.float64).T
    return homogeneous[..., :2] / homogeneous[..., 2:]


def backproject(uv_px: ArrayLike, depth_mm: ArrayLike, K: ArrayLike) -> Array:
    """Return the points (..., 3) in mm at pixels (..., 2) and depths (...); the inverse of `project`."""
    rays: Array = _homogeneous(uv_px) @ np.linalg.inv(np.asarray(K, np.float64)).T
    return rays * np.asarray(depth_mm, np.float64)[..., None]


def depth_to_points(depth_mm: NDArray[np.floating], mask: NDArray[np.bool_], K: ArrayLike) -> Array:
    """Back-project the pixels of a depth map (h, w) that `mask` (h, w) keeps, row by row -> (p, 3) in mm.

    Depth is along z; pixels of depth 0 carry no measurement and are left out, so that p may be 0.
    """
    rows, columns = np.nonzero(mask & (depth_mm > 0))
    return backproject(np.stack([columns, rows], axis=-1), depth_mm[rows, columns], K)


def pixel_ray(uv_px: ArrayLike, K: ArrayLike) -> Array:
    """Return the ray (3,) = ((u-cx)/fx, (v-cy)/fy, 1) through one pixel (2,)."""
    return backproject(uv_px, 1.0, K)


def view_rotation(ray: ArrayLike) -> Array:
    """Return R (3, 3) that turns `ray` (3,) onto the optical axis: R @ ray = (0, 0, |ray|), without roll.

    R = Rx(theta_x) Ry(-theta_y), theta_y = atan2(x, z) and then theta_x = atan2(y', z') of the turned ray.
    Points follow as R @ p; R.T returns them to the camera frame.
    """
    x, y, z = np.asarray(ray, np.float64)
    theta_y = np.arctan2(x, z)
    theta_x = np.arctan2(y, np.hypot(x, z))
    cx, sx, cy, sy = np.cos(theta_x), np.sin(theta_x), np.cos(theta_y), np.sin(theta_y)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])  # Ry(-theta_y)
    return np.asarray(about_x @ about_y)


def rotation_about_z(angle_rad: float) -> Array:
    """Return Rz (3, 3). A positive angle turns x towards y, which is clockwise on the screen (y is down).

    The image turns with it: content at offset d from the crop's centre moves to Rz[:2, :2] @ d.
    """
    c, s = np.cos(angle_rad), np.sin(angle_rad)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def mirror_camera(K: ArrayLike, width_px: int) -> Array:
    """Return the camera (3, 3) of the left-right mirrored image: cx' = W-1-cx, for points with x' = -x."""
    flip_image = np.array([[-1, 0, width_px - 1], [0, 1, 0], [0, 0, 1]])
    return np.asarray(flip_image @ np.asarray(K, np.float64) @ np.diag([-1, 1, 1]))


def crop_camera(K: ArrayLike, centre_px: ArrayLike, half_size_px: float, out_px: int) -> Array:
    """Return the camera (3, 3) of a square crop resampled to `out_px` pixels a side.

    The square [centre - half, centre + half], measured between pixel *borders*, becomes the whole output,
    -0.5 .. out_px-0.5. So u' = (u - centre_u) * s + (out_px - 1) / 2 with s = out_px / (2 half): the crop's
    centre lands on the middle of the output, which for an even size is the corner of four pixels.
    """
    scale = out_px / (2.0 * half_size_px)
    middle = (out_px - 1) / 2.0
    u, v = np.asarray(centre_px, np.float64)
    to_crop = np.array([[scale, 0, middle - scale * u], [0, scale, middle - scale * v], [0, 0, 1]])
    return np.asarray(to_crop @ np.asarray(K, np.float64))


def hand_crop(uv_px: ArrayLike, visible: ArrayLike, scale: float = 1.3) -> tuple[Array, float]:
    """Return centre (2,) and half size, in px, of the square crop of a hand.

    The paper does not state its rule; this is that of the pipeline it most likely used: the centre is the
    middle MCP, the half size `scale` times the largest offset (in u or v) of a visible joint from it.

    Args:
        uv_px: (21, 2) pixels of the joints.
        visible: (21,) bool.
        scale: above 1, since the flesh reaches beyond the joints.

    Raises:
        ValueError: no joint is visible.
    """
    uv, visible = np.asarray(uv_px, np.float64), np.asarray(visible, bool)
    if not visible.any():
        raise ValueError("no joint is visible, so there is nothing to crop around")
    offset = np.abs(uv[visible] - uv[ROOT]).max()
    return uv[ROOT].copy(), max(float(scale * offset), MIN_HALF_SIZE_PX)


def rotation_homography(K: ArrayLike, R: ArrayLike, K_crop: ArrayLike) -> Array:
    """Return H (3, 3) = K_crop R K^-1, which maps pixels of camera K to pixels of the turned camera K_crop.

    A camera turned by R about its own centre sees the same rays, so that the map needs no depth and is exact
    (`crop="rotated-camera"`). With R the identity it is the plain crop.
    """
    return np.asarray(np.asarray(K_crop) @ np.asarray(R) @ np.linalg.inv(np.asarray(K, np.float64)))


def apply_homography(H: ArrayLike, uv_px: ArrayLike) -> Array:
    """Map pixels (..., 2) through H (3, 3)."""
    return project(_homogeneous(uv_px), H)


def plain_crop_error(
    hand_mm: ArrayLike, off_axis_rad: float, *, azimuth_rad: float = 0.0, rotations: int = 16
) -> Array:
    """Measure how far image and labels of the plain crop drift apart under in-plane rotation.

    The paper cuts the hand out but does not warp the image into the turned camera. Rotating that crop about
    its centre then differs from rotating the view-normalised joints about z. Here a hand that always shows
    the camera the same side is placed off the optical axis, 600 mm away, before a focal length of RHD's. For
    angles spread evenly over the circle, projected rotated joints are compared with rotated projected joints.

    Args:
        hand_mm: (21, 3) joints in the view-normalised frame; they are centred on the root first.
        off_axis_rad: angle between the root's ray and the optical axis.
        azimuth_rad: direction on the screen in which the hand is off the axis; 0 = right.
        rotations: number of in-plane angles.

    Returns:
        (rotations, 21) distances in px of a crop of 256 px.
    """
    focal_px, depth_mm, crop_px = 299.0, 600.0, 256
    hand = np.asarray(hand_mm, np.float64)
    hand = hand - hand[ROOT]
    sideways = np.sin(off_axis_rad)
    ray = np.array([sideways * np.cos(azimuth_rad), sideways * np.sin(azimuth_rad), np.cos(off_axis_rad)])
    R, root = view_rotation(ray), np.array([0.0, 0.0, depth_mm])

    def project_back(points: Array, K: Array) -> Array:
        return project((points + root) @ R, K)  # row vectors: p @ R = R.T @ p

    K = np.diag([focal_px, focal_px, 1.0])
    centre, half = hand_crop(project_back(hand, K), np.ones(len(hand), bool))
    K_crop = crop_camera(K, centre, half, crop_px)
    Rz = np.stack([rotation_about_z(angle) for angle in np.arange(rotations) * (2 * np.pi / rotations)])
    middle = (crop_px - 1) / 2.0
    by_image = (project_back(hand, K_crop) - middle) @ Rz[:, :2, :2].swapaxes(1, 2)
    by_joints = project_back(hand @ Rz.swapaxes(1, 2), K_crop) - middle
    return np.asarray(np.linalg.norm(by_image - by_joints, axis=-1))


def _homogeneous(uv_px: ArrayLike) -> Array:
    """Return pixels (..., 2) as (u, v, 1), (..., 3)."""
    uv = np.asarray(uv_px, np.float64)
    return np.concatenate([uv, np.ones_like(uv[..., :1])], axis=-1)
