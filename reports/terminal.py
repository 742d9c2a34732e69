"""Results in a terminal: an overview of at most 60 lines, or the tables of single tests in full."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from benchmarks.errors import MetabenchError, one_line
from reports import style, words
from reports.columns import Column, chunks, heading
from reports.columns import table as of_columns
from reports.page import answers
from reports.results import Results, load
from reports.scores import layout, tables
from reports.scores.findings import Entry, Finding, findings_of

#: lines of the overview, and of its parts that could grow without end
LINES, LISTED = 60, 5
#: details next to the scores of a full table, if there is room
SHOWN = ("rank", "groups", "seeds", "sd over seeds", "of budget", "training")
#: columns between two tables
GAP = 3
NOTHING = "No evaluation has finished yet."
#: share of its methods that a test must have in common with a table of the overview to become a column of it
COMMON = 0.5

COLOURS = ("blue", "red", "green", "magenta", "yellow", "bright_black", "cyan", "bright_blue")


def show(
    stores: Path | str | Iterable[Path | str],
    console: Console,
    test: str | None = None,
    everything: bool = False,
    where: str = "",
) -> None:
    """Print the overview.

    test: print the full tables of the tests whose names contain this instead.
    everything: print those of all tests, older code of a method, and all failures.
    where: the options of `metabench show` that name these records, for the commands that the output recommends.

    Raises `MetabenchError` without records, and for a test that the records lack."""
    results = load(stores, older=everything)
    findings = findings_of(results)
    if test is None and not everything:
        _overview(results, findings, console, f"metabench show{where} --all")
        return
    known = [regimes[0].test for regimes in findings]
    chosen = [regimes for regimes in findings if (test or "") in regimes[0].test]
    if test is not None and not chosen:
        raise MetabenchError(f"no test {test!r} here; known: {'; '.join(known) or 'none'}")
    _in_full(results, chosen, console)
    for part in [*_answers(results), *_failures(results)] if everything else []:
        console.print(part)
    for part in _legend(results):
        console.print(part)


# --- the overview ------------------------------------------------------------------------------------------------


def _overview(results: Results, findings: Sequence[Sequence[Finding]], console: Console, more: str) -> None:
    """The headline test conditions as tables of methods and tests, the answers in short, and the failures.

    more: the command that shows everything."""
    leading = [regimes[0] for regimes in findings if regimes[0].own]
    below: list[RenderableType] = [*_answers(results), *_failures(results, LISTED, more), *_legend(results)]
    if not results.results and results.records:
        below.insert(0, Text(NOTHING))
    further = len(findings)
    left = LINES - sum(_height(part, console) for part in [*below, _further(further, more)])
    parts = [part for group in _groups(leading) for part in _group_tables(results, group, console.width)]
    for line in _packed(parts, console):
        row = Table.grid(padding=(0, GAP, 0, 0))
        row.add_row(*(table for table, _ in line))
        left -= _height(row, console) + 1
        if left >= 0:
            console.print(row, "")
            further -= sum(count for _, count in line)
    if further:
        below.append(_further(further, more))
    for part in below:
        console.print(part)


def _further(tests: int, more: str) -> Text:
    return Text(f"{words.count(tests, 'further test')}: {more}, or --test NAME", style="dim")


def _packed(parts: Sequence[tuple[Table, int]], console: Console) -> list[list[tuple[Table, int]]]:
    """Tables in lines, next to each other where there is room; the first fit in their order."""
    lines: list[list[tuple[Table, int]]] = []
    used: list[int] = []
    for part in parts:
        width = console.measure(part[0]).maximum
        place = next((number for number, taken in enumerate(used) if taken + width <= console.width), len(lines))
        if place == len(lines):
            lines.append([])
            used.append(0)
        lines[place].append(part)
        used[place] += width + GAP
    return lines


def _height(part: RenderableType, console: Console) -> int:
    return len(console.render_lines(part, pad=False))


def _groups(findings: Sequence[Finding]) -> list[list[Finding]]:
    """Tests that most methods share, so that their table has few gaps."""
    groups: list[tuple[set[str], list[Finding]]] = []
    for finding in findings:
        own = {entry.result.name for entry in finding.entries}
        near = (group for group in groups if len(own & group[0]) >= COMMON * max(1, min(len(own), len(group[0]))))
        names, members = next(near, (set(), []))
        if not members:
            groups.append((names, members))
        names |= own
        members.append(finding)
    return [members for _, members in groups]


def _group_tables(results: Results, group: Sequence[Finding], width: int) -> Iterator[tuple[Table, int]]:
    """The tables of a group and the number of tests in each; rows in the order of the first test that has them."""
    order = list(dict.fromkeys(entry.result for finding in group for entry in _best_first(finding)))
    labels, looks = {result.name: result.label for result in order}, style.looks(results.labels)
    names = Column("method", [_name(name, looks[label]) for name, label in labels.items()], numeric=False)
    columns = []
    for finding in group:
        entries = {entry.result.name: entry for entry in finding.entries}
        columns.append(Column(_title(finding), [_number(entries.get(name)) for name in labels]))
    for chunk in chunks(names, columns, width):
        yield of_columns([names, *chunk]), len(chunk)


def _best_first(finding: Finding) -> list[Entry]:
    sign = -1 if any(entry.result.higher_is_better for entry in finding.entries) else 1
    return sorted(finding.entries, key=lambda entry: sign * entry.result.interval.estimate)


def _title(finding: Finding) -> str:
    """A test, what is measured, and the batch-norm regime where there is one."""
    metric = words.axis(finding.entries[0].result.metric).removeprefix("mean ") if finding.entries else ""
    regime = "" if finding.regime == "none" else f"\nBN {finding.regime}"
    return f"{heading(finding.test)}\n{metric}{regime}"


def _number(entry: Entry | None) -> Text:
    """A score; bold as the verdict on its column says."""
    if entry is None:
        return Text("")
    return _marked(Text(entry.number, style="bold" if entry.top else ""), entry.result.under_trained)


def _marked(text: Text, under_trained: bool) -> Text:
    return text.append(words.UNDER_TRAINED, style="yellow") if under_trained else text


# --- tables in full ----------------------------------------------------------------------------------------------


def _in_full(results: Results, findings: Sequence[Sequence[Finding]], console: Console) -> None:
    """The table of each test with its sentences."""
    looks = style.looks(results.labels)
    scores = {table.title: table for table in layout.score_tables(results, looks)} if results.results else {}
    for regimes in findings:
        table = scores[regimes[0].test]
        console.print(Text(table.title, style="bold"))
        for part in _full_tables(table, console.width):
            console.print(part)
        console.print(Text(", ".join(f"{name} {value}" for name, value in table.common), style="dim"))
        for finding in regimes:
            where = f" with {words.REGIME_TITLES[finding.regime].replace(':', '')}" if finding.regime != "none" else ""
            said = Text(f"{finding.headline}{where}. ", style="bold")
            console.print(said.append(finding.sentence, style="not bold"))
        console.print(f"{regimes[0].context}\n", style="dim", markup=False, highlight=False)
    if not scores and results.records:
        console.print(NOTHING)


def _full_tables(table: layout.Table, width: int) -> Iterator[Table]:
    """One table with its details where that is narrow enough, else the scores alone, in several tables if need be."""
    kept = [(i, one) for i, one in enumerate(table.headers) if i == 0 or one.score or one.title in SHOWN]
    names, *columns = (
        Column(heading(one.title.removeprefix("batch-norm: ")), [_cell(row[i]) for row in table.rows], one.numeric)
        for i, one in kept
    )
    if names.width + sum(column.width for column in columns) > width:
        columns = [column for column, (_, one) in zip(columns, kept[1:], strict=True) if one.score]
    for chunk in chunks(names, columns, width):
        yield of_columns([names, *chunk])


def _cell(cell: layout.Cell) -> Text:
    return _marked(_name(cell.text, cell.look) if cell.look else Text(cell.text), cell.mark)


def _name(name: str, look: style.Look) -> Text:
    return Text(name, style=COLOURS[look.index % len(COLOURS)])


# --- shared parts ----------------------------------------------------------------------------------------------


def _answers(results: Results) -> list[RenderableType]:
    return [
        Text(f"{answer.question} {answer.chip}. ", style="bold").append(answer.said, style="not bold")
        for answer in answers.answers(results)
    ]


def _failures(results: Results, most: int | None = None, more: str = "") -> list[RenderableType]:
    """A line per reason for failed runs, and per damaged file.

    most: the most lines; skipped runs are then left out. more: the command that shows the others."""
    found = [
        Text(f"{row['status']}: ", style="dim" if row["status"] == "skipped" else "bold red")
        .append(f"{one_line(row['reason'])} ", style="default")
        .append(f"[{row['where']}]", style="dim")
        for row in tables.failures_table(results).to_dict("records")
        if most is None or row["status"] != "skipped"
    ]
    found += [Text(f"could not be read: {problem}", style="yellow") for problem in results.problems]
    if most is None or len(found) <= most:
        return list(found)
    return [*found[:most], Text(f"{len(found) - most} further reasons: {more}", style="dim")]


def _legend(results: Results) -> list[RenderableType]:
    bold = (
        "Bold: none is significantly better (below 5 seeds: for these trained models); nowhere bold: no winner named."
    )
    told = [bold]
    if any(result.under_trained for result in results.results):
        told.append(f"{words.UNDER_TRAINED} rests on an under-trained fit.")
    shares = {f"{one.name} on {one.column.task}": share for one in results.results if (share := results.failed(one))}
    if shares:
        worst = max(shares, key=shares.__getitem__)
        told.append(f"Adaptations failed: {words.percent(shares[worst])} of {worst}{', the most' * (len(shares) > 1)}.")
    return [Text(" ".join(told), style="dim")] if results.results else []
