"""davae.data.doctor: each kind of damage is found and named, and a healthy set is left alone."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import freihand_fixture
import numpy as np
import pytest
from PIL import Image
from rhd_fixture import open_hand_mm, write_dataset

from davae.camera import project
from davae.data import doctor, rhd, stb
from davae.data.stb_cameras import K_DEPTH, encode_depth
from davae.data.stb_labels import wrist_to_palm, write_labels
from davae.data.synthhand import write_dataset as render_dataset

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
    from davae.data.stb_labels import load_labels

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


def test_everything_is_looked_at_in_a_healthy_set(trees):
    diagnosis, text = examine("rhd", trees("rhd"))
    assert list(verdicts(diagnosis)) == [
        *("layout", "samples", "picture files", "labels", "camera K", "bone lengths", "left or right"),
        *("decoding", "sides by mask", "masks", "depth", "usable hands"),
    ]
    assert f"{3 * (TRAIN + TEST)} files" in text and f"{TRAIN + TEST} of {TRAIN + TEST}" in text
    by_name = {check.name: check for check in diagnosis.checks}
    assert by_name["sides by mask"].looked_at == f"{TRAIN + TEST} samples"
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


def freihand_longer_focal(root):
    path = root / "training_K.json"
    K = np.array(json.loads(path.read_text()))
    K[:, :2, :2] *= 3
    path.write_text(json.dumps(K.tolist()))


def freihand_millimetres(root):
    path = root / "training_xyz.json"
    path.write_text(json.dumps((1000 * np.array(json.loads(path.read_text()))).tolist()))


def freihand_missing_pictures(root):
    (root / "training" / "rgb" / "00000023.jpg").unlink()  # the last
    (root / "training" / "mask" / "00000003.jpg").unlink()


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
    ("rhd", millimetres, "bone lengths", ["labels are in millimetres where metres are due", "anno_training"]),
    ("rhd", missing_ids, "samples", ["sample ids are missing in the middle", "sample 3", "sample 5"]),
    ("rhd", missing_ids, "picture files", ["images without labels", "color/00003.png", "depth/00005.png"]),
    ("rhd", missing_pictures, "picture files", ["labels without images", "color/00002.png"]),
    ("rhd", foreign_class, "layout", ["anno_training.pickle", "pathlib", "nothing in it was run"]),
    ("rhd", wrong_size, "picture files", ["wrong image size", "color/00001.png: 160x200", "320x320 are due"]),
    ("rhd", all_resized, "picture files", ["wrong image size", "use the pictures as published"]),
    ("rhd", not_a_number, "labels", ["labels hold NaN", "sample 4"]),
    ("rhd", absent_field, "labels", ["lack a field", "sample 4"]),
    ("rhd", other_pixels, "camera K", ["contradict each other", "sample 1, right hand"]),
    ("stb", stb_metres, "bone lengths", ["labels are in metres where millimetres are due", "_SK.mat"]),
    ("stb", stb_mirrored, "left or right", ["labels/*_SK.mat: left and right look swapped"]),
    ("stb", stb_swapped_depth, "depth", [SWAPPED_DEPTH, "B1Counting/SK_depth_0.png"]),
    ("stb", stb_empty_mat, "layout", ["labels/B3Random_SK.mat: empty"]),
    ("stb", stb_missing_sequence, "layout", ["labels/B1Random_BB.mat: missing split", "evaluation"]),
    ("freihand", freihand_longer_focal, "camera K", ["wrong K", "training_K.json", "frame"]),
    ("freihand", freihand_millimetres, "bone lengths", ["labels are in millimetres where metres are due"]),
    ("freihand", freihand_missing_pictures, "picture files", ["rgb/00000023.jpg", "mask/00000003.jpg"]),
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
