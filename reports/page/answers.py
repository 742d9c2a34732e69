"""The first screen: a short answer to each question, with a link to the section that it summarises.

Every number comes from that section; nothing is judged here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reports import trend, words
from reports.cost import frames
from reports.cost.worth import worth_rows
from reports.results import Results
from reports.scores import findings, reproduced
from reports.scores.verdict_sentences import BADGES, UNNAMED, about


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
        Answer("Are published numbers reached?", "published", tuple(reproduced.summary(results))),
        Answer("Did a change hurt?", "changes", tuple(changed(results))),
    ]
    return [answer for answer in found if answer.said]


#: verdict on a column -> how it is said, in the words of its badge: for which models or methods, and then the methods
#: and their test
SAID = {
    "winner": "Better than every other at this budget, {}: {{}}.",
    "tied": "No single winner, {}: {{}}.",
    "starved": f"No winner named, {{}} ({UNNAMED['starved']}). Best means: {{{{}}}}.",
}


def best(leading: Sequence[findings.Finding]) -> list[str]:
    """One sentence per kind of verdict, with its tests."""
    of = {state: [one for one in leading if one.verdict == state] for state in BADGES}
    alone = [one.test for one in of["single"]]
    others = findings.unranked(entry.result.row.role for one in of["single"] for entry in one.entries)
    said = [
        *((form.format(about), names) for verdict, form in SAID.items() for about, names in _tops(of[verdict])),
        (f"No winner named ({UNNAMED['unstable']}): {{}}.", [one.test for one in of["unstable"]]),
        (f"Only one learner ran on {{}}.{others}", alone),
        ("No learner to rank on {}.", [one.test for one in of["none"]]),
    ]
    return [form.replace("{}", "; ".join(names)) for form, names in said if names]


def _tops(found: Sequence[findings.Finding]) -> Iterable[tuple[str, list[str]]]:
    """``a and b on a-test``, by the models or methods that this holds for."""
    groups: dict[str, list[str]] = {}
    for one in found:
        if one.comparison is not None:
            names = one.comparison.bold or one.comparison.names[:1]
            groups.setdefault(about(one.comparison), []).append(f"{words.listed(names)} on {one.test}")
    return groups.items()


def worth(results: Results) -> list[str]:
    """MAML's gain over FOMAML by test, and the price of a meta-step by device."""
    rows = [row for row in worth_rows(results) if row["leading"]]
    judged = _placed((str(row["verdict"]), row) for row in rows)
    said = [f"MAML against FOMAML: {judged}."] if judged else []
    if {row["verdict"] for row in rows} & {"ahead", "behind", "not comparable"}:
        said.append("Ahead, behind and not comparable are no verdicts.")
    ratios, spans = frames.ratios(results.costs), []
    for (machine, device), group in ratios[ratios["label"] == frames.OURS].groupby(["machine", "device"], sort=False):
        ends = dict.fromkeys(f"{value:.2f}" for value in (group["time"].min(), group["time"].max()))
        where, unstable = frames.device_name(results.costs, machine, device), frames.unstable(group)
        spans.append(f"{' to '.join(ends)} times as long on {where}")
        spans[-1] += f" ({unstable} of {len(group)} settings unstable)" if unstable else ""
    return [*said, *([f"A second-order meta-step takes {words.listed(spans)}."] if spans else [])]


def _placed(found: Iterable[tuple[str, Mapping[str, Any]]]) -> str:
    """``better on a; b, worse on c``."""
    places: dict[str, list[str]] = {}
    for verdict, row in found:
        places.setdefault(verdict, []).append(str(row["test"]))
    return ", ".join(f"{verdict} on {'; '.join(tests)}" for verdict, tests in places.items())


def changed(results: Results) -> list[str]:
    """The largest slowdown in the history of the regression gate."""
    times = trend.history(results.stores)
    return trend.sentences(times)[:1] if len(times) else ["No regression history yet: run `make gate`."]
