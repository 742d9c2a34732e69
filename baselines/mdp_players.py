"""Players of small random Markov decision processes, which RL^2 (Duan et al. 2016, table 2) is compared with.

They know how processes are drawn, keep counts of what they have seen as their memory, make a model of it at the start
of each episode, and follow the policy that is best for the model over the horizon; there is nothing to meta-learn.

PSRL: Osband, Russo and Van Roy, "(More) efficient reinforcement learning via posterior sampling", NIPS 2013. OPSRL:
Osband and Van Roy, "Why is posterior sampling better than optimism for reinforcement learning?", ICML 2017, in the
reading that each action may be taken as in the best of several sampled processes.

UCRL2: Jaksch, Ortner and Auer, "Near-optimal regret bounds for reinforcement learning", JMLR 2010. BEB: Kolter and Ng,
"Near-Bayesian exploration in polynomial time", ICML 2009.

Deviations: the state after the last step of an episode is not counted; a policy is shown the start of the next episode
instead. UCRL2 plans over the horizon, at the start of each episode, around posterior means instead of frequencies, and
its widths have a factor; BEB takes the posterior mean for the reward, which its paper knows. The RL^2 paper says
neither how its players are tuned nor how "greedy" makes its model (docs/meta-rl.md); `published` holds what the search
over `grid` on validation tasks gives here. (Epsilon is 0.05 at every number of episodes.)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from benchmarks import sampling
from benchmarks.api import Memory, MetaLearner, Predictor, State, TaskDistribution, adaptation_field
from benchmarks.checks import check_fields
from benchmarks.origin import Origin, ours
from benchmarks.registry import register_method

#: worths closer than this are equal
TIE = 1e-9


@dataclass(frozen=True)
class Seen:
    """The observations of a player: transitions ``[T, K, S, A, S]``, visits and summed rewards ``[T, K, S, A]``; the
    state that it is in, one-hot ``[T, K, S]``; the number of steps of the trial; its policy ``[T, K, H, S]``."""

    transitions: Tensor
    visits: Tensor
    rewards: Tensor
    state: Tensor
    time: int
    policy: Tensor


def _searched(values: int) -> Mapping[str, Origin]:
    """The settings that a search on validation processes gave; the paper prints none."""
    short, long = (f"best of {values} on validation processes of {episodes} episodes" for episodes in (10, 100))
    return {"tabular-mdp/n10": ours(short), "": ours(long)}


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

    def policy(self, seen: Seen, indices: np.ndarray, horizon: int) -> Tensor:
        """The actions to take in an episode, int64 ``[T, K, H, S]``."""
        return plan(self.models(seen, indices), horizon)

    def models(self, seen: Seen, indices: np.ndarray) -> list[tuple[Tensor, Tensor]]:
        """Transition probabilities ``[T, K, S, A, S]`` and mean rewards ``[T, K, S, A]`` to plan with, float64."""
        raise NotImplementedError

    def log_probabilities(self, planned: Tensor) -> Tensor:
        """Logarithms of the probability of each action, where the planned one is 1 and the others 0, ``[..., A]``."""
        return planned.log()


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
        policy = self.planner.policy(seen, self.indices, self.horizon) if time == 0 else seen.policy
        chosen = policy[:, :, time].gather(-1, state.argmax(-1, keepdim=True))
        planned = torch.zeros_like(x[..., : self.choices]).scatter(-1, chosen, 1.0)
        return self.planner.log_probabilities(planned), Seen(
            seen.transitions, seen.visits, seen.rewards, state, seen.time + 1, policy
        )

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


def plan(models: list[tuple[Tensor, Tensor]], horizon: int, width: Tensor | None = None) -> Tensor:
    """The best actions over the horizon, int64 ``[T, K, H, S]``, each taken as in the model that promises most of it.

    width: ``[T, K, S, A]``, how far (L1) each transition may be from the model's, to the planner's liking. Of equal
    actions the first, whatever rounding says."""
    value = torch.zeros_like(models[0][1][..., 0])
    policy = []
    for _ in range(horizon):
        worths = []
        for moves, rewards in models:
            hoped = moves if width is None else favourable(moves, width, value)
            worths.append(rewards + torch.einsum("tksaz,tkz->tksa", hoped, value))
        best = worths[0] if len(worths) == 1 else torch.stack(worths).amax(0)
        value = best.amax(-1)
        policy.append((best >= value.unsqueeze(-1) - TIE).int().argmax(-1))
    return torch.stack(policy[::-1], 2)


def favourable(moves: Tensor, width: Tensor, value: Tensor) -> Tensor:
    """The transition probabilities within ``width`` (L1) of the given ones that promise the highest value (Jaksch et
    al. 2010, figure 2): up to half the width more for the best state, taken from the worst ones.

    moves: ``[T, K, S, A, S]``; width: ``[T, K, S, A]``; value: ``[T, K, S]``."""
    order = value.argsort(dim=-1, descending=True, stable=True)[:, :, None, None].expand_as(moves)
    raised = moves.gather(-1, order)
    raised[..., 0] += width / 2
    reached = raised.cumsum(-1).clamp(max=1.0)
    kept = torch.cat((reached[..., :1], reached.diff(dim=-1)), -1)
    return torch.zeros_like(moves).scatter(-1, order, kept)


def posterior_means(seen: Seen) -> tuple[Tensor, Tensor]:
    """The mean process after flat Dirichlet transitions and rewards normal around 1 beforehand."""
    counts = seen.transitions + 1
    return counts / counts.sum(-1, keepdim=True), (seen.rewards + 1) / (seen.visits + 1)


@register_method("mdp-greedy")
@dataclass(frozen=True)
class Greedy(Planner):
    """Plan with the posterior mean of the process, without exploring."""

    def models(self, seen: Seen, indices: np.ndarray) -> list[tuple[Tensor, Tensor]]:
        return [posterior_means(seen)]


@register_method("mdp-epsilon-greedy")
@dataclass(frozen=True)
class EpsilonGreedy(Greedy):
    """Take any action with probability epsilon, else the one that is best for the posterior mean of the process."""

    grid: ClassVar[Mapping[str, tuple[float, ...]]] = {"epsilon": (0.0, 0.02, 0.05, 0.1, 0.2)}

    origins: ClassVar[Mapping[str, Origin]] = {
        "": ours("to show blind exploring; the search over 5 values on validation processes gives 0")
    }

    epsilon: float = adaptation_field(0.05)

    def __post_init__(self) -> None:
        check_fields(self, "between 0 and 1", "epsilon")

    def log_probabilities(self, planned: Tensor) -> Tensor:
        return ((1 - self.epsilon) * planned + self.epsilon / planned.shape[-1]).log()


@register_method("beb")
@dataclass(frozen=True)
class BayesianExplorationBonus(Planner):
    """Plan with the posterior mean and a bonus of `bonus` / (1 + n) for every action; n: its visits, and one for each
    state, which is what a flat distribution counts for."""

    grid: ClassVar[Mapping[str, tuple[float, ...]]] = {"bonus": (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)}
    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {"tabular-mdp/n10": {"bonus": 8.0}}

    origins: ClassVar[Mapping[str, Origin]] = _searched(7)

    bonus: float = adaptation_field(16.0)

    def __post_init__(self) -> None:
        check_fields(self, "at least 0", "bonus")

    def models(self, seen: Seen, indices: np.ndarray) -> list[tuple[Tensor, Tensor]]:
        moves, rewards = posterior_means(seen)
        return [(moves, rewards + self.bonus / (1 + moves.shape[-1] + seen.visits))]


@register_method("ucrl2")
@dataclass(frozen=True)
class UCRL2(Planner):
    """Plan with the most favourable process that is still plausible.

    scale: factor of the widths of the paper, which hold for the worst case. failure: the probability that a width may
    fail with, the paper's delta."""

    grid: ClassVar[Mapping[str, tuple[float, ...]]] = {"scale": (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)}
    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {"tabular-mdp/n10": {"scale": 0.02}}

    origins: ClassVar[Mapping[str, Origin]] = _searched(8)

    scale: float = adaptation_field(0.05)
    failure: float = adaptation_field(0.05)

    def __post_init__(self) -> None:
        check_fields(self, "at least 0", "scale")
        check_fields(self, "above 0 and below 1", "failure")

    def policy(self, seen: Seen, indices: np.ndarray, horizon: int) -> Tensor:
        moves, rewards = posterior_means(seen)
        of_reward, of_moves = self.widths(seen)
        return plan([(moves, rewards + of_reward)], horizon, of_moves)

    def widths(self, seen: Seen) -> tuple[Tensor, Tensor]:
        """How far mean rewards and transitions (L1) may be from those seen, ``[T, K, S, A]``: equations 3 and 4."""
        S, A = seen.visits.shape[-2:]
        visits, time = seen.visits.clamp(min=1), seen.time + 1
        of_reward = (3.5 * math.log(2 * S * A * time / self.failure) / visits).sqrt()
        of_moves = (14 * S * math.log(2 * A * time / self.failure) / visits).sqrt()
        return self.scale * of_reward, self.scale * of_moves


@register_method("psrl", samples=1)
@register_method("opsrl")
@dataclass(frozen=True)
class PosteriorSampling(Planner):
    """Plan with processes drawn from the posterior.

    samples: how many; with more than one, each action is taken as in the most promising of them (OPSRL); with one it is
    PSRL."""

    origins: ClassVar[Mapping[str, Origin]] = {"": ours("PSRL has one process; OPSRL five, untried")}

    samples: int = adaptation_field(5)

    def __post_init__(self) -> None:
        check_fields(self, "at least 1", "samples")

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
