"""Tables of a terminal: a table that is too wide becomes several, each with the names, so that no word is cut."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from rich.table import Table
from rich.text import Text

from reports import words

#: characters of a column's title in a line
TITLE = 16


@dataclass(frozen=True)
class Column:
    """A column of a table: its title, a text per row, and whether it holds numbers."""

    title: str
    cells: Sequence[Text]
    numeric: bool = True

    @property
    def width(self) -> int:
        return max(len(line) for text in (self.title, *map(str, self.cells)) for line in text.split("\n")) + 2


def heading(title: str, width: int = TITLE) -> str:
    """A title in short lines, which break after a slash, a comma or a hyphen."""
    lines = textwrap.wrap(title.replace("/", "/ "), width, break_long_words=False)
    return "\n".join(line.replace("/ ", "/") for line in lines)


def chunks(names: Column, columns: Sequence[Column], width: int) -> list[list[Column]]:
    """The columns in groups that fit next to the names."""
    found: list[list[Column]] = []
    for column in columns:
        if found and names.width + sum(each.width for each in (*found[-1], column)) <= width:
            found[-1].append(column)
        else:
            found.append([column])
    return found


def table(columns: Sequence[Column]) -> Table:
    """The columns, without the rows that have nothing but a name."""
    output = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
    for place, column in enumerate(columns):
        side: Literal["left", "right"] = "right" if column.numeric else "left"
        output.add_column(Text(column.title), justify=side, no_wrap=place > 0, overflow="fold")
    for cells in zip(*(column.cells for column in columns), strict=True):
        if any(cell.plain not in ("", words.MISSING) for cell in cells[1:]):
            output.add_row(*cells)
    return output


def tables(name: str, rows: Sequence[tuple[str, dict[str, str]]], width: int, numeric: bool = True) -> Iterator[Table]:
    """Rows of texts as one table or several. name: the title of the names; rows: a name and its texts, by title."""
    titles = [title for title in rows[0][1] if any(texts[title] for _, texts in rows)]
    names = Column(name, [Text(label) for label, _ in rows], numeric=False)
    longest = max(len(word) for label, _ in rows for word in label.split())
    others = []
    for title in titles:
        cells = [Text(texts[title]) for _, texts in rows]
        others.append(Column(heading(title, max(1, *map(len, cells))), cells, numeric))
    if names.width + sum(column.width for column in others) > width:  # names may break between their words
        names = Column(name, [Text("\n".join(textwrap.wrap(label, max(longest, 24)))) for label, _ in rows], False)
    for chunk in chunks(names, others, width):
        yield table([names, *chunk])
