"""When a benchmark counts as slower: a pure function of the times of base and head.

A sample is the shortest time that one process saw. What disturbs a process on a shared machine only makes it slower, so
a side is located by its lower quintile over processes, which stays where it is until four in five are disturbed; the
median moves with the half of the disturbed. The estimate is the ratio of the two, with a bootstrap interval. Processes
are few, so the bootstrap is not drawn: the quintile is one of the n samples, each with a probability known exactly.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Verdict = Literal["faster", "same", "slower", "cannot tell", "no baseline"]

#: numbers of pairs of processes after which is decided whether more are needed
LOOKS = (3, 5, 7, 10)
#: smallest change that counts, unless a benchmark has its own
THRESHOLD = 0.02
#: a change below this share of the benchmark's own time never counts, whatever its threshold says
LEAST_CHANGE = 0.01
#: of the interval at the last look, where a false alarm must pass twice, and at the looks before it
CONFIDENCE, EARLY_CONFIDENCE = 0.8, 0.99
#: the location is the shortest but one, two ... of so many processes, rounded up: the lower quintile
ONE_IN = 5


@dataclass(frozen=True)
class Decision:
    """What can be said after some pairs. ratio: head's time over base's; low, high: its interval, of the confidence of
    this look. final: no further pair would be asked for."""

    verdict: Verdict
    ratio: float
    low: float
    high: float
    pairs: int
    final: bool


def decide(base: Sequence[float], head: Sequence[float], threshold: float = THRESHOLD) -> Decision:
    """The verdict on equally many processes of each, and whether it is final.

    Before the last look it is final only where the whole interval lies beyond the threshold (slower, faster) or within
    it (same): a look costs a chance of a false alarm, and the whole interval is a stricter test than its end. At the
    last look slower (or faster) needs an estimate beyond the threshold and an interval without 1; same an interval
    within twice the threshold; the rest can't be told. The last interval is narrow, since what is slower counts only
    if it is slower again in other processes."""
    if not len(base) == len(head) > 0:
        raise ValueError(f"{len(base)} processes of the base and {len(head)} of the head")
    pairs = len(base)
    change = max(threshold, LEAST_CHANGE)
    last = pairs >= LOOKS[-1]
    ratio = location(head) / location(base)
    low, high = ratio_interval(head, base, CONFIDENCE if last else EARLY_CONFIDENCE)
    verdict: Verdict = "cannot tell"
    if low > 1 + change or (last and ratio > 1 + change and low > 1):
        verdict = "slower"
    elif high < 1 / (1 + change) or (last and ratio < 1 / (1 + change) and high < 1):
        verdict = "faster"
    else:
        width = 2 * change if last else change
        if 1 / (1 + width) < low and high < 1 + width:
            verdict = "same"
    return Decision(verdict, ratio, low, high, pairs, last or verdict != "cannot tell")


def location(samples: Sequence[float]) -> float:
    """The lower quintile: of n samples the k-th smallest, k = n / 5 rounded up."""
    return float(np.sort(np.asarray(samples, dtype=np.float64))[_rank(len(samples)) - 1])


def ratio_interval(upper: Sequence[float], lower: Sequence[float], confidence: float) -> tuple[float, float]:
    """The percentile interval of the bootstrap of location(upper) / location(lower)."""
    weights = np.outer(_weights(len(upper)), _weights(len(lower))).ravel()
    values = np.divide.outer(np.sort(upper), np.sort(lower)).ravel()
    order = np.argsort(values)
    reached = np.cumsum(weights[order])
    tail = (1 - confidence) / 2
    first = int(np.searchsorted(reached, tail))
    last = min(int(np.searchsorted(reached, 1 - tail)), len(values) - 1)
    return float(values[order[first]]), float(values[order[last]])


def _rank(count: int) -> int:
    return math.ceil(count / ONE_IN)


@functools.cache
def _weights(count: int) -> np.ndarray:
    """The probability that the location of a resample is the i-th smallest of ``count`` samples: the k-th smallest of
    the draws is at most that sample if at least k draws are."""
    weights: np.ndarray = np.diff([_at_least(_rank(count), count, i / count) for i in range(count + 1)])
    return weights


def _at_least(least: int, draws: int, chance: float) -> float:
    """The probability of ``least`` hits or more."""
    return sum(math.comb(draws, k) * chance**k * (1 - chance) ** (draws - k) for k in range(least, draws + 1))


def noise(samples: Sequence[float]) -> float:
    """The spread of equal processes: 1.4826 times the median deviation from the median, as a share of it."""
    values = np.asarray(samples, dtype=np.float64)
    centre = np.median(values)
    return float(1.4826 * np.median(np.abs(values - centre)) / centre)
