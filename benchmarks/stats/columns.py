"""From records to the columns that are compared: one column holds the tests that may be compared in pairs.

A column is one test: task, data, way, shots, queries, split, batch-norm regime, and checkpoint (the best on validation
episodes, or the last). A predictor without batch-norm (regime ``none``) belongs to every column of its test. Floor and
ceiling are shown with the learners and not compared with them.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from benchmarks.errors import MetabenchError
from benchmarks.failed_adaptations import failed
from benchmarks.records.record import Record, Task, Tested
from benchmarks.stats.aggregate import TaskScores
from benchmarks.stats.classes import Membership, clusters_by_item
from benchmarks.stats.comparison import Comparison, Scores, compare
from benchmarks.stats.contrasts import Contrast, Interval
from benchmarks.stats.grouping import TestProtocol, grouped, protocol_of
from benchmarks.stats.reach import reach

#: digest -> ``classes`` and ``items`` ``[episodes, queries]`` of test examples
Examples = Callable[[str], Mapping[str, np.ndarray] | None]


class Source(Protocol):
    """Where scores and test examples are read from: a store."""

    def scores(self, record: Record) -> Mapping[str, np.ndarray] | None: ...

    def episodes(self, digest: str) -> Mapping[str, np.ndarray] | None: ...


@dataclass(frozen=True, eq=False)
class Row:
    """A method under one protocol: one test per seed, and the score of every query at the headline step, ``[seeds,
    episodes, queries]``, of the episodes that every seed has, from the first on.

    strata: the test task of each episode, where there is a finite list of them"""

    name: str
    tested: tuple[Tested, ...]
    values: np.ndarray
    strata: np.ndarray | None = None

    @property
    def first(self) -> Tested:
        """The test of the lowest seed: it stands for what all seeds share."""
        return self.tested[0]

    @property
    def episodes(self) -> np.ndarray:
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
    def reach(self) -> float:
        """The gain that more training could bring, on the scale of contrasts: the largest of its fits."""
        task = self.first.task
        fits = [each.record.training for each in self.tested if each.record.training]
        return max((reach(fit, task.higher_is_better, task.metric == "squared error") for fit in fits), default=0.0)

    @property
    def examples(self) -> float | None:
        """Seen in training (of control tasks: environment steps), mean over seeds; None without training."""
        seen = [fit.examples or fit.environment_steps for each in self.tested if (fit := each.record.training)]
        return sum(seen) / len(seen) if seen else None

    @property
    def seed_deviation(self) -> float | None:
        """Standard deviation over seeds of the mean over episodes; None for one seed."""
        means = self.values.mean(axis=(1, 2))
        return float(means.std(ddof=1)) if len(means) > 1 else None

    @property
    def origin(self) -> str:
        """All that its scores depend on but for what was chosen at test, which may be the published setting again:
        method, code, budget, conditions, and each seed's fields."""
        made = [(one.method.fields, one.seed) for one in self.tested]
        record, where = self.first.record, dataclasses.replace(self.first.conditions, selection="")
        same = [str(protocol_of(self.first)), self.first.method.name, record.code, str(record.budget), str(where)]
        return json.dumps([*same, made], sort_keys=True, default=str)

    @property
    def threads(self) -> tuple[int, ...]:
        """The numbers of CPU threads that its seeds were computed with; several of them mix other sums in one row."""
        return tuple(sorted({each.threads for each in self.tested}))

    @property
    def own(self) -> bool:
        """Whether the test is of the task that the row was trained for, with as many shots: no further condition."""
        return self.first.conditions.task_id == self.first.conditions.trained_on and self.at_home

    @property
    def at_home(self) -> bool:
        """The same, with any number of queries."""
        where, shot = self.first.conditions, self.first.task.shot
        same_shots = shot is None or where.shots in (shot, None)
        same_task = _without_queries(where.task_id) == _without_queries(where.trained_on)
        return same_task and same_shots and self.first.test.model == "best"

    @property
    def interval(self) -> Interval:
        """The mean over seeds and episodes, with its 95 % interval over episodes ("models")."""
        return Contrast(self.values.mean(axis=2), strata=self.strata).interval("models")

    @property
    def role(self) -> str:
        """ "learner", "floor" or "ceiling"."""
        return self.first.method.role

    def on(self, episodes: np.ndarray) -> np.ndarray:
        """The scores of these episodes, ``[seeds, episodes, queries]``."""
        return self.values[:, episodes]

    def scores(self, episodes: np.ndarray) -> Scores:
        """Episode means, as `compare` takes them."""
        values = self.on(episodes).mean(axis=2)
        return Scores(values, self.seeds, self.trained, self.under_trained, self.examples, self.reach)


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
        where = [row.first.conditions for row in self.rows]
        digest = next((one.episodes_digest for one in where if one.episodes_digest and one.way is not None), None)
        found = self.examples(digest) if digest else None
        if found is None or len(found["classes"]) < len(self.episodes):
            return None
        clusters = clusters_by_item(found["classes"].reshape(-1), found["items"].reshape(-1))
        return Membership(found["classes"][self.episodes], clusters)

    @property
    def strata(self) -> np.ndarray | None:
        """The test task of each shared episode, where there is a finite list of them and every row has the same."""
        known = [row.strata[self.episodes] for row in self.rows if row.strata is not None]
        same = len(known) == len(self.rows) and all(np.array_equal(known[0], each) for each in known)
        return known[0] if same else None

    @cached_property
    def constant_error(self) -> float | None:
        """The mean squared error of the best constant on these episodes: as recorded, else of the row that is the
        floor; None for other metrics and where neither is known."""
        if self.metric != "squared error":
            return None
        recorded = (row.first.conditions.constant_error for row in self.rows)
        floors = (float(row.values.mean()) for row in self.rows if row.role == "floor")
        return next((error for error in (*recorded, *floors) if error is not None), None)

    def failed(self, row: Row) -> float | None:
        """The share of a row's adaptations that failed: as recorded, else from its scores; None where it is unknown
        (accuracies of older records)."""
        recorded = [each.test.at(each.test.headline_step) for each in row.tested]
        known = [(one.failed, one.episodes) for one in recorded if one and one.failed is not None]
        if len(known) == len(recorded):
            return sum(count for count, _ in known) / sum(episodes for _, episodes in known)
        if self.metric == "accuracy":
            return None
        scores = row.values.mean(axis=2)
        return float(failed(scores, ~np.isfinite(scores), self.constant_error).mean())

    def comparison(self, scope: str | None = None) -> Comparison:
        """All learners in pairs."""
        scores = {row.name: row.scores(self.episodes) for row in self.learners}
        task: dict[str, Any] = {"metric": self.metric, "higher_is_better": self.higher_is_better, "margin": self.margin}
        return compare(scores, **task, membership=self.membership, strata=self.strata, scope=scope)


