"""A registry that forgets what a test registers, and the findings of a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import conformance, registry
from benchmarks.models import BACKBONES


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    registry.discover()
    for table in ("_methods", "_tasks"):
        monkeypatch.setattr(registry, table, dict(getattr(registry, table)))
    for name in ("own", "other"):
        monkeypatch.setitem(BACKBONES, name, None)


@pytest.fixture
def findings(tmp_path: Path) -> Callable[[str], list[conformance.Finding]]:
    """What the checks find in a file ``mine.py`` of this text."""

    def check(text: str) -> list[conformance.Finding]:
        (tmp_path / "mine.py").write_text(text)
        return list(conformance.check_file(tmp_path / "mine.py"))

    return check
