"""A whole run: make the data ready, expand what was resolved into cells, run what is not finished, record what failed.

Cells are independent except that an evaluation needs its fit, so the same list could go to a cluster;
`benchmarks.run.isolate` runs it on this machine.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from benchmarks.errors import MetabenchError, one_line
from benchmarks.machine import usable_cores, usable_memory
from benchmarks.records.formats import fresh
from benchmarks.records.plain import content_key
from benchmarks.records.record import Record
from benchmarks.records.sharing import announced, failed_before
from benchmarks.records.store import Store
from benchmarks.run import cells, isolate, worker
from benchmarks.run.cells import Cell
from benchmarks.run.isolate import Event, Job, Outcome
from benchmarks.run.resolution import Resolution

Only = Literal["all", "failed", "missing"]

#: a data set may take this long to be downloaded and decoded, in seconds
PREPARE_SECONDS = 3600.0
#: the share of the machine's memory that all cells together may take
MEMORY_SHARE = 0.8


@dataclass(frozen=True)
class Machine:
    """How cells are run here: processes at once, CPU threads of each, and their memory limit in bytes."""

    jobs: int
    threads: int
    memory_bytes: int | None

    @classmethod
    def default(
        cls, device: str, jobs: int | None = None, gigabytes: float | None = None, threads: int | None = None
    ) -> Machine:
        """As many processes as the cores have room for, each with its share of the cores; on a GPU one process.

        threads: CPU threads of each process; None: OMP_NUM_THREADS, else cores / jobs. gigabytes: memory limit of each
        process; None: its share of the memory that may be used here (a container's limit)."""
        cores = usable_cores() or 1
        threads = threads or _named_threads(cores)
        jobs = jobs or (max(1, cores // (threads or 1)) if device == "cpu" else 1)
        if gigabytes is None and (usable := usable_memory()) is not None:
            gigabytes = usable / 1e9 * MEMORY_SHARE / jobs
        return cls(jobs, threads or max(1, cores // jobs), None if gigabytes is None else int(gigabytes * 1e9))


def check_threads(what: str, threads: int | None) -> None:
    """Refuse more threads than this process may use cores: far too many end it with a segmentation fault."""
    cores = usable_cores() or 1
    if threads is not None and threads > cores:
        raise MetabenchError(f"{what} = {threads} is above the number of usable cores, {cores}")


def _named_threads(cores: int) -> int | None:
    """OMP_NUM_THREADS, of "4,2" the first, at most ``cores``; None where it names no number, as in OpenMP."""
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return min(int(first), cores) if first.isdecimal() and int(first) > 0 else None


@dataclass(frozen=True)
class Todo:
    """Cells to run, and pairs of method and task to skip. done: cells that have finished before."""

    cells: Sequence[Cell]
    done: Sequence[Cell] = ()

    @property
    def to_run(self) -> list[Cell]:
        return [cell for cell in self.cells if cell.skip is None]

    @property
    def skips(self) -> list[str]:
        """``chance, constant on bandit-v1/k5n10: why``: the skipped methods by task and reason."""
        together: dict[str, list[str]] = {}
        for cell in self.cells:
            if cell.skip is not None:
                together.setdefault(f"{cell.task}: {one_line(cell.skip)}", []).append(cell.label)
        return [f"{', '.join(labels)} on {where}" for where, labels in together.items()]


@dataclass(frozen=True)
class Data:
    """The data of a run's tasks: task id -> hash (None where there are none), and task id -> why they are absent."""

    digests: Mapping[str, str | None]
    unavailable: Mapping[str, str]


@dataclass(frozen=True)
class Watcher:
    """Functions that follow a run: ``line`` gets sentences, ``plan`` the cells to run, ``event`` what a cell's process
    reports. By default nothing is shown."""

    line: Callable[[str], None] = lambda text: None
    event: Callable[[Cell, Event], None] = lambda cell, event: None
    plan: Callable[[Todo], None] = lambda todo: None


def prepare(found: Resolution, machine: Machine, watcher: Watcher) -> Data:
    """Make the data of every task ready, each in its own process.

    Raises MetabenchError for broken data, or data too few for a learner, before anything is written."""
    wanted = {content_key(["prepare", task]): task for task in found.tasks}
    digests: dict[str, str | None] = {}
    unavailable: dict[str, str] = {}
    broken: list[str] = []

    def on_event(event: Event) -> None:
        task = wanted[event.job.key]
        if event.kind == "progress":
            watcher.line(f"{task}: {event.progress['line']}")
        if event.kind == "finished" and event.outcome is not None:
            if event.outcome.status == "ok":
                digests[task] = (event.outcome.value or {}).get("digest")
                broken.extend((event.outcome.value or {}).get("refused", ()))
            elif event.outcome.status == "error":
                broken.append(f"the data of {task} can't be prepared: {event.outcome.reason}")
            else:
                unavailable[task] = event.outcome.reason or event.outcome.status
                watcher.line(f"{task} is unavailable: {unavailable[task]}")

    own = {block.tasks.id for block in found.alternatives}
    with tempfile.TemporaryDirectory() as logs:
        jobs = []
        for key, task in wanted.items():
            tasks = found.tasks[task]
            trained = found.trained_on(task)
            arguments = {
                "task": tasks.plain,
                "plugins": [*dict.fromkeys((*tasks.files, *(file for entry in trained for file in entry.files)))],
                "learners": [entry.trainer.plain for entry in trained if entry.trainer],
                "shots": found.request.shots if task in own else (),
            }
            call = ("benchmarks.run.worker:prepare", arguments)
            jobs.append(Job(key, call, Path(logs) / f"{key}.log", PREPARE_SECONDS, machine.memory_bytes))
        isolate.run(jobs, machine.jobs, on_event, threads=machine.threads)
    if broken:
        raise MetabenchError("; ".join(broken))
    return Data(digests, unavailable)


def plan(found: Resolution, data: Data, store: Store, only: Only) -> Todo:
    """The cells less those that are finished (or, with ``only``, less all but the failed or the missing)."""
    keep: list[Cell] = []
    done: list[Cell] = []
    for cell in cells.expand(found, data.digests, data.unavailable):
        record = store.get(cell.key)
        passed_over = (only == "failed" and record is None) or (only == "missing" and record and record.failed)
        if cell.skip is None and record is not None and record.ok:
            done.append(cell)
        elif cell.skip is not None or not passed_over:
            keep.append(cell)
    keys = {cell.key for cell in keep}

    def reachable(cell: Cell) -> bool:
        """Whether the fit that it needs is finished or to be run."""
        if cell.after is None or cell.after in keys:
            return True
        fit = store.get(cell.after)
        return fit is not None and fit.ok

    return Todo([cell for cell in keep if reachable(cell)], done)


def run(
    todo: Todo, store: Store, machine: Machine, watcher: Watcher, executor: isolate.Executor | None = None
) -> dict[str, Outcome]:
    """Run all cells; whatever happens to one of them becomes a record, and the others go on. executor: where cells
    run, if not in ``machine.jobs`` processes here.

    Several runs may share a store: this one holds the lock of each cell that it works on until its record is written,
    and takes over what another run has finished, or failed at, since this one began."""
    crew: isolate.Executor = executor or isolate.Local(machine.jobs)
    before = failed_before(store, [cell.key for cell in todo.cells], crew.group or _group())

    def settled(record: Record | None) -> bool:
        """Whether a cell needs no other try. No clock is asked: those of two machines differ."""
        return record is not None and (record.ok or record.finished != before.get(record.key))

    by_key = {cell.key: cell for cell in todo.cells}
    for cell in todo.cells:
        if cell.skip is not None:
            if not settled(store.get(cell.key)):
                _record(store, cell, Outcome("skipped", cell.skip))
        else:
            store.remove(cells.skip_key(cell.spec["method"]["name"], cell.task))

    held: dict[str, FileLock] = {}

    def admit(job: Job) -> isolate.Admission:
        if crew.group is not None:
            return "start"
        lock = store.lock(job.key, wait=0)
        try:
            lock.acquire()
        except Timeout:
            return "wait"
        fresh(store.path / "records")
        record = store.get(job.key)
        if record is not None and settled(record):
            lock.release()
            return Outcome(record.status, record.reason)
        held[job.key] = lock
        return "start"

    def on_event(event: Event) -> None:
        cell, outcome = by_key[event.job.key], event.outcome
        if outcome is not None:
            if outcome.status != "ok" and not settled(store.get(cell.key)):
                _record(store, cell, outcome)
            if (lock := held.pop(cell.key, None)) is not None:
                event.job.log.unlink(missing_ok=True)
                lock.release()
        watcher.event(cell, event)

    jobs = [_job(cell, by_key, store, machine) for cell in todo.to_run]
    names = [(cell.key, cell.label, cell.task, cell.kind, cell.seed) for cell in todo.to_run]
    try:
        with announced(store, names):
            return isolate.run(jobs, crew, on_event, threads=machine.threads, admit=admit, preload=isolate.SUITE)
    finally:
        for key, lock in held.items():
            store.log_path(key).unlink(missing_ok=True)  # its secrets are not masked
            lock.release()


def _job(cell: Cell, by_key: Mapping[str, Cell], store: Store, machine: Machine) -> Job:
    arguments = {
        "key": cell.key,
        "spec": dict(cell.spec),
        "store": str(store.path.absolute()),
        "plugins": [*cell.files],
    }
    call = (f"benchmarks.run.worker:run_{cell.kind}", arguments)
    after = cell.after if cell.after in by_key else None
    return Job(cell.key, call, store.log_path(cell.key).absolute(), cell.seconds, machine.memory_bytes, after)


def _group() -> str | None:
    """The name of the runs that this one belongs to: those of a SLURM array, also when they are requeued."""
    return os.environ.get("METABENCH_RUN") or os.environ.get("SLURM_ARRAY_JOB_ID")


def _record(store: Store, cell: Cell, outcome: Outcome) -> None:
    facts: dict[str, Any] = {name: getattr(outcome, name) for name in ("status", "reason", "stderr", "peak_bytes")}
    worker.write_failure(store, cell.draft, {**worker.as_recorded(outcome.facts), **facts})
