"""Evaluation: reports from given predictions, and a small model over a small split."""

import importlib
import json

import numpy as np
import pytest
import torch
from scipy.ndimage import affine_transform
from scipy.spatial.transform import Rotation
from skimage.color import lab2rgb, rgb2lab

from davae import metrics
from davae.config import BLOCKS, TERMS, preset
from davae.data.augment import centre, load_batch
from davae.data.prepared import PreparedSplit
from davae.data.views import ZOOM
from davae.evaluation import (
    Predictions,
    evaluate,
    format_table,
    load_predictions,
    predict,
    report,
    report_json,
    save_predictions,
    skin_tone_report,
)
from davae.losses import objective
from davae.networks import DaVAE
from davae.networks.handmask import MID_GREY
from davae.training import runs
from synthhand.render.appearance import ita_degrees
from synthhand.skeleton import JOINTS, ROOT

report_module = importlib.import_module(
    "davae.evaluation.report"
)  # the package exports its function by this name
SIZES = {"pose": 4, "appearance": 3, "shape": 2}


def hands(seed: int, count: int) -> np.ndarray:
    joints = np.random.default_rng(seed).normal(size=(count, JOINTS, 3)).astype(np.float32)
    return joints - joints[:, [ROOT]]


def predictions(count: int = 12, **changes) -> Predictions:
    rng = np.random.default_rng(0)
    joints = hands(1, count)
    arrays = {
        "pose": joints + rng.normal(scale=0.2, size=joints.shape).astype(np.float32),
        "joints": joints,
        "scale_mm": rng.uniform(25, 35, count).astype(np.float32),
        "visible": rng.random((count, JOINTS)) < 0.8,
        "ids": np.arange(count),
        "mirrored": rng.random(count) < 0.5,
        "means": {b: rng.normal(size=(count, z)).astype(np.float32) for b, z in SIZES.items()},
        "logvars": {b: rng.normal(size=(count, z)).astype(np.float32) for b, z in SIZES.items()},
        "terms": {t: rng.uniform(1, 2, count).astype(np.float32) for t in TERMS},
        "chamfer_mm": rng.uniform(5, 9, count).astype(np.float32),
        "psnr_db": rng.uniform(20, 30, count).astype(np.float32),
        "psnr_hand_db": rng.uniform(15, 20, count).astype(np.float32),
        "psnr_grey_db": rng.uniform(10, 15, count).astype(np.float32),
    }
    return Predictions(**(arrays | changes))


def measured(**changes):
    about = {
        "split": "test",
        "dataset": "synthhand",
        "data": "0",
        "preset": "smoke",
        "model": "da-VAE",
        "seed": 0,
    }
    return about | report(predictions(**changes), hands(2, 30), np.full(30, 29.0))


def test_report_agrees_with_the_metrics():
    p, found = predictions(), measured()
    assert found["n"] == 12 and found["train_scale_mm"] == 29.0
    direct = metrics.evaluate_protocols(p.pose, p.joints, p.scale_mm, p.visible, 29.0)
    for name, result in direct.items():
        assert found["protocols"][name]["epe_mm"] == result.epe_mm
        assert found["protocols"][name]["auc_20_50"] == result.auc_20_50
        low, high = found["protocols"][name]["epe_interval_mm"]
        assert low < result.epe_mm < high
        assert len(found["protocols"][name]["per_joint_mm"]) == JOINTS
    assert metrics.endpoint_error(p.pose_mm, p.joints_mm).mean() == pytest.approx(
        found["protocols"]["P1"]["epe_mm"]
    )


def test_report_scores_the_constant_guesses():
    p, found = predictions(), measured()
    constant = hands(2, 30).mean(axis=0, dtype=np.float64)
    errors_mm = (
        metrics.endpoint_error(np.broadcast_to(constant, p.joints.shape), p.joints) * p.scale_mm[:, None]
    )
    assert found["mean_pose"]["P1"]["epe_mm"] == pytest.approx(errors_mm.mean())
    assert list(found["mean_pose"]) == ["P1", "P2", "P3", "P4", "P5"] and list(found["mean_hand"]) == ["P5"]
    ratios = found["ratios"]
    assert (
        ratios["P1_to_mean_pose"] == found["protocols"]["P1"]["epe_mm"] / found["mean_pose"]["P1"]["epe_mm"]
    )
    assert (
        ratios["P5_to_mean_hand"] == found["protocols"]["P5"]["epe_mm"] / found["mean_hand"]["P5"]["epe_mm"]
    )


