"""Turn one annotated view into one row of prepared arrays: mirror, crop, view-normalise, normalise.

Choices where the paper is silent: the crop is centred on the annotated joints
(`synthhand.pinhole.hand_crop`); after view normalisation, poses and clouds are taken relative to the middle
MCP and divided by the length of the middle MCP-PIP bone; left hands are mirrored to right ones.
"""

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from davae.config import DataConfig
from synthhand.formats.record import BadSample, HandRecord, mirror
from synthhand.pinhole import (
    Array,
    apply_homography,
    crop_camera,
    depth_to_points,
    hand_crop,
    pixel_ray,
    rotation_homography,
    view_rotation,
)
from synthhand.skeleton import JOINTS, REFERENCE_BONE, ROOT

PADDING = 127  # grey level beyond the frame
CLOUD_REACH_MM = 200.0  # points further than this from the root, along any axis, are not the hand's
MIN_STORED_POINTS = 4000  # about twice what the largest preset draws, so that data serves every preset
REFERENCE_RANGE_MM = (1.0, 200.0)  # lengths of the middle MCP-PIP bone outside it are not in mm


def stored_px(data: DataConfig) -> int:
    """Return the side of the stored crop: the test crop plus the margin that rotation and zoom need.

    A square turned by 45 degrees and shrunk to `scale_min` needs sqrt(2)/scale_min of its side. The result
    has the parity of `image_px`, so that the test crop is a window of whole pixels in its middle.
    """
    side = math.ceil(data.image_px * math.sqrt(2) / data.scale_min)
    return side + (side - data.image_px) % 2


def stored_points(data: DataConfig) -> int:
    """Return the number of cloud points that are stored; each training step draws some of them."""
    return max(MIN_STORED_POINTS, data.cloud_points)


def row_layout(data: DataConfig) -> dict[str, tuple[tuple[int, ...], str]]:
    """Return, by name, the shape and dtype of one row of every array."""
    side = stored_px(data)
    return {
        "images": ((side, side, 3), "uint8"),
        "masks": ((side, side), "uint8"),
        "joints": ((JOINTS, 3), "float32"),
        "clouds": ((stored_points(data), 3), "float32"),
        "has_cloud": ((), "bool"),
        "has_mask": ((), "bool"),
        "visible": ((JOINTS,), "bool"),
        "scale_mm": ((), "float32"),
        "root_mm": ((3,), "float32"),
        "rotation": ((3, 3), "float32"),
        "camera": ((3, 3), "float32"),
        "mirrored": ((), "bool"),
        "ids": ((), "int64"),
    }


def bone_px(camera: NDArray, scale_mm: NDArray, root_mm: NDArray, crop: str) -> NDArray[np.float32]:
    """Return the length (n,) of reference bones of `scale_mm` (n,), held across the view, in crop pixels.

    `camera` (n, 3, 3) and `root_mm` (n, 3) are those of `row_layout`.
    """
    # The rotated camera looks at the root, so that its depth is its distance.
    away = np.linalg.norm(root_mm, axis=-1) if crop == "rotated-camera" else root_mm[..., 2]
    return np.asarray(camera[..., 0, 0] * scale_mm / away, np.float32)


