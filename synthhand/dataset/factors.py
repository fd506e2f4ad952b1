"""What varies in SynthHand: four groups of factors, drawn independently of each other.

    pose        articulation, orientation, bone proportions: all that fixes the 21 normalised joints. (The
                paper calls bone length "shape" but decodes all joints from the pose block: here it is pose.)
    shape       flesh, given the skeleton
    appearance  skin, nails, sleeve
    scene       which hand, where, camera, light, background, image quality, a second hand, overall size

Each group of each sample has its own random stream, keyed by (seed, split, index, group). Any subset, order
or number of workers gives the same factors, and one group can be drawn again without changing the others.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np

from synthhand.model.pose import random_rotation, sample_articulation, sample_orientation, sample_wrist
from synthhand.model.procedural import SHAPE_NAMES, flesh_radii, procedural_rig
from synthhand.model.rig import PHALANGES, resize_joints
from synthhand.render.appearance import BANDS, Skin

SPLITS = ("train", "val", "test")
GROUPS = ("pose", "shape", "appearance", "scene")
FRAME_PX = 320  # the frame size that pixel factors are given for


@dataclass(frozen=True)
class PoseFactors:
    """All that the normalised joints depend on, as of a right hand.

    Attributes:
        articulation: (22,) joint angles, radians (see `synthhand.model.pose`).
        orientation: (3, 3) from the rest frame to the camera frame.
        palm_scale: (2,) width and length of the palm over those of the mean hand.
        bone_scale: (15,) the same for the phalanges.
        wrist: (2,) flexion and deviation of the arm, radians; it moves no joint.
        gesture: index of the gesture the articulation started from (`synthhand.model.pose.GESTURE_NAMES`).
    """

    articulation: np.ndarray
    orientation: np.ndarray
    palm_scale: np.ndarray
    bone_scale: np.ndarray
    wrist: np.ndarray
    gesture: int


@dataclass(frozen=True)
class ShapeFactors:
    """Flesh: `coefficients` (10,) of the rig's shape fields (`synthhand.model.procedural.SHAPE_NAMES`)."""

    coefficients: np.ndarray


@dataclass(frozen=True)
class SceneFactors:
    """Hand side, place, camera, light, background, picture quality, a second hand, overall size.

    Attributes:
        left: 1 for a left hand.
        focal_px: focal length at a frame of 320 px.
        root_uv: (2,) pixel of the middle MCP in a frame of 320 px; a left hand is mirrored there.
        root_mm: depth of the middle MCP.
        size: overall size of the hand, 1 = average adult.
        arm_angle: direction in which an arm seen end-on leaves the frame, radians.
        key_direction, key_colour, key_width, sky_colour, ground_colour, fill_direction, fill_colour: see
            `synthhand.render.light.Light`.
        wall_seed, wall_mm, wall_slope: background picture, its depth and slant.
        exposure, white_balance: brightness factor of the camera, and its factors (3,) of red, green, blue.
        vignette: share of light that is lost in the corners of the frame.
        blur_px, motion_px, noise, jpeg_quality, noise_seed: image quality at 320 px: blur of the lens, shift
            (2,) of the picture while it is taken, noise; quality 100 means no JPEG.
        second_shown: 1 if a second hand, of the other side and farther away, was placed in the frame.
        second_uv, second_mm, second_articulation, second_orientation, second_wrist, second_arm_angle: as
            above, for the second hand.
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
    """All factors of one sample; `dataclasses.replace` swaps a group."""

    pose: PoseFactors
    shape: ShapeFactors
    appearance: Skin
    scene: SceneFactors

    def flat(self) -> dict[str, np.ndarray]:
        """Return every factor as a named array, `group/name`."""
        return {
            f"{group}/{field.name}": np.asarray(getattr(part, field.name))
            for group, part in ((group, getattr(self, group)) for group in GROUPS)
            for field in dataclasses.fields(part)
        }


def sample_factors(seed: int, split: str, index: int, viewpoint: str = "sphere") -> Factors:
    """Sample the factors of sample `index` of a split; they depend on the arguments alone.

    Args:
        seed: 0 or more, of the dataset.
        split: one of `SPLITS`.
        index: 0 or more, of the sample.
        viewpoint: from where the hand is seen, see `synthhand.model.pose.sample_orientation`.

    Raises:
        ValueError: unknown split or viewpoint, or a negative seed or index.
    """
    return Factors(*(sample_group(group, seed, split, index, viewpoint) for group in GROUPS))


def sample_group(group: str, seed: int, split: str, index: int, viewpoint: str = "sphere"):
    """Sample one group of `sample_factors`: `PoseFactors`, `ShapeFactors`, `Skin` or `SceneFactors`."""
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; choose one of {', '.join(SPLITS)}")
    if seed < 0 or index < 0:
        raise ValueError(f"seed is {seed} and index {index}; both must be 0 or more")
    rng = random_stream(seed, SPLITS.index(split), index, GROUPS.index(group))
    if group == "pose":
        return _sample_pose(rng, viewpoint)
    return {"shape": _sample_shape, "appearance": _sample_appearance, "scene": _sample_scene}[group](rng)


def random_stream(seed: int, *key: int) -> np.random.Generator:
    """Return the random stream of a key, independent of the streams of all other keys and seeds."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def _sample_pose(rng: np.random.Generator, viewpoint: str) -> PoseFactors:
    # Proportions without overall size, which is a factor of the scene. Phalanges vary between adults by 7 to
    # 16 % (deviation over mean, overall size included): Buryanov and Kotiuk, "Proportions of Hand Segments",
    # doi:10.4067/S0717-95022010000300015.
    palm = np.exp(rng.normal(size=2) * [0.045, 0.04])
    fingers = np.exp(0.04 * rng.normal() + 0.028 * rng.normal(size=5))
    bones = np.repeat(fingers, 3) * np.exp(0.02 * rng.normal(size=len(PHALANGES)))
    joints, _ = resize_joints(procedural_rig(), palm, bones)
    angles, gesture = sample_articulation(rng, procedural_rig(), joints, flesh_radii())
    orientation = sample_orientation(rng, viewpoint)
    return PoseFactors(angles, orientation, palm, bones, sample_wrist(rng, orientation), gesture)


