"""Micro-benchmarks of records: one written and read, and the page of the committed quick profile."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.records.record import Record
from benchmarks.records.store import Store

QUICK = Path(__file__).parents[2] / "reports" / "reference" / "quick"
#: as many as in an evaluation of the standard profile
EPISODES, QUERIES = 600, 75


@pytest.fixture
def record() -> Record:
    """An evaluation, without the table of its episodes."""
    found = next(record for record in Store(QUICK, read_only=True).records("evaluation") if record.ok)
    assert found.evaluation is not None
    return dataclasses.replace(found, evaluation=dataclasses.replace(found.evaluation, episodes_digest=None))


@pytest.fixture
def scores(record: Record) -> dict[str, np.ndarray]:
    score = np.arange(EPISODES * QUERIES).reshape(EPISODES, QUERIES) % 3 > 0
    test = record.tests[0]
    return {test.scores_name(test.headline_step): score}


def test_writing_a_record(benchmark: Any, tmp_path: Path, record: Record, scores: dict[str, np.ndarray]) -> None:
    store = Store(tmp_path)
    benchmark(lambda: store.write(record, scores=scores))
    assert store.get(record.key)


def test_reading_a_record(benchmark: Any, tmp_path: Path, record: Record, scores: dict[str, np.ndarray]) -> None:
    store = Store(tmp_path)
    written = store.write(record, scores=scores)
    _, found = benchmark(lambda: (store.get(record.key), store.scores(written)))
    assert found.keys() == scores.keys()


def test_report(benchmark: Any, tmp_path: Path) -> None:
    page = importlib.import_module("reports.page.page")  # by name: the suite knows nothing of its reports
    benchmark.pedantic(page.write_report, args=(QUICK, tmp_path / "page.html"), rounds=2)
    assert (tmp_path / "page.html").stat().st_size
