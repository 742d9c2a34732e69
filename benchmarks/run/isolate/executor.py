"""The seam between the order of jobs (`benchmarks.run.isolate.run`) and the places where their processes run."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from multiprocessing import connection
from typing import Any, Protocol

from benchmarks.run.isolate.process import Job, Outcome, Process


class Running(Protocol):
    """A job that has been handed over."""

    job: Job

    def begun(self) -> bool:
        """Whether its process has started."""

    def news(self) -> Iterator[dict[str, Any]]:
        """Reports of the function since the last call."""

    def outcome(self) -> Outcome | None:
        """The end of the job; None before."""

    def kill(self) -> None:
        """End it."""

    def close(self) -> None:
        """Wait until it has ended."""


class Executor(Protocol):
    """Where jobs run. group: the name of the runs that compute its cells and hold their locks; None: this run does."""

    @property
    def group(self) -> str | None:
        """As above."""

    @property
    def slots(self) -> int:
        """Jobs that may be handed over at once."""

    def start(self, job: Job, threads: int | None) -> Running:
        """Hand a job over; raises OSError or EOFError where its process can't be started."""

    def wait(self, running: Sequence[Running], seconds: float) -> None:
        """Sleep until one of these has news, at most ``seconds``."""

    def close(self) -> None:
        """End what is left."""


class Local:
    """Processes of this machine. gpus: names for CUDA_VISIBLE_DEVICES, of which each job gets one."""

    group = None

    def __init__(self, slots: int, gpus: Sequence[str] = ()) -> None:
        self.slots = max(1, slots)
        self._gpus = gpus
        self._placed: list[tuple[Process, str]] = []

    def start(self, job: Job, threads: int | None) -> Process:
        if not self._gpus:
            return Process(job, threads)
        self._placed = [(process, gpu) for process, gpu in self._placed if not process.closed]
        taken = Counter(gpu for _, gpu in self._placed)
        gpu = min(self._gpus, key=lambda name: taken[name])
        process = Process(job, threads, {"CUDA_VISIBLE_DEVICES": gpu})
        self._placed.append((process, gpu))
        return process

    def wait(self, running: Sequence[Running], seconds: float) -> None:
        processes = [process for process in running if isinstance(process, Process)]
        if processes:
            connection.wait([handle for process in processes for handle in process.handles()], timeout=seconds)
        else:
            time.sleep(seconds)

    def close(self) -> None:
        pass
