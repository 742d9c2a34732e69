"""Learners with an update rule of their own: meta-gradients, the end of adaptation, and what they refuse."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.api import MetabenchError, Parameters, State
from benchmarks.execution.plans import Plan
from benchmarks.models import NetworkPredictor, network_for
from benchmarks.registry import build_method, build_task, mismatch
from maml.inner_loop import detached, per_task
from maml.learned_optimiser import LearnedOptimiser
from maml.learned_rule import LearnedRule
from maml.losses import supervised_loss
from maml.meta_lstm import MetaLearnerLSTM
from maml.trained_rule import TrainedRule

NAMES = ("meta-learner-lstm", "learned-optimiser", "learned-rule")
LEARNERS = (MetaLearnerLSTM, LearnedOptimiser, LearnedRule)


def small(learner: type[TrainedRule], **fields: Any) -> Any:
    own: dict[str, Any] = {"backbone": "tiny-mlp"} if learner is LearnedRule else {"hidden": 3}
    clip = {"clip_norm": 0.0} if learner is MetaLearnerLSTM else {}
    return learner(**{"inner_steps": 3, "test_steps": (3,), "meta_batch": 3, **own, **clip, **fields})


def start(learner: Any, tasks: Any) -> Parameters:
    """Initial parameters in double precision, those of the rule large enough to matter."""
    generator = torch.Generator().manual_seed(7)
    found = {}
    for name, value in learner.initial(tasks, 0).items():
        noise = 0.1 * torch.randn(value.shape, generator=generator, dtype=torch.float64)
        found[name] = value.double() + noise if name.startswith("rule.") else value.double()
    return found


def gradient_at(learner: Any, tasks: Any, parameters: Parameters) -> Parameters:
    moments = next(learner.fit(tasks, 0, State(parameters))).moments
    return {name: moments[f"{name}/exp_avg"] / (1 - 0.9) for name in parameters}


def assert_is_the_slope(gradient: Parameters, loss: Callable[[Parameters], float], parameters: Parameters) -> None:
    """Along the gradient and along its parts by the initialisation and by the rule, by central differences."""
    size = 1e-6
    for part in ("rule.", "layer", "head"):
        own = {name: value for name, value in gradient.items() if name.startswith(part)}
        length = sum(float(value.square().sum()) for value in own.values()) ** 0.5
        assert length > 1e-6, part

        def moved(sign: int, own: Parameters = own, length: float = length) -> Parameters:
            return {n: v + sign * size * own[n] / length if n in own else v for n, v in parameters.items()}

        slope = (loss(moved(1)) - loss(moved(-1))) / (2 * size)
        assert slope == pytest.approx(length, rel=1e-5), part


@pytest.mark.parametrize("plan", [Plan(3), Plan(3, checkpointed=True)], ids=str)
@pytest.mark.parametrize("learner", LEARNERS)
def test_second_order_is_the_slope_of_the_meta_loss(given: Any, learner: Any, plan: Plan) -> None:
    tasks = given.waves(backbone="tiny-mlp")
    rule = small(learner, second_order=True, plan=plan)
    parameters = start(rule, tasks)

    def loss(theta: Parameters) -> float:
        found = next(rule.fit(tasks, 0, State(theta))).loss
        assert found is not None
        return found

    assert_is_the_slope(gradient_at(rule, tasks, parameters), loss, parameters)


def frozen_loss(learner: Any, tasks: Any, parameters: Parameters) -> Callable[[Parameters], float]:
    """The meta-loss as a function of the parameters, with all that a rule reads kept as it is at ``parameters``."""
    objective = learner._objective(tasks, learner.inner_lr, None)
    read: list[tuple[Parameters, Tensor, Parameters]] = []

    class Watching:
        rule = objective.rule

        def start(self, parameters: Parameters) -> Parameters:
            return self.rule.start(parameters)

        def observe(self, predictor: Any, batch: Any) -> Parameters:
            return self.rule.observe(predictor, batch) if hasattr(self.rule, "observe") else {}

        def step(self, memory: Parameters, *rest: Any) -> tuple[Parameters, Parameters]:
            observed = {name: value for name, value in memory.items() if name.startswith("observed.")}
            read.append((detached(rest[1]), rest[2].detach(), observed))
            return self.rule.step(memory, *rest)

    watching = dataclasses.replace(objective.inner, rule=Watching())
    list(islice(watching.steps(per_task(parameters, 3), tasks.data.support), learner.inner_steps + 1))

    def after(theta: Parameters) -> Iterator[Parameters]:
        values, memory = per_task(theta, 3), objective.rule.start(per_task(theta, 3))
        for number, (gradients, losses, observed) in enumerate(read):
            moving = {name: values[name] for name in gradients}
            moved, memory = objective.rule.step(memory | observed, moving, gradients, losses, number)
            values = values | moved
            yield values

    weights = objective.step_weights or (*[0.0] * (learner.inner_steps - 1), 1.0)
    return lambda theta: sum(
        weight * float(objective.at(values, tasks.data.support, tasks.data.query))
        for weight, values in zip(weights, after(theta), strict=True)
    )


@pytest.mark.parametrize("plan", [Plan(3), Plan(2), Plan(3, checkpointed=True)], ids=str)
@pytest.mark.parametrize("learner", LEARNERS)
def test_first_order_takes_what_the_rule_reads_as_constants(given: Any, learner: Any, plan: Plan) -> None:
    """No gradient passes through the gradients, losses and activities that a rule reads; all others do."""
    tasks = given.waves(backbone="tiny-mlp")
    rule = small(learner, second_order=False, plan=plan)
    parameters = start(rule, tasks)
    gradient = gradient_at(rule, tasks, parameters)
    assert_is_the_slope(gradient, frozen_loss(rule, tasks, parameters), parameters)
    second = gradient_at(rule.replace(second_order=True), tasks, parameters)
    assert any(not torch.allclose(second[name], value, rtol=1e-3) for name, value in gradient.items())


@pytest.mark.parametrize("learner", LEARNERS)
def test_adaptation_ends_after_the_steps_of_training(given: Any, learner: Any) -> None:
    tasks = given.waves(backbone="tiny-mlp")
    rule = small(learner)
    predictors: list[Any] = list(rule.adapt(State(start(rule, tasks)), tasks.data.support, tasks))
    assert len(predictors) == 3 + 1
    network = network_for(tasks, rule.backbone)
    losses = [supervised_loss(NetworkPredictor(network, each.parameters), tasks.data.support) for each in predictors]
    assert not any(torch.equal(*pair) for pair in zip(losses[1:], losses, strict=False))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"later_rate": 0.5}, "later_rate = 0.5: the rule says how far each step goes"),
        ({"inner_lr": -0.1}, "inner_lr = -0.1 is not at least 0"),
        ({"inner_lr": float("nan")}, "inner_lr = nan"),
        ({"inner_steps": 0}, "inner_steps = 0 is not at least 1"),
        ({"test_steps": (-1, 5)}, "test_steps = (-1, 5) is not at least 0"),
    ],
)
def test_bad_fields_are_one_line(name: str, fields: dict[str, Any], named: str) -> None:
    refused(name, fields, named)


@pytest.mark.parametrize(
    ("name", "fields", "named"),
    [
        ("meta-learner-lstm", {"hidden": 0}, "hidden = 0 is not at least 1"),
        ("meta-learner-lstm", {"clip_norm": -1.0}, "clip_norm = -1.0 is not at least 0"),
        ("learned-optimiser", {"hidden": 0}, "hidden = 0 is not at least 1"),
        ("learned-optimiser", {"window": -1}, "window = -1 is not at least 0"),
        ("learned-rule", {"learned_start": 1}, "learned-rule.learned_start = 1 is int, not bool"),
        ("learned-rule", {"hidden": 20}, "unknown field of 'learned-rule' 'hidden'"),
    ],
)
def test_bad_fields_of_one_rule_are_one_line(name: str, fields: dict[str, Any], named: str) -> None:
    refused(name, fields, named)


def refused(name: str, fields: dict[str, Any], named: str) -> None:
    with pytest.raises(MetabenchError) as caught:
        build_method(name, **fields)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_more_steps_than_it_is_trained_for_are_refused(name: str) -> None:
    tasks = build_task("sinusoid/k10")
    learner = build_method(name, tasks, inner_steps=3, test_steps=(1, 5))
    assert mismatch(learner, name, tasks) == "test_steps = (1, 5): adaptation ends after step 3, as in training"
    assert mismatch(learner.replace(test_steps=()), name, tasks) is None
    assert learner.replace(test_steps=()).reported_steps() == (3,)


@pytest.mark.parametrize("name", NAMES)
def test_control_is_refused_with_a_reason(name: str) -> None:
    tasks = build_task("navigation-2d/quick")
    assert mismatch(build_method(name), name, tasks) == (
        f"{name} is for classification and regression, navigation-2d is control"
    )
