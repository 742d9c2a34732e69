"""When a sweep of the cost benchmark stops, and what it measures anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.cost import grid, measurement, sweep
from benchmarks.cost.grid import Choice, Setting
from benchmarks.isolate import Outcome
from benchmarks.store import Store


def test_when_time_is_up_no_setting_is_begun_and_what_was_cut_is_measured_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = grid.settings("smoke", Choice(inner_steps=[1, 2, 3]))
    clock = iter([0.0, 0.0, 55.0, 95.0])  # the start, then before each setting
    limits: list[float] = []

    def measured(key: str, setting: Setting, *rest: Any) -> Any:
        limits.append(setting.limit)
        status = "timeout" if len(limits) == 2 else "ok"
        rows = [{**measurement._empty_row(each), "status": status} for each in setting.variants]
        value = {"rows": rows, "ceilings": None, "threads": 1, "precision": None}
        return Outcome("ok", None, value=value, seconds=1.0), None

    monkeypatch.setattr(sweep, "_measured", measured)
    monkeypatch.setattr(sweep.time, "monotonic", lambda: next(clock))
    store, lines = Store(tmp_path), []
    records = sweep.run(settings, store, "smoke", "cpu", lines.append, seconds=100)
    assert limits == [100, 45]  # the profile's limit is 120
    assert [record["cut"] for record in records] == [False, True]
    assert lines[-1] == "time is up; the same command goes on with the other 1 settings"
    monkeypatch.undo()
    monkeypatch.setattr(sweep, "_measured", measured)
    sweep.run(settings, store, "smoke", "cpu", lines.append)
    assert limits[2:] == [120, 120]
    sweep.run(settings, store, "smoke", "cpu", lines.append)
    assert lines[-1] == "0 settings to measure, 3 measured before"
    assert len(sweep.run(settings, store, "smoke", "cpu", lines.append, again=True)) == 3
    assert limits[4:] == [120, 120, 120]


def test_what_ran_out_of_memory_is_a_result_and_an_error_is_tried_again() -> None:
    assert sweep._finished({"status": "out-of-memory"})
    assert sweep._finished({"status": "timeout"})
    assert not sweep._finished({"status": "timeout", "cut": True})
    assert not sweep._finished({"status": "error"})
    assert not sweep._finished(None)
