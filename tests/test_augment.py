"""davae.data.augment: image, joints and cloud rotate together, and no padding becomes visible."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rhd_fixture import open_hand_mm, rotation, write_dataset
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation
from torch.nn import functional as F

from davae.config import CANVAS, DataConfig
from davae.data import augment as augment_module
from davae.data.augment import (
    RawBatch,
    announce,
    augment,
    blur,
    centre,
    hold_on_gpu,
    load_batch,
    turn_and_zoom,
)
from davae.data.prepared import PreparedSplit, prepare
from davae.data.sample import make_row, stored_px
from synthhand import pinhole
from synthhand.formats.record import HandRecord
from synthhand.skeleton import ROOT

CONFIG = DataConfig(image_px=32, cloud_points=64)


def raw_batch(b: int = 3, config: DataConfig = CONFIG, points: int = 100) -> RawBatch:
    """Random samples of the stored size."""
    generator = torch.Generator().manual_seed(0)
    side = stored_px(config)
    return RawBatch(
        images=torch.randint(0, 256, (b, side, side, 3), generator=generator, dtype=torch.uint8),
        masks=255 * torch.randint(0, 2, (b, side, side), generator=generator, dtype=torch.uint8),
        joints=torch.randn(b, 21, 3, generator=generator),
        clouds=torch.randn(b, points, 3, generator=generator),
        has_cloud=torch.ones(b, dtype=torch.bool),
        has_mask=torch.ones(b, dtype=torch.bool),
        scale_mm=torch.full((b,), 30.0),
        bone_px=torch.linspace(5.0, 9.0, b),
    )


@settings(deadline=None)
@given(
    image_px=st.integers(8, 65),
    scale_min=st.floats(0.4, 1),
    angle=st.one_of(st.sampled_from([k * math.pi / 4 for k in range(-4, 5)]), st.floats(-math.pi, math.pi)),
    excess=st.floats(0, 1),
)
def test_padding_is_never_seen(image_px, scale_min, angle, excess):
    config = DataConfig(image_px=image_px, scale_min=scale_min)
    side = stored_px(config)
    white = raw_batch(1, config)._replace(
        images=torch.full((1, side, side, 3), 255, dtype=torch.uint8),
        masks=torch.full((1, side, side), 255, dtype=torch.uint8),
    )
    scale = scale_min + excess**3 * (1 - scale_min)
    batch = turn_and_zoom(white, config, torch.tensor([angle]), torch.tensor([scale]))
    for picture in (batch.image, batch.mask, batch.target):
        assert picture.min() > 1 - 1e-4


def test_the_margin_is_not_wider_than_needed():
    """The test above can fail: shrunk a tenth beyond the allowed, at 45 degrees, the border shows."""
    side = stored_px(CONFIG)
    white = raw_batch(1)._replace(
        images=torch.full((1, side, side, 3), 255, dtype=torch.uint8),
        masks=torch.full((1, side, side), 255, dtype=torch.uint8),
    )
    batch = turn_and_zoom(white, CONFIG, torch.tensor([math.pi / 4]), torch.tensor([0.9 * CONFIG.scale_min]))
    assert batch.image.min() < 0.9


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(("crop", "where"), [("rotated-camera", (0.3, -0.2)), ("plain", (0.0, 0.0))])
def test_a_dot_at_a_joint_stays_on_the_joint(side, crop, where):
    """Paint a dot at a joint's pixel; mirror, crop, turn, zoom; look for it where the joint projects to."""
    config = DataConfig(image_px=96, crop=crop)
    rng = np.random.default_rng(5)
    K = np.array([[299.0, 0, 160], [0, 299, 155], [0, 0, 1]])
    depth = 700.0
    for joint in (0, 4, 8, 9, 20):
        hand = (open_hand_mm() - open_hand_mm()[9]) @ rotation(rng).T
        joints = hand * [-1 if side == "left" else 1, 1, 1] + np.array([*where, 1]) * depth
        uv = pinhole.project(joints, K)
        rows, columns = np.mgrid[:320, :320]
        dot = 250 * np.exp(-((columns - uv[joint, 0]) ** 2 + (rows - uv[joint, 1]) ** 2) / (2 * 2.0**2))
        record = HandRecord(
            image=np.repeat(dot.round().astype(np.uint8)[..., None], 3, axis=-1),
            hand_mask=np.ones((320, 320), bool),
            depth_mm=None,
            joints_mm=joints.astype(np.float32),
            uv_px=uv,
            visible=np.ones(21, bool),
            K=K,
            side=side,
            id=0,
        )
        row = make_row(record, config)
        raw = RawBatch(
            *(torch.from_numpy(np.asarray(row[name])[None]) for name in RawBatch._fields if name in row)
        )
        angle, scale = rng.uniform(-np.pi, np.pi), rng.uniform(0.8, 1)
        batch = turn_and_zoom(raw, config, torch.tensor([angle]), torch.tensor([scale]))

        # The turned joint, in mm in the camera that looks along the optical axis, and its pixel there.
        root = np.array([0, 0, np.linalg.norm(row["root_mm"].astype(float))])
        turned = batch.joints[0, joint].double().numpy() * row["scale_mm"] + root
        axis = row["camera"].astype(float).copy()
        middle = (stored_px(config) - 1) / 2
        np.testing.assert_allclose(axis[:2, 2], middle, atol=1e-3)  # the root is the centre of the crop
        offset = pinhole.project(turned, axis) - middle
        expected = offset * scale + (config.image_px - 1) / 2
        found = centroid(batch.image[0, 0].numpy(), expected)
        assert np.abs(found - expected).max() < 0.05


