"""On a GPU: settings that are prepared together and timed one after the other.

Preparing a setting is mostly work of the CPU (JAX's compiler takes minutes), and a GPU is often rented for minutes. So
a batch of settings starts at once, each in its process, and a few of them prepare at a time. Once all are prepared,
each is timed alone, one after the other; counting comes after that, together again. The processes tell each other by
files in a folder, and the parent marks a process that has ended, even if it was killed (`Slot.ended`).

On a CPU settings are measured one after the other (`benchmarks.cost.sweep`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import torch

from benchmarks.cost import PRELOAD, comparison, grid, peers
from benchmarks.cost.entry import Entry
from benchmarks.cost.grid import Setting
from benchmarks.cost.measurement import Budget, Measurement, OutOfTime, Report, compile_in, limit_threads
from benchmarks.cost.workloads import WORKLOADS
from benchmarks.errors import short_of_memory
from benchmarks.machine import usable_cores
from benchmarks.records.record import Record
from benchmarks.run import isolate
from benchmarks.run.isolate import Event, Job

#: seconds between two looks at the files: too rarely to disturb the setting that is timed
LOOK = 0.1
#: at most this many settings prepare at a time, each with a core
PLACES = 8
#: memory that a setting needs: of the GPU with its captured launches and the attempts of its compilers (twelve settings
#: took 141e9 bytes), and of the machine
GPU_BYTES, BYTES = 13e9, 1.5e9
#: seconds that a setting needs where the whole run has a time limit
SECONDS = 20.0
#: inner loops that run once in the time of compiling one; on a GPU 6 s where a loop takes 0.01 to 0.025 s
COMPILING = 300


def most_settings(memory_bytes: int | None, gpu_gib: float, seconds: float | None) -> int:
    """The size of the next batch. memory_bytes: limit of each process. seconds: left of the run; None: no limit."""
    limits = [gpu_gib * 2**30 / GPU_BYTES]
    limits += [] if memory_bytes is None else [memory_bytes / BYTES]
    limits += [] if seconds is None else [seconds / SECONDS]
    return max(1, int(min(limits)))


def run(
    batch: Mapping[str, Setting],
    device: str,
    folder: Path,
    memory_bytes: int | None,
    seconds: float | None,
    on_event: Callable[[Event], None],
) -> None:
    """Measure the settings of a batch, timed in the order of their keys. seconds: left of the run; None: no limit."""
    places = max(1, min(PLACES, usable_cores() or 1))
    slots = {key: Slot(str(folder), number, len(batch), places) for number, key in enumerate(batch)}
    limit = sum(setting.limit for setting in batch.values()) if seconds is None else seconds

    def pass_on(event: Event) -> None:
        if event.kind == "finished":
            slots[event.job.key].ended()
        on_event(event)

    jobs = []
    for key in sorted(batch, key=lambda key: -preparation(batch[key])):  # were the largest last, all would wait for it
        arguments = {"setting": grid.plain(batch[key]), "device": device, "folder": str(folder), "seconds": seconds}
        call = "benchmarks.cost.batches:measure", {**arguments, "slot": dataclasses.asdict(slots[key])}
        jobs.append(Job(key, call, folder / f"{key}.log", limit, memory_bytes))
    isolate.run(jobs, len(jobs), pass_on, threads=None, preload=PRELOAD)


def preparation(setting: Setting) -> int:
    """How long a setting takes to prepare, roughly, in inner loops: those of a step of each variant, and compiling."""
    programs = sum(peers.compiles(each.implementation, each.plan) for each in setting.variants)
    return (len(setting.variants) * setting.meta_batch + COMPILING * programs) * setting.inner_steps


def trouble(record: Record) -> str | None:
    """In words, how a setting failed in a way that others on the GPU may have caused; None: it did not.

    Any failure is one, of the setting or of an entry, and a plan that was changed for want of memory. A result that
    differs from ours is none."""
    rows = record.cost.rows if record.cost else ()
    ends = [(record.status, record.reason), *((row["status"], row["reason"]) for row in rows)]
    plans = [(row["plan"] or {}).get("why") or "" for row in rows]
    short = any(status == "out-of-memory" or "killed by SIGKILL" in (reason or "") for status, reason in ends)
    if short or any(map(short_of_memory, plans)):
        return "out of memory"
    failed = any(status == "error" and not comparison.is_verdict(reason or "") for status, reason in ends)
    return "failed" if failed else None


# --- in the process of a setting -------------------------------------------------------------------------------------


def measure(
    progress: Report, setting: dict[str, Any], device: str, folder: str, slot: dict[str, Any], seconds: float | None
) -> dict[str, Any]:
    """Measure one setting of a batch; a job of `benchmarks.run.isolate`. Returns what
    `benchmarks.cost.measurement.measure` does.

    slot: the fields of a `Slot`. seconds: left of the run; None: no limit."""
    chosen, own = grid.from_plain(setting), Slot(**slot)
    workload = WORKLOADS[chosen.backbone]
    budget = Budget(chosen.limit) if seconds is None else Budget(chosen.limit, seconds)
    compile_in(folder)
    with budget.waiting(own.preparing()):
        limit_threads(workload.threads, bind=False)  # the work is the GPU's, and compilers need the cores
        with budget.waiting(own.on_device()):
            measurement = SharedMeasurement(chosen, workload, device, progress, budget, own)
        measurement.prepare()
    with budget.waiting(own.timing()):
        measurement.time_rounds()
    with budget.waiting(own.counting()):
        measurement.count()
    measurement.stages["waiting"] = budget.waited
    return measurement.result()


class SharedMeasurement(Measurement):
    """A measurement on a GPU where other settings of the batch work meanwhile."""

    def __init__(self, *arguments: Any) -> None:
        *others, self.slot = arguments
        super().__init__(*others)

    @contextlib.contextmanager
    def at_work(self, entry: Entry) -> Iterator[None]:
        """On the device, and alone there while a compiler tunes; give back unused memory while preparing."""
        with self.budget.waiting(self.slot.on_device()) as alone:
            entry.adapter.tuning = lambda: self._tuning(alone)
            with super().at_work(entry):
                yield
        if not entry.samples:
            torch.cuda.empty_cache()

    @contextlib.contextmanager
    def _tuning(self, alone: Callable[[], AbstractContextManager[None]]) -> Iterator[None]:
        with self.budget.waiting(alone()):
            if self.budget.left("preparing") <= 0:  # all others would wait for it
                raise OutOfTime
            yield


@dataclass(frozen=True)
class Slot:
    """A setting's place in its batch, as plain values.

    folder: shared by the batch. number: position in the order of timing, from 0. of: settings in the batch.
    places: how many settings prepare at a time."""

    folder: str
    number: int = 0
    of: int = 1
    places: int = 1

    @contextlib.contextmanager
    def preparing(self) -> Iterator[None]:
        """Wait for a free place and hold it."""
        with self._place():
            yield
        self._mark("prepared")

    @contextlib.contextmanager
    def timing(self) -> Iterator[None]:
        """Wait until all settings are prepared and those before this one are timed."""
        self._wait_for("prepared", range(self.of))
        self._wait_for("timed", range(self.number))
        yield
        self._mark("timed")

    @contextlib.contextmanager
    def counting(self) -> Iterator[None]:
        """Wait until all settings are timed."""
        self._wait_for("timed", range(self.of))
        yield

    def ended(self) -> None:
        """Let no other setting wait for this one any longer."""
        self._mark("prepared")
        self._mark("timed")

    @contextlib.contextmanager
    def on_device(self) -> Iterator[Callable[[], AbstractContextManager[None]]]:
        """Work on the GPU while others do. Yields a function; within the context that it returns, the others pause.

        The file "device" is locked by all that work, or by one alone. Everyone passes the file "entrance" to lock it,
        and one that wants the device alone keeps the entrance locked, so that the device becomes free."""
        try:
            import fcntl
        except ImportError:
            yield contextlib.nullcontext
            return
        with self._file("device").open("a") as device, self._file("entrance").open("a") as entrance:

            @contextlib.contextmanager
            def alone() -> Iterator[None]:
                # one that waits at the entrance must not hold up another that has passed it
                fcntl.flock(device, fcntl.LOCK_UN)
                fcntl.flock(entrance, fcntl.LOCK_EX)
                fcntl.flock(device, fcntl.LOCK_EX)
                try:
                    yield
                finally:
                    fcntl.flock(device, fcntl.LOCK_SH)
                    fcntl.flock(entrance, fcntl.LOCK_UN)

            fcntl.flock(entrance, fcntl.LOCK_EX)
            fcntl.flock(device, fcntl.LOCK_SH)
            fcntl.flock(entrance, fcntl.LOCK_UN)
            yield alone

    def _place(self) -> AbstractContextManager[Any]:
        for number in itertools.cycle(range(self.places)):
            with contextlib.suppress(filelock.Timeout):
                return filelock.FileLock(self._file(f"place-{number}")).acquire(timeout=0)
            time.sleep(LOOK / self.places)
        raise AssertionError

    def _wait_for(self, mark: str, others: Iterable[int]) -> None:
        while not all(self._file(f"{mark}-{other}").exists() for other in others):
            time.sleep(LOOK)

    def _mark(self, mark: str) -> None:
        self._file(f"{mark}-{self.number}").touch()

    def _file(self, name: str) -> Path:
        return Path(self.folder) / name
