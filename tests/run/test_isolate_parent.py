"""Nothing that a run has started outlives the process that started it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from whole_runs import alive, wait_until

ROOT = Path(__file__).parents[2]

PLUGIN = """
import os, re, subprocess, time

def with_family(progress, pids, how):
    child = subprocess.Popen(["sleep", "60"])
    with open(pids, "w") as file:
        file.write(f"{os.getpid()} {child.pid}")
    if how == "in C":  # never gives the interpreter's lock back
        re.match("(a+)+$", "a" * 80 + "b")
    time.sleep(60)
"""

# a script without a guard: were it imported by its children, it would write to "started" more than once
SCRIPT = """
import signal
import sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts what runs in the background without it
from benchmarks.run.isolate import Job, run
folder = Path(sys.argv[1])
with (folder / "started").open("a") as file:
    file.write("x")
jobs = [
    Job(how, ("isolation_plugin:with_family", {"pids": str(folder / f"pids {how}"), "how": how}), folder / "log")
    for how in ("in Python", "in C")
]
try:
    run(jobs, 2, lambda event: None)
except KeyboardInterrupt:
    print("interrupted")
    sys.exit(130)
"""


@pytest.fixture
def parent(tmp_path):
    """A script of its own that runs two jobs, each with a child process; and the four process ids."""
    (tmp_path / "isolation_plugin.py").write_text(PLUGIN)
    (tmp_path / "script.py").write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(tmp_path)))}
    command = [sys.executable, str(tmp_path / "script.py"), str(tmp_path)]
    script = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True)
    files = [tmp_path / "pids in Python", tmp_path / "pids in C"]
    wait_until(lambda: all(file.exists() and len(file.read_text().split()) == 2 for file in files))
    pids = [int(pid) for file in files for pid in file.read_text().split()]
    yield script, pids
    for pid in (script.pid, *pids):
        if alive(pid):
            os.kill(pid, signal.SIGKILL)
    script.communicate()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_children_die_with_their_parent(parent, number):
    script, pids = parent
    family = psutil.Process(script.pid).children(recursive=True)
    assert all(map(alive, pids))
    script.send_signal(number)
    script.wait()
    wait_until(lambda: not any(map(alive, pids)))
    wait_until(lambda: not any(alive(helper.pid) for helper in family))  # the fork server goes too


def test_an_interrupt_kills_the_children_and_is_passed_on(parent, tmp_path):
    script, pids = parent
    os.killpg(script.pid, signal.SIGINT)  # as a terminal does it: the whole group
    assert script.communicate(timeout=10)[0] == "interrupted\n"
    assert script.returncode == 130
    assert not any(map(alive, pids))
    assert (tmp_path / "started").read_text() == "x"
