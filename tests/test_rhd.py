"""synthhand.formats.rhd: codings, joint order and side, unpickling without code execution, bad files."""

import os
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from rhd_fixture import Scene, random_scene, write_dataset, write_split

from synthhand.formats import rhd
from synthhand.formats.record import BadSample, mirror
from synthhand.pinhole import project
from synthhand.skeleton import RHD_ORDER


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A dataset that no test changes."""
    return write_dataset(tmp_path_factory.mktemp("rhd"))


@pytest.fixture
def pair(tmp_path):
    """Two samples in `training`, to be spoilt."""
    write_split(tmp_path, "training", {1: random_scene(1), 2: random_scene(2)})
    return tmp_path


# -- depth ------------------------------------------------------------------------------------------------


@given(arrays(np.float64, (3, 4), elements=st.floats(0, 5000)))
def test_depth_round_trip_is_within_half_a_step(depth):
    assert np.abs(rhd.decode_depth(rhd.encode_depth(depth)) - depth).max() <= 5000 / 65535 / 2 + 1e-3


def test_depth_coding_is_high_byte_red_low_byte_green():
    pixel = np.array([[[200, 77, 9]]], np.uint8)  # blue is ignored; uint8 arithmetic would overflow
    assert rhd.decode_depth(pixel)[0, 0] == pytest.approx(5000 * (200 * 256 + 77) / 65535, abs=1e-3)
    code = round(1234.5 / 5000 * 65535)
    assert rhd.encode_depth(np.array([[1234.5]]))[0, 0].tolist() == [code // 256, code % 256, 0]


def test_depth_beyond_the_range_is_clipped_and_nonsense_refused():
    far = rhd.decode_depth(rhd.encode_depth(np.array([[np.inf, 9000.0]])))
    np.testing.assert_allclose(far, 5000)
    for nonsense in (np.nan, -1.0):
        with pytest.raises(ValueError, match="negative values or NaN"):
            rhd.encode_depth(np.array([[nonsense]]))


# -- records ----------------------------------------------------------------------------------------------


def test_a_written_scene_is_read_back(tree):
    split = rhd.RHDSplit(tree, "train")
    assert len(split) == 5 and split.ids.tolist() == list(range(5))
    sides = set()
    for index in range(len(split)):
        scene, record = random_scene(index), split.record(index)
        sides.add(record.side)
        colour, parts, depth = scene.draw()
        np.testing.assert_allclose(record.joints_mm, scene.hands[record.side], atol=1e-3)
        projected = record.joints_mm.astype(float) @ record.K.T
        np.testing.assert_allclose(projected[:, :2] / projected[:, 2:], record.uv_px, atol=1e-3)
        np.testing.assert_array_equal(record.image, colour)
        own = (parts >= 2) & (parts <= 17) if record.side == "left" else parts >= 18
        np.testing.assert_array_equal(record.hand_mask, own)  # never the other hand's, nor the body's
        assert np.abs(record.depth_mm - depth).max() < 0.1
        assert record.visible.all() and record.id == index
    assert sides == {"left", "right"}  # the seeds show both


def test_joints_are_turned_from_tip_first_to_root_first(tree):
    raw = rhd.load_annotations(tree / "training" / "anno_training.pickle")[0]["xyz"]
    record = rhd.RHDSplit(tree, "train").record(0)
    own = raw[:21] if record.side == "left" else raw[21:]
    joints_m = record.joints_mm / 1000
    np.testing.assert_allclose(joints_m[0], own[0], atol=1e-6)  # wrist
    np.testing.assert_allclose(joints_m[4], own[1], atol=1e-6)  # thumb tip comes first on disk
    np.testing.assert_allclose(joints_m[9], own[12], atol=1e-6)  # middle MCP
    np.testing.assert_allclose(joints_m[10], own[11], atol=1e-6)  # middle PIP
    np.testing.assert_allclose(joints_m[RHD_ORDER], own, atol=1e-6)


def test_a_published_label_lands_on_its_published_pixel(tmp_path):
    """A wrist of the published set: metres, f = 299, c = 160 and pixels as its annotation prints them."""
    scene = random_scene(0, side="left", other_hand=False)
    write_split(tmp_path, "training", {111: scene})
    path = tmp_path / "training" / "anno_training.pickle"
    labels = rhd.load_annotations(path)
    labels[111]["xyz"][0] = (0.1179, -0.1182, 0.4110)
    labels[111]["uv_vis"][0] = (245.8, 73.98, 1)
    labels[111]["K"] = np.array([[299, 0, 160], [0, 299, 160], [0, 0, 1]], np.float32)
    rhd.write_annotations(path, labels)
    record = rhd.RHDSplit(tmp_path, "train").record(0)
    np.testing.assert_allclose(record.joints_mm[0], (117.9, -118.2, 411.0), atol=1e-3)
    np.testing.assert_allclose(project(record.joints_mm, record.K)[0], (245.77, 74.01), atol=0.005)
    np.testing.assert_allclose(record.uv_px[0], (245.77, 74.01), atol=0.05)


@pytest.mark.parametrize(
    ("left_pixels", "right_pixels", "side"),
    [(5, 4, "left"), (4, 5, "right"), (5, 5, "right"), (0, 0, "right")],
)
def test_the_hand_with_more_pixels_is_chosen_and_ties_are_right(pair, left_pixels, right_pixels, side):
    mask = np.ones(320 * 320, np.uint8)  # body everywhere else
    mask[:left_pixels] = np.resize([2, 17], left_pixels)
    mask[100 : 100 + right_pixels] = np.resize([18, 33], right_pixels)
    Image.fromarray(mask.reshape(320, 320)).save(pair / "training" / "mask" / "00001.png")
    record = rhd.RHDSplit(pair, "train").record(0)
    assert record.side == side
    assert record.hand_mask.sum() == (left_pixels if side == "left" else right_pixels)


def test_a_colour_mask_gives_the_same_ids_as_a_grey_one(pair):
    before = rhd.RHDSplit(pair, "train").record(0).hand_mask
    path = pair / "training" / "mask" / "00001.png"
    Image.open(path).convert("RGB").save(path)
    np.testing.assert_array_equal(rhd.RHDSplit(pair, "train").record(0).hand_mask, before)


def test_only_one_means_visible(tmp_path):
    scene = random_scene(0, side="left", other_hand=False)
    scene.visible = np.tile([1.0, 0.0, 2.0], 14)
    write_split(tmp_path, "training", {3: scene})
    record = rhd.RHDSplit(tmp_path, "train").record(0)
    np.testing.assert_array_equal(record.visible, (scene.visible[:21] == 1)[RHD_ORDER])


def test_mirroring_twice_gives_the_record_back_and_once_moves_everything(tree):
    record = rhd.RHDSplit(tree, "train").record(0)
    once, twice = mirror(record), mirror(mirror(record))
    for name in ("image", "hand_mask", "depth_mm", "joints_mm", "visible", "K"):
        np.testing.assert_array_equal(getattr(twice, name), getattr(record, name))
    np.testing.assert_allclose(twice.uv_px, record.uv_px, atol=1e-4)
    assert {once.side, record.side} == {"left", "right"} and twice.side == record.side
    projected = once.joints_mm.astype(float) @ once.K.T
    np.testing.assert_allclose(projected[:, :2] / projected[:, 2:], once.uv_px, atol=1e-3)
    u, v = np.rint(record.uv_px[9]).astype(int)
    np.testing.assert_array_equal(once.image[v, 319 - u], record.image[v, u])
    assert once.depth_mm[v, 319 - u] == record.depth_mm[v, u]


# -- splits -----------------------------------------------------------------------------------------------


def test_the_published_set_gets_a_fixed_hold_out(tmp_path):
    annotation = Scene({}, np.eye(3)).annotation()
    for folder, count in (("training", 100), ("evaluation", 4)):
        (tmp_path / folder).mkdir()
        rhd.write_annotations(
            tmp_path / folder / f"anno_{folder}.pickle", dict.fromkeys(range(count), annotation)
        )
    train, val, test = (rhd.RHDSplit(tmp_path, split) for split in ("train", "val", "test"))
    assert val.ids.tolist() == [0, 40, 80]
    assert sorted([*train.ids, *val.ids]) == list(range(100)) and len(train) == 97
    assert test.ids.tolist() == [0, 1, 2, 3]


def test_a_validation_folder_is_used_where_there_is_one(tree):
    assert rhd.RHDSplit(tree, "val").folder == tree / "validation"
    assert len(rhd.RHDSplit(tree, "train")) == 5


def test_a_wrong_root_or_split_is_explained(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder 'training' in it.*RHD_published_v2"):
        rhd.RHDSplit(tmp_path, "train")
    with pytest.raises(FileNotFoundError, match=r"nowhere: no such folder.*RHD_published_v2"):
        rhd.RHDSplit(tmp_path / "nowhere", "train")
    (tmp_path / "training").mkdir()
    with pytest.raises(FileNotFoundError, match=r"anno_training\.pickle"):
        rhd.RHDSplit(tmp_path, "train")
    with pytest.raises(ValueError, match="unknown split 'dev'"):
        rhd.RHDSplit(tmp_path, "dev")


# -- bad files --------------------------------------------------------------------------------------------


def spoil(root, kind, how):
    """Damage sample 1 of a pair."""
    path = root / "training" / kind / "00001.png"
    if how == "missing":
        path.unlink()
    elif how == "truncated":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif how == "not a picture":
        path.write_bytes(b"<html>404</html>")
    elif how == "wrong size":
        Image.open(path).resize((160, 200)).save(path)


@pytest.mark.parametrize("kind", ["color", "mask", "depth"])
@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing", "missing"),
        ("truncated", "cannot be decoded"),
        ("not a picture", r"cannot be decoded: it is a web page \(HTML\).*, not a picture"),
        ("wrong size", "160x200 pixels, expected 320x320"),
    ],
)
def test_a_bad_picture_is_named(pair, kind, how, message):
    expected_size = rhd.RHDSplit(pair, "train").size
    assert expected_size == (320, 320)
    spoil(pair, kind, how)
    split = rhd.RHDSplit(pair, "train")
    split._size = expected_size  # set by whichever image comes first
    if (kind, how) == ("depth", "missing"):
        assert split.record(0).depth_mm is None  # the hand can do without its cloud
        return
    with pytest.raises(BadSample, match=rf"{kind}.00001\.png.*{message}.*--skip-bad"):
        split.record(0)
    assert split.record(1).id == 2


def test_the_size_comes_from_the_first_readable_image(pair):
    spoil(pair, "color", "not a picture")
    assert rhd.RHDSplit(pair, "train").size == (320, 320)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("xyz", np.full((42, 3), np.nan), "NaN or infinity"),
        ("uv_vis", np.full((42, 3), np.inf), "NaN or infinity"),
        ("xyz", np.zeros((21, 3)), r"shape \(21, 3\), expected \(42, 3\)"),
        ("K", None, "missing or not numeric"),
    ],
)
def test_a_bad_label_is_named(pair, key, value, message):
    path = pair / "training" / "anno_training.pickle"
    annotations = rhd.load_annotations(path)
    if value is None:
        del annotations[1][key]
    else:
        annotations[1][key] = value
    rhd.write_annotations(path, annotations)
    with pytest.raises(BadSample, match=rf"anno_training\.pickle: sample 1, '{key}': .*{message}"):
        rhd.RHDSplit(pair, "train").record(0)


def test_nan_in_the_other_hand_does_no_harm(tmp_path):
    write_split(tmp_path, "training", {1: random_scene(0, side="right", other_hand=False)})
    path = tmp_path / "training" / "anno_training.pickle"
    annotations = rhd.load_annotations(path)
    annotations[1]["xyz"][:21] = np.nan
    rhd.write_annotations(path, annotations)
    assert rhd.RHDSplit(tmp_path, "train").record(0).side == "right"


# -- pickles ----------------------------------------------------------------------------------------------


class Malicious:
    """What an attacker would put into an annotation file."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_calls_something_is_refused_unrun(tmp_path, protocol):
    path, target = tmp_path / "anno.pickle", tmp_path / "hacked"
    path.write_bytes(pickle.dumps({0: {"xyz": Malicious(target)}}, protocol=protocol))
    with pytest.raises(rhd.UnsafePickle, match=r"anno\.pickle: .*(posix|nt)\.mkdir"):
        rhd.load_annotations(path)
    assert not target.exists()


