"""Python threads for tasks: one task per thread, each with one thread for torch's operations.

Torch's operations release the interpreter's lock, and on a CPU gradients run in the calling thread. So two tasks keep
two cores busy, which the loops within one task's small operations do not.
"""

from __future__ import annotations

import collections
import contextlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(function: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """Yield ``function(item)`` for every item, in the order of the items, running ``threads`` at a time.

    Results arrive in the same order whichever thread finishes first, so sums are the same bit for bit. The threads
    inherit whether gradients are recorded. Torch's counters and profilers see only the caller's thread, so use 1 when
    counting. At most ``threads`` results wait. An exception ends the work and is raised here. Raises `ValueError` below
    1 thread."""
    if threads < 1:
        raise ValueError(f"threads must be at least 1, not {threads}")
    if threads == 1:
        yield from map(function, items)
        return
    grad = torch.is_grad_enabled()
    with one_thread(), ThreadPoolExecutor(threads, "task", initializer=_begin, initargs=(grad,)) as pool:
        waiting: collections.deque[Future[Result]] = collections.deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


@contextlib.contextmanager
def one_thread() -> Iterator[int]:
    """Limit torch's operations to one thread; yields the previous number.

    OpenMP's other threads spin for a while after each operation and slow down everything else."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)


def _begin(grad: bool) -> None:
    torch.set_num_threads(1)  # OpenMP's setting is per thread
    torch.set_grad_enabled(grad)
