"""Paired difference of two methods over crossed training seeds and test episodes, with intervals.

Every seed of every method is tested on the same episodes. So the difference of two methods is a table ``[seeds,
episodes]``. Its mean varies with the drawn episodes (shared by all seeds and both methods) and with the training seeds.
The *scope* of an interval says which variation it covers:

- ``models``: these trained models, on other episodes of the same classes
- ``methods``: the methods, trained with other seeds too; needs `SEEDS_FOR_METHODS` seeds
- ``classes``: these trained models, on episodes of other classes (`benchmarks.stats.classes`)

Where a few episodes carry the mean of a method, a comparison of means is *unstable* and has neither interval nor
p-value. The share of episodes won has both for any scores.

docs/statistics.md explains them in plain words, with simulated coverage.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from benchmarks.checks import check_known
from benchmarks.errors import MetabenchError
from benchmarks.stats.classes import Membership

SCOPES = ("models", "methods", "classes")
#: training seeds needed for the scope "methods"
SEEDS_FOR_METHODS = 5
#: a mean is unstable where one episode carries more than this share of it, or one in 100 more than half
LARGEST_SHARE = 0.2
#: a score that is not finite counts as this far off, the largest float32
WORST = 3.4e38


@dataclass(frozen=True)
class Interval:
    """An estimate with a two-sided interval at a confidence level, in a scope; low and high are NaN if unknown."""

    estimate: float
    low: float
    high: float
    level: float
    scope: str

    @property
    def known(self) -> bool:
        return math.isfinite(self.low) and math.isfinite(self.high)

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2

    @property
    def excludes_zero(self) -> bool:
        """Whether zero lies outside; False if unknown."""
        return self.known and (self.low > 0 or self.high < 0)

    @property
    def mirrored(self) -> Interval:
        """The interval seen from the other side."""
        return Interval(-self.estimate, -self.high, -self.low, self.level, self.scope)

    def within(self, margin: float) -> bool:
        """Whether the interval lies between -margin and margin; False if unknown."""
        return self.known and -margin < self.low and self.high < margin


@dataclass(frozen=True, eq=False)
class Contrast:
    """The advantage of the first of two methods: positive is better, for errors too.

    values: ``[seeds, episodes]``, with the estimate as mean. On the scale "difference": differences of scores. On the
        scale "log ratio" (squared errors): log(mean error of the second / mean error of the first), plus the
        first-order terms in each episode's errors.
    membership: classes of each episode, for tasks with classes
    trained: False if neither method trains, so that seeds don't matter
    carried: for the first and the second, the few episodes that carry its mean, in words (`instability`); empty where
        none do
    ahead: ``[seeds, episodes]``, 1 where the first is better, 0 where equal, -1 where worse; None: the sign of values
    strata: the test task of each episode ``[episodes]``, where a task distribution has a finite list of them
    """

    values: np.ndarray
    scale: str = "difference"
    membership: Membership | None = None
    trained: bool = True
    carried: tuple[str, str] = ("", "")
    ahead: np.ndarray | None = None
    strata: np.ndarray | None = None

    @property
    def mirrored(self) -> Contrast:
        """The contrast seen from the second."""
        ahead = None if self.ahead is None else -self.ahead
        return dataclasses.replace(self, values=-self.values, carried=self.carried[::-1], ahead=ahead)

    @property
    def unstable(self) -> bool:
        """Whether so few episodes carry a mean that the comparison of means has no verdict."""
        return any(self.carried)

    @property
    def seeds(self) -> int:
        return int(self.values.shape[0])

    @property
    def episodes(self) -> int:
        return int(self.values.shape[1])

    @cached_property
    def estimate(self) -> float:
        return float(self.values.mean())

    @cached_property
    def episode_values(self) -> np.ndarray:
        """Mean over seeds in each episode, ``[episodes]``."""
        return np.asarray(self.values.mean(axis=0))

    @cached_property
    def wins(self) -> Contrast:
        """The share of episodes won less one half, a tie as half a win, with four more episodes: two won and two lost.

        They keep the interval honest where nearly all are won or few are played: Agresti and Coull, "Approximate is
        better than 'exact' for interval estimation of binomial proportions", The American Statistician 52 (1998)."""
        ahead = np.sign(self.values) if self.ahead is None else self.ahead
        more = np.broadcast_to([1.0, 1.0, -1.0, -1.0], (self.seeds, 4))
        return Contrast(np.concatenate((ahead, more), axis=1) / 2, trained=self.trained)

    def won(self, scope: str = "models", level: float = 0.95) -> Interval:
        """The share of episodes that the first wins, with its interval; that over "classes" is over "models"."""
        ahead = np.sign(self.values) if self.ahead is None else self.ahead
        found = self.wins.interval("models" if scope == "classes" else scope, level)
        low, high = (float(np.clip(0.5 + end, 0, 1)) for end in (found.low, found.high))
        return Interval(float(0.5 + ahead.mean() / 2), low, high, level, found.scope)

    @cached_property
    def seed_variance(self) -> float:
        """Variance over seeds of the mean over episodes; NaN for one seed."""
        return float(np.var(self.values.mean(axis=1), ddof=1)) if self.seeds > 1 else math.nan

    def scopes(self) -> tuple[str, ...]:
        """The scopes that this data supports."""
        several = self.episodes > 1
        methods = several and (self.seeds >= SEEDS_FOR_METHODS or not self.trained)
        classes = several and self.membership is not None and self.membership.drawn
        return tuple(scope for scope, there in zip(SCOPES, (several, methods, classes), strict=True) if there)

    def standard_error(self, scope: str) -> float:
        """Standard error of the estimate in a scope; raises `MetabenchError` if the data don't support it."""
        return self._spread(scope)[0]

    def degrees(self, scope: str) -> int:
        """Degrees of freedom of Student's t: one less than the episodes, the seeds or the classes."""
        return self._spread(scope)[1]

    def _spread(self, scope: str) -> tuple[float, int]:
        if scope not in self.scopes():
            raise MetabenchError(self._refusal(scope))
        error, degrees = self._over_episodes()
        noisy = self.seeds >= SEEDS_FOR_METHODS and bool((self.values != self.values[:1]).any())
        if scope == "methods" and noisy:
            return math.sqrt(self.seed_variance / self.seeds + error), self.seeds - 1
        if scope == "classes":
            assert self.membership is not None
            spread = self.membership.components(self.episode_values)
            return math.sqrt(spread.variance_of_mean), self.membership.count - 1
        return math.sqrt(error), degrees

    def _over_episodes(self) -> tuple[float, int]:
        """Variance of the mean over episodes and its degrees of freedom, within strata where each has two episodes.

        Cochran, "Sampling Techniques", 3rd edition (1977), sections 5.3 and 5.4."""
        values, strata = self.episode_values, np.zeros(self.episodes) if self.strata is None else self.strata
        groups = [values[strata == one] for one in np.unique(strata)]
        if min(map(len, groups)) < 2:
            groups = [values]
        parts = [len(group) * float(np.var(group, ddof=1)) / self.episodes**2 for group in groups]
        rest = sum(part**2 / (len(group) - 1) for part, group in zip(parts, groups, strict=True))
        least = min(map(len, groups)) - 1
        return sum(parts), least if not rest > 0 else max(least, int(sum(parts) ** 2 / rest + 1e-9))

    def _refusal(self, scope: str) -> str:
        check_known("scope", scope, SCOPES)
        if self.episodes < 2:
            return f"{self.episodes} shared episode: no interval"
        if scope == "methods":
            return f"{self.seeds} shared seeds: a verdict about methods needs {SEEDS_FOR_METHODS}"
        return "this task has no classes to redraw"

    def interval(self, scope: str = "models", level: float = 0.95) -> Interval:
        """Two-sided Student interval; NaN ends if the data don't support the scope, or the means are unstable."""
        if scope not in self.scopes() or self.unstable:
            return Interval(self.estimate, math.nan, math.nan, level, scope)
        error, degrees = self._spread(scope)
        half_width = quantile(degrees, 0.5 + level / 2) * error
        return Interval(self.estimate, self.estimate - half_width, self.estimate + half_width, level, scope)

    def p_value(self, scope: str = "models") -> float:
        """Two-sided p-value of Student's t for no difference; NaN if the data don't support the scope, or the means are
        unstable."""
        from scipy import special

        if scope not in self.scopes() or self.unstable:
            return math.nan
        error, degrees = self._spread(scope)
        if error == 0.0:
            return 1.0 if self.estimate == 0.0 else 0.0
        return float(2.0 * special.stdtr(degrees, -abs(self.estimate) / error))


