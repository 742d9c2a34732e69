"""A sweep of the cost benchmark: its records, the order and size of its batches, and when it stops."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks.cost import batches, entry, grid, peers, sweep
from benchmarks.cost.grid import Choice
from benchmarks.records.store import Store
from benchmarks.run.isolate import Event, Job, Outcome
from reports import results
from reports.cost import frames, terminal

SETTINGS = grid.settings("smoke", Choice(inner_steps=[1, 2, 3]))
GPU = {"machine": {"id": "m", "gpu": {"memory_gib": 140}}, "versions": {}, "git": None}


# --- in real processes -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, list[str], list[dict[str, Any]]]:
    """The smoke profile, measured for real in a process of its own."""
    store, lines = Store(tmp_path_factory.mktemp("store")), []
    records = sweep.run(grid.settings("smoke"), store, "smoke", "cpu", lines.append)
    return store, lines, records


def test_a_sweep_keeps_a_record_and_does_not_measure_twice(swept: Any) -> None:
    store, lines, (record,) = swept
    assert record["status"] == "ok", record["stderr"]
    assert (record["cell"], record["threads"], record["cut"]) == ("cost", 1, False)
    assert [row["status"] for row in record["rows"]] == ["ok"] * 4
    assert record["machine"]["id"]
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
    assert list(frames.rows([record])["status"]) == ["out-of-memory"]
    assert frames.ratios([record]).empty
    console = Console(width=160, record=True, file=io.StringIO())
    terminal.show([record], console)
    assert "all: out-of-memory: used " in console.export_text()


# --- batches ---------------------------------------------------------------------------------------------------------


class Processes:
    """In place of real processes: every setting ends at once with the next status of its number of inner steps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **statuses: list[str]) -> None:
        self.batches: list[dict[int, float]] = []
        self.statuses = statuses
        monkeypatch.setattr(sweep.isolate, "run", self.run)

    def run(self, jobs: list[Job], workers: int, on_event: Any, **options: Any) -> None:
        assert workers == len(jobs)
        settings = {job.key: grid.from_plain(job.call[1]["setting"]) for job in jobs}
        self.batches.append({setting.inner_steps: setting.limit for setting in settings.values()})
        for job in jobs:
            left = self.statuses.get(f"step{settings[job.key].inner_steps}")
            status = left.pop(0) if left else "ok"
            measured = {"rounds": 5, "plan": {}} if status == "ok" else {}
            rows = [{**entry.empty_row(v), "status": status, **measured} for v in settings[job.key].variants]
            facts = {"ceilings": None, "threads": 1, "precision": None, "stages": {"timing": 1.0, "waiting": 9.0}}
            outcome = Outcome("ok", None, value={"rows": rows, **facts}, seconds=10.0)
            on_event(Event("finished", job, outcome=outcome))


def swept_lines(store: Store, device: str = "cpu", **options: Any) -> list[str]:
    lines: list[str] = []
    sweep.run(SETTINGS, store, "smoke", device, lines.append, **options)
    return lines


def test_on_a_cpu_settings_are_measured_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    processes = Processes(monkeypatch)
    lines = swept_lines(Store(tmp_path))
    assert processes.batches == [{1: 300}, {2: 300}, {3: 300}]
    assert [line[:5] for line in lines[1:]] == ["[1/3]", "[2/3]", "[3/3]"]
    assert lines[-1].endswith(": 4 of 4 variants in 1 s")  # without waiting


