"""Many jobs: order, waiting for each other, progress, and a failure that stays where it belongs."""

import time
from dataclasses import replace

import pytest
from whole_runs import alive, wait_until

from benchmarks.run.isolate import Job, run

PLUGIN = """
import os, subprocess, time

def add(progress, a, b):
    return {"sum": a + b}

def report(progress, count, pause):
    for number in range(count):
        progress({"step": number})
        time.sleep(pause)
    return {}

def raises(progress):
    raise KeyError("it broke")

def with_family(progress, pids):
    child = subprocess.Popen(["sleep", "60"])
    with open(pids, "w") as file:
        file.write(f"{os.getpid()} {child.pid}")
    time.sleep(60)
"""


@pytest.fixture
def job(tmp_path, monkeypatch):
    """Makes a job that calls a function of the plug-in above."""
    (tmp_path / "isolation_plugin_many.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)

    def make(function, key=None, seconds=None, memory_bytes=None, after=(), **arguments):
        key = key or function
        return Job(
            key, (f"isolation_plugin_many:{function}", arguments), tmp_path / f"{key}.log", seconds, memory_bytes, after
        )

    return make


def run_one(job, **settings):
    return run([job], 1, lambda event: None, **settings)[job.key]


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


def test_a_job_that_cannot_start_does_not_end_the_run(job, tmp_path):
    (tmp_path / "file").write_text("")
    jobs = [replace(job("add", key="first"), log=tmp_path / "file" / "log"), job("add", key="other", a=1, b=1)]
    outcomes = run(jobs, 1, lambda event: None)
    assert outcomes["first"].reason.startswith("its process could not be started")
    assert outcomes["other"].status == "ok"


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
    with pytest.raises(ValueError, match="no earlier job"):
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
        wait_until(lambda pid=pid: not alive(pid))
