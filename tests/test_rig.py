"""The hand's rig: a closed mesh, exact kinematics, skinning that preserves volume, plausible poses."""

import dataclasses

import numpy as np
import open3d as o3d
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from synthhand.model.body import vertex_normals
from synthhand.model.pose import LIMITS_DEG, gesture_angles, limit, random_rotation, segment_rotations
from synthhand.model.procedural import SHAPE_NAMES, procedural_rig
from synthhand.model.rig import (
    FOREARM,
    FOREARM_PART,
    PALM_PART,
    PHALANGES,
    SEGMENTS,
    axis_rotation,
    pose_vertices,
    quaternions,
    resize,
    resize_joints,
    segment_motion,
    segment_parts,
    skin,
)
from synthhand.skeleton import BONES, JOINTS, PARENTS

RIG = procedural_rig()
SEEDS = st.integers(0, 2**32 - 1)


def volume_mm3(vertices, faces):
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    return np.einsum("fi,fi->", a, np.cross(b, c)) / 6


def inside_mm(vertices, faces, points):
    """Depth of points inside a closed mesh, by an independent signed distance."""
    scene = o3d.t.geometry.RaycastingScene(nthreads=1)
    scene.add_triangles(vertices.astype(np.float32), faces.astype(np.uint32))
    return -scene.compute_signed_distance(o3d.core.Tensor(points.astype(np.float32)), nthreads=1).numpy()


def random_pose(seed):
    rng = np.random.default_rng(seed)
    low, high = np.radians(LIMITS_DEG).T
    angles = limit(rng.uniform(low, high))
    return angles, random_rotation(rng), rng.normal(size=2) * 0.4


def bone_lengths(joints):
    return np.linalg.norm(joints[BONES[:, 1]] - joints[BONES[:, 0]], axis=1)


