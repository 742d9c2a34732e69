"""From records to results: a result is one number of the tables, a method under one protocol with all its seeds."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from benchmarks.errors import MetabenchError
from benchmarks.records import sharing
from benchmarks.records.record import Record, Tested, Training
from benchmarks.records.sharing import Unfinished
from benchmarks.records.store import Store
from benchmarks.stats import (
    Column,
    Comparison,
    Contrast,
    Interval,
    Row,
    TestProtocol,
    arranged,
    at_step,
    distinct,
    fullest,
    grouped,
    protocol_of,
    row_of,
    superseded,
)

if TYPE_CHECKING:
    import pandas as pd

#: batch-norm regimes in the order of the tables
REGIMES = ("query", "support", "single", "running", "none")


@dataclass(frozen=True, eq=False)
class Result:
    """A row of a column with its scores at every inner step.

    by_step: inner step -> the score of each episode ``[seeds, episodes]``, ascending; the first episodes of the row."""

    row: Row
    by_step: Mapping[int, np.ndarray] = field(repr=False)

    @property
    def name(self) -> str:
        return self.row.name

    @property
    def label(self) -> str:
        return self.first.record.label

    @property
    def tested(self) -> tuple[Tested, ...]:
        return self.row.tested

    @property
    def first(self) -> Tested:
        """The test of the lowest seed: it stands for what all seeds share."""
        return self.row.first

    @property
    def keys(self) -> str:
        """The keys of its records."""
        return " ".join(tested.record.key for tested in self.tested)

    @cached_property
    def column(self) -> TestProtocol:
        return protocol_of(self.first)

    @property
    def metric(self) -> str:
        return self.first.task.metric

    @property
    def higher_is_better(self) -> bool:
        return self.first.task.higher_is_better

    @property
    def seeds(self) -> tuple[int, ...]:
        return self.row.seeds

    @property
    def training(self) -> list[Training]:
        """How each seed was fitted; empty for a method without a fit."""
        return [tested.record.training for tested in self.tested if tested.record.training]

    @property
    def under_trained(self) -> bool:
        """Whether any seed stopped well short of the published budget or was still improving."""
        return self.row.under_trained

    @property
    def competes(self) -> bool:
        """Whether it is ranked: no floor, no ceiling, and with a finite mean."""
        return self.row.role not in ("floor", "ceiling") and bool(np.isfinite(self.interval.estimate))

    @property
    def headline_steps(self) -> list[int]:
        return [tested.test.headline_step for tested in self.tested]

    @cached_property
    def interval(self) -> Interval:
        """The mean over seeds and episodes at the headline step, with its 95 % interval over episodes."""
        return self.row.interval

    def curve(self, episodes: int) -> pd.DataFrame:
        """Mean and half-width at each inner step over the first ``episodes``: step, mean, half_width."""
        import pandas as pd

        rows = []
        for step, scores in self.by_step.items():
            if scores[:, :episodes].size:
                strata = None if self.row.strata is None else self.row.strata[:episodes][: scores.shape[1]]
                interval = Contrast(scores[:, :episodes], strata=strata).interval("models")
                rows.append((step, interval.estimate, interval.half_width))
        return pd.DataFrame(rows, columns=["step", "mean", "half_width"])


@dataclass(eq=False)
class Results:
    """All that the records of one or several stores say.

    holders: key -> the store of the record's side files.
    costs: what `metabench cost` measured, which has tables of its own.
    complaints: lists that grow, a line per file of a store that could not be read.
    planned: cells without a record, of runs that go on or were stopped.
    older: whether older code of a method makes rows too.
    page: the folder of the page that links to the records."""

    records: list[Record]
    stores: list[Path]
    holders: Mapping[str, Store]
    costs: list[Record] = field(default_factory=list)
    complaints: list[list[str]] = field(default_factory=lambda: [[]])
    planned: list[Unfinished] = field(default_factory=list)
    older: bool = False
    page: Path = field(default_factory=Path)

    def link(self, path: Path | str) -> str:
        """A file's address from the page."""
        return quote(Path(os.path.relpath(path, self.page)).as_posix())

    def file(self, record: Record) -> str:
        """The address of a record's file from the page."""
        return self.link(self.holders[record.key].path / "records" / f"{record.key}.json")

    def arrays(self, record: Record) -> Mapping[str, np.ndarray] | None:
        return self.holders[record.key].arrays(record)

    def examples(self, digest: str) -> Mapping[str, np.ndarray] | None:
        """The classes and items of test episodes ``[episodes, queries]``, by their digest."""
        stores = dict.fromkeys(self.holders.values())
        return next((found for store in stores if (found := store.episodes(digest)) is not None), None)

    @cached_property
    def results(self) -> list[Result]:
        """One per number, in the order of `columns` and then best first."""
        rows, groups = [], grouped(self.records, self.older)
        tested = {one.record.key: one.record for _, group in groups for one in group}
        scores = {key: self.holders[key].scores(record) or {} for key, record in tested.items()}
        for name, group in groups:
            headline = [at_step(one, scores[one.record.key]) for one in group]
            for one, values in zip(group, headline, strict=True):
                if values is None:
                    told = f"record {one.record.key} ({one.record.label}) has no scores at its headline step"
                    self.complaints[0].append(f"{told}, {one.test.headline_step}")
            rows.append(row_of(name, group, headline, self.examples))
        kept = distinct(row for row in rows if row is not None)
        found = [Result(row, _by_step(row, [scores[one.record.key] for one in row.tested])) for row in kept]
        return sorted(found, key=_order)

    @cached_property
    def compared(self) -> list[Column]:
        """The columns that may be compared in pairs; tests in the order of `tests`, the fullest regime first.

        A row of older code is shown where it is asked for, and is no rival of the newer ones."""
        order, old = {test: place for place, test in enumerate(self.tests)}, superseded(self.records)
        newer = {(one.first.record.label, one.column) for one in self.results if one.first.record.key not in old}
        found = arranged(
            [
                one.row
                for one in self.results
                if one.first.record.key not in old or (one.first.record.label, one.column) not in newer
            ],
            self.examples,
        )
        return sorted(found, key=lambda one: (order[one.protocol.test], -len(one.rows), _regime(one.protocol)))

    @cached_property
    def verdicts(self) -> dict[TestProtocol, Comparison | MetabenchError]:
        """The comparison of each column, or why there is none."""
        found: dict[TestProtocol, Comparison | MetabenchError] = {}
        for column in self.compared:
            try:
                found[column.protocol] = column.comparison()
            except MetabenchError as refusal:
                found[column.protocol] = refusal
        return found

    def leading(self, test: tuple[Any, ...]) -> TestProtocol:
        """The column of a test with most methods."""
        return next(column.protocol for column in self.compared if column.protocol.test == test)

    def metric(self, protocol: TestProtocol) -> str:
        """The metric of a column."""
        return next(column.metric for column in self.compared if column.protocol == protocol)

    def repeated(self, result: Result) -> bool:
        """Whether the last checkpoint of a method scores as its best one does."""
        if result.column.model != "last":
            return False
        best = replace(result.column, model="best")
        twins = (one for one in self.results if one.column == best and one.name == result.name)
        return any(one.interval.estimate == result.interval.estimate for one in twins)

    def judged(self, result: Result) -> Comparison | None:
        """The comparison that ranks a result: of its own column, or of the leading one where only others have
        batch-norm."""
        place = result.column if result.column in self.verdicts else self.leading(result.column.test)
        found = self.verdicts[place]
        return found if isinstance(found, Comparison) else None

    def failed(self, result: Result) -> float | None:
        """The share of a result's adaptations that failed; None where it is unknown, and for older code."""
        column = next((column for column in self.compared if result.row in column.rows), None)
        return column.failed(result.row) if column else None

    def of(self, row: Row) -> Result:
        """The result of a row."""
        return next(result for result in self.results if result.row is row)

    @cached_property
    def tests(self) -> list[tuple[Any, ...]]:
        """The tests in the order of the page: those that a method was trained for, then by their number of learners."""
        found: dict[tuple[Any, ...], set[str]] = {}
        own: set[tuple[Any, ...]] = set()
        for result in self.results:
            test = result.column.test
            found.setdefault(test, set()).update({result.name} if result.row.role == "learner" else ())
            own |= {test} if result.row.own and result.row.role == "learner" else set()
        return sorted(found, key=lambda test: (test not in own, -len(found[test]), test))

    def own(self, test: tuple[Any, ...]) -> bool:
        """Whether a method was trained for this test."""
        return any(result.row.own for result in self.results if result.column.test == test)

    @property
    def problems(self) -> list[str]:
        """One line per unreadable file; complete once `results` is computed."""
        return [line for lines in self.complaints for line in lines]

    @property
    def columns(self) -> list[TestProtocol]:
        """The protocols in the order of the tables."""
        order = {test: place for place, test in enumerate(self.tests)}
        found = dict.fromkeys(result.column for result in self.results)
        return sorted(found, key=lambda one: (order[one.test], _regime(one)))

    @property
    def labels(self) -> list[str]:
        """All method labels in alphabetical order."""
        return sorted({record.label for record in self.records})

    @property
    def measured(self) -> list[Record]:
        """The records of every kind."""
        return [*self.records, *self.costs]

    @property
    def unfinished(self) -> list[Record]:
        """The records of runs that were skipped or failed, but for those that newer code has replaced."""
        replaced = set() if self.older else superseded(self.records)
        return [record for record in self.records if not record.ok and record.key not in replaced]


