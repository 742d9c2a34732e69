"""A task and a method in somebody's own files, outside the checkout; data that are not here; an interrupted run."""

import pytest
from whole_runs import profile, records

from benchmarks.run import schedule

METHOD = """
from dataclasses import dataclass
from typing import ClassVar

from benchmarks.api import MetaLearner, State
from benchmarks.registry import register_method


@register_method("mine")
@dataclass(frozen=True)
class Mine(MetaLearner):
    '''Predicts zeros.'''
    kinds: ClassVar = frozenset({"regression"})

    def fit(self, tasks, seed, start=None):
        state = start or State()
        while True:
            state.step += 1
            state.examples += 1
            yield state

    def adapt(self, state, support, tasks):
        yield lambda x, memory=None: (x.new_zeros(*x.shape[:2], tasks.outputs), None)
"""

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
        return (self.predictions(predictor, query) - query.y).square().mean(-1)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder outside the checkout with plug-ins and a profile in it."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "mine.py").write_text(METHOD)
    (folder / "task.py").write_text(TASK)
    (folder / "tiny.toml").write_text(profile())
    return folder


def test_ones_own_task_and_method_run_from_their_files(folder, here):
    for name in ("mine.py", "task.py"):
        assert here("check", name).out.endswith(f"\n{name}: holds the contract\n")
    run = ("run", "-p", "tiny.toml", "-t", "./task.py", "-m", "./mine.py", "-m", "maml", "-m", "chance")
    answer = here(*run, "--store", "own")
    assert answer.code == 0, answer
    assert "skipped: chance on lines-v1/k3: chance is for classification, lines is regression" in answer.out
    found = records(folder / "own")
    done = {(name, cell, 0): "ok" for name in ("mine", "maml") for cell in ("fit", "evaluation")}
    assert {name: r.status for name, r in found.items()} == {**done, ("chance", "evaluation", None): "skipped"}
    assert found["mine", "evaluation", 0].task.id == "lines-v1/k3"
    answer = here("show", "--all", "--store", "own")
    for part in ("lines-v1/k3", "mine", "maml", "chance is for classification"):
        assert part in answer.out


def test_a_task_that_is_not_here_is_skipped_with_what_to_do(folder, here, monkeypatch):
    monkeypatch.delenv("METABENCH_DATA", raising=False)
    monkeypatch.setenv("METABENCH_CACHE", str(folder / "empty-cache"))
    run = ("run", "-p", "tiny.toml", "-t", "miniimagenet", "-m", "nearest-neighbour", "--store", "absent")
    answer = here(*run)
    assert answer.code == 0
    (record,) = records(folder / "absent").values()
    assert record.status == "skipped"
    assert "$METABENCH_DATA/mini-imagenet" in record.reason
    assert f"miniimagenet-v1/5w1s is unavailable: {record.reason}\n" in answer.out
    assert f"skipped: nearest-neighbour on miniimagenet-v1/5w1s: {record.reason}\n" in answer.out


def test_an_interrupted_run_says_how_it_goes_on(folder, here, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(schedule, "run", interrupted)
    answer = here("run", "-p", "tiny.toml", "-m", "constant", "--store", "interrupted")
    assert answer.code == 130
    assert answer.err == "interrupted: run the same command again to resume\n"
