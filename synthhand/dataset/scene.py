"""From factors to one SynthHand sample: image, depth, part mask, joints, as RHD stores them."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from synthhand.dataset.company import place_company
from synthhand.dataset.effects import finish, set_camera
from synthhand.dataset.factors import FRAME_PX, Factors, SceneFactors
from synthhand.dataset.lens import develop
from synthhand.dataset.world import Held
from synthhand.formats.rhd import LEFT_IDS, RIGHT_IDS
from synthhand.model.body import Body, build_body
from synthhand.model.holding import MODES, Place, place_thing
from synthhand.model.pose import segment_rotations
from synthhand.model.procedural import flesh_radii, procedural_rig
from synthhand.model.rig import resize_joints, segment_motion
from synthhand.model.things import KINDS, build_thing, make_thing
from synthhand.pinhole import project
from synthhand.render.backdrop import paint_backdrop
from synthhand.render.clothing import Dressed, dress_body, sample_cloth
from synthhand.render.detail import KINDS as BACKGROUNDS
from synthhand.render.detail import paint_detail
from synthhand.render.light import Light
from synthhand.render.material import sample_material
from synthhand.render.raster import Raster, draw_bodies
from synthhand.render.shading import Look
from synthhand.render.wall import Wall
from synthhand.skeleton import JOINTS, RHD_ORDER, ROOT

MOST_COVERED = 0.65  # share of a hand that a thing may cover; one that covers more is left out
LEAST_PX = 16  # side of the smallest frame
# A hand that is not shown stays so far from the optical axis, over its depth. Half a frame of the shortest
# focal length is 160/260 = 0.62 of the depth.
_OUTSIDE = 0.75


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
        outcomes: what became of the factors of the world, by `factor/name`: place, share hidden and so on.
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
    outcomes: dict[str, np.ndarray] = field(default_factory=dict)


def camera_matrix(factors: Factors, size: int) -> np.ndarray:
    """Return K (3, 3) of a frame of `size` px; as in RHD the principal point is at half the frame's size."""
    focal = factors.scene.focal_px * size / FRAME_PX
    return np.array([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]])


def build_hand(factors: Factors) -> Body:
    """Build the hand the factors describe, with its arm, in the camera frame."""
    pose, scene = factors.pose, factors.scene
    stance = (pose.articulation, pose.orientation, pose.wrist)
    root_mm = _root_mm(scene, scene.root_uv, scene.root_mm)
    return _build(factors, stance, root_mm, bool(scene.left), scene.arm_angle)


def build_second_hand(factors: Factors) -> Body:
    """Build the same person's other hand, in the camera frame."""
    scene = factors.scene
    stance = (scene.second_articulation, scene.second_orientation, scene.second_wrist)
    root_mm = _root_mm(scene, scene.second_uv, scene.second_mm)
    return _build(factors, stance, root_mm, not scene.left, scene.second_arm_angle)


def _root_mm(scene: SceneFactors, uv: np.ndarray, depth_mm: float) -> np.ndarray:
    """Return the point (3,) at a pixel of a frame of 320 px and a depth."""
    return np.append((uv - FRAME_PX / 2) / scene.focal_px, 1.0) * depth_mm


def _build(factors: Factors, stance: tuple, root_mm: np.ndarray, left: bool, arm_angle: float) -> Body:
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
    """Return joints (21, 3) of the other hand where it is not shown: as posed, but well outside the frame."""
    rig, scene = procedural_rig(), factors.scene
    rest, _ = resize_joints(rig, factors.pose.palm_scale, factors.pose.bone_scale)
    turns = segment_rotations(rig, scene.second_articulation, scene.second_orientation, scene.second_wrist)
    _, _, posed = segment_motion(rest, turns)
    joints = scene.size * (posed - posed[ROOT]) + _root_mm(scene, scene.second_uv, scene.second_mm)
    if not scene.left:
        joints = joints * np.array([-1.0, 1.0, 1.0])
    aside = 1.0 if joints[ROOT, 0] > 0 else -1.0
    inward = (aside * joints[:, 0]).min()
    return joints + np.array([aside * max(0.0, _OUTSIDE * joints[:, 2].max() - inward), 0.0, 0.0])


