"""Control steps per second: every simulation is timed on the same work, kept as a record, and shown."""

from __future__ import annotations

import importlib
import inspect
import io
import math
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks.cost import control_steps, grid, sweep, throughput
from benchmarks.records.store import Store
from benchmarks.run.isolate import Outcome
from reports.cost import frames, sections, terminal
from reports.page.page import write_report
from reports.results import load

# --- timing ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Measures small simulations: returns the record and its rows by label and number of environments."""
    pytest.importorskip("mujoco")
    pytest.importorskip("gymnasium")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(control_steps, "TRAJECTORIES", 2)
    monkeypatch.setattr(control_steps, "FIELDS", {"horizon": 10})

    def measured() -> Any:
        record = control_steps.measure(lambda plain: None, rounds=3, tasks=2, threads=1)
        return record, {(row["label"], row["environments"]): row for row in record["rows"]}

    return measured


def test_every_simulation_runs_an_episode_per_round(rows: Any, capfd: Any, tmp_path: Path) -> None:
    record, found = rows()
    ours = [(label, 4) for label in ("batch", "rollout", "loop", "physics")]
    assert sorted(found) == sorted([*ours, ("SyncVectorEnv", 2), ("AsyncVectorEnv", 2), ("AsyncVectorEnv", 1)])
    for (_, environments), row in found.items():
        assert (row["status"], row["reason"]) == ("ok", None)
        assert row["steps"] == 10 * environments
        assert len(row["seconds_per_step"]) == 3
        assert row["low"] <= row["steps_per_second"] <= row["high"]
        assert math.isclose(row["steps_per_second"], sorted(1 / seconds for seconds in row["seconds_per_step"])[1])
    assert found["batch", 4]["against_ours"] == [1.0, 1.0, 1.0]
    sync = found["SyncVectorEnv", 2]
    assert math.isclose(sync["against_ours"][0], found["batch", 4]["steps_per_second"] / sync["steps_per_second"])
    assert len(list(throughput.lines(record))) == 2 + len(found)
    # a process of AsyncVectorEnv that is not a fork of this one has no silenced MuJoCo, which writes a file
    control_steps._made("HalfCheetah-v5").close()
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


def test_a_simulation_that_fails_is_a_row_with_a_reason(rows: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("gymnasium.vector.AsyncVectorEnv")
    record, found = rows()
    row = found["AsyncVectorEnv", 2]
    assert (row["status"], row["steps_per_second"]) == ("error", None)
    assert "AsyncVectorEnv" in row["reason"]
    assert found["SyncVectorEnv", 2]["status"] == "ok"
    assert "error: AttributeError" in "\n".join(throughput.lines(record))


# --- records ---------------------------------------------------------------------------------------------------------

ROW = {
    "label": "batch", "environments": 800, "status": "ok", "reason": None, "steps": 1000,
    "seconds_per_step": [0.001, 0.002, 0.003], "steps_per_second": 500.0, "low": 333.0, "high": 1000.0,
    "spread": 0.4, "stable": False, "against_ours": [1.0, 1.0, 1.0],
}  # fmt: skip
SLOWER = {**ROW, "label": "SyncVectorEnv", "steps_per_second": 250.0, "against_ours": [2.0, 1.5, 2.5], "stable": True}
ABSENT = {
    **dict.fromkeys(ROW), "label": "AsyncVectorEnv", "environments": 40, "seconds_per_step": [], "status": "skipped",
    "reason": "Gymnasium can't be imported",
}  # fmt: skip
MEASURED = {"task": "half-cheetah-direction/quick", "threads": 2, "rounds": 3, "rows": [ROW, SLOWER, ABSENT]}


@pytest.fixture
def statuses(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """In place of processes: the statuses with which they end, one after the other, then "ok"."""
    left: list[str] = []

    def run(jobs: Any, workers: int, on_event: Any, **options: Any) -> dict[str, Outcome]:
        (job,) = jobs
        module, function = job.call[0].split(":")
        assert "progress" in inspect.signature(getattr(importlib.import_module(module), function)).parameters
        status: Any = left.pop(0) if left else "ok"
        value = {**MEASURED, **job.call[1]} if status == "ok" else None
        return {job.key: Outcome(status, None, value=value, seconds=1.0)}

    monkeypatch.setattr(sweep.isolate, "run", run)
    return left


def test_throughput_is_measured_until_there_is_a_record(tmp_path: Path, statuses: list[str]) -> None:
    store, lines = Store(tmp_path), []
    statuses.append("error")
    failed, *others = sweep.throughputs(store, "standard", lines.append)
    assert (failed.cell, failed.status, sweep.costs_of(failed).rows) == ("cost", "error", ())
    record, *same = sweep.throughputs(store, "standard", lines.append)
    assert [row["label"] for row in sweep.costs_of(record).rows] == ["batch", "SyncVectorEnv", "AsyncVectorEnv"]
    assert (record.threads, record.machine.id != "", same) == (2, True, others)
    assert sweep.throughputs(store, "standard", lines.append) == [record, *others]
    sweep.throughputs(store, "standard", lines.append, again=True)
    work = [f"recurrent steps per second, {task}" for task in ("bandit/k10n100", "tabular-mdp/n10")]
    simulators = "control steps per second, half-cheetah-direction/quick"
    assert lines == [f"{simulators}: error", *(f"{each}: ok" for each in (*work, simulators, simulators, *work))]
    assert frames.rows(store.records("cost")).empty
    assert [name for name in grid.profiles() if grid.throughput(name)] == ["standard", "full"]


@pytest.mark.parametrize(
    ("work", "unit", "times", "task"),
    [
        ("environment", "control steps per second", 1, "half-cheetah-direction/quick"),
        ("recurrent", "environment steps per second", 2, "tabular-mdp/n10"),
    ],
)
def test_throughput_stands_on_the_page_and_in_the_terminal(
    tmp_path: Path, statuses: list[str], work: str, unit: str, times: int, task: str
) -> None:
    sweep.throughputs(Store(tmp_path / "store"), "standard", lambda line: None)
    results = load(tmp_path / "store")
    table = sections.throughput_table(results.costs, work)
    assert table is not None
    assert table.frame[unit].tolist() == ["500 [333, 1,000]", "250 [333, 1,000]", "–"] * times
    assert table.frame["times slower than ours"].tolist() == ["1.00 [1.00, 1.00]", "2.00 [1.50, 2.50]", "–"] * times
    assert table.frame["status"].tolist() == ["unstable", "ok", "skipped: Gymnasium can't be imported"] * times
    text = write_report(tmp_path / "store", tmp_path / "page.html").read_text()
    assert table.title in text
    assert 'id="second-order"' not in text
    console = Console(width=160, record=True, file=io.StringIO())
    terminal.show(results.costs, console)
    shown = console.export_text()
    assert f"{task}, SyncVectorEnv: 250 {unit}" in shown
    assert f"{task}, AsyncVectorEnv: skipped: Gymnasium can't be imported" in shown
