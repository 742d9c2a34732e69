"""Scores as they are summarised in a record."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from benchmarks.records.record import StepSummary

#: two-sided 95 % of the normal distribution
Z95 = 1.959963984540054


def summary(scores: Mapping[int, np.ndarray], environment_steps: Mapping[int, int]) -> tuple[StepSummary, ...]:
    """Mean, standard error and 95 % half-width over episodes for each number of inner steps; an episode's score is the
    mean over its queries.

    scores: ``[episodes, queries]`` by step. environment_steps: taken by then for all episodes together."""
    rows = []
    for step, values in sorted(scores.items()):
        episodes = values.astype(np.float64).mean(1)
        deviation = float(episodes.std(ddof=1)) if len(episodes) > 1 else math.nan
        error = deviation / math.sqrt(len(episodes))
        rows.append(
            StepSummary(
                step,
                _finite(float(episodes.mean())),
                _finite(error),
                _finite(Z95 * error),
                len(episodes),
                _finite(deviation),
                environment_steps[step] / len(episodes) if step in environment_steps else None,
            )
        )
    return tuple(rows)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
