"""Where a series changed its level: Pettitt's test (Applied Statistics 28, 1979), applied again to either side of what
it finds.

The test ranks the values, so one slow day, skew and heavy tails don't matter, and under "no change" its statistic has
the same distribution whatever that of the values is, as long as they are exchangeable. It needs some values after a
change before it can tell: 15 values at least, and of 50 the last 8.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

#: level of each test; docs/performance.md has the simulated share of false alarms
LEVEL = 0.01
#: a change of the median by less than this share never counts
LEAST_CHANGE = 0.01


@dataclass(frozen=True)
class Change:
    """at: the place of the first value of the new level. ratio: the median after over the median before, both taken
    from the neighbouring changes on; p: of Pettitt's test."""

    at: int
    ratio: float
    p: float


def pettitt(values: Sequence[float] | np.ndarray) -> tuple[int, float]:
    """The most likely place of one change (the first value after it), and its two-sided p, by Pettitt's
    approximation 2 exp(-6 K^2 / (n^3 + n^2)), which is too large rather than too small."""
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
    """The changes of level in a series of positive values, in their order; none in a short or a quiet one."""
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
