"""Measures of decoded pictures: shapes whose outline, gaps and sharpness are known."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.morphology import closing

from davae.latent import pictures as p

SIDE = 64


def rows(*, fingers=True, shift=0):
    """A palm with three fingers of 6 px and gaps of 5 px between them, or with the gaps filled."""
    mask = np.zeros((SIDE, SIDE), bool)
    mask[30 + shift : 54 + shift, 16:44] = True
    for finger in range(3):
        left = 16 + 11 * finger
        mask[10 + shift : 30 + shift, left : left + 6] = True
    if not fingers:
        mask[10 + shift : 30 + shift, 16:44] = True
    return mask


def painted(mask):
    return torch.where(
        torch.from_numpy(mask), torch.tensor([0.9, 0.6, 0.4])[:, None, None], torch.tensor(0.5)
    )


def score(decoded, true):
    pictures = p.score_pictures(painted(decoded)[None], painted(true)[None], torch.from_numpy(true)[None])
    return p.summarise_pictures(pictures)


def test_a_perfect_picture():
    found = score(rows(), rows())
    assert {name: round(value.value, 6) for name, value in found.items()} == {
        "outline_f": 1, "iou": 1, "gaps_filled": 0, "laplacian_ratio": 1, "psnr_db": 100
    }  # fmt: skip


def test_a_mitten_fills_its_gaps():
    found = score(rows(fingers=False), rows())
    assert found["gaps_filled"].value > 0.9
    assert found["outline_f"].value < 0.8 and found["iou"].value > 0.8  # overlap hardly tells
    assert np.isnan(score(rows(), rows(fingers=False))["gaps_filled"].value)  # a true mitten has none


def test_gaps_are_those_of_scikit_images_closing():
    mask = rows()
    gaps = p.find_gaps(mask, 3.5)
    footprint = np.hypot(*np.mgrid[-4:5, -4:5]) <= 3.5
    padded = np.pad(mask, 10)
    np.testing.assert_array_equal(gaps, (closing(padded, footprint) & ~padded)[10:-10, 10:-10])
    assert gaps[15:28, 22:27].all() and not gaps[15:28, :16].any()
    assert not p.find_gaps(np.zeros((8, 8), bool), 3).any()


@pytest.mark.parametrize("shift", [0, 1, 2])
def test_outlines_within_the_tolerance_count(shift):
    assert p.match_outlines(rows(shift=shift), rows(), 2.0) == (1, 1)


def test_outlines_beyond_the_tolerance_do_not_count():
    square, larger = np.zeros((2, SIDE, SIDE), bool)
    square[20:40, 20:40] = True
    larger[15:45, 15:45] = True
    assert p.match_outlines(larger, square, 2.0) == (0, 0)
    assert p.match_outlines(larger, square, 5.0)[1] == 1  # a corner of the larger one lies farther away
    half = square.copy()
    half[:, 30:] = False
    precision, recall = p.match_outlines(half, square, 0.0)
    assert precision == pytest.approx(38 / 56) and recall == pytest.approx(38 / 76)


def test_empty_outlines():
    empty = np.zeros((SIDE, SIDE), bool)
    assert p.match_outlines(empty, empty, 2.0) == (1, 1)
    assert p.match_outlines(empty, rows(), 2.0) == (0, 0)
    assert not p.outline(np.ones((8, 8), bool)).any()


def test_a_blurred_picture_is_told_by_its_laplacian():
    sharp = painted(rows())
    soft = torch.from_numpy(np.stack([ndimage.gaussian_filter(c, 3) for c in sharp.numpy()]))
    scores = p.score_pictures(soft[None], sharp[None], torch.from_numpy(rows())[None])
    assert p.summarise_pictures(scores)["laplacian_ratio"].value < 0.02


def test_intervals_cover_means_and_shares_of_nothing_are_none():
    masks = np.stack([rows(shift=k) for k in range(-4, 5)])
    decoded = torch.stack([painted(rows())] * 9)
    scores = p.score_pictures(decoded, torch.stack([painted(m) for m in masks]), torch.from_numpy(masks))
    found = p.summarise_pictures(scores)
    assert all(low <= value <= high for value, low, high in found.values())
    assert found["outline_f"].low < found["outline_f"].high
    block = np.zeros((SIDE, SIDE), bool)
    block[20:40, 20:40] = True
    assert np.isnan(score(block, block)["gaps_filled"].value)
