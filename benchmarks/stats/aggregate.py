"""Aggregates across tasks: normalised scores, their interquartile mean, and performance profiles.

Source: Agarwal et al., "Deep reinforcement learning at the edge of the statistical precipice", NeurIPS 2021. Means over
different sets of tasks are not comparable. So only methods with a result on every task take part, and the others are
listed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from benchmarks import sampling
from benchmarks.errors import MetabenchError
from benchmarks.stats.contrasts import SEEDS_FOR_METHODS, Interval, checked

if TYPE_CHECKING:
    import pandas as pd

RESAMPLES = 2_000
#: numbers drawn at a time
_CHUNK = 4_000_000


@dataclass(frozen=True, eq=False)
class TaskScores:
    """The scores of all methods on one task.

    floor, ceiling: mean scores that normalise to 0 and 1
    methods: per method the score of each episode, ``[seeds, episodes]``; all on the same episodes, row i from the same
        seed
    metric: "squared error" is normalised on a log scale

    Raises `MetabenchError` if floor and ceiling leave nothing to scale, or episode numbers differ.
    """

    name: str
    floor: float
    ceiling: float
    methods: Mapping[str, np.ndarray]
    metric: str = "accuracy"

    def __post_init__(self) -> None:
        errors = self.metric == "squared error"
        sound = math.isfinite(self.floor) and math.isfinite(self.ceiling) and self.floor != self.ceiling
        if not sound or (errors and min(self.floor, self.ceiling) <= 0):
            raise MetabenchError(f"{self.name}: no scale between {self.floor} and {self.ceiling}")
        checked_methods = {name: checked(values, f"{self.name}, {name}") for name, values in self.methods.items()}
        if len({values.shape[1] for values in checked_methods.values()}) > 1:
            raise MetabenchError(f"{self.name}: the methods have different numbers of episodes")
        object.__setattr__(self, "methods", checked_methods)

    @property
    def episodes(self) -> int:
        return int(next(iter(self.methods.values())).shape[1])

    @property
    def seeds(self) -> int:
        return max(len(values) for values in self.methods.values())

    def normalised(self, means: np.ndarray) -> np.ndarray:
        """Mean scores with the floor at 0 and the ceiling at 1; mean squared errors on a log scale."""
        if self.metric != "squared error":
            return (means - self.floor) / (self.ceiling - self.floor)
        with np.errstate(divide="ignore"):
            return (np.log(means) - math.log(self.floor)) / (math.log(self.ceiling) - math.log(self.floor))


@dataclass(frozen=True, eq=False)
class Aggregate:
    """Results across the tasks and methods that take part.

    missing: for the other methods, the tasks they lack
    scope: "models" (other episodes) or "methods" (other seeds too)
    profile: columns method, score, share, low, high: the share of runs (seeds, averaged over tasks) above a normalised
        score, and a pointwise interval
    """

    tasks: tuple[str, ...]
    methods: tuple[str, ...]
    missing: Mapping[str, tuple[str, ...]]
    scope: str
    interquartile_means: Mapping[str, Interval]
    profile: pd.DataFrame


def aggregate(
    tasks: Sequence[TaskScores], *, level: float = 0.95, resamples: int = RESAMPLES, points: int = 101
) -> Aggregate:
    """Aggregate over tasks, with intervals from a bootstrap stratified by task.

    level: confidence level; points: grid points of the profile.

    Each resample redraws the episodes of each task, the same for every seed and method. If every task has
    `SEEDS_FOR_METHODS` seeds, it redraws seeds too. Raises `MetabenchError` if no method has every task."""
    import pandas as pd

    if not tasks:
        raise MetabenchError("no task has a floor and a ceiling to aggregate over")
    everyone = list(dict.fromkeys(name for task in tasks for name in task.methods))
    lacks = {name: tuple(task.name for task in tasks if name not in task.methods) for name in everyone}
    missing = {name: which for name, which in lacks.items() if which}
    methods = tuple(name for name in everyone if name not in missing)
    if not methods:
        said = "; ".join(f"{name} lacks {', '.join(names)}" for name, names in missing.items())
        raise MetabenchError(f"no method has a result on every task: {said}")
    scope = "methods" if min(task.seeds for task in tasks) >= SEEDS_FOR_METHODS else "models"
    grid, ends = np.linspace(0.0, 1.0, points), [0.5 - level / 2, 0.5 + level / 2]
    means, rows = {}, []
    resampled = [_resampled(task, methods, resamples, scope == "methods") for task in tasks]
    known = all(task.episodes > 1 for task in tasks)
    for name in methods:
        runs = [task.normalised(task.methods[name].mean(axis=1))[None] for task in tasks]
        drawn = [by_method[name] for by_method in resampled]
        centre = float(interquartile_mean(np.hstack(runs))[0])
        low, high = np.quantile(interquartile_mean(np.hstack(drawn)), ends) if known else (math.nan, math.nan)
        means[name] = Interval(centre, float(low), float(high), level, scope)
        share, (low, high) = _above(runs, grid)[0], np.quantile(_above(drawn, grid), ends, axis=0)
        rows.append(pd.DataFrame({"method": name, "score": grid, "share": share, "low": low, "high": high}))
    profile = pd.concat(rows, ignore_index=True)
    return Aggregate(tuple(task.name for task in tasks), methods, missing, scope, means, profile)


def interquartile_mean(values: np.ndarray) -> np.ndarray:
    """Mean without the lowest and highest quarter, ``[..., n]`` to ``[...]``.

    As in `scipy.stats.trim_mean`, n // 4 values are dropped at either end."""
    count = values.shape[-1]
    cut = count // 4
    return np.asarray(np.sort(values, axis=-1)[..., cut : count - cut].mean(axis=-1))


