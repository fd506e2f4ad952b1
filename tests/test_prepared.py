"""davae.data.sample and davae.data.prepared: contents of a row, and guarantees of the folder."""

import dataclasses
import json
import os
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rhd_fixture import open_hand_mm, random_scene, rotation, write_dataset
from scipy import ndimage

from davae.config import DataConfig
from davae.data import manifest as manifest_module
from davae.data import prepared, writer
from davae.data.arrays import join_sha256, rows_sha256
from davae.data.manifest import verify
from davae.data.prepared import PreparedSplit, prepare
from davae.data.sample import PADDING, make_row, stored_px, warp_image, warp_mask
from synthhand import pinhole
from synthhand.formats.record import BadSample, HandRecord
from synthhand.formats.rhd import RHDSplit, load_annotations, write_annotations

CROPS = ("plain", "rotated-camera")
CONFIG = DataConfig(image_px=32, cloud_points=64)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A dataset that no test changes."""
    return write_dataset(tmp_path_factory.mktemp("data") / "hands")


@pytest.fixture(scope="module")
def folder(root, tmp_path_factory):
    """Its preparation, which no test changes."""
    return prepare("synthhand", root, tmp_path_factory.mktemp("prepared"), CONFIG, progress=False)


def record_of(seed: int, side: str = "right", **changes) -> HandRecord:
    """A random hand as a record, without going through files."""
    scene = random_scene(seed, side=side, other_hand=False)
    colour, parts, depth = scene.draw()
    joints = scene.hands[side]
    values = {
        "image": colour,
        "hand_mask": parts > 1,
        "depth_mm": depth.astype(np.float32),
        "joints_mm": joints.astype(np.float32),
        "uv_px": pinhole.project(joints, scene.K).astype(np.float32),
        "visible": np.ones(21, bool),
        "K": scene.K,
        "side": side,
        "id": seed,
    }
    return HandRecord(**(values | changes))


# -- sizes ------------------------------------------------------------------------------------------------


@given(st.integers(8, 300), st.floats(0.3, 1))
def test_the_stored_side_has_the_margin_and_the_parity(image_px, scale_min):
    side = stored_px(DataConfig(image_px=image_px, scale_min=scale_min))
    needed = image_px * 2**0.5 / scale_min
    assert needed <= side < needed + 2
    assert (side - image_px) % 2 == 0


@pytest.mark.parametrize(
    "wrong", [{"scale_min": 0.0}, {"scale_min": -0.5}, {"scale_min": 1.1}, {"image_px": 0}]
)
def test_crops_that_cannot_be_are_refused(root, tmp_path, wrong):
    with pytest.raises(
        ValueError, match=r"the crop's side is \d+ px .* and the smallest scale [-.\d]+ \(exp"
    ):
        prepare("synthhand", root, tmp_path / "out", dataclasses.replace(CONFIG, **wrong), progress=False)
    assert not (tmp_path / "out").exists()


# -- resampling -------------------------------------------------------------------------------------------


@given(st.floats(0.2, 1.0), st.floats(-40, 90), st.floats(-40, 90), st.integers(8, 60))
def test_enlarging_is_bilinear_and_grey_beyond_the_frame(scale, left, top, out_px):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
    to_source = np.array([[scale, 0, left], [0, scale, top], [0, 0, 1]])
    rows, columns = np.mgrid[:out_px, :out_px]
    padded = np.pad(image.astype(float), ((99, 99), (99, 99), (0, 0)), constant_values=PADDING)
    at = [99 + top + scale * rows, 99 + left + scale * columns]
    expected = np.stack(
        [ndimage.map_coordinates(padded[..., c], at, order=1, mode="nearest") for c in range(3)], -1
    )
    warped = warp_image(image, np.linalg.inv(to_source), out_px)
    inside = [(a >= 99) & (a <= 98 + size) for a, size in zip(at, image.shape[:2], strict=True)]
    far = [(a < 98) | (a > 99 + size) for a, size in zip(at, image.shape[:2], strict=True)]
    assert np.abs(warped - expected)[inside[0] & inside[1]].max(initial=0) <= 1.5
    assert (warped[far[0] | far[1]] == PADDING).all()


def test_shrinking_averages_areas():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    to_crop = pinhole.crop_camera(np.eye(3), (31.5, 31.5), 32.0, 16)  # the whole frame, a quarter of the side
    blocks = image.reshape(16, 4, 16, 4, 3).mean(axis=(1, 3))
    assert np.abs(warp_image(image, to_crop, 16) - blocks).max() <= 1  # rounding twice


def test_a_fine_checkerboard_becomes_grey_and_does_not_alias():
    board = np.indices((90, 90)).sum(axis=0) % 2 * np.uint8(255)
    image = np.repeat(board[..., None], 3, axis=-1).astype(np.uint8)
    to_crop = pinhole.crop_camera(np.eye(3), (44.3, 44.8), 40.0, 17)  # 4.7 times smaller, off the grid
    assert np.abs(warp_image(image, to_crop, 17).astype(int) - 127).max() < 25


def test_enlarging_a_ramp_is_linear_to_the_sub_pixel():
    ramp = np.repeat(np.arange(0, 240, 8, dtype=np.uint8)[None, :, None], 30, axis=0).repeat(3, axis=2)
    to_crop = pinhole.crop_camera(np.eye(3), (14.2, 15.0), 9.0, 63)
    columns = np.stack([np.arange(63), np.full(63, 31)], axis=-1)
    u = pinhole.apply_homography(np.linalg.inv(to_crop), columns)[:, 0]
    assert np.abs(warp_image(ramp, to_crop, 63)[31, :, 0] - 8 * u).max() <= 1  # 1 level is 1/8 px


def test_padding_beyond_the_frame_is_grey_and_no_hand():
    image = np.full((20, 20, 3), 255, np.uint8)
    to_crop = pinhole.crop_camera(np.eye(3), (9.5, 9.5), 20.0, 40)  # the frame fills the middle 20 px
    warped = warp_image(image, to_crop, 40)
    mask = warp_mask(np.ones((20, 20), bool), to_crop, 40)
    inside = np.zeros((40, 40), bool)
    inside[10:30, 10:30] = True
    assert (warped[inside] == 255).all() and (warped[~inside] == PADDING).all()
    np.testing.assert_array_equal(mask, np.where(inside, 255, 0))


def test_a_mask_keeps_its_two_values_and_follows_its_image():
    record = record_of(3)
    image = np.repeat(record.hand_mask[..., None], 3, axis=-1) * np.uint8(255)
    to_crop = pinhole.crop_camera(np.eye(3), (150.3, 161.8), 90.0, 77)
    mask = warp_mask(record.hand_mask, to_crop, 77)
    assert set(np.unique(mask)) == {0, 255}
    soft = warp_image(image, to_crop, 77)[..., 0]
    assert (mask[soft > 230] == 255).all() and (mask[soft < 25] == 0).all()


def test_pixels_behind_a_turned_camera_are_padding():
    K = np.array([[40.0, 0, 31.5], [0, 40, 31.5], [0, 0, 1]])
    image = np.full((64, 64, 3), 200, np.uint8)
    R = pinhole.view_rotation(pinhole.pixel_ray((0, 31.5), K))
    K_crop = pinhole.crop_camera(K, (31.5, 31.5), 200, 64)
    H = pinhole.rotation_homography(K, R, K_crop)
    uv = np.stack(np.meshgrid(np.arange(64), np.arange(64)), axis=-1)
    rays = np.concatenate([uv, np.ones((64, 64, 1))], -1) @ np.linalg.inv(H).T
    behind = rays[..., 2] <= 0
    assert behind.any()
    assert (warp_image(image, H, 64)[behind] == PADDING).all()


# -- one row ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("crop", CROPS)
@pytest.mark.parametrize("side", ["left", "right"])
def test_content_joints_and_camera_of_a_row_agree(crop, side):
    """A bright dot painted at a joint must be found where the row's camera projects that joint."""
    config = DataConfig(image_px=96, crop=crop)
    for seed, joint in ((0, 9), (1, 4), (2, 0), (3, 18)):
        record = record_of(seed, side)
        u, v = record.uv_px[joint]
        if not (12 < u < 308 and 12 < v < 308):
            continue
        rows, columns = np.mgrid[:320, :320]
        dot = 250 * np.exp(-((columns - u) ** 2 + (rows - v) ** 2) / (2 * 2.0**2))
        image = np.repeat(dot[..., None], 3, axis=-1).round().astype(np.uint8)
        row = make_row(dataclasses.replace(record, image=image), config)
        R = row["rotation"].astype(float)
        turned = row["joints"][joint] * row["scale_mm"] + R @ row["root_mm"]
        point = turned if crop == "rotated-camera" else R.T @ turned
        expected = pinhole.project(point, row["camera"])
        assert np.abs(centroid(row["images"][..., 0], expected) - expected).max() < 0.05
        assert row["mirrored"] == (side == "left")


