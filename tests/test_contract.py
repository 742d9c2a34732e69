"""The contract hosts control tasks and recurrent learners unchanged: a point that has to find a hidden place on a line,
a policy-gradient MAML, and a learner with a memory between episodes, all through the suite's own evaluation."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from benchmarks import conformance, registry, sampling
from benchmarks.api import (
    Episodes,
    MetabenchError,
    MetaLearner,
    Predictor,
    State,
    TaskDistribution,
    in_regime,
    regimes_of,
)
from benchmarks.registry import Entry
from benchmarks.run.evaluation import evaluate
from benchmarks.run.fitting import Progress, train
from benchmarks.run.selection import Choice
from benchmarks.training import descend, training_indices
from maml.inner_loop import GradientDescent, InnerLoop, Recorded, per_task

HORIZON = 6


@dataclass(frozen=True)
class Trajectories:
    """Observations and actions [T, n, H, 1], rewards [T, n, H], and the memory that the last step left behind."""

    observations: torch.Tensor
    actions: torch.Tensor
    rewards: torch.Tensor
    memory: Any


@dataclass(frozen=True)
class Rollouts:
    """An environment as a source: at each step it acts with the predictor that it is given."""

    places: torch.Tensor
    noise: np.ndarray = field(compare=False)
    key: int = 0
    trajectories: int = 8

    def __len__(self) -> int:
        return len(self.places)

    def batch(self, predictor: Predictor | None, step: int) -> Trajectories:
        assert predictor is not None
        n = self.trajectories
        words = sampling.normal(self.key, self.noise, n * HORIZON, first=step * n * HORIZON)
        noise = torch.as_tensor(words, dtype=torch.float32).view(len(self), n, HORIZON, 1)
        position, memory = torch.zeros(len(self), n, 1), None
        seen, done, rewards = [], [], []
        with torch.no_grad():
            for time in range(HORIZON):
                mean, memory = predictor(position, memory)
                action = mean + 0.3 * noise[:, :, time]
                seen.append(position)
                done.append(action)
                position = position + action.clamp(-0.5, 0.5)
                rewards.append(-(position[..., 0] - self.places).abs())
        return Trajectories(torch.stack(seen, 2), torch.stack(done, 2), torch.stack(rewards, 2), memory)


@dataclass(frozen=True)
class Line(TaskDistribution):
    """A point on a line has to find a hidden place; the observation is the position, the reward minus the distance."""

    kind: ClassVar[str] = "control"
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {"short": {}}
    metric: ClassVar[str] = "return"
    higher_is_better: ClassVar[bool] = True
    equivalence_margin: ClassVar[float] = 0.1
    discount = 0.99
    input_shape = (1,)
    outputs = 1

    def episodes(self, split, indices, *, shots=None, queries=None):
        key = sampling.stream(self.id, split)
        numbers = np.asarray(indices, dtype=np.int64)
        places = torch.as_tensor(sampling.uniform(key, numbers, 1, -2.0, 2.0), dtype=torch.float32)
        support = Rollouts(places, numbers, sampling.stream(self.id, split, "support"), shots or 8)
        return Episodes(support, Rollouts(places, numbers, sampling.stream(self.id, split, "query"), queries or 8))

    def score(self, predictor, query):
        return query.batch(predictor, 0).rewards.sum(-1)


@dataclass(frozen=True)
class PolicyGradient(MetaLearner):
    """MAML on returns: the inner step is a policy gradient on roll-outs of the policy that it improves."""

    kinds: ClassVar[frozenset[str]] = frozenset({"control"})

    def reported_steps(self):
        return (1,)

    def fit(self, tasks, seed, start=None):
        initial = {"gain": torch.zeros(1), "bias": torch.zeros(1)}

        def loss(parameters, buffers, step):
            episodes = tasks.episodes("train", training_indices(seed, step, 10))
            (_, adapted) = islice(self.steps(per_task(parameters, 10), episodes.support, True), 2)
            trajectories = episodes.query.batch(self.policy(adapted), 0)
            return self.surrogate(self.policy(adapted), trajectories).mean(), 10

        yield from descend(initial, loss, learning_rate=0.02, start=start)

    def adapt(self, state, support, tasks):
        parameters = per_task({name: value.detach() for name, value in state.parameters.items()}, len(support))
        for adapted in self.steps(parameters, support, False):
            yield self.policy(adapted)

    def steps(self, parameters, support, second_order):
        inner = InnerLoop(lambda theta, step: self.policy(theta), self.surrogate, GradientDescent(0.05), second_order)
        return inner.steps(parameters, support)

    @staticmethod
    def policy(parameters):
        def mean(position, memory=None):
            return parameters["gain"].unsqueeze(1) * position + parameters["bias"].unsqueeze(1), None

        return mean

    @staticmethod
    def surrogate(policy, seen):
        """Minus the likelihood-ratio surrogate with reward to go, one number per task."""
        means = torch.stack([policy(seen.observations[:, :, t])[0] for t in range(HORIZON)], 2)
        likelihood = -0.5 * ((seen.actions - means) / 0.3).square().sum(-1)
        to_go = seen.rewards.flip(-1).cumsum(-1).flip(-1)
        return -(likelihood * (to_go - to_go.mean(1, keepdim=True))).mean((1, 2))


@dataclass(frozen=True)
class Memory(MetaLearner):
    """A black-box learner: no gradient, one predictor per episode of the trial, each with what the last one left."""

    kinds: ClassVar[frozenset[str]] = frozenset({"control"})
    fits: ClassVar[bool] = False

    def reported_steps(self):
        return (2,)

    def adapt(self, state, support, tasks):
        guess = torch.zeros(len(support), 1, 1)
        for episode in range(3):
            predictor = self.carrying(guess)
            yield predictor
            seen = support.batch(predictor, episode)
            assert seen.memory is not None
            best = seen.rewards.flatten(1).argmax(1)
            reached = (seen.observations + seen.actions.clamp(-0.5, 0.5)).flatten(1)
            guess = reached.gather(1, best[:, None])[:, :, None]

    @staticmethod
    def carrying(guess):
        def policy(position, memory=None):
            memory = guess if memory is None else memory
            return (memory - position).clamp(-0.5, 0.5), memory

        return policy


SKETCHES = {
    name: Entry(name, cls, {}, Path(__file__))
    for name, cls in {"line-sketch": Line, "policy-gradient-sketch": PolicyGradient, "memory-sketch": Memory}.items()
}
Line.name = "line-sketch"


@pytest.fixture(autouse=True)
def sketches(monkeypatch):
    """The sketches are no part of the suite: they are registered while a test of this file runs."""
    registry.methods()
    for table in (registry._methods, registry._tasks):
        for name, entry in SKETCHES.items():
            if issubclass(entry.cls, MetaLearner) == (table is registry._methods):
                monkeypatch.setitem(table, name, entry)


@pytest.mark.parametrize("learner", [PolicyGradient(), Memory()])
def test_the_suite_evaluates_control_with_learners_of_both_kinds(learner):
    tasks = Line(variant="short")
    state = State()
    if learner.fits:
        budget = {"meta_steps": 60, "seconds": 60, "validations": 4, "validation_episodes": 20}
        progress = train(learner, tasks, 0, budget, Progress(), lambda plain: None, lambda progress: None)
        assert len(progress.curve) == 4
        state = progress.best_state
    test = {"split": "test", "shots": None, "episodes": 40}
    choices = {("last", "none"): Choice()}
    (tested,) = evaluate(learner, {"last": state}, choices, tasks, test).tests.values()
    means = {step: values.mean() for step, values in tested.scores.items()}
    last = tested.reported_steps[-1]
    assert tested.scores[last].shape == (40, 8)
    assert means[last] > means[0] + 0.5, means


@pytest.mark.parametrize("learner", [PolicyGradient(), Memory()])
def test_both_kinds_keep_the_promises_of_the_contract(learner):
    assert conformance.complaints(conformance.check_pair(learner, Line(variant="short"))) == []


def test_a_recorded_source_replays_what_the_inner_loop_has_seen():
    tasks, learner = Line(variant="short"), PolicyGradient()
    support = tasks.episodes("test", range(3)).support
    start = per_task({"gain": torch.zeros(1), "bias": torch.zeros(1)}, 3)
    seen = []

    class Recording:
        def batch(self, predictor, step):
            seen.append(support.batch(predictor, step))
            return seen[-1]

    first = list(islice(learner.steps(start, Recording(), False), 3))[-1]
    again = list(islice(learner.steps(start, Recorded(seen), False), 3))[-1]
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_incompatible_pairs_say_why():
    assert "is for" in str(registry.incompatible("matching-nets", "line-sketch"))
    assert registry.incompatible("policy-gradient-sketch", "line-sketch") is None


def test_a_control_task_without_a_discount_is_refused_in_one_line(monkeypatch):
    monkeypatch.delattr(Line, "discount")
    for method in ("policy-gradient-sketch", "maml"):
        assert "line-sketch-v1/short has no discount" in registry.incompatible(method, "line-sketch")


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
    assert PolicyGradient().for_budget(10) == PolicyGradient()
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


def plain(x, memory=None):
    return x, memory


def test_a_plain_function_is_a_predictor_without_batch_norm():
    assert regimes_of(plain) == ("none",)
    assert in_regime(plain, "none") is plain
    with pytest.raises(MetabenchError, match="unknown batch-norm regime 'query' of this predictor; known: none"):
        in_regime(plain, "query")
