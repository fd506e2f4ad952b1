"""One SynthHand hand before STB's four cameras: what each of them sees, and where the joints are.

As in STB, a sequence shows one person before one background under one light, and each frame has a pose of
its own. Unlike STB, it has no movement from frame to frame, and no noise and holes of the depth camera.
"""

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from synthhand.dataset.factors import FRAME_PX, GROUPS, SPLITS, Factors, random_stream, sample_group
from synthhand.dataset.lens import develop
from synthhand.dataset.scene import build_hand, draw_scene
from synthhand.formats.stb import FRAMES, SEQUENCES, TEST_SEQUENCES, WINDOW_MM
from synthhand.formats.stb_cameras import (
    BASELINE_MM,
    COLOUR_TO_DEPTH,
    K_BB,
    K_COLOUR,
    K_DEPTH,
    SIZE,
    TRANSLATION_MM,
    encode_depth,
    rodrigues,
)
from synthhand.model.body import Body
from synthhand.model.rig import FOREARM_PART
from synthhand.pinhole import Array
from synthhand.render.backdrop import paint_backdrop
from synthhand.render.raster import Raster
from synthhand.render.wall import Wall

# How BB stands to SK is not published. Here BB stands a little behind SK and to its right, and looks at what
# is before SK: X_left = COLOUR_TO_LEFT (X_colour - LEFT_CAMERA_MM).
COLOUR_TO_LEFT = rodrigues([0.0, 0.235, 0.0])
LEFT_CAMERA_MM = np.array([90.0, -10.0, -100.0])

