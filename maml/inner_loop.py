"""The inner loop: steps of an update rule on the support set, for T tasks at once.

Finn, Abbeel and Levine, "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks", ICML 2017, equation 1:
theta'_i = theta - alpha grad L_i(theta), repeated. This is the only file that asks for a graph of the gradient
(``create_graph``): second order keeps it, first order (section 5.2, FOMAML) drops it.

Other rules take the place of plain gradient descent: learned rates (Meta-SGD), a recurrent network (the meta-learner
LSTM), a proximal term (iMAML).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from benchmarks.api import Parameters, Predictor, Source

#: parameters ``[T, ...]`` by name and the number of steps taken -> a predictor
PredictorOf = Callable[[Mapping[str, Tensor], int], Predictor]
#: predictor and the data of this step -> one loss per task, ``[T]``
TaskLoss = Callable[[Predictor, Any], Tensor]
#: the inner rates that all methods choose from on validation tasks, so that none is tuned more finely
RATES = (0.001, 0.004, 0.01, 0.04, 0.1, 0.4)


def per_task(parameters: Mapping[str, Tensor], tasks: int) -> Parameters:
    """One copy per task of parameters without a task axis: ``[...]`` to ``[T, ...]``, sharing memory."""
    return {name: value.expand(tasks, *value.shape) for name, value in parameters.items()}


def detached(parameters: Mapping[str, Tensor]) -> Parameters:
    """The same values without a graph, sharing memory."""
    return {name: value.detach() for name, value in parameters.items()}


def gradients_of(loss: Tensor, leaves: Mapping[str, Tensor], *, graph: bool) -> Sequence[Tensor]:
    """The gradient of a scalar by each leaf, 0 where it does not depend on one; graph: keep that of the gradients."""
    return torch.autograd.grad(
        loss, list(leaves.values()), create_graph=graph, allow_unused=True, materialize_grads=True
    )


class UpdateRule(Protocol):
    """How a gradient changes the parameters. A rule is a frozen dataclass without tensors.

    Its memory is a dict of tensors ``[T, ...]``. Parameters that the rule learns belong to the learner's state under
    the prefix ``rule.``: `start` copies them into the memory, and the meta-gradient reaches them through it.

    A rule may also have ``observe(predictor, batch)``, which returns tensors ``[T, ...]`` by name, such as the activity
    of units. The next `step` finds them in its memory. In first order they carry no graph, nor do the losses."""

    def start(self, parameters: Mapping[str, Tensor]) -> Parameters:
        """The memory before the first step; parameters: all of the learner's, ``[T, ...]``."""
        ...

    def step(
        self, memory: Parameters, values: Parameters, gradients: Parameters, losses: Tensor, number: int
    ) -> tuple[Parameters, Parameters]:
        """The values after a step, and the memory.

        values, gradients: of the parameters that take steps, by name. losses: ``[T]``. number: of the step, from 0."""
        ...


@dataclass(frozen=True)
class Recorded:
    """A source that replays ``batches[step]``, the data of an earlier inner loop."""

    batches: Sequence[Any]

    def batch(self, predictor: Predictor | None, step: int) -> Any:
        return self.batches[step]


@dataclass(frozen=True)
class GradientDescent:
    """Plain gradient descent.

    rate: the step size, or one per step (the last one goes on).
    weight_decay: factor of the values that are added to their gradients.
    """

    rate: float | Sequence[float]
    weight_decay: float = 0.0

    def start(self, parameters: Mapping[str, Tensor]) -> Parameters:
        return {}

    def step(
        self, memory: Parameters, values: Parameters, gradients: Parameters, losses: Tensor, number: int
    ) -> tuple[Parameters, Parameters]:
        rates = (self.rate,) if isinstance(self.rate, (int, float)) else self.rate
        size, decay = rates[min(number, len(rates) - 1)], self.weight_decay
        stepped = {}
        for name, value in values.items():
            gradient = gradients[name]
            stepped[name] = value - size * (gradient + decay * value if decay else gradient)
        return stepped, memory


@dataclass(frozen=True)
class InnerLoop:
    """Steps on the losses of T tasks, which don't touch each other.

    second_order: keep the graph of each gradient, so that a later gradient passes through the step.
    adapted: which parameters take steps, by name; the others stay. Those of the rule (``rule.``) never do.
    """

    predictor_of: PredictorOf
    loss: TaskLoss
    rule: UpdateRule
    second_order: bool
    adapted: Callable[[str], bool] = lambda name: True

    def steps(self, parameters: Mapping[str, Tensor], support: Source) -> Iterator[Parameters]:
        """Yield the parameters ``[T, ...]`` after 0, 1, 2 ... steps, for as long as asked."""
        parameters, memory = dict(parameters), self.rule.start(parameters)
        for number in itertools.count():
            yield parameters
            parameters, memory = self.step(parameters, memory, support, number)

    def step(
        self, parameters: Parameters, memory: Parameters, support: Source, number: int
    ) -> tuple[Parameters, Parameters]:
        """The parameters and the rule's memory after step ``number``."""
        with torch.enable_grad():
            leaves = {
                name: value if value.requires_grad else value.detach().requires_grad_()
                for name, value in parameters.items()
                if not name.startswith("rule.") and self.adapted(name)
            }
            predictor = self.predictor_of({**parameters, **leaves}, number)
            batch = support.batch(predictor, number)
            losses = self.loss(predictor, batch)
            found = gradients_of(losses.sum(), leaves, graph=self.second_order)
            observed = self._observed(predictor, batch)
        gradients = dict(zip(leaves, found, strict=True))
        seen = losses if self.second_order else losses.detach()
        stepped, memory = self.rule.step(memory | observed, leaves, gradients, seen, number)
        if not any(value.requires_grad for value in parameters.values()):
            stepped, memory = detached(stepped), detached(memory)
        return {**parameters, **stepped}, memory

    def _observed(self, predictor: Predictor, batch: Any) -> Parameters:
        """What the rule observes besides gradients; nothing for most."""
        observe = getattr(self.rule, "observe", None)
        found: Parameters = observe(predictor, batch) if observe else {}
        return found if self.second_order else detached(found)