def test_the_constant_guesses_are_scored_once_for_each_set_of_data(monkeypatch):
    first, of_other_hands = measured(), measured(joints=hands(7, 12))
    assert first["mean_pose"] != of_other_hands["mean_pose"]
    changes: list[dict] = [{}, {"joints": hands(7, 12)}, {"scale_mm": np.full(12, 31.0, np.float32)}, {}]
    counted = []
    whole = report_module.procrustes_mean_hand
    monkeypatch.setattr(report_module, "procrustes_mean_hand", lambda j: counted.append(1) or whole(j))
    reports = []
    for change in changes:
        again, other_model = measured(**change), measured(**change, pose=hands(8, 12))
        assert again["protocols"] != other_model["protocols"]
        for name in ("mean_pose", "mean_hand"):
            assert again[name] == other_model[name] and again[name] is not other_model[name]
        reports.append(again)
    assert len(counted) == len(changes)
    assert reports[0] == reports[3] == first and reports[1] == of_other_hands
    other_train = report(predictions(), hands(3, 30), np.full(30, 29.0))
    assert other_train["mean_hand"] != first["mean_hand"]


def test_report_of_latents_and_elbo():
    p = predictions()
    p.means["shape"][:, 1] = 0.3  # constant: carries nothing
    found = report(p, hands(2, 30), np.full(30, 29.0))
    for block in BLOCKS:
        posterior = torch.distributions.Normal(
            torch.from_numpy(p.means[block]), torch.from_numpy(p.logvars[block]).mul(0.5).exp()
        )
        kl = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0)).mean(0)
        assert found["latent"][block]["kl_per_dim"] == pytest.approx(kl.tolist(), rel=1e-5)
        assert found["latent"][block]["kl"] == pytest.approx(kl.sum().item(), rel=1e-5)
        assert found["latent"][block]["kl_mean_per_dim"] == pytest.approx(kl.mean().item(), rel=1e-5)
    assert [found["latent"][block]["active_units"] for block in BLOCKS] == [4, 3, 1]
    total = sum(p.terms[t].mean() for t in TERMS) + sum(found["latent"][b]["kl"] for b in BLOCKS)
    assert found["elbo"] == pytest.approx(-total, rel=1e-6)


def test_missing_clouds_masks_and_joints_are_nulls_not_nans():
    visible = np.ones((12, JOINTS), bool)
    visible[:, 7] = False
    nan = np.full(12, np.nan, np.float32)
    half = np.where(np.arange(12) < 6, nan, np.float32(25))
    found = measured(visible=visible, chamfer_mm=nan, psnr_hand_db=half)
    assert found["cloud"] == {"chamfer_mm": None, "chamfer_mm_interval": None}
    assert found["image"]["psnr_hand_db"] == 25.0
    assert found["protocols"]["P2"]["per_joint_mm"][7] is None
    assert found["protocols"]["P1"]["per_joint_mm"][7] > 0
    assert json.loads(report_json(found)) == found


def test_a_diverged_model_is_refused_by_name():
    bad = predictions().pose
    bad[3, 4, 1] = np.nan
    with pytest.raises(ValueError, match="pred holds 1 values that are not finite"):
        measured(pose=bad)
    terms = {t: np.full(12, np.inf if t == "image" else 1.0, np.float32) for t in TERMS}
    with pytest.raises(ValueError, match=r"terms\.image, elbo not finite"):
        report_json(measured(terms=terms))


