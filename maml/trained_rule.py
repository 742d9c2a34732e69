"""Base of the learners whose update rule is trained: MAML's meta-step with a rule that has parameters of its own.

A trained rule is safe for the number of steps that it was trained with, so adaptation ends there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from benchmarks.api import Parameters, TaskDistribution, adaptation_field
from benchmarks.models import join
from benchmarks.origin import Origin
from maml.losses import LossScale
from maml.maml import MAML


@dataclass(frozen=True)
class TrainedRule(MAML):
    """Learn an update rule together with the initialisation that it starts from.

    inner_lr, test_lr: factor of the rule's step; at test 0 stands for `inner_lr`.
    inner_steps, test_steps: gradient steps in training, and those reported at test, at most as many; (): all.
    second_order: whether the gradients that the rule reads depend on the parameters, or are constants.

    All other fields: see `maml.maml.MAML`.
    """

    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    published_meta_steps: ClassVar[Mapping[str, int]] = {}
    origins: ClassVar[Mapping[str, Origin]] = {}
    grid: ClassVar[Mapping[str, tuple[float, ...]]] = {}

    inner_lr: float = 1.0
    inner_steps: int = 5
    test_steps: tuple[int, ...] = adaptation_field(())
    second_order: bool = False
    loss_scale: LossScale = "mean"
    adapt_normalisation: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.later_rate != 1:
            raise ValueError(f"later_rate = {self.later_rate}: the rule says how far each step goes")

    def trained(self, generator: torch.Generator) -> Parameters:
        """The rule's parameters before the first meta-step, by name."""
        raise NotImplementedError

    def initial(self, tasks: TaskDistribution, seed: int) -> Parameters:
        rule = join("rule.", self.trained(torch.Generator().manual_seed(seed)))
        return super().initial(tasks, seed) | {name: value.to(tasks.device) for name, value in rule.items()}

    def most_steps(self) -> int | None:
        return self.inner_steps

    def describe(self, tasks: TaskDistribution) -> dict[str, Any]:
        kept = ("backbone", "inner_steps", "train_regime")
        return {name: value for name, value in super().describe(tasks).items() if name in kept}
