"""Results in a terminal: an overview of at most 60 lines, or the tables of single tests in full."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from benchmarks.errors import one_line
from reports import style, words
from reports.columns import Column, chunks, heading
from reports.columns import table as of_columns
from reports.page import answers
from reports.results import Results, load
from reports.scores import heat, layout, tables
from reports.scores.findings import Finding, findings_named, findings_of

#: lines of the overview, and of its parts that could grow without end
LINES, LISTED = 60, 5
#: methods of a group in a table: the first number with which all tests have room, else the last
MOST = (100, 24, 18, 12, 8)
#: details next to the scores of a full table, if there is room
SHOWN = ("rank", "groups", "seeds", "sd over seeds", "of budget", "stood still at", "training")
#: columns between two tables
GAP = 3
NOTHING = "No evaluation has finished yet."
#: share of its methods that a test must have in common with a table of the overview to become a column of it
COMMON = 0.5

#: a score at the ceiling, one of an under-trained method there, and their texts
FULL, SHORT, INK, QUIET = "#5fa882", "#d5dae0", "#000000", "#5b6570"
STATUS = {"skipped": "dim", "unfinished": "yellow"}
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
    if test is None and not everything:
        _overview(results, findings_of(results), console, f"metabench show{where} --all")
        return
    _in_full(results, findings_named(results, test), console)
    for part in [*_answers(results), *_failures(results)] if everything else []:
        console.print(part)
    for part in _legend(results):
        console.print(part)


# --- the overview ------------------------------------------------------------------------------------------------


def _overview(results: Results, findings: Sequence[Sequence[Finding]], console: Console, more: str) -> None:
    """The table of methods and tests in pieces that fit, the answers in short, and the failures.

    more: the command that shows everything."""
    below: list[RenderableType] = [*_answers(results), *_failures(results, LISTED, more), *_legend(results)]
    if not results.results and results.records:
        below.insert(0, Text(NOTHING))
    further = len(findings)
    left = LINES - sum(_height(part, console) for part in [*below, _further(further, more)])
    table, looks = heat.heat(results, further=False), style.looks(results.labels)
    for most in MOST:
        groups = _groups(table.tests)
        parts = [part for group in groups for part in _pieces(table, group, looks, console.width, most)]
        rows = [_row(line) for line in _packed(parts, console)]
        if sum(_height(row, console) + 1 for row, _ in rows) <= left:
            break
    for row, count in rows:
        left -= _height(row, console) + 1
        if left >= 0:
            console.print(row, "")
            further -= count
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


def _row(line: Sequence[tuple[Table, int]]) -> tuple[Table, int]:
    """Tables next to each other, and the number of tests in them."""
    row = Table.grid(padding=(0, GAP, 0, 0))
    row.add_row(*(piece for piece, _ in line))
    return row, sum(count for _, count in line)


def _height(part: RenderableType, console: Console) -> int:
    return len(console.render_lines(part, pad=False))


def _groups(findings: Sequence[Finding]) -> list[list[int]]:
    """The places of tests that share most methods, so that their table has few gaps."""
    groups: list[tuple[set[str], list[int]]] = []
    for place, finding in enumerate(findings):
        own = {entry.result.name for entry in finding.entries}
        near = (group for group in groups if len(own & group[0]) >= COMMON * max(1, min(len(own), len(group[0]))))
        names, members = next(near, (set(), []))
        if not members:
            groups.append((names, members))
        names |= own
        members.append(place)
    return [members for _, members in groups]


def _pieces(
    table: heat.Heat, places: Sequence[int], looks: Mapping[str, style.Look], width: int, most: int
) -> Iterator[tuple[Table, int]]:
    """Tables of these tests that fit the width, and the number of tests in each."""
    rest = iter(places)
    names, *columns = _columns(table, places, looks, most)
    for chunk in chunks(names, columns, width):
        here = list(itertools.islice(rest, len(chunk)))
        yield of_columns(_columns(table, here, looks, most)), len(here)


def _columns(table: heat.Heat, places: Sequence[int], looks: Mapping[str, style.Look], most: int) -> list[Column]:
    """The names and a column per test; of each group the methods that have a number here, at most so many."""
    lines: list[heat.Line | str] = []
    for title, members in table.groups:
        own = [line for line in members if any(line.cells[place].entry for place in places)]
        said = title
        if len(own) > most:  # no winner is left out
            said = f"{title}, {most} of {len(own)}"
            own = sorted(own, key=lambda line: not any(line.cells[place].top for place in places))[:most]
        lines += [said, *own] if own else []
    names = [
        Text(line, style="dim") if isinstance(line, str) else _name(line.name, looks[line.label]) for line in lines
    ]
    columns = [Column("method", names, numeric=False)]
    for place in places:
        # a blank keeps the row of a group's title
        cells = [Text(" ") if isinstance(line, str) else _heated(line.cells[place]) for line in lines]
        most = max(map(len, cells))
        for cell in cells:
            cell.pad_left(most - len(cell) if cell.plain.strip() else 0)
        columns.append(Column(_title(table.tests[place]), cells))
    return columns


def _title(finding: Finding) -> str:
    """A test, what is measured, the batch-norm regime where there is one, and the verdict in a word."""
    metric = words.axis(finding.entries[0].result.metric).removeprefix("mean ") if finding.entries else ""
    regime = "" if finding.regime == "none" else f"\nBN {finding.regime}"
    return f"{heading(finding.test)}\n{metric}{regime}\n{finding.chip}"


def _heated(cell: heat.Cell) -> Text:
    """A score on its colour, grey where it is under-trained; bold as the verdict on its column says."""
    if cell.entry is None or cell.result is None:
        return Text(words.MISSING, style="dim")
    short = cell.result.under_trained
    bold = "bold " if cell.top else ""
    ground = f"{QUIET if short else INK} on {_mixed(SHORT if short else FULL, cell.heat)}" if cell.heat else ""
    return Text(cell.text + (words.UNDER_TRAINED if short else ""), style=f"{bold}{ground or (short and 'dim') or ''}")


def _mixed(colour: str, share: float) -> str:
    """A colour on white, as hexadecimal digits."""
    parts = (255 - share * (255 - int(colour[at : at + 2], 16)) for at in (1, 3, 5))
    return "#" + "".join(f"{round(part):02x}" for part in parts)


def _marked(text: Text, under_trained: bool) -> Text:
    return text.append(words.UNDER_TRAINED, style="yellow") if under_trained else text


# --- tables in full ----------------------------------------------------------------------------------------------


def _in_full(results: Results, findings: Sequence[Sequence[Finding]], console: Console) -> None:
    """The table of each test with its sentences."""
    looks = style.looks(results.labels)
    scores = {table.title: table for table in layout.score_tables(results, looks)} if results.results else {}
    for regimes in findings:
        if (table := scores.get(regimes[0].test)) is None:  # its last checkpoints are the best ones
            continue
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
    """The scores with their details, in several tables where one is too wide."""
    kept = [(i, one) for i, one in enumerate(table.headers) if i == 0 or one.score or one.title in SHOWN]
    names, *columns = (
        Column(heading(one.title.removeprefix("batch-norm: ")), [_cell(row[i]) for row in table.rows], one.numeric)
        for i, one in kept
    )
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
    """A line per reason for failed and unfinished runs, and per damaged file.

    most: the most lines, and places in each; skipped runs are then left out. more: the command that shows the rest."""
    found = [
        Text(f"{row['status']}: ", style=STATUS.get(row["status"], "bold red"))
        .append(f"{one_line(row['reason'])} ", style="default")
        .append(f"[{_first(row['where'].split('; '), most)}]", style="dim")
        for row in tables.failures_table(results).to_dict("records")
        if most is None or row["status"] != "skipped"
    ]
    found += [Text(f"could not be read: {problem}", style="yellow") for problem in results.problems]
    if most is None or len(found) <= most:
        return list(found)
    return [*found[:most], Text(f"{len(found) - most} further reasons: {more}", style="dim")]


def _first(places: Sequence[str], most: int | None) -> str:
    """The first places, and how many more there are."""
    further = [] if most is None or len(places) <= most else [f"{len(places) - most} further"]
    return "; ".join([*places[:most], *further])


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
