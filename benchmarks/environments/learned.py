"""Environments that are imagined: starts, observations, rewards and ends of the true ones, and learned dynamics.

So a learner that is handed imagined tasks trains on them as on real ones, with the same random numbers.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from benchmarks.api import Episodes
from benchmarks.environments.batch import BatchEnv, Model
from benchmarks.environments.distribution import ControlTasks, Indices
from benchmarks.environments.rollout import Rollouts

#: states ``[T, K, s]`` and actions -> the states that follow
Following = Callable[[Tensor, Tensor], Tensor]
#: the true model and the tasks ``[T, p]`` -> how states follow in them
Dynamics = Callable[[Model, Tensor], Following]


class Imagined(BatchEnv):
    """Simulators whose states follow from each other by learned dynamics."""

    def __init__(self, dynamics: Dynamics, model: Model, tasks: Tensor) -> None:
        super().__init__(model, tasks)
        self.following = dynamics(model, tasks)

    def moved(self, action: Tensor, noise: Tensor, live: Tensor) -> Tensor:
        return self.following(self.state, action)


@dataclass(frozen=True)
class ImaginedTasks(ControlTasks):
    """The tasks of another distribution, with its random numbers, in imagined environments."""

    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    real: ControlTasks = field(kw_only=True)
    dynamics: Dynamics = field(kw_only=True)

    @classmethod
    def of(cls, real: ControlTasks, dynamics: Dynamics) -> ImaginedTasks:
        """Those of a distribution."""
        return cls(real=real, dynamics=dynamics, discount=real.discount, device=real.device)

    @property
    def model(self) -> Model:
        return self.real.model

    @property
    def back_end(self) -> Callable[[Any, Tensor], BatchEnv]:
        return functools.partial(Imagined, self.dynamics)

    @property
    def trial_episodes(self) -> int:
        return self.real.trial_episodes

    def draw(self, key: int, indices: Indices) -> np.ndarray:
        return self.real.draw(key, indices)

    def episodes(
        self, split: str, indices: Indices, *, shots: int | None = None, queries: int | None = None
    ) -> Episodes:
        found = self.real.episodes(split, indices, shots=shots, queries=queries)
        return Episodes(self._imagined(found.support), self._imagined(found.query))

    def _imagined(self, source: Rollouts) -> Rollouts:
        return dataclasses.replace(source, back_end=self.back_end)
