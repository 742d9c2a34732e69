"""The cards of the first screen: the verdict on each test, as one sentence.

Every verdict comes from `benchmarks.stats`; docs/statistics.md explains them.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from benchmarks.errors import MetabenchError
from benchmarks.stats import Column, Comparison, Verdict
from reports import words
from reports.results import Result, Results
from reports.scores.verdict_sentences import BADGES, CHIPS, ends, headline, sentence

#: scope of an interval -> what else the difference would hold for
SCOPES = {"models": "other episodes", "methods": "other training seeds", "classes": "other classes"}


@dataclass(frozen=True)
class Entry:
    """A line of a card: a method with its number.

    top: whether it is shown in bold (`Comparison.bold`)
    rank, groups: among methods, so only where seeds are enough for that; groups are letters, and two methods that share
        one can't be told apart (a compact letter display). Floor and ceiling have none."""

    result: Result
    number: str
    top: bool
    rank: int | None
    groups: str


@dataclass(frozen=True, eq=False)
class Finding:
    """The verdict on a test in one batch-norm regime.

    verdict: one of `benchmarks.stats.comparison.STATES`.
    leader: the best mean among the ranked entries.
    pair: the leader and the next.
    entries: ranked ones by their means, then ceiling, floor and what can't be compared.
    own: whether a method was trained for this test; else the test is a further condition.
    """

    test: str
    regime: str
    verdict: str
    leader: Result | None
    pair: Verdict | None
    comparison: Comparison | None
    headline: str
    sentence: str
    context: str
    entries: tuple[Entry, ...]
    own: bool

    @property
    def measured(self) -> str:
        """The metric and which way is better; for classification also way and shots."""
        if self.leader is None:
            return ""
        column = self.leader.column
        way = f"{column.way}-way {column.shots}-shot " if column.way else ""
        better = "" if self.leader.higher_is_better else ", smaller is better"
        return way + words.axis(self.leader.metric).removesuffix(" (%)") + better

    @property
    def intervals(self) -> list[tuple[str, str]]:
        """The unadjusted 95 % intervals of the leading pair: (scope, interval)."""
        if self.pair is None or not self.leader:
            return []
        # seeds change nothing about methods that train nothing
        scopes = [scope for scope in self.pair.contrast.scopes() if self.pair.contrast.trained or scope != "methods"]
        found = [(SCOPES[scope], self.pair.interval(scope)) for scope in scopes]
        return [(over, ends(interval, self.leader.metric)) for over, interval in found if interval.known]

    @property
    def chip(self) -> str:
        """The verdict in one word."""
        return CHIPS[self.verdict]

    @property
    def heading(self) -> tuple[str, str]:
        """The task without its version, and the condition: ``omniglot``, ``5-way 1-shot``."""
        task, _, condition = self.test.partition("/")
        column = self.entries[0].result.column
        if self.own and not column.control and column.support:
            condition = f"{column.way}-way {column.support}" if column.way else column.support
        return re.sub(r"-v\d+$", "", task), condition

    @property
    def unit(self) -> str:
        """The metric with its unit, and the batch-norm regime where there is one."""
        metric = words.axis(self.entries[0].result.metric)
        return metric if self.regime == "none" else f"{metric}, {words.REGIME_TITLES[self.regime]}"

    @property
    def higher_is_better(self) -> bool:
        return self.entries[0].result.higher_is_better

    @property
    def badge(self) -> str:
        """The verdict in a few words."""
        return BADGES[self.verdict]

    @property
    def number(self) -> str:
        """The leader's mean and interval, with its unit."""
        return words.mean_with_unit(self.leader.interval, self.leader.metric) if self.leader else ""


@functools.lru_cache(maxsize=1)
def findings_of(results: Results) -> list[list[Finding]]:
    """For each test, a finding per regime; the regime with most methods first."""
    found: dict[tuple, list[Finding]] = {}
    for column in results.compared:
        found.setdefault(column.protocol.test, []).append(_finding(results, column))
    return list(found.values())


def findings_named(results: Results, part: str | None = None) -> list[list[Finding]]:
    """The findings of the tests whose names contain ``part``; raises `MetabenchError` for a part of none."""
    found = findings_of(results)
    chosen = [regimes for regimes in found if (part or "") in regimes[0].test]
    if part is not None and not chosen:
        raise MetabenchError(f"no test {part!r} here; known: {'; '.join(one[0].test for one in found) or 'none'}")
    return chosen