def test_when_time_is_up_no_setting_begins_and_the_next_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 0.0, 55.0, 95.0])  # the start, then before each batch
    processes, store = Processes(monkeypatch, step2=["timeout"]), Store(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(sweep.time, "monotonic", lambda: next(clock))
        lines = swept_lines(store, seconds=100)
    assert processes.batches == [{1: 100}, {2: 45}]  # the profile's limit is 300
    assert {record["setting"]["inner_steps"]: record["cut"] for record in store.records("cost")} == {1: False, 2: True}
    assert lines[-1] == "time is up; run the same command again for the other 1 settings"
    processes.batches.clear()
    swept_lines(store)
    assert processes.batches == [{2: 300}, {3: 300}]
    assert swept_lines(store) == ["0 settings to measure, 3 measured before"]
    assert len(swept_lines(store, again=True)) == 4


def test_on_a_gpu_settings_with_trouble_in_a_batch_are_measured_again_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "context", lambda device: GPU)
    processes = Processes(monkeypatch, step1=["out-of-memory"], step2=["error", "error"])
    lines = swept_lines(Store(tmp_path), "cuda")
    assert [sorted(batch) for batch in processes.batches] == [[1, 2, 3], [1], [2]]
    assert [line[:5] for line in lines if line[0] == "["] == ["[1/3]", "[2/3]", "[3/3]"]
    rows = {r["setting"]["inner_steps"]: r["rows"][0]["status"] for r in Store(tmp_path).records("cost")}
    assert rows == {1: "ok", 2: "error", 3: "ok"}

    # a run that ends before that does not take it for done
    other, clock = Store(tmp_path / "other"), iter([0.0, 0.0, 99.0])
    processes = Processes(monkeypatch, step1=["out-of-memory"])
    with monkeypatch.context() as patched:
        patched.setattr(sweep.time, "monotonic", lambda: next(clock))
        assert "the other 1 settings" in swept_lines(other, "cuda", seconds=100)[-1]
    processes.batches.clear()
    swept_lines(other, "cuda")
    assert [list(batch) for batch in processes.batches] == [[1]]


def test_on_a_cpu_running_out_of_memory_is_a_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    processes, store = Processes(monkeypatch, step1=["out-of-memory"]), Store(tmp_path)
    swept_lines(store)
    assert len(processes.batches) == 3
    assert swept_lines(store) == ["0 settings to measure, 3 measured before"]


def test_absent_libraries_are_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "installed", lambda name: name not in ("higher", "jax"))
    Processes(monkeypatch)
    settings = grid.settings("smoke", Choice(inner_steps=[1, 2], implementations=["higher", "jax", "learn2learn"]))
    lines: list[str] = []
    sweep.run(settings, Store(tmp_path), "smoke", "cpu", lines.append)
    assert lines[1] == "not installed here, so nothing is compared with: higher, jax (make peers)"
    assert not any("not installed" in line for line in lines[2:])


# --- records ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("record", "finished"),
    [
        (None, False),
        ({"status": "ok"}, True),
        ({"status": "out-of-memory"}, True),
        ({"status": "timeout"}, True),
        ({"status": "timeout", "cut": True}, False),
        ({"status": "error"}, False),
    ],
)
def test_an_error_and_a_setting_that_was_cut_are_measured_again(record: Any, finished: bool) -> None:
    assert sweep.finished(record) is finished


def test_a_few_rounds_or_an_entry_without_counts_mean_that_time_ran_out() -> None:
    def record(*rounds: int, of: int = 15) -> dict[str, Any]:
        rows = [{"status": "ok", "rounds": each, "plan": {"name": ""}} for each in rounds]
        return {"status": "ok", "setting": {"rounds": of}, "rows": rows}

    assert not sweep.ran_out(record(5, 5))
    assert sweep.ran_out(record(5, 4))
    uncounted = record(5, 5)
    uncounted["rows"][1]["plan"] = None
    assert sweep.ran_out(uncounted)
    assert not sweep.ran_out(record(3, 3, of=3))
    assert sweep.ran_out({"status": "timeout", "setting": {"rounds": 9}, "rows": []})


def test_the_files_that_decide_a_cost_exist() -> None:
    folder = Path(sweep.__file__).parents[1]
    assert [pattern for pattern in sweep.CODE + sweep.ENVIRONMENT_CODE if not list(folder.glob(pattern))] == []
    assert batches.__name__.rpartition(".")[2] in " ".join(sweep.CODE)
