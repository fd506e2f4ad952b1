"""The factors that vary in SynthHand: four groups, drawn independently of each other.

    pose        articulation, orientation, bone proportions: everything that fixes the 21 normalised joints.
                (The paper counts bone length as "shape" but decodes all joints from the pose block, so here
                bone proportions belong to pose.)
    shape       flesh around the skeleton
    appearance  skin, nails, sleeve, bracelet or watch, ring
    scene       hand side and position, camera, light, background, image quality, second hand, overall size

Each group of each sample has its own random stream, keyed by (seed, split, index, group). Factors therefore
do not depend on the subset, the order or the number of workers, and one group can be redrawn without
changing the others.
"""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from synthhand.dataset.flesh import BUILDS, Build
from synthhand.dataset.framing import frame_hand
from synthhand.dataset.world import SAMPLERS, STREAM, Framing, World, choose_world
from synthhand.model import FLESH, WORLD
from synthhand.model.pose import (
    random_rotation,
    sample_articulation,
    sample_orientation,
    sample_wrist,
    segment_rotations,
)
from synthhand.model.procedural import flesh_radii, procedural_rig
from synthhand.model.rig import FOREARM, resize_joints, segment_motion
from synthhand.render.appearance import BANDS, Skin
from synthhand.skeleton import ROOT, WRIST

SPLITS = ("train", "val", "test")
GROUPS = ("pose", "shape", "appearance", "scene")
FRAME_PX = 320  # factors in pixels refer to a frame of this side
ARM_REACH_MM = 160.0  # from the wrist to a point of the arm that must not come close to the camera
REACH_MM = 105.0  # farthest point of an average adult hand from its middle MCP


@dataclass(frozen=True)
class PoseFactors:
    """Everything that the normalised joints depend on; a left hand is described by its mirror image.

    Attributes:
        articulation: (22,) joint angles, radians (see `synthhand.model.pose`).
        orientation: (3, 3) from the rest frame to the camera frame.
        palm_scale: (2,) width and length of the palm, relative to the mean hand.
        bone_scale: (15,) lengths of the phalanges, relative to the mean hand.
        wrist: (2,) flexion and deviation of the arm, radians; they move no joint.
        gesture: index into `synthhand.model.pose.GESTURE_NAMES`: the gesture that the articulation varies.
    """

    articulation: np.ndarray
    orientation: np.ndarray
    palm_scale: np.ndarray
    bone_scale: np.ndarray
    wrist: np.ndarray
    gesture: int


@dataclass(frozen=True)
class ShapeFactors:
    """Flesh: `coefficients` (10,) of the shape fields that `synthhand.model.procedural.SHAPE_NAMES` names."""

    coefficients: np.ndarray


@dataclass(frozen=True)
class SceneFactors:
    """Hand side and position, camera, light, background, image quality, second hand, overall size.

    Attributes:
        left: 1 for a left hand.
        focal_px: focal length for a frame of `FRAME_PX`.
        root_uv: (2,) pixel of the middle MCP in a frame of `FRAME_PX`; a left hand is mirrored about it.
        root_mm: depth of the middle MCP.
        size: overall size of the hand, 1 = average adult.
        arm_angle: direction in which an arm seen end-on leaves the frame, radians.
        key_direction, key_colour, key_width, sky_colour, ground_colour, fill_direction, fill_colour: see
            `synthhand.render.light.Light`.
        wall_seed: seed of the background picture.
        wall_mm, wall_slope: depth of the background, and its slant (2,).
        exposure, white_balance: the camera's brightness factor, and its factors (3,) for red, green, blue.
        vignette: share of light lost in the corners of the frame.
        blur_px, motion_px: lens blur, and shift (2,) of the picture during the exposure, in a frame of
            `FRAME_PX`.
        noise, noise_seed: strength of the sensor noise, and its seed.
        jpeg_quality: 55 to 100; 100 means no JPEG compression.
        second_shown: 1 if a second hand, of the other side and farther away, is in the frame.
        second_uv, second_mm, second_articulation, second_orientation, second_wrist, second_arm_angle: the
            second hand's `root_uv`, `root_mm`, `articulation`, `orientation`, `wrist` and `arm_angle`.
    """

    left: int
    focal_px: float
    root_uv: np.ndarray
    root_mm: float
    size: float
    arm_angle: float
    key_direction: np.ndarray
    key_colour: np.ndarray
    key_width: float
    sky_colour: np.ndarray
    ground_colour: np.ndarray
    fill_direction: np.ndarray
    fill_colour: np.ndarray
    wall_seed: int
    wall_mm: float
    wall_slope: np.ndarray
    exposure: float
    white_balance: np.ndarray
    vignette: float
    blur_px: float
    motion_px: np.ndarray
    noise: float
    jpeg_quality: int
    noise_seed: int
    second_shown: int
    second_uv: np.ndarray
    second_mm: float
    second_articulation: np.ndarray
    second_orientation: np.ndarray
    second_wrist: np.ndarray
    second_arm_angle: float


