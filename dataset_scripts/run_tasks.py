"""Tasks on any `concurrent.futures.Executor`: processes of this machine, Dask, Ray."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, wait
from itertools import chain


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
    finally:  # after an error nothing is at work any more: whoever cleans up must not meet a writer
        for _, future in pending:
            future.cancel()
        wait([future for _, future in pending])
