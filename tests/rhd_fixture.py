"""Write tiny datasets in RHD's form: spheres along the bones of one or two hands, with true depth and ids."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from synthhand.formats.rhd import encode_depth, write_annotations
from synthhand.pinhole import project
from synthhand.skeleton import BONES, RHD_ORDER, finger_of

FINGER_INDEX = {"thumb": 0, "index": 1, "middle": 2, "ring": 3, "little": 4}
BONE_RADIUS_MM = 8.0


def open_hand_mm() -> np.ndarray:
    """A flat right hand (21, 3), palm to the camera and fingers up: wrist at 0, thumb on the right."""
    joints = np.zeros((21, 3))
    # (x, y) of the root joint, direction, bone lengths; y is down
    fingers = {
        1: ((25, -20), (0.75, -0.66), (38, 30, 25)),
        5: ((24, -85), (0.2, -0.98), (40, 24, 20)),
        9: ((4, -90), (0.03, -1.0), (45, 28, 22)),
        13: ((-14, -84), (-0.1, -0.99), (40, 26, 21)),
        17: ((-30, -74), (-0.25, -0.97), (32, 19, 18)),
    }
    for first, (start, direction, lengths) in fingers.items():
        steps = np.concatenate([[0], np.cumsum(lengths)])
        joints[first : first + 4, :2] = np.array(start) + steps[:, None] * np.array(direction)
        joints[first : first + 4, 2] = -0.15 * steps  # fingers bend a little towards the camera
    return joints


def rotation(rng: np.random.Generator) -> np.ndarray:
    """A uniformly random rotation (3, 3)."""
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return q * np.linalg.det(q)


@dataclass
class Scene:
    """What one sample shows. `hands` maps side to joints (21, 3) mm in the camera frame, davae order."""

    hands: dict[str, np.ndarray]
    K: np.ndarray
    size: int = 320
    visible: np.ndarray = field(default_factory=lambda: np.ones(42))  # RHD's column, RHD order
    seed: int = 0

    def draw(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return colour (h, w, 3) uint8, part ids (h, w) uint8 and depth_mm (h, w), nearest surface first."""
        rng = np.random.default_rng(self.seed)
        coarse = rng.integers(0, 256, (self.size // 8, self.size // 8, 3), dtype=np.uint8)
        colour = np.asarray(Image.fromarray(coarse).resize((self.size, self.size))).copy()
        parts = np.zeros((self.size, self.size), np.uint8)
        parts[: self.size // 10] = 1  # some body
        depth = np.full((self.size, self.size), 1500.0)
        for side, joints in self.hands.items():
            for parent, child in BONES:
                for t in np.linspace(0, 1, 6):
                    point = (1 - t) * joints[parent] + t * joints[child]
                    self._sphere(point, _part_id(side, parent, child), colour, parts, depth)
        return colour, parts, depth

    def _sphere(self, centre, part, colour, parts, depth):
        """Draw one sphere as a disc with the sphere's front depth, where it is nearest."""
        u, v = project(centre, self.K)
        radius = self.K[0, 0] * BONE_RADIUS_MM / centre[2]
        low = np.maximum(np.floor([v - radius, u - radius]).astype(int), 0)
        high = np.minimum(np.ceil([v + radius, u + radius]).astype(int) + 1, self.size)
        if (high <= low).any():
            return
        rows, columns = np.mgrid[low[0] : high[0], low[1] : high[1]]
        bump = 1 - ((columns - u) ** 2 + (rows - v) ** 2) / radius**2
        front = centre[2] - BONE_RADIUS_MM * np.sqrt(np.maximum(bump, 0))
        window = np.s_[low[0] : high[0], low[1] : high[1]]
        nearer = (bump > 0) & (front < depth[window])
        depth[window][nearer] = front[nearer]
        parts[window][nearer] = part
        shade = 0.4 + 0.6 * np.sqrt(np.maximum(bump, 0))
        colour[window][nearer] = (shade[..., None] * np.array([210, 160, 130]))[nearer].astype(np.uint8)

    def annotation(self) -> dict[str, np.ndarray]:
        """Return the sample's entry of the annotation pickle; an absent hand sits far away at (0, 0, 1) m."""
        xyz = np.tile(np.array([0, 0, 1000.0]), (42, 1))
        for side, joints in self.hands.items():
            first = 0 if side == "left" else 21
            xyz[first : first + 21] = joints[RHD_ORDER]
        uv_vis = np.concatenate([project(xyz, self.K), self.visible[:, None]], axis=1)
        return {
            "xyz": (xyz / 1000).astype(np.float32),
            "uv_vis": uv_vis.astype(np.float32),
            "K": self.K.astype(np.float32),
        }


def _part_id(side: str, parent: int, child: int) -> int:
    """RHD's id of a bone: 2-4 thumb from tip to palm, 5-7 index, ..., 17 palm; 16 more for the right hand."""
    from_tip = 3 - (child - 1) % 4
    part = 17 if parent == 0 else 2 + 3 * FINGER_INDEX[finger_of(child)] + from_tip
    return part + (16 if side == "right" else 0)


def random_scene(seed: int, *, side: str | None = None, other_hand: bool = True, size: int = 320) -> Scene:
    """A random hand, by default with the other hand, further away and hence smaller, somewhere behind it."""
    rng = np.random.default_rng(seed)
    side = side or ("left", "right")[int(rng.integers(2))]
    other = "right" if side == "left" else "left"
    flip = {"right": np.ones(3), "left": np.array([-1, 1, 1])}
    focal = rng.uniform(260, 310) * size / 320
    K = np.array([[focal, 0, size / 2], [0, focal, size / 2 + 3], [0, 0, 1]])
    hand = (open_hand_mm() - open_hand_mm()[9]) @ rotation(rng).T * flip[side]
    where = np.array([*rng.uniform(-60, 60, 2), rng.uniform(480, 600)])
    hands = {side: hand + where}
    if other_hand:
        behind = (open_hand_mm() - open_hand_mm()[9]) * flip[other]
        hands[other] = behind + np.array([*rng.uniform(-250, 250, 2), 1100])
    return Scene(hands, K, size, seed=seed)


def write_split(root: Path, folder: str, scenes: dict[int, Scene], *, factors: bool = False) -> None:
    """Write one split: color, depth, mask, the annotations, and factors.npz if asked for."""
    base = Path(root) / folder
    for kind in ("color", "depth", "mask"):
        (base / kind).mkdir(parents=True, exist_ok=True)
    for sample, scene in scenes.items():
        colour, parts, depth = scene.draw()
        Image.fromarray(colour).save(base / "color" / f"{sample:05d}.png")
        Image.fromarray(parts).save(base / "mask" / f"{sample:05d}.png")
        Image.fromarray(encode_depth(depth)).save(base / "depth" / f"{sample:05d}.png")
    annotations = {sample: scene.annotation() for sample, scene in scenes.items()}
    write_annotations(base / f"anno_{folder}.pickle", annotations)
    if factors:
        ids = np.array(sorted(scenes), np.float32)
        np.savez(base / "factors.npz", **{"pose/angles": np.stack([ids, ids + 0.5], -1), "scene/light": ids})


def write_dataset(root: Path, train: int = 5, val: int = 2, test: int = 3, *, factors: bool = True) -> Path:
    """Write a dataset of random scenes with the three folders of SynthHand; return its root."""
    for folder, count, seed in (
        ("training", train, 0),
        ("validation", val, 1000),
        ("evaluation", test, 2000),
    ):
        if count:
            scenes = {i: random_scene(seed + i) for i in range(count)}
            write_split(root, folder, scenes, factors=factors)
    return Path(root)
