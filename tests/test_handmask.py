"""The hand mask network: shapes, training, masks stored beside prepared data, report."""

import dataclasses
import json
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from rhd_fixture import random_scene, write_dataset, write_split
from torch.nn import functional as F

from davae import figures
from davae.config import PRESETS, DataConfig, MaskConfig, TrainConfig, mask_preset
from davae.config.reading import read_config
from davae.data import predicted
from davae.data.augment import augment, centre, load_batch
from davae.data.prepared import PreparedSplit, prepare
from davae.evaluation import evaluate, evaluate_masks, format_masks, predict_masks
from davae.evaluation.masks import mask_report
from davae.evaluation.skin_tone import CLASSES, skin_tone_classes
from davae.networks import HandMaskNet
from davae.networks.handmask import enlarge
from davae.pipeline.workspace import Workspace
from davae.training import runs
from davae.training.davae_task import train
from davae.training.mask_inference import mask_iou, predict_probability
from davae.training.mask_task import mask_loss, train_mask
from davae.training.optimisers import build_optimisers, take_step

SCRIPT = """
import os, signal, sys
from pathlib import Path
import torch
from davae.config import MaskConfig
from davae.config.reading import read_config
from davae.training.mask_task import train_mask
from davae.training.trainer import Trainer

config, data, run, kill_at = sys.argv[1:]
take_step = Trainer.train_step

def step_or_die(self):
    if self.step == int(kill_at):
        os.kill(os.getpid(), signal.SIGKILL)
    return take_step(self)

Trainer.train_step = step_or_die
torch.set_num_threads(1)
train_mask(read_config(MaskConfig, Path(config).read_text()), data, run, progress=False)
"""
NEVER = -1


@pytest.fixture(scope="module")
def short() -> MaskConfig:
    config = mask_preset("smoke")
    train = dataclasses.replace(
        config.train, steps=12, batch_size=8, warmup_steps=2, checkpoint_every=4, average_decay=0.9
    )
    return dataclasses.replace(config, train=train)


@pytest.fixture(scope="module")
def data(tmp_path_factory, tiny_config):
    """A prepared folder of this module's own, since predicted masks are written into it."""
    root = write_dataset(tmp_path_factory.mktemp("rhd"), train=12, val=4, test=5)
    return prepare("synthhand", root, tmp_path_factory.mktemp("masks"), tiny_config.data, progress=False)


@pytest.fixture(scope="module")
def mask_run(short, data, tmp_path_factory):
    run = train_mask(short, data, tmp_path_factory.mktemp("runs") / "mask", progress=False)
    evaluate_masks(run, data, progress=False)
    predict_masks(run, data, progress=False)
    return run


def count(module):
    return sum(p.numel() for p in module.parameters())


# The network


def test_encoder_of_the_paper_preset_is_resnet34():
    with torch.device("meta"):
        network = HandMaskNet(mask_preset("paper"))
    assert count(network.encoder) == 21_284_672  # torchvision's, without its classifier
    assert count(network) < 1.01 * count(network.encoder), "the decoder is light"