@dataclass(frozen=True)
class Factors:
    """All factors of one sample; use `dataclasses.replace` to exchange a group."""

    pose: PoseFactors
    shape: ShapeFactors
    appearance: Skin
    scene: SceneFactors
    world: World = field(default_factory=World)

    def flat(self) -> dict[str, np.ndarray]:
        """Return all factors as a mapping from `group/name` to array; those of the world that are on."""
        return {
            f"{group}/{entry.name}": np.asarray(getattr(part, entry.name))
            for group, part in ((group, getattr(self, group)) for group in GROUPS)
            for entry in dataclasses.fields(part)
        } | self.world.flat()


def sample_factors(
    seed: int,
    split: str,
    index: int,
    viewpoint: str = "sphere",
    flesh: str = "realistic",
    world: Iterable[str] = (),
) -> Factors:
    """Sample the factors of sample `index` of a split; they depend on the arguments alone.

    Args:
        seed: seed of the dataset, 0 or more.
        split: one of `SPLITS`.
        index: number of the sample within its split, 0 or more.
        viewpoint: range of directions from which the hand is seen, see
            `synthhand.model.pose.sample_orientation`.
        flesh: range of flesh and bone proportions, see `synthhand.dataset.flesh`; appearance and scene do not
            depend on it.
        world: what of the world of photographs is switched on, see `synthhand.dataset.world`. Under "framing"
            the camera and the place of the hand follow its pose; all else is independent as before.

    Raises:
        ValueError: the split, the viewpoint, the range or the world is unknown, or the seed or the index is
            negative.
    """
    names = choose_world(world)
    pose, shape, appearance, scene = (
        sample_group(group, seed, split, index, viewpoint, flesh) for group in GROUPS
    )
    streams = {
        name: random_stream(seed, SPLITS.index(split), index, STREAM + WORLD.index(name)) for name in names
    }
    drawn: dict[str, Any] = {name: SAMPLERS[name](rng) for name, rng in streams.items()}
    factors = Factors(pose, shape, appearance, scene, World(**drawn))
    framing = factors.world.framing
    return factors if framing is None else _frame(factors, framing)


def _frame(factors: Factors, framing: Framing) -> Factors:
    """Return the factors with the camera and the place that a framing asks for.

    The second hand keeps its distance relative to the first.
    """
    pose, scene, rig = factors.pose, factors.scene, procedural_rig()
    rest, _ = resize_joints(rig, pose.palm_scale, pose.bone_scale)
    rotations = segment_rotations(rig, pose.articulation, pose.orientation, pose.wrist)
    turned, _, posed = segment_motion(rest, rotations)
    arm = posed[WRIST] + ARM_REACH_MM * turned[FOREARM, :, 1]  # the rest forearm points along +y
    view = frame_hand(scene.size * (posed - posed[ROOT]), scene.size * (arm - posed[ROOT]), framing)
    framed = dataclasses.replace(
        scene,
        focal_px=FRAME_PX * view.focal,
        root_uv=FRAME_PX * view.root,
        root_mm=view.root_mm,
        second_mm=scene.second_mm / scene.root_mm * view.root_mm,
    )
    return dataclasses.replace(factors, scene=framed)