def centroid(image: np.ndarray, near: np.ndarray, reach: int = 8) -> np.ndarray:
    """Return the centre of brightness (u, v) within `reach` pixels of `near`."""
    u, v = np.rint(near).astype(int)
    top, left = max(v - reach, 0), max(u - reach, 0)
    window = image[top : v + reach + 1, left : u + reach + 1].astype(float)
    rows, columns = np.mgrid[: window.shape[0], : window.shape[1]]
    return np.array([(columns * window).sum(), (rows * window).sum()]) / window.sum() + (left, top)


@pytest.mark.parametrize("crop", CROPS)
def test_the_window_in_the_middle_is_the_test_crop(crop):
    record = record_of(5)
    row = make_row(record, DataConfig(image_px=64, crop=crop))
    start = (row["images"].shape[0] - 64) // 2
    window = pinhole.apply_homography(
        np.array([[1, 0, -start], [0, 1, -start], [0, 0, 1]]), [[row["camera"][0, 2], row["camera"][1, 2]]]
    )
    K, R = record.K, pinhole.view_rotation(pinhole.pixel_ray(record.uv_px[9], record.K))
    turn = R if crop == "rotated-camera" else np.eye(3)
    uv = pinhole.apply_homography(pinhole.rotation_homography(K, turn, K), record.uv_px)
    K_test = pinhole.crop_camera(K, *pinhole.hand_crop(uv, record.visible), 64)
    np.testing.assert_allclose(window[0], K_test[:2, 2], atol=1e-3)
    np.testing.assert_allclose(row["camera"][0, 0], K_test[0, 0], rtol=1e-5)
    direct = warp_image(record.image, pinhole.rotation_homography(K, turn, K_test), 64)
    cut = row["images"][start : start + 64, start : start + 64]
    assert np.abs(direct.astype(int) - cut).max() <= 1