def test_mesh_is_closed_and_of_a_hands_size():
    edges = np.sort(RIG.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    _, counts = np.unique(edges, axis=0, return_counts=True)
    assert (counts == 2).all()
    assert 3000 <= len(RIG.vertices_mm) <= 5400  # each costs time in every picture
    assert 400e3 < volume_mm3(RIG.vertices_mm, RIG.faces) < 900e3  # outwards, hand and a piece of forearm
    hand = RIG.vertices_mm[RIG.parts != FOREARM_PART]
    # Between the means of US Army women and men (Gordon et al., 1989).
    assert 180.5 < -hand[:, 1].min() < 193.8  # wrist to middle finger tip
    knuckles = RIG.vertices_mm[(RIG.parts == PALM_PART) & (RIG.vertices_mm[:, 1] < -70)]
    assert 79.4 < np.ptp(knuckles[:, 0]) < 90.4
    np.testing.assert_allclose(RIG.weights.sum(1), 1)
    assert (RIG.weights >= 0).all()


def test_a_right_palm_with_fingers_up_has_its_thumb_on_the_right():
    joints = RIG.joints_mm
    assert joints[4, 0] > joints[8, 0] > joints[12, 0] > joints[16, 0] > joints[20, 0]
    assert (joints[[4, 8, 12, 16, 20], 1] < joints[0, 1]).all()  # y is down
    fist = segment_rotations(RIG, gesture_angles("fist"), np.eye(3))
    tips = segment_motion(joints, fist)[2][[8, 12, 16, 20]]
    assert (
        tips[:, 2] < joints[[8, 12, 16, 20], 2] - 10
    ).all()  # fingers bend towards the viewer, who sees the palm


def test_joints_lie_inside_the_rest_mesh():
    assert inside_mm(RIG.vertices_mm, RIG.faces, RIG.joints_mm).min() > 3


def test_joints_lie_inside_posed_meshes():
    depth = []
    for seed in range(12):
        vertices, joints = pose_vertices(RIG, segment_rotations(RIG, *random_pose(seed)))
        depth.append(inside_mm(vertices, RIG.faces, joints))
    assert np.mean(np.stack(depth) > 0) > 0.98


@given(SEEDS)
@settings(max_examples=30)
def test_posing_keeps_bone_lengths(seed):
    rng = np.random.default_rng(seed)
    palm, bones = np.exp(0.1 * rng.normal(size=2)), np.exp(0.1 * rng.normal(size=15))
    rest, _ = resize_joints(RIG, palm, bones)
    _, _, posed = segment_motion(rest, segment_rotations(RIG, *random_pose(seed)))
    np.testing.assert_allclose(bone_lengths(posed), bone_lengths(rest), rtol=1e-12)
    phalanges = [j - 1 for j in PHALANGES]  # bones are listed by their child joint, from 1
    np.testing.assert_allclose(bone_lengths(rest)[phalanges], bones * bone_lengths(RIG.joints_mm)[phalanges])
    np.testing.assert_allclose(rest[[5, 9, 13, 17]], RIG.joints_mm[[5, 9, 13, 17]] * [*palm, 1])


def test_the_rest_pose_is_the_rest_mesh():
    still = np.tile(np.eye(3), (SEGMENTS, 1, 1))
    vertices, joints = pose_vertices(RIG, still, np.zeros(len(SHAPE_NAMES)), np.ones(2), np.ones(15))
    np.testing.assert_allclose(vertices, RIG.vertices_mm, atol=1e-9)
    np.testing.assert_allclose(joints, RIG.joints_mm, atol=1e-9)


@given(SEEDS)
@settings(max_examples=10)
def test_a_global_rotation_is_rigid(seed):
    turn = random_rotation(np.random.default_rng(seed))
    rotations = segment_rotations(RIG, gesture_angles("claw"), np.eye(3))
    vertices, joints = pose_vertices(RIG, rotations)
    rotations[0] = turn
    turned_vertices, turned_joints = pose_vertices(RIG, rotations)
    np.testing.assert_allclose(turned_vertices, vertices @ turn.T, atol=1e-9)
    np.testing.assert_allclose(turned_joints, joints @ turn.T, atol=1e-9)


@given(SEEDS)
@settings(max_examples=20)
def test_a_vertex_of_one_segment_moves_as_that_segment(seed):
    rotations, shifts, _ = segment_motion(RIG.joints_mm, segment_rotations(RIG, *random_pose(seed)))
    points = np.random.default_rng(seed).normal(size=(SEGMENTS, 3)) * 50
    moved = skin(points, np.eye(SEGMENTS), rotations, shifts)
    np.testing.assert_allclose(moved, np.einsum("sij,sj->si", rotations, points) + shifts, atol=1e-8)


def test_rotations_agree_with_scipy():
    rng = np.random.default_rng(0)
    axes = rng.normal(size=(50, 3))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    angles = rng.uniform(-np.pi, np.pi, 50)
    expected = Rotation.from_rotvec(axes * angles[:, None])
    np.testing.assert_allclose(axis_rotation(axes, angles), expected.as_matrix(), atol=1e-12)
    ours, theirs = quaternions(expected.as_matrix()), expected.as_quat(scalar_first=True)
    np.testing.assert_allclose(np.abs(np.sum(ours * theirs, axis=1)), 1, atol=1e-12)


def test_many_hands_move_as_each_alone():
    rng = np.random.default_rng(4)
    poses = [random_pose(seed) for seed in range(3)]
    rotations = segment_rotations(RIG, *(np.stack(parts) for parts in zip(*poses, strict=True)))
    shape, palm, bones = (
        rng.normal(size=(3, 10)),
        rng.uniform(0.9, 1.1, (3, 2)),
        rng.uniform(0.9, 1.1, (3, 15)),
    )
    vertices, joints = pose_vertices(RIG, rotations, shape, palm, bones)
    for hand, pose in enumerate(poses):
        alone = pose_vertices(RIG, segment_rotations(RIG, *pose), shape[hand], palm[hand], bones[hand])
        np.testing.assert_allclose(vertices[hand], alone[0], atol=1e-9)
        np.testing.assert_allclose(joints[hand], alone[1], atol=1e-9)


@pytest.mark.parametrize("gesture", ["fist", "hook", "thumbs_up"])
def test_bent_knuckles_do_not_collapse(gesture):
    vertices, _ = pose_vertices(RIG, segment_rotations(RIG, gesture_angles(gesture), np.eye(3)))
    assert volume_mm3(vertices, RIG.faces) == pytest.approx(volume_mm3(RIG.vertices_mm, RIG.faces), rel=0.04)


def test_shape_moves_flesh_but_no_joint_and_every_field_does_something():
    still = np.tile(np.eye(3), (SEGMENTS, 1, 1))
    for k in range(len(SHAPE_NAMES)):
        vertices, joints = pose_vertices(RIG, still, np.eye(len(SHAPE_NAMES))[k])
        np.testing.assert_array_equal(joints, RIG.joints_mm)
        moved = np.linalg.norm(vertices - RIG.vertices_mm, axis=1)
        assert 0.3 < moved.max() < 6, SHAPE_NAMES[k]
    extreme, _ = pose_vertices(RIG, still, np.full(len(SHAPE_NAMES), -2.5))
    assert inside_mm(extreme, RIG.faces, RIG.joints_mm).min() > 0


def test_stretching_a_bone_moves_only_what_lies_beyond_it():
    bones = np.ones(15)
    bones[PHALANGES.tolist().index(7)] = 1.2  # index PIP to DIP
    vertices, joints = resize(RIG, np.ones(2), bones)
    changed = np.flatnonzero(np.linalg.norm(joints - RIG.joints_mm, axis=1) > 1e-9)
    assert changed.tolist() == [7, 8]
    unrelated = RIG.weights[:, [7, 8]].sum(1) == 0
    np.testing.assert_allclose(vertices[unrelated], RIG.vertices_mm[unrelated], atol=1e-9)


def test_parts_follow_rhd_within_a_hand():
    parts = segment_parts()
    for finger in range(5):
        chain = [parts[c] for c in range(2 + 4 * finger, 5 + 4 * finger)]
        assert chain == [3 * finger + 2, 3 * finger + 1, 3 * finger]  # ids count from the tip
    assert set(np.unique(RIG.parts)) == set(range(FOREARM_PART + 1))
    tips = [np.argmin(np.linalg.norm(RIG.vertices_mm - RIG.joints_mm[4 * f + 4], axis=1)) for f in range(5)]
    assert RIG.parts[tips].tolist() == [0, 3, 6, 9, 12]
    assert parts[FOREARM] == FOREARM_PART


def test_a_rig_with_wrong_shapes_is_refused():
    with pytest.raises(ValueError, match=r"weights has shape .* expected"):
        dataclasses.replace(RIG, weights=RIG.weights[:, 1:])


def test_normals_point_outwards():
    normals = vertex_normals(RIG.vertices_mm, RIG.faces)
    assert inside_mm(RIG.vertices_mm, RIG.faces, RIG.vertices_mm + 0.5 * normals).max() < 0.2
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1)


def test_parents_precede_children():
    assert all(PARENTS[c] < c for c in range(1, JOINTS))  # what forward kinematics relies on
