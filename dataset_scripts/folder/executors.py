"""Where tasks run: processes of this machine, a Dask cluster, a Ray cluster. Any other Executor does as well."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from itertools import chain
from multiprocessing import get_context

EXECUTORS = ("processes", "dask", "ray")


@contextmanager
def open_executor(kind: str, workers: int, address: str | None = None) -> Iterator[Executor | None]:
    """An executor for `run`; None, which means this process alone, for one process.

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
            for _ in range(workers):  # they take their time to start, and there is something to read meanwhile
                pool.submit(os.getpid)
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

    def __init__(self) -> None:
        import ray

        # Ray takes functions alone; what is submitted may be any callable, such as a partial.
        self.task = ray.remote(lambda function, *args: function(*args))

    def submit(self, function: Callable, /, *args) -> Future:
        return self.task.remote(function, *args).future()


@contextmanager
def ray_executor(workers: int, address: str | None) -> Iterator[Executor]:
    """Tasks on Ray."""
    import ray

    local = {} if address else {"num_cpus": workers, "include_dashboard": False}
    with ray.init(address=address or "local", **local, log_to_driver=False):
        yield RayExecutor()


def run(function: Callable, tasks: Iterable, executor: Executor | None, ahead: int = 8) -> Iterator[tuple]:
    """(task, function(task)) in the order of the tasks, at most `ahead` of them in flight, so that memory is bounded.

    `Executor.map` would take all tasks at once, every post of the data set with them. One task alone runs here.
    """
    tasks, pending = iter(tasks), deque()
    first = next(tasks, None)
    second = next(tasks, None)
    if executor is None or second is None:
        for task in chain((first, second), tasks):
            if task is not None:
                yield task, function(task)
        return
    try:
        for task in chain((first, second), tasks):
            if len(pending) >= ahead:
                done, future = pending.popleft()
                yield done, future.result()
            pending.append((task, executor.submit(function, task)))
        while pending:
            done, future = pending.popleft()
            yield done, future.result()
    finally:  # after an error no worker is left that could write while the folder is cleaned up
        for _, future in pending:
            future.cancel()
        wait([future for _, future in pending])
