"""Clocks count what they should, peaks are seen and forgotten, and a fingerprint stays the same."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import clock, machine
from benchmarks.run import schedule

ROOT = Path(__file__).parents[1]


def test_a_clock_counts_only_what_is_inside_and_passes_errors_on(monkeypatch):
    now = iter([0.0, 1.0, 10.0, 12.0, 20.0, 23.0])
    monkeypatch.setattr(clock.time, "perf_counter", lambda: next(now))
    watch = clock.Clock()
    for _ in range(2):
        with watch:
            pass
    with pytest.raises(ZeroDivisionError), watch:
        _ = 1 / 0
    assert watch.laps == [1.0, 2.0, 3.0]
    assert watch.total == 6.0


def test_a_gpu_is_waited_for_at_both_ends(monkeypatch):
    calls = []
    monkeypatch.setattr(torch.cuda, "synchronize", calls.append)
    with clock.Clock("cuda:0"):
        assert calls == ["cuda:0"]
    assert calls == ["cuda:0"] * 2
    with clock.Clock("cpu"):
        pass
    assert len(calls) == 2


def test_peak_memory_is_what_was_used_at_once_since_the_start():
    """In a process of its own: the C library of this one may hold freed memory of other tests, which is resident."""
    code = """
from benchmarks import clock
before = bytearray(200_000_000)
del before
peak = clock.PeakMemory()
first = bytearray(60_000_000)
del first
second = bytearray(80_000_000)
del second
print(peak.bytes())
"""
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert 75e6 < int(answer.stdout) < 120e6


def test_resident_memory_of_another_process():
    code = "kept = bytearray(100_000_000); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        assert 100e6 < clock.resident_bytes(child.pid) < 150e6
        assert child.pid in clock.descendants(os.getpid())
        child.communicate(b"\n")
    assert clock.resident_bytes(child.pid) == 0
    assert clock.descendants(child.pid) == []


def test_facts_are_this_machines_and_its_id_ignores_what_changes_while_it_runs(monkeypatch):
    facts = machine.fingerprint()
    assert facts["logical_cores"] == os.cpu_count()
    assert facts["memory_gib"] > 0
    assert facts["gpu"] is None
    assert "GHz" not in facts["cpu"]
    assert machine.versions()["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    monkeypatch.setenv("OMP_NUM_THREADS", "17")
    assert machine.fingerprint()["threads"]["OMP_NUM_THREADS"] == "17"
    monkeypatch.setattr(machine.platform, "platform", lambda: "another kernel")
    assert machine.fingerprint()["id"] == facts["id"]
    monkeypatch.setattr(machine, "_cpu_model", lambda: "another processor")
    assert machine.fingerprint()["id"] != facts["id"]


def test_measuring_a_cpu_imports_no_torch():
    code = (
        "import sys; from pathlib import Path; from benchmarks import clock as c, machine as m; m.fingerprint(); "
        "m.versions(); m.git_state(Path('.')); c.PeakMemory().bytes(); c.Clock().__enter__(); "
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_git_state(tmp_path, monkeypatch):
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "METABENCH_COMMIT"):
        monkeypatch.delenv(name, raising=False)

    def git(*words):
        identity = ("-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false")
        done = subprocess.run(("git", *identity, *words), cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert machine.git_state(tmp_path) is None
    git("init")
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / ".gitignore").write_text("installed/\n")
    git("add", ".")
    git("commit", "-m", "first")
    commit = git("rev-parse", "HEAD")
    assert machine.git_state(tmp_path) == {"commit": commit, "dirty": False}
    (tmp_path / "installed").mkdir()
    assert machine.git_state(tmp_path / "installed") is None
    (tmp_path / "a.txt").write_text("two")
    assert machine.git_state(tmp_path) == {"commit": commit, "dirty": True}
    assert machine.git_state(tmp_path / "absent") is None
    monkeypatch.setenv("METABENCH_COMMIT", "abc")
    assert machine.git_state(tmp_path / "absent") == {"commit": "abc", "dirty": False}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu():
    peak = clock.PeakMemory("cuda:0")
    watch = clock.Clock("cuda:0")
    with watch:
        a = torch.ones(4096, 4096, device="cuda:0")
        for _ in range(20):
            a = a @ a / 4096
    assert watch.total > 20 * 2 * 4096**3 / 1e15  # faster than that no device is
    assert 2 * 4096**2 * 4 <= peak.bytes() < 10 * 4096**2 * 4
    facts = machine.fingerprint("cuda:0")
    assert facts["gpu"]["name"]
    assert facts["gpu"]["driver"]
    assert facts["id"] != machine.fingerprint()["id"]


def write_control_groups(system, groups, files):
    """A made-up system whose process is in these control groups, with these files of limits."""
    (system / "proc" / "self").mkdir(parents=True)
    (system / "proc" / "self" / "cgroup").write_text(groups)
    for name, text in files.items():
        path = system / "sys" / "fs" / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")


@pytest.mark.fault("E8")
@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/a/b\n", {"a/memory.max": "4000", "a/b/memory.max": "max"}, [4000]),
        ("0::/a/b\n", {"a/memory.max": "4000", "a/b/memory.max": "3000"}, [3000, 4000]),
        ("0::/elsewhere/c\n", {"memory.max": "5000"}, [5000]),  # the container's own root
        ("0::/../x\n", {"memory.max": "5000"}, [5000]),
        ("9:name=systemd:/\n4:cpu,memory:/a\n0::/\n", {"memory/a/memory.limit_in_bytes": "7000"}, [7000]),
        ("4:memory:/docker/1\n", {"memory/memory.limit_in_bytes": "8000"}, [8000]),
        ("4:memory:/\n", {}, []),
        ("nonsense\n", {}, []),
    ],
)
def test_the_memory_limit_of_a_container_is_seen(tmp_path, groups, files, expected):
    write_control_groups(tmp_path, groups, files)
    assert list(machine._control_group_limits(tmp_path)) == expected


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/a/b\n", {"a/cpu.max": "150000 100000", "a/b/cpu.max": "max 100000"}, [2]),
        ("4:cpu,cpuacct:/a\n0::/\n", {"cpu/a/cpu.cfs_quota_us": "300000", "cpu/a/cpu.cfs_period_us": "100000"}, [3]),
        ("4:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, []),
    ],
)
def test_the_cores_of_a_container_are_seen(tmp_path, monkeypatch, groups, files, expected):
    write_control_groups(tmp_path, groups, files)
    found = list(machine._control_group_cores(tmp_path))
    assert found == expected
    monkeypatch.setattr(machine, "_control_group_cores", lambda: iter([1, *found]))
    assert machine.usable_cores() == 1


@pytest.mark.fault("E8")
def test_a_run_takes_no_more_memory_than_its_container_has(monkeypatch):
    monkeypatch.setattr(machine, "_control_group_limits", lambda: iter([10**9, 2 * 10**9]))
    assert machine.usable_memory() == 10**9
    assert schedule.Machine.default("cpu", jobs=2).memory_bytes == 0.4e9
    monkeypatch.setattr(machine, "_control_group_limits", lambda: iter([2**63 - 4096]))
    assert machine.usable_memory() == machine._physical_memory()


@pytest.mark.fault("E2")
def test_text_of_the_system_is_read_in_any_encoding():
    said = "import sys; sys.stdout.buffer.write(bytes([107, 195, 164, 255]))"
    program = (
        f"import sys; from benchmarks import machine as m; print(ascii(m._output(sys.executable, '-c', {said!r})))"
    )
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env={**os.environ, **ascii_only}, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("'k\\xe4\\ufffd'\n", "")
