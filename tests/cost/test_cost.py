"""The cost benchmark: one setting measured, a sweep with records, and what is said of them."""

from __future__ import annotations

import dataclasses
import io
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from benchmarks.cost import comparison, counters, grid, measurement, peers, sweep
from benchmarks.cost.grid import Setting
from benchmarks.cost.peers import loop, ours
from benchmarks.cost.peers.adapter import Settings
from benchmarks.cost.workloads import WORKLOADS, Workload
from benchmarks.errors import Unavailable
from benchmarks.models import network_for
from benchmarks.records.store import Store
from reports import results
from reports.cost import frames as tables
from reports.cost import terminal

SMALL = Workload("mlp-40-40", (1,), 0, 4, 4, 0.01, threads=1)


def setting(*names: str, rounds: int = 5, orders: tuple[str, ...] = grid.ORDERS, work: str = grid.WORKS[0]) -> Setting:
    return Setting("mlp-40-40", 3, 1, grid.variants(names, orders), rounds, 0.05, 60, work)


def contest(*names: str, **changes: Any) -> measurement.Contest:
    return measurement.Contest(setting(*names, **changes), SMALL, "cpu", lambda line: None)


def measured(*names: str, **changes: Any) -> list[dict[str, Any]]:
    entered = contest(*names, **changes)
    for part in (entered.enter, entered.compare, entered.warm_up, entered.race, entered.count):
        part()
    return entered.rows({"flops_per_second": 1e9, "bytes_per_second": 1e9})


# --- one setting ---------------------------------------------------------------------------------------------------


def test_rows_hold_every_sample_and_their_median() -> None:
    rows = measured("ours/all", "loop")
    assert [(row["order"], row["label"]) for row in rows] == [
        ("second", "ours/all"), ("first", "ours/all"), ("second", "loop"), ("first", "loop")
    ]  # fmt: skip
    for row in rows:
        assert row["status"] == "ok", row["reason"]
        assert row["rounds"] == len(row["samples_milliseconds"]) == 5
        assert row["milliseconds"] == pytest.approx(np.median(row["samples_milliseconds"]))
        assert row["low"] <= row["milliseconds"] <= row["high"]
        assert row["gradient_error"] < 1e-12
        assert row["share_of_ceiling"] == pytest.approx(row["flops"] / row["milliseconds"] * 1e3 / 1e9)
        assert row["peak_bytes"] > 0
    assert rows[0]["plan"]["name"] == "all"
    assert rows[0]["plan"]["tasks_at_once"] == rows[0]["plan"]["tasks"] == 3
    assert rows[0]["flops"] == rows[2]["flops"] > rows[1]["flops"]
    assert rows[2]["operations"] > rows[0]["operations"]
    # adapting has no order, so it is timed once
    assert rows[0]["adapt_milliseconds_per_task"] == rows[1]["adapt_milliseconds_per_task"] > 0


def test_who_computes_something_else_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """First order under the name of second order: what users of other libraries have complained about."""
    honest = loop.Implementation.loss_and_gradient

    def first_order_always(self: Any, parameters: Any, episodes: Any, settings: Any) -> Any:
        return honest(self, parameters, episodes, type(settings)(settings.workload, settings.inner_steps, False))

    monkeypatch.setattr(loop.Implementation, "loss_and_gradient", first_order_always)
    entered = contest("ours/all", "loop")
    entered.enter()
    entered.compare()
    entered.warm_up()
    rows = {(row["order"], row["label"]): row for row in entered.rows({})}
    wrong = rows["second", "loop"]
    assert wrong["status"] == "error"
    assert "computes another meta-gradient" in wrong["reason"]
    assert wrong["gradient_error"] > comparison.TOLERANCE
    assert wrong["milliseconds"] is None
    assert rows["first", "loop"]["status"] == "ok"


