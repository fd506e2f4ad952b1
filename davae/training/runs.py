"""The folder of a run: what it holds, whose it is, and how its networks are opened.

    config.json          the complete `Config`
    identity.json        what else the run depends on, see `davae.training.identity`
    environment.txt      versions, processor, threads, number of processes that train together
    metrics.csv          one row every few steps: each term, unweighted and weighted, and validation error
    terms.txt            each weighted term at the first and at the last step
    resume.pt            everything needed to continue; only while the run is unfinished
    model.safetensors    the weights used at test; the run is finished when this file exists
    predictions.npz, metrics.json   written by `davae evaluate`

The run of a mask network has no terms.txt and no predictions.npz; its metrics.json is the report of
`davae train-mask`.

A folder belongs to one config, one dataset and one version of the code. Training
loads a finished run, resumes an interrupted one, and refuses any other, naming every difference.
"""

import dataclasses
import hashlib
import json
import pickle
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from zipfile import ZIP_STORED, BadZipFile, ZipFile

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from davae.config import CameraConfig, Config, MaskConfig, RivalConfig, Saved
from davae.config.reading import Kind, read_config
from davae.config.rivals import read_experiment, title_of
from davae.networks import DaVAE, HandMaskNet
from davae.networks.camera import CameraHead
from davae.training.distributed import world_size
from davae.training.identity import Identity
from synthhand.storage import write_atomically

Network = TypeVar("Network", bound=nn.Module)


class RunMismatchError(ValueError):
    """The folder holds a run of another config, dataset or version of the code."""


def open_run(run: Path, config: Saved, identity: Identity) -> None:
    """Create folder `run` for this experiment, or check that the existing folder is this experiment's.

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
    found = _read_identity(identity_file)
    try:
        of_run = config_of(run, type(config))
    except ValueError as error:
        raise RunMismatchError(f"{error}\nChoose another --run folder for this experiment.") from error
    unlike = differences(dataclasses.asdict(of_run), dataclasses.asdict(config), "config")
    if found.data != identity.data:
        unlike.append(f"prepared data: the run has {found.data[:12]}, asked for {identity.data[:12]}")
    if found.init != identity.init:
        unlike.append(f"weights to begin with: the run has {found.init!r}, asked for {identity.init!r}")
    # The network, not the bits of its masks, which may be rounded differently on another machine.
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


def require_same_network(init: Path | str, unlike: list[str]) -> None:
    """Raise ValueError if a run has weights of another network: `unlike` are the `differences`."""
    if unlike:
        raise ValueError(
            f"{init}: is a run of another network: {'; '.join(unlike)}. Begin with a run of the same preset "
            "and model"
        )


def environment() -> str:
    """Return a description of software and machine, one `name value` a line."""
    lines = {
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "platform": platform.platform(),
        "processor": torch.cpu.get_capabilities().get("cpu_name", platform.processor()),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "threads": f"at most {torch.get_num_threads()}",
        "ranks": world_size(),
    }
    return "".join(f"{name} {value}\n" for name, value in lines.items())


def identity_of(run: Path | str) -> Identity | None:
    """Return what a run depends on beside its config, or None if its folder has no identity.json.

    Raises:
        ValueError: the file is damaged.
    """
    path = Path(run) / "identity.json"
    return _read_identity(path) if path.exists() else None


def _read_identity(path: Path) -> Identity:
    try:
        found = Identity(**json.loads(path.read_text(encoding="utf-8")))
        texts = [found.data, *found.sources.keys(), *found.sources.values()]
        texts += [text for text in (found.init, found.masks, found.mask_network) if text is not None]
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("a digest is not a text")
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{path}: damaged ({error}); restore it, or train the run again in another folder"
        ) from error
    return found


def weights_digest(run: Path | str) -> str:
    """Return a checksum of a finished run's weights.

    Raises:
        FileNotFoundError: there is no finished run.
    """
    path = Path(run) / "model.safetensors"
    if not path.exists():
        raise FileNotFoundError(f"{path}: missing, so {run} is not a finished run; train it to the end first")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def is_finished(run: Path) -> bool:
    """Return whether the training in this folder is finished."""
    return (run / "model.safetensors").exists()


def is_evaluated(run: Path) -> bool:
    """Return whether the training in this folder is finished and the result evaluated."""
    return is_finished(run) and (run / "metrics.json").exists()


def load_model(run: Path | str) -> tuple[DaVAE, Config]:
    """Open a finished run.

    Returns:
        The model in evaluation mode on the CPU, and its config.

    Raises:
        FileNotFoundError: there is no such run, or it is not finished.
        ValueError: the weights are damaged or do not fit the config, or the run is a rival's, which
            `davae.rivals.load_model` opens.
    """
    if rival := name_rival(Path(run)):
        raise ValueError(f"{run}: is a run of {rival}, not of da-VAE, which is needed here")
    return load_network(run, Config, lambda config: DaVAE(config.model), "train")


def name_rival(run: Path) -> str:
    """Return the title of the rival that a run's config.json names, or the empty text if it names none."""
    try:
        config = read_experiment((run / "config.json").read_text(encoding="utf-8"))
    except (ValueError, FileNotFoundError):  # whoever opens the run says what is wrong
        return ""
    return title_of(config) if isinstance(config, RivalConfig) else ""