def test_joints_are_root_relative_in_bones_and_view_normalised():
    record = record_of(7)
    row = make_row(record, CONFIG)
    assert np.linalg.norm(row["joints"][10] - row["joints"][9]) == pytest.approx(1, abs=1e-6)
    np.testing.assert_array_equal(row["joints"][9], 0)
    np.testing.assert_allclose(row["scale_mm"], 45 * np.linalg.norm((0.03, -1, -0.15)), rtol=1e-5)
    back = row["joints"] * row["scale_mm"] @ row["rotation"] + row["root_mm"]
    np.testing.assert_allclose(back, record.joints_mm, atol=1e-3)
    on_axis = row["rotation"] @ row["root_mm"]
    np.testing.assert_allclose(on_axis, (0, 0, np.linalg.norm(row["root_mm"])), atol=1e-2)


def test_a_hand_looks_the_same_to_its_row_wherever_it_stands():
    """View normalisation: the same view of a hand gives the same joints in every direction."""
    rng = np.random.default_rng(0)
    K = np.array([[300.0, 0, 160], [0, 300, 160], [0, 0, 1]])
    view = (open_hand_mm() - open_hand_mm()[9]) @ rotation(rng).T
    rows = []
    for root in ([0, 0, 500], [120, -80, 450]):
        R = pinhole.view_rotation(root)
        joints = view @ R + root
        changes = {"joints_mm": joints.astype(np.float32), "uv_px": pinhole.project(joints, K), "K": K}
        rows.append(make_row(record_of(0, **changes), CONFIG)["joints"])
    np.testing.assert_allclose(rows[0], rows[1], atol=1e-5)


