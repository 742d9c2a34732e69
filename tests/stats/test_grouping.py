"""Rows: which tests make one, what it is called, and which records newer code has replaced."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import pytest
from made_up_records import GLYPHS, SINUSOID, Maker

from benchmarks.compare.stores import compare
from benchmarks.records.record import Budget, Method
from benchmarks.stats import columns, grouped, superseded


@pytest.fixture
def make(tmp_path: Path) -> Maker:
    return Maker(tmp_path, episodes=8)


def maml(rate: float = 0.4, **fields: Any) -> Method:
    return Method("maml", {"inner_lr": rate, **fields})


def names(make: Maker) -> dict[str, set[str]]:
    """Regime (and checkpoint) of each column -> its rows."""
    found = columns(make.store, make.store.records())
    assert all(len(set(column.names)) == len(column.rows) for column in found), "a name is one row of a column"
    return {f"{c.protocol.regime} {c.protocol.model}": set(c.names) for c in found}


def test_rows_of_a_label_are_named_by_the_fields_that_differ(make: Maker) -> None:
    for rate in (0.4, 0.1):
        make.evaluation("maml", SINUSOID, method=maml(rate, steps=5))
    make.evaluation("fomaml", SINUSOID)
    assert names(make) == {"none best": {"maml (inner_lr=0.1)", "maml (inner_lr=0.4)", "fomaml"}}


def test_of_an_ablation_each_row_names_its_own_switch(make: Maker) -> None:
    on = {"multi_step_loss": 0.1, "learned_rates": True, "first_order": 0.5, "last_lr": 1e-5}
    off = [{}, {"multi_step_loss": 0.0}, {"learned_rates": False}, {"first_order": 0.0, "last_lr": 0.0}]
    for switches in off:
        make.evaluation("maml", SINUSOID, method=maml(**{**on, **switches}))
    told = ["maml", *(f"maml ({text})" for text in ("multi_step_loss=0.0", "learned_rates=False"))]
    assert names(make) == {"none best": {*told, "maml (first_order=0.0, last_lr=0.0)"}}


def test_a_fit_has_one_name_under_all_regimes_and_checkpoints(make: Maker) -> None:
    for regime, model in itertools.product(("query", "support"), ("best", "last")):
        make.evaluation("maml", GLYPHS, regime=regime, model=model, method=maml())
    everywhere = [f"{regime} {model}" for regime in ("query", "support") for model in ("best", "last")]
    assert names(make) == {column: {"maml"} for column in everywhere}
    make.evaluation("maml", GLYPHS, regime="query", method=maml(0.1))
    found = names(make)
    assert found.pop("query best") == {"maml (inner_lr=0.1)", "maml (inner_lr=0.4)"}
    assert found == {column: {"maml (inner_lr=0.4)"} for column in everywhere[1:]}


def test_a_row_without_batch_norm_is_told_from_one_with(make: Maker) -> None:
    make.evaluation("maml", GLYPHS, regime="query", method=maml(backbone="conv4"))
    make.evaluation("maml", GLYPHS, regime="none", method=maml(backbone="mlp"))
    assert names(make) == {"query best": {"maml (backbone=conv4)", "maml (backbone=mlp)"}}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ([{"budget": Budget(steps, 300, 50, 20)} for steps in (10, 20)], ["meta_steps=10", "meta_steps=20"]),
        ([{"trained_on": task} for task in ("a", "b")], ["trained on=a", "trained on=b"]),
        ([{}, {"method": Method("other", {"inner_steps": 1})}], ["record=", "record="]),
    ],
)
def test_other_differences_are_told_too(make: Maker, changes: list[dict[str, Any]], told: list[str]) -> None:
    for change in changes:
        make.evaluation("maml", SINUSOID, **change)
    (found,) = names(make).values()
    assert [name.split("(")[1].startswith(part) for name, part in zip(sorted(found), told, strict=True)] == [True, True]


def test_compare_takes_every_name_that_a_row_has(make: Maker) -> None:
    for rate in (0.4, 0.1, 1):
        make.evaluation("maml", SINUSOID, method=maml(rate))
    make.evaluation("maml [tuned]", SINUSOID)
    ((_, found),) = names(make).items()
    for first, second in itertools.permutations(sorted(found), 2):
        assert len(compare(first, second, make.store.path)) == 1


def test_a_setting_that_older_code_lacks_tells_no_row_apart_where_another_does(make: Maker) -> None:
    make.evaluation("maml", SINUSOID, budget=Budget(10, 300, 50, 20), method=maml())
    make.evaluation("maml", SINUSOID, budget=Budget(20, 300, 50, 20), method=maml(extra=3))
    (found,) = names(make).values()
    assert sorted(found) == ["maml (meta_steps=10)", "maml (meta_steps=20)"]


OLD, NEW = {"code": "a" * 16, "started": "2031-01"}, {"code": "b" * 16, "started": "2031-02"}


@pytest.mark.fault("K5", "U5")
def test_rows_of_older_code_are_hidden(make: Maker) -> None:
    for seed in (0, 1):
        make.evaluation("mine", SINUSOID, seed, method=maml(), **OLD)
    make.evaluation("mine", SINUSOID, 0, method=maml(extra=3), **NEW)
    make.evaluation("mine", SINUSOID, 0, method=maml(0.1), **OLD)
    make.evaluation("other", SINUSOID, 0, method=maml(), **OLD)
    records = make.store.records()
    rows = {name: [tested.seed for tested in group] for name, group in grouped(records)}
    # of older code too, but nothing has replaced it
    assert rows == {"mine (inner_lr=0.4)": [0], "mine (inner_lr=0.1)": [0], "other": [0]}
    every = {name: [tested.seed for tested in group] for name, group in grouped(records, older=True)}
    assert sorted(map(len, every.values())) == [1, 1, 1, 2]


def test_code_that_was_taken_back_is_the_newest_again(make: Maker) -> None:
    for seed, code in ((0, OLD), (1, NEW), (2, {**OLD, "started": "2031-03"})):
        make.evaluation("mine", SINUSOID, seed, **code)
    (row,) = grouped(make.store.records())
    assert [tested.seed for tested in row[1]] == [0, 2]


def test_failures_that_newer_code_has_replaced_are_superseded(make: Maker) -> None:
    def fit(status: str, seed: int = 0, label: str = "mine", **changes: Any) -> str:
        record = make.header("fit", label, SINUSOID, seed, method=maml(), **changes)
        training = make.training(label, SINUSOID, seed)
        return make.store.write(dataclasses.replace(record, status=status, training=training)).key

    old = fit("error", **OLD)
    still = {
        fit("error", label="broken", **OLD),
        fit("ok", **NEW),
        fit("error", 1, "mine", code="b" * 16, started="2031-03"),
    }
    assert superseded(make.store.records()) == {old}
    assert {record.key for record in make.store.records()} == {old, *still}


@pytest.mark.fault("S11")
def test_a_row_that_mixes_threads_says_so(make: Maker) -> None:
    for seed, threads in ((0, 1), (1, 2)):
        training = dataclasses.replace(make.training("maml", SINUSOID, seed), threads=threads)
        make.evaluation("maml", SINUSOID, seed, training=training)
        make.evaluation("fomaml", SINUSOID, seed)
    (column,) = columns(make.store, make.store.records())
    assert {row.name: row.threads for row in column.rows} == {"maml": (1, 2), "fomaml": (1,)}
    (line,) = compare("maml", "fomaml", make.store.path).to_dict("records")
    assert "maml mixes seeds of 1 and 2 threads" in line["note"]
