"""From factors to one SynthHand sample: image, depth, part mask, joints, as RHD stores them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from synthhand.dataset.factors import FRAME_PX, Factors, SceneFactors
from synthhand.dataset.lens import develop
from synthhand.model.body import Body, build_body
from synthhand.model.pose import segment_rotations
from synthhand.model.procedural import flesh_radii, procedural_rig
from synthhand.model.rig import PALM_PART, resize_joints, segment_motion
from synthhand.pinhole import project
from synthhand.render.backdrop import backdrop
from synthhand.render.light import Light
from synthhand.render.raycast import Wall, cast
from synthhand.skeleton import JOINTS, RHD_ORDER


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


def render(
    factors: Factors,
    size: int = FRAME_PX,
    backgrounds: Path | None = None,
    picture: np.ndarray | None = None,
) -> Rendering:
    """Render one sample.

    If the second hand would cover as many pixels as the first it is moved out of the frame, so that the hand
    the factors describe is always RHD's dominant one.

    Args:
        factors: what to render, from `sample_factors`.
        size: side of the frame in pixels; the camera scales with it.
        backgrounds: a folder of pictures to put behind the hand, chosen by the factors' `wall_seed`; None
            for painted ones and the photographs that come with scikit-image.
        picture: (size, size, 3) linear reflectance to put behind the hand instead of any of those.

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
    if picture is None:
        picture = backdrop(scene.wall_seed, size, backgrounds)
    wall = Wall(picture, scene.wall_mm, tuple(scene.wall_slope))
    radii = flesh_radii() * scene.size
    shown = bool(scene.second_shown)
    bodies, sides = ([first, second], [side, other]) if shown else ([first], [side])
    raster = cast(procedural_rig(), bodies, sides, skin, light, wall, K, size, radii)
    if shown and np.sum(hand_pixels(raster.mask, other)) >= np.sum(hand_pixels(raster.mask, side)):
        shown = False
        raster = cast(procedural_rig(), [first], [side], skin, light, wall, K, size, radii)
    second_joints = second.joints_mm if shown else hidden_joints_mm(factors)

    image = develop(raster.colour, factors.scene, size)
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
