"""The context vector: a policy with free inputs, which alone take the gradient steps in a new task.

Finn, Abbeel and Levine, "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks", ICML 2017, appendix C and
its tables 4 and 5: the input is concatenated with parameters z that adapt, while the other parameters do not. It is
trained as MAML is, through the steps of z, so it tells whether the rest of the network has to move.

Deviation: the number of free inputs is ours; they start at 0.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from benchmarks.api import TaskDistribution
from benchmarks.checks import check_fields
from benchmarks.origin import Origin, ours
from benchmarks.registry import register_method
from maml.control.maml import ControlMAML
from maml.control.policies import Policy
from maml.control.policy_learners import TRAINING


@register_method("context-vector")
@dataclass(frozen=True)
class ContextVector(ControlMAML):
    """Learn a policy with free inputs that adapt to a new task by gradient steps, while its weights stay.

    context: how many inputs are free. All other fields as in MAML; `inner_lr` is the rate of the free inputs.
    """

    published: ClassVar[Mapping[str, Mapping[str, Any]]] = TRAINING
    origins: ClassVar[Mapping[str, Origin]] = {"": ours("4 free inputs and a rate of 0.1, untried; all else MAML's")}

    context: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, "at least 1", "context")

    def policy(self, tasks: TaskDistribution) -> Policy:
        return dataclasses.replace(super().policy(tasks), context=self.context)

    def moves(self, name: str) -> bool:
        return name == "context"