def test_left_and_right_twins_give_the_same_row():
    right = record_of(4)
    width = right.image.shape[1]
    left = dataclasses.replace(
        right,
        image=right.image[:, ::-1],
        hand_mask=right.hand_mask[:, ::-1],
        depth_mm=right.depth_mm[:, ::-1],
        joints_mm=right.joints_mm * np.float32([-1, 1, 1]),
        uv_px=np.stack([width - 1 - right.uv_px[:, 0], right.uv_px[:, 1]], axis=-1),
        K=right.K * [[1, 1, 0], [1, 1, 1], [1, 1, 1]] + [[0, 0, width - 1 - right.K[0, 2]], [0] * 3, [0] * 3],
        side="left",
    )
    a, b = make_row(right, CONFIG), make_row(left, CONFIG)
    assert not a["mirrored"] and b["mirrored"]
    for name in ("images", "masks", "joints", "clouds", "camera", "rotation"):
        np.testing.assert_allclose(a[name], b[name], atol=2e-4)


def test_the_cloud_is_the_hands_surface_drawn_by_the_id_alone():
    record = record_of(11)
    row = make_row(record, CONFIG)
    assert row["has_cloud"] and row["clouds"].shape == (4000, 3)
    points = row["clouds"] * row["scale_mm"] @ row["rotation"] + row["root_mm"]
    uv = pinhole.project(points, record.K)
    pixel = np.rint(uv).astype(int)
    np.testing.assert_allclose(uv, pixel, atol=2e-2)  # every point comes from the centre of a pixel
    assert record.hand_mask[pixel[:, 1], pixel[:, 0]].all()
    np.testing.assert_allclose(points[:, 2], record.depth_mm[pixel[:, 1], pixel[:, 0]], atol=1e-2)
    times = np.unique(pixel, axis=0, return_counts=True)[1]
    assert times.max() - times.min() <= 1  # no point comes again before every point has come
    assert (np.abs(points - row["root_mm"]) < 200).all()
    np.testing.assert_array_equal(make_row(record, CONFIG)["clouds"], row["clouds"])
    other = make_row(dataclasses.replace(record, id=12), CONFIG)
    assert not np.array_equal(other["clouds"], row["clouds"])


def test_a_small_cloud_is_repeated_evenly_and_far_points_are_dropped():
    record = record_of(11)
    mask = np.zeros_like(record.hand_mask)
    rows, columns = np.nonzero(record.hand_mask)
    mask[rows[:10], columns[:10]] = True
    depth = record.depth_mm.copy()
    depth[rows[0], columns[0]] += 900  # the wall, through a hole of the mask
    row = make_row(dataclasses.replace(record, hand_mask=mask, depth_mm=depth), CONFIG)
    _, counts = np.unique(row["clouds"], axis=0, return_counts=True)
    assert len(counts) == 9 and counts.min() == 4000 // 9 and counts.max() <= 4000 // 9 + 1


@pytest.mark.parametrize(
    "changes",
    [
        {"depth_mm": None},
        {"depth_mm": np.zeros((320, 320), np.float32)},
        {"depth_mm": np.full((320, 320), 3000, np.float32)},
        {"hand_mask": None},
    ],
)
def test_without_usable_depth_there_is_no_cloud(changes):
    row = make_row(record_of(2, **changes), CONFIG)
    assert not row["has_cloud"] and not row["clouds"].any()
    assert row["has_mask"] == ("hand_mask" not in changes)


BAD_RECORDS = {
    "no joint is visible": {"visible": np.zeros(21, bool)},
    "no pixel of a hand": {"hand_mask": np.zeros((320, 320), bool)},
    "behind the camera": {"joints_mm": open_hand_mm().astype(np.float32) - 100},
    "are the labels in metres": {"joints_mm": (open_hand_mm() / 1000 + [0, 0, 0.5]).astype(np.float32)},
}


@pytest.mark.parametrize("message", BAD_RECORDS)
def test_unusable_records_are_refused(message):
    with pytest.raises(BadSample, match=message):
        make_row(record_of(1, **BAD_RECORDS[message]), CONFIG)


def test_evaluation_keeps_what_can_be_scored():
    record = record_of(1)
    hidden = make_row(dataclasses.replace(record, visible=np.zeros(21, bool)), CONFIG, evaluation=True)
    whole = make_row(record, CONFIG)
    np.testing.assert_array_equal(hidden["images"], whole["images"])  # cropped around all joints
    assert not hidden["visible"].any()
    masked = dataclasses.replace(record, hand_mask=np.zeros((320, 320), bool))
    row = make_row(masked, CONFIG, evaluation=True)
    assert not row["has_mask"] and not row["has_cloud"]
    np.testing.assert_array_equal(row["joints"], whole["joints"])


# -- the folder -------------------------------------------------------------------------------------------


