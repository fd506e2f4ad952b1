"""One file of weights: da-VAE, its mask network, its camera head and the finder, and what they are.

Matrices are stored as fp16. Tensors with one number a channel stay fp32: the variances that BatchNorm keeps
can exceed fp16's range. `davae.photo.packed` describes the file and reads it without torch.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypedDict, TypeVar

import numpy as np
import torch
from safetensors.numpy import save
from torch import Tensor, nn

from davae.config import BLOCKS, CameraConfig, Config, MaskConfig
from davae.config.reading import read_config
from davae.data.arrays import sha256
from davae.evaluation.joints import HandProbability
from davae.networks import DaVAE, HandMaskNet
from davae.networks.camera import CameraHead
from davae.networks.folding import fold_batchnorm, pair_norms
from davae.photo.engine import Images, MaskNetwork, Networks, open_graphs, to_estimate
from davae.photo.packed import (
    CHECKSUM,
    FORMAT,
    GRAPH,
    PARTS,
    Packed,
    locate_checksum,
    read_packed,
    sum_content,
)
from davae.training import runs
from davae.training.davae_task import DECODERS
from davae.training.threads import single_threaded
from synthhand.storage import exclusive, explain_full_disk, write_atomically

ESTIMATED = ("joints", "root", "bone", "right", *(f"{of}_{b}" for of in ("mean", "logvar") for b in BLOCKS))
UNFINISHED = ".unfinished"  # folder of the runs that `write_runs` has not finished
TOLERANCE = 1e-4  # between the outputs of ONNX Runtime and of torch

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
    run: Path | str,
    mask_run: Path | str,
    camera_run: Path | str,
    finder_run: Path | str,
    out: Path | str,
    *,
    graphs: bool = True,
) -> dict[str, Any]:
    """Write four finished runs that belong together to one file; return its `about`: data, runs and error.

    Args:
        run: of da-VAE.
        mask_run: of the mask network whose masks it saw.
        camera_run: of its camera head.
        finder_run: of the mask network that finds hands in photos.
        out: file to write.
        graphs: add ONNX graphs, with which photos are read several times as fast, if `can_trace`.

    Raises:
        FileNotFoundError: one of them is no finished run.
        ValueError: the model saw other masks, the camera head reads another model, or a run does not say.
    """
    run, mask_run, camera_run = Path(run), Path(mask_run), Path(camera_run)
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
    # Where only a decoder has learnt, the trunk is still that of the run it began with, which the head read.
    kept = config.train.only in DECODERS and of_camera.init == identity.init
    if of_camera.init != digests["model"] and not kept:
        raise ValueError(f"{camera_run}: is a camera head of another model than {run}; train one for this")
    if of_camera.mask_network != identity.mask_network or not (kept or of_camera.data == identity.data):
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
    packed = Packed(Path(out), about, {part: c.to_json() for part, c in configs.items()}, tensors, {}, {}, {})
    write_packed(add_graphs(packed) if graphs and can_trace() else packed)
    return about


def can_trace() -> bool:
    """Return whether the packages are installed with which `add_graphs` traces networks."""
    return all(find_spec(name) for name in ("onnx", "onnxscript"))


def add_graphs(packed: Packed) -> Packed:
    """Return a file's content with graphs of its networks. They hold no weights: those of the file serve.

    Raises:
        ValueError: ONNX Runtime does not compute what torch does.
    """
    from davae.photo.graph import strip_weights, trace

    release = build(packed)
    expected = run_in_torch(release)
    traced: dict[str, tuple[nn.Module, int, tuple[str, ...]]] = {
        "estimate": (Estimator(release.model, release.camera), expected.px, ESTIMATED),
        "mask": (HandProbability(release.mask), expected.mask.px, ("probability",)),
        "finder": (HandProbability(release.finder), expected.finder.px, ("probability",)),
    }
    graphs: dict[str, bytes] = {}
    inputs: dict[str, list[str]] = {}
    norms: dict[str, str] = {}
    for name, (network, px, outputs) in traced.items():

        def to_file(own: str, part: str = name) -> str:
            """Return the name that the file gives to a layer of this network, or to its weights."""
            return own.replace("network.", f"{part}.", 1) if part in ("mask", "finder") else own

        layers = [layer for layer, _ in network.named_modules()]
        graphs[name], inputs[name] = strip_weights(trace(network.eval(), px, outputs), layers, to_file)
        norms |= {to_file(layer): to_file(norm) for layer, norm in pair_norms(network).items()}
    complete = replace(packed, graphs=graphs, norms=norms, inputs=inputs)
    difference = _measure_difference(open_graphs(complete), expected)
    if not difference <= TOLERANCE:  # NaN fails, too
        raise ValueError(
            f"{packed.path}: not written, since ONNX Runtime and torch differ by {difference:.2g}, more than "
            f"{TOLERANCE:g}; the installed versions of torch and onnxruntime do not go together"
        )
    return complete


def write_packed(packed: Packed) -> None:
    """Write a file of weights with its checksum, whole or not at all, and renew the one beside it, if any."""
    graphs = {GRAPH + name: np.frombuffer(graph, np.uint8) for name, graph in packed.graphs.items()}
    metadata = {"about": json.dumps(packed.about)}
    metadata |= {f"{part}.config": config for part, config in packed.configs.items()}
    if graphs:
        metadata["graphs"] = json.dumps({"norms": packed.norms, "inputs": packed.inputs})
    tensors = {**packed.tensors, **graphs}
    metadata[CHECKSUM] = sum_content(tensors, metadata)
    packed.path.parent.mkdir(parents=True, exist_ok=True)
    content = save(tensors, metadata)
    write_atomically(packed.path, lambda path: path.write_bytes(content))
    if (beside := locate_checksum(packed.path)).exists():
        line = f"{sha256(packed.path)}  {packed.path.name}\n"
        write_atomically(beside, lambda path: path.write_text(line, encoding="ascii"))


def unpack(path: Path | str) -> Release:
    """Open a file of `pack` and build its networks in torch.

    Raises:
        FileNotFoundError: it does not exist, or is a folder.
        ValueError: it is damaged, or no such file, or one of a later version.
    """
    return build(read_packed(path))


def build(packed: Packed) -> Release:
    """Build the networks of a file of `pack` in torch.

    Raises:
        ValueError: the weights do not fit their configs.
    """

    def rebuild(part: str, network: Network) -> Network:
        own = {
            name.removeprefix(f"{part}."): torch.tensor(tensor)
            for name, tensor in packed.tensors.items()
            if name.startswith(f"{part}.")
        }
        try:
            network.load_state_dict({n: t.float() if t.is_floating_point() else t for n, t in own.items()})
        except RuntimeError as error:
            raise ValueError(
                f"{packed.path}: the weights of {part} do not fit its config: {error}"
            ) from error
        return network.eval().requires_grad_(False)

    configs = Configs(
        model=read_config(Config, packed.configs["model"]),
        mask=read_config(MaskConfig, packed.configs["mask"]),
        camera=read_config(CameraConfig, packed.configs["camera"]),
        finder=read_config(MaskConfig, packed.configs["finder"]),
    )
    return Release(
        rebuild("model", DaVAE(configs["model"].model)),
        rebuild("mask", HandMaskNet(configs["mask"])),
        rebuild("camera", CameraHead(configs["camera"])),
        rebuild("finder", HandMaskNet(configs["finder"])),
        configs,
        packed.about,
    )


def write_runs(path: Path | str, out: Path | str) -> list[Path]:
    """Write each network of a file of `pack` as a finished run, for trainings to begin with.

    The runs appear once all of them are written. The same call again, after a kill or without one, ends with
    the same runs. They belong together, so `pack` takes them, also with another finder. Weights are those of
    the file, rounded to fp16.

    Args:
        path: file of `pack`.
        out: folder for the runs, with nothing else in it; each is named after its part.

    Returns:
        The folders of the runs.

    Raises:
        BlockingIOError: another process is writing there.
        FileExistsError: there is something else in `out`.
        FileNotFoundError, ValueError: as `unpack`.
        OSError: the disk is full; nothing is left in `out`.
    """
    out, release = Path(out), unpack(path)
    temporary, written = out / UNFINISHED, [out / part for part in PARTS]
    with exclusive(out), explain_full_disk(out):
        out.mkdir(exist_ok=True)
        if foreign := sorted({found.name for found in out.iterdir()} - {UNFINISHED, *PARTS}):
            raise FileExistsError(f"{out}: holds {foreign[0]}; name a new folder for the runs of {path}")
        shutil.rmtree(temporary, ignore_errors=True)  # of a call that was killed
        try:
            _write_runs(release, Path(path).name, temporary)
            for run in filter(Path.exists, written):
                if other := _find_other(temporary / run.name, run):
                    raise FileExistsError(
                        f"{other}: is not of the runs of {path}; name a new folder for them"
                    )
            for run in written:
                if not run.exists():
                    (temporary / run.name).rename(run)
        finally:  # after Ctrl-C, too
            shutil.rmtree(temporary, ignore_errors=True)
    return written


def _find_other(made: Path, there: Path) -> Path | None:
    """Return a file that is not `there` as it was `made`; None if all are."""
    for file in sorted(made.iterdir()):
        own = there / file.name
        if not own.is_file() or own.read_bytes() != file.read_bytes():
            return own
    return None


def _write_runs(release: Release, name: str, out: Path) -> None:
    networks: dict[str, nn.Module] = {part: getattr(release, part) for part in PARTS}
    data, digests = release.about["data"], dict[str, str]()
    for part in ("finder", "mask", "model", "camera"):  # each after those whose digests it states
        run, own_mask = out / part, digests.get("mask") if part in ("model", "camera") else None
        init = digests["model"] if part == "camera" else None
        run.mkdir(parents=True)
        runs.write_text(run / "config.json", release.configs[part].to_json())
        identity = runs.Identity(data, sources={}, init=init, mask_network=own_mask)
        runs.write_text(run / "identity.json", json.dumps(asdict(identity), indent=2) + "\n")
        runs.write_text(run / "environment.txt", f"unpacked_from {name}\n")
        runs.save_model(run, networks[part])
        digests[part] = runs.weights_digest(run)


class Estimator(nn.Module):
    """Images (b, 3, h, w) to all that `davae.photo.engine.Estimate` holds, as a tuple."""

    def __init__(self, model: DaVAE, camera: CameraHead):
        super().__init__()
        self.model, self.camera = model, camera

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Estimate joints, place, side and code of right hands over mid-grey."""
        features = self.model.encoder.trunk(image)
        codes = {block: self.model.encoder.heads[block](features) for block in BLOCKS}
        return (
            self.model.decode_pose({block: mean for block, (mean, _) in codes.items()}),
            *self.camera(features),
            *(codes[block][0] for block in BLOCKS),
            *(codes[block][1] for block in BLOCKS),
        )


