"""The paper's rivals: closed-form pieces against hand-computed values, gradients, learning, whole runs."""

import dataclasses
import importlib
import json
from concurrent.futures import Executor, Future
from pathlib import Path

import numpy as np
import pytest
import torch
from rhd_fixture import write_dataset
from scipy.spatial.transform import Rotation
from torch.testing import assert_close

from davae.config import RIVALS, Config, preset
from davae.config.reading import read_config
from davae.config.rivals import TITLES, as_davae, as_rival, name_of, read_experiment, title_of
from davae.config.settings import MODELS, apply_settings, experiment, set_variable
from davae.data.augment import augment, load_batch
from davae.data.prepared import PreparedSplit, prepare
from davae.evaluation import evaluate, format_table, load_predictions
from davae.pipeline.workspace import Workspace
from davae.rivals import TASKS, load_model, task_of, train
from davae.rivals.canonical import orthonormalise, to_canonical, view_loss
from davae.rivals.heatmaps import average_places, solve_distance
from davae.rivals.latent_align import multiply_experts
from davae.rivals.lifting import draw_scores, rotation_from
from davae.rivals.rival import Features, Gaussian
from davae.rivals.sight import cast_rays, lines_of_sight, places_in_batch, places_in_test_crops
from davae.studies.points import vary
from davae.studies.results.measured import read_run
from davae.studies.sweep import format_outcomes, sweep
from davae.studies.worker import name_folder
from davae.training import runs
from davae.training.task import Examples
from synthhand.skeleton import BONES, REFERENCE_BONE, ROOT, WRIST