def test_every_row_is_that_of_its_record(root, folder):
    for name, count in (("train", 5), ("val", 2), ("test", 3)):
        split, reader = PreparedSplit.open(folder, name), RHDSplit(root, name)
        assert len(split) == count and split.name == name
        for index in range(count):
            expected = make_row(reader.record(index), CONFIG)
            for key, value in expected.items():
                array = getattr(split, key)
                assert isinstance(array, np.memmap)
                np.testing.assert_array_equal(array[index], value)
                assert array.dtype == value.dtype
    assert {True, False} == set(PreparedSplit.open(folder, "train").mirrored.tolist())


@pytest.mark.parametrize("crop", CROPS)
def test_project_finds_the_annotated_pixels(root, tmp_path, crop):
    config = dataclasses.replace(CONFIG, crop=crop)
    split = PreparedSplit.open(prepare("rhd", root, tmp_path / "out", config, progress=False), "train")
    reader = RHDSplit(root, "train")
    everything = split.project(split.joints, np.arange(len(split)))
    for index in range(len(split)):
        record = reader.record(index)
        uv, K = record.uv_px.astype(float), record.K
        if record.side == "left":
            uv[:, 0] = 319 - uv[:, 0]
            K = pinhole.mirror_camera(K, 320)
        turn = split.rotation[index] if crop == "rotated-camera" else np.eye(3)
        H = pinhole.rotation_homography(K, turn, split.camera[index])
        np.testing.assert_allclose(everything[index], pinhole.apply_homography(H, uv), atol=0.01)
        np.testing.assert_allclose(split.project(split.joints[index], index), everything[index])
        expected = record.joints_mm * [-1 if record.side == "left" else 1, 1, 1]
        np.testing.assert_allclose(split.camera_frame_mm(split.joints[index], index), expected, atol=1e-3)


def test_the_manifest_tells_what_was_made_without_local_paths(root, folder, tmp_path_factory):
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["dataset"], manifest["root"]) == ("synthhand", "hands")
    assert (manifest["image_px"], manifest["crop"], manifest["scale_min"]) == (32, "plain", 0.8)
    assert manifest["splits"]["test"]["count"] == manifest["splits"]["test"]["with_cloud"] == 3
    assert manifest["splits"]["train"]["arrays"]["joints"]["shape"] == [5, 21, 3]
    assert str(root.parent) not in json.dumps(manifest)
    verify(folder)
    again = prepare("synthhand", root, tmp_path_factory.mktemp("again"), CONFIG, progress=False)
    assert json.loads((again / "manifest.json").read_text()) == manifest


def test_the_arrays_do_not_depend_on_the_number_of_workers(root, tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "CHUNK", 2)
    one, two = (
        prepare("synthhand", root, tmp_path / str(workers), CONFIG, workers=workers, progress=False)
        for workers in (1, 2)
    )
    assert (one / "manifest.json").read_text() == (two / "manifest.json").read_text()


def test_factors_follow_their_samples(tmp_path):
    root = write_dataset(tmp_path / "data")
    (root / "training" / "color" / "00002.png").unlink()
    with pytest.raises(BadSample, match=r"color.00002\.png: missing"):
        prepare("synthhand", root, tmp_path / "out", CONFIG, progress=False)
    out = prepare("synthhand", root, tmp_path / "out", CONFIG, skip_bad=True, progress=False)
    split = PreparedSplit.open(out, "train")
    assert split.ids.tolist() == [0, 1, 4, 3]  # the last sample takes the place of the one left out
    np.testing.assert_array_equal(split.factors["scene/light"], split.ids)
    np.testing.assert_array_equal(split.factors["pose/angles"][:, 1], split.ids + 0.5)
    with np.load(split.factors.path) as stored:
        assert list(split.factors) == stored.files and len(split.factors) == len(stored.files)
    assert split.factors.get("scene/sound") is None and "scene/light" in split.factors
    np.testing.assert_array_equal(
        split.images[2], make_row(RHDSplit(root, "train").record(4), CONFIG)["images"]
    )
    entry = split.manifest["splits"]["train"]
    assert list(entry["skipped"]) == ["2"] and entry["skipped"]["2"].startswith("training")
    assert str(tmp_path) not in json.dumps(split.manifest)
    verify(out)
    with pytest.raises(ValueError, match=r"1 bad sample\(s\) of train were left out"):
        prepare("synthhand", root, out, CONFIG, progress=False)


