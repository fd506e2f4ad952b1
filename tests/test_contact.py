"""Contact between capsules: segment distances against brute force, and agreement with the mesh."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import lsq_linear

from synthhand.model.contact import overlap_mm, segment_distance
from synthhand.model.pose import ANGLES, gesture_angles, segment_rotations
from synthhand.model.procedural import flesh_radii, procedural_rig

RIG = procedural_rig()
SEEDS = st.integers(0, 2**32 - 1)


@given(SEEDS)
@settings(max_examples=60)
def test_distance_of_segments_agrees_with_least_squares(seed):
    rng = np.random.default_rng(seed)
    p, q, u, v = rng.normal(size=(4, 5, 3)) * rng.choice([1.0, 30.0], size=(4, 1, 1))
    distance, s, t = segment_distance(p, q, u, v)
    gap = (p + s[:, None] * (q - p)) - (u + t[:, None] * (v - u))
    np.testing.assert_allclose(np.linalg.norm(gap, axis=1), distance, rtol=1e-9, atol=1e-9)
    for k in range(5):
        best = lsq_linear(np.stack([q[k] - p[k], u[k] - v[k]], axis=1), u[k] - p[k], (0, 1), tol=1e-12)
        assert distance[k] == pytest.approx(np.sqrt(2 * best.cost), rel=1e-4, abs=1e-5)


def test_parallel_segments_are_no_exception():
    p, q = np.zeros((1, 3)), np.array([[10.0, 0, 0]])
    shift = np.array([[3.0, 4.0, 0]])
    assert segment_distance(p, q, p + shift, q + shift)[0] == pytest.approx(4)


def overlap(angles):
    return overlap_mm(RIG, RIG.joints_mm, flesh_radii(), segment_rotations(RIG, angles, np.eye(3)))


def test_thicker_flesh_overlaps_more():
    rotations = segment_rotations(RIG, gesture_angles("fist"), np.eye(3))
    thin, thick = (overlap_mm(RIG, RIG.joints_mm, k * flesh_radii(), rotations) for k in (1.0, 1.2))
    assert thick > thin + 1


def test_a_global_rotation_changes_no_overlap():
    angles = gesture_angles("pinch")
    turn = np.array([[0, -1.0, 0], [0, 0, -1.0], [1.0, 0, 0]])
    rotations = segment_rotations(RIG, angles, turn)
    assert overlap_mm(RIG, RIG.joints_mm, flesh_radii(), rotations) == pytest.approx(overlap(angles))


def test_a_fingertip_driven_into_the_palm_is_noticed():
    angles = np.zeros(ANGLES)
    assert overlap(angles) < 0
    angles[8:12] = np.radians([92, 0, 115, 60])  # the ring finger, more than it can do
    assert overlap(angles) > 3
