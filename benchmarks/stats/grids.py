"""Scores as a store holds them (a row per step, episode and query) laid out by episode and query.

A page reads a thousand of these tables, so they are numpy arrays: a data frame for each costs more than its scores."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
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


def shared(some: Sequence[np.ndarray]) -> np.ndarray:
    """The numbers, ascending and each once, that all of these have."""
    first, *others = some
    if all(np.array_equal(first, one) for one in others):
        return first
    return functools.reduce(functools.partial(np.intersect1d, assume_unique=True), some)


def beside(grids: Sequence[Grid]) -> Grid:
    """Several, one per seed, over the episodes that all have: values ``[seeds, episodes, queries]`` as floats."""
    episodes = shared([one.episodes for one in grids])
    values = [one.values if len(one.episodes) == len(episodes) else one.of(episodes) for one in grids]
    return Grid(episodes, np.stack(values, dtype=np.float64))


@dataclass(frozen=True, eq=False)
class StepMeans(Mapping[int, tuple[np.ndarray, np.ndarray]]):
    """Inner step -> the numbers of its episodes and the mean score of each; few arrays, so that those of a thousand
    records go to another process at once.

    episodes, means: of all steps, one after another. places: step -> where its own begin and end."""

    episodes: np.ndarray
    means: np.ndarray
    places: Mapping[int, tuple[int, int]]

    def __getitem__(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        here = slice(*self.places[step])
        return self.episodes[here], self.means[here]

    def __iter__(self) -> Iterator[int]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)


def episode_means(scores: Columns) -> StepMeans:
    """The mean score of each episode over its queries at every step, from all scores."""
    steps, episodes = scores["step"].astype(np.int64), scores["episode"].astype(np.int64)
    if not len(steps):
        return StepMeans(episodes, np.empty(0), {})
    width = int(episodes.max()) + 1
    code = steps * width + episodes
    counts = np.bincount(code)
    present = np.flatnonzero(counts)
    means = np.bincount(code, weights=scores["score"])[present] / counts[present]
    step, episode = np.divmod(present, width)
    starts = np.flatnonzero(np.diff(step, prepend=-1)).tolist()
    ends = [*starts[1:], len(present)]
    places = {int(step[start]): (start, end) for start, end in zip(starts, ends, strict=True)}
    return StepMeans(episode, means, places)