_SQUARE = max(SIZE)
_ROWS = slice((_SQUARE - SIZE[0]) // 2, (_SQUARE + SIZE[0]) // 2)
_ASIDE_MM = np.array([45.0, 30.0])  # how far the middle of the hand may be from the colour camera's axis
_MARGIN_MM = 4.0  # between hand and ends of the window
_LARGEST = 1.1  # overall size of the largest hand: any pose of it fits into the window
_WALL_DISPARITY_PX = (45, 105)  # of the background between BB's two cameras: it is 0.9 to 2.2 m away


def sample_frame(
    seed: int, sequence: str, number: int, viewpoint: str = "sphere", flesh: str = "realistic"
) -> tuple[Factors, Body]:
    """Sample the factors of a frame, and the left hand they describe in the frame of SK's colour camera.

    Args:
        seed: 0 or more, of the dataset.
        sequence: one of STB's; it fixes the person, the light and the background.
        number: of the frame; it fixes the pose and the place.
        viewpoint: from where the hand is seen, see `synthhand.model.pose.sample_orientation`.
        flesh: range of flesh and bone proportions, see `synthhand.dataset.flesh`.
    """
    split, place = "test" if sequence in TEST_SEQUENCES else "train", SEQUENCES.index(sequence)
    person = {group: sample_group(group, seed, split, place, viewpoint, flesh) for group in GROUPS}
    frame = place * FRAMES + number
    pose = sample_group("pose", seed, split, frame, viewpoint, flesh)
    own = person["pose"]
    rng = random_stream(seed, SPLITS.index(split), frame, len(GROUPS))
    scene = replace(
        person["scene"],
        left=1,
        second_shown=0,
        size=min(person["scene"].size, _LARGEST),
        root_uv=np.full(2, FRAME_PX / 2),
        root_mm=float(np.mean(WINDOW_MM)),
        noise_seed=int(rng.integers(2**31)),
        wall_seed=_sample_background(seed, sequence)[0],
    )
    factors = Factors(
        replace(pose, palm_scale=own.palm_scale, bone_scale=own.bone_scale),
        person["shape"],
        person["appearance"],
        scene,
    )
    body = build_hand(factors)
    return factors, move(body, np.eye(3), _sample_shift(body, rng))


def _sample_shift(body: Body, rng: np.random.Generator) -> Array:
    """Sample a shift (3,) mm that brings the hand into the depth camera's window, near the camera's axis."""
    hand = body.vertices_mm[body.parts != FOREARM_PART]
    low, high = hand.min(axis=0), hand.max(axis=0)
    near, far = WINDOW_MM[0] - TRANSLATION_MM[2] + _MARGIN_MM, WINDOW_MM[1] - TRANSLATION_MM[2] - _MARGIN_MM
    room = max(0.0, (far - near) - (high[2] - low[2])) / 2
    middle = [*rng.uniform(-_ASIDE_MM, _ASIDE_MM), (near + far) / 2 + rng.uniform(-room, room)]
    return middle - (low + high) / 2


def move(body: Body, rotation: Array, shift_mm: Array) -> Body:
    """Turn a body, then shift it: x' = R x + t."""
    vertices = body.vertices_mm.astype(np.float64) @ rotation.T + shift_mm
    joints = body.joints_mm @ rotation.T + shift_mm
    return replace(body, vertices_mm=vertices.astype(np.float32), joints_mm=joints)


def bring_to_cameras(body: Body) -> dict[str, Body]:
    """Return a body, given in the frame of SK's colour camera, in the frame of each camera."""
    left = move(body, COLOUR_TO_LEFT, -COLOUR_TO_LEFT @ LEFT_CAMERA_MM)
    return {
        "BB_left": left,
        "BB_right": move(left, np.eye(3), np.array([-BASELINE_MM, 0, 0])),
        "SK_color": body,
        "SK_depth": move(body, COLOUR_TO_DEPTH, TRANSLATION_MM),
    }


def draw_views(
    factors: Factors, body: Body, seed: int, sequence: str, backgrounds: Path | None = None
) -> dict[str, np.ndarray]:
    """Draw what the cameras see of a body that is given in the frame of SK's colour camera.

    Both cameras of BB see one background, shifted between them by its disparity; SK sees another part of it.

    Returns:
        Pictures (480, 640, 3) uint8 as they are stored, by the names of their files.

    Raises:
        FileNotFoundError: `backgrounds` does not exist or holds no picture.
        ValueError: a picture in `backgrounds` cannot be read.
    """
    wall_seed, disparity_px = _sample_background(seed, sequence)
    wall_mm = K_BB[0, 0] * BASELINE_MM / disparity_px
    behind = _paint_background(wall_seed, backgrounds)
    # From the left camera to the right one, everything moves to the left.
    shifts = {"BB_left": 0, "BB_right": disparity_px, "SK_color": disparity_px // 2, "SK_depth": 0}
    bodies, pictures = bring_to_cameras(body), {}
    for k, (name, K) in enumerate(
        (("BB_left", K_BB), ("BB_right", K_BB), ("SK_color", K_COLOUR), ("SK_depth", K_DEPTH))
    ):
        turn = COLOUR_TO_LEFT if name.startswith("BB") else np.eye(3)
        window = behind[:_SQUARE, shifts[name] : shifts[name] + _SQUARE]
        raster = draw(factors, bodies[name], K, Wall(window, wall_mm, (0.0, 0.0)), turn)
        if name == "SK_depth":
            pictures[name] = encode_depth(raster.depth_mm[_ROWS])
        else:
            scene = replace(factors.scene, noise_seed=factors.scene.noise_seed + k)
            pictures[name] = develop(raster.colour, scene, _SQUARE)[_ROWS]
    return pictures


def draw(factors: Factors, body: Body, K: Array, wall: Wall, turn: Array) -> Raster:
    """Draw a body before a camera of 640 x 480 pixels, in a square frame that contains its picture.

    The renderer (backgrounds, shadows, lens, noise) draws squares. In a square frame whose principal point is
    80 px lower, the middle 480 rows have the same rays as the camera; the caller cuts them out.

    Args:
        factors: skin, size and light; the light's directions are in the frame of SK's colour camera.
        body: the hand in the camera's frame.
        K: (3, 3) camera of the picture of 640 x 480.
        wall: the background, square.
        turn: (3, 3) from the frame of SK's colour camera to the camera's.

    Returns:
        The whole square, (640, 640).
    """
    K_square = np.array(K)
    K_square[1, 2] += _ROWS.start
    return draw_scene(factors, [body], ["left"], wall, K_square, _SQUARE, turn)


def _sample_background(seed: int, sequence: str) -> tuple[int, int]:
    """Sample seed and disparity, px, of a background. B1Counting and B1Random share one, and so on."""
    rng = random_stream(seed, len(SPLITS), SEQUENCES.index(sequence) // 2)
    return int(rng.integers(2**31)), int(rng.integers(*_WALL_DISPARITY_PX))


@lru_cache(maxsize=2)
def _paint_background(wall_seed: int, backgrounds: Path | None) -> np.ndarray:
    return paint_backdrop(wall_seed, _SQUARE + _WALL_DISPARITY_PX[1], backgrounds)
