"""Results as text for other programs: tables as Markdown, CSV or LaTeX, and the summary of a CI job."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from benchmarks.errors import MetabenchError, one_line
from reports import style, words
from reports.page.answers import answers
from reports.results import Results, load
from reports.scores import heat, layout
from reports.scores import tables as frames
from reports.scores.findings import Finding, findings_named
from reports.scores.verdict_sentences import UNNAMED, about

Form = Literal["md", "csv", "latex"]
#: of a summary: tests, methods and failures, so that it has at most 40 lines
TESTS, METHODS, FAILURES = 8, 18, 5
#: bold in Markdown
BOLD = re.compile(r"\*\*(.*?)\*\*")


def tables(
    stores: Path | str | Iterable[Path | str], form: Form, test: str | None = None, everything: bool = False
) -> str:
    """The overview, or the tables of the tests whose names contain ``test`` (everything: of all tests).

    form: "md" and "latex" have the numbers as they are shown; "csv" has a line per number, in full. Raises
    `MetabenchError` without an evaluation, and for a test that the records lack."""
    results = load(stores, older=everything)
    if not results.results:
        raise MetabenchError("no evaluation has finished yet")
    if test is None and not everything:
        overview = heat.heat(results, further=False)
        shown, chosen = [heat.table(overview)], {id(cell.result) for line in overview.lines for cell in line.cells}
    else:
        titles = {regimes[0].test for regimes in findings_named(results, test)}
        shown = [one for one in layout.score_tables(results, style.looks(results.labels)) if one.title in titles]
        frame = frames.main_table(results)
        chosen = {id(one) for one, title in zip(frames.ordered(results), frame["task"], strict=True) if title in titles}
    if form == "csv":
        kept = [id(one) in chosen for one in frames.ordered(results)]
        return str(frames.main_table(results)[kept].convert_dtypes().to_csv(index=False)).rstrip("\n")
    if form == "latex":
        return BOLD.sub(r"\\textbf{\1}", "\n\n".join(f"% {one.title}\n{one.latex()}" for one in shown))
    return "\n\n".join(f"**{one.title}**\n\n{one.markdown()}" for one in shown)


def summary(stores: Path | str | Iterable[Path | str]) -> str:
    """The answers, the overview and what failed, as Markdown of at most 40 lines."""
    results = load(stores)
    said = [f"- {one.question} **{one.chip}** {one.said}" for one in answers(results)]
    return "\n\n".join(
        part
        for part in (
            f"## metabench: {words.count(len(results.results), 'result')} in {', '.join(map(str, results.stores))}",
            "\n".join(said),
            overview(results, TESTS, METHODS) if results.results else "",
            "\n".join(_failed(results)),
        )
        if part
    )


def overview(results: Results, tests: int, methods: int) -> str:
    """The overview as Markdown, with a note; at most so many tests and methods."""
    every = heat.heat(results, further=False)
    shown = heat.fewer(every, tests, methods)
    named = words.listed([f"`{path.name}`" for path in results.stores])
    told = [f"Mean ± 95 % over test episodes, records {named}", *_bold(shown.tests)]
    if any(result.under_trained for result in results.results):
        told.append(f"{words.UNDER_TRAINED}: under-trained at this budget")
    left = len(every.tests) - len(shown.tests), len(every.lines) - len(shown.lines)
    if any(left):
        told.append(f"Left out: {words.count(left[0], 'test')} and {words.count(left[1], 'row')}")
    return f"{heat.table(shown).markdown()}\n\n{'. '.join(told)}."


def _bold(tests: Iterable[Finding]) -> list[str]:
    """What bold means, or why nothing is, in the words of the verdicts."""
    judged = [one.comparison for one in tests if one.comparison]
    abouts = words.listed(list(dict.fromkeys(about(one) for one in judged if one.bold)))
    unnamed = words.listed(list(dict.fromkeys(UNNAMED[one.state] for one in judged if one.state in UNNAMED)))
    named = [f"Bold: none is significantly better, {abouts}"] if abouts else []
    return [*named, *([f"No bold where no winner is named ({unnamed})"] if unnamed else [])]


def _failed(results: Results) -> list[str]:
    """A line per reason for failed runs and per damaged file, the first ones."""
    rows = frames.failures_table(results).to_dict("records")
    found = [
        f"- {row['status']}: {one_line(row['reason'])} ({row['where']})" for row in rows if row["status"] != "skipped"
    ]
    found += [f"- could not be read: {problem}" for problem in results.problems]
    more = len(found) - FAILURES
    return [*found[:FAILURES], f"- {words.count(more, 'further failure')}"] if more > 0 else found
