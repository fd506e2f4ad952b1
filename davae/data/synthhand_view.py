"""From factors to one SynthHand sample: image, depth, part mask, joints, as RHD stores them."""

import io
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from davae.camera import project
from davae.data.synthhand_factors import Factors, SceneFactors
from davae.hand.backdrop import backdrop, to_display
from davae.hand.body import Body, build_body
from davae.hand.light import Light
from davae.hand.pose import segment_rotations
from davae.hand.procedural import flesh_radii, procedural_rig
from davae.hand.render import Wall, cast
from davae.hand.rig import PALM_PART, resize_joints, segment_motion
from davae.skeleton import JOINTS, RHD_ORDER

_BRIGHTEST = 6.0
_SHADES = 4095
_TONES = np.rint(
    255 * to_display(1 - np.exp(-1.25 * _BRIGHTEST * (np.arange(_SHADES + 1) / _SHADES) ** 2))
).astype(np.uint8)

# Standard deviation of the grain, grey levels per unit of `noise`, by display value.
_NOISE = (0.5 * 255 + np.sqrt(np.arange(256) * 255.0)).astype(np.float32)

FRAME_PX = 320  # the frame size that pixel factors are given for


@dataclass(frozen=True)
class Rendering:
    """One rendered view, in RHD's conventions.

    Attributes:
        image: (size, size, 3) uint8, RGB.
        depth_mm: (size, size) float32 along z, background included.
        part_mask: (size, size) uint8, RHD ids 0..33.
        joints_mm: (42, 3) float64, camera frame, RHD order (left hand first, fingers tip to palm).
        uv_vis: (42, 3) pixels and 1 where visible.
        K: (3, 3) camera.
        side: "left" or "right", the hand the factors describe; it covers more pixels than the other.
        mean_colour: (3,) mean display colour 0..1 of that hand's pixels (0 if it has none).
        second_in_frame: whether the other hand was drawn.
    """

    image: np.ndarray
    depth_mm: np.ndarray
    part_mask: np.ndarray
    joints_mm: np.ndarray
    uv_vis: np.ndarray
    K: np.ndarray
    side: str
    mean_colour: np.ndarray
    second_in_frame: bool


def camera_matrix(factors: Factors, size: int) -> np.ndarray:
    """K (3, 3) of a frame of `size` px; as in RHD the principal point is at half the frame's size."""
    focal = factors.scene.focal_px * size / FRAME_PX
    return np.array([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]])


def hand_body(factors: Factors) -> Body:
    """The hand the factors describe, with its arm, in the camera frame."""
    pose, scene = factors.pose, factors.scene
    stance = (pose.articulation, pose.orientation, pose.wrist)
    place = _place(scene, scene.root_uv, scene.root_mm)
    return _body(factors, stance, place, bool(scene.left), scene.arm_angle)


def second_body(factors: Factors) -> Body:
    """The same person's other hand, in the camera frame."""
    scene = factors.scene
    stance = (scene.second_articulation, scene.second_orientation, scene.second_wrist)
    place = _place(scene, scene.second_uv, scene.second_mm)
    return _body(factors, stance, place, not scene.left, scene.second_arm_angle)


def _place(scene: SceneFactors, uv: np.ndarray, depth_mm: float) -> np.ndarray:
    return np.append((uv - FRAME_PX / 2) / scene.focal_px, 1.0) * depth_mm


def _body(factors: Factors, stance: tuple, root_mm: np.ndarray, left: bool, arm_angle: float) -> Body:
    rig = procedural_rig()
    return build_body(
        rig,
        segment_rotations(rig, *stance),
        factors.shape.coefficients,
        factors.pose.palm_scale,
        factors.pose.bone_scale,
        size=factors.scene.size,
        root_mm=root_mm,
        left=left,
        arm_angle_rad=arm_angle,
    )


