"""On a GPU settings are prepared together and timed alone: the order of their work, its seconds, and failures.

None of this needs a GPU: the processes are threads here, or work on the CPU."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.cost import batches, comparison, grid
from benchmarks.cost.batches import SharedMeasurement, Slot
from benchmarks.cost.grid import Choice, Setting, Variant
from benchmarks.cost.measurement import OUT_OF_TIME, Budget
from benchmarks.cost.peers import loop
from benchmarks.cost.workloads import Workload
from benchmarks.records.record import Cost, Record

SMALL = Workload("mlp-40-40", (1,), 0, 4, 4, 0.01, threads=1)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "LOOK", 0.005)


def together(*calls: Callable[[], None], apart: float = 0.02) -> None:
    """Run the calls in threads of their own."""
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
        time.sleep(apart)
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()


# --- the order of a batch --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("killed", [None, "at once", "while timed"])
def test_all_are_prepared_before_any_is_timed_and_all_are_timed_before_any_counts(
    tmp_path: Path, killed: str | None
) -> None:
    """Settings 0 to 3, of which number 2 may be killed; then only the parent can tell the others."""
    done: list[str] = []
    preparing, most = [], []

    def setting(slot: Slot) -> None:
        dies = killed if slot.number == 2 else None
        if dies != "at once":
            with slot.preparing():
                preparing.append(slot.number)
                most.append(len(preparing))
                time.sleep(0.05)
                done.append(f"prepared {slot.number}")
                preparing.remove(slot.number)
            with contextlib.suppress(RuntimeError), slot.timing():
                if dies:
                    raise RuntimeError
                done.append(f"timed {slot.number}")
                time.sleep(0.02)
        if dies:
            slot.ended()
            return
        with slot.counting():
            done.append(f"counted {slot.number}")

    slots = [Slot(str(tmp_path), number, 4, 2) for number in (3, 1, 0, 2)]
    together(*(lambda slot=slot: setting(slot) for slot in slots))  # type: ignore[misc]
    alive = [number for number in range(4) if number != 2 or not killed]
    prepared = [line for line in done if line.startswith("prepared")]
    assert len(prepared) == (3 if killed == "at once" else 4)
    assert done[: len(prepared)] == prepared
    assert done[len(prepared) : -len(alive)] == [f"timed {number}" for number in alive]
    assert sorted(done[-len(alive) :]) == [f"counted {number}" for number in alive]
    assert max(most) == 2


def test_a_compiler_that_tunes_has_the_device_alone(tmp_path: Path) -> None:
    """Two tuners and another setting: the tuners don't wait for each other, and no work goes on next to either."""
    pytest.importorskip("fcntl")
    slot, working, entered = Slot(str(tmp_path)), set[str](), threading.Barrier(3)
    tuned: list[str] = []

    def tuner(name: str) -> None:
        with slot.on_device() as alone:
            entered.wait(20)
            with alone():
                assert not working
                working.add(name)
                time.sleep(0.05)
                working.remove(name)
                tuned.append(name)

    def other() -> None:
        with slot.on_device():
            entered.wait(20)
            time.sleep(0.1)
            assert not tuned  # they wait for this one
        with slot.on_device():
            assert not working
            assert tuned  # one that comes later doesn't keep them waiting

    together(lambda: tuner("a"), lambda: tuner("b"), other)
    assert sorted(tuned) == ["a", "b"]


def test_two_settings_are_measured_in_processes(tmp_path: Path) -> None:
    settings = grid.settings("smoke", Choice(inner_steps=[1, 2], implementations=["loop"]))
    outcomes: dict[str, Any] = {}

    def on_event(event: Any) -> None:
        if event.outcome is not None:
            outcomes[event.job.key] = event.outcome

    batches.run(dict(zip("ab", settings, strict=True)), "cpu", tmp_path, None, 300.0, on_event)
    assert {key: outcome.status for key, outcome in outcomes.items()} == {"a": "ok", "b": "ok"}, outcomes
    first, second = (outcomes[key].value["stages"] for key in "ab")
    assert second["waiting"] >= first["timing"]
    assert all(row["plan"] for outcome in outcomes.values() for row in outcome.value["rows"])


