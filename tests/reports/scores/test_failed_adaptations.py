"""Failed adaptations and validations in the tables, from new records and from older ones."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pandas as pd
import pytest
from made_up_records import GLYPHS, SINUSOID, Maker

from benchmarks.commands.run import failed_adaptations
from benchmarks.records.record import CurvePoint, Method
from benchmarks.stats.grouping import grouped
from reports import readme, style, words
from reports.results import load
from reports.scores import layout
from reports.scores.tables import main_table
from reports.terminal import _legend


@pytest.fixture
def make(tmp_path: Path) -> Maker:
    return Maker(tmp_path)


def failed(make: Maker) -> dict[str, float | None]:
    return dict(main_table(load(make.store.path))[["method", "failed"]].to_numpy())


@pytest.mark.fault("V1")
def test_older_records_take_the_constant_from_the_floor(make: Maker) -> None:
    make.evaluation("maml", SINUSOID, level=500.0, slope=-499.0, steps=2)
    make.evaluation("fomaml", SINUSOID, level=500.0)
    assert failed(make) == {"maml": 0, "fomaml": 0}  # nothing says what is too much
    make.evaluation("constant", SINUSOID, level=2.0, fits=False, role="floor")
    found = failed(make)
    assert found == {"maml": 0, "fomaml": pytest.approx(1, abs=0.02), "constant": 0}
    make.evaluation("chance", GLYPHS, level=0.2, fits=False, role="floor")
    assert pd.isna(failed(make)["chance"])


@pytest.mark.fault("V1", "V11")
@pytest.mark.parametrize("task", [SINUSOID, GLYPHS])
def test_new_records_say_how_many_failed(make: Maker, task) -> None:
    for seed, count in ((0, 3), (1, 0)):
        record = make.store.get(make.evaluation("maml", task, seed, level=0.5))
        (test,) = record.tests
        (row,) = test.summary
        summary = (dataclasses.replace(row, failed=count),)
        record = dataclasses.replace(record, tests=(dataclasses.replace(test, summary=summary),))
        make.store.write(record, scores=dict(make.store.scores(record)))
    assert failed(make) == {"maml": 3 / 120}
    (legend,) = _legend(load(make.store.path))
    assert f"Adaptations failed: 2.5 % of maml on {task.id}." in str(legend)


@pytest.mark.fault("V2")
def test_failed_validations_are_counted_in_old_and_new_records(make: Maker) -> None:
    point = CurvePoint(1, 1.0, 1, 0, 1.0, 0.5, 0.1)
    points = (point, dataclasses.replace(point, score=None), dataclasses.replace(point, robust=0.4, failed=2))
    training = dataclasses.replace(make.training("maml", SINUSOID, 0), curve=points, best_step=1400)
    assert training.failed_validations == 2
    make.evaluation("maml", SINUSOID, training=training)
    make.evaluation("nearest-neighbour", SINUSOID, fits=False)
    table = main_table(load(make.store.path)).set_index("method")
    assert table.loc["maml", ["best_step", "failed_validations"]].tolist() == [1400, 2]
    assert table.loc["nearest-neighbour", ["best_step", "failed_validations"]].isna().all()


@pytest.mark.fault("V1")
def test_a_mean_that_exploded_has_no_24_digits() -> None:
    assert [words.number(value, "squared error") for value in (5.9e20, 123456.7, -2e9)] == [
        "5.9e+20",
        "123456.700",
        "−2.0e+09",
    ]


@pytest.mark.fault("V1")
def test_a_run_with_failed_adaptations_says_what_to_try(make: Maker) -> None:
    for name, fields in (("maml", {"inner_lr": 0.4}), ("recurrent", {})):
        for seed, count in ((0, 12), (1, 0)):
            method = Method(name, fields)
            record = make.store.get(make.evaluation(name, SINUSOID, seed, level=0.5, method=method))
            (test,) = record.tests
            summary = tuple(dataclasses.replace(row, failed=count) for row in test.summary)
            record = dataclasses.replace(record, tests=(dataclasses.replace(test, summary=summary),))
            make.store.write(record, scores=dict(make.store.scores(record)))
    make.evaluation("fomaml", SINUSOID, level=0.5)
    said = sorted(failed_adaptations(grouped(make.store.records("evaluation"))))
    where = f"failed on {SINUSOID.id}, 10-shot"
    assert said == [
        f"10 % of the adaptations of maml {where}: try --set maml.inner_lr=0.04",
        f"10 % of the adaptations of recurrent {where}",
    ]


@pytest.mark.fault("V5")
def test_settings_of_older_records_are_left_out(make: Maker) -> None:
    for name in ("maml", "fomaml"):
        make.evaluation(name, SINUSOID, level=0.5)
    results = load(make.store.path)
    (table,) = layout.score_tables(results, style.looks(results.labels))
    assert "settings" not in dict(table.common) | dict.fromkeys(header.title for header in table.headers)
    assert "not recorded" not in readme.section([results], make.store.path)


def test_a_budget_says_whose_it_is(make: Maker) -> None:
    paper = make.training("maml", SINUSOID, 0)
    ours = dataclasses.replace(paper, share=0.5)
    free = dataclasses.replace(paper, share=None, published_meta_steps=None)
    assert words.of_budgets([paper, free]) == "29 % of the published budget"
    assert words.of_budgets([dataclasses.replace(paper, meta_steps=70, share=0.01), paper, ours]) == (
        "1 % to 29 % of the published budget, 50 % of this suite's budget"
    )
    assert words.of_budgets([free]) == ""
