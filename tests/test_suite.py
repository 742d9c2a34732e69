"""Whole runs as a user starts them: cells that fail in every way, runs that are killed, stores that are damaged or
shared, and plug-ins from elsewhere."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import profiles, registry, schedule
from benchmarks.__main__ import main
from benchmarks.cells import Request
from benchmarks.store import Store

ROOT = Path(__file__).parents[1]

PROFILE = """
[tiny]
seeds = 1
episodes = 6
validation_episodes = 4
validations = 4
seconds = 20
kill_after = {kill_after}
meta_steps = {meta_steps}
methods = ["constant"]

[[tiny.tasks]]
task = "sinusoid/k5"
"""

#: methods for a user's own file, all but one of them bad
METHODS = """
import math, os, signal, sys, time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from benchmarks.api import MetaLearner, State
from benchmarks.registry import register_method


@register_method("hangs")
@dataclass(frozen=True)
class Zeros(MetaLearner):
    '''Predicts zeros; does something else while it trains.'''
    kinds: ClassVar = frozenset({"regression"})
    scale: float = 1.0

    def fit(self, tasks, seed, start=None):
        state = start.copy() if start else State(parameters={"w": torch.zeros(1)})
        while True:
            state.step += 1
            state.examples += 1
            state.loss = self.trouble(state.step)
            yield state

    def trouble(self, step):
        time.sleep(1000)

    def adapt(self, state, support, tasks):
        yield lambda x, memory=None: (x.new_zeros(*x.shape[:2], tasks.outputs), None)


@register_method("allocates")
@dataclass(frozen=True)
class Allocates(Zeros):
    def trouble(self, step):
        kept = []
        while True:
            kept.append(bytearray(b"x" * 50_000_000))
            time.sleep(0.01)


@register_method("raises")
@dataclass(frozen=True)
class Raises(Zeros):
    def trouble(self, step):
        print("so far so good", file=sys.stderr)
        raise RuntimeError("no way")


@register_method("exits")
@dataclass(frozen=True)
class Exits(Zeros):
    def trouble(self, step):
        os._exit(0)


@register_method("dies")
@dataclass(frozen=True)
class Dies(Zeros):
    def trouble(self, step):
        os.kill(os.getpid(), signal.SIGSEGV)


@register_method("diverges")
@dataclass(frozen=True)
class Diverges(Zeros):
    def trouble(self, step):
        return math.nan if step == 3 else 1.0


@register_method("adapts-badly")
@dataclass(frozen=True)
class AdaptsBadly(Zeros):
    def trouble(self, step):
        return 1.0

    def adapt(self, state, support, tasks):
        if len(support) != 4:  # a test, not a validation
            raise ZeroDivisionError("at test time only")
        return super().adapt(state, support, tasks)


@register_method("good")
@dataclass(frozen=True)
class Good(Zeros):
    def trouble(self, step):
        return 1.0
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder outside the checkout with plug-ins and profiles in it."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "methods.py").write_text(METHODS)
    (folder / "slow.py").write_text(SLOW)
    (folder / "task.py").write_text(TASK)
    (folder / "tiny.toml").write_text(PROFILE.format(kill_after=60, meta_steps=4))
    (folder / "impatient.toml").write_text(PROFILE.format(kill_after=6, meta_steps=4))
    (folder / "long.toml").write_text(PROFILE.format(kill_after=60, meta_steps=24))
    return folder


def start(folder, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "METABENCH_OFFLINE": "1"}
    command = [sys.executable, "-m", "benchmarks", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=folder, env=environment, **pipes)


@dataclass
class Answer:
    code: int
    out: str
    err: str


def metabench(folder, *arguments):
    process = start(folder, *arguments)
    out, err = process.communicate(timeout=120)
    return Answer(process.returncode, out, err)


def records(store, cell=None):
    return {(r["label"], r["cell"], r["seed"]): r for r in Store(store, read_only=True).records(cell)}


