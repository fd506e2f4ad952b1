"""davae.data.photometric: pictures change in light, colours and detail, and nothing else does."""

import dataclasses

import numpy as np
import pytest
import torch
from test_augment import raw_batch

from davae.config import DataConfig
from davae.data import photometric
from davae.data.augment import RawBatch, augment
from davae.data.photometric import Changes, change_photos, draw_changes

CONFIG = DataConfig(image_px=32, cloud_points=64, shift=0.1, blur=0.05)


def drawn(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def unchanged(count: int, px: int) -> Changes:
    """Changes that change nothing, whose noise has no weight."""
    changes = draw_changes(count, px, 0.0, drawn())
    assert changes.noise.std() > 0.9
    return changes


@pytest.fixture(params=["kernel", "torch"])
def way(request, monkeypatch, require):
    """Compute by the kernel, then by torch's operations."""
    if request.param == "kernel":
        require(photometric.explain_missing() is None, f"no kernels: {photometric.explain_missing()}")
    else:
        monkeypatch.setattr(photometric, "explain_missing", lambda: "for this test")


def test_the_kernel_changes_photos_as_torch_does(monkeypatch, require):
    require(photometric.explain_missing() is None, f"no kernels: {photometric.explain_missing()}")
    images, masks = torch.rand(8, 3, 20, 24, generator=drawn(1)), torch.rand(8, 1, 20, 24, generator=drawn(2))
    changes = draw_changes(8, 24, 1.0, drawn())
    ours = [change_photos(images, changes), change_photos(images, changes, masks)]
    monkeypatch.setattr(photometric, "explain_missing", lambda: "for this test")
    for own, torchs in zip(
        ours, [change_photos(images, changes), change_photos(images, changes, masks)], strict=True
    ):
        torch.testing.assert_close(own, torchs, rtol=0, atol=2e-6)
        assert own.min() >= 0 and own.max() <= 1


def test_each_change_is_the_one_it_is_called(way):
    images = torch.rand(2, 3, 16, 16, generator=drawn(1))
    none = unchanged(2, 16)
    torch.testing.assert_close(change_photos(images, none), images)

    def change(**fields):
        return change_photos(images, none._replace(**fields))

    half = none.colours.clone()
    half[:, :, :3] *= 0.5
    torch.testing.assert_close(change(colours=half), images / 2)
    torch.testing.assert_close(change(tone=torch.full((2,), 0.5)), images + 0.5 * images * (1 - images))
    soft, sharp = (change(detail=torch.full((2,), detail)) for detail in (-0.8, 2.0))
    spread = [one.var((2, 3)) for one in (soft, images, sharp)]
    assert (spread[0] < spread[1]).all() and (spread[1] < spread[2]).all()
    grey = torch.full_like(images, 0.5)
    noisy = change_photos(grey, none._replace(grain=torch.full((2,), 0.05)))
    assert 0.04 < noisy.std() < 0.06 and abs(noisy.mean() - 0.5) < 0.005
    assert (noisy[0] != noisy[1]).any(), "each image has its own part of the noise"


def test_changes_reach_what_photographs_do():
    changes = draw_changes(2000, 8, 1.0, drawn())
    matrix = changes.colours[:, :, :3].numpy()
    grey = np.ptp(matrix, axis=1).max(1) < 1e-6  # every channel of the output is the same
    assert 0.1 < grey.mean() < 0.3
    white = matrix.sum(2)
    assert white.mean(1).min() < 0.45 and white.mean(1).max() > 2.2
    cool = white[:, 2] / white[:, 0]
    assert cool.min() < 0.8 and cool.max() > 1.25
    mild = draw_changes(2000, 8, 0.1, drawn()).colours[:, :, :3].sum(2)
    assert (mild - 1).abs().max() < 0.2


@pytest.mark.parametrize("mask", ["none", "truth", "network"])
@pytest.mark.parametrize("target", [{}, {"steady_target": True}, {"canvas": True}])
def test_only_pictures_change_and_only_where_the_hand_is(way, mask, target):
    plain = dataclasses.replace(CONFIG, mask=mask, blur=0.0, **target)
    raw = raw_batch(8, plain)
    predicted = torch.where(raw.masks > 0, 255, 0).to(torch.uint8) if mask == "network" else None
    raw = raw._replace(predicted_masks=predicted, has_mask=torch.arange(8) % 4 > 0)
    here, there = (
        augment(raw, config, drawn()) for config in (plain, dataclasses.replace(plain, photometric=1.0))
    )
    for name in here._fields:
        if name not in ("image", "target"):
            torch.testing.assert_close(getattr(here, name), getattr(there, name), rtol=0, atol=0)
    bare = (here.mask == 0).expand_as(here.target)
    assert (there.target[bare] == 0.5).all()
    moved = (here.image - there.image).abs().amax((1, 2, 3))
    assert (moved > 0.05).all()
    if mask != "none":
        background = (here.image - 0.5).abs().amax(1) == 0
        background[raw.has_mask.logical_not()] &= mask == "network"
        assert background.any() and (there.image.permute(0, 2, 3, 1)[background] == 0.5).all()


def test_the_target_takes_the_colours_of_the_changes_and_not_their_detail(way):
    flat = dataclasses.replace(CONFIG, blur=0.0)
    raw = raw_batch(4, flat)
    raw = raw._replace(images=torch.full_like(raw.images, 102), masks=torch.full_like(raw.masks, 255))
    changed = dataclasses.replace(
        flat, photometric=1.0, shift=0.0, scale_min=0.8, scale_max=0.8, rotation=0.0
    )
    seen = augment(raw, changed, drawn())
    inner = seen.image[:, :, 8:-8, 8:-8].mean((2, 3)), seen.target[:, :, 8:-8, 8:-8].mean((2, 3))
    assert (inner[1] - 0.4).abs().max() > 0.05
    torch.testing.assert_close(*inner, atol=0.02, rtol=0)  # but for the grain's mean
    assert seen.target[:, :, 8:-8, 8:-8].std((2, 3)).max() < 1e-3


def test_without_it_nothing_more_is_drawn_and_with_it_the_same_is_drawn_first():
    changed = dataclasses.replace(CONFIG, photometric=1.0)
    generators = [drawn(3), drawn(3)]
    here, there = (augment(raw_batch(4), c, g) for c, g in zip((CONFIG, changed), generators, strict=True))
    torch.testing.assert_close(here.joints, there.joints, rtol=0, atol=0)
    torch.testing.assert_close(here.root, there.root, rtol=0, atol=0)
    again = drawn(3)
    for draws in ((4,), (4,)):
        torch.rand(draws, generator=again)
    torch.randint(100, (4, 1), generator=again)
    for draws in ((4, 2), (4,), (4,)):
        torch.rand(draws, generator=again)
    assert torch.rand(1, generator=again) == torch.rand(1, generator=generators[0])


def test_a_share_of_a_batch_changes_as_in_the_whole():
    config = dataclasses.replace(CONFIG, photometric=1.0, mask="truth")
    raw = raw_batch(8)
    whole = augment(raw, config, drawn()).image
    share = RawBatch(*(None if field is None else field[2:5] for field in raw))
    torch.testing.assert_close(augment(share, config, drawn(), batch=8, rows=slice(2, 5)).image, whole[2:5])
