"""Failed adaptations: an answer that is not a number, or an error far above that of the best constant."""

from __future__ import annotations

import math

import numpy as np

#: an adaptation whose mean squared error is above this many times the best constant's has failed
FAILED = 100.0


def failed(scores: np.ndarray, lost: np.ndarray, constant_error: float | None) -> np.ndarray:
    """Which adaptations have failed, bool like ``scores``.

    scores: the mean score of each episode. lost: whether an answer in it is not a number. constant_error: the mean
    squared error of the best constant on the same test; None where it is unknown or scores are no errors."""
    return lost | (scores > FAILED * (math.inf if constant_error is None else constant_error))
