"""Jobs in processes of their own: each way to end, really done; their order, and who waits for whom."""

import os
import re
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


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """Makes a job that calls a function of `isolation_plugin`."""
    folder = tmp_path_factory.mktemp("jobs")

    def make(function, key=None, seconds=None, memory_bytes=None, after=None, **arguments):
        key = key or function
        call = (f"isolation_plugin:{function}", arguments)
        return Job(key, call, folder / f"{key}.log", seconds, memory_bytes, after)

    return make


# --- one job ---------------------------------------------------------------------------------------------------------

TOKEN = "s3cr3t-0123"
SCARCE = {"memory_bytes": 450_000_000, "seconds": 30}

#: name -> function, arguments and limits, then the status, a pattern of the reason, and one of the log's end
ENDS = {
    "add": ("add", {"a": 2, "b": 3}, "ok", None, "$"),
    "report": ("report", {"count": 60, "pause": 0.01}, "ok", None, "$"),
    "thread": ("leaves_a_thread", {"seconds": 30}, "ok", None, "$"),
    "threads": ("threads", {}, "ok", None, "$"),
    "raise": ("raises", {}, "error", "KeyError: 'it broke'", ".* in raises"),
    "unavailable": ("raises", {"kind": "Unavailable", "text": "no data"}, "skipped", "no data", ".* in raises"),
    "leak": ("raises", {"text": f"key={TOKEN}"}, "error", "KeyError: 'key=<TEST_API_TOKEN>'", ".*key=<TEST_API_TOKEN>"),
    "exit": ("raises", {"kind": "SystemExit", "text": "3"}, "error", "SystemExit: 3", ".* in raises"),
    "tensor": ("too_big_a_tensor", {}, "out-of-memory", "RuntimeError: ", ".* in too_big_a_tensor"),
    "no JSON": ("returns_no_plain_value", {}, "error", ".*not JSON serializable", ".*Traceback"),
    "absent": ("nothing", {}, "error", "AttributeError", ".*Traceback"),
    "shout": ("shout", {}, "error", "ValueError: see above", ".*the end.*ValueError: see above\n$"),
    "hang": ("hang", {"how": "in Python", "seconds": 0.5}, "timeout", "took longer than 0.5 s", "about to.* in hang"),
    "hang in C": ("hang", {"how": "in C", "seconds": 0.5}, "timeout", "took longer than 0.5 s", "about to.* in hang"),
    "exit 3": ("exits", {"code": 3}, "error", "exited with code 3 in the middle", "last words\n$"),
    "SIGKILL": ("dies", {"number": signal.SIGKILL}, "error", r"killed by SIGKILL \(the kernel does this", "$"),
    "SIGSEGV": ("dies", {"number": signal.SIGSEGV}, "error", "killed by SIGSEGV", ".* in dies"),
    "memory": ("allocate", SCARCE, "out-of-memory", "used .* the limit is 0.45 GB", "$"),
    "child": ("allocate_in_a_child", SCARCE, "out-of-memory", "used .* the limit is 0.45 GB", "$"),
}


@pytest.fixture(scope="module")
def ended(job):
    """All of them, run together: the outcomes, the events, and what the children left behind are called."""
    events, marker = [], f"61.{os.getpid()}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("METABENCH_TEST", marker)
        patch.setenv("TEST_API_TOKEN", TOKEN)
        jobs = [job(function, key, **given) for key, (function, given, *_) in ENDS.items()]
        outcomes = run(jobs, 2, events.append, threads=2)
    return outcomes, events, marker


@pytest.mark.fault("S10")
@pytest.mark.parametrize("name", ENDS)
def test_whatever_a_job_does_becomes_an_outcome(ended, name):
    outcome, (*_, status, reason, tail) = ended[0][name], ENDS[name]
    assert outcome.status == status, outcome
    assert outcome.reason is reason is None or re.match(reason, outcome.reason), outcome.reason
    assert re.match(tail, outcome.stderr, re.DOTALL), outcome.stderr
    assert len(outcome.stderr) <= 4000
    assert (outcome.value is not None) == (status == "ok")
    assert TOKEN not in repr(outcome)


def test_results_come_back_from_processes_with_this_environment_and_a_limit_of_threads(ended):
    outcomes, _, marker = ended
    assert outcomes["add"].value["sum"] == 5
    assert outcomes["add"].value["pid"] != os.getpid()
    assert outcomes["add"].value["home"] == marker, "set after the server has started"
    assert outcomes["threads"].value == {"torch": 2, "variable": "2"}


def test_limits_hold(ended, job):
    outcomes, _, marker = ended
    assert all(0.5 <= outcomes[name].seconds < 8 for name in ("hang", "hang in C"))
    assert all(450_000_000 < outcomes[name].peak_bytes < 900_000_000 for name in ("memory", "child"))
    assert outcomes["thread"].seconds < 15, "threads and children that stay behind hold nothing up"
    log = job("shout").log.read_text()
    assert log.startswith("from a C library\n")
    assert len(log) > 50_000, "the log has everything, the outcome its end"
    left = ["sleep", marker]
    wait_until(lambda: not any(found.info["cmdline"] == left for found in psutil.process_iter(["cmdline"])))


def test_progress_arrives_in_order_and_is_thinned_out(ended):
    steps = [event.progress["step"] for event in ended[1] if event.kind == "progress"]
    assert steps[0] == 0
    assert steps == sorted(set(steps))
    assert 2 <= len(steps) <= 10  # 0.6 s or somewhat more, five per second


def test_a_platform_without_fork_server_spawns(job, monkeypatch):
    monkeypatch.setattr(process, "_start_method", lambda: "spawn")
    assert run([job("add", a=2, b=3)], 1, lambda event: None)["add"].value["sum"] == 5


