"""Gradient steps for T tasks at once, against mathematics that is known exactly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

import pytest
import torch
from torch import Tensor

from maml.inner_loop import GradientDescent, InnerLoop, Recorded, per_task

TASKS, SIZE, RATE = 3, 4, 0.05


@dataclass(frozen=True)
class Quadratic:
    """1/2 w'Hw - b'w of each task: H ``[T, d, d]``, b ``[T, d]``."""

    hessian: Tensor
    linear: Tensor

    def loss(self, w: Tensor) -> Tensor:
        return 0.5 * torch.einsum("ti,tij,tj->t", w, self.hessian, w) - (self.linear * w).sum(1)

    def gradient(self, w: Tensor) -> Tensor:
        return torch.einsum("tij,tj->ti", self.hessian, w) - self.linear


def quadratics(count: int, seed: int = 0) -> list[Quadratic]:
    """A loss per inner step whose Hessians don't commute, so that the order of the factors matters."""
    generator = torch.Generator().manual_seed(seed)
    roots = torch.randn(count, TASKS, SIZE, SIZE, generator=generator, dtype=torch.float64)
    linear = torch.randn(count, TASKS, SIZE, generator=generator, dtype=torch.float64)
    return [Quadratic(root @ root.mT, b) for root, b in zip(roots, linear, strict=True)]


def start(seed: int = 7) -> Tensor:
    return torch.randn(SIZE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def steps_on(
    losses: list[Quadratic], w: Tensor, second_order: bool, loss: Callable[[Tensor, Quadratic], Tensor] | None = None
) -> Tensor:
    """w ``[d]`` after one inner step on each of the losses, ``[T, d]``."""
    loss = loss or (lambda value, quadratic: quadratic.loss(value))
    inner = InnerLoop(
        lambda parameters, step: lambda x, memory=None: (parameters["w"], memory),
        lambda predictor, quadratic: loss(predictor(None)[0], quadratic),
        GradientDescent(RATE),
        second_order,
    )
    return next(islice(inner.steps(per_task({"w": w}, TASKS), Recorded(losses)), len(losses), None))["w"]


def meta_gradient(losses: list[Quadratic], query: Quadratic, second_order: bool, **options: Callable) -> Tensor:
    w = start().requires_grad_()
    return torch.autograd.grad(query.loss(steps_on(losses, w, second_order, **options)).sum(), w)[0]


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_meta_gradient_on_quadratics_is_the_product_of_the_steps(steps: int) -> None:
    *losses, query = quadratics(steps + 1)
    expected = torch.zeros(SIZE, dtype=torch.float64)
    for task in range(TASKS):
        w, product = start(), torch.eye(SIZE, dtype=torch.float64)
        for loss in losses:
            w = w - RATE * (loss.hessian[task] @ w - loss.linear[task])
            product = product @ (torch.eye(SIZE) - RATE * loss.hessian[task])
        expected += product @ (query.hessian[task] @ w - query.linear[task])
    torch.testing.assert_close(meta_gradient(losses, query, True), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("steps", [1, 3])
def test_first_order_is_the_query_gradient_where_the_steps_ended(steps: int) -> None:
    *losses, query = quadratics(steps + 1)
    ended = steps_on(losses, start(), False)
    expected = query.gradient(ended).sum(0)
    torch.testing.assert_close(meta_gradient(losses, query, False), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("steps", [1, 3])
def test_first_order_equals_second_order_where_the_hessian_vanishes(steps: int) -> None:
    def straight(w: Tensor, quadratic: Quadratic) -> Tensor:
        """Absolute error of each linear output: its slope is constant but for the sign."""
        return (torch.einsum("tij,tj->ti", quadratic.hessian, w) - quadratic.linear).abs().sum(1)

    *losses, query = quadratics(steps + 1)
    first, second = (meta_gradient(losses, query, order, loss=straight) for order in (False, True))
    torch.testing.assert_close(first, second, rtol=1e-14, atol=1e-14)
    assert not torch.allclose(first, query.gradient(start().expand(TASKS, -1)).sum(0)), "no step was taken"


def simple(second_order: bool = False, **options: object):  # type: ignore[no-untyped-def]
    """Steps on one quadratic with parameters a and b, each ``[T, d]``, that start apart."""
    (loss,) = quadratics(1)
    parameters = per_task({"a": start(1), "b": start(2)}, TASKS)
    inner = InnerLoop(
        lambda theta, step: lambda x, memory=None: (theta["a"] + 2 * theta["b"], memory),
        lambda predictor, quadratic: quadratic.loss(predictor(None)[0]),
        options.pop("rule", GradientDescent(RATE)),
        second_order,
        **options,
    )
    return loss, parameters, inner.steps(parameters, Recorded([loss] * 10))


def test_a_step_is_the_rate_times_the_gradient() -> None:
    loss, parameters, adapted = simple()
    zero, one, _ = islice(adapted, 3)
    gradient = loss.gradient(parameters["a"] + 2 * parameters["b"])
    assert all(torch.equal(zero[name], parameters[name]) for name in parameters)
    torch.testing.assert_close(one["a"], parameters["a"] - RATE * gradient, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(one["b"], parameters["b"] - 2 * RATE * gradient, rtol=1e-14, atol=1e-14)


def test_a_rate_per_step_is_taken_in_turn_and_the_last_goes_on() -> None:
    loss, _, adapted = simple(rule=GradientDescent((0.1, 0.02)))
    thetas = list(islice(adapted, 4))
    for step, rate in enumerate((0.1, 0.02, 0.02)):
        before, after = thetas[step], thetas[step + 1]
        gradient = loss.gradient(before["a"] + 2 * before["b"])
        torch.testing.assert_close(before["a"] - after["a"], rate * gradient, rtol=1e-10, atol=1e-14)


def test_parameters_that_are_not_adapted_stay() -> None:
    _, parameters, adapted = simple(adapted=lambda name: name == "a")
    *_, last = islice(adapted, 4)
    assert torch.equal(last["b"], parameters["b"])
    assert (last["a"] != parameters["a"]).all()


def test_weight_decay_pulls_towards_zero() -> None:
    loss, parameters, adapted = simple(rule=GradientDescent(RATE, 0.3))
    one = next(islice(adapted, 1, None))
    gradient = loss.gradient(parameters["a"] + 2 * parameters["b"]) + 0.3 * parameters["a"]
    torch.testing.assert_close(one["a"], parameters["a"] - RATE * gradient, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("second_order", [False, True])
def test_nothing_keeps_a_graph_when_nobody_asked_for_gradients(second_order: bool) -> None:
    for theta in islice(simple(second_order)[2], 4):
        assert not any(value.requires_grad or value.grad_fn for value in theta.values())


def test_steps_can_be_taken_where_gradients_are_switched_off() -> None:
    expected = [theta["a"] for theta in islice(simple()[2], 3)]
    with torch.no_grad():
        found = [theta["a"] for theta in islice(simple()[2], 3)]
    assert all(map(torch.equal, expected, found))
