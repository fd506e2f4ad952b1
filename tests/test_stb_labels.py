"""STB: published numbers, depth coding, label order, palm and wrist."""

import numpy as np
import pytest
import scipy.io
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.transform import Rotation
from stb_fixture import NAMES, left_hand_mm, save_mat, stb_order

from synthhand.formats import stb_cameras
from synthhand.formats.stb_labels import WRIST_RULES, load_labels, palm_to_wrist, wrist_to_palm, write_labels

# -- by number --------------------------------------------------------------------------------------------


def test_a_point_before_the_depth_camera_falls_where_it_must():
    point = stb_cameras.depth_to_colour([0, 0, 500])
    np.testing.assert_allclose(point, [30.036, 3.036, 500.900], atol=1e-3)
    u, v, w = stb_cameras.K_COLOUR @ point
    np.testing.assert_allclose([u / w, v / w], [351.24, 240.11], atol=0.005)


def test_the_rotation_is_scipys_and_its_inverse_goes_back():
    expected = Rotation.from_rotvec([0.00531, -0.01196, 0.00301]).as_matrix()
    np.testing.assert_allclose(stb_cameras.COLOUR_TO_DEPTH, expected, atol=1e-12)
    points = np.random.default_rng(0).normal(size=(5, 3)) * 100 + [0, 0, 500]
    there = stb_cameras.colour_to_depth(points)
    np.testing.assert_allclose(there, points @ expected.T + [-24.0381, -0.4563, -1.2326], atol=1e-9)
    np.testing.assert_allclose(stb_cameras.depth_to_colour(there), points, atol=1e-9)


@given(arrays(np.float64, 3, elements=st.floats(-3, 3)))
def test_rodrigues_is_scipys(vector):
    np.testing.assert_allclose(
        stb_cameras.rodrigues(vector), Rotation.from_rotvec(vector).as_matrix(), atol=1e-9
    )


def test_the_cameras_are_the_published_ones():
    np.testing.assert_array_equal(
        stb_cameras.K_BB[:2], [[822.79041, 0, 318.47345], [0, 822.79041, 250.31296]]
    )
    np.testing.assert_array_equal(
        stb_cameras.K_COLOUR[:2], [[607.92271, 0, 314.78337], [0, 607.88192, 236.42484]]
    )
    np.testing.assert_array_equal(
        stb_cameras.K_DEPTH[:2], [[475.62768, 0, 336.41179], [0, 474.77709, 238.77962]]
    )


# -- depth ------------------------------------------------------------------------------------------------


@given(arrays(np.float64, (3, 4), elements=st.floats(0, 65535)))
def test_depth_round_trip_is_within_half_a_millimetre(depth):
    assert np.abs(stb_cameras.decode_depth(stb_cameras.encode_depth(depth)) - depth).max() <= 0.5


def test_depth_coding_is_low_byte_red_high_byte_green():
    assert stb_cameras.decode_depth(np.array([[[244, 1, 9]]], np.uint8))[0, 0] == 500
    assert stb_cameras.decode_depth(np.array([[[0, 200, 0]]], np.uint8))[0, 0] == 51200  # no overflow
    assert stb_cameras.encode_depth(np.array([[500.2, np.inf]])).tolist() == [[[244, 1, 0], [255, 255, 0]]]
    for nonsense in (np.nan, -1.0):
        with pytest.raises(ValueError, match="negative values or NaN"):
            stb_cameras.encode_depth(np.array([[nonsense]]))


# -- labels -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", WRIST_RULES)
def test_from_palm_to_wrist_and_back(rule):
    joints = np.random.default_rng(1).normal(size=(7, 21, 3)) * 50
    wrist = palm_to_wrist(joints, rule)
    np.testing.assert_array_equal(wrist[:, 1:], joints[:, 1:])
    np.testing.assert_allclose(wrist_to_palm(wrist, rule), joints, atol=1e-12)
    np.testing.assert_allclose(palm_to_wrist(wrist_to_palm(joints, rule), rule), joints, atol=1e-12)


def test_each_rule_is_the_formula_of_those_who_use_it():
    joints = np.random.default_rng(2).normal(size=(21, 3)) * 50
    palm, index, middle, ring, little = joints[[0, 5, 9, 13, 17]]
    expected = {
        "ring": palm + 1.0 * (palm - ring),  # hand3d
        "middle": middle + 2.2 * (palm - middle),  # BiHand
        "knuckles": np.mean([m + 2.25 * (palm - m) for m in (index, middle, ring, little)], axis=0),
        "palm": palm,
    }
    assert expected.keys() == WRIST_RULES.keys()
    for rule, wrist in expected.items():
        np.testing.assert_allclose(palm_to_wrist(joints, rule)[0], wrist, atol=1e-12)
    np.testing.assert_allclose(expected["ring"], ring + 2.0 * (palm - ring))  # as Ge et al. write it
    with pytest.raises(ValueError, match=r"unknown wrist rule 'elbow'.*ring, middle, knuckles, palm"):
        palm_to_wrist(joints, "elbow")


def test_labels_come_palm_first_then_little_to_thumb(tmp_path):
    save_mat(tmp_path / "a.mat", [left_hand_mm(n) for n in range(3)])
    raw = scipy.io.loadmat(tmp_path / "a.mat")["handPara"]
    labels = load_labels(tmp_path / "a.mat")
    assert raw.shape == (3, 21, 3) and labels.shape == (3, 21, 3)
    for name, ours in (
        ("palm", 0),
        ("little_0", 17),
        ("ring_3", 16),
        ("index_1", 6),
        ("thumb_0", 1),
        ("thumb_3", 4),
    ):
        np.testing.assert_array_equal(labels[2, ours], raw[:, NAMES.index(name), 2])


def test_labels_there_and_back_with_the_same_bytes_every_time(tmp_path):
    joints = np.random.default_rng(3).normal(size=(1, 21, 3)) * 100
    for name in ("a.mat", "b.mat"):
        write_labels(tmp_path / name, joints)
    assert (tmp_path / "a.mat").read_bytes() == (tmp_path / "b.mat").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mat", "b.mat"]
    np.testing.assert_array_equal(load_labels(tmp_path / "a.mat"), joints)
    np.testing.assert_array_equal(
        scipy.io.loadmat(tmp_path / "a.mat")["handPara"][..., 0].T, stb_order(joints[0])
    )
    scipy.io.savemat(tmp_path / "b.mat", {"handPara": stb_order(joints[0]).T})  # MATLAB drops the last axis
    np.testing.assert_array_equal(load_labels(tmp_path / "b.mat"), joints)
