"""When a sweep of the cost benchmark stops, what it measures anew, and what it runs side by side."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from benchmarks.cost import comparison, contestant, grid, sweep
from benchmarks.cost.grid import Choice, Setting
from benchmarks.records.store import Store
from benchmarks.run.isolate import Outcome

SETTINGS = grid.settings("smoke", Choice(inner_steps=[1, 2, 3]))


class Waves:
    """Stands for the processes of the waves: each setting ends in no time, as ``status`` says by inner steps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, cores: int, status: Mapping[int, list[str]]) -> None:
        self.seen: list[dict[int, float]] = []
        self.places: list[int] = []
        self._status = {steps: list(each) for steps, each in status.items()}
        monkeypatch.setattr(sweep, "_measured", self._measured)
        monkeypatch.setattr(sweep.measure, "usable_cores", lambda: cores)

    def _measured(
        self, wave: Mapping[str, Setting], device: str, memory: Any, places: int, left: Any, keep: Any
    ) -> None:
        self.seen.append({setting.inner_steps: setting.limit for setting in wave.values()})
        self.places.append(places)
        for key, setting in wave.items():
            left_over = self._status.get(setting.inner_steps)
            status = left_over.pop(0) if left_over else "ok"
            measured = {"rounds": 5, "plan": {}} if status == "ok" else {}
            rows = [{**contestant.empty_row(each), "status": status, **measured} for each in setting.variants]
            facts = {"ceilings": None, "threads": 1, "precision": None, "stages": {"timing": 1.0, "waiting": 9.0}}
            keep(key, Outcome("ok", None, value={"rows": rows, **facts}, seconds=10.0), None)


def test_when_time_is_up_no_setting_is_begun_and_what_was_cut_is_measured_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 0.0, 55.0, 95.0])  # the start, then before each wave
    waves = Waves(monkeypatch, cores=1, status={2: ["timeout"]})
    monkeypatch.setattr(sweep.time, "monotonic", lambda: next(clock))
    store, lines = Store(tmp_path), []
    records = sweep.run(SETTINGS, store, "smoke", "cpu", lines.append, seconds=100)
    assert waves.seen == [{1: 100}, {2: 45}]  # the profile's limit is 120
    assert [record["cut"] for record in records] == [False, True]
    assert lines[-1] == "time is up; the same command goes on with the other 1 settings"
    monkeypatch.undo()
    again = Waves(monkeypatch, cores=1, status={})
    sweep.run(SETTINGS, store, "smoke", "cpu", lines.append)
    assert again.seen == [{2: 120, 3: 120}]
    assert lines[-1].endswith(": 4 of 4 variants in 1 s")  # without the time that it waited for the others
    sweep.run(SETTINGS, store, "smoke", "cpu", lines.append)
    assert lines[-1] == "0 settings to measure, 3 measured before"
    assert len(sweep.run(SETTINGS, store, "smoke", "cpu", lines.append, again=True)) == 3
    assert again.seen[1:] == [{1: 120, 2: 120, 3: 120}]


def test_where_the_whole_run_has_a_limit_a_variant_without_a_time_is_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its wave may have had less time to be prepared than the setting's own limit gives it."""
    for seconds, cut in ((100000.0, True), (None, False)):
        Waves(monkeypatch, cores=1, status={1: ["timeout"]})
        (record,) = sweep.run(
            SETTINGS[:1], Store(tmp_path / str(cut)), "smoke", "cpu", lambda line: None, None, seconds
        )
        assert record["cut"] is cut


def test_waves_are_as_large_as_cores_memory_and_time_allow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def sizes(cores: int, **limits: Any) -> tuple[list[int], set[int]]:
        waves = Waves(monkeypatch, cores, status={})
        sweep.run(SETTINGS, Store(tmp_path), "smoke", "cpu", lambda line: None, again=True, **limits)
        return [len(each) for each in waves.seen], set(waves.places)

    assert sizes(2) == ([3], {2})
    assert sizes(2, seconds=1000) == ([2, 1], {2})  # so that what stands first is timed early
    assert sizes(16, seconds=45) == ([2, 1], {sweep.PLACES})  # there is no time for three
    assert sizes(16, seconds=1000) == ([3], {sweep.PLACES})
    assert sizes(2, memory_bytes=int(2.5 * sweep.WAVE_BYTES)) == ([2, 1], {2})
    assert sizes(1, memory_bytes=1000) == ([1, 1, 1], {1})


def test_a_gpus_memory_holds_so_many_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep.measure, "usable_cores", lambda: 16)
    assert sweep._sizes(None, None, limited=True) == (8, 8)
    assert sweep._sizes(200e9, 80, limited=True) == (8, 6)
    assert sweep._sizes(200e9, 140, limited=True) == (8, 11)
    assert sweep._sizes(6e9, 140, limited=False) == (8, 4)
    assert sweep._sizes(200e9, 4, limited=False) == (8, 1)


