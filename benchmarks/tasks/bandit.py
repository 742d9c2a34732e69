"""Bernoulli bandits.

Source: Duan et al., "RL^2: Fast Reinforcement Learning via Slow Reinforcement Learning", 2016, section 3.1
(https://arxiv.org/abs/1611.02779).
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
from benchmarks.environments import Categorical, ControlTasks, TensorModel
from benchmarks.environments.distribution import Indices
from benchmarks.registry import register_task


@dataclass(frozen=True)
class Arms(TensorModel):
    """The environment: one pull is one episode; its state is the payout, ``[T, K, 1]``, a task the probabilities of the
    arms, ``[T, k]``."""

    count: int

    horizon = observation = step_lanes = 1

    @property
    def actions(self) -> Categorical:
        return Categorical(self.count)

    def start(self, tasks: Tensor, noise: Tensor) -> Tensor:
        return tasks.new_zeros(*noise.shape[:2], 1)

    def following(self, tasks: Tensor, state: Tensor, action: Tensor, noise: Tensor) -> Tensor:
        return (noise < tasks.gather(1, action).unsqueeze(-1)).to(tasks.dtype)

    def observe(self, tasks: Tensor, state: Tensor) -> Tensor:
        return torch.zeros_like(state)

    def reward(self, tasks: Tensor, state: Tensor, action: Tensor, following: Tensor) -> Tensor:
        return following[..., 0]

    def terminated(self, tasks: Tensor, state: Tensor, action: Tensor, following: Tensor) -> Tensor:
        return torch.ones_like(action, dtype=torch.bool)


@register_task("bandit")
@dataclass(frozen=True)
class Bandit(ControlTasks):
    """A slot machine with k arms that pay 1 or 0, played for n pulls.

    | | meaning |
    | --- | --- |
    | observation | a single 0: only rewards carry information |
    | action | one of k arms |
    | reward | 1 with the arm's probability, else 0; probabilities are uniform in [0, 1] and drawn per task |
    | trial | n pulls, each an episode of one step; a learner keeps its memory from pull to pull |

    arms, pulls: k and n; queries: trials per task, each from the beginning (the paper: one in each of 1000 tasks).

    The score is the total reward of a trial; chance is n/2. Each split is a separate stream of bandits. Variants with
    more arms keep the first arms of variants with fewer.
    """

    equivalence_margin: ClassVar[float] = 0.05
    variants: ClassVar[Mapping[str, Mapping[str, object]]] = {
        f"k{arms}n{pulls}": {"arms": arms, "pulls": pulls} for pulls in (10, 100, 500) for arms in (5, 10, 50)
    }

    arms: int = 5
    pulls: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, "at least 1", "pulls")
        check_fields(self, "at least 2", "arms")

    @property
    def model(self) -> Arms:
        return Arms(self.arms)

    @property
    def trial_episodes(self) -> int:
        return self.pulls

    def draw(self, key: int, indices: Indices) -> np.ndarray:
        """Probabilities of the arms, float64 ``[T, k]``."""
        return sampling.uniform(key, indices, self.arms)
