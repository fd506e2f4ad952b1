"""SynthHand: independent factors, equal bytes for any way of writing, resuming, refusals."""

import dataclasses
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.stats import norm, rankdata, spearmanr

import synthhand.dataset
from synthhand.dataset import factors, jobs, render, sample_factors, write_dataset, writer
from synthhand.dataset.factors import GROUPS, SPLITS, Factors, sample_group
from synthhand.dataset.scene import hand_pixels
from synthhand.formats.rhd import RHDSplit, load_annotations
from synthhand.model.pose import ANGLES
from synthhand.model.procedural import procedural_rig
from synthhand.pinhole import project
from synthhand.skeleton import REFERENCE_BONE, RHD_ORDER, ROOT

SIZE = 48
COUNTS = {"train": 5, "val": 2, "test": 3}
SEED = 3


def write(out: Path, **changes) -> Path:
    return write_dataset(**{"out": out, **COUNTS, "seed": SEED, "size": SIZE, "progress": False, **changes})


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("synthhand") / "set")


@pytest.fixture
def fresh(dataset, tmp_path) -> Path:
    """A copy of the dataset that a test may damage."""
    for name, data in contents(dataset).items():
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / name).write_bytes(data)
    return tmp_path / "set"


def same(a, b) -> bool:
    return all(np.array_equal(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))


def test_two_workers_write_the_same_bytes_as_one(dataset, tmp_path, monkeypatch):
    # The workers' own chunks are as long as ever; only the order of jobs and the processes differ.
    monkeypatch.setattr(jobs, "CHUNK", 2)
    assert contents(write(tmp_path / "two", workers=2)) == contents(dataset)


def test_any_order_and_any_subset_give_the_same_sample(dataset):
    for index in (4, 1):
        rendering = render(sample_factors(SEED, "train", index), SIZE)
        name = f"{index:05d}.png"
        np.testing.assert_array_equal(Image.open(dataset / "training/color" / name), rendering.image)
        np.testing.assert_array_equal(Image.open(dataset / "training/mask" / name), rendering.part_mask)


def test_splits_and_seeds_share_no_factor():
    orientations = [
        sample_factors(seed, split, index).pose.orientation
        for seed in (0, 1)
        for split in SPLITS
        for index in range(3)
    ]
    distances = [np.abs(a - b).max() for i, a in enumerate(orientations) for b in orientations[:i]]
    assert min(distances) > 1e-3


def test_groups_have_their_own_streams():
    whole = sample_factors(SEED, "val", 7)
    for group in GROUPS:
        assert same(sample_group(group, SEED, "val", 7), getattr(whole, group))


def swapped(group: str) -> tuple[Factors, Factors]:
    """A sample without a second hand, and the same one with one group taken from another sample."""
    first, other = sample_factors(0, "train", 21), sample_factors(0, "train", 22)
    alone = dataclasses.replace(first, scene=dataclasses.replace(first.scene, second_shown=0))
    return alone, dataclasses.replace(alone, **{group: getattr(other, group)})


def test_appearance_changes_nothing_but_colour():
    first, second = (render(f, SIZE) for f in swapped("appearance"))
    np.testing.assert_array_equal(first.depth_mm, second.depth_mm)
    np.testing.assert_array_equal(first.part_mask, second.part_mask)
    np.testing.assert_array_equal(first.joints_mm, second.joints_mm)
    np.testing.assert_array_equal(first.uv_vis, second.uv_vis)
    assert np.abs(first.mean_colour - second.mean_colour).max() > 0.01


def test_shape_changes_the_surface_but_no_joint():
    first, second = (render(f, SIZE) for f in swapped("shape"))
    np.testing.assert_array_equal(first.joints_mm, second.joints_mm)
    np.testing.assert_array_equal(first.uv_vis[:, :2], second.uv_vis[:, :2])
    assert not np.array_equal(first.depth_mm, second.depth_mm)


