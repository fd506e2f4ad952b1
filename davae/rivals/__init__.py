"""The methods that the paper compares da-VAE with (Table 3), trained and measured as da-VAE is.

One file each: its paper's equations, what is known of it, what had to be chosen (docs/rivals.md). All read
the image by da-VAE's encoder and are tasks of the one trainer. Every line is this project's own.
"""

from pathlib import Path
from typing import Any

from torch import nn

from davae.config import Config, RivalConfig
from davae.config.rivals import read_experiment
from davae.networks import DaVAE
from davae.rivals.cm_vae import CMVAETask
from davae.rivals.d_vae import DVAETask
from davae.rivals.heatmaps import HeatmapTask
from davae.rivals.latent_align import LatentAlignTask
from davae.rivals.lifting import LiftingTask
from davae.rivals.regressor import RegressorTask
from davae.rivals.rival import Rival, RivalTask
from davae.training import davae_task, runs
from davae.training.identity import Kind
from davae.training.trainer import train_task

__all__ = ["TASKS", "Rival", "RivalTask", "kind_of", "load_model", "task_of", "train"]

TASKS: dict[str, type[RivalTask]] = {
    task.kind: task
    for task in (RegressorTask, CMVAETask, DVAETask, LatentAlignTask, HeatmapTask, LiftingTask)
}


def kind_of(config: Config) -> Kind:
    """Return which sources shape what a config trains to (`davae.training.identity`)."""
    return TASKS[config.rival.name].kind if isinstance(config, RivalConfig) else "da-VAE"


def task_of(config: Config, init: Path | str | None = None) -> RivalTask | davae_task.DaVAETask:
    """Return the training of a config: of da-VAE, or of the rival that it names.

    Raises:
        FileNotFoundError: `init` is not a finished run.
        ValueError: `init` is a run of another network, or a field of the config does not suit the method.
    """
    if isinstance(config, RivalConfig):
        return TASKS[config.rival.name](config, init)
    return davae_task.DaVAETask(config, init)


def train(config: Config, data: Path | str, run: Path | str, **options: Any) -> Path:
    """Train da-VAE or a rival; arguments and errors as `davae.training.davae_task.train`."""
    task = task_of(config, options.pop("init", None))
    return train_task(task, data, run, **options)


def load_model(run: Path | str) -> tuple[DaVAE | Rival, Config]:
    """Open a finished run of da-VAE or of a rival; as `davae.training.runs.load_model`."""
    path = Path(run) / "config.json"
    if not path.exists():
        return runs.load_model(run)  # which says what is missing
    try:
        config = read_experiment(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if not isinstance(config, RivalConfig):
        return runs.load_model(run)
    network: type[nn.Module] = TASKS[config.rival.name].network
    rival, found = runs.load_network(run, type(config), network, "train")
    assert isinstance(rival, Rival)
    return rival, found