@pytest.mark.parametrize("name", ["smoke", "paper"])
def test_logits_have_half_the_side_of_any_crop(name):
    network = HandMaskNet(mask_preset(name)).eval()
    for side in (33, 63, 64, 114):
        image = torch.rand(1, 3, side, side + 3)
        with torch.inference_mode():
            logits = network(image)
        assert logits.shape == (1, 1, -(-side // 2), -(-(side + 3) // 2))
        assert enlarge(logits, image).shape == (1, 1, side, side + 3)


def test_every_weight_takes_part():
    network = HandMaskNet(mask_preset("smoke"))
    network(torch.rand(2, 3, 64, 64)).square().sum().backward()
    assert not [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]


def test_a_few_discs_can_be_learned_by_heart():
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    circles = torch.tensor([[32, 32, 12], [28, 36, 9], [36, 30, 16], [31, 27, 7]])
    discs = ((x - circles[:, :1, None]) ** 2 + (y - circles[:, 1:2, None]) ** 2).sqrt() < circles[:, 2:, None]
    mask = discs[:, None].float()
    image = (0.4 + 0.2 * mask + 0.2 * torch.rand(4, 3, 64, 64)).clamp(0, 1)
    settings = TrainConfig(optimiser="muon")
    network = HandMaskNet(mask_preset("smoke"))
    movers, everyone = build_optimisers(network, settings), torch.ones(4, dtype=torch.bool)
    for _ in range(60):
        loss = mask_loss(network(image), mask, everyone)
        network.zero_grad(set_to_none=True)
        loss.total.backward()
        take_step(movers, 1e-2)
    with torch.inference_mode():  # by the batch's own statistics, which so short a training leaves behind
        assert mask_iou(enlarge(network(image), image).sigmoid(), mask).min() > 0.93


def test_loss_is_cross_entropy_and_soft_iou_of_the_samples_that_have_a_mask():
    logits = torch.randn(3, 1, 8, 8)
    truth = (torch.rand(3, 1, 16, 16) > 0.6).float()
    loss = mask_loss(logits, truth, torch.tensor([True, False, True]))
    p, t = enlarge(logits, truth).sigmoid()[[0, 2]].double(), truth[[0, 2]].double()
    entropy = -(t * p.log() + (1 - t) * (1 - p).log()).mean()
    overlap = [((a * b).sum() + 1) / ((a + b - a * b).sum() + 1) for a, b in zip(p, t, strict=True)]
    assert loss.terms["cross_entropy"].item() == pytest.approx(entropy.item(), rel=1e-5)
    assert loss.terms["soft_iou"].item() == pytest.approx(1 - np.mean(overlap), rel=1e-5)
    assert loss.total.item() == pytest.approx(sum(term.item() for term in loss.terms.values()))
    assert mask_loss(logits, truth, torch.zeros(3, dtype=torch.bool)).total == 0


def test_iou_is_that_of_sets_of_pixels():
    rng = np.random.default_rng(0)
    soft, truth = rng.random((20, 1, 9, 7)), rng.random((20, 1, 9, 7))
    soft[0] = truth[0] = 0.0  # two empty masks agree
    soft[1], truth[1] = 0.0, 1.0
    found = mask_iou(torch.from_numpy(soft), torch.from_numpy(truth)).numpy()
    for row, value in enumerate(found):
        a, b = ({tuple(at) for at in np.argwhere(m[row] > 0.5)} for m in (soft, truth))
        assert value == pytest.approx(len(a & b) / len(a | b) if a | b else 1.0)
    assert found[0] == 1 and found[1] == 0


def test_probability_is_the_mean_over_quarter_turns():
    class Left(torch.nn.Module):
        """Says hand, all but surely, of the left half of what it is shown."""

        def forward(self, image):
            logits = torch.full((len(image), 1, *(side // 2 for side in image.shape[2:])), -20.0)
            logits[..., : logits.shape[3] // 2] = 20.0
            return logits

    found = predict_probability(Left(), torch.rand(1, 3, 16, 16))[0, 0]
    torch.testing.assert_close(found[2:6, 2:6], torch.full((4, 4), 0.5))
    torch.testing.assert_close(found, torch.rot90(found))
    once = predict_probability(Left(), torch.rand(1, 3, 16, 16), 1)[0, 0]
    assert once[:, :7].min() > 0.99 and once[:, 9:].max() < 0.01


# Training


def test_mask_config_survives_json_and_sweep_shares_laptops():
    for name in PRESETS:
        config = mask_preset(name)
        assert read_config(MaskConfig, config.to_json()) == config
    assert mask_preset("sweep") == mask_preset("laptop")


def test_run_folder_and_frozen_network(mask_run, short):
    names = {path.name for path in mask_run.iterdir()}
    assert names == {
        "config.json", "identity.json", "environment.txt", "metrics.csv", "metrics.json", "model.safetensors"
    }  # fmt: skip
    network, config = runs.load_mask_network(mask_run)
    assert config == short and not network.training
    assert not any(p.requires_grad for p in network.parameters())
    sources = json.loads((mask_run / "identity.json").read_text())["sources"]
    assert {"networks/handmask.py", "training/mask_task.py", "training/trainer.py"} <= sources.keys()
    assert "networks/handmask.py" not in runs.Identity.of("digest").sources  # no part of da-VAE
    log = (mask_run / "metrics.csv").read_text().splitlines()
    assert log[0] == "step,seconds,learning_rate,val_iou,total,cross_entropy,soft_iou"
    assert log[-1].startswith("12,")


def test_killed_in_the_middle_and_resumed_is_bit_for_bit_the_unbroken_run(short, data, mask_run, tmp_path):
    config_file, broken = tmp_path / "config.json", tmp_path / "broken"
    config_file.write_text(short.to_json())
    (tmp_path / "train.py").write_text(SCRIPT)

    def run_until(kill_at):
        command = [sys.executable, tmp_path / "train.py", config_file, data, broken, str(kill_at)]
        return subprocess.run(command).returncode

    assert run_until(10) == -signal.SIGKILL
    assert runs.load_resume_point(broken)["step"] == 8 and not runs.is_finished(broken)
    assert run_until(NEVER) == 0
    assert (broken / "model.safetensors").read_bytes() == (mask_run / "model.safetensors").read_bytes()
    other = dataclasses.replace(short, width=24)
    with pytest.raises(runs.RunMismatchError, match=r"config.width: the run has 16, asked for 24"):
        train_mask(other, data, broken, progress=False)


def test_data_without_masks_or_of_another_size_are_refused(short, data, tmp_path, monkeypatch):
    larger = dataclasses.replace(short, data=dataclasses.replace(short.data, image_px=96))
    with pytest.raises(ValueError, match="prepared with image_px 64, this run needs 96"):
        train_mask(larger, data, tmp_path / "run", progress=False)
    for field in ("steady_target", "canvas"):
        other = dataclasses.replace(short, data=dataclasses.replace(short.data, **{field: True}))
        with pytest.raises(ValueError, match=rf"data.{field} is true, but a mask network's target is"):
            train_mask(other, data, tmp_path / "run", progress=False)
    seen = dataclasses.replace(short, data=dataclasses.replace(short.data, mask="truth"))
    with pytest.raises(ValueError, match=r"data.mask is 'truth', but a mask network must see the crop"):
        train_mask(seen, data, tmp_path / "run", progress=False)
    without_masks(monkeypatch)
    with pytest.raises(ValueError, match="train has no masks to learn from"):
        train_mask(short, data, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def without_masks(monkeypatch, *names):
    """From here on, these splits, or all, look as those of a dataset that has no masks."""
    opened = PreparedSplit.open.__func__

    def open_without(cls, data_dir, split):
        found = opened(cls, data_dir, split)
        if names and split not in names:
            return found
        empty = {"masks": np.zeros_like(found.masks), "has_mask": np.zeros(len(found), bool)}
        return dataclasses.replace(found, **empty)

    monkeypatch.setattr(PreparedSplit, "open", classmethod(open_without))


def test_the_other_hand_is_not_the_truth(tmp_path, tiny_config):
    """Where a picture shows two hands, the truth is the dominant one alone."""
    both = [random_scene(seed) for seed in range(6)]
    alone = [dataclasses.replace(s, hands={k: v for k, v in [next(iter(s.hands.items()))]}) for s in both]
    splits = []
    for name, scenes in (("both", both), ("alone", alone)):
        for folder in ("training", "validation", "evaluation"):
            write_split(tmp_path / name, folder, dict(enumerate(scenes)))
        out = tmp_path / f"{name}-out"
        prepare("synthhand", tmp_path / name, out, tiny_config.data, progress=False)
        splits.append(PreparedSplit.open(out, "train"))
    seen = np.asarray(splits[0].images) != np.asarray(splits[1].images)
    assert seen.any(axis=(1, 2, 3)).sum() >= 2, "in some crops the other hand shows"
    np.testing.assert_array_equal(splits[0].masks, splits[1].masks)


# Predicted masks


def test_predicted_masks_are_the_networks_own_row_by_row(mask_run, data, short):
    network, _ = runs.load_mask_network(mask_run)
    for name in ("train", "val", "test"):
        split = PreparedSplit.open(data, name)
        assert split.predicted_masks.shape == split.masks.shape and split.predicted_masks.dtype == np.uint8
        margin = (split.masks.shape[1] - 64) // 2
        for row in range(len(split)):
            image = torch.from_numpy(split.images[row, margin:-margin, margin:-margin].copy())
            alone = predict_probability(network, image.permute(2, 0, 1)[None] / 255)[0, 0].numpy()
            stored = np.asarray(split.predicted_masks[row], int)
            np.testing.assert_allclose(stored[margin:-margin, margin:-margin], 255 * alone, atol=0.51)
            stored[margin:-margin, margin:-margin] = 0
            assert not stored.any()
    about = json.loads((data / predicted.FILE_NAME).read_text())
    assert about["network"] == runs.weights_digest(mask_run) and about["run"] == "mask"
    assert read_config(MaskConfig, json.dumps(about["config"])) == short
    assert about["iou"] == json.loads((mask_run / "metrics.json").read_text())["test"]["iou"]


def test_masks_are_kept_or_replaced_and_never_half_written(mask_run, data, short, tmp_path, monkeypatch):
    files = [predicted.predicted_path(data, name) for name in ("train", "val", "test")]
    before = [path.stat().st_mtime_ns for path in files]
    assert predict_masks(mask_run, data, progress=False) is False
    assert [path.stat().st_mtime_ns for path in files] == before
    settings = dataclasses.replace(short.train, seed=1, steps=2)
    other = train_mask(dataclasses.replace(short, train=settings), data, tmp_path / "other", progress=False)

    with monkeypatch.context() as patch:
        patch.setattr(predicted, "write_json", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            predict_masks(other, data, progress=False)
    assert PreparedSplit.open(data, "test").predicted_masks is None, "nobody's masks are not read"
    assert predict_masks(other, data, progress=False) is True
    theirs = PreparedSplit.open(data, "test")
    assert theirs.mask_network["network"] == runs.weights_digest(other) and theirs.mask_network["iou"] is None
    assert predict_masks(mask_run, data, progress=False) is True  # as the other tests expect it
    files[0].write_bytes(files[0].read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"predicted_masks\.npy: damaged"):
        PreparedSplit.open(data, "train")
    files[0].write_bytes(files[0].read_bytes() + b"\x55" * 100)
    with pytest.raises(ValueError, match=r"predicted_masks\.npy: has changed since .*predict-masks"):
        PreparedSplit.open(data, "train")
    (data / predicted.FILE_NAME).unlink()
    predict_masks(mask_run, data, progress=False)


def test_a_network_serves_data_without_masks(mask_run, data, monkeypatch, tmp_path):
    """The way to STB: its masks are predicted, and stand for the truth in the target."""
    without_masks(monkeypatch)
    (data / predicted.FILE_NAME).unlink()
    assert predict_masks(mask_run, data, progress=False)
    split, rows = PreparedSplit.open(data, "train"), np.arange(4)
    config = dataclasses.replace(DataConfig(image_px=64, cloud_points=8), mask="network")
    batch = augment(load_batch(split, rows), config, torch.Generator().manual_seed(0))
    assert torch.equal(batch.image, batch.target) and not batch.has_mask.any()
    assert 0 < batch.mask.mean() < 1
    with pytest.raises(ValueError, match="this dataset has no masks"):
        split.seen_through("truth")


# What the input is seen through


def modes(split, rows, run=lambda raw, config: augment(raw, config, torch.Generator().manual_seed(3))):
    config = DataConfig(image_px=64, cloud_points=8)
    raw = load_batch(split, rows)
    return {m: run(raw, dataclasses.replace(config, mask=m)) for m in ("none", "truth", "network")}


@pytest.mark.parametrize("cut", ["augment", "centre"])
def test_masks_turn_with_the_image(mask_run, data, cut):
    """With the truth for a prediction, "network" is "truth", and both are the target of "none"."""
    split = PreparedSplit.open(data, "train")
    split = dataclasses.replace(split, predicted_masks=split.masks)
    found = modes(split, np.arange(6), *([centre] if cut == "centre" else []))
    none, truth, network = found["none"], found["truth"], found["network"]
    for batch in (truth, network):
        torch.testing.assert_close(batch.image, none.target, rtol=0, atol=1e-6)
        torch.testing.assert_close(batch.target, none.target, rtol=0, atol=1e-6)
        torch.testing.assert_close(batch.mask, none.mask, rtol=0, atol=1e-6)
        assert torch.equal(batch.joints, none.joints)
    assert (none.image - none.target).abs().max() > 0.1


def test_the_input_is_seen_through_the_prediction_and_the_target_through_the_truth(mask_run, data):
    found = modes(PreparedSplit.open(data, "train"), np.arange(6))
    assert torch.equal(found["network"].target, found["none"].target)
    raw = load_batch(PreparedSplit.open(data, "train"), np.arange(6))
    swapped = raw._replace(masks=raw.predicted_masks)
    config = DataConfig(image_px=64, cloud_points=8)
    expected = augment(swapped, config, torch.Generator().manual_seed(3)).target
    torch.testing.assert_close(found["network"].image, expected, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="predict-masks"):
        centre(raw._replace(predicted_masks=None), dataclasses.replace(config, mask="network"))


def test_runs_belong_to_the_masks_they_were_trained_on(mask_run, data, short, tiny_config, tmp_path):
    config = dataclasses.replace(tiny_config, data=dataclasses.replace(tiny_config.data, mask="network"))
    run = train(config, data, tmp_path / "run", progress=False)
    identity = runs.identity_of(run)
    assert identity.masks == PreparedSplit.open(data, "train").mask_network["digest"]
    assert evaluate(run, data, progress=False)["mask"] == "network"
    settings = dataclasses.replace(short.train, seed=2, steps=2)
    other = train_mask(dataclasses.replace(short, train=settings), data, tmp_path / "other", progress=False)
    predict_masks(other, data, progress=False)
    with pytest.raises(runs.RunMismatchError, match="mask network: the run has"):
        train(config, data, run, progress=False)
    with pytest.raises(ValueError, match="predict them with that network"):
        evaluate(run, data, progress=False)
    predict_masks(mask_run, data, progress=False)
    assert runs.identity_of(train(config, data, run, progress=False)) == identity


def test_missing_masks_name_the_command(prepared, tiny_config, tmp_path):
    config = dataclasses.replace(tiny_config, data=dataclasses.replace(tiny_config.data, mask="network"))
    with pytest.raises(ValueError, match=r"davae predict-masks --mask-run RUN --data"):
        train(config, prepared, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_a_workspace_makes_the_masks_it_needs(tmp_path, monkeypatch, tiny_config):
    def space(mask, seed=0):
        return Workspace.of("smoke", home=str(tmp_path), mask=mask, seed=seed)

    names = [space(mask).run.name for mask in ("none", "truth", "network")]
    assert names == ["smoke-da-seed0", "smoke-da-seed0-truth-mask", "smoke-da-seed0-network-mask"]
    assert space("network", seed=3).mask_run == space("none").mask_run  # it belongs to the data
    assert [space(mask).notebook_parameters["mask"] for mask in ("none", "truth")] == ["none", "truth"]
    presets = {}
    for name in PRESETS:
        on_rhd = Workspace.of(name, home=str(tmp_path), dataset="rhd", root="x", mask="network")
        presets.setdefault(on_rhd.mask_run, set()).add(mask_preset(name))
    assert len(presets) == 4 and all(len(configs) == 1 for configs in presets.values())
    with pytest.raises(ValueError, match="unknown mask 'thick'; choose one of none, truth, network"):
        space("thick")

    masked = dataclasses.replace(tiny_config, data=dataclasses.replace(tiny_config.data, mask="network"))
    masked = dataclasses.replace(masked, render=dataclasses.replace(masked.render, train=6, val=2, test=2))
    home = Workspace(masked, tmp_path)
    small = dataclasses.replace(mask_preset("smoke").train, steps=2, batch_size=4)
    monkeypatch.setattr("davae.config.settings.mask_preset", lambda name: MaskConfig(
        mask_preset("smoke").data, 8, (1, 1, 1, 1), stem_pool=False, decoder=8, train=small))  # fmt: skip
    run = home.ensure_trained()
    assert runs.identity_of(run).mask_network == runs.weights_digest(home.mask_run)
    assert (home.mask_run / "metrics.json").exists()
    before = (home.mask_run / "metrics.json").stat().st_mtime_ns
    assert home.ensure_trained() == run and home.ensure_evaluated()["mask"] == "network"
    assert (home.mask_run / "metrics.json").stat().st_mtime_ns == before


# The report


def test_report_is_by_skin_tone(mask_run, data):
    colours = np.array([[0.95, 0.85, 0.8], [0.35, 0.22, 0.15], [0.95, 0.85, 0.8], [0.0, 0.0, 0.0]])
    ious = np.array([0.9, 0.5, 0.8, 0.1])
    found = mask_report(ious, colours)
    member = skin_tone_classes(colours)
    assert member[0] == member[2] and member[3] == -1
    light, dark = (list(CLASSES)[index] for index in member[:2])
    assert found["n"] == 4 and found["iou"] == pytest.approx(ious.mean())
    assert found["classes"][light]["n"] == 2 and found["classes"][light]["iou"] == pytest.approx(0.85)
    assert found["classes"][dark]["iou"] == 0.5
    assert sum(c["n"] for c in found["classes"].values()) == 3  # one hand does not show
    measured = evaluate_masks(mask_run, data, progress=False)
    assert measured == json.loads((mask_run / "metrics.json").read_text())
    split = PreparedSplit.open(data, "test")
    batch = centre(load_batch(split, np.arange(len(split))), DataConfig(image_px=64))
    network, _ = runs.load_mask_network(mask_run)
    expected = mask_iou(predict_probability(network, batch.image), batch.mask).mean().item()
    assert measured["test"]["iou"] == pytest.approx(expected, rel=1e-5)
    both = {"dataset": "synthhand", "val": found, "test": found}
    assert "0.575" in format_masks(both) and light in format_masks(both)
    assert light not in format_masks(measured)  # this dataset does not say what colour its hands have


def test_a_test_split_without_masks_is_left_out_of_the_report(mask_run, data, monkeypatch, tmp_path):
    """As that of FreiHAND, whose evaluation has none."""
    run = shutil.copytree(mask_run, tmp_path / "run")
    before = json.loads((run / "metrics.json").read_text())
    without_masks(monkeypatch, "test")
    measured = evaluate_masks(run, data, progress=False)
    assert measured["val"] == before["val"] and measured["val"]["n"] > 0
    assert measured["test"] == dict.fromkeys(before["test"]) | {"n": 0}
    assert json.loads((run / "metrics.json").read_text()) == measured
    assert format_masks(measured).splitlines()[-1].split()[-2:] == ["0", "-"]
    without_masks(monkeypatch)
    with pytest.raises(ValueError, match="neither val nor test has masks to measure against; give the data"):
        evaluate_masks(run, data, progress=False)


def test_figures_of_masks():
    rng = np.random.default_rng(0)
    truth, soft = (F.avg_pool2d(torch.from_numpy(rng.random((9, 32, 32))), 5, 1, 2).numpy() for _ in "ab")
    ious = rng.random(9)
    figure = figures.mask_comparison(rng.random((9, 32, 32, 3)), truth, soft, ious)
    assert len(figure.axes) == 4 * 9
    difference = figure.axes[27].images[0].get_array()  # of the best
    best = np.argmax(ious)
    np.testing.assert_array_equal(
        (difference != 1).any(axis=2) & (np.ptp(difference, axis=2) > 0),
        (truth[best] > 0.5) ^ (soft[best] > 0.5),
    )
    figure = figures.iou_histogram({"light": ious, "dark": ious[:0]}, target=0.9)
    assert len(figure.axes) == 1
    with pytest.raises(ValueError, match="no image"):
        figures.iou_histogram({"dark": ious[:0]})
