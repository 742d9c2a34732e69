"""Averages over tasks: control apart, and only of methods that have every task."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import pytest
from made_up_records import GLYPHS, SINUSOID, Maker

from reports.page.page import render
from reports.results import load
from reports.scores import across

OTHER = dataclasses.replace(GLYPHS, id="glyphs-v1/20w1s", variant="20w1s")


def test_control_is_averaged_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(across, "TASKS", 2)
    monkeypatch.setattr(across, "SEEDS_FOR_METHODS", 1)
    make = Maker(tmp_path)
    walk = dataclasses.replace(GLYPHS, kind="control", metric="return", data=None)
    for seed, (label, level) in itertools.product(range(5), (("maml", 0.8), ("fomaml", 0.7), ("finetune", 0.6))):
        make.evaluation(label, GLYPHS, seed, level=level)
        make.evaluation(label, OTHER, seed, level=level)
        make.evaluation(label, SINUSOID, seed, level=2 - level)
        for number in (1, 2, 3):
            if (label, number) != ("finetune", 2):
                make.evaluation(label, dataclasses.replace(walk, id=f"walk-v1/{number}"), seed, level=level)
    make.evaluation("constant", SINUSOID, level=4.0, role="floor")
    make.evaluation("oracle", SINUSOID, level=0.1, role="ceiling")
    for number in (1, 2, 3):
        make.evaluation("random-policy", dataclasses.replace(walk, id=f"walk-v1/{number}"), level=0.1, role="floor")
        make.evaluation("oracle", dataclasses.replace(walk, id=f"walk-v1/{number}"), level=1.0, role="ceiling")
    labelled, controlled = across.groups(load(tmp_path))
    assert (labelled.name, controlled.name) == ("Classification and regression", "Control")
    assert labelled.across is not None
    assert controlled.across is not None
    assert set(labelled.across.found.methods) == {"maml", "fomaml", "finetune"}
    assert set(controlled.across.found.methods) == {"maml", "fomaml"}
    assert controlled.across.left_out == ("finetune: no number on walk-v1/2",)
    table = across.across_table(labelled.across).set_index("method")
    for task in labelled.across.tasks:
        runs = task.normalised(task.methods["maml"].mean(axis=1))
        assert table.loc["maml", task.name] == pytest.approx(runs.mean())
    assert (table["low"] < table["interquartile_mean"]).all()
    assert (table["interquartile_mean"] < table["high"]).all()
    html = render(load(tmp_path))[0]
    assert all(
        f'<table id="{name}"' in html for name in ("across-classification-and-regression-csv", "across-control-csv")
    )


def test_one_method_alone_is_not_averaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(across, "TASKS", 2)
    make = Maker(tmp_path)
    for label, tasks in {"maml": (GLYPHS, SINUSOID), "one": (GLYPHS,), "two": (GLYPHS,), "three": (SINUSOID,)}.items():
        for task in (OTHER, *tasks):
            make.evaluation(label, task, level=0.5)
    make.evaluation("constant", SINUSOID, level=4.0, role="floor")
    make.evaluation("oracle", SINUSOID, level=0.1, role="ceiling")
    (group,) = across.groups(load(tmp_path))
    assert group.across is None
    # those that lack the same are said together
    assert group.why[0] == "only maml has a result on every task"
    assert "one, two: no number on sinusoid-v1/k10" in group.why
    assert "three: no number on glyphs-v1/5w1s" in group.why


def test_few_tasks_or_seeds_are_not_averaged(tmp_path: Path) -> None:
    make = Maker(tmp_path)
    for seed, label, task in itertools.product(range(4), ("maml", "fomaml"), (GLYPHS, OTHER)):
        make.evaluation(label, task, seed, level=0.5)
    assert across.groups(load(tmp_path))[0].why[0].startswith("an aggregate needs 3 tasks")
    third = dataclasses.replace(GLYPHS, id="glyphs-v1/5w5s", variant="5w5s")
    for seed, label in itertools.product(range(4), ("maml", "fomaml")):
        make.evaluation(label, third, seed, level=0.5)
    assert across.groups(load(tmp_path))[0].why == ("an aggregate needs 5 training seeds; here 4",)
