"""The first screen: a short answer to each question, with a link to the section that it summarises.

Every number comes from that section; nothing is judged here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.stats import top_group
from reports import trend, words
from reports.cost import frames
from reports.cost.worth import UNDER_TRAINED, worth_rows
from reports.results import Results
from reports.scores import findings, tables


@dataclass(frozen=True)
class Answer:
    """question: a heading of the page. section: the id of its section. said: sentences."""

    question: str
    section: str
    said: tuple[str, ...]


def answers(results: Results) -> list[Answer]:
    """The questions that these records can answer."""
    leading = [regimes[0] for regimes in findings.findings_of(results) if regimes[0].own]
    found = [
        Answer("Which is best?", "findings", tuple(best(leading))),
        Answer("Is second order worth it?", "second-order" if results.costs else "claims", tuple(worth(results))),
        Answer("Are published numbers reached?", "published", tuple(reached(results))),
        Answer("Did a change hurt?", "changes", tuple(changed(results))),
    ]
    return [answer for answer in found if answer.said]


def best(leading: Sequence[findings.Finding]) -> list[str]:
    """One sentence per kind of verdict, with its tests."""
    of = {verdict: [one for one in leading if one.verdict == verdict] for verdict in findings.BADGES}
    winners = [f"{one.leader.name} on {one.test}" for one in of["winner"] if one.leader]
    ahead = [f"{_top(one)} on {one.test}" for one in of["under-trained"]]
    tied = [f"{one.test} ({_top(one)})" for one in of["tied"]]
    alone = [one.test for one in of["single"]]
    others = findings.unranked(entry.result.row.role for one in of["single"] for entry in one.entries)
    said = [
        (winners, "Better than every other at this budget: {}."),
        (ahead, "Ahead, but with under-trained fits, so no winner is named: {}."),
        (tied, "No single winner on {}."),
        (alone, f"Only one learner ran on {{}}.{others}"),
        ([one.test for one in of["none"]], "No learner to rank on {}."),
    ]
    return [form.format("; ".join(names)) for names, form in said if names]


def _top(finding: findings.Finding) -> str:
    assert finding.comparison is not None
    return words.listed(top_group(finding.comparison.ranks))


def worth(results: Results) -> list[str]:
    """MAML's gain over FOMAML by test, and the price of a meta-step by device."""
    rows = [row for row in worth_rows(results) if row["leading"]]
    open_rows = [row for row in rows if row["verdict"] == UNDER_TRAINED]
    judged = _placed((str(row["verdict"]), row) for row in rows if row not in open_rows)
    ahead = _placed((_sign(row), row) for row in open_rows)
    said = [f"MAML against FOMAML: {judged}."] if judged else []
    said += [f"With under-trained fits, and so without a verdict, MAML is {ahead}."] if ahead else []
    ratios, spans = frames.ratios(results.costs), []
    for (machine, device), group in ratios[ratios["label"] == frames.OURS].groupby(["machine", "device"], sort=False):
        ends = dict.fromkeys(f"{value:.2f}" for value in (group["time"].min(), group["time"].max()))
        where, unstable = frames.device_name(results.costs, machine, device), frames.unstable(group)
        spans.append(f"{' to '.join(ends)} times as long on {where}")
        spans[-1] += f" ({unstable} of {len(group)} settings timed unstably)" if unstable else ""
    return [*said, *([f"A second-order meta-step takes {words.listed(spans)}."] if spans else [])]


def _sign(row: Mapping[str, Any]) -> str:
    """The side of the adjusted interval of MAML's advantage."""
    even = 1.0 if row["metric"] == "squared error" else 0.0
    if row["advantage_low"] > even:
        return "ahead of FOMAML"
    return "behind FOMAML" if row["advantage_high"] < even else "not told apart from FOMAML"


def _placed(found: Iterable[tuple[str, Mapping[str, Any]]]) -> str:
    """``better on a; b, worse on c``."""
    places: dict[str, list[str]] = {}
    for verdict, row in found:
        places.setdefault(verdict, []).append(str(row["test"]))
    return ", ".join(f"{verdict} on {'; '.join(tests)}" for verdict, tests in places.items())


def reached(results: Results) -> list[str]:
    return [] if tables.published_table(results).empty else [tables.published_sentence(results)]


def changed(results: Results) -> list[str]:
    """The largest slowdown in the history of the regression gate."""
    times = trend.history(results.stores)
    return trend.sentences(times)[:1] if len(times) else ["No regression history yet: run `make gate`."]