@pytest.fixture
def here(folder, monkeypatch, capsys):
    """Calls the command line in this process, from the user's folder, which saves the imports."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("METABENCH_OFFLINE", "1")

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["metabench", *arguments])
        with pytest.raises(SystemExit) as ending:
            main()
        told = capsys.readouterr()
        return Answer(ending.value.code or 0, told.out, told.err)

    return call


BAD_FITS = {"raises", "hangs", "exits", "allocates", "dies", "diverges"}

# --- cells that fail -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def failed(folder):
    run = ("run", "--profile", "impatient.toml", "-m", "./methods.py", "--memory", "0.8", "--jobs", "2")
    answer = metabench(folder, *run, "--store", "failed")
    return answer, records(folder / "failed")


@pytest.mark.parametrize(
    ("method", "status", "reason"),
    [
        ("raises", "error", "RuntimeError: no way"),
        ("hangs", "timeout", "took longer than 6 s"),
        ("exits", "error", "exited with code 0 in the middle"),
        ("allocates", "out-of-memory", "the limit is 0.80 GB"),
        ("dies", "error", "killed by SIGSEGV"),
        ("diverges", "diverged", "training loss is nan at meta-step 3"),
    ],
)
def test_whatever_a_fit_does_becomes_a_record(failed, method, status, reason):
    answer, found = failed
    fit, evaluation = found[method, "fit", 0], found[method, "evaluation", 0]
    assert fit["status"] == status
    assert reason in fit["reason"]
    assert evaluation["status"] == "skipped"
    assert evaluation["reason"] == f"its fit failed: {fit['reason']}"
    assert f"{method} on sinusoid-v1/k5, seed 0: fit: {status} ({fit['reason']})\n" in answer.out


def test_an_evaluation_that_fails_leaves_its_fit_alone(failed):
    _, found = failed
    assert found["adapts-badly", "fit", 0]["status"] == "ok"
    assert found["adapts-badly", "evaluation", 0]["status"] == "error"
    assert found["adapts-badly", "evaluation", 0]["reason"] == "ZeroDivisionError: at test time only"


def test_the_end_of_the_output_is_kept(failed):
    _, found = failed
    assert "so far so good" in found["raises", "fit", 0]["stderr"]
    assert "RuntimeError: no way" in found["raises", "fit", 0]["stderr"]
    assert "in trouble" in found["hangs", "fit", 0]["stderr"]  # where it hung
    assert found["good", "fit", 0]["stderr"] == ""


def test_the_others_finish(failed):
    answer, found = failed
    assert {found["good", cell, 0]["status"] for cell in ("fit", "evaluation")} == {"ok"}
    assert found["good", "evaluation", 0]["summary"][0]["episodes"] == 6
    assert answer.code == 1
    assert answer.err == ""
    lines = answer.out.splitlines()
    assert lines[0] == "16 cells to run, 0 finished before, 0 skipped"
    assert lines[-1] == "records in failed; 7 of 16 cells failed"
    assert len(lines) == 18  # a line per cell


def test_failures_are_shown(failed, folder, here):
    answer = here("show", "--store", "failed")
    assert answer.code == 0
    assert "timeout: took longer than 6 s [hangs on sinusoid-v1/k5 (fit, seed 0)]" in answer.out
    answer = here("report", "--store", "failed", "-o", "page.html")
    assert answer.code == 0
    assert "training loss is nan at meta-step 3" in (folder / "page.html").read_text()


def test_only_says_which_cells_are_run_again(failed, folder, here):
    subprocess.run(["cp", "-r", folder / "failed", folder / "again"], check=True)
    found = {path: json.loads(path.read_text()) for path in (folder / "again" / "records").iterdir()}
    run = ("run", "--profile", "impatient.toml", "--store", "again", "-m", "./methods.py")

    def forget(*labels, cells):
        for path, record in found.items():
            if record["label"] in labels and record["cell"] in cells:
                path.unlink()

    def ran(answer):
        return sorted(line.partition("] ")[2].partition(" (")[0] for line in answer.out.splitlines() if line[0] == "[")

    forget("good", cells=["evaluation"])
    answer = here(*run, "--only", "missing")
    assert answer.code == 0
    assert [line.partition(" in ")[0] for line in ran(answer)] == ["good on sinusoid-v1/k5, seed 0: test none: ok"]
    forget("hangs", "allocates", "exits", "dies", "diverges", cells=["fit", "evaluation"])
    answer = here(*run, "--only", "failed")
    assert answer.code == 1
    assert ran(answer) == [
        "adapts-badly on sinusoid-v1/k5, seed 0: test none: error",
        "raises on sinusoid-v1/k5, seed 0: fit: error",
        "raises on sinusoid-v1/k5, seed 0: test none: skipped",
    ]


@pytest.mark.parametrize(
    ("only", "fits", "evaluations"),
    [
        ("all", BAD_FITS, {*BAD_FITS, "adapts-badly"}),
        ("failed", BAD_FITS, {*BAD_FITS, "adapts-badly"}),
        ("missing", set(), set()),
    ],
)
def test_what_failed_is_tried_again_and_what_finished_is_not(failed, folder, only, fits, evaluations):
    registry.discover([folder / "methods.py"])
    methods = [entry.name for entry in registry.load_file(folder / "methods.py")]
    profile = profiles.load(str(folder / "impatient.toml"))
    digests = {"sinusoid-v1/k5": None}
    todo = schedule.plan(profile, Request(methods, digests=digests), Store(folder / "failed"), only)
    assert todo.finished == 3
    assert {cell.label for cell in todo.to_run if cell.kind == "fit"} == fits
    assert {cell.label for cell in todo.to_run if cell.kind == "evaluation"} == evaluations


# --- a run that is killed --------------------------------------------------------------------------------------------

#: MAML, slowed down, which notes where each of its fits begins and keeps a checkpoint every few meta-steps
SLOW = """
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks import fitting
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


