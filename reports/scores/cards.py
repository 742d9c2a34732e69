"""A card per method: what it does, its paper and file, and its standing on each test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.records.record import Task
from reports import words
from reports.results import Results
from reports.scores.heat import Heat, Line

#: of the checkout
ROOT = Path(__file__).parents[2]
#: pixels of a bar of the small picture, and between two of them
WIDE, GAP, HIGH = 9, 2, 22

#: name of a registered method -> its summary, paper and file
Described = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Card:
    """name: a label of the records, or of a registered method without any. link: the address of its file. lines: of the
    overview, an own one for each of its settings."""

    name: str
    summary: str
    paper: str
    file: str
    link: str
    lines: tuple[Line, ...]
    tests: tuple[str, ...]

    @property
    def bars(self) -> Sequence[tuple[int, int, int]]:
        """Left, top and height of a bar per test: its place between floor and ceiling."""
        heats = [cell.heat for cell in self.lines[0].cells if cell.entry] if self.lines else []
        heights = [max(1, round(HIGH * (heat or 0.0))) for heat in heats]
        return [(place * (WIDE + GAP), HIGH - height, height) for place, height in enumerate(heights)]


def cards(results: Results, table: Heat, described: Described) -> list[Card]:
    """The methods of the records in the order of the overview, then the other registered ones by name: their own order
    is that in which a process happened to import them."""
    named = {record.label: record.method.name for record in results.records if record.method}
    lines: dict[str, list[Line]] = {}
    for line in table.lines:
        lines.setdefault(line.label, []).append(line)
    order = [*lines, *(label for label in named if label not in lines)]
    order += sorted(name for name in described if name not in order)
    tests = tuple(test.test for test in table.tests)
    return [
        Card(
            label,
            str(facts.get("summary", "")),
            str(facts.get("paper", "")),
            str(facts.get("file", "")),
            source(str(facts.get("file", "")), results),
            tuple(lines.get(label, ())),
            tests,
        )
        for label in order
        for facts in [described.get(named.get(label, label), {})]
    ]


@dataclass(frozen=True)
class Sheet:
    """A task of the records. name: registered. ids: of its variants there. facts: kind, metric, margin and so on."""

    name: str
    summary: str
    file: str
    link: str
    ids: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]


def sheets(results: Results, described: Described) -> list[Sheet]:
    """The tasks of the records in alphabetical order. described: the registered ones."""
    found: dict[str, dict[str, Task]] = {}
    for record in results.records:
        if record.task:
            found.setdefault(record.task.name, {})[record.task.id] = record.task
    return [_sheet(name, found[name], described.get(name, {}), results) for name in sorted(found)]


def _sheet(name: str, tasks: Mapping[str, Task], about: Mapping[str, Any], results: Results) -> Sheet:
    first, file = next(iter(tasks.values())), str(about.get("file", ""))
    margin = (
        f"a factor of {first.equivalence_margin:g}"
        if first.metric == "squared error"
        else (f"{first.equivalence_margin * words.factor(first.metric):g}")
    )
    facts: tuple[tuple[str, str], ...] = (
        ("kind", first.kind),
        ("score", words.axis(first.metric)),
        ("margin of equivalence", margin),
    )
    data = sorted({task.data[:8] for task in tasks.values() if task.data})
    facts += (("data", ", ".join(data)),) if data else ()
    return Sheet(name, str(about.get("summary", "")), file, source(file, results), tuple(sorted(tasks)), facts)


def source(file: str, results: Results) -> str:
    """The address of a file of the checkout from the page; empty where it is not there."""
    return results.link(ROOT / file) if file and (ROOT / file).is_file() else ""
