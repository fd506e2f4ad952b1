"""Commands that train networks and measure them."""

import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import tyro

from davae.pipeline.options import AnyModel, Mask, PreparedCrop, Preset, Settings
from davae.studies.executors import Kind


def train(
    preset: Preset,
    data: Path,
    run: Path,
    seed: int = 0,
    model: AnyModel = "da",
    crop: PreparedCrop = "plain",
    mask: Mask = None,
    init: Path | None = None,
    settings: Settings = (),
) -> None:
    """Train da-VAE or a rival of it. An interrupted run is resumed, a finished run is loaded.

    Args:
        preset: Size and schedule.
        data: Folder written by `prepare`.
        run: The run's folder.
        seed: Seed of initial weights, order, augmentation and latent noise.
        init: Finished run to take the initial weights from, such as a run on RHD before training on STB.
        settings: Fields of the preset to change, such as train.steps=20000 data.shift=0.1.
    """
    from davae.config.settings import apply_settings, experiment
    from davae.rivals import train as train_model
    from davae.training import distributed, runs

    finished = runs.is_finished(run)
    config = apply_settings(experiment(preset, seed=seed, model=model, crop=crop, mask=mask or ""), settings)
    train_model(config, data, run, init=init)
    if distributed.rank() == 0:
        print(f"{'found finished' if finished else 'trained'}: {run}")
        print((run / "terms.txt").read_text(encoding="utf-8"), end="")


def sweep(
    preset: Preset,
    data: Path,
    vary: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=VALUE,VALUE...")],
    seeds: Annotated[str, tyro.conf.arg(metavar="SEED,SEED...")] = "0",
    store: Path = Path("outputs") / "sweeps",
    executor: Kind = "processes",
    jobs: int = 0,
    threads: int = 1,
    scheduler: str = "",
    option: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=VALUE")] = (),
    crop: PreparedCrop = "plain",
    mask: Mask = None,
    record: bool = False,
) -> None:
    """Train and evaluate one run for each combination of values, several at a time.

    Finished runs are reused, interrupted runs are resumed. Failures are reported at the end; other runs
    continue. The exit status is 1 if there was a failure.

    Args:
        preset: Size and schedule of each run.
        data: Folder written by `prepare`.
        vary: Variables and their values: beta_ratio (beta/alpha_image, set through alpha_image), beta,
            alpha_pose_ratio, alpha_cloud_ratio (each over alpha_image), model (da, na, se, undivided, or a
            rival such as cm-vae), or a field such as train.steps. Several variables are combined.
        seeds: Training seeds. All values of the first seed are run first.
        store: Folder of the runs, each named by a digest of its config, data and code.
        executor: Where runs are executed: processes of this machine, Dask's workers, or SLURM jobs. The last
            two need `pip install -e .[cluster]`.
        jobs: Number of runs at a time; 0 means one per core.
        threads: Number of torch threads in each run; the last digits of a result depend on it.
        scheduler: Address of a Dask scheduler, such as tcp://10.0.0.1:8786; the default starts workers here.
        option: Settings of the SLURM jobs, as submitit names them: slurm_partition=gpu timeout_min=120.
        record: Add each result to the runs of record in davae/studies/results/measured.csv.
    """
    from davae.config.settings import experiment
    from davae.studies.executors import executor_factory, parse_options
    from davae.studies.points import parse_choices, parse_seeds
    from davae.studies.points import vary as list_points
    from davae.studies.results.errors import record as add_to_record
    from davae.studies.sweep import Outcome, format_outcomes
    from davae.studies.sweep import sweep as run_points

    config = experiment(preset, crop=crop, mask=mask or "")
    points = list_points(config, parse_choices(vary), parse_seeds(seeds))
    options = parse_options(option)
    make_executor = executor_factory(
        executor, jobs or os.cpu_count() or 1, store, scheduler=scheduler, options=options
    )

    unrecorded = []

    def record_outcome(outcome: Outcome) -> None:
        if not (record and outcome.ok):
            return
        try:
            add_to_record(outcome.folder)
        except (ValueError, OSError) as error:  # the other runs continue
            unrecorded.append(f"not recorded: {error}")

    outcomes = run_points(points, data, store, make_executor, threads=threads, on_outcome=record_outcome)
    print(format_outcomes(outcomes), end="")
    print(*unrecorded, sep="\n", end="\n" if unrecorded else "")
    sys.exit(0 if all(outcome.ok for outcome in outcomes) and not unrecorded else 1)


