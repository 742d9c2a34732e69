"""A repository with two commits for the gate."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from benchmarks.gate import checkouts


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with two commits, of which the second changes code; the gate takes it for the suite's."""
    for name in ("METABENCH_GATE_BASE", *(name for name in os.environ if name.startswith("GIT_"))):
        monkeypatch.delenv(name, raising=False)
    root = tmp_path / "repository"
    (root / "maml").mkdir(parents=True)
    git = ["git", "-C", str(root), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    for number in (1, 2):
        (root / "maml" / "x.py").write_text(f"x = {number}")
        subprocess.run([*git, "add", "."], check=True)
        subprocess.run([*git, "commit", "-q", "-m", str(number)], check=True)
    monkeypatch.setattr(checkouts, "ROOT", root)
    return root
