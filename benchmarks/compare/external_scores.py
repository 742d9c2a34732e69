"""Somebody else's scores on our test episodes: a parquet file with one row per query, checked before it is believed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.compare.episode_lists import export_episodes
from benchmarks.errors import MetabenchError, Unavailable
from benchmarks.records.formats import episodes_digest as digest_of
from benchmarks.records.record import Method, Tested
from benchmarks.records.store import Store
from benchmarks.stats import Column, Row

#: what the table must have, and what it may have
FOREIGN = ("task", "episodes_digest", "episode", "query", "score")
FOREIGN_ALSO = ("method", "seed", "shots", "regime")


def read(path: Path) -> pd.DataFrame:
    """The scores, with columns method (the name of the file, if there is none) and seed added where missing."""
    if not path.is_file():
        raise MetabenchError(f"{path} is no parquet file: name one with scores, or a second method, commit or store")
    try:
        frame = pd.read_parquet(path)
    except Exception as error:  # pyarrow has many kinds of error for a file that is none of its own
        raise MetabenchError(f"{path} can't be read as parquet: {type(error).__name__}") from None
    frame = frame.reset_index(
        [name for name in frame.index.names if name in FOREIGN + FOREIGN_ALSO and name not in frame]
    )
    missing = [name for name in FOREIGN if name not in frame]
    if missing:
        known = f"needed: {', '.join(FOREIGN)}; it may have {', '.join(FOREIGN_ALSO)}"
        raise MetabenchError(f"{path} has no columns {', '.join(missing)}; {known}")
    for name in (*FOREIGN, *FOREIGN_ALSO):
        if name in frame and frame[name].dtype == object and not frame[name].map(pd.api.types.is_hashable).all():
            raise MetabenchError(f"{path}: {name} holds lists or tables, not single values")
    if "role" in frame:  # an exported list with scores added: nothing is asked about a support example
        frame = frame[frame["role"] != "support"]
    if frame.empty:
        raise MetabenchError(f"{path} has no scores")
    for name in (*FOREIGN[:-1], *FOREIGN_ALSO):
        if name in frame and frame[name].isna().any():
            raise MetabenchError(f"{path}: {int(frame[name].isna().sum())} rows have no {name}")
    frame = frame.assign(score=pd.to_numeric(frame["score"].astype(object), errors="coerce").astype(float))
    if not np.isfinite(frame["score"]).all():
        raise MetabenchError(f"{path}: {int((~np.isfinite(frame['score'])).sum())} scores are not numbers")
    if "shots" in frame:
        shots = pd.to_numeric(frame["shots"].astype(object), errors="coerce").astype(float)
        if odd := frame["shots"][~(np.isfinite(shots) & (shots == shots.round()))].tolist():
            raise MetabenchError(f"{path}: shots {odd[0]!r} are not whole numbers")
    frame["method"] = frame["method"].astype(str) if "method" in frame else path.stem
    frame["seed"] = frame.get("seed", 0)
    return frame


def methods(frame: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Task, method and scores, for each method under each of the conditions that the table tells apart."""
    conditions = [name for name in ("shots", "regime") if name in frame]
    for (task, method, *_), theirs in frame.groupby(["task", "method", *conditions], sort=True):
        yield str(task), str(method), theirs


def fits(column: Column, theirs: pd.DataFrame) -> bool:
    """Whether the column is of their shots (or the task's own) and of their regime (or any)."""
    shots = theirs["shots"].iloc[0] if "shots" in theirs else column.task.shot
    same_shots = shots is None or int(shots) == column.protocol.shots
    regime = str(theirs["regime"].iloc[0]) if "regime" in theirs else "none"
    return same_shots and (regime == column.protocol.regime or "none" in (regime, column.protocol.regime))


def row_of(path: Path, method: str, theirs: pd.DataFrame, column: Column, store: Store) -> Row:
    """Their scores as a row, averaged over their seeds; raises `MetabenchError` where they are not of our episodes."""
    where = f"{path}, {method} on {column.protocol.task}"
    digests = theirs["episodes_digest"].unique()
    episodes = np.unique(theirs["episode"].to_numpy())
    if len(digests) != 1 or not np.array_equal(episodes, np.arange(len(episodes))):
        raise MetabenchError(f"{where}: one episodes_digest and the episodes from 0 on without gaps are expected")
    expected = _expected_digest(column, len(episodes), store)
    if digests[0] != expected:
        raise MetabenchError(
            f"{where}: episodes_digest {digests[0]} is not that of our first {len(episodes)}: {expected}"
        )
    test = column.protocol
    kept = column.rows[0].values.shape[2]
    queries = kept if kept > 1 else (test.way or 1) * test.queries  # a thinned copy has episodes alone
    tables = []
    for seed, part in theirs.groupby("seed"):
        ordered = part.sort_values(["episode", "query"])
        grid = [np.repeat(episodes, queries), np.tile(np.arange(queries), len(episodes))]
        if len(ordered) != len(grid[0]) or (ordered[["episode", "query"]].to_numpy() != np.stack(grid, axis=1)).any():
            raise MetabenchError(
                f"{where}, seed {seed}: one score for each of {queries} queries per episode is expected"
            )
        tables.append(ordered["score"].to_numpy().reshape(len(episodes), queries))
    values = np.mean(tables, axis=0)[None]
    if column.metric == "accuracy" and not np.isin(np.stack(tables), (0.0, 1.0)).all():
        raise MetabenchError(f"{where}: scores are 1 or 0, right or wrong, for each query")
    ours = column.rows[0].first
    record = dataclasses.replace(ours.record, label=method, method=Method(method, {}), seed=None, training=None)
    return Row(method, (Tested(record, ours.test),), values)


def _expected_digest(column: Column, episodes: int, store: Store) -> str:
    """The digest of our first ``episodes`` episodes, from the store or (for tasks without items) cut again."""
    fewest = min(len(row.episodes) for row in column.learners) if column.learners else 0
    if episodes > fewest:
        raise MetabenchError(f"{column.protocol}: {episodes} episodes are scored, ours are {fewest}")
    known = next((d for row in column.rows if (d := row.first.conditions.episodes_digest)), None)
    found = store.episodes(known) if known else None
    if found is not None:
        return digest_of({name: values[:episodes] for name, values in found.items()})
    try:
        if "[" in column.protocol.task:
            raise Unavailable("its fields differ from those of the variant")
        return str(export_episodes(column.protocol.task, episodes)["episodes_digest"].iloc[0])
    except Unavailable as reason:
        raise MetabenchError(f"episodes of {column.protocol.task} can't be cut again: {reason}") from None


def cut(row: Row, episodes: np.ndarray) -> Row:
    """Our row on these episodes, averaged over seeds, as theirs is."""
    return Row(row.name, row.tested[:1], row.on(episodes).mean(axis=0)[None])
