"""The claims of the papers, and the comparisons that they come to in these records.

`reports.scores.claims` judges them. A claim without a comparison in the records makes no row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from benchmarks.records.record import Record
from benchmarks.stats import TestProtocol
from reports import words
from reports.results import Result, Results

MAML = "Finn, Abbeel, Levine 2017"
FIRST_ORDER = "FOMAML is as good as MAML"
CARRY_OVER = "Metric learners do not carry over to regression and control"
BY_TASKS = "Recurrent learners need more tasks than MAML"
HALVED = "Halving the rate after the first step is better"
STRICTER = "stricter than the paper, which says that the other half can be inferred"

#: learners that compare a query with the support set in an embedding
METRIC = (
    *("matching-nets", "matching-nets-fce", "prototypical-nets", "prototypical-nets-5way"),
    *("relation-nets", "siamese-nets"),
)
#: learners whose meta-training is episodic
META = ("maml", "matching-nets", "prototypical-nets", "relation-nets")


@dataclass(frozen=True, eq=False)
class Side:
    """One side of a comparison: a result after some inner steps, its scores times ``scale``."""

    name: str
    result: Result
    step: int
    scale: float = 1.0

    @property
    def scores(self) -> np.ndarray:
        """``[seeds, episodes]``"""
        return self.result.by_step[self.step] * self.scale

    @property
    def tasks(self) -> float:
        """Training tasks seen, mean over seeds; NaN where the method has no meta-batch."""
        batch = self.result.first.method.fields.get("meta_batch")
        return float(np.mean([fit.meta_steps for fit in self.result.training]) * batch) if batch else np.nan


#: title of the test, first side, second side
Sides = tuple[str, Side, Side]


@dataclass(frozen=True, eq=False)
class Claim:
    """A claim and its comparisons.

    as_good: it holds if the first side is no worse (within the task's margin); else only if it is better.
    equal: what both sides must have seen alike. "examples": within a factor of 2. "tasks": the better side has seen no
        more of them than the other.
    refusals: records of methods that do not fit a kind of task; each is a case where the claim holds."""

    text: str
    source: str
    as_good: bool
    sides: tuple[Sides, ...]
    equal: Literal["examples", "tasks"] = "examples"
    refusals: tuple[Record, ...] = ()


@dataclass(frozen=True)
class Paired:
    """A claim that each of the first methods is better than each of the second ones, or as good.

    where: kinds and names of tasks that it is about; none: all."""

    text: str
    source: str
    first: tuple[str, ...]
    second: tuple[str, ...]
    as_good: bool = False
    where: tuple[str, ...] = ("classification",)


_TABLE = f"{MAML}, table 1"
_BETTER = {
    "MANN": (("maml", "maml-no-conv"), ("memory-augmented",)),
    "Siamese nets": (("maml",), ("siamese-nets",)),
    "matching nets": (("maml",), ("matching-nets", "matching-nets-fce")),
    "the memory module": (("maml",), ("memory-module",)),
    "the neural statistician": (("maml",), ("neural-statistician", "neural-statistician-reduced")),
    "the meta-learner LSTM": (("maml",), ("meta-learner-lstm",)),
}
PAIRED = (
    *(Paired(f"MAML is better than {name}", _TABLE, *sides) for name, sides in _BETTER.items()),
    Paired(
        "Prototypical nets are better than matching nets",
        "Snell, Swersky, Zemel 2017",
        ("prototypical-nets",),
        ("matching-nets", "matching-nets-fce"),
    ),
    Paired("Baseline++ is as good as meta-learners", "Chen et al. 2019", ("baseline-plus-plus",), META, True),
    Paired("SimpleShot is as good as meta-learners", "Wang et al. 2019", ("simple-shot",), META, True),
    Paired("ANIL is as good as MAML", "Raghu et al. 2020", ("anil",), ("maml",), True, ()),
    Paired("Meta-SGD is better than MAML", "Li et al. 2017", ("meta-sgd",), ("maml",), False, ()),
    Paired(
        "CAVIA is better than MAML on the sinusoid", "Zintgraf et al. 2019", ("cavia",), ("maml",), False, ("sinusoid",)
    ),
    Paired(
        "MB-MPO is better than MAML on fewer environment steps",
        "Clavera et al. 2018, its figures",
        ("mb-mpo",),
        ("maml",),
        where=("control",),
    ),
    Paired(
        "A meta-critic teaches a new task better than a critic that begins with it",
        "Sung et al. 2017, its figures on cartpole",
        ("meta-critic",),
        ("actor-critic",),
        where=("control",),
    ),
)


def claims_of(results: Results) -> list[Claim]:
    """All claims, in the order of the page."""
    own = [result for result in results.results if result.row.own]
    maml = [result for result in own if result.label == "maml"]
    recurrent = _meetings(results, own, ("maml",), ("recurrent", "rl2"))
    first_order = Paired(FIRST_ORDER, f"{MAML}, section 5.2", ("fomaml",), ("maml",), True, ())
    return [
        _paired(results, own, first_order),
        Claim("MAML goes on improving with more steps", f"{MAML}, section 5.1", False, tuple(_more_steps(maml))),
        Claim("MAML adapts to any number of examples", f"{MAML}, section 5.1", False, tuple(_any_shots(results))),
        Claim(
            "Half of the range suffices: MAML infers the other half",
            f"{MAML}, section 5.1",
            False,
            tuple(_other_half(results)),
        ),
        Claim(
            "Shown half of the range, MAML is better than fine-tuning",
            f"{MAML}, section 5.1 and figure 2",
            False,
            tuple(_half_against(results, "finetune")),
        ),
        Claim("Half of the range is as good as all of it", STRICTER, True, tuple(_half(results, maml))),
        Claim(HALVED, f"{MAML}, its experiments on control", False, tuple(_halved(results, maml))),
        _carry_over(results, own),
        Claim(
            BY_TASKS,
            "often said of learners with a memory; no table known",
            False,
            tuple(sides for sides in recurrent if sides[1].tasks > 0 and sides[2].tasks > 0),
            "tasks",
        ),
        *(_paired(results, own, one) for one in PAIRED),
    ]


def headline(result: Result) -> Side | None:
    """A result at its headline step, where all seeds share it."""
    steps = set(result.headline_steps)
    step = next(iter(steps))
    if len(steps) > 1 or step not in result.by_step:
        return None
    return Side(_after(result.name, step) if max(result.by_step) else result.name, result, step)


def _paired(results: Results, own: list[Result], one: Paired) -> Claim:
    there = [
        result for result in own if not one.where or {result.first.task.kind, result.first.task.name} & {*one.where}
    ]
    return Claim(one.text, one.source, one.as_good, tuple(_meetings(results, there, one.first, one.second)))


def _meetings(
    results: Results, there: list[Result], first: tuple[str, ...], second: tuple[str, ...]
) -> Iterator[Sides]:
    """Every pair of these methods in one column, at their headline steps."""
    for one in (result for label in first for result in there if result.label == label):
        for other in (result for label in second for result in there if result.label == label):
            sides = headline(one), headline(other)
            if _share(one.column, other.column) and sides[0] and sides[1]:
                place = other if one.column.regime == "none" else one
                yield _test(results, place), sides[0], sides[1]


def _share(one: TestProtocol, other: TestProtocol) -> bool:
    """Whether two rows meet in a column: one without batch-norm belongs to every column of its test."""
    return one.test == other.test and (one.regime == other.regime or "none" in (one.regime, other.regime))


def _more_steps(maml: list[Result]) -> Iterator[Sides]:
    for result in maml:
        trained = result.first.method.fields.get("inner_steps")
        last = max(result.by_step)
        if isinstance(trained, int) and trained in result.by_step and last > trained:
            test = f"{result.column.task}{_regime(result)}"
            yield test, Side(_after("maml", last), result, last), Side(_after("maml", trained), result, trained)


def _any_shots(results: Results) -> Iterator[Sides]:
    """After adaptation against before, for other numbers of test shots than the training's."""
    for result in results.results:
        where, trained = result.first.conditions, result.first.task.shot
        same = where.trained_on == where.task_id and result.column.model == "best"
        if result.label != "maml" or not same or where.shots in (trained, None) or 0 not in result.by_step:
            continue
        if (side := headline(result)) and side.step > 0:
            yield _test(results, result), side, Side("maml before adaptation", result, 0)


def _halves(results: Results) -> Iterator[Result]:
    """MAML on a test with support points in half of the range, fitted for the whole range."""
    for result in results.results:
        trained_on = result.first.conditions.trained_on
        if result.label == "maml" and trained_on and result.column.task == f"{trained_on}-half":
            yield result


def _other_half(results: Results) -> Iterator[Sides]:
    """After adaptation against half of the error before: a method that learns the shown half and nothing of the other
    keeps half of the error."""
    for result in _halves(results):
        if (side := headline(result)) and side.step > 0 and 0 in result.by_step:
            yield _test(results, result), side, Side("half of the error before adaptation", result, 0, 0.5)


def _half_against(results: Results, label: str) -> Iterator[Sides]:
    for result in _halves(results):
        for other in results.results:
            if other.label == label and other.column == result.column:
                first, second = headline(result), headline(other)
                if first and second:
                    yield _test(results, result), first, second


def _half(results: Results, whole: list[Result]) -> Iterator[Sides]:
    """MAML with support points in half of the range against MAML with points in all of it."""
    for result in _halves(results):
        trained_on = result.first.conditions.trained_on
        for other in whole:
            if (other.column.task, other.column.regime) == (trained_on, result.column.regime):
                first, second = headline(result), headline(other)
                if first and second:
                    yield (
                        _test(results, result),
                        Side("maml with half of the range", result, first.step),
                        Side("maml with all of it", other, second.step),
                    )


def _halved(results: Results, maml: list[Result]) -> Iterator[Sides]:
    """MAML with half the rate after the first step against MAML that differs in nothing else, after several steps."""
    for one in maml:
        for other in maml:
            fields = one.first.method.fields, other.first.method.fields
            rates = [own.get("later_rate") for own in fields]
            if one.column != other.column or rates != [0.5, 1.0] or {**fields[0], "later_rate": 1.0} != fields[1]:
                continue
            sides = headline(one), headline(other)
            if sides[0] and sides[1] and sides[0].step == sides[1].step > 1:
                yield _test(results, one), sides[0], sides[1]


def _carry_over(results: Results, own: list[Result]) -> Claim:
    """MAML against each metric learner where both fit; each refusal of a kind of task counts as well."""
    there = [result for result in own if result.first.task.kind != "classification"]
    refusals = [
        record
        for record in results.unfinished
        if record.label in METRIC and record.task and (record.reason or "").startswith(f"{record.label} is for ")
    ]
    one_each = {(record.label, record.task.id): record for record in reversed(refusals) if record.task}
    sides = tuple(_meetings(results, there, ("maml",), METRIC))
    return Claim(CARRY_OVER, f"{MAML}, section 4", False, sides, refusals=tuple(one_each.values())[::-1])


def _after(name: str, step: int) -> str:
    return f"{name} after {words.count(step, 'step')}"


def _test(results: Results, result: Result) -> str:
    return words.title(result.column, results.columns) + _regime(result)


def _regime(result: Result) -> str:
    regime = result.column.regime
    return "" if regime == "none" else f", {words.REGIME_TITLES.get(regime, regime)}"
