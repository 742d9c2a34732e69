"""From records to results: one result is one number of the tables, a method under one protocol with all its seeds."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.errors import MetabenchError
from reports.intervals import Interval, mean_interval

Record = Mapping[str, Any]

#: kinds of cells that the tables of scores are about; costs have tables of their own
SCORED = ("fit", "evaluation")

#: batch-norm regimes in the order of the tables
REGIMES = ("query", "support", "single", "running", "none")


@dataclass(frozen=True, order=True)
class Column:
    """What numbers of one column have in common: test task, data, examples per class and batch-norm regime.

    Numbers of two columns are never compared with each other, except that a predictor without batch-norm (regime
    ``none``) depends on nobody's statistics and may stand beside any regime of the same test (`test`)."""

    task: str
    data: str
    way: int
    shots: int
    queries: int
    split: str
    regime: str

    @property
    def test(self) -> tuple[Any, ...]:
        """Everything but the regime."""
        return self.task, self.data, self.way, self.shots, self.queries, self.split


@dataclass(frozen=True)
class Result:
    """A method under one protocol: the evaluations of all its seeds, and their scores per episode and inner step."""

    name: str
    label: str
    column: Column
    records: tuple[Record, ...]
    #: per seed: inner step -> score by episode
    scores: tuple[dict[int, pd.Series], ...] = field(repr=False, compare=False)

    @property
    def first(self) -> Record:
        """The evaluation of the lowest seed: it stands for what all seeds share."""
        return self.records[0]

    @property
    def metric(self) -> str:
        return str(self.first["task"]["metric"])

    @property
    def higher_is_better(self) -> bool:
        return bool(self.first["task"]["higher_is_better"])

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(int(record["seed"]) for record in self.records)

    @property
    def training(self) -> list[Mapping[str, Any]]:
        """How each seed was fitted; empty for a method without a fit."""
        return [record["training"] for record in self.records if record.get("training")]

    @property
    def under_trained(self) -> bool:
        """Whether any seed stopped well short of the published budget or was still improving."""
        return any(training.get("under_trained") for training in self.training)

    @property
    def ceiling(self) -> bool:
        """Whether it is told what no learner is told (an oracle): shown, never ranked."""
        return role(self.first) == "ceiling"

    @property
    def headline_steps(self) -> list[int]:
        return [int(record["evaluation"]["headline_step"]) for record in self.records]

    @cached_property
    def by_step(self) -> dict[int, pd.DataFrame]:
        """Inner step -> score per episode (rows) and seed (columns), for the episodes that every seed has."""
        steps = sorted(set.intersection(*(set(scores) for scores in self.scores)))
        return {step: _beside([scores[step] for scores in self.scores]) for step in steps}

    @cached_property
    def headline(self) -> pd.Series:
        """Score per episode at the headline step, averaged over seeds."""
        seeds = [scores[step] for scores, step in zip(self.scores, self.headline_steps, strict=True)]
        return _beside(seeds).mean(axis=1, skipna=False)

    @cached_property
    def interval(self) -> Interval:
        """Mean over episodes of `headline`, with its 95 % interval."""
        return mean_interval(self.headline.to_numpy())

    def curve(self, episodes: pd.Index) -> pd.DataFrame:
        """Mean and half-width at each inner step over those of ``episodes`` that it has: step, mean, half_width."""
        rows = []
        for step, frame in self.by_step.items():
            interval = mean_interval(frame.to_numpy()[frame.index.isin(episodes)].mean(axis=1))
            rows.append((step, interval.mean, interval.half_width))
        return pd.DataFrame(rows, columns=["step", "mean", "half_width"])


@dataclass
class Results:
    """All that the records of one or several stores say."""

    records: list[Record]
    stores: list[Path]
    scores: Callable[[Record], pd.DataFrame | None]
    arrays: Callable[[Record], Mapping[str, np.ndarray] | None]
    #: lists that grow, a line per file of a store that could not be read
    complaints: list[list[str]] = field(default_factory=lambda: [[]])

    @cached_property
    def results(self) -> list[Result]:
        """One per number, sorted by column and then best first."""
        evaluations = [record for record in self.records if record["cell"] == "evaluation" and record["status"] == "ok"]
        # reading parquet files waits and computes outside the interpreter's lock
        with ThreadPoolExecutor(4) as pool:
            scores = dict(
                zip((r["key"] for r in evaluations), pool.map(self._episode_scores, evaluations), strict=True)
            )
        readable = [record for record in evaluations if self._readable(record, scores[record["key"]])]
        return sorted(_group(readable, scores), key=_order)

    def _episode_scores(self, record: Record) -> dict[int, pd.Series]:
        frame = self.scores(record)
        return {} if frame is None else episode_scores(frame)

    def _readable(self, record: Record, scores: dict[int, pd.Series]) -> bool:
        step = int(record["evaluation"]["headline_step"])
        if step not in scores:
            self.complaints[0].append(f"record {record['key']} ({record['label']}) has no scores at its step {step}")
        return step in scores

    @property
    def problems(self) -> list[str]:
        """One line per file that could not be read; complete once `results` is there."""
        return [line for lines in self.complaints for line in lines]

    @property
    def columns(self) -> list[Column]:
        """The columns in the order of the tables."""
        return list(dict.fromkeys(result.column for result in self.results))

    @property
    def labels(self) -> list[str]:
        """The method labels, those without a number included, in alphabetical order."""
        return sorted({str(record["label"]) for record in self.records})

    @property
    def unfinished(self) -> list[Record]:
        """The records of cells that were skipped or failed."""
        return [record for record in self.records if record["status"] != "ok"]


