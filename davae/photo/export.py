"""Export a finished run as an ONNX model, and check it against the network in torch.

    da-VAE, na-VAE   image (n, 3, px, px) -> joints (n, 21, 3), z_pose, z_appearance, z_shape (n, z): means
    mask network     image (n, 3, px, px) -> probability (n, 1, px, px) of the hand, from one view

BatchNorm is folded into the weights, n is any number, and the model's metadata describe input and output. A
reduced model is smaller. Whether int8 is faster than fp32, both in ONNX Runtime, depends on network
and processor: 1.4 times (1 image at a time) and 1.6 (8) on a Xeon with AMX; from 0.6 to 2.2 times in the rows
of docs/results/bench.md. In fp16 it is no faster on a processor. Its loss of accuracy is measured on prepared
data whenever one is made.
"""

import dataclasses
import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm.auto import tqdm

from davae import __version__
from davae.config import BLOCKS, Config, MaskConfig
from davae.data.augment import Batch, centre, load_batch
from davae.data.prepared import PreparedSplit
from davae.evaluation.joints import HandProbability
from davae.evaluation.measure import open_split
from davae.metrics import PROTOCOLS, bootstrap_interval, protocol_errors
from davae.networks import DaVAE
from davae.networks.handmask import MID_GREY
from davae.photo.graph import convert_to_fp16, measure_difference, open_session, quantise, trace
from davae.training import runs
from davae.training.mask_inference import mask_iou
from davae.training.trainer import check_prepared
from synthhand.skeleton import JOINT_NAMES
from synthhand.storage import write_atomically

if TYPE_CHECKING:
    from onnx import ModelProto

TOLERANCE = 1e-4  # between the outputs of ONNX Runtime and of torch
CALIBRATION_CROPS = 200
BATCH_SIZE = 20
INSTALL = "pip install 'davae[export]'"

INPUT_MASKS = {
    "none": "none: the crop as photographed",
    "truth": f"truth: the hand over grey ({MID_GREY}) by its true mask",
    "network": f"network: the hand over grey by its probability p, p * image + (1 - p) * {MID_GREY}",
}
INPUT = (
    "RGB on [0, 1], a square crop around the middle knuckle of a right hand; mirror a left hand's, and "
    "mirror the joints back (x to -x)"
)
UNITS = (
    "joints relative to the middle knuckle (middle_mcp), in lengths of the bone from there to middle_pip; "
    "x right, y down, z forward along the ray through the crop's centre"
)
REDUCED = {
    "int8": "int8: convolutions on 8 bits (QDQ), linear layers in fp32",
    "fp16": "fp16: weights and arithmetic, input and output in fp32",
}


class ExportError(ValueError):
    """A package is missing, or the ONNX model does not compute what the run's network does."""


class Cost(NamedTuple):
    """A measure of the fp32 and of the reduced model, over the images of a split."""

    full: float  # of the model in fp32
    reduced: float
    interval: tuple[float, float]  # 95 % of reduced minus full, bootstrap over images


@dataclasses.dataclass(frozen=True)
class Exported:
    """What `export` wrote."""

    path: Path
    outputs: dict[str, tuple[int | str, ...]]  # name -> shape
    difference: float | None  # largest, of ONNX Runtime in fp32 from torch; None without ONNX Runtime
    megabytes: float
    reduced: str | None = None
    fp32_megabytes: float | None = None  # of the model before it was reduced
    split: str | None = None  # where the cost was measured, and on how many images
    images: int | None = None
    costs: dict[str, Cost] = dataclasses.field(default_factory=dict)  # measure -> its cost


