"""Costs of learners and agreement of the orders, from records to tables and panels."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import pytest
from made_up_costs import record, row, untimed
from rich.console import Console

from reports.cost import frames, learners, terminal

#: learner, order, label, milliseconds
TIMES = (
    ("maml", "second", "ours/rule", 4.0),
    ("maml", "first", "ours/rule", 2.0),
    ("anil", "second", "ours/rule", 1.0),
    ("anil", "second", "learn2learn", 30.0),
    ("maml", "second", "learn2learn", 60.0),
)


def costs() -> Any:
    rows = [row(order, label, time, learner=learner) for learner, order, label, time in TIMES]
    rows.append({**untimed("second", "ours", "error", "it broke"), "learner": "cavia"})
    return [record("mlp-40-40", 25, 5, rows, work="learners")]


def agreements() -> Any:
    rows = [
        {"status": "ok", "reason": None, "inner_steps": steps, "meta_batch": 25, "seed": 0, "step": step, "loss": 1.0}
        | {"cosine": 0.9, "norm_ratio": 1.1, "between_batches": 0.5}
        for steps in (1, 5)
        for step in (1, 10)
    ]
    found = record("", 0, 0, rows, work="agreement")
    found.cost.setting["task"] = "sinusoid/k10"
    return [found]


def test_a_learner_is_compared_with_maml_in_the_same_implementation() -> None:
    found = learners.against_maml(costs()).set_index(["learner", "order", "label"])
    assert len(found) == len(TIMES)
    anil = found.loc["anil", "second", "ours/rule"]
    assert (anil["time"], anil["over_first"], anil["over_ours"]) == pytest.approx((0.25, 0.5, 1.0))
    assert anil["low"] <= anil["time"] <= anil["high"]
    other = found.loc["anil", "second", "learn2learn"]
    assert (other["time"], other["over_ours"]) == pytest.approx((0.5, 30.0))
    assert other["over_first"] != other["over_first"], "learn2learn's FOMAML was not timed"
    assert found.loc["maml", "first", "ours/rule"]["memory"] == pytest.approx(2 / 3)


def test_tables_of_maml_do_not_see_other_learners() -> None:
    records = costs() + agreements()
    assert frames.rows(records).empty
    assert frames.ratios(records).empty
    assert frames.against(records).empty
    assert frames.untimed(records) == {"error": 1}
    assert learners.against_maml(agreements()).empty


def test_the_terminal_tells_times_and_failures() -> None:
    console = Console(width=160, record=True, file=io.StringIO())
    terminal.show(costs() + agreements(), console)
    told = console.export_text()
    assert "anil, second ours/rule, mlp-40-40, 25 tasks, 5 inner steps (cuda): 1.2 ms and 0.25 times MAML's" in told
    assert "cavia second ours: error: it broke" in told


def test_the_page_has_a_table_and_a_panel_per_task() -> None:
    results: Any = SimpleNamespace(costs=costs() + agreements())
    table = learners.learner_costs(results, {})["costs"]
    assert len(table.rows) == len(TIMES)
    assert list(table.frame["time / MAML"])[2].startswith("0.25 [")
    (panel,) = learners.agreement(results, {})["panels"]
    assert panel.labels == ("1 inner step", "5 inner steps")
    assert set(panel.frame["line"]) == set(learners.LINES)
    assert "<svg" in panel.svg
    nothing: Any = SimpleNamespace(costs=[])
    assert learners.learner_costs(nothing, {}) is None
    assert learners.agreement(nothing, {}) is None
