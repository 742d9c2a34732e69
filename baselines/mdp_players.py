"""Players of small random Markov decision processes, which RL^2 (Duan et al. 2016, table 2) is compared with.

They know how processes are drawn, keep counts of what they have seen as their memory, make a model of it at the start
of each episode, and follow the policy that is best for the model over the horizon; there is nothing to meta-learn.

PSRL: Osband, Russo and Van Roy, "(More) efficient reinforcement learning via posterior sampling", NIPS 2013. OPSRL:
Osband and Van Roy, "Why is posterior sampling better than optimism for reinforcement learning?", ICML 2017, in the
reading that each action may be taken as in the best of several sampled processes.

Deviation: the state after the last step of an episode is not counted; a policy is shown the start of the next episode
instead. The paper says neither how its players are tuned nor how "greedy" makes its model (docs/meta-rl.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from benchmarks import sampling
from benchmarks.api import Memory, MetaLearner, Predictor, State, TaskDistribution, adaptation_field
from benchmarks.registry import register_method

#: worths closer than this are equal
TIE = 1e-9


@dataclass(frozen=True)
class Seen:
    """What a player has seen: transitions ``[T, K, S, A, S]``, visits and summed rewards ``[T, K, S, A]``; the state
    that it is in, one-hot ``[T, K, S]``; the number of steps of the trial; its policy ``[T, K, H, S]``."""

    transitions: Tensor
    visits: Tensor
    rewards: Tensor
    state: Tensor
    time: int
    policy: Tensor


@dataclass(frozen=True)
class Planner(MetaLearner):
    """Plan at the start of each episode. A subclass says which models it plans with."""

    kinds: ClassVar[frozenset[str]] = frozenset({"control"})
    fits: ClassVar[bool] = False

    def refuses(self, tasks: TaskDistribution) -> str | None:
        if "states" in tasks.config():
            return None
        return f"{self.name} counts transitions between states; {tasks.name} has no table of them"

    def adapt(self, state: State, support: Any, tasks: TaskDistribution) -> Iterator[Predictor]:
        facts = tasks.config()
        yield Planning(self, facts["states"], facts["choices"], facts["horizon"], support.indices)

    def models(self, seen: Seen, indices: np.ndarray) -> list[tuple[Tensor, Tensor]]:
        """Transition probabilities ``[T, K, S, A, S]`` and mean rewards ``[T, K, S, A]`` to plan with, float64."""
        raise NotImplementedError


@dataclass(frozen=True)
class Planning:
    """A planner in T processes; ``indices``, the numbers of the tasks, determine what it draws for itself."""

    planner: Planner
    states: int
    choices: int
    horizon: int
    indices: np.ndarray

    #: the predictor is fed with its last action, the reward for it, and the end of the episode
    history: ClassVar[bool] = True

    def __call__(self, x: Tensor, memory: Memory = None) -> tuple[Tensor, Memory]:
        state, action, reward, ended = x.double().split((self.states, self.choices, 1, 1), -1)
        seen = self._nothing(x) if memory is None else _with_step(memory, state, action, reward[..., 0], ended[..., 0])
        time = seen.time % self.horizon
        policy = plan(self.planner.models(seen, self.indices), self.horizon) if time == 0 else seen.policy
        chosen = policy[:, :, time].gather(-1, state.argmax(-1, keepdim=True))
        logarithms = torch.full_like(x[..., : self.choices], -torch.inf).scatter(-1, chosen, 0.0)
        return logarithms, Seen(seen.transitions, seen.visits, seen.rewards, state, seen.time + 1, policy)

    def _nothing(self, x: Tensor) -> Seen:
        T, K, S, A = *x.shape[:2], self.states, self.choices
        zero = x.new_zeros(T, K, S, A, dtype=torch.float64)
        none = torch.empty(0, device=x.device)
        return Seen(zero.unsqueeze(-1).expand(-1, -1, -1, -1, S), zero, zero, none, 0, none)


def _with_step(seen: Seen, state: Tensor, action: Tensor, reward: Tensor, ended: Tensor) -> Seen:
    """One step more: the last action in the last state, what it paid and, within an episode, where it led."""
    pair = seen.state.unsqueeze(-1) * action.unsqueeze(-2)
    led = pair.unsqueeze(-1) * state[:, :, None, None] * (1 - ended)[..., None, None, None]
    paid = pair * reward[..., None, None]
    return Seen(seen.transitions + led, seen.visits + pair, seen.rewards + paid, state, seen.time, seen.policy)


def plan(models: list[tuple[Tensor, Tensor]], horizon: int) -> Tensor:
    """The best actions over the horizon, int64 ``[T, K, H, S]``, each taken as in the model that promises most of it.

    Of equal actions the first, whatever rounding says."""
    value = torch.zeros_like(models[0][1][..., 0])
    policy = []
    for _ in range(horizon):
        worths = [rewards + torch.einsum("tksaz,tkz->tksa", moves, value) for moves, rewards in models]
        best = worths[0] if len(worths) == 1 else torch.stack(worths).amax(0)
        value = best.amax(-1)
        policy.append((best >= value.unsqueeze(-1) - TIE).int().argmax(-1))
    return torch.stack(policy[::-1], 2)


@register_method("mdp-greedy")
@dataclass(frozen=True)
class Greedy(Planner):
    """Plan with the posterior mean of the process, without exploring."""

    def models(self, seen: Seen, indices: np.ndarray) -> list[tuple[Tensor, Tensor]]:
        counts = seen.transitions + 1
        return [(counts / counts.sum(-1, keepdim=True), (seen.rewards + 1) / (seen.visits + 1))]


@register_method("psrl", samples=1)
@register_method("opsrl")
@dataclass(frozen=True)
class PosteriorSampling(Planner):
    """Plan with processes drawn from the posterior.

    samples: how many; with more than one, each action is taken as in the most promising of them (OPSRL); with one it is
    PSRL."""

    samples: int = adaptation_field(5)

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ValueError("samples must be at least 1")

    def models(self, seen: Seen, indices: np.ndarray) -> list[tuple[Tensor, Tensor]]:
        shapes = (seen.transitions + 1).cpu().numpy()
        means = (seen.rewards + 1) / (seen.visits + 1)
        deviations = (seen.visits + 1).rsqrt()
        drawn = []
        for sample in range(self.samples):
            key = sampling.stream("posterior-sampling", sample)
            words = sampling.bits(key, indices, 1, first=seen.time)[:, 0]
            generators = [np.random.Generator(np.random.Philox(int(word))) for word in words]
            gammas = np.stack([g.standard_gamma(shape) for g, shape in zip(generators, shapes, strict=True)])
            normal = np.stack([g.standard_normal(means.shape[1:]) for g in generators])
            moves = torch.from_numpy(gammas / gammas.sum(-1, keepdims=True)).to(means.device)
            drawn.append((moves, means + deviations * torch.from_numpy(normal).to(means.device)))
        return drawn
