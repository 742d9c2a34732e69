"""From records to the columns that are compared: one column holds the tests that may be compared in pairs.

A column is one test: task, data, way, shots, queries, split, batch-norm regime, and checkpoint (the best on validation
episodes, or the last). A predictor without batch-norm (regime ``none``) belongs to every column of its test. Floor and
ceiling are shown with the learners and not compared with them.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from benchmarks.errors import MetabenchError
from benchmarks.records.record import Record, Task, Tested
from benchmarks.stats.aggregate import TaskScores
from benchmarks.stats.classes import Membership, clusters_by_item
from benchmarks.stats.contrasts import Contrast, Interval
from benchmarks.stats.verdicts import Comparison, Scores, compare

#: digest -> ``classes`` and ``items`` ``[episodes, queries]`` of test examples
Examples = Callable[[str], Mapping[str, np.ndarray] | None]


class Source(Protocol):
    """Where scores and test examples are read from: a store."""

    def scores(self, record: Record) -> Mapping[str, np.ndarray] | None: ...

    def episodes(self, digest: str) -> Mapping[str, np.ndarray] | None: ...


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
        last = ", last checkpoint" if self.model == "last" else ""
        return f"{self.task} ({self.shots}-shot test, batch-norm: {self.regime}{last})"


@dataclass(frozen=True, eq=False)
class Row:
    """A method under one protocol with all its seeds.

    tested: one test per seed. values: the score of every query at the headline step, ``[seeds, episodes, queries]``, of
    the episodes that every seed has, from the first on."""

    name: str
    tested: tuple[Tested, ...]
    values: np.ndarray

    @property
    def first(self) -> Tested:
        """The test of the lowest seed: it stands for what all seeds share."""
        return self.tested[0]

    @property
    def episodes(self) -> np.ndarray:
        """The numbers of its episodes, ascending."""
        return np.arange(self.values.shape[1])

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(each.seed for each in self.tested)

    @property
    def trained(self) -> bool:
        return any(each.record.training for each in self.tested)

    @property
    def under_trained(self) -> bool:
        return any(each.record.training.under_trained for each in self.tested if each.record.training)

    @property
    def own(self) -> bool:
        """Whether the test is of the task that the row was trained for, with as many shots: no further condition."""
        where, shot = self.first.conditions, self.first.task.shot
        same_shots = shot is None or where.shots in (shot, None)
        return where.task_id == where.trained_on and same_shots and self.first.test.model == "best"

    @property
    def interval(self) -> Interval:
        """The mean over seeds and episodes, with its 95 % interval over episodes ("models")."""
        return Contrast(self.values.mean(axis=2)).interval("models")

    @property
    def role(self) -> str:
        """ "learner", "floor" or "ceiling"."""
        return self.first.method.role

    def on(self, episodes: np.ndarray) -> np.ndarray:
        """The scores of these episodes, ``[seeds, episodes, queries]``."""
        return self.values[:, episodes]

    def scores(self, episodes: np.ndarray) -> Scores:
        """Episode means, as `compare` takes them."""
        return Scores(self.on(episodes).mean(axis=2), self.seeds, self.trained, self.under_trained)


@dataclass(frozen=True, eq=False)
class Column:
    """The rows that may be compared, over the test episodes that all of them have."""

    protocol: TestProtocol
    rows: tuple[Row, ...]
    examples: Examples

    @property
    def task(self) -> Task:
        return self.rows[0].first.task

    @property
    def metric(self) -> str:
        return self.task.metric

    @property
    def higher_is_better(self) -> bool:
        return self.task.higher_is_better

    @property
    def margin(self) -> float:
        return self.task.equivalence_margin

    @cached_property
    def episodes(self) -> np.ndarray:
        """The numbers of the episodes that every row has."""
        fewest = min(row.values.shape[1] for row in self.rows)
        if not fewest:
            raise MetabenchError(f"{self.protocol}: no test episode is shared by all of {', '.join(self.names)}")
        return np.arange(fewest)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(row.name for row in self.rows)

    @property
    def learners(self) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row.role not in ("floor", "ceiling"))

    @cached_property
    def membership(self) -> Membership | None:
        """The classes of the shared episodes; None for tasks without."""
        digest = next((d for row in self.rows if (d := row.first.conditions.episodes_digest)), None)
        found = self.examples(digest) if digest else None
        if found is None or len(found["classes"]) < len(self.episodes):
            return None
        clusters = clusters_by_item(found["classes"].reshape(-1), found["items"].reshape(-1))
        return Membership(found["classes"][self.episodes], clusters)

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

    step: the number of inner steps to look at, in place of each test's headline; rows without it are left out."""
    groups = grouped(records)
    scores = {key: store.scores(record) for key, record in _records_of(groups).items()}
    found = [
        row_of(name, group, [at_step(one, scores[one.record.key], step) for one in group]) for name, group in groups
    ]
    return arranged([row for row in found if row is not None], store.episodes)


def _records_of(groups: Iterable[tuple[str, Sequence[Tested]]]) -> dict[str, Record]:
    return {one.record.key: one.record for _, group in groups for one in group}


