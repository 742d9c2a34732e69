"""Variance components of a paired difference, and the sample sizes needed to detect one.

The variances of seed, class, episode and query are those of a paired difference (`benchmarks.stats.contrasts`), so they
are smaller than those of the two scores.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks.errors import MetabenchError
from benchmarks.stats.classes import Membership
from benchmarks.stats.contrasts import SCOPES, quantile

#: required power
ENOUGH = 0.8
#: practical limits
MOST_EPISODES, MOST_SEEDS = 10_000_000, 1_000


@dataclass(frozen=True)
class Components:
    """Variances of a paired difference, in squared score units.

    seed: of the training seed
    class_: of a class's effect, as in `benchmarks.stats.classes`
    episode: of an episode beyond its classes and queries
    query: of a query, shared by all seeds (with one seed: all of its noise)
    interaction: of an episode's score between seeds, beyond the seed's own effect, at this number of queries
    seeds, episodes, queries, classes: numbers of each in the data
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

    def per_episode(self, seeds: int, queries: int) -> float:
        """Variance over episodes of the mean over this many seeds and queries."""
        return self.class_ * self.class_share + self.episode + self.query / queries + self.interaction / seeds

    def variance(self, scope: str, seeds: int, episodes: int, queries: int, classes: int) -> float:
        """Squared standard error in a scope, with this many of each."""
        over_episodes = self.per_episode(seeds, queries) / episodes
        if scope == "methods":
            return (self.seed + self.interaction / episodes) / seeds + over_episodes
        if scope == "classes":
            return self.class_ / classes + over_episodes - self.class_ * self.class_share / episodes
        return over_episodes


def components(values: np.ndarray, membership: Membership | None = None) -> Components:
    """Variance components of paired differences, unbiased apart from truncation at zero.

    values: ``[seeds, episodes, queries]``, or ``[seeds, episodes]`` with the query variance left in the episode
        variance
    membership: classes of each episode

    Raises `MetabenchError` below 2 episodes and for values that are not finite."""
    values = np.asarray(values, dtype=np.float64)
    values = values[..., None] if values.ndim == 2 else values
    seeds, episodes, queries = values.shape
    if episodes < 2 or not np.isfinite(values).all():
        raise MetabenchError("variance components need finite differences of at least 2 episodes")
    table, by_query = values.mean(axis=2), values.mean(axis=0)
    seed, interaction = _seed_components(table)
    noise = _query_noise(values, table, by_query) if seeds > 1 and queries > 1 else 0.0
    query = max(0.0, float(by_query.var(axis=1, ddof=1).mean()) - noise / seeds) if queries > 1 else 0.0
    mean = table.mean(axis=0)
    class_, rest, count, share = 0.0, float(mean.var(ddof=1)), 0, 0.0
    if membership is not None:
        found = membership.components(mean)
        class_, rest, count, share = found.classes, found.rest, membership.count, membership.share
    episode = max(0.0, rest - query / queries - interaction / seeds)
    return Components(seed, class_, episode, query, interaction, seeds, episodes, queries, count, share)


def _seed_components(table: np.ndarray) -> tuple[float, float]:
    """Variances of seed and of seed x episode, from ``[seeds, episodes]``: a two-way layout without repetition."""
    seeds, episodes = table.shape
    if seeds < 2:
        return 0.0, 0.0
    left = table - table.mean(axis=0) - table.mean(axis=1, keepdims=True) + table.mean()
    interaction = float((left**2).sum()) / ((seeds - 1) * (episodes - 1))
    return max(0.0, float(table.mean(axis=1).var(ddof=1)) - interaction / episodes), interaction


def _query_noise(values: np.ndarray, table: np.ndarray, by_query: np.ndarray) -> float:
    """Variance of a query between seeds, within episodes."""
    seeds, episodes, queries = values.shape
    left = values - table[..., None] - by_query + table.mean(axis=0)[:, None]
    return float((left**2).sum()) / (episodes * (seeds - 1) * (queries - 1))


