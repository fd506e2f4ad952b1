"""One file of weights: da-VAE, its mask network, its camera head and the finder, and what they are.

It is a safetensors file, so nothing in it is executed. Matrices are stored as fp16. Tensors with one number a
channel stay fp32: the variances that BatchNorm keeps can exceed fp16's range.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, TypeVar

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from davae.config import CameraConfig, Config, MaskConfig, Saved
from davae.config.reading import read_config
from davae.networks import DaVAE, HandMaskNet
from davae.networks.camera import CameraHead
from davae.training import runs
from synthhand.formats.kinds import kind_of_file
from synthhand.storage import write_atomically

FORMAT = 1

AnyConfig = TypeVar("AnyConfig", bound=Saved)
Network = TypeVar("Network", bound=nn.Module)


class Configs(TypedDict):
    """What each network was built from."""

    model: Config
    mask: MaskConfig
    camera: CameraConfig
    finder: MaskConfig


@dataclass(frozen=True)
class Release:
    """The four networks in evaluation mode, frozen, their configs, and `about`, which `pack` wrote."""

    model: DaVAE
    mask: HandMaskNet
    camera: CameraHead
    finder: HandMaskNet
    configs: Configs
    about: Mapping[str, Any]


def pack(
    run: Path | str, mask_run: Path | str, camera_run: Path | str, finder_run: Path | str, out: Path | str
) -> dict[str, Any]:
    """Write four finished runs that belong together to one file; return its `about`: data, runs and error.

    Raises:
        FileNotFoundError: one of them is no finished run.
        ValueError: the model saw other masks, the camera head reads another model, or a run does not say.
    """
    run, mask_run, camera_run, out = Path(run), Path(mask_run), Path(camera_run), Path(out)
    (model, config), (mask, mask_config) = runs.load_model(run), runs.load_mask_network(mask_run)
    camera, camera_config = runs.load_camera(camera_run)
    finder, finder_config = runs.load_mask_network(Path(finder_run))
    if config.data.mask != "network":
        raise ValueError(
            f"{run}: was trained with mask {config.data.mask!r}, but photos are seen through predicted "
            "masks; train one with `--mask network`"
        )
    identity, of_camera = _read_identity(run), _read_identity(camera_run)
    digests = {"model": runs.weights_digest(run), "mask": runs.weights_digest(mask_run)}
    if identity.mask_network != digests["mask"]:
        raise ValueError(f"{run}: was not trained on masks of {mask_run}; name the mask network that it saw")
    if of_camera.init != digests["model"]:
        raise ValueError(f"{camera_run}: is a camera head of another model than {run}; train one for this")
    if (of_camera.data, of_camera.mask_network) != (identity.data, identity.mask_network):
        raise ValueError(f"{camera_run}: learnt from other data or masks than {run}; train one from the same")
    networks: dict[str, nn.Module] = {"model": model, "mask": mask, "camera": camera, "finder": finder}
    tensors = {
        f"{part}.{name}": _compress(value)
        for part, network in networks.items()
        for name, value in network.state_dict().items()
    }
    report, error_mm = run / "metrics.json", None
    if report.exists():
        error_mm = json.loads(report.read_text(encoding="utf-8"))["protocols"]["P1"]["epe_mm"]
    about = {"format": FORMAT, "data": identity.data, "runs": digests, "P1_epe_mm": error_mm}
    configs = {"model": config, "mask": mask_config, "camera": camera_config, "finder": finder_config}
    metadata = {"about": json.dumps(about)} | {f"{part}.config": c.to_json() for part, c in configs.items()}
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, lambda path: save_file(tensors, path, metadata))
    return about


def unpack(path: Path | str) -> Release:
    """Open a file of `pack`.

    Raises:
        FileNotFoundError: it does not exist, or is a folder.
        ValueError: it is damaged, or no such file, or one of a later version.
    """
    path = Path(path)
    if not path.is_file():
        found = "is a folder" if path.is_dir() else "missing"
        raise FileNotFoundError(f"{path}: {found}; name a file that `python -m davae pack` wrote")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        what = f"is {kind}" if (kind := kind_of_file(path)) else "damaged, or no safetensors file"
        raise ValueError(f"{path}: {what} ({error}); get it again") from error
    missing = {"about", *(f"{part}.config" for part in Configs.__annotations__)} - metadata.keys()
    if missing:
        raise ValueError(f"{path}: lacks {sorted(missing)}, so `python -m davae pack` did not write it")
    about = json.loads(metadata["about"])
    if about.get("format") != FORMAT:
        raise ValueError(f"{path}: is of format {about.get('format')}, this davae reads {FORMAT}; update it")

    def rebuild(
        part: str, kind: type[AnyConfig], build: Callable[[AnyConfig], Network]
    ) -> tuple[Network, AnyConfig]:
        config = read_config(kind, metadata[f"{part}.config"])
        own = {n.removeprefix(f"{part}."): t for n, t in tensors.items() if n.startswith(f"{part}.")}
        network = build(config)
        try:
            network.load_state_dict({n: t.float() if t.is_floating_point() else t for n, t in own.items()})
        except RuntimeError as error:
            raise ValueError(f"{path}: the weights of {part} do not fit its config: {error}") from error
        return network.eval().requires_grad_(False), config

    model, config = rebuild("model", Config, lambda config: DaVAE(config.model))
    mask, mask_config = rebuild("mask", MaskConfig, HandMaskNet)
    camera, camera_config = rebuild("camera", CameraConfig, CameraHead)
    finder, finder_config = rebuild("finder", MaskConfig, HandMaskNet)
    configs = Configs(model=config, mask=mask_config, camera=camera_config, finder=finder_config)
    return Release(model, mask, camera, finder, configs, about)


def _read_identity(run: Path) -> runs.Identity:
    identity = runs.identity_of(run)
    if identity is None:
        raise ValueError(f"{run}: has no identity.json, which says what it was trained on; train it again")
    return identity


def _compress(value: Tensor) -> Tensor:
    value = value.detach().cpu().contiguous()
    return value.half() if value.is_floating_point() and value.ndim > 1 else value
