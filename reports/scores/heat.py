"""The overview: one table of methods and tests, coloured by where a score lies between floor and ceiling."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from reports import words
from reports.results import Result, Results
from reports.scores import layout
from reports.scores.findings import Entry, Finding, findings_of
from reports.scores.verdict_sentences import CHIP_MEANINGS, UNNAMED

#: the order of the columns
KINDS = ("classification", "regression", "control")
#: the groups of rows, in their order
GROUPS = ("Trained", "Without training", "Floors and ceilings")


@dataclass(frozen=True, eq=False)
class Cell:
    """A score, or why there is none.

    heat: 0 at the floor of the test, 1 at its ceiling; None where the two give no scale. leads: whether it is the best
    mean of a test that names nobody."""

    entry: Entry | None = None
    heat: float | None = None
    why: str = ""
    leads: bool = False

    @property
    def result(self) -> Result | None:
        return self.entry.result if self.entry else None

    @property
    def value(self) -> float | None:
        """The mean in its unit."""
        return self.result.interval.estimate * words.factor(self.result.metric) if self.result else None

    @property
    def half_width(self) -> float | None:
        """Of the 95 % interval over episodes, in the unit of the mean."""
        known = self.result is not None and self.result.interval.known
        return self.result.interval.half_width * words.factor(self.result.metric) if known and self.result else None

    @property
    def top(self) -> bool:
        """Whether it is shown in bold."""
        return self.entry is not None and self.entry.top

    @property
    def text(self) -> str:
        return words.short(self.entry.result.interval, self.entry.result.metric) if self.entry else words.MISSING


@dataclass(frozen=True, eq=False)
class Line:
    """A method: its name, its label (of its look) and a cell per test."""

    name: str
    label: str
    cells: tuple[Cell, ...]

    @property
    def standing(self) -> tuple[int, float]:
        """Sorts lines: those with most tests first, then by their mean heat."""
        known = [cell.heat for cell in self.cells if cell.heat is not None]
        return -sum(cell.entry is not None for cell in self.cells), -sum(known) / len(known) if known else 0.0


@dataclass(frozen=True, eq=False)
class Heat:
    """tests: the columns, a finding each; those that methods were trained for come first.
    groups: name and lines, best first."""

    tests: tuple[Finding, ...]
    groups: tuple[tuple[str, tuple[Line, ...]], ...]

    @property
    def lines(self) -> list[Line]:
        return [line for _, lines in self.groups for line in lines]

    @property
    def legend(self) -> list[tuple[str, str]]:
        """(mark, meaning) of each mark that the table has."""
        cells = [cell for line in self.lines for cell in line.cells]
        marks = (
            ("bold", "no method is significantly better", any(cell.top for cell in cells)),
            ("underlined", "the best mean where no winner is named", any(cell.leads for cell in cells)),
            ("±", "95 % interval over test episodes", any(cell.half_width for cell in cells)),
            ("grey, †", "under-trained", any(cell.result and cell.result.under_trained for cell in cells)),
            ("fuller green", "nearer the ceiling of its test", any(cell.heat for cell in cells)),
            *((test.chip, CHIP_MEANINGS.get(test.verdict, ""), test.verdict in CHIP_MEANINGS) for test in self.tests),
        )
        return list(dict.fromkeys((mark, meaning) for mark, meaning, there in marks if there))


@functools.lru_cache(maxsize=2)
def heat(results: Results, further: bool = True) -> Heat:
    """The overview of all results. further: with the tests that no method was trained for."""
    leading = [regimes[0] for regimes in findings_of(results)]
    tests = sorted(
        (one for one in leading if one.own or (further and _new(one, results))),
        key=lambda one: (not one.own, KINDS.index(_kind(one))),
    )
    entries = [{entry.result.name: entry for entry in one.entries} for one in tests]
    scales = [_scale(one.entries) for one in tests]
    reasons = _reasons(results)
    groups: dict[str, list[Line]] = {name: [] for name in GROUPS}
    for name in dict.fromkeys(name for column in entries for name in column):
        own = [column.get(name) for column in entries]
        results_of = [entry.result for entry in own if entry]
        cells = tuple(
            Cell(why="the last checkpoint is the best one")
            if entry and _copy(entry, test, results)
            else Cell(entry, _place(entry, scale), leads=entry.result is test.leader and test.verdict in UNNAMED)
            if entry
            else Cell(why=_why(reasons, results_of[0].label, test))
            for entry, scale, test in zip(own, scales, tests, strict=True)
        )
        groups[_group(results_of)].append(Line(name, results_of[0].label, cells))
    return Heat(
        tuple(tests),
        tuple((name, tuple(sorted(lines, key=lambda line: line.standing))) for name, lines in groups.items() if lines),
    )


def _new(test: Finding, results: Results) -> bool:
    """Whether a test has a score that no other test has: a last checkpoint may be the best one for every method."""
    return not all(_copy(entry, test, results) for entry in test.entries)


def _copy(entry: Entry, test: Finding, results: Results) -> bool:
    """Whether a score of a last checkpoint is that of the best one, which a method without training has alone."""
    return results.repeated(entry.result) or ("last checkpoint" in test.test and entry.result.column.model == "best")


def _kind(test: Finding) -> str:
    return str(test.entries[0].result.first.task.kind)


def _group(found: Sequence[Result]) -> str:
    if any(result.row.role != "learner" for result in found):
        return GROUPS[2]
    return GROUPS[0] if any(result.training for result in found) else GROUPS[1]


def _scale(entries: Iterable[Entry]) -> tuple[float, float] | None:
    """Floor and ceiling of a test; without one of these the worst and the best mean, and 100 % of accuracy."""
    means: dict[str, list[float]] = {"floor": [], "ceiling": [], "learner": []}
    sign, metric = 1.0, ""
    for entry in entries:
        metric, sign = entry.result.metric, 1.0 if entry.result.higher_is_better else -1.0
        mean = entry.result.interval.estimate
        if math.isfinite(mean):
            means[entry.result.row.role].append(sign * _level(mean, metric))
    everyone = [value for role in means.values() for value in role]
    if not everyone:
        return None
    top = [1.0] if metric == "accuracy" else means["ceiling"] or everyone
    low, high = max(means["floor"] or [min(everyone)]), max(top)
    return (sign * low, sign * high) if low < high else None


def _level(mean: float, metric: str) -> float:
    """Errors count by their logarithm."""
    return math.log(max(mean, 1e-12)) if metric == "squared error" else mean


def _place(entry: Entry, scale: tuple[float, float] | None) -> float | None:
    mean = entry.result.interval.estimate
    if scale is None or not math.isfinite(mean):
        return None
    low, high = scale
    return min(1.0, max(0.0, (_level(mean, entry.result.metric) - low) / (high - low)))


def _reasons(results: Results) -> Mapping[tuple[str, str], str]:
    """(label, task) -> why it has no number."""
    return {
        (record.label, record.task.id): f"{record.status}: {record.reason}"
        for record in results.unfinished
        if record.task
    }


def _why(reasons: Mapping[tuple[str, str], str], label: str, test: Finding) -> str:
    return next((why for (who, task), why in reasons.items() if who == label and test.test.startswith(task)), "not run")


def fewer(shown: Heat, tests: int, lines: int) -> Heat:
    """At most so many tests and methods: the tests that most methods were trained for, the methods with most of these;
    no bold one is left out, nor the best mean of a test."""
    columns = list(zip(*(line.cells for line in shown.lines), strict=True))
    trained = [-sum(bool(cell.result and cell.result.training) for cell in column) for column in columns]
    kept = sorted(sorted(range(len(columns)), key=trained.__getitem__)[:tests])
    groups = [
        (title, [replace(line, cells=tuple(line.cells[place] for place in kept)) for line in members])
        for title, members in shown.groups
    ]
    there = [line for _, members in groups for line in members if any(cell.entry for cell in line.cells)]
    there.sort(key=lambda line: (not any(cell.top or cell.leads for cell in line.cells), line.standing))
    best = there[:lines]
    chosen = [(title, tuple(line for line in members if line in best)) for title, members in groups]
    return Heat(tuple(shown.tests[place] for place in kept), tuple(group for group in chosen if group[1]))


def table(shown: Heat, bold: str = "**{}**") -> layout.Table:
    """As a table of texts: a row per method below the title of its group, then the verdicts.

    bold: how bold is written."""
    headers = [
        layout.Header("method", numeric=False),
        *(layout.Header(f"{test.test}, {test.unit}", score=True) for test in shown.tests),
    ]
    rows = []
    for title, lines in shown.groups:
        rows.append([layout.Cell(text) for text in (bold.format(title), *[""] * len(shown.tests))])
        rows += [[layout.Cell(line.name), *(_as_text(cell, bold) for cell in line.cells)] for line in lines]
    rows.append([layout.Cell(text) for text in (bold.format("Verdict"), *(test.chip for test in shown.tests))])
    return layout.Table("overview.csv", "Methods and tests", headers, rows)


def _as_text(cell: Cell, bold: str) -> layout.Cell:
    short = cell.result is not None and cell.result.under_trained
    return layout.Cell(bold.format(cell.text) if cell.top else cell.text, cell.value, cell.half_width, short)