METHODS = tuple(RIVALS)
DRAWN = np.random.default_rng(5).normal(size=(4, 21, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def bench():
    """`benchmarks/rivals.py`, imported as its own folder's files import one another."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
        yield importlib.import_module("rivals")


@pytest.fixture(scope="module")
def split(prepared):
    return PreparedSplit.open(prepared, "train")


def quick(config, name, **changes):
    train = dataclasses.replace(config.train, steps=4, batch_size=4, **changes)
    return set_variable(dataclasses.replace(config, train=train), "model", name)


class Inline(Executor):
    """Runs a call at once, in this process."""

    def submit(self, function, /, *args, **kwargs):
        future = Future()
        future.set_result(function(*args, **kwargs))
        return future


# Closed forms


def test_a_product_of_experts_is_the_one_computed_by_hand():
    """N(0, 1) N(1, 1/2) N(-2, 1/4): precision 1 + 2 + 4, mean (2 * 1 + 4 * -2) / 7."""
    first = Gaussian(torch.tensor([[1.0]] * 4), torch.tensor([[np.log(0.5)]] * 4))
    second = Gaussian(torch.tensor([[-2.0]] * 4), torch.tensor([[np.log(0.25)]] * 4))
    present = [torch.tensor([True, True, False, False]), torch.tensor([True, False, True, False])]
    mean, logvar = multiply_experts([first, second], present)
    assert_close(mean[:, 0], torch.tensor([-6 / 7, 2 / 3, -8 / 5, 0.0]), check_dtype=False)
    assert_close(logvar[:, 0].exp(), torch.tensor([1 / 7, 1 / 3, 1 / 5, 1.0]), check_dtype=False)


def test_a_product_of_experts_is_the_normalised_product_of_their_densities():
    x = np.linspace(-8, 8, 4001)
    means, variances = [0.7, -1.1, 2.0], [0.3, 1.7, 0.9]
    density = np.exp(-(x**2) / 2)
    for mean, variance in zip(means, variances, strict=True):
        density *= np.exp(-((x - mean) ** 2) / (2 * variance))
    density /= density.sum()
    experts = [
        Gaussian(torch.tensor([[mean]]), torch.tensor([[variance]]).log())
        for mean, variance in zip(means, variances, strict=True)
    ]
    mean, logvar = multiply_experts(experts, [torch.tensor([True])] * 3)
    assert float(mean) == pytest.approx((density * x).sum(), abs=1e-5)
    assert float(logvar.exp()) == pytest.approx((density * x**2).sum() - (density * x).sum() ** 2, abs=1e-5)


def test_the_mean_place_of_a_map_is_the_one_computed_by_hand():
    weights = torch.zeros(1, 2, 2, 4)
    weights[0, 0, 0, 0], weights[0, 0, 1, 3] = 0.25, 0.75  # cells at (-3/8, -1/4) and (3/8, 1/4)
    weights[0, 1, 1, 1] = 1.0
    expected = torch.tensor([[[0.5 * 3 / 8, 0.5 / 4], [-1 / 8, 1 / 4]]])
    assert_close(average_places(weights), expected)


@pytest.mark.parametrize(
    ("other", "depth", "distance"),
    [
        (0.1, 0.0, 10.0),  # across the view: Z 0.1 = 1
        (0.1, 0.6, 7.4),  # 0.1 (Z + 0.6) = 0.8
        (0.1, -0.6, 8.6),
        (0.1, 1.5, -1.5),  # longer than 1 by its depth alone: the nearest is no extent across
    ],
)
def test_the_distance_of_a_bone_is_the_one_computed_by_hand(other, depth, distance):
    rays = torch.zeros(1, 21, 3)
    rays[..., 2] = 1
    depths = torch.zeros(1, 21)
    rays[0, REFERENCE_BONE[1], 0], depths[0, REFERENCE_BONE[1]] = other, depth
    found = solve_distance(rays, depths, np.array([REFERENCE_BONE]), torch.tensor(1.0))
    assert float(found) == pytest.approx(distance, abs=1e-4)


def test_the_distance_of_two_bones_is_the_one_computed_by_hand():
    """(0.1 Z)^2 + (0.2 (Z + 1))^2 + 1 = 5, that is 0.05 Z^2 + 0.08 Z - 3.96 = 0."""
    rays, depths = torch.zeros(1, 21, 3), torch.zeros(1, 21)
    rays[..., 2] = 1
    rays[0, 1, 0], rays[0, 2, 1], depths[0, 2] = 0.1, 0.2, 1.0
    found = solve_distance(rays, depths, np.array([[0, 1], [0, 2]]), torch.tensor(5.0))
    assert float(found) == pytest.approx((-0.08 + (0.0064 + 0.792) ** 0.5) / 0.1, rel=1e-5)


def test_the_distance_of_any_hand_is_found_from_its_projection():
    joints = torch.from_numpy(DRAWN) - torch.from_numpy(DRAWN)[:, [ROOT]]
    n, m = REFERENCE_BONE
    joints = joints / (joints[:, n] - joints[:, m]).norm(dim=1)[:, None, None]
    distance = torch.tensor([5.0, 9.0, 14.0, 30.0])
    points = (joints + distance[:, None, None] * torch.tensor([0.05, -0.1, 1.0])).double()
    rays = points / points[..., 2:]
    for bones in (np.array([REFERENCE_BONE]), BONES):
        squares = (joints[:, bones[:, 0]] - joints[:, bones[:, 1]]).square().sum((1, 2)).double()
        found = solve_distance(rays, joints[..., 2].double(), bones, squares)
        assert_close(found, distance.double(), rtol=1e-4, atol=1e-4)


def test_a_bone_that_points_at_the_camera_leaves_the_distance_to_the_training_hands():
    config = apply_settings(as_rival(preset("smoke"), "heatmaps"), ["rival.bones=one"])
    network = TASKS["heatmaps"].network(config).eval()
    network.get_buffer("reach").copy_(torch.tensor([4.0, 20.0]))
    places, depths = torch.zeros(1, 21, 2), torch.zeros(1, 21)
    depths[0, REFERENCE_BONE[1]] = 1.0
    network.forward = lambda image: (places, depths)
    joints = network.predict(torch.zeros(1, 3, 64, 64), torch.eye(3)[None])
    assert torch.isfinite(joints).all() and joints[0, REFERENCE_BONE[1], 2] == 1


def test_score_maps_are_gaussians_around_places():
    maps = draw_scores(torch.tensor([[[1 / 8, -1 / 8]]]), side=4, spread=0.25)[0, 0]
    assert maps[1, 2] == 1 and maps.argmax() == 1 * 4 + 2
    assert_close(maps[1, 3], torch.tensor(np.exp(-1.0)), check_dtype=False)  # one cell, a spread, away
    assert_close(maps[2, 3], torch.tensor(np.exp(-2.0)), check_dtype=False)


def test_rotations_are_scipys():
    vectors = np.random.default_rng(1).normal(size=(5, 3))
    expected = Rotation.from_rotvec(vectors).as_matrix().swapaxes(1, 2)  # of row vectors
    assert_close(rotation_from(torch.from_numpy(vectors)), torch.from_numpy(expected.astype(np.float32)))


def test_a_canonical_pose_does_not_depend_on_the_viewpoint():
    joints = torch.from_numpy(DRAWN)
    joints = joints - joints[:, [ROOT]]
    canonical, view = to_canonical(joints)
    assert_close(canonical @ view, joints, atol=1e-5, rtol=0)
    assert_close(torch.linalg.det(view), torch.ones(4))
    assert_close(canonical[:, WRIST, [0, 2]], torch.zeros(4, 2), atol=1e-5, rtol=0)
    assert (canonical[:, WRIST, 1] < 0).all()
    across = canonical[:, 5] - canonical[:, 17]
    assert_close(across[:, 2], torch.zeros(4), atol=1e-5, rtol=0)
    assert (across[:, 0] > 0).all()
    turn = torch.from_numpy(Rotation.random(4, rng=2).as_matrix().astype(np.float32))
    turned, other = to_canonical(joints @ turn)
    assert_close(turned, canonical, atol=1e-5, rtol=0)
    assert_close(other, view @ turn, atol=1e-5, rtol=0)
    assert_close(orthonormalise(3 * view[:, 1], view[:, 0] + view[:, 1]), view, atol=1e-5, rtol=0)
    assert_close(view_loss(view, -view), torch.full((4,), 12.0))  # |2 R|^2 = 4 * 3


# Places in pictures


@pytest.fixture(scope="module", params=["plain", "rotated-camera"])
def seen(request, prepared, tmp_path_factory, tiny_config):
    """Hands off the axis, with either crop."""
    if request.param == "plain":
        return PreparedSplit.open(prepared, "train")
    root = write_dataset(tmp_path_factory.mktemp("rhd"), train=4, val=1, test=1)
    data = dataclasses.replace(tiny_config.data, crop=request.param)
    out = prepare("synthhand", root, tmp_path_factory.mktemp("turned"), data, progress=False)
    return PreparedSplit.open(out, "train")


def test_true_places_depths_and_k_give_the_true_hand(seen):
    rows = np.arange(len(seen))
    places = torch.from_numpy(places_in_test_crops(seen, rows).astype(np.float32))
    joints = torch.from_numpy(np.array(seen.joints))
    config = apply_settings(as_rival(preset("smoke"), "heatmaps"), ["rival.bones=one"])
    network = TASKS["heatmaps"].network(config).eval()
    network.forward = lambda image: (places, joints[..., 2])
    found = network.predict(torch.zeros(1), lines_of_sight(seen, rows))
    # A bone that points at the camera tells little of its distance: rounding then costs more.
    assert_close(found, joints, atol=2e-3, rtol=0)
    distance = np.linalg.norm(seen.root_mm, axis=1) / seen.scale_mm
    rays = cast_rays(places, lines_of_sight(seen, rows))
    assert_close(
        rays * (torch.from_numpy(distance)[:, None] + joints[..., 2])[..., None] - joints,
        torch.from_numpy(distance)[:, None, None] * torch.tensor([0.0, 0.0, 1.0]).expand(len(rows), 21, 3),
        atol=1e-3,
        rtol=0,
    )


def test_places_follow_the_picture_through_its_augmentation(seen, tiny_config):
    """A dot is drawn where a joint lies in the stored crop, and found where its place says after it."""
    data = dataclasses.replace(tiny_config.data, crop=seen.manifest["crop"], scale_max=1.2, shift=0.1)
    rows, joint = np.arange(4), 10
    stored = seen.images.shape[1]
    uv = seen.project(seen.joints[rows], rows)[:, joint]
    v, u = np.mgrid[:stored, :stored]
    dots = np.exp(-((u - uv[:, :1, None]) ** 2 + (v - uv[:, 1:, None]) ** 2) / 8)
    images = torch.from_numpy(np.repeat((255 * dots)[..., None], 3, 3).astype(np.uint8))
    raw = load_batch(seen, rows)._replace(images=images)
    batch = augment(raw, data, torch.Generator().manual_seed(3))
    examples = Examples(batch, seen, rows, slice(None), torch.Generator())
    places = places_in_batch(examples)[:, joint]
    weight = (batch.image[:, 0] - 0.5).clamp(min=0)  # the padding beyond the crop is grey
    axis = (torch.arange(data.image_px) + 0.5) / data.image_px - 0.5
    found = torch.stack([(weight.sum(1) * axis).sum(1), (weight.sum(2) * axis).sum(1)], 1)
    found = found / weight.sum((1, 2))[:, None]
    inside = (places.abs() < 0.45).all(1)
    assert inside.sum() >= 2
    assert_close(found[inside], places[inside], atol=0.5 / data.image_px, rtol=0)


# Training


@pytest.mark.parametrize("name", METHODS)
def test_gradients_reach_every_parameter(name, tiny_config, split):
    task = task_of(quick(tiny_config, name))
    rows = np.arange(8)
    batch = augment(load_batch(split, rows), tiny_config.data, torch.Generator().manual_seed(0))
    network = task.build().train()
    examples = Examples(batch, split, rows, slice(None), torch.Generator().manual_seed(0))
    loss = task.loss(task.forward(network, examples), examples)
    loss.total.backward()
    loss = loss.detach()
    weighted = [term for term in loss.terms if term.startswith("weighted_")]
    assert float(loss.total) == pytest.approx(sum(float(loss.terms[term]) for term in weighted), rel=1e-5)
    assert len(weighted) * 2 == len(loss.terms) and set(task.shown) <= loss.terms.keys()
    for parameter, weight in network.named_parameters():
        assert weight.grad is not None and weight.grad.isfinite().all() and weight.grad.any(), parameter


@pytest.mark.parametrize("name", METHODS)
def test_a_method_learns_a_few_hands_by_heart(name, tiny_config, split, bench):
    """The goal of 64 images is for `benchmarks/rivals.py overfit`; here steps are few."""
    config = dataclasses.replace(tiny_config, loss=preset("laptop").loss)
    task, rows = task_of(quick(config, name, optimiser="adam", learning_rate=3e-3)), np.arange(4)
    truth = split.joints[rows] * split.scale_mm[rows, None, None]
    guess = np.linalg.norm(truth - truth.mean(0), axis=2).mean()
    steps = 160 if name == "d-vae" else 80  # its second stage waits for what the first has learnt
    error = bench.measure(task, bench.fit(task, split, rows, steps, progress=False), split, rows)
    assert error < guess / 2


def test_stages_of_d_vae_do_not_teach_each_other(tiny_config, split):
    task, rows = task_of(quick(tiny_config, "d-vae")), np.arange(4)
    batch = augment(load_batch(split, rows), tiny_config.data, torch.Generator().manual_seed(0))

    def gradients(prefix):
        torch.manual_seed(0)
        network = task.build().train()
        examples = Examples(batch, split, rows, slice(None), torch.Generator().manual_seed(0))
        terms = task.loss(task.forward(network, examples), examples).terms
        sum(term for name, term in terms.items() if name.startswith(f"weighted_{prefix}")).backward()
        return {name for name, weight in network.named_parameters() if weight.grad is not None}

    clean, embedded = gradients("clean_"), gradients("embedded_")
    assert any(name.startswith("decoder.") for name in clean)
    assert not any(name.startswith(("decoder.", "encode_pose", "encode_view")) for name in embedded)
    assert any(name.startswith("encode_image") for name in embedded)


def test_score_maps_learn_nothing_from_the_lifting(tiny_config, split):
    task, rows = task_of(quick(tiny_config, "lifting")), np.arange(4)
    batch = augment(load_batch(split, rows), tiny_config.data, torch.Generator().manual_seed(0))
    network = task.build().train()
    examples = Examples(batch, split, rows, slice(None), torch.Generator())
    terms = task.loss(task.forward(network, examples), examples).terms
    (terms["canonical"] + terms["view"]).backward()
    reached = {name.partition(".")[0] for name, w in network.named_parameters() if w.grad is not None}
    assert reached == {"pose", "view"}


def test_a_sample_without_a_cloud_is_read_from_its_picture_alone(tiny_config, split):
    task, rows = task_of(quick(tiny_config, "latent-align")), np.arange(8)
    network = task.build().eval()
    raw = load_batch(split, rows)._replace(has_cloud=torch.zeros(8, dtype=torch.bool))

    def code(clouds):
        batch = augment(raw._replace(clouds=clouds), tiny_config.data, torch.Generator().manual_seed(0))
        examples = Examples(batch, split, rows, slice(None), torch.Generator().manual_seed(0))
        return task.forward(network, examples).posterior.mean

    with torch.inference_mode():
        assert torch.equal(code(raw.clouds), code(5 * raw.clouds + 1))


@pytest.mark.parametrize("name", METHODS)
def test_a_rival_is_trained_evaluated_and_opened_as_da_vae_is(name, tiny_config, prepared, tmp_path):
    config = quick(tiny_config, name, average_decay=0.9)
    run = train(config, prepared, tmp_path / "run", progress=False)
    text = (run / "config.json").read_text()
    assert json.loads(text)["rival"]["name"] == name and read_experiment(text) == config
    report = evaluate(run, prepared, progress=False)
    assert report["model"] == TITLES[name] and set(report["protocols"]) == {"P1", "P2", "P3", "P4", "P5"}
    assert "latent" not in report and TITLES[name] in format_table(report)
    network, found = load_model(run)
    assert found == config and not network.training
    test = PreparedSplit.open(prepared, "test")
    predicted = load_predictions(run / "predictions.npz")
    margin = slice(first := (test.images.shape[1] - config.data.image_px) // 2, -first)
    images = torch.from_numpy(test.images[:, margin, margin] / np.float32(255)).permute(0, 3, 1, 2)
    with torch.inference_mode():
        joints = network.predict(images, lines_of_sight(test, np.arange(len(test))))
    assert_close(torch.from_numpy(predicted.pose), joints, atol=1e-4, rtol=1e-4)
    assert "weighted term" in (run / "terms.txt").read_text()
    before = (run / "model.safetensors").stat().st_mtime_ns
    assert train(config, prepared, run, progress=False) == run
    assert (run / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match=f"is a run of {TITLES[name]}, not of da-VAE"):
        runs.load_model(run)
    with pytest.raises(ValueError, match="leave views at 1"):
        evaluate(run, prepared, tmp_path / "out.json", views=2)
    other = next(method for method in METHODS if method != name)
    with pytest.raises(runs.RunMismatchError, match="another --run"):
        train(quick(tiny_config, other), prepared, run, progress=False)


class Recorder(torch.nn.Module):
    """A network that returns what it is given."""

    def forward(self, *given):
        return given


def list_tensors(values):
    """Return all tensors in nested sequences, in order."""
    if isinstance(values, torch.Tensor):
        return [values]
    return [tensor for value in values for tensor in list_tensors(value)]


@pytest.mark.parametrize("name", METHODS)
def test_processes_that_share_a_batch_draw_what_one_process_draws(name, tiny_config, split):
    """Noise and random sets of modalities are drawn for the whole batch; each process takes its share."""
    task, rows = task_of(quick(tiny_config, name)), np.arange(8)
    batch = augment(load_batch(split, rows), tiny_config.data, torch.Generator().manual_seed(0))

    def given(own):
        share = type(batch)(*(None if part is None else part[own] for part in batch))
        examples = Examples(share, split, rows, own, torch.Generator().manual_seed(7))
        return list_tensors(task.forward(Recorder(), examples))

    for whole, *shares in zip(*map(given, (slice(0, 8), slice(0, 3), slice(3, 8))), strict=True):
        assert_close(whole, torch.cat(shares), rtol=0, atol=0)


class StoppedError(Exception):
    """Ends a training as a kill would, but for the process."""


@pytest.mark.parametrize("name", METHODS)
def test_a_stopped_training_goes_on_bit_for_bit(name, tiny_config, prepared, tmp_path, monkeypatch):
    config = quick(tiny_config, name, average_decay=0.9, checkpoint_every=2)
    whole = train(config, prepared, tmp_path / "whole", progress=False, threads=1)
    task, steps = TASKS[name], []
    loss = task.loss

    def stop_at_last(self, *given):
        steps.append(None)
        if len(steps) == config.train.steps:
            raise StoppedError
        return loss(self, *given)

    monkeypatch.setattr(task, "loss", stop_at_last)
    with pytest.raises(StoppedError):
        train(config, prepared, tmp_path / "stopped", progress=False, threads=1)
    assert not (tmp_path / "stopped" / "model.safetensors").exists()
    again = train(config, prepared, tmp_path / "stopped", progress=False, threads=1)
    assert len(steps) == config.train.steps + 2  # the last two, from the resume point on
    assert (again / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_a_rival_may_begin_with_a_run_of_its_own_method(tiny_config, prepared, tmp_path):
    config = quick(tiny_config, "cm-vae", learning_rate=1e-12)
    first = train(config, prepared, tmp_path / "first", progress=False)
    seeded = dataclasses.replace(config, train=dataclasses.replace(config.train, seed=5))
    moved, _ = load_model(train(seeded, prepared, tmp_path / "moved", init=first, progress=False))
    start, _ = load_model(first)
    for name, value in start.named_parameters():
        assert_close(moved.get_parameter(name), value, atol=1e-6, rtol=0)
    wider = apply_settings(config, ["rival.latent=12"])
    with pytest.raises(ValueError, match=r"another network: rival.latent: the run has 30, asked for 12"):
        train(wider, prepared, tmp_path / "wider", init=first, progress=False)
    with pytest.raises(ValueError):
        train(quick(tiny_config, "regressor"), prepared, tmp_path / "other", init=first, progress=False)


def test_sweeps_vary_the_method(tiny_config, prepared, tmp_path):
    names = ["undivided", "regressor", "heatmaps"]
    points = vary(quick(tiny_config, "da"), {"model": names})
    outcomes = sweep(points, prepared, tmp_path, Inline, progress=False)
    assert [outcome.report["model"] for outcome in outcomes] == [
        "da-VAE, undivided", "plain regressor", "2.5D heat maps"
    ]  # fmt: skip
    assert "model heatmaps" in format_outcomes(outcomes)
    assert len({name_folder(point.config, prepared) for point in points}) == 3


# Configs


@pytest.mark.parametrize("name", MODELS)
def test_every_method_is_an_experiment_that_is_read_back(name):
    config = experiment("laptop", model=name, seed=2)
    assert name_of(config) == name and read_experiment(config.to_json()) == config
    assert config.train == dataclasses.replace(preset("laptop").train, seed=2)
    assert config.data == preset("laptop").data
    assert title_of(config)
    back = set_variable(config, "model", "da")
    assert type(back) is Config and back.model.attention == "sk"


def test_fields_of_a_rival_are_set_by_name_and_checked():
    config = experiment("smoke", model="cm-vae")
    assert apply_settings(config, ["rival.latent=12", "loss.beta_pose=3"]).rival.latent == 12
    with pytest.raises(ValueError, match="at least 1"):
        apply_settings(config, ["rival.latent=0"])
    with pytest.raises(ValueError, match=r"did you mean rival\.latent"):
        apply_settings(config, ["rival.latant=12"])
    with pytest.raises(ValueError, match=r"rival\.name"):
        apply_settings(config, ["rival.name=lifting"])
    with pytest.raises(ValueError, match="expected one of regressor, cm-vae"):
        read_experiment(config.to_json().replace('"cm-vae"', '"dm-vae"'))
    with pytest.raises(ValueError, match="unknown field"):
        read_config(Config, config.to_json())
    with pytest.raises(ValueError, match="choose one of da, na, se, undivided, regressor"):
        experiment("smoke", model="hourglass")
    assert as_davae(config) == dataclasses.replace(preset("smoke"), model=config.model)
    with pytest.raises(ValueError, match="no part of cm-vae"):
        task_of(apply_settings(config, ["train.only=image_decoder"]))


def test_rivals_have_folders_of_their_own(tmp_path):
    spaces = [Workspace.of("smoke", model=name, home=str(tmp_path)) for name in MODELS]
    assert len({space.run for space in spaces}) == len(MODELS)
    assert spaces[0].run.name == "smoke-da-seed0"


# Costs


@pytest.mark.parametrize("size", ["smoke", "laptop"])
def test_all_methods_spend_the_arithmetic_of_da_vae_on_the_picture(size, bench):
    counted = {name: bench.count(experiment(size, model=name)) for name in MODELS}
    for name, row in counted.items():
        assert row["encoder_flops"] == pytest.approx(counted["da"]["encoder_flops"], rel=0.1), name
        assert row["parameters"] > 0 and row["joints_flops"] >= 0.9 * counted["da"]["joints_flops"], name


def test_costs_are_printed_beside_each_other(tmp_path, capsys, bench):
    rows = bench.cost("smoke", ("da", "lifting"), rounds=1, out=tmp_path / "cost.json")
    shown = capsys.readouterr().out
    assert (
        "da-VAE" in shown and "lifting" in shown and json.loads((tmp_path / "cost.json").read_text()) == rows
    )
    assert all(row["step_s"] > 0 for row in rows)
    network = task_of(experiment("smoke", model="lifting")).build()
    assert rows[1]["parameters"] == sum(p.numel() for p in network.parameters())
    assert sum(isinstance(part, Features) for part in network.modules()) == 1


@pytest.mark.parametrize("name", ["heatmaps", "latent-align"])
def test_rhd_takes_the_place_of_synthhand_by_its_name_alone(name, tiny_config, tmp_path):
    root = write_dataset(tmp_path / "RHD", train=8, val=2, test=3)
    space = Workspace(quick(tiny_config, name), tmp_path / "home", "rhd", str(root))
    report = space.ensure_evaluated()
    assert (report["dataset"], report["model"], report["n"]) == ("rhd", TITLES[name], 3)
    assert name in space.run.name and "rhd" in space.run.name
    row = read_run(space.run)
    assert row["model"] == TITLES[name] and row["elbo"] == "" and float(row["P1_epe_mm"]) > 0