def sample_group(
    group: str, seed: int, split: str, index: int, viewpoint: str = "sphere", flesh: str = "realistic"
):
    """Sample one group of `sample_factors`: `PoseFactors`, `ShapeFactors`, `Skin` or `SceneFactors`."""
    if flesh not in FLESH:
        raise ValueError(f"unknown flesh {flesh!r}; choose one of {', '.join(FLESH)}")
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; choose one of {', '.join(SPLITS)}")
    if seed < 0 or index < 0:
        raise ValueError(f"seed is {seed} and index {index}; both must be 0 or more")
    rng = random_stream(seed, SPLITS.index(split), index, GROUPS.index(group))
    if group == "pose":
        return _sample_pose(rng, viewpoint, BUILDS[flesh])
    if group == "shape":
        return ShapeFactors(BUILDS[flesh].sample_coefficients(rng))
    return {"appearance": sample_appearance, "scene": _sample_scene}[group](rng)


def random_stream(seed: int, *key: int) -> np.random.Generator:
    """Return a random generator for a key, independent of those for other keys and seeds."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def _sample_pose(rng: np.random.Generator, viewpoint: str, build: Build) -> PoseFactors:
    palm, bones = build.sample_bones(rng)  # proportions only; overall size belongs to the scene
    angles, gesture = build.sample_articulation(rng, palm, bones)
    orientation = sample_orientation(rng, viewpoint)
    return PoseFactors(angles, orientation, palm, bones, sample_wrist(rng, orientation), gesture)


def sample_appearance(rng: np.random.Generator) -> Skin:
    """Sample one person's skin, nails and what the arm wears."""
    polish = float(rng.random() < 0.12)
    waves = rng.normal(size=(8, 3)) * rng.uniform(0.08, 0.35, size=(8, 1))
    sleeve, stripe = _sample_cloth_colour(rng), _sample_cloth_colour(rng)
    band = int(rng.choice(len(BANDS), p=[0.8, 0.09, 0.11]))
    metal = (0.62, 0.62, 0.64) if rng.random() < 0.5 else (0.72, 0.50, 0.20)
    return Skin(
        melanin=float(0.12 + 3.6 * rng.beta(1.0, 1.4)),
        blood=float(rng.uniform(0.12, 0.55)),
        mottling=float(rng.uniform(0.02, 0.22)),
        blotches=np.concatenate([waves, rng.uniform(0, 2 * np.pi, size=(8, 1))], axis=1),
        redness=float(rng.uniform(0.05, 0.45)),
        creases=float(rng.uniform(0.35, 1.0)),
        veins=float(max(0.0, rng.uniform(-0.4, 1.0))),
        gloss=float(rng.uniform(0.02, 0.13)),
        nail_colour=rng.uniform(0.02, 0.8, size=3),
        nail_polish=polish,
        sleeved=float(rng.random() < 0.6),
        sleeve_colour=sleeve,
        sleeve_colour_2=stripe if rng.random() < 0.35 else sleeve,
        sleeve_stripe_mm=float(rng.uniform(8, 40)),
        cuff_mm=float(rng.uniform(22, 110)),
        band=band,
        band_mm=float(rng.uniform(14, 34)),
        band_colour=np.array(metal) if rng.random() < 0.4 else _sample_cloth_colour(rng),
        ring=int(rng.integers(1, 5)) if rng.random() < 0.08 else 0,
        ring_colour=np.array(metal),
    )


def _sample_cloth_colour(rng: np.random.Generator) -> np.ndarray:
    """Sample the linear RGB (3,) of cloth; most colours are muted."""
    return (rng.uniform(0.1, 0.95) ** 2.2 * np.exp(rng.uniform(0.05, 0.6) * rng.normal(size=3))).clip(
        0.01, 0.9
    )


