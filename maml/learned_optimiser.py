"""A learned optimiser.

Andrychowicz et al., "Learning to learn by gradient descent by gradient descent", NeurIPS 2016: an LSTM with two layers
reads each coordinate's gradient and writes its step, theta' = theta + 0.1 m(gradient, memory) (section 2.1, appendix
A). It is trained on the sum of the losses after every step, f(theta_1) + ... + f(theta_n), by gradient descent through
the steps (equation 3), with gradients as constants; ``second_order=True`` drops that assumption.

Deviations from the paper:
- the losses that train it are those of the queries of few-shot tasks, its gradients those of the support set;
- the initialisation is learned with it; ``learned_start=False`` leaves it as it was drawn. The paper draws one for
  each run of the optimiser;
- Adam takes one step after a whole run of `inner_steps`, whose windows of `window` steps are differentiated apart. The
  paper takes a step after each window of 20.

Every number of the network has a memory of 80 numbers per task; the meta-gradient keeps several hundred for each step.
As for `maml.meta_lstm`, a convolutional network is slow on a CPU: train it on a GPU, or with the plan "checkpointed".
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.api import Parameters
from benchmarks.checks import check_fields
from benchmarks.models import join, lstm, split
from benchmarks.origin import Origin, ours
from benchmarks.registry import register_method
from maml.coordinates import flattened, preprocessed, unflattened
from maml.gradient import QueryLoss
from maml.inner_loop import UpdateRule, detached
from maml.trained_rule import TrainedRule

LAYERS = ("first", "second")


@dataclass(frozen=True)
class CoordinatewiseLSTM:
    """theta' = theta + rate * m for every coordinate, m the output of two LSTM layers that read its gradient.

    window: steps between two places where the meta-gradient ends; 0: it reaches back to the first step.
    learned_start: whether the meta-gradient reaches the initialisation.
    """

    rate: float
    window: int = 0
    learned_start: bool = True

    def start(self, parameters: Mapping[str, Tensor]) -> Parameters:
        return split(parameters, "rule.")[0]

    def step(
        self, memory: Parameters, values: Parameters, gradients: Parameters, losses: Tensor, number: int
    ) -> tuple[Parameters, Parameters]:
        state, learned = split(memory, "state.")
        if self._ends(number):
            state, values, gradients = map(detached, (state, values, gradients))
        own = {name: value[0] for name, value in learned.items()}  # one rule for all tasks
        x = preprocessed(flattened(gradients))
        after: Parameters = {}
        for layer in LAYERS:
            hidden = own[f"{layer}.recurrent"].shape[1]
            zero = x.new_zeros(1).expand(*x.shape[:-1], hidden)
            output, kept = (state.get(f"{layer}.{part}", zero) for part in ("output", "memory"))
            x, kept = lstm.cell(own, layer, lstm.gates_of(own, layer, x), output, kept)
            after |= {f"{layer}.output": x, f"{layer}.memory": kept}
        change = F.linear(x, own["last.weight"], own["last.bias"]).squeeze(-1)
        moved = flattened(values) + self.rate * change
        return unflattened(moved, values), learned | join("state.", after)

    def _ends(self, number: int) -> bool:
        """Whether the meta-gradient ends before this step."""
        return not self.learned_start if number == 0 else bool(self.window) and number % self.window == 0


@register_method("learned-optimiser")
@dataclass(frozen=True)
class LearnedOptimiser(TrainedRule):
    """Learn a small LSTM that turns the gradient of each parameter into its step.

    inner_lr, test_lr: factor of the LSTM's output.
    hidden: units of each of its two layers.
    window: steps after which the meta-gradient ends; 0: it reaches back to the first.
    learned_start: whether the initialisation is learned, too.

    All other fields: see `maml.trained_rule.TrainedRule`.
    """

    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {"sinusoid": {"meta_batch": 4}}
    origins: ClassVar[Mapping[str, Origin]] = {"": ours("layers, units and factor of the paper; all else untried")}

    inner_lr: float = 0.1
    meta_batch: int = 1
    hidden: int = 20
    window: int = 0
    learned_start: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, "at least 1", "hidden")
        check_fields(self, "at least 0", "window")

    def trained(self, generator: torch.Generator) -> Parameters:
        first, second = (
            lstm.initialise(layer, inputs, self.hidden, self.hidden, generator)
            for layer, inputs in zip(LAYERS, (2, self.hidden), strict=True)
        )
        bound = 1 / math.sqrt(self.hidden)
        last = (torch.rand((1, self.hidden), generator=generator) * 2 - 1) * bound
        return first | second | {"last.weight": last, "last.bias": torch.zeros(1)}

    def update_rule(self, rate: float) -> UpdateRule:
        return CoordinatewiseLSTM(rate, self.window, self.learned_start)

    def _objective(self, *arguments: Any, **options: Any) -> QueryLoss:
        every = (1.0,) * self.inner_steps
        return dataclasses.replace(super()._objective(*arguments, **options), step_weights=every)
