"""A card per method: what it does, its paper and file, and its standing on each test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reports import words
from reports.results import Results
from reports.scores.heat import Heat, Line

#: pixels of a bar of the small picture, and between two of them
WIDE, GAP, HIGH = 9, 2, 22

#: name of a registered method -> its summary, paper and file
Described = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Card:
    """name: a label of the records, or of a registered method without any. lines: of the overview, an own one for each
    of its settings."""

    name: str
    summary: str
    paper: str
    file: str
    lines: tuple[Line, ...]
    tests: tuple[str, ...]

    @property
    def standing(self) -> str:
        """``94.0 ±0.7 on omniglot-v1/5w1s (bold), ...`` of its first line; empty without records."""
        if not self.lines:
            return ""
        cells = zip(self.tests, self.lines[0].cells, strict=True)
        return "; ".join(f"{test} {cell.text}" for test, cell in cells if cell.entry)

    @property
    def bars(self) -> Sequence[tuple[int, int, int]]:
        """Left, top and height of a bar per test: its place between floor and ceiling."""
        heats = [cell.heat for cell in self.lines[0].cells if cell.entry] if self.lines else []
        heights = [max(1, round(HIGH * (heat or 0.0))) for heat in heats]
        return [(place * (WIDE + GAP), HIGH - height, height) for place, height in enumerate(heights)]


def cards(results: Results, table: Heat, described: Described) -> list[Card]:
    """The methods of the records in the order of the overview, then the other registered ones."""
    named = {record.label: record.method.name for record in results.records if record.method}
    lines: dict[str, list[Line]] = {}
    for line in table.lines:
        lines.setdefault(line.label, []).append(line)
    order = [*lines, *(label for label in named if label not in lines)]
    order += [name for name in described if name not in order]
    tests = tuple(test.test for test in table.tests)
    return [
        Card(
            label,
            str(facts.get("summary", "")),
            str(facts.get("paper", "")),
            str(facts.get("file", "")),
            tuple(lines.get(label, ())),
            tests,
        )
        for label in order
        for facts in [described.get(named.get(label, label), {})]
    ]


def slug(card: Card) -> str:
    """The id of a card, which the overview links to."""
    return f"method-{words.slug(card.name)}"