def test_predictions_survive_the_disk(tmp_path):
    written = predictions()
    save_predictions(tmp_path / "predictions.npz", written)
    assert [f.name for f in tmp_path.iterdir()] == ["predictions.npz"]
    read = load_predictions(tmp_path / "predictions.npz")
    for name, array in written.to_arrays().items():
        np.testing.assert_array_equal(read.to_arrays()[name], array, err_msg=name)
        assert read.to_arrays()[name].dtype == array.dtype


def test_reading_predictions_that_are_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="python -m davae evaluate"):
        load_predictions(tmp_path / "predictions.npz")
    arrays = predictions().to_arrays()
    del arrays["logvar_shape"]
    np.savez(tmp_path / "predictions.npz", **arrays)
    with pytest.raises(ValueError, match="no array logvar_shape"):
        load_predictions(tmp_path / "predictions.npz")


def test_table_holds_the_numbers_it_is_given():
    found = measured()
    text = format_table(found, {"plain regressor": found["protocols"]})
    lines = text.splitlines()
    assert max(map(len, lines)) <= 100
    rows = {line[:16].strip(): line[16:].split() for line in lines if line[:16].strip()}
    epes = [f"{found['protocols'][p]['epe_mm']:.2f}" for p in metrics.PROTOCOLS]
    assert rows["da-VAE"] == epes == rows["plain regressor"]
    assert rows["mean hand"] == ["-"] * 4 + [f"{found['mean_hand']['P5']['epe_mm']:.2f}"]
    assert f"{found['ratios']['P1_to_mean_pose']:.3f} times the error of the mean pose" in text
    assert text.count("AUC") == 3 * 5 + 1


# --- skin tone ---------------------------------------------------------------------------------


def test_ita_of_known_colours_falls_into_del_binos_classes():
    """Six skins from light to dark, one for each class."""
    colours = np.array([[245, 225, 212], [220, 184, 150], [205, 165, 130], [180, 138, 102], [125, 85, 60],
                        [60, 40, 30]]) / 255  # fmt: skip
    lightness, _, b = rgb2lab(colours).T
    np.testing.assert_allclose(ita_degrees(colours), np.degrees(np.arctan((lightness - 50) / b)), atol=0.05)
    found = skin_tone_report(colours, np.ones(6), np.ones(6), np.ones(6))
    assert [values["n"] for values in found["classes"].values()] == [1] * 6


def greys(*ita_deg: float) -> np.ndarray:
    """Colours of skin of given angles, from the inverse of the definition, at b* = 15."""
    lab = np.array([(50 + 15 * np.tan(np.radians(a)), 8.0, 15.0) for a in ita_deg])
    return lab2rgb(lab)


def test_errors_by_skin_tone_by_hand():
    colours = greys(60, 50, 48, 20, -20, -45)
    left, grey = np.arange(1.0, 7), np.array([10.0, 2, 12, 8, 5, 24])
    found = skin_tone_report(colours, np.array([10.0, 20, 30, 40, 50, 60]), left, grey)
    assert (found["epe_mm"], found["squared_error"]) == (35.0, 3.5)
    classes = found["classes"]
    assert [values["n"] for values in classes.values()] == [1, 2, 0, 1, 1, 1]
    assert classes["light"]["epe_mm"] == 25.0 and classes["light"]["epe_mm_ratio"] == 25 / 35
    assert classes["light"]["epe_mm_interval"] == [20.0, 30.0]
    assert classes["dark"]["squared_error"] == 6.0 and classes["dark"]["squared_error_ratio"] == 6 / 3.5
    assert classes["very light"]["share_of_grey"] == 0.1 and classes["light"]["share_of_grey"] == 5 / 14
    assert found["share_of_grey"] == pytest.approx(21 / 61)
    absent = classes["intermediate"]
    assert absent["epe_mm"] is absent["squared_error_ratio"] is absent["share_of_grey"] is None
    json.loads(json.dumps(found, allow_nan=False))


def test_a_hand_without_a_pixel_has_no_tone():
    colours = np.concatenate([greys(60, 20), np.zeros((1, 3))])
    found = skin_tone_report(colours, np.array([10.0, 20, 1000]), np.ones(3), np.ones(3))
    assert found["epe_mm"] == 15.0 and sum(values["n"] for values in found["classes"].values()) == 2