def _finding(results: Results, column: Column) -> Finding:
    here = [results.of(row) for row in column.rows]
    known = {result.name: result for result in here}
    title = words.title(column.protocol, results.columns)
    judged = results.verdicts[column.protocol]
    comparison = judged if isinstance(judged, Comparison) else None
    names = comparison.names if comparison else ()
    leader = known[names[0]] if names else None
    pair = _first_pair(comparison) if comparison else None
    verdict = comparison.state if comparison else "none"
    said = _say(comparison, pair)
    if not isinstance(judged, Comparison):
        said = f"{judged}."
    if verdict == "single":
        said += unranked(result.row.role for result in here)
    return Finding(
        title,
        column.protocol.regime,
        verdict,
        leader,
        pair,
        comparison,
        headline(comparison),
        said,
        _context([known[name] for name in names]),
        _entries(here, comparison),
        results.own(column.protocol.test),
    )


def unranked(roles: Iterable[str]) -> str:
    """A sentence about the rows that are not ranked; empty without any."""
    here = set(roles)
    found = [f"{role}s" for role in ("floor", "ceiling") if role in here]
    return f" The other methods are {' and '.join(found)}, which are not ranked." if found else ""


def _first_pair(comparison: Comparison) -> Verdict | None:
    """The two best means, where they share a seed."""
    if len(comparison.names) < 2 or comparison.names[:2] in comparison.unpaired:
        return None
    return comparison.pair(*comparison.names[:2])


def _say(comparison: Comparison | None, pair: Verdict | None) -> str:
    """The sentences below the headline."""
    if comparison is None or not comparison.names:
        return "No learner has a finished evaluation with scores to compare."
    left = "".join(f" Left out: {why}." for why in comparison.left_out.values())
    if comparison.state == "single":
        return f"Only one learner ran on this task.{left}"
    return f"{sentence(pair) if pair else _unpaired(comparison)}{_why(comparison, pair)}{left}"


def _why(comparison: Comparison, pair: Verdict | None) -> str:
    """Why no winner is named, beyond what the sentence on the leading pair says."""
    if comparison.state == "unstable":
        carried = dict.fromkeys(one.unstable for one in comparison.unstable if pair not in comparison.unstable)
        return f" {'; '.join(carried)}." if carried else ""
    others = [one for one in comparison.starved if one is not pair]
    short = comparison.under_trained
    who = words.listed(short) if len(short) < 4 else f"{len(short)} of {len(comparison.names)} methods"
    told = [f"{who} {'is' if len(short) == 1 else 'are'} under-trained"] if short else []
    unequal = [one.starved for one in others if not {one.first, one.second} & set(short)]
    told += unequal[:1] + [f"{words.count(len(unequal) - 1, 'more pair')} as unequal"] * (len(unequal) > 1)
    return f" {'; '.join(told)}: more training may change the order." if others else ""


def _unpaired(comparison: Comparison) -> str:
    first, second = comparison.names[:2]
    return f"{first} and {second} share no training seed, so there is no paired difference."


def _entries(here: list[Result], comparison: Comparison | None) -> tuple[Entry, ...]:
    ranks, groups = comparison.ranking if comparison else ({}, {})
    bold = comparison.bold if comparison else []
    order = {name: place for place, name in enumerate(comparison.names if comparison else ())}
    return tuple(
        Entry(
            result,
            words.plus_minus(result.interval, result.metric),
            result.name in bold,
            ranks.get(result.name),
            groups.get(result.name, "" if result.row.role == "learner" else result.row.role),
        )
        for result in sorted(here, key=lambda one: (order.get(one.name, len(order)), one.row.role, *_best_first(one)))
    )


def _best_first(result: Result) -> tuple[float, str]:
    mean = result.interval.estimate
    return (math.inf if math.isnan(mean) else -mean if result.higher_is_better else mean), result.name


def _context(ranked: list[Result]) -> str:
    """Seeds, episodes and shares of the budgets of the ranked entries."""
    parts = []
    if ranked:
        seeds = sorted({len(result.tested) for result in ranked})
        parts.append(words.spread(seeds) + (" seed" if seeds == [1] else " seeds"))
        episodes = words.spread(sorted({r.row.values.shape[1] for r in ranked}))
        parts.append(f"{episodes} test episode{'' if episodes == '1' else 's'}")
    parts.append(words.of_budgets(training for result in ranked for training in result.training))
    return " · ".join(filter(None, parts))