def centroid(image: np.ndarray, near: np.ndarray, reach: int = 7) -> np.ndarray:
    """Return the centre of brightness (u, v) within `reach` pixels of `near`."""
    u, v = np.rint(near).astype(int)
    top, left = max(v - reach, 0), max(u - reach, 0)
    window = image[top : v + reach + 1, left : u + reach + 1].astype(float)
    rows, columns = np.mgrid[: window.shape[0], : window.shape[1]]
    return np.array([(columns * window).sum(), (rows * window).sum()]) / window.sum() + (left, top)


def test_joints_and_cloud_turn_about_the_optical_axis():
    raw = raw_batch(4)
    angle = torch.tensor([0.3, -2.0, math.pi, 0.0])
    batch = turn_and_zoom(raw, CONFIG, angle, torch.tensor([0.8, 0.9, 1.0, 1.0]))
    for i in range(4):
        Rz = Rotation.from_euler("z", angle[i].item())
        np.testing.assert_allclose(batch.joints[i], Rz.apply(raw.joints[i].numpy()), atol=1e-5)
        np.testing.assert_allclose(batch.cloud[i], Rz.apply(raw.clouds[i, :].numpy()), atol=1e-5)


def test_a_quarter_turn_is_exact_on_pixels():
    raw = raw_batch(1)
    still = centre(raw, CONFIG).image[0]
    turned = turn_and_zoom(raw, CONFIG, torch.tensor([math.pi / 2]), torch.ones(1)).image[0]
    # Clockwise on the screen: the left column becomes the top row.
    torch.testing.assert_close(turned, torch.rot90(still, k=-1, dims=(1, 2)), atol=1e-4, rtol=0)


def test_no_turn_and_no_zoom_is_the_test_crop():
    raw = raw_batch(2, points=CONFIG.cloud_points)
    moved, still = turn_and_zoom(raw, CONFIG, torch.zeros(2), torch.ones(2)), centre(raw, CONFIG)
    for one, other in zip(moved, still, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=0)


