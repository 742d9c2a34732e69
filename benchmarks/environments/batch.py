"""The protocol of an environment, and simulators of T tasks x K trajectories that step together."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from benchmarks.environments.actions import ActionSpace


class Model(Protocol):
    """An environment as pure functions on tensors ``[T, K, ...]``, whichever back end steps it.

    horizon: steps per episode; observation: numbers per observation; reset_lanes, step_lanes: uniform random numbers
    per trajectory for a start and for a step. Tasks are their parameters, ``[T, p]``.

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

    def observe(self, tasks: Tensor, state: Tensor) -> Tensor:
        """Observations of the policy, ``[T, K, observation]``."""
        return state

    def reward(self, tasks: Tensor, state: Tensor, action: Tensor, following: Tensor) -> Tensor:
        """Rewards, ``[T, K]``."""

    def terminated(self, tasks: Tensor, state: Tensor, action: Tensor, following: Tensor) -> Tensor:
        """Whether the episode has ended by itself, bool ``[T, K]``."""
        return torch.zeros(state.shape[:2], dtype=torch.bool, device=state.device)


class TensorModel(Model, Protocol):
    """A model whose states follow from each other by tensor operations."""

    def following(self, tasks: Tensor, state: Tensor, action: Tensor, noise: Tensor) -> Tensor:
        """States after the actions, including any noise of the reward; noise ``[T, K, step_lanes]``."""


class Step(NamedTuple):
    """The result of one step: the observations ``[T, K, o]``; whether an episode has ended by itself, or else was cut
    off at the horizon, bool ``[T, K]``; and a function that computes the rewards ``[T, K]``."""

    observation: Tensor
    terminated: Tensor
    truncated: Tensor
    reward: Callable[[], Tensor]


class BatchEnv:
    """T x K simulators owned by one object, for a `TensorModel`, on the device of the tasks; a subclass moves the
    states of other models, on a device of its own.

    There is no auto-reset. A trajectory that has ended stays in its state and earns nothing until `reset` begins a new
    episode for all. Randomness comes in as uniform numbers, float64.

    state: the states, ``[T, K, s]``; a step replaces the tensor and never changes it
    here: the tasks on the device that computes; outputs have the type and device of ``tasks``
    """

    state: Tensor

    def __init__(self, model: Any, tasks: Tensor) -> None:
        self.model, self.tasks, self.here = model, tasks, tasks

    def working(self) -> AbstractContextManager[Any]:
        """Context in which trajectories are played."""
        return nullcontext()

    def moved(self, action: Tensor, noise: Tensor, live: Tensor) -> Tensor:
        """The states after the actions, arbitrary where not live (bool ``[T, K]``)."""
        following: Tensor = self.model.following(self.here, self.state, action, noise)
        return following

    def rewards(self, before: Tensor, action: Tensor, after: Tensor, live: Tensor) -> Tensor:
        """Rewards of actions between two states, ``[T, M]``, 0 where not live.

        M is K, or K times a number of steps: computing all steps at once takes a fraction of the time."""
        device = self.here.device
        found: Tensor = self.model.reward(self.here, before, action.to(device), after)
        return found.masked_fill(~live.to(device), 0.0).to(self.tasks)

    def reset(self, noise: Tensor) -> Tensor:
        """Begin an episode. Returns the first observations ``[T, K, o]``; noise ``[T, K, reset_lanes]``."""
        self.state = self.model.start(self.here, noise.to(self.here.device))
        self.ended = torch.zeros(noise.shape[:2], dtype=torch.bool, device=self.here.device)
        self.time = 0
        return self._observed()

    def step(self, action: Tensor, noise: Tensor) -> Step:
        """Take one action in each simulator; noise ``[T, K, step_lanes]``."""
        before, live, action = self.state, ~self.ended, action.to(self.here.device)
        self.state = torch.where(live.unsqueeze(-1), self.moved(action, noise, live), before)
        self.ended = self.ended | self.model.terminated(self.here, before, action, self.state)
        self.time += 1
        truncated = ~self.ended & (self.time >= self.model.horizon)
        reward = functools.partial(self.rewards, before, action, self.state, live)
        device = self.tasks.device
        return Step(self._observed(), self.ended.to(device), truncated.to(device), reward)

    def _observed(self) -> Tensor:
        seen: Tensor = self.model.observe(self.here, self.state)
        return seen.to(self.tasks)
