"""From records to results: one result is one number of the tables, a method under one protocol with all its seeds.

pandas is imported where a frame is made, so that records can be read before it is there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.errors import MetabenchError
from benchmarks.records.store import Store
from benchmarks.stats import (
    Column,
    Comparison,
    Contrast,
    Grid,
    Interval,
    Row,
    StepMeans,
    TestProtocol,
    arranged,
    episode_means,
    grouped,
    headline,
    protocol_of,
    row_of,
    shared,
)

if TYPE_CHECKING:
    import pandas as pd

Record = Mapping[str, Any]

#: kinds of cells that the tables of scores are about; costs have tables of their own
SCORED = ("fit", "evaluation")

#: batch-norm regimes in the order of the tables
REGIMES = ("query", "support", "single", "running", "none")


@dataclass(frozen=True, eq=False)
class Result:
    """A row of a column with its scores at every inner step.

    scores: per seed: inner step -> the numbers of its episodes and the mean score of each."""

    row: Row
    scores: tuple[StepMeans, ...] = field(repr=False)

    @property
    def name(self) -> str:
        return self.row.name

    @property
    def label(self) -> str:
        return str(self.first["label"])

    @property
    def records(self) -> tuple[Record, ...]:
        return self.row.records

    @property
    def first(self) -> Record:
        """The evaluation of the lowest seed: it stands for what all seeds share."""
        return self.row.first

    @cached_property
    def column(self) -> TestProtocol:
        return protocol_of(self.first)

    @property
    def metric(self) -> str:
        return str(self.first["task"]["metric"])

    @property
    def higher_is_better(self) -> bool:
        return bool(self.first["task"]["higher_is_better"])

    @property
    def seeds(self) -> tuple[int, ...]:
        return self.row.seeds

    @property
    def training(self) -> list[Mapping[str, Any]]:
        """How each seed was fitted; empty for a method without a fit."""
        return [record["training"] for record in self.records if record.get("training")]

    @property
    def under_trained(self) -> bool:
        """Whether any seed stopped well short of the published budget or was still improving."""
        return self.row.under_trained

    @property
    def competes(self) -> bool:
        """Whether it is ranked: no floor, no ceiling, and with a mean that is a number."""
        return self.row.role not in ("floor", "ceiling") and bool(np.isfinite(self.interval.estimate))

    @property
    def headline_steps(self) -> list[int]:
        return [int(record["evaluation"]["headline_step"]) for record in self.records]

    @cached_property
    def by_step(self) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        """Inner step -> the numbers of the episodes that every seed has, ascending, and their scores ``[episodes,
        seeds]``."""
        steps = sorted(set.intersection(*(set(scores) for scores in self.scores)))
        return {step: _beside([scores[step] for scores in self.scores]) for step in steps}

    def frame(self, step: int) -> pd.DataFrame:
        """The scores after a number of inner steps by episode (rows) and seed (columns)."""
        import pandas as pd

        episodes, scores = self.by_step[step]
        return pd.DataFrame(scores, index=episodes)

    @cached_property
    def interval(self) -> Interval:
        """The mean over seeds and episodes at the headline step, with its 95 % interval over episodes."""
        return self.row.interval

    def curve(self, episodes: np.ndarray) -> pd.DataFrame:
        """Mean and half-width at each inner step over those of ``episodes`` that it has: step, mean, half_width."""
        import pandas as pd

        rows = []
        for step, (known, scores) in self.by_step.items():
            values = scores[np.isin(known, episodes)]
            if len(values):
                interval = Contrast(values.T).interval("models")
                rows.append((step, interval.estimate, interval.half_width))
        return pd.DataFrame(rows, columns=["step", "mean", "half_width"])


@dataclass(eq=False)
class Results:
    """All that the records of one or several stores say."""

    records: list[Record]
    stores: list[Path]
    #: key -> the store that holds the scores and arrays of the record
    holders: Mapping[str, Store]
    #: what `metabench cost` measured, which has tables of its own
    costs: list[Record] = field(default_factory=list)
    #: lists that grow, a line per file of a store that could not be read
    complaints: list[list[str]] = field(default_factory=lambda: [[]])

    def scores(self, record: Record) -> Mapping[str, np.ndarray] | None:
        return self.holders[record["key"]].score_columns(record["key"])

    def arrays(self, record: Record) -> Mapping[str, np.ndarray] | None:
        return self.holders[record["key"]].arrays(record["key"])

    def episodes(self, digest: str) -> pd.DataFrame | None:
        """The classes and items of the queries of a list of episodes, by its digest."""
        import pandas as pd

        columns = self.lists.get(digest)
        return None if columns is None else pd.DataFrame(columns, copy=False)

    @cached_property
    def lists(self) -> dict[str, Mapping[str, np.ndarray] | None]:
        """Digest -> the columns of a list of test episodes."""
        named = dict.fromkeys((record.get("evaluation") or {}).get("episodes_digest") for record in self.records)
        stores = list(dict.fromkeys(self.holders.values()))
        return {
            digest: next((found for store in stores if (found := store.episode_columns(digest)) is not None), None)
            for digest in named
            if digest
        }

    @cached_property
    def read(self) -> dict[str, tuple[Grid | None, StepMeans]]:
        """key -> the scores at the headline step, and the episode means at every step."""
        # one after the other: two threads take twice as long, waiting for the interpreter's lock
        return {record["key"]: self._read(record) for _, group in grouped(self.records) for record in group}

    @cached_property
    def results(self) -> list[Result]:
        """One per number, in the order of `columns` and then best first."""
        found = []
        for name, group in grouped(self.records):
            row = row_of(name, group, [self.read[record["key"]][0] for record in group])
            if row is not None:
                found.append(Result(row, tuple(self.read[record["key"]][1] for record in row.records)))
        return sorted(found, key=_order)

    def _read(self, record: Record) -> tuple[Grid | None, StepMeans]:
        scores = self.scores(record)
        at_headline = headline(record, scores)
        if at_headline is None:
            step = record["evaluation"]["headline_step"]
            self.complaints[0].append(f"record {record['key']} ({record['label']}) has no scores at its step {step}")
        return at_headline, StepMeans(np.empty(0), np.empty(0), {}) if scores is None else episode_means(scores)

    @cached_property
    def compared(self) -> list[Column]:
        """What may stand beside each other in pairs; tests in the order of `tests`, the fullest regime first."""
        order = {test: place for place, test in enumerate(self.tests)}
        found = arranged([result.row for result in self.results], self.episodes)
        return sorted(found, key=lambda one: (order[one.protocol.test], -len(one.rows), _regime(one.protocol)))

    @cached_property
    def verdicts(self) -> dict[TestProtocol, Comparison | MetabenchError]:
        """All learners of each column in pairs, or why they can't be compared."""
        found: dict[TestProtocol, Comparison | MetabenchError] = {}
        for column in self.compared:
            try:
                found[column.protocol] = column.comparison()
            except MetabenchError as refusal:
                found[column.protocol] = refusal
        return found

    def leading(self, test: tuple[Any, ...]) -> TestProtocol:
        """The column of a test in which most methods stand."""
        return next(column.protocol for column in self.compared if column.protocol.test == test)

    def metric(self, protocol: TestProtocol) -> str:
        """What is measured in a column."""
        return next(column.metric for column in self.compared if column.protocol == protocol)

    def judged(self, result: Result) -> Comparison | None:
        """The comparison that a result is ranked in: its own column's, or (where it has no batch-norm and others have)
        that of the leading column."""
        place = result.column if result.column in self.verdicts else self.leading(result.column.test)
        found = self.verdicts[place]
        return found if isinstance(found, Comparison) else None

    def of(self, row: Row) -> Result:
        """The result of a row."""
        return next(result for result in self.results if result.row is row)

    @cached_property
    def tests(self) -> list[tuple[Any, ...]]:
        """The tests in the order of the page: those that somebody was trained for first, then the most learners."""
        found: dict[tuple[Any, ...], set[str]] = {}
        own: set[tuple[Any, ...]] = set()
        for result in self.results:
            test = result.column.test
            found.setdefault(test, set()).update({result.name} if result.row.role == "learner" else ())
            own |= {test} if result.row.own and result.row.role == "learner" else set()
        return sorted(found, key=lambda test: (test not in own, -len(found[test]), test))

    def own(self, test: tuple[Any, ...]) -> bool:
        """Whether anybody was trained for this test."""
        return any(result.row.own for result in self.results if result.column.test == test)

    @property
    def problems(self) -> list[str]:
        """One line per file that could not be read; complete once `results` is there."""
        return [line for lines in self.complaints for line in lines]

    @property
    def columns(self) -> list[TestProtocol]:
        """The protocols in the order of the tables."""
        order = {test: place for place, test in enumerate(self.tests)}
        found = dict.fromkeys(result.column for result in self.results)
        return sorted(found, key=lambda one: (order[one.test], _regime(one)))

    @property
    def labels(self) -> list[str]:
        """The method labels, those without a number included, in alphabetical order."""
        return sorted({str(record["label"]) for record in self.records})

    @property
    def measured(self) -> list[Record]:
        """The records of every kind: what says where numbers come from."""
        return [*self.records, *self.costs]

    @property
    def unfinished(self) -> list[Record]:
        """The records of cells that were skipped or failed."""
        return [record for record in self.records if record["status"] != "ok"]