def _sample_shape(rng: np.random.Generator) -> ShapeFactors:
    return ShapeFactors(rng.normal(size=len(SHAPE_NAMES)).clip(-2.5, 2.5))


def _sample_appearance(rng: np.random.Generator) -> Skin:
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
    """Sample linear RGB (3,), mostly muted, as clothes are."""
    return (rng.uniform(0.1, 0.95) ** 2.2 * np.exp(rng.uniform(0.05, 0.6) * rng.normal(size=3))).clip(
        0.01, 0.9
    )


def _sample_scene(rng: np.random.Generator) -> SceneFactors:
    focal = float(rng.uniform(260, 310))
    size = _sample_size(rng)
    # Smaller hands are nearer to the camera, so that they cover as many pixels.
    distance = float(size * np.exp(rng.uniform(np.log(310), np.log(720))))
    extent = 105 * size * focal / distance  # how far the hand reaches from its middle MCP, px
    room = max(18.0, 152 - 0.85 * extent)
    key = rng.normal(size=3) + np.array([0.0, -0.9, -1.0])
    warm = rng.normal() * 0.12
    key_level = float(np.exp(rng.uniform(np.log(0.35), np.log(1.3))))
    ambient = float(np.exp(rng.uniform(np.log(0.18), np.log(0.8))))
    sky = ambient * np.exp(rng.normal(size=3) * 0.08 + warm * np.array([-0.6, 0, 0.6]))
    fill = rng.normal(size=3) + np.array(
        [0.0, 0.0, 0.5]
    )  # more often beside or behind the hand than before it
    fill_level = key_level * rng.uniform(0.05, 0.6) * float(rng.random() < 0.6)
    motion, heading = max(0.0, rng.uniform(-9.0, 4.5)), rng.uniform(0, 2 * np.pi)
    # Cameras meter the light: exposure makes up for half of its variation, in stops.
    metered = (0.7 / (0.6 * key_level + 0.7 * ambient + 0.3 * fill_level)) ** 0.5
    balance = np.exp(0.06 * rng.normal() * np.array([1.0, 0.0, -1.0]) + 0.02 * rng.normal(size=3))
    joints = procedural_rig().joints_mm
    second_articulation, _ = sample_articulation(rng, procedural_rig(), joints, flesh_radii())
    second_orientation = random_rotation(rng)
    second_shown = rng.random() < 0.35
    second_distance = distance * rng.uniform(1.35, 2.2)
    if second_shown:
        second_uv = rng.uniform(20, 300, size=2)
    else:  # out of the frame
        second_uv = np.array([-160.0 - rng.uniform(0, 200) * 300 / second_distance, rng.uniform(0, 320)])
    return SceneFactors(
        left=int(rng.random() < 0.5),
        focal_px=focal,
        root_uv=160 + room * rng.uniform(-1, 1, size=2),
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
    """Sample a size, 1 = average adult: 70 % are adults, the others children from about five years on."""
    if rng.random() < 0.7:
        return float(np.exp(0.07 * rng.normal()).clip(0.82, 1.2))
    return float(rng.uniform(0.65, 0.95))
