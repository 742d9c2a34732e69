"""Tabular Markov decision processes.

Sources: Duan et al., "RL^2: Fast Reinforcement Learning via Slow Reinforcement Learning", 2016, section 3.2
(https://arxiv.org/abs/1611.02779); Osband, Russo and Van Roy, "(More) efficient reinforcement learning via posterior
sampling", NIPS 2013.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from benchmarks import sampling
from benchmarks.checks import check_fields
from benchmarks.environments import Categorical, ControlTasks
from benchmarks.environments.actions import standard_normal
from benchmarks.environments.distribution import Indices
from benchmarks.registry import register_task


@dataclass(frozen=True)
class Chain:
    """The environment: its state is the number of the state and the noise of the reward for reaching it, ``[T, K, 2]``;
    a task is transitions [S, A, S] and mean rewards [S, A] in one row, ``[T, S * A * (S + 1)]``."""

    states: int
    choices: int
    horizon: int

    reset_lanes, step_lanes = 0, 2

    @property
    def actions(self) -> Categorical:
        return Categorical(self.choices)

    @property
    def observation(self) -> int:
        return self.states

    def start(self, tasks: Tensor, noise: Tensor) -> Tensor:
        return tasks.new_zeros(*noise.shape[:2], 2)

    def following(self, tasks: Tensor, state: Tensor, action: Tensor, noise: Tensor) -> Tensor:
        transitions, _ = self.tables(tasks)
        pair = self._pair(state, action).unsqueeze(-1).expand(-1, -1, self.states)
        reached = transitions.flatten(1, 2).double().cumsum(-1).gather(1, pair)
        moved = (noise[..., :1] * reached[..., -1:] >= reached).sum(-1).clamp(max=self.states - 1)
        return torch.stack((moved.to(tasks.dtype), standard_normal(noise[..., 1]).to(tasks.dtype)), -1)

    def observe(self, tasks: Tensor, state: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(state[..., 0].long(), self.states).to(tasks.dtype)

    def reward(self, tasks: Tensor, state: Tensor, action: Tensor, following: Tensor) -> Tensor:
        _, means = self.tables(tasks)
        return means.flatten(1).gather(1, self._pair(state, action)) + following[..., 1]

    def terminated(self, tasks: Tensor, state: Tensor, action: Tensor, following: Tensor) -> Tensor:
        return torch.zeros_like(action, dtype=torch.bool)

    def tables(self, tasks: Tensor) -> tuple[Tensor, Tensor]:
        """Transition probabilities ``[T, S, A, S]`` and mean rewards ``[T, S, A]``."""
        S, A = self.states, self.choices
        return tasks[:, : S * A * S].view(-1, S, A, S), tasks[:, S * A * S :].view(-1, S, A)

    def _pair(self, state: Tensor, action: Tensor) -> Tensor:
        return state[..., 0].long() * self.choices + action


@register_task("tabular-mdp")
@dataclass(frozen=True)
class TabularMDP(ControlTasks):
    """A random Markov decision process with few states, explored over n episodes.

    | | meaning |
    | --- | --- |
    | observation | one of `states` states, one-hot; each episode begins in state 0 |
    | action | one of `choices` actions |
    | transition | probabilities from a flat Dirichlet distribution for each state and action |
    | reward | normal with deviation 1 around a mean for state and action, itself normal around 1 with deviation 1 |
    | episode | ends at `horizon` only |
    | trial | `rounds` episodes; a learner keeps its memory from episode to episode |

    queries: trials per task, each from the beginning.

    The score is the total reward of a trial, in units of the rewards' deviation. A random policy earns 1 per step. Each
    split is a separate stream of processes.
    """

    equivalence_margin: ClassVar[float] = 1.0
    variants: ClassVar[Mapping[str, Mapping[str, object]]] = {
        f"n{rounds}": {"rounds": rounds} for rounds in (10, 25, 50, 75, 100)
    }

    states: int = 10
    choices: int = 5
    horizon: int = 10
    rounds: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, "at least 1", "states", "choices", "horizon", "rounds")

    @property
    def model(self) -> Chain:
        return Chain(self.states, self.choices, self.horizon)

    @property
    def trial_episodes(self) -> int:
        return self.rounds

    def draw(self, key: int, indices: Indices) -> np.ndarray:
        """Transitions and mean rewards, float64 ``[T, S * A * (S + 1)]``; see `Chain`."""
        pairs = self.states * self.choices
        exponential = -np.log1p(-sampling.uniform(key, indices, pairs * self.states))
        exponential = exponential.reshape(-1, pairs, self.states)
        transitions = exponential / exponential.sum(-1, keepdims=True)
        means = 1.0 + sampling.normal(key, indices, pairs, first=pairs * self.states)
        return np.concatenate((transitions.reshape(len(transitions), -1), means), axis=1)
