"""SynthHand in STB's form: four cameras see one hand, labels match it, output is reproducible."""

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import open3d as o3d
import pytest
from PIL import Image
from rhd_fixture import open_hand_mm
from scipy import ndimage
from scipy.spatial.transform import Rotation

from davae.config import DataConfig
from davae.data.prepared import PreparedSplit, prepare
from synthhand.dataset import GENERATOR
from synthhand.dataset.stb_scene import COLOUR_TO_LEFT, draw, draw_views, sample_frame
from synthhand.dataset.stb_writer import EDITION, VIEWS, write_stb
from synthhand.formats.stb import SEQUENCES, STBSplit, frame_of
from synthhand.formats.stb_cameras import K_BB, K_COLOUR, SIZE
from synthhand.formats.stb_labels import load_labels, wrist_to_palm, write_labels
from synthhand.model.body import Body
from synthhand.render.wall import Wall

COUNTS = {"train": 11, "test": 2}  # of `stb_set`, the fewest there can be; B2Counting has two frames
SEED = 4
R = Rotation.from_rotvec([0.00531, -0.01196, 0.00301]).as_matrix()  # colour to depth
T = np.array([-24.0381, -0.4563, -1.2326])
CUT = slice(80, 560)  # the rows of the square that the renderer draws


def write(out: Path, **changes) -> Path:
    return write_stb(**{"out": out, **COUNTS, "seed": SEED, "progress": False, **changes})


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


@pytest.fixture
def fresh(stb_set, tmp_path) -> Path:
    """A copy that a test may damage."""
    for name, data in contents(stb_set).items():
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / name).write_bytes(data)
    return tmp_path / "set"


# -- what is on disk --------------------------------------------------------------------------------------


def test_the_tree_is_stbs(stb_set):
    frames = {sequence: 1 for sequence in SEQUENCES} | {"B2Counting": 2}
    expected = {f"images/{s}/{v}_{n}.png" for s, count in frames.items() for n in range(count) for v in VIEWS}
    expected |= {f"labels/{s}_{rig}.mat" for s in SEQUENCES for rig in ("BB", "SK")}
    assert {path.replace(os.sep, "/") for path in contents(stb_set)} == expected | {"synthhand.json"}
    for path in (stb_set / "images").rglob("*.png"):
        with Image.open(path) as image:
            assert (image.size, image.mode) == ((640, 480), "RGB")
    for sequence, count in frames.items():
        for rig in ("BB", "SK"):
            assert load_labels(stb_set / "labels" / f"{sequence}_{rig}.mat").shape == (count, 21, 3)


def test_the_manifest_says_what_was_made(stb_set):
    manifest = json.loads((stb_set / "synthhand.json").read_text())
    look = {"seed": SEED, "viewpoint": "sphere", "backgrounds_sha256": None}
    assert manifest == {"generator": GENERATOR, "form": "stb", "edition": EDITION, **COUNTS, **look}


def test_hands_stand_in_the_window_and_the_background_behind_it(stb_set):
    for sequence in SEQUENCES:
        joints = load_labels(stb_set / "labels" / f"{sequence}_SK.mat")
        assert joints[..., 2].min() > 400 and joints[..., 2].max() < 650
        red, green, blue = np.asarray(Image.open(stb_set / "images" / sequence / "SK_depth_0.png")).T.astype(
            int
        )
        depth = (red + 256 * green).T
        assert not blue.any()
        u, v = np.rint(
            [475.62768, 474.77709] * joints[0, :, :2] / joints[0, :, 2:] + [336.41179, 238.77962]
        ).T
        gap = joints[0, :, 2] - depth[v.astype(int), u.astype(int)]  # skin lies before its joint
        assert 0 < np.median(gap) < 40
        aside = depth[0, [0, -1]] > 650
        assert aside.any()  # the arm leaves through one corner at most
        assert 0.02 < (depth < 650).mean() < 0.5


def test_both_rigs_label_one_hand(stb_set):
    """The labels of the two rigs differ by one rigid motion, the same for all frames."""
    sk, bb = (
        np.concatenate([load_labels(stb_set / "labels" / f"{s}_{rig}.mat") for s in SEQUENCES]).reshape(-1, 3)
        for rig in ("SK", "BB")
    )
    turn, rest = Rotation.align_vectors(bb - bb.mean(0), sk - sk.mean(0))
    assert rest < 1e-6 * len(sk)
    assert 5 < np.degrees(turn.magnitude()) < 30


# -- what the cameras see ---------------------------------------------------------------------------------


def octahedra(joints_mm: np.ndarray, radius_mm: float = 4.0) -> Body:
    """A body of 21 small octahedra in place of a hand."""
    corners = radius_mm * np.concatenate([np.eye(3), -np.eye(3)])
    faces = []
    for x in (0, 3):
        for y in (1, 4):
            for z in (2, 5):
                a, b, c = corners[[x, y, z]]
                faces.append([x, y, z] if np.cross(b - a, c - a) @ (a + b + c) > 0 else [x, z, y])
    vertices = (joints_mm[:, None] + corners).reshape(-1, 3).astype(np.float32)
    faces = (np.array(faces) + 6 * np.arange(21)[:, None, None]).reshape(-1, 3)
    return Body(
        vertices_mm=vertices,
        faces=faces.astype(np.int32),
        joints_mm=joints_mm,
        rest_mm=np.zeros_like(vertices),
        parts=np.zeros(len(vertices), np.uint8),
        palmar=np.zeros(len(vertices), np.float32),
    )


