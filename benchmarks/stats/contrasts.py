"""The paired difference of two methods over crossed training seeds and test episodes, and its intervals.

Every seed of every method is tested on the same episodes. So the difference of two methods is a table ``[seeds,
episodes]``, and its mean varies for two reasons that must be kept apart: other episodes (one draw of episodes moves
every seed and both methods alike) and other training seeds. What an interval speaks about is its *scope*:

* ``models``: these trained models, on other episodes of the same classes;
* ``methods``: the methods, trained with other seeds too; from `SEEDS_FOR_METHODS` seeds on;
* ``classes``: these trained models, on episodes of other classes (`benchmarks.stats.classes`).

docs/statistics.md says the same in plain words, with the simulated coverage of each.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from benchmarks.errors import MetabenchError
from benchmarks.stats.classes import Membership

SCOPES = ("models", "methods", "classes")
#: below so many training seeds nothing is said about methods
SEEDS_FOR_METHODS = 5


@dataclass(frozen=True)
class Interval:
    """An estimate and a two-sided interval of this level; low and high are NaN where it is unknown."""

    estimate: float
    low: float
    high: float
    level: float
    scope: str

    @property
    def known(self) -> bool:
        """Whether there is an interval at all."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2

    @property
    def excludes_zero(self) -> bool:
        """Whether the sign is sure; False where the interval is unknown."""
        return self.known and (self.low > 0 or self.high < 0)

    def within(self, margin: float) -> bool:
        """Whether all of it lies between -margin and margin; False where it is unknown."""
        return self.known and -margin < self.low and self.high < margin


