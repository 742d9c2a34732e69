"""Exact computations with Bernoulli arms whose probabilities are uniform beforehand.

After s successes and f failures an arm's probability has the distribution Beta(s + 1, f + 1), whose density and
distribution function are polynomials: Gauss-Legendre quadrature of enough nodes is exact for them.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

#: pulls of a trial up to which the tables of `Posterior` stay small
TABLE_PULLS = 200
#: situations of a trial up to which its optimum is worked out
MOST_SITUATIONS = 50_000
#: successes and failures of one arm
Counts = tuple[int, int]


@dataclass(frozen=True)
class Posterior:
    """Densities and distribution functions of all posteriors of a trial, float64 ``[n + 1, n + 1, q]``: successes,
    failures, nodes of the quadrature; weights: ``[q]``."""

    densities: Tensor
    distributions: Tensor
    weights: Tensor

    def best_arm_probabilities(self, counts: Tensor) -> Tensor:
        """The probability of each arm to be the best, ``[..., k]``, after successes and failures int64 ``[..., k, 2]``.

        The integral of an arm's density times the distribution functions of the others."""
        successes, failures = counts[..., 0], counts[..., 1]
        density, below = self.densities[successes, failures], self.distributions[successes, failures]
        ones = torch.ones_like(below[..., :1, :])
        before = torch.cat((ones, below[..., :-1, :]), -2).cumprod(-2)
        after = torch.cat((ones, below[..., 1:, :].flip(-2)), -2).cumprod(-2).flip(-2)
        return (density * before * after) @ self.weights


@functools.cache
def posterior(arms: int, pulls: int, device: str = "cpu") -> Posterior:
    """The tables for trials of ``pulls`` pulls of ``arms`` arms."""
    x, weights = (torch.from_numpy(part / 2) for part in np.polynomial.legendre.leggauss((arms + pulls) // 2 + 1))
    x = x + 0.5
    successes = torch.arange(pulls + 1, dtype=torch.float64)[:, None, None]
    failures = successes.transpose(0, 1)
    normaliser = (successes + failures + 2).lgamma() - (successes + 1).lgamma() - (failures + 1).lgamma()
    densities = (normaliser + successes * x.log() + failures * (-x).log1p()).exp()
    # With one more success the distribution function falls by x(1 - x) times the density over the new success count.
    fall = densities * x * (1 - x) / (successes + 1)
    first = 1 - (1 - x) ** (failures[0] + 1)
    distributions = torch.cat((first.unsqueeze(0), first.unsqueeze(0) - fall[:-1].cumsum(0)))
    tables = (densities, distributions.clamp(0.0, 1.0), weights)
    return Posterior(*(table.to(device) for table in tables))


@functools.cache
def gittins_indices(pulls: int, discount: float, depth: int = 400, grid: int = 1001) -> np.ndarray:
    """Gittins indices of arms after s successes and f failures, float64 ``[pulls + 1, pulls + 1]``; not a number
    beyond ``pulls``.

    Calibration (Gittins, Glazebrook and Weber 2011, section 8.4): the index is the sure payment at which playing on and
    retiring to it are worth the same; found on a grid of payments by backward induction over ``depth`` more pulls,
    between grid points by a straight line."""
    payments = np.linspace(0.0, 1.0, grid)
    retiring = payments / (1 - discount)
    indices = np.full((pulls + 1, pulls + 1), np.nan)
    last = pulls + depth
    means = (np.arange(last + 1) + 1.0) / (last + 2.0)
    value = np.maximum(means[:, None] / (1 - discount), retiring)
    for pulled in range(last - 1, -1, -1):
        mean = ((np.arange(pulled + 1) + 1.0) / (pulled + 2.0))[:, None]
        playing = mean * (1 + discount * value[1:]) + (1 - mean) * discount * value[:-1]
        if pulled <= pulls:
            successes = np.arange(pulled + 1)
            indices[successes, pulled - successes] = _crossings(playing - retiring, payments)
        value = np.maximum(playing, retiring)
    return indices


def _crossings(gain: np.ndarray, payments: np.ndarray) -> np.ndarray:
    """Where rows ``[r, grid]`` that start above 0 fall below it."""
    after = np.argmax(gain < 0, axis=1)
    rows = np.arange(len(gain))
    high, low = gain[rows, after - 1], gain[rows, after]
    return payments[after - 1] + (payments[after] - payments[after - 1]) * high / (high - low)


@dataclass(frozen=True)
class BayesOptimum:
    """The policy of the highest expected total reward, by dynamic programming over what is known of the arms.

    Arms are exchangeable, so a situation is the sorted list of the counts of the arms that were pulled."""

    arms: int
    pulls: int
    known: dict[tuple[Counts, ...], tuple[float, Counts]] = field(default_factory=dict, repr=False)

    @property
    def value(self) -> float:
        """The expected total reward of a trial."""
        return self.best(())[0]

    def best(self, situation: tuple[Counts, ...]) -> tuple[float, Counts]:
        """The expected reward from here to the end of the trial, and the counts of an arm that is best to pull."""
        if situation not in self.known:
            self.known[situation] = self._best(situation)
        return self.known[situation]

    def _best(self, situation: tuple[Counts, ...]) -> tuple[float, Counts]:
        if sum(map(sum, situation)) >= self.pulls:
            return 0.0, (0, 0)
        fresh = [(0, 0)] if len(situation) < self.arms else []
        return max((self._worth(situation, arm), arm) for arm in {*situation, *fresh})

    def _worth(self, situation: tuple[Counts, ...], arm: Counts) -> float:
        others = list(situation)
        if arm in others:
            others.remove(arm)
        successes, failures = arm
        mean = (successes + 1) / (successes + failures + 2)
        won = tuple(sorted([*others, (successes + 1, failures)]))
        lost = tuple(sorted([*others, (successes, failures + 1)]))
        return mean * (1 + self.best(won)[0]) + (1 - mean) * self.best(lost)[0]


@functools.cache
def bayes_optimum(arms: int, pulls: int) -> BayesOptimum:
    """The optimum of a bandit; situations are worked out as they are met."""
    return BayesOptimum(arms, pulls)


@functools.cache
def within_reach(arms: int, pulls: int) -> bool:
    """Whether all situations of a trial can be worked through in about a second."""
    return all(situations(some, pulls) <= MOST_SITUATIONS for some in (1, min(2, arms), min(arms, pulls)))


def situations(arms: int, pulls: int) -> int:
    """How many situations a trial can get into: multisets of at most ``arms`` counts with at most ``pulls`` pulls.

    An arm with m pulls has m + 1 possible counts, so q such arms have m + q over q multisets."""
    ways = [[1] + [0] * pulls, *([0] * (pulls + 1) for _ in range(arms))]  # arms, pulls -> multisets
    for m in range(1, pulls + 1):
        ways = [
            [
                sum(ways[used - q][spent - q * m] * math.comb(m + q, q) for q in range(min(used, spent // m) + 1))
                for spent in range(pulls + 1)
            ]
            for used in range(arms + 1)
        ]
    return sum(map(sum, ways))


def known_optimum(fields: Mapping[str, Any]) -> dict[str, float]:
    """The fact that regret is counted from, ``bayes_optimum``, of a task with these fields; nothing where it has no
    arms, or too many situations."""
    if "arms" not in fields or not within_reach(fields["arms"], fields["pulls"]):
        return {}
    return {"bayes_optimum": bayes_optimum(fields["arms"], fields["pulls"]).value}
