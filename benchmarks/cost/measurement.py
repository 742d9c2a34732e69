"""One setting of the cost benchmark, in its own process: compare, compile, time all variants in turns, then count.

Every implementation's meta-gradient (in an evaluation: its predictions after adaptation) is first compared with the
suite's own in double precision, on the same weights and tasks; one that computes something else is not timed. Where a
program is timed that a compiler made of what was compared, what its first step computed is compared too. Times are
taken in rounds, each with every variant once, in a new order, so that what disturbs the machine disturbs all of them.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch

from benchmarks.api import Episodes, Parameters
from benchmarks.clock import Clock
from benchmarks.cost import comparison, counters, peers
from benchmarks.cost.contestant import Contestant, empty_row
from benchmarks.cost.counting import Counting
from benchmarks.cost.grid import WORKS, Setting, from_plain
from benchmarks.cost.peers.adapter import Adapter, Settings
from benchmarks.cost.turns import Turn, limit_threads
from benchmarks.cost.work import KINDS
from benchmarks.cost.workloads import WORKLOADS, Workload
from benchmarks.errors import Unavailable, status_of
from benchmarks.execution.threads import one_thread
from benchmarks.models import BACKBONES, Network

#: steps before the first timed one, the very first not counted, and the seconds that end them early (those of a first
#: step that compiles apart)
WARM_UP, WARM_UP_SECONDS = 3, 1.0
#: seconds of one timed block at least: short steps are repeated
BLOCK = 0.005
#: every variant has at least so many timed blocks, however long they last
LEAST_ROUNDS = 5
#: share of the process's time limit after which no further variant is begun: what was measured by then is kept
USABLE = 0.75
#: where the whole run has a time limit: the share of what is left that a wave of settings may be prepared in, after
#: which none of them is timed any more, and after which nothing more is counted
PREPARING, TIMING, COUNTING = 0.6, 0.88, 0.97
OUT_OF_TIME = "the setting's time was up before it was timed"

Report = Callable[[dict[str, Any]], None]


def measure(
    progress: Report, setting: dict[str, Any], device: str, turn: dict[str, Any], left: float | None = None
) -> dict[str, Any]:
    """Everything that one setting's record says beside its header: rows, ceilings, threads, precision, and the seconds
    of each stage.

    A job of `benchmarks.run.isolate`. turn: the fields of a `Turn`. left: seconds its wave has; None: no limit."""
    chosen, own = from_plain(setting), Turn(**turn)
    # what torch compiles is compiled here: its compiler's programs would come out of the user's cache without a word
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = os.path.join(own.folder, "compiled")
    workload = WORKLOADS[chosen.backbone]
    began, available = time.monotonic(), math.inf if left is None else left
    with own.preparing() as place:
        cuda = device.startswith("cuda")
        threads = limit_threads(workload.threads, place, bind=not cuda)
        with own.on_device() if cuda else contextlib.nullcontext():
            contest = Contest(chosen, workload, device, progress, own if cuda else None)
        deadline, contest.end = contest.deadline, began + TIMING * available
        contest.deadline = min(deadline, began + PREPARING * available)
        contest.enter()
        # threads of two such settings would wait for each other: several times slower
        spread = threads > 1 and not cuda
        if not spread:
            contest.compare()
            contest.warm_up()
        if available == math.inf and not cuda:  # not where time is short, nor on CUDA, whose profiler slows launches
            contest.count_early()
        contest.free_memory()
    waited = own.wait()
    contest.deadline = min(deadline + waited, contest.end)
    if spread:
        contest.compare()
        contest.warm_up()
    contest.race()
    ceilings = counters.ceilings(device)
    if cuda:  # whatever the others do meanwhile, as many launches are counted
        waited += own.wait_for_all()
    contest.count(began + COUNTING * available)
    waiting = {"waiting": waited + contest.paused}
    stages = {name: round(seconds, 3) for name, seconds in {**contest.stages, **waiting}.items()}
    facts = {"ceilings": ceilings, "threads": threads, "precision": _precision(device), "stages": stages}
    return {"rows": contest.rows(ceilings), **facts}


class _Late(Exception):
    """The GPU was had alone when the time to prepare was up."""


def _precision(device: str) -> dict[str, Any] | None:
    """Torch's settings that trade precision for speed on CUDA, where no plan changes them."""
    if not device.startswith("cuda"):
        return None
    return {
        "tf32_products": torch.backends.cuda.matmul.allow_tf32,
        "tf32_convolutions": torch.backends.cudnn.allow_tf32,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
    }


