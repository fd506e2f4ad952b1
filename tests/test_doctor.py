"""davae.data.doctor: each kind of damage is reported by name; a healthy dataset passes unchanged."""

import json
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import freihand_fixture
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rhd_fixture import open_hand_mm, random_scene, write_dataset, write_split

from davae.config import DataConfig
from davae.data import doctor, layout
from davae.data.doctor import files, labels
from davae.data.doctor.findings import Check, Finding, format_checks, judge_share
from davae.data.prepared import PreparedSplit, prepare
from davae.data.readers import DATASETS, READERS
from davae.figures import check_sheet
from davae.pipeline import cli
from synthhand.dataset.forms import FORMS
from synthhand.dataset.writer import write_dataset as render_dataset
from synthhand.formats import rhd, stb
from synthhand.formats.stb_cameras import K_DEPTH, encode_depth
from synthhand.formats.stb_labels import load_labels, wrist_to_palm, write_labels
from synthhand.pinhole import project

TRAIN, TEST = 8, 4  # samples of the RHD tree


@pytest.fixture(scope="module")
def trees(tmp_path_factory) -> Callable[[str], Path]:
    """Healthy sets by name, each written once; no test changes them."""
    writers = {"rhd": _write_rhd, "stb": _write_stb, "freihand": _write_freihand, "synthhand": _render}
    written = {}

    def tree(name: str) -> Path:
        if name not in written:
            written[name] = writers[name](tmp_path_factory.mktemp(name))
        return written[name]

    return tree


@pytest.fixture
def fresh(trees, tmp_path) -> Callable[[str], Path]:
    """Copies of healthy sets, to be spoilt."""
    return lambda name: shutil.copytree(trees(name), tmp_path / name)


def _write_rhd(root: Path) -> Path:
    return write_dataset(root, train=TRAIN, val=0, test=TEST, factors=False)


def _write_freihand(root: Path) -> Path:
    return freihand_fixture.write_tree(root, train=6, test=3)


def _render(root: Path) -> Path:
    return render_dataset(root / "synthhand", train=6, val=1, test=2, seed=5, progress=False)


def _write_stb(root: Path) -> Path:
    """One frame of each sequence: a bent left hand, as balls in SK's depth pictures; all else is grey."""
    (root / "labels").mkdir()
    grey = Image.new("RGB", (640, 480), (90, 80, 70))
    rows, columns = np.mgrid[:480, :640]
    for place, sequence in enumerate(stb.SEQUENCES):
        hand = (open_hand_mm() * [-1, 1, 4] + [5 * place - 30, 60, 540]).astype(float)
        depth = np.full((480, 640), 900)
        for (u, v), z in zip(project(hand, K_DEPTH), hand[:, 2], strict=True):
            ball = (columns - u) ** 2 + (rows - v) ** 2 < 8**2
            depth[ball] = np.minimum(depth[ball], int(z) - 8)
        folder = root / "images" / sequence
        folder.mkdir(parents=True)
        for view in ("BB_left", "BB_right", "SK_color"):
            grey.save(folder / f"{view}_0.png", compress_level=1)
        Image.fromarray(encode_depth(depth)).save(folder / "SK_depth_0.png", compress_level=1)
        for rig in ("BB", "SK"):
            write_labels(root / "labels" / f"{sequence}_{rig}.mat", wrist_to_palm(hand[None]))
    return root


def examine(dataset: str, root: Path, **options) -> tuple[doctor.Diagnosis, str]:
    """The diagnosis and its text."""
    diagnosis = doctor.examine(dataset, root, progress=False, **options)
    return diagnosis, diagnosis.format()


def verdicts(diagnosis: doctor.Diagnosis) -> dict[str, str]:
    return {check.name: check.verdict for check in diagnosis.checks}


def edit_rhd(root: Path, change: Callable[[int, dict], dict | None], folder: str = "training") -> None:
    """Rewrite annotations; None leaves a sample out."""
    path = root / folder / f"anno_{folder}.pickle"
    changed = {i: change(i, a) for i, a in rhd.load_annotations(path).items()}
    rhd.write_annotations(path, {i: a for i, a in changed.items() if a is not None})


def edit_stb(root: Path, change: Callable[[np.ndarray], np.ndarray], rig: str = "SK") -> None:
    for path in (root / "labels").glob(f"*_{rig}.mat"):
        write_labels(path, change(load_labels(path)))