def contrast(
    first: np.ndarray,
    second: np.ndarray,
    *,
    metric: str = "accuracy",
    higher_is_better: bool = True,
    membership: Membership | None = None,
    trained: bool = True,
    strata: np.ndarray | None = None,
) -> Contrast:
    """The advantage of ``first`` over ``second``; the other arguments are those of `Contrast`.

    first, second: mean score of each episode, ``[seeds, episodes]``. Row i of both comes from the same seed, column j
        from the same episode. A single row (a method that trains nothing) pairs with every row of the other.
    metric: squared errors are compared by the ratio of their means, other scores by their difference. Errors and
        returns that are not finite count as the worst of all and make the means unstable

    Raises `MetabenchError` for accuracies that are not finite, scores of which none is, shapes that don't match, and a
    mean error of zero."""
    a, b = checked(first, "the first method", metric), checked(second, "the second method", metric)
    if a.shape[1] != b.shape[1] or (a.shape[0] != b.shape[0] and 1 not in (a.shape[0], b.shape[0])):
        raise MetabenchError(f"scores of {a.shape} and of {b.shape} (seeds, episodes) can't be paired")
    if membership is not None and membership.episodes != a.shape[1]:
        raise MetabenchError(f"classes of {membership.episodes} episodes, but scores of {a.shape[1]}")
    sign = 1.0 if higher_is_better else -1.0
    carried = ("", "") if metric == "accuracy" else (instability(a), instability(b))
    a, b = (np.nan_to_num(x, nan=-sign * WORST, posinf=WORST, neginf=-WORST) for x in (a, b))
    ahead = sign * np.sign(a - b)
    rest: dict[str, Any] = {"membership": membership, "trained": trained, "carried": carried, "ahead": ahead}
    rest["strata"] = strata
    if metric != "squared error":
        return Contrast(sign * (a - b), "difference", **rest)
    mean_a, mean_b = a.mean(), b.mean()
    if min(a.min(), b.min()) < 0 or min(mean_a, mean_b) <= 0:
        raise MetabenchError("errors are compared by the ratio of their means, which must be above zero")
    return Contrast(sign * (a / mean_a - b / mean_b + math.log(mean_a / mean_b)), "log ratio", **rest)


