"""A sweep of the cost benchmark: its records, the order and size of its batches, and when it stops."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks.cost import entry, grid, peers, sweep
from benchmarks.cost.grid import Choice
from benchmarks.records.record import Cost, Machine, Record
from benchmarks.records.store import Store
from benchmarks.run import code_hash
from benchmarks.run.isolate import Event, Job, Outcome
from reports import results
from reports.cost import frames, terminal

SETTINGS = grid.settings("smoke", Choice(inner_steps=[1, 2, 3]))
MACHINE = Machine("m", "Imaginary", "x86_64", 8, 8, 8, 64, "Linux", "Linux", {"name": "GPU", "memory_gib": 140})
GPU = {"machine": MACHINE, "versions": {}, "git": None}


# --- in real processes -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, list[str], list[Record]]:
    """The smoke profile, measured for real in a process of its own."""
    store, lines = Store(tmp_path_factory.mktemp("store")), []
    records = sweep.run(grid.settings("smoke"), store, "smoke", "cpu", lines.append)
    return store, lines, records


def test_a_sweep_keeps_a_record_and_does_not_measure_twice(swept: Any) -> None:
    store, lines, (record,) = swept
    assert record.ok, record.stderr
    costs = sweep.costs_of(record)
    assert (record.cell, record.threads, costs.cut) == ("cost", 1, False)
    assert [row["status"] for row in costs.rows] == ["ok"] * 4
    assert record.machine.id
    assert all(seconds >= 0 for seconds in costs.stages.values())
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
    assert record.status == "out-of-memory"
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
    kept = map(sweep.costs_of, store.records("cost"))
    assert {cost.setting["inner_steps"]: cost.cut for cost in kept} == {1: False, 2: True}
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
    kept = map(sweep.costs_of, Store(tmp_path).records("cost"))
    assert {c.setting["inner_steps"]: c.rows[0]["status"] for c in kept} == {1: "ok", 2: "error", 3: "ok"}

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
    ("status", "cut", "finished"),
    [
        ("ok", False, True),
        ("out-of-memory", False, True),
        ("timeout", False, True),
        ("timeout", True, False),
        ("error", False, False),
    ],
)
def test_an_error_and_a_setting_that_was_cut_are_measured_again(status: Any, cut: bool, finished: bool) -> None:
    assert sweep.finished(Record("a", "cost", "", status, cost=Cost({}, (), cut=cut))) is finished
    assert not sweep.finished(None)


ROW = {"status": "ok", "rounds": 5, "plan": {"name": ""}}


@pytest.mark.parametrize(
    ("status", "row", "rounds", "ran_out"),
    [
        ("ok", {}, 15, False),
        ("ok", {"rounds": 4}, 15, True),
        ("ok", {"rounds": 3}, 3, False),
        ("ok", {"plan": None}, 15, True),  # not counted
        ("ok", {"status": "timeout"}, 15, True),
        ("timeout", {}, 15, True),
    ],
)
def test_few_rounds_and_entries_without_counts_mean_that_time_ran_out(
    status: Any, row: dict[str, Any], rounds: int, ran_out: bool
) -> None:
    cost = Cost({"rounds": rounds}, (ROW, {**ROW, **row}))
    assert sweep.ran_out(Record("a", "cost", "", status, cost=cost)) is ran_out


@pytest.mark.parametrize(
    ("file", "counts"),
    [
        *[(f"maml/{name}.py", True) for name in ("maml", "gradient", "inner_loop")],
        *[(f"benchmarks/cost/{name}.py", True) for name in ("measurement", "batches", "peers/jax", "workloads")],
        *[("benchmarks/execution/compiled.py", True), ("benchmarks/cost/sweep.py", False)],
    ],
)
def test_a_change_of_the_code_that_is_timed_changes_the_key(
    file: str, counts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual, setting = code_hash._source, SETTINGS[0]

    def changed(path: Path) -> Any:
        digest, imported = usual(path)
        return f"{digest} changed" if path.as_posix().endswith(file) else digest, imported

    before = sweep.key_of(setting, "cpu", GPU)
    code_hash._hash_of.cache_clear()
    monkeypatch.setattr(code_hash, "_source", changed)
    after = sweep.key_of(setting, "cpu", GPU)
    code_hash._hash_of.cache_clear()
    assert (after != before) is counts
