"""From photo to hand: a packed release of tiny networks, all kinds of photos, and the command line."""

import csv
import dataclasses
import json
import os
import shutil
import struct
import subprocess
import sys
import traceback
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file
from scipy.spatial.transform import Rotation
from test_photo import damaged, encoded, picture
from torch.distributions import Normal, kl_divergence
from torch.testing import assert_close

from davae.config import BLOCKS, PRESETS, CameraConfig, preset
from davae.data.augment import centre, load_batch
from davae.data.prepared import PreparedSplit
from davae.data.views import ZOOM, rotate_back, rotate_views
from davae.networks.camera import CameraHead, Placement, project_to_crop, trunk_shape
from davae.networks.encoder import Trunk
from davae.networks.folding import fold_batchnorm
from davae.networks.handmask import composite_over_grey
from davae.photo import observer as observer_module
from davae.photo import predict as predict_module
from davae.photo import predict_files as predict_files_module
from davae.photo.finding import Box, cut
from davae.photo.hand import Hand, reference_bone_mm
from davae.photo.observer import (
    COARSE,
    QUICK,
    USUAL,
    Guess,
    Observer,
    Signs,
    Views,
    estimate_confidence,
    judge,
)
from davae.photo.overlay import draw_overlay
from davae.photo.packed import PARTS, read_packed
from davae.photo.predict import WEIGHTS, HandPredictor, open_networks, refine_box
from davae.photo.predict_files import ENDINGS, name_results, predict_files, write_hand
from davae.photo.reading import PhotoError, read_photo
from davae.photo.release import (
    UNFINISHED,
    Estimator,
    build,
    pack,
    run_in_torch,
    unpack,
    write_packed,
    write_runs,
)
from davae.photo.table import COLUMNS
from davae.photo.table import NAME as TABLE
from davae.photo.workers import AHEAD
from davae.pipeline.commands import training as commands
from davae.training import runs
from davae.training.camera_task import bone_in_sides, placement_loss, train_camera
from davae.training.davae_task import train
from davae.training.mask_task import train_mask
from davae.training.runs import load_camera
from synthhand.model.procedural import procedural_rig
from synthhand.pinhole import apply_homography, project
from synthhand.skeleton import JOINT_NAMES
from synthhand.storage import exclusive


@pytest.fixture(scope="module")
def predictor(release):
    return HandPredictor.load(release)