def test_the_test_crop_is_exact():
    raw = raw_batch(2)
    batch = centre(raw, CONFIG)
    start = (raw.images.shape[1] - 32) // 2
    window = raw.images[:, start : start + 32, start : start + 32].permute(0, 3, 1, 2)
    assert torch.equal(batch.image, window.float() / 255)
    assert torch.equal(batch.joints, raw.joints)
    assert torch.equal(batch.cloud, raw.clouds[:, :64])


def test_targets_show_the_hand_over_mid_grey():
    raw = raw_batch(2)._replace(has_mask=torch.tensor([True, False]))
    for batch in (centre(raw, CONFIG), augment(raw, CONFIG, torch.Generator().manual_seed(1))):
        mask = batch.mask[:1]
        torch.testing.assert_close(batch.target[:1], mask * batch.image[:1] + (1 - mask) * 0.5)
        assert torch.equal(batch.target[1], batch.image[1])  # nothing to cut out with
        assert torch.equal(batch.mask[1], torch.ones(1, 32, 32))
        assert batch.image.min() >= 0 and batch.image.max() <= 1 and batch.image.dtype == torch.float32


def test_draws_come_from_the_generator_alone():
    raw = raw_batch(3)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    one = augment(raw, CONFIG, torch.Generator().manual_seed(7))
    two = augment(raw, CONFIG, torch.Generator().manual_seed(7))
    three = augment(raw, CONFIG, torch.Generator().manual_seed(8))
    for a, b, c in zip(one[:5], two[:5], three[:5], strict=True):
        assert torch.equal(a, b) and not torch.equal(a, c)
    assert torch.equal(torch.get_rng_state(), state)


def test_angles_and_scales_fill_their_ranges():
    """Read both back from what they did: the angle from the joints, the scale from the width of a bar."""
    b, config = 600, DataConfig(image_px=16, scale_min=0.7, rotation=1.0, cloud_points=4)
    side = stored_px(config)
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    middle = (side - 1) / 2
    disc = ((rows - middle) ** 2 + (columns - middle) ** 2 < 7.0**2).to(torch.uint8) * 255
    raw = raw_batch(b, config, points=4)._replace(masks=disc.expand(b, -1, -1))
    batch = augment(raw, config, torch.Generator().manual_seed(0))
    before = torch.atan2(raw.joints[:, 3, 1], raw.joints[:, 3, 0])
    after = torch.atan2(batch.joints[:, 3, 1], batch.joints[:, 3, 0])
    angle = torch.remainder(after - before + math.pi, 2 * math.pi) - math.pi
    assert angle.abs().max() <= 1.0 + 1e-5 and angle.min() < -0.97 and angle.max() > 0.97
    assert abs(angle.mean()) < 0.08 and angle.std() == pytest.approx(1 / math.sqrt(3), abs=0.05)
    scale = (batch.mask.sum(dim=(1, 2, 3)) / (disc.sum() / 255)).sqrt()
    assert scale.min() > 0.68 and scale.max() < 1.02 and scale.mean() == pytest.approx(0.85, abs=0.02)
    assert scale.min() < 0.73 and scale.max() > 0.97


@pytest.mark.parametrize(("stored", "asked"), [(100, 64), (100, 100), (40, 100)])
def test_cloud_points_are_drawn_without_repetition_while_they_last(stored, asked):
    config = DataConfig(image_px=8, rotation=0.0, cloud_points=asked)
    raw = raw_batch(2, config, points=stored)
    clouds = [augment(raw, config, torch.Generator().manual_seed(s)).cloud for s in (0, 1)]
    assert clouds[0].shape == (2, asked, 3) and not torch.equal(*clouds)
    for cloud in clouds:
        for drawn, source in zip(cloud, raw.clouds, strict=True):
            distance, which = torch.cdist(drawn, source).min(dim=1)
            assert distance.max() < 1e-3
            counts = torch.bincount(which, minlength=stored)
            assert counts.max() - counts.min() <= 1


