"""Failed adaptations and validations in the tables, from new records and from older ones."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pandas as pd
import pytest
from made_up_records import GLYPHS, SINUSOID, Maker

from benchmarks.records.record import CurvePoint
from reports import words
from reports.results import load
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
        "-2.0e+09",
    ]
