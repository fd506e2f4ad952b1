"""What does each rival of Table 3 cost beside da-VAE, and does it learn?

    python benchmarks/rivals.py cost --preset laptop
    python benchmarks/rivals.py overfit --data PREPARED --preset smoke
    python benchmarks/rivals.py tune --data PREPARED
    python benchmarks/rivals.py compare --data PREPARED --record

`cost` prints parameters and forward FLOPs of one image: of the encoder, which all share but for attention, of
joints at test, and of a whole training pass; and, with `--rounds`, seconds of a training step, methods taking
turns. `overfit` trains each method on the same 64 images without augmentation and prints its P1 error on
them: a method whose error does not fall below `GOAL_MM` does not learn. `tune` tries equally many learning
rates and weights for each method on the validation split and writes them all; `compare` trains every method
with the best of them and several seeds.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import tyro
from timing import alternate
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from tqdm.auto import tqdm

from davae.config import Config
from davae.config.rivals import title_of
from davae.config.settings import MODELS, apply_settings, experiment
from davae.data.augment import Batch, centre, load_batch
from davae.data.prepared import PreparedSplit
from davae.evaluation.joints import JointNet
from davae.evaluation.text_table import format_rows
from davae.networks.fused import fuse
from davae.pipeline.options import Settings
from davae.rivals import Rival, task_of
from davae.rivals.rival import Features
from davae.studies.executors import executor_factory
from davae.studies.methods import (
    LIKE,
    METHODS,
    SEEDS,
    TRIED,
    Trial,
    choose,
    list_rates,
    list_weights,
    plan_methods,
    read_trials,
    write_trials,
)
from davae.studies.results.errors import record as add_to_record
from davae.studies.results.measured import read_run
from davae.studies.sweep import Outcome, format_outcomes, sweep
from davae.training.device import move_to
from davae.training.optimisers import build_optimisers, take_step
from davae.training.runs import write_text
from davae.training.task import Examples, Task

GOAL_MM = 3.0  # P1 error on the 64 images, after which a method counts as learning
IMAGES = 64
SWEEPS = Path("outputs/sweeps")


def count_flops(work: Callable[[], object]) -> int:
    """Return the FLOPs of convolutions and matrix products; a multiply-add counts as 2."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def make_examples(config: Config, size: int, seed: int = 0) -> Examples:
    """Return random samples (b = size) that a task can learn from, without any data on disk."""
    rng, px = np.random.default_rng(seed), config.data.image_px
    joints = torch.from_numpy(rng.normal(size=(size, 21, 3)).astype(np.float32))
    camera = np.broadcast_to(np.array([[px, 0, px / 2], [0, px, px / 2], [0, 0, 1.0]]), (size, 3, 3))
    split = SimpleNamespace(  # what tasks read of a split
        joints=joints.numpy(), images=np.empty((size, px, px, 3), np.uint8), camera=camera,
        rotation=np.broadcast_to(np.eye(3), (size, 3, 3)), manifest={"image_px": px, "crop": "plain"},
        project=lambda joints, rows: rng.uniform(0, px, (*joints.shape[:2], 2)),
    )  # fmt: skip
    picture, yes = torch.rand(size, 3, px, px), torch.ones(size, dtype=torch.bool)
    cloud, one = torch.randn(size, config.data.cloud_points, 3), torch.ones(size)
    batch = Batch(
        picture, picture, picture[:, :1], joints, cloud, yes, yes, 25 * one, torch.zeros(size, 2), one
    )
    generator = torch.Generator().manual_seed(seed)
    return Examples(batch, split, np.arange(size), slice(None), generator)  # type: ignore[arg-type]


def count(config: Config) -> dict[str, Any]:
    """Return the parameters and FLOPs of one method."""
    task, one = task_of(config), make_examples(config, 1)
    network = task.build().eval()
    image = one.batch.image
    with torch.inference_mode():
        if isinstance(network, Rival):
            (encoder,) = (part for part in network.modules() if isinstance(part, Features))
            joints = partial(network.predict, image, torch.eye(3)[None])
        else:
            encoder, joints = network.get_submodule("encoder"), partial(JointNet(network), image)  # type: ignore[arg-type]
        return {
            "model": title_of(config),
            "parameters": sum(p.numel() for p in network.parameters()),
            "encoder_flops": count_flops(lambda: encoder(image)),
            "joints_flops": count_flops(joints),
            "training_flops": count_flops(lambda: task.forward(network, one)),
        }