def make_row(record: HandRecord, data: DataConfig, *, evaluation: bool = False) -> dict[str, NDArray]:
    """Turn one record into one row of each array in `row_layout`.

    Args:
        record: the view, of either hand.
        data: crop and sizes.
        evaluation: keep samples that can be scored but not learnt from, since published errors average over
            every test image: a hand without a visible joint is cropped around all its joints, and one
            without a mask pixel gets neither mask nor cloud.

    Raises:
        BadSample: the sample cannot be used; the message says what is wrong, the caller adds the file.
    """
    visible = record.visible
    if not visible.any():
        if not evaluation:
            raise BadSample("no joint is visible, so there is nothing to crop around")
        visible = np.ones(JOINTS, bool)
    if record.hand_mask is not None and not record.hand_mask.any() and not evaluation:
        raise BadSample("the mask has no pixel of a hand (part ids 2..33)")
    mirrored = record.side == "left"
    if mirrored:
        record = mirror(record)
    joints_mm = record.joints_mm.astype(np.float64)
    if not (joints_mm[:, 2] > 0).all():
        raise BadSample(f"a joint lies behind the camera (z = {joints_mm[:, 2].min():g} mm)")
    root_mm = joints_mm[ROOT]
    scale_mm = float(np.linalg.norm(np.subtract(*joints_mm[list(REFERENCE_BONE)])))
    if not REFERENCE_RANGE_MM[0] < scale_mm < REFERENCE_RANGE_MM[1]:
        raise BadSample(
            f"the bone from middle MCP to PIP is {scale_mm:g} mm long, expected "
            f"{REFERENCE_RANGE_MM[0]:g}..{REFERENCE_RANGE_MM[1]:g} mm; are the labels in metres?"
        )

    rotation = view_rotation(pixel_ray(record.uv_px[ROOT], record.K))
    side = stored_px(data)
    camera, to_crop = _crop(record, visible, rotation, data, side)
    mask = record.hand_mask if record.hand_mask is not None and record.hand_mask.any() else None
    cloud_mm = _draw_points(record, mask, root_mm, stored_points(data))

    def normalise(points_mm: NDArray) -> NDArray:
        return (points_mm - root_mm) @ rotation.T / scale_mm

    no_cloud, no_mask = np.zeros((stored_points(data), 3)), np.zeros((side, side), np.uint8)
    values = {
        "images": warp_image(record.image, to_crop, side),
        "masks": no_mask if mask is None else warp_mask(mask, to_crop, side),
        "joints": normalise(joints_mm),
        "clouds": no_cloud if cloud_mm is None else normalise(cloud_mm),
        "has_cloud": cloud_mm is not None,
        "has_mask": mask is not None,
        "visible": record.visible,
        "scale_mm": scale_mm,
        "root_mm": root_mm,
        "rotation": rotation,
        "camera": camera,
        "mirrored": mirrored,
        "ids": record.id,
    }
    return {name: np.asarray(values[name], dtype) for name, (_, dtype) in row_layout(data).items()}


def _crop(
    record: HandRecord, visible: NDArray[np.bool_], rotation: Array, data: DataConfig, side: int
) -> tuple[Array, Array]:
    """Return the stored crop's camera and the homography (3, 3) from frame pixels to crop pixels.

    The plain crop's camera projects points of the (mirrored) camera frame, the rotated camera points of the
    view-normalised frame.
    """
    turn = rotation if data.crop == "rotated-camera" else np.eye(3)
    uv = apply_homography(rotation_homography(record.K, turn, record.K), record.uv_px)
    centre, half = hand_crop(uv, visible)
    camera = crop_camera(record.K, centre, half * side / data.image_px, side)
    return camera, rotation_homography(record.K, turn, camera)


def _draw_points(
    record: HandRecord, mask: NDArray[np.bool_] | None, root_mm: NDArray, points: int
) -> NDArray | None:
    """Draw `points` points of the hand's visible surface; return None if none were measured.

    The draw depends on the sample's id alone. If fewer points were measured they are repeated, the numbers of
    repetitions differing by one at most.
    """
    if record.points_mm is not None:
        measured = record.points_mm.astype(np.float64)
    elif mask is not None and record.depth_mm is not None:
        measured = depth_to_points(record.depth_mm, mask, record.K)
    else:
        return None
    measured = measured[(np.abs(measured - root_mm) < CLOUD_REACH_MM).all(axis=1)]
    if len(measured) == 0:
        return None
    order = np.random.default_rng(record.id).permutation(len(measured))
    return measured[np.resize(order, points)]


def warp_image(image: NDArray[np.uint8], to_crop: Array, out_px: int) -> NDArray[np.uint8]:
    """Resample an image (h, w, 3) through homography `to_crop` (3, 3) to (out_px, out_px, 3).

    Enlarging is bilinear. If it shrinks by a factor up to k, each output pixel is the mean of k x k bilinear
    samples spread over its area, so that fine texture does not alias.
    """
    to_source = np.linalg.inv(to_crop)
    if _only_enlarges(to_source):
        return cut_square(image, to_source, out_px)
    middle = (out_px - 1) / 2
    corners = np.array([[middle, middle], [middle + 1, middle], [middle, middle + 1]])
    origin, right, down = apply_homography(to_source, corners)
    shrink = max(np.linalg.norm(right - origin), np.linalg.norm(down - origin))
    samples = min(max(math.ceil(shrink - 1e-6), 1), 8)
    return _transform(image, to_source, out_px, samples, Image.Resampling.BILINEAR, (PADDING,) * 3)


