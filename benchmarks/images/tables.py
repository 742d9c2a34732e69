"""Tables that people write: csv files from spreadsheets, editors and pandas."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Sequence
from pathlib import Path

from benchmarks.errors import MetabenchError

SEPARATORS = ",;\t"


def read_table(path: Path, *columns: Sequence[str]) -> list[tuple[str, ...]]:
    """The rows of a csv: one value for each column, without blanks around it.

    columns: the names that each column may have, in lower case. Byte-order marks, UTF-16, semicolons, tabs, blank lines
    and further columns are fine. Raises `MetabenchError`, with the line."""
    rows = [(line, row) for line, row in _lines(path) if any(row)]
    header = [name.lower() for name in rows[0][1]] if rows else []
    places = [next((header.index(name) for name in names if name in header), None) for names in columns]
    if None in places:
        wanted = " and ".join(" or ".join(names) for names in columns)
        raise MetabenchError(f"{path} has no columns {wanted}; its first line is {', '.join(header)[:80]!r}")
    values = []
    for line, row in rows[1:]:
        picked = tuple(row[place] if place < len(row) else "" for place in places if place is not None)
        if not all(picked) or any(row[len(header) :]):
            raise MetabenchError(f"{path}, line {line}: {', '.join(row)[:80]!r} is not a row of {', '.join(header)!r}")
        values.append(picked)
    return values


def _lines(path: Path) -> list[tuple[int, list[str]]]:
    """Line numbers and fields."""
    try:
        content = path.read_bytes()
        wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = content.decode("utf-16" if wide else "utf-8-sig")
    except (OSError, UnicodeError) as error:
        raise MetabenchError(f"{path} can't be read as text: {error}") from error
    if "\0" in text:
        raise MetabenchError(f"{path}, line {text[: text.index(chr(0))].count(chr(10)) + 1}: NUL bytes, a damaged file")
    separator = max(SEPARATORS, key=text.lstrip().partition("\n")[0].count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True)
    try:
        return [(reader.line_num, [value.strip() for value in row]) for row in reader]
    except csv.Error as error:
        raise MetabenchError(f"{path}, line {reader.line_num}: {error}") from error