def drawn_pixels(joints_mm: np.ndarray, K: np.ndarray) -> np.ndarray:
    """Middles (21, 2) of what the renderer draws where joints stand in a camera's frame."""
    factors, _ = sample_frame(SEED, "B1Counting", 0)
    wall = Wall(np.full((640, 640, 3), 0.5, np.float32), 1500.0, (0.0, 0.0))
    mask = draw(factors, octahedra(joints_mm), K, wall, np.eye(3)).mask[CUT] > 0
    assert mask.shape == SIZE
    blobs, count = ndimage.label(mask, np.ones((3, 3)))
    assert count == 21
    return np.array(ndimage.center_of_mass(mask, blobs, range(1, 22)))[:, ::-1]


def test_labels_fall_on_the_joints_that_are_drawn(fresh):
    """Through the reader, of both rigs, with labels that this test works out itself."""
    joints = open_hand_mm() * [-1, 1, 1] @ Rotation.from_euler("xyz", [0.3, -0.4, 0.5]).as_matrix().T
    in_colour = joints + np.array([-20, 60, 520])
    in_left = joints + np.array([100, 20, 640])
    write_labels(fresh / "labels/B1Counting_SK.mat", wrist_to_palm(in_colour @ R.T + T)[None])
    write_labels(fresh / "labels/B1Counting_BB.mat", wrist_to_palm(in_left)[None])
    sk, bb = STBSplit(fresh, "test", rig="sk"), STBSplit(fresh, "test", rig="bb")
    views = [
        (sk.record(0), in_colour, K_COLOUR),
        (bb.record(0), in_left, K_BB),
        (bb.record(1), in_left - [120.054, 0, 0], K_BB),
    ]
    for record, standing, K in views:
        drawn = drawn_pixels(standing, K)
        distance = np.linalg.norm(record.uv_px[:, None] - drawn[None], axis=-1)
        assert sorted(distance.argmin(axis=1)) == list(range(21))
        assert distance.min(axis=1).max() < 0.5
        np.testing.assert_array_equal(record.K, K)


def test_measured_points_lie_on_the_surface_and_on_the_hand_in_the_colour_picture(stb_set):
    for split in ("train", "test"):
        reader = STBSplit(stb_set, split)
        for index in range(0, len(reader), 3):
            record, frame = reader.record(index), frame_of(reader.ids[index], "sk")
            factors, body = sample_frame(SEED, frame.sequence, frame.number)
            scene = o3d.t.geometry.RaycastingScene(nthreads=1)
            scene.add_triangles(body.vertices_mm, body.faces.astype(np.uint32))
            assert len(record.points_mm) > 2000
            distance = scene.compute_distance(o3d.core.Tensor(record.points_mm), nthreads=1).numpy()
            assert distance.max() < 1.0  # depth is stored in whole millimetres
            wall = Wall(np.full((640, 640, 3), 0.5, np.float32), 1500.0, (0.0, 0.0))
            mask = draw(factors, body, K_COLOUR, wall, np.eye(3)).mask[CUT] > 0
            uv = (
                record.points_mm[:, :2] / record.points_mm[:, 2:] * K_COLOUR[[0, 1], [0, 1]] + K_COLOUR[:2, 2]
            )
            u, v = np.rint(uv).astype(int).T
            assert ndimage.binary_dilation(mask, np.ones((3, 3)))[v, u].all()


def test_the_pictures_show_the_hand_where_the_labels_say(stb_set):
    """The skin's colour, known from the drawn mask, is found around the joints in every stored picture."""
    for rig in ("sk", "bb"):
        reader = STBSplit(stb_set, "test", rig=rig)
        for index in range(len(reader)):
            record = reader.record(index)
            assert record.visible.all() and record.side == "left"
            u, v = np.rint(record.uv_px).astype(int).T
            behind = np.median(record.image[:40].reshape(-1, 3), axis=0)
            skin = record.image[v, u].astype(float)
            spread = np.linalg.norm(skin - np.median(skin, axis=0), axis=1)
            assert np.median(spread) < np.linalg.norm(np.median(skin, axis=0) - behind)


def test_left_hands_are_shown(stb_set):
    """Fingers bend towards the palm, and of a left palm, fingers up, the index finger is on the left."""
    for sequence in SEQUENCES:
        for rig in ("SK", "BB"):
            joints = load_labels(stb_set / "labels" / f"{sequence}_{rig}.mat")[0]
            palmar = np.cross(joints[17] - joints[5], joints[9] - joints[0])  # x right, y down, z away
            assert palmar @ (joints[[8, 12, 16, 20]] - joints[[5, 9, 13, 17]]).mean(axis=0) > 0


