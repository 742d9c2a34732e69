"""The learned optimiser: its step against torch's own LSTM, the losses that train it, and where its gradient ends."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from benchmarks.api import Parameters, State
from maml.coordinates import preprocessed
from maml.inner_loop import detached, per_task
from maml.learned_optimiser import CoordinatewiseLSTM, LearnedOptimiser

STEPS = {"inner_steps": 4, "test_steps": (4,), "meta_batch": 3, "hidden": 3}


def start(learner: LearnedOptimiser, tasks: Any) -> Parameters:
    return {name: value.double() for name, value in learner.initial(tasks, 0).items()}


def gradient_at(learner: LearnedOptimiser, tasks: Any, parameters: Parameters) -> Parameters:
    moments = next(learner.fit(tasks, 0, State(parameters))).moments
    return {name: moments[f"{name}/exp_avg"] / (1 - 0.9) for name in parameters}


def test_an_optimiser_that_writes_zeros_leaves_the_network_as_it_is(given: Any) -> None:
    tasks = given.images()
    learner = LearnedOptimiser(**STEPS)
    parameters = start(learner, tasks)
    parameters |= {name: torch.zeros_like(parameters[name]) for name in ("rule.last.weight", "rule.last.bias")}
    outputs = [each(tasks.data.query.x)[0] for each in learner.adapt(State(parameters), tasks.data.support, tasks)]
    assert len(outputs) == 5
    assert all(torch.equal(output, outputs[0]) for output in outputs)


def test_a_step_is_a_tenth_of_what_two_lstm_layers_of_torch_write() -> None:
    generator = torch.Generator().manual_seed(3)
    own = {name: value.double() for name, value in LearnedOptimiser(hidden=3).trained(generator).items()}
    own["last.bias"] = torch.full((1,), 0.3, dtype=torch.float64)
    reader = torch.nn.LSTM(2, 3, 2, dtype=torch.float64)
    for number, layer in enumerate(("first", "second")):
        parts = {"weight_ih": "input", "weight_hh": "recurrent", "bias_ih": "bias"}
        weights = {f"{name}_l{number}": own[f"{layer}.{part}"] for name, part in parts.items()}
        reader.load_state_dict(weights | {f"bias_hh_l{number}": torch.zeros(12).double()}, strict=False)
    gradients = torch.randn(5, 2, 4, generator=generator, dtype=torch.float64)
    written, _ = reader(preprocessed(gradients).flatten(1, 2))
    steps = 0.1 * (written @ own["last.weight"][0] + 0.3).view(5, 2, 4)
    memory = {name: value.expand(2, *value.shape) for name, value in own.items()}
    values = {"w": torch.randn(2, 4, generator=generator, dtype=torch.float64)}
    expected = values["w"] + steps.cumsum(0)
    for number, gradient in enumerate(gradients):
        losses = torch.zeros(2)
        values, memory = CoordinatewiseLSTM(0.1).step(memory, values, {"w": gradient}, losses, number)
        torch.testing.assert_close(values["w"], expected[number], rtol=1e-12, atol=1e-12)


def test_the_losses_after_all_steps_train_it(given: Any) -> None:
    tasks = given.waves(backbone="tiny-mlp")
    learner = LearnedOptimiser(**STEPS)
    parameters = start(learner, tasks)
    predictors = list(learner.adapt(State(parameters), tasks.data.support, tasks))
    errors = [(each(tasks.data.query.x)[0] - tasks.data.query.y).square().mean() for each in predictors[1:]]
    assert next(learner.fit(tasks, 0, State(parameters))).loss == pytest.approx(float(sum(errors)), rel=1e-12)


def windows_by_hand(learner: LearnedOptimiser, tasks: Any, parameters: Parameters, window: int) -> Parameters:
    """The sum of the gradients of windows, each from detached parameters and memory, with an untruncated rule."""
    objective = learner._objective(tasks, learner.inner_lr, None)
    leaves = {name: value.clone().requires_grad_() for name, value in parameters.items()}
    copies = per_task(leaves, 3)
    rule = CoordinatewiseLSTM(learner.inner_lr)
    values, memory, losses = copies, rule.start(copies), []
    for number in range(learner.inner_steps):
        if number and number % window == 0:
            state = detached({name: value for name, value in memory.items() if name.startswith("state.")})
            theta = {n: v.detach().requires_grad_() for n, v in values.items() if not n.startswith("rule.")}
            values, memory = values | theta, memory | state
        moving = {name: value for name, value in values.items() if not name.startswith("rule.")}
        gradients = torch.autograd.grad(
            objective.at(values, tasks.data.support, tasks.data.support) / objective.weight,
            list(moving.values()),
            retain_graph=True,
        )
        found = dict(zip(moving, gradients, strict=True))
        moved, memory = rule.step(memory, moving, found, torch.zeros(3).double(), number)
        values = values | moved
        losses.append(objective.at(values, tasks.data.support, tasks.data.query))
    total = torch.autograd.grad(sum(losses), list(leaves.values()))
    return dict(zip(leaves, total, strict=True))


@pytest.mark.parametrize("second_order", [False, True])
def test_the_meta_gradient_ends_at_windows(given: Any, second_order: bool) -> None:
    """Parameters, memory and gradients are constants at the beginning of a window."""
    tasks = given.waves(backbone="tiny-mlp")
    learner = LearnedOptimiser(**STEPS, window=2, second_order=second_order)
    parameters = start(learner, tasks)
    found = gradient_at(learner, tasks, parameters)
    through = gradient_at(learner.replace(window=0), tasks, parameters)
    assert not torch.allclose(found["rule.last.weight"], through["rule.last.weight"], rtol=1e-3)
    if second_order:
        ends = gradient_at(learner.replace(window=1), tasks, parameters)
        constants = gradient_at(learner.replace(window=1, second_order=False), tasks, parameters)
        # a window of one step has no second derivative by the rule
        rule = [name for name in parameters if name.startswith("rule.")]
        assert all(torch.allclose(ends[name], constants[name], rtol=1e-10, atol=1e-14) for name in rule)
        return
    expected = windows_by_hand(learner, tasks, parameters, 2)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("second_order", [False, True])
def test_a_start_that_is_not_learned_stays(given: Any, second_order: bool) -> None:
    tasks = given.waves(backbone="tiny-mlp")
    learner = LearnedOptimiser(**STEPS, learned_start=False, second_order=second_order)
    parameters = start(learner, tasks)
    state = next(learner.fit(tasks, 0, State(parameters)))
    for name, value in parameters.items():
        assert torch.equal(state.parameters[name], value) is not name.startswith("rule."), name
