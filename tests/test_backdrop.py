"""Backgrounds: variety, reproduction by seed, scikit-image's pictures, and a user's folder."""

import dataclasses
import socket

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from synthhand.dataset.factors import sample_factors
from synthhand.dataset.scene import render
from synthhand.render import photos
from synthhand.render.backdrop import KINDS, paint_backdrop, to_display
from synthhand.render.textures import MATERIALS, SIDE, make_texture, shrink_texture

RED, BLUE = (200, 30, 30), (30, 30, 200)


@pytest.fixture
def folder(tmp_path):
    """Two pictures of one colour, and a file that is none."""
    Image.new("RGB", (60, 40), RED).save(tmp_path / "a.png")
    Image.new("RGB", (30, 50), BLUE).save(tmp_path / "b.JPG", quality=95)
    (tmp_path / "notes.txt").write_text("no picture")
    return tmp_path


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [16, 45])
def test_every_kind_is_a_picture_fixed_by_its_seed(kind, size):
    pictures = [paint_backdrop(seed, size, kind=kind) for seed in range(6)]
    for seed, picture in enumerate(pictures):
        assert picture.shape == (size, size, 3)
        assert picture.dtype == np.float32
        assert 0 <= picture.min() <= picture.max() <= 1
        np.testing.assert_array_equal(picture, paint_backdrop(seed, size, kind=kind))
    apart = [np.abs(a - b).mean() for i, a in enumerate(pictures) for b in pictures[:i]]
    assert min(apart) > 1e-3


def test_seeds_draw_all_kinds_dark_and_bright():
    level = [to_display(paint_backdrop(seed, 32)).mean() for seed in range(60)]
    assert np.quantile(level, 0.1) < 0.3
    assert np.quantile(level, 0.9) > 0.5


def test_shipped_photographs_need_no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    for name in sorted(set(photos._SHIPPED)):
        assert photos._load_shipped.__wrapped__(name).mode == "RGB"


@pytest.mark.parametrize("name", MATERIALS)
def test_patterns_have_no_seam(name):
    pattern = make_texture(name).astype(float)
    assert pattern.shape == (SIDE, SIDE)
    for axis in (0, 1):
        steps = np.abs(pattern - np.roll(pattern, 1, axis)).mean(axis=1 - axis)
        # The step over the border is like the others (bricks have joints there, as elsewhere).
        assert steps[0] <= 1.5 * np.quantile(steps, 0.99) + 1
    small = shrink_texture(name, 2)
    assert small.shape == (SIDE // 4, SIDE // 4)
    blocks = pattern.reshape(SIDE // 4, 4, SIDE // 4, 4).mean((1, 3))
    np.testing.assert_allclose(small, blocks, atol=2)


def test_a_folder_is_chosen_from_by_the_seed(folder):
    means = np.array([paint_backdrop(seed, 24, folder).mean((0, 1)) for seed in range(12)])
    reddish = means[:, 0] > means[:, 2]
    assert 0 < reddish.sum() < 12
    for mean, red in zip(means, reddish, strict=True):
        np.testing.assert_allclose(to_display(mean) * 255, RED if red else BLUE, rtol=0.35, atol=12)
    np.testing.assert_array_equal(paint_backdrop(3, 24, folder), paint_backdrop(3, 24, folder))


def test_a_broken_picture_is_named(folder):
    (folder / "b.JPG").write_bytes((folder / "b.JPG").read_bytes()[:200])
    with pytest.raises(ValueError, match=r"b\.JPG: cannot be read"):
        for seed in range(12):
            paint_backdrop(seed, 24, folder)


def test_folders_without_pictures_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        paint_backdrop(0, 24, tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(FileNotFoundError, match="holds no picture"):
        paint_backdrop(0, 24, tmp_path)


def test_backgrounds_change_nothing_but_the_wall(folder):
    factors = sample_factors(2, "train", 5)
    scene = dataclasses.replace(
        factors.scene, noise=0.0, jpeg_quality=100, blur_px=0.0, motion_px=np.zeros(2), root_mm=300.0,
        root_uv=np.array([160.0, 160.0]),
    )  # fmt: skip
    factors = dataclasses.replace(factors, scene=scene)
    plain, photo = render(factors, 64), render(factors, 64, backgrounds=folder)
    np.testing.assert_array_equal(plain.depth_mm, photo.depth_mm)
    np.testing.assert_array_equal(plain.part_mask, photo.part_mask)
    np.testing.assert_array_equal(plain.uv_vis, photo.uv_vis)
    body = plain.part_mask > 0
    inner = ndimage.binary_erosion(body, np.ones((5, 5)))
    assert inner.sum() > 50
    np.testing.assert_array_equal(plain.image[inner], photo.image[inner])
    assert np.abs(plain.image[~body].astype(int) - photo.image[~body]).mean() > 5
