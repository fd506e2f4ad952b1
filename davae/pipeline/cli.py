"""The command line: one function a command, no logic of its own. `python -m davae --help`."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Literal, get_args

import tyro

from davae.config import PRESETS, VARIANTS, DataConfig
from davae.pipeline.notebooks import CELL_TIMEOUT_S, NotebookError
from davae.pipeline.options import REGISTRY, one_of
from davae.pipeline.streams import escape_unprintable

ABOUT = (
    "da-VAE: 3D hand pose, shape and appearance from one RGB image. Start with `reproduce --preset smoke`."
)
Dataset = Literal["synthhand", "rhd", "stb", "freihand"]
Model = Annotated[str, one_of(tuple(VARIANTS), "model")]
Mask = Annotated[str, one_of(get_args(DataConfig.__annotations__["mask"]), "mask")]
Preset = Annotated[str, one_of(tuple(PRESETS), "preset")]
Form = Annotated[Dataset, tyro.conf.arg(name="as")]
Settings = Annotated[tuple[str, ...], tyro.conf.arg(name="set", metavar="NAME=VALUE")]
WristRule = Literal["ring", "middle", "knuckles", "palm"]


def render(
    out: Path,
    train: int,
    test: int,
    val: int | None = None,
    form: Form = "synthhand",
    seed: int = 0,
    size: int | None = None,
    workers: int = 1,
    viewpoint: Literal["sphere", "frontal"] | None = None,
    backgrounds: Path | None = None,
) -> None:
    """Render SynthHand, hands with known factors, in RHD's format or exactly as another set was published.

    Args:
        out: Folder to write; an interrupted rendering goes on.
        train: Images of the training split; of STB, frames of its ten training sequences together.
        test: Images of the test split, in the folder `evaluation` as RHD calls it; of STB, frames of B1.
        val: Images of the validation split, in the folder `validation`; only SynthHand's own form has one.
        form: The folder's form: RHD's with `validation` and factors besides, or that of a published set.
        seed: Seed of the dataset; the same seed gives the same images.
        size: Side of the square images, pixels, 320 where nothing is said; published sets have their own.
        workers: Processes; the images do not depend on it.
        viewpoint: Any (sphere, where nothing is said), or palm or back within 60 degrees of the camera and
            fingers mostly up.
        backgrounds: Folder of pictures to put behind the hands, instead of those that davae has; they are
            cropped, flipped, tinted and now and then blurred.
    """
    from synthhand.dataset.forms import write_as

    choices = {"val": val, "size": size, "viewpoint": viewpoint, "backgrounds": backgrounds}
    write_as(form, out, train, test, seed, workers, **choices)
    counts = " + ".join(str(count) for count in (train, val, test) if count is not None)
    print(f"rendered {counts} samples, in the form of {form}, into {out}")


def prepare(
    dataset: Dataset,
    root: Path,
    out: Path,
    size: int = 64,
    scale_min: float = 0.8,
    crop: Literal["plain", "rotated-camera"] = "plain",
    rig: Literal["sk", "bb"] | None = None,
    wrist: WristRule | None = None,
    workers: int = 1,
    skip_bad: bool = False,
) -> None:
    """Turn a dataset on disk into memory-mapped training arrays.

    Args:
        dataset: Which format `root` holds.
        root: The dataset's folder.
        out: Folder to write.
        size: Side of the network's input, pixels (64 for smoke, laptop and sweep, 256 for paper).
        scale_min: How small a hand may be in a training crop, over the test crop: room is kept for that.
        crop: The paper's crop, or the one exact under view normalisation.
        rig: Of STB alone: sk, colour pictures with a cloud from the depth camera (where nothing is said), or
            bb, both pictures of the stereo camera, without a cloud.
        wrist: Of STB alone, whose joint 0 is the palm's centre: the rule that makes a wrist of it; ring where
            nothing is said, palm to leave it.
        workers: Processes; the arrays do not depend on it.
        skip_bad: Leave bad samples out and count them, where the default is to stop at the first.
    """
    from davae.config import DataConfig
    from davae.data.prepared import prepare as prepare_data

    config = DataConfig(image_px=size, crop=crop, scale_min=scale_min)
    options = {name: value for name, value in (("rig", rig), ("wrist", wrist)) if value is not None}
    prepare_data(dataset, root, out, config, options=options, skip_bad=skip_bad, workers=workers)
    print(f"prepared {dataset} into {out}")
    for split, entry in json.loads((out / "manifest.json").read_text(encoding="utf-8"))["splits"].items():
        count, skipped = entry["count"], len(entry["skipped"])
        print(f"  {split}: {count} samples, {entry['with_cloud']} with a cloud, {skipped} left out")


def check_data(
    dataset: Dataset,
    root: Path,
    full: bool = False,
    sheet: Path | None = None,
    seed: int = 0,
) -> None:
    """Check a dataset on disk: what is there, and whether pictures, labels and depth agree.

    Each problem is told with its file and what to do. Exit status 0 says that the set can be used, 1 that it
    cannot.

    Args:
        dataset: Which format `root` holds.
        root: The dataset's folder.
        full: Decode every picture, where the default is all labels, all files' ends and 1,000 pictures.
        sheet: PNG to write, a contact sheet with joints and masks drawn over pictures; by default
            outputs/check/DATASET-FOLDER.png.
        seed: Of the choice of pictures.
    """
    from davae.data.doctor import examine, make_tiles
    from davae.figures import check_sheet
    from synthhand.storage import write_atomically

    diagnosis = examine(dataset, root, full=full, seed=seed)
    print(diagnosis.format())
    if tiles := make_tiles(diagnosis, seed=seed):
        path = sheet or Path("outputs") / "check" / f"{dataset}-{root.resolve().name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda temporary: check_sheet(tiles).savefig(temporary, format="png", dpi=180))
        print(f"contact sheet: {path}")
    sys.exit(0 if diagnosis.usable else 1)


def train(
    preset: Preset,
    data: Path,
    run: Path,
    seed: int = 0,
    model: Model = "da",
    crop: Literal["plain", "rotated-camera"] = "plain",
    mask: Mask = "",
    init: Path | None = None,
    settings: Settings = (),
) -> None:
    """Train a model; an interrupted run is resumed, a finished one is loaded.

    Args:
        preset: Size and schedule.
        data: Folder written by `prepare`.
        run: The run's folder.
        seed: Seed of initial weights, order, augmentation and latent noise.
        model: da-VAE, na-VAE without attention, or with squeeze-excitation instead.
        crop: The crop that the data was prepared with.
        mask: What the network sees: the crop as photographed, or the hand over grey by its true mask, or by
            the mask that `predict-masks` stored. Where nothing is said, the preset decides.
        init: Finished run whose weights to begin with, such as one on RHD before STB.
        settings: Fields of the preset to change, such as train.steps=20000 data.shift=0.1.
    """
    from davae.config.settings import apply_settings, experiment
    from davae.training import distributed, loop, runs

    finished = runs.is_finished(run)
    config = apply_settings(experiment(preset, seed=seed, model=model, crop=crop, mask=mask), settings)
    loop.train(config, data, run, init=init)
    if distributed.rank() == 0:
        print(f"{'found finished' if finished else 'trained'}: {run}")
        print((run / "terms.txt").read_text(encoding="utf-8"), end="")


def sweep(
    preset: Preset,
    data: Path,
    vary: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=VALUE,VALUE...")],
    seeds: Annotated[str, tyro.conf.arg(metavar="SEED,SEED...")] = "0",
    store: Path = Path("outputs") / "sweeps",
    executor: Literal["processes", "dask", "slurm"] = "processes",
    jobs: int = 0,
    threads: int = 1,
    scheduler: str = "",
    option: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=VALUE")] = (),
    crop: Literal["plain", "rotated-camera"] = "plain",
    mask: Mask = "",
    record: bool = False,
) -> None:
    """Train and evaluate one run for each combination of values, several at a time.

    Finished points are reused, interrupted ones go on. Failures are reported at the end; other points
    continue. Exit status 1 says that there were some.

    Args:
        preset: Size and schedule of each run.
        data: Folder written by `prepare`.
        vary: What varies: beta_ratio (beta/alpha_image, by alpha_image), beta, alpha_pose_ratio,
            alpha_cloud_ratio (over alpha_image), model (da, na, se), or a field such as train.steps; several
            vary together.
        seeds: Of the training; all values of the first seed come first.
        store: Folder of the runs, each named by a digest of its config, data and code.
        executor: Processes of this machine, Dask's workers, or SLURM's jobs (`pip install -e .[cluster]`).
        jobs: Runs at a time; 0 for as many as there are cores.
        threads: Of torch in each run; its result depends on them in the last digits.
        scheduler: Address of Dask's scheduler, such as tcp://10.0.0.1:8786; without it workers start here.
        option: Of SLURM's jobs, in submitit's names: slurm_partition=gpu, timeout_min=120.
        crop: The crop that the data was prepared with.
        mask: What the network sees; where nothing is said, the preset decides.
        record: Add each result, as it comes, to the runs of record in davae/studies/results/measured.csv.
    """
    from davae.config.settings import experiment
    from davae.studies import Outcome, format_outcomes, parse_choices, parse_seeds
    from davae.studies import sweep as run_all
    from davae.studies import vary as points_of
    from davae.studies.executors import factory, parse_options
    from davae.studies.results.errors import record as keep

    points = points_of(experiment(preset, crop=crop, mask=mask), parse_choices(vary), parse_seeds(seeds))
    options = parse_options(option)
    make = factory(executor, jobs or os.cpu_count() or 1, store, scheduler=scheduler, options=options)

    unrecorded = []

    def settled(outcome: Outcome) -> None:
        if not (record and outcome.ok):
            return
        try:
            keep(outcome.folder)
        except (ValueError, OSError) as error:  # no reason to end the other runs
            unrecorded.append(f"not recorded: {error}")

    outcomes = run_all(points, data, store, make, threads=threads, settled=settled)
    print(format_outcomes(outcomes), end="")
    print(*unrecorded, sep="\n", end="\n" if unrecorded else "")
    sys.exit(0 if all(outcome.ok for outcome in outcomes) and not unrecorded else 1)


def train_mask(
    preset: Preset,
    data: Path,
    run: Path,
    seed: int = 0,
    crop: Literal["plain", "rotated-camera"] = "plain",
    settings: Settings = (),
) -> None:
    """Train a hand mask network and measure it; an interrupted run is resumed, a finished one is loaded.

    It learns from a dataset that has masks. `predict-masks` then applies it, to that dataset or another.

    Args:
        preset: Size and schedule.
        data: Folder written by `prepare`.
        run: The run's folder.
        seed: Seed of initial weights, order and augmentation.
        crop: The crop that the data was prepared with.
        settings: Fields of its config to change, such as train.steps=12000 data.shift=0.1.
    """
    from davae.config.settings import apply_settings, mask_experiment
    from davae.evaluation import evaluate_masks, format_masks
    from davae.training import distributed, masks, runs

    finished = runs.is_finished(run)
    masks.train_mask(apply_settings(mask_experiment(preset, seed=seed, crop=crop), settings), data, run)
    if distributed.rank() == 0:
        print(f"{'found finished' if finished else 'trained'}: {run}")
        print(format_masks(evaluate_masks(run, data)), end="")


def predict_masks(mask_run: Path, data: Path) -> None:
    """Predict the hand mask of every prepared sample and store it beside it, for `train --mask network`.

    The data need no masks of their own: a network trained on SynthHand, RHD or FreiHAND serves STB, if both
    were prepared with the same size and crop. Masks by another network are replaced, those by the same kept.

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
        split: Which split; every choice is made on val, test is for reporting.
        views: At each crop, turned by another angle, whose joints are averaged; the paper has 1, `predict` 8.
    """
    from davae.evaluation import evaluate as evaluate_run
    from davae.evaluation import format_table

    measured = evaluate_run(run, data, out=out, split=split, views=views)
    if measured["trained_on"] not in (None, measured["data"]):
        print(f"note: {run} was trained on other data; its folder keeps its own report, this one is {out}")
    print(format_table(measured))


def train_camera(run: Path, data: Path, out: Path, steps: int = 3000, seed: int = 0) -> None:
    """Train the head that says where on a crop the joints lie, on the frozen trunk of a finished run.

    The run must have been trained on jittered crops: `train --set data.shift=0.1 data.scale_max=1.25`.

    Args:
        run: The run's folder.
        data: Folder written by `prepare`, that of the run.
        out: The head's own folder; an interrupted training goes on.
        steps: Of training.
        seed: Of weights, order and augmentation.
    """
    import dataclasses

    from davae.training import camera

    schedule = dataclasses.replace(camera.camera_schedule(seed), steps=steps)
    print(f"trained: {camera.train_camera(run, data, out, schedule)}")


def pack(run: Path, mask_run: Path, camera_run: Path, finder_run: Path, out: Path) -> None:
    """Write a model, its mask network, camera head and finder to one file, for `predict` and the app.

    Args:
        run: Of `train`, on predicted masks and jittered crops.
        mask_run: Of `train-mask`, whose masks it saw.
        camera_run: Of `train-camera`, on that run.
        finder_run: Of `train-mask` on widely jittered crops, which looks for hands.
        out: File to write, .safetensors.
    """
    from davae.photo.release import pack as write

    about = write(run, mask_run, camera_run, finder_run, out)
    print(f"packed: {out}, {out.stat().st_size / 1e6:.1f} MB, {about}")


def predict(
    images: Annotated[tuple[Path, ...], tyro.conf.Positional],
    out: Path,
    box: Annotated[str, tyro.conf.arg(metavar="X,Y,W,H")] = "",
    side: Literal["left", "right"] | None = None,
    bone_mm: float | None = None,
    intrinsics: Annotated[str, tyro.conf.arg(metavar="FX,FY,CX,CY")] = "",
    weights: Path | None = None,
) -> None:
    """Find the hand in photos: joints and code as JSON, the mesh as PLY and GLB, a picture to look at.

    A photo that cannot be used is told and costs no other its result; exit status 1 says that there was one.

    Args:
        images: Photos of any kind and size.
        out: Folder for the results, named after the photos.
        box: Rectangle of the hand, pixels, from the left upper corner; without it the hand is looked for.
        side: Of all hands; guessed where nothing is said.
        bone_mm: Length of the bone from middle MCP to PIP; an average adult's where nothing is said.
        intrinsics: Of the camera, pixels: joints in mm then lie where the hand is, before the camera.
        weights: File of `pack`; that which comes with davae where nothing is said.
    """
    from davae.photo.predict_files import predict_files

    found = predict_files(images, out, box, side, bone_mm, intrinsics, weights)
    sys.exit(0 if not found.failed else 1)


def app(
    weights: Path | None = None,
    port: int = 8866,
    browser: bool = True,
    keep_s: int = 120,
) -> None:
    """Serve the web app on this machine: your own photo, and sliders on the latent space.

    Args:
        weights: File of `pack`; that which comes with davae where nothing is said.
        port: Of 127.0.0.1.
        browser: Open it in your browser.
        keep_s: Seconds for which a page that was closed or lost its connection keeps its memory.
    """
    from davae.photo.app.server import serve

    serve(weights, port, browser, keep_s)


def export(
    run: Path,
    onnx: Path,
    reduced: Literal["int8", "fp16"] | None = None,
    data: Path | None = None,
    split: Literal["val", "test"] = "val",
) -> None:
    """Write a finished run, of `train` or of `train-mask`, as an ONNX model, and check it against the run.

    Args:
        run: The run's folder.
        onnx: File to write.
        reduced: Fewer bits, which need `data`: int8 for processors, about a quarter of the size; fp16 for
            GPUs, half of it. What that costs in accuracy is printed.
        data: Folder written by `prepare`; its training split sets int8's ranges.
        split: Where the cost of fewer bits is measured.
    """
    from davae.photo.export import export as export_run
    from davae.photo.export import format_export

    print(format_export(export_run(run, onnx, reduced=reduced, data=data, split=split)))


def notebooks(
    preset: Preset,
    out: Path,
    seed: int = 0,
    model: Model = "da",
    dataset: Dataset = "synthhand",
    root: str = "",
    rig: Literal["sk", "bb"] = "sk",
    mask: Mask = "",
    only: str = "",
    weights: str = "",
    home: str = "",
    timeout_s: int = CELL_TIMEOUT_S,
) -> None:
    """Execute the notebooks through papermill; data and runs that they need are made first.

    One that fails is reported at the end and stops no other. Exit status 1 says that one failed.

    Args:
        preset: Size and schedule.
        out: Folder of the executed copies.
        seed: Training seed.
        model: da-VAE, na-VAE without attention, or with squeeze-excitation instead.
        dataset: SynthHand, rendered here, or a dataset on disk.
        root: Folder of the dataset, where it is not SynthHand.
        rig: Of STB alone: its pictures with a cloud, or its stereo pictures.
        mask: What the network sees: the crop, or the hand over grey by its true or by its predicted mask;
            where nothing is said, the preset decides.
        only: Run just the notebooks whose name contains this.
        weights: Of 05 alone: `shipped`, for the model that comes with davae, or a file of `pack`, to look at
            instead of a run. With `--only 05` nothing is then trained.
        home: Where data and outputs live; the clone's folder where nothing is said.
        timeout_s: Seconds that one cell may take; 0 for no limit, as a sweep's hours in 03 and 04 may need.
    """
    from davae.pipeline.notebooks import execute
    from davae.pipeline.workspace import Workspace, parameters_of

    asked = {"seed": seed, "model": model, "dataset": dataset, "root": root, "rig": rig, "mask": mask}
    space = Workspace.of(preset, **asked, home=home, weights=weights)
    if not weights:
        space.ensure_trained()
    for path in execute(out, parameters_of(space), only=only, timeout_s=timeout_s):
        print(path)


def reproduce(
    preset: Preset = "laptop",
    seed: int = 0,
    model: Model = "da",
    dataset: Dataset = "synthhand",
    root: str = "",
    rig: Literal["sk", "bb"] = "sk",
    mask: Mask = "",
    home: str = "",
) -> None:
    """Render, prepare, train, evaluate and run all notebooks; finished work is reused.

    Args:
        preset: smoke for a look (minutes), laptop for results (40 minutes on two quiet cores with bf16).
        seed: Training seed.
        model: da-VAE, na-VAE without attention, or with squeeze-excitation instead.
        dataset: SynthHand, rendered here, or a dataset on disk.
        root: Folder of the dataset, where it is not SynthHand.
        rig: Of STB alone: its pictures with a cloud, or its stereo pictures.
        mask: What the network sees: the crop, or the hand over grey by its true or by its predicted mask;
            where nothing is said, the preset decides.
        home: Where data and outputs live; the clone's folder where nothing is said.
    """
    from davae.pipeline.workspace import Workspace
    from davae.pipeline.workspace import reproduce as run_all

    asked = {"seed": seed, "model": model, "dataset": dataset, "root": root, "rig": rig, "mask": mask}
    print(run_all(Workspace.of(preset, **asked, home=home)))


def findings(out: Path = Path("docs/figures")) -> None:
    """Judge the paper's claims by the runs of record, and draw Figs. 2 and 3 from them; no run is needed.

    Args:
        out: Folder for the figures.
    """
    from davae.studies.findings import draw, records, report

    found = records()
    print(report(found))
    for path in draw(found, out):
        print(path)


def summary(preset: Preset = "paper", model: Model = "da") -> None:
    """Print parameters and FLOPs of each part of the network.

    Args:
        preset: Size of the network.
        model: da-VAE, na-VAE without attention, or with squeeze-excitation instead.
    """
    from davae.config.settings import experiment
    from davae.evaluation.summary import format_summary, summarise

    print(format_summary(summarise(experiment(preset, model=model).model)))


def main() -> None:
    """Run the command line; expected errors are told without a traceback (DAVAE_DEBUG=1 shows it)."""
    commands = (
        render, check_data, prepare, train_mask, predict_masks, train, sweep, evaluate, train_camera, pack,
        predict, app, export, notebooks, reproduce, findings, summary,
    )  # fmt: skip
    escape_unprintable()
    try:
        tyro.extras.subcommand_cli_from_dict(
            {command.__name__.replace("_", "-"): command for command in commands},
            prog="davae",
            description=ABOUT,
            registry=REGISTRY,
        )
    except (ValueError, OSError, FloatingPointError, NotebookError) as error:
        if os.environ.get("DAVAE_DEBUG"):
            raise
        if "TORCHELASTIC_RUN_ID" in os.environ:  # of torchrun's processes, most errors meet all
            from davae.training.distributed import tell_once

            tell_once(f"davae: {error}")
            sys.exit(1)
        sys.exit(f"davae: {error}")
    except KeyboardInterrupt:
        sys.exit(
            "davae: interrupted; called again, rendering, preparing and training go on from what is whole"
        )
