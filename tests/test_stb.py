"""synthhand.formats.stb: frame of the records, clouds, splits, prepared arrays, and bad files."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation
from stb_fixture import FRAMES, left_hand_mm, save_mat, write_tree

from davae.config import DataConfig
from davae.data.prepared import PreparedSplit, prepare
from davae.data.readers import complete_options
from synthhand.formats import stb, stb_cameras, stb_labels
from synthhand.formats.record import BadSample
from synthhand.formats.stb import STBSplit, frame_of
from synthhand.formats.stb_labels import write_labels


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """A set that no test changes."""
    return write_tree(tmp_path_factory.mktemp("stb"))


@pytest.fixture
def fresh(tree, tmp_path) -> Path:
    """A set to be spoilt: links to the other's pictures, but labels of its own."""
    for folder in ("labels", *(f"images/{sequence}" for sequence in stb.SEQUENCES)):
        (tmp_path / folder).mkdir(parents=True)
        for source in (tree / folder).iterdir():
            copy = tmp_path / folder / source.name
            copy.write_bytes(source.read_bytes()) if folder == "labels" else copy.symlink_to(source)
    return tmp_path


# -- label files ------------------------------------------------------------------------------------------


def bad_labels(path: Path, how: str) -> None:
    whole = path.read_bytes()
    if how == "missing":
        path.unlink()
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "truncated":
        path.write_bytes(whole[: len(whole) // 2])
    elif how == "a web page":
        path.write_bytes(b"<html>404, but long enough to be taken for a header" + b" " * 200)
    elif how == "MATLAB 7.3":
        path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + b"\x89HDF" * 100)
    elif how == "Octave's text":
        path.write_bytes(
            b"# Created by Octave 8.4.0\n# name: handPara\n# type: matrix\n# ndims: 3\n 3 21 1\n"
        )
    elif how == "Octave's binary":
        path.write_bytes(b"Octave-1-L\0\x08\0\0\0handPara")
    elif how == "HDF5":
        path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(200))
    elif how == "a pointer":
        path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    elif how == "an archive":
        path.write_bytes(b"PK\3\4" + bytes(200))
    elif how == "MATLAB 4":
        scipy.io.savemat(path, {"handPara": np.zeros((3, 63))}, format="4")
    elif how == "other key":
        save_mat(path, [left_hand_mm(0)], key="joints")
    elif how == "other joints":
        scipy.io.savemat(path, {"handPara": np.zeros((3, 20, 4))})
    elif how == "text":
        scipy.io.savemat(path, {"handPara": "abc"})
    elif how == "no frame":
        scipy.io.savemat(path, {"handPara": np.zeros((3, 21, 0))})
    elif how == "too many frames":
        scipy.io.savemat(path, {"handPara": np.ones((3, 21, 1501), np.float32)})


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ("missing", FileNotFoundError, "missing; train needs the labels of all its 10 sequences"),
        ("empty", ValueError, "empty; copy it again"),
        ("truncated", ValueError, "damaged label file"),
        ("a web page", ValueError, r"is a web page \(HTML\).*; expected STB's labels as a MATLAB 5 file"),
        ("MATLAB 7.3", ValueError, r"is a MATLAB 7\.3 file \(HDF5\); .*`save -v7`"),
        ("HDF5", ValueError, "is an HDF5 file; .*`save -v7`"),
        ("Octave's text", ValueError, "is a file in Octave's text form; .*`save -v7`"),
        ("Octave's binary", ValueError, "is a file in Octave's binary form; .*`save -v7`"),
        ("a pointer", ValueError, "is a Git LFS pointer; `git lfs pull` gets the file itself; expected"),
        ("an archive", ValueError, "is a ZIP archive .*; expected STB's labels"),
        ("MATLAB 4", ValueError, r"damaged label file \(a MATLAB 4 file; labels are MATLAB 5\)"),
        ("other key", ValueError, "holds joints, expected 'handPara'"),
        ("other joints", ValueError, r"shape \(3, 20, 4\), expected numbers \(3, 21, frames\)"),
        ("text", ValueError, r"expected numbers \(3, 21, frames\)"),
        ("no frame", ValueError, "labels 0 frames, expected 1 to 1500"),
        ("too many frames", ValueError, "labels 1501 frames, expected 1 to 1500"),
    ],
)
def test_bad_label_files_are_named(fresh, how, error, message):
    bad_labels(fresh / "labels" / "B3Random_SK.mat", how)
    with pytest.raises(error, match=rf"B3Random_SK\.mat: .*{message}"):
        STBSplit(fresh, "train")
    assert len(STBSplit(fresh, "test")) == len(STBSplit(fresh, "test", rig="bb")) / 2 == 2 * FRAMES


