"""The folder a run leaves behind, what identifies it, and how it is opened again.

    config.json          the `Config`, complete
    identity.json        digest of the prepared data, fingerprint of the sources that shape the result, which
                         weights it began with and which predicted masks it saw the input through, if any
    environment.txt      versions, processor, threads, processes that train together
    metrics.csv          one row every few steps: each term, unweighted and weighted, and validation error
    terms.txt            each weighted term at the start and at the end of training
    resume.pt            everything needed to go on; only while unfinished
    model.safetensors    the weights used at test; its presence means that the run is finished
    predictions.npz, metrics.json   written by `davae evaluate`

A mask network's run is the same without terms.txt and predictions.npz, and its metrics.json is the report of
`davae train-mask`.

A folder belongs to one config, one dataset and one version of the code. Asking for a finished run loads it,
for an interrupted one resumes it, for any other refuses and names the difference.
"""

import ast
import dataclasses
import hashlib
import json
import platform
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from davae.config import Config, MaskConfig, Saved
from davae.config.reading import Kind, read_config
from davae.networks import DaVAE, HandMaskNet
from davae.training.distributed import ranks
from synthhand.storage import write_atomically

# Sources that decide what a given config and dataset train to.
_SHARED_SOURCES = (
    "networks/blocks.py", "networks/encoder.py", "data/augment.py", "training/trainer.py",
    "training/distributed.py", "training/muon.py",
)  # fmt: skip
_SHAPING_SOURCES = {
    "da-VAE": (
        *_SHARED_SOURCES, "losses.py", "networks/davae.py", "networks/decoders.py",
        "training/loop.py",
    ),
    "mask": (*_SHARED_SOURCES, "networks/handmask.py", "training/masks.py"),
    "camera": (*_SHARED_SOURCES, "networks/camera.py", "training/camera.py"),
}  # fmt: skip


class RunMismatchError(ValueError):
    """The folder holds a run of another config, dataset or version of the code."""


@dataclasses.dataclass(frozen=True)
class Identity:
    """What a run depends on beside its config."""

    data: str  # digest of the prepared data's manifest
    sources: dict[str, str]  # file -> digest of its code
    init: str | None = None  # digest of the weights it began with, where they were not drawn
    masks: str | None = None  # digest of the predicted masks that its input is seen through, if it is
    mask_network: str | None = None  # digest of the weights that made them

    @classmethod
    def of(
        cls,
        data_digest: str,
        init: Path | str | None = None,
        *,
        network: Literal["da-VAE", "mask", "camera"] = "da-VAE",
        masks: Mapping[str, Any] | None = None,
    ) -> "Identity":
        """Return the identity of a run started now.

        Args:
            data_digest: of the prepared data.
            init: the run whose weights it begins with.
            network: which kind is trained.
            masks: `PreparedSplit.mask_network`, where the input is seen through predicted masks.

        Raises:
            FileNotFoundError: a source that shapes the result was renamed, and its list was not.
        """
        sources = {name: code_digest(_source(name)) for name in sorted(_SHAPING_SOURCES[network])}
        begun = None if init is None else weights_digest(init)
        masks = masks or {}
        return cls(data_digest, sources, begun, masks.get("digest"), masks.get("network"))


def _source(name: str) -> str:
    """Text of a file of the package; without a renamed file a fingerprint would call other code equal."""
    try:
        return (Path(__file__).parents[1] / name).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{error.filename}: missing, but it shapes what a run trains to; "
            "restore it, or mend its name in `_SHAPING_SOURCES` of davae/training/runs.py"
        ) from error


