"""The inner loop: gradient steps on the support set, for T tasks at once.

Finn, Abbeel and Levine, "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks", ICML 2017, equation 1:
theta'_i = theta - alpha grad L_i(theta), repeated. This is the only place that asks for a graph of the gradient
(``create_graph``): second order keeps it, first order (section 5.2, FOMAML) drops it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.api import Parameters, Predictor, Source

#: parameters ``[T, ...]`` by name -> the predictor that they make
PredictorOf = Callable[[Mapping[str, Tensor]], Predictor]
#: predictor and the data of this step -> one loss per task, ``[T]``
TaskLoss = Callable[[Predictor, Any], Tensor]
#: the rates that every method with inner steps chooses from on validation tasks, so that none is tuned more finely
RATES = (0.001, 0.004, 0.01, 0.04, 0.1, 0.4)


def per_task(parameters: Mapping[str, Tensor], tasks: int) -> Parameters:
    """One copy per task of parameters without a task axis: ``[...]`` to ``[T, ...]``, sharing memory."""
    return {name: value.expand(tasks, *value.shape) for name, value in parameters.items()}


def inner_loop(
    parameters: Mapping[str, Tensor],
    support: Source,
    predictor_of: PredictorOf,
    loss: TaskLoss,
    rate: float | Sequence[float],
    *,
    second_order: bool,
    adapted: Callable[[str], bool] = lambda name: True,
    weight_decay: float = 0.0,
) -> Iterator[Parameters]:
    """Yield the parameters of T tasks after 0, 1, 2 ... gradient steps, for as long as asked.

    parameters: ``[T, ...]`` by name; the tasks don't touch each other.
    rate: the step size, or one per step (the last one goes on).
    second_order: keep the graph of each gradient, so that a later gradient passes through the step.
    adapted: which parameters take steps; the others stay.
    weight_decay: of the adapted parameters, added to their gradient.
    """
    rates = (rate,) if isinstance(rate, (int, float)) else tuple(rate)
    parameters = dict(parameters)
    names = [name for name in parameters if adapted(name)]
    step = 0
    while True:
        yield parameters
        with torch.enable_grad():
            leaves = {
                name: value if value.requires_grad else value.detach().requires_grad_()
                for name, value in parameters.items()
                if name in names
            }
            predictor = predictor_of({**parameters, **leaves})
            losses = loss(predictor, support.batch(predictor, step))
            gradients = torch.autograd.grad(losses.sum(), list(leaves.values()), create_graph=second_order)
        size = rates[min(step, len(rates) - 1)]
        stepped = {}
        for (name, value), gradient in zip(leaves.items(), gradients, strict=True):
            stepped[name] = value - size * (gradient + weight_decay * value if weight_decay else gradient)
        if not any(value.requires_grad for value in parameters.values()):
            stepped = {name: value.detach() for name, value in stepped.items()}
        parameters = {**parameters, **stepped}
        step += 1