def _sample_scene(rng: np.random.Generator) -> SceneFactors:
    focal = float(rng.uniform(260, 310))
    size = _sample_size(rng)
    # Distance is proportional to size, so that small and large hands cover equally many pixels.
    distance = float(size * np.exp(rng.uniform(np.log(310), np.log(720))))
    reach_px = REACH_MM * size * focal / distance
    room_px = max(18.0, FRAME_PX / 2 - 8 - 0.85 * reach_px)  # largest offset of the root from the centre
    key = rng.normal(size=3) + np.array([0.0, -0.9, -1.0])
    warm = rng.normal() * 0.12
    key_level = float(np.exp(rng.uniform(np.log(0.35), np.log(1.3))))
    ambient = float(np.exp(rng.uniform(np.log(0.18), np.log(0.8))))
    sky = ambient * np.exp(rng.normal(size=3) * 0.08 + warm * np.array([-0.6, 0, 0.6]))
    # Fill light comes more often from beside or behind the hand than from the camera's side.
    fill = rng.normal(size=3) + np.array([0.0, 0.0, 0.5])
    fill_level = key_level * rng.uniform(0.05, 0.6) * float(rng.random() < 0.6)
    motion, heading = max(0.0, rng.uniform(-9.0, 4.5)), rng.uniform(0, 2 * np.pi)
    # Automatic exposure compensates for half of the variation of the light, in stops.
    metered = (0.7 / (0.6 * key_level + 0.7 * ambient + 0.3 * fill_level)) ** 0.5
    balance = np.exp(0.06 * rng.normal() * np.array([1.0, 0.0, -1.0]) + 0.02 * rng.normal(size=3))
    joints = procedural_rig().joints_mm
    second_articulation, _ = sample_articulation(rng, procedural_rig(), joints, flesh_radii())
    second_orientation = random_rotation(rng)
    second_shown = rng.random() < 0.35
    second_distance = distance * rng.uniform(1.35, 2.2)
    if second_shown:
        second_uv = rng.uniform(20, FRAME_PX - 20, size=2)
    else:  # outside the frame
        left_px = -FRAME_PX / 2 - rng.uniform(0, 200) * 300 / second_distance
        second_uv = np.array([left_px, rng.uniform(0, FRAME_PX)])
    return SceneFactors(
        left=int(rng.random() < 0.5),
        focal_px=focal,
        root_uv=FRAME_PX / 2 + room_px * rng.uniform(-1, 1, size=2),
        root_mm=distance,
        size=size,
        arm_angle=float(rng.uniform(0, 2 * np.pi)),
        key_direction=key / np.linalg.norm(key),
        key_colour=key_level * np.exp(np.array([1.0, 0.15, -1.0]) * warm),
        key_width=float(np.exp(rng.uniform(np.log(0.03), np.log(0.5)))),
        sky_colour=sky,
        ground_colour=sky * rng.uniform(0.25, 0.9) * np.exp(rng.normal(size=3) * 0.1),
        fill_direction=fill / np.linalg.norm(fill),
        fill_colour=fill_level * np.exp(0.2 * rng.normal(size=3)),
        wall_seed=int(rng.integers(2**31)),
        wall_mm=float(np.exp(rng.uniform(np.log(450), np.log(4200)))),
        wall_slope=rng.uniform(-0.25, 0.25, size=2),
        exposure=float(metered * np.exp(0.26 * rng.normal() + 0.08)),
        white_balance=balance,
        vignette=float(max(0.0, rng.uniform(-0.3, 0.45))),
        motion_px=motion * np.array([np.cos(heading), np.sin(heading)]),
        blur_px=float(max(0.0, rng.uniform(-0.4, 0.85))),
        noise=float(np.exp(rng.uniform(np.log(0.0015), np.log(0.016)))),
        jpeg_quality=int(rng.integers(55, 101)) if rng.random() < 0.7 else 100,
        noise_seed=int(rng.integers(2**31)),
        second_shown=int(second_shown),
        second_uv=second_uv,
        second_mm=float(second_distance),
        second_articulation=second_articulation,
        second_orientation=second_orientation,
        second_wrist=sample_wrist(rng, second_orientation),
        second_arm_angle=float(rng.uniform(0, 2 * np.pi)),
    )


def _sample_size(rng: np.random.Generator) -> float:
    """Sample an overall size, 1 = average adult: 70 % adults, 30 % children of about five years or more."""
    if rng.random() < 0.7:
        return float(np.exp(0.07 * rng.normal()).clip(0.82, 1.2))
    return float(rng.uniform(0.65, 0.95))
