"""From records to the columns that are compared: one column holds what may stand beside each other in pairs.

A column is one test: task, data, way, shots, queries, split, batch-norm regime, and whether the model that was best on
validation episodes is tested or the last one. A predictor without batch-norm
(regime ``none``) depends on nobody's statistics and stands in every column of its test. Floor and ceiling stand beside
the learners and are not compared with them.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from benchmarks.errors import MetabenchError
from benchmarks.records.under_training import under_trained
from benchmarks.stats.aggregate import TaskScores
from benchmarks.stats.classes import Membership, clusters_by_item
from benchmarks.stats.contrasts import Contrast, Interval
from benchmarks.stats.grids import Grid, beside, grid, headline, shared
from benchmarks.stats.verdicts import Comparison, Scores, compare

if TYPE_CHECKING:
    import pandas as pd

Record = Mapping[str, Any]

#: parts of an evaluation that tell what came out of it and not how it was made
_OUTCOMES = ("chosen", "same_as", "seconds_per_task", "headline_step", "reported_steps", "trials")


class Source(Protocol):
    """Where scores and episodes are read from: a store."""

    def score_columns(self, key: str) -> Mapping[str, np.ndarray] | None: ...

    def episodes(self, digest: str) -> pd.DataFrame | None: ...


@dataclass(frozen=True, order=True)
class TestProtocol:
    """What the numbers of a column have in common."""

    task: str
    data: str
    way: int
    shots: int
    queries: int
    split: str
    regime: str
    model: str = "best"

    @property
    def test(self) -> tuple[Any, ...]:
        """Everything but the regime."""
        return self.task, self.data, self.way, self.shots, self.queries, self.split, self.model

    def __str__(self) -> str:
        last = ", last model" if self.model == "last" else ""
        return f"{self.task} ({self.shots}-shot test, batch-norm: {self.regime}{last})"


@dataclass(frozen=True, eq=False)
class Row:
    """A method under one protocol with all its seeds.

    values: the score of every query at the headline step, ``[seeds, episodes, queries]``, for the episodes (numbers,
    ``[episodes]``) that every seed has."""

    name: str
    records: tuple[Record, ...]
    values: np.ndarray
    episodes: np.ndarray

    @property
    def first(self) -> Record:
        return self.records[0]

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(int(record["seed"]) for record in self.records)

    @property
    def trained(self) -> bool:
        return any(record.get("training") for record in self.records)

    @property
    def under_trained(self) -> bool:
        return any(under_trained(record.get("training")) for record in self.records)

    @property
    def own(self) -> bool:
        """Whether the test is of the task that the row was trained for, with as many shots: no further condition."""
        evaluation, task = self.first["evaluation"], self.first["task"]
        shot = (task.get("fields") or {}).get("shot")
        trained_on = evaluation.get("trained_on") or evaluation.get("task_id")
        same_shots = shot is None or evaluation.get("shots") in (shot, None)
        return evaluation.get("task_id") == trained_on and same_shots and protocol_of(self.first).model == "best"

    @property
    def interval(self) -> Interval:
        """The mean over seeds and episodes, with its 95 % interval over episodes ("models")."""
        return Contrast(self.values.mean(axis=2)).interval("models")

    @property
    def role(self) -> str:
        """ "learner", "floor" or "ceiling"."""
        return str((self.first["method"].get("facts") or {}).get("role") or "learner")

    def on(self, episodes: np.ndarray) -> np.ndarray:
        """The scores of these episodes, ``[seeds, episodes, queries]``."""
        return self.values[:, np.searchsorted(self.episodes, episodes)]

    def scores(self, episodes: np.ndarray) -> Scores:
        """Episode means, as `compare` takes them."""
        return Scores(self.on(episodes).mean(axis=2), self.seeds, self.trained, self.under_trained)


@dataclass(frozen=True, eq=False)
class Column:
    """The rows that may stand beside each other, over the test episodes that all of them have."""

    protocol: TestProtocol
    rows: tuple[Row, ...]
    table: Callable[[str], pd.DataFrame | None]

    @property
    def task(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.rows[0].first["task"]
        return found

    @property
    def metric(self) -> str:
        return str(self.task["metric"])

    @property
    def higher_is_better(self) -> bool:
        return bool(self.task["higher_is_better"])

    @property
    def margin(self) -> float:
        return float(self.task["equivalence_margin"])

    @cached_property
    def episodes(self) -> np.ndarray:
        """The numbers of the episodes that every row has."""
        found = shared([row.episodes for row in self.rows])
        if not len(found):
            raise MetabenchError(f"{self.protocol}: no test episode is shared by all of {', '.join(self.names)}")
        return found

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(row.name for row in self.rows)

    @property
    def learners(self) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row.role not in ("floor", "ceiling"))

    @cached_property
    def membership(self) -> Membership | None:
        """The classes of the shared episodes; None for tasks without."""
        digest = next((d for row in self.rows if (d := row.first["evaluation"].get("episodes_digest"))), None)
        frame = self.table(digest) if digest else None
        if frame is None or not np.isin(self.episodes, frame["episode"]).all():
            return None
        clusters = clusters_by_item(frame["class"].to_numpy(), frame["item"].to_numpy())
        classes = grid(*(frame[name].to_numpy() for name in ("episode", "query", "class")))
        return None if classes is None else Membership(classes.of(self.episodes), clusters)

    def comparison(self, scope: str | None = None) -> Comparison:
        """All learners in pairs."""
        return compare(
            {row.name: row.scores(self.episodes) for row in self.learners},
            metric=self.metric,
            higher_is_better=self.higher_is_better,
            margin=self.margin,
            membership=self.membership,
            scope=scope,
        )


def columns(store: Source, records: Iterable[Record], step: int | None = None) -> list[Column]:
    """All columns of finished evaluations, in the order of their protocols. Damaged scores leave their record out.

    step: the number of inner steps to look at, in place of each record's headline; rows without it are left out."""

    def read(named: tuple[str, tuple[Record, ...]]) -> Row | None:
        name, group = named
        return row_of(name, group, [headline(record, store.score_columns(record["key"]), step) for record in group])

    # reading parquet files waits and computes outside the interpreter's lock
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(read, grouped(records)))
    return arranged([row for row in found if row is not None], store.episodes)


