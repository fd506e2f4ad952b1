"""Measure a finished mask network, and store the masks it predicts beside prepared data."""

import dataclasses
import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm.auto import tqdm

from davae.config import MaskConfig
from davae.data.augment import centre, load_batch
from davae.data.manifest import SPLITS
from davae.data.predicted import read_mask_network, write_predicted
from davae.data.prepared import PreparedSplit
from davae.evaluation.compare import mean_with_interval
from davae.evaluation.report import report_json
from davae.evaluation.skin_tone import CLASSES, COLOUR_FACTOR, skin_tone_classes
from davae.evaluation.text_table import format_rows
from davae.networks import HandMaskNet
from davae.training import runs
from davae.training.device import pick_device
from davae.training.mask_inference import mask_iou, predict_probability
from davae.training.threads import single_threaded
from davae.training.trainer import check_prepared

BATCH_SIZE = 100
BATCHES_AT_ONCE = 2  # each on a core of its own; more would need memory for their activations
REPORTED: tuple[Literal["val", "test"], ...] = ("val", "test")


def evaluate_masks(
    mask_run: Path | str, data_dir: Path | str, *, device: str = "auto", progress: bool = True
) -> dict[str, Any]:
    """Measure a finished mask network on unseen images and write metrics.json into its folder.

    The measure is intersection over union (IoU) on the test crop at its full resolution, with the predicted
    and the true mask each thresholded at 0.5. Means are over images, intervals are 95 % bootstrap intervals
    over images.

    Args:
        mask_run: folder of a finished run of `davae train-mask`.
        data_dir: the prepared folder it was trained on.
        device: "auto" takes a GPU if there is one.
        progress: show a progress bar.

    Returns:
        A dict of dataset, data (its digest), val and test. val and test each hold n, iou, iou_interval,
        iou_5th_percentile and `classes` of skin tone (see `davae.evaluation.skin_tone`); `classes` is None if
        the dataset does not record the hands' colours. A split without masks, such as FreiHAND's test split,
        has n 0 and None for the rest.

    Raises:
        FileNotFoundError: the run is missing or unfinished, or there is no prepared data; the message names
            the command that makes it.
        ValueError: the data was prepared for another image size or crop, or neither split has masks.
    """
    network, config = runs.load_mask_network(mask_run)
    where = pick_device(device)
    network.to(where)
    report: dict[str, dict[str, Any]] = {}
    for name in REPORTED:
        split = PreparedSplit.open(data_dir, name)
        check_prepared(split, data_dir, config.data)
        rows = np.flatnonzero(split.has_mask)
        ious = np.zeros(0)
        if len(rows):
            ious = mask_ious(network, config, split, rows, device=where, progress=progress)
        colours = split.factors.get(COLOUR_FACTOR)
        report[name] = mask_report(ious, None if colours is None else colours[rows])
    if not any(part["n"] for part in report.values()):
        raise ValueError(
            f"{data_dir}: neither {' nor '.join(REPORTED)} has masks to measure against; give the data on "
            "which the network was trained"
        )
    measured = {"dataset": split.manifest["dataset"], "data": split.manifest["digest"], **report}
    runs.write_text(Path(mask_run) / "metrics.json", report_json(measured))
    return measured


def mask_ious(
    network: HandMaskNet,
    config: MaskConfig,
    split: PreparedSplit,
    rows: NDArray[np.int64],
    *,
    device: torch.device | str = "cpu",
    progress: bool = False,
) -> NDArray[np.float64]:
    """Return the IoU (k,) of samples `rows` (k,), at least one, on the test crop."""
    batches = _predict_batches(network.eval(), config, split, rows, device, f"IoU {split.name}", progress)
    return torch.cat([mask_iou(found, truth).cpu() for found, truth in batches]).double().numpy()


