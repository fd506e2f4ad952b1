"""Sweeps: grids, no run repeated or lost, and equal bits on every executor."""

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import BrokenExecutor, Executor, Future
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from davae.config import Config, mask_preset, preset
from davae.config.settings import apply_settings
from davae.studies.board import Board, State
from davae.studies.executors import (
    executor_factory,
    parse_options,
    start_dask,
    start_processes,
    start_slurm,
)
from davae.studies.points import parse_choices, parse_seeds, vary
from davae.studies.sweep import format_outcomes, sweep
from davae.studies.worker import ERROR, STARTED, name_folder
from davae.training import runs

SWEEP = [sys.executable, "-m", "davae", "sweep"]


class Inline(Executor):
    """Runs a call at once, in this process: the sequence that others are compared with."""

    def submit(self, function, /, *args, **kwargs):
        future = Future()
        try:
            future.set_result(function(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


def no_executor():
    raise AssertionError("an executor was asked for, with nothing to run")


@pytest.fixture
def tiny(tiny_config):
    """A config whose points take a moment."""
    return dataclasses.replace(tiny_config, train=dataclasses.replace(tiny_config.train, steps=6))


def longer(config: Config, steps: int) -> Config:
    return dataclasses.replace(
        config, train=dataclasses.replace(config.train, steps=steps, checkpoint_every=5)
    )


def results(outcomes):
    """What may not depend on where a point ran: its report and its weights."""
    return [
        (outcome.report, (outcome.folder / "model.safetensors").read_bytes())
        for outcome in outcomes
        if outcome.ok
    ]


# What is varied


def test_points_are_all_combinations_and_the_first_seed_comes_first(tiny):
    points = vary(tiny, {"beta_ratio": [3.0, 30.0], "model": ["da", "na"]}, [4, 5])
    labels = [point.label for point in points]
    assert labels[:2] == ["beta_ratio 3, model da, seed 4", "beta_ratio 3, model na, seed 4"]
    assert vary(tiny, {"train.steps": [7], "beta": [1, 2]})[0].label == "beta 1, seed 0"
    assert len(set(labels)) == 8 and [point.config.train.seed for point in points] == [4] * 4 + [5] * 4
    assert [point.config.model.attention for point in points[:2]] == ["sk", "none"]


@given(st.floats(1e-4, 1e4), st.floats(1e-2, 1e2))
def test_ratios_are_what_the_paper_calls_them(value, beta):
    base = preset("paper")
    config = vary(base, {"beta": [beta], "beta_ratio": [value]})[0].config.loss
    assert config.beta_shape / config.alpha_image == pytest.approx(value)
    assert {config.beta_pose, config.beta_appearance, config.beta_shape} == {beta}
    assert (config.alpha_pose, config.alpha_cloud) == (base.loss.alpha_pose, base.loss.alpha_cloud)
    for term in ("pose", "cloud"):
        config = vary(base, {f"alpha_{term}_ratio": [value]})[0].config.loss
        assert getattr(config, f"alpha_{term}") / config.alpha_image == pytest.approx(value)
        assert config.alpha_image == base.loss.alpha_image


def test_any_field_of_the_config_can_vary(tiny):
    point = vary(tiny, {"train.learning_rate": [1], "model.stem_pool": [True]})[0]
    assert point.config.train.learning_rate == 1.0 and point.config.model.stem_pool is True
    assert isinstance(point.config.train.learning_rate, float)


def test_the_size_of_the_input_changes_data_and_network_together(tiny):
    config = apply_settings(tiny, ["image_px=128", "data.shift=0.1"])
    assert (config.data.image_px, config.model.image_px, config.data.shift) == (128, 128, 0.1)
    mask = apply_settings(mask_preset("smoke"), ["image_px=96", "stem_pool=true", "width=8"])
    assert (mask.data.image_px, mask.stem_pool, mask.width) == (96, True, 8)
    with pytest.raises(ValueError, match="built for the images"):
        apply_settings(tiny, ["data.image_px=128"])


def test_a_field_of_several_values_is_set_by_commas(tiny):
    assert apply_settings(tiny, ["model.depths=3,4,6,3"]).model.depths == (3, 4, 6, 3)


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["train.steps"], r"--set 'train.steps': expected NAME=VALUE, such as train.steps=9000"),
        (["train.steps=1,2"], "found several values; a run has one"),
        (
            ["model.depths=2,2"],
            "model.depths = 2,2: expected 4 whole numbers, each at least 1, such as 3,4,6,3",
        ),
        (["model.depths=2"], "expected 4 whole numbers"),
        (["model.depths=0,2,2,2"], "model.depths = 0,2,2,2: expected 4 whole numbers, each at least 1"),
        (["beta_ratio=1,2"], "expected a positive number"),
        (["model.depths=2,2,2,x"], "expected 4 whole numbers"),
        (["train.steps=1", "train.steps=2"], "train.steps is given twice"),
        (["train.step=1"], "unknown variable 'train.step'; did you mean train.steps"),
    ],
)
def test_settings_that_make_no_sense_are_told(tiny, texts, words):
    with pytest.raises(ValueError, match=words):
        apply_settings(tiny, texts)


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"gamma": [1.0]}, "unknown variable 'gamma'; choose one of beta_ratio"),
        ({"train.speed": [1.0]}, "unknown variable 'train.speed'"),
        ({"train.steps": ["many"]}, "expected a whole number of at least 1, such as 1000"),
        ({"beta_ratio": [-1.0]}, "expected a positive number"),
        ({"beta_ratio": ["high"]}, "expected a positive number"),
        ({"model": ["xx"]}, "choose one of da, na, se"),
        ({"beta": []}, "no value of beta"),
        ({"train.steps": [0]}, "at least 1"),
        ({"train.warmup_steps": [-1]}, "at least 0"),
        ({"image_px": [1.5]}, "image_px = 1.5: expected a whole number"),
        ({"data.mask": ["netwrk"]}, "data.mask = 'netwrk': expected one of none, truth, network"),
        ({"train.optimiser": ["sgd"]}, "expected one of adam, muon"),
        ({"preset": ["paper"]}, "unknown variable 'preset'"),
        ({"train": [3]}, "unknown variable 'train'"),
    ],
)
def test_what_cannot_vary_is_refused_in_words(tiny, choices, words):
    with pytest.raises(ValueError, match=words):
        vary(tiny, choices)


