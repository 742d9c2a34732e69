"""From a predictor to scores, the error of the best constant, and the scores as selection counts them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.api import Predictor, TaskDistribution


@dataclass
class ConstantError:
    """The mean squared error of the best constant on queries that come in parts: the variance of their targets."""

    count: int = 0
    total: Any = 0.0
    squares: Any = 0.0

    def add(self, tasks: TaskDistribution, query: Any) -> None:
        """Take the targets ``[T, n, outputs]`` of a regression in."""
        if tasks.kind == "regression":
            y = query.y.double().flatten(0, -2).cpu().numpy()
            self.count += len(y)
            self.total = self.total + y.sum(0)
            self.squares = self.squares + (y**2).sum(0)

    @property
    def value(self) -> float | None:
        """None without targets, and where all are equal."""
        found = float(np.mean(self.squares / self.count - (self.total / self.count) ** 2)) if self.count else 0.0
        return found if found > 0 else None


def scored(tasks: TaskDistribution, predictor: Predictor, query: Any) -> tuple[np.ndarray, np.ndarray]:
    """The scores ``[T, n]``, a class that is not a number as a wrong one; and whether an answer of the episode is not
    a number, bool ``[T]``."""
    scores = tasks.score(predictor, query).cpu().numpy()
    lost = ~np.isfinite(scores)
    return np.where(lost, 0, scores).astype(scores.dtype) if tasks.metric == "accuracy" else scores, lost.any(1)


def robust(scores: np.ndarray, constant_error: float | None) -> np.ndarray:
    """The scores of episodes ``[episodes]`` as selection counts them: an error no higher than the constant's, and a
    return that is not finite as the lowest of the others. Accuracies stay."""
    if constant_error is not None:
        return np.where(scores < constant_error, scores, constant_error)
    known = np.isfinite(scores)
    return np.where(known, scores, scores[known].min()) if known.any() else scores