class Contest:
    """The variants of one setting. turn: of a setting whose device others use meanwhile."""

    def __init__(
        self, setting: Setting, workload: Workload, device: str, report: Report, turn: Turn | None = None
    ) -> None:
        self.setting = setting
        self.turn = turn
        self.stages: dict[str, float] = {}
        self.paused = 0.0  # seconds of waiting for the GPU, which are nobody's
        self.workload = workload
        self.work = KINDS[setting.work]
        self.device = device
        if device.startswith("cuda"):  # everybody computes in float32 unless a plan says otherwise; torch's default
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False  # is TF32 convolutions
        self.report = report
        self.deadline, self.end = time.monotonic() + USABLE * setting.limit, math.inf
        self.contestants = [Contestant(v, empty_row(v)) for v in setting.variants]
        network = Network(BACKBONES[setting.backbone], workload.input_shape, workload.outputs)
        self.parameters: Parameters = network.initialise(0, device)
        self.episodes: Episodes = workload.episodes(setting.meta_batch, device=device)
        self.comparison = comparison.Comparison(
            self.work, self.parameters, lambda tasks, dtype: workload.episodes(tasks, dtype, device), setting.meta_batch
        )

        self.counting = Counting(self.work, self.parameters, self.episodes, device)

    def settings(self, order: str) -> Settings:
        return Settings(self.workload, self.setting.inner_steps, order == "second")

    @contextlib.contextmanager
    def attempt(self, contestant: Contestant, stage: str, detail: str = "") -> Any:
        """What fails in here ends this contestant and nobody else; its seconds are added to those of the stage."""
        self.report({"line": f"{stage}{detail} {contestant.variant}"})
        began = time.monotonic() - self.paused
        try:
            with self._at_work(contestant.adapter):
                yield
            if not contestant.samples and time.monotonic() > self.deadline:
                contestant.ends("timeout", OUT_OF_TIME)
        except _Late:
            contestant.ends("timeout", OUT_OF_TIME)
        except Exception as error:
            contestant.ends(*status_of(error))
            self.free_memory()
        finally:
            self.stages[stage] = self.stages.get(stage, 0.0) + time.monotonic() - self.paused - began

    @contextlib.contextmanager
    def _at_work(self, adapter: Adapter | None) -> Any:
        """In the implementation's precision, and on CUDA beside others, but for a compiler that tunes."""
        with contextlib.ExitStack() as stack:
            if adapter is not None:
                if self.turn is not None:
                    alone = stack.enter_context(self._waited(self.turn.on_device()))
                    adapter.tuning = lambda: self._tuning(alone)
                stack.enter_context(adapter.arithmetic())
            yield

    @contextlib.contextmanager
    def _waited(self, entered: AbstractContextManager[Any]) -> Any:
        """What is entered, and the seconds that entering takes are kept apart."""
        began = time.monotonic()
        with entered as given:
            self.paused += time.monotonic() - began
            yield given

    @contextlib.contextmanager
    def _tuning(self, alone: Callable[[], AbstractContextManager[None]]) -> Any:
        with self._waited(alone()):
            if time.monotonic() > self.deadline:  # all others would wait for it
                raise _Late
            yield

    def free_memory(self) -> None:
        """Give back to the GPU what only torch's allocator holds."""
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()

    def enter(self) -> None:
        """Import the libraries."""
        for each in self.contestants:
            with self.attempt(each, "importing"):
                try:
                    each.adapter = peers.load(each.variant.implementation, each.variant.plan)
                    each.row["version"] = each.adapter.version()
                except Unavailable as reason:
                    each.ends("skipped", str(reason))

    def compare(self) -> None:
        """The results in double precision against ours."""
        for each in self._in_time():
            with self.attempt(each, "comparing"):
                assert each.adapter is not None
                self._judge(each, self.comparison.algorithm(each.adapter, self.settings(each.variant.order)))
            self.free_memory()

    def _judge(self, each: Contestant, errors: dict[str, float]) -> None:
        assert each.adapter is not None
        each.row.update(errors)
        if why := comparison.verdict(self.work.result, errors, each.adapter.reduced):
            each.ends("error", why)

    def warm_up(self) -> None:
        """The first steps, the time of the very first, and how many steps make a block; and adapting once."""
        for each in self._in_time():
            with self.attempt(each, "warming up"):
                self._warm_up(each)
            self.free_memory()
        for each in self._adapting():
            with self.attempt(each, "warming up"):
                self._adapt(each)

    def _warm_up(self, each: Contestant) -> None:
        assert each.adapter is not None
        settings = self.settings(each.variant.order)
        ready, clock, paused = Clock(self.device), Clock(self.device), self.paused
        with ready:  # who compiles does it here or in the first step
            step = self._stepper(each.adapter, each.variant.order)
        with clock:
            returned = step()
        each.row["first_step_seconds"] = ready.total + clock.total - (self.paused - paused)
        if each.adapter.is_program:
            self._judge(each, self.comparison.program(each.adapter, returned, settings))
        compiling = int(each.adapter.is_program)
        while len(clock.laps) <= WARM_UP and sum(clock.laps[compiling:]) < WARM_UP_SECONDS:
            with clock:
                step()
        each.repeats = max(1, math.ceil(BLOCK / max(clock.laps[-1], 1e-6)))
        if each.running:
            each.step = step

    def race(self) -> None:
        """The timed rounds, of meta-steps and then of adaptation."""
        for each in self.active() if time.monotonic() > self.end else ():
            each.ends("timeout", OUT_OF_TIME)
        order = np.random.default_rng(0)
        began = time.perf_counter()
        for number in range(self.setting.rounds):
            spent = time.perf_counter() - began > self.setting.seconds and number >= LEAST_ROUNDS
            if spent or (number and time.monotonic() > self.deadline):
                break
            turns = self.active()
            order.shuffle(turns)  # type: ignore[arg-type]
            for each in turns:
                with self.attempt(each, "timing", f" round {number + 1}:"):
                    each.samples.append(self._block(each))
        for each in self._adapting():
            with self.attempt(each, "adapting with"):
                milliseconds = 1e3 * self._adaptation(each) / self.setting.meta_batch
                for other in self.contestants:
                    if other.variant.label == each.variant.label:
                        other.row["adapt_milliseconds_per_task"] = milliseconds

    def _adapting(self) -> list[Contestant]:
        """One contestant of each implementation and plan, since adapting has no order; an evaluation is that anyway."""
        found = {each.variant.label: each for each in reversed(self.active())} if self.setting.work == WORKS[0] else {}
        return list(found.values())[::-1]

    def _block(self, each: Contestant) -> float:
        assert each.step is not None
        clock = Clock(self.device)
        with clock:
            for _ in range(each.repeats):
                each.step()
        return clock.total / each.repeats

    def _adaptation(self, each: Contestant) -> float:
        """Seconds to adapt to the whole batch and predict its queries once: the median of three, or of fewer where
        they are long."""
        clock = Clock(self.device)
        while len(clock.laps) < 3 and clock.total < WARM_UP_SECONDS:
            with clock:
                self._adapt(each)
        return float(np.median(clock.laps))

    def _adapt(self, each: Contestant) -> None:
        assert each.adapter is not None
        each.adapter.adapt(self.parameters, self.episodes, self.settings(each.variant.order))

    def count_early(self) -> None:
        """Count what torch's counters see, in one thread and before the first timed step; plans are settled for the
        threads that will be timed. An evaluation has no plan to settle."""
        for each in self.active() if self.setting.work == WORKS[0] else ():
            with self.attempt(each, "counting"):
                assert each.adapter is not None
                if each.adapter.counted:
                    step = each.step or self._stepper(each.adapter, each.variant.order)
                    with one_thread():
                        self._count(each, step, begun=each.step is not None)

    def count(self, until: float = math.inf) -> None:
        """What is counted and not timed, as far as it isn't known; no row is begun after ``until``."""
        for each in self.active():
            if time.monotonic() > until:
                return
            with self.attempt(each, "counting"):
                if each.row["plan"] is None:
                    assert each.step is not None
                    self._count(each, each.step, begun=True)

    def _count(self, each: Contestant, step: Callable[[], Any], begun: bool) -> None:
        assert each.adapter is not None
        each.row.update(self.counting.of(each.adapter, self.settings(each.variant.order), step, begun))
        each.row["plan"] = {"name": each.variant.plan, **each.adapter.facts()}

    def _stepper(self, adapter: Adapter, order: str) -> Callable[[], Any]:
        return self.work.stepper(adapter, self.parameters, self.episodes, self.settings(order))

    def _in_time(self) -> Iterator[Contestant]:
        """One after the other; those that would be begun too late end."""
        for each in self.active():
            if not each.samples and time.monotonic() > self.deadline:
                each.ends("timeout", OUT_OF_TIME)
            else:
                yield each

    def active(self) -> list[Contestant]:
        return [each for each in self.contestants if each.running]

    def rows(self, ceilings: Mapping[str, float]) -> list[dict[str, Any]]:
        """One row per variant, those that were skipped or failed included."""
        for each in self.contestants:
            if each.samples:
                each.summarise(ceilings)
                if self.setting.work == "evaluation":
                    each.row["adapt_milliseconds_per_task"] = each.row["milliseconds"] / self.setting.meta_batch
        return [each.row for each in self.contestants]
