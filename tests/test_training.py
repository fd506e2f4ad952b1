"""Training: learning, exact resuming after a kill, refusals, and the run folder."""

import csv
import dataclasses
import io
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from davae.config import BLOCKS, TrainConfig
from davae.data.augment import centre, load_batch
from davae.data.prepared import PreparedSplit
from davae.evaluation import evaluate, load_predictions
from davae.losses import objective
from davae.networks import DaVAE
from davae.training import davae_task, identity, runs
from davae.training.davae_task import initial_weights, train
from davae.training.log import MetricsLog
from davae.training.optimisers import build_average, build_optimisers, measure_gradient, take_step
from davae.training.schedule import batch_indices, learning_rate
from davae.training.task import Examples
from davae.training.trainer import TrainingDivergedError
from synthhand.storage import exclusive, temporary_path

SCRIPT = """
import os, signal, sys
from pathlib import Path
import torch
from davae.config import Config
from davae.config.reading import read_config
from davae.training.davae_task import initial_weights, train
from davae.training.trainer import Trainer

config, data, run, kill_at = sys.argv[1:]
take_step = Trainer.train_step

def step_or_die(self):
    if self.step == int(kill_at):
        os.kill(os.getpid(), signal.SIGKILL)
    return take_step(self)

Trainer.train_step = step_or_die
torch.set_num_threads(1)
train(read_config(Config, Path(config).read_text()), data, run, progress=False)
"""
NEVER = -1


def settings_for(config, **train):
    return dataclasses.replace(config, train=dataclasses.replace(config.train, **train))


@pytest.fixture(scope="module")
def short(tiny_config):
    return settings_for(
        tiny_config, steps=12, batch_size=8, warmup_steps=2, checkpoint_every=4, average_decay=0.9
    )


