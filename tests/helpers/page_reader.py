"""The page of a committed store: its tables by id, its cards, the text of its sections, and what it was made from."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks.commands import catalogue
from benchmarks.records.store import Store
from benchmarks.stats import columns, protocol_of
from reports import words
from reports.page.page import render
from reports.results import load
from reports.scores import across, claims, control, curves, pairs, reproduced, tables

REFERENCE = Path(__file__).parents[2] / "reports" / "reference"

NUMBER = re.compile(r"(?<![\w.])[−+-]?\d[\d,]*(?:\.\d+)?(?:e[−+-]?\d+)?")
SILENT = ("svg", "style", "script", "head", "figcaption")


@dataclass
class Cell:
    """text, and the value that the table is sorted by."""

    value: str
    text: str = ""


@dataclass
class Card:
    """text: outside of its table. rows: of the ranking."""

    text: str = ""
    rows: list[list[Cell]] = field(default_factory=list)


class Page(HTMLParser):
    """tables: id (or class) -> rows. cards: in their order. sections: id -> text outside of tables and figures."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[Cell]]] = {}
        self.cards: list[Card] = []
        self.sections: dict[str, str] = {}
        self._open: list[str] = []
        self._rows: list[list[Cell]] = []
        self._section = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attributes}
        if tag in (*SILENT, "article", "table", "td", "th"):
            self._open.append(tag)
        if tag == "section":
            self._section = given["id"]
            self.sections[self._section] = ""
        elif tag == "article":
            self.cards.append(Card())
        elif tag == "table":
            self._rows = self.tables.setdefault(given.get("id") or given.get("class", ""), [])
        elif tag == "tr":
            if "article" in self._open:
                self._rows = self.cards[-1].rows
            self._rows.append([])
        elif tag in ("td", "th"):
            self._rows[-1].append(Cell(given.get("data-value", "")))

    def handle_endtag(self, tag: str) -> None:
        if self._open and self._open[-1] == tag:
            self._open.pop()
        if tag in ("p", "dd", "li", "h3"):
            self.handle_data(" ")

    def handle_data(self, text: str) -> None:
        if set(SILENT) & set(self._open):
            return
        if {"td", "th"} & set(self._open):
            self._rows[-1][-1].text += text
        elif "table" not in self._open:
            if "article" in self._open:
                self.cards[-1].text += text
            if self._section:
                self.sections[self._section] += text


def shows(text: str, value: float) -> bool:
    """Whether the first number of a text is this value, or its percentage, in as many digits as it has."""
    found = NUMBER.search(text)
    return found is not None and (_is(found[0], value) or ("%" in text and _is(found[0], 100 * value)))


def unknown(text: str, values: list[float], names: list[str]) -> list[str]:
    """The numbers of a text that are none of these values, whatever their sign; names are no numbers."""
    for name in sorted(names, key=len, reverse=True):
        text = text.replace(name, " ")
    return [one for one in NUMBER.findall(text) if not any(_is(one.lstrip("−+-"), abs(value)) for value in values)]


def _is(token: str, value: float) -> bool:
    digits = token.replace("−", "-").replace(",", "")
    mantissa, _, exponent = digits.partition("e")
    room = 0.5 * 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))
    return abs(float(digits) - value) <= room * (1 + 1e-6) + 1e-12 * abs(value)


def assert_shown(cell: Cell, value: Any, place: Any) -> None:
    """A cell shows a value: text as it is, numbers rounded, and it is sorted by the exact value."""
    if value is None or value != value or value == "":
        assert cell.text == words.MISSING, place
    elif isinstance(value, (bool, np.bool_)):
        assert cell.text == ("yes" if value else "no"), place
    elif isinstance(value, (int, float, np.number)):
        assert float(cell.value) == pytest.approx(value, rel=1e-12), place
        assert shows(cell.text, float(value)), (place, cell, value)
    else:
        assert cell.text == str(value), place


def held(values: np.ndarray, known: np.ndarray) -> bool:
    """Whether each value is one of the known ones."""
    known = np.unique(known[np.isfinite(known)])
    if not len(values) or not len(known):
        return not len(values)
    nearest = known[np.clip(np.searchsorted(known, values), 1, len(known) - 1) - (len(known) > 1)]
    after = known[np.clip(np.searchsorted(known, values), 0, len(known) - 1)]
    return bool(np.all(np.isclose(values, nearest, rtol=1e-7) | np.isclose(values, after, rtol=1e-7)))


class Made:
    """A page, and what it was made from."""

    def __init__(self, folder: Path) -> None:
        self.results = load(folder)
        html, panels = render(self.results, catalogue.load()["methods"])
        self.html, self.page = html, Page(html)
        self.panels = {panel.name: panel for panel in panels}
        assert len(self.panels) == len(panels), "two figures share a name"
        store = Store(folder, read_only=True)
        self.columns = columns(store, store.records())
        self.rows = {
            (row.name, self.title(protocol := protocol_of(row.first)), protocol.regime): row
            for column in self.columns
            for row in column.rows
        }
        self.main = tables.main_table(self.results)
        kept = [not self.results.repeated(result) for result in tables.ordered(self.results)]
        #: the rows with a table row of their own: not those of last checkpoints that are the best ones
        self.shown = self.main[kept] if len(self.main) else self.main

    def title(self, protocol: Any) -> str:
        return words.title(protocol, self.results.columns)

    def frames(self) -> dict[str, pd.DataFrame]:
        """id of a table -> its frame."""
        results = self.results
        groups = across.groups(results) if len(self.main) else []
        several = sum(one.across is not None for one in groups) > 1
        frames_ = {
            f"{words.slug(f'across {one.name if several else str()}')}-csv": across.across_table(one.across)
            for one in groups
            if one.across
        }
        frames_ |= {"test-tasks-csv": control.test_tasks_table(results)}
        frames_ |= {"returns-csv": control.steps_table(results), "totals-csv": control.totals_table(results)}
        frames_ |= {
            "published-csv": reproduced.published_table(results),
            "pairs-csv": pairs.with_intervals(pairs.pairs_table(results)),
        }
        frames_ |= {
            "claims-csv": claims.claims_table(results),
            "equal-csv": curves.answers_table(results),
            "under-trained-csv": tables.under_trained_table(results),
        }
        return {name: frame.dropna(axis="columns", how="all") for name, frame in frames_.items() if len(frame)}


@functools.cache
def made(store: str) -> Made:
    return Made(REFERENCE / store)