def swap_bytes(path: Path) -> None:
    Image.fromarray(np.asarray(Image.open(path))[..., [1, 0, 2]]).save(path)


# -- healthy sets -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dataset", ["rhd", "stb", "freihand", "synthhand"])
def test_a_healthy_set_is_clean(trees, dataset):
    diagnosis, text = examine(dataset, trees(dataset), full=True)
    assert diagnosis.usable, text
    findings = [finding for check in diagnosis.checks for finding in check.findings]
    assert {finding.what for finding in findings} <= {"a part of the published set"}, text
    assert text.endswith("\nusable")


def test_a_rendered_set_in_the_name_of_rhd_is_clean(trees):
    diagnosis, text = examine("rhd", trees("synthhand"))
    assert diagnosis.usable and "6 of 41,258; 1; 2 of 2,728" in text


def test_everything_is_checked_in_a_healthy_set(trees):
    diagnosis, text = examine("rhd", trees("rhd"))
    assert list(verdicts(diagnosis)) == [
        *("layout", "samples", "picture files", "labels", "camera K", "bone lengths", "left or right"),
        *("decoding", "sides by mask", "masks", "depth", "usable hands"),
    ]
    assert f"{3 * (TRAIN + TEST)} files" in text and f"{TRAIN + TEST} of {TRAIN + TEST}" in text
    by_name = {check.name: check for check in diagnosis.checks}
    assert by_name["sides by mask"].checked == f"{TRAIN + TEST} samples"
    assert "median 0.00" in by_name["camera K"].found


# -- damage, one kind after the other ---------------------------------------------------------------------


def missing_split(root):
    shutil.rmtree(root / "evaluation")


def truncated(root):
    for kind, sample in (("color", 1), ("mask", 4), ("depth", 6)):
        path = root / "training" / kind / f"{sample:05d}.png"
        path.write_bytes(path.read_bytes()[:-30])


def swapped_depth(root):
    for path in (root / "training" / "depth").glob("*.png"):
        swap_bytes(path)


def longer_focal(root):
    edit_rhd(root, lambda i, a: a | {"K": a["K"] * (1 + 0.2 * np.diag([1, 1, 0]))} if i == 2 else a)


def moved_centre(root):
    edit_rhd(root, lambda i, a: a | {"K": a["K"] + np.float32([[0, 0, 9], [0, 0, 0], [0, 0, 0]])})


def swapped_hands(root):
    edit_rhd(root, lambda i, a: a | {key: np.roll(a[key], 21, axis=0) for key in ("xyz", "uv_vis")})


def millimetres(root):
    edit_rhd(root, lambda i, a: a | {"xyz": 1000 * a["xyz"]})


def missing_ids(root):
    edit_rhd(root, lambda i, a: None if i in (3, 5) else a)


def missing_pictures(root):
    (root / "training" / "color" / "00002.png").unlink()


def foreign_class(root):
    (root / "training" / "anno_training.pickle").write_bytes(pickle.dumps({0: {"xyz": Path("x")}}))


def wrong_size(root):
    path = root / "evaluation" / "color" / "00001.png"
    Image.open(path).resize((160, 200)).save(path)


def all_resized(root):
    for path in (root / "evaluation" / "color").glob("*.png"):
        Image.open(path).resize((256, 256)).save(path)


def not_a_number(root):
    def change(i, a):
        hands = a["xyz"].copy()
        hands[:] = np.nan
        return a | {"xyz": hands} if i == 4 else a

    edit_rhd(root, change)


def absent_field(root):
    edit_rhd(root, lambda i, a: {key: a[key] for key in a if key != "K"} if i == 4 else a)


def other_pixels(root):
    edit_rhd(root, lambda i, a: a | {"uv_vis": a["uv_vis"][:, [1, 0, 2]]} if i == 1 else a)


def stb_metres(root):
    edit_stb(root, lambda joints: joints / 1000)


def stb_mirrored(root):
    edit_stb(root, lambda joints: joints * [-1, 1, 1])


def stb_swapped_depth(root):
    for path in (root / "images").glob("*/SK_depth_*.png"):
        swap_bytes(path)


def stb_empty_mat(root):
    (root / "labels" / "B3Random_SK.mat").write_bytes(b"")