def test_data_prepared_with_less_margin_is_refused():
    raw = raw_batch()
    for change in (DataConfig(image_px=32, scale_min=0.5), DataConfig(image_px=33), DataConfig(image_px=64)):
        for call in (lambda c: centre(raw, c), lambda c: augment(raw, c, torch.Generator())):
            with pytest.raises(ValueError, match="prepare the data with this config"):
                call(change)


def test_batches_come_in_the_order_asked_for(tmp_path):
    root = write_dataset(tmp_path / "data", 4, 1, 1)
    split = PreparedSplit.open(prepare("synthhand", root, tmp_path / "out", CONFIG, progress=False), "train")
    order = np.array([3, 0, 2, 0])
    raw = load_batch(split, order)
    for name, tensor in raw._asdict().items():
        if name == "predicted_masks":
            assert tensor is None  # none were made
        else:
            np.testing.assert_array_equal(tensor, getattr(split, name)[order])
    assert raw.images.dtype == torch.uint8 and raw.has_cloud.all()
    before = split.images[0].copy()
    raw.images.zero_()  # a copy: the files are safe
    np.testing.assert_array_equal(split.images[0], before)
    assert augment(load_batch(split, order), CONFIG, torch.Generator()).image.shape == (4, 3, 32, 32)


def test_a_split_is_held_on_a_gpu_that_has_plenty_of_memory(tmp_path, monkeypatch):
    root = write_dataset(tmp_path / "data", 4, 1, 1)
    split = PreparedSplit.open(prepare("synthhand", root, tmp_path / "out", CONFIG, progress=False), "train")
    assert hold_on_gpu(split, torch.device("cpu")) is split

    def read_here(split, indices, device):  # there is no GPU to send it to
        return load_batch(split, indices)

    monkeypatch.setattr("davae.data.augment.load_batch", read_here)
    needed = sum(array.nbytes for name in RawBatch._fields if (array := getattr(split, name)) is not None)
    for free, held in ((10 * needed, False), (10 * needed + 10, True)):
        monkeypatch.setattr("torch.cuda.mem_get_info", lambda device, free=free: (free, free))
        found = hold_on_gpu(split, torch.device("cuda"))
        assert isinstance(found, RawBatch) == held and (held or found is split)
    order = np.array([3, 0, 2, 0])
    for ours, theirs in zip(load_batch(found, order), load_batch(split, order), strict=True):
        assert ours is theirs is None or torch.equal(ours, theirs)


def test_announcing_rows_reads_the_same(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (9, 70, 90), dtype=np.uint8)
    np.save(tmp_path / "rows.npy", values)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    announce(mapped, np.array([0, 3, 8]))  # the first, one amid a page, the last
    np.testing.assert_array_equal(mapped[[0, 3, 8]], values[[0, 3, 8]])
    announce(values, np.array([1]))  # not mapped
    announce(None, np.array([1]))


@settings(deadline=None, max_examples=30)
@given(
    angle=st.floats(-math.pi, math.pi),
    scale=st.floats(0.8, 1.25),
    right=st.floats(-0.2, 0.2),
    down=st.floats(-0.2, 0.2),
)
def test_a_shifted_root_is_where_it_is_said_to_be(angle, scale, right, down):
    raw, side = raw_batch(1), stored_px(CONFIG)
    image = torch.zeros(1, side, side, 3, dtype=torch.uint8)
    middle = side // 2  # of an even side: the corner of four pixels
    image[:, middle - 1 : middle + 1, middle - 1 : middle + 1] = 255
    raw = raw._replace(images=image, masks=image[..., 0])
    shift = torch.tensor([[right, down]])
    batch = turn_and_zoom(raw, CONFIG, torch.tensor([angle]), torch.tensor([scale]), shift)
    torch.testing.assert_close(batch.root, shift)
    assert batch.zoom.item() == pytest.approx(scale)
    mass = batch.mask[0, 0] / batch.mask.sum()
    places = (torch.arange(CONFIG.image_px) + 0.5) / CONFIG.image_px - 0.5
    found = torch.stack([(mass.sum(0) * places).sum(), (mass.sum(1) * places).sum()])
    assert (found - shift[0]).abs().max() * CONFIG.image_px < 0.2  # of a pixel
    still = turn_and_zoom(raw, CONFIG, torch.tensor([angle]), torch.tensor([scale]))
    torch.testing.assert_close(batch.joints, still.joints)


