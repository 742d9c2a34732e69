"""One setting of the cost benchmark, measured in a process of its own.

All entries go through the same stages. First their results (meta-gradients; in an evaluation predictions) are compared
with the suite's own in double precision, on the same weights and tasks: an entry that computes something else is not
timed. Where a compiled or captured program is timed, the result of its first step is compared too. Times are taken in
rounds. Each round has every entry once, in a new order, so that a disturbance of the machine meets all of them.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import numpy as np
import torch

from benchmarks.api import Episodes, Parameters
from benchmarks.clock import Clock
from benchmarks.cost import comparison, counting, peers
from benchmarks.cost.entry import Entry
from benchmarks.cost.grid import WORKS, Setting, from_plain
from benchmarks.cost.peers.adapter import Settings
from benchmarks.cost.work import KINDS
from benchmarks.cost.workloads import WORKLOADS, Workload
from benchmarks.errors import status_of
from benchmarks.execution.threads import one_thread
from benchmarks.machine import usable_cores
from benchmarks.models import BACKBONES, Network

#: steps between the very first and the first timed one, and the seconds that end them early (without those of a first
#: step that compiles)
WARM_UP, WARM_UP_SECONDS = 3, 1.0
#: least seconds of a timed block: short steps are repeated
BLOCK = 0.005
#: least number of timed blocks of an entry, however long they take
LEAST_ROUNDS = 5
#: times that adaptation is timed, unless it is long
ADAPTATIONS = 3
#: parts of a setting's work, and the shares of its seconds after which no entry begins a stage of them
SHARES = {"preparing": 0.6, "timing": 0.88, "counting": 0.97}
OUT_OF_TIME = "the setting's time was up before it was timed"

Report = Callable[[dict[str, Any]], None]
Given = TypeVar("Given")


def measure(progress: Report, setting: dict[str, Any], device: str, folder: str) -> dict[str, Any]:
    """Measure one setting, as plain values, while nothing else runs; a job of `benchmarks.run.isolate`.

    Returns rows, ceilings, threads, precision and the seconds of each stage. folder: of this run, for files."""
    chosen = from_plain(setting)
    workload = WORKLOADS[chosen.backbone]
    compile_in(folder)
    limit_threads(workload.threads)
    measurement = Measurement(chosen, workload, device, progress)
    for part in (measurement.prepare, measurement.time_rounds, measurement.count):
        part()
    return measurement.result()


def compile_in(folder: str) -> None:
    """Have torch compile into a folder of this run: from the user's cache its programs would come in less time."""
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = os.path.join(folder, "compiled")


def limit_threads(wanted: int, bind: bool = True) -> None:
    """Use ``wanted`` cores (0: all that this process may use).

    bind: bind the process to that many cores, for libraries that don't ask torch how many threads to use."""
    cores = usable_cores() or 1
    threads = min(wanted or cores, cores)
    torch.set_num_threads(threads)
    if bind and threads < cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-threads:])


class Budget:
    """The seconds that a setting may take, and what remains of them for each part of the work.

    limit: seconds of work; waiting for other settings doesn't count.
    available: seconds until the whole run ends, waiting included."""

    def __init__(self, limit: float, available: float = math.inf) -> None:
        self.limit, self.available = limit, available
        self.waited = 0.0
        self._began = time.monotonic()

    def worked(self) -> float:
        """Seconds since the beginning, without those of waiting."""
        return time.monotonic() - self._began - self.waited

    def left(self, part: str) -> float:
        """Seconds until no entry begins a stage of this part any more."""
        worked, share = self.worked(), SHARES[part]
        return min(share * self.limit - worked, share * self.available - worked - self.waited)

    @contextlib.contextmanager
    def waiting(self, context: AbstractContextManager[Given]) -> Iterator[Given]:
        """The context; the seconds that entering it takes count as waiting."""
        began = time.monotonic()
        with context as given:
            self.waited += time.monotonic() - began
            yield given


class OutOfTime(Exception):
    """Raised in a stage: the budget has no seconds left for this entry."""


