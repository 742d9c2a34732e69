"""Scores as a store holds them (a row per step, episode and query) laid out by episode and query.

A page reads a thousand of these tables, so they are numpy arrays: a data frame for each costs more than its scores."""

from __future__ import annotations

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
    if whole := _queries_each(episodes, queries):  # the common case
        return Grid(episodes[::whole], values.reshape(-1, whole))
    order = episodes.astype(np.int64) * (int(queries.max()) + 1) + queries
    if (order[1:] < order[:-1]).any():  # stores are sorted
        sorted_ = np.argsort(order, kind="stable")
        episodes, values = episodes[sorted_], values[sorted_]
    starts = np.flatnonzero(np.concatenate([[True], episodes[1:] != episodes[:-1]]))
    counts = np.diff(starts, append=len(episodes))
    if (counts != counts[0]).any():
        return None
    return Grid(episodes[starts], values.reshape(len(starts), counts[0]))


def _queries_each(rows: np.ndarray, queries: np.ndarray) -> int:
    """How many rows each episode has where they are sorted and all have as many, numbered from 0; else 0. rows: the
    numbers of episodes, or of steps and episodes together."""
    count = int(queries[-1]) + 1
    if count < 1 or len(rows) % count:
        return 0
    table = rows.reshape(-1, count)
    numbers = table[:, 0]
    good = (table == numbers[:, None]).all() and (numbers[1:] > numbers[:-1]).all()
    return count if good and (queries.reshape(-1, count) == np.arange(count)).all() else 0


def beside(grids: Sequence[Grid]) -> Grid:
    """Several, one per seed, over the episodes that all have: values ``[seeds, episodes, queries]`` as floats."""
    shared = grids[0].episodes
    if all(np.array_equal(shared, one.episodes) for one in grids[1:]):
        return Grid(shared, np.stack([one.values for one in grids], dtype=np.float64))
    for one in grids[1:]:
        shared = np.intersect1d(shared, one.episodes, assume_unique=True)
    return Grid(shared, np.stack([one.of(shared) for one in grids], dtype=np.float64))


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
    if whole := _queries_each(code, scores["query"]):
        present, means = code[::whole], scores["score"].reshape(-1, whole).mean(axis=1, dtype=np.float64)
    else:
        counts = np.bincount(code)
        present = np.flatnonzero(counts)
        means = np.bincount(code, weights=scores["score"])[present] / counts[present]
    step, episode = np.divmod(present, width)
    starts = np.flatnonzero(np.diff(step, prepend=-1)).tolist()
    ends = [*starts[1:], len(present)]
    places = {int(step[start]): (start, end) for start, end in zip(starts, ends, strict=True)}
    return StepMeans(episode, means, places)
