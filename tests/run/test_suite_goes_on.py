"""Runs that are killed in the middle, that share a store, and stores that are damaged: nothing that was finished is
lost, and the same command goes on."""

import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from whole_runs import metabench, profile, records, start, wait_until

from benchmarks.records.store import Store

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder outside the checkout with a plug-in and profiles in it."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "slow.py").write_text(SLOW)
    (folder / "tiny.toml").write_text(profile())
    (folder / "long.toml").write_text(profile(meta_steps=24))
    return folder


# --- a run that is killed --------------------------------------------------------------------------------------------

#: MAML, slowed down, which notes where each of its fits begins and keeps a checkpoint every few meta-steps
SLOW = """
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.run import fitting
from benchmarks.registry import register_method
from maml.maml import MAML

fitting.CHECKPOINT_EVERY = 0.1


@register_method("slow")
@dataclass(frozen=True)
class Slow(MAML):
    '''MAML, slowed down.'''

    def fit(self, tasks, seed, start=None):
        with Path("fits.log").open("a") as file:
            file.write(f"{seed} from {start.step if start else 0}\\n")
        for state in super().fit(tasks, seed, start):
            time.sleep(0.04)
            yield state
"""

LONG = ("run", "--profile", "long.toml", "-m", "./slow.py", "--seeds", "2", "--jobs", "1", "--set", "slow.meta_batch=4")


def fits_log(folder):
    path = folder / "fits.log"
    lines = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return [tuple(map(int, line.split(" from "))) for line in lines]


@pytest.fixture(scope="module")
def uninterrupted(folder):
    answer = metabench(folder, *LONG, "--store", "uninterrupted")
    assert answer.code == 0, answer
    assert fits_log(folder) == [(0, 0), (1, 0)]
    return folder / "uninterrupted"


def test_a_killed_run_goes_on_bit_for_bit(folder, uninterrupted):
    store = folder / "killed"
    process = start(folder, *LONG, "--store", "killed")
    seeds = {r["key"]: seed for (_, cell, seed), r in records(uninterrupted).items() if cell == "fit"}
    second = next(store / "checkpoints" / f"{key}.pt" for key, seed in seeds.items() if seed == 1)
    wait_until(second.exists, 60, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    finished = {path: path.stat().st_mtime_ns for path in (store / "records").iterdir()}
    assert {seed for _, _, seed in records(store)} == {0}

    answer = metabench(folder, *LONG, "--store", "killed")
    assert answer.code == 0
    assert answer.out.startswith(f"2 cells to run, {len(finished)} finished before")
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    (_, first), (_, second), (seed, step) = fits_log(folder)
    assert (first, second, seed) == (0, 0, 1)
    assert 0 < step < 24
    assert_same_results(store, uninterrupted)
    assert not list((store / "checkpoints").iterdir())


@pytest.mark.timeout(900)  # it compiles twice, which takes minutes beside other work
@pytest.mark.usefixtures("compiler")
def test_a_killed_fit_with_a_compiled_plan_goes_on_bit_for_bit(folder):
    (folder / "patient.toml").write_text(profile(kill_after=400, meta_steps=24))
    command = ("run", "--profile", "patient.toml", "-m", "./slow.py", "--seeds", "1", "--plan", "compiled")
    command = (*command, "--set", "slow.second_order=false", "--set", "slow.meta_batch=4")
    answer = metabench(folder, *command, "--store", "compiled-uninterrupted")
    assert answer.code == 0, answer
    store = folder / "compiled-killed"
    process = start(folder, *command, "--store", store.name)
    wait_until(lambda: list(store.glob("checkpoints/*.pt")), 300, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert metabench(folder, *command, "--store", store.name).code == 0
    (_, first), (_, second), (_, step) = fits_log(folder)
    assert (first, second) == (0, 0)
    assert 0 < step < 24
    (fit,) = records(store, "fit").values()
    assert fit["plan"]["compiled"]
    assert_same_results(store, folder / "compiled-uninterrupted")


def assert_same_results(store, other):
    """Scores, states and curves, bit for bit; times may differ."""
    one, two = Store(store), Store(other)
    assert records(store).keys() == records(other).keys()
    for (_, cell, _), record in records(store).items():
        key, same = record["key"], two.get(record["key"])
        assert record["status"] == "ok"
        assert record["threads"] == same["threads"] >= 1
        if cell == "evaluation":
            assert one.scores(key).equals(two.scores(key))
            assert record["summary"] == same["summary"]
            continue
        for model in ("best", "last"):
            first, second = one.state(key)[model], two.state(key)[model]
            assert first["step"] == second["step"]
            for part in ("parameters", "buffers", "moments"):
                assert first[part].keys() == second[part].keys()
                assert all(torch.equal(first[part][name], second[part][name]) for name in first[part])
        assert one.state(key)["last"]["step"] == 24
        assert len(record["training"]["curve"]) == 4
        for row, other_row in zip(record["training"]["curve"], same["training"]["curve"], strict=True):
            assert {**row, "seconds": 0} == {**other_row, "seconds": 0}
        losses = [store.arrays(key)["loss"] for store in (one, two)]
        assert len(losses[0]) == record["training"]["meta_steps"] == 24
        assert np.array_equal(*losses)
        for name in ("best_step", "best_validation", "examples", "still_improving"):
            assert record["training"][name] == same["training"][name]


def test_two_runs_in_one_store_share_the_work(folder, uninterrupted):
    runs = [start(folder, *LONG, "--store", "shared") for _ in range(2)]
    answers = [run.communicate(timeout=120) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], answers
    assert sorted(fits_log(folder)) == [(0, 0), (1, 0)]
    assert_same_results(folder / "shared", uninterrupted)


# --- a store that is damaged -----------------------------------------------------------------------------------------


def test_a_damaged_store_is_repaired_by_the_same_command(folder, here, caplog):
    run = ("run", "--profile", "tiny.toml", "-m", "constant", "--seeds", "3", "--store", "damaged")
    assert here(*run).code == 0
    store = folder / "damaged"
    found = records(store)
    truncated = store / "records" / f"{found['constant', 'evaluation', 0]['key']}.json"
    truncated.write_bytes(truncated.read_bytes()[:200])
    lost = found["constant", "evaluation", 1]["key"]
    (store / "scores" / f"{lost}.parquet").unlink()
    (store / "records" / "notes.txt").write_text("not a record")
    told = [f"{truncated.name}: is truncated", f"{lost}.json: its scores", "notes.txt: is not a record"]
    copies = [folder / f"damaged-{name}" for name in ("show", "report")]
    for copy in copies:
        subprocess.run(["cp", "-r", store, copy], check=True)

    for copy, command in zip(copies, (("show",), ("report", "-o", "damaged.html")), strict=True):
        answer = here(*command, "--store", copy.name)
        assert answer.code == 0
        assert all(line in caplog.text for line in told)
        caplog.clear()
    answer = here(*run)
    assert answer.code == 0
    assert answer.out.startswith("2 cells to run, 4 finished before")
    assert {cell: r["status"] for cell, r in records(store).items()} == dict.fromkeys(found, "ok")
    assert all(line in caplog.text for line in told[:2])