# -- records ----------------------------------------------------------------------------------------------


def project(points: np.ndarray, fx: float, fy: float, cx: float, cy: float) -> np.ndarray:
    return np.stack([fx * points[:, 0] / points[:, 2] + cx, fy * points[:, 1] / points[:, 2] + cy], axis=-1)


def test_a_record_of_sk_is_in_the_colour_cameras_frame(tree):
    split = STBSplit(tree, "test")
    R = Rotation.from_rotvec([0.00531, -0.01196, 0.00301]).as_matrix()
    for index in range(len(split)):
        record, frame = split.record(index), frame_of(split.ids[index], "sk")
        assert split.image_path(index) == tree / "images" / frame.sequence / f"SK_color_{frame.number}.png"
        hand = left_hand_mm(frame.number)
        hand[0] = 2 * hand[0] - hand[13]
        expected = (hand - [-24.0381, -0.4563, -1.2326]) @ R
        np.testing.assert_allclose(record.joints_mm, expected, atol=1e-3)
        uv = project(expected, 607.92271, 607.88192, 314.78337, 236.42484)
        np.testing.assert_allclose(record.uv_px, uv, atol=1e-3)
        np.testing.assert_array_equal(record.image, np.asarray(Image.open(split.image_path(index))))
        assert (record.hand_mask, record.depth_mm, record.side) == (None, None, "left")
        assert record.visible.all() and record.id == split.ids[index]


def test_the_two_cameras_of_bb_are_a_baseline_apart(tree):
    split = STBSplit(tree, "test", rig="bb", wrist="palm")
    assert len(split) == 4 * FRAMES
    for index in range(0, len(split), 2):
        left, right = split.record(index), split.record(index + 1)
        frame = frame_of(left.id, "bb")
        assert frame.view == "BB_left" and frame_of(right.id, "bb") == frame._replace(view="BB_right")
        assert split.image_path(index + 1).name == f"BB_right_{frame.number}.png"
        np.testing.assert_allclose(left.joints_mm, left_hand_mm(frame.number), atol=1e-4)
        np.testing.assert_allclose(
            left.joints_mm - right.joints_mm, np.tile([120.054, 0, 0], (21, 1)), atol=1e-4
        )
        disparity = 822.79041 * 120.054 / left.joints_mm[:, 2]
        np.testing.assert_allclose(left.uv_px[:, 0] - right.uv_px[:, 0], disparity, atol=1e-3)
        np.testing.assert_allclose(left.uv_px[:, 1], right.uv_px[:, 1], atol=1e-3)
        assert left.points_mm is right.points_mm is None
        assert right.image[0, 0, 0] - left.image[0, 0, 0] == 60


def test_joints_outside_the_picture_are_not_visible(fresh):
    hand = left_hand_mm(0)
    hand[:, 0] += 260
    save_mat(fresh / "labels" / "B1Counting_SK.mat", [hand, left_hand_mm(1)])
    record = STBSplit(fresh, "test").record(0)
    inside = (record.uv_px[:, 0] < 639.5) & (record.uv_px[:, 1] >= -0.5)
    assert 0 < inside.sum() < 21
    np.testing.assert_array_equal(record.visible, inside)
    hand[:, 0] += 500
    save_mat(fresh / "labels" / "B1Counting_SK.mat", [hand, left_hand_mm(1)])
    record = STBSplit(fresh, "test").record(0)
    assert not record.visible.any() and record.points_mm is None


def test_the_cloud_is_what_the_depth_camera_saw_of_the_hand(tree):
    split = STBSplit(tree, "test")
    record = split.record(0)
    # The rectangle but for two pixels outside the window, and without what lies far aside.
    v, u = np.mgrid[150:300, 300:380].reshape(2, -1).astype(float)
    keep = ~((u == 340) & (v <= 201) & (v >= 200))
    u, v = u[keep], v[keep]
    points = np.stack([(u - 336.41179) * 500 / 475.62768, (v - 238.77962) * 500 / 474.77709, 0 * u + 500], -1)
    R = Rotation.from_rotvec([0.00531, -0.01196, 0.00301]).as_matrix()
    points = (points - [-24.0381, -0.4563, -1.2326]) @ R
    uv = project(points, 607.92271, 607.88192, 314.78337, 236.42484)
    half = 1.3 * np.abs(record.uv_px - record.uv_px[9]).max()
    inside = (np.abs(uv - record.uv_px[9]) <= half).all(axis=1)
    assert inside.sum() > 5000
    assert record.points_mm.dtype == np.float32
    np.testing.assert_allclose(record.points_mm, points[inside], atol=1e-3)


