"""One run trained by several processes, on one machine or many: those that `torchrun` starts, called ranks.

Every rank draws the random numbers of the whole batch, from (seed, step), and computes its own share of the
samples. torch's DistributedDataParallel averages the gradients, so all ranks take the same step with the same
weights. The config's batch size is that of the whole batch, whatever the number of ranks.

One thing differs from training in one process: BatchNorm uses the statistics of each rank's share of the
batch, and the running statistics kept for the test are rank 0's. So the number of ranks changes results as a
smaller batch would, and a share of a few samples makes poor statistics.

Only rank 0 touches the run's folder. Without torchrun there is no process group, and every function here acts
as for one rank.
"""

import atexit
import hashlib
import os
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

T = TypeVar("T")


def join() -> None:
    """Form a process group with the other processes that torchrun started; without torchrun, do nothing.

    On a machine with GPUs, cuda:LOCAL_RANK becomes the current device; nccl transfers tensors on GPUs, gloo
    those in main memory. The group lasts as long as the process: a second group could not be formed, since
    the first one's entries stay in the processes' common store.

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
    """Return this process's number, from 0."""
    return dist.get_rank() if dist.is_initialized() else int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """Return how many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else int(os.environ.get("WORLD_SIZE", "1"))


def share() -> slice:
    """Return which samples of a batch are this rank's: every `world_size()`-th, starting with `rank()`."""
    return slice(rank(), None, world_size())


def check_batch(batch_size: int) -> None:
    """Raise ValueError if a batch cannot be shared evenly: the mean of gradients would then be wrong."""
    if batch_size % world_size():
        fitting = max(n for n in range(1, world_size()) if batch_size % n == 0)
        raise ValueError(
            f"train.batch_size is {batch_size}, which {world_size()} processes cannot share evenly; let "
            f"torchrun start {fitting}, or change the batch size"
        )


def replicate(network: nn.Module) -> nn.Module:
    """Return what to call in a training step: `network`, wrapped so that gradients are averaged over ranks.

    The wrapper copies rank 0's weights to all ranks now, and its buffers in every forward pass. Without a
    process group, return the network itself.
    """
    if not dist.is_initialized():
        return network
    return nn.parallel.DistributedDataParallel(network, gradient_as_bucket_view=True)


def broadcast_buffers(network: nn.Module) -> None:
    """Copy rank 0's buffers, such as BatchNorm's running statistics, to all ranks."""
    if dist.is_initialized():
        for buffer in network.buffers():
            dist.broadcast(buffer, src=0)


def sum_over_ranks(values: Tensor) -> Tensor:
    """Return the sum of a tensor over ranks; with one rank, the tensor itself."""
    if dist.is_initialized():
        values = values.clone()
        dist.all_reduce(values)
    return values


def average_over_ranks(row: dict[str, float]) -> dict[str, float]:
    """Return the mean of each value over ranks."""
    if not dist.is_initialized():
        return row
    values = sum_over_ranks(torch.tensor(list(row.values()), dtype=torch.float64)) / world_size()
    return dict(zip(row, values.tolist(), strict=True))


def run_on_first_rank(work: Callable[[], T]) -> T:
    """Do some work on rank 0 alone; on every rank return its result, or raise its error."""
    if not dist.is_initialized():
        return work()
    outcome: list[Any] = [None, None]  # result, error
    if rank() == 0:
        try:
            outcome[0] = work()
        except Exception as error:  # raised below, on all ranks
            outcome[1] = error
    dist.broadcast_object_list(outcome, src=0)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


def tell_once(message: str) -> None:
    """Write a message to stderr once, although several processes of torchrun call this with it.

    The other processes wait until it is written, since torchrun ends all of them once one has ended.
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
    except dist.DistError:  # the process that held the store has ended; two messages are better than none
        print(message, file=sys.stderr, flush=True)