@pytest.mark.parametrize(("wrong", "reduced"), [(1.0, False), (1.001, False), (1.001, True)])
def test_a_program_is_judged_by_what_its_first_step_computed(
    wrong: float, reduced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A compiler that makes another program of the right function: double precision, uncompiled, can't see that."""
    honest = loop.Implementation.stepper

    def stepper(self: Any, *given: Any) -> Any:
        step = honest(self, *given)

        def run() -> Any:
            state = step()
            return dataclasses.replace(state, moments={name: wrong * value for name, value in state.moments.items()})

        return run

    monkeypatch.setattr(loop.Implementation, "stepper", stepper)
    monkeypatch.setattr(loop.Implementation, "is_program", True)
    monkeypatch.setattr(loop.Implementation, "reduced", reduced)
    rows = {(row["order"], row["label"]): row for row in measured("ours/all", "loop")}
    for order in grid.ORDERS:
        row = rows[order, "loop"]
        assert row["gradient_error"] < 1e-12
        assert 0 < row["rounding_error"] < 1e-6
        assert row["program_error"] == pytest.approx(wrong - 1, abs=1e-6)
        if wrong > 1 and not reduced:
            assert row["status"] == "error"
            assert row["reason"].startswith("its program computes another meta-gradient: relative difference 0.001, ")
            assert row["milliseconds"] is None
        else:
            assert row["status"] == "ok", row["reason"]
        assert rows[order, "ours/all"]["program_error"] is None


def test_compiling_counts_whether_before_the_first_step_or_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = loop.Implementation.stepper

    def slow_to_make(self: Any, *given: Any) -> Any:
        time.sleep(0.4)
        return honest(self, *given)

    monkeypatch.setattr(loop.Implementation, "stepper", slow_to_make)
    monkeypatch.setattr(loop.Implementation, "compiles", True)
    compiled, eager = measured("loop", "ours/all", orders=("first",))
    assert 0.35 < compiled["compile_seconds"] < compiled["first_step_seconds"]
    assert eager["compile_seconds"] is None


def test_no_row_is_counted_after_its_time() -> None:
    entered = contest("loop", orders=("first",))
    for part in (entered.enter, entered.warm_up, entered.race):
        part()
    entered.count(until=0.0)
    assert entered.contestants[0].row["plan"] is None
    entered.count()
    assert entered.contestants[0].row["plan"] == {"name": ""}


def test_out_of_memory_and_absence_end_one_row_only(monkeypatch: pytest.MonkeyPatch) -> None:
    original = peers.load

    def load(name: str, plan: str = "") -> Any:
        if name == "higher":
            raise Unavailable("higher is not installed (make peers)")
        found = original(name, plan)
        if plan == "one":

            def greedy(*arguments: Any) -> Any:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate\n 9 GiB")

            found.stepper = greedy  # type: ignore[method-assign]
        return found

    monkeypatch.setattr(peers, "load", load)
    rows = {row["label"]: row for row in measured("ours/all", "ours/one", "higher", orders=("second",))}
    assert rows["ours/all"]["status"] == "ok"
    assert rows["ours/one"]["status"] == "out-of-memory"
    assert rows["higher"]["status"] == "skipped"
    assert rows["higher"]["reason"] == "higher is not installed (make peers)"


def test_all_variants_run_in_every_round_in_changing_order(monkeypatch: pytest.MonkeyPatch) -> None:
    entered = contest("ours/all", "ours/one", "loop", rounds=12)
    entered.enter()
    entered.warm_up()
    turns: list[str] = []
    monkeypatch.setattr(entered, "_block", lambda each: turns.append(str(each.variant)) or 1.0)
    monkeypatch.setattr(entered, "_adaptation", lambda each: 1.0)
    entered.race()
    rounds = [turns[at : at + 6] for at in range(0, len(turns), 6)]
    assert len(rounds) == 12
    assert all(sorted(each) == sorted(rounds[0]) for each in rounds)
    assert len({tuple(each) for each in rounds}) > 6


def test_what_is_counted_before_the_first_step_is_what_is_counted_after_it() -> None:
    late = {(row["order"], row["label"]): row for row in measured("ours/all", "loop", "learn2learn")}
    entered = contest("ours/all", "loop", "learn2learn")
    for part in (entered.enter, entered.count_early, entered.compare, entered.warm_up, entered.race, entered.count):
        part()
    for row in entered.rows({"flops_per_second": 1e9}):
        expected = late[row["order"], row["label"]]
        assert row["status"] == expected["status"], row["reason"]
        for column in ("flops", "operations", "peak_bytes", "plan"):
            assert row[column] == expected[column], (row["label"], column)


def test_an_evaluation_is_compared_by_its_predictions_and_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    entered = contest("ours/all", "loop", "learn2learn", orders=("first",), work="evaluation")
    lying = loop.Implementation.adapt
    for part in (entered.enter, entered.compare, entered.warm_up, entered.race, entered.count):
        part()
    rows = {row["label"]: row for row in entered.rows({"flops_per_second": 1e9})}
    for label in ("ours/all", "loop"):
        row = rows[label]
        assert row["status"] == "ok", row["reason"]
        assert row["gradient_error"] < 1e-12
        assert row["adapt_milliseconds_per_task"] == pytest.approx(row["milliseconds"] / 3)
        assert row["peak_bytes"] > 0
        assert row["operations"] > 0
    # forward and backward of the inner step and the queries' forward pass, no backward of the queries
    training = {row["label"]: row for row in measured("loop", orders=("first",))}
    assert rows["loop"]["flops"] < training["loop"]["flops"]

    monkeypatch.setattr(loop.Implementation, "adapt", lambda *given: 1.001 * lying(*given))
    again = contest("ours/all", "loop", orders=("first",), work="evaluation")
    again.enter()
    again.compare()
    assert again.rows({})[1]["reason"].startswith("computes another prediction: relative difference 0.001")


# --- a sweep -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, list[str], list[dict[str, Any]]]:
    """The smoke profile, measured for real in a process of its own."""
    store, lines = Store(tmp_path_factory.mktemp("store")), []
    records = sweep.run(grid.settings("smoke"), store, "smoke", "cpu", lines.append)
    return store, lines, records


def test_a_sweep_keeps_a_record_and_does_not_measure_twice(swept: Any) -> None:
    store, lines, (record,) = swept
    assert record["status"] == "ok", record["stderr"]
    assert record["cell"] == "cost"
    assert record["threads"] == 1
    assert [row["status"] for row in record["rows"]] == ["ok"] * 4
    assert record["machine"]["id"]
    stages = ("importing", "comparing", "warming up", "waiting", "timing", "adapting with", "counting")
    assert set(record["stages"]) == set(stages)
    assert all(seconds >= 0 for seconds in record["stages"].values())
    assert "4 of 4 variants" in lines[-1]
    again: list[str] = []
    assert sweep.run(grid.settings("smoke"), store, "smoke", "cpu", again.append) == [record]
    assert again == ["0 settings to measure, 1 measured before"]


def test_tables_of_scores_do_not_see_costs(swept: Any) -> None:
    store, _, records = swept
    assert store.records("cost") == records
    assert store.records("evaluation") == []
    assert not results.load(store.path).results


def test_a_setting_that_exceeds_its_memory_is_a_record(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (record,) = sweep.run(grid.settings("smoke"), store, "smoke", "cpu", lambda line: None, memory_bytes=50_000_000)
    assert record["status"] == "out-of-memory"
    shown = tables.rows([record])
    assert list(shown["status"]) == ["out-of-memory"]
    assert tables.ratios([record]).empty
    console = Console(width=160, record=True, file=io.StringIO())
    terminal.show([record], console)
    assert "all: out-of-memory: used " in console.export_text()


def test_absent_libraries_are_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "installed", lambda name: name not in ("higher", "jax"))
    settings = [setting("ours/all", "higher", "jax", "learn2learn")]
    lines: list[str] = []
    sweep.run(settings, Store(tmp_path), "smoke", "cpu", lines.append, seconds=1)
    assert lines[1] == "not installed here, so nothing is compared with: higher, jax (make peers)"


def test_a_variant_that_leaves_no_time_ends_and_what_was_measured_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    entered = contest("ours/all", "loop", orders=("second",))
    entered.enter()
    entered.compare()
    monkeypatch.setattr(entered, "deadline", 0.0)
    slow = entered.contestants[1]
    entered.contestants[0].samples.append(1.0)
    entered.warm_up()
    entered.race()
    assert (slow.row["status"], slow.row["reason"]) == ("timeout", "the setting's time was up before it was timed")
    assert entered.contestants[0].row["status"] == "ok"
    assert len(entered.contestants[0].samples) == 2


def test_what_runs_in_threads_is_counted_in_one() -> None:
    """Counters see one thread only; the gradient is that of the same plan without threads, to rounding."""
    torch.set_num_threads(2)
    try:
        workload = WORKLOADS["conv4-64-strided"]
        episodes = workload.episodes(2)
        parameters = network_for(workload.tasks(episodes)).initialise(0)
        settings = Settings(workload, inner_steps=1, second_order=True)
        rule = ours.Implementation("rule")
        threaded = rule.meta_gradient(parameters, episodes, settings)
        alone, threads = rule.in_one_thread()
        assert threads == rule.facts()["threads"] == 2
        again = alone.meta_gradient(parameters, episodes, settings)
        assert alone.facts()["threads"] == 1
        assert alone.facts()["tasks"] == rule.facts()["tasks"]
        torch.testing.assert_close(dict(again), dict(threaded), rtol=1e-4, atol=1e-6)
        hidden, seen = (counters.operations(each.stepper(parameters, episodes, settings)) for each in (rule, alone))
        assert seen > 5 * hidden
    finally:
        torch.set_num_threads(1)