def make_step(config: Config) -> Callable[[], None]:
    """Return a function that takes one training step, in fp32 and by PyTorch alone, on random samples."""
    task, examples = task_of(config), make_examples(config, config.train.batch_size)
    network = task.build().train()
    optimisers = build_optimisers(network, config.train)

    def step() -> None:
        network.zero_grad(set_to_none=True)
        task.loss(task.forward(network, examples), examples).total.backward()
        take_step(optimisers, 1e-4)

    return step


def cost(
    preset: str = "laptop",
    models: tuple[str, ...] = MODELS,
    rounds: int = 0,
    out: Path | None = None,
) -> list[dict[str, Any]]:
    """Print what each method costs.

    Args:
        preset: Size of the networks.
        models: Methods.
        rounds: Timed steps of each method, in turns; 0 times nothing.
        out: JSON file to write, too.
    """
    configs = {name: experiment(preset, model=name) for name in models}
    rows = [count(config) for config in configs.values()]
    if rounds:
        seconds = alternate({name: make_step(c) for name, c in configs.items()}, rounds, title="steps")
        rows = [row | {"step_s": seconds[name]} for row, name in zip(rows, configs, strict=True)]
    first = rows[0]
    heads = ["", "parameters", "encoder MFLOPs", "of first", "joints MFLOPs", "training MFLOPs", "s/step"]
    table = [
        [
            row["model"], f"{row['parameters']:,}", f"{row['encoder_flops'] / 1e6:,.1f}",
            f"{row['encoder_flops'] / first['encoder_flops']:.3f}", f"{row['joints_flops'] / 1e6:,.1f}",
            f"{row['training_flops'] / 1e6:,.1f}", f"{row['step_s']:.3f}" if rounds else "-",
        ]
        for row in rows
    ]  # fmt: skip
    print(format_rows(heads, table))
    write(out, rows)
    return rows


def fit(
    task: Task, split: PreparedSplit, rows: np.ndarray, steps: int, *, progress: bool = True
) -> nn.Module:
    """Train a task's network on test crops of these rows, all in each step; return it."""
    torch.manual_seed(0)
    config: Any = task.config
    task.check("", split, split, None)  # type: ignore[arg-type]  # tasks that read it are not asked here
    network = move_to(task.build(), torch.device("cpu")).train()
    fuse(network)
    settings = config.train
    optimisers = build_optimisers(network, settings)
    batch = centre(load_batch(split, rows), config.data)
    for step in tqdm(range(steps), disable=not progress, leave=False):
        examples = Examples(batch, split, rows, slice(None), torch.Generator().manual_seed(step))
        network.zero_grad(set_to_none=True)
        task.loss(task.forward(network, examples), examples).total.backward()
        take_step(optimisers, settings.learning_rate * min(1, (step + 1) / 20, 2 * (1 - step / steps)))
    return network


def measure(task: Task, network: nn.Module, split: PreparedSplit, rows: np.ndarray) -> float:
    """Return the mean P1 error, mm, of a network on test crops of these rows."""
    config: Any = task.config
    batch = centre(load_batch(split, rows), config.data)
    with torch.inference_mode():
        examples = Examples(batch, split, rows, slice(None), torch.Generator())
        return task.measure(network.eval(), examples) / len(rows)


def overfit(
    data: Path,
    preset: str = "smoke",
    models: tuple[str, ...] = MODELS,
    steps: int = 1500,
    images: int = IMAGES,
    out: Path | None = None,
) -> list[dict[str, Any]]:
    """Train each method on a few images and print its error on them.

    Args:
        data: Folder written by `prepare`.
        preset: Size of the networks, weights and optimiser.
        models: Methods.
        steps: Training steps, all images in each.
        images: How many of the first training images.
        out: JSON file to write, too.
    """
    rows, found = np.arange(images), []
    for name in models:
        config = experiment(preset, model=name)
        split = PreparedSplit.open(data, "train").seen_through(config.data.mask)
        task = task_of(config)
        error = measure(task, fit(task, split, rows, steps), split, rows)
        found.append({"model": title_of(config), "p1_mm": error, "steps": steps, "images": images})
        print(
            f"{title_of(config):<20} {error:6.2f} mm {'' if error < GOAL_MM else 'above the goal'}",
            flush=True,
        )
    write(out, found)
    return found


