"""Training in two processes: gradients as in one process, equal weights, no race, no deadlock."""

import csv
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import ranks_fixture
import torch

from davae.config import DataConfig
from davae.data.augment import augment, centre, load_batch
from davae.data.prepared import PreparedSplit
from davae.training import distributed, runs
from davae.training.device import has_bf16
from davae.training.mask_inference import mask_iou, predict_probability
from synthhand.storage import exclusive

ROUNDING = 1e-2 if has_bf16(torch.device("cpu")) else 1e-5  # of a validation error


@pytest.fixture(scope="module")
def folder(tiny_config, tmp_path_factory) -> Path:
    """Holds the config, and the finished run that two ranks trained."""
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "config.json").write_text(tiny_config.to_json())
    config = ranks_fixture.config_of(folder, steps=8, batch_size=8, checkpoint_every=4, average_decay=0.9)
    (folder / "config.json").write_text(config.to_json())
    return folder


@pytest.fixture(scope="module")
def trained(folder, prepared):
    """What either rank left of a run in folder/run."""
    assert ranks_fixture.start("train", prepared, folder) == [0, 0]
    return ranks_fixture.saved("train", folder)


def log(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_without_torchrun_nothing_is_shared():
    model, values = torch.nn.Linear(1, 1), torch.ones(2)
    distributed.join()
    assert not torch.distributed.is_initialized()
    assert distributed.replicate(model) is model and distributed.sum_over_ranks(values) is values
    assert (distributed.rank(), distributed.world_size(), distributed.share()) == (0, 1, slice(0, None, 1))
    assert "ranks 1\n" in runs.environment()


def test_more_processes_than_gpus_are_refused(monkeypatch):
    for name, value in {"WORLD_SIZE": "3", "RANK": "2", "LOCAL_RANK": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    message = r"process 3 on a machine with 2 GPU\(s\); give it --nproc-per-node 2"
    with pytest.raises(ValueError, match=message):
        distributed.join()


def test_a_share_of_a_batch_is_augmented_as_in_the_whole(prepared):
    """Whatever the number of ranks, so noise and turns belong to a sample, not to a process."""
    split, config = PreparedSplit.open(prepared, "train"), DataConfig(image_px=64, cloud_points=128)
    indices = np.array([3, 0, 5, 9, 7, 2])
    generator = torch.Generator().manual_seed(1)
    whole = augment(load_batch(split, indices), config, generator)
    after = torch.rand(3, generator=generator)
    for rank in range(3):
        own = slice(rank, None, 3)
        generator = torch.Generator().manual_seed(1)
        share = augment(load_batch(split, indices[own]), config, generator, batch=6, rows=own)
        for mine, all_of_it in zip(share, whole, strict=True):
            torch.testing.assert_close(mine, all_of_it[own], rtol=0, atol=1e-6)
        assert torch.equal(torch.rand(3, generator=generator), after)


@pytest.mark.slow
def test_gradients_and_validation_are_those_of_one_process(folder, prepared):
    assert ranks_fixture.start("gradients", prepared, folder) == [0, 0]
    one = ranks_fixture.gradients(prepared, folder)
    for found in ranks_fixture.saved("gradients", folder):
        for network, expected in one.items():
            assert found[network].keys() == expected.keys()
            validation = expected["validation"].item()
            assert found[network]["validation"].item() == pytest.approx(validation, rel=1e-5), network
            gradients = {name: value for name, value in expected.items() if name != "validation"}
            largest = max(gradient.abs().max() for gradient in gradients.values())
            for name, gradient in gradients.items():
                error = (found[network][name] - gradient).norm()
                assert error <= 1e-5 * gradient.norm() + 1e-8 * largest, (network, name)


@pytest.mark.slow
def test_weights_and_their_average_are_bit_for_bit_equal_on_all_ranks(trained, folder):
    first, second = trained
    for kind in ("model", "average"):
        assert first[kind].keys() == second[kind].keys()
        assert all(torch.equal(weight, second[kind][name]) for name, weight in first[kind].items()), kind
    statistics = (rank["average buffers"] for rank in trained)
    assert all(map(torch.equal, *statistics))  # of BatchNorm, shared before validation
    assert first["totals"] != second["totals"]  # they did see other samples
    written = dict(runs.load_model(folder / "run")[0].named_parameters())
    assert all(torch.equal(weight, written[name]) for name, weight in first["average"].items())


@pytest.mark.slow
def test_log_holds_means_over_ranks_and_the_error_of_the_whole_validation_split(trained, folder, prepared):
    rows = log(folder / "run")
    assert [row["step"] for row in rows] == [str(step) for step in range(1, 9)]
    totals = np.mean([rank["totals"] for rank in trained], axis=0)
    np.testing.assert_allclose([float(row["total"]) for row in rows], totals, rtol=1e-5)
    model, config = runs.load_model(folder / "run")
    split = PreparedSplit.open(prepared, "val")
    batch = centre(load_batch(split, np.arange(len(split))), config.data)
    with torch.inference_mode():
        error = (model(batch.image).pose - batch.joints).norm(dim=2).mean(1) * batch.scale_mm
    assert float(rows[-1]["val_epe_mm"]) == pytest.approx(error.mean().item(), rel=ROUNDING)
    assert "ranks 2\n" in (folder / "run" / "environment.txt").read_text()
    assert not (folder / "run" / "resume.pt").exists()


@pytest.mark.slow
def test_a_mask_network_is_trained_by_all_ranks_too(trained, folder, prepared):
    network, config = runs.load_mask_network(folder / "mask")
    split = PreparedSplit.open(prepared, "val")
    batch = centre(load_batch(split, np.arange(len(split))), config.data)
    iou = mask_iou(predict_probability(network, batch.image, 1), batch.mask).mean().item()
    assert float(log(folder / "mask")[-1]["val_iou"]) == pytest.approx(iou, rel=ROUNDING)
    assert iou > 0.05 and "ranks 2\n" in (folder / "mask" / "environment.txt").read_text()


@pytest.mark.slow
def test_a_rank_killed_in_the_middle_ends_all_and_the_run_goes_on_as_if_nothing_had_been(
    trained, folder, prepared
):
    first, second = ranks_fixture.start("killed", prepared, folder)
    assert second == -signal.SIGKILL and first != 0
    assert runs.load_resume_point(folder / "broken")["step"] == 4
    assert ranks_fixture.start("killed", prepared, folder) == [0, 0]
    weights = [(folder / run / "model.safetensors").read_bytes() for run in ("run", "broken")]
    assert weights[0] == weights[1]
    columns = [[{**row, "seconds": ""} for row in log(folder / run)] for run in ("run", "broken")]
    assert columns[0] == columns[1]


@pytest.mark.slow
def test_errors_meet_all_ranks(trained, folder, prepared):
    with exclusive(folder / "locked"):
        assert ranks_fixture.start("refused", prepared, folder) == [0, 0]
    first, second = ranks_fixture.saved("refused", folder)
    assert first == second
    expected = {
        "mismatch": ("RunMismatchError", "config.train.seed: the run has 0, asked for 1"),
        "locked": ("BlockingIOError", "another process is writing here"),
        "uneven": ("ValueError", "batch_size is 7, which 2 processes cannot share evenly"),
        "diverged": ("TrainingDivergedError", "training diverged at step 0"),
    }
    for case, (kind, message) in expected.items():
        assert first[case][0] == kind and message in first[case][1], case
    assert not (folder / "uneven").exists() and not (folder / "locked").exists()


@pytest.mark.slow
def test_torchrun_trains_and_tells_an_error_once(prepared, tmp_path):
    run = tmp_path / "run"

    def torchrun(*arguments: object) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        command += [
            "-m",
            "--",
            "davae",
            "train",
            "--preset",
            "smoke",
            "--data",
            prepared,
            "--run",
            run,
            *arguments,
        ]
        environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        return subprocess.run(
            command, env=environment, cwd=ranks_fixture.ROOT, capture_output=True, text=True, timeout=300
        )

    done = torchrun()
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f"trained: {run}") == 1 and done.stdout.count("alpha_pose") == 1
    assert runs.is_finished(run) and log(run)[-1]["step"] == "60"
    refused = torchrun("--seed", "1")
    assert refused.returncode != 0
    assert refused.stderr.count("davae: ") == 1, refused.stderr
    assert f"{run} holds another experiment" in refused.stderr and "RunMismatchError" not in refused.stderr
