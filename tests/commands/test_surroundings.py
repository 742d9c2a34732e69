"""Commands where a library is set up wrongly or the disk is full: one line, and the store stays sound."""

import contextlib
import os
import resource
import subprocess
import sys

import made_up_records
import pytest
from whole_runs import ROOT, metabench, profile, start

from benchmarks.records.store import Store


@pytest.fixture
def folder(tmp_path):
    return tmp_path


@pytest.mark.fault("E7")
def test_a_library_that_mujoco_does_not_know_is_a_mistake(folder):
    pytest.importorskip("mujoco")
    command = ("run", "--profile", "smoke", "--store", "store", "-t", "half-cheetah-direction/quick")
    answer = metabench(folder, *command, "-m", "random-policy", MUJOCO_GL="bogus")
    assert (answer.code, answer.out) == (2, "")
    (line,) = answer.err.splitlines()
    assert "MuJoCo can't be imported with MUJOCO_GL=bogus; known: egl, osmesa, glfw, disable" in line
    assert "pip" not in line
    assert not (folder / "store").exists()


@pytest.fixture
def small_disk():
    """A context in which files of this process take only this many bytes, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    @contextlib.contextmanager
    def limited(most):
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limited


@pytest.mark.fault("E5", "S6")
@pytest.mark.parametrize(
    ("bytes_left", "command"),
    [
        (300, ("keep", "copies", "--store", "whole")),
        (300, ("merge", "whole", "--into", "copies")),
        (3000, ("report", "--store", "whole", "-o", "page.html")),
        (3000, ("report", "--store", "whole", "-o", "page.html", "--figures", "figures")),
        (300, ("episodes", "sinusoid/k5", "-n", "5", "-o", "list.parquet")),
        (300, ("export", "scores.parquet", "--store", "whole")),
    ],
)
def test_a_full_disk_is_one_line_and_leaves_no_half_file(here, folder, small_disk, bytes_left, command):
    (folder / "tiny.toml").write_text(profile())
    made_up_records.Maker(folder / "whole").evaluation("maml", made_up_records.SINUSOID)
    with small_disk(bytes_left):
        answer = here(*command)
    assert answer.code == 2, answer
    (line,) = answer.err.splitlines()
    assert line.startswith("metabench: ")
    assert "File too large" in line
    left = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert not [path for path in left if path.suffix in (".tmp", ".parquet", ".html") or path.name.startswith(".")]
    for name in ("whole", "copies"):
        store = Store(folder / name)
        assert len(store.records()) == (name == "whole")
        assert store.problems == []


@pytest.mark.fault("E5", "S6")
def test_a_run_on_a_full_disk_ends_in_one_line_and_goes_on_later(here, folder):
    (folder / "tiny.toml").write_text(profile())
    command = ("run", "--profile", "./tiny.toml", "-m", "maml", "--store", "store")
    limited = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (900, -1)); "
        "from benchmarks.__main__ import main; main()"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = [sys.executable, "-c", limited, *command]
    done = subprocess.run(process, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2, done
    (line,) = done.stderr.splitlines()
    assert line.startswith("metabench: store/")
    assert "File too large" in line
    assert Store(folder / "store").records() == []
    assert here(*command).code == 0
    store = Store(folder / "store")
    assert len(store.records()) == 2
    assert store.problems == []


def test_a_reader_that_leaves_does_not_end_a_run(folder):
    (folder / "tiny.toml").write_text(profile())
    process = start(folder, "run", "--profile", "tiny.toml", "--store", "store")
    process.stdout.readline()
    process.stdout.close()
    assert (process.wait(timeout=400), process.stderr.read()) == (0, "")
    process.stderr.close()
    assert [record.status for record in Store(folder / "store").records()] == ["ok", "ok"]
    process = start(folder, "show", "--store", "store")
    process.stdout.close()
    assert (process.wait(timeout=400), process.stderr.read()) == (0, "")
    process.stderr.close()


@pytest.mark.fault("E5")
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
@pytest.mark.parametrize("command", ["list", "--help"])
def test_output_onto_a_full_disk_is_one_line(here, folder, command):
    here(command)  # so that the catalogue is in its cache
    line = [sys.executable, "-m", "benchmarks", command]
    with open("/dev/full", "w") as full:
        where = {"cwd": folder, "env": {**os.environ, "PYTHONPATH": str(ROOT)}}
        done = subprocess.run(line, stdout=full, stderr=subprocess.PIPE, text=True, check=False, **where)
    assert done.returncode == 2
    assert done.stderr == "metabench: No space left on device (while writing the output)\n"
