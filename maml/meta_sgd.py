"""Meta-SGD: learn the rate of every parameter along with the initialisation.

Li, Zhou, Chen and Li, "Meta-SGD: Learning to Learn Quickly for Few-Shot Learning", 2017: the inner step is theta' =
theta - a * gradient, element by element. The meta-gradient trains a, which has theta's shape, as it trains theta. So a
rate may become negative.

A learned rate is good for the steps it was trained with: adaptation ends after them.

Deviations:
- all rates start at `inner_lr`;
- batch-norm's scale and shift take no inner steps and have no rates, as in `maml`; in learn2learn they have.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from benchmarks.api import Parameters, TaskDistribution, adaptation_field
from benchmarks.models import join, network_for, split
from benchmarks.origin import Origin, ours
from benchmarks.registry import register_method
from maml.inner_loop import UpdateRule
from maml.losses import loss_factor
from maml.maml import MAML


@dataclass(frozen=True)
class RatePerElement:
    """Gradient descent whose rates are parameters: ``rule.<name>`` has the shape of ``<name>``."""

    def start(self, parameters: Mapping[str, Tensor]) -> Parameters:
        return split(parameters, "rule.")[0]

    def step(
        self, memory: Parameters, values: Parameters, gradients: Parameters, losses: Tensor, number: int
    ) -> tuple[Parameters, Parameters]:
        return {name: value - memory[name] * gradients[name] for name, value in values.items()}, memory


@register_method("meta-sgd")
@dataclass(frozen=True)
class MetaSGD(MAML):
    """Learn an initialisation and the rate of each of its elements.

    inner_lr: the rate that all elements start with, in the units of `loss_scale`.
    test_steps: numbers of steps reported at test, at most `inner_steps`; (): all of them.

    All other fields: see `maml.maml.MAML`.
    """

    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        task: {**fields, "inner_steps": 1, "test_steps": ()} for task, fields in MAML.published.items()
    }
    origins: ClassVar[Mapping[str, Origin]] = {"": ours("MAML's for the task, with one step as in the paper; untried")}
    grid: ClassVar[Mapping[str, tuple[float, ...]]] = {}

    test_steps: tuple[int, ...] = adaptation_field(())

    def refuses(self, tasks: TaskDistribution) -> str | None:
        if self.later_rate != 1 or self.test_lr:
            given = f"test_lr = {self.test_lr}" if self.test_lr else f"later_rate = {self.later_rate}"
            return f"{given}: the rates of all steps are learned"
        return super().refuses(tasks)

    def initial(self, tasks: TaskDistribution, seed: int) -> Parameters:
        theta, fixed = super().initial(tasks, seed), self.fixed(network_for(tasks, self.backbone))
        rate = self.inner_lr * loss_factor(tasks, self.loss_scale)
        rates = {name: torch.full_like(value, rate) for name, value in theta.items() if name not in fixed}
        return theta | join("rule.", rates)

    def update_rule(self, rate: float) -> UpdateRule:
        return RatePerElement()

    def most_steps(self) -> int:
        return self.inner_steps
