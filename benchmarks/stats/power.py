"""Variance components of a paired difference, and the sample sizes needed to detect one.

The variances of seed, class, episode and query are those of a paired difference (`benchmarks.stats.contrasts`), so they
are smaller than those of the two scores.
"""

from __future__ import annotations

import bisect
import dataclasses
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks.checks import check_known
from benchmarks.errors import MetabenchError
from benchmarks.stats.classes import Membership
from benchmarks.stats.contrasts import SCOPES, SEEDS_FOR_METHODS, quantile

#: required power
ENOUGH = 0.8
#: practical limits
MOST_EPISODES, MOST_SEEDS = 10_000_000, 1_000


@dataclass(frozen=True)
class Components:
    """Variances of a paired difference, in squared score units, and numbers of seeds, episodes, queries and classes,
    those of the data or of a plan.

    seed, query: of the training seed, and of a query shared by all seeds (with one seed: all of its noise)
    class_: of a class's effect, as in `benchmarks.stats.classes`
    episode: of an episode beyond its classes and queries
    interaction: of an episode's score between seeds, beyond the seed's own effect, at this number of queries
    class_share: share of class_ that appears in the variance over episodes of these classes (about 1/way - 1/classes)
    """

    seed: float
    class_: float
    episode: float
    query: float
    interaction: float
    seeds: int
    episodes: int
    queries: int
    classes: int = 0
    class_share: float = 0.0

    @property
    def per_episode(self) -> float:
        """Variance over episodes of the mean over seeds and queries."""
        shared = self.class_ * self.class_share + self.episode
        return shared + self.query / self.queries + self.interaction / self.seeds

    def variance(self, scope: str) -> float:
        """Expected square of the standard error in a scope."""
        return sum(variance for variance, _ in self.estimates(scope))

    def estimates(self, scope: str) -> tuple[tuple[float, int], ...]:
        """The parts of the squared standard error that are estimated by themselves: the variance that each has on
        average, and its degrees of freedom."""
        over_episodes, degrees = self.per_episode / self.episodes, self.episodes - 1
        if scope == "methods":
            return (self._over_seeds, self.seeds - 1), (over_episodes, degrees)
        if scope == "classes":
            over_classes = self.class_ / self.classes - self.class_ * self.class_share / self.episodes
            return ((over_classes + over_episodes, self.classes - 1),)
        return ((over_episodes, degrees),)

    def true_variance(self, scope: str) -> float:
        """Variance of the estimate. The squared error over methods counts the interaction twice, this does not."""
        twice = self.interaction / (self.seeds * self.episodes) if scope == "methods" else 0.0
        return self.variance(scope) - twice

    @property
    def _over_seeds(self) -> float:
        return (self.seed + self.interaction / self.episodes) / self.seeds

    def degrees(self, scope: str) -> int:
        """Degrees of freedom of Student's t."""
        return {"models": self.episodes, "methods": self.seeds, "classes": self.classes}[scope] - 1


def components(values: np.ndarray, membership: Membership | None = None) -> Components:
    """Variance components of paired differences, unbiased apart from truncation at zero.

    values: ``[seeds, episodes, queries]``, or ``[seeds, episodes]`` with the query variance left in the episode
        variance; membership: classes of each episode.

    Raises `MetabenchError` below 2 episodes and for values that are not finite."""
    values = np.asarray(values, dtype=np.float64)
    values = values[..., None] if values.ndim == 2 else values
    seeds, episodes, queries = values.shape
    if episodes < 2 or not np.isfinite(values).all():
        raise MetabenchError("variance components need finite differences of at least 2 episodes")
    table, by_query = values.mean(axis=2), values.mean(axis=0)
    mean = table.mean(axis=0)
    seed = interaction = noise = query = 0.0
    if seeds > 1:  # a two-way layout without repetition
        by_seed = table.mean(axis=1)
        left = table - mean - by_seed[:, None] + table.mean()
        interaction = float((left**2).sum()) / ((seeds - 1) * (episodes - 1))
        seed = max(0.0, float(by_seed.var(ddof=1)) - interaction / episodes)
    if queries > 1:
        if seeds > 1:  # of a query between seeds, within episodes
            left = values - table[..., None] - by_query + mean[:, None]
            noise = float((left**2).sum()) / (episodes * (seeds - 1) * (queries - 1))
        query = max(0.0, float(by_query.var(axis=1, ddof=1).mean()) - noise / seeds)
    class_, rest, count, share = 0.0, float(mean.var(ddof=1)), 0, 0.0
    if membership is not None:
        found = membership.components(mean)
        class_, rest, count, share = found.classes, found.rest, membership.count, membership.share
    episode = max(0.0, rest - query / queries - interaction / seeds)
    return Components(seed, class_, episode, query, interaction, seeds, episodes, queries, count, share)


