"""Intervals over test episodes: how far a mean would move if other episodes had been drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

#: the normal quantile of a two-sided 95 % interval
NORMAL_95 = 1.96


@dataclass(frozen=True)
class Interval:
    """A mean over episodes; half_width is NaN where fewer than two episodes leave it unknown."""

    mean: float
    half_width: float
    episodes: int

    @property
    def known(self) -> bool:
        """Whether there is an interval at all."""
        return bool(np.isfinite(self.mean) and np.isfinite(self.half_width))

    @property
    def low(self) -> float:
        return self.mean - self.half_width

    @property
    def high(self) -> float:
        return self.mean + self.half_width

    @property
    def contains_zero(self) -> bool:
        """Whether the sign is open; True where the interval is unknown."""
        return not (self.known and (self.low > 0 or self.high < 0))


def mean_interval(values: np.ndarray) -> Interval:
    """Mean and 1.96 standard errors (deviation with n - 1) of one value per episode, ``[E]``."""
    count = len(values)
    if count == 0:
        return Interval(float("nan"), float("nan"), 0)
    half_width = NORMAL_95 * float(np.std(values, ddof=1)) / np.sqrt(count) if count > 1 else float("nan")
    return Interval(float(np.mean(values)), float(half_width), count)


def paired_interval(first: pd.Series, second: pd.Series) -> Interval:
    """The interval of first minus second over the episodes that both have; scores indexed by episode."""
    shared = first.index.intersection(second.index)
    return mean_interval((first.loc[shared] - second.loc[shared]).to_numpy())
