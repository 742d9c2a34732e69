"""A setting that shares a GPU with others while it is prepared: whose seconds are whose, and who holds nobody up."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.cost import grid, measurement
from benchmarks.cost.grid import Setting
from benchmarks.cost.peers import loop
from benchmarks.cost.turns import Turn
from benchmarks.cost.workloads import Workload

SMALL = Workload("mlp-40-40", (1,), 0, 4, 4, 0.01, threads=1)
LATE = ("timeout", "the setting's time was up before it was timed")


class Shared:
    """Stands for a turn on a GPU: coming to it and having it alone take so many seconds each."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def on_device(self) -> Any:
        return self._after(self.alone)

    def alone(self) -> Any:
        return self._after(None)

    @contextlib.contextmanager
    def _after(self, given: Any) -> Iterator[Any]:
        time.sleep(self.seconds)
        yield given


def contest(seconds: float, *names: str) -> measurement.Contest:
    setting = Setting("mlp-40-40", 3, 1, grid.variants(names, ["first"]), 5, 0.05, 60)
    entered = measurement.Contest(setting, SMALL, "cpu", lambda line: None, Shared(seconds))  # type: ignore[arg-type]
    entered.enter()
    return entered


@pytest.fixture
def tuned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The plain loop has a compiler that tunes for a tenth of a second; what it did."""
    did: list[str] = []
    honest = loop.Implementation.stepper

    def stepper(self: Any, *given: Any) -> Any:
        with self.tuning():
            did.append("tuned")
            time.sleep(0.1)
            return honest(self, *given)

    monkeypatch.setattr(loop.Implementation, "stepper", stepper)
    return did


def test_waiting_for_the_gpu_is_no_compiling(tuned: list[str]) -> None:
    entered = contest(0.4, "loop")
    entered.warm_up()
    assert tuned == ["tuned"]
    assert entered.contestants[0].running
    assert 0.1 <= entered.contestants[0].row["first_step_seconds"] < 0.4
    assert entered.stages["warming up"] < 0.4 < 1.2 <= entered.paused


def test_who_has_the_gpu_alone_too_late_does_not_tune(tuned: list[str]) -> None:
    entered = contest(0.2, "loop", "ours/all")
    entered.deadline = time.monotonic() + 0.3  # it has come to the GPU by then, and waits until the others pause
    entered.warm_up()
    assert not tuned
    for each in entered.contestants:
        assert (each.row["status"], each.row["reason"]) == LATE


def test_torch_compiles_anew_in_every_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of its programs would come out of the user's cache, which it doesn't tell: half of the seconds."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "the user's own")
    setting = Setting("mlp-40-40", 2, 1, grid.variants(["loop"], ["first"]), 1, 0.01, 60)
    turn = dataclasses.asdict(Turn(str(tmp_path)))
    found = measurement.measure(lambda line: None, grid.plain(setting), "cpu", turn)
    assert [row["status"] for row in found["rows"]] == ["ok"]
    assert Path(os.environ["TORCHINDUCTOR_CACHE_DIR"]).parent == tmp_path


def test_nothing_is_begun_once_it_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    entered = contest(0.0, "loop", "ours/all")
    begun: list[str] = []

    def compared(adapter: Any, settings: Any) -> dict[str, float]:
        begun.append(type(adapter).__module__)
        entered.deadline = 0.0
        return {"gradient_error": 0.0}

    monkeypatch.setattr(entered.comparison, "algorithm", compared)
    entered.compare()
    entered.warm_up()
    assert begun == [loop.__name__]
    for each in entered.contestants:
        assert (each.row["status"], each.row["reason"]) == LATE