# --- seconds ---------------------------------------------------------------------------------------------------------


class SlowSlot(Slot):
    """Coming to the GPU takes a fifth of a second, and so does having it alone."""

    @contextlib.contextmanager
    def on_device(self) -> Iterator[Any]:
        time.sleep(0.2)
        yield lambda: SlowSlot.on_device(self)


@pytest.mark.parametrize("late", [False, True])
def test_waiting_for_the_gpu_is_no_compiling_and_a_late_compiler_does_not_tune(
    late: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A compiler that tunes for a tenth of a second; it comes late if the others pause only when time is up."""
    tuned: list[str] = []
    honest = loop.Implementation.stepper

    def stepper(self: Any, *given: Any) -> Any:
        measured.budget.limit *= not late
        with self.tuning():
            tuned.append("tuned")
            time.sleep(0.1)
            return honest(self, *given)

    monkeypatch.setattr(loop.Implementation, "stepper", stepper)
    setting = Setting("mlp-40-40", 3, 1, grid.variants(["loop"], ["first"]), 5, 0.05, 60)
    measured = SharedMeasurement(setting, SMALL, "cpu", lambda line: None, Budget(60.0), SlowSlot(""))
    measured.prepare()
    (entry,) = measured.entries
    assert measured.budget.waited >= 0.6  # to compare, to warm up, to tune
    if late:
        assert not tuned
        assert (entry.row["status"], entry.row["reason"]) == ("timeout", OUT_OF_TIME)
    else:
        assert tuned == ["tuned"]
        assert 0.1 <= entry.row["first_step_seconds"] < 0.3
        assert sum(measured.stages.values()) == pytest.approx(measured.budget.worked(), abs=0.3)


# --- sizes and failures ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("memory", "gpu_gib", "seconds", "most"),
    [
        *[(None, 80, None, 6), (200e9, 140, None, 11), (6e9, 140, None, 4), (None, 4, None, 1)],
        *[(None, 140, 45, 2), (None, 140, 1000, 11), (None, 140, 5, 1)],
    ],
)
def test_a_batch_fits_memory_and_time(memory: Any, gpu_gib: float, seconds: float | None, most: int) -> None:
    assert batches.most_settings(memory, gpu_gib, seconds) == most


def test_settings_that_compile_are_prepared_before_those_with_many_tasks() -> None:
    def size(implementation: str, plan: str = "", meta_batch: int = 4, inner_steps: int = 5) -> int:
        variants = (Variant("second", implementation, plan),)
        return batches.preparation(Setting("conv4-32", meta_batch, inner_steps, variants, 5, 1, 60))

    assert size("jax") > size("learn2learn", meta_batch=32) > size("learn2learn") == size("ours", "rule")
    assert size("ours", "compiled") > size("ours", "all", meta_batch=32)
    assert size("jax") > size("jax", inner_steps=1) > size("loop", inner_steps=1)


FAR = comparison.verdict("prediction", {"gradient_error": 1.0})
FAR_PROGRAM = comparison.verdict("prediction", {"gradient_error": 0.0, "program_error": 1.0, "rounding_error": 0.0})


@pytest.mark.parametrize(
    ("status", "reason", "why", "trouble"),
    [
        ("ok", None, "launches are captured", None),
        ("ok", None, "not graph: OutOfMemoryError: CUDA out of memory", "out of memory"),
        ("out-of-memory", "MemoryError", None, "out of memory"),
        ("error", "the process was killed by SIGKILL", None, "out of memory"),
        ("error", "killed by SIGSEGV (while warming up second jax)", None, "failed"),
        ("error", "UnboundLocalError: gradients", None, "failed"),
        ("error", FAR, None, None),
        ("error", FAR_PROGRAM, None, None),
    ],
)
def test_failures_that_other_settings_may_have_caused(
    status: str, reason: str | None, why: str | None, trouble: str | None
) -> None:
    row = {"status": status, "reason": reason, "plan": {"why": why} if why else None}
    assert batches.trouble(Record("a", "cost", "", cost=Cost({}, (row,)))) == trouble
    if not why:
        assert batches.trouble(Record("a", "cost", "", status, reason)) == trouble  # type: ignore[arg-type]
