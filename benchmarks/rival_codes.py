"""What can the VAEs of Table 3 do that a regressor cannot? Measured on the runs of `rivals.py compare`.

    python benchmarks/rival_codes.py --data PREPARED --out docs/results/rival_codes.json

Everything is of mean codes of the test hands:

- *pictures*: PSNR of what is painted from the picture's code, and, where a method has encoders of joints or
  factors, from those (d-VAE's content comes from the picture in both); beside the mean picture.
- *halfway*: how much the lengths of bones change halfway between the codes of two hands, in per cent; beside
  the joints' own straight way, on which bones shrink.
- *factors*: R² (kernel ridge, held-out images) of canonical pose, viewpoint and hand colour read from each
  block, where a method claims blocks; of an undivided code from the same slices, as a control.
- *exchanged view* (d-VAE): error of one hand's pose decoded with another's viewpoint, beside its own.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import tyro
from rivals import SWEEPS
from torch import Tensor

from davae.config.rivals import UNDIVIDED
from davae.config.settings import experiment
from davae.data.augment import Batch, centre, load_batch
from davae.data.prepared import PreparedSplit
from davae.evaluation.text_table import format_rows
from davae.latent.prediction import cross_predict, explained
from davae.latent.targets import read_targets
from davae.networks import DaVAE
from davae.rivals import load_model
from davae.rivals.canonical import to_canonical
from davae.rivals.cm_vae import CMVAE
from davae.rivals.d_vae import DVAE
from davae.rivals.latent_align import LatentAlign, multiply_experts
from davae.rivals.rival import Gaussian
from davae.rivals.sight import turn
from davae.studies.methods import TRIED, VAES, plan_methods, read_trials
from davae.studies.worker import name_folder
from davae.training.runs import write_text
from synthhand.skeleton import BONES

Code = dict[str, Tensor]  # block -> (n, z)


class Coder(NamedTuple):
    """Codes of all test hands, and what is decoded from codes."""

    codes: Code
    joints: Callable[[Code], Tensor]
    picture: Callable[[Code], Tensor] | None
    others: dict[str, Code]  # the same hands, encoded from something else than the picture


def read_codes(network: Any, batch: Batch) -> Coder:
    """Return a network's codes of a batch.

    Raises:
        TypeError: a method without a code.
    """
    if isinstance(network, DaVAE):
        codes = dict(network.encode(batch.image).means)
        return Coder(
            codes, network.decode_pose, lambda z: network.decode_image(z, network.decode_pose(z))[0], {}
        )
    if isinstance(network, CMVAE):
        encoded = {
            "picture": network.encode_image(batch.image),
            "joints": network.encode_joints(batch.joints.flatten(1)),
        }
        means = {name: {"z": Gaussian.of(numbers).mean} for name, numbers in encoded.items()}
        return Coder(
            means.pop("picture"), lambda z: network.pose_decoder(z["z"]),
            lambda z: network.image_decoder(z["z"]), means,
        )  # fmt: skip
    if isinstance(network, LatentAlign):
        seen = torch.ones(len(batch.image), dtype=torch.bool)
        mean = multiply_experts([Gaussian.of(network.encode_image(batch.image))], [seen]).mean
        return Coder({"z": mean}, lambda z: network.pose_decoder(z["z"]), None, {})
    if isinstance(network, DVAE):
        names = ("pose", "view", "content")
        codes = {name: q.mean for name, q in zip(names, network.embed(batch.image), strict=True)}
        canonical, view = (factor.flatten(1) for factor in to_canonical(batch.joints))
        clean = {
            "pose": Gaussian.of(network.encode_pose(canonical)).mean,
            "view": Gaussian.of(network.encode_view(view)).mean,
        }

        def decode(z: Code) -> Any:
            return network.decoder(*(z[name] for name in names))

        return Coder(
            codes, lambda z: turn(*decode(z)[:2]), lambda z: decode(z).image,
            {"clean pose and view": codes | clean},
        )  # fmt: skip
    raise TypeError(f"{type(network).__name__}: has no code")


def measure_lengths(joints: Tensor) -> Tensor:
    """Return the lengths (n, 20) of bones."""
    ends = torch.from_numpy(np.asarray(BONES))
    return (joints[:, ends[:, 0]] - joints[:, ends[:, 1]]).norm(dim=2)


def change_halfway(first: Tensor, middle: Tensor, last: Tensor) -> float:
    """Return by how many per cent bones halfway differ from the mean of both ends, on average."""
    ends = (measure_lengths(first) + measure_lengths(last)) / 2
    return 100 * float((measure_lengths(middle) / ends - 1).abs().mean())


def psnr_db(pictures: Tensor, truth: Tensor) -> float:
    """Return the mean over pictures (n, 3, h, w) of the PSNR."""
    errors = (pictures.clamp(0, 1) - truth).square().mean((1, 2, 3))
    return float(-10 * torch.log10(errors.clamp(min=1e-10)).mean())


def measure(network: Any, batch: Batch, targets: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return everything that is measured of one network."""
    coder = read_codes(network, batch)
    joints, found = coder.joints(coder.codes), {}
    shifted = {name: z.roll(1, 0) for name, z in coder.codes.items()}
    halfway = {name: (z + shifted[name]) / 2 for name, z in coder.codes.items()}
    found["halfway, %"] = change_halfway(joints, coder.joints(halfway), joints.roll(1, 0))
    found["straight way, %"] = change_halfway(joints, (joints + joints.roll(1, 0)) / 2, joints.roll(1, 0))
    if coder.picture is not None:
        found["picture, dB"] = psnr_db(coder.picture(coder.codes), batch.target)
        found["mean picture, dB"] = psnr_db(batch.target.mean(0, keepdim=True), batch.target)
        for name, codes in coder.others.items():
            found[f"picture from {name}, dB"] = psnr_db(coder.picture(codes), batch.target)
    if len(coder.codes) > 1:
        for block, z in coder.codes.items():
            for name, values in targets.items():
                told = cross_predict(z.double().numpy(), values, "rbf")
                found[f"{name} from {block}, R²"] = explained(values, told, pooled=True, resamples=1).value
    if isinstance(network, DVAE):
        canonical, view = to_canonical(batch.joints)
        mixed = coder.joints(coder.codes | {"view": shifted["view"]})
        for name, made, truth in (
            ("own view, mm", joints, batch.joints),
            ("exchanged view, mm", mixed, turn(canonical, view.roll(1, 0))),
        ):
            found[name] = float(((made - truth).norm(dim=2).mean(1) * batch.scale_mm).mean())
    return found