def code_digest(source: str) -> str:
    """Digest of Python source that ignores comments, docstrings and layout, which change no result."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and ast.get_docstring(node) is not None
        ):
            node.body = node.body[1:] or [ast.Pass()]
    return hashlib.sha256(ast.unparse(tree).encode()).hexdigest()[:16]


def open_run(run: Path, config: Saved, identity: Identity) -> None:
    """Claim folder `run` for this experiment: create it, or check that it is already this experiment's.

    Raises:
        RunMismatchError: the folder holds another experiment; the message lists every difference.
    """
    run.mkdir(parents=True, exist_ok=True)
    config_file, identity_file = run / "config.json", run / "identity.json"
    if not (config_file.exists() and identity_file.exists()):
        if (run / "resume.pt").exists() or (run / "model.safetensors").exists():
            raise RunMismatchError(
                f"{run}: weights without config.json and identity.json; cannot tell what they are. "
                "Restore the two files or choose another --run folder"
            )
        write_text(config_file, config.to_json())
        write_text(run / "environment.txt", environment())
        write_text(identity_file, json.dumps(dataclasses.asdict(identity), indent=2) + "\n")
        return
    found = Identity(**json.loads(identity_file.read_text(encoding="utf-8")))
    try:
        of_run = config_of(run, type(config))
    except ValueError as error:
        raise RunMismatchError(f"{error}\nChoose another --run folder for this experiment.") from error
    unlike = differences(dataclasses.asdict(of_run), dataclasses.asdict(config), "config")
    if found.data != identity.data:
        unlike.append(f"prepared data: the run has {found.data[:12]}, asked for {identity.data[:12]}")
    if found.init != identity.init:
        unlike.append(f"weights to begin with: the run has {found.init!r}, asked for {identity.init!r}")
    # Not their bits: the same network may round otherwise on another machine.
    if found.mask_network != identity.mask_network:
        unlike.append(
            f"mask network: the run has {found.mask_network!r}, asked for {identity.mask_network!r}"
        )
    unlike += [
        f"code of davae/{name} has changed since"
        for name in sorted(found.sources.keys() | identity.sources.keys())
        if found.sources.get(name) != identity.sources.get(name)
    ]
    if unlike:
        raise RunMismatchError(
            f"{run} holds another experiment:\n  " + "\n  ".join(unlike) + "\n"
            "Choose another --run folder, or delete this one to train anew."
        )


def config_of(run: Path, kind: type[Kind]) -> Kind:
    """Return the config of a run, as class `kind`.

    Raises:
        ValueError: the file does not hold such a config; the message names the field.
    """
    path = run / "config.json"
    try:
        return read_config(kind, path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def identity_of(run: Path | str) -> Identity | None:
    """Return what a run was trained on, or None where the folder does not say."""
    path = Path(run) / "identity.json"
    return Identity(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


def weights_digest(run: Path | str) -> str:
    """Return a checksum of a finished run's weights.

    Raises:
        FileNotFoundError: there is no finished run.
    """
    path = Path(run) / "model.safetensors"
    if not path.exists():
        raise FileNotFoundError(f"{path}: missing, so {run} is no finished run; train it to its end first")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def is_finished(run: Path) -> bool:
    """Whether training in this folder has come to its end."""
    return (run / "model.safetensors").exists()


def is_evaluated(run: Path) -> bool:
    """Whether it has come to its end and been measured."""
    return is_finished(run) and (run / "metrics.json").exists()


def load_model(run: Path | str) -> tuple[DaVAE, Config]:
    """Open a finished run.

    Returns:
        The model in evaluation mode on the CPU, and its config.

    Raises:
        FileNotFoundError: there is no such run, or it is not finished.
        ValueError: the weights are damaged or do not fit the config.
    """
    return load(Path(run), Config, lambda config: DaVAE(config.model), "train")


def load_mask_network(run: Path | str) -> tuple[HandMaskNet, MaskConfig]:
    """Open a finished run of `davae train-mask`; as `load_model`, and the network is frozen."""
    network, config = load(Path(run), MaskConfig, HandMaskNet, "train-mask")
    return network.requires_grad_(False), config


def load(
    run: Path, kind: type[Kind], build: Callable[[Any], torch.nn.Module], command: str
) -> tuple[Any, Kind]:
    """Open a finished run of a `kind` of config, trained by `davae COMMAND`; as `load_model`."""
    if not (run / "config.json").exists():
        raise FileNotFoundError(
            f"{run}: no config.json, so no run here. Train one with "
            f"`python -m davae {command} --run {run} ...`"
        )
    config = config_of(run, kind)
    if not is_finished(run):
        raise FileNotFoundError(
            f"{run}: training is not finished (no model.safetensors). Repeat the `python -m davae {command}` "
            "command that started it: it goes on where it stopped"
        )
    model = build(config)
    try:
        model.load_state_dict(load_file(run / "model.safetensors"))
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(
            f"{run / 'model.safetensors'}: not the weights of this run's config: {error}"
        ) from error
    return model.eval(), config


def save_model(run: Path, model: torch.nn.Module) -> None:
    """Write the weights used at test, which marks the run as finished."""
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    write_atomically(run / "model.safetensors", lambda path: save_file(state, path))


def save_resume_point(run: Path, state: dict[str, Any]) -> None:
    """Write everything that training needs to go on; the previous point stays until the new one is whole."""
    write_atomically(run / "resume.pt", lambda path: torch.save(state, path))


def load_resume_point(run: Path) -> dict[str, Any] | None:
    """Return the last resume point, or None where there is none. Tensors only: nothing is executed."""
    path = run / "resume.pt"
    return torch.load(path, map_location="cpu", weights_only=True) if path.exists() else None


def write_text(path: Path, text: str) -> None:
    """Write a text file so that a kill leaves either the old file or the new one."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def environment() -> str:
    """Describe software and machine, one `name value` a line."""
    lines = {
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "platform": platform.platform(),
        "processor": torch.cpu.get_capabilities().get("cpu_name", platform.processor()),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "threads": f"at most {torch.get_num_threads()}",
        "ranks": ranks(),
    }
    return "".join(f"{name} {value}\n" for name, value in lines.items())


def differences(found: Any, asked: Any, where: str) -> list[str]:
    """Return a line for each field in which two configs, as plain dicts, differ."""
    if isinstance(found, dict) and isinstance(asked, dict):
        names = list(asked) + [name for name in found if name not in asked]
        return [
            line
            for name in names
            for line in differences(found.get(name), asked.get(name), f"{where}.{name}")
        ]
    return [] if found == asked else [f"{where}: the run has {found!r}, asked for {asked!r}"]