def warp_mask(mask: NDArray[np.bool_], to_crop: Array, out_px: int) -> NDArray[np.uint8]:
    """Resample a mask (h, w) like its image, by nearest pixel, to (out_px, out_px) of 0 and 255."""
    pixels = np.where(mask, np.uint8(255), np.uint8(0))
    return _transform(pixels, np.linalg.inv(to_crop), out_px, 1, Image.Resampling.NEAREST, 0)


def _only_enlarges(to_source: NDArray[np.floating]) -> bool:
    """Return whether a homography only enlarges and shifts, as the plain crop does for most hands."""
    scale = to_source[0, 0]
    return scale <= 1 and np.allclose(to_source[:2, :2], scale * np.eye(2)) and not to_source[2, :2].any()


def cut_square(image: NDArray[np.uint8], to_source: NDArray[np.floating], out_px: int) -> NDArray[np.uint8]:
    """Cut a square out of an image (h, w, 3) and resize it, several times as fast as a general warp.

    Enlarging is bilinear; shrinking averages the pixels that each output pixel covers.
    """
    scale = to_source[0, 0]
    left, top = to_source[:2, 2] + (1 - scale) / 2  # pixels begin at -0.5 here, at 0 in Pillow
    side = scale * out_px
    x0, y0, canvas_px = math.floor(left) - 1, math.floor(top) - 1, math.ceil(side) + 4
    canvas = np.full((canvas_px, canvas_px, 3), PADDING, np.uint8)
    v0, v1, v = _overlap(y0, canvas_px, image.shape[0])
    u0, u1, u = _overlap(x0, canvas_px, image.shape[1])
    canvas[v, u] = image[v0:v1, u0:u1]
    box = (left - x0, top - y0, left - x0 + side, top - y0 + side)
    kind = Image.Resampling.BILINEAR if scale <= 1 else Image.Resampling.BOX
    return np.array(Image.fromarray(canvas).resize((out_px, out_px), kind, box))


def _overlap(first: int, length: int, size: int) -> tuple[int, int, slice]:
    """Return begin and end of the part of a side that a window covers, and its slice in the window."""
    begin = min(max(first, 0), size)
    end = min(max(first + length, begin), size)
    return begin, end, slice(begin - first, end - first) if begin < end else slice(0, 0)


def _transform(
    pixels: NDArray[np.uint8],
    to_source: NDArray[np.floating],
    out_px: int,
    samples: int,
    method: Image.Resampling,
    fill: int | tuple[int, int, int],
) -> NDArray[np.uint8]:
    """Set each output pixel to the mean of samples x samples source samples, `fill` beyond the frame."""
    # Pixel i covers [i, i+1] in Pillow, [i-0.5, i+0.5] here.
    shift = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    matrix = shift @ to_source @ np.linalg.inv(shift) @ np.diag([1 / samples, 1 / samples, 1])
    affine = not to_source[2, :2].any()
    warped = Image.fromarray(np.ascontiguousarray(pixels)).transform(
        (samples * out_px, samples * out_px),
        Image.Transform.AFFINE if affine else Image.Transform.PERSPECTIVE,
        (matrix / matrix[2, 2]).ravel()[: 6 if affine else 8],
        resample=method,
        fillcolor=fill,
    )
    result = np.array(warped if samples == 1 else warped.reduce(samples))
    if not affine:
        # A wide crop of a strongly turned camera may reach beyond 90 degrees, where projection folds back.
        x = np.arange(out_px) * samples + samples / 2
        behind = matrix[2, 0] * x[None, :] + matrix[2, 1] * x[:, None] + matrix[2, 2] <= 0
        if behind.any():
            result[behind] = fill
    return result
