"""Articulation: gestures, limits, couplings, orientations, wrists, and no self-penetration."""

import importlib.util
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from synthhand.dataset.factors import sample_factors, sample_group
from synthhand.model.anatomy import bone_lengths_mm
from synthhand.model.body import vertex_normals
from synthhand.model.pose import (
    ANGLES,
    GESTURE_NAMES,
    LIMITS_DEG,
    TOLERANCE_MM,
    flesh_overlap_mm,
    gesture_angles,
    limit,
    random_rotation,
    sample_articulation,
    sample_orientation,
    sample_wrist,
    segment_rotations,
)
from synthhand.model.procedural import SHAPE_NAMES, flesh_radii, procedural_rig
from synthhand.model.rig import FOREARM, segment_motion

RIG = procedural_rig()
LOW, HIGH = np.radians(LIMITS_DEG).T
SEEDS = st.integers(0, 2**32 - 1)


def benchmark():
    """The mesh measures of `benchmarks/self_penetration.py`."""
    path = Path(__file__).parents[1] / "benchmarks/self_penetration.py"
    spec = importlib.util.spec_from_file_location("self_penetration", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MESH = benchmark()


@pytest.mark.parametrize("gesture", GESTURE_NAMES)
def test_gestures_are_possible(gesture):
    angles = gesture_angles(gesture)
    assert ((angles >= LOW - 1e-9) & (angles <= HIGH + 1e-9)).all()
    flexion = np.setdiff1d(np.arange(ANGLES), range(1, 16, 4))  # abduction shrinks as a finger bends
    np.testing.assert_allclose(limit(angles)[flexion], angles[flexion], atol=1e-9)
    assert flesh_overlap_mm(RIG, RIG.joints_mm, flesh_radii(), limit(angles)) <= TOLERANCE_MM
    assert MESH.measure_penetration_mm(RIG, MESH.pose_hand(RIG, limit(angles))).max() < MESH.LIMIT_MM


def test_there_are_many_gestures_and_no_two_alike():
    angles = np.stack([gesture_angles(name) for name in GESTURE_NAMES])
    apart = np.abs(angles[:, None] - angles).max(2) + 9 * np.eye(len(angles))
    assert len(angles) >= 20
    assert np.degrees(apart.min()) > 5


def test_unknown_gesture_names_the_known_ones():
    with pytest.raises(ValueError, match="victory"):
        gesture_angles("wave")


def test_sampled_hands_respect_limits_couplings_and_each_other():
    seen = set()
    for seed in range(60):
        angles, gesture = sample_articulation(np.random.default_rng(seed), RIG, RIG.joints_mm, flesh_radii())
        seen.add(gesture)
        assert angles.shape == (ANGLES,)
        assert ((angles >= LOW - 1e-9) & (angles <= HIGH + 1e-9)).all()
        assert flesh_overlap_mm(RIG, RIG.joints_mm, flesh_radii(), angles) <= TOLERANCE_MM
        pip, dip = angles[2:16:4], angles[3:16:4]
        assert (np.abs(dip - 2 / 3 * pip) < np.radians(20)).all()  # one tendon bends both
    assert len(seen) > 15


def test_sampled_meshes_seldom_cut_into_themselves():
    depths = []
    for index in range(150):
        pose = sample_group("pose", 1, "val", index)
        shape = sample_group("shape", 1, "val", index).coefficients
        vertices = MESH.pose_hand(RIG, pose.articulation, shape, pose.palm_scale, pose.bone_scale)
        depths.append(MESH.measure_penetration_mm(RIG, vertices).max())
    # 2 % are allowed over 1,000 poses; of 150, 9 (6 %) would be met in fewer than one of 200 draws then.
    assert np.sum(np.array(depths) > MESH.LIMIT_MM) < 9


def test_penetration_is_seen_on_the_mesh():
    angles = gesture_angles("open")
    assert MESH.measure_penetration_mm(RIG, MESH.pose_hand(RIG, angles)).max() == 0
    angles[1], angles[5] = np.radians(-14), np.radians(14)  # index and middle finger pressed into each other
    depth = MESH.measure_penetration_mm(RIG, MESH.pose_hand(RIG, angles))
    assert 3 < depth.max() < 16
    assert set(RIG.parts[depth > 1] // 3) == {1, 2}


def test_a_ray_tells_how_often_a_mesh_winds_around_a_point():
    cube = np.array([(x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1)], float)
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    faces = np.array([t for a, b, c, d in quads for t in ((a, b, c), (a, c, d))])
    assert MESH.measure_volume_mm3(cube, faces) == pytest.approx(1)
    points = np.random.default_rng(0).uniform(-0.5, 1.5, size=(300, 3))
    inside = np.all((points > 0) & (points < 1), axis=1)
    np.testing.assert_array_equal(MESH.count_winding(cube, faces, points), inside)
    both = np.concatenate([cube, cube + 0.3]), np.concatenate([faces, faces + 8])
    also = np.all((points > 0.3) & (points < 1.3), axis=1)
    np.testing.assert_array_equal(MESH.count_winding(*both, points), inside.astype(int) + also)


def test_a_bent_finger_keeps_its_flesh():
    changes = MESH.measure_bend_volumes(RIG)
    assert len(changes) == 14
    assert max(map(abs, changes.values())) < 0.08


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("name", SHAPE_NAMES)
def test_the_thinnest_and_stoutest_flesh_stays_whole(name, sign):
    shape = sign * 2.5 * (np.array(SHAPE_NAMES) == name)
    rest, vertices = MESH.pose_hand(RIG, np.zeros(ANGLES)), MESH.pose_hand(RIG, np.zeros(ANGLES), shape)
    assert MESH.measure_penetration_mm(RIG, vertices).max() < 1.0
    before, after = vertex_normals(rest, RIG.faces), vertex_normals(vertices, RIG.faces)
    assert np.sum(before * after, axis=1).min() > 0.5  # nothing folded over


def test_flesh_spans_thin_to_stout():
    thin, stout = (
        MESH.pose_hand(RIG, np.zeros(ANGLES), s * np.eye(len(SHAPE_NAMES))[0]) for s in (-2.5, 2.5)
    )
    assert MESH.measure_volume_mm3(stout, RIG.faces) > 1.2 * MESH.measure_volume_mm3(thin, RIG.faces)


def test_overlap_is_measured_in_mm():
    # Fingers pressed sideways into each other: index abducted to the little side, middle to the thumb side.
    angles = np.zeros(ANGLES)
    assert flesh_overlap_mm(RIG, RIG.joints_mm, flesh_radii(), angles) < 0
    depths = []
    for degrees in (4, 8, 12):
        angles[1], angles[5] = -np.radians(degrees), np.radians(degrees)
        depths.append(flesh_overlap_mm(RIG, RIG.joints_mm, flesh_radii(), angles))
    assert all(b > a for a, b in pairwise(depths))
    assert depths[-1] > TOLERANCE_MM


@given(SEEDS)
@settings(max_examples=50)
def test_limiting_is_done_at_once(seed):
    rng = np.random.default_rng(seed)
    angles = limit(rng.uniform(-2, 2, ANGLES))
    assert ((angles >= LOW - 1e-9) & (angles <= HIGH + 1e-9)).all()
    straight = angles[0:16:4]
    # The ring finger cannot stay up between two neighbours in a fist; its tendon is joined to theirs.
    assert straight[2] >= min(straight[1], straight[3]) - np.radians(62) - 1e-9


def test_skeleton_has_published_proportions():
    # Bone lengths of Buryanov and Kotiuk (2010), thumb to little finger; joints lie within the bones' heads.
    published = np.array(
        [(46.2, 31.6, 21.7), (39.8, 22.4, 15.8), (44.6, 26.3, 17.4), (41.4, 25.7, 17.3), (32.7, 18.1, 16.0)]
    )
    lengths = np.linalg.norm(np.diff(RIG.joints_mm[1:].reshape(5, 4, 3), axis=1), axis=2)
    np.testing.assert_allclose(lengths, bone_lengths_mm())
    assert np.abs(lengths - published).max() < 4.0
    metacarpals = np.array([68.1, 64.6, 58.0, 53.7])
    carpus = np.linalg.norm(RIG.joints_mm[[5, 9, 13, 17]], axis=1) - metacarpals
    assert ((carpus > 20) & (carpus < 35)).all()


def test_orientations_are_uniform():
    rng = np.random.default_rng(1)
    matrices = np.stack([random_rotation(rng) for _ in range(2000)])
    np.testing.assert_allclose(
        matrices @ matrices.transpose(0, 2, 1), np.tile(np.eye(3), (2000, 1, 1)), atol=1e-12
    )
    np.testing.assert_allclose(np.linalg.det(matrices), 1)
    for i in range(3):  # each entry of a uniform rotation is uniform on [-1, 1] (Archimedes)
        for j in range(3):
            assert kstest(matrices[:, i, j], "uniform", args=(-1, 2)).pvalue > 1e-4


def test_frontal_views_face_the_camera():
    rng = np.random.default_rng(3)
    matrices = np.stack([sample_orientation(rng, "frontal") for _ in range(1000)])
    np.testing.assert_allclose(
        matrices @ matrices.transpose(0, 2, 1), np.tile(np.eye(3), (1000, 1, 1)), atol=1e-12
    )
    np.testing.assert_allclose(np.linalg.det(matrices), 1)
    facing = matrices[:, 2, 2]  # cosine between the back of the hand and the viewing direction
    assert (np.abs(facing) >= 0.5 - 1e-12).all()
    assert kstest(np.abs(facing), "uniform", args=(0.5, 0.5)).pvalue > 1e-4  # uniform over a cap
    assert 400 < np.sum(facing > 0) < 600  # palms and backs
    assert np.mean(matrices[:, 1, 1] > 0) > 0.99  # fingers up


def test_the_viewpoint_changes_nothing_but_orientation_and_wrist():
    default, sphere, frontal = (sample_factors(3, "val", 5, *v) for v in ((), ("sphere",), ("frontal",)))
    for name, value in default.flat().items():
        np.testing.assert_array_equal(sphere.flat()[name], value)
        if name not in ("pose/orientation", "pose/wrist"):
            np.testing.assert_array_equal(frontal.flat()[name], value)
    assert not np.array_equal(frontal.pose.orientation, default.pose.orientation)
    with pytest.raises(ValueError, match="frontal"):
        sample_factors(3, "val", 5, "above")


def test_the_arm_seldom_points_at_the_camera():
    rng = np.random.default_rng(2)
    towards = []
    for _ in range(300):
        turn = random_rotation(rng)
        rotations = segment_rotations(RIG, np.zeros(ANGLES), turn, sample_wrist(rng, turn))
        arm = segment_motion(RIG.joints_mm, rotations)[0][FOREARM] @ np.array([0, 1.0, 0])
        towards.append(arm[2] < -0.8)
    # Uniformly oriented arms would do so in one of ten cases.
    assert np.mean(towards) < 0.05
