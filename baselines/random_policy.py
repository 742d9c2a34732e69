"""The floor under every control task: actions drawn without looking."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from benchmarks.api import Memory, MetaLearner, Predictor, State, TaskDistribution
from benchmarks.registry import register_method


@register_method("random-policy")
@dataclass(frozen=True)
class RandomPolicy(MetaLearner):
    """Take every action with the same probability; where actions are real numbers, draw them normal around 0 with
    deviation 1, as an untrained policy does."""

    kinds: ClassVar[frozenset[str]] = frozenset({"control"})
    role: ClassVar[str] = "floor"
    fits: ClassVar[bool] = False

    def adapt(self, state: State, support: Any, tasks: TaskDistribution) -> Iterator[Predictor]:
        yield Blind(tasks.outputs)


@dataclass(frozen=True)
class Blind:
    """A policy of zeros: equal probabilities, or mean 0 and deviation 1."""

    outputs: int

    def __call__(self, x: Tensor, memory: Memory = None) -> tuple[Tensor, Memory]:
        return x.new_zeros(*x.shape[:2], self.outputs), None
