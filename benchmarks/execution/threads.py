"""Work on tasks in threads of Python: one task per thread, each with one thread for torch's operations.

Operations of torch let go of the interpreter's lock, and on a CPU gradients are computed in the thread that asks for
them. So two tasks on two cores keep both busy, which the loops inside one task's small operations do not.
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
    """``function(item)`` for every item, in the order of the items, ``threads`` of them at a time.

    What the caller adds up comes in the same order whichever thread was first, so sums are the same bit for bit. The
    threads take over whether gradients are recorded; counters and profilers of torch see the caller's thread only, so
    what is counted is run with 1. At most ``threads`` results wait. An exception ends the work and is raised here."""
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
    """Torch's operations in one thread meanwhile; yields how many it has otherwise. Those of OpenMP go on turning for a
    while after each operation, in the way of any others."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)


def _begin(grad: bool) -> None:
    torch.set_num_threads(1)  # OpenMP counts them for each thread
    torch.set_grad_enabled(grad)