def grouped(records: Iterable[Record]) -> list[tuple[str, tuple[Record, ...]]]:
    """The finished evaluations that make one row, lowest seed first, with the name of the row.

    They differ in the seed only; the newest counts where a seed is there twice."""
    done = [record for record in records if record["cell"] == "evaluation" and record["status"] == "ok"]
    groups: dict[str, dict[int, Record]] = {}
    for record in sorted(done, key=lambda record: (str(record.get("started")), record["key"])):
        groups.setdefault(_identity(record), {})[int(record["seed"])] = record
    members = [tuple(group[seed] for seed in sorted(group)) for group in groups.values()]
    return list(zip(_names(members), members, strict=True))


def arranged(rows: Sequence[Row], table: Callable[[str], pd.DataFrame | None]) -> list[Column]:
    """The columns that these rows stand in, in the order of their protocols."""
    placed = [(protocol_of(row.first), row) for row in rows]
    protocols = sorted({protocol for protocol, _ in placed})
    crowded = {protocol.test for protocol in protocols if protocol.regime != "none"}
    return [
        Column(
            here,
            tuple(row for p, row in placed if _stands_in(row, p, here)),
            table,
        )
        for here in protocols
        if here.regime != "none" or here.test not in crowded
    ]


def _stands_in(row: Row, own: TestProtocol, here: TestProtocol) -> bool:
    """Whether a row may stand in a column: what has no training is its own best and last model."""
    model = own.model if row.trained else here.model
    return own.regime in (here.regime, "none") and dataclasses.replace(own, model=model).test == here.test


