"""Scores as a store holds them (a row per step, episode and query) laid out by episode and query.

A page reads a thousand of these tables, so they are numpy arrays: a data frame for each costs more than its scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

#: columns step, episode, query, score
Columns = Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Grid:
    """A value per episode and query.

    episodes: their numbers, ascending, ``[episodes]``. values: ``[episodes, queries]``."""

    episodes: np.ndarray
    values: np.ndarray

    def of(self, episodes: np.ndarray) -> np.ndarray:
        """The values of these episodes, all of which it has."""
        return self.values[np.searchsorted(self.episodes, episodes)]


def headline(record: Mapping[str, Any], scores: Columns | None, step: int | None = None) -> Grid | None:
    """The scores at the headline step (or another); None without any."""
    if scores is None:
        return None
    chosen = scores["step"] == (record["evaluation"]["headline_step"] if step is None else step)
    return grid(*(scores[name][chosen] for name in ("episode", "query", "score")))


def grid(episodes: np.ndarray, queries: np.ndarray, values: np.ndarray) -> Grid | None:
    """From columns; None where there is no row, and where episodes differ in their number of queries."""
    if not len(episodes):
        return None
    order = episodes.astype(np.int64) * (int(queries.max()) + 1) + queries
    if (order[1:] < order[:-1]).any():  # stores are sorted
        sorted_ = np.argsort(order, kind="stable")
        episodes, values = episodes[sorted_], values[sorted_]
    starts = np.flatnonzero(np.concatenate([[True], episodes[1:] != episodes[:-1]]))
    counts = np.diff(starts, append=len(episodes))
    if (counts != counts[0]).any():
        return None
    return Grid(episodes[starts], values.reshape(len(starts), counts[0]))


def beside(grids: Sequence[Grid]) -> Grid:
    """Several, one per seed, over the episodes that all have: values ``[seeds, episodes, queries]`` as floats."""
    shared = grids[0].episodes
    if all(np.array_equal(shared, one.episodes) for one in grids[1:]):
        return Grid(shared, np.stack([one.values for one in grids], dtype=np.float64))
    for one in grids[1:]:
        shared = np.intersect1d(shared, one.episodes, assume_unique=True)
    return Grid(shared, np.stack([one.of(shared) for one in grids], dtype=np.float64))


def episode_means(scores: Columns) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Inner step -> the numbers of its episodes and the mean score of each over its queries, from all scores."""
    steps, episodes = scores["step"].astype(np.int64), scores["episode"].astype(np.int64)
    if not len(steps):
        return {}
    width = int(episodes.max()) + 1
    code = steps * width + episodes
    counts = np.bincount(code)
    present = np.flatnonzero(counts)
    means = np.bincount(code, weights=scores["score"])[present] / counts[present]
    step, episode = np.divmod(present, width)
    starts = np.flatnonzero(np.diff(step, prepend=-1))
    ends = [*starts[1:], len(present)]
    return {int(step[i]): (episode[i:j], means[i:j]) for i, j in zip(starts, ends, strict=True)}
