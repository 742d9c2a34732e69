"""Calls in processes of their own: the one file that knows how cells are run.

A job names a function and plain arguments. Its process is forked from a server that has torch imported already
(`multiprocessing`'s forkserver; where the platform has none, processes are spawned), so it starts in milliseconds. The
server never runs a tensor operation: a process whose OpenMP threads have started can't be forked safely. The parent
keeps the time limit and the memory limit, and whatever a job does (raises, hangs, exits, allocates without end)
becomes an `Outcome`. If the parent dies, even by SIGKILL, its jobs' processes end at once.

A function that runs as a job takes a ``progress`` function first and returns a dict that JSON can hold::

    def fit(progress: Callable[[dict], None], **arguments) -> dict: ...

A cluster engine could replace this file: it would have to offer `Job`, `Outcome`, `Event` and `run`. The local form is
in `benchmarks.run.isolate.process` (the parent's side) and `benchmarks.run.isolate.child` (the child's).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from multiprocessing import connection
from pathlib import Path
from typing import Any, Literal

from benchmarks.run.isolate.process import POLL, PRELOAD, Outcome, Process, warm

__all__ = ["PRELOAD", "Event", "Job", "Outcome", "run", "warm"]

#: what `admit` says of a job: start it, ask again later, or how it has ended elsewhere
Admission = Literal["start", "wait"] | Outcome

#: seconds until `admit` is asked again about a job that waits
PATIENCE = 1.0


@dataclass(frozen=True)
class Job:
    """A call to run in a process of its own.

    key: names the job. call: "module:function" and its keyword arguments, plain values. log: where the process's
    stdout and stderr go. seconds: time limit, counted from the call on. memory_bytes: limit of resident memory, with
    that of the process's own children (the imported libraries count: 0.2 GB or so). after: keys of the jobs that must
    have ended well before this one can start.
    """

    key: str
    call: tuple[str, dict[str, Any]]
    log: Path
    seconds: float | None = None
    memory_bytes: int | None = None
    after: tuple[str, ...] = ()


@dataclass(frozen=True)
class Event:
    """Something that happened to a job; ``progress`` is what the function reported, ``outcome`` is set at the end."""

    kind: Literal["started", "progress", "finished"]
    job: Job
    progress: dict[str, Any] = field(default_factory=dict)
    outcome: Outcome | None = None


def run(
    jobs: Iterable[Job],
    workers: int,
    on_event: Callable[[Event], None],
    *,
    threads: int | None = 1,
    admit: Callable[[Job], Admission] = lambda job: "start",
    preload: Sequence[str] = PRELOAD,
) -> dict[str, Outcome]:
    """Run all jobs, at most ``workers`` at once and in their order where nothing speaks against it, and return the
    outcomes by key.

    on_event: told of everything; a job whose prerequisite failed is ``finished`` as skipped without having started.
    threads: each process's CPU threads (None: as the libraries like). admit: asked just before a job would start; where
    it says "wait", others go first.
    Whatever ends this function early (Ctrl-C, an exception of ``on_event``) kills all processes first.
    Raises ValueError for a key that is there twice or an ``after`` that names no job before it."""
    jobs = list(jobs)
    _check_order(jobs)
    warm(preload)
    crew = _Crew(jobs, workers, on_event, threads, admit)
    try:
        while crew.busy():
            crew.start_ready_jobs()
            crew.watch()
    finally:
        crew.kill_all()
    return crew.outcomes


def _check_order(jobs: list[Job]) -> None:
    known: set[str] = set()
    for job in jobs:
        if job.key in known:
            raise ValueError(f"two jobs have the key {job.key}")
        for needed in job.after:
            if needed not in known:
                raise ValueError(f"job {job.key} waits for {needed}, which is no job before it")
        known.add(job.key)


class _Crew:
    """The jobs of one `run`: those that wait, those that have a process, and the outcomes of the others."""

    def __init__(
        self,
        jobs: list[Job],
        workers: int,
        on_event: Callable[[Event], None],
        threads: int | None,
        admit: Callable[[Job], Admission],
    ) -> None:
        self.waiting = jobs
        self.running: list[tuple[Job, Process]] = []
        self.outcomes: dict[str, Outcome] = {}
        self._workers = max(1, workers)
        self._on_event = on_event
        self._threads = threads
        self._admit = admit
        self._asked: dict[str, float] = {}

    def busy(self) -> bool:
        return bool(self.waiting or self.running)

    def start_ready_jobs(self) -> None:
        for job in list(self.waiting):
            if any(needed not in self.outcomes for needed in job.after):
                continue
            failed = next((needed for needed in job.after if self.outcomes[needed].status != "ok"), None)
            if failed is not None:
                self.waiting.remove(job)
                self._finish(job, _blocked(failed, self.outcomes[failed]))
            elif len(self.running) < self._workers:
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
            process = Process(job.call, job.log, job.seconds, job.memory_bytes, self._threads)
        except (OSError, EOFError) as error:  # EOFError: the server has died
            reason = f"its process could not be started: {type(error).__name__}: {error}".rstrip(": ")
            self._finish(job, Outcome("error", reason))
            return
        self.running.append((job, process))
        self._on_event(Event("started", job))

    def watch(self) -> None:
        """Sleep until something happens (at most `POLL` seconds), then pass on news and enforce the limits."""
        if not self.running:
            time.sleep(POLL if self.waiting else 0.0)
            return
        connection.wait([handle for _, process in self.running for handle in process.handles()], timeout=POLL)
        for job, process in list(self.running):
            for news in process.news():
                self._on_event(Event("progress", job, news))
            outcome = process.outcome()
            if outcome is not None:
                self.running.remove((job, process))
                self._finish(job, outcome)

    def _finish(self, job: Job, outcome: Outcome) -> None:
        self.outcomes[job.key] = outcome
        self._on_event(Event("finished", job, outcome=outcome))

    def kill_all(self) -> None:
        for _, process in self.running:
            process.kill()
        for _, process in self.running:
            process.close()


def _blocked(key: str, outcome: Outcome) -> Outcome:
    how = "was skipped" if outcome.status == "skipped" else "failed"
    return Outcome("skipped", f"its fit {how}: {outcome.reason}", blamed_on=key)
