"""Whole runs as a user starts them: cells that fail in every way and leave the others alone."""

import json
import subprocess
from pathlib import Path

import pytest
from whole_runs import metabench, profile, records

from benchmarks import registry
from benchmarks.records.store import Store
from benchmarks.run import profiles, schedule
from benchmarks.run.cells import Request

ROOT = Path(__file__).parents[2]

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
    (folder / "impatient.toml").write_text(profile(kill_after=6))
    return folder


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