def test_a_mask_network_has_no_loss_weights_to_set():
    with pytest.raises(ValueError, match="beta_ratio: is a variable of da-VAE, which a mask network lacks"):
        apply_settings(mask_preset("smoke"), ["beta_ratio=3"])


def test_texts_of_the_command_line_are_read(tiny):
    assert parse_choices(["beta_ratio=0.003,3", "model=da,na"]) == {
        "beta_ratio": [0.003, 3],
        "model": ["da", "na"],
    }
    assert parse_seeds("0,12") == [0, 12]
    assert parse_options(["timeout_min=120", "slurm_partition=gpu"]) == {
        "timeout_min": 120,
        "slurm_partition": "gpu",
    }
    for texts in (["beta_ratio"], ["beta_ratio="], ["=3"], ["beta=1,...,9"], ["beta=1", "beta=2"]):
        with pytest.raises(ValueError, match="--vary"):
            parse_choices(texts)
    for text in ("", "a", "-1", "0,0"):
        with pytest.raises(ValueError, match="--seeds"):
            parse_seeds(text)
    with pytest.raises(ValueError, match="--option"):
        parse_options(["partition"])
    with pytest.raises(ValueError, match="one beta for all blocks"):
        uneven = dataclasses.replace(tiny.loss, beta_pose=7.0)
        vary(dataclasses.replace(tiny, loss=uneven), {"beta_ratio": [3.0]})


# What is run


def test_a_sweep_runs_each_point_once_and_tells_of_the_one_that_fails(tiny, prepared, tmp_path, capfd):
    points = vary(tiny, {"train.learning_rate": [1e-3, 1e30]}, [0, 1])
    told = []
    outcomes = sweep(points, prepared, tmp_path / "store", lambda: start_processes(2), on_outcome=told.append)
    assert [outcome.ok for outcome in outcomes] == [True, False, True, False]
    assert sorted(map(repr, told)) == sorted(map(repr, outcomes))
    said = capfd.readouterr().err
    assert "2 of 4 points done, 0 running, 2 failed" in said and "1 failed" in said
    table = format_outcomes(outcomes)
    assert table.count("failed: TrainingDivergedError") == 2 and outcomes[0].folder.name in table
    assert "TrainingDivergedError" in (outcomes[1].folder / ERROR).read_text()

    done = [outcome for outcome in outcomes if outcome.ok]
    before = [(outcome.folder / "model.safetensors").stat().st_mtime_ns for outcome in done]
    good = [outcome.point for outcome in done]
    assert results(sweep(good, prepared, tmp_path / "store", no_executor)) == results(done)
    assert before == [(outcome.folder / "model.safetensors").stat().st_mtime_ns for outcome in done]
    assert json.loads((done[1].folder / "point.json").read_text()) == {"train.learning_rate": 1e-3, "seed": 1}


