"""Hands of other people in a scene: of another look, farther than the annotated hand and smaller.

The annotated hand is always told by this: it is the nearest, and no other covers more than `LARGEST` of the
box around its joints. Masks show other people's hands as RHD's "person".
"""

from dataclasses import replace
from functools import lru_cache

import numpy as np

from synthhand.dataset.factors import sample_appearance
from synthhand.dataset.world import Company
from synthhand.model.body import Body, build_body
from synthhand.model.pose import random_rotation, sample_articulation, sample_wrist, segment_rotations
from synthhand.model.procedural import SHAPE_NAMES, flesh_radii, procedural_rig
from synthhand.model.rig import PHALANGES
from synthhand.render.appearance import Skin
from synthhand.skeleton import ROOT

LARGEST = 0.6  # area of another hand's box, of that around the annotated hand
BEHIND_MM = 110.0  # at least, so that hands do not cut into each other
_POSES = 32  # posed once per process, then turned, mirrored and scaled
_POSED_MM = np.array([0.0, 0.0, 500.0])
_ROUNDS = 5
_CELL_MM = 6.0  # see `_coarsen`


def place_company(
    company: Company, hand: Body, K: np.ndarray, size: int
) -> tuple[list[Body], list[Skin], dict[str, np.ndarray]]:
    """Return the hands of other people and their skins, and their places by name.

    Args:
        company: how many hands, and their seed.
        hand: the annotated one, in the camera's frame.
        K: (3, 3) camera.
        size: side of the frame, px.
    """
    bodies, skins, roots = [], [], np.zeros((3, 3))
    area = _box_area(hand.joints_mm, K)
    for number in range(company.count):
        rng = np.random.default_rng((company.seed, number))
        start = _pose(int(rng.integers(_POSES)))
        ratio, scale = rng.uniform(1.15, 2.4), float(np.exp(0.1 * rng.normal()))
        depth = max(ratio * hand.joints_mm[ROOT, 2], hand.joints_mm[:, 2].max() + BEHIND_MM)
        uv, turn, left = rng.uniform(-0.05, 1.05, 2) * size, rng.uniform(0, 2 * np.pi), rng.random() < 0.5
        skin = sample_appearance(rng)
        c, s = np.cos(turn), np.sin(turn)
        motion = scale * np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.diag([-1.0 if left else 1.0, 1, 1])
        for _ in range(_ROUNDS):
            root = np.append((uv - K[:2, 2]) / K[[0, 1], [0, 1]], 1.0) * depth
            if _box_area((start.joints_mm - _POSED_MM) @ motion.T + root, K) <= LARGEST * area:
                bodies.append(_move(start, motion, root))
                skins.append(skin)
                roots[number] = root
                break
            depth *= 1.3
    return bodies, skins, {"company/shown": np.asarray(len(bodies)), "company/root_mm": roots}


@lru_cache(maxsize=_POSES)
def _pose(number: int) -> Body:
    """Build a hand of any shape and pose, with its arm, on the optical axis."""
    rng, rig = np.random.default_rng((4, number)), procedural_rig()
    angles, _ = sample_articulation(rng, rig, rig.joints_mm, flesh_radii())
    orientation = random_rotation(rng)
    body = build_body(
        rig,
        segment_rotations(rig, angles, orientation, sample_wrist(rng, orientation)),
        rng.normal(size=len(SHAPE_NAMES)).clip(-2, 2),
        np.exp(0.04 * rng.normal(size=2)),
        np.exp(0.03 * rng.normal(size=len(PHALANGES))),
        size=1.0,
        root_mm=_POSED_MM,
        left=False,
        arm_angle_rad=float(rng.uniform(0, 2 * np.pi)),
    )
    return _coarsen(body)


def _coarsen(body: Body) -> Body:
    """Merge the vertices of a part that are close on the rest hand: a small hand needs fewer triangles."""
    cells = np.floor(body.rest_mm / _CELL_MM).astype(int)
    keys = np.column_stack([body.parts, cells])
    arm = len(procedural_rig().vertices_mm)  # its tube comes last, and is coarse as it is
    keys[arm:, 1] = 10_000 + np.arange(len(keys) - arm)
    _, first, of_vertex = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    faces = of_vertex.ravel()[body.faces]
    a, b, c = faces.T
    kept = (a != b) & (b != c) & (c != a)
    # Where a thin web collapsed, two triangles lie back to back and would have no normal.
    _, which, counts = np.unique(np.sort(faces, axis=1), axis=0, return_inverse=True, return_counts=True)
    kept &= counts[which.ravel()] == 1
    return replace(
        body,
        vertices_mm=body.vertices_mm[first],
        faces=np.ascontiguousarray(faces[kept], dtype=np.int32),
        rest_mm=body.rest_mm[first],
        parts=body.parts[first],
        palmar=body.palmar[first],
    )


def _move(body: Body, motion: np.ndarray, root_mm: np.ndarray) -> Body:
    """Turn, scale and mirror a hand of `_pose` by a matrix (3, 3), and put its root elsewhere."""
    vertices = (body.vertices_mm - _POSED_MM.astype(np.float32)) @ motion.T.astype(np.float32)
    mirrored = np.linalg.det(motion) < 0
    return replace(
        body,
        vertices_mm=vertices + root_mm.astype(np.float32),
        joints_mm=(body.joints_mm - _POSED_MM) @ motion.T + root_mm,
        faces=np.ascontiguousarray(body.faces[:, ::-1]) if mirrored else body.faces,
    )


def _box_area(joints_mm: np.ndarray, K: np.ndarray) -> float:
    """Return the area, px^2, of the box around the projected joints."""
    return float(np.prod(np.ptp(joints_mm[:, :2] / joints_mm[:, 2:], axis=0)) * K[0, 0] * K[1, 1])