def test_unequal_lengths_are_refused():
    with pytest.raises(ValueError, match=r"colours are \(2, 3\) and the errors \[3, 3, 3\] long"):
        skin_tone_report(greys(1, 2), np.ones(3), np.ones(3), np.ones(3))


def test_skin_tone_is_reported_and_printed():
    p = predictions()
    colours = greys(*np.linspace(70, -60, 12))
    found = report(p, hands(2, 30), np.full(30, 29.0), colours)
    assert found["skin_tone"]["epe_mm"] == pytest.approx(found["protocols"]["P1"]["epe_mm"])
    assert found["skin_tone"]["squared_error"] == pytest.approx(found["image"]["squared_error"])
    assert found["image"]["squared_error"] == pytest.approx((10 ** (-p.psnr_db / 10)).mean(), rel=1e-5)
    text = format_table(measured() | found)
    rows = {line[:12].strip(): line for line in text.splitlines()}
    for name, values in found["skin_tone"]["classes"].items():
        assert f"{values['epe_mm']:.2f}" in rows[name] and f"{values['epe_mm_ratio']:.2f}" in rows[name]
        assert rows[name].endswith(f"{values['share_of_grey']:.0%}")
    assert max(map(len, text.splitlines())) <= 100


def test_without_factors_the_report_says_why_there_are_no_tones():
    found = measured()
    assert list(found["skin_tone"]) == ["absent"] and "no factor" in found["skin_tone"]["absent"]
    assert "errors by skin tone: unknown" in format_table(found)
    found["skin_tone"] = {"epe_mm": 1.0, "classes": {}}  # as in reports of earlier versions
    assert "skin tone" not in format_table(found)
    del found["skin_tone"]  # of yet earlier ones
    assert "skin tone" not in format_table(found)


# --- with a model ------------------------------------------------------------------------------


class TinySplit:
    """A prepared split in memory: what `predict` and `load_batch` read of one."""

    def __init__(self, config, count: int, seed: int):
        rng = np.random.default_rng(seed)
        side = int(np.ceil(config.data.image_px * np.sqrt(2) / config.data.scale_min))
        side += (side - config.data.image_px) % 2
        self.images = rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
        self.masks = np.where(rng.random((count, side, side)) < 0.5, 255, 0).astype(np.uint8)
        self.joints = hands(seed, count)
        self.clouds = rng.normal(size=(count, 1024, 3)).astype(np.float32)
        self.has_cloud = np.arange(count) % 3 > 0
        self.has_mask = np.arange(count) % 4 > 0
        self.visible = np.ones((count, JOINTS), bool)
        self.scale_mm = rng.uniform(25, 35, count).astype(np.float32)
        self.root_mm = np.full((count, 3), 500, np.float32)
        self.rotation = np.broadcast_to(np.eye(3, dtype=np.float32), (count, 3, 3))
        self.camera = np.broadcast_to(np.eye(3, dtype=np.float32), (count, 3, 3))
        self.bone_px = np.full(count, 12, np.float32)
        self.mirrored = np.arange(count) % 2 > 0
        self.ids = np.arange(count, dtype=np.int64) + 100
        self.factors = {}
        self.manifest = {"dataset": "tiny", "digest": "0" * 64}
        self.name, self.predicted_masks, self.mask_network = "test", None, None

    def seen_through(self, mask):
        return self

    def __len__(self):
        return len(self.images)


@pytest.fixture(scope="module")
def tiny():
    config = preset("smoke")
    torch.manual_seed(0)
    return DaVAE(config.model).eval(), TinySplit(config, 37, 0), config


