"""The classical players of Bernoulli bandits, which RL^2 (Duan et al. 2016, table 1) is compared with.

They know that the arms' probabilities are uniform beforehand and keep the counts of successes and failures of each arm
as their memory; there is nothing to meta-learn. Each returns the probabilities of its choice, and the environment
draws; arms of equal merit are equally likely. The paper tuned its players by a grid search and prints no values;
`published` holds what the search over `grid` on validation tasks gives here. (For epsilon it gives 0, which is greedy:
the player is there to show what exploring blindly costs.)

Readings: UCB1's counts start with one success and one failure. Of optimistic Thompson sampling there are two: "vote"
draws several samples of the posterior and plays the arm that is most often the best of them, which agrees with the
paper's column; "maximum" (May et al. 2012) plays the largest of max(sample, mean), which does not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from baselines.shared.beta_bernoulli import (
    TABLE_PULLS,
    bayes_optimum,
    gittins_indices,
    known_optimum,
    posterior,
    within_reach,
)
from benchmarks import sampling
from benchmarks.api import Memory, MetaLearner, Predictor, State, TaskDistribution, adaptation_field
from benchmarks.checks import check_fields
from benchmarks.origin import Origin, ours
from benchmarks.registry import register_method

#: merits closer than this are equal
TIE = 1e-9
#: random numbers that are set aside for each pull: more than any number of trajectories takes
_LANES_PER_PULL = 1 << 32


def _searched(values: int) -> Mapping[str, Origin]:
    """The settings that a search on validation bandits of 10 and of 100 pulls gave; the paper prints none."""
    long = ours(f"best of {values} on validation bandits of 100 pulls")
    short = ours(f"best of {values} on validation bandits of 10 pulls")
    return {"bandit/k5n100": long, "bandit/k10n100": long, "": short}


@dataclass(frozen=True)
class Player(MetaLearner):
    """Play by the counts of each arm. A subclass says how they make probabilities."""

    kinds: ClassVar[frozenset[str]] = frozenset({"control"})
    fits: ClassVar[bool] = False

    def refuses(self, tasks: TaskDistribution) -> str | None:
        return None if "arms" in tasks.config() else f"{self.name} counts the successes of arms; {tasks.name} has none"

    def adapt(self, state: State, support: Any, tasks: TaskDistribution) -> Iterator[Predictor]:
        yield Counting(self, tasks.config()["arms"], tasks.config()["pulls"], support.indices)

    def describe(self, tasks: TaskDistribution) -> dict[str, Any]:
        return known_optimum(tasks.config())

    def log_probabilities(self, counts: Tensor, trial: Counting, pull: int) -> Tensor:
        """Logarithms (up to a constant) of the probability of each arm, float64 ``[T, K, k]``.

        counts: successes and failures so far, int64 ``[T, K, k, 2]``. pull: the number of pulls so far."""
        raise NotImplementedError


@dataclass(frozen=True)
class Counting:
    """A player in T bandits; its memory holds the counts, int64 ``[T, K, k, 2]``, and the number of pulls.

    indices: the numbers of the tasks, which determine what a player draws for itself."""

    player: Player
    arms: int
    pulls: int
    indices: np.ndarray

    #: the predictor is fed with its last action, the reward for it, and the end of the pull
    history: ClassVar[bool] = True

    def __call__(self, x: Tensor, memory: Memory = None) -> tuple[Tensor, Memory]:
        if memory is None:
            memory = x.new_zeros(*x.shape[:2], self.arms, 2, dtype=torch.int64), 0
        counts, pull = memory
        last, reward = x[..., -self.arms - 2 : -2].long(), x[..., -2:-1].long()
        counts = counts + torch.stack((last * reward, last * (1 - reward)), -1)
        return self.player.log_probabilities(counts, self, pull).to(x.dtype), (counts, pull + 1)

    def draw(self, name: str, pull: int, trials: int, lanes: int, device: torch.device) -> Tensor:
        """Uniform numbers of the player's own, float64 ``[T, K, lanes]``: a function of task, trial and pull."""
        key = sampling.stream(name)
        words = sampling.uniform(key, self.indices, trials * lanes, first=pull * _LANES_PER_PULL)
        return torch.from_numpy(words).to(device).view(-1, trials, lanes)


