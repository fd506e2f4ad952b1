"""Joints to a posed hand: round trip, SciPy's bounded least squares, and unusual input."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from synthhand.dataset.writer import sample_factors
from synthhand.model.kinematics import SCALES, VALUES, Pose, Solver, fit_mesh, make_meshes, solve
from synthhand.model.pose import (
    ANGLES,
    CMC_TWIST,
    LIMITS_DEG,
    MCP,
    gesture_angles,
    limits_deg,
    segment_rotations,
)
from synthhand.model.procedural import procedural_rig
from synthhand.model.rig import pose_vertices, resize_joints, segment_frames, segment_motion
from synthhand.skeleton import REFERENCE_BONE

RIG = procedural_rig()


def synthhand_joints(count: int, seed: int = 0) -> np.ndarray:
    """Joints (count, 21, 3), mm, of SynthHand's poses and proportions, half a metre from the camera."""
    found = []
    for index in range(count):
        factors = sample_factors(seed, "train", index, "sphere").flat()
        rest, _ = resize_joints(RIG, factors["pose/palm_scale"], factors["pose/bone_scale"])
        angles, orientation = factors["pose/articulation"], factors["pose/orientation"]
        _, _, posed = segment_motion(rest, segment_rotations(RIG, angles, orientation))
        found.append(posed + np.array([10.0, 20.0, 500.0]))
    return np.stack(found)


def noisy_joints(count: int, sigma_mm: float = 6.0) -> np.ndarray:
    joints = synthhand_joints(count, seed=1)
    return joints + sigma_mm * np.random.default_rng(0).normal(size=joints.shape)


def check_sound(pose: Pose):
    """Finite, within the limits, and rotations that are rotations."""
    for name, part in pose._asdict().items():
        assert np.isfinite(part).all(), name
    degrees = np.degrees(pose.angles)
    assert (degrees >= LIMITS_DEG[:, 0] - 1e-9).all() and (degrees <= LIMITS_DEG[:, 1] + 1e-9).all()
    for scale in (pose.bone_scale, pose.palm_scale):
        assert (scale >= SCALES[0]).all() and (scale <= SCALES[1]).all()
    unit = np.broadcast_to(np.eye(3), pose.rotations.shape)
    assert_allclose(pose.rotations @ pose.rotations.swapaxes(2, 3), unit, atol=1e-7, rtol=0)
    assert (np.linalg.det(pose.rotations) > 0).all()


def distances(pose: Pose, joints: np.ndarray) -> np.ndarray:
    return np.linalg.norm(pose.joints_mm - joints, axis=2)


def test_a_rigs_joints_come_back():
    joints = synthhand_joints(150)
    pose = solve(RIG, joints)
    check_sound(pose)
    assert distances(pose, joints).mean() < 0.1
    assert distances(pose, joints).mean(1).max() < 2.0
    lengths = np.linalg.norm(joints[:, 10] - joints[:, 9], axis=1)
    assert_allclose(pose.bone_lengths_mm()[:, 9], lengths, rtol=0.01, atol=0.1)
    closed_form = solve(RIG, joints, steps=0)
    check_sound(closed_form)
    assert 0.1 < distances(closed_form, joints).mean() < 5.0


def test_angles_of_a_gesture_are_found():
    for name in ("open", "relaxed", "claw", "victory"):
        angles = gesture_angles(name)
        rotations = segment_rotations(RIG, angles, Rotation.random(rng=3).as_matrix())
        _, _, posed = segment_motion(RIG.joints_mm, rotations)
        pose = solve(RIG, posed[None], steps=10)
        found = np.degrees(pose.angles[0])
        seen = np.delete(np.arange(ANGLES), CMC_TWIST)  # which shows only where the thumb is bent
        assert_allclose(found[seen], np.degrees(angles)[seen], atol=3.0)
        assert_allclose(pose.orientation[0], rotations[0], atol=0.03, rtol=0)


def test_refinement_is_bounded_least_squares():
    """Against SciPy's trust-region solver on the same residuals, from the same closed form."""
    joints, solver = noisy_joints(4), Solver.of(RIG)
    pose = solve(RIG, joints, steps=40)
    free = np.full(6, np.inf)
    bounds = np.concatenate([solver.low, -free]), np.concatenate([solver.high, free])
    for hand in range(len(joints)):
        target = joints[hand : hand + 1]

        def residuals(x, target=target):
            values, turn, wrist = np.split(x[None], [VALUES, VALUES + 3], axis=1)
            found = solver.pose(values, Rotation.from_rotvec(turn).as_matrix(), wrist)
            return np.concatenate([(found.joints_mm - target).ravel(), solver.priors(found).ravel()])

        x0 = np.concatenate(
            [
                solver.values(pose)[hand].clip(solver.low + 1e-6, solver.high - 1e-6),
                Rotation.from_matrix(pose.orientation[hand]).as_rotvec(),
                pose.wrist_mm[hand],
            ]
        )
        oracle = least_squares(residuals, x0, bounds=bounds, method="trf", max_nfev=60)
        ours = solver.error(pose, joints)[hand]
        assert ours <= 1.02 * 2 * oracle.cost


