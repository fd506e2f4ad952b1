"""Fast pictures of hands: depth of every pixel, and bodies with known outlines."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial import ConvexHull

from synthhand.model.procedural import procedural_rig
from synthhand.render.view import BACKGROUND, _fill, draw_cloud, draw_mesh, fit_normals, view_from

RIG = procedural_rig()


def sphere(radius, count=600):
    """A closed mesh (v, 3), (f, 3) of a sphere, its faces counter-clockwise seen from outside."""
    k = np.arange(count) + 0.5
    polar, around = np.arccos(1 - 2 * k / count), np.pi * (1 + 5**0.5) * k
    points = np.stack([np.cos(around) * np.sin(polar), np.sin(around) * np.sin(polar), np.cos(polar)], 1)
    faces = ConvexHull(points).simplices
    a, b, c = points[faces].swapaxes(0, 1)
    inward = np.einsum("fi,fi->f", np.cross(b - a, c - a), a) < 0
    faces[inward] = faces[inward][:, ::-1]
    return (radius * points).astype(np.float32), faces


def covered(picture):
    return (picture != BACKGROUND.astype(np.uint8)).any(2)


def test_a_sphere_covers_its_disc_and_is_lit_from_the_upper_left():
    picture = draw_mesh(*sphere(40.0), view_from(0, 0), half_mm=60.0, px=120)
    assert picture.shape == (120, 120, 3) and picture.dtype == np.uint8
    assert covered(picture).sum() == pytest.approx(np.pi * 40**2, rel=0.04)
    v, u = np.nonzero(covered(picture))
    assert abs(u.mean() - 59.5) < 0.5 and abs(v.mean() - 59.5) < 0.5
    assert picture[35:50, 35:50].mean() > 1.3 * picture[70:85, 70:85].mean()


def test_no_gap_opens_between_triangles():
    vertices, faces = sphere(1.0, 150)
    for turn in range(0, 180, 20):
        picture = draw_mesh(vertices, faces, view_from(turn, turn / 2), half_mm=1.5, px=90)
        y, x = np.mgrid[:90, :90] - 44.5
        assert covered(picture)[np.hypot(x, y) < 0.93 * 30].all()


def test_the_nearest_surface_is_the_one_drawn():
    """Against a search of all triangles for the nearest, pixel by pixel, on the built-in hand."""
    half, px = 130.0, 40
    rotation = view_from(35, -20)
    light = draw_mesh(RIG.vertices_mm, RIG.faces, rotation, half_mm=half, px=px)
    near = np.full((px, px), np.inf)
    vertices = RIG.vertices_mm @ rotation.T
    pixels = vertices[:, :2] * (px / (2 * half)) + (px - 1) / 2
    for face in RIG.faces:
        (x0, y0), (x1, y1), (x2, y2) = pixels[face]
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        for u in range(int(np.ceil(min(x0, x1, x2))), int(max(x0, x1, x2)) + 1):
            for v in range(int(np.ceil(min(y0, y1, y2))), int(max(y0, y1, y2)) + 1):
                b = ((u - x0) * (y2 - y0) - (x2 - x0) * (v - y0)) / area
                c = ((x1 - x0) * (v - y0) - (u - x0) * (y1 - y0)) / area
                if min(b, c, 1 - b - c) >= 0 and 0 <= u < px and 0 <= v < px:
                    near[v, u] = min(near[v, u], np.dot([1 - b - c, b, c], vertices[face, 2]))
    hand = np.isfinite(near)
    assert covered(light)[hand].mean() > 0.999
    assert (covered(light) & ~hand).sum() < 0.25 * hand.sum()  # pixels of which only a part is the hand


def test_what_is_nearer_hides_what_is_behind():
    vertices, faces = sphere(1.0, 200)
    far = np.array([0.0, 0.0, 5.0])
    two = np.concatenate([vertices + far, 0.5 * vertices - far]).astype(np.float32)
    both = np.concatenate([faces, faces + len(vertices)])
    for order in (both, both[::-1]):
        picture = draw_mesh(two, order, view_from(0, 0), half_mm=1.5, px=90)
        alone = draw_mesh(two[len(vertices) :], faces, view_from(0, 0), half_mm=1.5, px=90)
        middle = np.hypot(*(np.mgrid[:90, :90] - 44.5)) < 13
        assert np.abs(picture[middle].astype(int) - alone[middle]).max() <= 1


@given(st.integers(0, 10_000))
def test_filled_values_are_linear(seed):
    rng = np.random.default_rng(seed)
    corners = rng.uniform(-4, 24, (6, 3, 2)).astype(np.float32)
    (ax, ay), (bx, by) = (corners[:, k].T - corners[:, 0].T for k in (1, 2))
    corners = corners[np.abs(ax * by - ay * bx) > 5]
    gradient = rng.normal(size=2)
    values = (corners @ gradient + 7).astype(np.float32)
    places, found = _fill(corners, values, 20)
    v, u = np.divmod(places, 20)
    np.testing.assert_allclose(found, np.stack([u, v], 1) @ gradient + 7, atol=5e-3)
    assert (places >= 0).all() and (places < 400).all()


def test_viewpoints_are_rotations_about_the_named_axes():
    assert np.allclose(view_from(0, 0), np.eye(3))
    for turn, tilt in ((30, 0), (0, 50), (-120, 80)):
        rotation = view_from(turn, tilt)
        assert np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-6) and np.linalg.det(rotation) > 0
    assert np.allclose(view_from(90, 0) @ [0, 1, 0], [0, 1, 0])
    assert np.allclose(view_from(0, 90) @ [1, 0, 0], [1, 0, 0])
    assert np.allclose(view_from(0, 30) @ [0, -1, 0] @ [0, 0, -1], 0.5)  # what is above comes nearer
    points = np.array([[0.0, 0, 0], [40, 0, 0]])
    side = draw_cloud(points, view_from(90, 0), half_mm=60.0, px=60, radius_mm=5.0)
    assert np.nonzero(covered(side))[1].max() < 35  # one behind the other


def test_points_of_a_cloud_lie_where_they_should_and_near_ones_are_bright():
    points = np.array([[-30.0, 0, -50], [30, 20, 50]])
    picture = draw_cloud(points, view_from(0, 0), half_mm=60.0, px=120, radius_mm=6.0).astype(int)
    near, far = picture[60, 30], picture[80, 90]
    assert near.sum() > 1.5 * far.sum()
    overlapping = points * [0, 0, 1]
    first, second = (draw_cloud(p, view_from(0, 0), half_mm=60.0, px=120, radius_mm=6.0)
                     for p in (overlapping, overlapping[::-1]))  # fmt: skip
    assert np.array_equal(first, second) and np.abs(first[60, 60] - near).max() <= 1
    assert covered(picture).sum() == pytest.approx(2 * np.pi * 6**2, rel=0.15)


def test_normals_are_those_of_the_sampled_surface():
    points, _ = sphere(40.0, 2000)
    across = np.einsum("pi,pi->p", fit_normals(points), points / 40)
    assert np.abs(across).min() > 0.995
    assert fit_normals(points[:3]).shape == (3, 3)  # fewer points than neighbours


def test_a_cloud_with_normals_is_a_lit_surface_without_gaps():
    """As a mesh of the same sphere: from the upper left, whatever the sign of the normals."""
    points, faces = sphere(40.0, 2000)
    normals = fit_normals(points)
    front, aside = view_from(0, 0), view_from(70, 30)
    picture = draw_cloud(points, front, half_mm=60.0, px=120, radius_mm=2.5, normals=normals)
    y, x = np.mgrid[:120, :120] - 59.5
    assert covered(picture)[np.hypot(x, y) < 40].all()
    assert not covered(picture)[np.hypot(x, y) > 44].any()
    mesh = draw_mesh(points, faces, front, half_mm=60.0, px=120)
    light = [image[np.hypot(x, y) < 30].astype(float).sum(1) for image in (picture, mesh)]
    assert np.corrcoef(*light)[0, 1] > 0.8
    again = draw_cloud(points, front, half_mm=60.0, px=120, radius_mm=2.5, normals=-normals)
    assert np.array_equal(picture, again)
    turned = draw_cloud(points, aside, half_mm=60.0, px=120, radius_mm=2.5, normals=normals)
    assert np.abs(turned.astype(int) - picture)[np.hypot(x, y) < 36].mean() < 5  # a sphere from any side


@pytest.mark.parametrize("points", [np.zeros((0, 3)), np.full((3, 3), 1e4)])
def test_nothing_to_see_is_background(points):
    assert not covered(draw_cloud(points, view_from(0, 0), half_mm=60.0, px=20)).any()
    vertices, faces = sphere(1.0, 60)
    away = vertices + points[:1] if len(points) else vertices * 0
    assert not covered(draw_mesh(away, faces, view_from(0, 0), half_mm=60.0, px=20)).any()


def test_a_tensors_numpy_view_will_do():
    vertices, faces = sphere(10.0, 60)
    as_doubles = torch.from_numpy(vertices).double().numpy()
    first, second = (
        draw_mesh(v, faces, view_from(3, 4), half_mm=20.0, px=30) for v in (vertices, as_doubles)
    )
    assert np.array_equal(first, second)
