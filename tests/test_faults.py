"""Every fault that was once found in public has a test that holds its right value: `pytest -m fault`."""

import re
from pathlib import Path

#: faults by kind (pyproject.toml has the kinds in words)
FOUND = {"V": 14, "K": 8, "U": 9, "O": 6, "D": 5, "E": 9, "G": 4, "S": 11}


def test_every_fault_has_a_test_that_names_it() -> None:
    texts = [path.read_text(encoding="utf-8") for path in Path(__file__).parent.rglob("test_*.py")]
    marks = [mark for text in texts for mark in re.findall(r"@pytest\.mark\.fault\(([^)]*)\)", text)]
    named = {name for mark in marks for name in re.findall(r'"(\w+)"', mark)}
    assert named == {f"{kind}{number}" for kind, count in FOUND.items() for number in range(1, count + 1)}
