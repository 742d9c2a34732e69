"""`python -m benchmarks` runs from a checkout with nothing but torch, numpy, pandas, pyarrow, typer and rich: a machine
with a GPU is often one on which nothing can be installed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ABSENT = "psutil scipy seaborn matplotlib jinja2 pooch PIL gymnasium mujoco learn2learn tqdm requests gym torchvision"
HOOK = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {ABSENT.split()!r}:
            raise ModuleNotFoundError("No module named " + repr(name))
sys.meta_path.insert(0, Absent())
"""


@pytest.fixture
def bare(tmp_path):
    """The environment of a Python that lacks every other package; processes forked from it lack them too."""
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(HOOK)
    return os.environ | {"PYTHONPATH": f"{tmp_path / 'hook'}{os.pathsep}{ROOT}", "METABENCH_CACHE": str(tmp_path)}


def test_a_run_needs_nothing_else(bare, tmp_path):
    store = tmp_path / "store"
    command = [sys.executable, "-m", "benchmarks", "run", "--profile", "smoke", "-t", "sinusoid/k10"]
    command += ["-m", "maml", "-m", "matching-nets", "-m", "constant", "--store", str(store)]
    done = subprocess.run(command, env=bare, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    records = [json.loads(path.read_text()) for path in (store / "records").glob("*.json")]
    assert len(records) == 6
    assert {record["status"] for record in records} == {"ok"}, done.stdout


def test_what_is_absent_is_absent(bare):
    code = "import matplotlib"
    done = subprocess.run([sys.executable, "-c", code], env=bare, capture_output=True, text=True, check=False)
    assert "No module named 'matplotlib'" in done.stderr