def instability(scores: np.ndarray) -> str:
    """How few episodes carry the mean of these scores ``[seeds, episodes]``: "1 of 200 episodes carries 31 %".

    Empty where no episode carries more than `LARGEST_SHARE` and one in 100 together carry no more than half. Of fewer
    than ten episodes, one may carry twice its even share. Returns count by their size; a score that is not finite
    carries all."""
    count = scores.shape[1]
    if lost := int(np.count_nonzero(~np.isfinite(scores).all(axis=0))):
        return _carried(lost, count, 1.0)
    sizes = np.sort(np.abs(scores).mean(axis=0))[::-1]
    shares = np.cumsum(sizes) / (sizes.sum() or 1.0)
    half = int(np.searchsorted(shares, 0.5, side="right"))
    if half < count // 100:
        return _carried(half + 1, count, shares[half])
    return _carried(1, count, shares[0]) if shares[0] > max(LARGEST_SHARE, 2 / count) else ""


def _carried(few: int, count: int, share: float) -> str:
    return f"{few:,} of {count:,} episodes {'carries' if few == 1 else 'carry'} {100 * share:.0f} %"


def margin_on_scale(margin: float, metric: str) -> float:
    """A task's equivalence margin in the units of `Contrast`; for squared errors the margin is a ratio of means.

    Raises `MetabenchError` for a margin out of range."""
    if not (math.isfinite(margin) and margin > (1.0 if metric == "squared error" else 0.0)):
        least = "above 1 (a ratio)" if metric == "squared error" else "above 0"
        raise MetabenchError(f"equivalence margin {margin!r} of {metric}: it must be {least}")
    return math.log(margin) if metric == "squared error" else margin


def checked(scores: np.ndarray, name: str, metric: str = "accuracy") -> np.ndarray:
    """Scores as float64 ``[seeds, episodes]``; raises `MetabenchError` for other shapes, accuracies that are not
    finite, and where no episode's score is."""
    values = np.atleast_2d(np.asarray(scores, dtype=np.float64))
    if values.ndim != 2 or not values.size:
        raise MetabenchError(f"{name}: scores of shape {values.shape}; [seeds, episodes] is expected")
    wrong = int(np.count_nonzero(~np.isfinite(values).all(axis=0)))
    if wrong and (metric == "accuracy" or wrong == values.shape[1]):
        raise MetabenchError(f"{name}: the scores of {wrong} of {values.shape[1]} episodes are not numbers")
    return values


def quantile(degrees: float, probability: float) -> float:
    """Quantile of Student's t."""
    from scipy import special

    return float(special.stdtrit(degrees, probability))
