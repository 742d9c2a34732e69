"""Jobs in processes of their own: each way to fail, really done, and nothing that outlives its parent."""

import os
import signal
import time

import psutil
import pytest

from benchmarks import process
from benchmarks.isolate import Job, run

PLUGIN = """
import os, re, signal, subprocess, sys, threading, time
from benchmarks.errors import MetabenchError, Unavailable

def add(progress, a, b):
    print("adding")
    return {"sum": a + b, "pid": os.getpid(), "home": os.environ.get("METABENCH_TEST")}

def report(progress, count, pause):
    for number in range(count):
        progress({"step": number})
        time.sleep(pause)
    return {}

def raises(progress, kind="KeyError", text="it broke"):
    from benchmarks.api import Diverged
    import torch
    known = {"KeyError": KeyError, "Diverged": Diverged, "MetabenchError": MetabenchError, "Unavailable": Unavailable,
             "MemoryError": MemoryError, "RuntimeError": RuntimeError, "OutOfMemoryError": torch.OutOfMemoryError,
             "SystemExit": SystemExit, "KeyboardInterrupt": KeyboardInterrupt}
    raise known[kind](text)

def nan_loss(progress):
    import torch
    from benchmarks.api import Diverged
    weight = torch.full((3,), 1e30, requires_grad=True)
    loss = (weight**2).sum() - (weight**2).sum()
    if not torch.isfinite(loss):
        raise Diverged(f"the loss is {loss.item()} at meta-step 1")
    return {}

def too_big_a_tensor(progress):
    import torch
    torch.empty(2**52)

def hang(progress, how):
    print("about to hang", flush=True)
    if how == "in C":  # never gives the interpreter's lock back
        re.match("(a+)+$", "a" * 80 + "b")
    while True:
        time.sleep(0.01)

def exits(progress, code):
    sys.stderr.write("last words\\n")
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

def with_family(progress, pids, how="in Python"):
    child = subprocess.Popen(["sleep", "60"])
    with open(pids, "w") as file:
        file.write(f"{os.getpid()} {child.pid}")
    hang(progress, how)

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
    import torch
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


def wait_until(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.02)


def alive(pid):
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


# --- how a job can end -----------------------------------------------------------------------------------------------


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
    assert 0.5 <= outcome.seconds < 2.0
    assert "about to hang" in outcome.stderr
    assert "in hang" in outcome.stderr


@pytest.mark.parametrize("code", [0, 3])
def test_an_exit_in_the_middle_is_an_error(job, code):
    outcome = run_one(job("exits", code=code))
    assert (outcome.status, outcome.reason) == ("error", f"exited with code {code} in the middle")
    assert outcome.stderr == "last words\n"


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
    assert outcome.seconds < 5
    assert not any(p.info["cmdline"] == ["sleep", "61"] for p in psutil.process_iter(["cmdline"]))


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


# --- many jobs -------------------------------------------------------------------------------------------------------


def test_jobs_wait_for_what_they_need_and_for_a_worker(job):
    jobs = [
        job("report", key="fit", count=1, pause=0.2),
        job("add", key="evaluation", after=("fit",), a=1, b=1),
        job("report", key="other", count=1, pause=0.1),
        job("report", key="last", count=1, pause=0.1),
    ]
    running, most, order = set(), 0, []

    def on_event(event):
        nonlocal most
        if event.kind == "started":
            running.add(event.job.key)
            if event.job.key == "evaluation":
                assert "fit" in order
        if event.kind == "finished":
            running.discard(event.job.key)
            order.append(event.job.key)
        most = max(most, len(running))

    outcomes = run(jobs, 2, on_event)
    assert {outcome.status for outcome in outcomes.values()} == {"ok"}
    assert sorted(order) == ["evaluation", "fit", "last", "other"]
    assert most == 2


def test_a_failure_is_passed_on_to_those_that_wait_for_it_and_to_nobody_else(job):
    jobs = [
        job("raises", key="fit"),
        job("add", key="evaluation", after=("fit",), a=1, b=1),
        job("add", key="table", after=("evaluation",), a=1, b=1),
        job("add", key="other", a=1, b=1),
    ]
    events = []
    outcomes = run(jobs, 2, events.append)
    assert outcomes["evaluation"].status == "skipped"
    assert outcomes["evaluation"].reason == "its fit failed: KeyError: 'it broke'"
    assert outcomes["evaluation"].blamed_on == "fit"
    assert outcomes["table"].status == "skipped"
    assert outcomes["other"].status == "ok"
    assert {event.job.key for event in events if event.kind == "started"} == {"fit", "other"}
    assert {event.job.key for event in events if event.kind == "finished"} == set(outcomes)


def test_jobs_that_somebody_else_does_are_asked_about_again(job):
    start = time.monotonic()

    def admit(asked):
        if asked.key == "done elsewhere":
            return "done"
        return "wait" if asked.key == "busy" and time.monotonic() - start < 0.5 else "start"

    order = []
    outcomes = run(
        [job("add", key="busy", a=1, b=1), job("add", key="free", a=1, b=1), job("add", key="done elsewhere")],
        1,
        lambda event: order.append(event.job.key) if event.kind == "finished" else None,
        admit=admit,
    )
    assert order[-1] == "busy"
    assert [outcomes[key].status for key in ("busy", "free", "done elsewhere")] == ["ok"] * 3
    assert outcomes["done elsewhere"].value is None


@pytest.mark.parametrize("after", ["nothing", "add"])
def test_a_job_cannot_wait_for_what_never_comes(job, after):
    with pytest.raises(ValueError, match="no job before it"):
        run([job("add", after=(after,), a=1, b=1)], 1, lambda event: None)


def test_progress_arrives_in_order_and_is_thinned_out(job):
    steps = []
    run(
        [job("report", count=60, pause=0.01)],
        1,
        lambda event: steps.append(event.progress["step"]) if event.kind == "progress" else None,
    )
    assert steps[0] == 0
    assert steps == sorted(set(steps))
    assert 2 <= len(steps) <= 10  # 0.6 s or somewhat more, five per second


def test_a_job_costs_well_under_half_a_second(job):
    run_one(job("add", key="warm", a=1, b=1))
    start = time.monotonic()
    jobs = [job("add", key=str(number), a=1, b=1) for number in range(8)]
    assert len(run(jobs, 1, lambda event: None)) == 8
    assert (time.monotonic() - start) / 8 < 0.5


def test_an_error_of_the_listener_kills_what_runs(job, tmp_path):
    pids = tmp_path / "pids"

    def on_event(event):
        wait_until(lambda: pids.exists() and len(pids.read_text().split()) == 2)
        raise LookupError("the listener")

    with pytest.raises(LookupError, match="the listener"):
        run([job("with_family", pids=str(pids))], 1, on_event)
    for pid in map(int, pids.read_text().split()):
        wait_until(lambda pid=pid: not alive(pid), 2.0)
