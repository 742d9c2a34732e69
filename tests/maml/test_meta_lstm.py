"""The cell of the meta-learner LSTM: gradient descent as a special case, and its gates against torch's own LSTM."""

from __future__ import annotations

import math
from itertools import islice
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.api import Parameters, State
from maml.coordinates import preprocessed
from maml.maml import MAML
from maml.meta_lstm import CellUpdate, MetaLearnerLSTM

STEPS = {"inner_steps": 3, "test_steps": (3,), "meta_batch": 3, "hidden": 4, "clip_norm": 0.0}


def with_gates(learner: MetaLearnerLSTM, tasks: Any, forget: float, enter: float) -> Parameters:
    """The parameters with gates that are these inputs of their sigmoid, whatever they read."""
    parameters = {name: value.double() for name, value in learner.initial(tasks, 0).items()}
    for gate, bias in (("forget", forget), ("enter", enter)):
        parameters[f"rule.{gate}.weight"] = torch.zeros_like(parameters[f"rule.{gate}.weight"])
        parameters[f"rule.{gate}.bias"] = torch.full((1,), bias, dtype=torch.float64)
    return parameters


@pytest.mark.parametrize("kind", ["waves", "images"])
def test_an_open_forget_gate_and_a_constant_input_gate_are_gradient_descent(given: Any, kind: str) -> None:
    """The rate is the input gate: nothing divides the gradient of the mean loss by the number of examples again.

    The first step is equal bit for bit; then products of matrices round otherwise, since their strides differ."""
    tasks = getattr(given, kind)()
    learner = MetaLearnerLSTM(**STEPS, inner_lr=0.04)
    parameters = with_gates(learner, tasks, math.inf, 0.0)  # an input gate of exactly one half
    plain = MAML(
        inner_lr=0.02, inner_steps=3, meta_batch=3, loss_scale="mean", adapt_normalisation=True, second_order=False
    )
    theta = {name: value for name, value in parameters.items() if not name.startswith("rule.")}
    support, x = tasks.data.support, tasks.data.query.x
    found: list[Any] = list(learner.adapt(State(parameters), support, tasks))
    expected: list[Any] = list(islice(plain.adapt(State(theta), support, tasks), 4))
    assert all(torch.equal(found[1].parameters[name], value) for name, value in expected[1].parameters.items())
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one(x)[0], other(x)[0], rtol=1e-12, atol=1e-14)
    trained, first_order = (
        next(each.fit(tasks, 0, State(own))) for each, own in ((learner, parameters), (plain, theta))
    )
    assert trained.loss == pytest.approx(first_order.loss, rel=1e-13)
    for name in theta:
        one, other = (state.moments[f"{name}/exp_avg"] for state in (trained, first_order))
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-15)


@torch.no_grad()
def by_hand(own: Parameters, cell: float, gradients: list[float], losses: list[float]) -> list[float]:
    """One coordinate after each step, with torch's LSTM cell and the equations of section 3.2."""
    hidden = own["lstm.recurrent"].shape[1]
    reader = torch.nn.LSTMCell(4, hidden, dtype=torch.float64)
    reader.load_state_dict(
        {
            "weight_ih": own["lstm.input"],
            "weight_hh": own["lstm.recurrent"],
            "bias_ih": own["lstm.bias"],
            "bias_hh": torch.zeros_like(own["lstm.bias"]),
        }
    )
    state = (torch.zeros(1, hidden, dtype=torch.float64),) * 2
    gates, found = {"forget": 0.0, "enter": 0.0}, []
    for gradient, loss in zip(gradients, losses, strict=True):
        seen = preprocessed(torch.tensor([gradient, loss], dtype=torch.float64)).view(1, 4)
        state = reader(seen, state)
        for gate, last in gates.items():
            x = torch.cat((state[0][0], torch.tensor([cell, last], dtype=torch.float64)))
            gates[gate] = float((own[f"{gate}.weight"][0] @ x + own[f"{gate}.bias"][0]).sigmoid())
        cell = gates["forget"] * cell - gates["enter"] * gradient
        found.append(cell)
    return found


def steps_of(own: Parameters, cell: Tensor, gradients: Tensor, losses: Tensor) -> list[Tensor]:
    """The coordinates ``[T, n]`` after each step; gradients ``[steps, T, n]``, losses ``[steps, T]``."""
    memory = {name: value.expand(len(cell), *value.shape) for name, value in own.items()}
    values, found = {"w": cell}, []
    for number, (gradient, loss) in enumerate(zip(gradients, losses, strict=True)):
        values, memory = CellUpdate(1.0).step(memory, values, {"w": gradient}, loss, number)
        found.append(values["w"])
    return found


def drawn_rule(scale: float = 1.0) -> tuple[Parameters, torch.Generator]:
    generator = torch.Generator().manual_seed(4)
    shapes = MetaLearnerLSTM(hidden=3).trained(generator)
    own = {n: scale * torch.randn(v.shape, generator=generator, dtype=torch.float64) for n, v in shapes.items()}
    return own, generator


def test_gates_see_their_last_values_and_not_what_went_into_their_sigmoid() -> None:
    own, generator = drawn_rule()
    cell = torch.randn(2, 5, generator=generator, dtype=torch.float64)
    gradients = torch.randn(3, 2, 5, generator=generator, dtype=torch.float64)
    losses = torch.rand(3, 2, generator=generator, dtype=torch.float64)
    found = torch.stack(steps_of(own, cell, gradients, losses))
    for task in range(2):
        for number in range(5):
            expected = by_hand(
                own, float(cell[task, number]), gradients[:, task, number].tolist(), losses[:, task].tolist()
            )
            assert found[:, task, number].tolist() == pytest.approx(expected, rel=1e-12)


def test_coordinates_are_treated_alike_and_apart() -> None:
    own, generator = drawn_rule()
    cell = torch.randn(1, 6, generator=generator, dtype=torch.float64)
    gradients = torch.randn(3, 1, 6, generator=generator, dtype=torch.float64)
    losses = torch.rand(3, 1, generator=generator, dtype=torch.float64)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    found = steps_of(own, cell, gradients, losses)[-1][:, order]
    torch.testing.assert_close(
        steps_of(own, cell[:, order], gradients[..., order], losses)[-1], found, rtol=1e-12, atol=0
    )


def test_training_starts_near_gradient_descent_with_a_rate_of_a_hundredth(given: Any) -> None:
    learner = MetaLearnerLSTM()
    own = learner.trained(torch.Generator().manual_seed(0))
    assert 0.98 < float(own["forget.bias"].sigmoid()) < 0.9934
    assert 0.0066 < float(own["enter.bias"].sigmoid()) < 0.018
    assert max(float(value.abs().max()) for name, value in own.items() if "bias" not in name or "lstm" in name) <= 0.01
    assert all(F.linear(torch.ones(1, 22), own[f"{gate}.weight"]).abs() < 0.22 for gate in ("forget", "enter"))


def test_the_meta_gradient_is_bounded_in_norm(given: Any) -> None:
    tasks = given.waves()
    learner = MetaLearnerLSTM(**{**STEPS, "clip_norm": 0.25})
    parameters = {name: value.double() for name, value in learner.initial(tasks, 0).items()}
    moments = next(learner.fit(tasks, 0, State(parameters))).moments
    norm = sum(float((m / 0.1).square().sum()) for name, m in moments.items() if name.endswith("/exp_avg")) ** 0.5
    assert norm == pytest.approx(0.25, rel=1e-5)
