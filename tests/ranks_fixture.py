"""Start several processes as torchrun does, without torchrun: `start`, and the jobs of each process.

Each process calls JOBS[name](data, folder) and saves the result as folder/NAME-RANK.pt.
"""

import contextlib
import dataclasses
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from davae.config import CameraConfig, Config, mask_preset
from davae.data.prepared import PreparedSplit
from davae.networks import DaVAE
from davae.training import davae_task, distributed, runs, trainer
from davae.training.camera_task import CameraTask
from davae.training.davae_task import DaVAETask
from davae.training.log import MetricsLog
from davae.training.mask_task import MaskTask, train_mask
from davae.training.trainer import Trainer

ROOT = Path(__file__).parents[1]
KILL_AT = 6


def start(job: str, data: Path, folder: Path, ranks: int = 2) -> list[int]:
    """Run a job on several ranks, on the CPU; return their exit statuses."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    shared |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.ranks_fixture", job, data, folder]
    processes = [
        subprocess.Popen(
            command, cwd=ROOT, env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        )
        for rank in range(ranks)
    ]
    try:
        return [process.wait(timeout=300) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def saved(job: str, folder: Path, ranks: int = 2) -> list[Any]:
    """What a job returned on each rank."""
    return [torch.load(folder / f"{job}-{rank}.pt") for rank in range(ranks)]


def config_of(folder: Path, **changes: Any) -> Config:
    """The experiment in folder/config.json, with another training schedule where asked for."""
    config = runs.config_of(folder, Config)
    return dataclasses.replace(config, train=dataclasses.replace(config.train, **changes))


def gradients(data: Path, folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    """Gradients of step 3 and validation measure of each network, in fp32, BatchNorm in evaluation mode."""
    distributed.join()
    config, device = config_of(folder), torch.device("cpu")
    split, validation = (PreparedSplit.open(data, name).seen_through("none") for name in ("train", "val"))
    lacking = np.arange(len(split)) % 3 == 0  # so that ranks hold unlike numbers of masks and clouds
    split = dataclasses.replace(split, has_mask=~lacking, has_cloud=~lacking)
    mask = dataclasses.replace(mask_preset("smoke"), train=config.train)
    torch.manual_seed(0)
    trunk = DaVAE(config.model).encoder.trunk
    run = folder / f"no-run-{distributed.rank()}-of-{distributed.world_size()}"
    found = {}
    for task in (
        DaVAETask(config),
        MaskTask(mask),
        CameraTask(CameraConfig(config.data, config.model, train=config.train), trunk, run),
    ):
        made = Trainer(task, split, validation, run, device)
        made.step, made.autocast = 3, contextlib.nullcontext()
        made.model.eval().train = lambda: None
        made.update_weights = lambda loss: loss.total.backward()
        made.train_step()
        found[task.kind] = {key: weight.grad for key, weight in made.model.named_parameters()}
        found[task.kind]["validation"] = torch.tensor(made.validate())
    return found


def train(data: Path, folder: Path) -> dict[str, Any]:
    """Train in folder/run, and find it finished; then a mask network in folder/mask. Rank 1 may not write."""
    made, totals = [], []
    fit, take_step = Trainer.fit, Trainer.train_step

    def fit_and_tell(self, *given):
        made.append(self)
        fit(self, *given)

    def step_and_tell(self):
        loss = take_step(self)
        totals.append(float(loss.total))
        return loss

    Trainer.fit, Trainer.train_step = fit_and_tell, step_and_tell
    if distributed.rank() == 1:
        runs.write_atomically = trainer.exclusive = MetricsLog.append = None
    for _ in range(2):
        davae_task.train(config_of(folder), data, folder / "run", progress=False)
    Trainer.fit, Trainer.train_step = fit, take_step
    mask = mask_preset("smoke")
    mask = dataclasses.replace(mask, train=dataclasses.replace(mask.train, steps=20))
    train_mask(mask, data, folder / "mask", progress=False)
    (only,) = made
    return {
        "totals": totals,
        "model": dict(only.model.named_parameters()),
        "average": dict(only.average.module.named_parameters()),
        "average buffers": list(only.average.module.buffers()),
    }


def killed(data: Path, folder: Path) -> None:
    """As `train`, but rank 1 is killed in the middle; the second time it goes to the end."""
    take_step = Trainer.train_step

    def step_or_die(self):
        if self.step == KILL_AT and distributed.rank() == 1 and not (folder / "killed").exists():
            (folder / "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return take_step(self)

    Trainer.train_step = step_or_die
    davae_task.train(config_of(folder), data, folder / "broken", progress=False)


def refused(data: Path, folder: Path) -> dict[str, tuple[str, str]]:
    """Errors that one rank, or each by itself, finds: the kind and the message on this rank."""
    real = davae_task.objective

    def infinite_on_rank_1(output, batch, weights):
        parts = real(output, batch, weights)
        return parts._replace(total=parts.total + (torch.inf if distributed.rank() == 1 else 0))

    def attempt(run: str, **changes: Any) -> tuple[str, str]:
        try:
            davae_task.train(config_of(folder, **changes), data, folder / run, progress=False)
        except Exception as error:
            return type(error).__name__, str(error)
        return "", ""

    found = {"mismatch": attempt("run", seed=1), "locked": attempt("locked")}
    found["uneven"] = attempt("uneven", batch_size=7)
    davae_task.objective = infinite_on_rank_1
    return found | {"diverged": attempt("diverged")}


JOBS = {job.__name__: job for job in (gradients, train, killed, refused)}

if __name__ == "__main__":
    job, data, folder = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    torch.set_num_threads(1)
    torch.save(JOBS[job](data, folder), folder / f"{job}-{distributed.rank()}.pt")
