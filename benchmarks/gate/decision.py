"""The verdict on a step: a pure function of the ratios that pairs of processes measured.

A ratio is head's time over base's, in two processes that alternate every few milliseconds, so that a disturbance of the
machine meets both. The estimate is the median over pairs, with a percentile interval of the bootstrap over pairs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from benchmarks.stats import timing

Verdict = Literal["faster", "same", "slower", "cannot tell", "no baseline"]

#: numbers of pairs after which a verdict may be final
LOOKS = (3, 5, 7, 10)
#: the same for the repeat of a slower step: all pairs, since a disturbance can last through three
REPEAT_LOOKS = LOOKS[-1:]
#: smallest change that counts, unless a step has its own
THRESHOLD = 0.02
#: a change below this share of the step's time never counts, whatever its threshold says
LEAST_CHANGE = 0.01
#: of the interval at the last look, where a false alarm must pass twice, and at earlier looks
CONFIDENCE, EARLY_CONFIDENCE = 0.8, 0.99


@dataclass(frozen=True)
class Decision:
    """The verdict after some pairs.

    ratio: head's time over base's; low, high: its interval, with the confidence of this look.
    final: no further pair is needed."""

    verdict: Verdict
    ratio: float
    low: float
    high: float
    pairs: int
    final: bool


def decide(ratios: Sequence[float], threshold: float = THRESHOLD) -> Decision:
    """The verdict on the ratios of some pairs.

    Before the last look a verdict is final only if the whole interval lies beyond the threshold (slower, faster) or
    within it (same): every look adds a chance of a false alarm, and the whole interval is a strict test. At the last
    look slower and faster need an estimate beyond the threshold and an interval without 1, and same an interval within
    twice the threshold. That interval is narrow, since a slower step counts only if it is slower again."""
    change = max(threshold, LEAST_CHANGE)
    last = len(ratios) >= LOOKS[-1]
    ratio = location(ratios)
    low, high = interval(ratios, CONFIDENCE if last else EARLY_CONFIDENCE)
    verdict: Verdict = "cannot tell"
    if low > 1 + change or (last and ratio > 1 + change and low > 1):
        verdict = "slower"
    elif high < 1 / (1 + change) or (last and ratio < 1 / (1 + change) and high < 1):
        verdict = "faster"
    else:
        width = 2 * change if last else change
        if 1 / (1 + width) < low and high < 1 + width:
            verdict = "same"
    return Decision(verdict, ratio, low, high, len(ratios), last or verdict != "cannot tell")


def location(ratios: Sequence[float]) -> float:
    """The median; of an even number the geometric mean of the middle two."""
    return math.exp(float(np.median(np.log(ratios))))


def interval(ratios: Sequence[float], confidence: float) -> tuple[float, float]:
    """The percentile interval of the bootstrap of the location; the same for the same ratios."""
    found = timing.median([math.log(ratio) for ratio in ratios], confidence)
    return math.exp(found.low), math.exp(found.high)


def noise(ratios: Sequence[float]) -> float:
    """The spread of equal pairs: 1.4826 times the median absolute deviation, as a share of the median."""
    logs = np.log(ratios)
    return float(1.4826 * np.median(np.abs(logs - np.median(logs))))