def power(delta: float, parts: Components, scope: str = "models", alpha: float = 0.05) -> float:
    """Probability of detecting a true difference ``delta`` at the two-sided level ``alpha``, by the rule that
    `benchmarks.stats.contrasts` decides by.

    Raises `MetabenchError` for an unknown scope and for fewer than 2 of the scope's units."""
    if (plan := _plan(parts, scope, 1 - alpha / 2)) is None:
        return 0.0
    spread, bounds = plan
    if not spread:
        return 1.0 if delta else alpha
    return float(_normal((abs(delta) - bounds) / spread).mean() + _normal((-abs(delta) - bounds) / spread).mean())


def equivalence_power(
    delta: float, margin: float, parts: Components, scope: str = "models", alpha: float = 0.05
) -> float:
    """Probability that two one-sided tests at ``alpha`` call a true difference ``delta`` equivalent."""
    if (plan := _plan(parts, scope, 1 - alpha)) is None:
        return 0.0
    spread, bounds = plan
    if not spread:
        return float(abs(delta) < margin)
    room = np.maximum(margin - bounds, 0.0)
    return float((_normal((room - delta) / spread) - _normal((-room - delta) / spread)).mean())


def _plan(parts: Components, scope: str, quantile_at: float) -> tuple[float, np.ndarray] | None:
    """The standard deviation of the estimate, and what it must exceed: Student's quantile times the estimated standard
    error, at equally likely values of that one. None where the scope has too few units for any verdict.

    Student's t has the degrees of the seeds alone, though the episodes' share of the error is known far better. So the
    noncentral t would promise too much (0.15 in place of 0.05 for 5 seeds that hardly matter)."""
    check_known("scope", scope, SCOPES)
    degrees = parts.degrees(scope)
    if degrees < 1:
        raise MetabenchError(f"power over {scope} needs at least 2 {'episodes' if scope == 'models' else scope}")
    if scope == "methods" and parts.seeds < SEEDS_FOR_METHODS:
        return None
    squares = np.zeros(1)
    for variance, own in parts.estimates(scope):
        squares = np.add.outer(squares, max(0.0, variance) * _mean_squares(own)).ravel()
    return math.sqrt(max(0.0, parts.true_variance(scope))), quantile(degrees, quantile_at) * np.sqrt(squares)


@functools.lru_cache(maxsize=1024)
def _mean_squares(degrees: int) -> np.ndarray:
    """Equally likely values of chi squared over its degrees of freedom; 1 where it hardly varies."""
    from scipy import special

    if degrees > 1_000:
        return np.ones(1)
    count = 400 if degrees < 30 else 60
    return np.asarray(special.chdtri(degrees, (np.arange(count) + 0.5) / count) / degrees)


def _normal(values: np.ndarray) -> np.ndarray:
    from scipy import special

    return np.asarray(special.ndtr(values))


@dataclass(frozen=True)
class Need:
    """The sample sizes that would decide a pair, if the difference stays the same.

    verdict: "difference" or "equivalence", the expected result
    episodes: episodes needed with the present seeds; None: no number is enough
    seeds: seeds needed with the present episodes; None: no number is enough, or the scope is "models"
    """

    verdict: str
    episodes: int | None
    seeds: int | None = None

    def __str__(self) -> str:
        ways = [f"{n:,} {what}" for n, what in ((self.episodes, "episodes"), (self.seeds, "seeds")) if n is not None]
        what = "a difference" if self.verdict == "difference" else "equivalence"
        return f"about {' or '.join(ways)} to show {what}" if ways else "more seeds and episodes than is practical"


def needed(delta: float, margin: float, parts: Components, scope: str = "models", alpha: float = 0.05) -> Need:
    """The cheapest way to a decision, with probability `ENOUGH`: to detect the difference at ``alpha`` or, if it is
    below the margin, to show equivalence."""

    found = [_need("difference", lambda plan: power(delta, plan, scope, alpha), parts, scope)] if delta else []
    if abs(delta) < margin:
        found.append(_need("equivalence", lambda plan: equivalence_power(delta, margin, plan, scope), parts, scope))
    return min(found, key=lambda need: [math.inf if n is None else n for n in (need.episodes, need.seeds)])


def _need(verdict: str, chance: Callable[[Components], float], parts: Components, scope: str) -> Need:
    episodes = _least(lambda count: chance(dataclasses.replace(parts, episodes=count)), MOST_EPISODES)
    if scope != "methods":
        return Need(verdict, episodes)
    return Need(verdict, episodes, _least(lambda count: chance(dataclasses.replace(parts, seeds=count)), MOST_SEEDS))


def _least(chance: Callable[[int], float], most: int) -> int | None:
    """Smallest count from 2 on with enough power, by bisection; power grows with the count."""
    found = bisect.bisect_left(range(2, most + 1), True, key=lambda count: chance(count) >= ENOUGH) + 2
    return found if found <= most else None