@pytest.fixture(scope="module")
def finished(short, prepared, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "unbroken"
    return train(short, prepared, run, progress=False)


def weights(run):
    return (run / "model.safetensors").read_bytes()


def test_run_folder_holds_what_it_promises(finished, short):
    names = {path.name for path in finished.iterdir()}
    assert names == {
        "config.json",
        "identity.json",
        "environment.txt",
        "metrics.csv",
        "terms.txt",
        "model.safetensors",
    }
    model, config = runs.load_model(finished)
    assert config == short and not model.training
    with (finished / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [rows[0]["step"], rows[-1]["step"]] == ["1", "12"]
    assert float(rows[-1]["val_epe_mm"]) > 0
    for row in rows:
        parts = sum(float(row[name]) for name in row if name.startswith(("alpha_", "beta_")))
        assert float(row["total"]) == pytest.approx(parts, rel=1e-4)
        assert float(row["kl_pose_per_dim"]) == pytest.approx(float(row["kl_pose"]) / 24, rel=1e-4)
    table = (finished / "terms.txt").read_text()
    assert all(f"alpha_{term}" in table for term in ("pose", "cloud", "image")) and "beta_shape" in table


@pytest.mark.parametrize("divided", [True, False])
def test_validation_measures_the_joints_of_the_whole_network(short, prepared, divided):
    config = dataclasses.replace(
        short, model=dataclasses.replace(short.model, divided=divided, image_decoder="paper")
    )
    task = davae_task.DaVAETask(config)
    network, split = task.build().eval(), PreparedSplit.open(prepared, "val")
    indices = np.arange(len(split))
    batch = centre(load_batch(split, indices), config.data)
    with torch.inference_mode():
        measured = task.measure(network, Examples(batch, split, indices, slice(None), torch.Generator()))
        errors = torch.linalg.vector_norm(network(batch.image).pose - batch.joints, dim=2).mean(1)
    assert measured == pytest.approx(float((errors * batch.scale_mm).sum()), rel=1e-5)


def test_an_undivided_code_is_trained_evaluated_and_read_as_three_parts(short, prepared, tmp_path):
    model = dataclasses.replace(short.model, divided=False, image_decoder="paper")
    config = dataclasses.replace(short, model=model)
    run = train(config, prepared, tmp_path / "run", progress=False)
    report = evaluate(run, prepared, progress=False)
    assert report["model"] == "da-VAE, undivided" and set(report["latent"]) == set(BLOCKS)
    model, found = runs.load_model(run)
    assert found == config and model.pose_decoder[0].in_features == 48
    predicted = load_predictions(run / "predictions.npz")
    with torch.inference_mode():
        means = {block: torch.from_numpy(mean) for block, mean in predicted.means.items()}
        joints = model.decode_pose(means) * torch.from_numpy(predicted.scale_mm)[:, None, None]
    assert_close(joints, torch.from_numpy(predicted.pose_mm), check_dtype=False)


def test_killed_in_the_middle_and_resumed_is_bit_for_bit_the_unbroken_run(short, prepared, tmp_path):
    """kill -9 before the first resume point, then between two, then run to the end: the same bytes."""
    config_file, unbroken, broken = tmp_path / "config.json", tmp_path / "unbroken", tmp_path / "broken"
    config_file.write_text(short.to_json())
    (tmp_path / "train.py").write_text(SCRIPT)

    def run_until(kill_at, run):
        return subprocess.run(
            [sys.executable, tmp_path / "train.py", config_file, prepared, run, str(kill_at)]
        ).returncode

    assert run_until(NEVER, unbroken) == 0
    for kill_at, resumes_from in ((3, None), (10, 8)):
        assert run_until(kill_at, broken) == -signal.SIGKILL
        assert not runs.is_finished(broken)
        state = runs.load_resume_point(broken)
        assert (state and state["step"]) == resumes_from
    assert run_until(NEVER, broken) == 0
    assert weights(broken) == weights(unbroken)
    assert strip_time(broken / "metrics.csv") == strip_time(unbroken / "metrics.csv")


def strip_time(path):
    with path.open() as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's ever full device")
@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("resume.pt", lambda run: runs.save_resume_point(run, {"step": 1, "a": torch.zeros(100_000)})),
        ("model.safetensors", lambda run: runs.save_model(run, torch.nn.Linear(100, 100))),
        ("metrics.csv", lambda run: MetricsLog(run / "metrics.csv").append({"step": 1.0})),
    ],
)
def test_a_full_disk_is_named_by_every_file_of_a_run(tmp_path, name, write):
    """PyTorch and safetensors have errors of their own for it, which say neither file nor cause."""
    place = tmp_path / name
    (place if name == "metrics.csv" else temporary_path(place)).symlink_to("/dev/full")
    with pytest.raises(OSError, match=rf"No space left on device; make room.*{name}'"):
        write(tmp_path)


def test_finished_run_is_loaded_not_trained_again(finished, short, prepared):
    before = weights(finished), (finished / "model.safetensors").stat().st_mtime_ns
    assert train(short, prepared, finished, progress=False) == finished
    assert before == (weights(finished), (finished / "model.safetensors").stat().st_mtime_ns)


def test_other_config_is_refused_with_every_difference(finished, short, prepared):
    before = weights(finished)
    other = dataclasses.replace(
        settings_for(short, steps=13), loss=dataclasses.replace(short.loss, beta_pose=3.0)
    )
    with pytest.raises(runs.RunMismatchError) as caught:
        train(other, prepared, finished, progress=False)
    assert "config.train.steps: the run has 12, asked for 13" in str(caught.value)
    assert "config.loss.beta_pose: the run has 10.0, asked for 3.0" in str(caught.value)
    assert weights(finished) == before


def test_a_run_older_than_a_field_is_still_this_experiment(finished, short, prepared, tmp_path):
    copy = shutil.copytree(finished, tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text())
    assert config["data"].pop("blur") == 0 and not config["data"].pop("steady_target")
    (copy / "config.json").write_text(json.dumps(config))
    assert train(short, prepared, copy, progress=False) == copy
    assert weights(copy) == weights(finished)


def test_other_code_or_data_is_refused(finished, short, prepared, tmp_path):
    identity = json.loads((finished / "identity.json").read_text())
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "config.json").write_text(short.to_json())
    identity["sources"]["losses.py"] = "0" * 16
    identity["data"] = "f" * 64
    (copy / "identity.json").write_text(json.dumps(identity))
    with pytest.raises(runs.RunMismatchError) as caught:
        train(short, prepared, copy, progress=False)
    assert "code of davae/losses.py has changed" in str(caught.value)
    assert "prepared data: the run has ffffffffffff" in str(caught.value)