def test_predict_is_the_model_on_centred_crops(tiny):
    model, split, config = tiny
    p = predict(model, split, config, progress=False)
    np.testing.assert_array_equal(p.joints, split.joints)
    np.testing.assert_array_equal(p.ids, split.ids)
    np.testing.assert_array_equal(p.mirrored, split.mirrored)
    batch = centre(load_batch(split, np.arange(30, 37), "cpu"), config.data)
    with torch.inference_mode():
        output = model(batch.image)
    np.testing.assert_allclose(p.pose[30:], output.pose, atol=1e-5)
    for block in BLOCKS:
        np.testing.assert_allclose(p.means[block][30:], output.means[block], atol=1e-5)
    np.testing.assert_array_equal(np.isnan(p.chamfer_mm), ~split.has_cloud)
    np.testing.assert_array_equal(np.isnan(p.psnr_hand_db), ~split.has_mask)
    mse = (output.image - batch.target).square().mean(dim=(1, 2, 3))
    np.testing.assert_allclose(p.psnr_db[30:], -10 * mse.log10(), rtol=1e-5)


def test_joints_over_looks_are_those_of_turned_crops_turned_back(tiny):
    """A look shows the crop turned clockwise and enlarged: SciPy turns and enlarges it here."""
    model, split, config = tiny
    p = predict(model, split, config, views=3, progress=False)
    batch = centre(load_batch(split, np.arange(2), "cpu"), config.data)
    middle = (batch.image.shape[-1] - 1) / 2
    mean = 0
    for number in range(3):
        back = Rotation.from_euler("z", 120 * number, degrees=True).as_matrix()
        # SciPy counts rows first, so its matrix is the transpose of that of x and y.
        shown = back[:2, :2].T / ZOOM
        inside = {"offset": middle - shown @ [middle, middle], "order": 1, "mode": "grid-constant"}
        seen = [
            [affine_transform(c, shown, cval=MID_GREY, **inside) for c in image]
            for image in batch.image.numpy()
        ]
        with torch.inference_mode():
            joints = model(torch.tensor(np.array(seen))).pose.numpy()
        mean = mean + joints @ back.T / 3
    np.testing.assert_allclose(p.pose[:2], mean, atol=1e-4)
    once = predict(model, split, config, progress=False)
    np.testing.assert_array_equal(p.means["pose"], once.means["pose"])  # of the crop as it is
    assert np.abs(p.pose - once.pose).max() > 0.01


def test_predict_draws_the_objective_of_training(tiny):
    model, split, config = tiny
    p = predict(model, split, config, progress=False, seed=5)
    batch = centre(load_batch(split, np.arange(32), "cpu"), config.data)
    noise = torch.randn(32, model.latents, generator=torch.Generator().manual_seed(5))
    with torch.inference_mode():
        parts = objective(model(batch.image, noise), batch, config.loss)
    for term in TERMS:
        assert p.terms[term][:32].mean() == pytest.approx(parts.terms[term].item(), rel=1e-4)
    again = predict(model, split, config, progress=False, seed=5)
    np.testing.assert_array_equal(again.terms["image"], p.terms["image"])


@pytest.fixture
def run(tmp_path, tiny, monkeypatch):
    model, split, config = tiny
    train = TinySplit(config, 20, 1)
    monkeypatch.setattr(
        PreparedSplit, "open", lambda data_dir, name, **_: train if name == "train" else split
    )
    (tmp_path / "run").mkdir()
    runs.write_text(tmp_path / "run" / "config.json", config.to_json())
    runs.save_model(tmp_path / "run", model)
    return tmp_path / "run"


def test_a_run_keeps_the_report_of_its_own_data(run, tmp_path):
    runs.write_text(run / "identity.json", json.dumps({"data": "1" * 64, "sources": {}}))
    with pytest.raises(
        ValueError, match=r"trained on data 111111111111, .* holds data 000000000000; name a file"
    ):
        evaluate(run, tmp_path, device="cpu", progress=False)
    found = evaluate(run, tmp_path, tmp_path / "out.json", device="cpu", progress=False)
    assert (found["trained_on"], found["data"]) == ("1" * 64, "0" * 64)
    assert json.loads((tmp_path / "out.json").read_text()) == found
    assert not (run / "metrics.json").exists() and not (run / "predictions.npz").exists()