def main(
    data: Path,
    preset: str = "sweep",
    models: tuple[str, ...] = ("da", "na", UNDIVIDED, *VAES),
    trials: Path = TRIED,
    store: Path = SWEEPS,
    images: int = 1000,
    out: Path | None = None,
) -> dict[str, dict[str, list[float]]]:
    """Measure the finished runs of `rivals.py compare`; print means over seeds and their range.

    Args:
        data: Folder written by `prepare`, on which the runs were trained.
        preset: Of the runs.
        models: Methods with a code.
        trials: CSV file that `rivals.py tune` wrote.
        store: Folder of the runs.
        images: How many of the first test images.
        out: JSON file to write, too.
    """
    points = plan_methods(read_trials(trials), models).points(experiment(preset))
    split = PreparedSplit.open(data, "test").seen_through(points[0].config.data.mask)
    rows = np.arange(min(images, len(split)))
    batch = centre(load_batch(split, rows), points[0].config.data)
    canonical, view = (factor.flatten(1).double().numpy() for factor in to_canonical(batch.joints))
    targets = {"canonical pose": canonical, "viewpoint": view}
    if "hand colour" in (known := read_targets(split, rows)):
        targets["hand colour"] = known["hand colour"].values
    found: dict[str, dict[str, list[float]]] = {}
    with torch.inference_mode():
        for point in points:
            folder = store / name_folder(point.config, data)
            if not (folder / "model.safetensors").exists():
                print(f"{point.label}: no finished run in {store}; run benchmarks/rivals.py compare")
                continue
            own = found.setdefault(str(point.varied["model"]), {})
            for name, value in measure(load_model(folder)[0].eval(), batch, targets).items():
                own.setdefault(name, []).append(value)
    for model, values in found.items():
        cells = [
            (name, f"{np.mean(v):.2f}", f"{min(v):.2f} to {max(v):.2f}", str(len(v)))
            for name, v in values.items()
        ]
        print(format_rows((model, "mean", "range", "seeds"), cells), end="\n\n")
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out, json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    return found


if __name__ == "__main__":
    tyro.cli(main)
