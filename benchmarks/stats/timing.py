"""Medians of times and their ratios, with bootstrap intervals over measurement rounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000
CONFIDENCE = 0.95
#: samples are unstable (noisy timing) if their quartiles are further apart than this share of the median
SPREAD = 0.1


@dataclass(frozen=True)
class Estimate:
    """A number with its bootstrap percentile interval, NaN below three samples."""

    value: float
    low: float
    high: float


def median(samples: Sequence[float], confidence: float = CONFIDENCE) -> Estimate:
    values = np.asarray(samples, dtype=np.float64)
    return _estimate(float(np.median(values)), np.median(values[_draws(len(values))], axis=1), len(values), confidence)


def ratio(upper: Sequence[float], lower: Sequence[float], confidence: float = CONFIDENCE) -> Estimate:
    """Ratio of the medians of two series.

    Series of equal length come from the same rounds and are resampled together, so that a slow round cancels. Others
    are resampled independently."""
    above, below = np.asarray(upper, dtype=np.float64), np.asarray(lower, dtype=np.float64)
    first = _draws(len(above))
    second = first if len(above) == len(below) else _draws(len(below), seed=1)
    drawn = np.median(above[first], axis=1) / np.median(below[second], axis=1)
    return _estimate(float(np.median(above) / np.median(below)), drawn, min(len(above), len(below)), confidence)


def spread(samples: Sequence[float]) -> float:
    """Interquartile range as a share of the median; samples above `SPREAD` are unstable."""
    lower, upper = np.quantile(samples, [0.25, 0.75])
    return float(upper - lower) / float(np.median(samples))


def _draws(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, count, (RESAMPLES, count))


def _estimate(value: float, drawn: np.ndarray, count: int, confidence: float) -> Estimate:
    if count < 3:
        return Estimate(value, float("nan"), float("nan"))
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Estimate(value, float(low), float(high))