def _predict_batches(
    network: HandMaskNet,
    config: MaskConfig,
    split: PreparedSplit,
    rows: NDArray[np.int64],
    device: torch.device | str,
    title: str,
    progress: bool,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield predicted and true masks (k, 1, h, w) of samples `rows`, batch by batch, on the test crop.

    Batches do not wait for each other, as the threads of one operation would, so that two cores are twice as
    fast as one. Each is computed by one thread: the bits do not depend on the number of cores.
    """

    def predict(begin: int) -> tuple[Tensor, Tensor]:
        batch = centre(load_batch(split, rows[begin : begin + BATCH_SIZE], device), config.data)
        return predict_probability(network, batch.image), batch.mask

    begins = range(0, len(rows), BATCH_SIZE)
    # New threads take over torch's number of threads, so it is set before they start.
    with single_threaded(), ThreadPoolExecutor(BATCHES_AT_ONCE) as pool:
        yield from tqdm(pool.map(predict, begins), total=len(begins), desc=title, disable=not progress)


def mask_report(ious: NDArray[np.float64], colours: NDArray | None) -> dict[str, Any]:
    """Return the mean IoU over all images and for each class of skin tone.

    Args:
        ious: (n,) IoU of each image.
        colours: (n, 3) mean colour of each hand, sRGB on [0, 1], or None if the dataset does not record it.
    """

    def mean(values: NDArray) -> dict[str, Any]:
        return {"n": len(values), **mean_with_interval("iou", values)}

    classes = None
    if colours is not None:
        member = skin_tone_classes(colours)
        classes = {name: mean(ious[member == index]) for index, name in enumerate(CLASSES)}
    low = float(np.quantile(ious, 0.05)) if len(ious) else None
    return mean(ious) | {"iou_5th_percentile": low, "classes": classes}


def format_masks(measured: dict[str, Any]) -> str:
    """Return the report of `evaluate_masks` as a plain text table."""
    parts = [measured[name] for name in REPORTED]
    groups = {"all": parts}
    if all(part["classes"] for part in parts):
        groups |= {tone: [part["classes"][tone] for part in parts] for tone in CLASSES}

    def cells(part: dict[str, Any]) -> tuple[str, str]:
        if not part["n"]:
            return "0", "-"
        low, high = part["iou_interval"]
        return str(part["n"]), f"{part['iou']:.3f} [{low:.3f}, {high:.3f}]"

    columns = ["", *(title for name in REPORTED for title in (f"{name} n", "IoU"))]
    rows = ([group, *(cell for part in found for cell in cells(part))] for group, found in groups.items())
    table = format_rows(columns, rows)
    return f"IoU of the hand mask, {measured['dataset']} [95 % interval over images]\n{table}\n"


def predict_masks(
    mask_run: Path | str, data_dir: Path | str, *, device: str = "auto", progress: bool = True
) -> bool:
    """Predict the hand mask of every sample of a prepared folder and store it there.

    The network sees the test crop. The margin around that crop, which holds one thousandth of the hands'
    pixels, is marked as background. The data need no true masks: a network trained on one dataset can serve
    any other that was prepared with the same image size and crop, such as STB, which has no masks.

    Args:
        mask_run: folder of a finished run of `davae train-mask`.
        data_dir: folder written by `davae.data.prepared.prepare`.
        device: "auto" takes a GPU if there is one.
        progress: show progress bars.

    Returns:
        False if the folder already holds masks of this network, which are kept. True if masks were written;
        those of another network are replaced.

    Raises:
        FileNotFoundError: the run is missing or unfinished, or there is no prepared data; the message names
            the command that makes it.
        ValueError: the data was prepared for another image size or crop.
        BlockingIOError: another process is writing to the folder.
    """
    mask_run = Path(mask_run)
    network, config = runs.load_mask_network(mask_run)
    weights = runs.weights_digest(mask_run)
    if (found := read_mask_network(data_dir)) is not None and found["network"] == weights:
        return False
    where = pick_device(device)
    network.to(where)
    pieces: dict[str, Iterable[NDArray[np.uint8]]] = {}
    for name in SPLITS:
        split = PreparedSplit.open(data_dir, name)
        check_prepared(split, data_dir, config.data)
        pieces[name] = _predict(network, config, split, where, progress)
    about = {"network": weights, "run": mask_run.resolve().name, "config": dataclasses.asdict(config)}
    write_predicted(data_dir, about | {"iou": _measured_iou(mask_run)}, pieces)
    return True


def _predict(
    network: HandMaskNet, config: MaskConfig, split: PreparedSplit, device: torch.device, progress: bool
) -> Iterator[NDArray[np.uint8]]:
    """Yield soft masks (k, s, s), 255 for certainly the hand, of all samples of a split, in order."""
    _, stored, _ = split.masks.shape
    margin = (stored - config.data.image_px) // 2
    rows, title = np.arange(len(split)), f"masks {split.name}"
    for found, _ in _predict_batches(network, config, split, rows, device, title, progress):
        soft = (255 * found[:, 0]).round().byte().cpu().numpy()
        yield np.pad(soft, ((0, 0), (margin, margin), (margin, margin)))


def _measured_iou(mask_run: Path) -> float | None:
    """Return the IoU of a mask network on its own test split, or None if it was not measured."""
    path = mask_run / "metrics.json"
    return json.loads(path.read_text(encoding="utf-8"))["test"]["iou"] if path.exists() else None