def tune(
    data: Path,
    preset: str = "sweep",
    models: tuple[str, ...] = METHODS,
    steps: int = 240,
    jobs: int = 2,
    store: Path = SWEEPS,
    out: Path = TRIED,
) -> list[Trial]:
    """Try learning rates and weights for each method; write what was tried and how large the error was.

    Rows of other methods and presets stay in the file.

    Args:
        data: Folder written by `prepare`, with masks if the preset wants them.
        preset: Size of the networks; the schedule is `steps` long.
        models: Methods; those that take another's settings are left out.
        steps: Of each run, fewer than those of the runs that are compared.
        jobs: Runs at a time, one thread each.
        store: Folder of the runs. Finished ones are not run again.
        out: CSV file to write.
    """
    names = [model for model in models if model not in LIKE]
    if not names:
        raise SystemExit(f"--models: {', '.join(models)} take the settings of da; name da or a rival")
    config = experiment(preset)
    warmup = config.train.warmup_steps * steps // config.train.steps
    config = replace(config, train=replace(config.train, steps=steps, warmup_steps=warmup))
    new = {(config.preset, name) for name in names}
    kept = [t for t in (read_trials(out) if out.exists() else []) if (t.preset, t.model) not in new]
    tried: list[Trial] = []

    def run(which: str, trials: Sequence[Trial]) -> None:
        points = [trial.point(config) for trial in trials]
        outcomes = sweep(points, data, store, executor_factory("processes", jobs, store))
        print(f"{which}:\n{format_outcomes(outcomes)}", flush=True)
        for trial, outcome in zip(trials, outcomes, strict=True):
            if outcome.ok:  # a failed one is no choice; the table above has its reason
                row = read_run(outcome.folder)
                error = float(row["val_P1_epe_mm"])
                tried.append(replace(trial, steps=steps, data=row["data"], val_mm=error))
        tried.sort(key=lambda trial: names.index(trial.model))
        write_trials([*kept, *tried], out)

    run("rates", [trial for name in names for trial in list_rates(config, name)])
    left = [name for name in names if any(trial.model == name for trial in tried)]  # others failed, as told
    run("weights", [trial for name in left for trial in list_weights(config, choose(tried, name))])
    return tried


def compare(
    data: Path,
    preset: str = "sweep",
    models: tuple[str, ...] = METHODS,
    seeds: tuple[int, ...] = SEEDS,
    trials: Path = TRIED,
    jobs: int = 2,
    store: Path = SWEEPS,
    record: bool = False,
    settings: Settings = (),
) -> None:
    """Train each method with the best settings that were tried, with several seeds; print their errors.

    The exit status is 1 if a run failed or could not be recorded; the other runs continue.

    Args:
        data: Folder written by `prepare`, with masks if the preset wants them.
        preset: Size and schedule of each run.
        models: Methods.
        seeds: Of the trainings.
        trials: CSV file that `tune` wrote.
        jobs: Runs at a time, one thread each.
        store: Folder of the runs. Finished ones are not run again.
        record: Add each result to the runs of record.
        settings: Fields to change, last, in each run. At another size of images than the preset's, the
            settings that were tried at the preset's size are used.
    """
    study, config = plan_methods(read_trials(trials), models, seeds), experiment(preset)
    points = [replace(p, config=apply_settings(p.config, settings)) for p in study.points(config)]
    digest = PreparedSplit.open(data, "train").manifest["digest"]
    others = {t.data for t in study.trials if t.preset == config.preset} - {digest[:12]}
    if others and {p.config.data.image_px for p in points} != {config.data.image_px}:
        print(f"settings of each method are those that were tried at {config.data.image_px} px")
    elif others:
        raise SystemExit(
            f"{trials}: settings were tried on data {', '.join(sorted(others))}, but {data} is "
            f"{digest[:12]}; run `rivals.py tune` on it, with --out, and name that file by --trials"
        )
    unrecorded = []

    def settle(outcome: Outcome) -> None:
        if record and outcome.ok:
            try:
                add_to_record(outcome.folder)
            except (ValueError, OSError) as error:  # the other runs continue
                unrecorded.append(f"not recorded: {error}")

    outcomes = sweep(points, data, store, executor_factory("processes", jobs, store), on_outcome=settle)
    print(format_outcomes(outcomes), *unrecorded, sep="\n")
    if unrecorded or not all(outcome.ok for outcome in outcomes):
        raise SystemExit(1)


def write(out: Path | None, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows as JSON, if there is a file to write."""
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out, json.dumps(list(rows), indent=2) + "\n")


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict({"cost": cost, "overfit": overfit, "tune": tune, "compare": compare})