def photo(width: int = 160, height: int = 120, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


# The camera head


def test_the_bones_length_is_the_one_that_the_camera_sees(prepared):
    """Of points one bone from the root across the line of sight, projected by the crop's own camera."""
    split = PreparedSplit.open(prepared, "train")
    rows = np.arange(8)
    sides = bone_in_sides(split, rows)
    for row in rows:
        root = split.root_mm[row].astype(float)
        across = root + np.array([split.scale_mm[row], 0, 0])
        apart = project(across, split.camera[row]) - project(root, split.camera[row])
        assert sides[row].item() * split.manifest["image_px"] == pytest.approx(apart[0], rel=1e-5)


def test_true_placement_puts_joints_where_they_are(prepared):
    split = PreparedSplit.open(prepared, "train")
    rows, px = np.arange(8), split.manifest["image_px"]
    joints = torch.from_numpy(np.asarray(split.joints[rows]))
    found = project_to_crop(
        joints, Placement(torch.zeros(8, 2), bone_in_sides(split, rows), torch.zeros(8)), px
    )
    margin = (split.images.shape[1] - px) / 2
    expected = split.project(split.joints[rows].astype(float), rows) - margin
    assert np.abs(found[:, 9].numpy() - expected[:, 9]).max() < 1.0  # the root, in the crop's middle
    error = np.linalg.norm(found.numpy() - expected, axis=2)
    assert np.median(error) < 0.02 * px  # a camera far away is not quite one near by


@pytest.mark.parametrize("name", PRESETS)
def test_the_trunks_features_are_as_counted(name):
    config = preset(name).model
    with torch.device("meta"):
        features = Trunk(config).eval()(torch.empty(1, 3, config.image_px, config.image_px))
    assert trunk_shape(config) == features.shape[1:]


def test_the_head_learns_where_a_blot_lies(prepared, tiny_config):
    """Features that say it plainly: the head reads place, size and side off them."""
    torch.manual_seed(0)
    config = CameraConfig(tiny_config.data, tiny_config.model)
    head = CameraHead(config)
    channels, side, _ = trunk_shape(config.model)
    axis = (torch.arange(side) + 0.5) / side - 0.5
    optimiser = torch.optim.Adam(head.parameters(), 3e-3)
    for step in range(151):
        root, bone = 0.2 * torch.rand(64, 2) - 0.1, 0.1 + 0.2 * torch.rand(64)
        du, dv = axis[None, None] - root[:, :1, None], axis[None, :, None] - root[:, 1:, None]
        blot = torch.exp(-(du**2 + dv**2) / (2 * bone[:, None, None] ** 2))
        features = blot[:, None].repeat(1, channels, 1, 1)
        features[:, 0], others = 1.0, features.clone()  # one channel says which hand it is
        others[:, 0] = -1.0
        right, left = head(features), head(others)
        loss = placement_loss(right, left, root, bone)
        if step == 0:
            first = loss.total.item()
        optimiser.zero_grad()
        loss.total.backward()
        optimiser.step()
    assert loss.total.item() < 0.2 * first
    assert (right.right - left.right).min() > 0


@pytest.mark.parametrize("option", ["steps=0", "steps=-3", "seed=-1"])
def test_a_schedule_of_a_camera_head_that_cannot_be_is_refused(trained, tmp_path, option):
    name, value = option.split("=")
    with pytest.raises(ValueError, match=rf"--{name} = {value}: expected a whole number of at least"):
        commands.train_camera(trained / "run", trained / "data", tmp_path / "head", **{name: int(value)})
    assert not (tmp_path / "head").exists()


def test_a_side_that_is_called_wrongly_costs():
    root, bone = torch.zeros(4, 2), torch.ones(4)
    sure, not_sure = (Placement(root, bone, torch.full((4,), odds)) for odds in (5.0, -5.0))
    right = placement_loss(sure, not_sure, root, bone)
    wrong = placement_loss(not_sure, sure, root, bone)
    assert right.terms["side"].item() == pytest.approx(np.log1p(np.exp(-10.0)), rel=1e-4)
    assert wrong.terms["side"].item() == pytest.approx(np.log1p(np.exp(10.0)), rel=1e-5)
    assert right.terms["root"] == right.terms["bone"] == 0 and wrong.total > right.total


def test_a_camera_head_needs_jittered_crops_and_leaves_the_model_be(trained, prepared, tiny_config, tmp_path):
    train(tiny_config, prepared, tmp_path / "plain", progress=False)
    with pytest.raises(ValueError, match=r"data.shift is 0.*--set data.shift=0.1"):
        train_camera(tmp_path / "plain", prepared, tmp_path / "camera", progress=False)
    with pytest.raises(ValueError, match=r"--photometric\) is 2.*from 0 \(none\) to 1"):
        train_camera(trained / "run", trained / "data", tmp_path / "camera", photometric=2, progress=False)
    before = runs.weights_digest(trained / "run")
    head, config = load_camera(trained / "camera")
    assert runs.weights_digest(trained / "run") == before
    assert runs.identity_of(trained / "camera").init == before
    assert config.data.shift == 0.1 and config.data.blur == 0 and not head.training
    schedule = dataclasses.replace(config.train, steps=1)
    half = train_camera(
        trained / "run", trained / "data", tmp_path / "half", schedule, photometric=0.5, progress=False
    )
    assert load_camera(half)[1].data == dataclasses.replace(config.data, photometric=0.5)
    log = (trained / "camera" / "metrics.csv").read_text().splitlines()
    assert log[0] == "step,seconds,learning_rate,val_total,total,root,bone,side" and log[-1].startswith("4,")


# The release


def test_a_camera_head_of_other_data_is_not_packed(trained, tmp_path):
    camera = shutil.copytree(trained / "camera", tmp_path / "camera")
    identity = json.loads((camera / "identity.json").read_text())
    (camera / "identity.json").write_text(json.dumps(identity | {"data": "0" * 64}))
    with pytest.raises(ValueError, match="learnt from other data or masks than"):
        pack(trained / "run", trained / "mask", camera, trained / "mask", tmp_path / "hand.safetensors")


def test_a_release_holds_the_networks_at_half_precision(trained, release):
    opened = unpack(release)
    model, config = runs.load_model(trained / "run")
    assert opened.configs["model"] == config
    for name, value in model.state_dict().items():
        found = opened.model.state_dict()[name]
        exact = value.ndim <= 1 or not value.is_floating_point()
        assert_close(found, value, rtol=0 if exact else 1e-3, atol=0 if exact else 1e-6)
    assert not any(p.requires_grad for p in opened.camera.parameters())
    # The mask network is in it twice, the second time as the finder.
    parts = ("run", "mask", "camera", "mask")
    assert release.stat().st_size < 0.55 * sum(
        (trained / part / "model.safetensors").stat().st_size for part in parts
    )


def _change_identity(run, **values):
    path = run / "identity.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_unpacking_is_all_or_nothing(release, tmp_path, monkeypatch):
    out, save = tmp_path / "runs", runs.save_model
    saved = []

    def stop_at_the_third(run, network):
        saved.append(run)
        if len(saved) == 3:
            raise KeyboardInterrupt
        save(run, network)

    with monkeypatch.context() as patch:
        patch.setattr(runs, "save_model", stop_at_the_third)
        with pytest.raises(KeyboardInterrupt):
            write_runs(release, out)
    assert len(saved) == 3 and not list(out.iterdir())
    left = out / UNFINISHED / "model"  # as a kill leaves it
    left.mkdir(parents=True)
    (left / "resume.pt").write_text("of a training")
    monkeypatch.chdir(out)  # "." has no name
    assert write_runs(release, ".") == [Path(part) for part in ("model", "mask", "camera", "finder")]
    names = {"config.json", "environment.txt", "identity.json", "model.safetensors"}
    assert {path.name: set(os.listdir(path)) for path in out.iterdir()} == dict.fromkeys(PARTS, names)
    with exclusive(tmp_path / "other"), pytest.raises(BlockingIOError, match="another process is writing"):
        write_runs(release, tmp_path / "other")


def test_a_release_becomes_runs_that_trainings_begin_with_and_that_are_packed_again(
    trained, release, tmp_path, prepared
):
    out = tmp_path / "runs"
    model, mask, camera, finder = write_runs(release, out)
    assert [path.name for path in (model, mask, camera, finder)] == ["model", "mask", "camera", "finder"]
    again = tmp_path / "again.safetensors"
    pack(model, mask, camera, finder, again, graphs=False)
    first, second = read_packed(release), read_packed(again)
    assert first.configs == second.configs and first.tensors.keys() == second.tensors.keys()
    for name, value in first.tensors.items():
        np.testing.assert_array_equal(second.tensors[name], value, err_msg=name)
    shutil.rmtree(camera)  # as a kill between two of them leaves it; a second call ends with the same
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert write_runs(release, out) == [model, mask, camera, finder] == write_runs(release, out)
    assert before.items() <= {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}.items()
    (out / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"runs: holds notes.txt; name a new folder"):
        write_runs(release, out)
    (out / "notes.txt").unlink()
    identity = (mask / "identity.json").read_text()
    (mask / "identity.json").write_text("{}")
    with pytest.raises(FileExistsError, match=r"identity.json: is not of the runs of .*; name a new folder"):
        write_runs(release, out)
    (mask / "identity.json").write_text(identity)
    assert {path.name for path in out.iterdir()} == set(PARTS)
    with pytest.raises(ValueError, match="was not trained on masks of"):
        pack(model, trained / "mask", camera, finder, tmp_path / "x.safetensors")

    # A decoder may learn on other data, and the camera head still reads the trunk that it was trained on.
    _, config = runs.load_model(model)
    drawing = dataclasses.replace(
        config, train=dataclasses.replace(config.train, only="image_decoder", steps=2)
    )
    run = train(drawing, trained / "data", tmp_path / "drawing", init=model, progress=False)
    _change_identity(run, data="f" * 64, mask_network=runs.weights_digest(mask))
    pack(run, mask, camera, finder, tmp_path / "drawing.safetensors", graphs=False)
    drawn = read_packed(tmp_path / "drawing.safetensors")
    changed = {
        name for name, value in drawn.tensors.items() if not np.array_equal(value, first.tensors[name])
    }
    assert changed and all(name.startswith("model.image_decoder.") for name in changed)
    whole = train(
        dataclasses.replace(drawing, train=dataclasses.replace(drawing.train, only="")),
        trained / "data", tmp_path / "whole", init=model, progress=False,
    )  # fmt: skip
    _change_identity(whole, mask_network=runs.weights_digest(mask))
    with pytest.raises(ValueError, match="is a camera head of another model"):
        pack(whole, mask, camera, finder, tmp_path / "x.safetensors")

    _, config = runs.load_mask_network(finder)
    still = dataclasses.replace(config.train, learning_rate=1e-12, average_decay=0.0, steps=2)
    tuned = train_mask(
        dataclasses.replace(config, train=still), prepared, tmp_path / "tuned", init=finder, progress=False
    )
    (before, _), (after, _) = runs.load_mask_network(finder), runs.load_mask_network(tuned)
    for name, value in before.named_parameters():
        assert_close(after.get_parameter(name), value, atol=1e-6, rtol=0)
    wider = dataclasses.replace(config, width=2 * config.width)
    with pytest.raises(ValueError, match=r"finder: is a run of another network: config\.width: the run has"):
        train_mask(wider, prepared, tmp_path / "wider", init=finder, progress=False)


def test_runs_that_do_not_belong_together_are_not_packed(trained, tiny_config, prepared, tmp_path):
    train(tiny_config, prepared, tmp_path / "other", progress=False)
    out = tmp_path / "x.safetensors"
    with pytest.raises(ValueError, match="was trained with mask 'none'"):
        pack(tmp_path / "other", trained / "mask", trained / "camera", trained / "mask", out)
    mask = shutil.copytree(trained / "mask", tmp_path / "mask")
    weights = load_file(mask / "model.safetensors")
    save_file({name: value + 1 for name, value in weights.items()}, mask / "model.safetensors")
    with pytest.raises(ValueError, match="was not trained on masks of"):
        pack(trained / "run", mask, trained / "camera", trained / "mask", out)
    (trained / "camera" / "identity.json").rename(tmp_path / "kept.json")
    try:
        values = json.loads((tmp_path / "kept.json").read_text()) | {"init": "0" * 16}
        (trained / "camera" / "identity.json").write_text(json.dumps(values))
        with pytest.raises(ValueError, match="is a camera head of another model"):
            pack(trained / "run", trained / "mask", trained / "camera", trained / "mask", out)
    finally:
        (tmp_path / "kept.json").replace(trained / "camera" / "identity.json")
    unknown = shutil.copytree(trained / "run", tmp_path / "unknown")
    (unknown / "identity.json").unlink()
    with pytest.raises(ValueError, match=r"unknown: has no identity\.json, which says what"):
        pack(unknown, trained / "mask", trained / "camera", trained / "mask", out)
    assert not out.exists()


def test_files_that_are_no_release_are_refused(trained, release, tmp_path):
    with pytest.raises(FileNotFoundError, match="davae pack"):
        unpack(tmp_path / "none.safetensors")
    cut_off = tmp_path / "cut.safetensors"
    cut_off.write_bytes(release.read_bytes()[:5000])
    with pytest.raises(ValueError, match="damaged, or no safetensors file"):
        unpack(cut_off)
    cut_off.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(ValueError, match=r"cut\.safetensors: is a Git LFS pointer; `git lfs pull`"):
        unpack(cut_off)
    with pytest.raises(ValueError, match=r"lacks \['about'"):
        unpack(trained / "run" / "model.safetensors")


# The networks in ONNX Runtime, and in torch


@pytest.fixture(scope="module")
def shipped():
    return read_packed(WEIGHTS)


def test_graphs_compute_what_torch_does(shipped):
    """Of the shipped weights, on 5 crops and on one: outputs that decide nothing more than rounding does."""
    graphs, expected = open_networks(shipped), run_in_torch(build(shipped))
    generator = np.random.default_rng(0)
    assert (graphs.px, graphs.mask.px, graphs.finder.px) == (
        expected.px, expected.mask.px, expected.finder.px,
    )  # fmt: skip
    for count in (5, 1):
        for one, other in ((graphs.mask, expected.mask), (graphs.finder, expected.finder)):
            images = generator.random((count, 3, one.px, one.px), np.float32)
            np.testing.assert_allclose(one.segment(images, 4), other.segment(images, 4), atol=1e-4)
        images = generator.random((count, 3, graphs.px, graphs.px), np.float32)
        found, wanted = graphs.estimate(images), expected.estimate(images)
        for name in ("joints", "root", "bone", "right"):
            np.testing.assert_allclose(getattr(found, name), getattr(wanted, name), atol=1e-4, err_msg=name)
        for block in BLOCKS:
            np.testing.assert_allclose(found.means[block], wanted.means[block], atol=1e-4)
            np.testing.assert_allclose(found.logvars[block], wanted.logvars[block], atol=1e-4)


def test_a_file_without_graphs_is_read_by_torch_and_said_to_be(shipped, tmp_path, caplog):
    bare = dataclasses.replace(shipped, path=tmp_path / "bare.safetensors", graphs={}, norms={}, inputs={})
    write_packed(bare)
    caplog.clear()
    slow, quick = HandPredictor.load(bare.path), HandPredictor.load()
    assert [record.message.split(": ")[0] for record in caplog.records] == [str(bare.path)]
    assert slow.workers == 1 and "davae[export]" in caplog.text
    for seed in range(2):
        given = {"box": Box((80.0, 60.0), 50.0), "side": "right"}
        one, other = (predictor.predict(photo(seed=seed), **given) for predictor in (slow, quick))
        assert np.linalg.norm(one.joints_mm - other.joints_mm, axis=1).max() < 0.1
        np.testing.assert_allclose(one.mask, other.mask, atol=1e-3)


@pytest.mark.parametrize("damage", ["no graph", "half a graph", "another weight"])
def test_a_graph_that_does_not_go_with_its_weights_is_told(shipped, damage):
    name = "model.encoder.trunk.conv1.weight"
    changed = {
        "no graph": {"graphs": shipped.graphs | {"mask": b""}},
        "half a graph": {"graphs": shipped.graphs | {"mask": shipped.graphs["mask"][:5000]}},
        "another weight": {"tensors": {**shipped.tensors, name: shipped.tensors[name][:, :2]}},
    }[damage]
    with pytest.raises(ValueError, match=r"hand\.safetensors: its graph of \w+ does not go with its weights"):
        open_networks(dataclasses.replace(shipped, **changed))


def test_folded_weights_are_those_of_the_folded_networks(shipped):
    folded = fold_batchnorm(Estimator(*(getattr(build(shipped), part) for part in ("model", "camera"))))
    state = folded.state_dict()
    for name, value in shipped.fold(shipped.inputs["estimate"]).items():
        np.testing.assert_allclose(value, state[name], rtol=1e-5, atol=1e-7, err_msg=name)


@pytest.mark.slow
def test_a_packed_release_holds_graphs_of_its_networks(trained, release, tmp_path):
    """Which give the same hand; the file's weights are those of the file without graphs."""
    out = tmp_path / "hand.safetensors"
    pack(*(trained / part for part in ("run", "mask", "camera", "mask")), out)
    with_graphs, without = read_packed(out), read_packed(release)
    assert set(with_graphs.graphs) == {"estimate", "mask", "finder"} and not without.graphs
    assert out.stat().st_size < release.stat().st_size + 500_000
    for name, tensor in without.tensors.items():
        np.testing.assert_array_equal(with_graphs.tensors[name], tensor)
    given = {"box": Box((80.0, 60.0), 50.0), "side": "left"}
    one, other = (HandPredictor.load(file).predict(photo(), **given) for file in (out, release))
    np.testing.assert_allclose(one.joints, other.joints, atol=1e-4)


def test_without_the_tracing_packages_a_release_holds_no_graphs(trained, tmp_path, monkeypatch):
    monkeypatch.setattr("davae.photo.release.can_trace", lambda: False)
    pack(*(trained / part for part in ("run", "mask", "camera", "mask")), tmp_path / "x.safetensors")
    assert not read_packed(tmp_path / "x.safetensors").graphs


# Predictions


def check(hand: Hand):
    for values in (hand.joints, hand.joints_mm, hand.joints_px, hand.mask, *hand.means.values()):
        assert np.isfinite(values).all()
    assert hand.joints.shape == hand.joints_mm.shape == (21, 3) and hand.joints_px.shape == (21, 2)
    assert [len(hand.means[block]) for block in BLOCKS] == [24, 16, 8]
    assert all((hand.spreads[block] > 0).all() for block in BLOCKS)
    assert hand.side in ("left", "right") and hand.mask.min() >= 0 and hand.mask.max() <= 1


def test_one_photo_gives_a_whole_hand(predictor):
    hand = predictor.predict(photo(), name="thumbs up")
    check(hand)
    assert hand.name == "thumbs up" and hand.bone_mm == pytest.approx(reference_bone_mm())
    np.testing.assert_allclose(hand.joints_mm, hand.joints * hand.bone_mm)
    vertices, faces = hand.mesh_mm()
    rig = procedural_rig()
    assert vertices.shape == rig.vertices_mm.shape and faces.shape == rig.faces.shape
    assert json.loads(json.dumps(hand.as_dict()))["side"] == hand.side


def test_what_is_computed_is_what_the_networks_say(predictor, release):
    """By hand for a given box and side, from the unfused networks: crop, mask, code, joints, pixels."""
    from davae.networks.handmask import composite_over_grey
    from davae.training.mask_inference import predict_probability

    pixels, box = photo(), Box((80.0, 60.0), 50.0)
    hand = predictor.predict(pixels, box=box, side="right", bone_mm=40.0)
    opened = unpack(release)
    crop = torch.from_numpy(cut(pixels, [box], 64))
    mask = predict_probability(opened.mask, crop)
    with torch.inference_mode():
        image = composite_over_grey(crop, mask)
        output = opened.model(image)
        seen = torch.from_numpy(rotate_views(image.numpy(), USUAL.joints))
        joints = torch.from_numpy(rotate_back([opened.model(view).pose for view in seen]).mean(0))
        placed = [opened.camera(opened.model.encoder.trunk(view)) for view in seen]
    placement = Placement(
        torch.from_numpy(rotate_back([one.root for one in placed]).mean(0)) / ZOOM,
        sum(one.bone for one in placed) / USUAL.joints / ZOOM,
        placed[0].right,
    )
    np.testing.assert_allclose(hand.mask, mask[0, 0], atol=1e-4)
    joints = joints - joints[:, 9:10]
    np.testing.assert_allclose(hand.joints, joints[0], atol=1e-4)
    np.testing.assert_allclose(hand.joints_mm, 40 * joints[0], atol=1e-2)
    np.testing.assert_allclose(hand.means["shape"], output.means["shape"][0], atol=1e-4)
    on_photo = apply_homography(
        np.linalg.inv(box.to_crop(64)), project_to_crop(joints, placement, 64)[0].double().numpy()
    )
    np.testing.assert_allclose(hand.joints_px, on_photo, atol=1e-2)


def test_a_turned_photo_gives_the_turned_hand(predictor):
    """Exactly, however little the networks know: a crop is looked at from all its sides."""
    pixels, box = photo(121, 121), Box((60.0, 60.0), 50.0)
    upright = predictor.predict(pixels, box=box, side="right")
    turned = predictor.predict(np.rot90(pixels).copy(), box=box, side="right")
    back = Rotation.from_euler("z", 90, degrees=True).as_matrix()
    np.testing.assert_allclose(turned.joints @ back.T, upright.joints, atol=1e-4)
    np.testing.assert_allclose((turned.joints_px - 60) @ back[:2, :2].T + 60, upright.joints_px, atol=1e-2)
    np.testing.assert_allclose(np.rot90(turned.mask, -1), upright.mask, atol=1e-3)


def test_a_box_that_was_found_is_drawn_anew_around_the_joints(predictor, monkeypatch):
    found = Box((70.0, 60.0), 40.0, 0.7)
    monkeypatch.setattr("davae.photo.predict.find_hands", lambda *given: [found])
    be_sure(monkeypatch, 0.7)
    monkeypatch.setattr("davae.photo.predict.USUAL", COARSE)
    first = predictor.predict(photo(), box=found, side="right")
    hand = predictor.predict(photo(), side="right")
    assert first.box == found and hand.box.confidence == 0.7
    np.testing.assert_allclose(hand.box.centre, refine_box(first).centre, atol=1e-3)
    near = dataclasses.replace(first, joints_px=first.joints_px * 0 + [75.0, 58.0])
    for reach, half in ((40.0, 52.0), (20.0, 40.0)):  # it grows with the hand, and does not shrink
        near.joints_px[20] = [75.0, 58.0 + reach]
        assert refine_box(near) == Box((75.0, 58.0), half, 0.7)
    for far in (near.joints_px + 40, [75.0, 58.0] + 3 * (near.joints_px - [75.0, 58.0])):
        assert refine_box(dataclasses.replace(near, joints_px=far)) == found


def be_sure(monkeypatch, sure: float):
    """Let every square be a hand with this probability."""
    monkeypatch.setattr(observer_module, "estimate_confidence", lambda signs, *_: np.full(len(signs), sure))


def test_signs_are_those_of_the_networks(predictor):
    """How certain the mask is, how much views disagree, and what they tell of the pose: by hand."""
    observer, crops = predictor.observer, cut(photo(), [Box((80.0, 60.0), 50.0)], 64)
    signs = observer.measure_signs(crops, 2)
    mask = observer.segment(crops, 1)
    assert signs.certainty.item() == pytest.approx(
        mask[mask > 0.5].mean().item() if (mask > 0.5).any() else 0
    )
    edges = mask[0, 0] > 0.5
    assert signs.cut_off.item() == (edges.sum() - edges[1:-1, 1:-1].sum()) / (4 * 63)
    upright = composite_over_grey(torch.from_numpy(crops), torch.from_numpy(mask)).numpy()
    for row, image in enumerate((upright, upright[..., ::-1].copy())):
        with torch.inference_mode():
            seen = [predictor.model(view) for view in torch.from_numpy(rotate_views(image, 2))]
        joints = rotate_back([one.pose for one in seen])
        # Of two, each is half of their distance from the middle.
        assert signs.disagreement[row, 0] == pytest.approx(
            np.linalg.norm(joints[0] - joints[1], axis=2).mean() / 2, rel=1e-3
        )
        codes = [Normal(one.means["pose"], (0.5 * one.logvars["pose"]).exp()) for one in seen]
        nats = [kl_divergence(code, Normal(0.0, 1.0)).sum() for code in codes]
        assert signs.information[row, 0] == pytest.approx(np.mean(nats), rel=1e-3)


def test_each_sign_of_a_right_hand_makes_it_likelier():
    """Which is how a left one is told, too: by the same of its mirror image."""
    alike = Signs(*(np.ones((2, 1)) for _ in range(3)), np.array([0.9]), np.zeros(1))
    assert judge(alike, [None]).probability == 0.5
    for name, better in (("right", 2.0), ("disagreement", 0.5), ("information", 2.0)):
        for row, side in enumerate(("right", "left")):
            values = np.ones((2, 1))
            values[row] = better
            guess = judge(alike._replace(**{name: values}), [None])
            assert guess.sides == [side] and guess.probability > 0.5


def test_a_side_has_a_probability_and_the_other_side_the_rest(predictor, monkeypatch):
    """Which a mirror image exchanges; a side that was told has none."""
    monkeypatch.setattr(Observer, "segment", lambda self, crops, views=1: np.ones_like(crops[:, :1]))
    crops = np.concatenate([cut(photo(seed=seed), [Box((80.0, 60.0), 50.0)], 64) for seed in range(6)])
    guess = predictor.observer.guess(crops, [None] * 6)
    assert (guess.probability >= 0.5).all() and (guess.probability <= 1).all()
    as_right, as_left = (predictor.observer.guess(crops, [side] * 6) for side in ("right", "left"))
    np.testing.assert_allclose(as_right.probability + as_left.probability, 1)
    told = [p >= 0.5 for p in as_right.probability]
    assert [side == "right" for side in guess.sides] == told
    mirrored = predictor.observer.guess(crops[..., ::-1].copy(), ["right"] * 6)
    np.testing.assert_allclose(mirrored.probability, as_left.probability, atol=1e-5)
    hand = predictor.predict(photo())
    assert 0.5 <= hand.side_probability <= 1 and hand.as_dict()["side_probability"] == hand.side_probability
    assert f"{hand.side} hand (probability {hand.side_probability:.2f})" == hand.describe_side()
    given = predictor.predict(photo(), side="left")
    assert given.side_probability is None and given.as_dict()["side_probability"] is None
    assert given.describe_side() == "left hand"


def test_a_quick_reading_is_the_mean_of_the_views_that_tell_the_side(predictor, monkeypatch):
    """Of each side: what a reading of as many views says, with fewer images run through the network."""
    monkeypatch.setattr(Observer, "segment", lambda self, crops, views=1: np.ones_like(crops[:, :1]))
    crops = np.concatenate([cut(photo(seed=seed), [Box((80.0, 60.0), 50.0)], 64) for seed in range(3)])
    crops = np.concatenate([crops, crops[..., ::-1]])  # so that there are hands of both sides
    shown, estimate = [], predictor.observer.networks.estimate
    networks = predictor.observer.networks._replace(
        estimate=lambda images: shown.append(len(images)) or estimate(images)
    )
    observer = Observer(networks)
    guess, readings = observer.guess_and_read(crops, QUICK)
    assert set(guess.sides) == {"left", "right"} and sum(shown) == 6 * (2 * 4 + 1)
    for own, other in zip(readings, observer.read(crops, guess.sides, Views(4, 1, 4)), strict=True):
        assert own.side == other.side
        np.testing.assert_allclose(own.joints, other.joints, atol=1e-4)
        np.testing.assert_allclose(own.joints_px, other.joints_px, atol=1e-2)
        np.testing.assert_allclose(own.means["pose"], other.means["pose"], atol=1e-4)
        assert own.bone == pytest.approx(other.bone, abs=1e-5) and own.mask.shape == other.mask.shape
    shown.clear()
    observer.guess_and_read(crops, USUAL)
    assert sum(shown) == 6 * (2 * 4 + 9)


def test_quick_closes_in_from_fewer_squares_and_is_near_the_usual(predictor, monkeypatch):
    kept, find = [], predict_module.find_hands
    monkeypatch.setattr(predict_module, "find_hands", lambda *given: kept.append(given[4]) or find(*given))
    usual, quick = (predictor.predict(photo(), quick=quick) for quick in (False, True))
    check(quick)
    assert kept == [2, 1]
    box = {"box": Box((80.0, 60.0), 50.0), "side": "left"}
    usual, quick = (predictor.predict(photo(), quick=quick, **box) for quick in (False, True))
    apart = np.linalg.norm(usual.joints - quick.joints, axis=1).mean()
    assert 0 < apart < 0.5 * np.linalg.norm(usual.joints, axis=1).mean()


@given(st.floats(0, 3), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_more_agreement_and_a_surer_mask_inside_the_crop_give_more_confidence(apart, sure, less, cut_off):
    def estimate(*signs):
        return estimate_confidence(*map(np.array, signs)).item()

    told = estimate(apart, sure, cut_off)
    assert 0 <= estimate(apart + 0.1, sure, cut_off) <= told <= 1
    assert estimate(apart, less * sure, cut_off) <= told <= estimate(apart, sure, 0)


def offer(monkeypatch, boxes: list[Box], confidence: list[float], sides: list[str]):
    """Let these squares be found, as likely a hand as this."""
    guess = Guess(sides, np.full(len(boxes), 0.9), np.array(confidence))
    monkeypatch.setattr("davae.photo.predict.find_hands", lambda *given: boxes)
    monkeypatch.setattr(Observer, "guess", lambda self, crops, known, views=0: guess)


def test_of_the_squares_the_likeliest_is_read(predictor, monkeypatch):
    offered = [Box((50.0, 60.0), 30.0), Box((110.0, 60.0), 30.0)]
    offer(monkeypatch, offered, [0.6, 0.8], ["right", "left"])
    (request,) = predictor.request([photo()])
    ((box, side),) = predictor._locate(request, photo(), 1)
    assert (box.centre, side) == ((110.0, 60.0), "left")
    assert box.confidence == 0.8
    offer(monkeypatch, offered, [0.8, 0.6], ["right", "left"])
    assert predictor._locate(request, photo(), 1)[0][0].centre == (50.0, 60.0)


def test_of_several_hands_those_are_returned_that_are_likely_and_apart(predictor, monkeypatch):
    places = [((40.0, 60.0), 30.0), ((45.0, 62.0), 28.0), ((120.0, 60.0), 30.0), ((40.0, 110.0), 9.0)]
    offer(monkeypatch, [Box(*place) for place in places], [0.9, 0.8, 0.7, 0.4], ["right", "left"] * 2)
    monkeypatch.setattr("davae.photo.predict.refine_box", lambda hand: hand.box)
    hands = predictor.predict_hands(photo(), 4, name="two", side="right")
    assert [hand.box.centre for hand in hands] == [(40.0, 60.0), (120.0, 60.0)]
    assert [hand.box.confidence for hand in hands] == [0.9, 0.7]
    for hand in hands:
        check(hand)
        assert hand.name == "two" and hand.side == "right"
    (alone,) = predictor.predict_hands(photo(), 1, side="right")
    one = predictor.predict(photo(), side="right")
    assert alone.box == one.box == hands[0].box
    np.testing.assert_array_equal(alone.joints, one.joints)
    monkeypatch.setattr("davae.photo.predict.refine_box", lambda hand: Box((60.0, 60.0), 50.0, 0.9))
    assert len(predictor.predict_hands(photo(), 4, side="right")) == 1, "both moved to one place"
    with pytest.raises(ValueError, match=r"hands: 0; expected 1 or more"):
        predictor.predict_hands(photo(), 0)
    with pytest.raises(PhotoError, match=r"^none: "):
        predictor.predict_hands(b"none", 2, name="none")


def test_each_of_several_hands_has_its_files_and_a_row_of_the_overlay(release, tmp_path, monkeypatch):
    offer(monkeypatch, [Box((40.0, 60.0), 30.0), Box((120.0, 60.0), 40.0)], [0.9, 0.8], ["right", "left"])
    monkeypatch.setattr("davae.photo.predict.refine_box", lambda hand: hand.box)
    Image.fromarray(photo()).save(tmp_path / "x.png")
    out, options = tmp_path / "out", {"progress": False, "weights": release, "side": "right"}
    (line,) = predict_files([tmp_path / "x.png"], out, hands=3, **options).lines
    assert line.count("right hand, confidence") == 2
    own, second = {f"x{ending}" for ending in ENDINGS}, {f"x-hand2{ending}" for ending in ENDINGS[:-1]}
    assert {path.name for path in out.iterdir()} == own | second
    reports = [json.loads((out / name).read_text()) for name in ("x.json", "x-hand2.json")]
    assert [report["box"]["half_px"] for report in reports] == [30.0, 40.0]
    assert reports[0].keys() == reports[1].keys() and reports[0]["photo"] == reports[1]["photo"]
    with Image.open(out / "x-overlay.png") as overlay:
        assert overlay.size == (1042, 2 * 280)
    (out / "x.json").unlink()
    with pytest.raises(ValueError, match=r"x.ply: is no result of davae"):
        predict_files([tmp_path / "x.png"], out, hands=3, **options)
    for path in out.glob("x[.-][pgmo]*"):
        path.unlink()
    with pytest.raises(ValueError, match=r"x-hand2.json: is no result of davae"):
        predict_files([tmp_path / "x.png"], out, hands=2, **options)
    predict_files([tmp_path / "x.png"], out, hands=1, **options)
    for hands, box in ((0, ""), (2, "1,1,9,9")):
        with pytest.raises(ValueError, match=rf"--hands {hands}: expected 1 or more, and 1 with --box"):
            predict_files([tmp_path / "x.png"], out, box, hands=hands, **options)


def test_a_left_hand_is_the_mirror_image_of_a_right_one(predictor, monkeypatch):
    pixels = photo(161, 120)
    box = Box((60.0, 50.0), 45.0)
    mirrored = Box((160 - 60.0, 50.0), 45.0)
    right = predictor.predict(pixels, box=box, side="right")
    left = predictor.predict(np.ascontiguousarray(pixels[:, ::-1]), box=mirrored, side="left")
    mirror = np.array([-1.0, 1, 1])
    np.testing.assert_allclose(left.joints, right.joints * mirror, atol=1e-4)
    np.testing.assert_allclose(left.joints_px[:, 0], 160 - right.joints_px[:, 0], atol=1e-2)
    np.testing.assert_allclose(left.joints_px[:, 1], right.joints_px[:, 1], atol=1e-2)
    np.testing.assert_allclose(left.mask, right.mask[:, ::-1], atol=1e-3)
    (v_left, f_left), (v_right, f_right) = left.mesh_mm(), right.mesh_mm()
    np.testing.assert_allclose(v_left, v_right * mirror, atol=0.05)
    np.testing.assert_array_equal(f_left, f_right[:, ::-1])
    monkeypatch.setattr(Observer, "segment", lambda self, crops, views=1: np.ones_like(crops[:, :1]))
    guessed = [  # from crops that mirror each other exactly; the mask's network is not quite as symmetric
        predictor.predict(pixels, box=box),
        predictor.predict(pixels[:, ::-1].copy(), box=mirrored),
    ]
    assert {hand.side for hand in guessed} == {"left", "right"}


def test_intrinsics_place_the_joints_where_the_camera_saw_them(predictor):
    camera = (200.0, 200.0, 80.0, 60.0)
    hand = predictor.predict(photo(), box=Box((100.0, 50.0), 40.0), intrinsics=camera)
    K = np.array([[200.0, 0, 80], [0, 200, 60], [0, 0, 1]])
    assert (hand.joints_mm[9, 2] > 0).all()
    np.testing.assert_allclose(project(hand.joints_mm[9], K), hand.joints_px[9], atol=1e-6)
    across = hand.joints_mm[9] + np.array([hand.bone_mm, 0, 0])
    seen = np.linalg.norm(project(across, K) - hand.joints_px[9])
    assert seen == pytest.approx(np.linalg.norm(hand.joints_px - hand.joints_px[9], axis=1).max()
                                 / np.linalg.norm(hand.joints[:, :2], axis=1).max(), rel=0.02)  # fmt: skip
    assert hand.as_dict()["joints_mm_from"] == "camera"
    assert predictor.predict(photo(), box=hand.box).as_dict()["joints_mm_from"] == "middle MCP"


def test_a_photo_that_cannot_be_used_costs_no_other_its_result(predictor):
    photos = [photo(), b"no photo", photo(20, 30), np.zeros((3, 3, 3), np.uint8), photo(seed=1)]
    found = predictor.predict_all(photos)
    assert [isinstance(one, PhotoError) for one in found] == [False, True, False, True, False]
    assert str(found[1]).startswith("photo 2: is not a picture")
    alone = predictor.predict(photo(seed=1))
    np.testing.assert_allclose(found[4].joints, alone.joints, atol=1e-4)
    many = predictor.predict_all([b"no photo"] * 40)  # more than go at once
    assert [str(one).split(":")[0] for one in many] == [f"photo {number}" for number in range(1, 41)]
    with pytest.raises(PhotoError, match="is not a picture"):
        predictor.predict(b"no photo")


@pytest.mark.parametrize("stage", ["read_photo", "cut", "apply_homography", "find_hands"])
def test_whatever_goes_wrong_with_one_photo_is_its_own_result(predictor, monkeypatch, stage):
    """While it is read, and while the networks look at several; with a cause, and with what it was."""
    bad, photos = photo(64, 48, seed=9), [photo(), photo(64, 48, seed=9), photo(seed=1)]
    real = getattr(predict_module, stage)

    def fails(*given, **options):
        shown = given[2:] if stage == "find_hands" else given[:1]
        smaller = (
            stage == "apply_homography" and abs(given[0][0, 0] - 2 * 24 / 64) < 1e-9
        )  # the bad one's box
        if smaller or any(np.array_equal(one, bad) for one in shown):
            raise ZeroDivisionError("of a kind nobody expects")
        return real(*given, **options)

    monkeypatch.setattr(predict_module, stage, fails)
    boxes = [None] * 3 if stage == "find_hands" else [Box((30.0, 25.0), side) for side in (40.0, 24.0, 40.0)]
    first, second, third = predictor.predict_all(photos, boxes=boxes, side="right")
    assert isinstance(second, PhotoError) and isinstance(second.__cause__, ZeroDivisionError)
    assert str(second).startswith(
        "photo 2: davae failed on it (ZeroDivisionError: of a kind nobody expects); "
    )
    check(first)
    check(third)


@pytest.mark.parametrize("stage", ["read_photo", "cut", "apply_homography"])
def test_an_error_that_is_kept_keeps_no_pixels_and_says_where_it_arose(predictor, monkeypatch, stage):
    """Frames of a traceback hold what their functions worked on, here a decoded photo."""
    decoded: list[weakref.ref] = []

    def decode(content, name):
        pixels = photo(seed=len(decoded))
        decoded.append(weakref.ref(pixels))
        if stage == "read_photo":
            raise ZeroDivisionError(name)
        return pixels

    def fails(*_):
        raise ZeroDivisionError("of a kind nobody expects")

    monkeypatch.setattr(predict_module, stage, fails)
    monkeypatch.setattr(predict_module, "read_photo", decode)
    errors = predictor.predict_all([b"one", b"two"], boxes=[Box((80.0, 60.0), 50.0)] * 2)
    assert len(decoded) == 2 and all(isinstance(error, PhotoError) for error in errors)
    assert not any(pixels() is not None for pixels in decoded)
    for error in errors:
        lines = "".join(traceback.format_exception(error))
        assert "ZeroDivisionError" in lines and {"read_photo": "decode"}.get(stage, "fails") in lines


def test_joints_lie_on_the_photo_also_where_it_was_reduced(predictor, monkeypatch):
    """A photo of twice the size, read at half of it, has the joints of the small one at twice their place."""
    small = np.asarray(Image.fromarray(photo(40, 30)).resize((160, 120), Image.Resampling.BICUBIC))
    large = small.repeat(2, axis=0).repeat(2, axis=1)
    box, twice = Box((80.0, 60.0), 50.0), Box((160.5, 120.5), 100.0)
    cameras = (200.0, 200.0, 79.5, 59.5), (400.0, 400.0, 159.5, 119.5)
    plain = predictor.predict(small, box=box, side="right", intrinsics=cameras[0])
    found = predictor.predict(small)
    monkeypatch.setattr("davae.photo.reading.WHOLE_PIXELS", 160 * 120)
    ((hand, pixels),) = predictor.each([encoded(Image.fromarray(large))], boxes=[twice], side="right",
                                       intrinsics=cameras[1])  # fmt: skip
    assert pixels.shape == (120, 160, 3) and hand.photo_px == (320, 240) and hand.box == twice
    np.testing.assert_allclose(hand.joints_px, 2 * plain.joints_px + 0.5, atol=0.02)
    np.testing.assert_allclose(hand.joints_mm, plain.joints_mm, rtol=1e-3, atol=0.1)
    np.testing.assert_allclose(hand.scale_to(pixels).joints_px, plain.joints_px, atol=0.01)
    np.testing.assert_array_equal(draw_overlay(pixels, hand), draw_overlay(small, hand.scale_to(pixels)))
    searched = predictor.predict(encoded(Image.fromarray(large)))
    assert searched.box.half == pytest.approx(2 * found.box.half)
    np.testing.assert_allclose(searched.joints_px, 2 * found.joints_px + 0.5, atol=0.05)
    beside = predictor.predict_all([encoded(Image.fromarray(large))], boxes=[Box((400.0, 60.0), 50.0)])
    assert "is 320 x 240 pixels, and the box" in str(beside[0])


@pytest.mark.parametrize("workers", [1, 2])
def test_no_more_photos_are_held_than_must_be(predictor, monkeypatch, workers):
    """Results are the same with any number of threads, which read ahead only so far."""
    photos = [photo(seed=seed) for seed in range(9)]
    boxes = [Box((60.0, 60.0), 50.0)] * 9
    alone = [predictor.predict(one, box=box) for one, box in zip(photos, boxes, strict=True)]
    monkeypatch.setattr(predictor, "workers", workers)
    read = []
    monkeypatch.setattr(
        "davae.photo.predict.read_photo", lambda p, name: read.append(name) or read_photo(p, name)
    )
    ahead = 0 if workers == 1 else AHEAD * workers
    for number, (hand, pixels) in enumerate(predictor.each(photos, boxes=boxes)):
        assert number < len(read) <= number + max(ahead, 1)
        assert pixels is photos[number] or np.array_equal(pixels, photos[number])
        np.testing.assert_array_equal(hand.joints, alone[number].joints)


def test_two_hundred_damaged_photos_give_hands_or_named_errors(predictor):
    found = predictor.predict_all([*damaged(200, seed=1), photo()], boxes=[Box((20.0, 15.0), 15.0)] * 201)
    for one in found:
        if isinstance(one, PhotoError):
            assert str(one).startswith("photo ")
        else:
            check(one)
    assert not isinstance(found[-1], PhotoError)
    assert 10 < sum(isinstance(one, PhotoError) for one in found) < 190


@pytest.mark.parametrize(("options", "told"), [
    ({"bone_mm": 0.047}, "bone_mm is 0.047: expected the middle MCP-PIP bone, 10 to 100 mm"),
    ({"intrinsics": (0.0, 1, 2, 3)}, "expected fx, fy, cx, cy in pixels"),
    ({"boxes": [Box((np.nan, 0.0), 3.0)]}, "expected finite pixels"),
    ({"boxes": []}, "0 boxes for 1 photos; give one each"),
    ({"boxes": [(10, 20, 100, 100)]}, r"expected a davae.photo.finding.Box, such as Box.of_rectangle"),
    ({"side": "Right"}, 'side is \'Right\': expected "left", "right" or'),
    ({"intrinsics": (200.0, 80.0, 60.0)}, "expected four numbers, fx, fy, cx, cy"),
    ({"intrinsics": np.eye(3)}, "expected four numbers, fx, fy, cx, cy"),
])  # fmt: skip
def test_options_that_make_no_sense_are_told(predictor, options, told):
    with pytest.raises(ValueError, match=told):
        predictor.predict_all([photo()], **options)


def test_a_mask_network_sees_the_crops_that_it_was_trained_on(predictor, trained):
    """A box that cuts out exactly a prepared sample's crop gives that sample's masks and joints."""
    split = PreparedSplit.open(trained / "data", "test").seen_through("network")
    model, config = runs.load_model(trained / "run")
    stored, px = split.images.shape[1], config.data.image_px
    batch = centre(load_batch(split, np.array([2])), config.data)
    with torch.inference_mode():
        views = torch.from_numpy(rotate_views(batch.image.numpy(), USUAL.joints))
        expected = rotate_back([model(view).pose for view in views]).mean(0)[0]
    expected = expected - expected[9]
    box = Box(((stored - 1) / 2, (stored - 1) / 2), px / 2)
    hand = predictor.predict(np.ascontiguousarray(split.images[2]), box=box, side="right")
    np.testing.assert_allclose(hand.joints, expected, atol=0.02)  # stored masks are of 8 bits


# Files


def test_files_of_a_hand(predictor, tmp_path):
    pixels = photo()
    hand = predictor.predict(pixels, name="a photo")
    values, mesh, skinned_mesh, mask, overlay = write_hand(hand, pixels, tmp_path / "out", "a")
    assert json.loads(values.read_text())["photo"] == "a photo"
    header, body = mesh.read_bytes().split(b"end_header\n", 1)
    vertices, faces = hand.mesh_mm()
    assert f"element vertex {len(vertices)}".encode() in header
    np.testing.assert_array_equal(np.frombuffer(body, "<f4", vertices.size).reshape(-1, 3), vertices)
    rest = np.frombuffer(body[4 * vertices.size :], np.dtype([("n", "u1"), ("f", "<i4", 3)]))
    np.testing.assert_array_equal(rest["f"], faces)
    assert skinned_mesh.read_bytes() == hand.encode_files()["glb"]
    with Image.open(mask) as kept:
        np.testing.assert_allclose(np.asarray(kept) / 255, hand.mask, atol=0.5 / 255 + 1e-6)
    with Image.open(overlay) as drawn:
        np.testing.assert_array_equal(np.asarray(drawn), draw_overlay(pixels, hand))
    assert name_results(["a/x.png", "b/x.jpg", "y"]) == ["x", "x-2", "y"]
    assert name_results(["x.png", "X.jpg", "x-2.png", "x-2.jpg"]) == ["x", "X-2", "x-2-2", "x-2-3"]


@pytest.mark.parametrize(("width", "height"), [(160, 120), (40, 900), (2000, 1500)])
def test_an_overlay_shows_box_joints_and_mesh_of_any_photo(predictor, width, height):
    pixels = np.full((height, width, 3), 128, np.uint8)
    centre = (width / 2, height / 2)
    hand = predictor.predict(pixels, box=Box(centre, min(width, height) / 4), side="left")
    half = hand.box.half
    joints = np.array(centre) + np.linspace(-half, half, 21)[:, None] * [1, 0]
    hand = dataclasses.replace(hand, joints_px=joints, mask=np.ones_like(hand.mask))
    drawn = draw_overlay(pixels, hand).astype(int)
    assert drawn.shape == (280, 1042, 3)
    whole, close, front, aside = (drawn[24:, left : left + 256] for left in (0, 262, 524, 786))
    red = (whole[..., 0] > 150) & (whole[..., 1] < 110)
    columns = np.flatnonzero(red.any(0))  # the box, as large as on the photo
    assert np.ptp(columns) == pytest.approx(2 * half * 256 / max(width, height), abs=4)
    spread = close.max(2) - close.min(2)
    assert (spread[128] > 60).sum() > 100 and (spread[5] > 60).sum() == 0  # bones run across the middle
    inside, beyond = close[100, 128], close[5, 128]  # the mask tints the crop, not the margin
    assert inside[0] > inside[1] + 10 and beyond[0] == beyond[1]
    for view in (front, aside):
        assert (view < 200).any() and view.std() > 10


def test_a_result_that_cannot_be_written_ends_it_soon(release, tmp_path, monkeypatch):
    """Not after hours of looking; what was written stays, whole."""
    files = [tmp_path / f"{number}.png" for number in range(9)]
    for path in files:
        path.write_bytes(encoded(picture()))
    looked_at = []

    def write(hand, photo, out, stem):
        looked_at.append(stem)
        if stem != "0":
            raise OSError(28, "No space left on device", str(out / stem))
        return write_hand(hand, photo, out, stem)

    monkeypatch.setattr("davae.photo.predict_files.write_hand", write)
    with pytest.raises(OSError, match="No space left on device"):
        predict_files(files, tmp_path / "out", progress=False, weights=release)
    assert len(looked_at) < 9
    written = {f"0{ending}" for ending in ENDINGS} | {TABLE}
    assert {path.name for path in (tmp_path / "out").iterdir()} == written
    assert {row["photo"] for row in read_table(tmp_path / "out" / TABLE)} <= {str(files[0])}


def read_table(path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        assert tuple(rows.fieldnames) == COLUMNS
        return list(rows)


def test_pictures_of_a_folder_are_known_before_any_was_read(tmp_path):
    """Pillow loads most plug-ins late; in a process that has read pictures they are there by chance."""
    for name in ("a.jpg", "b.PNG", "c.tiff", "notes.txt", "d.webp"):
        (tmp_path / name).write_bytes(b"not looked into")
    code = (
        "import sys; from pathlib import Path; from davae.photo.predict_files import list_photos; "
        "print(*[photo.name for photo in list_photos([Path(sys.argv[1])])])"
    )
    fresh = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert fresh.stdout.split() == ["a.jpg", "b.PNG", "c.tiff", "d.webp"]


def test_a_folder_of_photos_gives_one_table_of_all_joints(release, tmp_path, monkeypatch):
    """Which says what the JSON files say; a broken photo, a text and our own drawings are no matter."""
    offer(monkeypatch, [Box((40.0, 60.0), 30.0), Box((120.0, 60.0), 40.0)], [0.9, 0.8], ["right", "left"])
    monkeypatch.setattr("davae.photo.predict.refine_box", lambda hand: hand.box)
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("b.png", 'a, "odd".png', "C.JPG", ".hidden.png"):
        Image.fromarray(photo()).save(folder / name)
    for name in ("notes.txt", "labels.h5", "clip.mpg"):
        (folder / name).write_text("about them")
    (folder / "broken.jpeg").write_bytes(b"Dear hand")
    (folder / "more.png").mkdir()
    (folder / "gone.jpg").symlink_to("elsewhere.jpg")
    options = {"progress": False, "weights": release, "hands": 2}
    for _ in range(2):  # results of the first time are not read as photos the second time
        found = predict_files([folder], folder, **options)
        assert len(found.lines) == 5 and found.failed == 2
        (gone,) = [line for line in found.lines if "gone.jpg" in line]
        assert "no such file" in gone
        assert found.table == folder / "joints.csv"
    rows = read_table(found.table)
    assert [(row["photo"], row["hand"]) for row in rows[::21]] == [
        (str(folder / name), hand) for name in ("C.JPG", 'a, "odd".png', "b.png") for hand in "12"
    ]
    assert [row["joint_name"] for row in rows[:21]] == list(JOINT_NAMES)
    for row in rows:
        ending = "" if row["hand"] == "1" else "-hand2"
        told = json.loads((folder / f"{Path(row['photo']).stem}{ending}.json").read_text())
        joint = int(row["joint"])
        places = [float(row[name]) for name in ("u_px", "v_px", "x_mm", "y_mm", "z_mm")]
        np.testing.assert_allclose(places, told["joints_px"][joint] + told["joints_mm"][joint], atol=6e-4)
        assert (row["side"], row["mm_from"]) == (told["side"], "middle MCP")
        for name in ("side_probability", "confidence"):
            assert float(row[name]) == pytest.approx(told[name], abs=6e-4)
    single = predict_files([folder / "b.png"], tmp_path / "one", progress=False, weights=release)
    assert single.table is None and not (tmp_path / "one" / TABLE).exists()
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty: holds no pictures"):
        predict_files([tmp_path / "empty"], tmp_path / "out", weights=release)


def test_a_table_that_is_not_ours_is_not_written_over(release, tmp_path):
    (tmp_path / "x.png").write_bytes(encoded(picture()))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / TABLE).write_text("joint,angle\n")
    options = {"box": "10,10,90,90", "progress": False, "weights": release}
    with pytest.raises(ValueError, match=r"joints.csv: is no table of davae"):
        predict_files([tmp_path], tmp_path / "out", **options)
    assert (tmp_path / "out" / TABLE).read_text() == "joint,angle\n"
    (tmp_path / "out" / TABLE).unlink()
    for _ in range(2):
        found = predict_files([tmp_path], tmp_path / "out", quick=True, intrinsics="200,200,20,15", **options)
    assert {(row["mm_from"], row["confidence"]) for row in read_table(found.table)} == {("camera", "")}


def test_a_run_that_stops_at_once_keeps_the_table_of_before(release, tmp_path, monkeypatch):
    folder, out = tmp_path / "photos", tmp_path / "out"
    folder.mkdir()
    (folder / "x.png").write_bytes(encoded(picture()))
    options = {"box": "10,10,90,90", "progress": False, "weights": release}
    before = predict_files([folder], out, **options).table.read_text()

    def stop(*_):
        raise OSError("no space left")

    monkeypatch.setattr(predict_files_module, "_write", stop)
    with pytest.raises(OSError, match="no space left"):
        predict_files([folder], out, **options)
    assert (out / TABLE).read_text() == before and before.count("\n") == 22


def test_results_need_a_folder_and_weights_a_file(release, tmp_path):
    (tmp_path / "x.png").write_bytes(encoded(picture()))
    with pytest.raises(ValueError, match=r"x.png: is a file; --out is the folder"):
        predict_files([tmp_path / "x.png"], tmp_path / "x.png", weights=release)
    with pytest.raises(FileNotFoundError, match="is a folder; name a file that"):
        predict_files([tmp_path / "x.png"], tmp_path / "out", weights=tmp_path)


def test_a_square_in_which_little_is_seen_is_called_so(release, tmp_path):
    (tmp_path / "x.png").write_bytes(encoded(picture()))
    for side, told in ((40, True), (90, False)):
        box = f"10,10,{side},{side}"
        (line,) = predict_files([tmp_path / "x.png"], tmp_path / "out", box, weights=release).lines
        assert ("a square of only 40 pixels" in line) == told


def test_what_is_no_result_is_not_written_over(release, tmp_path):
    """Neither a photo, nor labels that stand beside photos under the name of a result; results are."""
    photo_file, labels = tmp_path / "x.png", tmp_path / "x.json"
    photo_file.write_bytes(encoded(picture()))
    labels.write_text('{"shapes": []}')
    options = {"box": "10,10,90,90", "progress": False, "weights": release}
    with pytest.raises(ValueError, match=r"x.json: is no result of davae, .* name another --out"):
        predict_files([photo_file], tmp_path, **options)
    assert labels.read_text() == '{"shapes": []}'
    labels.unlink()
    for ending in ENDINGS[1:]:
        other = tmp_path / f"x{ending}"
        other.write_text("mine")
        with pytest.raises(ValueError, match=f"{other.name}: is no result of davae"):
            predict_files([photo_file], tmp_path, **options)
        assert other.read_text() == "mine"
        other.unlink()
    for _ in range(2):
        assert predict_files([photo_file], tmp_path, **options).failed == 0
    overlay = tmp_path / "x-overlay.png"
    before = overlay.read_bytes()
    with pytest.raises(ValueError, match=r"x-overlay.png: is one of the photos"):
        predict_files([photo_file, overlay], tmp_path, **options)
    assert overlay.read_bytes() == before


def test_what_was_found_is_told_before_what_ends_it(release, tmp_path, monkeypatch):
    files, told = [tmp_path / f"{n}.png" for n in range(3)], []
    for file in files:
        file.write_bytes(encoded(picture()))

    def fails(hand, photo, out, stem):
        if stem == "2":
            raise OSError("No space left on device")
        return write_hand(hand, photo, out, stem)

    monkeypatch.setattr("davae.photo.predict_files.write_hand", fails)
    with pytest.raises(OSError, match="No space left"):
        predict_files(files, tmp_path / "out", progress=False, weights=release, report=told.append)
    assert [line.split(":")[0] for line in told] == [str(file) for file in files[:2]]


def test_confidence_is_said_where_a_hand_was_looked_for(release, tmp_path, monkeypatch):
    (tmp_path / "x.png").write_bytes(encoded(picture()))
    (line,) = predict_files([tmp_path / "x.png"], tmp_path, box="10,10,90,90", weights=release).lines
    assert ", in the box given," in line and ", confidence " not in line
    assert json.loads((tmp_path / "x.json").read_text())["confidence"] is None
    for sure, doubt in ((0.1, True), (0.9, False)):
        be_sure(monkeypatch, sure)
        (line,) = predict_files([tmp_path / "x.png"], tmp_path, weights=release).lines
        assert f"confidence {sure:.2f}" in line and ("give --box" in line) == doubt


def test_ten_photos_of_which_three_are_odd_give_seven_results_and_three_sentences(
    release, tmp_path, monkeypatch
):
    """One that is none, one that cannot be drawn, one of which reading fails in a way that nobody foresaw."""
    files = [tmp_path / f"{number}.png" for number in range(10)]
    for number, path in enumerate(files):
        path.write_bytes(encoded(picture(64 + number, 60)))
    files[2].write_bytes(b"Dear hand")
    real_overlay, real_read = predict_files_module.draw_overlay, predict_module.read_photo

    def draw(photo, hand):
        if hand.name.endswith("5.png"):
            raise RuntimeError("no pen")
        return real_overlay(photo, hand)

    def read(photo, name):
        if name.endswith("8.png"):
            raise struct.error("required argument is not an integer")
        return real_read(photo, name)

    monkeypatch.setattr(predict_files_module, "draw_overlay", draw)
    monkeypatch.setattr(predict_module, "read_photo", read)
    told = []
    found = predict_files(
        files, tmp_path / "out", side="LEFT", weights=release, progress=False, report=told.append
    )
    assert found.failed == 3 and found.lines == told and len(told) == 10
    assert [line.startswith("failed: ") for line in told] == [number in (2, 5, 8) for number in range(10)]
    for number, what in ((2, "is not a picture (text)"), (5, "(RuntimeError: no pen); please report it"),
                         (8, "(error: required argument is not an integer); please")):  # fmt: skip
        assert told[number].startswith(f"failed: {files[number]}: ") and what in told[number]
    assert all("left hand" in line for n, line in enumerate(told) if n not in (2, 5, 8))
    made = {path.name for path in (tmp_path / "out").iterdir()}
    good = (0, 1, 3, 4, 6, 7, 9)
    assert made == {f"{number}{ending}" for number in good for ending in ENDINGS} | {TABLE}
    rows = read_table(found.table)
    assert [row["photo"] for row in rows[::21]] == [str(files[n]) for n in good] and len(rows) == 21 * 7
    assert {(row["hand"], row["side"], row["side_probability"]) for row in rows} == {("1", "left", "")}


def test_names_that_are_long_or_no_text_cost_nothing(release, tmp_path):
    files = [tmp_path / ("x" * 251 + ".png"), tmp_path / ("x" * 251 + ".jpg"), tmp_path / "y.png"]
    if sys.platform == "linux":  # elsewhere file systems refuse them
        files.append(tmp_path / os.fsdecode(b"\xff\xfe.png"))
    for path in files:
        path.write_bytes(encoded(picture()))
    found = predict_files(files, tmp_path / "out", "0,0,30,30", weights=release, progress=False)
    assert found.failed == 0 and len(list((tmp_path / "out").iterdir())) == len(files) * len(ENDINGS) + 1
    assert len(read_table(found.table)) == 21 * len(files)
    assert all(line.encode() for line in found.lines)
    (tmp_path / "taken" / "y.json").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"y\.json: is no result of davae"):
        predict_files([tmp_path / "y.png"], tmp_path / "taken", weights=release)


def test_a_box_beside_the_photo_is_told(predictor):
    beside, within = Box((5000.0, 60.0), 50.0), Box((60.0, 60.0), 50.0)
    one, other = predictor.predict_all([photo(), photo()], boxes=[beside, within])
    assert "the box from 4950, 10 to 5050, 110 lies outside it" in str(one)
    check(other)
    assert Box((-49.0, 60.0), 50.0).overlaps(160, 120) and not Box((-50.0, 60.0), 50.0).overlaps(160, 120)
    assert Box((208.9, 60.0), 50.0).overlaps(160, 120) and not Box((209.0, 60.0), 50.0).overlaps(160, 120)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("camera", [None, (200.0, 200.0, 80.0, 60.0)])
def test_the_posed_hands_bone_is_as_long_as_stated_whatever_was_decoded(predictor, side, camera):
    hand = predictor.predict(photo(), box=Box((80.0, 60.0), 50.0), side=side, bone_mm=47.4, intrinsics=camera)
    rng = np.random.default_rng(0)
    for stretch in (0.4, 1.0, 1.9):  # of the decoded reference bone
        joints = hand.joints_mm[9] + 40 * rng.normal(size=(21, 3))
        joints[10] = joints[9] + np.array([0, 28.44, 37.92]) * stretch
        odd = dataclasses.replace(hand, joints_mm=joints)
        posed = odd.posed_joints_mm
        assert np.linalg.norm(posed[10] - posed[9]) == pytest.approx(47.4, abs=1e-6)
        values = odd.as_dict()
        assert (
            values["assumed_bone_mm"] == 47.4
            and "exact in posed_joints_mm" in values["units"]["assumed_bone_mm"]
        )
        np.testing.assert_allclose(values["posed_joints_mm"], posed)
        np.testing.assert_allclose(values["joints_mm"], joints)
        assert (
            "y down" in values["units"]["joints_mm, posed_joints_mm, PLY"]
            and "metres" in values["units"]["GLB"]
        )
        skeleton = skeleton_of(odd.encode_files()["glb"])  # which is that of the posed hand, in metres, y up
        np.testing.assert_allclose(skeleton * [1000, -1000, -1000], posed, atol=1e-6)
        assert b"comment unit: millimetre; x right, y down" in odd.encode_files()["ply"][:200]


def skeleton_of(content: bytes) -> np.ndarray:
    """Where the joints (21, 3) of a GLB's skeleton are."""
    (length,) = struct.unpack_from("<I", content, 12)
    nodes = json.loads(content[20 : 20 + length])["nodes"]
    places = np.array([node.get("translation", (0, 0, 0)) for node in nodes[:21]])
    for number, node in enumerate(nodes[:21]):  # a parent comes before its children
        for child in node.get("children", ()):
            places[child] += places[number]
    return places


def test_a_small_hand_has_the_shape_of_a_large_one(predictor):
    """The assumed bone enlarges mesh and joints as a whole, with and without a camera."""
    box = Box((80.0, 60.0), 50.0)
    for camera in (None, (200.0, 200.0, 80.0, 60.0)):
        small, large = (
            predictor.predict(photo(), box=box, side="left", bone_mm=mm, intrinsics=camera) for mm in (20, 60)
        )
        np.testing.assert_allclose(3 * small.mesh_mm()[0], large.mesh_mm()[0], rtol=1e-3, atol=0.05)


def test_command_line(release, tmp_path):
    (tmp_path / "good.png").write_bytes(encoded(picture(120, 100)))
    (tmp_path / "also.png").write_bytes(encoded(picture()))
    (tmp_path / "bad.jpg").write_bytes(b"text")

    def davae(*words):
        command = [
            sys.executable,
            "-m",
            "davae",
            "predict",
            *words,
            "--weights",
            release,
            "--out",
            tmp_path / "out",
        ]
        return subprocess.run([*map(str, command)], capture_output=True, text=True)

    files = [tmp_path / name for name in ("good.png", "bad.jpg", "also.png")]
    answer = davae(*files, "--side", "left", "--bone-mm", "45")
    assert answer.returncode == 1 and "Traceback" not in answer.stderr
    assert f"failed: {tmp_path / 'bad.jpg'}: is not a picture (text)" in answer.stdout
    assert "left hand" in answer.stdout and "reference bone assumed to be 45.0 mm" in answer.stdout
    made = {path.name for path in (tmp_path / "out").iterdir()}
    assert made == {f"{stem}{end}" for stem in ("good", "also") for end in ENDINGS} | {TABLE}
    assert f"joints of all photos: {tmp_path / 'out' / TABLE}" in answer.stdout
    wrong = davae(files[0], "--box", "1,2,3")
    assert wrong.returncode == 1 and "--box '1,2,3': expected four numbers" in wrong.stderr
    assert "Traceback" not in wrong.stderr


def test_reading_is_the_same_from_file_and_from_memory(tmp_path):
    (tmp_path / "p.png").write_bytes(encoded(picture()))
    np.testing.assert_array_equal(read_photo(tmp_path / "p.png"), read_photo(encoded(picture())))


def test_names_of_results_are_such_as_the_file_system_takes():
    """Under an ASCII locale a name's bytes beyond ASCII come as surrogates, and must go back as they came."""
    code = (
        "import os; from pathlib import Path; from davae.photo.predict_files import name_results; "
        "assert os.fsencode(name_results([Path(os.fsdecode(b'Zo\\xc3\\xab.png'))])[0]).startswith(b'Zo')"
    )
    ascii_locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | ascii_locale)


def test_public_names_are_imported_when_they_are_used():
    """So that the app's server, which needs none of them, does without what they need."""
    code = (
        "import sys, davae.photo; assert 'onnxruntime' not in sys.modules and 'scipy' not in sys.modules\n"
        "from davae.photo import Box, Hand, HandPredictor, PhotoError\n"
        "assert HandPredictor.__module__ == 'davae.photo.predict' and 'scipy' in sys.modules\n"
        "assert not hasattr(davae.photo, 'Foot')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_photo_is_read_without_torch(tmp_path):
    """By the shipped weights, and written to all its files: importing torch takes longer than all of it."""
    (tmp_path / "x.png").write_bytes(encoded(picture()))
    code = (
        "import sys, pathlib\n"
        "sys.modules['torch'] = None  # importing it fails\n"
        "from davae.photo.predict_files import predict_files\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "assert predict_files([folder / 'x.png'], folder / 'out').failed == 0"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    assert len(list((tmp_path / "out").iterdir())) == len(ENDINGS)