def load_mask_network(run: Path | str) -> tuple[HandMaskNet, MaskConfig]:
    """Open a finished run of `davae train-mask`, frozen; otherwise as `load_model`."""
    network, config = load_network(run, MaskConfig, HandMaskNet, "train-mask")
    return network.requires_grad_(False), config


def load_camera(run: Path | str) -> tuple[CameraHead, CameraConfig]:
    """Open a finished run of `davae train-camera`, frozen; otherwise as `load_model`."""
    head, config = load_network(run, CameraConfig, CameraHead, "train-camera")
    return head.requires_grad_(False), config


def load_network(
    run: Path | str, kind: type[Kind], build: Callable[[Kind], Network], command: str
) -> tuple[Network, Kind]:
    """Open a finished run whose config is a `kind`, trained by `davae COMMAND`; as `load_model`."""
    run = Path(run)
    if not (run / "config.json").exists():
        raise FileNotFoundError(
            f"{run}: no config.json, so no run here. Train one with "
            f"`python -m davae {command} --run {run} ...`"
        )
    config = config_of(run, kind)
    if not is_finished(run):
        raise FileNotFoundError(
            f"{run}: training is not finished (no model.safetensors). Repeat the `python -m davae {command}` "
            "command that started it: it continues from the last resume point"
        )
    try:
        network = build(config)
    except Exception as error:  # sizes that make no sense raise whatever torch raises
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"{run / 'config.json'}: describes no network that can be built: {reason}"
        ) from error
    try:
        network.load_state_dict(load_file(run / "model.safetensors"))
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(
            f"{run / 'model.safetensors'}: not the weights of this run's config: {error}"
        ) from error
    return network.eval(), config


def save_model(run: Path, network: nn.Module) -> None:
    """Write the weights used at test, which marks the run as finished."""
    state = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    content = save(state)  # written by Python, whose errors tell a full disk from others
    write_atomically(run / "model.safetensors", lambda path: path.write_bytes(content))


def save_resume_point(run: Path, state: dict[str, Any]) -> None:
    """Write all that training needs to continue; the previous point stays until the new one is complete."""

    def write(path: Path) -> None:
        with path.open("wb") as file:
            try:
                torch.save(state, file)
            except RuntimeError as error:  # torch's own, of what the system has refused or Ctrl-C has cut off
                cause = error.__context__
                raise cause if isinstance(cause, OSError | KeyboardInterrupt) else error from None

    write_atomically(run / "resume.pt", write)


def load_resume_point(run: Path) -> dict[str, Any] | None:
    """Return the last resume point, or None. Only tensors and plain values are read; no code is executed.

    Raises:
        ValueError: the file cannot be loaded, or holds more than that.
    """
    path = run / "resume.pt"
    if not path.exists():
        return None
    advice = "delete it to train this run from its beginning"
    try:
        _check_archive(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # torch's own text advises to load it without this guard
        raise ValueError(
            f"{path}: damaged, or holds more than tensors and plain values; nothing in it was run; {advice}"
        ) from error
    except Exception as error:  # a damaged file may raise anything
        raise ValueError(
            f"{path}: cannot be loaded ({error or type(error).__name__}). If memory is short or the disk "
            f"fails, try again; if the file is damaged, {advice}"
        ) from error
    if not isinstance(state, dict) or not isinstance(state.get("step"), int):
        raise ValueError(f"{path}: damaged (it has no step); {advice}")
    return state


def _check_archive(path: Path) -> None:
    """Compare the contents of a file of torch with its checksums, which torch itself does not look at.

    Raises:
        BadZipFile: they differ, or torch has not written the file.
    """
    with ZipFile(path) as archive:
        if any(entry.compress_type != ZIP_STORED for entry in archive.infolist()):
            raise BadZipFile("it is compressed, which torch's files are not")
        if (name := archive.testzip()) is not None:
            raise BadZipFile(f"wrong checksum of {name}")


def write_text(path: Path, text: str) -> None:
    """Write a text file so that a kill leaves either the old file or the new one."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
