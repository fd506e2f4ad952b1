"""The renderer against closed forms, brute force and symmetry."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from synthhand.dataset.factors import sample_factors
from synthhand.dataset.lens import blur
from synthhand.dataset.scene import build_hand, camera_matrix, render
from synthhand.model.body import Body
from synthhand.model.procedural import flesh_radii, procedural_rig
from synthhand.render.appearance import skin_colour
from synthhand.render.backdrop import paint_backdrop, to_display, to_linear
from synthhand.render.light import Light, sample_disc, sample_hemisphere
from synthhand.render.raster import draw_bodies, rhd_ids
from synthhand.render.wall import Wall, light_wall
from synthhand.skeleton import JOINTS, RHD_ORDER

SIZE = 64
K = np.array([[60.0, 0, 32], [0, 60, 32], [0, 0, 1]])
FRONTAL = Light(np.array([0, 0, -1.0]), np.ones(3), 0.05, np.full(3, 0.2), np.full(3, 0.2))
WALL = Wall(np.full((SIZE, SIZE, 3), 0.3, np.float32), 3000.0, (0.0, 0.0))


def quad(corners, part=15, joints=None) -> Body:
    """A flat body of two triangles."""
    corners = np.asarray(corners, np.float32)
    return Body(
        vertices_mm=corners,
        faces=np.array([[0, 1, 2], [0, 2, 3]], np.int32),
        joints_mm=np.tile([0.0, 0.0, 9e3], (JOINTS, 1)) if joints is None else joints,
        rest_mm=np.zeros((4, 3), np.float32),
        parts=np.full(4, part, np.uint8),
        palmar=np.ones(4, np.float32),
    )


def square(z, half, x=0.0):
    return [(x - half, -half, z), (x - half, half, z), (x + half, half, z), (x + half, -half, z)]


def see(bodies, sides, light=FRONTAL, wall=WALL, skin=None):
    skin = sample_factors(0, "train", 0).appearance if skin is None else skin
    return draw_bodies(procedural_rig(), bodies, sides, skin, light, wall, K, SIZE, flesh_radii())


def test_depth_of_a_slanted_plane_is_exact():
    # Corners on the plane z = 500 + 0.4 x - 0.3 y.
    corners = [(x, y, 500 + 0.4 * x - 0.3 * y) for x, y, _ in square(0, 150)]
    raster = see([quad(corners)], ["right"])
    v, u = np.nonzero(raster.mask == 33)
    assert len(v) > 300
    x, y = (u - 32) / 60, (v - 32) / 60  # ray (x, y, 1) meets the plane at z = 500 / (1 - 0.4 x + 0.3 y)
    np.testing.assert_allclose(raster.depth_mm[v, u], 500 / (1 - 0.4 * x + 0.3 * y), rtol=1e-5)
    assert (raster.depth_mm[raster.mask == 0] == 3000).all()


def moeller_trumbore(origin, direction, triangles):
    """Smallest positive distance of a ray to triangles (f, 3, 3), by the textbook, in float64."""
    a, e1, e2 = triangles[:, 0], triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]
    p = np.cross(direction, e2)
    det = np.einsum("fi,fi->f", e1, p)
    det[np.abs(det) < 1e-12] = np.nan
    s = origin - a
    u = np.einsum("fi,fi->f", s, p) / det
    q = np.cross(s, e1)
    v = np.einsum("i,fi->f", direction, q) / det
    t = np.einsum("fi,fi->f", e2, q) / det
    return np.min(t[(u >= 0) & (v >= 0) & (u + v <= 1) & (t > 0)], initial=np.inf)


def test_depth_of_a_hand_agrees_with_brute_force():
    factors = sample_factors(0, "train", 3)
    factors = dataclasses.replace(factors, scene=dataclasses.replace(factors.scene, second_shown=0))
    rendering = render(factors, SIZE)
    body, camera = build_hand(factors), camera_matrix(factors, SIZE)
    triangles = body.vertices_mm.astype(np.float64)[body.faces]
    v, u = np.nonzero(rendering.part_mask > 0)
    for i in np.linspace(0, len(v) - 1, 25).astype(int):
        ray = np.linalg.inv(camera) @ [u[i], v[i], 1]
        expected = moeller_trumbore(np.zeros(3), ray, triangles)
        assert rendering.depth_mm[v[i], u[i]] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("side", "ids"), [("left", range(2, 18)), ("right", range(18, 34))])
def test_part_ids_belong_to_the_side(side, ids):
    table = rhd_ids(np.arange(17), side)
    assert table[:16].tolist() == list(ids)
    assert table[16] == 1
    with pytest.raises(ValueError, match="left"):
        rhd_ids(np.arange(17), side.upper())


def test_two_hands_keep_their_own_ids_and_the_nearer_hides_the_farther():
    near, far = quad(square(400, 60)), quad(square(600, 200))
    raster = see([near, far], ["left", "right"])
    assert raster.mask[32, 32] == 17
    assert raster.depth_mm[32, 32] == pytest.approx(400)
    assert raster.mask[32, 48] == 33
    assert set(np.unique(raster.mask)) == {0, 17, 33}


def test_visibility_is_traced():
    joints = np.tile([0.0, 0.0, 505.0], (JOINTS, 1))  # five millimetres behind the surface
    joints[1] = [0.0, 0.0, 590.0]  # too deep to be under this skin
    joints[2] = [900.0, 0.0, 505.0]  # out of the frame
    joints[3] = [70.0, 0.0, 505.0]  # behind the blocker
    joints[4] = [0.0, 0.0, -505.0]  # behind the camera
    hand = quad(square(500, 120), joints=joints)
    visible = see([hand], ["right"]).visible[0]
    assert np.flatnonzero(~visible).tolist() == [1, 2, 4]
    blocker = quad(square(300, 20, x=42))
    visible, _ = see([hand, blocker], ["right", "left"]).visible
    assert np.flatnonzero(~visible).tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("index", range(6))
def test_visible_joints_of_hands_are_in_the_frame_under_their_own_skin(index):
    rendering = render(sample_factors(7, "val", index), 96)
    u, v, seen = rendering.uv_vis.T
    assert set(np.unique(seen)) <= {0, 1}
    for joint in np.flatnonzero(seen == 1):
        row, column = round(float(v[joint])), round(float(u[joint]))
        assert 0 <= row < 96
        assert 0 <= column < 96
        own = range(2, 18) if joint < 21 else range(18, 34)
        around = rendering.part_mask[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
        assert np.isin(around, [*own, 1]).any()  # the arm counts: it may cover the wrist
    assert seen.sum() >= 1


def test_something_before_the_light_casts_a_shadow():
    hand = quad(square(600, 200))
    light = dataclasses.replace(FRONTAL, key_direction=np.array([0.6, 0, -0.8]))
    roof = quad(square(400, 40, x=150))  # over the point (0, 0, 600) in the direction of the light
    lit, shaded = see([hand], ["right"], light), see([hand, roof], ["right", "left"], light)
    assert (lit.mask[32, 30:35] == shaded.mask[32, 30:35]).all()
    # Light is gathered at vertices, so a shadow on the middle of a quad is lost: use a finer body.
    n = 24
    grid = np.stack(
        np.meshgrid(np.linspace(-150, 150, n), np.linspace(-150, 150, n), indexing="ij"), -1
    ).reshape(-1, 2)
    a = (np.arange(n - 1)[:, None] * n + np.arange(n - 1)).ravel()
    fine = Body(
        np.concatenate([grid, np.full((n * n, 1), 600)], axis=1).astype(np.float32),
        np.concatenate([np.stack([a, a + 1, a + n + 1], 1), np.stack([a, a + n + 1, a + n], 1)]).astype(
            np.int32
        ),
        hand.joints_mm,
        np.zeros((n * n, 3), np.float32),
        np.full(n * n, 15, np.uint8),
        np.ones(n * n, np.float32),
    )
    lit, shaded = see([fine], ["right"], light), see([fine, roof], ["right", "left"], light)
    assert shaded.colour[32, 32].mean() < 0.6 * lit.colour[32, 32].mean()
    np.testing.assert_allclose(
        shaded.colour[32, 20], lit.colour[32, 20], rtol=0.05
    )  # and only where it should


def test_the_shadow_on_the_wall_lies_where_the_light_throws_it():
    light = dataclasses.replace(
        FRONTAL, key_direction=np.array([0.3, -0.2, -1.0]) / np.sqrt(1.13), key_width=0.01
    )
    body = quad(square(500, 60))
    depth = np.full((SIZE, SIZE), 900.0, np.float32)
    lit = light_wall(WALL, light, depth, K, body.vertices_mm, body.faces)
    v, u = np.mgrid[:SIZE, :SIZE]
    # From the wall's point, 400 mm towards the camera along the light.
    x, y = (u - 32) / 60 * 900 + 0.3 * 400, (v - 32) / 60 * 900 - 0.2 * 400
    inside, outside = (np.maximum(np.abs(x), np.abs(y)) < 42), np.maximum(np.abs(x), np.abs(y)) > 78
    assert inside.sum() > 20
    bright = lit[outside].mean()
    np.testing.assert_allclose(lit[outside], bright, rtol=0.05)
    assert lit[inside].max() < 0.45 * bright
    # And on pictures with bodies, there is none behind a light that comes from behind.
    behind = dataclasses.replace(light, key_direction=np.array([0, 0, 1.0]))
    assert np.ptp(light_wall(WALL, behind, depth, K, body.vertices_mm, body.faces)) < 1e-6


@pytest.mark.parametrize(("towards", "seen"), [((0, 0, -1.0), True), ((0, 0, 1.0), False)])
def test_the_second_light_shines_on_what_faces_it(towards, seen):
    hand = quad(square(500, 120))
    fill = dataclasses.replace(
        FRONTAL, fill_direction=np.array(towards), fill_colour=np.array([0.0, 0.0, 1.0])
    )
    before, after = see([hand], ["right"]).colour[32, 32], see([hand], ["right"], fill).colour[32, 32]
    np.testing.assert_array_equal(before[:2], after[:2])
    assert (after[2] > 1.2 * before[2]) == seen


@settings(deadline=None, max_examples=12)
@given(st.integers(0, 10**6), st.floats(0, 2 * np.pi), st.floats(-1, 1), st.floats(0.03, 0.5))
def test_light_alone_changes_no_truth(index, turn, z, width):
    factors = sample_factors(5, "train", index)
    flat = np.sqrt(1 - z * z)
    direction = np.array([flat * np.cos(turn), flat * np.sin(turn), z])
    light = {"key_direction": direction, "key_width": width, "fill_direction": -direction, "exposure": 1.0}
    lit = dataclasses.replace(factors, scene=dataclasses.replace(factors.scene, **light))
    a, b = render(factors, 48), render(lit, 48)
    np.testing.assert_array_equal(a.part_mask, b.part_mask)
    np.testing.assert_array_equal(a.depth_mm, b.depth_mm)
    np.testing.assert_array_equal(a.uv_vis, b.uv_vis)


def test_blur_is_a_convolution():
    picture = np.random.default_rng(0).integers(0, 256, (20, 24, 3), np.uint8)
    np.testing.assert_array_equal(blur(picture, 0.0, np.zeros(2)), picture)
    side = round(32 * 0.6**2) / 64  # three taps of that variance, in 64ths
    expected = picture.astype(float)
    for axis in (0, 1):
        expected = ndimage.correlate1d(expected, [side, 1 - 2 * side, side], axis=axis, mode="nearest")
    np.testing.assert_allclose(blur(picture, 0.6, np.zeros(2)), expected, atol=1.6)


@pytest.mark.parametrize("motion", [(4.0, 0.0), (0.0, -4.0), (3.0, 3.0), (-1.0, 2.5)])
def test_motion_smears_along_its_way_and_moves_nothing(motion):
    point = np.zeros((31, 31, 3), np.uint8)
    point[15, 15] = 240
    seen = blur(point, 0.0, np.array(motion))[..., 0].astype(float)
    v, u = np.mgrid[:31, :31] - 15
    weight = seen / seen.sum()
    assert seen.sum() == pytest.approx(240, rel=0.03)
    np.testing.assert_allclose([(weight * u).sum(), (weight * v).sum()], 0, atol=1e-9)
    spread = np.array([[(weight * a * b).sum() for a in (u, v)] for b in (u, v)])
    across = np.array([-motion[1], motion[0]]) / np.hypot(*motion)
    assert across @ spread @ across < 0.3
    along = np.array(motion) / np.hypot(*motion)
    # A line of length l has the variance l^2 / 12; whole pixels make it a little wider.
    assert along @ spread @ along == pytest.approx(np.hypot(*motion) ** 2 / 12, abs=0.75)


def test_grain_has_the_strength_that_the_factors_say():
    factors = sample_factors(0, "train", 6)
    clean = dataclasses.replace(factors.scene, noise=0.0, jpeg_quality=100)
    noisy = dataclasses.replace(clean, noise=0.012)
    other = dataclasses.replace(noisy, noise_seed=noisy.noise_seed + 1)
    a, b, c = (
        render(dataclasses.replace(factors, scene=scene), 160).image.astype(float)
        for scene in (clean, noisy, other)
    )
    middle = (a > 60) & (a < 200)
    expected = 0.012 * (0.5 * 255 + np.sqrt(a[middle] * 255))
    assert np.std((b - a)[middle] / expected) == pytest.approx(1, abs=0.06)
    assert abs(np.corrcoef((b - a)[middle], (c - a)[middle])[0, 1]) < 0.1


def test_the_vignette_darkens_corners_and_white_balance_scales_colours():
    factors = sample_factors(0, "train", 6)
    scene = dataclasses.replace(
        factors.scene, noise=0.0, jpeg_quality=100, vignette=0.0, white_balance=np.ones(3), second_shown=0
    )
    darker = dataclasses.replace(scene, vignette=0.6)
    warmer = dataclasses.replace(scene, white_balance=np.array([1.5, 1.0, 0.6]))
    plain, dark, warm = (
        render(dataclasses.replace(factors, scene=s), SIZE).image.astype(float)
        for s in (scene, darker, warmer)
    )
    corner, middle = (slice(0, 6), slice(0, 6)), (slice(28, 36), slice(28, 36))
    assert dark[corner].mean() < 0.85 * plain[corner].mean()
    assert dark[middle].mean() > 0.98 * plain[middle].mean()
    assert warm[..., 0].mean() > plain[..., 0].mean()
    np.testing.assert_array_equal(warm[..., 1], plain[..., 1])
    assert warm[..., 2].mean() < plain[..., 2].mean()


def test_edges_are_smoothed():
    white = dataclasses.replace(WALL, picture=np.ones((SIZE, SIZE, 3), np.float32))
    corners = [(x + 0.35 * y, y, 500) for x, y, _ in square(0, 120)]  # a slanted border
    raster = see([quad(corners)], ["right"], wall=white)
    inside, outside = raster.colour[32, 32].mean(), raster.colour[2, 2].mean()
    between = raster.colour.mean(-1)
    between = (between > inside + 0.2 * (outside - inside)) & (between < outside - 0.2 * (outside - inside))
    assert between.sum() > 10


def test_left_is_the_mirror_image_of_right():
    factors = sample_factors(0, "train", 11)
    scene = dataclasses.replace(factors.scene, second_shown=0, left=0, wall_slope=np.zeros(2))
    right = render(dataclasses.replace(factors, scene=scene), SIZE)
    left = render(dataclasses.replace(factors, scene=dataclasses.replace(scene, left=1)), SIZE)
    mirror = np.array([-1, 1, 1])
    np.testing.assert_allclose(left.joints_mm[:21], right.joints_mm[21:] * mirror, atol=1e-9)
    np.testing.assert_array_equal(left.uv_vis[:21, 2], right.uv_vis[21:, 2])
    # The optical axis meets pixel 32, so column u answers to column 64 - u.
    flipped = right.part_mask[:, :0:-1]
    expected = np.where(flipped >= 18, flipped - 16, flipped)
    assert np.mean(left.part_mask[:, 1:] == expected) > 0.998
    same = (left.part_mask[:, 1:] == expected) & (expected > 1)
    depth_error = np.abs(left.depth_mm[:, 1:] - right.depth_mm[:, :0:-1])[same]
    assert np.quantile(depth_error, 0.99) < 0.1


def test_joints_follow_rhds_order():
    rendering = render(sample_factors(0, "train", 2), SIZE)
    body = build_hand(sample_factors(0, "train", 2))
    own = rendering.joints_mm[:21] if rendering.side == "left" else rendering.joints_mm[21:]
    np.testing.assert_array_equal(own[RHD_ORDER], body.joints_mm)


def test_display_and_linear_are_inverse():
    values = np.linspace(0, 1, 300)
    np.testing.assert_allclose(to_display(to_linear(values)), values, atol=1e-9)


def test_backdrops_depend_on_their_seed_alone():
    first, again, other = paint_backdrop(5, 48), paint_backdrop(5, 48), paint_backdrop(6, 48)
    np.testing.assert_array_equal(first, again)
    assert first.shape == (48, 48, 3)
    assert np.abs(first - other).mean() > 0.01


def test_skin_darkens_with_melanin_and_reddens_with_blood():
    shades = skin_colour(np.linspace(0.1, 2.6, 20), np.full(20, 0.3))
    assert (np.diff(shades, axis=0) < 0).all()
    assert (shades[:, 0] > shades[:, 1]).all()
    assert (shades[:, 1] > shades[:, 2]).all()
    pale, flushed = skin_colour(0.5, 0.1), skin_colour(0.5, 0.6)
    assert flushed[0] / flushed[1] > pale[0] / pale[1]


def test_light_patterns_are_unit_vectors_around_their_axis():
    axis = np.array([0.6, 0, -0.8])
    disc = sample_disc(axis, 0.1, np.linspace(0, 6, 40, dtype=np.float32), 4)
    np.testing.assert_allclose(np.linalg.norm(disc, axis=-1), 1, atol=1e-6)
    assert (disc @ axis).min() > np.cos(0.1)
    normals = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    around = sample_hemisphere(normals, np.linspace(0, 6, 40, dtype=np.float32), 5)
    np.testing.assert_allclose(np.linalg.norm(around, axis=-1), 1, atol=1e-5)
    cosine = np.einsum("nsi,ni->ns", around, normals)
    assert cosine.min() > 0
    assert cosine.mean() == pytest.approx(2 / 3, abs=0.05)  # mean cosine of cosine-weighted directions


def test_small_frames_are_refused():
    with pytest.raises(ValueError, match="16"):
        render(sample_factors(0, "train", 0), 8)


def test_images_are_what_pillow_can_store():
    rendering = render(sample_factors(0, "test", 0), SIZE)
    assert rendering.image.dtype == np.uint8
    assert Image.fromarray(rendering.image).size == (SIZE, SIZE)
    assert rendering.depth_mm.dtype == np.float32
    assert rendering.depth_mm.min() > 0
    assert rendering.depth_mm.max() < 5000


@pytest.mark.parametrize("index", range(4))
def test_looking_only_where_bodies_are_misses_nothing(index, monkeypatch):
    factors = sample_factors(9, "train", 25 + index)
    sparing = render(factors, 96)
    monkeypatch.setattr(
        "synthhand.render.raster.find_occupied", lambda mesh, size, K: np.ones((size, size), bool)
    )
    thorough = render(factors, 96)
    np.testing.assert_array_equal(sparing.part_mask, thorough.part_mask)
    np.testing.assert_array_equal(sparing.depth_mm, thorough.depth_mm)
    np.testing.assert_array_equal(sparing.image, thorough.image)


def test_open3d_is_imported_without_its_machine_learning_which_can_be_had_later():
    code = (
        "import sys; from synthhand.render.raycast import load_open3d; "
        "first = load_open3d(); assert first is load_open3d() and first.t.geometry.RaycastingScene; "
        "print('sklearn' in sys.modules, 'open3d.ml' in sys.modules); "
        "import open3d.ml; print(open3d.ml.datasets.__name__, 'sklearn' in sys.modules)"
    )
    fresh = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert fresh.stdout.split() == ["False", "False", "open3d.ml.datasets", "True"]
