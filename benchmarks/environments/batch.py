"""The protocol of an environment, and its back end that steps T tasks x K trajectories together."""

from __future__ import annotations

import abc
import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from benchmarks.environments.actions import ActionSpace


class Model(Protocol):
    """An environment as pure functions on tensors ``[T, K, ...]``, whichever back end steps it.

    horizon: steps per episode
    observation: numbers per observation
    reset_lanes, step_lanes: uniform random numbers per trajectory for a start and for a step
    tasks: parameters of the tasks, ``[T, p]``

    A subclass inherits defaults: no random numbers, the state as observation, episodes that end at the horizon only.
    """

    @property
    def horizon(self) -> int: ...
    @property
    def actions(self) -> ActionSpace: ...
    @property
    def observation(self) -> int: ...
    @property
    def reset_lanes(self) -> int:
        return 0

    @property
    def step_lanes(self) -> int:
        return 0

    def start(self, tasks: Tensor, noise: Tensor) -> Tensor:
        """Initial states ``[T, K, s]``; noise ``[T, K, reset_lanes]``."""
        ...

    def observe(self, tasks: Tensor, state: Tensor) -> Tensor:
        """Observations of the policy, ``[T, K, observation]``."""
        return state

    def reward(self, tasks: Tensor, state: Tensor, action: Tensor, following: Tensor) -> Tensor:
        """Rewards, ``[T, K]``."""
        ...

    def terminated(self, tasks: Tensor, state: Tensor, action: Tensor, following: Tensor) -> Tensor:
        """Whether the episode has ended by itself, bool ``[T, K]``."""
        return torch.zeros(state.shape[:2], dtype=torch.bool, device=state.device)


class TensorModel(Model, Protocol):
    """A model whose states follow from each other by tensor operations."""

    def following(self, tasks: Tensor, state: Tensor, action: Tensor, noise: Tensor) -> Tensor:
        """States after the actions, including any noise of the reward; noise ``[T, K, step_lanes]``."""
        ...


@dataclass(frozen=True)
class Step:
    """The result of one step.

    observation: ``[T, K, o]``
    terminated: the episode has ended by itself, bool ``[T, K]``
    truncated: the episode was cut off at the horizon, bool ``[T, K]``; never true where terminated is
    earn: computes the reward
    """

    observation: Tensor
    terminated: Tensor
    truncated: Tensor
    earn: Callable[[], Tensor] = field(repr=False)

    @functools.cached_property
    def reward(self) -> Tensor:
        """``[T, K]``, 0 where the episode had ended before."""
        return self.earn()


class BatchEnv(abc.ABC):
    """T x K simulators owned by one object.

    There is no auto-reset. A trajectory that has ended stays in its state and earns nothing until `reset` begins a new
    episode for all. Randomness comes in as uniform numbers.

    state: the states, ``[T, K, s]``; a step replaces the tensor and never changes it
    """

    model: Model
    state: Tensor

    def working(self) -> AbstractContextManager[Any]:
        """Context in which trajectories are played."""
        return nullcontext()

    @abc.abstractmethod
    def rewards(self, before: Tensor, action: Tensor, after: Tensor, live: Tensor) -> Tensor:
        """Rewards of actions between two states, ``[T, M]``, 0 where not live.

        M is K, or K times a number of steps: computing all steps at once takes a fraction of the time."""

    @abc.abstractmethod
    def reset(self, noise: Tensor) -> Tensor:
        """Begin an episode. Returns the first observations ``[T, K, o]``; noise ``[T, K, reset_lanes]``, float64."""

    @abc.abstractmethod
    def step(self, action: Tensor, noise: Tensor) -> Step:
        """Take one action in each simulator; noise ``[T, K, step_lanes]``, float64."""


class TensorEnv(BatchEnv):
    """The back end of models made of tensor operations, on the device of the tasks."""

    model: TensorModel

    def __init__(self, model: TensorModel, tasks: Tensor) -> None:
        self.model, self.tasks = model, tasks

    def rewards(self, before: Tensor, action: Tensor, after: Tensor, live: Tensor) -> Tensor:
        return self.model.reward(self.tasks, before, action, after).masked_fill(~live, 0.0)

    def reset(self, noise: Tensor) -> Tensor:
        self.state = self.model.start(self.tasks, noise)
        self.ended = torch.zeros(noise.shape[:2], dtype=torch.bool, device=noise.device)
        self.time = 0
        return self.model.observe(self.tasks, self.state)

    def step(self, action: Tensor, noise: Tensor) -> Step:
        before, live = self.state, ~self.ended
        moved = self.model.following(self.tasks, before, action, noise)
        self.ended = self.ended | self.model.terminated(self.tasks, before, action, moved)
        self.state = torch.where(live.unsqueeze(-1), moved, before)
        self.time += 1
        truncated = ~self.ended & (self.time >= self.model.horizon)
        earn = functools.partial(self.rewards, before, action, self.state, live)
        return Step(self.model.observe(self.tasks, self.state), self.ended, truncated, earn)
