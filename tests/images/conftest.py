"""A data folder, a cache and a small Omniglot of a test's own."""

from __future__ import annotations

import pytest
from small_omniglot import SMALL_OMNIGLOT

from benchmarks.tasks import omniglot


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A separate data folder and cache, for a small Omniglot."""
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("METABENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("METABENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("METABENCH_OFFLINE", "1")
    for name, value in SMALL_OMNIGLOT.items():
        monkeypatch.setattr(omniglot, name, value)
    return tmp_path