def test_beyond_a_shifted_crop_is_grey_and_no_hand():
    side = stored_px(CONFIG)
    white = raw_batch(1)._replace(
        images=torch.full((1, side, side, 3), 255, dtype=torch.uint8),
        masks=torch.full((1, side, side), 255, dtype=torch.uint8),
    )
    quarter, smallest = torch.tensor([math.pi / 4]), torch.tensor([CONFIG.scale_min])
    batch = turn_and_zoom(white, CONFIG, quarter, smallest, torch.tensor([[0.3, 0.0]]))
    beyond, inside = batch.mask[0, 0] == 0, batch.mask[0, 0] == 1
    assert beyond.any() and inside.any()
    torch.testing.assert_close(
        batch.image[0][:, beyond], torch.full_like(batch.image[0][:, beyond], 127 / 255)
    )
    assert (batch.image[0][:, inside] == 1).all()


def test_only_what_is_asked_for_is_drawn():
    """A config without shift sees the draws that it saw before there was one; with it, further ones."""
    plain, moved = raw_batch(4), DataConfig(image_px=32, cloud_points=64, scale_max=1.25, shift=0.1)
    generators = [torch.Generator().manual_seed(3) for _ in range(2)]
    here, there = (augment(plain, c, g) for c, g in zip((CONFIG, moved), generators, strict=True))
    torch.testing.assert_close(here.joints, there.joints)
    assert here.root.abs().max() == 0 < there.root.abs().max() <= 0.1
    assert here.zoom.max() <= 1 < there.zoom.max() <= 1.25
    next_draws = [torch.rand(1, generator=g).item() for g in generators]
    assert next_draws[0] != next_draws[1]


def test_blur_is_scipys_gaussian():
    images = torch.rand(4, 3, 24, 32)
    spread = torch.tensor([0.0, 0.7, 1.5, 2.5])
    found = blur(images, spread, reach=8).numpy()
    for row, sigma in enumerate(spread.tolist()):
        expected = gaussian_filter(images[row].numpy(), (0, sigma, sigma), mode="nearest", radius=8)
        np.testing.assert_allclose(found[row], expected if sigma else images[row], atol=2e-6)


def test_half_of_the_inputs_are_blurred_and_no_target():
    sharp = DataConfig(image_px=32, cloud_points=64, mask="truth", shift=0.1)
    raw, blurry = raw_batch(64), dataclasses.replace(sharp, blur=0.05)
    a, b = (augment(raw, config, torch.Generator().manual_seed(0)) for config in (sharp, blurry))
    torch.testing.assert_close(a.target, b.target)
    torch.testing.assert_close(a.joints, b.joints)
    changed = (a.image - b.image).abs().amax((1, 2, 3)) > 1e-3
    assert 20 <= changed.sum() <= 44
    detail = [(images.diff(dim=3).abs()).mean((1, 2, 3)) for images in (a.image, b.image)]
    assert (detail[1] <= detail[0] + 1e-6).all()


def test_a_share_of_a_batch_is_blurred_as_in_the_whole():
    config = DataConfig(image_px=32, cloud_points=64, mask="truth", blur=0.05)
    raw = raw_batch(8)
    whole = augment(raw, config, torch.Generator().manual_seed(0)).image
    share = RawBatch(*(None if field is None else field[2:5] for field in raw))
    drawn = torch.Generator().manual_seed(0)
    torch.testing.assert_close(augment(share, config, drawn, batch=8, rows=slice(2, 5)).image, whole[2:5])


