"""Scores of a test as they are recorded: a summary in the header, and a table of all of them beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

#: two-sided 95 % of the normal distribution
Z95 = 1.959963984540054


def summary(
    scores: Mapping[int, np.ndarray], environment_steps: Mapping[int, int] | None = None
) -> list[dict[str, Any]]:
    """Mean, standard error and 95 % half-width over episodes for each number of steps; an episode's score is the mean
    over its queries.

    environment_steps: how many the learner has seen of all episodes together until then; a row has those per task."""
    rows = []
    for step, values in sorted(scores.items()):
        episodes = values.astype(np.float64).mean(1)
        deviation = float(episodes.std(ddof=1)) if len(episodes) > 1 else math.nan
        error = deviation / math.sqrt(len(episodes))
        numbers = {"mean": float(episodes.mean()), "standard_error": error, "half_width": Z95 * error}
        row = {"step": step, **numbers, "episodes": len(episodes), "deviation": deviation}
        if environment_steps is not None and step in environment_steps:
            row["environment_steps"] = environment_steps[step] / len(episodes)
        rows.append(row)
    return rows


def score_table(scores: Mapping[int, np.ndarray], metric: str) -> dict[str, np.ndarray]:
    """By column, one row per (inner step, episode, query)."""
    parts = []
    for step, values in sorted(scores.items()):
        count, queries = values.shape
        parts.append(
            {
                "step": np.full(values.size, step, dtype=np.int16),
                "episode": np.repeat(np.arange(count, dtype=np.int32), queries),
                "query": np.tile(np.arange(queries, dtype=np.int16), count),
                "score": values.reshape(-1).astype(bool if metric == "accuracy" else np.float32),
            }
        )
    return {name: np.concatenate([part[name] for part in parts]) for name in ("step", "episode", "query", "score")}


def episode_table(items: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """By column, one row per (episode, query): class and item; items: ``[episodes, queries]`` of both."""
    count, queries = items["classes"].shape
    return {
        "episode": np.repeat(np.arange(count, dtype=np.int32), queries),
        "query": np.tile(np.arange(queries, dtype=np.int16), count),
        "class": items["classes"].reshape(-1).astype(np.int32),
        "item": items["items"].reshape(-1).astype(np.int32),
    }