def test_a_run_may_begin_with_the_weights_of_another(finished, short, prepared, tmp_path):
    still = settings_for(short, learning_rate=1e-12, average_decay=0.0, seed=5)
    moved = train(still, prepared, tmp_path / "moved", init=finished, progress=False)
    drawn = train(still, prepared, tmp_path / "drawn", progress=False)
    (first, _), (after, _), (random, _) = (runs.load_model(run) for run in (finished, moved, drawn))
    for name, value in first.named_parameters():
        assert_close(after.get_parameter(name), value, atol=1e-6, rtol=0)
    assert (random.encoder.trunk.conv1.weight - after.encoder.trunk.conv1.weight).abs().max() > 0.01
    message = r"weights to begin with: the run has '[0-9a-f]+', asked for None"
    with pytest.raises(runs.RunMismatchError, match=message):
        train(still, prepared, tmp_path / "moved", progress=False)
    assert train(still, prepared, tmp_path / "moved", init=finished, progress=False) == tmp_path / "moved"


def test_a_decoder_of_another_kind_begins_at_random(finished, short, prepared, tmp_path):
    """The trunk is worth keeping when another image decoder takes the place of the run's."""
    still = settings_for(short, learning_rate=1e-12, average_decay=0.0)
    assert short.model.image_decoder == "limbs"
    paper = dataclasses.replace(
        still, model=dataclasses.replace(still.model, image_decoder="paper", image_width=12)
    )
    before, _ = runs.load_model(finished)
    after, _ = runs.load_model(train(paper, prepared, tmp_path / "run", init=finished, progress=False))
    kept = [name for name, _ in after.named_parameters() if not name.startswith("image_decoder.")]
    assert any(name.startswith("cloud_decoder.") for name in kept)
    for name in kept:
        assert_close(after.get_parameter(name), before.get_parameter(name), atol=1e-6, rtol=0)
    coarser = dataclasses.replace(paper, model=dataclasses.replace(paper.model, fold_grid=7))
    with pytest.raises(ValueError, match=r"another network: model\.fold_grid"):
        train(coarser, prepared, tmp_path / "coarser", init=finished, progress=False)


def test_a_run_may_begin_with_weights_learnt_on_smaller_images(finished, short):
    """All but the paper's image decoder, whose layers go with the size of its picture."""
    larger = dataclasses.replace(
        short,
        data=dataclasses.replace(short.data, image_px=2 * short.data.image_px),
        model=dataclasses.replace(short.model, image_px=2 * short.model.image_px, stem_pool=True),
    )
    model, _ = runs.load_model(finished)
    names = set(model.state_dict())
    assert set(initial_weights(finished, larger)) == names
    DaVAE(larger.model).load_state_dict(initial_weights(finished, larger))
    paper = dataclasses.replace(larger, model=dataclasses.replace(larger.model, image_decoder="paper"))
    assert {n for n in names if not n.startswith("image_decoder.")} == set(initial_weights(finished, paper))
    unpooled = dataclasses.replace(larger, model=dataclasses.replace(larger.model, head_pool="none"))
    with pytest.raises(ValueError, match=r"another network: model\.head_pool"):
        initial_weights(finished, unpooled)


def test_without_pooling_larger_images_need_strides_that_keep_the_last_map(short, prepared, tmp_path):
    """Its heads read layer4's map place by place, so its side is part of their weights' shape."""

    def unpool(config, **sizes):
        sizes = {"image_px": config.model.image_px, "head_pool": "none", **sizes}
        data = dataclasses.replace(config.data, image_px=sizes["image_px"])
        return dataclasses.replace(config, data=data, model=dataclasses.replace(config.model, **sizes))

    small = unpool(settings_for(short, steps=1))
    run = train(small, prepared, tmp_path / "run", progress=False)
    px, stride = 2 * small.model.image_px, 2 * small.model.last_stride
    same = unpool(short, image_px=px, last_stride=stride)
    assert same.model.last_px == small.model.last_px
    before, after = runs.load_model(run)[0], DaVAE(same.model)
    after.load_state_dict(initial_weights(run, same), strict=True)
    assert_close(after.state_dict(), before.state_dict(), atol=0, rtol=0)
    with pytest.raises(ValueError, match=r"another network: model\.image_px"):
        initial_weights(run, unpool(short, image_px=px))


