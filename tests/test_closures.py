"""No comprehension takes a name that the function around it has from outside.

Python 3.12 runs comprehensions inside the function, and in some of its versions a function within it then loses the
outer value: the meta-gradient of a GPU's Python was a NameError.
"""

from __future__ import annotations

import symtable
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(path for part in ("benchmarks", "maml", "baselines", "reports") for path in (ROOT / part).rglob("*.py"))
COMPREHENSIONS = ("listcomp", "setcomp", "dictcomp")

pytestmark = pytest.mark.skipif(sys.version_info >= (3, 12), reason="comprehensions have no table of names there")


def clashes(table: symtable.SymbolTable) -> Iterator[str]:
    """Functions with a comprehension that takes a name of theirs from outside."""
    for inner in table.get_children():
        if isinstance(table, symtable.Function) and table.get_name() not in COMPREHENSIONS:
            taken = set(inner.get_locals()) if inner.get_name() in COMPREHENSIONS else set()  # type: ignore[attr-defined]
            yield from (
                f"{table.get_name()}, line {table.get_lineno()}: {name}" for name in taken & {*table.get_frees()}
            )
        yield from clashes(inner)


def test_no_comprehension_takes_a_name_from_outside() -> None:
    tables = {path: symtable.symtable(path.read_text(encoding="utf-8"), str(path), "exec") for path in FILES}
    assert {path: found for path, table in tables.items() if (found := list(clashes(table)))} == {}


def test_a_clash_is_seen() -> None:
    source = "def a(x):\n    def b(y):\n        f = lambda: x\n        return [x for x in y]\n    return b\n"
    assert list(clashes(symtable.symtable(source, "made up", "exec"))) == ["b, line 2: x"]
