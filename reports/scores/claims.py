"""Claims of the papers, each judged from the records: it holds, fails, or is undecided.

A claim is a family of paired comparisons, one or more per test, with Holm's test over the family.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from benchmarks.errors import MetabenchError
from benchmarks.records.record import Record
from benchmarks.stats import Contrast, Scores, Verdict, judge, margin_on_scale, paired_contrast, starved
from reports import words
from reports.cost import frames
from reports.results import Result, Results
from reports.scores.verdict_sentences import about_of, size_of, won

MAML = "Finn, Abbeel, Levine 2017"
FIRST_ORDER = "FOMAML is as good as MAML"
STRICTER = "stricter than the paper, which says that the other half can be inferred"


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


@dataclass(frozen=True, eq=False)
class Claim:
    """A claim and its comparisons.

    as_good: it holds if the first side is no worse (within the task's margin); else only if it is better.
    sides: (title of the test, first, second)."""

    text: str
    source: str
    as_good: bool
    sides: tuple[tuple[str, Side, Side], ...]


def claims_table(results: Results) -> pd.DataFrame:
    """One row per claim and test: claim, test, outcome, finding, source, records.

    outcome: "holds", "fails" or "undecided", with "at this budget" where a fit is under-trained."""
    compared = [row for claim in _claims(results) for row in _rows(results, claim)]
    return pd.DataFrame([*compared[: _place(compared)], *_saved(results.costs), *compared[_place(compared) :]])


def summary(table: pd.DataFrame) -> list[tuple[str, str]]:
    """Each claim with its count of outcomes: ``holds on 1, fails on 4 of 5 cases``."""
    found = []
    for claim, rows in table.groupby("claim", sort=False):
        first = [str(outcome).split(" at this budget")[0] for outcome in rows["outcome"]]
        counts = [f"{name} on {first.count(name)}" for name in frames.OUTCOMES if name in first]
        budget = " at this budget" if any("at this budget" in str(outcome) for outcome in rows["outcome"]) else ""
        found.append((str(claim), f"{', '.join(counts)} of {words.count(len(rows), 'case')}{budget}"))
    return found


def _place(rows: list[dict[str, object]]) -> int:
    """The place of the claim about the cost of second order: after the rows about first order."""
    return sum(row["claim"] == FIRST_ORDER for row in rows)


def _saved(costs: list[Record]) -> Iterator[dict[str, object]]:
    """The saving of leaving the second derivatives out, one row per setting of `metabench cost`."""
    if not costs:
        return
    ratios = frames.ratios(costs)
    keys: dict[tuple[object, ...], list[str]] = {}
    for record in costs:
        if frames.work_of(record) not in frames.THROUGHPUTS:
            keys.setdefault(frames.place_of(record), []).append(record.key)
    for row in ratios[ratios["label"] == frames.OURS].to_dict("records"):
        place = tuple(row[name] for name in frames.SETTING)
        steps = words.count(row["inner_steps"], "inner step")
        yield {
            "claim": "Leaving the second derivatives out makes a meta-step roughly 33 % faster",
            "test": f"{row['backbone']}, {steps}, {row['meta_batch']} tasks, {row['device']}",
            "outcome": frames.claim(row["low"], row["high"], row["stable"]),
            "finding": f"second order takes {row['time']:.2f} times as long as first "
            f"(95 % interval {row['low']:.2f} to {row['high']:.2f})"
            + ("" if row["stable"] else "; unstable: noisy timing"),
            "source": f"{MAML}, section 5.2",
            "records": " ".join(keys.get(place, [])),
        }


def _claims(results: Results) -> list[Claim]:
    own = [result for result in results.results if result.row.own]
    maml = [result for result in own if result.label == "maml"]
    return [
        Claim(FIRST_ORDER, f"{MAML}, section 5.2", True, tuple(_first_order(results, maml))),
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
    ]


def _first_order(results: Results, maml: list[Result]) -> Iterator[tuple[str, Side, Side]]:
    for second in maml:
        for first in results.results:
            if first.column == second.column and first.label == "fomaml" and first.row.own:
                sides = _headline(first), _headline(second)
                if sides[0] and sides[1]:
                    yield _test(results, second), sides[0], sides[1]


def _more_steps(maml: list[Result]) -> Iterator[tuple[str, Side, Side]]:
    for result in maml:
        trained = result.first.method.fields.get("inner_steps")
        last = max(result.by_step)
        if isinstance(trained, int) and trained in result.by_step and last > trained:
            test = f"{result.column.task}{_regime(result)}"
            yield test, Side(_after("maml", last), result, last), Side(_after("maml", trained), result, trained)


def _any_shots(results: Results) -> Iterator[tuple[str, Side, Side]]:
    """After adaptation against before, for other numbers of test shots than the training's."""
    for result in results.results:
        where = result.first.conditions
        same_task = where.trained_on == where.task_id
        if result.label != "maml" or result.row.own or not same_task or 0 not in result.by_step:
            continue
        if (side := _headline(result)) and side.step > 0:
            yield _test(results, result), side, Side("maml before adaptation", result, 0)


def _halves(results: Results) -> Iterator[Result]:
    """MAML on a test with support points in half of the range, fitted for the whole range."""
    for result in results.results:
        trained_on = result.first.conditions.trained_on
        if result.label == "maml" and trained_on and result.column.task == f"{trained_on}-half":
            yield result


def _other_half(results: Results) -> Iterator[tuple[str, Side, Side]]:
    """After adaptation against half of the error before: a method that learns the shown half and nothing of the other
    keeps half of the error."""
    for result in _halves(results):
        if (side := _headline(result)) and side.step > 0 and 0 in result.by_step:
            yield _test(results, result), side, Side("half of the error before adaptation", result, 0, 0.5)


def _half_against(results: Results, label: str) -> Iterator[tuple[str, Side, Side]]:
    for result in _halves(results):
        for other in results.results:
            if other.label == label and other.column == result.column:
                first, second = _headline(result), _headline(other)
                if first and second:
                    yield _test(results, result), first, second


def _half(results: Results, whole: list[Result]) -> Iterator[tuple[str, Side, Side]]:
    """MAML with support points in half of the range against MAML with points in all of it."""
    for result in _halves(results):
        trained_on = result.first.conditions.trained_on
        for other in whole:
            if (other.column.task, other.column.regime) == (trained_on, result.column.regime):
                first, second = _headline(result), _headline(other)
                if first and second:
                    yield (
                        _test(results, result),
                        Side("maml with half of the range", result, first.step),
                        Side("maml with all of it", other, second.step),
                    )


def _rows(results: Results, claim: Claim) -> Iterator[dict[str, object]]:
    """One row per test. The verdict is that of the pair on the page, where both sides are rows of one column."""
    known = [_of_column(results, first, second) for _, first, second in claim.sides]
    rest = [sides for sides, verdict in zip(claim.sides, known, strict=True) if verdict is None]
    own = _family([(first, second) for _, first, second in rest])
    for (test, first, second), shared in zip(claim.sides, known, strict=True):
        if (verdict := shared or own.get((first, second))) is None:
            continue
        records = dict.fromkeys(one.record.key for side in (first, second) for one in side.result.tested)
        yield {
            "claim": claim.text,
            "test": test,
            "outcome": verdict.claim(claim.as_good),
            "finding": _finding(verdict, first, second),
            "source": claim.source,
            "records": " ".join(records),
        }


def _of_column(results: Results, first: Side, second: Side) -> Verdict | None:
    """The verdict of the page on two rows at their headline steps; None where the page compares other episodes."""
    if any(side.scale != 1 or set(side.result.headline_steps) != {side.step} for side in (first, second)):
        return None
    names, judged = (first.result.name, second.result.name), results.judged(first.result)
    if first.result.column != second.result.column or judged is None:
        return None
    return judged.of(*names) if any({pair.first, pair.second} == set(names) for pair in judged.pairs) else None


def _family(couples: Sequence[tuple[Side, Side]]) -> dict[tuple[Side, Side], Verdict]:
    """The verdicts of a claim whose pairs are in no column: one family."""
    found = {couple: one for couple in couples if (one := _contrast(*couple)) is not None}
    tasks = [(first.result.first.task.equivalence_margin, first.result.metric) for first, _ in found]
    why = [starved({side.result.name: _scores(side) for side in couple}, couple[0].result.metric) for couple in found]
    names = [(first.name, second.name) for first, second in found]
    margins, metrics = [margin_on_scale(*task) for task in tasks], [metric for _, metric in tasks]
    return dict(zip(found, judge(names, list(found.values()), metrics, margins, starved=why), strict=True))


def _scores(side: Side, episodes: int | None = None) -> Scores:
    row = side.result.row
    return Scores(side.scores[:, :episodes], row.seeds, row.trained, row.under_trained, row.examples)


def _contrast(first: Side, second: Side) -> Contrast | None:
    shared = min(first.scores.shape[1], second.scores.shape[1])
    strata = first.result.row.strata
    sides = [_scores(side, shared) for side in (first, second)]
    task = first.result.metric, first.result.higher_is_better
    try:
        return paired_contrast(sides[0], sides[1], *task, strata=None if strata is None else strata[:shared])
    except MetabenchError:
        return None


def _finding(verdict: Verdict, first: Side, second: Side) -> str:
    """The size of the difference over the episodes of both sides, and the reason where there is no verdict."""
    ahead, behind = (first, second) if verdict.contrast.estimate >= 0 else (second, first)
    said = f"{ahead.name} is ahead of {behind.name} by {size_of(verdict)}"
    if verdict.kind == "unstable":
        said = won(verdict)
    over = words.count(verdict.contrast.episodes, "episode")
    return f"{said}, {about_of(verdict)}; {over}" + (f"; {verdict.reason}" if verdict.reason else "")


def _headline(result: Result) -> Side | None:
    """A result at its headline step, where all seeds share it."""
    steps = set(result.headline_steps)
    step = next(iter(steps))
    return Side(_after(result.name, step), result, step) if len(steps) == 1 and step in result.by_step else None


def _after(name: str, step: int) -> str:
    return f"{name} after {words.count(step, 'step')}"


def _test(results: Results, result: Result) -> str:
    return words.title(result.column, results.columns) + _regime(result)


def _regime(result: Result) -> str:
    regime = result.column.regime
    return "" if regime == "none" else f", {words.REGIME_TITLES.get(regime, regime)}"
