"""Well-formed records with one odd value: read and shown, or named as damaged; never a traceback."""

from __future__ import annotations

import io
import json
import logging
import random
from pathlib import Path
from typing import Any

import pytest
from made_up_costs import costs
from made_up_records import full_store
from rich.console import Console

from benchmarks.errors import MetabenchError
from benchmarks.python_api.results import frame
from benchmarks.records.formats import Damaged
from benchmarks.records.store import Store
from reports import terminal
from reports.page import page

ODD = ["x", "", 0, -1, 1, 2**40, -1.5, 1e300, 1e-300, {"a": 1}, {}, [1], [], None, True, "\u202e<b>", "a" * 3000]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return costs(full_store(tmp_path_factory.mktemp("odd") / "store").store.path, cpu=True)


def odd_records(store: Store, count: int, seed: str) -> list[tuple[Path, dict[str, Any]]]:
    """Headers with one odd value that the store reads, and where they belong."""
    draw, found = random.Random(seed), []
    records = [record for record in store.records() if record.ok]
    reader = Store(store.path, read_only=True)
    while len(found) < count:
        record = draw.choice(records)
        path = store.path / "records" / f"{record.key}.json"
        value = record.to_json()
        change_one(value, draw)
        try:
            read = reader._parse(json.dumps(value).encode(), record.key)
        except (Damaged, MetabenchError):
            continue
        if read != record:
            found.append((path, value))
    return found


def change_one(value: Any, draw: random.Random) -> None:
    """Replace one value, at any depth."""
    place = draw.choice(list(value) if isinstance(value, dict) else range(len(value)))
    if isinstance(value[place], (dict, list)) and value[place] and draw.random() < 0.85:
        change_one(value[place], draw)
    else:
        value[place] = draw.choice(ODD)


@pytest.mark.fault("S7")
@pytest.mark.parametrize(
    ("count", "pages"), [(3, 1), pytest.param(100, 10, marks=pytest.mark.fuzz)], ids=["few", "many"]
)
def test_a_record_with_an_odd_value_is_shown_or_refused_in_one_line(
    store: Store, tmp_path: Path, count: int, pages: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    failures = []
    for number, (path, value) in enumerate(odd_records(store, count, f"odd {count}")):
        whole = path.read_bytes()
        path.write_text(json.dumps(value))
        try:
            terminal.show(store.path, Console(file=io.StringIO(), width=100), everything=number % 2 == 0)
            frame(Store(store.path, read_only=True))
            if number < pages:
                page.write_report(store.path, tmp_path / "page.html")
        except Exception as error:
            if not isinstance(error, MetabenchError) or "\n" in str(error):
                failures.append((difference(json.loads(whole), value), repr(error)))
        path.write_bytes(whole)
    assert failures == []


def difference(one: Any, other: Any, path: str = "") -> str:
    """Where two plain values differ, and the other value."""
    if isinstance(one, dict) and isinstance(other, dict):
        names = [name for name in one if name != "sha256" and one[name] != other.get(name)]
        return difference(one[names[0]], other[names[0]], f"{path}.{names[0]}") if names else path
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        place = next(i for i in range(len(one)) if one[i] != other[i])
        return difference(one[place], other[place], f"{path}[{place}]")
    return f"{path} = {str(other)[:40]!r}"