def train_mask(
    preset: Preset,
    data: Path,
    run: Path,
    seed: int = 0,
    crop: PreparedCrop = "plain",
    init: Path | None = None,
    settings: Settings = (),
) -> None:
    """Train and measure a hand mask network. An interrupted run is resumed, a finished run is loaded.

    The dataset must have masks. `predict-masks` then applies the network to this dataset or another.

    Args:
        preset: Size and schedule.
        data: Folder written by `prepare`.
        run: The run's folder.
        seed: Seed of initial weights, order and augmentation.
        init: Finished run of `train-mask` to take the initial weights from; `unpack` makes one of a file.
        settings: Fields of its config to change, such as train.steps=12000 data.shift=0.1.
    """
    from davae.config.settings import apply_settings, mask_experiment
    from davae.evaluation import evaluate_masks, format_masks
    from davae.training import distributed, mask_task, runs

    finished = runs.is_finished(run)
    config = apply_settings(mask_experiment(preset, seed=seed, crop=crop), settings)
    mask_task.train_mask(config, data, run, init=init)
    if distributed.rank() == 0:
        print(f"{'found finished' if finished else 'trained'}: {run}")
        print(format_masks(evaluate_masks(run, data)), end="")


def predict_masks(mask_run: Path, data: Path) -> None:
    """Predict the hand mask of every prepared sample and store it with the data, for `train --mask network`.

    The data need no masks of their own: a network trained on SynthHand, RHD or FreiHAND can be used for STB
    if both were prepared with the same size and crop. Masks that the same network predicted before are kept;
    masks of another network are replaced.

    Args:
        mask_run: Folder of a finished run of `train-mask`.
        data: Folder written by `prepare`.
    """
    from davae.evaluation import predict_masks as predict

    print(f"{'predicted' if predict(mask_run, data) else 'found predicted'}: {data}")


def evaluate(
    run: Path, data: Path, out: Path, split: Literal["test", "val", "train"] = "test", views: int = 1
) -> None:
    """Measure a finished run under protocols P1 to P5, beside constant baselines.

    Args:
        run: The run's folder.
        data: Folder written by `prepare`.
        out: JSON file to write.
        split: Split to measure. Make choices on val; use test for reporting only.
        views: Number of rotated copies of each crop whose predicted joints are averaged. The paper uses 1,
            `predict` uses 8.
    """
    from davae.evaluation import evaluate as evaluate_run
    from davae.evaluation import format_table

    measured = evaluate_run(run, data, out=out, split=split, views=views)
    if measured["trained_on"] not in (None, measured["data"]):
        print(f"note: {run} was trained on other data; its own report is unchanged, this report is {out}")
    print(format_table(measured))


def train_camera(
    run: Path, data: Path, out: Path, steps: int = 3000, seed: int = 0, photometric: float | None = None
) -> None:
    """Train a head that locates the joints on a crop, on the frozen trunk of a finished run.

    The run must have been trained on jittered crops: `train --set data.shift=0.1 data.scale_max=1.25`.
    An interrupted training is resumed.

    Args:
        run: The run's folder.
        data: Folder written by `prepare` that the run was trained on.
        out: Folder of the head.
        steps: Number of training steps.
        seed: Seed of weights, order and augmentation.
        photometric: Strength, 0 to 1, of changes in light, colours and detail; the default is the run's.
    """
    import dataclasses

    from davae.config import TrainConfig, camera_schedule
    from davae.config.reading import check_value
    from davae.training.camera_task import train_camera as train_head

    schedule = dataclasses.replace(
        camera_schedule(check_value(TrainConfig, "seed", seed, "--seed")),
        steps=check_value(TrainConfig, "steps", steps, "--steps"),
    )
    print(f"trained: {train_head(run, data, out, schedule, photometric=photometric)}")