def hidden_joints_mm(factors: Factors) -> np.ndarray:
    """Joints (21, 3) of the other hand where it is not shown: as posed, but well outside the frame."""
    rig, scene = procedural_rig(), factors.scene
    rest, _ = resize_joints(rig, factors.pose.palm_scale, factors.pose.bone_scale)
    turns = segment_rotations(rig, scene.second_articulation, scene.second_orientation, scene.second_wrist)
    _, _, posed = segment_motion(rest, turns)
    joints = scene.size * (posed - posed[9]) + _place(scene, scene.second_uv, scene.second_mm)
    if not scene.left:
        joints = joints * np.array([-1.0, 1.0, 1.0])
    # Past the frame's border at the depth of its farthest joint: half a frame is 160/260 of the depth.
    aside = 1.0 if joints[9, 0] > 0 else -1.0
    inward = (aside * joints[:, 0]).min()
    return joints + np.array([aside * max(0.0, 0.75 * joints[:, 2].max() - inward), 0.0, 0.0])


def render(factors: Factors, size: int = FRAME_PX, backgrounds: Path | None = None) -> Rendering:
    """Render one sample.

    If the second hand would cover as many pixels as the first it is moved out of the frame, so that the hand
    the factors describe is always RHD's dominant one.

    Args:
        factors: what to render, from `sample_factors`.
        size: side of the frame in pixels; the camera scales with it.
        backgrounds: a folder of pictures to put behind the hand, chosen by the factors' `wall_seed`; None
            for painted ones and the photographs that come with scikit-image.

    Raises:
        FileNotFoundError: `backgrounds` does not exist or holds no picture.
        ValueError: `size` is below 16, or a picture in `backgrounds` cannot be read.
    """
    if size < 16:
        raise ValueError(f"size is {size}, expected at least 16 pixels")
    scene, skin = factors.scene, factors.appearance
    side, other = ("left", "right") if scene.left else ("right", "left")
    K = camera_matrix(factors, size)
    first, second = hand_body(factors), second_body(factors) if scene.second_shown else None
    light = Light(
        scene.key_direction,
        scene.key_colour,
        scene.key_width,
        scene.sky_colour,
        scene.ground_colour,
        scene.fill_direction,
        scene.fill_colour,
    )
    wall = Wall(backdrop(scene.wall_seed, size, backgrounds), scene.wall_mm, tuple(scene.wall_slope))
    radii = flesh_radii() * scene.size
    shown = bool(scene.second_shown)
    bodies, sides = ([first, second], [side, other]) if shown else ([first], [side])
    raster = cast(procedural_rig(), bodies, sides, skin, light, wall, K, size, radii)
    if shown and np.sum(hand_pixels(raster.mask, other)) >= np.sum(hand_pixels(raster.mask, side)):
        shown = False
        raster = cast(procedural_rig(), [first], [side], skin, light, wall, K, size, radii)
    second_joints = second.joints_mm if shown else hidden_joints_mm(factors)

    image = _develop(raster.colour, factors, size)
    own = hand_pixels(raster.mask, side)
    colour = image[own].mean(0) / 255 if own.any() else np.zeros(3)
    seen = [*raster.visible, np.zeros(JOINTS, bool)][:2]
    hands = {side: (first.joints_mm, seen[0]), other: (second_joints, seen[1])}
    joints = np.concatenate([hands[s][0][RHD_ORDER] for s in ("left", "right")])
    visible = np.concatenate([hands[s][1][RHD_ORDER] for s in ("left", "right")])
    uv_vis = np.concatenate([project(joints, K), visible[:, None]], axis=1)
    return Rendering(image, raster.depth_mm, raster.mask, joints, uv_vis, K, side, colour, shown)


def hand_pixels(part_mask: np.ndarray, side: str) -> np.ndarray:
    """Pixels (h, w) of one hand, palm to finger tips, in a mask of RHD ids."""
    base = 2 if side == "left" else 18
    return (part_mask >= base) & (part_mask <= base + PALM_PART)