def test_a_point_is_known_by_config_data_and_code(tiny, prepared, monkeypatch):
    name = name_folder(tiny, prepared)
    assert name_folder(tiny, prepared) == name and name.startswith("smoke-")
    assert name_folder(longer(tiny, 7), prepared) != name
    of = runs.Identity.of
    monkeypatch.setattr(
        runs.Identity, "of", lambda *a, **k: dataclasses.replace(of(*a, **k), sources={"losses.py": "new"})
    )
    assert name_folder(tiny, prepared) != name


def test_points_of_one_config_are_run_once(tiny, prepared, tmp_path):
    (base,) = vary(tiny, {"beta": [10.0]})
    (same,) = vary(tiny, {"beta_ratio": [10.0]})
    assert base.config == same.config
    outcomes = sweep([base, same], prepared, tmp_path, Inline, progress=False)
    assert outcomes[0].folder == outcomes[1].folder and all(outcome.ok for outcome in outcomes)


def test_a_lost_worker_costs_no_point(tiny, prepared, tmp_path):
    """kill -9 on a worker in mid-sweep breaks the pool; a new one goes on from the resume points."""
    points = vary(longer(tiny, 30), {"beta": [1.0, 10.0]})
    killed = []

    class Deadly(type(start_processes(1))):
        def submit(self, function, /, *args, **kwargs):
            future = super().submit(function, *args, **kwargs)
            if not killed:
                wait_for(lambda: (Path(args[2]) / "resume.pt").exists())
                killed.append(json.loads((Path(args[2]) / STARTED).read_text())["process"])
                os.kill(killed[0], signal.SIGKILL)
            return future

    def deadly():
        pool = start_processes(1)
        pool.__class__ = Deadly
        return pool

    outcomes = sweep(points, prepared, tmp_path / "broken", deadly, progress=False)
    assert killed and results(outcomes) == results(sweep(points, prepared, tmp_path / "whole", Inline))


def test_giving_up_ends_what_is_running():
    """After Ctrl-C a plain pool would let its workers finish: trainings of hours."""
    pool = start_processes(1)
    running = pool.submit(time.sleep, 30)
    wait_for(running.running)
    pool.shutdown(cancel_futures=True)
    assert isinstance(running.exception(), BrokenExecutor)  # and not done after 30 s
    pool = start_processes(1)
    finished = pool.submit(int, "7")
    pool.shutdown()
    assert finished.result() == 7


def test_a_damaged_report_of_a_finished_point_is_named(tiny, prepared, tmp_path):
    points = vary(tiny, {"beta": [1.0]})
    (outcome,) = sweep(points, prepared, tmp_path, Inline, progress=False)
    report = outcome.folder / "metrics.json"
    report.write_bytes(report.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"metrics\.json: damaged .*delete it and repeat the command"):
        sweep(points, prepared, tmp_path, no_executor, progress=False)


def wait_for(happened, seconds=120):
    until = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.05)


@pytest.mark.slow
def test_killed_at_three_random_moments_and_restarted_a_sweep_loses_little_and_ends_the_same(
    tiny, prepared, tmp_path
):
    """kill -9 of the whole command: workers end with it, and each point goes on from its resume point."""
    command = [*SWEEP, "--preset", "smoke", "--data", prepared, "--vary", "train.steps=60", "beta=1,10"]
    command += [
        "train.batch_size=4",
        "train.checkpoint_every=5",
        "--jobs",
        "2",
        "--store",
        tmp_path / "store",
    ]
    command = [*map(str, command)]
    config = vary(
        preset("smoke"),
        {"train.steps": [60], "beta": [1, 10], "train.batch_size": [4], "train.checkpoint_every": [5]},
    )
    folders = [tmp_path / "store" / name_folder(point.config, prepared) for point in config]

    def logged(folder):
        path = folder / "metrics.csv"
        rows = path.read_text().splitlines()[1:] if path.exists() else []
        return int(rows[-1].split(",")[0]) if rows else 0

    for moment in sorted(random.sample(range(1, 100), 3)):  # of the 120 steps of both points together
        sweeping = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(lambda moment=moment: sum(map(logged, folders)) >= moment)
        time.sleep(random.random())  # rows come every ten steps: anywhere between two
        workers = [
            json.loads((f / STARTED).read_text())["process"] for f in folders if (f / STARTED).exists()
        ]
        sweeping.kill()
        sweeping.wait()
        wait_for(lambda workers=workers: not any(map(alive, workers)))
        for folder in folders:  # an epoch is five steps here, as is what lies between resume points
            if not runs.is_finished(folder):
                state = runs.load_resume_point(folder)
                assert logged(folder) - (state["step"] if state else 0) <= 10  # rows come every ten
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    outcomes = sweep(config, prepared, tmp_path / "store", no_executor, progress=False)
    assert results(outcomes) == results(sweep(config, prepared, tmp_path / "whole", Inline, progress=False))