def test_without_a_depth_picture_there_is_no_cloud(fresh):
    (fresh / "images" / "B1Random" / "SK_depth_1.png").unlink()
    split = STBSplit(fresh, "test")
    clouds = [split.record(index).points_mm is not None for index in range(len(split))]
    assert clouds == [True, True, True, False]


# -- splits -----------------------------------------------------------------------------------------------


def test_splits_and_ids(tree):
    train, val, test = (STBSplit(tree, split) for split in ("train", "val", "test"))
    assert test.ids.tolist() == [0, 1, 1500, 1501]
    assert train.ids.tolist() == [1500 * place for place in range(2, 12)]
    assert val.ids.tolist() == [1500 * place + 1 for place in range(2, 12)]
    both = [STBSplit(tree, "val", rig="bb").ids, STBSplit(tree, "train", rig="bb").ids]
    assert both[0].tolist() == [2 * (1500 * place + 1) + right for place in range(2, 12) for right in (0, 1)]
    assert not set(both[0]) & set(both[1])
    assert train.ids.dtype == np.int64 and train.folder == tree / "images" and train.factors() == {}
    assert frame_of(1500 * 11 + 7, "sk") == ("B6Random", 7, "SK_color")
    assert frame_of(2 * (1500 * 2 + 7) + 1, "bb") == ("B2Counting", 7, "BB_right")


def test_the_published_set_is_counted_as_it_should_be(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    for sequence in stb.SEQUENCES:
        for rig in ("SK", "BB"):
            write_labels(tmp_path / "labels" / f"{sequence}_{rig}.mat", np.ones((1500, 21, 3)))
    sizes = {
        rig: [len(STBSplit(tmp_path, s, rig=rig)) for s in ("train", "val", "test")] for rig in ("sk", "bb")
    }
    assert sizes == {"sk": [13500, 1500, 3000], "bb": [27000, 3000, 6000]}
    held_out = STBSplit(tmp_path, "val").ids.reshape(10, 150)
    assert (np.diff(held_out) == 1).all()  # in one piece, at the end
    assert (held_out[:, -1] % 1500 == 1499).all()
    paths = STBSplit.label_files(tmp_path, "test", "bb")
    assert [path.name for path in paths] == ["B1Counting_BB.mat", "B1Random_BB.mat"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "dev"}, "unknown split 'dev'; choose one of train, val, test"),
        ({"rig": "kinect"}, "unknown rig 'kinect'; choose one of sk, bb"),
        ({"wrist": "elbow"}, "unknown wrist rule 'elbow'"),
    ],
)
def test_unknown_names_are_refused(tree, arguments, message):
    with pytest.raises(ValueError, match=message):
        STBSplit(**{"root": tree, "split": "train", **arguments})


def test_a_wrong_root_is_explained(tree, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere: no such folder; give the folder of STB"):
        STBSplit(tmp_path / "nowhere", "train")
    with pytest.raises(FileNotFoundError, match="no folder 'labels' in it"):
        STBSplit(tree / "images", "train")


# -- bad samples ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("view", ["SK_color", "SK_depth", "BB_right"])
@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing", "missing"),
        ("truncated", "cannot be decoded"),
        ("wrong size", "320x240 pixels, expected 640x480"),
    ],
)
def test_a_bad_picture_is_named(fresh, view, how, message):
    path = fresh / "images" / "B1Counting" / f"{view}_0.png"
    data = path.read_bytes()
    path.unlink()
    if how == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif how == "wrong size":
        Image.new("RGB", (320, 240)).save(path)
    split = STBSplit(fresh, "test", rig=view[:2].lower())
    index = 1 if view == "BB_right" else 0
    if (view, how) == ("SK_depth", "missing"):
        assert split.record(index).points_mm is None  # the hand can do without its cloud
        return
    with pytest.raises(BadSample, match=rf"B1Counting.{view}_0\.png.*{message}.*--skip-bad"):
        split.record(index)
    assert split.record(2).id == split.ids[2]


@pytest.mark.parametrize(
    ("value", "message"), [(np.nan, "holds NaN or infinity"), (-600.0, r"behind the camera \(z = -[56]\d\d")]
)
def test_a_bad_label_is_named_with_its_frame(fresh, value, message):
    hand = left_hand_mm(1)
    hand[7, 2] = value
    save_mat(fresh / "labels" / "B1Random_SK.mat", [left_hand_mm(0), hand])
    split = STBSplit(fresh, "test")
    with pytest.raises(BadSample, match=rf"B1Random_SK\.mat: frame 1: .*{message}.*--skip-bad"):
        split.record(3)
    assert split.record(2).id == 1500


