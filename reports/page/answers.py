"""The first screen: a chip and one line for each question, with a link to the section that it summarises.

Every number comes from that section; nothing is judged here."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reports import trend, words
from reports.cost import frames
from reports.cost.worth import worth_rows
from reports.results import Results
from reports.scores import findings, reproduced
from reports.scores.verdict_sentences import CHIPS

#: words of an answer, at most
LENGTH = 18


@dataclass(frozen=True)
class Answer:
    """question: a heading of the page. section: the id of its section. chip: the answer in a word or two.
    verdict: "winner", "tied", "starved" or "", for the colour. said: one line."""

    question: str
    section: str
    chip: str
    verdict: str
    said: str


def answers(results: Results) -> list[Answer]:
    """The questions that these records can answer."""
    asked: tuple[tuple[str, str, Callable[[Results], tuple[str, str, str] | None]], ...] = (
        ("Which is best?", "findings", best),
        ("Is second order worth it?", "second-order" if results.costs else "claims", worth),
        ("Are published numbers reached?", "published", reached),
        ("Did a change hurt?", "changes", changed),
    )
    found = [(question, section, answer(results)) for question, section, answer in asked]
    return [Answer(question, section, *said) for question, section, said in found if said is not None]


def _decides(found: int, tests: int) -> bool:
    """Whether a word may stand for all tests: half of them say it."""
    return found > 0 and 2 * found >= tests


def best(results: Results) -> tuple[str, str, str] | None:
    """The winners, where there are any, and the number of tests without one."""
    leading = [regimes[0] for regimes in findings.findings_of(results) if regimes[0].own]
    if not leading:
        return None
    counts = Counter(one.verdict for one in leading)
    won = [one for one in leading if one.verdict == "winner"]
    compared = len(leading) - counts["single"] - counts["none"]
    verdict = "winner" if _decides(len(won), compared) else max(OTHERS, key=lambda name: counts[name])
    others = [f"{counts[name]} {said}" for name, said in OTHERS.items() if counts[name]]
    return CHIPS[verdict], verdict, f"{_winners(won, len(leading), others)}."


#: verdict -> how tests without a winner are counted
OTHERS = {
    "starved": "too early",
    "tied": "tied",
    "unstable": "unstable",
    "single": "with one learner",
    "none": "without a learner's number",
}


def _winners(won: Sequence[findings.Finding], tests: int, others: Sequence[str]) -> str:
    """``maml on glyphs-v1/5w1s; of the other 3: 1 tied, 2 too early``: the longest form of at most `LENGTH` words."""
    if not won:
        return f"No winner on {words.count(tests, 'test')}: {', '.join(others)}"
    names = [one.leader.name for one in won if one.leader]
    top, count = Counter(names).most_common(1)[0]
    full = words.listed([f"{name} on {one.test}" for name, one in zip(names, won, strict=True)])
    brief = f"{words.count(len(won), 'winner')} on {words.count(tests, 'test')}, most often {top} ({count})"
    rest, left = f"the other {tests - len(won)}: {', '.join(others)}", f"{tests - len(won)} without a winner"
    forms = ("; ".join((who, what) if others else (who,)) for who in (full, brief) for what in (rest, left))
    return next((form for form in forms if len(form.split()) <= LENGTH), brief)


#: verdict on MAML against FOMAML -> how it is counted, decided ones first
WORTH = {
    "better": "better",
    "worse": "worse",
    "equivalent": "equivalent",
    "non-inferior": "at least as good",
    "no better": "no better",
    "undecided": "undecided",
    "unstable": "unstable",
}
#: verdicts that answer no, and those that answer nothing yet
NOT_WORTH, EARLY = ("worse", "equivalent", "no better"), ("ahead", "behind", "not comparable")


def worth(results: Results) -> tuple[str, str, str] | None:
    """MAML against FOMAML over the tests, and the price of a meta-step."""
    rows = [row for row in worth_rows(results) if row["leading"]]
    verdicts = Counter(str(row["verdict"]) for row in rows)
    price = _price(results)
    if not verdicts:
        return None if not price else ("MEASURED", "", f"A second-order meta-step takes {price} as long.")
    counts = [f"{said} on {_where(name, rows)}" for name, said in WORTH.items() if verdicts[name]]
    early = sum(verdicts[name] for name in EARLY)
    counts += [f"too early on {early}"] if early else []
    cost = f"; takes {price} as long" if price else ""
    return *_worth_chip(verdicts), f"MAML against FOMAML: {', '.join(counts)}{cost}."


def _where(verdict: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """The test of a decided verdict where it is the only one, else the number of tests."""
    tests = [re.sub(r"-v\d+/", "/", str(row["test"]).split(",")[0]) for row in rows if row["verdict"] == verdict]
    return tests[0] if len(tests) == 1 and verdict in ("better", *NOT_WORTH) else str(len(tests))


def _worth_chip(verdicts: Counter[str]) -> tuple[str, str]:
    no, early = (sum(verdicts[name] for name in names) for names in (NOT_WORTH, EARLY))
    tests = verdicts.total()
    if not _decides(verdicts["better"] + no, tests):
        return ("TOO EARLY", "starved") if _decides(early, tests) else ("UNDECIDED", "tied")
    if verdicts["better"] and no:
        return "DEPENDS", "tied"
    return "YES" if verdicts["better"] else "NO", "winner"


def _price(results: Results) -> str:
    """``1.39–2.58 times``, over the settings of all machines and devices."""
    ratios = frames.ratios(results.costs)
    times = ratios[ratios["label"] == frames.OURS]["time"]
    return f"{words.spread(times, '{:.2f}')} times" if len(times) else ""


def reached(results: Results) -> tuple[str, str, str] | None:
    """The published numbers that agree, and those that do not."""
    judged, waiting = reproduced.counts(results)
    if not judged.total() and not waiting:
        return None
    total, worse = judged.total(), reproduced.worse(results)
    groups = {"trained methods": True, "players": False}
    told = {who: _outcomes(*reproduced.counts(results, trained)) for who, trained in groups.items()}
    said = "; ".join(f"{who}: {found}" for who, found in told.items() if found).capitalize() + "."
    if not _decides(total, total + waiting):
        return "TOO EARLY", "starved", said
    chip = ("NO", "starved") if 2 * worse > total else ("MOSTLY", "tied") if worse else ("YES", "winner")
    return *chip, said


def _outcomes(judged: Mapping[str, int], waiting: int) -> str:
    """``12 agree, 4 above, 43 too early``."""
    return ", ".join([*reproduced.told(judged), *([f"{waiting} too early"] if waiting else [])])


def changed(results: Results) -> tuple[str, str, str]:
    """The largest slowdown in the history of the regression gate; without times, what its exact counts say."""
    times, latest = trend.history(results.stores), trend.counted(results.stores)
    if latest and (latest.changed or not trend.compares(times)):
        return *(("YES", "starved") if latest.changed else ("NO", "winner")), trend.counts_say(latest)
    if times.empty:
        return "NO HISTORY", "", "No regression history yet: run `make gate`."
    levels = trend.level_table(times)
    slower = levels[levels["latest_change"].fillna(0) > 0]
    if slower.empty:
        return "NO", "winner", f"None of {words.count(len(levels), 'timed step')} is slower than before."
    worst = slower.sort_values("latest_change").iloc[-1]
    return (
        "YES",
        "starved",
        f"{worst['step']} takes {worst['latest_change']:.1%} more time since {worst['since_commit']}.",
    )
