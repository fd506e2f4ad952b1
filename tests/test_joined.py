"""davae.data.joined: several prepared folders as one."""

import json
import shutil

import numpy as np
import pytest
from rhd_fixture import write_dataset

from davae.config import DataConfig
from davae.data.joined import join_prepared
from davae.data.manifest import SPLITS, read_manifest, verify
from davae.data.prepared import PreparedSplit, prepare
from synthhand.dataset.writer import write_dataset as render

CONFIG = DataConfig(image_px=32, cloud_points=64)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Hands, and hands of the world of photographs, which have further factors."""
    home = tmp_path_factory.mktemp("two")
    render(home / "plain", 3, 1, 2, size=96, seed=0)
    render(home / "world", 2, 2, 1, size=96, seed=1, world=("camera",))
    return [
        prepare("synthhand", home / name, home / f"prepared-{name}", CONFIG, progress=False)
        for name in ("plain", "world")
    ]


@pytest.fixture(scope="module")
def joined(folders, tmp_path_factory):
    return join_prepared(folders, tmp_path_factory.mktemp("joined") / "both", progress=False)


@pytest.mark.parametrize("split", SPLITS)
def test_each_split_holds_the_rows_of_all_folders_in_turn(folders, joined, split):
    whole, parts = PreparedSplit.open(joined, split), [PreparedSplit.open(f, split) for f in folders]
    for name in whole.manifest["splits"][split]["arrays"]:
        rows = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_array_equal(getattr(whole, name), rows)
    assert "pose/articulation" in whole.factors and "camera/kelvin" in parts[1].factors
    assert set(whole.factors) == set(parts[0].factors)
    for name, values in whole.factors.items():
        np.testing.assert_array_equal(values, np.concatenate([part.factors[name] for part in parts]))


def test_the_manifest_holds_and_tells_of_what_it_was_joined(folders, joined):
    verify(joined)
    manifest = read_manifest(joined)
    assert manifest["root"] == "plain + world" and manifest["dataset"] == "synthhand"
    assert [manifest["splits"][split]["count"] for split in SPLITS] == [5, 3, 3]
    made = manifest["splits"]["train"]["made_with"]["joined"]
    assert [part["root"] for part in made] == ["plain", "world"]
    assert list(joined.parent.glob(".*.partial")) == []


def test_the_same_folders_give_the_same_digest_in_the_same_order_alone(folders, joined, tmp_path):
    again = join_prepared(folders, tmp_path / "again", progress=False)
    other = join_prepared(folders[::-1], tmp_path / "other", progress=False)
    digests = [read_manifest(folder)["digest"] for folder in (joined, again, other)]
    assert digests[0] == digests[1] != digests[2]


def test_data_without_factors_are_joined_without(folders, tmp_path):
    root = write_dataset(tmp_path / "hands")
    (root / "factors.npz").unlink(missing_ok=True)
    for folder in root.iterdir():
        (folder / "factors.npz").unlink(missing_ok=True)
    bare = prepare("synthhand", root, tmp_path / "bare", CONFIG, progress=False)
    whole = PreparedSplit.open(join_prepared([folders[0], bare], tmp_path / "out", progress=False), "train")
    assert dict(whole.factors) == {} and len(whole) == 3 + len(PreparedSplit.open(bare, "train"))


def test_predicted_masks_are_not_taken(folders, joined):
    assert PreparedSplit.open(joined, "train").predicted_masks is None


def test_other_crops_are_refused_by_name(folders, tmp_path):
    other = shutil.copytree(folders[1], tmp_path / "other")
    manifest = read_manifest(other) | {"image_px": 48}
    (other / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=r"other/manifest.json: image_px is 48, but 32 in .*prepared-plain"):
        join_prepared([folders[0], other], tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


def test_one_folder_and_a_folder_in_use_are_refused(folders, tmp_path):
    with pytest.raises(ValueError, match="two or more prepared folders, got 1"):
        join_prepared(folders[:1], tmp_path / "out", progress=False)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("keep")
    with pytest.raises(ValueError, match="mine is not empty"):
        join_prepared(folders, tmp_path / "mine", progress=False)
    assert (tmp_path / "mine" / "letter.txt").read_text() == "keep"
    with pytest.raises(FileNotFoundError, match="nothing is prepared there"):
        join_prepared([folders[0], tmp_path / "none"], tmp_path / "out", progress=False)


def test_what_a_kill_left_is_written_again(folders, joined, tmp_path):
    left = tmp_path / ".both.partial" / "train"
    left.mkdir(parents=True)
    (left / "images.npy").write_bytes(b"half")
    again = join_prepared(folders, tmp_path / "both", progress=False)
    assert read_manifest(again)["digest"] == read_manifest(joined)["digest"]
