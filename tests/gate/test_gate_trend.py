"""The gate's history: steps are found and noise is not, machines are kept apart, and the page shows both."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from made_up_records import full_store

from benchmarks.gate import history
from benchmarks.stats.changes import changes, pettitt
from reports import trend
from reports.page import page

STEP = "maml meta-step, mlp-40-40"


def noise(count: int, seed: int = 0, deviation: float = 0.02) -> np.ndarray:
    return np.random.default_rng(seed).lognormal(0, deviation, count)


def test_the_statistic_is_that_of_all_pairs() -> None:
    """K is the largest difference between how often a later value is above an earlier one and below it."""
    values = np.round(noise(30, deviation=1.0), 1)  # with ties
    u = [np.sign(values[:k, None] - values[None, k:]).sum() for k in range(1, 30)]
    at, p = pettitt(values)
    assert at == 1 + int(np.argmax(np.abs(u)))
    assert p == pytest.approx(min(1, 2 * np.exp(-6 * max(np.abs(u)) ** 2 / (30**3 + 30**2))))


@pytest.mark.parametrize("heavy", [False, True])
@pytest.mark.parametrize("count", [20, 50, 100])
def test_noise_is_rarely_taken_for_a_step(count: int, heavy: bool) -> None:
    random = np.random.default_rng(count)
    draw = (lambda: random.standard_t(2, count)) if heavy else (lambda: random.standard_normal(count))
    assert sum(bool(changes(np.exp(0.02 * draw()))) for _ in range(500)) <= 0.02 * 500


@pytest.mark.parametrize(("slower", "share"), [(1.05, 0.9), (1.1, 0.95)])
def test_a_step_is_found_where_it_is(slower: float, share: float) -> None:
    found = 0
    for seed in range(200):
        series = noise(50, seed)
        series[25:] *= slower
        at = [change.at for change in changes(series)]
        found += len(at) == 1 and abs(at[0] - 25) <= 3
    assert found >= share * 200


def test_two_steps_are_two_and_their_sizes_are_right() -> None:
    series = noise(90)
    series[30:] *= 1.2
    series[60:] /= 1.1
    first, second = changes(series)
    assert (abs(first.at - 30) <= 2, abs(second.at - 60) <= 2) == (True, True)
    assert (first.ratio, second.ratio) == pytest.approx((1.2, 1 / 1.1), rel=0.02)


def test_a_tiny_change_does_not_count_however_sure_it_is() -> None:
    series = noise(100, deviation=1e-4)
    series[50:] *= 1.005
    assert changes(series) == []
    assert len(changes(series, least=0.001)) == 1


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 2.0], [1.0] * 50])
def test_short_and_constant_series_have_no_change(values: list[float]) -> None:
    assert changes(values) == []


# --- the history ---------------------------------------------------------------------------------------------------


@pytest.fixture
def kept(tmp_path: Path) -> history.History:
    """A history of 40 runs of this machine, 8 % slower from the 21st on, beside a slower machine's and a torn line."""
    found = history.History(tmp_path / "runs" / trend.FILE)
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


def test_a_step_that_became_faster_is_no_complaint(tmp_path: Path) -> None:
    found = history.History(tmp_path / "history.jsonl")
    for number, value in enumerate(noise(40)):
        found.add("c", {STEP: value / (1.2 if number >= 20 else 1.0)})
    assert found.steps_up() == []


def test_what_the_gate_writes_is_what_the_page_reads(kept: history.History) -> None:
    assert history.FILE.name == trend.FILE
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
    full_store(store)
    html = page.write_report(store, tmp_path / "page.html").read_text(encoding="utf-8")
    assert html.count("milliseconds by run of the gate") == 2
    assert 'id="trend"' in html
    kept.file.unlink()
    assert 'id="trend"' not in page.write_report(store, tmp_path / "page.html").read_text(encoding="utf-8")


def test_lines_are_json_with_everything_that_is_needed(kept: history.History) -> None:
    line = json.loads(kept.file.read_text().splitlines()[0])
    assert set(trend.COLUMNS) <= line.keys()
