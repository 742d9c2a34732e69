"""Robots without MuJoCo are skipped with a reason while other tasks run; a failed simulation becomes a record."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import registry
from benchmarks.environments import simulators
from benchmarks.errors import Unavailable

ROOT = Path(__file__).parents[2]


def run(folder, *arguments, shadow=None):
    """``metabench run`` in a folder, and its records by task; shadow: a module that fails to import."""
    paths = [str(ROOT)]
    if shadow:
        (folder / "shadow").mkdir()
        (folder / "shadow" / f"{shadow}.py").write_text(f"raise ModuleNotFoundError('No module named {shadow!r}')")
        paths.insert(0, str(folder / "shadow"))
    command = [sys.executable, "-m", "benchmarks", "run", "--profile", "smoke", "--store", str(folder / "store")]
    work = folder / "work"
    work.mkdir()
    done = subprocess.run(
        [*command, "-m", "random-policy", *arguments],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        cwd=work,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    records = [json.loads(path.read_text()) for path in (folder / "store" / "records").glob("*.json")]
    assert list(work.iterdir()) == []
    return done, {record["task"]["id"].partition("-v")[0]: record for record in records}


def test_cells_of_robots_are_skipped_and_the_others_run(tmp_path):
    tasks = ("-t", "half-cheetah-direction/quick", "-t", "navigation-2d/quick")
    done, records = run(tmp_path, *tasks, shadow="mujoco")
    assert done.returncode == 0, done.stdout + done.stderr
    assert records["navigation-2d"]["status"] == "ok"
    assert records["half-cheetah-direction"]["status"] == "skipped"
    assert "MuJoCo can't be imported" in records["half-cheetah-direction"]["reason"]
    assert "pip install mujoco" in records["half-cheetah-direction"]["reason"]
    assert "Traceback" not in done.stdout + done.stderr


def test_an_unstable_simulation_is_a_record_with_a_reason(tmp_path, command_line):
    pytest.importorskip("mujoco")
    tasks = ("-t", "half-cheetah-direction/quick", "--set", "half-cheetah-direction.reset_noise=1e6")
    answer = command_line("run", "--profile", "smoke", "-m", "random-policy", "--store", tmp_path, *tasks)
    (record,) = (json.loads(path.read_text()) for path in (tmp_path / "records").glob("*.json"))
    assert record["status"] == "diverged"
    assert "half-cheetah: the simulation has become unstable in step" in record["reason"]
    assert "WARNING: " not in answer.out + answer.err


@pytest.mark.parametrize("missing", ["mujoco", "gymnasium"])
def test_what_is_missing_is_one_line(missing, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.setattr(simulators.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(Unavailable, match=f"pip install {missing}") as error:
        registry.build_task("ant-velocity/quick").prepare()
    assert "\n" not in str(error.value)


def test_an_old_mujoco_is_not_used(monkeypatch):
    mujoco = pytest.importorskip("mujoco")
    monkeypatch.setattr(mujoco, "__version__", "3.10.2")
    with pytest.raises(Unavailable, match=r"MuJoCo 3\.10\.2 is installed, 4\.0 or newer"):
        registry.build_task("ant-velocity/quick").prepare()