def load(paths: Path | str | Iterable[Path | str], older: bool = False) -> Results:
    """The records of one store or several, which stay untouched; raises `MetabenchError` where there are none.

    Where several stores test the same method, the largest budget counts, and then the most episodes.

    older: whether older code of a method makes rows too."""
    folders = [Path(paths)] if isinstance(paths, (str, Path)) else [Path(path) for path in paths]
    found: dict[str, Record] = {}
    holders: dict[str, Store] = {}
    opened = []
    for folder in folders:
        store = Store.existing(folder)
        opened.append(store)
        for record in store.records():
            found.setdefault(record.key, record)
            holders.setdefault(record.key, store)
    planned = [cell for store in opened for cell in sharing.unfinished(store, found)]
    if not found:
        damaged = sum(len(store.problems) for store in opened)
        hint = f"{damaged} files can't be read" if damaged else "run `metabench run` first"
        if any(cell.doing != "stopped" for cell in planned):
            hint = f"none of {len(planned)} cells of a run that goes on is finished"
        raise MetabenchError(f"no records in {', '.join(map(str, folders))}: {hint}")
    measured = list(found.values()) if len(folders) == 1 else fullest(list(found.values()))
    return Results(
        sorted((r for r in measured if r.cell != "cost"), key=lambda record: (record.started, record.key)),
        folders,
        holders=holders,
        costs=sorted((r for r in found.values() if r.cell == "cost"), key=lambda r: (r.finished, r.key)),
        complaints=[[], *(store.problems for store in opened)],
        planned=planned,
        older=older,
    )


def _by_step(row: Row, scores: list[Mapping[str, np.ndarray]]) -> dict[int, np.ndarray]:
    """Inner step -> the score of each episode ``[seeds, episodes]``, of the episodes that every seed has."""
    found = {}
    for step in sorted(summary.step for summary in row.first.test.summary):
        seeds = [at_step(tested, own, step) for tested, own in zip(row.tested, scores, strict=True)]
        known = [values.mean(axis=1, dtype=np.float64) for values in seeds if values is not None]
        if len(known) == len(seeds):
            fewest = min(map(len, known))
            found[step] = np.stack([values[:fewest] for values in known])
    return found


def _regime(column: TestProtocol) -> int:
    return REGIMES.index(column.regime) if column.regime in REGIMES else len(REGIMES)


def _order(result: Result) -> tuple[Any, ...]:
    mean = result.interval.estimate
    worth = -np.inf if np.isnan(mean) else mean if result.higher_is_better else -mean
    return result.column.test, _regime(result.column), -worth, result.name
