"""SynthHand in FreiHAND's form: pictures agree with labels, and output is reproducible."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import distance_transform_edt

from davae.data.prepared import PreparedSplit, prepare
from synthhand.dataset import freihand_writer
from synthhand.dataset.freihand_writer import sample_frame, sample_version, write_freihand
from synthhand.dataset.scene import build_hand, hand_pixels, render
from synthhand.formats.freihand import FreiHANDSplit
from synthhand.formats.record import mirror
from synthhand.model.rig import FOREARM_PART
from synthhand.pinhole import project
from synthhand.skeleton import RHD_ORDER

SEED, TRAIN, TEST = 2, 5, 2


def write(out: Path, **changes) -> Path:
    return write_freihand(
        **{"out": out, "train": TRAIN, "test": TEST, "seed": SEED, "progress": False, **changes}
    )


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def rendered(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("rendered") / "set")


@pytest.fixture(scope="module")
def records(rendered):
    """Every image of training, by number."""
    splits = [FreiHANDSplit(rendered, split) for split in ("train", "val")]
    return {int(split.ids[i]): split.record(i) for split in splits for i in range(len(split))}


def test_the_tree_is_freihands(rendered):
    expected = {f"training/rgb/{i:08d}.jpg" for i in range(4 * TRAIN)}
    expected |= {f"training/mask/{i:08d}.jpg" for i in range(TRAIN)}
    expected |= {f"evaluation/rgb/{i:08d}.jpg" for i in range(TEST)}
    expected |= {f"{f}_{name}.json" for f in ("training", "evaluation") for name in ("xyz", "K", "scale")}
    assert contents(rendered).keys() == expected | {"synthhand.json"}
    for kind in ("rgb", "mask"):
        with Image.open(rendered / "training" / kind / "00000000.jpg") as image:
            assert (image.format, image.size, image.mode) == ("JPEG", (224, 224), "RGB")
    joints = np.array(json.loads((rendered / "training_xyz.json").read_text()))
    scale = np.array(json.loads((rendered / "training_scale.json").read_text()))
    np.testing.assert_allclose(scale, np.linalg.norm(joints[:, 10] - joints[:, 9], axis=1))
    assert ((scale > 0.02) & (scale < 0.06)).all()  # metres
    K = np.array(json.loads((rendered / "training_K.json").read_text()))
    assert ((K[:, 0, 0] >= 380) & (K[:, 0, 0] <= 530)).all() and (K[:, :2, 2] == 112).all()


def test_joints_reproject_onto_the_rendered_ones(records):
    for number, record in records.items():
        frame, version = number % TRAIN, number // TRAIN
        factors = sample_frame(SEED, "train", frame)
        varied, picture = sample_version(factors, SEED, "train", frame, version)
        rendering = render(varied, 224, picture=picture)
        drawn = rendering.uv_vis[21:, :2][RHD_ORDER]
        assert np.abs(record.uv_px - drawn).max() < 0.2
        assert np.abs(project(record.joints_mm, record.K) - drawn).max() < 0.2
        # JPEG alone lies between the two pictures, and the mask is of this very hand.
        assert np.abs(record.image.astype(int) - rendering.image).mean() < 6
        hand = hand_pixels(rendering.part_mask, "right")
        assert (record.hand_mask != hand).mean() < 0.002
        # Where a joint is seen, its flesh lies before it, and the mask on it: all but the wrist, which its
        # border runs through.
        seen = rendering.uv_vis[21:, 2][RHD_ORDER] == 1
        u, v = np.rint(record.uv_px[seen]).astype(int).T
        gap = record.joints_mm[seen, 2] - rendering.depth_mm[v, u]
        assert seen.sum() > 10 and 0 < np.median(gap) < 45
        away = distance_transform_edt(~record.hand_mask)[v, u]
        assert (away <= 1).mean() > 0.9 and away.max() < 25


def test_masks_end_where_the_hands_surface_does(records):
    """The pixels of a hand start and end about half a pixel inside its outline, on each side alike.

    A picture or a camera that is off by half a pixel would have them start or end a pixel apart.
    """
    inside = []
    for frame in range(TRAIN):
        record, body = records[frame], build_hand(sample_frame(SEED, "train", frame))
        outline = project(body.vertices_mm[body.parts != FOREARM_PART], record.K)
        pixels = np.argwhere(record.hand_mask)[:, ::-1]
        inside.append([pixels.min(0) - outline.min(0), outline.max(0) - pixels.max(0)])
    before, after = np.median(inside, axis=(0, 2))  # now and then the arm hides one side of a hand
    assert abs(before - after) < 0.4 and 0 < before + after < 1.6


def test_the_hand_is_in_the_middle_and_all_of_it_inside(records):
    for record in records.values():
        low, high = record.uv_px.min(0), record.uv_px.max(0)
        assert np.abs((low + high) / 2 - 112).max() < 14
        assert record.visible.all() and (high - low).max() > 45


def test_versions_differ_in_their_background_alone(records):
    for frame in range(TRAIN):
        first, *others = (records[frame + version * TRAIN] for version in range(4))
        behind = distance_transform_edt(~first.hand_mask) > 3
        red, green, blue = first.image[behind].astype(int).T
        assert ((green >= red) & (green >= blue)).mean() > 0.5  # the screen
        for other in others:
            for name in ("joints_mm", "uv_px", "K", "hand_mask", "visible"):
                np.testing.assert_array_equal(getattr(other, name), getattr(first, name))
            change = np.abs(other.image.astype(int) - first.image).mean(axis=2)
            assert change[behind].mean() > 2 * change[first.hand_mask].mean()


def test_mirroring_twice_gives_the_record_back_and_once_moves_everything(records):
    record = records[1]
    once, twice = mirror(record), mirror(mirror(record))
    for name in ("image", "hand_mask", "joints_mm", "visible", "K"):
        np.testing.assert_array_equal(getattr(twice, name), getattr(record, name))
    np.testing.assert_allclose(twice.uv_px, record.uv_px, atol=1e-4)
    assert (record.side, once.side, twice.side) == ("right", "left", "right")
    np.testing.assert_allclose(project(once.joints_mm, once.K), once.uv_px, atol=1e-3)
    u, v = np.rint(record.uv_px[9]).astype(int)
    np.testing.assert_array_equal(once.image[v, 223 - u], record.image[v, u])
    assert not np.array_equal(once.hand_mask, record.hand_mask)


def test_it_is_prepared_without_clouds_and_without_mirroring(rendered, tmp_path, tiny_config):
    out = prepare("freihand", rendered, tmp_path / "prepared", tiny_config.data, progress=False)
    splits = {name: PreparedSplit.open(out, name) for name in ("train", "val", "test")}
    assert {name: split.ids.tolist() for name, split in splits.items()} == {
        "train": [number for number in range(4 * TRAIN) if number % TRAIN],
        "val": [0, TRAIN, 2 * TRAIN, 3 * TRAIN],
        "test": [0, 1],
    }
    for name, split in splits.items():
        assert not split.has_cloud.any() and not split.clouds.any() and not split.mirrored.any()
        assert split.has_mask.all() == (name != "test") and split.has_mask.any() == (name != "test")
        assert split.factors == {}
        for row in range(len(split)):
            record = FreiHANDSplit(rendered, name).record(row)
            np.testing.assert_allclose(
                split.camera_frame_mm(split.joints[row], row), record.joints_mm, atol=1e-2
            )
            # In the crop, too, joints lie on the mask.
            if name != "test":
                u, v = np.rint(split.project(split.joints[row], row)).astype(int).T
                assert (split.masks[row][v, u] == 255).mean() > 0.8


def test_two_workers_write_the_same_bytes_as_one(rendered, tmp_path):
    assert contents(write(tmp_path / "two", workers=2)) == contents(rendered)


def test_an_interrupted_rendering_is_finished_to_the_same_bytes(rendered, tmp_path, monkeypatch):
    calls = []

    def interrupted(*arguments, **options):
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return render(*arguments, **options)

    monkeypatch.setattr(freihand_writer, "render", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "set")
    assert not list((tmp_path / "set").glob("training_*.json"))
    finished = tmp_path / "set/training/rgb/00000000.jpg"
    before = finished.stat().st_mtime_ns
    write(tmp_path / "set")
    assert finished.stat().st_mtime_ns == before
    assert contents(tmp_path / "set") == contents(rendered)


def test_only_what_is_missing_or_cut_off_is_made_again(rendered, tmp_path):
    for name, data in contents(rendered).items():
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / name).write_bytes(data)
    copy = tmp_path / "set"
    written = {p: p.stat().st_mtime_ns for p in copy.rglob("*") if p.is_file()}
    write(copy)
    assert {p: p.stat().st_mtime_ns for p in copy.rglob("*") if p.is_file()} == written
    mask, image = copy / "training/mask/00000001.jpg", copy / "evaluation/rgb/00000001.jpg"
    mask.unlink()
    image.write_bytes(image.read_bytes()[:-1])
    (copy / "training_K.json").unlink()
    write(copy)
    assert contents(copy) == contents(rendered)
    untouched = copy / "training/rgb/00000002.jpg"
    assert untouched.stat().st_mtime_ns == written[untouched]


def test_impossible_requests_and_other_folders_are_refused(rendered, tmp_path):
    for name, value in (("train", 1), ("test", 0), ("seed", -1), ("workers", 0)):
        with pytest.raises(ValueError, match=f"{name} is {value}, expected"):
            write(tmp_path / "new", **{name: value})
    assert not (tmp_path / "new").exists()
    with pytest.raises(ValueError, match="train is 5 there, 4 asked for"):
        write(rendered, train=4)
    with pytest.raises(ValueError, match="flesh is realistic there, wide asked for"):
        write(rendered, flesh="wide")
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(ValueError, match="not empty"):
        write(tmp_path)
