"""Where the runs of a sweep are executed: processes here, Dask's workers, SLURM jobs, or any `Executor`.

Each kind is started by a function: a pool of processes that lost a worker cannot be used any more, and a
sweep then starts another.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future
from pathlib import Path
from threading import Event, RLock, Thread
from typing import Any, Literal

from tqdm.auto import tqdm

from davae.config.settings import parse_value
from synthhand.storage import Workers

Kind = Literal["processes", "dask", "slurm"]
POLL_S = 1.0  # between looks at the SLURM jobs


def start_processes(jobs: int) -> Workers:
    """Start worker processes on this machine; they end when this process ends, for whatever reason."""
    return Workers(jobs, _share_no_lock)


def _share_no_lock() -> None:
    # The lock that bars share between processes would outlive a worker that is ended, and Python warns of it.
    tqdm.set_lock(RLock())


def start_dask(jobs: int, scheduler: str = "") -> Executor:
    """Connect to a running Dask scheduler, or start `jobs` workers here, on loopback only.

    Raises:
        ModuleNotFoundError: dask.distributed is not installed; the message says how to install it.
        OSError: no scheduler answers at that address.
    """
    distributed = _import("distributed")
    if scheduler:
        client = distributed.Client(scheduler, set_as_default=False)
    else:
        cluster = distributed.LocalCluster(
            n_workers=jobs, threads_per_worker=1, host="127.0.0.1", dashboard_address=None
        )
        client = distributed.Client(cluster, set_as_default=False)
    return DaskExecutor(client)


def start_slurm(folder: Path, cluster: str = "slurm", **options: Any) -> Executor:
    """Submit each run as a SLURM job, through submitit.

    Args:
        folder: for submitit's own files, on a file system that all machines share.
        cluster: "slurm", or "local" for processes here, as the tests use.
        options: of a job, as submitit names them, such as timeout_min=120 or slurm_partition="gpu".

    Raises:
        ModuleNotFoundError: submitit is not installed; the message says how to install it.
        ValueError: SLURM is not available here.
    """
    try:
        executor = _import("submitit").AutoExecutor(folder=folder, cluster=cluster)
    except RuntimeError as error:
        raise ValueError(
            f"--executor slurm: {error} Run the command where `srun` is, or choose another executor"
        ) from error
    executor.update_parameters(**options)
    return SubmititExecutor(executor)


def executor_factory(
    kind: Kind, jobs: int, store: Path, *, scheduler: str = "", options: dict[str, Any] | None = None
) -> Callable[[], Executor]:
    """Return a function that starts executors of a kind.

    Args:
        kind: "processes", "dask" or "slurm".
        jobs: runs at a time; SLURM decides for itself.
        store: folder of the sweep.
        scheduler: address of a Dask scheduler, such as tcp://10.0.0.1:8786; empty to start workers here.
        options: of SLURM's jobs.

    Raises:
        ValueError: fewer than one job, or an unknown kind.
    """
    if jobs < 1:
        raise ValueError(f"--jobs is {jobs}; expected at least 1, or 0 for one run per core")
    factories: dict[Kind, Callable[[], Executor]] = {
        "processes": lambda: start_processes(jobs),
        "dask": lambda: start_dask(jobs, scheduler),
        "slurm": lambda: start_slurm(store / "slurm", **(options or {})),
    }
    if kind not in factories:
        raise ValueError(f"unknown executor {kind!r}; choose one of {', '.join(factories)}")
    return factories[kind]


def parse_options(texts: Sequence[str]) -> dict[str, Any]:
    """Read options of SLURM's jobs from the command line: "timeout_min=120".

    Raises:
        ValueError: a text is not NAME=VALUE.
    """
    pairs = [text.partition("=") for text in texts]
    for text, (name, equals, value) in zip(texts, pairs, strict=True):
        if not (name and equals and value):
            raise ValueError(f"--option {text!r}: expected NAME=VALUE, such as timeout_min=120")
    return {name: parse_value(value) for name, _, value in pairs}


class DaskExecutor(Executor):
    """Dask's own executor; its shutdown also closes client and cluster."""

    def __init__(self, client: Any):
        self.client = client
        self.executor = client.get_executor(pure=False)

    def submit(self, function: Callable, /, *args: Any, **kwargs: Any) -> Future:
        """Schedule a call on a worker; if that worker is lost, Dask starts the call again on another."""
        return self.executor.submit(function, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Close the client, and the workers if they were started here."""
        self.executor.shutdown(wait=wait and not cancel_futures)
        cluster = self.client.cluster
        self.client.close()
        if cluster is not None:
            cluster.close()


class SubmititExecutor(Executor):
    """A `concurrent.futures.Executor` over submitit's, whose jobs are not `concurrent.futures.Future`s.

    A job that SLURM ended without a result raises BrokenExecutor, as in a pool of processes.
    """

    def __init__(self, executor: Any):
        self.executor = executor
        self.jobs: dict[Future, Any] = {}
        self.ended = Event()
        self.watcher = Thread(target=self._watch, daemon=True)
        self.watcher.start()

    def submit(self, function: Callable, /, *args: Any, **kwargs: Any) -> Future:
        """Submit a job."""
        future: Future = Future()
        future.set_running_or_notify_cancel()
        self.jobs[future] = self.executor.submit(function, *args, **kwargs)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Stop watching. Running jobs are cancelled if `cancel_futures`, else waited for if `wait`."""
        for job in list(self.jobs.values()) if cancel_futures else ():
            job.cancel(check=False)
        while wait and not cancel_futures and self.jobs:
            self.ended.wait(POLL_S)
        self.ended.set()
        self.watcher.join()

    def _watch(self) -> None:
        while not self.ended.wait(POLL_S):
            for future, job in list(self.jobs.items()):
                if job.done():
                    del self.jobs[future]
                    _pass_result(job, future)


def _pass_result(job: Any, future: Future) -> None:
    from submitit.core.utils import FailedJobError, UncompletedJobError

    try:
        future.set_result(job.result())
    except UncompletedJobError as error:  # no result: killed, out of time or out of memory
        future.set_exception(BrokenExecutor(f"job {job.job_id} ended without a result: {error}"))
    except FailedJobError as error:  # it raised; the message contains the traceback
        future.set_exception(RuntimeError(f"job {job.job_id} failed: {error}"))


def _import(module: str) -> Any:
    """Import an optional package, or say how to install it."""
    import importlib

    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{module} is not installed, but this executor needs it: `pip install -e .[cluster]`", name=module
        ) from error