def load(paths: Path | str | Iterable[Path | str]) -> Results:
    """The records of one store or several; raises `MetabenchError` where there are none."""
    from benchmarks.store import Store

    folders = [Path(paths)] if isinstance(paths, (str, Path)) else [Path(path) for path in paths]
    records: dict[str, Record] = {}
    stores: dict[str, Any] = {}
    opened = []
    for folder in folders:
        if not folder.is_dir():
            raise MetabenchError(f"no store at {folder}: run `metabench run` first, or name another with --store")
        store = Store(folder)
        opened.append(store)
        for record in store.records():
            if record["cell"] not in SCORED:
                continue
            records.setdefault(record["key"], record)
            stores.setdefault(record["key"], store)
    if not records:
        damaged = sum(len(store.problems) for store in opened)
        hint = f"{damaged} files can't be read" if damaged else "run `metabench run` first"
        raise MetabenchError(f"no records in {', '.join(map(str, folders))}: {hint}")
    ordered = sorted(records.values(), key=lambda record: (str(record.get("started")), record["key"]))
    return Results(
        ordered,
        folders,
        scores=lambda record: stores[record["key"]].scores(record["key"]),
        arrays=lambda record: stores[record["key"]].arrays(record["key"]),
        complaints=[[], *(store.problems for store in opened)],
    )


def episode_scores(scores: pd.DataFrame) -> dict[int, pd.Series]:
    """Inner step -> mean score over the queries of each episode, from a frame with step, episode, query, score."""
    if scores.empty:
        return {}
    steps, episodes = scores["step"].to_numpy().astype(np.int64), scores["episode"].to_numpy().astype(np.int64)
    values = scores["score"].to_numpy().astype(np.float64)
    width = int(episodes.max()) + 1
    code = steps * width + episodes
    counts = np.bincount(code)
    present = np.flatnonzero(counts)
    means = np.bincount(code, weights=values)[present] / counts[present]
    frame = pd.Series(means, index=present % width)
    boundaries = np.flatnonzero(np.diff(present // width)) + 1
    first = np.concatenate([[0], boundaries, [len(present)]])
    return {int(present[start] // width): frame.iloc[start:stop] for start, stop in itertools.pairwise(first)}


def _beside(seeds: Sequence[pd.Series]) -> pd.DataFrame:
    """Scores of several seeds as columns, for the episodes that all have."""
    index = seeds[0].index
    if all(index.equals(scores.index) for scores in seeds[1:]):
        return pd.DataFrame(np.column_stack([scores.to_numpy() for scores in seeds]), index=index)
    return pd.concat(seeds, axis=1, join="inner")


def role(record: Record) -> str:
    """What a method is in a comparison: "ceiling" or "floor" if its facts say so, else "method"."""
    return str((record["method"].get("facts") or {}).get("role") or "method")


def column_of(record: Record) -> Column:
    """The column of the main table that an evaluation belongs to."""
    evaluation, task = record["evaluation"], record["task"]
    return Column(
        task=str(evaluation.get("task_id") or task["id"]),
        data=str(task.get("data") or ""),
        way=int(evaluation.get("way") or 0),
        shots=int(evaluation.get("shots") or 0),
        queries=int(evaluation.get("queries") or 0),
        split=str(evaluation.get("split") or "test"),
        regime=str(evaluation.get("regime") or "none"),
    )


def _group(records: Iterable[Record], scores: Mapping[str, dict[int, pd.Series]]) -> list[Result]:
    """Evaluations that differ in the seed only become one result; the newest counts where a seed is there twice."""
    groups: dict[str, dict[int, Record]] = {}
    for record in records:
        groups.setdefault(_protocol(record), {})[int(record["seed"])] = record
    members = [tuple(group[seed] for seed in sorted(group)) for group in groups.values()]
    names = _names(members)
    return [
        Result(
            name, str(group[0]["label"]), column_of(group[0]), group, tuple(scores[record["key"]] for record in group)
        )
        for name, group in zip(names, members, strict=True)
    ]


def _protocol(record: Record) -> str:
    """All that decides a number except the seed, as a string."""
    evaluation = {
        name: value
        for name, value in record["evaluation"].items()
        if name not in ("chosen", "seconds_per_task", "headline_step", "reported_steps", "trials")
    }
    method = {name: record["method"].get(name) for name in ("name", "fields")}
    parts = [record["label"], method, record["task"], record.get("budget"), evaluation]
    return json.dumps(parts, sort_keys=True, default=str)


def _names(groups: Sequence[Sequence[Record]]) -> list[str]:
    """A row name for each group: its label, and what tells it apart where a label stands twice in one column."""
    names = [str(group[0]["label"]) for group in groups]
    for describe in (_profile, _budget, _episodes, lambda record: str(record["key"])[:6]):
        places = [(name, column_of(group[0])) for name, group in zip(names, groups, strict=True)]
        crowded = {place for place, count in Counter(places).items() if count > 1}
        if not crowded:
            break
        for place in crowded:
            members = [index for index, other in enumerate(places) if other == place]
            additions = [describe(groups[index][0]) for index in members]
            if len(set(additions)) > 1:
                for index, addition in zip(members, additions, strict=True):
                    names[index] = f"{names[index]} ({addition})"
    return names


def _profile(record: Record) -> str:
    return f"{record.get('profile')} profile"


def _budget(record: Record) -> str:
    return f"{(record.get('budget') or {}).get('meta_steps')} meta-steps"


def _episodes(record: Record) -> str:
    return f"{record['evaluation'].get('episodes')} episodes"


def _order(result: Result) -> tuple[Any, ...]:
    column, mean = result.column, result.interval.mean
    worth = -np.inf if np.isnan(mean) else mean if result.higher_is_better else -mean
    return column.test, REGIMES.index(column.regime) if column.regime in REGIMES else len(REGIMES), -worth, result.name