def draw_scene(
    factors: Factors,
    bodies: list[Body],
    sides: list[str],
    wall: Wall,
    K: np.ndarray,
    size: int,
    turn: np.ndarray | None = None,
    looks: list[Look] | None = None,
) -> Raster:
    """Draw bodies in a camera's frame, with the factors' skin, size and light.

    Args:
        factors: what all bodies were made from.
        bodies: hands with their arms.
        sides: one of `synthhand.render.raster.WHOSE` per body.
        wall: the background.
        K: (3, 3) camera.
        size: side of the frame, px.
        turn: (3, 3) from the frame that the factors' light is given in to the camera's, if they differ.
        looks: the look of each body; None gives all the factors' skin.
    """
    scene = factors.scene
    key, fill = scene.key_direction, scene.fill_direction
    if turn is not None:
        key, fill = turn @ key, turn @ fill
    light = Light(
        key, scene.key_colour, scene.key_width, scene.sky_colour, scene.ground_colour, fill, scene.fill_colour
    )
    radii = flesh_radii() * scene.size
    seen = factors.appearance if looks is None else looks
    return draw_bodies(procedural_rig(), bodies, sides, seen, light, wall, K, size, radii)


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
    if size < LEAST_PX:
        raise ValueError(f"size is {size}, expected at least {LEAST_PX} pixels")
    scene = factors.scene
    side, other = ("left", "right") if scene.left else ("right", "left")
    K = camera_matrix(factors, size)
    first, second = build_hand(factors), build_second_hand(factors) if scene.second_shown else None
    if picture is None:
        detail = factors.world.detail
        if detail is None or BACKGROUNDS[detail.kind] == "none":
            picture = paint_backdrop(scene.wall_seed, size, backgrounds)
        else:
            picture = paint_detail(BACKGROUNDS[detail.kind], detail.seed, size, backgrounds)
    wall = Wall(picture, scene.wall_mm, tuple(scene.wall_slope))
    first, look = _dress(first, factors, K)
    roles = [_Role(first, side, look)]
    if second is not None:
        roles.append(beside := _Role(second, other, factors.appearance))
    outcomes: dict[str, np.ndarray] = {}
    if factors.world.held is not None:
        thing, outcomes = _place_held(factors.world.held, factors, first, K, backgrounds)
        roles += thing
    if factors.world.company is not None:
        others, skins, found = place_company(factors.world.company, first, K, size)
        roles += [_Role(body, "person", skin) for body, skin in zip(others, skins, strict=True)]
        outcomes |= found

    def draw() -> Raster:
        bodies, sides, looks = zip(*((role.body, role.side, role.look) for role in roles), strict=True)
        return draw_scene(factors, list(bodies), list(sides), wall, K, size, looks=list(looks))

    raster = draw()
    if raster.hidden > MOST_COVERED:
        roles = [role for role in roles if role.side != "thing"]
        raster = draw()
        outcomes |= _describe_held(None)
    if second is not None and _count(raster, other) >= _count(raster, side):
        second = None
        roles.remove(beside)
        raster = draw()
    if factors.world.held is not None:
        outcomes["held/covered"] = np.asarray(raster.hidden)

    if factors.world.camera is None:
        image = develop(raster.colour, scene, size)
    else:
        exposed, tones = set_camera(scene, factors.world.camera)
        image = finish(develop(raster.colour, exposed, size, tones), factors.world.camera)
    own = image.reshape(-1, 3).take(np.flatnonzero(hand_pixels(raster.mask, side)), axis=0)
    colour = np.ascontiguousarray(own.T).mean(1) / 255 if len(own) else np.zeros(3)
    hands = {side: (first.joints_mm, raster.visible[0])}
    if second is not None:
        hands[other] = (second.joints_mm, raster.visible[1])
    else:
        hands[other] = (hidden_joints_mm(factors), np.zeros(JOINTS, bool))
    joints = np.concatenate([hands[s][0][RHD_ORDER] for s in ("left", "right")])
    visible = np.concatenate([hands[s][1][RHD_ORDER] for s in ("left", "right")])
    uv_vis = np.concatenate([project(joints, K), visible[:, None]], axis=1)
    shown = second is not None
    return Rendering(image, raster.depth_mm, raster.mask, joints, uv_vis, K, side, colour, shown, outcomes)


@dataclass(frozen=True, eq=False)
class _Role:
    """A body that is drawn: whose it is (one of `synthhand.render.raster.WHOSE`), and its look."""

    body: Body
    side: str
    look: Look


def _dress(hand: Body, factors: Factors, K: np.ndarray) -> tuple[Body, Look]:
    """Return the hand with its sleeve, and its look with relief, rings and sleeve."""
    worn, detail = factors.world.worn, factors.world.detail
    look: Look = factors.appearance
    if detail is not None:
        mm_per_px = float(hand.joints_mm[ROOT, 2] / K[0, 0])
        look = Dressed(factors.appearance, relief=detail.relief, mm_per_px=mm_per_px)
    if worn is not None:
        bare = look if isinstance(look, Dressed) else Dressed(factors.appearance)
        look = replace(bare, rings=worn.rings, ring_colour=worn.ring_colour)
        if worn.sleeve:
            cloth, scale = sample_cloth(np.random.default_rng(worn.seed))
            look = replace(look, cloth=cloth, px_per_mm=scale, cuff_mm=worn.cuff_mm)
            hand = dress_body(hand, worn.cuff_mm, worn.loose_mm * factors.scene.size)
    return hand, look


def _count(raster: Raster, side: str) -> int:
    """Return the number of pixels of one hand."""
    return int(np.sum(hand_pixels(raster.mask, side)))


def _place_held(
    held: Held, factors: Factors, hand: Body, K: np.ndarray, backgrounds: Path | None
) -> tuple[list[_Role], dict[str, np.ndarray]]:
    """Return the thing of the factors as a role, if it has a place, and what became of it."""
    scene = factors.scene
    mode, kind = MODES[held.mode], KINDS[held.kind]
    if mode == "none":
        return [], _describe_held(None)
    rng = np.random.default_rng(held.seed)
    thing = make_thing(kind, rng, held.size * scene.size)
    place = place_thing(thing, kind, mode, rng, hand, flesh_radii() * scene.size, bool(scene.left))
    if place is None:
        return [], _describe_held(None)
    look = sample_material(rng, thing, float(place.centre_mm[2] / K[0, 0]), backgrounds)
    return [_Role(build_thing(thing, place.rotation, place.centre_mm), "thing", look)], _describe_held(place)


def _describe_held(place: Place | None) -> dict[str, np.ndarray]:
    """Return what became of a thing: whether it is shown, its place, and how much flesh it touches."""
    if place is None:
        place, shown = Place(np.zeros((3, 3)), np.zeros(3), 0.0, 0), 0
    else:
        shown = 1
    return {
        "held/shown": np.asarray(shown),
        "held/rotation": place.rotation,
        "held/centre_mm": place.centre_mm,
        "held/contacts": np.asarray(place.contacts),
    }


def hand_pixels(part_mask: np.ndarray, side: str) -> np.ndarray:
    """Return the pixels (h, w) of one hand, palm to finger tips, in a mask of RHD ids."""
    low, high = LEFT_IDS if side == "left" else RIGHT_IDS
    return (part_mask >= low) & (part_mask <= high)
