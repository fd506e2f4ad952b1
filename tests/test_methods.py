"""The methods of Table 3 on the same hands: what is tried for each, what is chosen, how they are compared."""

import dataclasses
import importlib
import itertools
import types
from operator import attrgetter
from pathlib import Path

import numpy as np
import pytest
import torch

from davae.config import preset
from davae.config.rivals import read_experiment, title_of
from davae.config.settings import set_variable
from davae.data.augment import centre, load_batch
from davae.data.prepared import PreparedSplit
from davae.evaluation.joints import JointNet
from davae.metrics import AUC_THRESHOLDS_MM, auc, pck
from davae.rivals import task_of
from davae.rivals.canonical import to_canonical
from davae.rivals.sight import lines_of_sight
from davae.studies import methods
from davae.studies.claims.measured import judge_measured
from davae.studies.methods import METHODS, Trial, choose, plan_methods
from davae.studies.records import Record, Runs, read_runs_of_record
from davae.studies.results import errors as record_errors
from davae.studies.results.errors import read_curves, read_errors
from davae.studies.results.measured import MEASURED_COLUMNS, config_digest
from synthhand.skeleton import BONES

SWEEP, LAPTOP = preset("sweep"), preset("laptop")


def try_all(model, best=0):
    """Return what `tune` would have tried for a method; the trial of number `best` errs least."""
    first = methods.list_rates(SWEEP, model)
    trials = first + methods.list_weights(SWEEP, first[1])
    return [
        dataclasses.replace(t, steps=320, data="d", val_mm=20.0 if n == best else 25.0 + n)
        for n, t in enumerate(trials)
    ]


@pytest.fixture
def trials():
    return [t for n, m in enumerate(METHODS) if m not in methods.LIKE for t in try_all(m, n % 5)]


def test_each_method_is_tried_with_equally_many_different_settings():
    for model in METHODS:
        settings = {str(sorted(trial.settings.items())) for trial in try_all(model)}
        digests = {config_digest(trial.settle(SWEEP)) for trial in try_all(model)}
        assert len(settings) == len(digests) == 5, model


def test_trials_vary_what_their_names_say():
    usual = SWEEP.train.learning_rate
    rates = [trial.settle(SWEEP).train.learning_rate for trial in methods.list_rates(SWEEP, "cm-vae")]
    assert rates == pytest.approx([usual / 2, usual, 2 * usual])
    best = methods.list_rates(SWEEP, "cm-vae")[2]
    low, high = (trial.settle(SWEEP) for trial in methods.list_weights(SWEEP, best))
    assert low.train.learning_rate == high.train.learning_rate == pytest.approx(2 * usual)
    assert (low.loss.beta_pose, high.loss.beta_pose) == pytest.approx((0.9, 9))
    betas = [t.settle(LAPTOP).loss for t in methods.list_weights(LAPTOP, Trial("da", {}, "laptop"))]
    assert [(b.beta_pose, b.beta_appearance, b.beta_shape) for b in betas] == [
        pytest.approx((factor * 3, factor * 50, factor * 1000)) for factor in (0.3, 3)
    ]
    maps = [t.settle(SWEEP).rival.alpha_map for t in methods.list_weights(SWEEP, Trial("lifting", {}))]
    assert maps == pytest.approx([3, 30])
    far = [t.settle(SWEEP).train.learning_rate for t in methods.list_weights(SWEEP, Trial("regressor", {}))]
    assert far == pytest.approx([usual / 4, 4 * usual])


def test_the_best_on_validation_is_chosen_and_a_variant_shares_it(trials):
    for model in METHODS:
        like = methods.LIKE.get(model, model)
        best = choose(trials, model)
        assert (best.model, best.val_mm) == (model, 20.0)
        assert best.settings == min((t for t in trials if t.model == like), key=lambda t: t.val_mm).settings
    lacking = [t for t in trials if t.model != "d-vae"]
    for none in (lacking, [*lacking, Trial("d-vae", {methods.RATE: 1.0})]):  # the last has no finished run
        with pytest.raises(ValueError, match=r"d-vae: nothing was tried.*rivals\.py tune"):
            choose(none, "d-vae")
    broken = [Trial("cm-vae", {methods.RATE: 1.0}), *trials]
    assert choose(broken, "cm-vae") == choose(trials, "cm-vae")


def test_trials_are_read_as_they_were_written(trials, tmp_path):
    methods.write_trials(trials, tmp_path / "tried.csv")
    again = methods.read_trials(tmp_path / "tried.csv")
    assert again == trials
    assert [config_digest(t.settle(SWEEP)) for t in again] == [config_digest(t.settle(SWEEP)) for t in trials]