def test_factors_of_another_length_are_refused(tmp_path):
    root = write_dataset(tmp_path / "data", 2, 1, 1)
    np.savez(root / "training" / "factors.npz", light=np.zeros(7))
    with pytest.raises(ValueError, match=r"factors\.npz: 'light' has shape \(7,\), expected one row .* 2"):
        prepare("synthhand", root, tmp_path / "out", CONFIG, progress=False)


def test_bad_samples_found_in_a_worker_stop_the_preparation(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "CHUNK", 1)
    root = write_dataset(tmp_path / "data", 3, 1, 1, factors=False)
    mask = root / "training" / "mask" / "00001.png"
    Image.fromarray(np.ones((320, 320), np.uint8)).save(mask)
    with pytest.raises(BadSample, match=r"00001\.png.*no pixel of a hand.*--skip-bad"):
        prepare("rhd", root, tmp_path / "out", CONFIG, workers=2, progress=False)
    out = prepare("rhd", root, tmp_path / "out", CONFIG, workers=2, skip_bad=True, progress=False)
    assert PreparedSplit.open(out, "train").ids.tolist() == [0, 2]
    assert PreparedSplit.open(out, "train").factors == {}


def test_a_split_without_a_usable_sample_is_refused(tmp_path):
    root = write_dataset(tmp_path / "data", 1, 1, 1)
    (root / "training" / "color" / "00000.png").write_bytes(b"")
    with pytest.raises(BadSample, match="none of its 1 samples can be used"):
        prepare("rhd", root, tmp_path / "out", CONFIG, skip_bad=True, progress=False)


def test_a_finished_preparation_is_returned_at_once(root, folder, monkeypatch):
    def refuse(*_):
        raise AssertionError("written again")

    monkeypatch.setattr(prepared, "write_split", refuse)
    turned_less = dataclasses.replace(CONFIG, rotation=0.5)  # makes no difference to what is stored
    assert prepare("synthhand", root, folder, turned_less, progress=False) == folder


def test_the_dataset_may_be_deleted_after_preparation(tmp_path):
    root = write_dataset(tmp_path / "data", 1, 1, 1)
    out = prepare("synthhand", root, tmp_path / "out", CONFIG, progress=False)
    root.rename(tmp_path / "elsewhere")
    assert prepare("synthhand", root, out, CONFIG, progress=False) == out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_px": 48}, "image_px is 32, asked for 48"),
        ({"crop": "rotated-camera"}, "crop is 'plain', asked for 'rotated-camera'"),
        ({"scale_min": 0.5}, "scale_min is 0.8, asked for 0.5"),
        ({"cloud_points": 5000}, "stored_points is 4000, asked for 5000"),
    ],
)
def test_another_preparation_is_refused_with_the_difference(root, folder, change, message):
    with pytest.raises(ValueError, match=message):
        prepare("synthhand", root, folder, dataclasses.replace(CONFIG, **change), progress=False)


def test_changed_annotations_and_other_datasets_are_refused(tmp_path):
    root = write_dataset(tmp_path / "data", 1, 1, 1)
    out = prepare("synthhand", root, tmp_path / "out", CONFIG, progress=False)
    with pytest.raises(ValueError, match="dataset is 'synthhand', asked for 'rhd'"):
        prepare("rhd", root, out, CONFIG, progress=False)
    with pytest.raises(ValueError, match="unknown dataset 'interhand'"):
        prepare("interhand", root, out, CONFIG, progress=False)
    path = root / "evaluation" / "anno_evaluation.pickle"
    annotations = load_annotations(path)
    annotations[0]["xyz"] += np.float32(0.001)
    write_annotations(path, annotations)
    with pytest.raises(ValueError, match="the annotations of test have changed"):
        prepare("synthhand", root, out, CONFIG, progress=False)