def test_light_and_background_leave_geometry_alone():
    first, _ = swapped("scene")
    scene = dataclasses.replace(
        first.scene, key_direction=np.array([0, -1.0, 0]), wall_seed=1, exposure=0.5, noise=0.02, blur_px=1.0
    )
    a, b = render(first, SIZE), render(dataclasses.replace(first, scene=scene), SIZE)
    np.testing.assert_array_equal(a.depth_mm, b.depth_mm)
    np.testing.assert_array_equal(a.part_mask, b.part_mask)
    np.testing.assert_array_equal(a.uv_vis, b.uv_vis)


def normalised(rendering) -> np.ndarray:
    """Joints of the described hand as a right hand, minus the root, over the reference bone (RHD order)."""
    joints = rendering.joints_mm[:21] * [-1, 1, 1] if rendering.side == "left" else rendering.joints_mm[21:]
    joints = joints[RHD_ORDER]
    a, b = REFERENCE_BONE
    return (joints - joints[ROOT]) / np.linalg.norm(joints[b] - joints[a])


def test_scene_moves_and_scales_the_hand_but_keeps_the_normalised_pose():
    first, second = (render(f, SIZE) for f in swapped("scene"))
    np.testing.assert_allclose(normalised(first), normalised(second), atol=1e-9)
    assert not np.array_equal(first.uv_vis[:, :2], second.uv_vis[:, :2])


# -- independence -----------------------------------------------------------------------------------------

SAMPLES = 5000
FALSE_ALARM = (
    1e-3  # chance that independent groups fail, over all comparisons together, were seeds drawn anew
)


def columns(name: str, values: np.ndarray) -> dict[str, np.ndarray]:
    """What of a factor (n, ...) is compared, each (n,): its numbers; for a kind, whether it is each kind."""
    values = values.reshape(len(values), -1)
    if name.endswith("/gesture"):
        return {f"{name} {kind}": values[:, 0] == kind for kind in np.unique(values)}
    return {f"{name} {i}": column for i, column in enumerate(values.T) if np.ptp(column) > 0}


def dependences(table: dict[str, np.ndarray]) -> list[str]:
    """Pairs of columns of two groups whose ranks correlate more than chance allows.

    Each column takes part twice, as it is and as its distance from its own median, so that a spread which
    follows something is found as well as a mean. Under independence a correlation of ranks times sqrt(n - 1)
    is close to a standard normal; the limit is Bonferroni's, FALSE_ALARM over the number of pairs.
    """
    names, ranks, member = [], [], []
    for name, values in table.items():
        values = values.astype(float)
        for what, column in (("", values), (" spread", np.abs(values - np.median(values)))):
            if np.ptp(column) > 0:
                names.append(name + what)
                ranks.append(rankdata(column))
                member.append(GROUPS.index(name.split("/")[0]))
    correlation = np.corrcoef(ranks)
    across = np.less.outer(member, member)
    limit = norm.isf(FALSE_ALARM / 2 / across.sum()) / np.sqrt(len(ranks[0]) - 1)
    return [f"{names[i]} and {names[j]}" for i, j in np.argwhere(across & (np.abs(correlation) > limit))]