def _develop(colour: np.ndarray, factors: Factors, size: int) -> np.ndarray:
    """Linear light to a picture (size, size, 3) uint8: lens, exposure, blur, sensor noise, JPEG."""
    scene = factors.scene
    # A film-like shoulder, 1 - exp(-x), then sRGB, through a table over the square root of the light.
    step = np.sqrt(colour).reshape(size, -1)  # long rows: NumPy is slow along an axis of three
    gain = np.sqrt(scene.exposure * scene.white_balance / _BRIGHTEST).astype(np.float32)
    step *= np.tile(_SHADES * gain, size)
    if scene.vignette > 0:
        step *= _from_centre(size) * np.float32(-0.5 * scene.vignette) + np.float32(1)
    np.minimum(step, _SHADES, out=step)
    picture = _TONES.take(step.astype(np.intp), mode="clip").reshape(colour.shape)
    picture = blurred(picture, scene.blur_px * size / FRAME_PX, scene.motion_px * size / FRAME_PX)
    # Shot noise: brighter pixels vary more.
    strength = (_NOISE * np.float32(scene.noise)).take(picture.astype(np.intp), mode="clip")
    image = strength * _grain(scene.noise_seed, size)
    image += picture
    image += np.float32(0.5)
    image = image.clip(0, 255, out=image).astype(np.uint8)
    if scene.jpeg_quality < 100:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=int(scene.jpeg_quality))
        image = np.asarray(Image.open(buffer))
    return image


@lru_cache(maxsize=2)
def _from_centre(size: int) -> np.ndarray:
    """Squared distance (size, 3 size) of pixels from the middle of the frame, 1 in its corners."""
    x = np.linspace(-1, 1, size, dtype=np.float32)
    return (0.5 * (x**2 + x[:, None] ** 2)).repeat(3, axis=1)


def blurred(picture: np.ndarray, sigma: float, motion: np.ndarray) -> np.ndarray:
    """Blur (h, w, 3) uint8 by about a Gaussian of `sigma` px (below 0.9), then by motion through (2,) px."""
    if sigma > 0.15:  # three taps along each axis, of the Gaussian's variance, in 64ths
        side = np.uint16(round(32 * min(sigma, 0.8) ** 2))
        picture = picture.astype(np.uint16)
        for axis, shift in ((0, 4), (1, 8)):
            first, second = [(slice(None),) * axis + (part,) for part in (slice(-1), slice(1, None))]
            outer = picture * side
            picture = picture * np.uint16(64 - 2 * side)
            picture[second] += outer[first]
            picture[first] += outer[second]
            for end in (0, -1):  # the border goes on as it is
                at = (slice(None),) * axis + (end,)
                picture[at] += outer[at]
            picture >>= shift
        picture = picture.astype(np.uint8)
    steps = int(np.ceil((np.hypot(*motion) - 1) / 2))  # on either side: a tap about every pixel
    if steps > 0:
        total = picture.astype(np.uint16)
        for k in range(1, steps + 1):
            across, down = np.rint(motion * (k / (2 * steps + 1))).astype(int)
            total += _moved(picture, across, down)
            total += _moved(picture, -across, -down)
        picture = (total // np.uint16(2 * steps + 1)).astype(np.uint8)
    return picture


def _moved(picture: np.ndarray, across: int, down: int) -> np.ndarray:
    """The picture moved by whole pixels; what comes in at the border is what was there."""
    moved = picture.copy()
    height, width = picture.shape[:2]
    moved[max(down, 0) : height + min(down, 0), max(across, 0) : width + min(across, 0)] = picture[
        max(-down, 0) : height + min(-down, 0), max(-across, 0) : width + min(-across, 0)
    ]
    return moved


def _grain(seed: int, size: int) -> np.ndarray:
    """Noise (size, size, 3) of unit variance: a piece, chosen by the seed, of a sheet that is made once."""
    sheet = _grain_sheet(-(-size // 256) * 256 + 256)
    top, left = np.random.default_rng(seed).integers(0, 256, 2)
    return sheet[top : top + size, left : left + size]


@lru_cache(maxsize=2)
def _grain_sheet(side: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    # Sensors share light between colours and neighbours, so grain is mostly grey and a little soft.
    grain = 0.9 * rng.standard_normal((side, side, 1)) + 0.45 * rng.standard_normal((side, side, 3))
    for axis in (0, 1):
        grain = 0.86 * grain + 0.5 * np.roll(grain, 1, axis)
    return grain.astype(np.float32)