def test_a_file_of_trials_that_was_changed_is_refused_by_its_row(trials, tmp_path):
    path = tmp_path / "tried.csv"
    methods.write_trials(trials[:2], path)
    path.write_text(path.read_text().replace("learning_rate=", "learning_rate:", 1))
    with pytest.raises(ValueError, match=r"tried\.csv, row 1: .*run it again"):
        methods.read_trials(path)


def test_trials_of_record_are_complete():
    found = methods.read_trials()
    counts = {model: sum(trial.model == model for trial in found) for model in METHODS}
    assert counts == {model: 0 if model in methods.LIKE else 5 for model in METHODS}
    assert len({(trial.preset, trial.steps, trial.data) for trial in found}) == 1
    assert all(np.isfinite(trial.val_mm) for trial in found)
    usual = SWEEP.train.learning_rate
    rates = {round(trial.settings[methods.RATE] / usual, 6) for trial in found}
    assert rates <= {*methods.RATES, *methods.FAR_RATES}
    record = methods.read_methods(read_runs_of_record())
    assert record.rows and {row["data"] for row in record.rows.values()} == {found[0].data}
    assert read_curves().keys() <= read_errors().keys()


def test_the_study_runs_every_method_with_its_settings_and_each_seed(trials):
    points = plan_methods(trials).points(SWEEP)
    assert [(p.varied["model"], p.varied["seed"]) for p in points] == [
        (model, seed) for seed in methods.SEEDS for model in METHODS
    ]
    assert len({config_digest(point.config) for point in points}) == len(points)
    for point in points:
        settings = choose(trials, point.varied["model"]).settings
        assert settings.items() <= point.varied.items() and point.config.train.seed == point.varied["seed"]
        assert point.config.train.learning_rate == settings[methods.RATE]
        assert point.config.train.steps == SWEEP.train.steps
    settings = {point.config.train.learning_rate for point in plan_methods(trials).points(LAPTOP)}
    assert settings == {LAPTOP.train.learning_rate}  # nothing was tried there: the preset's
    with pytest.raises(ValueError, match="lifting: nothing was tried"):
        plan_methods([t for t in trials if t.model != "lifting"]).points(SWEEP)
    (short,) = {point.config.train.steps for point in plan_methods(trials, steps=12).points(SWEEP)}
    assert short == 12


# Comparison


def make_runs(trials, means):
    """Return made-up runs of record: errors of 50 images around a mean for each method, with equal noise."""
    rows, errors = [], {}
    for point in plan_methods(trials).points(SWEEP):
        model, seed = point.varied["model"], point.varied["seed"]
        values = means[model] + np.random.default_rng(seed).normal(size=50)
        row = dict.fromkeys(MEASURED_COLUMNS, "") | {
            "config": config_digest(point.config), "data": "d", "model": title_of(point.config),
            "seed": str(seed), "P1_auc_20_50": "0.8",
        }  # fmt: skip
        for n, protocol in enumerate(("P1", "P2", "P3", "P4", "P5")):
            for end, off in (("", 0), ("low_", -1), ("high_", 1)):
                row[f"{protocol}_epe_{end}mm"] = f"{values.mean() + 10 * n + off:.4f}"
        rows.append(row)
        errors["d", row["config"]] = values
    return Runs(rows, errors, "sweep", "made up")


MEANS = {model: 20.0 + n for n, model in enumerate(METHODS)}


def test_the_best_other_vae_is_the_one_that_da_vae_is_compared_with(trials, monkeypatch, tmp_path):
    monkeypatch.setattr(methods, "read_trials", lambda: trials)
    means = {**MEANS, "da": 22.0, "cm-vae": 30.0, "d-vae": 21.0, "latent-align": 25.0}
    runs = make_runs(trials, means)
    assert methods.best_rival(methods.read_methods(runs)) == "d-vae"
    found = {r.claim: r for r in judge_measured(runs, tmp_path) if r.command == "methods"}
    assert found["da-VAE is superior to the other three VAEs"].verdict == "contradicted"
    assert found["da-VAE is superior to the other three VAEs"].found.startswith("+1.00")
    assert found["da-VAE errs less than CM-VAE (by 8.77 mm)"].verdict == "confirmed"
    assert all((result.seeds, result.runs) == (3, 6) for result in found.values())
    two = [row for row in runs.rows if row["model"] != "CM-VAE"]
    assert methods.best_rival(methods.read_methods(Runs(two, runs.errors, "sweep", ""))) == ""


