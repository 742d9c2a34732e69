"""Torch's threads, lent to something else for a while."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


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
