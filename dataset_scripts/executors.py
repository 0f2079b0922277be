"""Where tasks run: processes of this machine, a Dask cluster, a Ray cluster. Any other Executor does as well."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context

EXECUTORS = ("processes", "dask", "ray")


@contextmanager
def open_executor(kind: str, workers: int, address: str | None = None) -> Iterator[Executor | None]:
    """An executor for `run_tasks.run`; None, which means this process alone, for one process.

    Args:
        kind: one of EXECUTORS.
        workers: processes to start; an existing cluster at `address` has its own.
        address: of a Dask scheduler ("tcp://host:8786") or a Ray cluster ("auto", "ray://host:10001").

    Raises:
        ValueError: an address for processes, or a package that is not installed.
    """
    if kind == "processes":
        if address:
            raise ValueError(f"--executor_address {address} is that of a cluster: add --executor dask or ray.")
        if workers == 1:
            yield None
            return
        # Spawned, not forked: Arrow's threads do not survive a fork.
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            yield pool
        return
    try:
        with {"dask": dask_executor, "ray": ray_executor}[kind](workers, address) as executor:
            yield executor
    except ModuleNotFoundError as error:
        raise ValueError(f"--executor {kind} needs a package ({error}): pip install 'mfdn[{kind}]'.") from error


@contextmanager
def dask_executor(workers: int, address: str | None) -> Iterator[Executor]:
    """Dask's own executor. pure=False: equal tasks are not taken for one another."""
    from distributed import Client, LocalCluster

    if address:
        with Client(address) as client:
            yield client.get_executor(pure=False)
        return
    with (
        LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        yield client.get_executor(pure=False)


class RayExecutor(Executor):
    """Ray has no executor of its own; its references do give futures."""

    def submit(self, function: Callable, /, *args) -> Future:
        import ray

        return ray.remote(function).remote(*args).future()


@contextmanager
def ray_executor(workers: int, address: str | None) -> Iterator[Executor]:
    """Tasks on Ray."""
    import ray

    local = {} if address else {"num_cpus": workers, "include_dashboard": False}
    with ray.init(address=address or "local", **local, log_to_driver=False):
        yield RayExecutor()