def stb_missing_sequence(root):
    (root / "labels" / "B1Random_BB.mat").unlink()


def edit_freihand_cameras(root, change):
    path = root / "training_K.json"
    path.write_text(json.dumps([change(np.array(K)).tolist() for K in json.loads(path.read_text())]))


def freihand_longer_focal(root):
    edit_freihand_cameras(root, lambda K: K * (1 + 2 * np.diag([1, 1, 0])))


def freihand_shorter_focal(root):
    edit_freihand_cameras(root, lambda K: K * (1 - 0.5 * np.diag([1, 1, 0])))


def freihand_moved_centre(root):
    edit_freihand_cameras(root, lambda K: K - np.array([[0, 0, 62], [0, 0, 0], [0, 0, 0]]))


def freihand_millimetres(root):
    path = root / "training_xyz.json"
    path.write_text(json.dumps((1000 * np.array(json.loads(path.read_text()))).tolist()))


def freihand_missing_pictures(root):
    (root / "training" / "rgb" / "00000023.jpg").unlink()  # the last
    (root / "training" / "mask" / "00000003.jpg").unlink()


def freihand_damaged_cameras(root):
    (root / "training_K.json").write_text("[[")


def freihand_truncated(root):
    path = root / "evaluation" / "rgb" / "00000001.jpg"
    path.write_bytes(path.read_bytes()[:-100])


def freihand_no_evaluation_labels(root):
    (root / "evaluation_xyz.json").unlink()


WRONG_K = "training/anno_training.pickle: wrong K"
SWAPPED_DEPTH = "high and low byte of depth look swapped"
DAMAGE = [
    ("rhd", missing_split, "layout", ["evaluation: missing split"]),
    (
        "rhd",
        truncated,
        "picture files",
        ["truncated", "color/00001.png", "mask/00004.png", "depth/00006.png"],
    ),
    ("rhd", swapped_depth, "depth", [f"training: {SWAPPED_DEPTH} (8 of 8 samples)", "depth/00000.png"]),
    ("rhd", longer_focal, "camera K", [WRONG_K, "focal length disagree", "sample 2, left hand"]),
    ("rhd", moved_centre, "camera K", [WRONG_K, "principal point disagree", "and 11 more"]),
    ("rhd", swapped_hands, "sides by mask", ["left and right look swapped", "anno_training.pickle"]),
    ("rhd", swapped_hands, "left or right", ["hands labelled left bend as right hands do"]),
    ("rhd", millimetres, "bone lengths", ["labels are in millimetres, expected metres", "anno_training"]),
    ("rhd", missing_ids, "samples", ["sample ids are missing in the middle", "sample 3", "sample 5"]),
    ("rhd", missing_ids, "picture files", ["images without labels", "color/00003.png", "depth/00005.png"]),
    ("rhd", missing_pictures, "picture files", ["labels without images", "color/00002.png"]),
    ("rhd", foreign_class, "layout", ["anno_training.pickle", "pathlib", "nothing in it was run"]),
    (
        "rhd",
        wrong_size,
        "picture files",
        ["wrong image size", "color/00001.png: 160x200", "expected 320x320"],
    ),
    ("rhd", all_resized, "picture files", ["wrong image size", "use the pictures as published"]),
    ("rhd", not_a_number, "labels", ["labels hold NaN", "sample 4"]),
    ("rhd", absent_field, "labels", ["lack a field", "sample 4"]),
    ("rhd", other_pixels, "camera K", ["contradict each other", "sample 1, right hand"]),
    ("stb", stb_metres, "bone lengths", ["labels are in metres, expected millimetres", "_SK.mat"]),
    ("stb", stb_mirrored, "left or right", ["labels/*_SK.mat: left and right look swapped"]),
    ("stb", stb_swapped_depth, "depth", [SWAPPED_DEPTH, "B1Counting/SK_depth_0.png"]),
    ("stb", stb_empty_mat, "layout", ["labels/B3Random_SK.mat: empty"]),
    ("stb", stb_missing_sequence, "layout", ["labels/B1Random_BB.mat: missing split", "evaluation"]),
    ("freihand", freihand_longer_focal, "camera K", ["wrong K", "training_K.json", "frame"]),
    ("freihand", freihand_shorter_focal, "masks", ["wrong K", "training_K.json", "focal length about 2"]),
    ("freihand", freihand_moved_centre, "masks", ["wrong K", "px aside: the principal point disagrees"]),
    ("freihand", freihand_millimetres, "bone lengths", ["labels are in millimetres, expected metres"]),
    ("freihand", freihand_missing_pictures, "picture files", ["rgb/00000023.jpg", "mask/00000003.jpg"]),
    ("freihand", freihand_damaged_cameras, "layout", ["training_K.json: damaged"]),
    ("freihand", freihand_truncated, "picture files", ["truncated", "evaluation/rgb/00000001.jpg"]),
    ("freihand", freihand_no_evaluation_labels, "layout", ["evaluation_xyz.json", "pub_v2_eval.zip"]),
]


