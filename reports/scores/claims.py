"""Claims of the papers, each judged from the records: it holds, fails, or is undecided.

A claim is a family of paired comparisons, one or more per test, with Holm's test over the family. Where methods saw
different amounts, the claim is undecided, and the row says why, unless the one that saw less is ahead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pandas as pd

from benchmarks.errors import MetabenchError
from benchmarks.records.record import Record
from benchmarks.stats import (
    Contrast,
    Scores,
    Unequal,
    Verdict,
    judge,
    margin_on_scale,
    paired_contrast,
    short,
    starved,
    unequal,
)
from reports import words
from reports.cost import frames
from reports.results import Results
from reports.scores.paper_claims import FIRST_ORDER, MAML, Claim, Side, claims_of
from reports.scores.verdict_sentences import about_of, size_of, won


def claims_table(results: Results) -> pd.DataFrame:
    """One row per claim and test: claim, test, outcome, finding, source, records.

    outcome: "holds", "fails" or "undecided", with "at this budget" where a fit is under-trained. The finding of a
    refusal is its reason."""
    compared = [row for claim in claims_of(results) for row in _rows(results, claim)]
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


def _rows(results: Results, claim: Claim) -> Iterator[dict[str, object]]:
    """One row per test, and one per refusal."""
    verdicts = _verdicts(results, claim)
    for test, first, second in claim.sides:
        if (verdict := verdicts.get((first, second))) is None:
            continue
        records = dict.fromkeys(one.record.key for side in (first, second) for one in side.result.tested)
        outcome, why = _outcome(claim, verdict, first, second)
        yield {
            "claim": claim.text,
            "test": test,
            "outcome": outcome,
            "finding": _finding(verdict, first, second, why),
            "source": claim.source,
            "records": " ".join(records),
        }
    for record in claim.refusals:
        yield {
            "claim": claim.text,
            "test": record.task.id if record.task else "",
            "outcome": "holds",
            "finding": record.reason,
            "source": claim.source,
            "records": record.key,
        }


def _outcome(claim: Claim, verdict: Verdict, first: Side, second: Side) -> tuple[str, str]:
    """The outcome, and why it is undecided where the sides have not seen alike."""
    if claim.equal == "examples":
        why = unequal({side.result.name: _scores(side) for side in (first, second)}, verdict.metric)
        leader = {"better": first, "worse": second}.get(verdict.ahead)
        if why.reason and (leader is None or leader.result.name != why.fewer):
            return "undecided", why.reason
        return verdict.claim(claim.as_good), ""
    # with fewer tasks, as good is enough
    outcome = verdict.claim(as_good=first.tasks < second.tasks)
    ahead, behind = (second, first) if outcome.startswith("fails") else (first, second)
    if outcome == "undecided" or ahead.tasks <= behind.tasks:
        return outcome, ""
    return (
        "undecided",
        f"{behind.result.name} trained on {behind.tasks:,.0f} tasks and {ahead.result.name} on {ahead.tasks:,.0f}",
    )


def _verdicts(results: Results, claim: Claim) -> dict[tuple[Side, Side], Verdict]:
    """The verdict of the page where both sides are rows of one column; one family of all others.

    At equal tasks the examples do not matter, so these are a family of their own."""
    couples = [(first, second) for _, first, second in claim.sides]
    if claim.equal == "tasks":
        return _family(couples, lambda sides, metric: short(sides))
    known = {couple: one for couple in couples if (one := _of_column(results, *couple)) is not None}
    return known | _family([couple for couple in couples if couple not in known], starved)


def _of_column(results: Results, first: Side, second: Side) -> Verdict | None:
    """The verdict of the page on two rows at their headline steps; None where the page compares other episodes."""
    if any(side.scale != 1 or set(side.result.headline_steps) != {side.step} for side in (first, second)):
        return None
    # a row without batch-norm belongs to the other's column
    place = second if first.result.column.regime == "none" else first
    names, judged = (first.result.name, second.result.name), results.judged(place.result)
    if first.result.column.test != second.result.column.test or judged is None:
        return None
    return judged.of(*names) if any({pair.first, pair.second} == set(names) for pair in judged.pairs) else None


def _family(
    couples: Sequence[tuple[Side, Side]], reason: Callable[[dict[str, Scores], str], Unequal]
) -> dict[tuple[Side, Side], Verdict]:
    """The verdicts of pairs that are in no column: one family. reason: why a pair is not comparable."""
    found = {couple: one for couple in couples if (one := _contrast(*couple)) is not None}
    tasks = [(first.result.first.task.equivalence_margin, first.result.metric) for first, _ in found]
    why = [_why(couple, reason) for couple in found]
    names = [(first.name, second.name) for first, second in found]
    margins, metrics = [margin_on_scale(*task) for task in tasks], [metric for _, metric in tasks]
    return dict(zip(found, judge(names, list(found.values()), metrics, margins, starved=why), strict=True))


def _why(couple: tuple[Side, Side], reason: Callable[[dict[str, Scores], str], Unequal]) -> Unequal:
    """Why a pair is not comparable, in the names of the methods; `fewer` is that of the side."""
    names = {side.result.name: side.name for side in couple}
    found = reason({side.result.name: _scores(side) for side in couple}, couple[0].result.metric)
    return found._replace(fewer=names.get(found.fewer, ""))


def _scores(side: Side, episodes: int | None = None) -> Scores:
    row = side.result.row
    return Scores(side.scores[:, :episodes], row.seeds, row.trained, row.under_trained, row.examples, row.reach)


def _contrast(first: Side, second: Side) -> Contrast | None:
    shared = min(first.scores.shape[1], second.scores.shape[1])
    strata = first.result.row.strata
    sides = [_scores(side, shared) for side in (first, second)]
    task = first.result.metric, first.result.higher_is_better
    try:
        return paired_contrast(sides[0], sides[1], *task, strata=None if strata is None else strata[:shared])
    except MetabenchError:
        return None


def _finding(verdict: Verdict, first: Side, second: Side, why: str = "") -> str:
    """The size of the difference over the episodes of both sides, and the reasons where there is no verdict."""
    ahead, behind = (first, second) if verdict.contrast.estimate >= 0 else (second, first)
    said = f"{ahead.name} is ahead of {behind.name} by {size_of(verdict)}"
    if verdict.kind == "unstable":
        said = won(verdict)
    over = words.count(verdict.contrast.episodes, "episode")
    reasons = dict.fromkeys(filter(None, (verdict.reason, why)))
    return "; ".join((f"{said}, {about_of(verdict)}", over, *reasons))