def test_without_runs_nothing_is_claimed_of_the_best(trials, monkeypatch, tmp_path):
    monkeypatch.setattr(methods, "read_trials", lambda: trials)
    nothing = Runs([], {}, "sweep", "none")
    assert methods.best_rival(methods.read_methods(nothing)) == ""
    found = [r for r in judge_measured(nothing, tmp_path) if r.command == "methods"]
    assert {result.verdict for result in found} == {"cannot be tested here"}
    assert "da-VAE is superior to the other three VAEs" in {result.claim for result in found}


def test_printed_and_measured_numbers_have_columns_of_their_own(trials):
    study = plan_methods(trials)
    runs = make_runs(trials, MEANS)
    head, _, *body = methods.format_twins(Record(study, runs.rows, runs.errors)).splitlines()
    titles = [cell.strip() for cell in head.strip("|").split("|")]
    rows = {line.split("|")[1].strip(): [c.strip() for c in line.strip("|").split("|")] for line in body}
    assert rows["CM-VAE [32]"][1:4] == ["19.73", "0.849", "3"]
    assert rows["plain regressor"][1:3] == ["–", "–"]
    (cm,) = (n for n, model in enumerate(METHODS) if model == "cm-vae")
    mean = np.mean([runs.errors["d", row["config"]].mean() for row in runs.rows if row["model"] == "CM-VAE"])
    assert cm == 4 and rows["CM-VAE [32]"][4] == f"{mean:.2f} [{mean - 1:.2f}, {mean + 1:.2f}]"
    assert rows["CM-VAE [32]"][8].startswith(f"{mean + 40:.2f} ")
    later = [row for row in runs.rows if row["seed"] != "0"]
    assert "| CM-VAE [32] | 19.73 | 0.849 | 2 |" in methods.format_twins(Record(study, later, runs.errors))
    for cells in rows.values():
        for title, cell in zip(titles[1:], cells[1:], strict=True):
            assert "[" in cell if title.endswith("measured (mm)") else "," not in cell
    empty = methods.format_twins(Record(study, [], {}))
    assert "| CM-VAE [32] | 19.73 | 0.849 | 0 | – |" in empty and "regressor" not in empty


@pytest.mark.parametrize("seed", range(5))
def test_two_orders_are_compared_pair_by_pair(seed):
    drawn = np.random.default_rng(seed).normal(size=(2, 6))
    printed, measured = (dict(zip("abcdef", values, strict=True)) for values in drawn)
    pairs = list(itertools.combinations("abcdef", 2))
    agree = sum((printed[a] - printed[b]) * (measured[a] - measured[b]) > 0 for a, b in pairs)
    assert methods.compare_orders(printed, measured) == pytest.approx(2 * agree / len(pairs) - 1)
    lacking = measured | {"c": np.nan}
    del measured["c"]
    assert methods.compare_orders(printed, lacking) == methods.compare_orders(printed, measured)


def test_printed_errors_are_those_of_table_3():
    assert methods.read_printed() == {
        "da": 10.96, "cm-vae": 19.73, "d-vae": 19.95, "latent-align": 13.14, "heatmaps": 13.41,
        "lifting": 30.42,
    }  # fmt: skip


def test_a_curve_of_record_is_that_of_all_joints(monkeypatch):
    truth, noise = np.random.default_rng(0).normal(0, 15, (2, 6, 21, 3))
    found = types.SimpleNamespace(pose_mm=truth + noise, joints_mm=truth)
    monkeypatch.setattr(record_errors, "load_predictions", lambda path: found)
    curve = record_errors.measure_curve("run")
    errors_mm = np.linalg.norm(noise, axis=2)
    assert curve == pytest.approx([(errors_mm <= limit).mean() for limit in record_errors.CURVE_MM])
    area = auc(AUC_THRESHOLDS_MM, np.interp(AUC_THRESHOLDS_MM, record_errors.CURVE_MM, curve))
    assert area == pytest.approx(auc(AUC_THRESHOLDS_MM, pck(errors_mm, AUC_THRESHOLDS_MM)))


# The benchmark's commands