@pytest.mark.parametrize(
    ("dataset", "damage", "check", "words"), DAMAGE, ids=lambda v: getattr(v, "__name__", None)
)
def test_damage_is_found_and_named(fresh, dataset, damage, check, words):
    root = fresh(dataset)
    damage(root)
    diagnosis, text = examine(dataset, root)
    assert not diagnosis.usable
    assert verdicts(diagnosis)[check] == "ERROR", text
    for word in words:
        assert word in text, text
    assert str(root) not in text.split("\n", 1)[1]  # files are named from the dataset's folder on


# -- beyond single damages --------------------------------------------------------------------------------


def test_one_damage_does_not_hide_another(fresh):
    root = fresh("rhd")
    for damage in (missing_split, swapped_depth, truncated, longer_focal, not_a_number, missing_pictures):
        damage(root)
    diagnosis, text = examine("rhd", root)
    for words in (
        "missing split",
        "truncated",
        "wrong K",
        "hold NaN",
        SWAPPED_DEPTH,
        "labels without images",
    ):
        assert words in text, text
    assert len(diagnosis.checks) == 12  # none was left out


def test_unusable_labels_of_one_part_leave_the_others_checked(fresh):
    root = fresh("rhd")
    foreign_class(root)
    diagnosis, text = examine("rhd", root)
    assert "4 of 2,728" in text and verdicts(diagnosis)["camera K"] == "ok"
    assert f"{3 * TEST} files" in text


def test_samples_that_cannot_be_used_are_listed_by_rule_and_are_no_error(tmp_path):
    scenes = {i: random_scene(i) for i in range(8)}
    scenes[2].visible = np.zeros(42)
    write_split(tmp_path, "training", scenes)
    write_split(tmp_path, "evaluation", {i: random_scene(20 + i) for i in range(3)})
    mask = tmp_path / "training" / "mask" / "00004.png"
    Image.fromarray(np.asarray(Image.open(mask)) * 0).save(mask)
    depth = tmp_path / "training" / "depth" / "00006.png"
    Image.fromarray(rhd.encode_depth(np.zeros((320, 320)))).save(depth)
    diagnosis, text = examine("rhd", tmp_path)
    assert diagnosis.usable, text
    (use,) = (check for check in diagnosis.checks if check.name == "usable hands")
    listed = {finding.what: finding.examples for finding in use.findings}
    assert "sample 2: " in listed["hands with no visible joint"][0]
    assert [example[:9] for example in listed["hands with an empty mask"]] == ["sample 4:"]
    assert [example[:9] for example in listed["hands with an empty cloud"]] == ["sample 6:"]
    advice = {finding.what: finding.advice for finding in use.findings}
    out = prepare("rhd", tmp_path, tmp_path / "out", DataConfig(image_px=16), skip_bad=True, progress=False)
    train = PreparedSplit.open(out, "train")
    assert sorted(train.manifest["splits"]["train"]["skipped"]) == ["2", "4"]
    assert "leaves them out" in advice["hands with an empty mask"]
    assert train.ids[~train.has_cloud].tolist() == [6]
    assert "without the cloud term" in advice["hands with an empty cloud"]
    assert "1 with an empty mask" in use.found


def test_a_hand_without_a_visible_joint_is_found_though_it_was_not_decoded(trees, tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "SAMPLE", 2)
    root = shutil.copytree(trees("rhd"), tmp_path / "rhd")
    hidden = np.float32([1, 1, 0])
    edit_rhd(root, lambda i, a: a | {"uv_vis": a["uv_vis"] * hidden} if i in (1, 5) else a)
    diagnosis, text = examine("rhd", root)
    assert diagnosis.checks[-1].checked == f"2 of {TRAIN + TEST}"
    assert "sample 1: training/color/00001.png" in text and "sample 5: training/color/00005.png" in text