@pytest.mark.parametrize("reference", ["numpy load", "numpy.core.multiarray fromfile", "builtins eval"])
def test_functions_beside_the_admitted_ones_are_refused(tmp_path, reference):
    path = tmp_path / "anno.pickle"
    module, name = reference.split()
    path.write_bytes(f"c{module}\n{name}\n.".encode())
    with pytest.raises(rhd.UnsafePickle, match=rf"{module}\.{name}"):
        rhd.load_annotations(path)


def test_arrays_of_objects_are_refused(tmp_path):
    path = tmp_path / "anno.pickle"
    path.write_bytes(pickle.dumps({0: {"xyz": np.array([None, {}], object)}}))
    with pytest.raises(rhd.UnsafePickle, match=r"anno\.pickle: .*Python objects"):
        rhd.load_annotations(path)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("core", [b"numpy._core", b"numpy.core"])
def test_arrays_and_scalars_of_both_numpy_generations_are_read(tmp_path, protocol, core):
    path = tmp_path / "anno.pickle"
    content = {
        3: {"xyz": np.arange(126, dtype=np.float32).reshape(42, 3), "scale": np.float64(2.5), "tag": "é"}
    }
    data = pickle.dumps(content, protocol=protocol)
    if protocol < 4:  # older protocols write module names as plain lines
        data = data.replace(b"numpy._core", core)
    path.write_bytes(data)
    read = rhd.load_annotations(path)
    np.testing.assert_array_equal(read[3]["xyz"], content[3]["xyz"])
    assert read[3]["scale"] == 2.5 and read[3]["tag"] == "é"


