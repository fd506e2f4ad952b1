"""Output forms of SynthHand: RHD as published, options that a form leaves open, commands."""

import sys
from pathlib import Path

import numpy as np
import open3d as o3d
import pytest
from PIL import Image

from davae.data.manifest import read_manifest
from davae.pipeline import cli
from synthhand.dataset import render, sample_factors, write_dataset, write_rhd
from synthhand.dataset.forms import FORMS, write_as
from synthhand.dataset.scene import build_hand
from synthhand.formats.rhd import RHDSplit, load_annotations
from synthhand.pinhole import depth_to_points, project
from synthhand.skeleton import RHD_ORDER


@pytest.fixture(scope="module")
def rhd_set(tmp_path_factory) -> Path:
    return write_rhd(tmp_path_factory.mktemp("rhd") / "set", train=2, test=1, seed=6, progress=False)


def names(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def test_rhd_is_written_as_it_was_published(rhd_set):
    expected = {"training/anno_training.pickle", "evaluation/anno_evaluation.pickle", "synthhand.json"}
    for folder, count in (("training", 2), ("evaluation", 1)):
        expected |= {f"{folder}/{k}/{i:05d}.png" for k in ("color", "depth", "mask") for i in range(count)}
    assert names(rhd_set) == expected
    for path in rhd_set.rglob("*.png"):
        with Image.open(path) as image:
            assert image.size == (320, 320)
    for label in load_annotations(rhd_set / "training/anno_training.pickle").values():
        K, uv_vis, xyz = label["K"].astype(float), label["uv_vis"], label["xyz"].astype(float)
        assert (K[0, 2], K[1, 2], K[0, 0]) == (160, 160, K[1, 1]) and 250 < K[0, 0] < 320
        assert set(np.unique(uv_vis[:, 2])) == {0, 1}
        assert [f"{value:.4g}" for value in uv_vis[:, :2].flat] == [
            f"{value:.6g}" for value in uv_vis[:, :2].flat
        ]
        projected = (xyz @ K.T)[:, :2] / xyz[:, 2:]
        shown = np.abs(uv_vis[:, :2]).max(axis=1) < 1000
        assert 0 < np.abs(projected - uv_vis[:, :2])[shown].max() <= 0.0501


def test_its_pictures_are_those_of_synthhands_own_form(rhd_set, tmp_path):
    own = write_dataset(tmp_path / "own", train=1, val=0, test=0, seed=6, progress=False)
    for kind in ("color", "depth", "mask"):
        name = f"training/{kind}/00000.png"
        assert (own / name).read_bytes() == (rhd_set / name).read_bytes()
    with pytest.raises(ValueError, match="form is rhd there, None asked for"):
        write_dataset(rhd_set, train=2, val=0, test=1, seed=6, progress=False)


@pytest.mark.parametrize(("split", "index"), [("train", 0), ("val", 0), ("test", 0)])
def test_rhds_labels_and_depth_agree_with_what_was_rendered(rhd_set, split, index):
    reader = RHDSplit(rhd_set, split)
    record = reader.record(index)
    factors = sample_factors(6, "train" if split == "val" else split, int(reader.ids[index]))
    rendering, body = render(factors), build_hand(factors)
    own = slice(0, 21) if record.side == "left" else slice(21, 42)
    drawn = rendering.uv_vis[own, :2][RHD_ORDER]
    assert record.side == rendering.side
    assert np.abs(record.uv_px - drawn).max() < 0.2
    assert np.abs(project(record.joints_mm, record.K) - drawn).max() < 0.2
    # Measured points lie on this hand's surface, and never on the other hand's.
    points = depth_to_points(record.depth_mm, record.hand_mask, record.K)
    scene = o3d.t.geometry.RaycastingScene()
    scene.add_triangles(body.vertices_mm.astype(np.float32), body.faces.astype(np.uint32))
    off_mm = scene.compute_distance(points.astype(np.float32)).numpy()
    assert len(points) > 100 and off_mm.max() < 1
    assert set(np.unique(rendering.part_mask[record.hand_mask])) <= set(
        range(2, 18) if record.side == "left" else range(18, 34)
    )


def test_its_validation_is_held_out_by_the_reader(rhd_set):
    splits = {name: RHDSplit(rhd_set, name) for name in ("train", "val", "test")}
    assert {name: split.ids.tolist() for name, split in splits.items()} == {
        "train": [1],
        "val": [0],
        "test": [0],
    }
    assert splits["train"].factors() == {}
    assert splits["val"].record(0).hand_mask.any()


@pytest.mark.parametrize(
    ("form", "choices", "message"),
    [
        ("stb", {"val": 3}, "val is 3, but the form is stb: it has no validation split"),
        ("rhd", {"val": 3}, "val is 3, but the form is rhd: it has no validation split"),
        ("rhd", {"size": 64}, "size is 64, but the form is rhd: its pictures have the size"),
        ("stb", {"size": 320}, "size is 320, but the form is stb"),
        ("stb", {"colour": "red"}, "colour is red, but the form is stb: it is no choice of that form"),
        ("synthhand", {}, "the form synthhand has a validation split: say with --val"),
        ("hand3d", {}, "unknown form 'hand3d'; choose one of synthhand, rhd, stb"),
    ],
)
def test_choices_that_a_form_does_not_leave_are_refused(tmp_path, form, choices, message):
    with pytest.raises(ValueError, match=message):
        write_as(form, tmp_path / "set", 20, 4, 0, 1, **choices)
    assert not (tmp_path / "set").exists()


def test_choices_not_made_are_left_to_the_writer(tmp_path, monkeypatch):
    calls = []

    def writer(out, train, test, seed, workers, viewpoint="sphere"):
        calls.append((train, test, seed, workers, viewpoint))
        return out

    monkeypatch.setitem(FORMS, "mine", writer)
    assert write_as("mine", tmp_path, 3, 2, 1, 2, val=0, size=None, viewpoint=None) == tmp_path
    write_as("mine", tmp_path, 3, 2, 1, 2, viewpoint="frontal")
    assert calls == [(3, 2, 1, 2, "sphere"), (3, 2, 1, 2, "frontal")]


# -- the commands -----------------------------------------------------------------------------------------


def davae(monkeypatch, *arguments) -> None:
    monkeypatch.setattr(sys, "argv", ["davae", *map(str, arguments)])
    cli.main()


def test_render_and_prepare_by_command(stb_set, tmp_path, monkeypatch, capsys):
    render = ("render", "--out", tmp_path / "rhd", "--train", 1, "--test", 0, "--as", "rhd")
    davae(monkeypatch, *render)
    assert "rendered 1 + 0 samples, in the form of rhd" in capsys.readouterr().out
    assert not (tmp_path / "rhd" / "validation").exists()
    with pytest.raises(SystemExit, match="flesh is realistic there, wide asked for"):
        davae(monkeypatch, *render, "--flesh", "wide")
    with pytest.raises(SystemExit, match="2"):
        davae(monkeypatch, *render, "--flesh", "fat")
    assert "--flesh: unknown choice 'fat'; choose one of realistic, wide" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="val is 2, but the form is rhd"):
        davae(monkeypatch, *render, "--val", 2)
    prepare = ("prepare", "--root", stb_set, "--size", 16, "--out")
    davae(monkeypatch, *prepare, tmp_path / "bb", "--dataset", "stb", "--rig", "bb", "--wrist", "middle")
    assert "train: 20 samples, 0 with a cloud, 0 left out" in capsys.readouterr().out
    assert read_manifest(tmp_path / "bb")["options"] == {"rig": "bb", "wrist": "middle"}
    with pytest.raises(SystemExit, match="synthhand has no option 'rig'; it is for stb, leave it out"):
        davae(monkeypatch, *prepare, tmp_path / "x", "--dataset", "synthhand", "--rig", "sk")
    with pytest.raises(SystemExit, match="2"):
        davae(monkeypatch, *prepare, tmp_path / "x", "--dataset", "stb", "--wrist", "elbow")
    assert "--wrist: unknown choice 'elbow'; choose one of ring, middle" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