# -- prepared ---------------------------------------------------------------------------------------------

CONFIG = DataConfig(image_px=16)


@pytest.fixture(scope="module")
def folders(tree, tmp_path_factory) -> dict[str, Path]:
    out = tmp_path_factory.mktemp("prepared")
    return {
        rig: prepare("stb", tree, out / rig, CONFIG, options={"rig": rig}, progress=False)
        for rig in ("sk", "bb")
    }


def test_prepared_sk_has_clouds_and_bb_has_none(folders, tree):
    for rig, views in (("sk", 1), ("bb", 2)):
        manifest = json.loads((folders[rig] / "manifest.json").read_text())
        assert manifest["options"] == {"rig": rig, "wrist": "ring"}
        for name, count in (("train", 10), ("val", 10), ("test", 2 * FRAMES)):
            split, reader = PreparedSplit.open(folders[rig], name), STBSplit(tree, name, rig=rig)
            assert len(split) == views * count and split.ids.tolist() == reader.ids.tolist()
            assert split.has_cloud.all() if rig == "sk" else not split.has_cloud.any()
            assert split.mirrored.all() and not split.has_mask.any() and not split.masks.any()
    split, record = PreparedSplit.open(folders["sk"], "test"), STBSplit(tree, "test").record(1)
    joints = split.camera_frame_mm(split.joints[1], 1)
    np.testing.assert_allclose(joints, record.joints_mm * [-1, 1, 1], atol=1e-2)
    # The cloud is the rectangle 500 mm from the depth camera, mirrored with the joints.
    cloud = split.camera_frame_mm(split.clouds[1], 1) * [-1, 1, 1]
    np.testing.assert_allclose(stb_cameras.colour_to_depth(cloud)[:, 2], 500, atol=0.01)
    assert cKDTree(record.points_mm).query(cloud)[0].max() < 0.01


def test_options_are_completed_compared_and_refused(folders, tree, tmp_path):
    assert prepare("stb", tree, folders["sk"], CONFIG, progress=False) == folders["sk"]  # the default rig
    with pytest.raises(ValueError, match=r"options is .*'rig': 'sk'.* asked for .*'rig': 'bb'"):
        prepare("stb", tree, folders["sk"], CONFIG, options={"rig": "bb"}, progress=False)
    with pytest.raises(ValueError, match=r"options is .*'wrist': 'ring'.* asked for .*'wrist': 'middle'"):
        prepare("stb", tree, folders["sk"], CONFIG, options={"wrist": "middle"}, progress=False)
    with pytest.raises(ValueError, match="rhd has no option 'rig'; it is for stb"):
        prepare("rhd", tree, tmp_path / "out", CONFIG, options={"rig": "sk"}, progress=False)
    assert complete_options("stb", None) == {"rig": "sk", "wrist": stb_labels.DEFAULT_RULE}
    assert complete_options("rhd", {}) == {}


def test_changed_labels_of_the_rig_are_noticed(fresh, tmp_path):
    out = prepare("stb", fresh, tmp_path / "out", CONFIG, options={"rig": "bb"}, progress=False)
    save_mat(fresh / "labels" / "B1Random_SK.mat", [left_hand_mm(0) + 1, left_hand_mm(1)])
    assert prepare("stb", fresh, out, CONFIG, options={"rig": "bb"}, progress=False) == out
    save_mat(fresh / "labels" / "B1Random_BB.mat", [left_hand_mm(0) + 1, left_hand_mm(1)])
    with pytest.raises(ValueError, match="the annotations of test have changed"):
        prepare("stb", fresh, out, CONFIG, options={"rig": "bb"}, progress=False)


def test_bad_samples_stop_or_are_left_out(fresh, tmp_path):
    broken = fresh / "images" / "B2Counting" / "SK_color_0.png"
    broken.unlink()
    with pytest.raises(BadSample, match=r"SK_color_0\.png: missing"):
        prepare("stb", fresh, tmp_path / "out", CONFIG, progress=False)
    rotated = dataclasses.replace(CONFIG, crop="rotated-camera")
    out = prepare("stb", fresh, tmp_path / "out", rotated, skip_bad=True, progress=False)
    entry = PreparedSplit.open(out, "train").manifest["splits"]["train"]
    assert entry["count"] == 9 and list(entry["skipped"]) == ["3000"]
    assert entry["skipped"]["3000"].startswith("images")
