"""Micro-benchmarks of what is kept and shown: a record written and read, and the page."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks.records.store import Store

EPISODES, QUERIES = 600, 75


@pytest.fixture
def scores() -> pd.DataFrame:
    """As many scores as an evaluation of the standard profile has."""
    count = EPISODES * QUERIES
    return pd.DataFrame(
        {
            "step": np.ones(count, dtype=np.int16),
            "episode": np.repeat(np.arange(EPISODES, dtype=np.int32), QUERIES),
            "query": np.tile(np.arange(QUERIES, dtype=np.int16), EPISODES),
            "score": np.arange(count) % 3 > 0,
        }
    )


def made_up() -> Any:
    """The records that the tests of the report are made with."""
    path = Path(__file__).parents[1] / "helpers" / "made_up_records.py"
    spec = importlib.util.spec_from_file_location("made_up_records", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def header() -> dict[str, Any]:
    return {"key": "0" * 16, "cell": "evaluation", "status": "ok", "files": {}, "sizes": {}, "evaluation": None}


def test_writing_a_record(benchmark: Any, tmp_path: Path, scores: pd.DataFrame) -> None:
    store = Store(tmp_path)
    written = benchmark(lambda: store.write(header(), scores=scores))
    assert store.get(written["key"])


def test_reading_a_record(benchmark: Any, tmp_path: Path, scores: pd.DataFrame) -> None:
    store = Store(tmp_path)
    key = store.write(header(), scores=scores)["key"]
    found = benchmark(lambda: (store.get(key), store.scores(key)))
    assert len(found[1]) == len(scores)


def test_report(benchmark: Any, tmp_path: Path) -> None:
    made_up().full_store(tmp_path / "store")
    page = importlib.import_module("reports.page.page")  # by name: the suite knows nothing of its reports
    benchmark.pedantic(page.write_report, args=(tmp_path / "store", tmp_path / "page.html"), rounds=2)
    assert (tmp_path / "page.html").stat().st_size
