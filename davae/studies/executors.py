"""Where the runs of a sweep run: processes here, Dask's workers, jobs of SLURM; any `Executor` will do.

Each kind is made by a function, since a pool of processes that lost a worker is of no more use and a sweep
then asks for another.
"""

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from pathlib import Path
from threading import Event, Thread
from typing import Any, Literal

from davae.config.settings import parse_value
from synthhand.storage import end_with_parent

Kind = Literal["processes", "dask", "slurm"]
POLL_S = 1.0  # between looks at the jobs of SLURM


def processes(jobs: int) -> ProcessPoolExecutor:
    """Worker processes on this machine, which end with this one however it ends."""
    # Spawned, not forked: forking a process that has threads (a notebook's kernel) can hang.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(jobs, mp_context=context, initializer=end_with_parent)


def dask(jobs: int, scheduler: str = "") -> Executor:
    """Dask's workers: those of a running scheduler, or `jobs` processes started here, on loopback alone.

    Raises:
        ModuleNotFoundError: dask.distributed is not installed; says how to install it.
        OSError: no scheduler answers at that address.
    """
    distributed = _need("distributed")
    if scheduler:
        client = distributed.Client(scheduler, set_as_default=False)
    else:
        cluster = distributed.LocalCluster(
            n_workers=jobs, threads_per_worker=1, host="127.0.0.1", dashboard_address=None
        )
        client = distributed.Client(cluster, set_as_default=False)
    return DaskExecutor(client)


def slurm(folder: Path, cluster: str = "slurm", **options: Any) -> Executor:
    """Jobs of SLURM through submitit, one each run.

    Args:
        folder: for submitit's own files, on a file system that all machines see.
        cluster: "slurm", or "local" for processes here, which is how this is tested.
        options: of a job, in submitit's names, such as timeout_min=120 or slurm_partition="gpu".

    Raises:
        ModuleNotFoundError: submitit is not installed; says how to install it.
        ValueError: this is no SLURM cluster.
    """
    try:
        executor = _need("submitit").AutoExecutor(folder=folder, cluster=cluster)
    except RuntimeError as error:
        raise ValueError(
            f"--executor slurm: {error} Run the command where `srun` is, or choose another"
        ) from error
    executor.update_parameters(**options)
    return SubmititExecutor(executor)


def factory(
    kind: Kind, jobs: int, store: Path, *, scheduler: str = "", options: dict[str, Any] | None = None
) -> Callable[[], Executor]:
    """Return what makes executors of a kind.

    Args:
        kind: "processes", "dask" or "slurm".
        jobs: runs at a time; SLURM decides for itself.
        store: of the sweep.
        scheduler: address of Dask's, such as tcp://10.0.0.1:8786; empty to start workers here.
        options: of SLURM's jobs.

    Raises:
        ValueError: fewer than one job, or a kind that is not known.
    """
    if jobs < 1:
        raise ValueError(f"--jobs is {jobs}; at least one run at a time is needed")
    makers: dict[str, Callable[[], Executor]] = {
        "processes": lambda: processes(jobs),
        "dask": lambda: dask(jobs, scheduler),
        "slurm": lambda: slurm(store / "slurm", **(options or {})),
    }
    if kind not in makers:
        raise ValueError(f"unknown executor {kind!r}; choose one of {', '.join(makers)}")
    return makers[kind]


def parse_options(texts: Sequence[str]) -> dict[str, Any]:
    """Read options of SLURM's jobs as they stand on a command line: "timeout_min=120".

    Raises:
        ValueError: a text that is not NAME=VALUE.
    """
    pairs = [text.partition("=") for text in texts]
    for text, (name, equals, value) in zip(texts, pairs, strict=True):
        if not (name and equals and value):
            raise ValueError(f"--option {text!r}: expected NAME=VALUE, such as timeout_min=120")
    return {name: parse_value(value) for name, _, value in pairs}


class DaskExecutor(Executor):
    """Dask's own executor, that takes its client and cluster down with it."""

    def __init__(self, client: Any):
        self.client = client
        self.executor = client.get_executor(pure=False)

    def submit(self, function: Callable, /, *args: Any, **kwargs: Any) -> Future:
        """Schedule a call on some worker; one that is lost in the middle is started again on another."""
        return self.executor.submit(function, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the client, and the workers where they were started here."""
        self.executor.shutdown(wait=wait and not cancel_futures)
        cluster = self.client.cluster
        self.client.close()
        if cluster is not None:
            cluster.close()


class SubmititExecutor(Executor):
    """Makes a `concurrent.futures.Executor` of submitit's, whose jobs are no futures of that kind.

    A job that SLURM ended without a result raises BrokenExecutor, as a pool of processes would.
    """

    def __init__(self, executor: Any):
        self.executor = executor
        self.watched: dict[Future, Any] = {}
        self.ended = Event()
        self.watcher = Thread(target=self._watch, daemon=True)
        self.watcher.start()

    def submit(self, function: Callable, /, *args: Any, **kwargs: Any) -> Future:
        """Hand in a job."""
        future: Future = Future()
        future.set_running_or_notify_cancel()
        self.watched[future] = self.executor.submit(function, *args, **kwargs)
        return future

    def _watch(self) -> None:
        while not self.ended.wait(POLL_S):
            for future, job in list(self.watched.items()):
                if not job.done():
                    continue
                del self.watched[future]
                _settle(future, job)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the watch; jobs that still run are cancelled on demand, and otherwise waited for."""
        for job in list(self.watched.values()) if cancel_futures else ():
            job.cancel(check=False)
        while wait and not cancel_futures and self.watched:
            self.ended.wait(POLL_S)
        self.ended.set()
        self.watcher.join()


def _settle(future: Future, job: Any) -> None:
    from submitit.core.utils import FailedJobError, UncompletedJobError

    try:
        future.set_result(job.result())
    except UncompletedJobError as error:  # no result at all: killed, out of time or of memory
        future.set_exception(BrokenExecutor(f"job {job.job_id} ended without a result: {error}"))
    except FailedJobError as error:  # it raised: the message holds the traceback there
        future.set_exception(RuntimeError(f"job {job.job_id} failed: {error}"))


def _need(module: str) -> Any:
    """Import an optional package, or say how to install it."""
    import importlib

    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{module} is not installed, which this executor needs: `pip install -e .[cluster]`", name=module
        ) from error
