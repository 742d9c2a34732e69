"""Control steps per second beside the costs: measured once per program and machine, kept, and shown."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from made_up_records import SINUSOID, Maker
from rich.console import Console

from benchmarks.cost import grid, sweep
from benchmarks.records.store import Store
from benchmarks.run.isolate import Outcome
from reports.cost import frames, sections, terminal
from reports.page.page import write_report
from reports.results import load

ROW = {
    "label": "batch", "environments": 800, "status": "ok", "reason": None, "steps": 1000,
    "seconds_per_step": [0.001, 0.002, 0.003], "steps_per_second": 500.0, "low": 333.0, "high": 1000.0,
    "spread": 0.4, "stable": False, "against_ours": [1.0, 1.0, 1.0],
}  # fmt: skip
SLOWER = {**ROW, "label": "SyncVectorEnv", "steps_per_second": 250.0, "against_ours": [2.0, 1.5, 2.5], "stable": True}
ABSENT = {
    **dict.fromkeys(ROW),
    "label": "AsyncVectorEnv",
    "environments": 40,
    "seconds_per_step": [],
    "status": "skipped",
    "reason": "Gymnasium can't be imported",
}
MEASURED = {"task": "half-cheetah-direction/quick", "threads": 2, "rounds": 3, "rows": [ROW, SLOWER, ABSENT]}


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The calls that would have been made, each in a process."""
    calls: list[str] = []

    def run(jobs: Any, workers: int, on_event: Any, **options: Any) -> dict[str, Outcome]:
        (job,) = jobs
        calls.append(job.call[0])
        status = "error" if len(calls) == 1 else "ok"
        return {job.key: Outcome(status, None, value=None if status == "error" else dict(MEASURED), seconds=1.0)}

    monkeypatch.setattr(sweep.isolate, "run", run)
    return calls


def test_simulators_are_measured_until_there_is_a_record_and_then_when_asked(
    tmp_path: Path, measured: list[str]
) -> None:
    store, lines = Store(tmp_path), []
    (failed,) = sweep.environments(store, "standard", lines.append)
    assert (failed["cell"], failed["status"], failed["rows"]) == ("cost", "error", [])
    (record,) = sweep.environments(store, "standard", lines.append)
    assert [row["label"] for row in record["rows"]] == ["batch", "SyncVectorEnv", "AsyncVectorEnv"]
    assert record["machine"]["id"]
    assert sweep.environments(store, "standard", lines.append) == [record]
    sweep.environments(store, "standard", lines.append, again=True)
    assert measured == ["benchmarks.cost.control_steps:measure"] * 3
    assert lines == [f"control steps per second: {status}" for status in ("error", "ok", "ok")]
    assert frames.rows(store.records("cost")).empty


def test_only_long_profiles_measure_simulators() -> None:
    assert [name for name in grid.profiles() if grid.environments(name)] == ["standard", "full"]


def test_control_steps_stand_on_the_page_and_in_the_terminal_beside_the_costs(
    tmp_path: Path, measured: list[str]
) -> None:
    make = Maker(tmp_path / "store")
    make.evaluation("maml", SINUSOID, level=0.5)
    measured.append("earlier")
    sweep.environments(make.store, "standard", lambda line: None)
    results = load(tmp_path / "store")
    table = sections.environment_table(results.costs)
    assert table is not None
    assert table.frame["control steps per second"].tolist() == ["500 [333, 1,000]", "250 [333, 1,000]", "–"]
    assert table.frame["times slower than ours"].tolist() == ["1.00 [1.00, 1.00]", "2.00 [1.50, 2.50]", "–"]
    assert table.frame["status"].tolist() == ["unstable", "ok", "skipped: Gymnasium can't be imported"]
    assert frames.rows(results.costs).empty
    text = write_report(tmp_path / "store", tmp_path / "page.html").read_text()
    assert "Control steps per second" in text
    assert 'id="second-order"' not in text
    console = Console(width=160, record=True, file=io.StringIO())
    terminal.show(results.costs, console)
    shown = console.export_text()
    assert "half-cheetah-direction/quick, SyncVectorEnv: 250 control steps per second" in shown
    assert "AsyncVectorEnv: skipped: Gymnasium can't be imported" in shown
