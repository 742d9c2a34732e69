"""Jobs in processes of their own: each way to end, really done."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from whole_runs import wait_until

from benchmarks.run.isolate import Job, process, run

ROOT = Path(__file__).parents[2]

PLUGIN = """
import os, re, subprocess, sys, threading, time
import torch
from benchmarks.api import Diverged
from benchmarks.errors import MetabenchError, Unavailable

def add(progress, a, b):
    print("adding")
    return {"sum": a + b, "pid": os.getpid(), "home": os.environ.get("METABENCH_TEST")}

def raises(progress, kind="KeyError", text="it broke"):
    known = {"KeyError": KeyError, "Diverged": Diverged, "MetabenchError": MetabenchError, "Unavailable": Unavailable,
             "MemoryError": MemoryError, "RuntimeError": RuntimeError, "OutOfMemoryError": torch.OutOfMemoryError,
             "SystemExit": SystemExit, "KeyboardInterrupt": KeyboardInterrupt}
    raise known[kind](text)

def nan_loss(progress):
    weight = torch.full((3,), 1e30, requires_grad=True)
    loss = (weight**2).sum() - (weight**2).sum()
    if not torch.isfinite(loss):
        raise Diverged(f"the loss is {loss.item()} at meta-step 1")
    return {}

def too_big_a_tensor(progress):
    torch.empty(2**52)

def hang(progress, how):
    print("about to hang", flush=True)
    if how == "in C":  # never gives the interpreter's lock back
        re.match("(a+)+$", "a" * 80 + "b")
    while True:
        time.sleep(0.01)

def exits(progress, code):
    sys.stderr.write("last words\\n")
    subprocess.Popen(["sleep", "62"])
    os._exit(code)

def dies(progress, number):
    os.kill(os.getpid(), number)
    time.sleep(10)

def allocate(progress):
    kept = []
    while True:
        kept.append(bytearray(20_000_000))
        time.sleep(0.01)

def allocate_in_a_child(progress):
    subprocess.run([sys.executable, "-c", "import time; kept = bytearray(300_000_000); time.sleep(60)"])

def leaves_a_thread(progress):
    subprocess.Popen(["sleep", "61"])
    threading.Thread(target=time.sleep, args=(60,)).start()
    return {"done": True}

def returns_no_plain_value(progress):
    return {"value": object()}

def shout(progress):
    os.system("echo from a C library")
    print("x" * 50_000)
    print("the end", file=sys.stderr)
    raise ValueError("see above")

def threads(progress):
    return {"torch": torch.get_num_threads(), "variable": os.environ.get("OMP_NUM_THREADS")}
