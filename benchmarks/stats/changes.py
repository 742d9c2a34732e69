"""Change points in a series: Pettitt's test (Applied Statistics 28, 1979), applied recursively on both sides.

The test ranks the values, so outliers, skew and heavy tails don't matter. If nothing changes and values are
exchangeable, its statistic has the same distribution for all series. It needs data after a change: at least 15 values
in all, and the last 8 of 50.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

#: level of each test; docs/performance.md has the simulated rate of false alarms
LEVEL = 0.01
#: smaller changes of the median, as a share, never count
LEAST_CHANGE = 0.01


@dataclass(frozen=True)
class Change:
    """A change of level: the index of the first new value; the ratio of the medians after and before, between the
    neighbouring changes; and the p-value of Pettitt's test."""

    at: int
    ratio: float
    p: float


def pettitt(values: Sequence[float] | np.ndarray) -> tuple[int, float]:
    """Index of the first value after the most likely change, and its two-sided p-value.

    The p-value is Pettitt's conservative approximation 2 exp(-6 K^2 / (n^3 + n^2))."""
    x = np.asarray(values, dtype=np.float64)
    n = len(x)
    if n < 2:
        return 0, 1.0
    ordered = np.sort(x)
    ranks = (np.searchsorted(ordered, x, "left") + np.searchsorted(ordered, x, "right") + 1) / 2  # ties share a rank
    u = 2 * np.cumsum(ranks)[:-1] - np.arange(1, n) * (n + 1)
    at = int(np.argmax(np.abs(u)))
    return at + 1, min(1.0, 2 * math.exp(-6 * float(u[at]) ** 2 / (n**3 + n**2)))


def changes(values: Sequence[float] | np.ndarray, level: float = LEVEL, least: float = LEAST_CHANGE) -> list[Change]:
    """Changes of level in a series of positive values, in order; empty for a short or steady series."""
    x = np.asarray(values, dtype=np.float64)
    found = dict(sorted(_split(x, 0, level, least)))
    ends = [0, *found, len(x)]
    kept = []
    for number, (at, p) in enumerate(found.items()):
        before, after = x[ends[number] : at], x[at : ends[number + 2]]
        kept.append(Change(at, float(np.median(after) / np.median(before)), p))
    return [change for change in kept if abs(math.log(change.ratio)) > math.log1p(least)]


def _split(x: np.ndarray, offset: int, level: float, least: float) -> list[tuple[int, float]]:
    at, p = pettitt(x)
    if p > level or abs(math.log(np.median(x[at:]) / np.median(x[:at]))) <= math.log1p(least):
        return []
    left, right = _split(x[:at], offset, level, least), _split(x[at:], offset + at, level, least)
    return [*left, (offset + at, p), *right]