@pytest.mark.fault("S5")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="detached processes can be found on Linux only")
@pytest.mark.parametrize("exit", [False, True])
def test_what_a_job_detaches_ends_with_it_and_a_running_job_goes_on(job, tmp_path, exit):
    pid = tmp_path / "pid"
    jobs = [job("report", "long", count=3, pause=0.3), job("detaches", pid=str(pid), exit=exit)]
    outcomes = run(jobs, 2, lambda event: None)
    assert outcomes["long"].status == "ok"
    assert outcomes["detaches"].status == ("error" if exit else "ok")
    wait_until(lambda: not alive(int(pid.read_text())))


FAULTS = """
import resource, numpy
from benchmarks.execution.memory import keep_freed_memory
def faults():
    numpy.ones(5_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    numpy.ones(5_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(faults(), int(keep_freed_memory()), faults())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="resource counts page faults on Linux")
def test_freed_memory_is_kept_where_the_c_library_can_be_told():
    """The second large block comes from the first one's memory: no page is touched for the first time."""
    answer = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, check=True, cwd=ROOT).stdout.split()
    returned, told, kept = map(int, answer)
    if not told:
        pytest.skip("this C library has no mallopt")
    assert kept < 0.2 * returned


# --- many jobs -------------------------------------------------------------------------------------------------------


def test_jobs_wait_for_what_they_need_and_for_a_worker(job):
    short = {"count": 1, "pause": 0.1}
    jobs = [job("report", "fit", **short), job("add", "evaluation", after="fit")]
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


def test_a_failure_is_passed_on_to_those_that_wait_for_it_and_to_no_others(job, tmp_path):
    (tmp_path / "file").write_text("")
    unstartable = replace(job("add", "unstartable"), log=tmp_path / "file" / "log")
    jobs = [job("raises", "fit"), job("add", "evaluation", after="fit"), job("add", "table", after="evaluation")]
    events = []
    outcomes = run([*jobs, unstartable, job("add", "other")], 2, events.append)
    assert outcomes["evaluation"] == Outcome("skipped", "its fit failed: KeyError: 'it broke'")
    assert outcomes["table"] == Outcome("skipped", f"its fit was skipped: {outcomes['evaluation'].reason}")
    assert outcomes["unstartable"].reason.startswith("its process could not be started")
    assert outcomes["other"].status == "ok"
    assert {event.job.key for event in events if event.kind == "started"} == {"fit", "other"}
    assert {event.job.key for event in events if event.kind == "finished"} == set(outcomes)


@pytest.mark.fault("K4")
def test_jobs_of_others_are_asked_about_again_and_their_outcomes_are_taken_over(job):
    start, order, waited = time.monotonic(), [], 1.5

    def admit(asked):
        if asked.key == "elsewhere":
            return Outcome("diverged", "told by another run")
        return "wait" if asked.key == "busy" and time.monotonic() - start < waited else "start"

    jobs = [
        job("add", "busy", seconds=waited - 0.5),
        job("add", "free"),
        job("add", "elsewhere"),
        job("add", "test", after="elsewhere"),
    ]
    listen = lambda event: order.append(event.job.key) if event.kind == "finished" else None  # noqa: E731
    outcomes = run(jobs, 1, listen, admit=admit)
    assert order[-1] == "busy"
    assert outcomes["busy"].seconds < waited - 0.5, "waiting is not its time"
    assert outcomes["busy"].status == outcomes["free"].status == "ok"
    assert outcomes["elsewhere"] == Outcome("diverged", "told by another run")
    assert outcomes["test"].reason == "its fit failed: told by another run"


@pytest.mark.parametrize("after", ["nothing", "add"])
def test_a_job_cannot_wait_for_what_never_comes(job, after):
    with pytest.raises(ValueError, match="no earlier job"):
        run([job("add", after=after)], 1, lambda event: None)


def test_an_error_of_the_listener_kills_what_runs(job, tmp_path):
    pids = tmp_path / "pids"

    def on_event(event):
        wait_until(lambda: pids.exists() and len(pids.read_text().split()) == 2)
        raise LookupError("the listener")

    with pytest.raises(LookupError, match="the listener"):
        run([job("hang", how="in Python", pids=str(pids))], 1, on_event)
    wait_until(lambda: not any(map(alive, map(int, pids.read_text().split()))))


# --- the end of the parent -------------------------------------------------------------------------------------------

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
    Job(how, ("isolation_plugin:hang", {"pids": str(folder / f"pids {how}"), "how": how}), folder / "log")
    for how in ("in Python", "in C", "detached")
]
try:
    run(jobs, 3, lambda event: None, preload=())
except KeyboardInterrupt:
    print("interrupted")
    sys.exit(130)
"""


@pytest.fixture
def parent(tmp_path):
    """A script of its own that runs three jobs, each with a child process; and the six process ids."""
    (tmp_path / "script.py").write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests" / "helpers")))}
    command = [sys.executable, str(tmp_path / "script.py"), str(tmp_path)]
    script = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True)
    files = [tmp_path / f"pids {how}" for how in ("in Python", "in C", "detached")]
    wait_until(lambda: all(file.exists() and len(file.read_text().split()) == 2 for file in files))
    pids = [int(pid) for file in files for pid in file.read_text().split()]
    yield script, pids
    for pid in (script.pid, *pids):
        if alive(pid):
            os.kill(pid, signal.SIGKILL)
    script.communicate()


@pytest.mark.fault("S5")
def test_children_die_with_their_parent(parent):
    script, pids = parent
    family = psutil.Process(script.pid).children(recursive=True)
    assert all(map(alive, pids))
    script.kill()
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