class Measurement:
    """The entries of one setting on their way through the stages.

    Parts are `prepare`, `time_rounds` and `count`, in this order. A stage is a method of one entry; an error in it ends
    that entry and no other.

    report: told in one line what is being done."""

    def __init__(
        self, setting: Setting, workload: Workload, device: str, report: Report, budget: Budget | None = None
    ) -> None:
        self.setting, self.workload, self.device, self.report = setting, workload, device, report
        self.budget = budget or Budget(setting.limit)
        self.entries = [Entry(variant) for variant in setting.variants]
        self.stages: dict[str, float] = {}
        self.ceilings: dict[str, float] = {}
        if device.startswith("cuda"):  # float32 for everybody unless a plan says otherwise: torch's default for
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False  # convolutions is TF32
        self.work = KINDS[setting.work]
        network = Network(BACKBONES[setting.backbone], workload.input_shape, workload.outputs)
        self.parameters: Parameters = network.initialise(0, device)
        self.episodes: Episodes = workload.episodes(setting.meta_batch, device=device)
        self.comparison = comparison.Comparison(
            self.work, self.parameters, lambda tasks, dtype: workload.episodes(tasks, dtype, device), setting.meta_batch
        )
        self.counter = counting.Counter(self.work, self.parameters, self.episodes, device)

    # --- parts -----------------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Import, compare and warm up."""
        for stage in (self.importing, self.comparing, self.warming_up):
            self.each("preparing", stage, self.running())

    def time_rounds(self) -> None:
        """Time rounds of steps, then adaptation, then the ceilings of the machine."""
        for entry in self.running() if self.budget.left("timing") <= 0 else ():
            entry.end("timeout", OUT_OF_TIME)
        order, began = np.random.default_rng(0), time.perf_counter()
        for number in range(self.setting.rounds):
            enough = number >= LEAST_ROUNDS and time.perf_counter() - began > self.setting.seconds
            if enough or (number and self.budget.left("timing") <= 0):
                break
            entries = self.running()
            order.shuffle(entries)  # type: ignore[arg-type]
            for entry in entries:
                self.attempt(self.timing, entry, f" round {number + 1}:")
        self.each("timing", self.adapting, self.adapters())
        self.ceilings = counting.ceilings(self.device)

    def count(self) -> None:
        """Count operations and memory, in one thread: others would only spin while the counters, in Python, work."""
        with one_thread():
            self.each("counting", self.counting, self.running())

    def result(self) -> dict[str, Any]:
        """The setting's part of its record: a row for each entry, those that were skipped or failed included."""
        for entry in self.entries:
            if entry.samples:
                entry.summarise(self.ceilings)
                if self.setting.work == "evaluation":
                    entry.row["adapt_milliseconds_per_task"] = entry.row["milliseconds"] / self.setting.meta_batch
        return {
            "rows": [entry.row for entry in self.entries],
            "ceilings": self.ceilings,
            "threads": torch.get_num_threads(),
            "precision": _precision(self.device),
            "stages": {name: round(seconds, 3) for name, seconds in self.stages.items()},
        }

    # --- stages ----------------------------------------------------------------------------------------------------

    def importing(self, entry: Entry) -> None:
        entry.adapter = peers.load(entry.variant.implementation, entry.variant.plan)
        entry.row["version"] = entry.adapter.version()

    def comparing(self, entry: Entry) -> None:
        self.judge(entry, self.comparison.algorithm(entry.adapter, self.settings(entry)))

    def judge(self, entry: Entry, errors: dict[str, float]) -> None:
        """Keep the errors, and end an entry that computes something else."""
        entry.row.update(errors)
        if why := comparison.verdict(self.work.result, errors, entry.adapter.reduced):
            entry.end("error", why)

    def warming_up(self, entry: Entry) -> None:
        """Take the first steps, time the very first, and find how many steps make a block; adapt once."""
        settings, ready, clock, waited = (
            self.settings(entry),
            Clock(self.device),
            Clock(self.device),
            self.budget.waited,
        )
        with ready:  # a compiler works here or in the first step
            step = self.work.stepper(entry.adapter, self.parameters, self.episodes, settings)
        with clock:
            returned = step()
        entry.row["first_step_seconds"] = ready.total + clock.total - (self.budget.waited - waited)
        if entry.adapter.is_program:
            self.judge(entry, self.comparison.program(entry.adapter, returned, settings))
        compiling = int(entry.adapter.is_program)
        while len(clock.laps) <= WARM_UP and sum(clock.laps[compiling:]) < WARM_UP_SECONDS:
            with clock:
                step()
        entry.repeats = max(1, math.ceil(BLOCK / max(clock.laps[-1], 1e-6)))
        if entry.running:
            entry.step = step
        if entry in self.adapters():
            self.adapt(entry)

    def timing(self, entry: Entry) -> None:
        """One block of steps."""
        clock = Clock(self.device)
        with clock:
            for _ in range(entry.repeats):
                entry.step()
        entry.samples.append(clock.total / entry.repeats)

    def adapting(self, entry: Entry) -> None:
        """Adaptation to the whole batch with prediction of its queries: the median of a few times."""
        clock = Clock(self.device)
        while len(clock.laps) < ADAPTATIONS and clock.total < WARM_UP_SECONDS:
            with clock:
                self.adapt(entry)
        for other in self.entries:
            if other.variant.label == entry.variant.label:
                milliseconds = 1e3 * float(np.median(clock.laps)) / self.setting.meta_batch
                other.row["adapt_milliseconds_per_task"] = milliseconds

    def counting(self, entry: Entry) -> None:
        entry.row.update(self.counter.count(entry.adapter, self.settings(entry), entry.step))
        entry.row["plan"] = {"name": entry.variant.plan, **entry.adapter.facts()}

    # --- how stages are run ----------------------------------------------------------------------------------------

    def each(self, part: str, stage: Callable[[Entry], None], entries: Iterable[Entry]) -> None:
        """Run a stage for each entry; one that begins too late to be timed ends."""
        for entry in entries:
            if self.budget.left(part) > 0:
                self.attempt(stage, entry)
            elif not entry.samples:
                entry.end("timeout", OUT_OF_TIME)

    def attempt(self, stage: Callable[[Entry], None], entry: Entry, detail: str = "") -> None:
        """Run a stage for one entry. An error ends the entry; the seconds are added to those of the stage."""
        name = stage.__name__.replace("_", " ")
        self.report({"line": f"{name}{detail} {entry.variant}"})
        began = self.budget.worked()
        try:
            with self.at_work(entry) if hasattr(entry, "adapter") else contextlib.nullcontext():
                stage(entry)
        except OutOfTime:
            entry.end("timeout", OUT_OF_TIME)
        except Exception as error:
            entry.end(*status_of(error))
            torch.cuda.empty_cache()
        finally:
            self.stages[name] = self.stages.get(name, 0.0) + self.budget.worked() - began

    def at_work(self, entry: Entry) -> AbstractContextManager[Any]:
        """Entered while an entry works: its precision."""
        return entry.adapter.arithmetic()

    def settings(self, entry: Entry) -> Settings:
        variant = entry.variant
        return Settings(self.workload, self.setting.inner_steps, variant.order == "second", variant.learner)

    def running(self) -> list[Entry]:
        return [entry for entry in self.entries if entry.running]

    def adapters(self) -> list[Entry]:
        """One entry of each implementation and plan, since both orders adapt alike; for meta-steps of MAML alone."""
        if self.setting.work != WORKS[0]:
            return []
        return list({entry.variant.label: entry for entry in reversed(self.running())}.values())[::-1]

    def adapt(self, entry: Entry) -> None:
        entry.adapter.adapt(self.parameters, self.episodes, self.settings(entry))


def _precision(device: str) -> dict[str, Any] | None:
    """Torch's settings that trade precision for speed on CUDA, unless a plan changes them; None on a CPU."""
    if not device.startswith("cuda"):
        return None
    return {
        "tf32_products": torch.backends.cuda.matmul.allow_tf32,
        "tf32_convolutions": torch.backends.cudnn.allow_tf32,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
    }
