"""The first screen: what can be said about each test, in one careful sentence.

The intervals here are over test episodes only: they speak about the models that were trained, not about the methods
in general. No winner is named where the paired difference may be zero or where a fit is under-trained.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reports import words
from reports.data import REGIMES, Result, Results
from reports.intervals import Interval, paired_interval

#: verdict -> what the page says at a glance
BADGES = {
    "separated": "interval excludes zero",
    "undecided": "no winner: not separated",
    "under-trained": "no winner: under-trained",
    "single": "nothing to compare with",
    "none": "no number",
}


@dataclass(frozen=True)
class Finding:
    """What a test in one batch-norm regime says: the leader, the runner-up and how sure the difference is.

    advantage: by how much the leader is ahead, positive is better; over the episodes that both have.
    verdict: "separated" (the paired interval excludes zero and every fit is trained), "undecided", "under-trained",
    "single" (nobody to compare with) or "none" (no finite number)."""

    test: str
    regime: str
    verdict: str
    leader: Result | None
    runner_up: Result | None
    advantage: Interval | None
    headline: str
    sentence: str
    context: str
    results: tuple[Result, ...]

    @property
    def number(self) -> str:
        """The leader's mean and interval, with its unit."""
        return words.mean_with_unit(self.leader.interval, self.leader.metric) if self.leader else ""


def findings(results: Results) -> list[list[Finding]]:
    """For each test, a finding per regime; the regime with most methods first."""
    titles = {column.test: words.title(column, results.columns) for column in results.columns}
    return [_of_test(test, results.results, title) for test, title in titles.items()]


def _of_test(test: tuple, results: list[Result], title: str) -> list[Finding]:
    here = [result for result in results if result.column.test == test]
    plain = [result for result in here if result.column.regime == "none"]
    found = [result.column.regime for result in here if result.column.regime != "none"]
    regimes = sorted(set(found), key=lambda regime: (-found.count(regime), REGIMES.index(regime))) or ["none"]
    return [
        _finding(
            title, regime, [result for result in here if result.column.regime == regime] + plain * (regime != "none")
        )
        for regime in regimes
    ]


def _finding(test: str, regime: str, results: list[Result]) -> Finding:
    ranked = rank(results)
    leader = ranked[0] if ranked else None
    runner_up = ranked[1] if len(ranked) > 1 else None
    advantage = _advantage(leader, runner_up) if leader and runner_up else None
    verdict = _verdict(ranked, advantage)
    headline, sentence = _say(verdict, ranked, advantage)
    return Finding(
        test,
        regime,
        verdict,
        leader,
        runner_up,
        advantage,
        headline,
        sentence,
        _context(ranked, results),
        tuple(results),
    )


def rank(results: list[Result]) -> list[Result]:
    """The results that compete (no oracle, a finite mean), best first."""
    competing = [result for result in results if not result.ceiling and np.isfinite(result.interval.mean)]
    return sorted(competing, key=lambda r: (-r.interval.mean if r.higher_is_better else r.interval.mean, r.name))


def _advantage(leader: Result, runner_up: Result) -> Interval:
    """How far the leader is ahead over the shared episodes; positive is better, for errors too."""
    pair = (leader, runner_up) if leader.higher_is_better else (runner_up, leader)
    return paired_interval(pair[0].headline, pair[1].headline)


def _verdict(ranked: list[Result], advantage: Interval | None) -> str:
    if not ranked:
        return "none"
    if advantage is None:
        return "single"
    if any(result.under_trained for result in ranked):
        return "under-trained"
    return "undecided" if advantage.contains_zero else "separated"


def _say(verdict: str, ranked: list[Result], advantage: Interval | None) -> tuple[str, str]:
    """The headline and the sentence below it."""
    if verdict == "none":
        return "No finite number", "Every finished evaluation of this test has scores that are not a number."
    leader = ranked[0]
    extreme = "highest mean" if leader.higher_is_better else "lowest mean error"
    if verdict == "single" or advantage is None:
        return f"Only {leader.name} was measured", "There is nobody to compare it with here."
    headline = f"{leader.name} has the {extreme}"
    paired = _paired(ranked[1], advantage)
    if verdict == "under-trained":
        names = _list([result.name for result in ranked if result.under_trained])
        return headline, f"{paired} No winner is named: {names} {_is(ranked)} under-trained at this budget."
    if verdict == "undecided":
        why = "That interval contains zero" if advantage.known else "One shared episode gives no interval"
        return headline, f"{paired} {why}, so no winner is named at this budget."
    return headline, f"{paired} At this budget, and for these trained models, the difference is there."


def _paired(runner_up: Result, advantage: Interval) -> str:
    if not advantage.episodes:
        return f"It shares no test episode with {runner_up.name}, the next, so there is no paired difference."
    ahead = f"Ahead of {runner_up.name}, the next, by {words.difference(advantage, runner_up.metric)}"
    return f"{ahead}, paired over {words.count(advantage.episodes, 'shared episode')}."


def _context(ranked: list[Result], results: list[Result]) -> str:
    """Seeds, episodes and share of the published budget of those compared; the oracle beside them."""
    parts = []
    if ranked:
        seeds = sorted({len(result.records) for result in ranked})
        parts.append(words.spread(seeds) + (" seed" if seeds == [1] else " seeds"))
        parts.append(words.spread(sorted({r.interval.episodes for r in ranked})) + " test episodes")
    shares = [training.get("share") for result in ranked for training in result.training]
    known = [share for share in shares if share is not None]
    if known:
        low, high = words.percent(min(known)), words.percent(max(known))
        parts.append(f"{low if low == high else f'{low} to {high}'} of the published budget")
    parts += [
        f"ceiling: {result.name} {words.mean_with_unit(result.interval, result.metric)}"
        for result in results
        if result.ceiling
    ]
    return " · ".join(parts)


def _is(ranked: list[Result]) -> str:
    return "is" if sum(result.under_trained for result in ranked) == 1 else "are"


def _list(names: list[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