def test_full_decodes_what_a_sample_misses(fresh, monkeypatch):
    root = fresh("rhd")
    path = root / "training" / "color" / "00007.png"
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 200] = bytes(200)  # its end is whole
    path.write_bytes(data)
    chosen = {}
    for seed in range(20):
        monkeypatch.setattr(doctor, "SAMPLE", 3)
        diagnosis, _ = examine("rhd", root, seed=seed)
        chosen[seed] = [(m.part.name, m.sample) for m in diagnosis.measured]
        if ("training", 7) not in chosen[seed]:
            break
    assert diagnosis.usable and {part for part, _ in chosen[seed]} == {"training", "evaluation"}
    again, _ = examine("rhd", root, seed=seed)
    assert [(m.part.name, m.sample) for m in again.measured] == chosen[seed]
    diagnosis, text = examine("rhd", root, full=True)
    assert not diagnosis.usable and "color/00007.png: cannot be decoded" in text


def test_an_unfinished_rendering_is_told(fresh):
    root = fresh("synthhand")
    manifest = json.loads((root / "synthhand.json").read_text())
    (root / "synthhand.json").write_text(json.dumps(manifest | {"train": 9}))
    diagnosis, text = examine("synthhand", root)
    assert not diagnosis.usable and "fewer samples than synthhand.json says (6 of 9 samples)" in text
    (root / "synthhand.json").unlink()
    diagnosis, text = examine("synthhand", root)
    assert not diagnosis.usable and "synthhand.json: missing" in text


def test_a_root_one_folder_too_high_is_noticed(trees, tmp_path):
    shutil.copytree(trees("rhd"), tmp_path / "download" / "RHD_published_v2")
    diagnosis, text = examine("rhd", tmp_path / "download")
    assert not diagnosis.usable and "did you mean --root" in text and "RHD_published_v2?" in text
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        doctor.examine("rhd", tmp_path / "nowhere")
    with pytest.raises(ValueError, match="unknown dataset 'coco'"):
        doctor.examine("coco", tmp_path)


