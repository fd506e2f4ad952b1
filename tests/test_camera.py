"""synthhand.pinhole against closed forms, SciPy, and the pixels of a published RHD sample."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from rhd_fixture import open_hand_mm, rotation
from scipy.spatial.transform import Rotation

from synthhand import pinhole

K = np.array([[299.0, 0, 160], [0, 305, 150], [0, 0, 1]])

coordinates = st.floats(-400, 400)
depths = st.floats(100, 2000)
points = st.tuples(coordinates, coordinates, depths).map(np.array)
rays = st.tuples(st.floats(-2, 2), st.floats(-2, 2), st.just(1.0)).map(np.array)
angles = st.floats(-np.pi, np.pi)


@given(points)
def test_backproject_undoes_project(point):
    uv = pinhole.project(point, K)
    np.testing.assert_allclose(pinhole.backproject(uv, point[2], K), point, atol=1e-9)


def test_project_agrees_with_a_published_sample():
    # Wrist of RHD evaluation sample 111 as printed in mmpose's test data: 245.80, 73.98 after rounding.
    rhd_camera = np.array([[299.0, 0, 160], [0, 299, 160], [0, 0, 1]])
    uv = pinhole.project([117.9, -118.2, 411.0], rhd_camera)
    np.testing.assert_allclose(uv, (245.77, 74.01), atol=0.005)


def test_depth_to_points_agrees_with_a_loop_and_skips_unmeasured_pixels():
    rng = np.random.default_rng(0)
    depth = rng.uniform(300, 500, (4, 6))
    depth[1, 2] = 0
    mask = rng.random((4, 6)) < 0.6
    mask[1, 2] = True
    expected = [
        [(u - 160) / 299 * depth[v, u], (v - 150) / 305 * depth[v, u], depth[v, u]]
        for v in range(4)
        for u in range(6)
        if mask[v, u] and depth[v, u] > 0
    ]
    np.testing.assert_allclose(pinhole.depth_to_points(depth, mask, K), expected)
    assert pinhole.depth_to_points(depth, np.zeros_like(mask), K).shape == (0, 3)


def test_pixel_ray_uses_both_axes_of_the_principal_point():
    np.testing.assert_allclose(pinhole.pixel_ray([459, 455], K), (1, 1, 1))


@given(rays)
def test_view_rotation_puts_the_ray_on_the_axis_without_roll(ray):
    R = pinhole.view_rotation(ray)
    np.testing.assert_allclose(R @ ray, (0, 0, np.linalg.norm(ray)), atol=1e-12)
    np.testing.assert_allclose(R @ R.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(R) == pytest.approx(1)
    assert R[0, 1] == 0  # the turned camera's x axis stays level: no roll
    theta_y = np.arctan2(ray[0], ray[2])
    turned = Rotation.from_euler("y", -theta_y).apply(ray)
    oracle = Rotation.from_euler("x", np.arctan2(turned[1], turned[2])) * Rotation.from_euler("y", -theta_y)
    np.testing.assert_allclose(R, oracle.as_matrix(), atol=1e-12)


@given(rays, points)
def test_view_rotation_is_undone_by_its_transpose(ray, point):
    R = pinhole.view_rotation(ray)
    np.testing.assert_allclose(R.T @ (R @ point), point, atol=1e-9)


@given(angles)
def test_rotation_about_z_agrees_with_scipy(angle):
    np.testing.assert_allclose(
        pinhole.rotation_about_z(angle), Rotation.from_euler("z", angle).as_matrix(), atol=1e-12
    )


def test_a_positive_angle_is_clockwise_on_the_screen():
    # From the right (x) to below (y points down).
    np.testing.assert_allclose(pinhole.rotation_about_z(np.pi / 2) @ (1, 0, 0), (0, 1, 0), atol=1e-12)


@given(points, st.integers(1, 700))
def test_mirrored_camera_sees_mirrored_points_at_mirrored_pixels(point, width):
    mirrored = pinhole.mirror_camera(K, width)
    u, v = pinhole.project(point, K)
    np.testing.assert_allclose(
        pinhole.project(point * [-1, 1, 1], mirrored), (width - 1 - u, v), rtol=1e-9, atol=1e-6
    )
    assert mirrored[0, 2] == width - 1 - K[0, 2]
    np.testing.assert_array_equal(pinhole.mirror_camera(mirrored, width), K)


@pytest.mark.parametrize("out_px", [8, 9])
def test_crop_camera_maps_border_to_border(out_px):
    centre, half = np.array([40.25, 21.5]), 13.0
    to_crop = pinhole.crop_camera(np.eye(3), centre, half, out_px)
    border = [centre - half, centre, centre + half]
    expected = [[-0.5, -0.5], [(out_px - 1) / 2] * 2, [out_px - 0.5] * 2]
    np.testing.assert_allclose(pinhole.apply_homography(to_crop, border), expected, atol=1e-12)


def test_crop_camera_halving_puts_each_pixel_in_the_middle_of_four():
    # An 8 px square with borders at -0.5 and 7.5, halved: output 0 is the mean of inputs 0 and 1.
    to_crop = pinhole.crop_camera(np.eye(3), (3.5, 3.5), 4.0, 4)
    np.testing.assert_allclose(pinhole.apply_homography(to_crop, [[0.5, 2.5]]), [[0, 1]], atol=1e-12)


def test_hand_crop_reaches_the_furthest_visible_joint():
    uv = np.full((21, 2), 100.0)
    uv[9] = (110, 90)
    uv[4] = (170, 95)  # 60 px to the right: the furthest visible
    uv[20] = (110, 290)  # 200 px away, but hidden
    visible = np.ones(21, bool)
    visible[20] = False
    centre, half = pinhole.hand_crop(uv, visible)
    np.testing.assert_array_equal(centre, (110, 90))
    assert half == pytest.approx(1.3 * 60)
    assert pinhole.hand_crop(uv, np.arange(21) == 9)[1] == pinhole.MIN_HALF_SIZE_PX
    with pytest.raises(ValueError, match="no joint is visible"):
        pinhole.hand_crop(uv, np.zeros(21, bool))


@given(rays, points)
def test_rotation_homography_moves_pixels_as_the_turned_camera_sees_the_points(ray, point):
    R = pinhole.view_rotation(ray * [0.3, 0.3, 1])
    turned = R @ point
    assume(turned[2] > 10)
    K_crop = pinhole.crop_camera(K, (160, 150), 70, 128)
    H = pinhole.rotation_homography(K, R, K_crop)
    found = pinhole.apply_homography(H, pinhole.project(point, K))
    expected = pinhole.project(turned, K_crop)
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-6)


def test_the_rotated_camera_turns_image_and_joints_together_exactly():
    rng = np.random.default_rng(3)
    for _ in range(20):
        root = np.array([*rng.uniform(-200, 200, 2), 500.0])
        hand = (open_hand_mm() - open_hand_mm()[9]) @ rotation(rng) + root
        R = pinhole.view_rotation(root)
        uv = pinhole.project(hand @ R.T, K)
        centre, half = pinhole.hand_crop(uv, np.ones(21, bool))
        K_crop = pinhole.crop_camera(K * [[1], [299 / 305], [1]], centre, half, 256)  # square pixels
        Rz = pinhole.rotation_about_z(rng.uniform(-np.pi, np.pi))
        axis = K_crop[:2, 2]
        by_image = (pinhole.project(hand @ R.T, K_crop) - axis) @ Rz[:2, :2].T
        by_joints = pinhole.project(hand @ R.T @ Rz.T, K_crop) - axis
        assert np.abs(by_image - by_joints).max() < 0.05


@pytest.mark.parametrize("azimuth", [0.0, 1.0, 4.0])
def test_the_plain_crop_drifts_off_the_axis(azimuth):
    errors = [
        pinhole.plain_crop_error(open_hand_mm(), np.radians(degrees), azimuth_rad=azimuth).mean()
        for degrees in (0, 5, 10, 20, 30)
    ]
    assert errors[0] < 1e-9  # on the axis it is exact
    assert errors == sorted(errors)
    assert 1.0 < errors[3] < 3.5  # about 2 px at 20 degrees, f = 299, 256 px


def test_plain_crop_error_is_zero_without_a_turn_and_at_the_root():
    errors = pinhole.plain_crop_error(open_hand_mm(), np.radians(20), rotations=8)
    assert errors.shape == (8, 21)
    np.testing.assert_allclose(errors[0], 0, atol=1e-9)
    np.testing.assert_allclose(errors[:, 9], 0, atol=1e-9)
