"""T tasks x K trajectories of one environment, stepped together."""

from __future__ import annotations

import abc
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from benchmarks.environments.actions import ActionSpace


class Model(Protocol):
    """What an environment is, whatever steps it: pure functions on tensors ``[T, K, ...]``.

    horizon: steps in an episode. observation: how many numbers an observation has. reset_lanes, step_lanes: how many
    uniform random numbers a start and a step take for each trajectory. tasks: ``[T, p]``.
    """

    @property
    def horizon(self) -> int: ...
    @property
    def actions(self) -> ActionSpace: ...
    @property
    def observation(self) -> int: ...
    @property
    def reset_lanes(self) -> int: ...
    @property
    def step_lanes(self) -> int: ...

    def start(self, tasks: Tensor, noise: Tensor) -> Tensor:
        """States ``[T, K, s]`` at the beginning of an episode; noise ``[T, K, reset_lanes]``."""
        ...

    def observe(self, tasks: Tensor, state: Tensor) -> Tensor:
        """What the policy sees, ``[T, K, observation]``."""
        ...

    def reward(self, tasks: Tensor, state: Tensor, action: Tensor, following: Tensor) -> Tensor:
        """``[T, K]``."""
        ...

    def terminated(self, tasks: Tensor, state: Tensor, action: Tensor, following: Tensor) -> Tensor:
        """Whether the episode has come to its own end, bool ``[T, K]``."""
        ...


class TensorModel(Model, Protocol):
    """One whose states follow from each other by tensor operations."""

    def following(self, tasks: Tensor, state: Tensor, action: Tensor, noise: Tensor) -> Tensor:
        """The states after the actions; noise ``[T, K, step_lanes]``. What is random about a reward is part of it."""
        ...


@dataclass(frozen=True)
class Step:
    """What one step gives: observation ``[T, K, o]``, reward ``[T, K]``; terminated: the episode has come to its own
    end; truncated: it was cut off at the horizon; both bool ``[T, K]``, and never both true."""

    observation: Tensor
    reward: Tensor
    terminated: Tensor
    truncated: Tensor


class BatchEnv(abc.ABC):
    """T x K simulators, owned by one object.

    Nothing is reset by itself: a trajectory that has come to an end stays where it is and earns nothing until `reset`,
    which begins a new episode for all. Randomness comes in as uniform numbers."""

    model: Model

    def working(self) -> AbstractContextManager[Any]:
        """What is entered while trajectories are played."""
        return nullcontext()

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

    def reset(self, noise: Tensor) -> Tensor:
        self.state = self.model.start(self.tasks, noise)
        self.ended = torch.zeros(noise.shape[:2], dtype=torch.bool, device=noise.device)
        self.time = 0
        return self.model.observe(self.tasks, self.state)

    def step(self, action: Tensor, noise: Tensor) -> Step:
        moved = self.model.following(self.tasks, self.state, action, noise)
        reward = self.model.reward(self.tasks, self.state, action, moved)
        terminated = self.model.terminated(self.tasks, self.state, action, moved)
        reward = reward.masked_fill(self.ended, 0.0)
        self.state = torch.where(self.ended.unsqueeze(-1), self.state, moved)
        self.ended = self.ended | terminated
        self.time += 1
        truncated = ~self.ended & (self.time >= self.model.horizon)
        return Step(self.model.observe(self.tasks, self.state), reward, self.ended, truncated)
