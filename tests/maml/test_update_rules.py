"""Rules in place of gradient descent: learned rates and a momentum, against what is known about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.api import Parameters, State
from benchmarks.execution.plans import Plan
from benchmarks.models import NetworkPredictor, join, network_for, split
from maml.inner_loop import GradientDescent, InnerLoop, UpdateRule, per_task
from maml.losses import supervised_loss
from maml.maml import MAML
from maml.meta_sgd import MetaSGD


@dataclass(frozen=True)
class Momentum:
    """Heavy ball with a learned first velocity: a memory that changes from step to step."""

    rate: float
    kept: float

    def start(self, parameters: Mapping[str, Tensor]) -> Parameters:
        learned, values = split(parameters, "rule.")
        return {name: learned.get(name, torch.zeros_like(value)) for name, value in values.items()}

    def step(self, memory, values, gradients, losses, number):  # type: ignore[no-untyped-def]
        memory = {name: self.kept * memory[name] + gradient for name, gradient in gradients.items()}
        return {name: value - self.rate * memory[name] for name, value in values.items()}, memory


@dataclass(frozen=True)
class HeavyBall(MAML):
    def update_rule(self, rate: float) -> UpdateRule:
        return Momentum(rate, 0.7)


def meta_sgd(given: Any, tasks: Any, **fields: Any) -> MetaSGD:
    return MetaSGD(**{**vars(given.maml(tasks)), "inner_steps": 2, **fields})


def with_rates(parameters: Parameters, rate: float, spread: float = 0.0) -> Parameters:
    generator = torch.Generator().manual_seed(3)

    def rates(value: Tensor) -> Tensor:
        return rate * (1 + spread * torch.rand(value.shape, generator=generator, dtype=value.dtype))

    return parameters | join("rule.", {name: rates(value) for name, value in parameters.items()})


@pytest.mark.parametrize("second_order", [False, True])
@pytest.mark.parametrize("kind", ["waves", "images"])
def test_equal_rates_are_plain_maml_bit_for_bit(given: Any, kind: str, second_order: bool) -> None:
    tasks = getattr(given, kind)()
    plain = given.maml(tasks, inner_steps=2, second_order=second_order)
    learned = meta_sgd(given, tasks, second_order=second_order)
    parameters = given.state(tasks).parameters
    found = next(learned.fit(tasks, 0, State(with_rates(parameters, plain.inner_lr))))
    expected = next(plain.fit(tasks, 0, State(parameters)))
    assert found.loss == expected.loss
    assert all(torch.equal(found.parameters[name], value) for name, value in expected.parameters.items())
    states = State(with_rates(parameters, plain.inner_lr)), State(parameters)
    support, x = tasks.data.support, tasks.data.query.x
    outputs = [
        [predictor(x)[0] for predictor in islice(learner.adapt(state, support, tasks), 5)]
        for learner, state in zip((learned, plain), states, strict=True)
    ]
    assert len(outputs[0]) == 3, "adaptation ends after the steps of training"
    assert all(map(torch.equal, *([each[:3] for each in outputs])))


def slope(learner: MAML, tasks: Any, parameters: Parameters, direction: Parameters, size: float = 1e-6) -> float:
    def loss(sign: int) -> float:
        moved = {name: value + sign * size * direction[name] for name, value in parameters.items()}
        found = next(learner.fit(tasks, 0, State(moved))).loss
        assert found is not None
        return found

    return (loss(1) - loss(-1)) / (2 * size)


@pytest.mark.parametrize("kind", ["waves", "images"])
@pytest.mark.parametrize("plan", [Plan(3), Plan(3, checkpointed=True), Plan(1, per_task="vmap")], ids=str)
@pytest.mark.parametrize("learner", [MetaSGD, HeavyBall])
def test_the_meta_gradient_reaches_what_the_rule_learns(given: Any, kind: str, plan: Plan, learner: Any) -> None:
    tasks = getattr(given, kind)()
    rule = learner(**{**vars(given.maml(tasks, inner_steps=3)), "plan": plan})
    parameters = with_rates(given.state(tasks).parameters, rule.inner_lr, spread=0.5)
    moments = next(rule.fit(tasks, 0, State(parameters))).moments
    gradient = {name: moments[f"{name}/exp_avg"] / (1 - 0.9) for name in parameters}
    moved = {name for name, value in gradient.items() if value.abs().max() > 0}
    fixed = {f"rule.{name}" for name in rule.fixed(network_for(tasks))}
    assert {name for name in parameters if name.startswith("rule.")} & moved
    assert not fixed & moved
    length = sum(float(value.square().sum()) for value in gradient.values()) ** 0.5
    direction = {name: value / length for name, value in gradient.items()}
    assert slope(rule, tasks, parameters, direction) == pytest.approx(length, rel=1e-5)


def test_first_order_still_trains_the_rates(given: Any) -> None:
    """For one step the gradient by the rates is minus the product of two first derivatives: no second ones in it."""
    tasks = given.waves()
    parameters = with_rates(given.state(tasks).parameters, 0.02)
    first, second = (
        next(meta_sgd(given, tasks, inner_steps=1, second_order=order).fit(tasks, 0, State(parameters))).moments
        for order in (False, True)
    )
    for name in parameters:
        same = torch.allclose(first[f"{name}/exp_avg"], second[f"{name}/exp_avg"], rtol=1e-9, atol=1e-12)
        assert same or not name.startswith("rule."), name
    assert not torch.allclose(first["layer0.weight/exp_avg"], second["layer0.weight/exp_avg"])


def test_a_momentum_is_that_of_torch(given: Any) -> None:
    tasks = given.waves()
    learner, state = HeavyBall(**vars(given.maml(tasks))), given.state(tasks)
    found: Any = list(islice(learner.adapt(state, tasks.data.support, tasks), 4))
    for task in range(3):
        support = tasks.data.support[task : task + 1]
        leaves = {name: value.clone().requires_grad_() for name, value in per_task(state.parameters, 1).items()}
        optimiser = torch.optim.SGD(leaves.values(), lr=learner.inner_lr, momentum=0.7)
        for step in range(3):
            optimiser.zero_grad()
            supervised_loss(NetworkPredictor(network_for(tasks), leaves), support).sum().backward()
            optimiser.step()
            for name, value in leaves.items():
                torch.testing.assert_close(
                    found[step + 1].parameters[name][task], value[0].detach(), rtol=1e-12, atol=0
                )


def test_a_rule_sees_the_number_of_the_step_and_the_loss_of_each_task(given: Any) -> None:
    tasks, seen = given.waves(), []

    @dataclass(frozen=True)
    class Watching(GradientDescent):
        def step(self, memory, values, gradients, losses, number):  # type: ignore[no-untyped-def]
            seen.append((number, losses.shape, sorted(values)))
            return super().step(memory, values, gradients, losses, number)

    network, parameters = network_for(tasks), with_rates(given.state(tasks).parameters, 1.0)
    numbers: list[int] = []

    def predictor_of(theta: Mapping[str, Tensor], step: int) -> NetworkPredictor:
        numbers.append(step)
        return NetworkPredictor(network, theta)

    inner = InnerLoop(predictor_of, supervised_loss, Watching(0.01), False, lambda name: name != "head.bias")
    *_, last = islice(inner.steps(per_task(parameters, 3), tasks.data.support), 4)
    moving = sorted(set(given.state(tasks).parameters) - {"head.bias"})
    assert seen == [(number, (3,), moving) for number in range(3)]
    assert numbers == [0, 1, 2]
    assert all(torch.equal(last[name], per_task(parameters, 3)[name]) for name in parameters if "rule." in name)
