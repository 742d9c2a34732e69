"""T tasks x K trajectories of one environment, stepped together."""

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
    """An environment as pure functions on tensors ``[T, K, ...]``, whatever steps it.

    horizon: steps in an episode. observation: numbers in an observation. reset_lanes, step_lanes: uniform random
    numbers that a start and a step take for each trajectory. tasks: ``[T, p]``.

    A subclass inherits defaults: no random numbers, an observation that is the state, and episodes that end at the
    horizon only.
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
        """States ``[T, K, s]`` at the beginning of an episode; noise ``[T, K, reset_lanes]``."""
        ...

    def observe(self, tasks: Tensor, state: Tensor) -> Tensor:
        """What the policy sees, ``[T, K, observation]``."""
        return state

    def reward(self, tasks: Tensor, state: Tensor, action: Tensor, following: Tensor) -> Tensor:
        """``[T, K]``."""
        ...

    def terminated(self, tasks: Tensor, state: Tensor, action: Tensor, following: Tensor) -> Tensor:
        """Whether the episode has come to its own end, bool ``[T, K]``."""
        return torch.zeros(state.shape[:2], dtype=torch.bool, device=state.device)


class TensorModel(Model, Protocol):
    """A model whose states follow from each other by tensor operations."""

    def following(self, tasks: Tensor, state: Tensor, action: Tensor, noise: Tensor) -> Tensor:
        """The states after the actions; noise ``[T, K, step_lanes]``. What is random about a reward is part of it."""
        ...


@dataclass(frozen=True)
class Step:
    """What one step gives: observation ``[T, K, o]``; terminated: the episode has come to its own end; truncated: it
    was cut off at the horizon; both bool ``[T, K]``, and never both true. earn: finds the reward."""

    observation: Tensor
    terminated: Tensor
    truncated: Tensor
    earn: Callable[[], Tensor] = field(repr=False)

    @functools.cached_property
    def reward(self) -> Tensor:
        """``[T, K]``, 0 where the episode had come to its end before."""
        return self.earn()


class BatchEnv(abc.ABC):
    """T x K simulators, owned by one object.

    Nothing is reset by itself: a trajectory that has come to an end stays where it is and earns nothing until `reset`,
    which begins a new episode for all. Randomness comes in as uniform numbers. state: where all are, ``[T, K, s]``; it
    is replaced by a step, and stays as it was for whoever kept it."""

    model: Model
    state: Tensor

    def working(self) -> AbstractContextManager[Any]:
        """What is entered while trajectories are played."""
        return nullcontext()

    @abc.abstractmethod
    def rewards(self, before: Tensor, action: Tensor, after: Tensor, live: Tensor) -> Tensor:
        """What actions that have led from states to others have earned, ``[T, M]``, 0 where not live; M is K, or K
        times a number of steps, since all of them at once take a fraction of the time."""

    @abc.abstractmethod
    def reset(self, noise: Tensor) -> Tensor:
        """Begin an episode: the first observations ``[T, K, o]``; noise ``[T, K, reset_lanes]``, float64."""

    @abc.abstractmethod
    def step(self, action: Tensor, noise: Tensor) -> Step:
        """Take one action in each simulator; noise ``[T, K, step_lanes]``, float64."""


class TensorEnv(BatchEnv):
    """The back end for models that are tensor operations altogether, on the device of the tasks."""

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