def test_an_interrupted_preparation_resumes_at_its_split(tmp_path):
    root, out = write_dataset(tmp_path / "data", 2, 1, 2), tmp_path / "out"
    broken = root / "evaluation" / "color" / "00001.png"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:1000])
    with pytest.raises(BadSample):
        prepare("synthhand", root, out, CONFIG, progress=False)
    assert (out / ".test.partial").exists() and not (out / "manifest.json").exists()
    with pytest.raises(FileNotFoundError, match="nothing is prepared"):
        PreparedSplit.open(out, "train")
    broken.write_bytes(whole)
    written = (out / "train" / "images.npy").stat().st_mtime_ns
    prepare("synthhand", root, out, CONFIG, progress=False)
    assert sorted(p.name for p in out.iterdir()) == ["manifest.json", "test", "train", "val"]
    assert (out / "train" / "images.npy").stat().st_mtime_ns == written
    verify(out)
    (out / "manifest.json").unlink()  # as if killed before the end; now with other settings
    prepare("synthhand", root, out, dataclasses.replace(CONFIG, image_px=16), progress=False)
    assert PreparedSplit.open(out, "train").images.shape[1] == stored_px(DataConfig(image_px=16))


class Killed(Exception):
    """Stands for the end of the process."""


def test_an_interrupted_split_goes_on_at_its_chunk(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "CHUNK", 2)
    root, out = write_dataset(tmp_path / "data", 7, 1, 1), tmp_path / "out"
    whole = prepare("synthhand", root, tmp_path / "whole", CONFIG, progress=False)
    convert, rows = writer._Filler.convert, []

    def counted(self, row):
        rows.append(row)
        if len(rows) == 6:
            raise Killed
        return convert(self, row)

    monkeypatch.setattr(writer._Filler, "convert", counted)
    with pytest.raises(Killed):
        prepare("synthhand", root, out, CONFIG, progress=False)
    rows[:] = [None] * 10
    images = np.lib.format.open_memmap(out / ".train.partial" / "images.npy", "r+")
    images[3, 0, 0] ^= 255  # as a page that never reached the disk
    del images
    (out / ".train.partial" / ".chunks" / "0.json").write_text("")  # as a power failure may leave it
    prepare("synthhand", root, out, CONFIG, progress=False)
    assert rows[10:] == [0, 1, 2, 3, 4, 5, 6, 0, 0]  # the damaged chunk and what was missing; val and test
    assert (out / "manifest.json").read_text() == (whole / "manifest.json").read_text()
    verify(out)


def test_what_was_done_before_a_bad_sample_is_kept_when_it_is_to_be_skipped(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "CHUNK", 2)
    root, out = write_dataset(tmp_path / "data", 6, 1, 1, factors=False), tmp_path / "out"
    (root / "training" / "color" / "00004.png").unlink()
    with pytest.raises(BadSample):
        prepare("rhd", root, out, CONFIG, progress=False)
    rows, convert = [], writer._Filler.convert
    monkeypatch.setattr(writer._Filler, "convert", lambda self, row: rows.append(row) or convert(self, row))
    prepare("rhd", root, out, CONFIG, skip_bad=True, progress=False)
    assert rows == [4, 5, 0, 0]
    assert PreparedSplit.open(out, "train").ids.tolist() == [0, 1, 2, 3, 5]
    verify(out)


@pytest.mark.parametrize("bad", [[0], [8], [0, 1, 8], [7, 8], [2, 3, 4, 5, 6], [0, 1, 2, 3, 4, 5, 6, 7]])
def test_places_of_skipped_samples_are_filled_from_the_end(tmp_path, monkeypatch, bad):
    monkeypatch.setattr(writer, "CHUNK", 2)
    root = write_dataset(tmp_path / "data", 9, 1, 1)
    for sample in bad:
        (root / "training" / "mask" / f"{sample:05d}.png").unlink()
    out = prepare("synthhand", root, tmp_path / "out", CONFIG, skip_bad=True, progress=False)
    split, reader = PreparedSplit.open(out, "train"), RHDSplit(root, "train")
    assert sorted(split.ids) == [sample for sample in range(9) if sample not in bad]
    for row, sample in enumerate(split.ids):
        for name, value in make_row(reader.record(int(sample)), CONFIG).items():
            np.testing.assert_array_equal(getattr(split, name)[row], value)
    verify(out)


def test_a_kill_while_outdated_arrays_are_deleted_does_no_harm(tmp_path, monkeypatch):
    root = write_dataset(tmp_path / "data", 1, 1, 1)
    out = prepare("synthhand", root, tmp_path / "out", CONFIG, progress=False)
    (out / "manifest.json").unlink()

    def half(folder, **_):
        if (folder / "split.json").exists():
            (folder / "split.json").unlink()
            raise KeyboardInterrupt

    smaller = dataclasses.replace(CONFIG, image_px=16)
    with monkeypatch.context() as patch:
        patch.setattr(writer.shutil, "rmtree", half)
        with pytest.raises(KeyboardInterrupt):
            prepare("synthhand", root, out, smaller, progress=False)
    verify(prepare("synthhand", root, out, smaller, progress=False))


