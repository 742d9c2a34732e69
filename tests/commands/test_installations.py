"""A bare installation: packages without the checkout, on a Python with torch, numpy, pandas, pyarrow, typer and rich
alone (a machine with a GPU is often one on which nothing can be installed)."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from whole_runs import metabench, profile

from benchmarks.records.store import Store

ROOT = Path(__file__).parents[2]
ABSENT = "psutil scipy seaborn matplotlib jinja2 pooch PIL gymnasium mujoco learn2learn tqdm requests gym torchvision"
#: processes forked from this one lack the packages too
HOOK = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {ABSENT.split()!r}:
            raise ModuleNotFoundError("No module named " + repr(name))
sys.meta_path.insert(0, Absent())
"""


def files(folder: Path) -> set[Path]:
    """All files but what interpreters and templates are compiled into."""
    return {path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts}


@pytest.mark.fault("U9")
def test_a_run_needs_few_packages_and_writes_to_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, hook, here = (tmp_path / name for name in ("site", "hook", "here"))
    kept = shutil.ignore_patterns("__pycache__", "reference", "runs", "index.html")
    for package in ("benchmarks", "maml", "baselines", "reports"):
        shutil.copytree(ROOT / package, site / package, ignore=kept)
    for path, text in ((hook / "sitecustomize.py", HOOK), (here / "mine.toml", profile())):
        path.parent.mkdir()
        path.write_text(text)
    monkeypatch.delenv("METABENCH_STORE", raising=False)
    monkeypatch.setenv("METABENCH_CACHE", str(tmp_path / "cache"))
    before, bare = files(site), f"{hook}{os.pathsep}{site}"
    methods = ("-m", "maml", "-m", "matching-nets", "-m", "constant")
    ran = metabench(here, "run", "-p", "./mine.toml", *methods, PYTHONPATH=bare)
    assert ran.code == 0, ran.err
    records = Store(here / "reports" / "runs" / "tiny").records()
    assert {record.label for record in records} == {"maml", "matching-nets", "constant"}
    assert {record.status for record in records} == {"ok"}, ran.out
    for command, said in (("show", "constant"), ("report", f"wrote {Path('reports/index.html')}\n")):
        answer = metabench(here, command, "-p", "./mine.toml", PYTHONPATH=str(site))
        assert answer.code == 0, answer.err
        assert said in answer.out
    assert (here / "reports" / "index.html").is_file()
    assert files(site) == before
    absent = subprocess.run(
        [sys.executable, "-c", "import matplotlib"], env={**os.environ, "PYTHONPATH": bare}, capture_output=True
    )
    assert b"No module named 'matplotlib'" in absent.stderr