def at_step(tested: Tested, scores: Mapping[str, np.ndarray] | None, step: int | None = None) -> np.ndarray | None:
    """The scores ``[episodes, queries]`` at the headline step (or another); None without any."""
    return (scores or {}).get(tested.test.scores_name(tested.test.headline_step if step is None else step))


def grouped(records: Iterable[Record], older: bool = False) -> list[tuple[str, tuple[Tested, ...]]]:
    """The tests that make one row, lowest seed first, with the name of the row.

    They differ in the seed only, and are of the newest code; the newest counts where a seed is there twice.
    older: older code makes rows too."""
    groups: dict[str, list[Tested]] = {}
    for record in sorted(records, key=lambda record: (record.started, record.key)):
        for tested in record.tested:
            groups.setdefault(_identity(tested) + (str(record.code) if older else ""), []).append(tested)
    members = []
    for group in groups.values():
        by_seed = {tested.seed: tested for tested in group if tested.record.code == group[-1].record.code}
        members.append(tuple(by_seed[seed] for seed in sorted(by_seed)))
    return list(zip(_names(members), members, strict=True))


def superseded(records: Sequence[Record]) -> set[str]:
    """The keys of records that failed or were skipped, and whose method has been run with newer code since."""
    newest: dict[tuple[str, str, str, int | None], Record] = {}
    for record in sorted(records, key=lambda record: (record.started, record.key)):
        newest[record.cell, record.label, record.task.id if record.task else "", record.seed] = record
    kept = {record.key for record in newest.values()}
    return {record.key for record in records if not record.ok and record.key not in kept}


def arranged(rows: Sequence[Row], examples: Examples) -> list[Column]:
    """The columns that these rows belong to, in the order of their protocols."""
    placed = [(protocol_of(row.first), row) for row in rows]
    protocols = sorted({protocol for protocol, _ in placed})
    crowded = {protocol.test for protocol in protocols if protocol.regime != "none"}
    return [
        Column(here, tuple(row for own, row in placed if _belongs(row, own, here)), examples)
        for here in protocols
        if here.regime != "none" or here.test not in crowded
    ]


def _belongs(row: Row, own: TestProtocol, here: TestProtocol) -> bool:
    """Whether a row belongs to a column: a method without training is its own best and last checkpoint."""
    model = own.model if row.trained else here.model
    return own.regime in (here.regime, "none") and dataclasses.replace(own, model=model).test == here.test


def protocol_of(tested: Tested) -> TestProtocol:
    """The column that a test belongs to."""
    where = tested.conditions
    return TestProtocol(
        task=where.task_id,
        data=tested.task.data or "",
        way=where.way or 0,
        shots=where.shots or 0,
        queries=where.queries or 0,
        split=where.split,
        regime=tested.test.regime,
        model=tested.test.model,
    )


def _identity(tested: Tested) -> str:
    """All that decides a number except the seed and the code."""
    record, where = tested.record, dataclasses.asdict(tested.conditions)
    method = [tested.method.name, tested.method.fields]
    test = [tested.test.model, tested.test.regime]
    budget = record.budget and dataclasses.asdict(record.budget)
    return json.dumps([record.label, method, dataclasses.asdict(tested.task), budget, where, test], sort_keys=True)


def _names(groups: Sequence[Sequence[Tested]]) -> list[str]:
    """A name for each row: its label, and the settings that differ where a label is there twice in one column."""
    names = [group[0].record.label for group in groups]
    for settings in (_fields, _budget, _trained_on, _episodes, _code, _key):
        places = [(name, protocol_of(group[0])) for name, group in zip(names, groups, strict=True)]
        for place in [place for place, count in Counter(places).items() if count > 1]:
            members = [number for number, other in enumerate(places) if other == place]
            told = {number: settings(groups[number][0]) for number in members}
            differ = [
                name for name in next(iter(told.values())) if len({str(one.get(name)) for one in told.values()}) > 1
            ]
            for number in members if differ else ():
                names[number] += f" ({', '.join(f'{name}={told[number].get(name)}' for name in differ)})"
    return names


def _fields(tested: Tested) -> dict[str, Any]:
    return tested.method.fields


def _budget(tested: Tested) -> dict[str, Any]:
    return dataclasses.asdict(tested.record.budget) if tested.record.budget else {"meta_steps": 0}


def _trained_on(tested: Tested) -> dict[str, Any]:
    return {"trained on": tested.conditions.trained_on}


def _episodes(tested: Tested) -> dict[str, Any]:
    return {"episodes": tested.conditions.episodes}


def _code(tested: Tested) -> dict[str, Any]:
    return {"code": str(tested.record.code)[:6]}


def _key(tested: Tested) -> dict[str, Any]:
    return {"record": tested.record.key[:6]}


def row_of(name: str, group: Sequence[Tested], found: Sequence[np.ndarray | None]) -> Row | None:
    """The scores of all seeds, ``[episodes, queries]`` each, in one row; None where there are none."""
    kept = [(tested, values) for tested, values in zip(group, found, strict=True) if values is not None]
    kept = [(tested, values) for tested, values in kept if values.shape[1] == kept[0][1].shape[1]]
    if not kept:
        return None
    fewest = min(len(values) for _, values in kept)
    together = np.stack([values[:fewest] for _, values in kept], dtype=np.float64, casting="unsafe")
    return Row(name, tuple(tested for tested, _ in kept), together)


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