"""


@pytest.fixture
def job(tmp_path, monkeypatch):
    """Makes a job that calls a function of the plug-in above."""
    (tmp_path / "isolation_plugin.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)

    def make(function, key=None, seconds=None, memory_bytes=None, after=(), **arguments):
        key = key or function
        return Job(
            key, (f"isolation_plugin:{function}", arguments), tmp_path / f"{key}.log", seconds, memory_bytes, after
        )

    return make


def run_one(job, **settings):
    return run([job], 1, lambda event: None, **settings)[job.key]


def running(command):
    return any(process.info["cmdline"] == command for process in psutil.process_iter(["cmdline"]))


def test_a_result_comes_back_from_another_process(job, monkeypatch):
    monkeypatch.setenv("METABENCH_TEST", "set after the server has started")
    outcome = run_one(job("add", a=2, b=3))
    assert (outcome.status, outcome.reason, outcome.stderr) == ("ok", None, "")
    assert outcome.value["sum"] == 5
    assert outcome.value["pid"] != os.getpid()
    assert outcome.value["home"] == "set after the server has started"


@pytest.mark.parametrize(
    ("kind", "text", "status", "reason"),
    [
        ("KeyError", "it broke", "error", "KeyError: 'it broke'"),
        ("MetabenchError", "unknown rate", "error", "unknown rate"),
        ("MetabenchError", "no graph: CUDA out of memory", "out-of-memory", "no graph: CUDA out of memory"),
        ("Unavailable", "no data here", "skipped", "no data here"),
        ("Diverged", "loss is nan", "diverged", "loss is nan"),
        ("MemoryError", "", "out-of-memory", "MemoryError"),
        ("OutOfMemoryError", "CUDA out of memory.", "out-of-memory", "OutOfMemoryError: CUDA out of memory."),
        ("RuntimeError", "CUDA error: out of memory\nmore", "out-of-memory", "RuntimeError: CUDA error: out of memory"),
        ("RuntimeError", "shape mismatch", "error", "RuntimeError: shape mismatch"),
        ("SystemExit", "3", "error", "SystemExit: 3"),
        ("KeyboardInterrupt", "", "error", "KeyboardInterrupt"),
    ],
)
def test_an_exception_becomes_a_status_and_a_reason(job, kind, text, status, reason):
    outcome = run_one(job("raises", kind=kind, text=text))
    assert (outcome.status, outcome.reason) == (status, reason)
    assert "in raises" in outcome.stderr
    assert outcome.value is None


def test_a_loss_that_is_not_finite_is_divergence(job):
    outcome = run_one(job("nan_loss"))
    assert (outcome.status, outcome.reason) == ("diverged", "the loss is nan at meta-step 1")


def test_a_tensor_that_does_not_fit_is_out_of_memory(job):
    assert run_one(job("too_big_a_tensor")).status == "out-of-memory"


@pytest.mark.parametrize("how", ["in Python", "in C"])
def test_a_hang_ends_at_its_time_limit_and_shows_where(job, how):
    outcome = run_one(job("hang", seconds=0.5, how=how))
    assert (outcome.status, outcome.reason) == ("timeout", "took longer than 0.5 s")
    assert 0.5 <= outcome.seconds < 8
    assert "about to hang" in outcome.stderr
    assert "in hang" in outcome.stderr


@pytest.mark.parametrize("code", [0, 3])
def test_an_exit_in_the_middle_is_an_error(job, code):
    outcome = run_one(job("exits", code=code))
    assert (outcome.status, outcome.reason) == ("error", f"exited with code {code} in the middle")
    assert outcome.stderr == "last words\n"
    wait_until(lambda: not running(["sleep", "62"]))


@pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV", "SIGTERM"])
def test_a_signal_is_an_error_with_its_name(job, name):
    outcome = run_one(job("dies", number=int(getattr(signal, name))))
    assert outcome.status == "error"
    assert outcome.reason.startswith(f"killed by {name}")


@pytest.mark.parametrize("function", ["allocate", "allocate_in_a_child"])
def test_memory_is_watched_from_outside(job, function):
    outcome = run_one(job(function, memory_bytes=450_000_000, seconds=30))
    assert outcome.status == "out-of-memory"
    assert outcome.reason.endswith("the limit is 0.45 GB")
    assert 450_000_000 < outcome.peak_bytes < 900_000_000


def test_what_is_no_plain_value_is_an_error(job):
    outcome = run_one(job("returns_no_plain_value"))
    assert outcome.status == "error"
    assert "not JSON serializable" in outcome.reason


def test_an_unknown_function_is_an_error(job):
    assert run_one(job("nothing")).reason.startswith("AttributeError")


def test_threads_and_children_that_stay_behind_hold_nothing_up(job):
    outcome = run_one(job("leaves_a_thread", seconds=30))
    assert outcome.value == {"done": True}
    assert outcome.seconds < 15
    wait_until(lambda: not running(["sleep", "61"]))


def test_the_log_has_everything_and_the_outcome_its_end(job, capfd):
    shouting = job("shout")
    outcome = run_one(shouting)
    log = shouting.log.read_text()
    assert "from a C library" in log
    assert len(log) > 50_000
    assert "from a C library" not in outcome.stderr
    assert len(outcome.stderr) <= 4000
    assert outcome.stderr.rstrip().endswith("ValueError: see above")
    assert "the end" in outcome.stderr
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_are_limited(job, threads):
    assert run_one(job("threads"), threads=threads).value == {"torch": threads, "variable": str(threads)}


def test_a_platform_without_fork_server_spawns(job, monkeypatch):
    monkeypatch.setattr(process, "_start_method", lambda: "spawn")
    assert run_one(job("add", a=2, b=3)).value["sum"] == 5
    assert run_one(job("exits", code=3)).reason == "exited with code 3 in the middle"


def test_freed_memory_is_kept_where_the_c_library_can_be_told():
    """The second large block comes from the first one's memory: no page is touched for the first time."""
    if not sys.platform.startswith("linux"):
        pytest.skip("resource counts page faults on Linux")
    code = (
        "import resource, sys, numpy\n"
        "from benchmarks.run.isolate.child import keep_freed_memory\n"
        "told = keep_freed_memory() if sys.argv[1] == 'kept' else False\n"
        "numpy.ones(5_000_000)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "numpy.ones(5_000_000)\n"
        "print(int(told), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)\n"
    )
    command = [sys.executable, "-c", code]
    counts = {}
    for mode in ("kept", "returned"):
        printed = subprocess.run([*command, mode], capture_output=True, text=True, check=True, cwd=ROOT).stdout.split()
        counts[mode] = int(printed[1])
        if mode == "kept" and printed[0] == "0":
            pytest.skip("this C library has no mallopt")
    assert counts["kept"] < 0.2 * counts["returned"], counts
