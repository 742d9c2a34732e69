"""Paired difference of two methods over crossed training seeds and test episodes, with intervals.

Every seed of every method is tested on the same episodes. So the difference of two methods is a table ``[seeds,
episodes]``. Its mean varies with the drawn episodes (shared by all seeds and both methods) and with the training seeds.
The *scope* of an interval says which variation it covers:

- ``models``: these trained models, on other episodes of the same classes
- ``methods``: the methods, trained with other seeds too; needs `SEEDS_FOR_METHODS` seeds
- ``classes``: these trained models, on episodes of other classes (`benchmarks.stats.classes`)

docs/statistics.md explains them in plain words, with simulated coverage.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from benchmarks.checks import check_known
from benchmarks.errors import MetabenchError
from benchmarks.stats.classes import Membership

SCOPES = ("models", "methods", "classes")
#: training seeds needed for the scope "methods"
SEEDS_FOR_METHODS = 5


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
    """

    values: np.ndarray
    scale: str = "difference"
    membership: Membership | None = None
    trained: bool = True

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
        error = float(np.var(self.episode_values, ddof=1)) / self.episodes
        noisy = self.seeds >= SEEDS_FOR_METHODS and bool((self.values != self.values[:1]).any())
        if scope == "methods" and noisy:
            return math.sqrt(self.seed_variance / self.seeds + error), self.seeds - 1
        if scope == "classes":
            assert self.membership is not None
            spread = self.membership.components(self.episode_values)
            return math.sqrt(spread.variance_of_mean), self.membership.count - 1
        return math.sqrt(error), self.episodes - 1

    def _refusal(self, scope: str) -> str:
        check_known("scope", scope, SCOPES)
        if self.episodes < 2:
            return f"{self.episodes} shared episode: no interval"
        if scope == "methods":
            return f"{self.seeds} shared seeds: a verdict about methods needs {SEEDS_FOR_METHODS}"
        return "this task has no classes to redraw"

    def interval(self, scope: str = "models", level: float = 0.95) -> Interval:
        """Two-sided Student interval; NaN ends if the data don't support the scope."""
        if scope not in self.scopes():
            return Interval(self.estimate, math.nan, math.nan, level, scope)
        error, degrees = self._spread(scope)
        half_width = quantile(degrees, 0.5 + level / 2) * error
        return Interval(self.estimate, self.estimate - half_width, self.estimate + half_width, level, scope)

    def p_value(self, scope: str = "models") -> float:
        """Two-sided p-value of Student's t for no difference; NaN if the data don't support the scope."""
        from scipy import special

        if scope not in self.scopes():
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
) -> Contrast:
    """The advantage of ``first`` over ``second``; the other arguments are those of `Contrast`.

    first, second: mean score of each episode, ``[seeds, episodes]``. Row i of both comes from the same seed, column j
        from the same episode. A single row (a method that trains nothing) pairs with every row of the other.
    metric: squared errors are compared by the ratio of their means, other scores by their difference

    Raises `MetabenchError` for scores that are not finite, shapes that don't match, and a mean error of zero."""
    a, b = checked(first, "the first method"), checked(second, "the second method")
    if a.shape[1] != b.shape[1] or (a.shape[0] != b.shape[0] and 1 not in (a.shape[0], b.shape[0])):
        raise MetabenchError(f"scores of {a.shape} and of {b.shape} (seeds, episodes) can't be paired")
    if membership is not None and membership.episodes != a.shape[1]:
        raise MetabenchError(f"classes of {membership.episodes} episodes, but scores of {a.shape[1]}")
    sign = 1.0 if higher_is_better else -1.0
    if metric != "squared error":
        return Contrast(sign * (a - b), "difference", membership, trained)
    mean_a, mean_b = a.mean(), b.mean()
    if min(a.min(), b.min()) < 0 or min(mean_a, mean_b) <= 0:
        raise MetabenchError("errors are compared by the ratio of their means, which must be above zero")
    ratio = sign * (a / mean_a - b / mean_b + math.log(mean_a / mean_b))
    return Contrast(ratio, "log ratio", membership, trained)


def margin_on_scale(margin: float, metric: str) -> float:
    """A task's equivalence margin in the units of `Contrast`; for squared errors the margin is a ratio of means.

    Raises `MetabenchError` for a margin out of range."""
    if not (math.isfinite(margin) and margin > (1.0 if metric == "squared error" else 0.0)):
        least = "above 1 (a ratio)" if metric == "squared error" else "above 0"
        raise MetabenchError(f"equivalence margin {margin!r} of {metric}: it must be {least}")
    return math.log(margin) if metric == "squared error" else margin


def checked(scores: np.ndarray, name: str) -> np.ndarray:
    """Scores as float64 ``[seeds, episodes]``; raises `MetabenchError` for other shapes and scores that are not
    finite."""
    values = np.atleast_2d(np.asarray(scores, dtype=np.float64))
    if values.ndim != 2 or not values.size:
        raise MetabenchError(f"{name}: scores of shape {values.shape}; [seeds, episodes] is expected")
    wrong = int(np.count_nonzero(~np.isfinite(values).all(axis=0)))
    if wrong:
        raise MetabenchError(f"{name}: the scores of {wrong} of {values.shape[1]} episodes are not numbers")
    return values


def quantile(degrees: float, probability: float) -> float:
    """Quantile of Student's t."""
    from scipy import special

    return float(special.stdtrit(degrees, probability))
