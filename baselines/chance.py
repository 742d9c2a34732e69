"""The floor under every classification: guess.

A guess is uniform over the labels and, like all randomness here, a pure function of counters: the index is a hash of
the episode's own support set and the lane is the query, so that the same episode gets the same guesses in whatever
company it is tested.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from baselines.shared.fingerprints import fingerprints
from benchmarks import sampling
from benchmarks.api import Memory, MetaLearner, Predictor, State, TaskDistribution
from benchmarks.registry import register_method


@register_method("chance")
@dataclass(frozen=True)
class Chance(MetaLearner):
    """Guess one of the labels for each query, without looking at it."""

    kinds: ClassVar[frozenset[str]] = frozenset({"classification"})
    role: ClassVar[str] = "floor"
    fits: ClassVar[bool] = False

    def adapt(self, state: State, support: Any, tasks: TaskDistribution) -> Iterator[Predictor]:
        yield Guesses(fingerprints(support), tasks.outputs)


@dataclass(frozen=True)
class Guesses:
    """A predictor whose class scores ``[T, n, way]`` are 1 for the guessed label and 0 for the others.

    indices: ``[T]`` int64, one number per task."""

    indices: np.ndarray
    way: int

    def __call__(self, x: Tensor, memory: Memory = None) -> tuple[Tensor, Memory]:
        drawn = sampling.integers(sampling.stream("chance"), self.indices, x.shape[1], self.way)
        guessed = torch.from_numpy(drawn).to(x.device)
        return F.one_hot(guessed, self.way).float(), None