def load(paths: Path | str | Iterable[Path | str]) -> Results:
    """The records of one store or several; raises `MetabenchError` where there are none."""
    folders = [Path(paths)] if isinstance(paths, (str, Path)) else [Path(path) for path in paths]
    records: dict[str, Record] = {}
    holders: dict[str, Store] = {}
    costs: dict[str, Record] = {}
    opened = []
    for folder in folders:
        if not folder.is_dir():
            raise MetabenchError(f"no store at {folder}: run `metabench run` first, or name another with --store")
        store = Store(folder)
        opened.append(store)
        for record in store.records():
            if record["cell"] == "cost":
                costs.setdefault(record["key"], record)
            if record["cell"] not in SCORED:
                continue
            records.setdefault(record["key"], record)
            holders.setdefault(record["key"], store)
    if not records and not costs:
        damaged = sum(len(store.problems) for store in opened)
        hint = f"{damaged} files can't be read" if damaged else "run `metabench run` first"
        raise MetabenchError(f"no records in {', '.join(map(str, folders))}: {hint}")
    ordered = sorted(records.values(), key=lambda record: (str(record.get("started")), record["key"]))
    return Results(
        ordered,
        folders,
        holders=holders,
        costs=sorted(costs.values(), key=lambda record: (str(record.get("finished")), record["key"])),
        complaints=[[], *(store.problems for store in opened)],
    )


def _beside(seeds: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Scores of several seeds (episodes, means) as columns, for the episodes that all have."""
    found = shared([episodes for episodes, _ in seeds])
    kept = [means if len(means) == len(found) else means[np.isin(episodes, found)] for episodes, means in seeds]
    return found, np.column_stack(kept)


def _regime(column: TestProtocol) -> int:
    return REGIMES.index(column.regime) if column.regime in REGIMES else len(REGIMES)


def _order(result: Result) -> tuple[Any, ...]:
    mean = result.interval.estimate
    worth = -np.inf if np.isnan(mean) else mean if result.higher_is_better else -mean
    return result.column.test, _regime(result.column), -worth, result.name
