"""The typed record: what was run (method, task, seed, budget), what came out, and where it was computed.

`Record.to_json` and `Record.from_json` are its only writer and reader (`benchmarks.records.plain`).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeVar

from benchmarks.records.entries import Facts, Setting, Timed, missing
from benchmarks.records.origin import Git as Git
from benchmarks.records.origin import Machine as Machine
from benchmarks.records.plain import COLUMNS, Unreadable, plain, read, whole
from benchmarks.records.training import Budget as Budget
from benchmarks.records.training import CurvePoint as CurvePoint
from benchmarks.records.training import Training as Training

SCHEMA = 2
Kind = Literal["fit", "evaluation", "cost"]
Status = Literal["ok", "skipped", "error", "timeout", "out-of-memory", "diverged"]

T = TypeVar("T")


@dataclass(frozen=True)
class Method:
    """The method: its registered name, all its fields and its facts."""

    name: str
    fields: dict[str, Any]
    facts: Annotated[dict[str, Any], Facts] = field(default_factory=dict)

    @property
    def role(self) -> str:
        """ "learner", "floor" or "ceiling"."""
        return str(self.facts.get("role") or "learner")


@dataclass(frozen=True)
class Task:
    """The task distribution whose episodes were used. data: the hash of the decoded data where it was computed."""

    id: str
    name: str
    version: int
    variant: str
    kind: str
    metric: str
    higher_is_better: bool
    equivalence_margin: float
    fields: dict[str, Any]
    data: str | None = None

    @property
    def shot(self) -> int | None:
        """Support examples per class (or per task) of the variant; None for tasks without."""
        return whole(self.fields.get("shot"))


@dataclass(frozen=True)
class Evaluation:
    """The conditions that all tests of an evaluation share.

    trained_on: the task id of the fit. shots, queries: per class (or task); None where the task has none.
    selection: "published" or "validation". curve_episodes: the first episodes, scored after every inner step.
    episodes_digest: of the table of test examples, None for tasks that draw them afresh. constant_error: the mean
    squared error of the best constant on the test; None for other tasks and in older records."""

    split: str
    task_id: str
    trained_on: str
    way: int | None
    shots: int | None
    queries: int | None
    episodes: int
    selection: str
    validation_episodes: int
    curve_episodes: int
    episodes_digest: str | None = None
    constant_error: float | None = None


@dataclass(frozen=True)
class StepSummary:
    """Scores after some inner steps over episodes (an episode's score is the mean over its queries). half_width: of the
    95 % interval. environment_steps: taken by then, per task. failed: episodes whose adaptation failed (an answer that
    is not a number, or an error above 100 times the best constant's); None in older records."""

    step: int
    mean: float | None
    standard_error: float | None
    half_width: float | None
    episodes: int
    deviation: float | None
    environment_steps: float | None = None
    failed: int | None = None


@dataclass(frozen=True)
class Test:
    """One checkpoint under one batch-norm regime. chosen: what selection on validation tasks picked (adaptation fields,
    and "steps"), from ``trials`` settings. facts: of the method with these fields."""

    model: str
    regime: str
    reported_steps: tuple[int, ...]
    summary: tuple[StepSummary, ...] = field(metadata=COLUMNS)
    seconds_per_task: float
    trials: int = 0
    chosen: dict[str, Any] = field(default_factory=dict)
    facts: Annotated[dict[str, Any], Facts] = field(default_factory=dict)

    __test__ = False  # not a test case of pytest's

    @property
    def headline_step(self) -> int:
        """The number of inner steps whose score stands for the method."""
        return self.reported_steps[-1]

    def at(self, step: int) -> StepSummary | None:
        """The summary after ``step`` inner steps; None where that step was not scored."""
        return next((row for row in self.summary if row.step == step), None)

    def scores_name(self, step: int) -> str:
        """The name of its array ``[episodes, queries]`` among the evaluation's scores."""
        return f"{self.model}/{self.regime}/{step}"


@dataclass(frozen=True)
class Cost:
    """A setting of the cost benchmark and its timed variants, one row each."""

    setting: Annotated[dict[str, Any], Setting]
    rows: tuple[Annotated[dict[str, Any], Timed], ...]
    ceilings: dict[str, Any] | None = None
    precision: dict[str, Any] | None = None
    stages: dict[str, Any] = field(default_factory=dict)
    cut: bool = False


@dataclass(frozen=True)
class SideFile:
    """A file of the record: its size in bytes and the SHA-256 of its content. The key and the kind give its place."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Record:
    """A finished cell. key: of what determines the result. seed: None where nothing is fitted. plan: how the steps were
    executed. peak_bytes: the most in use. code: the hash of the code that computed it. files: by kind
    (`benchmarks.records.store.FILES`). thinned: what a copy left out (`benchmarks.records.thinning`). Times are UTC."""

    key: str
    cell: Kind
    label: str
    status: Status = "ok"
    reason: str | None = None
    stderr: str = ""
    method: Method | None = None
    task: Task | None = None
    seed: int | None = None
    profile: str = ""
    device: str = "cpu"
    budget: Budget | None = None
    training: Training | None = None
    evaluation: Evaluation | None = None
    tests: tuple[Test, ...] = ()
    cost: Cost | None = None
    plan: dict[str, Any] = field(default_factory=dict)
    threads: int = 1
    peak_bytes: int | None = None
    code: str | None = None
    machine: Machine | None = None
    versions: dict[str, str] = field(default_factory=dict)
    git: Git | None = None
    started: str = ""
    finished: str = ""
    files: dict[str, SideFile] = field(default_factory=dict)
    thinned: tuple[str, ...] = ()
    schema: int = SCHEMA

    @property
    def ok(self) -> bool:
        """Whether the cell was computed."""
        return self.status == "ok"

    @property
    def failed(self) -> bool:
        """Whether the cell was tried in vain."""
        return self.status not in ("ok", "skipped")

    @property
    def digest(self) -> str | None:
        """The digest of its test examples, under which the store has them."""
        return self.evaluation.episodes_digest if self.evaluation else None

    @property
    def selected(self) -> bool:
        """Whether rates or steps were chosen on validation tasks."""
        return self.evaluation is not None and self.evaluation.selection == "validation"

    @property
    def tested(self) -> tuple[Tested, ...]:
        """Its tests; none unless it is a finished evaluation."""
        return tuple(Tested(self, test) for test in self.tests) if self.ok and self.cell == "evaluation" else ()

    def to_json(self) -> dict[str, Any]:
        """The record as JSON can hold it."""
        found: dict[str, Any] = plain(self)
        return found

    @classmethod
    def from_json(cls, value: Any) -> Record:
        """The record that `to_json` wrote; raises `Unreadable`."""
        record = read(cls, value, "record")
        if wrong := record._contradiction():
            raise Unreadable(wrong)
        return record

    def _contradiction(self) -> str | None:
        """The contradiction in a record whose fields have the right types; None without one."""
        for cell, name in (("evaluation", "evaluation"), ("fit", "training"), ("cost", "cost")):
            if self.ok and self.cell == cell and getattr(self, name) is None:
                return f"a finished {cell} has no {name}"
        if self.cell != "cost" and (self.method is None or self.task is None):
            return f"{self.cell} without method or task"
        if self.ok and self.cell == "evaluation" and not self.tests:
            return "a finished evaluation has no tests"
        if self.cost and (lacking := missing(self.cost.setting, self.cost.rows)):
            return f"its cost has no {lacking!r}"
        for test in self.tests:
            if not test.reported_steps or any(test.at(step) is None for step in test.reported_steps):
                return f"the test {test.model}/{test.regime} has reported steps without a summary"
        return None


@dataclass(frozen=True)
class Tested:
    """One test of a finished evaluation, with the record that it is part of."""

    record: Record
    test: Test

    @property
    def task(self) -> Task:
        """The task that was tested on."""
        return _present(self.record.task, "task")

    @property
    def method(self) -> Method:
        """The method, with the facts of the fields that were chosen for this test."""
        found = _present(self.record.method, "method")
        return dataclasses.replace(found, facts={**found.facts, **self.test.facts})

    @property
    def conditions(self) -> Evaluation:
        """The conditions of the evaluation."""
        return _present(self.record.evaluation, "evaluation")

    @property
    def seed(self) -> int:
        """The seed of the fit; 0 where nothing is fitted."""
        return self.record.seed or 0

    @property
    def threads(self) -> int:
        """CPU threads of the fit, or of the evaluation where nothing is fitted."""
        return (self.record.training and self.record.training.threads) or self.record.threads


def _present(value: T | None, name: str) -> T:
    if value is None:
        raise ValueError(f"a record without {name}")
    return value
