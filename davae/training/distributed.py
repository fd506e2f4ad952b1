"""One run by several processes, on one machine or many: those that `torchrun` starts, here called ranks.

Every rank draws what a single process would draw for the whole batch, from (seed, step), and computes its own
share of the samples; torch's DistributedDataParallel averages the gradients, so that all ranks take the same
step with the same weights. The batch of the config is the whole batch, whatever the number of ranks.

What is not as in one process: in training, BatchNorm takes the statistics of a rank's share of the batch, and
what it keeps of them for the test is rank 0's. So runs on different numbers of ranks differ as runs with
smaller batches would, and a share of a few samples makes statistics that are poor.

Rank 0 alone touches the run's folder. Without torchrun there is no process group, and every function here
does what it would for one rank, without a copy.
"""

import atexit
import hashlib
import os
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

T = TypeVar("T")


def join() -> None:
    """Form a process group with the other processes that torchrun started; without torchrun, do nothing.

    Where there are GPUs, cuda:LOCAL_RANK becomes the current one; nccl carries what lies on them, and gloo
    what lies in main memory. The group lasts as long as the process: where it was given up, the processes
    would find the remains of it in their common store and not form another.

    Raises:
        ValueError: torchrun started more processes on this machine than it has GPUs.
    """
    if "WORLD_SIZE" not in os.environ or dist.is_initialized():
        return
    backend = "gloo"
    if torch.cuda.is_available():
        local, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= gpus:
            raise ValueError(
                f"torchrun started process {local + 1} on a machine with {gpus} GPU(s); give it "
                f"--nproc-per-node {gpus}, or set CUDA_VISIBLE_DEVICES to nothing to train without GPUs"
            )
        torch.cuda.set_device(local)
        backend = "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend)
    atexit.register(dist.destroy_process_group)


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if dist.is_initialized() else int(os.environ.get("RANK", "0"))


def ranks() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else int(os.environ.get("WORLD_SIZE", "1"))


def share() -> slice:
    """Which of a list of samples are this rank's: every `ranks()`-th, from `rank()` on."""
    return slice(rank(), None, ranks())


def check_batch(batch_size: int) -> None:
    """Raise ValueError unless a batch can be dealt out evenly, without which gradients would be weighted."""
    if batch_size % ranks():
        fitting = max(n for n in range(1, ranks()) if batch_size % n == 0)
        raise ValueError(
            f"train.batch_size is {batch_size}, which {ranks()} processes cannot share evenly; let torchrun "
            f"start {fitting}, or change the batch size"
        )


def replicate(model: nn.Module) -> nn.Module:
    """Return what to call in a training step: a wrapper that averages gradients over ranks, or just `model`.

    The wrapper makes weights and buffers those of rank 0: weights now, buffers in every forward pass.
    """
    if not dist.is_initialized():
        return model
    return nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=True)


def share_buffers(model: nn.Module) -> None:
    """Make the buffers of a model, such as BatchNorm's running statistics, those of rank 0 on every rank."""
    if dist.is_initialized():
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)


def summed(values: Tensor) -> Tensor:
    """Return the sum of a tensor over ranks; the tensor itself where there is one."""
    if dist.is_initialized():
        values = values.clone()
        dist.all_reduce(values)
    return values


def mean(row: dict[str, float]) -> dict[str, float]:
    """Return the mean over ranks of each of some numbers."""
    if not dist.is_initialized():
        return row
    values = summed(torch.tensor(list(row.values()), dtype=torch.float64)) / ranks()
    return dict(zip(row, values.tolist(), strict=True))


def on_first(work: Callable[[], T]) -> T:
    """Let rank 0 alone do some work; return what it returned, or raise what it raised, on every rank."""
    if not dist.is_initialized():
        return work()
    outcome = [None, None]
    if rank() == 0:
        try:
            outcome[0] = work()
        except Exception as error:  # raised below, and by all
            outcome[1] = error
    dist.broadcast_object_list(outcome, src=0)
    result, error = outcome
    if error is not None:
        raise error
    return result


def tell_once(message: str) -> None:
    """Write a message that several processes of torchrun may have to stderr, once.

    The others wait until it is written, since torchrun ends all as soon as one has ended.
    """
    key = hashlib.sha256(message.encode()).hexdigest()
    try:
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = dist.TCPStore(address, port, is_master=False, timeout=timedelta(seconds=20))
        if store.add(f"{key} taken", 1) > 1:
            store.wait([f"{key} written"])
            return
        print(message, file=sys.stderr, flush=True)
        store.set(f"{key} written", "")
    except dist.DistError:  # whoever held the store has ended: better told twice than not at all
        print(message, file=sys.stderr, flush=True)
