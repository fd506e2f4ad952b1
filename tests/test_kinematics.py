"""Joints to a posed hand: there and back, against SciPy's bounded least squares, and on odd input."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation
from torch.testing import assert_close

from synthhand.dataset.writer import sample_factors
from synthhand.model.kinematics import SCALES, Pose, Skeleton, limits_deg, solve
from synthhand.model.pose import ANGLES, LIMITS_DEG, gesture_angles, segment_rotations
from synthhand.model.procedural import procedural_rig
from synthhand.model.rig import pose_vertices, resize_joints, segment_frames, segment_motion
from synthhand.model.skinning import skinned

RIG = procedural_rig()


def synthhand_joints(count: int, seed: int = 0) -> torch.Tensor:
    """Joints (count, 21, 3), mm, of SynthHand's poses and proportions, half a metre from the camera."""
    found = []
    for index in range(count):
        factors = sample_factors(seed, "train", index, "sphere").flat()
        rest, _ = resize_joints(RIG, factors["pose/palm_scale"], factors["pose/bone_scale"])
        angles, orientation = factors["pose/articulation"], factors["pose/orientation"]
        _, _, posed = segment_motion(rest, segment_rotations(RIG, angles, orientation, np.zeros(2)))
        found.append(posed + np.array([10.0, 20.0, 500.0]))
    return torch.from_numpy(np.stack(found))


def noisy_joints(count: int, sigma_mm: float = 6.0) -> torch.Tensor:
    joints = synthhand_joints(count, seed=1)
    noise = torch.randn(joints.shape, generator=torch.Generator().manual_seed(0), dtype=joints.dtype)
    return joints + sigma_mm * noise


def check_sound(pose: Pose):
    """Finite, within the limits, and rotations that are rotations."""
    for part in dataclasses.fields(pose):
        assert getattr(pose, part.name).isfinite().all(), part.name
    degrees = torch.rad2deg(pose.angles).numpy()
    assert (degrees >= LIMITS_DEG[:, 0] - 1e-9).all() and (degrees <= LIMITS_DEG[:, 1] + 1e-9).all()
    for scale in (pose.bone_scale, pose.palm_scale):
        assert (scale >= SCALES[0]).all() and (scale <= SCALES[1]).all()
    assert_close(pose.turned @ pose.turned.transpose(2, 3), torch.eye(3).double().expand_as(pose.turned))
    assert (torch.linalg.det(pose.turned) > 0).all()


def distances(pose: Pose, joints: torch.Tensor) -> torch.Tensor:
    return torch.linalg.vector_norm(pose.joints_mm - joints, dim=2)


def test_a_rigs_joints_come_back():
    joints = synthhand_joints(150)
    pose = solve(RIG, joints)
    check_sound(pose)
    assert distances(pose, joints).mean() < 0.1
    assert distances(pose, joints).mean(1).max() < 2.0
    lengths = torch.linalg.vector_norm(joints[:, 10] - joints[:, 9], dim=1)
    assert_close(pose.bone_lengths_mm()[:, 9], lengths, rtol=0.01, atol=0.1)
    closed_form = solve(RIG, joints, steps=0)
    check_sound(closed_form)
    assert 0.1 < distances(closed_form, joints).mean() < 5.0


def test_angles_of_a_gesture_are_found():
    for name in ("open", "relaxed", "claw", "victory"):
        angles = gesture_angles(name)
        rotations = segment_rotations(RIG, angles, Rotation.random(rng=3).as_matrix(), np.zeros(2))
        _, _, posed = segment_motion(RIG.joints_mm, rotations)
        pose = solve(RIG, torch.from_numpy(posed)[None], steps=10)
        found = np.degrees(pose.angles[0].numpy())
        seen = np.delete(np.arange(ANGLES), 18)  # the thumb's twist shows only where the thumb is bent
        np.testing.assert_allclose(found[seen], np.degrees(angles)[seen], atol=3.0)
        assert_close(pose.orientation[0].numpy(), rotations[0], atol=0.03, rtol=0)


def test_refinement_is_bounded_least_squares():
    """Against SciPy's trust-region solver on the same residuals, from the same closed form."""
    joints, skeleton = noisy_joints(4), Skeleton.of(RIG)
    pose = solve(RIG, joints, steps=40)
    low, high = (bound.numpy() for bound in skeleton.bounds())
    for hand in range(len(joints)):
        target = joints[hand : hand + 1]
        start = [part[hand : hand + 1] for part in (pose.angles, pose.bone_scale, pose.palm_scale)]

        def residuals(x, target=target):
            values, turn, wrist = np.split(x, [len(low), len(low) + 3])
            rotation = torch.from_numpy(Rotation.from_rotvec(turn).as_matrix())[None]
            angles, bones, palm = torch.from_numpy(values)[None].split((22, 15, 2), dim=1)
            found = skeleton.pose(angles, rotation, torch.from_numpy(wrist)[None], bones, palm)
            return torch.cat([(found.joints_mm - target).flatten(), skeleton.priors(found).flatten()]).numpy()

        x0 = np.concatenate(
            [
                np.clip(torch.cat(start, dim=1)[0].numpy(), low + 1e-6, high - 1e-6),
                Rotation.from_matrix(pose.orientation[hand].numpy()).as_rotvec(),
                pose.wrist_mm[hand].numpy(),
            ]
        )
        free = np.full(6, np.inf)
        bounds = np.concatenate([low, -free]), np.concatenate([high, free])
        oracle = least_squares(residuals, x0, bounds=bounds, method="trf", max_nfev=60)
        ours = skeleton.error(pose, joints)[hand]
        assert ours <= 1.02 * 2 * oracle.cost