def test_tune_and_compare_leave_what_they_found(prepared, tiny_config, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    bench = importlib.import_module("rivals")
    monkeypatch.setattr(bench, "experiment", lambda name, **_: tiny_config)
    given = {"data": prepared, "models": ("regressor", "cm-vae"), "jobs": 2, "store": tmp_path / "store"}
    tried = bench.tune(**given, steps=2, out=tmp_path / "tried.csv")
    assert [t.model for t in tried] == ["regressor"] * 5 + ["cm-vae"] * 5
    assert methods.read_trials(tmp_path / "tried.csv") == tried
    other = Trial("lifting", {methods.RATE: 1.0}, "smoke", 2, tried[0].data, 9.0)
    methods.write_trials([other, *tried], tmp_path / "tried.csv")
    again = bench.tune(**{**given, "models": ("regressor", "na")}, steps=2, out=tmp_path / "tried.csv")
    assert again == tried[:5]  # found, not run again; rows of others stay
    assert methods.read_trials(tmp_path / "tried.csv") == [other, *tried[5:], *tried[:5]]
    with pytest.raises(SystemExit, match="na take the settings of da"):
        bench.tune(**{**given, "models": ("na",)}, out=tmp_path / "tried.csv")
    kept = {}
    monkeypatch.setattr(bench, "add_to_record", lambda run: kept.setdefault(run.name, run))
    bench.compare(**{**given, "models": ("cm-vae",)}, trials=tmp_path / "tried.csv", record=True)
    assert len(kept) == len(methods.SEEDS)
    best = choose(tried, "cm-vae")
    for run in kept.values():
        config = read_experiment((run / "config.json").read_text())
        assert all(attrgetter(name)(config) == value for name, value in best.settings.items())
    methods.write_trials([dataclasses.replace(t, data="other") for t in tried], tmp_path / "tried.csv")
    with pytest.raises(SystemExit, match=r"tried on data other, but .* is "):
        bench.compare(**given, trials=tmp_path / "tried.csv", settings=("train.steps=3",))
    asked: list = []  # at another size, the data cannot be those of the trials
    monkeypatch.setattr(bench, "sweep", lambda points, *_, **__: asked.extend(points) or [])
    monkeypatch.setattr(bench, "format_outcomes", lambda _: "")
    changed = {"models": ("cm-vae",), "settings": ("image_px=32", "loss.beta_pose=0.7")}
    bench.compare(**{**given, **changed}, trials=tmp_path / "tried.csv")
    assert [point.config.train.seed for point in asked] == list(methods.SEEDS)
    for point in asked:
        config, settings = point.config, best.settings | {"loss.beta_pose": 0.7, "data.image_px": 32}
        assert all(attrgetter(name)(config) == value for name, value in settings.items())


@pytest.fixture
def codes(monkeypatch):
    """`benchmarks/rival_codes.py`."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    return importlib.import_module("rival_codes")


@pytest.mark.parametrize("model", ["da", "undivided", *methods.VAES])
def test_what_a_code_can_do_is_measured_of_the_mean_code(model, codes, prepared, tiny_config):
    config = set_variable(tiny_config, "model", model)
    split, rows = PreparedSplit.open(prepared, "train"), np.arange(12)
    batch = centre(load_batch(split, rows), config.data)
    network = task_of(config).build().eval()
    canonical, view = (factor.flatten(1).double().numpy() for factor in to_canonical(batch.joints))
    with torch.inference_mode():
        found = codes.measure(network, batch, {"canonical pose": canonical, "viewpoint": view})
        coder = codes.read_codes(network, batch)
        estimate = (
            network.predict(batch.image, lines_of_sight(split, rows)) if model in methods.VAES
            else JointNet(network)(batch.image)
        )  # fmt: skip
        torch.testing.assert_close(coder.joints(coder.codes), estimate, atol=1e-4, rtol=1e-3)
    assert all(np.isfinite(value) for value in found.values())
    assert ("picture, dB" in found) == (model != "latent-align")
    assert ("picture from joints, dB" in found) == (model == "cm-vae")
    assert ("exchanged view, mm" in found) == (model == "d-vae")
    assert ("viewpoint from pose, R²" in found) == (model in ("da", "undivided", "d-vae"))


def test_pieces_of_what_a_code_can_do(codes):
    hands = torch.randn(5, 21, 3)
    assert codes.change_halfway(hands, 1.1 * hands, hands) == pytest.approx(10, rel=1e-4)
    assert codes.change_halfway(hands, 2 * hands, 3 * hands) == pytest.approx(0, abs=1e-4)
    lengths = codes.measure_lengths(hands)
    assert lengths[3, 0] == pytest.approx(float((hands[3, BONES[0][0]] - hands[3, BONES[0][1]]).norm()))
    truth = torch.rand(3, 3, 4, 4) * 0.8
    assert codes.psnr_db(truth + 0.1, truth) == pytest.approx(20, rel=1e-4)
    with pytest.raises(TypeError, match="Linear: has no code"):
        codes.read_codes(torch.nn.Linear(1, 1), None)
