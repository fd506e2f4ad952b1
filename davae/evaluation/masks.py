"""A finished mask network at work: how well it finds the hand, and its masks stored beside prepared data."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm.auto import tqdm

from davae.config import MaskConfig
from davae.data.augment import centre, load_batch
from davae.data.manifest import SPLITS
from davae.data.predicted import read_mask_network, write_predicted
from davae.data.prepared import PreparedSplit
from davae.evaluation.report import report_json
from davae.evaluation.skin_tone import CLASSES, COLOUR_FACTOR, skin_tone_classes
from davae.metrics import bootstrap_interval
from davae.networks import HandMaskNet
from davae.training import runs
from davae.training.device import pick_device
from davae.training.mask_inference import mask_iou, predict_probability
from davae.training.trainer import check_prepared

BATCH_SIZE = 100
REPORTED = ("val", "test")


def evaluate_masks(
    mask_run: Path | str, data_dir: Path | str, *, device: str = "auto", progress: bool = True
) -> dict[str, Any]:
    """Measure a finished mask network on unseen images; leaves metrics.json in its folder.

    What is measured is intersection over union at the crop's full resolution, predicted and true mask each
    cut at a half, on the test crop; means over images, with 95 % bootstrap intervals over images.

    Args:
        mask_run: folder of a finished run of `davae train-mask`.
        data_dir: the prepared folder it was trained on.
        device: "auto" takes a GPU where there is one.
        progress: show a progress bar.

    Returns:
        val and test, each with n, iou, iou_interval, iou_5th_percentile and `classes` of skin tone (see
        `davae.evaluation.skin_tone`), where the dataset says what colour the hands have, else None. A split
        without masks, as FreiHAND's test is, has n 0 and None for the rest.

    Raises:
        FileNotFoundError: no run there, or unfinished, or no prepared data; the message names the command.
        ValueError: the data was prepared for another image size or crop, or neither split has masks.
    """
    network, config = runs.load_mask_network(mask_run)
    device = pick_device(device)
    network.to(device)
    report = {}
    for name in REPORTED:
        split = PreparedSplit.open(data_dir, name)
        check_prepared(split, data_dir, config.data)
        rows = np.flatnonzero(split.has_mask)
        ious = np.zeros(0)
        if len(rows):
            ious = mask_ious(network, config, split, rows, device=device, progress=progress)
        colours = split.factors.get(COLOUR_FACTOR)
        report[name] = mask_report(ious, None if colours is None else colours[rows])
    if not any(part["n"] for part in report.values()):
        raise ValueError(
            f"{data_dir}: neither {' nor '.join(REPORTED)} has masks to measure against; give the data that "
            "the network was trained on"
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
    """Return the IoU (k,) of samples `rows` (k,), at least one, on their test crops."""
    found = []
    for begin in tqdm(range(0, len(rows), BATCH_SIZE), desc=f"IoU {split.name}", disable=not progress):
        batch = centre(load_batch(split, rows[begin : begin + BATCH_SIZE], device), config.data)
        found.append(mask_iou(predict_probability(network.eval(), batch.image), batch.mask).cpu())
    return torch.cat(found).double().numpy()


def mask_report(ious: NDArray[np.float64], colours: NDArray | None) -> dict[str, Any]:
    """Reduce the IoU (n,) of n images to means, over all and by class of skin tone.

    Args:
        ious: one of each image.
        colours: (n, 3) mean colour of each hand, sRGB on [0, 1], or None where the dataset does not say.
    """

    def mean(values: NDArray) -> dict[str, Any]:
        some = len(values) > 0
        return {
            "n": len(values),
            "iou": float(values.mean()) if some else None,
            "iou_interval": list(bootstrap_interval(values)) if some else None,
        }

    classes = None
    if colours is not None:
        member = skin_tone_classes(colours)
        classes = {name: mean(ious[member == index]) for index, name in enumerate(CLASSES)}
    low = float(np.quantile(ious, 0.05)) if len(ious) else None
    return mean(ious) | {"iou_5th_percentile": low, "classes": classes}


def format_masks(measured: dict[str, Any]) -> str:
    """Return the report of `evaluate_masks` as a plain text table."""
    lines = [f"IoU of the hand mask, {measured['dataset']} [95 % interval over images]"]
    lines.append(" " * 13 + "".join(f"{name:>32}" for name in REPORTED))

    def line(head: str, cells: list[dict[str, Any]]) -> str:
        texts = []
        for cell in cells:
            text = f"n {cell['n']:>5}"
            if cell["n"]:
                low, high = cell["iou_interval"]
                text += f"  {cell['iou']:.3f} [{low:.3f}, {high:.3f}]"
            texts.append(f"{text:>32}")
        return (f"{head:<13}" + "".join(texts)).rstrip()

    lines.append(line("all", [measured[name] for name in REPORTED]))
    if all(measured[name]["classes"] for name in REPORTED):
        lines += [line(tone, [measured[name]["classes"][tone] for name in REPORTED]) for tone in CLASSES]
    return "\n".join(lines) + "\n"


def predict_masks(
    mask_run: Path | str, data_dir: Path | str, *, device: str = "auto", progress: bool = True
) -> bool:
    """Predict the hand mask of every sample of a prepared folder and store it there.

    The network sees the test crop; the margin around it, which holds one thousandth of the hands' pixels, is
    never the hand. The data need no masks of their own: a network trained on one dataset serves any other
    that was prepared with the same size and crop, which is how STB, without masks, gets its own.

    Args:
        mask_run: folder of a finished run of `davae train-mask`.
        data_dir: folder written by `davae.data.prepared.prepare`.
        device: "auto" takes a GPU where there is one.
        progress: show progress bars.

    Returns:
        Whether there was anything to do: masks of the same network are kept, those of another replaced.

    Raises:
        FileNotFoundError: no run there, or unfinished, or no prepared data; the message names the command.
        ValueError: the data was prepared for another image size or crop.
        BlockingIOError: another process is writing to the folder.
    """
    mask_run = Path(mask_run)
    network, config = runs.load_mask_network(mask_run)
    weights = runs.weights_digest(mask_run)
    if (found := read_mask_network(data_dir)) is not None and found["network"] == weights:
        return False
    device = pick_device(device)
    network.to(device)
    pieces = {}
    for name in SPLITS:
        split = PreparedSplit.open(data_dir, name)
        check_prepared(split, data_dir, config.data)
        pieces[name] = _predict(network, config, split, device, progress)
    about = {"network": weights, "run": mask_run.resolve().name, "config": dataclasses.asdict(config)}
    write_predicted(data_dir, about | {"iou": _measured_iou(mask_run)}, pieces)
    return True


def _predict(
    network: HandMaskNet, config: MaskConfig, split: PreparedSplit, device: torch.device, progress: bool
) -> Iterator[NDArray[np.uint8]]:
    """Yield soft masks (k, s, s) of all samples of a split, in order."""
    _, stored, _ = split.masks.shape
    margin = (stored - config.data.image_px) // 2
    for begin in tqdm(range(0, len(split), BATCH_SIZE), desc=f"masks {split.name}", disable=not progress):
        rows = np.arange(begin, min(begin + BATCH_SIZE, len(split)))
        batch = centre(load_batch(split, rows, device), config.data)
        soft = (255 * predict_probability(network, batch.image)[:, 0]).round().byte().cpu().numpy()
        yield np.pad(soft, ((0, 0), (margin, margin), (margin, margin)))


def _measured_iou(mask_run: Path) -> float | None:
    """Return the IoU of a mask network's own test split, None where it was not measured."""
    path = mask_run / "metrics.json"
    return json.loads(path.read_text(encoding="utf-8"))["test"]["iou"] if path.exists() else None