def posterior_means(counts: Tensor) -> Tensor:
    """The mean of each arm's probability, ``[..., k]``, after uniform ones beforehand."""
    return (counts[..., 0] + 1).double() / (counts.sum(-1) + 2)


def best_of(merits: Tensor) -> Tensor:
    """0 for the arms of the highest merit, −inf for the others."""
    best = merits >= merits.amax(-1, keepdim=True) - TIE
    return torch.zeros_like(merits).masked_fill(~best, -torch.inf)


@register_method("greedy")
@dataclass(frozen=True)
class Greedy(Player):
    """Play the arm of the highest posterior mean."""

    def log_probabilities(self, counts: Tensor, trial: Counting, pull: int) -> Tensor:
        return best_of(posterior_means(counts))


@register_method("epsilon-greedy")
@dataclass(frozen=True)
class EpsilonGreedy(Player):
    """Play any arm with probability epsilon, else the arm of the highest posterior mean."""

    grid: ClassVar[Mapping[str, tuple[float, ...]]] = {"epsilon": (0.0, 0.01, 0.02, 0.05, 0.1, 0.2)}

    origins: ClassVar[Mapping[str, Origin]] = {
        "": ours("to show blind exploring; the search over 6 values on validation bandits gives 0")
    }

    epsilon: float = adaptation_field(0.02)

    def __post_init__(self) -> None:
        check_fields(self, "between 0 and 1", "epsilon")

    def log_probabilities(self, counts: Tensor, trial: Counting, pull: int) -> Tensor:
        greedy = best_of(posterior_means(counts)).softmax(-1)
        return ((1 - self.epsilon) * greedy + self.epsilon / trial.arms).log()


@register_method("ucb1")
@dataclass(frozen=True)
class UCB1(Player):
    """Play the arm of the highest upper confidence bound: mean + c sqrt(2 log t / counts) (Auer et al. 2002)."""

    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "bandit": {"exploration": 0.05},
        "bandit/k5n100": {"exploration": 0.2},
        "bandit/k10n100": {"exploration": 0.2},
    }
    grid: ClassVar[Mapping[str, tuple[float, ...]]] = {"exploration": (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)}

    origins: ClassVar[Mapping[str, Origin]] = _searched(7)

    exploration: float = adaptation_field(0.2)

    def __post_init__(self) -> None:
        check_fields(self, "at least 0", "exploration")

    def log_probabilities(self, counts: Tensor, trial: Counting, pull: int) -> Tensor:
        width = (2 * np.log(pull + 1) / (counts.sum(-1) + 2).double()).sqrt()
        return best_of(posterior_means(counts) + self.exploration * width)


@dataclass(frozen=True)
class _ByPosterior(Player):
    """A player that needs the tables of the posterior."""

    def refuses(self, tasks: TaskDistribution) -> str | None:
        reason = super().refuses(tasks)
        if reason is None and tasks.config()["pulls"] > TABLE_PULLS:
            return f"{self.name} tabulates posteriors, for at most {TABLE_PULLS} pulls"
        return reason

    @staticmethod
    def best_arm_probabilities(counts: Tensor, trial: Counting) -> Tensor:
        return posterior(trial.arms, trial.pulls, str(counts.device)).best_arm_probabilities(counts)


@register_method("thompson")
@dataclass(frozen=True)
class Thompson(_ByPosterior):
    """Play each arm with the posterior probability that it is the best (Thompson sampling)."""

    def log_probabilities(self, counts: Tensor, trial: Counting, pull: int) -> Tensor:
        return self.best_arm_probabilities(counts, trial).log()