def test_a_sequence_shows_one_person_in_one_place():
    one, other, pair, far = (
        sample_frame(SEED, s, n)[0]
        for s, n in (("B2Counting", 0), ("B2Counting", 1), ("B2Random", 0), ("B3Random", 0))
    )
    np.testing.assert_array_equal(one.shape.coefficients, other.shape.coefficients)
    np.testing.assert_array_equal(one.pose.bone_scale, other.pose.bone_scale)
    assert one.appearance.melanin == other.appearance.melanin != pair.appearance.melanin
    assert one.scene.wall_seed == other.scene.wall_seed == pair.scene.wall_seed != far.scene.wall_seed
    assert np.abs(one.pose.articulation - other.pose.articulation).max() > 0.05
    assert one.scene.noise_seed != other.scene.noise_seed


def test_bb_looks_at_what_stands_before_sk():
    assert np.degrees(np.arccos(COLOUR_TO_LEFT[2, 2])) == pytest.approx(13.46, abs=0.01)
    for number in range(12):
        _, body = sample_frame(SEED, SEQUENCES[number], 3, "frontal")
        assert body.joints_mm[:, 2].min() > 400 and body.joints_mm[:, 2].max() < 652


# -- prepared ---------------------------------------------------------------------------------------------


def test_prepared_from_end_to_end(stb_set, tmp_path):
    for rig, views in (("sk", 1), ("bb", 2)):
        out = prepare(
            "stb", stb_set, tmp_path / rig, DataConfig(image_px=32), options={"rig": rig}, progress=False
        )
        for name, frames in (("train", 10), ("val", 1), ("test", 2)):
            split = PreparedSplit.open(out, name)
            assert len(split) == frames * views and split.mirrored.all() and split.visible.all()
            assert (split.has_cloud == (rig == "sk")).all()
            if rig == "sk":  # skin all around the joints: some of the cloud is near most of them
                cloud = split.clouds[:, :2000] * split.scale_mm[:, None, None]
                joints = split.joints * split.scale_mm[:, None, None]
                nearest = np.linalg.norm(joints[:, :, None] - cloud[:, None], axis=-1).min(axis=2)
                assert (np.median(nearest, axis=1) < 20).all()


# -- written alike ----------------------------------------------------------------------------------------


def test_two_workers_render_what_is_missing_to_the_same_bytes(fresh, stb_set):
    for path in (fresh / "images").rglob("BB_right_*.png"):
        if path.parent.name.endswith("Random"):
            path.unlink()
    cut = fresh / "images/B2Counting/SK_depth_1.png"
    cut.write_bytes(cut.read_bytes()[:-7])
    (fresh / "labels/B3Counting_SK.mat").unlink()
    untouched = fresh / "images/B4Counting/SK_color_0.png"
    before = untouched.stat().st_mtime_ns
    write(fresh, workers=2)
    assert contents(fresh) == contents(stb_set)
    assert untouched.stat().st_mtime_ns == before


def test_a_finished_set_is_left_alone_and_another_is_refused(fresh):
    before = {p: p.stat().st_mtime_ns for p in fresh.rglob("*") if p.is_file()}
    write(fresh)
    for change in ({"seed": 5}, {"train": 12}, {"viewpoint": "frontal"}, {"flesh": "wide"}):
        name, value = next(iter(change.items()))
        with pytest.raises(ValueError, match=rf"{name} is .* there, {value} asked for"):
            write(fresh, **change)
    assert {p: p.stat().st_mtime_ns for p in fresh.rglob("*") if p.is_file()} == before


def test_foreign_folders_and_impossible_requests_are_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(ValueError, match=r"not empty and has no synthhand\.json"):
        write(tmp_path)
    for change, message in (
        ({"train": 10}, "train is 10, expected 11 to 15000"),
        ({"test": 1}, "test is 1, expected 2 to 3000"),
        ({"seed": -1}, "seed is -1"),
        ({"workers": 0}, "workers is 0"),
        ({"viewpoint": "above"}, "unknown viewpoint 'above'"),
        ({"flesh": "fat"}, "unknown flesh 'fat'"),
    ):
        with pytest.raises(ValueError, match=message):
            write(tmp_path / "set", **change)
    assert not (tmp_path / "set").exists()


def test_own_backgrounds_are_behind_the_hands(tmp_path):
    (tmp_path / "own").mkdir()
    Image.new("RGB", (40, 40), (10, 200, 10)).save(tmp_path / "own" / "green.png")
    factors, body = sample_frame(SEED, "B1Random", 0)
    factors = dataclasses.replace(factors, scene=dataclasses.replace(factors.scene, white_balance=np.ones(3)))
    for name, picture in draw_views(factors, body, SEED, "B1Random", tmp_path / "own").items():
        if name != "SK_depth":
            corners = picture[[5, 5, -5, -5], [5, -5, 5, -5]].astype(int)
            assert np.median(corners[:, 1] - corners[:, 0]) > 20
