"""Failed adaptations are counted, never scored as a guess, and neither choose a state nor rule one out."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from baselines.finetune import FineTune
from benchmarks.api import LabelledSet, MetaLearner, Predictor, State, TaskDistribution
from benchmarks.failed_adaptations import failed
from benchmarks.images.distribution import LARGEST, classes_of
from benchmarks.models import network_for
from benchmarks.registry import build_task
from benchmarks.run.evaluation import evaluate
from benchmarks.run.fitting import Progress, train
from benchmarks.run.scoring import ConstantError, robust, scored
from benchmarks.run.selection import Choice, choose

WAVES = build_task("sinusoid/k10")
GLYPHS = build_task("glyphs/5w1s", queries=2)
NAN, INF = math.nan, math.inf


@pytest.mark.fault("V11")
@pytest.mark.parametrize(
    ("scores", "found"),
    [
        ([NAN, NAN, NAN], -1),
        ([0.0, NAN, 1.0], -1),
        ([0.0, INF, 1.0], -1),
        ([-INF, -INF, -INF], -1),
        ([1e30, -1e30, 0.0], -1),
        ([-1e30, -1e30, -1e30], -1),
        ([-INF, 2.0, 1.0], 1),  # a class that is ruled out
        ([-1e30, 2.0, 3.0], 2),
        ([LARGEST, 0.0, 0.0], 0),
        ([1.0, 1.0, 0.0], 0),
    ],
)
def test_a_class_needs_a_score_that_is_a_number(scores: list[float], found: int) -> None:
    assert classes_of(torch.tensor([[scores]])).item() == found


class Answers(MetaLearner):
    """Gives each query the scores ``logits``, one row per query."""

    kinds: ClassVar = frozenset({"classification", "regression"})
    fits: ClassVar = False

    def __init__(self, answer: Any) -> None:
        object.__setattr__(self, "answer", answer)

    def adapt(self, state: State, support: Any, tasks: TaskDistribution) -> Iterator[Predictor]:
        yield lambda x, memory=None: (self.answer(x), None)

    def replace(self, **changes: Any) -> Any:
        return self


def outcome(learner: MetaLearner, tasks: TaskDistribution, episodes: int = 4, state: State | None = None, steps=None):
    """The test of a learner on a few episodes in its first regime, and the error of the constant."""
    test = {"episodes": episodes, "split": "test", "shots": None}
    choices = {("best", "none" if tasks is WAVES else "running"): Choice(steps=steps)}
    if isinstance(learner, Answers):
        choices = {("best", "none"): Choice(steps=steps)}
    found = evaluate(learner, {"best": state or State()}, choices, tasks, test, exhibited=False)
    return next(iter(found.tests.values())), found.constant_error


@pytest.fixture(scope="module", autouse=True)
def prepared() -> None:
    GLYPHS.prepare()


@pytest.mark.fault("V11")
@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_predictions_of_nan_are_all_wrong_and_all_failed(value: float) -> None:
    found, _ = outcome(Answers(lambda x: x.new_full((*x.shape[:2], 5), value)), GLYPHS)
    (row,) = found.summary()
    assert (row.mean, row.failed) == (0.0, 4)
    assert not found.scores[0].any()


@pytest.mark.fault("V11")
def test_one_answer_that_is_no_number_fails_its_episode_alone() -> None:
    def answer(x: Tensor) -> Tensor:
        scores = torch.zeros(*x.shape[:2], 5)
        scores[1, 3] = NAN
        return scores

    found, _ = outcome(Answers(answer), GLYPHS)
    assert found.summary()[0].failed == 1
    labels = GLYPHS.episodes("test", range(4)).query.y.numpy()
    expected = labels == 0
    expected[1, 3] = False
    assert np.array_equal(found.scores[0] == 1, expected)


@pytest.mark.fault("V11")
def test_a_rate_of_1e30_says_that_it_failed() -> None:
    """It scored 20.18 %, and nothing said so."""
    learner = FineTune(inner_lr=1e30)
    network = network_for(GLYPHS, learner.backbone, outputs=20)
    state = State(network.initialise(0), network.running_statistics())
    found, _ = outcome(learner, GLYPHS, state=state)
    start, *steps = found.summary()
    assert start.failed == 0
    assert [(row.failed, row.mean) for row in steps[-1:]] == [(4, 0.0)]


@pytest.mark.fault("V1")
@pytest.mark.parametrize(("answer", "lost"), [(0.0, 0), (1e3, 4), (NAN, 4), (INF, 4)])
def test_an_error_above_a_hundred_constants_is_a_failure(answer: float, lost: int) -> None:
    found, constant = outcome(Answers(lambda x: x * 0 + answer), WAVES)
    y = WAVES.episodes("test", range(4)).query.y.double().numpy()
    assert constant == pytest.approx(y.var())
    assert found.summary(constant)[0].failed == lost


@pytest.mark.fault("V1")
def test_the_limit_is_a_hundred_times_the_constant_on_the_same_test() -> None:
    errors, lost = np.array([0.0, 99.9, 100.1, INF, NAN]), np.array([False, False, False, True, True])
    assert failed(errors, lost, 1.0).tolist() == [False, False, True, True, True]
    assert failed(errors, lost, None).tolist() == lost.tolist()


@pytest.mark.parametrize("sizes", [[1], [3, 1, 4], [5, 5]])
def test_the_constants_error_does_not_depend_on_the_parts(sizes: list[int]) -> None:
    y = torch.randn(sum(sizes), 3, 2, generator=torch.Generator().manual_seed(0))
    found = ConstantError()
    for part in y.split(sizes):
        found.add(WAVES, SimpleNamespace(y=part))
    assert found.value == pytest.approx(float(y.double().flatten(0, 1).var(0, correction=0).mean()))


def test_without_targets_there_is_no_constant() -> None:
    found = ConstantError()
    found.add(GLYPHS, GLYPHS.episodes("test", [0]).query)
    assert found.value is None
    found.add(WAVES, SimpleNamespace(y=torch.ones(1, 3, 1)))
    assert found.value is None


def test_selection_counts_a_failure_as_the_constant_or_the_worst_return() -> None:
    assert robust(np.array([0.5, 1e24, INF, NAN]), 4.0).tolist() == [0.5, 4.0, 4.0, 4.0]
    assert robust(np.array([3.0, NAN, -1.0]), None).tolist() == [3.0, -1.0, -1.0]
    assert np.isnan(robust(np.array([NAN, NAN]), None)).all()


@dataclass(frozen=True)
class Improves(MetaLearner):
    """Predicts the wave times 1 - 1/step, so its error falls; in one episode it explodes after some meta-steps."""

    kinds: ClassVar = frozenset({"regression"})
    grid: ClassVar = {"scale": (0.5, 0.9, 0.2)}

    bad_steps: tuple[int, ...] = ()
    value: float = NAN
    scale: float = field(default=1.0, metadata={"stage": "adaptation"})

    def fit(self, tasks: TaskDistribution, seed: int, start: State | None = None) -> Iterator[State]:
        state = State()
        while True:
            state = dataclasses.replace(state, step=state.step + 1, loss=0.0)
            yield state

    def adapt(self, state: State, support: LabelledSet, tasks: TaskDistribution) -> Iterator[Predictor]:
        query = tasks.episodes("validation", range(len(support))).query
        answer = query.y * self.scale * (1 - 1 / max(1, state.step))
        if state.step in self.bad_steps:
            answer[3] = self.value
        yield lambda x, memory=None: (answer, None)


@pytest.mark.fault("V2")
@pytest.mark.parametrize("value", [NAN, INF, 1e12])
def test_a_validation_with_one_exploding_episode_still_counts(value: float) -> None:
    """The mean skipped such validations (or ranked them last), and the state that was kept was an old one."""
    budget = {"meta_steps": 10, "seconds": 60, "validation_episodes": 20, "validations": 10}
    progress, none = Progress(), lambda news: None
    train(Improves(bad_steps=(6, 8, 9, 10), value=value), WAVES, 0, budget, progress, none, none)
    assert progress.best["step"] == 7
    assert [row["failed"] for row in progress.curve] == [0, 0, 0, 0, 0, 1, 0, 1, 1, 1]
    assert all(math.isfinite(row["robust"]) for row in progress.curve)
    skipped = [row["step"] for row in progress.curve if row["score"] is None]
    assert skipped == ([] if math.isfinite(value) else [6, 8, 9, 10])
    # the failure costs one constant, which the later steps do not make up for; with more training they do
    assert progress.curve[9]["robust"] < progress.curve[2]["robust"]


@pytest.mark.fault("V2")
@pytest.mark.parametrize("value", [NAN, 1e12])
def test_one_exploding_task_does_not_rule_a_setting_out(value: float) -> None:
    learner = Improves(bad_steps=(9,), value=value)
    found = choose(learner, State(step=9), WAVES, 50, ["none"])["none"]
    assert (found.fields, found.steps, found.trials) == ({"scale": 0.9}, 0, 3)


def test_scores_keep_their_type() -> None:
    query = GLYPHS.episodes("test", range(2)).query
    scores, lost = scored(GLYPHS, lambda x, memory=None: (torch.zeros(*x.shape[:2], 5), None), query)
    assert (scores.dtype, lost.tolist()) == (np.float32, [False, False])
