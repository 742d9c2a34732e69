"""Variance components of a paired difference, and the sample sizes needed to detect one.

The variances of seed, class, episode and query are those of a paired difference (`benchmarks.stats.contrasts`), so they
are smaller than those of the two scores.
"""

from __future__ import annotations

import bisect
import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks.checks import check_known
from benchmarks.errors import MetabenchError
from benchmarks.stats.classes import Membership
from benchmarks.stats.contrasts import SCOPES, quantile

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
        """Squared standard error in a scope."""
        over_episodes = self.per_episode / self.episodes
        if scope == "methods":
            return (self.seed + self.interaction / self.episodes) / self.seeds + over_episodes
        if scope == "classes":
            return self.class_ / self.classes + over_episodes - self.class_ * self.class_share / self.episodes
        return over_episodes

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
    """Probability of detecting a true difference ``delta`` at the two-sided level ``alpha``, by the noncentral t.

    Raises `MetabenchError` for an unknown scope and for fewer than 2 of the scope's units."""
    check_known("scope", scope, SCOPES)
    degrees = parts.degrees(scope)
    if degrees < 1:
        raise MetabenchError(f"power over {scope} needs at least 2 {'episodes' if scope == 'models' else scope}")
    variance = parts.variance(scope)
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
    """The cheapest way to a decision, with probability `ENOUGH`: to detect the difference at ``alpha`` or, if it is
    below the margin, to show equivalence."""

    def equivalence(plan: Components) -> float:
        error = math.sqrt(max(0.0, plan.variance(scope)))
        return equivalence_power(delta, margin, error, plan.degrees(scope))

    found = [_need("difference", lambda plan: power(delta, plan, scope, alpha), parts, scope)] if delta else []
    if abs(delta) < margin:
        found.append(_need("equivalence", equivalence, parts, scope))
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
