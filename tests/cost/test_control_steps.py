"""Control steps per second: every simulation is timed on the same work, kept as a record, and shown."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks.cost import control_steps, grid, sweep
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
    assert len(list(control_steps.lines(record))) == 2 + len(found)
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
    assert "error: AttributeError" in "\n".join(control_steps.lines(record))


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
        assert job.call[0] == "benchmarks.cost.control_steps:measure"
        status: Any = left.pop(0) if left else "ok"
        return {job.key: Outcome(status, None, value=dict(MEASURED) if status == "ok" else None, seconds=1.0)}

    monkeypatch.setattr(sweep.isolate, "run", run)
    return left


def test_simulators_are_measured_until_there_is_a_record(tmp_path: Path, statuses: list[str]) -> None:
    store, lines = Store(tmp_path), []
    statuses.append("error")
    (failed,) = sweep.environments(store, "standard", lines.append)
    assert (failed.cell, failed.status, sweep.costs_of(failed).rows) == ("cost", "error", ())
    (record,) = sweep.environments(store, "standard", lines.append)
    assert [row["label"] for row in sweep.costs_of(record).rows] == ["batch", "SyncVectorEnv", "AsyncVectorEnv"]
    assert (record.threads, record.machine.id != "") == (2, True)
    assert sweep.environments(store, "standard", lines.append) == [record]
    sweep.environments(store, "standard", lines.append, again=True)
    assert lines == [f"control steps per second: {status}" for status in ("error", "ok", "ok")]
    assert frames.rows(store.records("cost")).empty
    assert [name for name in grid.profiles() if grid.environments(name)] == ["standard", "full"]


def test_control_steps_stand_on_the_page_and_in_the_terminal(tmp_path: Path, statuses: list[str]) -> None:
    sweep.environments(Store(tmp_path / "store"), "standard", lambda line: None)
    results = load(tmp_path / "store")
    table = sections.environment_table(results.costs)
    assert table is not None
    assert table.frame["control steps per second"].tolist() == ["500 [333, 1,000]", "250 [333, 1,000]", "–"]
    assert table.frame["times slower than ours"].tolist() == ["1.00 [1.00, 1.00]", "2.00 [1.50, 2.50]", "–"]
    assert table.frame["status"].tolist() == ["unstable", "ok", "skipped: Gymnasium can't be imported"]
    text = write_report(tmp_path / "store", tmp_path / "page.html").read_text()
    assert "Control steps per second" in text
    assert 'id="second-order"' not in text
    console = Console(width=160, record=True, file=io.StringIO())
    terminal.show(results.costs, console)
    shown = console.export_text()
    assert "half-cheetah-direction/quick, SyncVectorEnv: 250 control steps per second" in shown
    assert "AsyncVectorEnv: skipped: Gymnasium can't be imported" in shown
