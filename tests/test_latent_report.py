"""The report of the latent code: targets, rendered truth and the command, on a few rendered hands."""

import dataclasses
import json

import matplotlib.image
import numpy as np
import pytest
import torch
from torch.testing import assert_close

from davae.config import BLOCKS
from davae.data.augment import load_batch, stack_rows
from davae.data.prepared import PreparedSplit, prepare
from davae.latent import rendered, swaps, targets
from davae.latent.blend import read_factors, render_frame
from davae.latent.codes import encode
from davae.latent.reading import Reader
from davae.latent.report import measure_latent, to_plain
from davae.latent.report_table import format_latent
from davae.networks import DaVAE, HandMaskNet
from davae.pipeline import cli
from davae.training.davae_task import train
from synthhand.dataset.factors import sample_factors
from synthhand.dataset.scene import render
from synthhand.dataset.writer import write_dataset
from synthhand.model.procedural import procedural_rig

HANDS = 32


@pytest.fixture(scope="module")
def arrays(tmp_path_factory, tiny_config):
    """Prepared renderings: 4 to train on, 2 for validation, 32 to test."""
    home = tmp_path_factory.mktemp("latent")
    write_dataset(home / "hands", train=4, val=2, test=HANDS, seed=3, progress=False)
    return prepare("synthhand", home / "hands", home / "arrays", tiny_config.data, progress=False)


@pytest.fixture(scope="module")
def split(arrays):
    return PreparedSplit.open(arrays, "test")


@pytest.fixture(scope="module")
def reader(tiny_config):
    torch.manual_seed(0)
    return Reader(DaVAE(tiny_config.model).eval(), tiny_config.data)


def test_factors_come_back_from_their_arrays_and_render_the_prepared_picture(split, tiny_config):
    for row in (0, 7):
        drawn, read = sample_factors(3, "test", row), read_factors(split.factors, row)
        for name, value in drawn.flat().items():
            np.testing.assert_array_equal(read.flat()[name], value)
            group, field = name.split("/")
            same = type(getattr(getattr(drawn, group), field))
            assert isinstance(getattr(getattr(read, group), field), same)
        again, stored = render_frame(read, tiny_config.data), swaps._stored(split, row, tiny_config.data)
        assert_close(again.image, stored.image, atol=0.02, rtol=0)
        assert_close(again.joints, stored.joints)
        canvas = dataclasses.replace(tiny_config.data, canvas=True)
        again, stored = render_frame(read, canvas), swaps._stored(split, row, canvas)
        assert_close(again.image, stored.image, atol=0.02, rtol=0)


def test_the_world_of_photographs_comes_back_too():
    """Else a hand would be rendered anew without what its picture shows."""
    drawn = sample_factors(0, "test", 4, world="photographs")
    flat = {name: np.asarray(value)[None] for name, value in drawn.flat().items()}
    flat["held/shown"] = np.ones(1)  # an outcome, which is stored beside the factors
    read = read_factors(flat, 0)
    assert read.flat().keys() == drawn.flat().keys()
    np.testing.assert_array_equal(render(read, 48).image, render(drawn, 48).image)
    plain = {name: value for name, value in flat.items() if not name.startswith(("held/", "camera/"))}
    assert (read_factors(plain, 0).world.held, read_factors(plain, 0).world.camera) == (None, None)


def test_a_missing_factor_is_named():
    flat = {name: np.asarray(value)[None] for name, value in sample_factors(0, "test", 0).flat().items()}
    del flat["shape/coefficients"]
    with pytest.raises(ValueError, match="no shape/coefficients"):
        read_factors(flat, 0)


def test_targets_are_the_truth_of_the_rows(split):
    rows = np.array([5, 2, 9])
    found = targets.read_targets(split, rows)
    np.testing.assert_allclose(found["joints"].values[1].reshape(21, 3), split.joints[2])
    np.testing.assert_array_equal(
        found["flesh: pads"].values[:, 0], split.factors["shape/coefficients"][rows, 4]
    )
    assert np.isclose(found["bone proportions"].values, 1).any(1).all()  # the reference bone itself
    assert ((found["mask area"].values > 0.02) & (found["mask area"].values < 0.9)).all()
    assert set(targets.ASPECTS) < set(found) and all(len(target.values) == 3 for target in found.values())


