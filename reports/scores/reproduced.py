"""Our numbers next to published ones: every step that a source prints, with the differences of the protocol."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pandas as pd

from benchmarks.stats import Contrast
from reports import published, words
from reports.published import Reproduction
from reports.results import Result, Results


@functools.lru_cache(maxsize=1)
def reproductions(results: Results) -> Mapping[Result, list[Reproduction]]:
    """Each result with its published numbers, one for each number of inner steps that the source prints.

    Of several tests of a row, which differ in the number of queries, the one that is nearest to the paper counts."""
    numbers = published.load()
    nearest: dict[tuple[Any, ...], tuple[Result, list[Reproduction]]] = {}
    for result in results.results:
        if result.row.at_home and result.interval.known and (found := _compared(result, numbers)):
            row = result.name, result.first.conditions.trained_on, result.column.shots, result.column.regime
            known = nearest.get(row)
            if known is None or _differences(found) < _differences(known[1]):
                nearest[row] = result, found
    return dict(nearest.values())


def _compared(result: Result, numbers: list[published.Published]) -> list[Reproduction]:
    mine = published.ours(result.row)
    found = []
    for one in published.anchors(numbers, mine):
        scores = None if one.steps == mine.steps else result.by_step.get(-1 if one.steps is None else one.steps)
        there = mine if scores is None else published.ours(result.row, one.steps, scores)
        found.append(published.reproduction(one, there))
    return found


def _differences(found: list[Reproduction]) -> int:
    return sum(len(one.differences) for one in found)


def headline(result: Result, found: list[Reproduction]) -> Reproduction:
    """The comparison at the headline step, else the last one."""
    step = result.first.test.headline_step
    return next((one for one in found if one.published.steps == step), found[-1])


def outcome(found: list[Reproduction]) -> str:
    """``agrees after 1 and 5 steps, above after 10 (queries per class 1, here 15)``."""
    steps: dict[str, list[str]] = {}
    for one in found:
        said = one.why if one.outcome == "not run" else one.outcome
        steps.setdefault(said, []).append(str(one.published.steps))
    several = len(found) > 1
    text = ", ".join(f"{said} after {words.listed(at)} steps" if several else said for said, at in steps.items())
    remarks = found[0].remarks
    return f"{text} ({remarks})" if remarks and found[0].outcome != "not run" else text


def columns_of(result: Result, found: list[Reproduction]) -> dict[str, Any]:
    """The columns of `reports.scores.tables.main_table` on published numbers."""
    if not found:
        return dict.fromkeys(("published", "published_half_width_95", "reproduced", "published_source"))
    there, scale = headline(result, found).published, words.factor(result.metric)
    return {
        "published": there.value * scale,
        "published_half_width_95": None if there.half_width is None else there.half_width * scale,
        "reproduced": outcome(found),
        "published_source": there.source,
    }


def published_table(results: Results) -> pd.DataFrame:
    """Our number and the published one, with differences of the protocol: one row per result and published step."""
    numbers = published.load()
    rows = []
    for result, found in reproductions(results).items():
        scale = words.factor(result.metric)
        for one in found:
            assert one.mine is not None
            there, mine = one.published, one.mine
            apart = published.distance(there, mine)
            reported = published.spread(numbers, mine.method, mine.protocol.task, there.steps)
            interval = Contrast(result.by_step[mine.steps]).interval()
            judged = one.outcome != "not run"
            rows.append(
                {
                    "method": result.name,
                    "task": words.title(result.column, results.columns),
                    "batch_norm": result.column.regime,
                    "step": mine.steps,
                    "ours": words.plus_minus(interval, result.metric),
                    "published": words.published(there.value, there.half_width, result.metric),
                    "ours_minus_published": apart.difference * scale,
                    "z": apart.z if judged else None,
                    "standard_errors": apart.spread if judged else None,
                    "reproduced": one.outcome if judged else one.why,
                    "protocol_differs": "; ".join(one.differences) or None,
                    "not_stated": ", ".join(one.unknown) or None,
                    "reported_anywhere": words.spread([value * scale for value in reported or ()], "{:.4g}"),
                    "source": there.source,
                }
            )
    return pd.DataFrame(rows)


def sentences(results: Results) -> list[str]:
    """How many published numbers are reached, the differences of the protocol, and each number that is far off; rows
    "[tuned]" do not count."""
    judged, _ = _counted(results)
    apart: dict[str, dict[str, None]] = {}
    for result, one in judged:
        for what in () if one.far else one.differences:
            apart.setdefault(what, {})[result.name] = None
    differ = "; ".join(f"{words.listed(list(names))}: {what}" for what, names in apart.items())
    said = [f"Protocols differ. {differ}."] if apart else []
    return [*_counts(results), *said, *(_flag(result, one, results) for result, one in judged if one.far)]


def counts(results: Results, trained: bool | None = None) -> tuple[Counter[str], int]:
    """The comparisons by outcome, and the number that waits for more training.

    trained: only those of methods that train, or only those of the others."""
    judged, waiting = (
        [pair for pair in pairs if trained in (None, bool(pair[0].training))] for pairs in _counted(results)
    )
    found = Counter(one.outcome for _, one in judged)
    return Counter({way: found[way] for way in published.OUTCOMES}), len(waiting)


def told(judged: Mapping[str, int]) -> list[str]:
    """``12 agree``, ``4 above``: those that there are."""
    return [f"{judged[way]} {'agree' if way == 'agrees' else way}" for way in published.OUTCOMES if judged[way]]


def worse(results: Results) -> int:
    """How many of our numbers are worse than the published ones."""
    return sum(one.outcome == ("below" if result.higher_is_better else "above") for result, one in _counted(results)[0])


Pair = tuple[Result, Reproduction]


def _counted(results: Results) -> tuple[list[Pair], list[Pair]]:
    """The comparisons that are judged, and those that wait for more training."""
    own = [(result, some) for result, some in reproductions(results).items() if not result.first.record.selected]
    found = [(result, one) for result, some in own for one in some]
    return [pair for pair in found if pair[1].outcome != "not run"], [p for p in found if p[1].outcome == "not run"]


def _counts(results: Results) -> list[str]:
    judged, waiting = _counted(results)
    said = []
    if judged:
        ways = ", ".join(told(Counter(one.outcome for _, one in judged)))
        said.append(f"Of {words.count(len(judged), 'published number')}: {ways}.")
    if waiting:
        spent = words.of_budgets(fit for result, _ in waiting for fit in result.training)
        spent = f" ({spent})" if spent else ""
        said.append(f"{len(waiting)} not yet, with under-trained fits{spent}.")
    return said


def _flag(result: Result, one: Reproduction, results: Results) -> str:
    """``opsrl on tabular-mdp-v1/n10: 11 standard errors below 144.1 (the source does not say ...).``"""
    assert one.distance is not None
    z = abs(one.distance.z or 0.0)
    value = words.number(one.published.value, result.metric)
    after = f" after {words.count(one.published.steps, 'step')}" if one.published.steps is not None else ""
    where = f"{result.name} on {words.title(result.column, results.columns)}{after}"
    why = "; ".join(one.differences) or "no reason known"
    return f"{where}: {z:.0f} standard errors {one.outcome} {value} ({why})."


def farthest(results: Results) -> str:
    """The judged number that is farthest from the published one, in standard errors; empty without any."""
    judged = [pair for pair in _counted(results)[0] if pair[1].distance and pair[1].distance.z is not None]
    if not judged:
        return ""
    result, one = max(judged, key=lambda pair: abs(pair[1].distance.z or 0.0) if pair[1].distance else 0.0)
    assert one.mine is not None
    ours = words.plus_minus(Contrast(result.by_step[one.mine.steps]).interval(), result.metric)
    there = words.published(one.published.value, one.published.half_width, result.metric)
    why = f" ({'; '.join(one.differences)})" if one.differences else ""
    where = f"{result.name} on {words.title(result.column, results.columns)}"
    return f"The largest difference: {where}, {ours} here and {there} in the source{why}."