def test_one_decoder_can_learn_while_all_else_stays_as_it_is(finished, short, prepared, tmp_path):
    """Bit for bit, with BatchNorm's statistics: whoever reads the encoder need not be trained anew."""
    alone = settings_for(short, only="image_decoder", average_decay=0.9)
    before, _ = runs.load_model(finished)
    after, _ = runs.load_model(train(alone, prepared, tmp_path / "run", init=finished, progress=False))
    changed = {
        name for name, value in after.state_dict().items() if not value.equal(before.state_dict()[name])
    }
    assert {name.partition(".")[0] for name in changed} == {"image_decoder"}
    learnt = {name for name, _ in after.named_parameters() if name.startswith("image_decoder.")}
    assert learnt <= changed
    assert any("running_mean" in name for name in changed)
    with pytest.raises(ValueError, match=r"train\.only is 'image_decoder', so all else stays .* \(--init\)"):
        train(alone, prepared, tmp_path / "random", progress=False)
    assert not (tmp_path / "random").exists()


def test_a_run_cannot_begin_with_another_network_or_an_unfinished_run(finished, short, prepared, tmp_path):
    other = dataclasses.replace(short, model=dataclasses.replace(short.model, attention="none"))
    with pytest.raises(
        ValueError, match=r"another network: model\.attention: the run has 'sk', asked for 'none'"
    ):
        train(other, prepared, tmp_path / "run", init=finished, progress=False)
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        train(short, prepared, tmp_path / "run", init=tmp_path / "nothing", progress=False)
    assert not (tmp_path / "run").exists()


def test_fingerprint_sees_code_but_not_comments_or_docstrings():
    plain = 'def f(x):\n    """Doc."""\n    return x + 1\n'
    same = '"""Module."""\n\n\ndef f(x):  # comment\n    """Other words."""\n    return (x + 1)\n'
    assert identity.code_digest(plain) == identity.code_digest(same)
    assert identity.code_digest(plain) != identity.code_digest(plain.replace("+ 1", "+ 2"))


def test_fingerprint_covers_all_that_moves_the_weights():
    sources = runs.Identity.of("digest").sources
    assert {"losses.py", "data/augment.py", "training/davae_task.py", "training/trainer.py"} <= sources.keys()
    assert "training/muon.py" in sources
    assert {"networks/encoder.py", "networks/decoders.py", "networks/blocks.py"} <= sources.keys()


@pytest.mark.parametrize("network", identity._SHAPING_SOURCES)
def test_fingerprint_refuses_a_source_that_was_renamed(network, monkeypatch):
    runs.Identity.of("digest", network=network)  # all of today's are there
    names = (*identity._SHAPING_SOURCES[network][:-1], "training/renamed.py")
    monkeypatch.setitem(identity._SHAPING_SOURCES, network, names)
    with pytest.raises(FileNotFoundError, match=r"renamed\.py: missing, but it shapes"):
        runs.Identity.of("digest", network=network)