def test_a_steady_target_is_turned_alone():
    """Zoom and shift move the input, not the target, which is that of the same turn without them."""
    raw, steady = raw_batch(2), DataConfig(image_px=32, cloud_points=64, mask="truth", steady_target=True)
    angle, scale, shift = torch.tensor([0.3, -2.0]), torch.tensor([0.8, 1.25]), torch.full((2, 2), 0.1)
    moved = turn_and_zoom(raw, steady, angle, scale, shift)
    still = turn_and_zoom(raw, steady, angle, torch.ones(2))
    torch.testing.assert_close(moved.target, still.target)
    torch.testing.assert_close(moved.mask, still.mask)
    as_before = turn_and_zoom(
        raw, DataConfig(image_px=32, cloud_points=64, mask="truth"), angle, scale, shift
    )
    torch.testing.assert_close(moved.image, as_before.image)
    torch.testing.assert_close(as_before.target, as_before.image)
    assert (moved.target - moved.image).abs().mean() > 0.05


def test_a_canvas_shows_as_many_bones_whatever_the_crop_shows(prepared):
    """Joints projected by the true camera and drawn at the canvas's scale lie on the hand, turned or not."""
    split = PreparedSplit.open(prepared, "train").seen_through("truth")
    config = DataConfig(image_px=split.manifest["image_px"], cloud_points=64, mask="truth", canvas=True)
    rows = np.arange(16)
    raw = load_batch(split, rows)
    uv = torch.from_numpy(split.project(split.joints[rows], rows)).float()
    offset = (uv - uv[:, ROOT, None]) / raw.bone_px[:, None, None]  # in bones
    angle = torch.linspace(-3, 3, 16)
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).view(16, 2, 2)
    turned = turn_and_zoom(raw, config, angle, torch.full((16,), 0.8), torch.full((16, 2), 0.1))
    for batch, places in ((centre(raw, config), offset), (turned, offset @ turn.transpose(1, 2))):
        grid = places[:, None] / (CANVAS / 2)  # -1 to 1 across the canvas
        seen = F.grid_sample(batch.mask, grid, align_corners=False)[:, 0, 0]
        inside = seen[torch.from_numpy(split.visible[rows])] > 0.5
        assert inside.float().mean() > 0.9
        torch.testing.assert_close(
            batch.target[:, :, :1, :1], torch.full((16, 3, 1, 1), 0.5), atol=0.01, rtol=0
        )


@pytest.mark.parametrize("mask", ["none", "truth", "network"])
@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("target", [{}, {"steady_target": True}, {"canvas": True}])
def test_the_kernel_resamples_as_torch_does(monkeypatch, require, mask, shifted, target):
    require(augment_module.explain_missing() is None, f"no kernels: {augment_module.explain_missing()}")
    config = DataConfig(image_px=32, cloud_points=64, mask=mask, shift=0.3, **target)
    raw = raw_batch(4, config)
    predicted = torch.randint(0, 256, raw.masks.shape, dtype=torch.uint8) if mask == "network" else None
    raw = raw._replace(has_mask=torch.tensor([True, False, True, False]), predicted_masks=predicted)
    angle, scale = torch.tensor([0.0, 0.7, -2.5, math.pi]), torch.tensor([1.0, 0.8, 1.2, 0.9])
    shift = torch.tensor([[0.0, 0.0], [0.3, -0.2], [-0.3, 0.3], [0.6, 0.1]]) if shifted else None
    batches = [turn_and_zoom(raw, config, angle, scale, shift)]
    monkeypatch.setattr(augment_module, "_resample_by_kernel", None)  # so that a call of it would fail
    monkeypatch.setattr(augment_module, "explain_missing", lambda: "for this test")
    batches.append(turn_and_zoom(raw, config, angle, scale, shift))
    for ours, torchs in zip(*batches, strict=True):
        torch.testing.assert_close(ours, torchs, rtol=0, atol=1e-4)
