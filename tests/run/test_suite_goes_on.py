"""Runs that are killed in the middle or share a store, and stores that are damaged: what was finished stays, and the
same command finishes the rest."""

import shutil
import signal

import numpy as np
import pytest
import torch
from whole_runs import fits_begun, metabench, profile, records, slow_maml, start, wait_until

from benchmarks.records.store import Store

#: logs the beginning of each fit, waits for a file, then fails
FAILS = """
        while not Path("go").exists():
            time.sleep(0.1)
        raise RuntimeError("no way")
"""

LONG = ("run", "--profile", "long.toml", "-m", "./slow.py", "--jobs", "1", "--set", "slow.meta_batch=4")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder outside the checkout with a plug-in and profiles in it."""
    folder = tmp_path_factory.mktemp("user")
    log = folder / "fits.log"
    (folder / "slow.py").write_text(slow_maml(log))
    (folder / "fails.py").write_text(slow_maml(log, "fails").rpartition("        for state")[0] + FAILS)
    (folder / "tiny.toml").write_text(profile())
    (folder / "long.toml").write_text(profile(meta_steps=24).replace("seeds = 1", "seeds = 2"))
    (folder / "endless.toml").write_text(profile(kill_after=900, meta_steps=100_000).replace("seeds = 1", "seeds = 2"))
    (folder / "patient.toml").write_text(profile(kill_after=400, meta_steps=24))
    return folder


def fits_log(folder):
    """The fits that have begun since the last call."""
    found = fits_begun(folder / "fits.log")
    (folder / "fits.log").unlink(missing_ok=True)
    return found


@pytest.fixture(autouse=True)
def a_log_for_each_test(folder):
    yield
    fits_log(folder)


@pytest.fixture(scope="module")
def uninterrupted(folder):
    answer = metabench(folder, *LONG, "--store", "uninterrupted")
    assert answer.code == 0, answer
    assert fits_log(folder) == [(0, 0), (1, 0)]
    return folder / "uninterrupted"


def test_a_killed_run_goes_on_bit_for_bit(folder, here, uninterrupted):
    store = folder / "killed"
    process = start(folder, *LONG, "--store", "killed")
    seeds = {r.key: r.seed for r in records(uninterrupted, "fit").values()}
    second = next(store / "checkpoints" / f"{key}.pt" for key, seed in seeds.items() if seed == 1)
    wait_until(second.exists, 300, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    finished = {path: path.stat().st_mtime_ns for path in (store / "records").iterdir()}
    assert {seed for _, _, seed in records(store)} == {0}

    answer = here(*LONG, "--store", "killed")
    assert answer.code == 0
    assert answer.out.startswith(f"2 cells to run, {len(finished)} finished before")
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    (_, first), (_, second), (seed, step) = fits_log(folder)
    assert (first, second, seed) == (0, 0, 1)
    assert 0 < step < 24
    assert_same_results(store, uninterrupted)
    assert not list((store / "checkpoints").glob("*.pt"))  # half a file may be left


def test_what_a_run_has_not_finished_is_named_while_it_goes_on_and_when_it_was_stopped(folder, here):
    at, begun = ("--store", "unfinished"), folder / "fits.log"
    command = ("run", "--profile", "endless.toml", "-m", "constant,./slow.py", "--seconds", "600", "--jobs", "2", *at)
    run = start(folder, *command)
    made = (folder / "unfinished").glob
    wait_until(lambda: fits_begun(begun) and [*made("checkpoints/*.pt")] and [*made("records/*.json")], 300, run)
    on, waits = "slow on sinusoid-v1/k5 (fit", "slow on sinusoid-v1/k5 (evaluation, seeds 0, 1)"
    for command in (("show",), ("report", "--summary")):
        said = " ".join(here(*command, *at).out.split())
        assert "constant" in said
        at_work, _, waiting = said.partition("a run that goes on has not begun it")
        assert on in at_work.partition("unfinished: a run is at work on it")[2]
        assert waits in waiting or "slow on sinusoid-v1/k5 (fit and evaluation, seeds 0, 1)" in waiting
    assert here("report", *at, "-o", "unfinished.html").code == 0
    page = (folder / "unfinished.html").read_text()
    assert "a run is at work on it" in page
    assert on in page
    run.send_signal(signal.SIGKILL)
    run.communicate()
    said = " ".join(here("show", *at).out.split())
    assert on in said.partition("unfinished: its run was stopped: run the same command again to resume")[2]
    assert here("run", "--profile", "tiny.toml", *at).code == 0
    assert "unfinished" not in here("show", "--profile", "tiny", *at).out.replace("--store unfinished", "")


@pytest.mark.timeout(900)  # it compiles twice, which takes minutes next to other work
@pytest.mark.usefixtures("compiler")
def test_a_killed_fit_with_a_compiled_plan_goes_on_bit_for_bit(folder, here):
    command = ("run", "--profile", "patient.toml", "-m", "./slow.py", "--plan", "compiled")
    command = (*command, "--set", "slow.second_order=false", "--set", "slow.meta_batch=4")
    answer = here(*command, "--store", "compiled-uninterrupted")
    assert answer.code == 0, answer
    store = folder / "compiled-killed"
    process = start(folder, *command, "--store", store.name)
    wait_until(lambda: list(store.glob("checkpoints/*.pt")), 300, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert here(*command, "--store", store.name).code == 0
    (_, first), (_, second), (_, step) = fits_log(folder)
    assert (first, second) == (0, 0)
    assert 0 < step < 24
    (fit,) = records(store, "fit").values()
    assert fit.plan["compiled"]
    assert_same_results(store, folder / "compiled-uninterrupted")


def assert_same_results(store, other):
    """Scores, states and curves, bit for bit; times may differ."""
    one, two = Store(store), Store(other)
    assert records(store).keys() == records(other).keys()
    for name, record in records(store).items():
        same = records(other)[name]
        assert record.ok
        assert record.key == same.key
        assert record.threads == same.threads >= 1
        if record.cell == "evaluation":
            assert [test.summary for test in record.tests] == [test.summary for test in same.tests]
            assert_equal_arrays(one.scores(record), two.scores(same))
            continue
        for model in ("best", "last"):
            first, second = one.state(record)[model], two.state(same)[model]
            assert first["step"] == second["step"]
            for part in ("parameters", "buffers", "moments"):
                assert first[part].keys() == second[part].keys()
                assert all(torch.equal(first[part][name], second[part][name]) for name in first[part])
        assert one.state(record)["last"]["step"] == record.training.meta_steps == 24
        assert len(one.arrays(record)["loss"]) == 24
        assert np.array_equal(one.arrays(record)["loss"], two.arrays(same)["loss"])
        assert untimed(record.training) == untimed(same.training)
        assert len(record.training.curve) == 4


def assert_equal_arrays(one, two):
    assert one.keys() == two.keys() != set()
    assert all(np.array_equal(one[name], two[name]) for name in one)


def untimed(training):
    curve = [{**vars(point), "seconds": 0} for point in training.curve]
    return {**vars(training), "seconds": 0, "pace": None, "curve": curve}


def test_three_runs_in_one_store_share_the_work(folder, uninterrupted):
    runs = [start(folder, *LONG, "--store", "shared") for _ in range(3)]
    answers = [run.communicate(timeout=120) for run in runs]
    assert [run.returncode for run in runs] == [0, 0, 0], answers
    assert sorted(fits_log(folder)) == [(0, 0), (1, 0)]
    assert_same_results(folder / "shared", uninterrupted)


@pytest.mark.fault("K4")
def test_runs_that_began_together_try_a_failing_cell_once(folder):
    command = ("run", "--profile", "long.toml", "-m", "./fails.py", "--jobs", "2", "--store", "failing")
    runs = [start(folder, *command) for _ in range(2)]
    told = [run.stdout.readline() for run in runs]  # they have all begun
    (folder / "go").touch()
    answers = [run.communicate(timeout=120) for run in runs]
    assert told == ["4 cells to run, 0 finished before, 0 skipped\n"] * 2
    assert sorted(fits_log(folder)) == [(0, 0), (1, 0)]
    assert [run.returncode for run in runs] == [1, 1], answers
    found = records(folder / "failing")
    assert {(cell, record.status) for (_, cell, _), record in found.items()} == {
        ("fit", "error"),
        ("evaluation", "skipped"),
    }
    assert all("records in failing; 2 of 4 cells failed\n" in out for out, _ in answers)


@pytest.mark.fault("K4")
def test_runs_of_one_group_try_a_failing_cell_once_whenever_they_begin(folder, here, monkeypatch):
    command = ("run", "--profile", "long.toml", "-m", "./fails.py", "--seeds", "1", "--store", "requeued")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "77")
    (folder / "go").touch()
    for tries, array in ((1, "77"), (1, "77"), (2, "78")):
        monkeypatch.setenv("SLURM_ARRAY_JOB_ID", array)
        assert here(*command).code == 1
        assert len(list((folder / "requeued" / "runs").iterdir())) == (1 if array == "77" else 2)
        log = (folder / "fits.log").read_text().splitlines()
        assert len(log) == tries
    fits_log(folder)


def test_a_damaged_store_is_repaired_by_the_same_command(folder, here, caplog):
    shutil.copytree(folder / "uninterrupted", folder / "damaged")
    run = (*LONG, "--store", "damaged")
    store = folder / "damaged"
    found = records(store)
    truncated = store / "records" / f"{found['slow', 'fit', 0].key}.json"
    truncated.write_bytes(truncated.read_bytes()[:200])
    lost = found["slow", "evaluation", 1].key
    (store / "scores" / f"{lost}.npz").unlink()
    (store / "records" / "notes.txt").write_text("not a record")
    told = [f"{truncated.name}: is truncated", f"{lost}.json: its scores", "notes.txt: is not a record"]
    before = sorted(store.rglob("*"))
    for command in (("show",), ("report", "-o", "damaged.html"), ("export", "damaged.parquet")):
        answer = here(*command, "--store", "damaged")
        assert answer.code == 0
        assert all(line in caplog.text for line in told)
        assert sorted(store.rglob("*")) == before, "what shows moves nothing"
        caplog.clear()
    answer = here(*run)
    assert answer.code == 0
    assert answer.out.startswith("2 cells to run, 2 finished before")
    assert {cell: r.status for cell, r in records(store).items()} == dict.fromkeys(found, "ok")
    assert all(line in caplog.text for line in told[:2])