def protocol_of(record: Record) -> TestProtocol:
    """The column that an evaluation belongs to."""
    evaluation, task = record["evaluation"], record["task"]
    return TestProtocol(
        task=str(evaluation.get("task_id") or task["id"]),
        data=str(task.get("data") or ""),
        way=int(evaluation.get("way") or 0),
        shots=int(evaluation.get("shots") or 0),
        queries=int(evaluation.get("queries") or 0),
        split=str(evaluation.get("split") or "test"),
        regime=str(evaluation.get("regime") or "none"),
        model=str(evaluation.get("model") or "best"),
    )


def _identity(record: Record) -> str:
    """All that decides a number except the seed."""
    evaluation = {name: value for name, value in record["evaluation"].items() if name not in _OUTCOMES}
    method = {name: record["method"].get(name) for name in ("name", "fields")}
    return json.dumps([record["label"], method, record["task"], record.get("budget"), evaluation], sort_keys=True)


def _names(groups: Sequence[Sequence[Record]]) -> list[str]:
    """A name for each row: its label, and what tells it apart where a label stands twice in one column."""
    names = [str(group[0]["label"]) for group in groups]
    for describe in (_profile, _budget, _trained_on, _episodes, lambda record: str(record["key"])[:6]):
        places = [(name, protocol_of(group[0])) for name, group in zip(names, groups, strict=True)]
        for place in {place for place, count in Counter(places).items() if count > 1}:
            members = [number for number, other in enumerate(places) if other == place]
            additions = [describe(groups[number][0]) for number in members]
            if len(set(additions)) > 1:
                for number, addition in zip(members, additions, strict=True):
                    names[number] = f"{names[number]} ({addition})"
    return names


def _profile(record: Record) -> str:
    return f"{record.get('profile')} profile"


def _budget(record: Record) -> str:
    return f"{(record.get('budget') or {}).get('meta_steps')} meta-steps"


def _trained_on(record: Record) -> str:
    return f"trained on {record['evaluation'].get('trained_on') or record['task']['id']}"


def _episodes(record: Record) -> str:
    return f"{record['evaluation'].get('episodes')} episodes"


def row_of(name: str, group: Sequence[Record], found: Sequence[Grid | None]) -> Row | None:
    """The scores of all seeds (`headline`) beside each other; None where none can be read."""
    grids: list[Grid] = []
    kept: list[Record] = []
    for record, one in zip(group, found, strict=True):
        if one is not None and (not grids or one.values.shape[1] == grids[0].values.shape[1]):
            grids.append(one)
            kept.append(record)
    if not grids:
        return None
    together = beside(grids)
    return Row(name, tuple(kept), together.values, together.episodes)


def task_scores(found: Iterable[Column], regime: str) -> tuple[list[TaskScores], dict[str, str]]:
    """What `aggregate` takes, from the columns of one batch-norm regime (and those without batch-norm), and column ->
    why it can't take part.

    The floor is the mean of the row that is one, or guessing; the ceiling that of the row that is one, or 100 %."""
    tasks, left_out = [], {}
    for column in found:
        if column.protocol.regime not in (regime, "none"):
            continue
        means = {row.role: float(row.on(column.episodes).mean()) for row in column.rows}
        accuracy = column.metric == "accuracy"
        floor = means.get("floor", 1.0 / column.protocol.way if accuracy and column.protocol.way else None)
        ceiling = means.get("ceiling", 1.0 if accuracy else None)
        if floor is None or ceiling is None:
            left_out[str(column.protocol)] = f"it has no {'floor' if floor is None else 'ceiling'}"
            continue
        try:
            methods = {row.name: row.scores(column.episodes).values for row in column.learners}
            tasks.append(TaskScores(str(column.protocol), floor, ceiling, methods, column.metric))
        except MetabenchError as refusal:
            left_out[str(column.protocol)] = str(refusal)
    return tasks, left_out
