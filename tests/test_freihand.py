"""FreiHAND: matching of images, versions, labels and masks, and bad files."""

import json
from pathlib import Path

import freihand_fixture as fixture
import numpy as np
import pytest
from PIL import Image

from davae.data.readers import READERS
from synthhand.formats.freihand import FreiHANDSplit
from synthhand.formats.record import BadSample


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """Three frames in four versions and two of evaluation, written by hand; no test changes it."""
    return fixture.write_tree(tmp_path_factory.mktemp("freihand"))


@pytest.fixture
def fresh(tmp_path) -> Path:
    """Another one, to be spoilt."""
    return fixture.write_tree(tmp_path / "set")


# -- how things belong together ---------------------------------------------------------------------------


def test_image_i_shows_frame_i_modulo_the_frames(tree):
    split = FreiHANDSplit(tree, "train")
    assert (split.frames, split.versions) == (3, 4)
    assert split.ids.dtype == np.int64
    for index, number in enumerate(split.ids):
        record, frame = split.record(index), number % 3
        assert record.id == number and record.side == "right"
        assert np.abs(record.image.astype(int) - fixture.colour_of(number).astype(int)).max() <= 3  # JPEG
        np.testing.assert_allclose(record.joints_mm, 1000 * fixture.joints_m(frame), atol=1e-3)
        np.testing.assert_array_equal(record.K, fixture.camera(frame))
        np.testing.assert_array_equal(record.hand_mask, fixture.mask_of(frame))
        assert record.depth_mm is None and record.points_mm is None
        assert (record.joints_mm.dtype, record.uv_px.dtype, record.K.dtype) == (np.float32, np.float32, float)
        assert record.visible.all()


def test_pixels_follow_from_joints_and_camera(tmp_path):
    fixture.write_tree(tmp_path)
    joints = fixture.joints_m(1)
    joints[4] = (0.03, -0.06, 0.6)  # f is 401 across and 402 down: 112 + 401/20, 112 - 402/10
    labels = json.loads((tmp_path / "training_xyz.json").read_text())
    labels[1] = joints.tolist()
    (tmp_path / "training_xyz.json").write_text(json.dumps(labels))
    np.testing.assert_allclose(FreiHANDSplit(tmp_path, "train").record(0).uv_px[4], (132.05, 71.8), atol=1e-4)


def test_a_joint_is_visible_inside_the_picture_alone(fresh):
    """Borders lie half a pixel beyond the outermost centres."""
    labels = json.loads((fresh / "training_xyz.json").read_text())
    fx, fy = fixture.camera(1)[[0, 1], [0, 1]]
    pixels = np.array([(-0.4, 100), (-0.6, 100), (223.4, 100), (223.6, 100), (100, 223.6), (100, -0.4)])
    labels[1][:6] = [[(u - 112) / fx, (v - 112) / fy, 1.0] for u, v in pixels]
    (fresh / "training_xyz.json").write_text(json.dumps(labels))
    record = FreiHANDSplit(fresh, "train").record(0)
    assert record.id == 1
    assert record.visible[:6].tolist() == [True, False, True, False, False, True] and record.visible[6:].all()


def test_noise_of_jpeg_does_not_reach_the_mask(fresh):
    rng = np.random.default_rng(0)
    mask = fixture.mask_of(1)
    noisy = np.where(mask, 255 - rng.integers(0, 100, mask.shape), rng.integers(0, 100, mask.shape))
    path = fresh / "training" / "mask" / "00000001.jpg"
    for pixels in (noisy, noisy[..., None].repeat(3, axis=2)):  # grey, and grey stored in colour
        Image.fromarray(pixels.astype(np.uint8)).save(path, quality=100, subsampling=0)
        np.testing.assert_array_equal(FreiHANDSplit(fresh, "train").record(0).hand_mask, mask)


def test_evaluation_has_no_masks_and_no_versions(tree):
    split = FreiHANDSplit(tree, "test")
    assert split.ids.tolist() == [0, 1] and split.versions == 1
    assert split.mask_path(0) is None and split.record(0).hand_mask is None
    assert split.image_path(1) == tree / "evaluation" / "rgb" / "00000001.jpg"


def test_training_without_its_mask_folder_has_no_masks(fresh):
    (fresh / "training" / "mask").rename(fresh / "training" / "elsewhere")
    assert FreiHANDSplit(fresh, "train").record(0).hand_mask is None


@pytest.mark.parametrize("versions", [1, 2, 4])
def test_no_frame_is_both_trained_on_and_held_out(tmp_path, versions):
    """Of 82 frames, every 40th is held out with all versions that are there."""
    fixture.write_labels(tmp_path, "training", 82)
    (tmp_path / "training" / "rgb").mkdir(parents=True)
    for number in range(82 * versions):
        (tmp_path / "training" / "rgb" / f"{number:08d}.jpg").touch()
    train, val = (FreiHANDSplit(tmp_path, split) for split in ("train", "val"))
    assert set(val.ids % 82) == {0, 40, 80} and len(val) == 3 * versions
    assert not set(train.ids % 82) & set(val.ids % 82)
    assert sorted([*train.ids, *val.ids]) == list(range(82 * versions))
    assert (np.diff(train.ids) > 0).all() and (np.diff(val.ids) > 0).all()


def test_the_reader_is_registered_and_knows_no_causes(tree):
    assert READERS["freihand"] is FreiHANDSplit
    assert FreiHANDSplit(tree, "train").factors() == {}
    assert [p.name for p in FreiHANDSplit.label_files(tree, "val")] == [
        "training_xyz.json",
        "training_K.json",
    ]