def run_in_torch(release: Release) -> Networks:
    """Return the networks of a release as functions of arrays."""
    configs, run = release.configs, _to_function(Estimator(release.model, release.camera))
    return Networks(
        lambda images: to_estimate(run(images)),
        _to_mask_network(release.mask, configs["mask"]),
        _to_mask_network(release.finder, configs["finder"]),
        configs["model"].model.image_px,
        workers=1,  # torch's number of threads, which `single_threaded` sets, is that of the whole process
    )


def _to_mask_network(network: HandMaskNet, config: MaskConfig) -> MaskNetwork:
    run = _to_function(HandProbability(network))
    return MaskNetwork(lambda images: run(images)[0], config.data.image_px)


def _to_function(network: nn.Module) -> Callable[[Images], list[np.ndarray]]:
    """Return a network as a function of images that returns a list of arrays."""
    folded = fold_batchnorm(network)

    @single_threaded()
    def run(images: Images) -> list[np.ndarray]:
        with torch.inference_mode():
            found = folded(torch.from_numpy(images).contiguous(memory_format=torch.channels_last))
        return [one.numpy() for one in (found if isinstance(found, tuple) else [found])]

    return run


def _measure_difference(found: Networks, expected: Networks) -> float:
    """Return the largest difference between the outputs of networks for 3 random images."""
    generator, largest = np.random.default_rng(0), []
    for px, run, other in (
        (expected.mask.px, found.mask.run, expected.mask.run),
        (expected.finder.px, found.finder.run, expected.finder.run),
        (expected.px, lambda images: _flatten(found, images), lambda images: _flatten(expected, images)),
    ):
        images = generator.random((3, 3, px, px), np.float32)
        largest.append(np.abs(run(images) - other(images)).max())
    return float(np.max(largest))


def _flatten(networks: Networks, images: Images) -> np.ndarray:
    """Return all that is estimated of b images as (b, n)."""
    *some, means, logvars = networks.estimate(images)
    return np.concatenate(
        [one.reshape(len(images), -1) for one in (*some, *means.values(), *logvars.values())], axis=1
    )


def _read_identity(run: Path) -> runs.Identity:
    identity = runs.identity_of(run)
    if identity is None:
        raise ValueError(f"{run}: has no identity.json, which says what it was trained on; train it again")
    return identity


def _compress(value: Tensor) -> np.ndarray:
    value = value.detach().cpu().contiguous()
    return (value.half() if value.is_floating_point() and value.ndim > 1 else value).numpy()