def test_the_basis_of_flesh_measures_the_surface():
    """Root mean square displacement, written out over all points of the rig."""
    flesh = np.random.default_rng(0).normal(size=10)
    moved = np.tensordot(flesh, procedural_rig().shape_fields, 1)
    expected = np.sqrt((moved**2).sum(1).mean())
    assert np.linalg.norm(flesh @ targets.surface_basis()) == pytest.approx(expected)


def test_codes_are_those_of_the_networks_input_and_samples_follow_the_posterior(split, reader):
    rows = np.array([3, 1])
    read = reader.read_rows(split, rows)
    batch = reader.show(load_batch(split, rows))
    for block, mean in encode(reader.model, batch.image).items():
        assert_close(read.means[block], mean)
    still = read._replace(logvars={block: torch.full_like(v, -60.0) for block, v in read.logvars.items()})
    assert_close(still.sample(), read.means)
    drawn = [read.sample(seed)["pose"] for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


def test_a_run_on_predicted_masks_sees_true_ones_or_those_of_its_network(split, reader, trained):
    from davae.training.runs import load_mask_network

    raw = load_batch(split, np.array([0]))
    data = dataclasses.replace(reader.data, mask="network")
    true = Reader(reader.model, dataclasses.replace(data, mask="truth")).show(raw)
    assert torch.equal(Reader(reader.model, data).show(raw).image, true.image)
    network = load_mask_network(trained / "mask")[0]
    assert isinstance(network, HandMaskNet)
    soft = Reader(reader.model, data, network).show(raw)
    assert not torch.equal(soft.image, true.image)
    assert torch.equal(soft.target, true.target)


def test_a_held_group_is_held_and_the_rest_is_not(split, reader, monkeypatch):
    """The joints of rendered hands are equal where pose is held, and differ elsewhere."""
    seen = []
    monkeypatch.setattr(rendered, "stack_rows", lambda *given: seen.append(given[0]) or stack_rows(*given))
    images = rendered.render_held(split, np.arange(HANDS), reader.data, values=2, images=3)
    found = rendered.read_held(reader, images)
    assert list(found) == list(BLOCKS)
    drawn = np.array([[row["joints"] for row in rows] for rows in seen]).reshape(3, 2, 3, 21, 3)
    joints = dict(zip(found, drawn, strict=True))
    same = joints["pose"]
    np.testing.assert_allclose(same, np.broadcast_to(same[:, :1], same.shape), atol=1e-3)
    assert np.ptp(joints["shape"], axis=1).max() > 0.1
    held = rendered.shape_held({group: one.means for group, one in found.items()}, 3)
    assert held["pose"]["shape"].shape[:2] == (2, 3)


class Oracle:
    """A model whose code of a hand is its number, in each block; it decodes the rendered truth."""

    def __init__(self, pairs, entangled=False):
        self.pairs, self.entangled = pairs, entangled

    def decode(self, code):
        owners = [int(code[block][0, 0]) for block in BLOCKS]
        own = max(set(owners), key=owners.count)
        other = [(block, owner) for block, owner in zip(BLOCKS, owners, strict=True) if owner != own]
        pair = self.pairs[own // 2]
        frame = pair.hands[own % 2]
        if other and not self.entangled:
            frame = pair.exchanged[other[0][0]][own % 2]
        self.last = frame
        return type("Decoded", (), {"image": frame.image[None], "cloud": frame.cloud[None]})()

    def encode(self, images):
        return type("Posterior", (), {"means": {"pose": self.last.joints[None]}})()

    def decode_pose(self, code):
        return code["pose"]


@pytest.fixture(scope="module")
def pairs(split, tiny_config):
    return swaps.render_pairs(split, np.arange(8), tiny_config.data)


def test_a_perfect_code_passes_the_swap_test_and_one_that_ignores_a_block_does_not(pairs):
    code = {block: torch.arange(8.0)[:, None] for block in BLOCKS}
    perfect = swaps.measure_swaps(Oracle(pairs), code, pairs)
    for block, swap in perfect.items():
        assert swap.errors.shape == (2 * len(pairs), 4)
        np.testing.assert_allclose(swap.errors, 0, atol=1e-3)
        np.testing.assert_allclose(swap.floor, 0, atol=1e-3)
        assert swap.ceiling[:, [0, 2, 3]].min() > 0.1, block
    deaf = swaps.measure_swaps(Oracle(pairs, entangled=True), code, pairs)
    assert deaf["pose"].errors[:, 0].min() > 5 and deaf["appearance"].errors[:, 1].max() > 5
    np.testing.assert_allclose(deaf["shape"].errors[:, 0], 0, atol=1e-3)  # flesh moves no joint
    summary = swaps.summarise_swaps(deaf)["pose"]["joints_mm"]
    assert summary["floor"][0] < 1e-3 < summary["errors"][1] <= summary["errors"][0]


def test_pictures_of_swaps(pairs):
    code = {block: torch.arange(8.0)[:, None] for block in BLOCKS}
    example = swaps.show_swaps(Oracle(pairs), code, pairs[:1])[0]
    assert list(example.truth) and set(example.truth) == {"start", "end", *BLOCKS} == set(example.decoded)
    for name, image in example.truth.items():
        assert torch.equal(image, example.decoded[name])


def test_a_report_needs_images(arrays, reader):
    with pytest.raises(ValueError, match="val: 2 images; a latent report needs at least 30"):
        measure_latent(reader, PreparedSplit.open(arrays, "val"), progress=False)


def test_to_plain_turns_what_is_not_finite_into_none():
    assert to_plain({"a": [np.nan, 1.0, (np.inf, 2)]}) == {"a": [None, 1.0, [None, 2]]}


def test_the_command_from_a_run_to_its_table_and_figure(arrays, tiny_config, tmp_path, monkeypatch, capsys):
    drawing = dataclasses.replace(tiny_config.model, image_decoder="limbs")  # whose targets are of a canvas
    config = dataclasses.replace(
        tiny_config, model=drawing, data=dataclasses.replace(tiny_config.data, canvas=True)
    )
    train(config, arrays, tmp_path / "run", progress=False)
    out = tmp_path / "report"
    given = {"run": tmp_path / "run", "data": arrays, "out": out, "swap-pairs": 2, "held-values": 2}
    words = [word for name, value in given.items() for word in (f"--{name}", str(value))]
    monkeypatch.setattr("sys.argv", ["davae", "latent-report", *words])
    cli.main()
    said = capsys.readouterr().out
    measured = json.loads((out / "latent.json").read_text())
    assert measured["n"] == HANDS and set(measured["blocks"]) == set(BLOCKS)
    assert set(measured["prediction"]["samples"]["rbf"]) == {*BLOCKS, "all"}
    cell = measured["prediction"]["means"]["linear"]["pose"]["joints"]
    assert cell["r2"][1] <= cell["r2"][0] <= cell["r2"][2] <= 1
    assert len(measured["interventions"]["means"]["robustness"]) == len(BLOCKS)
    assert set(measured["swaps"]["shape"]) == set(swaps.MEASURES)
    text = (out / "latent.md").read_text(encoding="utf-8")
    assert text in said and "| joints |" in text and "(chance)" in text
    assert measured["divided"] and "is not divided" not in text
    assert "is not divided: every decoder reads all of it" in format_latent(measured | {"divided": False})
    assert matplotlib.image.imread(out / "latent.png").shape[2] == 4


def test_a_dataset_without_factors_is_measured_as_far_as_it_goes(prepared, reader, monkeypatch):
    monkeypatch.setattr("davae.latent.report.LEAST", 8)
    bare = dataclasses.replace(PreparedSplit.open(prepared, "test"), factors={})
    found = measure_latent(reader, bare, progress=False)
    assert set(found.measured["prediction"]["means"]["rbf"]["pose"]) == {
        "joints",
        "bone proportions",
        "mask area",
    }
    assert "does not record" in found.measured["swaps"]["absent"] and not found.examples
    assert found.measured["pictures"]["iou"][0] is not None


@pytest.mark.parametrize("given", [[], ["--run", "x", "--weights", "shipped"]])
def test_a_run_or_weights(given, arrays, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "sys.argv", ["davae", "latent-report", "--data", str(arrays), "--out", str(tmp_path), *given]
    )
    with pytest.raises(SystemExit, match="give either --run"):
        cli.main()