def test_derivatives_are_those_of_the_joints():
    """Against central differences."""
    pose, solver = solve(RIG, noisy_joints(3), steps=1), Solver.of(RIG)
    found = solver.jacobian(pose)
    values, small = solver.values(pose), 1e-5

    def joints(change):
        turned = Rotation.from_rotvec(change[VALUES : VALUES + 3]).as_matrix() @ pose.orientation
        moved = solver.pose(values + change[:VALUES], turned, pose.wrist_mm + change[VALUES + 3 :])
        return moved.joints_mm.reshape(3, -1)

    expected = [(joints(change) - joints(-change)) / (2 * small) for change in small * np.eye(VALUES + 6)]
    assert_allclose(found, np.stack(expected, axis=2), atol=1e-6)


def test_the_mesh_is_that_of_the_rig():
    pose = solve(RIG, synthhand_joints(20))  # more than go at once
    shape = np.random.default_rng(0).normal(size=(20, len(RIG.shape_names)))
    for coefficients in (None, shape):
        meshes = make_meshes(RIG, pose, coefficients)
        assert meshes.shape == (20, len(RIG.vertices_mm), 3) and meshes.dtype == np.float32
        for hand in (0, 17):
            expected, _ = pose_vertices(
                RIG,
                segment_rotations(RIG, pose.angles[hand], pose.orientation[hand]),
                None if coefficients is None else coefficients[hand],
                pose.palm_scale[hand],
                pose.bone_scale[hand],
            )
            assert_allclose(meshes[hand], expected + pose.wrist_mm[hand], atol=2e-3)
    assert make_meshes(RIG, solve(RIG, np.zeros((0, 21, 3)))).shape == (0, len(RIG.vertices_mm), 3)


def test_a_fitted_mesh_has_the_stated_reference_bone():
    joints = synthhand_joints(3)
    for bone_mm in (15.0, 30.0):
        vertices, found = fit_mesh(RIG, joints, bone_mm)
        lengths = np.linalg.norm(np.subtract(*found[:, REFERENCE_BONE].swapaxes(0, 1)), axis=1)
        assert_allclose(lengths, bone_mm)
        tips = np.linalg.norm(vertices[:, :, None] - found[:, None, 4::4], axis=3).min(axis=1)
        assert (tips < 0.5 * bone_mm).all()  # the flesh is where the joints are


def test_a_hand_may_lie_anywhere():
    joints = noisy_joints(6)
    turn, shift = Rotation.random(rng=5).as_matrix(), np.array([100.0, -50.0, 700.0])
    here, there = solve(RIG, joints, steps=25), solve(RIG, joints @ turn.T + shift, steps=25)
    assert_allclose(there.joints_mm, here.joints_mm @ turn.T + shift, atol=1e-2, rtol=0)


def test_what_no_hand_can_do_is_met_at_the_limits():
    """Fingers bent to the back of the hand: the nearest pose has them at their limit."""
    angles = gesture_angles("open")
    angles[MCP] = np.radians(-50)
    _, _, posed = segment_motion(RIG.joints_mm, segment_rotations(RIG, angles, np.eye(3)))
    pose = solve(RIG, posed[None])
    check_sound(pose)
    assert_allclose(np.degrees(pose.angles[0, MCP]), -20.0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_degenerate_hands_give_finite_ones(dtype):
    joints = synthhand_joints(1)[0]
    collapsed, flat = joints.copy(), joints.copy()
    collapsed[5:9] = joints[5]
    flat[:, 2] = 0.0
    mirrored, line = joints * [-1.0, 1, 1], np.arange(21)[:, None] * [1.0, 2.0, 3.0]
    points = np.zeros((21, 3)), np.full((21, 3), 7.0)
    hands = [*points, collapsed, mirrored, flat, line, 1e4 * joints, 1e-4 * joints]
    pose = solve(RIG, np.stack(hands).astype(dtype))
    check_sound(pose)
    assert np.isfinite(make_meshes(RIG, pose)).all()
    assert distances(pose, joints[None]).mean(1)[2] < 25.0  # the fingers that are there, and a short one


@settings(deadline=None, max_examples=25)
@given(arrays(np.float64, (2, 21, 3), elements=st.floats(-1e4, 1e4)))
def test_any_finite_joints_give_a_sound_pose(joints):
    check_sound(solve(RIG, joints, steps=3))


def test_other_shapes_and_values_that_are_not_finite_are_named():
    with pytest.raises(ValueError, match=r"expected joints \(b, 21, 3\), found \(21, 3\)"):
        solve(RIG, np.zeros((21, 3)))
    joints = np.zeros((3, 21, 3))
    joints[1, 4, 2] = np.nan
    with pytest.raises(ValueError, match=r"joints of hand\(s\) \[1\] are not finite"):
        solve(RIG, joints)


def test_limits_follow_the_rest_of_another_rig():
    """A rig that rests with bent fingers: its limits count from there."""
    angles = gesture_angles("relaxed")
    turned, _, rest = segment_motion(RIG.joints_mm, segment_rotations(RIG, angles, np.eye(3)))
    palmar = np.einsum("sij,sj->si", turned, RIG.frames[:, :, 1])
    bent = dataclasses.replace(RIG, joints_mm=rest, frames=segment_frames(rest, palmar))
    assert limits_deg(RIG) is LIMITS_DEG
    moved = LIMITS_DEG - limits_deg(bent)
    assert_allclose(moved, np.degrees(angles)[:, None].repeat(2, axis=1), atol=1e-6)
    straight = RIG.joints_mm[None]  # the built-in rest, reached from there
    assert distances(solve(bent, straight), straight).mean() < 1.5
