"""Installed from a wheel and run in an empty folder: records and page land there, the installation does not change."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from whole_runs import profile

from reports.results import load

ROOT = Path(__file__).parents[2]
PACKAGES = ("benchmarks", "maml", "baselines", "reports")


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages without the rest of the checkout, as pip leaves them."""
    site = tmp_path_factory.mktemp("site")
    kept = shutil.ignore_patterns("__pycache__", "reference", "runs", "index.html")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, site / package, ignore=kept)
    return site


def files(folder: Path) -> set[Path]:
    """All files but what interpreters and templates are compiled into."""
    return {path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts}


def test_records_and_page_land_in_the_current_folder(installation: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(profile())
    before = files(installation)
    environment = {**os.environ, "PYTHONPATH": str(installation)}
    environment |= {"METABENCH_CACHE": str(tmp_path / "cache"), "METABENCH_OFFLINE": "1"}
    environment.pop("METABENCH_STORE", None)
    for command in ("run", "show", "report"):
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks", command, "--profile", "./mine.toml"],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
    assert done.stdout == f"wrote {Path('reports/index.html')}\n"
    assert (tmp_path / "reports" / "index.html").is_file()
    assert [result.name for result in load(tmp_path / "reports" / "runs" / "tiny").results] == ["constant"]
    assert files(installation) == before