def test_a_python_2_pickle_is_read(tmp_path):
    # Written by hand, byte for byte as Python 2 did: byte strings for names and for the array's data,
    # integers for the flags of a dtype. 200 and up are not ASCII.
    values = np.linspace(-1e9, 1e9, 9).reshape(3, 3)
    data = (
        b"\x80\x02}K\x07}U\x01K"
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x03K\x03\x86cnumpy\ndtype\nU\x02f8K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xff"
        b"J\xff\xff\xff\xffK\x00tb\x89UH" + values.astype("<f8").tobytes() + b"tbss."
    )
    path = tmp_path / "anno.pickle"
    path.write_bytes(data)
    np.testing.assert_array_equal(rhd.load_annotations(path)[7]["K"], values)


def test_damaged_and_misshapen_annotations_are_named(tmp_path):
    path = tmp_path / "anno.pickle"
    rhd.write_annotations(path, {0: {"K": np.eye(3)}})
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"anno\.pickle: damaged"):
        rhd.load_annotations(path)
    path.write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(ValueError, match="expected a dict"):
        rhd.load_annotations(path)
    with pytest.raises(FileNotFoundError, match="no such annotation file"):
        rhd.load_annotations(tmp_path / "other.pickle")


def test_annotations_are_written_alike_every_time_and_leave_nothing_behind(tmp_path):
    content = {i: random_scene(i).annotation() for i in range(2)}
    for name in ("a", "b"):
        rhd.write_annotations(tmp_path / name, content)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]