def power(
    delta: float,
    parts: Components,
    scope: str = "models",
    *,
    seeds: int | None = None,
    episodes: int | None = None,
    queries: int | None = None,
    classes: int | None = None,
    alpha: float = 0.05,
) -> float:
    """Probability of detecting a true difference ``delta`` at the two-sided level ``alpha``, by the noncentral t.

    parts: variance components
    scope: one of `SCOPES`
    seeds, episodes, queries, classes: numbers of each; default: those of the data

    Raises `MetabenchError` for an unknown scope, a number below 1, and fewer than 2 of the scope's units."""
    if scope not in SCOPES:
        raise MetabenchError(f"unknown scope {scope!r}; known: {', '.join(SCOPES)}")
    s, e, q, c = _design(parts, seeds, episodes, queries, classes)
    degrees = {"models": e, "methods": s, "classes": c}[scope] - 1
    if degrees < 1:
        raise MetabenchError(f"power over {scope} needs at least 2 {'episodes' if scope == 'models' else scope}")
    variance = parts.variance(scope, s, e, q, c)
    if variance <= 0:
        return 1.0 if delta else alpha
    shift, critical = abs(delta) / math.sqrt(variance), quantile(degrees, 1 - alpha / 2)
    return _beyond(shift, critical, degrees) + _beyond(-shift, critical, degrees)


def _beyond(shift: float, critical: float, degrees: int) -> float:
    """Probability that a noncentral t exceeds ``critical``.

    Where scipy's series fails: the approximation of Johnson and Welch, "Applications of the non-central
    t-distribution", Biometrika 31 (1940)."""
    from scipy import special

    if degrees <= 100 and abs(shift) < 8:
        return float(1.0 - special.nctdtr(degrees, shift, critical))
    scale = math.sqrt(1 + critical**2 / (2 * degrees))
    return float(special.ndtr((shift - critical * (1 - 1 / (4 * degrees))) / scale))


def _design(
    parts: Components, seeds: int | None, episodes: int | None, queries: int | None, classes: int | None
) -> tuple[int, int, int, int]:
    given = {"seeds": seeds, "episodes": episodes, "queries": queries, "classes": classes}
    for name, value in given.items():
        if value is not None and value < 1:
            raise MetabenchError(f"{name} = {value} is less than 1")
    s, e, q, c = (getattr(parts, name) if value is None else value for name, value in given.items())
    return s, e, q, c


def equivalence_power(delta: float, margin: float, standard_error: float, degrees: int, alpha: float = 0.05) -> float:
    """Probability that two one-sided tests at ``alpha`` call a true difference ``delta`` equivalent."""
    from scipy import special

    if standard_error <= 0:
        return float(abs(delta) < margin)
    critical = quantile(degrees, 1 - alpha)
    upper, lower = (margin - delta) / standard_error - critical, (margin + delta) / standard_error - critical
    return max(0.0, float(special.ndtr(upper) + special.ndtr(lower) - 1.0))


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
    """The cheapest way to a decision, with probability `ENOUGH`.

    It detects the difference at ``alpha`` or, for a difference below the margin, shows equivalence."""

    def difference(s: int, e: int) -> float:
        return power(delta, parts, scope, seeds=s, episodes=e, alpha=alpha)

    def equivalence(s: int, e: int) -> float:
        variance = parts.variance(scope, s, e, parts.queries, parts.classes)
        degrees = {"models": e, "methods": s, "classes": parts.classes}[scope] - 1
        return equivalence_power(delta, margin, math.sqrt(max(0.0, variance)), degrees)

    found = [_need("difference", difference, parts, scope)] if delta else []
    if abs(delta) < margin:
        found.append(_need("equivalence", equivalence, parts, scope))
    return min(found, key=lambda need: (_or_more(need.episodes), _or_more(need.seeds)))


def _or_more(count: int | None) -> float:
    return math.inf if count is None else count


def _need(verdict: str, chance: Callable[[int, int], float], parts: Components, scope: str) -> Need:
    episodes = _least(lambda count: chance(parts.seeds, count), MOST_EPISODES)
    seeds = _least(lambda count: chance(count, parts.episodes), MOST_SEEDS) if scope == "methods" else None
    return Need(verdict, episodes, seeds)


def _least(chance: Callable[[int], float], most: int) -> int | None:
    """Smallest count from 2 on with enough power, by bisection; power grows with the count."""
    if chance(most) < ENOUGH:
        return None
    low, high = 1, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if chance(middle) >= ENOUGH else (middle, high)
    return high
