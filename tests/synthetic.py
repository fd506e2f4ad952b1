"""Toy hands for the tests of figures: generated joints, clouds and pictures."""

import numpy as np
from scipy.spatial.transform import Rotation

from synthhand.skeleton import BONES, JOINTS, PARENTS

PX = 96
FOCAL = 2.0 * PX


def hand(seed: int) -> np.ndarray:
    """Normalised joints (21, 3) of a right hand from a random viewpoint, root at the origin."""
    rng = np.random.default_rng(seed)
    joints = np.zeros((JOINTS, 3))
    splay = np.radians([55, 14, 0, -12, -26])
    palm = np.array([0.9, 2.1, 2.0, 1.9, 1.8])
    lengths = np.array(
        [[1.0, 0.8, 0.6], [0.95, 0.6, 0.5], [1.0, 0.7, 0.5], [0.95, 0.65, 0.5], [0.75, 0.5, 0.45]]
    )
    for finger in range(5):
        base = 1 + 4 * finger
        along = np.array([np.sin(splay[finger]), -np.cos(splay[finger]), 0.0])
        joints[base] = palm[finger] * along
        curl = rng.uniform(0, 1.0)
        for k in range(3):
            bend = curl * (k + 1)
            step = along * np.cos(bend) + np.array([0, 0, -1.0]) * np.sin(bend)
            joints[base + k + 1] = joints[base + k] + lengths[finger, k] * step
    joints = joints @ Rotation.from_rotvec(rng.normal(scale=0.7, size=3)).as_matrix().T
    joints -= joints[9]
    return joints / np.linalg.norm(joints[10] - joints[9])


def cloud(joints: np.ndarray, points: int = 500, seed: int = 0) -> np.ndarray:
    """Points (points, 3) around the bones, on the side of the camera."""
    rng = np.random.default_rng(seed)
    bone = BONES[rng.integers(0, len(BONES), points)]
    t = rng.random((points, 1))
    round_ = rng.normal(size=(points, 3))
    round_ *= 0.3 / np.linalg.norm(round_, axis=1, keepdims=True)
    round_[:, 2] = -np.abs(round_[:, 2])
    return joints[bone[:, 0]] * (1 - t) + joints[bone[:, 1]] * t + round_


def project(joints: np.ndarray) -> np.ndarray:
    """Pixels (21, 2) in the PX x PX picture."""
    xyz = joints + np.array([0, 0, 9.0])
    return FOCAL * xyz[..., :2] / xyz[..., 2:] + (PX - 1) / 2


def picture(joints: np.ndarray, seed: int = 0) -> np.ndarray:
    """A picture (PX, PX, 3) uint8 of capsules over noise."""
    rng = np.random.default_rng(seed)
    image = rng.uniform(40, 150, 3) + rng.normal(scale=8, size=(PX, PX, 3))
    v, u = np.mgrid[:PX, :PX]
    uv, tone = project(joints), rng.uniform(90, 220) * np.array([1.0, 0.78, 0.65])
    for child, parent in enumerate(PARENTS):
        a, b = uv[max(parent, 0)], uv[child]
        length = max((b - a) @ (b - a), 1e-9)
        t = np.clip(((u - a[0]) * (b - a)[0] + (v - a[1]) * (b - a)[1]) / length, 0, 1)
        near = np.hypot(u - a[0] - t * (b - a)[0], v - a[1] - t * (b - a)[1])
        shade = np.clip(4.5 - near, 0, 1)[..., None]
        image = image * (1 - shade) + tone * (1 - 0.02 * near[..., None] ** 2) * shade
    return np.clip(image, 0, 255).astype(np.uint8)


def training_log(rows: int = 150, seed: int = 0) -> dict[str, np.ndarray]:
    """Columns of a metrics.csv of a run that went well."""
    rng = np.random.default_rng(seed)
    step = np.arange(1, rows + 1) * 10.0
    ends = {"alpha_pose": (9e4, 4e3), "alpha_cloud": (8e4, 6e3), "alpha_image": (9e3, 1.2e3),
            "beta_pose": (20, 500), "beta_shape": (20, 190), "beta_appearance": (20, 120)}  # fmt: skip
    log = {"step": step}
    for name, (first, last) in ends.items():
        fall = last + (first - last) * np.exp(-step / 200)
        log[name] = fall * np.exp(rng.normal(scale=0.08, size=rows))
    log["total"] = sum(log[name] for name in ends)
    log["val_epe_mm"] = np.full(rows, np.nan)
    log["val_epe_mm"][12::12] = 22 + 30 * np.exp(-step[12::12] / 400)
    return log