def _above(runs: Sequence[np.ndarray], grid: np.ndarray) -> np.ndarray:
    """Share of runs ``[resamples, seeds]`` above each grid point, averaged over tasks: ``[resamples, points]``."""
    width, shares = len(grid) + 1, 0.0
    for seeds in sorted({task.shape[1] for task in runs}):
        alike = np.hstack([task for task in runs if task.shape[1] == seeds])
        # a run above k grid points is above the first k: count runs by k, then sum from the far end
        places = np.searchsorted(grid, alike, side="left") + width * np.arange(len(alike))[:, None]
        counts = np.bincount(places.reshape(-1), minlength=len(alike) * width).reshape(-1, width)
        shares = shares + counts[:, :0:-1].cumsum(axis=1)[:, ::-1] / (seeds * len(runs))
    return np.asarray(shares)


def _resampled(task: TaskScores, methods: Sequence[str], resamples: int, seeds_too: bool) -> dict[str, np.ndarray]:
    """Normalised mean scores of each method's seeds, ``[resamples, seeds]``."""
    parts = [
        {name: counts @ task.methods[name].T / task.episodes for name in methods}
        for counts in _episode_counts(task, resamples)
    ]
    means = {name: task.normalised(np.concatenate([part[name] for part in parts])) for name in methods}
    if not seeds_too:
        return means
    # drawn by task, not by method: seeds are paired
    key = sampling.stream("bootstrap", task.name, "seeds")
    numbers = {values.shape[1] for values in means.values()}
    chosen = {seeds: sampling.integers(key, np.arange(resamples), seeds, seeds) for seeds in numbers}
    return {name: np.take_along_axis(values, chosen[values.shape[1]], axis=1) for name, values in means.items()}


def _episode_counts(task: TaskScores, resamples: int) -> Iterator[np.ndarray]:
    """Counts of each episode in the resamples, in chunks ``[resamples of the chunk, episodes]``."""
    count = task.episodes
    key, at_once = sampling.stream("bootstrap", task.name, "episodes"), max(1, _CHUNK // count)
    for first in range(0, resamples, at_once):
        rows = np.arange(first, min(first + at_once, resamples))
        drawn = sampling.integers(key, rows, count, count) + (rows - first)[:, None] * count
        yield np.bincount(drawn.reshape(-1), minlength=len(rows) * count).reshape(len(rows), count).astype(np.float64)