def alive(process):
    stat = Path(f"/proc/{process}/stat")
    try:
        return stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


# Where it is run


@pytest.mark.slow
def test_dask_gives_the_same_bits_as_one_process_in_sequence(tiny, prepared, tmp_path, require):
    require_module(require, "distributed")
    points = vary(tiny, {"beta_ratio": [0.03, 3.0, 30.0, 300.0]}, [0, 1])
    found = sweep(points, prepared, tmp_path / "dask", lambda: start_dask(2), progress=False)
    sequence = sweep(points, prepared, tmp_path / "sequence", Inline, progress=False)
    assert len(results(found)) == 8 and results(found) == results(sequence)
    hosts = {json.loads((outcome.folder / STARTED).read_text())["process"] for outcome in found}
    assert len(hosts) == 2 and os.getpid() not in hosts


@pytest.mark.slow
def test_dask_loses_nothing_with_a_worker(tiny, prepared, tmp_path, require):
    require_module(require, "distributed")
    points = vary(longer(tiny, 30), {"beta": [1.0, 10.0, 100.0]})
    store, killed = tmp_path / "store", []
    store.mkdir()
    first = store / name_folder(points[0].config, prepared)

    def cluster():
        executor = start_dask(2)
        submit = executor.submit

        def kill_one(function, /, *args, **kwargs):
            future = submit(function, *args, **kwargs)
            if args[2].endswith(first.name):
                wait_for(lambda: (first / "resume.pt").exists())
                killed.append(json.loads((first / STARTED).read_text())["process"])
                os.kill(killed[0], signal.SIGKILL)
            return future

        executor.submit = kill_one
        return executor

    outcomes = sweep(points, prepared, store, cluster, progress=False)
    assert killed and all(outcome.ok for outcome in outcomes)
    whole = sweep(points[:1], prepared, tmp_path / "whole", Inline, progress=False)
    assert results(outcomes[:1]) == results(whole)


@pytest.mark.slow
def test_submitit_runs_points_as_jobs_and_tells_of_a_failed_one(tiny, prepared, tmp_path, require):
    require_module(require, "submitit")
    points = vary(tiny, {"train.learning_rate": [1e-3, 1e30]})
    outcomes = sweep(
        points, prepared, tmp_path / "store", lambda: start_slurm(tmp_path / "jobs", "local"), progress=False
    )
    assert [outcome.ok for outcome in outcomes] == [True, False]
    assert "TrainingDivergedError" in (outcomes[1].folder / ERROR).read_text()
    assert "failed" in format_outcomes(outcomes)
    whole = sweep(points[:1], prepared, tmp_path / "whole", Inline, progress=False)
    assert results(outcomes) == results(whole)


def require_module(require, name):
    import importlib.util

    require(importlib.util.find_spec(name), f"{name} is not installed: pip install -e .[cluster]")


def test_an_executor_is_chosen_by_name(tmp_path):
    with pytest.raises(ValueError, match="unknown executor 'threads'"):
        executor_factory("threads", 1, tmp_path)
    with pytest.raises(ValueError, match="--jobs is 0"):
        executor_factory("processes", 0, tmp_path)


# What is shown


def test_the_board_counts_and_estimates(tiny, tmp_path, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    points = vary(tiny, {"beta": [1.0, 10.0, 100.0]})  # of six steps
    folders = [tmp_path / name for name in "abc"]
    for folder in folders:
        folder.mkdir()
    board = Board(points, folders, show=False)
    assert board.headline() == "0 of 3 points done, 0 running, 0 failed"
    (folders[0] / STARTED).write_text("{}")
    (folders[0] / "metrics.csv").write_text("step,seconds\n1,0.5\n3,2.0\n5,")
    clock[0] += 60
    board.look()
    assert board.seconds_left() == 60 * 15 / 3
    assert board.headline() == "0 of 3 points done, 1 running, 0 failed, about 5 min left"
    board.settle(folders[0], State.DONE)
    board.settle(folders[1], State.FAILED, "no memory")
    assert board.seconds_left() == 60
    board.settle(folders[2], State.DONE)
    assert board.headline() == "2 of 3 points done, 0 running, 1 failed"
