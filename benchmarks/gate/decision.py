"""When a benchmark counts as slower: a pure function of the times of base and head.

A sample is the shortest time that one process saw; the estimate is the ratio of the medians over processes, with a
bootstrap interval. Processes are few, so the bootstrap is not drawn: with n processes the resampled median has few
possible values, whose probabilities are known exactly.
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
CONFIDENCE = 0.99


@dataclass(frozen=True)
class Decision:
    """What can be said after some pairs. ratio: head's time over base's. final: no further pair would be asked for."""

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
    within twice the threshold; the rest can't be told."""
    if not len(base) == len(head) > 0:
        raise ValueError(f"{len(base)} processes of the base and {len(head)} of the head")
    pairs = len(base)
    ratio = float(np.median(head) / np.median(base))
    low, high = ratio_interval(head, base)
    change = max(threshold, LEAST_CHANGE)
    last = pairs >= LOOKS[-1]
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


def ratio_interval(
    upper: Sequence[float], lower: Sequence[float], confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """The percentile interval of the bootstrap of median(upper) / median(lower)."""
    above, below = _medians(upper), _medians(lower)
    weights = np.outer(_weights(len(upper)), _weights(len(lower))).ravel()
    values = np.divide.outer(above, below).ravel()
    order = np.argsort(values)
    reached = np.cumsum(weights[order])
    tail = (1 - confidence) / 2
    first = int(np.searchsorted(reached, tail))
    last = min(int(np.searchsorted(reached, 1 - tail)), len(values) - 1)
    return float(values[order[first]]), float(values[order[last]])


def _medians(samples: Sequence[float]) -> np.ndarray:
    """The values that the median of a resample can have, in the order of `_weights`."""
    values = np.sort(np.asarray(samples, dtype=np.float64))
    if len(values) % 2:
        return values
    left, right = _pairs(len(values))
    found: np.ndarray = (values[left] + values[right]) / 2
    return found


def _pairs(count: int) -> tuple[np.ndarray, np.ndarray]:
    return np.triu_indices(count)


@functools.cache
def _weights(count: int) -> np.ndarray:
    """The probability of each value of `_medians` for ``count`` samples.

    Odd: the k-th smallest of n draws is at most the i-th sample if at least k draws are. Even: the two in the middle
    are samples i < j if n/2 draws are at most i, one of them i, and the others at least j, one of them j."""
    half = count // 2
    if count % 2:
        return np.diff([_at_least(half + 1, count, i / count) for i in range(count + 1)])
    left, right = _pairs(count)
    weights = np.empty(len(left))
    share = np.arange(count + 1) / count
    for place, (i, j) in enumerate(zip(left, right, strict=True)):
        if i < j:
            below = share[i + 1] ** half - share[i] ** half
            above = share[count - j] ** half - share[count - j - 1] ** half
            weights[place] = math.comb(count, half) * below * above
    lower = np.diff([_at_least(half, count, i / count) for i in range(count + 1)])
    for i in range(count):
        same = (left == i) & (right == i)
        weights[same] = lower[i] - weights[(left == i) & (right > i)].sum()
    return weights


def _at_least(least: int, draws: int, chance: float) -> float:
    """The probability of ``least`` hits or more."""
    return sum(math.comb(draws, k) * chance**k * (1 - chance) ** (draws - k) for k in range(least, draws + 1))


def noise(samples: Sequence[float]) -> float:
    """The spread of equal processes: 1.4826 times the median deviation from the median, as a share of it."""
    values = np.asarray(samples, dtype=np.float64)
    centre = np.median(values)
    return float(1.4826 * np.median(np.abs(values - centre)) / centre)
