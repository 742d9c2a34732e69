"""The gate's history: machines are kept apart, a step that creeps up is told, and the page shows it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.gate import history
from benchmarks.records.record import Cost, Machine, Record
from benchmarks.records.store import Store
from reports import trend
from reports.page import page

STEP = "maml meta-step, mlp-40-40"


def noise(count: int) -> np.ndarray:
    return np.random.default_rng(0).lognormal(0, 0.02, count)


@pytest.fixture(autouse=True)
def versions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Versions of packages take a while to look up, and there are many lines."""
    monkeypatch.setattr(history.machine, "versions", lambda: {"torch": "2.13.0"})


@pytest.fixture
def kept(tmp_path: Path) -> history.History:
    """A history of 40 runs of this machine, 8 % slower from the 21st on, with those of a slower machine, and a torn
    line."""
    found = history.History(tmp_path / "runs" / trend.FILE.name)
    usual = found.machine
    for number, value in enumerate(noise(40)):
        found.add(f"{number:02}{38 * 'c'}", {STEP: 0.005 * value * (1.08 if number >= 20 else 1.0)})
        found.machine = {**usual, "id": "another", "cpu": "Slow"}
        found.add(f"{number:02}{38 * 'c'}", {STEP: 0.05 * value})
        found.machine = usual
    with found.file.open("a") as file:
        file.write('{"when": "20')
    return found


def test_a_step_that_has_crept_up_is_told_for_this_machine_alone(kept: history.History) -> None:
    assert {step: len(lines) for step, lines in kept.read().items()} == {STEP: 40}
    (line,) = kept.steps_up()
    assert line.startswith(f"{STEP}: 8.")
    assert "% slower on this machine since " in line
    kept.machine = {**kept.machine, "id": "another"}
    assert kept.steps_up() == []


@pytest.mark.fault("S8")
def test_lines_of_another_shape_are_left_out(kept: history.History) -> None:
    whole = json.loads(kept.file.read_text().splitlines()[0])
    odd = [
        {**whole, name: value}
        for name in whole
        for value in (None, [1], {"a": 1}, True, -1, "x" if name == "seconds" else 0)
    ]
    other = ["3", "[]", "{}", "[" * 10**5, *map(json.dumps, odd)]
    with kept.file.open("ab") as file:
        file.write("\n".join(["", *other, ""]).encode() + b"\xff\xfe\n")
    assert {step: len(lines) for step, lines in kept.read().items()} == {STEP: 40}
    times = trend.history([kept.file.parent / "quick"])
    assert len(times) == 80
    assert trend.sentences(times)


def test_a_step_that_became_faster_is_no_complaint(tmp_path: Path) -> None:
    found = history.History(tmp_path / "history.jsonl")
    for number, value in enumerate(noise(40)):
        found.add("c", {STEP: value / (1.2 if number >= 20 else 1.0)})
    assert found.steps_up() == []


def test_what_the_gate_writes_is_what_the_page_reads(kept: history.History) -> None:
    assert history.FILE == trend.FILE
    assert set(trend.COLUMNS) <= json.loads(kept.file.read_text().splitlines()[0]).keys()
    times = trend.history([kept.file.parent / "quick", kept.file.parent / "smoke"])
    assert len(times) == 80
    table = trend.level_table(times).set_index("machine")
    here = table.loc[f"{kept.machine['cpu']} ({kept.machine['id']})"]
    assert here["latest_change"] == pytest.approx(0.08, abs=0.02)
    assert here["milliseconds"] == pytest.approx(5.4, rel=0.02)
    assert 19 <= int(here["since_commit"][:2]) <= 21
    assert table.loc["Slow (another)", "changes"] == 0
    panels = trend.trend_panels(times)
    assert len(panels) == 2
    assert "from run 2" in panels[0].caption
    assert panels[1].caption == "No change of level."


def test_the_page_has_the_section_where_there_is_a_history(kept: history.History, tmp_path: Path) -> None:
    store = kept.file.parent / "quick"
    setting = {"work": "meta-step", "backbone": "mlp-40-40", "meta_batch": 1, "inner_steps": 1}
    machine = Machine("m", "Imaginary", "x86_64", 2, 2, 2, 8, "Linux", "Linux")
    Store(store).write(Record(16 * "a", "cost", "a setting", machine=machine, cost=Cost(setting, ())))
    html = page.write_report(store, tmp_path / "page.html").read_text(encoding="utf-8")
    assert html.count("milliseconds by run of the gate") == 2
    assert 'id="trend"' in html
    kept.file.unlink()
    assert 'id="trend"' not in page.write_report(store, tmp_path / "page.html").read_text(encoding="utf-8")
