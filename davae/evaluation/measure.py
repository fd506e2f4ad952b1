"""Run a finished model over a split and write predictions.npz and metrics.json into its folder."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from davae.config import BLOCKS, TERMS, Config, MaskConfig
from davae.config.rivals import title_of
from davae.data.augment import Batch, centre, load_batch
from davae.data.predicted import COMMAND
from davae.data.prepared import PreparedSplit
from davae.data.views import rotate_back, rotate_views
from davae.evaluation.joints import JointNet
from davae.evaluation.predictions import Predictions, save_predictions
from davae.evaluation.report import report, report_json
from davae.evaluation.skin_tone import COLOUR_FACTOR
from davae.losses import chamfer_distance, cloud_loss, picture_loss, pose_loss
from davae.networks import DaVAE, DaVAEOutput
from davae.networks.handmask import MID_GREY
from davae.rivals import Rival, load_model
from davae.rivals.sight import lines_of_sight
from davae.training import runs
from davae.training.device import pick_device
from davae.training.threads import single_threaded

BATCH_SIZE = 32


def evaluate(
    run: Path | str,
    data_dir: Path | str,
    out: Path | str | None = None,
    split: Literal["train", "val", "test"] = "test",
    *,
    views: int = 1,
    device: str = "auto",
    progress: bool = True,
) -> dict[str, Any]:
    """Measure a finished run on a split.

    Predictions and report are written into the run's folder, with two exceptions. If the data are not those
    the run was trained on, or if joints are averaged over several views, only `out` is written.

    Args:
        run: folder of a finished run.
        data_dir: folder written by `davae.data.prepared.prepare`. Its training split gives the baselines and
            the bone length of P4.
        out: another file for the report; required in the two cases above.
        split: "test" for a result, "val" while choices are still being made. File names carry the split's
            name unless it is "test".
        views: number of rotated copies of each crop over which joints are averaged; the paper uses 1.
        device: "auto" takes a GPU if there is one.
        progress: show a progress bar.

    Returns:
        The report described in `davae.evaluation.report`.

    Raises:
        FileNotFoundError: the run is missing or unfinished, or there is no prepared data; the message names
            the command that makes it.
        ValueError: the model predicts values that are not finite, `out` is required and missing, the data
            lack the masks that the model was trained with, or `views` is not in 1 to 16, or not 1 for a
            rival.
    """
    if views not in range(1, 17):
        raise ValueError(f"views is {views}: expected 1 to 16")
    model, config = load_model(run)
    if isinstance(model, Rival) and views > 1:
        raise ValueError(
            f"{run}: is a run of {title_of(config)}, which sees each crop once; leave views at 1"
        )
    test = open_split(run, config, data_dir, split)
    train = PreparedSplit.open(data_dir, "train", compare=["joints", "scale_mm"])  # for the constants alone
    identity, digest = runs.identity_of(run), test.manifest["digest"]
    trained_on = None if identity is None else identity.data
    foreign = trained_on is not None and trained_on != digest
    if foreign and out is None:
        raise ValueError(
            f"{run} was trained on data {trained_on:.12}, {data_dir} holds data {digest:.12}; name a file "
            "for the report (out), since the run's folder keeps the report on its own data"
        )
    if views > 1 and out is None:
        raise ValueError(
            f"{run}: name a file for the report (out) of {views} views; the run's folder keeps that of one"
        )
    where = pick_device(device)
    if isinstance(model, Rival):
        predictions = predict_joints(model.to(where), test, config, device=where, progress=progress)
    else:
        predictions = predict(model.to(where), test, config, views=views, device=where, progress=progress)
    about = {
        "split": split,
        "dataset": test.manifest["dataset"],
        "data": digest,
        "trained_on": trained_on,
        "weights": runs.weights_digest(Path(run)),
        "constants_of": len(train),
        "preset": config.preset,
        "model": title_of(config),
        "mask": config.data.mask,
        "views": views,
        "seed": config.train.seed,
    }
    measured = about | report(
        predictions, np.asarray(train.joints), np.asarray(train.scale_mm), test.factors.get(COLOUR_FACTOR)
    )
    text = report_json(measured)
    suffix = "" if split == "test" else f"-{split}"
    places = [] if out is None else [Path(out)]
    if not (foreign or views > 1):
        save_predictions(Path(run) / f"predictions{suffix}.npz", predictions)
        places.append(Path(run) / f"metrics{suffix}.json")
    for path in places:
        path.parent.mkdir(parents=True, exist_ok=True)
        runs.write_text(path, text)
    return measured


def open_split(
    run: Path | str,
    config: Config | MaskConfig,
    data_dir: Path | str,
    name: Literal["train", "val", "test"],
) -> PreparedSplit:
    """Open a split of prepared data with the kind of mask that the network of a run was trained with.

    Raises:
        FileNotFoundError: there is no prepared data; the message names the command that makes it.
        ValueError: the data lack those masks, or hold masks of another network.
    """
    split = PreparedSplit.open(data_dir, name).seen_through(config.data.mask)
    identity = runs.identity_of(run)
    if config.data.mask == "network" and identity is not None and split.mask_network is not None:
        trained, found = identity.mask_network, split.mask_network["network"]
        if trained != found:
            raise ValueError(
                f"the masks in {data_dir} were made by mask network {found}, but the run was trained with "
                f"masks of {trained}; predict them with that network: `{COMMAND} {data_dir}`"
            )
    return split


@single_threaded()
def predict(
    model: DaVAE,
    split: PreparedSplit,
    config: Config,
    *,
    views: int = 1,
    device: torch.device | str = "cpu",
    seed: int = 0,
    progress: bool = True,
) -> Predictions:
    """Run a model over a split: centre crop, no augmentation, fp32, posterior means.

    Args:
        model: on `device`.
        split: n images.
        config: of the model.
        views: number of rotated copies of each image over which joints are averaged.
        device: where to compute.
        seed: of the draws of z that give `Predictions.terms`.
        progress: show a progress bar.
    """
    model.eval()
    joint_net = JointNet(model)
    generator = torch.Generator().manual_seed(seed)
    arrays: dict[str, np.ndarray] = {}
    starts = range(0, len(split), BATCH_SIZE)
    for start in tqdm(starts, desc="evaluate", unit="batch", disable=not progress):
        indices = np.arange(start, min(start + BATCH_SIZE, len(split)))
        batch = centre(load_batch(split, indices, device), config.data)
        with torch.inference_mode():
            output = model(batch.image)
            noise = torch.randn(len(indices), model.latents, generator=generator).to(device)
            rows = _measure(model, output, batch, noise)
            if views > 1:
                seen = (
                    torch.from_numpy(view).to(device)
                    for view in rotate_views(batch.image.cpu().numpy(), views)
                )
                poses = [joint_net(view).cpu().numpy() for view in seen]
                rows["pose"] = torch.from_numpy(rotate_back(poses).mean(0))
            for name, value in rows.items():
                array = value.cpu().numpy()
                # Whole arrays are allocated once: small ones kept from every batch would lie between large
                # blocks that are freed, and memory would grow with the number of images.
                if name not in arrays:
                    arrays[name] = np.empty((len(split), *array.shape[1:]), array.dtype)
                arrays[name][indices] = array
    kept = ("joints", "scale_mm", "visible", "ids", "mirrored")
    return Predictions.from_arrays(arrays | {name: np.array(getattr(split, name)) for name in kept})


@single_threaded()
def predict_joints(
    model: Rival,
    split: PreparedSplit,
    config: Config,
    *,
    device: torch.device | str = "cpu",
    progress: bool = True,
) -> Predictions:
    """Run a rival over a split as `predict` runs da-VAE: joints alone, with no code and no terms.

    Args:
        model: on `device`.
        split: n images.
        config: of the model.
        device: where to compute.
        progress: show a progress bar.
    """
    model.eval()
    pose = np.empty(split.joints.shape, np.float32)
    starts = range(0, len(split), BATCH_SIZE)
    for start in tqdm(starts, desc="evaluate", unit="batch", disable=not progress):
        indices = np.arange(start, min(start + BATCH_SIZE, len(split)))
        image = centre(load_batch(split, indices, device), config.data).image
        with torch.inference_mode():
            pose[indices] = model.predict(image, lines_of_sight(split, indices).to(device)).cpu().numpy()
    kept = {
        name: np.array(getattr(split, name)) for name in ("joints", "scale_mm", "visible", "ids", "mirrored")
    }
    no_code, unknown = np.empty((len(split), 0), np.float32), np.full(len(split), np.nan, np.float32)
    codes, terms = dict.fromkeys(BLOCKS, no_code), dict.fromkeys(TERMS, unknown)
    measures = dict.fromkeys(("chamfer_mm", "psnr_db", "psnr_hand_db", "psnr_grey_db"), unknown)
    return Predictions(pose=pose, means=codes, logvars=codes, terms=terms, **measures, **kept)


def _measure(model: DaVAE, output: DaVAEOutput, batch: Batch, noise: Tensor) -> dict[str, Tensor]:
    """Return the rows of predictions.npz that come from one batch."""
    rows = {"pose": output.pose}
    sizes = [output.means[block].shape[1] for block in BLOCKS]
    z = {}
    for block, draw in zip(BLOCKS, noise.split(sizes, dim=1), strict=True):
        mean, logvar = output.means[block], output.logvars[block]
        rows |= {f"mean_{block}": mean, f"logvar_{block}": logvar}
        z[block] = mean + torch.exp(0.5 * logvar) * draw
    drawn = model.decode(z)
    rows["term_pose"] = pose_loss(drawn.pose, batch.joints)
    rows["term_cloud"] = torch.where(batch.has_cloud, cloud_loss(drawn.cloud, batch.cloud), 0.0)
    rows["term_image"] = picture_loss(drawn, batch)

    chamfer = chamfer_distance(output.cloud, batch.cloud) * batch.scale_mm
    rows["chamfer_mm"] = torch.where(batch.has_cloud, chamfer, torch.nan)
    squared = (output.image - batch.target).square().mean(dim=1, keepdim=True)
    rows["psnr_db"] = _psnr_db(squared.mean(dim=(1, 2, 3)))
    rows["psnr_grey_db"] = _psnr_db((batch.target - MID_GREY).square().mean(dim=(1, 2, 3)))
    on_hand = (squared * batch.mask).sum(dim=(1, 2, 3)) / batch.mask.sum(dim=(1, 2, 3)).clamp(min=1.0)
    has_hand = batch.has_mask & batch.mask.flatten(1).any(dim=1)
    rows["psnr_hand_db"] = torch.where(has_hand, _psnr_db(on_hand), torch.nan)
    return rows


def _psnr_db(mean_squared_error: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio of images on [0, 1]: 100 dB, not infinity, for a perfect copy."""
    return -10.0 * torch.log10(mean_squared_error.clamp(min=1e-10))