def wait_until(true, process, seconds=60):
    end = time.monotonic() + seconds
    while not true():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)


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
    wait_until(second.exists, process)
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
        first, second = one.state(key), two.state(key)
        assert first["step"] == second["step"]
        for part in ("parameters", "buffers", "moments"):
            assert first[part].keys() == second[part].keys()
            assert all(torch.equal(first[part][name], second[part][name]) for name in first[part])
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


# --- one's own task and method ---------------------------------------------------------------------------------------

TASK = """
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from benchmarks import sampling
from benchmarks.api import Episodes, LabelledSet, TaskDistribution
from benchmarks.registry import register_task


@register_task("lines")
@dataclass(frozen=True)
class Lines(TaskDistribution):
    '''Straight lines y = a x with slopes a in [-1, 1], x in [0, 1].'''
    kind: ClassVar[str] = "regression"
    metric: ClassVar[str] = "squared error"
    higher_is_better: ClassVar[bool] = False
    equivalence_margin: ClassVar[float] = 1.1
    variants: ClassVar = {"k3": {"shot": 3}}

    shot: int = 3
    queries: int = 5
    input_shape = (1,)
    outputs = 1
    backbone = "mlp-40-40"

    def episodes(self, split, indices, *, shots=None, queries=None):
        shots, queries = shots or self.shot, queries or self.queries
        key = sampling.stream(self.id.partition("/")[0], split)
        slope = sampling.uniform(key, indices, 1, -1, 1)
        query = sampling.uniform(key, indices, queries, first=1)
        support = sampling.uniform(key, indices, shots, first=1000)

        def labelled(x):
            x, y = (torch.from_numpy(v).float().unsqueeze(-1) for v in (x, slope * x))
            return LabelledSet(x, y)

        return Episodes(labelled(support), labelled(query))

    def score(self, predictor, query):
        return (predictor(query.x)[0] - query.y).square().mean(-1)
"""


def test_ones_own_task_and_method_run_from_their_files(folder, here):
    (folder / "mine.py").write_text(METHODS[: METHODS.index('@register_method("allocates')].replace("hangs", "mine"))
    source = (folder / "mine.py").read_text().replace("time.sleep(1000)", "return 1.0")
    (folder / "mine.py").write_text(source)
    for name in ("mine.py", "task.py"):
        assert here("check", name).out == f"{name}: holds the contract\n"
    run = ("run", "-p", "tiny.toml", "-t", "./task.py", "-m", "./mine.py", "-m", "maml", "-m", "chance")
    answer = here(*run, "--store", "own")
    assert answer.code == 0, answer
    assert "skipped: chance on lines-v1/k3: chance is for classification, lines is regression" in answer.out
    found = records(folder / "own")
    assert {(*name, r["status"]) for name, r in found.items()} == {
        ("mine", "fit", 0, "ok"),
        ("mine", "evaluation", 0, "ok"),
        ("maml", "fit", 0, "ok"),
        ("maml", "evaluation", 0, "ok"),
        ("chance", "evaluation", 0, "skipped"),
    }
    assert found["mine", "evaluation", 0]["task"]["id"] == "lines-v1/k3"
    answer = here("show", "--store", "own")
    for part in ("lines-v1/k3", "mine", "maml", "chance is for classification"):
        assert part in answer.out


def test_a_task_that_is_not_here_is_skipped_with_what_to_do(folder, here, monkeypatch):
    monkeypatch.delenv("METABENCH_DATA", raising=False)
    monkeypatch.setenv("METABENCH_CACHE", str(folder / "empty-cache"))
    run = ("run", "-p", "tiny.toml", "-t", "miniimagenet", "-m", "nearest-neighbour", "--store", "absent")
    answer = here(*run)
    assert answer.code == 0
    (record,) = records(folder / "absent").values()
    assert record["status"] == "skipped"
    assert "$METABENCH_DATA/mini-imagenet" in record["reason"]
    assert f"miniimagenet-v1/5w1s can't be had: {record['reason']}\n" in answer.out
    assert "skipped: nearest-neighbour on miniimagenet-v1/5w1s: its data are not here\n" in answer.out


def test_an_interrupted_run_says_how_it_goes_on(folder, here, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(schedule, "run", interrupted)
    answer = here("run", "-p", "tiny.toml", "-m", "constant", "--store", "interrupted")
    assert answer.code == 130
    assert answer.err == "interrupted: the same command goes on from here\n"