# -- bad files --------------------------------------------------------------------------------------------


def test_a_wrong_root_or_split_is_explained(tmp_path, tree):
    with pytest.raises(FileNotFoundError, match=r"no folder 'training/rgb' in it.*FreiHAND_pub_v2"):
        FreiHANDSplit(tmp_path, "train")
    with pytest.raises(FileNotFoundError, match=r"nowhere: no such folder"):
        FreiHANDSplit(tmp_path / "nowhere", "train")
    with pytest.raises(ValueError, match="unknown split 'dev'"):
        FreiHANDSplit(tree, "dev")


def test_labels_of_evaluation_are_a_download_of_their_own(fresh):
    (fresh / "evaluation_xyz.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"evaluation_xyz\.json: missing.*FreiHAND_pub_v2_eval\.zip"):
        FreiHANDSplit(fresh, "test")
    FreiHANDSplit(fresh, "train")
    (fresh / "training_K.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"training_K\.json: missing; unpack it"):
        FreiHANDSplit(fresh, "train")


def change(path: Path, entry: int, value) -> None:
    entries = json.loads(path.read_text())
    entries[entry] = value
    path.write_text(json.dumps(entries))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("xyz", lambda text: text[: len(text) // 2], "damaged"),
        ("K", lambda text: "", "is empty; expected JSON"),
        ("K", lambda text: "<html>404", r"is a web page \(HTML\).*; expected JSON"),
        (
            "xyz",
            lambda text: "version https://git-lfs.github.com/spec/v1\n",
            "is a Git LFS pointer; `git lfs",
        ),
        ("xyz", lambda text: "\x00\x80", "damaged"),
        ("xyz", lambda text: '{"0": 1}', "expected a list"),
        ("K", lambda text: "[]", "expected a list"),
        ("K", lambda text: json.dumps(json.loads(text)[:-1]), "has 2 entries, but training_xyz.json has 3"),
    ],
)
def test_a_damaged_label_file_is_named(fresh, name, content, message):
    path = fresh / f"training_{name}.json"
    path.write_text(content(path.read_text()), encoding="latin1")
    with pytest.raises(ValueError, match=rf"training_{name}\.json: .*{message}"):
        FreiHANDSplit(fresh, "train")


@pytest.mark.parametrize("value", [np.zeros((20, 3)).tolist(), "joints", [[1, 2, 3], [4]], None])
def test_a_misshapen_label_is_named(fresh, value):
    change(fresh / "training_xyz.json", 1, value)
    with pytest.raises(ValueError, match=r"training_xyz\.json: entry 1 is not 21 x 3 numbers"):
        FreiHANDSplit(fresh, "train")


@pytest.mark.parametrize("name", ["xyz", "K"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), None])
def test_a_label_that_is_no_number_spoils_its_own_frame_alone(fresh, name, value):
    entry = json.loads((fresh / f"training_{name}.json").read_text())[1]
    entry[0][0] = value
    change(fresh / f"training_{name}.json", 1, entry)
    split = FreiHANDSplit(fresh, "train")
    with pytest.raises(BadSample, match=rf"training_{name}\.json: entry 1 .*NaN or infinity.*--skip-bad"):
        split.record(0)
    assert split.record(1).id == 2


def test_a_joint_behind_the_camera_is_named(fresh):
    joints = fixture.joints_m(1)
    joints[7, 2] = 0
    change(fresh / "training_xyz.json", 1, joints.tolist())
    with pytest.raises(
        BadSample, match=r"training_xyz\.json: entry 1 has a joint behind the camera \(z = 0 m\)"
    ):
        FreiHANDSplit(fresh, "train").record(0)


def test_labels_and_images_that_disagree_are_told(fresh):
    rgb = fresh / "training" / "rgb"
    (rgb / "00000011.jpg").unlink()
    with pytest.raises(ValueError, match=r"rgb: its last image is 00000010\.jpg.*training_xyz\.json has 3"):
        FreiHANDSplit(fresh, "train")
    for path in rgb.iterdir():
        path.unlink()
    (rgb / "notes.txt").touch()
    with pytest.raises(ValueError, match=r"rgb: it holds no image like 00000000\.jpg"):
        FreiHANDSplit(fresh, "train")
    for number in range(2, 4):
        (fresh / "evaluation" / "rgb" / f"{number:08d}.jpg").touch()
    with pytest.raises(ValueError, match=r"rgb: holds 2 images for each .*evaluation has no versions"):
        FreiHANDSplit(fresh, "test")


@pytest.mark.parametrize("kind", ["rgb", "mask"])
@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing", "missing"),
        ("truncated", "cannot be decoded"),
        ("not a picture", "cannot be decoded"),
        ("wrong size", "160x200 pixels, expected 224x224"),
    ],
)
def test_a_bad_picture_is_named(fresh, kind, how, message):
    path = fresh / "training" / kind / "00000001.jpg"
    if how == "missing":
        path.unlink()
    elif how == "truncated":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif how == "not a picture":
        path.write_bytes(b"<html>404</html>")
    else:
        Image.open(path).resize((160, 200)).save(path)
    split = FreiHANDSplit(fresh, "train")
    with pytest.raises(BadSample, match=rf"{kind}.00000001\.jpg.*{message}.*--skip-bad"):
        split.record(0)
    assert split.record(1).id == 2
