"""Jobs in processes of their own: each way to end, really done; their order, and who waits for whom."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from whole_runs import alive, wait_until

from benchmarks.run.isolate import Job, Outcome, process, run

ROOT = Path(__file__).parents[2]

PLUGIN = """
import builtins, os, re, subprocess, sys, threading, time
import torch
from benchmarks.api import Diverged
from benchmarks.errors import MetabenchError, Unavailable

def add(progress, a=1, b=1):
    return {"sum": a + b, "pid": os.getpid(), "home": os.environ.get("METABENCH_TEST")}

def report(progress, count, pause):
    for number in range(count):
        progress({"step": number})
        time.sleep(pause)
    return {}

def raises(progress, kind="KeyError", text="it broke"):
    raise {**vars(builtins), **vars(torch), **globals()}[kind](text)

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

def with_family(progress, pids):
    child = subprocess.Popen(["sleep", "60"])
    with open(pids, "w") as file:
        file.write(f"{os.getpid()} {child.pid}")
    time.sleep(60)

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
        call = (f"isolation_plugin:{function}", arguments)
        return Job(key, call, tmp_path / f"{key}.log", seconds, memory_bytes, after)

    return make


def run_one(job, **settings):
    return run([job], 1, lambda event: None, **settings)[job.key]


def running(command):
    return any(process.info["cmdline"] == command for process in psutil.process_iter(["cmdline"]))


# --- one job ---------------------------------------------------------------------------------------------------------


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
    assert (outcome.status, outcome.reason, outcome.value) == (status, reason, None)
    assert "in raises" in outcome.stderr


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


def test_what_a_function_cannot_do_is_an_error(job):
    assert run_one(job("too_big_a_tensor")).status == "out-of-memory"
    assert "not JSON serializable" in run_one(job("returns_no_plain_value")).reason
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
    counts = {}
    for mode in ("kept", "returned"):
        command = [sys.executable, "-c", code, mode]
        told, counts[mode] = map(int, subprocess.run(command, capture_output=True, check=True, cwd=ROOT).stdout.split())
        if mode == "kept" and not told:
            pytest.skip("this C library has no mallopt")
    assert counts["kept"] < 0.2 * counts["returned"], counts


# --- many jobs -------------------------------------------------------------------------------------------------------


def test_jobs_wait_for_what_they_need_and_for_a_worker(job):
    short = {"count": 1, "pause": 0.1}
    jobs = [job("report", "fit", **short), job("add", "evaluation", after=("fit",))]
    jobs += [job("report", key, **short) for key in ("other", "last")]
    active, most, order = set(), 0, []

    def on_event(event):
        nonlocal most
        if event.kind == "started":
            active.add(event.job.key)
            assert event.job.key != "evaluation" or "fit" in order
        if event.kind == "finished":
            active.discard(event.job.key)
            order.append(event.job.key)
        most = max(most, len(active))

    outcomes = run(jobs, 2, on_event)
    assert {outcome.status for outcome in outcomes.values()} == {"ok"}
    assert sorted(order) == ["evaluation", "fit", "last", "other"]
    assert most == 2


def test_a_failure_is_passed_on_to_those_that_wait_for_it_and_to_no_others(job):
    jobs = [job("raises", "fit"), job("add", "evaluation", after=("fit",)), job("add", "table", after=("evaluation",))]
    events = []
    outcomes = run([*jobs, job("add", "other")], 2, events.append)
    assert outcomes["evaluation"] == Outcome("skipped", "its fit failed: KeyError: 'it broke'", blamed_on="fit")
    assert outcomes["table"].status == "skipped"
    assert outcomes["other"].status == "ok"
    assert {event.job.key for event in events if event.kind == "started"} == {"fit", "other"}
    assert {event.job.key for event in events if event.kind == "finished"} == set(outcomes)


def test_a_job_that_cannot_start_does_not_end_the_run(job, tmp_path):
    (tmp_path / "file").write_text("")
    jobs = [replace(job("add", "first"), log=tmp_path / "file" / "log"), job("add", "other")]
    outcomes = run(jobs, 1, lambda event: None)
    assert outcomes["first"].reason.startswith("its process could not be started")
    assert outcomes["other"].status == "ok"


def test_jobs_of_others_are_asked_about_again_and_their_outcomes_are_taken_over(job):
    start, order = time.monotonic(), []

    def admit(asked):
        if asked.key == "elsewhere":
            return Outcome("diverged", "told by another run")
        return "wait" if asked.key == "busy" and time.monotonic() - start < 0.5 else "start"

    jobs = [job("add", "busy"), job("add", "free"), job("add", "elsewhere"), job("add", "test", after=("elsewhere",))]
    listen = lambda event: order.append(event.job.key) if event.kind == "finished" else None  # noqa: E731
    outcomes = run(jobs, 1, listen, admit=admit)
    assert order[-1] == "busy"
    assert outcomes["busy"].status == outcomes["free"].status == "ok"
    assert outcomes["elsewhere"] == Outcome("diverged", "told by another run")
    assert outcomes["test"].blamed_on == "elsewhere"


@pytest.mark.parametrize("after", ["nothing", "add"])
def test_a_job_cannot_wait_for_what_never_comes(job, after):
    with pytest.raises(ValueError, match="no earlier job"):
        run([job("add", after=(after,))], 1, lambda event: None)


def test_progress_arrives_in_order_and_is_thinned_out(job):
    events = []
    run([job("report", count=60, pause=0.01)], 1, events.append)
    steps = [event.progress["step"] for event in events if event.kind == "progress"]
    assert steps[0] == 0
    assert steps == sorted(set(steps))
    assert 2 <= len(steps) <= 10  # 0.6 s or somewhat more, five per second


def test_an_error_of_the_listener_kills_what_runs(job, tmp_path):
    pids = tmp_path / "pids"

    def on_event(event):
        wait_until(lambda: pids.exists() and len(pids.read_text().split()) == 2)
        raise LookupError("the listener")

    with pytest.raises(LookupError, match="the listener"):
        run([job("with_family", pids=str(pids))], 1, on_event)
    for pid in map(int, pids.read_text().split()):
        wait_until(lambda pid=pid: not alive(pid))