@pytest.mark.parametrize("dataset", ["rhd", "stb", "freihand", "synthhand"])
def test_a_folder_near_the_one_meant_leads_to_it(trees, tmp_path, monkeypatch, dataset):
    """A level too deep, two, one too high: the words name the folder from where the user is."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trees(dataset), "data/set")
    inside = {"stb": ("images", "images/B1Counting"), "freihand": ("training", "training/rgb")}
    for below in inside.get(dataset, ("training", "evaluation/color")):
        diagnosis, text = examine(dataset, Path("data/set") / below)
        assert not diagnosis.usable and "missing split" not in text
        assert "a part of" in text and "did you mean --root data/set?" in text
    _, text = examine(dataset, Path("data"))
    assert "in a subfolder" in text and "did you mean --root data/set?" in text
    for asked in {"rhd", "stb", "freihand"} - {dataset, "rhd" if dataset == "synthhand" else ""}:
        diagnosis, text = examine(asked, Path("data/set"))
        name = DATASETS[dataset].title
        assert not diagnosis.usable and f"looks like {name}, not like {DATASETS[asked].title}" in text
        assert f"say --dataset {dataset}" in text
        _, text = examine(asked, Path("data/set") / inside.get(dataset, ("training",))[0])
        assert f"a part of {name}" in text and f"did you mean --dataset {dataset} --root data/set?" in text


def test_what_is_no_dataset_is_told_by_check_data_and_prepare_in_the_same_words(trees, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = DataConfig(image_px=64)
    prepare("rhd", trees("rhd"), "arrays", config, progress=False, skip_bad=True)
    Path("RHD.zip").write_bytes(b"PK")
    Path("download").mkdir()
    Path("download/RHD_published_v2.zip").write_bytes(b"PK")
    shutil.copytree(trees("stb"), "STB")
    for root, words in (
        ("arrays", "arrays written by `prepare`, no dataset; give them to `train --data`"),
        ("RHD.zip", "a file, expected the folder of RHD; unpack RHD.zip and give the resulting folder"),
        ("RHD", "no such folder, but its archive is there; unpack RHD.zip"),
        ("download", "holds an archive but nothing of RHD; unpack download/RHD_published_v2.zip"),
        ("STB", "looks like STB, not like RHD; say --dataset stb"),
        ("STB/labels", "a part of STB; did you mean --dataset stb --root STB?"),
    ):
        with pytest.raises(FileNotFoundError) as refused:
            prepare("rhd", root, "out", config, progress=False)
        assert f"{root}: {words}" in str(refused.value) and not Path("out").exists()
        what, advice = words.split("; ")
        try:
            _, text = examine("rhd", Path(root))
        except FileNotFoundError as error:
            assert str(error) == str(refused.value)
        else:
            assert what in text and advice in text


def test_one_rig_of_stb_alone_is_a_note(fresh):
    root = fresh("stb")
    for path in (root / "labels").glob("*_BB.mat"):
        path.unlink()
    diagnosis, text = examine("stb", root)
    assert diagnosis.usable and "no labels of the rig bb" in text


# -- single functions -------------------------------------------------------------------------------------


@given(
    focal=st.tuples(st.floats(100, 900), st.floats(100, 900)),
    centre=st.tuples(st.floats(-50, 400), st.floats(-50, 400)),
    seed=st.integers(0, 99),
)
def test_a_camera_is_recovered_from_joints_and_pixels(focal, centre, seed):
    joints = random_scene(seed, other_hand=False).hands.popitem()[1]
    K = np.array([[focal[0], 0, centre[0]], [0, focal[1], centre[1]], [0, 0, 1]])
    fitted, left_over = labels.fit_camera(joints, project(joints, K))
    np.testing.assert_allclose(fitted, [*focal, *centre], rtol=1e-6, atol=1e-6)
    assert left_over < 1e-6 and labels.compare_camera(K, fitted) == []
    K[0, 2] += 5
    (words,) = labels.compare_camera(K, fitted)
    assert words.startswith("the principal point")


@given(st.integers(0, 99))
def test_a_mirrored_hand_bends_as_the_other_side_does(seed):
    scene = random_scene(seed, side="right", other_hand=False)
    right = scene.hands["right"][None]
    bend = labels.bend_mm(right)
    assert bend[0] > 20  # the fixture's hand bends a little towards the camera that its palm looks at
    np.testing.assert_allclose(labels.bend_mm(right * [-1, 1, 1]), -bend, atol=1e-9)


@pytest.mark.parametrize(
    ("median_mm", "due", "found"),
    [
        (0.09, "millimetres", "metres"),
        (9.0, "millimetres", "centimetres"),
        (90_000.0, "metres", "millimetres"),
        (9_000.0, "metres", "centimetres"),
        (90.0, "millimetres", "millimetres"),
        (1e9, "metres", None),
    ],
)
def test_units_are_told_by_a_finger(median_mm, due, found):
    assert labels.guess_unit(median_mm, due) == found


def test_ends_and_sizes_of_files_are_read(tmp_path):
    whole, cut, page, empty, photo = (
        tmp_path / name for name in ("a.png", "b.png", "c.png", "d.png", "e.jpg")
    )
    Image.new("RGB", (40, 30), "red").save(whole)
    Image.new("RGB", (50, 20), "red").save(photo)
    assert files.peek(whole) == ((30, 40), None) and files.peek(photo) == ((20, 50), None)
    data = whole.read_bytes()
    cut.write_bytes(data[:-1])
    page.write_bytes(b"<html>404</html>")
    empty.write_bytes(b"")
    problems = [files.peek(path)[1] for path in (cut, page, empty, tmp_path / "none.png")]
    for problem, word in zip(problems, ("truncated", "no PNG", "empty", "cannot be read"), strict=True):
        assert word in problem
    whole.write_bytes(data + b"a program's remark")  # harmless: the picture is whole
    assert files.peek(whole)[1] is None


def test_gaps_between_numbers():
    assert files.find_gaps(np.array([0, 1, 4])).tolist() == [2, 3]
    assert files.find_gaps(np.arange(3)).tolist() == files.find_gaps(np.zeros(0, int)).tolist() == []


def test_few_outliers_are_a_warning_and_many_an_error():
    assert (judge_share(1, 100), judge_share(2, 100), judge_share(1, 8)) == ("warning", "ERROR", "ERROR")


def test_what_occurs_in_many_places_is_said_once():
    findings = tuple(
        Finding("ERROR", f"file{i}", "is odd", f"by {i}", "mend it", (f"sample {i}",)) for i in range(9)
    )
    text = format_checks(
        [Check("oddity", "9 files", "9 odd", findings), Check("peace", "9 files", "all even")]
    )
    assert text.count("is odd") == text.count("mend it") == 1
    assert "is odd, in 9 places" in text and "and 4 more places" in text and "sample 4" in text
    assert text.splitlines()[2].endswith("ERROR") and text.splitlines()[3].endswith("ok")
    (line,) = (
        row for row in format_checks([Check("a", "b", "c", findings[:1])]).splitlines() if "odd" in row
    )
    assert line == "ERROR: file0: is odd (by 0)"


# -- contact sheet and command ----------------------------------------------------------------------------


def test_the_sheet_shows_the_worst_first_and_every_split(fresh):
    root = fresh("rhd")
    longer_focal(root)
    diagnosis, _ = examine("rhd", root)
    shown = doctor.make_tiles(diagnosis, number=7)
    assert len(shown) == 7 and shown[0].title.startswith("training/00002")
    assert "px" in shown[0].title and not any("px" in tile.title for tile in shown[1:])
    assert {tile.title.split("/")[0] for tile in shown} == {"training", "evaluation"}
    assert np.abs(shown[0].projected_px - shown[0].uv_px).max() > 5
    figure = check_sheet(shown)
    pictures = [ax for ax in figure.axes if ax.images]
    assert len(pictures) == 7
    drawn = [len(ax.collections) for ax in pictures]
    assert drawn[0] > max(drawn[1:])  # where 3D joints miss their pixels they are drawn too


def test_measured_points_stand_in_for_a_mask(trees):
    diagnosis, _ = examine("stb", trees("stb"))
    masks = {tile.title.split("/")[1].rpartition("_")[0]: tile.mask for tile in doctor.make_tiles(diagnosis)}
    assert masks["SK_color"].sum() > 500 and masks["BB_left"] is None


@pytest.mark.parametrize(("damage", "status"), [(None, 0), (missing_split, 1)])
def test_the_command_says_by_its_status_whether_a_set_can_be_used(
    fresh, tmp_path, monkeypatch, capsys, damage, status
):
    root = fresh("rhd")
    if damage:
        damage(root)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["davae", "check-data", "--dataset", "rhd", "--root", str(root)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == status
    out = capsys.readouterr().out
    path = Path("outputs") / "check" / f"rhd-{root.name}.png"
    assert "verdict" in out and f"contact sheet: {path}" in out
    with Image.open(tmp_path / path) as sheet:
        assert sheet.width > 1000


def test_a_folder_that_may_not_be_entered_is_passed_over(tmp_path, trees, monkeypatch):
    (tmp_path / "lost+found").mkdir()
    shutil.copytree(trees("rhd"), tmp_path / "x" / "RHD_published_v2")
    exists = Path.exists

    def guarded(path, **options):
        if "lost+found" in path.parts:
            raise PermissionError(path)
        return exists(path, **options)

    monkeypatch.setattr(Path, "exists", guarded)
    assert "did you mean --root" in layout.diagnose_root("rhd", tmp_path)[1]


def test_a_folder_of_two_datasets_is_either(tmp_path, trees):
    for dataset in ("rhd", "freihand"):
        shutil.copytree(trees(dataset), tmp_path / "both", dirs_exist_ok=True)
    assert layout.diagnose_root("rhd", tmp_path / "both") is None
    assert layout.diagnose_root("freihand", tmp_path / "both") is None


def test_a_set_rendered_as_another_is_published_is_called_that(tmp_path, trees):
    shutil.copytree(trees("rhd"), tmp_path / "set")
    (tmp_path / "set" / layout.MANIFEST).write_text(json.dumps({"form": "rhd"}))
    assert layout.recognise(tmp_path / "set") == "rhd"
    assert "looks like RHD, not like STB" in layout.diagnose_root("stb", tmp_path / "set")[0]
    diagnosis, text = examine("synthhand", tmp_path / "set")
    assert not diagnosis.usable and "rendered in the form of rhd, which has no folder 'validation'" in text
    assert "say --dataset rhd" in text


def test_every_list_of_datasets_names_the_same():
    assert list(DATASETS) == list(READERS) == list(doctor.OPEN) == list(FORMS)