@pytest.fixture(scope="module")
def many() -> dict[str, np.ndarray]:
    """Columns of 5,000 samples.

    The pose of the *second* hand takes as long as that of the first; it is replaced by noise, and left out.
    """

    def quick(rng, *_):
        return rng.normal(size=ANGLES), 0

    rows = {group: [sample_group(group, 0, "train", i) for i in range(SAMPLES)] for group in GROUPS[:3]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(factors, "sample_articulation", quick)
        rows["scene"] = [sample_group("scene", 0, "train", i) for i in range(SAMPLES)]
    table = {}
    for group, parts in rows.items():
        for field in dataclasses.fields(parts[0]):
            if not field.name.startswith("second_"):
                values = np.stack([np.asarray(getattr(part, field.name)) for part in parts])
                table |= columns(f"{group}/{field.name}", values)
    return table


@pytest.mark.slow
def test_groups_are_independent(many):
    assert {name.split("/")[0] for name in many} == set(GROUPS) and len(many) > 100
    assert dependences(many) == []


@pytest.mark.slow
def test_a_dependence_between_groups_would_be_found(many):
    """Both of a mean and of a spread, each of a strength that no eye would see in a scatter plot."""
    melanin = rankdata(many["appearance/melanin 0"]) / SAMPLES - 0.5
    shape = many["shape/coefficients 0"]
    follows = shape + 0.4 * melanin
    found = dependences(many | {"shape/coefficients 0": follows})
    assert found == ["shape/coefficients 0 and appearance/melanin 0"]
    wavers = shape * (1 + 0.6 * melanin)
    assert abs(spearmanr(wavers, melanin).statistic) < 0.04
    found = dependences(many | {"shape/coefficients 0": wavers})
    assert found == ["shape/coefficients 0 spread and appearance/melanin 0"]


# -- on disk ----------------------------------------------------------------------------------------------


def test_factors_on_disk_are_those_sampled(dataset):
    for split, folder in (("train", "training"), ("val", "validation"), ("test", "evaluation")):
        with np.load(dataset / folder / "factors.npz") as stored:
            assert {name.split("/")[0] for name in stored} == set(GROUPS)
            for index in range(COUNTS[split]):
                for name, value in sample_factors(SEED, split, index).flat().items():
                    np.testing.assert_array_equal(stored[name][index], value)


def test_mean_colour_is_that_of_the_hands_pixels(dataset):
    with np.load(dataset / "training/factors.npz") as stored:
        mean_colour = stored["appearance/mean_colour"]
    split = RHDSplit(dataset, "train")
    for index in range(len(split)):
        record = split.record(index)
        np.testing.assert_allclose(
            mean_colour[index], record.image[record.hand_mask].mean(0) / 255, atol=1e-6
        )


def test_the_rhd_reader_reads_it(dataset):
    for name in SPLITS:
        split = RHDSplit(dataset, name)
        assert split.ids.tolist() == list(range(COUNTS[name]))
        for index in range(len(split)):
            record, factors = split.record(index), sample_factors(SEED, name, index)
            # The dominant hand by pixels is the one the factors describe.
            assert record.side == ("left" if factors.scene.left else "right")
            np.testing.assert_allclose(project(record.joints_mm, record.K), record.uv_px, atol=1e-3)
            assert record.hand_mask.sum() > 10
            seen = record.visible
            assert seen.any()
            u, v = np.rint(record.uv_px[seen]).astype(int).clip(0, SIZE - 1).T
            # Skin lies before its joint, by no more than flesh is thick (the nearest pixel may show another).
            gap = record.joints_mm[seen, 2] - record.depth_mm[v, u]
            assert 0 < np.median(gap) < 45


def test_annotations_are_rhds(dataset):
    annotations = load_annotations(dataset / "evaluation/anno_evaluation.pickle")
    assert list(annotations) == [0, 1, 2]
    for label in annotations.values():
        assert {k: (v.shape, v.dtype) for k, v in label.items()} == {
            "xyz": ((42, 3), np.float32),
            "uv_vis": ((42, 3), np.float32),
            "K": ((3, 3), np.float32),
        }
        assert label["xyz"][:, 2].min() > 0.2  # metres, before the camera
        assert set(np.unique(label["uv_vis"][:, 2])) <= {0, 1}
        np.testing.assert_allclose(label["K"][:2, 2], SIZE / 2)


def test_the_described_hand_dominates_and_an_unshown_one_is_out_of_the_frame():
    shown = 0
    for index in range(14):
        rendering = render(sample_factors(11, "train", index), SIZE)
        other = "right" if rendering.side == "left" else "left"
        own, others = (hand_pixels(rendering.part_mask, s).sum() for s in (rendering.side, other))
        assert own > others
        shown += rendering.second_in_frame
        if not rendering.second_in_frame:
            assert others == 0
            rows = rendering.uv_vis[:21] if other == "left" else rendering.uv_vis[21:]
            assert ((rows[:, 0] < -0.5) | (rows[:, 0] > SIZE - 0.5)).all()
            assert (rows[:, 2] == 0).all()
    assert 0 < shown < 14


def test_a_larger_second_hand_is_moved_out():
    factors = sample_factors(11, "train", 0)
    scene = dataclasses.replace(
        factors.scene, second_shown=1, second_mm=250.0, second_uv=np.array([160.0, 160.0]), root_mm=900.0
    )
    rendering = render(dataclasses.replace(factors, scene=scene), SIZE)
    assert not rendering.second_in_frame
    assert hand_pixels(rendering.part_mask, rendering.side).any()


def test_a_finished_set_is_left_alone(fresh):
    before = {p: p.stat().st_mtime_ns for p in fresh.rglob("*") if p.is_file()}
    write(fresh)
    assert {p: p.stat().st_mtime_ns for p in fresh.rglob("*") if p.is_file()} == before


def test_only_missing_and_damaged_images_are_rendered_again(fresh, dataset):
    color, mask, depth = (fresh / "training" / kind / "00002.png" for kind in ("color", "mask", "depth"))
    color.unlink()
    mask_of_other = fresh / "training/mask/00004.png"
    mask_of_other.write_bytes(mask_of_other.read_bytes()[:-5])
    untouched = fresh / "training/color/00003.png"
    before = untouched.stat().st_mtime_ns
    write(fresh)
    assert contents(fresh) == contents(dataset)
    assert untouched.stat().st_mtime_ns == before
    assert mask.exists()
    assert depth.exists()


def test_an_interrupted_rendering_is_finished_to_the_same_bytes(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "CHUNK", 2)
    calls = []

    def interrupted(factors, size, backgrounds):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return render(factors, size, backgrounds)

    monkeypatch.setattr(writer, "render", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "set")
    assert not list((tmp_path / "set").rglob("anno_*.pickle"))
    finished = tmp_path / "set/training/color/00000.png"
    before = finished.stat().st_mtime_ns
    monkeypatch.setattr(writer, "render", render)
    write(tmp_path / "set")
    assert finished.stat().st_mtime_ns == before
    assert contents(tmp_path / "set") == contents(dataset)


def drop_a_row(cache: bytes) -> bytes:
    with np.load(io.BytesIO(cache)) as rows:
        shorter = {name: values[1:] for name, values in rows.items()}
    np.savez(file := io.BytesIO(), allow_pickle=False, **shorter)
    return file.getvalue()


@pytest.mark.parametrize(
    "damage",
    [lambda _: b"", lambda cache: cache[: len(cache) // 2], lambda cache: bytes(len(cache)), drop_a_row],
    ids=["empty", "truncated", "zeros", "a row short"],
)
def test_damaged_caches_of_labels_are_made_anew(damage, dataset, tmp_path, monkeypatch):
    gather = jobs._gather_rows
    monkeypatch.setattr(jobs, "CHUNK", 2)
    monkeypatch.setattr(jobs, "_gather_rows", lambda *_: {}["interrupted"])
    with pytest.raises(KeyError, match="interrupted"):
        write(tmp_path / "set")
    monkeypatch.setattr(jobs, "_gather_rows", gather)
    cache = tmp_path / "set" / ".partial" / "train" / "00002.npz"
    cache.write_bytes(damage(cache.read_bytes()))
    write(tmp_path / "set")
    assert contents(tmp_path / "set") == contents(dataset)


def test_the_manifest_says_what_was_made(dataset):
    manifest = json.loads((dataset / "synthhand.json").read_text())
    look = {"viewpoint": "sphere", "backgrounds_sha256": None}
    assert manifest == {
        "generator": synthhand.dataset.GENERATOR,
        "seed": SEED,
        "size": SIZE,
        **COUNTS,
        **look,
    }


@pytest.mark.parametrize("change", [{"seed": 4}, {"size": 64}, {"train": 6}])
def test_a_folder_made_with_other_parameters_is_refused(dataset, change):
    (name, value), before = next(iter(change.items())), contents(dataset)
    with pytest.raises(ValueError, match=rf"{name} is \d+ there, {value} asked for"):
        write(dataset, **change)
    assert contents(dataset) == before


def test_viewpoint_and_backgrounds_are_part_of_what_a_dataset_is(dataset, tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    Image.fromarray(np.full((40, 40, 3), (10, 200, 10), np.uint8)).save(own / "green.png")
    green = write(tmp_path / "green", backgrounds=own)
    image = np.asarray(Image.open(green / "training/color/00000.png")).astype(int)
    behind = np.asarray(Image.open(green / "training/mask/00000.png")) == 0
    assert np.median((image[..., 1] - image[..., 0])[behind]) > 20
    with pytest.raises(ValueError, match="backgrounds_sha256 is"):
        write(tmp_path / "green")
    with pytest.raises(ValueError, match="viewpoint is sphere there, frontal asked for"):
        write(dataset, viewpoint="frontal")
    with pytest.raises(ValueError, match="unknown viewpoint 'above'"):
        write(tmp_path / "new", viewpoint="above")


def test_the_range_of_flesh_is_part_of_what_a_dataset_is(dataset, tmp_path):
    before = contents(dataset)
    with pytest.raises(ValueError, match="flesh is realistic there, wide asked for"):
        write(dataset, flesh="wide")
    assert contents(dataset) == before
    wide = write(tmp_path / "wide", flesh="wide")
    assert json.loads((wide / "synthhand.json").read_text())["flesh"] == "wide"
    assert contents(write(wide, flesh="wide")) == contents(write(tmp_path / "again", flesh="wide", workers=2))
    with np.load(wide / "training/factors.npz") as stored:
        own = sample_factors(SEED, "train", 1, flesh="wide")
        for name, value in own.flat().items():
            np.testing.assert_array_equal(stored[name][1], value)
    with pytest.raises(ValueError, match="flesh is wide there, realistic asked for"):
        write(wide)
    with pytest.raises(ValueError, match="unknown flesh 'fat'; choose one of realistic, wide"):
        write(tmp_path / "new", flesh="fat")
    assert not (tmp_path / "new").exists()


def test_a_foreign_folder_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(ValueError, match=r"not empty and has no synthhand\.json"):
        write(tmp_path)


def test_what_a_kill_left_of_the_manifest_is_not_foreign(dataset, tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / ".synthhand.json.tmp").write_text("{")
    assert contents(write(tmp_path / "set")) == contents(dataset)


@pytest.mark.parametrize(("name", "value"), [("train", -1), ("seed", -1), ("size", 8), ("workers", 0)])
def test_impossible_requests_are_refused(tmp_path, name, value):
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        write(tmp_path / "set", **{name: value})
    assert not (tmp_path / "set").exists()


def test_unknown_splits_are_refused():
    with pytest.raises(ValueError, match="train, val, test"):
        sample_factors(0, "training", 0)
    with pytest.raises(ValueError, match="index -1"):
        sample_factors(0, "train", -1)


def test_an_empty_split_is_still_a_split(tmp_path):
    write(tmp_path / "set", train=1, val=0, test=0)
    assert len(RHDSplit(tmp_path / "set", "val")) == 0


def test_the_front_door_is_light_and_leads_to_the_modules():
    code = "import sys, synthhand.dataset; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"numpy", "scipy", "open3d", "skimage", "PIL"} & set(done.stdout.split())
    assert synthhand.dataset.write_dataset is writer.write_dataset
    assert synthhand.dataset.sample_factors is factors.sample_factors
    for name in synthhand.dataset._MODULES:
        assert callable(getattr(synthhand.dataset, name)) and name in dir(synthhand.dataset)
    with pytest.raises(AttributeError, match="no attribute 'redner'"):
        synthhand.dataset.redner  # noqa: B018


def test_the_rig_is_built_once():
    assert procedural_rig() is procedural_rig()
