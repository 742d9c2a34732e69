"""The micro-benchmarks run; `make micro` times them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_micro_benchmarks_run_without_being_timed() -> None:
    pytest.importorskip("pytest_benchmark")
    chosen = "mlp-40-40 or sinusoid or a_record"
    options = ["-o", "addopts=--import-mode=importlib", "--benchmark-disable", "-q", "-k", chosen]
    command = [sys.executable, "-m", "pytest", "tests/micro", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout
    assert "9 passed" in done.stdout