def test_missing_and_unfinished_runs_say_what_to_do(tmp_path, short):
    with pytest.raises(FileNotFoundError, match="no run here"):
        runs.load_model(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text(short.to_json())
    with pytest.raises(FileNotFoundError, match="not finished"):
        runs.load_model(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"cut short")
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        runs.load_model(tmp_path)


def test_data_of_which_an_array_was_swapped_are_refused(short, prepared, tmp_path):
    """Before anything is written, and also by a run that was trained on them as they were."""
    data = shutil.copytree(prepared, tmp_path / "data")
    images = np.load(data / "train" / "images.npy")
    np.save(data / "train" / "images.npy", images[::-1])
    with pytest.raises(ValueError, match=r"images\.npy: has changed since it was written; delete "):
        train(short, data, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_data_prepared_for_another_size_is_refused(short, prepared, tmp_path):
    larger = dataclasses.replace(
        short,
        data=dataclasses.replace(short.data, image_px=128),
        model=dataclasses.replace(short.model, image_px=128),
    )
    with pytest.raises(ValueError, match="prepared with image_px 64, this run needs 128"):
        train(larger, prepared, tmp_path / "run", progress=False)
    exact = dataclasses.replace(short, data=dataclasses.replace(short.data, crop="rotated-camera"))
    with pytest.raises(ValueError, match="prepared with crop 'plain', this run needs 'rotated-camera'"):
        train(exact, prepared, tmp_path / "run", progress=False)
    smaller = dataclasses.replace(short.data, image_px=32)  # the middle of a larger crop is not a test crop
    with pytest.raises(ValueError, match="prepare the data with this config"):
        centre(load_batch(PreparedSplit.open(prepared, "test"), np.arange(2)), smaller)
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_term(short, prepared, tmp_path):
    broken = dataclasses.replace(short, loss=dataclasses.replace(short.loss, alpha_cloud=float("inf")))
    with pytest.raises(TrainingDivergedError, match=r"step 0: total, alpha_cloud, gradient norm not finite"):
        train(broken, prepared, tmp_path / "run", progress=False)
    assert not runs.is_finished(tmp_path / "run")


def test_a_gradient_that_is_not_finite_never_reaches_the_weights(short, prepared, tmp_path, monkeypatch):
    """A finite loss can have an infinite slope; the resume point must not inherit it."""
    run, real = tmp_path / "run", davae_task.objective
    call = iter(range(1, 100)).__next__

    def steep(output, batch, weights):
        parts = real(output, batch, weights)
        corner = (output.pose.sum() * 0).abs().sqrt()  # 0, with an infinite derivative
        return parts._replace(total=parts.total + corner) if call() == 6 else parts

    monkeypatch.setattr(davae_task, "objective", steep)
    with pytest.raises(TrainingDivergedError, match="step 5: gradient norm not finite"):
        train(short, prepared, run, progress=False)
    state = runs.load_resume_point(run)
    assert state["step"] == 4
    assert all(torch.isfinite(value).all() for value in state["model"].values())


def test_two_trainings_in_one_folder_are_refused(short, prepared, tmp_path):
    run = tmp_path / "run"
    with exclusive(run), pytest.raises(BlockingIOError, match="another process is writing here"):
        train(short, prepared, run, progress=False)
    assert not run.exists()


def test_the_average_soon_forgets_its_first_weights():
    layer = torch.nn.Linear(1, 1, bias=False)
    average = build_average(layer, 0.99)
    seen = []
    for value in range(30):
        torch.nn.init.constant_(layer.weight, float(value))
        average.update_parameters(layer)
        seen.append(average.module.weight.item())
    assert seen[0] == 0 and seen[1] == pytest.approx(1 - 2 / 11)
    assert seen[-1] > 20  # a plain decay of 0.99 would still be below 4
    assert build_average(layer, 0.0) is None


def test_loss_falls_on_one_batch(tiny_config, prepared):
    torch.manual_seed(0)
    batch = centre(load_batch(PreparedSplit.open(prepared, "train"), np.arange(8)), tiny_config.data)
    model = DaVAE(tiny_config.model).train()
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3)
    totals = []
    for _ in range(40):
        parts = objective(model(batch.image), batch, tiny_config.loss)
        optimiser.zero_grad()
        parts.total.backward()
        optimiser.step()
        totals.append(parts.total.item())
    assert np.mean(totals[-5:]) < 0.5 * totals[0]


def test_bf16_path_runs_and_stays_near_fp32(tiny_config, prepared):
    """The arithmetic of processors with bf16, emulated where this one has none."""
    batch = centre(load_batch(PreparedSplit.open(prepared, "train"), np.arange(8)), tiny_config.data)
    torch.manual_seed(0)
    model = DaVAE(tiny_config.model).train()
    noise = torch.randn(8, model.latents)
    exact = model(batch.image, noise)
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(batch.image, noise)
    assert all(x.dtype == torch.float32 for x in (rough.pose, rough.cloud, rough.image, rough.means["pose"]))
    assert_close(rough.pose, exact.pose, rtol=0.1, atol=0.1)
    parts = objective(rough, batch, tiny_config.loss)
    parts.total.backward()
    assert torch.isfinite(parts.total)


def test_every_epoch_shows_every_sample_once():
    seen = np.concatenate([batch_indices(20, 5, seed=3, step=s) for s in range(8)])
    assert sorted(seen[:20]) == sorted(seen[20:]) == list(range(20))
    assert list(seen[:20]) != list(seen[20:])
    assert len(set(batch_indices(7, 16, 0, 2))) == 7  # a batch may be larger than a small split


@pytest.mark.parametrize("kind", ["adam", "muon"])
def test_every_weight_has_one_optimiser_and_steps_at_the_rate_it_is_told(kind, tiny_config):
    model = DaVAE(tiny_config.model)
    found = build_optimisers(model, TrainConfig(optimiser=kind))
    held = [p for optimiser in found for group in optimiser.param_groups for p in group["params"]]
    assert sorted(map(id, held)) == sorted(map(id, model.parameters()))
    assert len(found) == {"adam": 1, "muon": 2}[kind]
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    before = [p.detach().clone() for p in held]
    take_step(found, 0.0)
    assert all(map(torch.equal, held, before))
    take_step(found, 1e-3)
    assert not any(map(torch.equal, held, before))


@pytest.mark.parametrize("limit", [0.0, 1.0, 100.0])
def test_gradients_are_measured_and_scaled_to_a_limit_only_if_there_is_one(limit, tiny_config):
    model = DaVAE(tiny_config.model)
    found = build_optimisers(model, TrainConfig(optimiser="muon"))
    weights = list(model.parameters())
    for p in weights[1:]:  # the first has no gradient
        p.grad = torch.randn_like(p)
    before = torch.cat([p.grad.flatten() for p in weights[1:]])
    assert_close(measure_gradient(found, limit), before.double().norm().float(), rtol=1e-5, atol=0.0)
    after = torch.cat([p.grad.flatten() for p in weights[1:]])
    scaled = before * min(1.0, limit / before.double().norm().item()) if limit else before
    assert_close(after, scaled, rtol=1e-5, atol=0.0)


def test_schedules_start_and_end_where_they_say():
    milestones = TrainConfig(steps=100, schedule="milestones", learning_rate=1e-3, final_learning_rate=1e-7)
    rates = [learning_rate(milestones, s) for s in range(100)]
    assert np.allclose(sorted(set(np.round(np.log10(rates), 6))), [-7, -6, -5, -4, -3])
    assert rates == sorted(rates, reverse=True)
    cosine = TrainConfig(steps=100, warmup_steps=10, learning_rate=2e-3)
    rates = [learning_rate(cosine, s) for s in range(100)]
    assert np.argmax(rates) in (9, 10) and max(rates) == pytest.approx(2e-3)
    assert rates[0] == pytest.approx(2e-4) and rates[-1] < 1e-6


@pytest.mark.parametrize("raised", [KeyboardInterrupt, OSError])
def test_a_stop_while_a_resume_point_is_written_is_a_stop(tmp_path, monkeypatch, raised):
    """Torch makes a RuntimeError of it, because the end of the file is then not where it was to be."""

    class Stopped(io.BytesIO):
        writes = 0

        def write(self, content):
            self.writes += 1
            if self.writes == 3:
                raise raised
            return super().write(content)

    runs.save_resume_point(tmp_path, {"step": 1})
    before = (tmp_path / "resume.pt").read_bytes()
    stopped, opened = Stopped(), Path.open
    monkeypatch.setattr(
        Path, "open", lambda p, mode="r", **k: stopped if mode == "wb" else opened(p, mode, **k)
    )
    with pytest.raises(raised):
        runs.save_resume_point(tmp_path, {"step": 2, "a": torch.zeros(100_000)})
    assert stopped.writes >= 3
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["resume.pt"]
    assert (tmp_path / "resume.pt").read_bytes() == before
