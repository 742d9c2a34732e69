"""Calls in separate processes, with limits of time and memory.

A job names a function and plain arguments. Its process is forked from a server that has torch imported
(`multiprocessing`'s forkserver; platforms without one spawn), so it starts in milliseconds. The server never runs a
tensor operation, because a process with running OpenMP threads can't be forked safely. The parent enforces the limits.
Whatever a job does (raise, hang, exit, allocate without end) becomes an `Outcome`. If the parent dies, even by SIGKILL,
its jobs end at once.

A job's function takes ``progress`` first and returns a dict that JSON can hold::

    def fit(progress: Callable[[dict], None], **arguments) -> dict: ...

`run` keeps order, prerequisites and events; an `Executor` says where processes run (`benchmarks.run.executors`).
`benchmarks.run.isolate.process` is the parent's side, `benchmarks.run.isolate.child` the child's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from benchmarks.run.isolate.executor import Executor, Local, Running
from benchmarks.run.isolate.process import POLL, PRELOAD, SUITE, Job, Outcome, Process, warm

__all__ = [
    "POLL",
    "PRELOAD",
    "SUITE",
    "Event",
    "Executor",
    "Job",
    "Local",
    "Outcome",
    "Process",
    "Running",
    "run",
    "warm",
]

#: the answer of `admit`
Admission = Literal["start", "wait"] | Outcome

#: seconds until a job that `admit` told to wait is asked about again
PATIENCE = 1.0


@dataclass(frozen=True)
class Event:
    """A change of a job. progress: the function's report. outcome: set at the end."""

    kind: Literal["started", "progress", "finished"]
    job: Job
    progress: dict[str, Any] = field(default_factory=dict)
    outcome: Outcome | None = None


def run(
    jobs: Iterable[Job],
    workers: int | Executor,
    on_event: Callable[[Event], None],
    *,
    threads: int | None = 1,
    admit: Callable[[Job], Admission] = lambda job: "start",
    preload: Sequence[str] = PRELOAD,
) -> dict[str, Outcome]:
    """Run all jobs, in order where possible; returns the outcomes by key.

    workers: jobs at once on this machine, or the executor that runs them. on_event: called with every event; a job
    whose prerequisite failed is ``finished`` as skipped without a start. threads: CPU threads per process; None: the
    libraries' default. admit: called just before a job starts: "start", "wait" (another process works on it: ask again
    later, others go first), or the outcome of a job that needs no run. preload: modules that the server imports before
    it forks.

    If this function ends early (Ctrl-C, an exception of ``on_event``) it kills all processes first. Raises `ValueError`
    for a duplicate key and for an ``after`` that names no earlier job."""
    jobs = list(jobs)
    _check_order(jobs)
    warm(preload)
    pool = _Workers(jobs, Local(workers) if isinstance(workers, int) else workers, on_event, threads, admit)
    try:
        while pool.busy():
            pool.start_ready_jobs()
            pool.watch()
    finally:
        pool.kill_all()
    return pool.outcomes


def _check_order(jobs: list[Job]) -> None:
    known: set[str | None] = {None}
    for job in jobs:
        if job.key in known:
            raise ValueError(f"two jobs have the key {job.key}")
        if job.after not in known:
            raise ValueError(f"job {job.key} waits for {job.after}, which is no earlier job")
        known.add(job.key)


class _Workers:
    """The jobs of one `run`: waiting, running and finished."""

    def __init__(
        self,
        jobs: list[Job],
        executor: Executor,
        on_event: Callable[[Event], None],
        threads: int | None,
        admit: Callable[[Job], Admission],
    ) -> None:
        self.waiting = jobs
        self.running: list[Running] = []
        self.outcomes: dict[str, Outcome] = {}
        self._executor = executor
        self._silent: set[str] = set()
        self._on_event = on_event
        self._threads = threads
        self._admit = admit
        self._asked: dict[str, float] = {}

    def busy(self) -> bool:
        return bool(self.waiting or self.running)

    def start_ready_jobs(self) -> None:
        for job in list(self.waiting):
            first = self.outcomes.get(job.after) if job.after is not None else Outcome("ok")
            if first is None:
                continue
            if first.status != "ok":
                how = "was skipped" if first.status == "skipped" else "failed"
                self.waiting.remove(job)
                self._finish(job, Outcome("skipped", f"its fit {how}: {first.reason}"))
            elif len(self.running) < self._executor.slots:
                self._ask_and_start(job)

    def _ask_and_start(self, job: Job) -> None:
        if time.monotonic() - self._asked.get(job.key, -PATIENCE) < PATIENCE:
            return
        admission = self._admit(job)
        if admission == "wait":
            self._asked[job.key] = time.monotonic()
            return
        self.waiting.remove(job)
        if isinstance(admission, Outcome):
            self._finish(job, admission)
            return
        try:
            self.running.append(self._executor.start(job, self._threads))
        except (OSError, EOFError) as error:  # EOFError: the server died
            reason = f"its process could not be started: {type(error).__name__}: {error}".rstrip(": ")
            self._finish(job, Outcome("error", reason))
            return
        self._silent.add(job.key)
        self._say_begun(self.running[-1])

    def _say_begun(self, running: Running) -> None:
        if running.job.key in self._silent and running.begun():
            self._silent.discard(running.job.key)
            self._on_event(Event("started", running.job))

    def watch(self) -> None:
        """Sleep until something happens (at most `POLL` seconds), then forward reports and enforce the limits."""
        if not self.running:
            time.sleep(POLL if self.waiting else 0.0)
            return
        self._executor.wait(self.running, POLL)
        for running in list(self.running):
            reports = list(running.news())
            self._say_begun(running)
            for report in reports:
                self._on_event(Event("progress", running.job, report))
            outcome = running.outcome()
            if outcome is not None:
                self.running.remove(running)
                self._finish(running.job, outcome)

    def _finish(self, job: Job, outcome: Outcome) -> None:
        self.outcomes[job.key] = outcome
        self._on_event(Event("finished", job, outcome=outcome))

    def kill_all(self) -> None:
        for running in self.running:
            running.kill()
        for running in self.running:
            running.close()