def test_a_folder_that_is_not_ours_is_left_alone(root, tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="was not written by prepare"):
        prepare("synthhand", root, tmp_path, CONFIG, progress=False)
    assert (tmp_path / "train" / "thesis.txt").read_text() == "years of work"


# -- opening ----------------------------------------------------------------------------------------------


def test_opening_nothing_says_what_to_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="davae prepare"):
        PreparedSplit.open(tmp_path / "nowhere", "train")


def test_opening_checks_the_files_against_the_manifest(tmp_path):
    root = write_dataset(tmp_path / "data", 2, 1, 1)
    out = prepare("synthhand", root, tmp_path / "out", CONFIG, progress=False)
    with pytest.raises(ValueError, match="unknown split 'dev'"):
        PreparedSplit.open(out, "dev")
    np.save(out / "train" / "joints.npy", np.zeros((3, 21, 3), np.float32))
    with pytest.raises(ValueError, match=r"joints\.npy: holds float32 of shape \[3, 21, 3\].*\[2, 21, 3\]"):
        PreparedSplit.open(out, "train")
    with pytest.raises(ValueError, match=r"joints\.npy: holds .*prepare again"):
        verify(out)
    np.save(out / "train" / "joints.npy", np.zeros((2, 21, 3), np.float32))
    with pytest.raises(ValueError, match=r"joints\.npy: has changed since"):
        verify(out)
    (out / "val" / "images.npy").write_bytes(b"")
    with pytest.raises(ValueError, match=r"images\.npy: damaged"):
        PreparedSplit.open(out, "val")
    (out / "val" / "images.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"images\.npy: missing"):
        PreparedSplit.open(out, "val")
    (out / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match=r"manifest\.json: damaged"):
        PreparedSplit.open(out, "test")


def swap_rows(path) -> None:
    """Write other numbers to an array file, of the same shape and type, and leave its time as it was."""
    before = path.stat()
    array = np.load(path)
    np.save(path, array[::-1])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("name", ["images.npy", "joints.npy", "ids.npy"])
def test_an_array_that_was_swapped_is_refused(root, folder, tmp_path, name):
    out = shutil.copytree(folder, tmp_path / "out")
    PreparedSplit.open(out, "train")
    swap_rows(out / "train" / name)
    with pytest.raises(
        ValueError, match=rf"{name}: has changed since it was written; delete .*prepare` again"
    ):
        PreparedSplit.open(out, "train")
    PreparedSplit.open(out, "val")  # is whole
    PreparedSplit.open(out, "train", compare=["camera"])  # who asks for little gets it


def test_a_manifest_that_was_made_to_fit_other_arrays_is_refused(folder, tmp_path):
    """Its digest is what runs know their data by."""
    out = shutil.copytree(folder, tmp_path / "out")
    swap_rows(out / "train" / "joints.npy")
    manifest = json.loads((out / "manifest.json").read_text())
    entry = manifest["splits"]["train"]
    new, rows = np.load(out / "train" / "joints.npy"), entry["rows_per_checksum"]
    sums = [rows_sha256(new, start, start + rows) for start in range(0, len(new), rows)]
    entry["arrays"]["joints"]["sha256"] = join_sha256(sums)
    (out / "manifest.json").write_text(json.dumps(manifest))
    for read in (verify, lambda path: PreparedSplit.open(path, "val")):
        with pytest.raises(ValueError, match=r"manifest\.json: has changed since .*its digest is not that"):
            read(out)


def test_numbers_are_compared_once_in_a_process(folder, tmp_path, monkeypatch):
    out, counted = shutil.copytree(folder, tmp_path / "out"), []
    real = manifest_module.rows_sha256
    monkeypatch.setattr(manifest_module, "rows_sha256", lambda *words: counted.append(1) or real(*words))
    PreparedSplit.open(out, "train")
    first = len(counted)
    PreparedSplit.open(out, "train")
    assert len(counted) == first > 0
    verify(out)
    assert len(counted) > 2 * first  # all splits, and the first one again