class Estimate(nn.Module):
    """Images (b, 3, h, w) to joints (b, 21, 3) and the posterior mean (b, z) of each block, as a tuple."""

    def __init__(self, model: DaVAE):
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Encode, and decode the joints."""
        means = self.model.encode(image).means
        return self.model.decode_pose(means), *(means[block] for block in BLOCKS)


def export(
    run: Path | str,
    path: Path | str,
    *,
    reduced: Literal["int8", "fp16"] | None = None,
    data: Path | str | None = None,
    split: Literal["val", "test"] = "val",
    progress: bool = True,
) -> Exported:
    """Write a finished run, of da-VAE, na-VAE or the mask network, as an ONNX model.

    Args:
        run: folder of the run.
        path: file to write, in a folder that exists; it is written whole or not at all.
        reduced: arithmetic with fewer bits; the default is fp32.
        data: prepared folder, needed for a reduced model: its training split calibrates int8, and `split`
            measures the cost.
        split: on which the cost of a reduced model is measured.
        progress: show progress bars.

    Returns:
        What was written, how far it is from torch, and what reducing it cost.

    Raises:
        FileNotFoundError: no run there, or unfinished, or no folder to write to, or no prepared data.
        ValueError: a reduced model without data, or with data that are not of this run's kind.
        ExportError: a package is missing, or ONNX Runtime and torch differ by more than `TOLERANCE`.
    """
    run, path = Path(run), Path(path)
    _check_request(path, reduced, data)
    network, config, outputs = open_network(run)
    splits = {}
    if reduced and data is not None:
        for name in ("train", split):
            splits[name] = open_split(run, config, data, name)
            check_prepared(splits[name], data, config.data)
        if isinstance(config, MaskConfig) and not splits[split].has_mask.any():
            raise ValueError(f"{data}: {split} has no masks to measure against; give another split or data")
    px = config.data.image_px
    with tqdm(total=2, desc="trace the network", leave=False, disable=not progress) as bar:
        model = trace(network, px, outputs)
        bar.update()
        bar.set_description("compare with torch")
        difference = measure_difference(network, model, px) if find_spec("onnxruntime") else None
    if difference is not None and not difference <= TOLERANCE:  # NaN fails, too
        raise ExportError(
            f"{path}: not written, since ONNX Runtime and torch differ by {difference:.2g}, more than "
            f"{TOLERANCE:g}; the installed versions of torch and onnxruntime do not go together"
        )
    shapes = {
        output.name: tuple(d.dim_param or d.dim_value for d in output.type.tensor_type.shape.dim)
        for output in model.graph.output
    }
    exported = Exported(path, shapes, difference, model.ByteSize() / 1e6)
    if reduced:
        whole = model
        model = (
            _quantise(whole, splits["train"], config, progress)
            if reduced == "int8"
            else convert_to_fp16(whole)
        )
        exported = dataclasses.replace(
            exported,
            reduced=reduced,
            megabytes=model.ByteSize() / 1e6,
            fp32_megabytes=exported.megabytes,
            split=split,
            **_measure(whole, model, splits[split], config, progress),
        )
    _set_metadata(model, describe_run(run, config, reduced))
    write_atomically(path, lambda temporary: temporary.write_bytes(model.SerializeToString()))
    return exported


def format_export(exported: Exported) -> str:
    """Return what `export` wrote as lines of text."""
    outputs = ", ".join(f"{name} ({', '.join(map(str, shape))})" for name, shape in exported.outputs.items())
    lines = [f"wrote {exported.path} ({exported.megabytes:.1f} MB): image -> {outputs}"]
    if exported.difference is None:
        lines.append(f"not compared with torch, since onnxruntime is not installed: {INSTALL}")
    else:
        lines.append(
            f"ONNX Runtime and torch, both in fp32, differ by at most {exported.difference:.1e} "
            f"(allowed are {TOLERANCE:g})"
        )
    if exported.reduced:
        lines.append(
            f"{exported.reduced} instead of fp32 ({exported.fp32_megabytes:.1f} MB), "
            f"on {exported.images} images of {exported.split}:"
        )
    for measure, cost in exported.costs.items():
        change, (low, high) = cost.reduced - cost.full, cost.interval
        lines.append(
            f"  {measure}: {cost.reduced:.3f} instead of {cost.full:.3f} "
            f"({change:+.3f}, 95 % interval {low:+.3f} to {high:+.3f})"
        )
    return "\n".join(lines)


def open_network(run: Path) -> tuple[nn.Module, Config | MaskConfig, tuple[str, ...]]:
    """Open a finished run of either kind; return the network to export, its config and its outputs' names.

    Raises:
        FileNotFoundError: there is no such run, or it is not finished.
        ValueError: the weights are damaged or do not fit the config.
    """
    file = run / "config.json"
    if file.exists() and "model" not in json.loads(file.read_text(encoding="utf-8")):  # as a `Config` has
        network, mask_config = runs.load_mask_network(run)
        return HandProbability(network).eval(), mask_config, ("probability",)
    model, config = runs.load_model(run)
    return Estimate(model).eval(), config, ("joints", *(f"z_{block}" for block in BLOCKS))


def _quantise(
    model: "ModelProto", train: PreparedSplit, config: Config | MaskConfig, progress: bool
) -> "ModelProto":
    """Return `model` in int8, calibrated on crops of the training split, the same each time."""
    count = min(CALIBRATION_CROPS, len(train))
    rows = np.random.default_rng(0).choice(len(train), count, replace=False)
    return quantise(
        model, (batch.image.numpy() for batch in _batches(train, rows, config, "calibrate", progress))
    )


def _measure(
    whole: "ModelProto",
    reduced: "ModelProto",
    split: PreparedSplit,
    config: Config | MaskConfig,
    progress: bool,
) -> dict[str, Any]:
    """Return `images` and `costs` of `Exported`: P1 and P5 of joints, or the IoU of masks."""
    rows = np.flatnonzero(split.has_mask) if isinstance(config, MaskConfig) else np.arange(len(split))
    models = open_session(whole), open_session(reduced)
    found: tuple[list, list] = ([], [])
    for batch in _batches(split, rows, config, f"measure on {split.name}", progress):
        for results, model in zip(found, models, strict=True):
            (first, *_) = model.run(None, {"image": batch.image.numpy()})
            results.append(
                mask_iou(torch.from_numpy(first), batch.mask).numpy() if first.ndim == 4 else first
            )
    full, less = (np.concatenate(results) for results in found)
    if isinstance(config, MaskConfig):
        return {"images": len(rows), "costs": {"IoU": _compare(full, less)}}
    truth = (split.joints, split.scale_mm, split.visible, float(np.mean(split.scale_mm)))
    costs = {}
    for name in ("P1", "P5"):
        errors = (protocol_errors(PROTOCOLS[name], pose, *truth).mean(axis=1) for pose in (full, less))
        costs[f"{name} EPE in mm"] = _compare(*errors)
    return {"images": len(rows), "costs": costs}


def _compare(full: NDArray, reduced: NDArray) -> Cost:
    """Return the cost of a reduced model from a value of each image (n,) under both."""
    return Cost(float(full.mean()), float(reduced.mean()), bootstrap_interval(reduced - full))


def _batches(
    split: PreparedSplit, rows: NDArray[np.int64], config: Config | MaskConfig, what: str, progress: bool
) -> Iterator[Batch]:
    """Yield the test crops of samples `rows` (k,), as the network takes them."""
    for begin in tqdm(range(0, len(rows), BATCH_SIZE), desc=what, disable=not progress):
        batch = centre(load_batch(split, rows[begin : begin + BATCH_SIZE]), config.data)
        yield batch._replace(image=batch.image.contiguous())


def describe_run(run: Path, config: Config | MaskConfig, reduced: str | None) -> dict[str, str]:
    """Return the metadata of an exported model."""
    identity = runs.identity_of(run)
    facts = {
        "davae": __version__,
        "weights": runs.weights_digest(run),
        "dataset": _name_dataset(run, identity),
        "seed": str(config.train.seed),
        "image_px": str(config.data.image_px),
        "input": f"{INPUT}; {config.data.crop} crop",
        "input_mask": INPUT_MASKS[config.data.mask],
        "precision": REDUCED[reduced] if reduced else "fp32",
    }
    if isinstance(config, MaskConfig):
        return facts | {"network": "hand mask network", "units": "probability that a pixel is the hand's"}
    if config.data.mask == "network" and identity is not None and identity.mask_network is not None:
        facts["mask_network"] = identity.mask_network  # equals `weights` of its own export
    return facts | {
        "network": config.model.title,
        "preset": config.preset,
        "joint_order": " ".join(JOINT_NAMES),
        "units": UNITS,
    }


def _name_dataset(run: Path, identity: runs.Identity | None) -> str:
    """Name the data that a run was trained on, as far as its folder says."""
    if identity is None:
        return "unknown"
    report = run / "metrics.json"
    found = json.loads(report.read_text(encoding="utf-8")) if report.exists() else {}
    name = (
        found["dataset"]
        if found.get("data") == identity.data
        else "not named, since the run is not evaluated"
    )
    return f"{name} (prepared data {identity.data[:12]})"


def _set_metadata(model: "ModelProto", facts: dict[str, str]) -> None:
    """Replace the metadata that the tools left by `facts`."""
    import onnx

    del model.metadata_props[:]
    onnx.helper.set_model_props(model, facts)
    model.producer_name, model.producer_version = "davae", __version__


def _check_request(path: Path, reduced: str | None, data: Path | str | None) -> None:
    """Raise the errors of a request that cannot succeed, before anything is computed."""
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"{path}: there is no folder {path.parent}; make it, or name a file elsewhere"
        )
    if path.is_dir():
        raise IsADirectoryError(f"{path}: is a folder; name the file to write, such as {path / 'model.onnx'}")
    if reduced is not None and reduced not in REDUCED:
        raise ValueError(f"unknown reduced {reduced!r}; choose one of {', '.join(REDUCED)}")
    if reduced and data is None:
        raise ValueError(
            f"a model in {reduced} needs prepared data (--data DIR): int8 is calibrated on its training "
            "split, and the cost of any reduced model is measured on val or test"
        )
    needed = ("onnx", "onnxscript", *(("onnxruntime",) if reduced else ()))
    if missing := [name for name in needed if find_spec(name) is None]:
        raise ExportError(f"exporting needs {' and '.join(missing)}, not installed: {INSTALL}")