def test_a_run_keeps_the_report_of_one_view(run, tmp_path):
    with pytest.raises(ValueError, match="views is 17: expected 1 to 16"):
        evaluate(run, tmp_path, views=17, progress=False)
    with pytest.raises(ValueError, match=r"name a file for the report \(out\) of 8 views"):
        evaluate(run, tmp_path, views=8, progress=False)
    assert evaluate(run, tmp_path, tmp_path / "out.json", views=8, progress=False)["views"] == 8
    assert not (run / "metrics.json").exists() and not (run / "predictions.npz").exists()


def test_evaluate_leaves_its_files_in_the_run(run, tmp_path, tiny):
    found = evaluate(run, tmp_path, tmp_path / "deep" / "out.json", device="cpu", progress=False)
    written = json.loads((run / "metrics.json").read_text())
    assert written == found == json.loads((tmp_path / "deep" / "out.json").read_text())
    assert (found["n"], found["dataset"], found["model"], found["preset"]) == (37, "tiny", "da-VAE", "smoke")
    assert len(load_predictions(run / "predictions.npz").pose) == 37
    assert found["protocols"]["P1"]["epe_mm"] > 0 and found["mean_hand"]["P5"]["epe_mm"] > 0
    assert sum(block["kl"] for block in found["latent"].values()) > 0
    assert "da-VAE" in format_table(found)


def test_evaluate_sorts_errors_by_the_colour_of_each_hand(run, tmp_path, tiny, monkeypatch):
    _, split, _ = tiny
    assert "absent" in evaluate(run, tmp_path, device="cpu", progress=False)["skin_tone"]
    colours = greys(*np.where(np.arange(len(split)) % 3 == 0, -60.0, 20.0))
    monkeypatch.setattr(split, "factors", {"appearance/mean_colour": colours})
    found = evaluate(run, tmp_path, device="cpu", progress=False)
    p = load_predictions(run / "predictions.npz")
    errors_mm = np.linalg.norm(p.pose_mm - p.joints_mm, axis=-1).mean(1)
    classes = found["skin_tone"]["classes"]
    assert (classes["dark"]["n"], classes["tan"]["n"]) == (13, 24)
    assert classes["dark"]["epe_mm"] == pytest.approx(errors_mm[::3].mean())
    # Over all pixels of the test crop, inside and outside the mask alike.
    model, _, config = tiny
    batch = centre(load_batch(split, np.arange(len(split)), "cpu"), config.data)
    with torch.inference_mode():
        squared = (model(batch.image).image - batch.target).square().mean(dim=(1, 2, 3)).numpy()
    assert classes["dark"]["squared_error"] == pytest.approx(squared[::3].mean(), rel=1e-4)
    assert found["image"]["squared_error"] == pytest.approx(squared.mean(), rel=1e-4)


def test_validation_does_not_overwrite_the_test(run, tmp_path):
    evaluate(run, tmp_path, split="val", device="cpu", progress=False)
    assert (run / "metrics-val.json").exists() and not (run / "metrics.json").exists()
    assert (run / "predictions-val.npz").exists() and not (run / "predictions.npz").exists()


def test_from_prepared_hands_to_the_table(prepared, tiny_config, tmp_path):
    torch.manual_seed(0)
    runs.write_text(tmp_path / "config.json", tiny_config.to_json())
    runs.save_model(tmp_path, DaVAE(tiny_config.model))
    found = evaluate(tmp_path, prepared, tmp_path / "metrics.json", device="cpu", progress=False)
    test, train = PreparedSplit.open(prepared, "test"), PreparedSplit.open(prepared, "train")
    guess = np.broadcast_to(train.joints.mean(axis=0), test.joints.shape)
    expected = (np.linalg.norm(guess - test.joints, axis=-1) * test.scale_mm[:, None]).mean()
    assert found["mean_pose"]["P1"]["epe_mm"] == pytest.approx(expected, rel=1e-4)
    assert found["n"] == len(test) and found["data"] == test.manifest["digest"]
    assert found["cloud"]["chamfer_mm"] > 0 and found["image"]["psnr_hand_db"] > 0
    assert str(found["n"]) in format_table(found)


def test_evaluate_names_the_command_where_there_is_no_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="python -m davae train"):
        evaluate(tmp_path / "nothing", tmp_path)