def _without_queries(title: str) -> str:
    """A task's title without its number of queries: ``omniglot-v1/5w1s`` for ``omniglot-v1/5w1s[queries=1]``."""
    return re.sub(r", (?=\])|\[\]", "", re.sub(r"queries=\d+(, )?", "", title))


def columns(store: Source, records: Iterable[Record], step: int | None = None) -> list[Column]:
    """All columns of finished evaluations, in the order of their protocols. Damaged scores leave their record out.

    step: the number of inner steps to look at, in place of each test's headline; rows without it are left out."""
    groups = grouped(records)
    used = {one.record.key: one.record for _, group in groups for one in group}
    scores = {key: store.scores(record) for key, record in used.items()}
    found = [
        row_of(name, group, [at_step(one, scores[one.record.key], step) for one in group], store.episodes)
        for name, group in groups
    ]
    return arranged(distinct(row for row in found if row is not None), store.episodes)


def distinct(rows: Iterable[Row]) -> list[Row]:
    """The rows without repeats: of the same fits with the same scores, settings of the paper before chosen ones."""
    kept: dict[str, list[Row]] = {}
    rows = list(rows)
    for row in sorted(rows, key=lambda row: (row.first.conditions.selection != "published", row.name)):
        alike = kept.setdefault(row.origin, [])
        if not any(np.array_equal(row.values, other.values, equal_nan=True) for other in alike):
            alike.append(row)
    return [row for row in rows if row in itertools.chain(*kept.values())]


def at_step(tested: Tested, scores: Mapping[str, np.ndarray] | None, step: int | None = None) -> np.ndarray | None:
    """The scores ``[episodes, queries]`` at the headline step (or another); None without any."""
    return (scores or {}).get(tested.test.scores_name(tested.test.headline_step if step is None else step))


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


def row_of(
    name: str, group: Sequence[Tested], found: Sequence[np.ndarray | None], examples: Examples = lambda digest: None
) -> Row | None:
    """The scores of all seeds, ``[episodes, queries]`` each, in one row; None where there are none."""
    kept = [(tested, values) for tested, values in zip(group, found, strict=True) if values is not None]
    kept = [(tested, values) for tested, values in kept if values.shape[1] == kept[0][1].shape[1]]
    if not kept:
        return None
    fewest = min(len(values) for _, values in kept)
    together = np.stack([values[:fewest] for _, values in kept], dtype=np.float64, casting="unsafe")
    return Row(name, tuple(tested for tested, _ in kept), together, strata_of(kept[0][0], fewest, examples))


def strata_of(tested: Tested, episodes: int, examples: Examples) -> np.ndarray | None:
    """The test task of each of the first episodes; None unless the tasks are of a finite list.

    Such tasks (directions to run in) have no ways: the class of an episode is the number of its task."""
    digest = tested.conditions.episodes_digest
    found = examples(digest) if digest and tested.conditions.way is None else None
    if found is None or len(found["classes"]) < episodes:
        return None
    return np.asarray(found["classes"][:episodes, 0])


def task_scores(found: Iterable[Column], regime: str) -> tuple[list[TaskScores], dict[str, str]]:
    """The input of `aggregate`, from the columns of one batch-norm regime (and those without batch-norm); and for each
    column left out, the reason.

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
