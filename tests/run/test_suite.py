"""Whole runs as a user starts them: cells that fail in every way and leave the others alone."""

import json
import shutil

import pytest
from whole_runs import metabench, profile, records

from benchmarks import registry
from benchmarks.records.store import Store
from benchmarks.run import profiles, resolution, schedule
from benchmarks.run.resolution import Request

#: one method under many names, all but one of them bad
METHODS = """
import math, sys, time
from dataclasses import dataclass
from typing import ClassVar

import torch
from benchmarks.api import MetaLearner, State
from benchmarks.registry import register_method


@register_method("hangs", how="hang")
@register_method("allocates", how="allocate")
@register_method("raises", how="raise")
@register_method("diverges", how="diverge")
@register_method("adapts-badly", how="adapt badly")
@register_method("good", how="well")
@dataclass(frozen=True)
class Zeros(MetaLearner):
    '''Predicts zeros; does something else while it trains.'''
    kinds: ClassVar = frozenset({"regression"})
    how: str = "well"

    def fit(self, tasks, seed, start=None):
        state = start.copy() if start else State(parameters={"w": torch.zeros(1)})
        while True:
            state.step += 1
            state.loss = self.trouble(state.step)
            yield state

    def trouble(self, step):
        kept = []
        while self.how == "hang":
            time.sleep(1)
        while self.how == "allocate":
            kept.append(bytearray(b"x" * 50_000_000))
            time.sleep(0.01)
        if self.how == "raise":
            print("so far so good", file=sys.stderr)
            raise RuntimeError("no way")
        return math.nan if self.how == "diverge" and step == 3 else 1.0

    def adapt(self, state, support, tasks):
        if self.how == "adapt badly" and len(support) != 4:  # a test, not a validation
            raise ZeroDivisionError("at test time only")
        yield lambda x, memory=None: (x.new_zeros(*x.shape[:2], tasks.outputs), None)
"""

BAD_FITS = {"raises", "hangs", "allocates", "diverges"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder outside the checkout with plug-ins and profiles in it."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "methods.py").write_text(METHODS)
    (folder / "impatient.toml").write_text(profile(kill_after=6))
    return folder


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
        ("allocates", "out-of-memory", "the limit is 0.80 GB"),
        ("diverges", "diverged", "training loss is nan at meta-step 3"),
    ],
)
def test_whatever_a_fit_does_becomes_a_record(failed, method, status, reason):
    answer, found = failed
    fit, evaluation = found[method, "fit", 0], found[method, "evaluation", 0]
    assert fit.status == status
    assert reason in fit.reason
    assert (evaluation.status, evaluation.reason) == ("skipped", f"its fit failed: {fit.reason}")
    assert f"{method} on sinusoid-v1/k5, seed 0: fit: {status} ({fit.reason})\n" in answer.out


def test_an_evaluation_that_fails_leaves_its_fit_alone(failed):
    _, found = failed
    assert found["adapts-badly", "fit", 0].ok
    evaluation = found["adapts-badly", "evaluation", 0]
    assert (evaluation.status, evaluation.reason) == ("error", "ZeroDivisionError: at test time only")
    assert evaluation.evaluation.episodes == 6, "the record says what was tried"


def test_the_end_of_the_output_is_kept(failed):
    _, found = failed
    assert "so far so good" in found["raises", "fit", 0].stderr
    assert "RuntimeError: no way" in found["raises", "fit", 0].stderr
    assert "in trouble" in found["hangs", "fit", 0].stderr  # where it hung
    assert found["good", "fit", 0].stderr == ""


def test_the_others_finish(failed):
    answer, found = failed
    assert all(found["good", cell, 0].ok for cell in ("fit", "evaluation"))
    assert found["good", "evaluation", 0].tests[0].summary[0].episodes == 6
    assert (answer.code, answer.err) == (1, "")
    lines = answer.out.splitlines()
    assert lines[0] == "12 cells to run, 0 finished before, 0 skipped"
    assert "records in failed; 5 of 12 cells failed" in lines
    assert len([line for line in lines if line.startswith("[")]) == 12


def test_failures_are_shown(failed, folder, here):
    answer = here("show", "--all", "--store", "failed")
    assert answer.code == 0
    assert "timeout: took longer than 6 s [hangs on sinusoid-v1/k5 (fit, seed 0)]" in answer.out
    answer = here("report", "--store", "failed", "-o", "page.html")
    assert answer.code == 0
    assert "training loss is nan at meta-step 3" in (folder / "page.html").read_text()


def test_only_says_which_cells_are_run_again(failed, folder, here):
    shutil.copytree(folder / "failed", folder / "again")
    found = {path: json.loads(path.read_text()) for path in (folder / "again" / "records").iterdir()}
    run = ("run", "--profile", "impatient.toml", "--store", "again", "-m", "./methods.py")

    def forget(*labels, cells=("fit", "evaluation")):
        for path, record in found.items():
            if record["label"] in labels and record["cell"] in cells:
                path.unlink()

    def ran(answer):
        lines = [line.partition("] ")[2] for line in answer.out.splitlines() if line.startswith("[")]
        return sorted(line.partition(" (")[0].partition(" in ")[0] for line in lines)

    forget("good", cells=["evaluation"])
    answer = here(*run, "--only", "missing")
    assert answer.code == 0
    assert ran(answer) == ["good on sinusoid-v1/k5, seed 0: test: ok"]
    forget("hangs", "allocates", "diverges")
    answer = here(*run, "--only", "failed")
    assert answer.code == 1
    assert ran(answer) == [
        "adapts-badly on sinusoid-v1/k5, seed 0: test: error",
        "raises on sinusoid-v1/k5, seed 0: fit: error",
        "raises on sinusoid-v1/k5, seed 0: test: skipped",
    ]


@pytest.mark.parametrize(("only", "fits"), [("all", BAD_FITS), ("failed", BAD_FITS), ("missing", set())])
def test_what_failed_is_tried_again_and_what_finished_is_not(failed, folder, only, fits):
    methods = [entry.name for entry in registry.load_file(folder / "methods.py")]
    found = resolution.resolve(profiles.load(str(folder / "impatient.toml")), Request(methods))
    data = schedule.Data({"sinusoid-v1/k5": None}, {})
    todo = schedule.plan(found, data, Store(folder / "failed"), only)
    assert len(todo.done) == 3
    labels = {kind: {cell.label for cell in todo.to_run if cell.kind == kind} for kind in ("fit", "evaluation")}
    assert labels == {"fit": fits, "evaluation": fits | {"adapts-badly"} if fits else set()}
