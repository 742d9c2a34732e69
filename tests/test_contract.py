"""The contract's own promises: control is evaluated as all else is, budgets, plain predictors."""

from dataclasses import dataclass
from itertools import islice, pairwise

import pytest
import torch

from benchmarks import registry
from benchmarks.api import MetabenchError, MetaLearner, TaskDistribution, in_regime, regimes_of
from benchmarks.run.evaluation import evaluate
from benchmarks.run.selection import Choice
from benchmarks.training import descend


@pytest.mark.parametrize(
    ("method", "fields", "steps"),
    [("maml", {"test_steps": (2, 1)}, [0, 1, 2]), ("rl2", {"trial_episodes": 3}, [0, 1, 2])],
)
def test_control_is_evaluated_with_gradient_steps_and_with_a_memory(method, fields, steps):
    tasks = registry.build_task("navigation-2d/quick", horizon=5)
    learner = registry.build_method(method, tasks, meta_batch=2, hidden=(4,) if method == "maml" else 4, **fields)
    state = next(learner.fit(tasks, 0)).copy()
    test = {"split": "test", "shots": None, "episodes": 6}
    tested = evaluate(learner, {"best": state}, {("best", "none"): Choice()}, tasks, test).tests["best", "none"]
    assert sorted(tested.scores) == steps
    assert {scores.shape for scores in tested.scores.values()} == {(6, tasks.queries)}
    assert len({scores.mean() for scores in tested.scores.values()}) == 3, "each step plays another policy"


@dataclass(frozen=True)
class Bare(TaskDistribution):
    """A control task that is nothing but its kind."""

    kind = "control"
    name = "bare"


@pytest.mark.parametrize("method", ["rl2", "maml"])
def test_a_control_task_without_a_discount_is_refused_in_one_line(method):
    learner = registry.build_method(method, registry.build_task("navigation-2d"))
    assert str(registry.mismatch(learner, method, Bare(variant="short"))).startswith("bare-v1/short has no discount;")


@dataclass(frozen=True)
class Decaying(MetaLearner):
    """Gradient steps on a number, at a rate that falls linearly to 0 at the end of the budget."""

    anneal_over: int = 0

    def for_budget(self, meta_steps):
        return self if self.anneal_over else self.replace(anneal_over=meta_steps)

    def fit(self, tasks, seed, start=None):
        left = self.anneal_over
        yield from descend(
            {"w": torch.ones(1)},
            lambda parameters, buffers, step: (parameters["w"].square().sum(), 1),
            learning_rate=0.01,
            schedule=lambda step: max(0.0, 1 - step / left) if left else 1.0,
            start=start,
        )


def test_a_schedule_that_ends_with_the_budget_is_a_field_of_the_learner():
    learner = Decaying().for_budget(10)
    assert learner.config() == {"anneal_over": 10}
    assert Decaying(anneal_over=5).for_budget(10) == Decaying(anneal_over=5)
    steps = [float(state.parameters["w"].detach()) for state in islice(learner.fit(None, 0), 13)]
    moves = [before - after for before, after in pairwise([1.0, *steps])]
    assert moves[:9] == sorted(moves[:9], reverse=True)
    assert moves[10:] == [0.0, 0.0, 0.0]
    half = next(islice(learner.fit(None, 0), 4, None)).copy()
    resumed = next(islice(learner.fit(None, 0, start=half), 7, None))
    assert float(resumed.parameters["w"].detach()) == steps[-1]


def test_a_plain_function_is_a_predictor_without_batch_norm():
    def plain(x, memory=None):
        return x, memory

    assert regimes_of(plain) == ("none",)
    assert in_regime(plain, "none") is plain
    with pytest.raises(MetabenchError, match="unknown batch-norm regime 'query' of this predictor; known: none"):
        in_regime(plain, "query")