def test_what_ran_out_of_memory_beside_others_is_measured_once_more_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waves = Waves(monkeypatch, cores=2, status={1: ["out-of-memory"], 2: ["out-of-memory", "out-of-memory"]})
    lines: list[str] = []
    records = sweep.run(SETTINGS, Store(tmp_path), "smoke", "cpu", lines.append)
    assert [list(wave) for wave in waves.seen] == [[1, 2, 3], [1], [2]]
    assert [record["rows"][0]["status"] for record in records] == ["ok", "out-of-memory", "ok"]
    assert [line[:5] for line in lines if line[0] == "["] == ["[1/3]", "[2/3]", "[3/3]"]


def test_what_is_to_be_measured_alone_is_not_done_when_time_is_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Waves(monkeypatch, cores=4, status={1: ["out-of-memory"]})
    clock = iter([0.0, 0.0, 99.0])
    monkeypatch.setattr(sweep.time, "monotonic", lambda: next(clock))
    lines: list[str] = []
    sweep.run(SETTINGS, Store(tmp_path), "smoke", "cpu", lines.append, seconds=100)
    assert lines[-1] == "time is up; the same command goes on with the other 1 settings"
    monkeypatch.undo()
    waves = Waves(monkeypatch, cores=4, status={})
    sweep.run(SETTINGS, Store(tmp_path), "smoke", "cpu", lines.append)
    assert [list(wave) for wave in waves.seen] == [[1]]


@pytest.mark.parametrize(
    ("status", "reason", "why", "on_cpu", "on_gpu"),
    [
        ("ok", None, "launches are captured", None, None),
        ("ok", None, "not graph: OutOfMemoryError: CUDA out of memory", "out of memory", "out of memory"),
        ("out-of-memory", "MemoryError", None, "out of memory", "out of memory"),
        ("error", "the process was killed by SIGKILL", None, "out of memory", "out of memory"),
        ("error", "killed by SIGSEGV (while warming up second jax)", None, None, "failed"),
        ("error", "UnboundLocalError: gradients", None, None, "failed"),
        ("error", comparison.verdict("prediction", {"gradient_error": 1.0}), None, None, None),
        (
            "error",
            comparison.verdict("prediction", {"gradient_error": 0.0, "program_error": 1.0, "rounding_error": 0.0}),
            *(None, None, None),
        ),
    ],
)
def test_what_others_may_have_caused(
    status: str, reason: str | None, why: str | None, on_cpu: str | None, on_gpu: str | None
) -> None:
    row = {"status": status, "reason": reason, "plan": {"why": why} if why else None}
    for device, expected in (("cpu", on_cpu), ("cuda:0", on_gpu)):
        assert sweep._trouble({"device": device, "status": "ok", "reason": None, "rows": [row]}) == expected
        assert sweep._trouble({"device": device, "status": status, "reason": reason, "rows": []}) == (
            None if why else expected
        )


def test_a_few_rounds_before_the_time_was_up_are_no_result() -> None:
    def record(*rounds: int, of: int = 15) -> dict[str, Any]:
        rows = [{"status": "ok", "rounds": each, "plan": {"name": ""}} for each in rounds]
        return {"status": "ok", "setting": {"rounds": of}, "rows": rows}

    assert not sweep._ran_out(record(5, 5))
    assert sweep._ran_out(record(5, 4))
    uncounted = record(5, 5)
    uncounted["rows"][1]["plan"] = None
    assert sweep._ran_out(uncounted)
    assert not sweep._ran_out(record(3, 3, of=3))
    assert sweep._ran_out({"status": "timeout", "setting": {"rounds": 9}, "rows": []})


def test_what_ran_out_of_memory_is_a_result_and_an_error_is_tried_again() -> None:
    assert sweep._finished({"status": "out-of-memory"})
    assert sweep._finished({"status": "timeout"})
    assert not sweep._finished({"status": "timeout", "cut": True})
    assert not sweep._finished({"status": "error"})
    assert not sweep._finished(None)


def test_two_settings_are_prepared_together_and_timed_one_after_the_other(tmp_path: Path) -> None:
    settings = grid.settings("smoke", Choice(inner_steps=[1, 2], implementations=["loop"]))
    records = sweep.run(settings, Store(tmp_path), "smoke", "cpu", lambda line: None)
    assert [record["status"] for record in records] == ["ok", "ok"], [record["stderr"] for record in records]
    first, second = (record["stages"] for record in records)
    assert second["waiting"] >= first["timing"]
