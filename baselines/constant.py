"""The floor under every regression: the best constant.

Under the squared error that is the mean of all training targets, whatever the task and the input. It is estimated from
more and more pooled examples; the inputs are not looked at.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from benchmarks.api import Diverged, Memory, MetaLearner, Predictor, State, TaskDistribution
from benchmarks.checks import check_fields
from benchmarks.origin import Origin, ours
from benchmarks.registry import register_method
from benchmarks.training import training_indices


@register_method("constant")
@dataclass(frozen=True)
class Constant(MetaLearner):
    """Predict the mean target of meta-training for every query.

    batch_size: pooled examples per meta-step.
    """

    kinds: ClassVar[frozenset[str]] = frozenset({"regression"})
    role: ClassVar[str] = "floor"
    needs: ClassVar[frozenset[str]] = frozenset({"pooled"})

    origins: ClassVar[Mapping[str, Origin]] = {"": ours("examples per step of a running mean; untried")}

    batch_size: int = 256

    def __post_init__(self) -> None:
        check_fields(self, "at least 1", "batch_size")

    def examples_per_step(self, tasks: TaskDistribution) -> int:
        return self.batch_size

    def fit(self, tasks: TaskDistribution, seed: int, start: State | None = None) -> Iterator[State]:
        zero = torch.zeros(tasks.outputs, dtype=torch.float64, device=tasks.device)
        state = start.copy() if start else State(parameters={"mean": zero})
        mean = state.parameters["mean"]
        while True:
            y = tasks.pooled("train", training_indices(seed, state.step, self.batch_size)).y[0].double()
            state.loss = float((y - mean).square().mean())
            if not math.isfinite(state.loss):
                raise Diverged(f"training loss is {state.loss} at meta-step {state.step + 1}")
            state.step += 1
            state.examples += len(y)
            mean += (y.mean(0) - mean) * (len(y) / state.examples)
            yield state

    def adapt(self, state: State, support: Any, tasks: TaskDistribution) -> Iterator[Predictor]:
        yield ConstantPredictor(state.parameters["mean"].detach().to(support.y.dtype))


@dataclass(frozen=True)
class ConstantPredictor:
    """A predictor of one value ``[outputs]``, whatever the input."""

    value: Tensor

    def __call__(self, x: Tensor, memory: Memory = None) -> tuple[Tensor, Memory]:
        return self.value.expand(*x.shape[:2], -1), None
