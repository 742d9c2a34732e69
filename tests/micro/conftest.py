"""Micro-benchmarks: a clock that waits for the device, and facts of the machine.

``make micro`` runs them; `make test` leaves them out. They show where time goes during development. `metabench gate`
decides whether something became slower.
"""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch

from benchmarks import clock, machine
from benchmarks.execution.memory import keep_freed_memory

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def synchronised() -> float:
    """Seconds, after the device has finished its work."""
    clock.synchronise(DEVICE)
    return time.perf_counter()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    keep_freed_memory()
    for item in items:
        item.add_marker(pytest.mark.benchmark(timer=synchronised))


def pytest_benchmark_update_machine_info(config: Any, machine_info: dict[str, Any]) -> None:
    """Add the suite's own fingerprint, with the GPU, to the facts of pytest-benchmark."""
    machine_info["metabench"] = machine.fingerprint(DEVICE)


@pytest.fixture
def device() -> str:
    return DEVICE


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    """Small tensors gain nothing from threads, and times are steadier without."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