def test_derivatives_are_those_of_the_joints():
    pose, skeleton = solve(RIG, noisy_joints(3), steps=1), Skeleton.of(RIG)
    found = skeleton.jacobian(pose)

    def joints(values, turn, shift):
        angles, bones, palm = values.split((22, 15, 2), dim=1)
        rotated = torch.linalg.matrix_exp(torch.linalg.cross(turn[:, None], torch.eye(3).double()[None]).mT)
        moved = skeleton.pose(angles, rotated @ pose.orientation, pose.wrist_mm + shift, bones, palm)
        return moved.joints_mm.flatten(1).sum(0)  # hands do not depend on each other

    values = torch.cat([pose.angles, pose.bone_scale, pose.palm_scale], dim=1)
    zero = torch.zeros(3, 3, dtype=torch.float64)
    parts = torch.autograd.functional.jacobian(joints, (values, zero, zero))
    assert_close(found, torch.cat(parts, dim=2).transpose(0, 1))


def test_the_mesh_is_that_of_the_rig():
    pose = solve(RIG, synthhand_joints(20))  # more than go at once
    shape = torch.randn(20, len(RIG.shape_names), generator=torch.Generator().manual_seed(0))
    for coefficients in (None, shape):
        meshes = skinned(RIG, pose, coefficients)
        assert meshes.shape == (20, len(RIG.vertices_mm), 3)
        for hand in (0, 17):
            rotations = segment_rotations(
                RIG, pose.angles[hand].numpy(), pose.orientation[hand].numpy(), np.zeros(2)
            )
            expected, _ = pose_vertices(
                RIG,
                rotations,
                None if coefficients is None else coefficients[hand].double().numpy(),
                pose.palm_scale[hand].numpy(),
                pose.bone_scale[hand].numpy(),
            )
            expected = expected + pose.wrist_mm[hand].numpy()
            np.testing.assert_allclose(meshes[hand].numpy(), expected, atol=2e-3)
    assert skinned(RIG, solve(RIG, torch.zeros(0, 21, 3))).shape == (0, len(RIG.vertices_mm), 3)


def test_a_hand_may_lie_anywhere():
    joints = noisy_joints(6)
    turn = torch.from_numpy(Rotation.random(rng=5).as_matrix())
    shift = torch.tensor([100.0, -50.0, 700.0], dtype=torch.float64)
    here, there = solve(RIG, joints, steps=25), solve(RIG, joints @ turn.T + shift, steps=25)
    assert_close(there.joints_mm, here.joints_mm @ turn.T + shift, atol=1e-2, rtol=0)


def test_what_no_hand_can_do_is_met_at_the_limits():
    """Fingers bent to the back of the hand: the nearest pose has them at their limit."""
    angles = gesture_angles("open")
    angles[[0, 4, 8, 12]] = np.radians(-50)
    _, _, posed = segment_motion(RIG.joints_mm, segment_rotations(RIG, angles, np.eye(3), np.zeros(2)))
    pose = solve(RIG, torch.from_numpy(posed)[None])
    check_sound(pose)
    assert_close(torch.rad2deg(pose.angles[0, [0, 4, 8, 12]]), torch.full((4,), -20.0).double())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_degenerate_hands_give_finite_ones(dtype):
    joints = synthhand_joints(1)[0]
    collapsed, mirrored, flat, line = (
        joints.clone(),
        joints * torch.tensor([-1.0, 1, 1]),
        joints.clone(),
        joints.clone(),
    )
    collapsed[5:9] = joints[5]
    flat[:, 2] = 0.0
    line[:] = torch.arange(21)[:, None] * torch.tensor([1.0, 2.0, 3.0])
    hands = [
        torch.zeros(21, 3),
        torch.full((21, 3), 7.0),
        collapsed,
        mirrored,
        flat,
        line,
        1e4 * joints,
        1e-4 * joints,
    ]
    pose = solve(RIG, torch.stack([hand.to(dtype) for hand in hands]))
    check_sound(pose)
    assert skinned(RIG, pose).isfinite().all()
    assert distances(pose, joints[None]).mean(1)[2] < 25.0  # the fingers that are there, and a short one


@settings(deadline=None, max_examples=25)
@given(arrays(np.float64, (2, 21, 3), elements=st.floats(-1e4, 1e4)))
def test_any_finite_joints_give_a_sound_pose(joints):
    check_sound(solve(RIG, torch.from_numpy(joints), steps=3))


def test_other_shapes_and_values_that_are_not_finite_are_named():
    with pytest.raises(ValueError, match=r"expected joints \(b, 21, 3\), found \(21, 3\)"):
        solve(RIG, torch.zeros(21, 3))
    joints = torch.zeros(3, 21, 3)
    joints[1, 4, 2] = torch.nan
    with pytest.raises(ValueError, match=r"joints of hand\(s\) \[1\] are not finite"):
        solve(RIG, joints)


def test_limits_follow_the_rest_of_another_rig():
    """A rig that rests with bent fingers: its limits count from there."""
    angles = gesture_angles("relaxed")
    turned, _, rest = segment_motion(RIG.joints_mm, segment_rotations(RIG, angles, np.eye(3), np.zeros(2)))
    palmar = np.einsum("sij,sj->si", turned, RIG.frames[:, :, 1])
    bent = dataclasses.replace(RIG, joints_mm=rest, frames=segment_frames(rest, palmar))
    assert limits_deg(RIG) is LIMITS_DEG
    moved = LIMITS_DEG - limits_deg(bent)
    np.testing.assert_allclose(moved, np.degrees(angles)[:, None].repeat(2, axis=1), atol=1e-6)
    straight = torch.tensor(RIG.joints_mm)[None]  # the built-in rest, reached from there
    assert distances(solve(bent, straight), straight).mean() < 1.5