@register_method("optimistic-thompson-maximum", reading="maximum")
@register_method("optimistic-thompson")
@dataclass(frozen=True)
class OptimisticThompson(_ByPosterior):
    """Thompson sampling that favours promising arms, in one of two readings.

    reading: "vote", the arm that is most often the best in `samples` draws of the posterior; "maximum", the arm with
    the largest of max(draw, mean), from one draw."""

    grid: ClassVar[Mapping[str, tuple[int, ...]]] = {"samples": (5, 10, 20, 50)}

    origins: ClassVar[Mapping[str, Origin]] = {"": ours("untried; the reading that agrees with the paper's column")}

    reading: Literal["vote", "maximum"] = "vote"
    samples: int = adaptation_field(20)

    def __post_init__(self) -> None:
        check_fields(self, "at least 1", "samples")

    def log_probabilities(self, counts: Tensor, trial: Counting, pull: int) -> Tensor:
        return self._vote(counts, trial, pull) if self.reading == "vote" else self._maximum(counts, trial, pull)

    def _vote(self, counts: Tensor, trial: Counting, pull: int) -> Tensor:
        """Which arm is best in a draw of the posterior is itself a draw, with the arms' probabilities to be best."""
        cumulative = self.best_arm_probabilities(counts, trial).cumsum(-1)
        drawn = trial.draw("optimistic-thompson/vote", pull, counts.shape[1], self.samples, counts.device)
        ballots = torch.searchsorted(cumulative, drawn * cumulative[..., -1:], right=True).clamp(max=trial.arms - 1)
        votes = torch.zeros_like(cumulative).scatter_add(-1, ballots, torch.ones_like(drawn))
        return best_of(votes)

    def _maximum(self, counts: Tensor, trial: Counting, pull: int) -> Tensor:
        """Beta(a, b) is the share of the first a of a + b exponential waiting times."""
        T, K, k, _ = counts.shape
        times = trial.pulls + 2
        drawn = trial.draw("optimistic-thompson/maximum", pull, K, k * times, counts.device).view(T, K, k, times)
        waited = (-(-drawn).log1p()).cumsum(-1)
        successes, failures = counts.unbind(-1)
        first, all_ = (waited.gather(-1, n.unsqueeze(-1)).squeeze(-1) for n in (successes, successes + failures + 1))
        return best_of(torch.maximum(first / all_, posterior_means(counts)))


@register_method("gittins")
@dataclass(frozen=True)
class Gittins(Player):
    """Play the arm of the highest Gittins index (Gittins 1979), optimal for discounted rewards without end."""

    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "bandit": {"discount": 0.7},
        "bandit/k5n100": {"discount": 0.98},
        "bandit/k10n100": {"discount": 0.98},
    }
    grid: ClassVar[Mapping[str, tuple[float, ...]]] = {"discount": (0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)}

    origins: ClassVar[Mapping[str, Origin]] = _searched(7)

    discount: float = adaptation_field(0.9)

    def __post_init__(self) -> None:
        check_fields(self, "above 0 and below 1", "discount")

    def log_probabilities(self, counts: Tensor, trial: Counting, pull: int) -> Tensor:
        indices = torch.from_numpy(gittins_indices(trial.pulls, self.discount)).to(counts.device)
        return best_of(indices[counts[..., 0], counts[..., 1]])


@register_method("bayes-optimal")
@dataclass(frozen=True)
class BayesOptimal(Player):
    """Play what maximises the expected total reward, by dynamic programming: no player does better on average."""

    role: ClassVar[str] = "ceiling"

    def refuses(self, tasks: TaskDistribution) -> str | None:
        reason = super().refuses(tasks)
        arms, pulls = tasks.config().get("arms", 0), tasks.config().get("pulls", 0)
        if reason is None and not within_reach(arms, pulls):
            return f"{self.name} works through all situations, too many for {pulls} pulls of {arms} arms"
        return reason

    def log_probabilities(self, counts: Tensor, trial: Counting, pull: int) -> Tensor:
        optimum = bayes_optimum(trial.arms, trial.pulls)
        rows = counts.flatten(0, 1).cpu().numpy()
        different, which = np.unique(rows.reshape(len(rows), -1), axis=0, return_inverse=True)
        merits = np.zeros((len(different), trial.arms))
        for row, flat in enumerate(different):
            arms = [(int(successes), int(failures)) for successes, failures in flat.reshape(-1, 2)]
            _, chosen = optimum.best(tuple(sorted(arm for arm in arms if sum(arm))))
            merits[row] = [arm == chosen for arm in arms]
        return best_of(torch.from_numpy(merits[which.reshape(-1)]).to(counts.device).view(*counts.shape[:3]))