@dataclass(frozen=True, eq=False)
class Contrast:
    """By how much the first of two methods is better: positive is better, for errors too.

    values: ``[seeds, episodes]``, whose mean is the estimate. On the scale "difference" they are differences of scores;
    on the scale "log ratio" (squared errors) they are the first-order terms of log(mean error of the second / mean
    error of the first) in each episode's errors, plus that logarithm.
    membership: the classes of each episode, where tasks have classes. trained: False where neither method trains, so
    that other seeds change nothing and a few of them say all.
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
        """The mean over seeds in each episode, ``[episodes]``."""
        return np.asarray(self.values.mean(axis=0))

    @cached_property
    def episode_variance(self) -> float:
        """s_episode^2: the variance over episodes of the mean over seeds; NaN for one episode."""
        return _variance(self.episode_values)

    @cached_property
    def seed_variance(self) -> float:
        """s_seed^2: the variance over seeds of the mean over episodes; NaN for one seed."""
        return _variance(self.values.mean(axis=1))

    @cached_property
    def _seeds_count(self) -> bool:
        """Whether the training seeds are a source of noise that there are enough of to measure."""
        return self.seeds >= SEEDS_FOR_METHODS and bool((self.values != self.values[:1]).any())

    def scopes(self) -> tuple[str, ...]:
        """The scopes that can be spoken about here."""
        several = self.episodes > 1
        methods = several and (self.seeds >= SEEDS_FOR_METHODS or not self.trained)
        classes = several and self.membership is not None and self.membership.drawn
        return tuple(scope for scope, there in zip(SCOPES, (several, methods, classes), strict=True) if there)

    def standard_error(self, scope: str) -> float:
        """The standard error of the estimate in this scope; raises `MetabenchError` where it can't be known."""
        return self._spread(scope)[0]

    def degrees(self, scope: str) -> int:
        """Degrees of freedom of Student's t: one less than the episodes, the seeds or the classes."""
        return self._spread(scope)[1]

    def _spread(self, scope: str) -> tuple[float, int]:
        if scope not in self.scopes():
            raise MetabenchError(self._refusal(scope))
        error = self.episode_variance / self.episodes
        if scope == "methods" and self._seeds_count:
            return math.sqrt(self.seed_variance / self.seeds + error), self.seeds - 1
        if scope == "classes":
            assert self.membership is not None
            spread = self.membership.components(self.episode_values)
            return math.sqrt(spread.variance_of_mean), self.membership.count - 1
        return math.sqrt(error), self.episodes - 1

    def _refusal(self, scope: str) -> str:
        if scope not in SCOPES:
            return f"unknown scope {scope!r}; known: {', '.join(SCOPES)}"
        if self.episodes < 2:
            return f"{self.episodes} shared episode: there is no interval"
        if scope == "methods":
            return f"{self.seeds} shared seeds: a verdict about methods needs {SEEDS_FOR_METHODS}"
        return "this task has no classes that could be drawn anew"

    def interval(self, scope: str = "models", level: float = 0.95) -> Interval:
        """The two-sided Student interval; unknown (NaN) where the scope can't be spoken about."""
        if scope not in self.scopes():
            return Interval(self.estimate, math.nan, math.nan, level, scope)
        error, degrees = self._spread(scope)
        half_width = quantile(degrees, 0.5 + level / 2) * error
        return Interval(self.estimate, self.estimate - half_width, self.estimate + half_width, level, scope)

    def p_value(self, scope: str = "models") -> float:
        """Two-sided, by Student's t, for a difference of zero; NaN where the scope can't be spoken about."""
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
    """By how much ``first`` is better than ``second``.

    first, second: the score of each episode (the mean over its queries), ``[seeds, episodes]``, row i of both from the
    same seed and column j from the same episode; one row stands beside every row of the other (a method that trains
    nothing). Squared errors are compared by the ratio of their means. Raises `MetabenchError` for scores that are not
    numbers, for shapes that don't fit, and for a ratio with a mean error of zero."""
    a, b = checked(first, "the first method"), checked(second, "the second method")
    if a.shape[1] != b.shape[1] or (a.shape[0] != b.shape[0] and 1 not in (a.shape[0], b.shape[0])):
        raise MetabenchError(f"scores of {a.shape} and of {b.shape} (seeds, episodes) can't be paired")
    if membership is not None and membership.episodes != a.shape[1]:
        raise MetabenchError(f"classes of {membership.episodes} episodes stand beside scores of {a.shape[1]}")
    sign = 1.0 if higher_is_better else -1.0
    if metric != "squared error":
        return Contrast(sign * (a - b), "difference", membership, trained)
    mean_a, mean_b = a.mean(), b.mean()
    if min(a.min(), b.min()) < 0 or min(mean_a, mean_b) <= 0:
        raise MetabenchError("errors are compared by the ratio of their means, which must be above zero")
    ratio = sign * (a / mean_a - b / mean_b + math.log(mean_a / mean_b))
    return Contrast(ratio, "log ratio", membership, trained)


def margin_on_scale(margin: float, metric: str) -> float:
    """The equivalence margin of a task in the units of `Contrast`: for squared errors it is a ratio of means."""
    if not (math.isfinite(margin) and margin > (1.0 if metric == "squared error" else 0.0)):
        least = "above 1 (a ratio)" if metric == "squared error" else "above 0"
        raise MetabenchError(f"equivalence margin {margin!r} of {metric}: it must be {least}")
    return math.log(margin) if metric == "squared error" else margin


def checked(scores: np.ndarray, name: str) -> np.ndarray:
    """Scores as float64 ``[seeds, episodes]``; raises `MetabenchError` where they are not, or not finite."""
    values = np.atleast_2d(np.asarray(scores, dtype=np.float64))
    if values.ndim != 2 or not values.size:
        raise MetabenchError(f"{name}: scores of shape {values.shape}; [seeds, episodes] is expected")
    wrong = int(np.count_nonzero(~np.isfinite(values).all(axis=0)))
    if wrong:
        raise MetabenchError(f"{name}: the scores of {wrong} of {values.shape[1]} episodes are not numbers")
    return values


def quantile(degrees: float, probability: float) -> float:
    """The quantile of Student's t."""
    from scipy import special

    return float(special.stdtrit(degrees, probability))


def _variance(values: np.ndarray) -> float:
    return float(np.var(values, ddof=1)) if len(values) > 1 else math.nan
