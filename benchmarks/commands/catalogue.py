"""Methods, tasks and profiles as plain data from a cache: importing every plug-in (and torch) takes a second or two."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from benchmarks.cache import cache_folder
from benchmarks.commands.console import screen
from benchmarks.python_api.places import ROOT
from benchmarks.records import formats
from benchmarks.run import profiles

if TYPE_CHECKING:
    from benchmarks.registry import Entry

SOURCES = ("maml/**/*.py", "baselines/**/*.py", "benchmarks/**/*.py", "benchmarks/**/*.toml")
#: attributes of the classes that programs get
METHOD = ("kinds", "needs", "fits")
TASK = ("kind", "version", "metric", "offers", "variants")


def load() -> dict[str, Any]:
    """Methods, tasks, compatibility, profiles; collected again only when a file of the suite has changed."""
    stamps = sorted((str(p), p.stat().st_mtime_ns, p.stat().st_size) for pattern in SOURCES for p in ROOT.glob(pattern))
    cache = cache_folder() / "catalogue" / f"{hashlib.sha256(repr(stamps).encode()).hexdigest()[:16]}.json"
    with contextlib.suppress(OSError, ValueError):
        digest, _, text = cache.read_text(encoding="utf-8").partition("\n")
        if digest == hashlib.sha256(text.encode()).hexdigest():
            return dict(json.loads(text))
    found = {**described(), "profiles": profiles.names()}
    with contextlib.suppress(OSError):  # without a cache it is only slower
        cache.parent.mkdir(parents=True, exist_ok=True)
        for old in cache.parent.glob("*.json"):
            old.unlink(missing_ok=True)
        text = json.dumps(found, default=list)
        formats.write(cache, f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}".encode())
    return found


def described() -> dict[str, Any]:
    """Methods, tasks and their compatibility, as plain data."""
    from benchmarks import registry

    methods, tasks = registry.methods(), registry.tasks()
    return {
        "methods": {
            name: {**_facts(first, METHOD), "further": [_facts(entry, METHOD) for entry in first.further]}
            for name, first in methods.items()
        },
        "tasks": {name: _facts(entry, TASK) for name, entry in tasks.items()},
        "compatibility": {method: {task: registry.incompatible(method, task) for task in tasks} for method in methods},
    }


def _facts(entry: Entry, names: Iterable[str]) -> dict[str, Any]:
    """The summary, the file, these attributes of the class, and its fields."""
    values = {name: getattr(entry.cls, name) for name in names}
    plain = {name: sorted(value) if isinstance(value, frozenset) else value for name, value in values.items()}
    about = {"summary": _summary(entry.cls), "paper": _paper(entry.cls), "file": _file(entry)}
    return {**about, **plain, "fields": _fields(entry)}


def _summary(cls: type) -> str:
    return " ".join((cls.__doc__ or "").strip().partition("\n\n")[0].split())


def _file(entry: Entry) -> str:
    """Its path from the top of the checkout, or in full elsewhere."""
    path = Path(entry.path)
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else str(path)


def _paper(cls: type) -> str:
    """The first citation in the docstring of its module: authors, "title", and so on up to the year; else empty."""
    text = " ".join((sys.modules[cls.__module__].__doc__ or "").split())
    found = re.search(r'(?:^|[.:;] )([A-Z][^".;:]*, "[^"]+",?[^".:;]*\b(?:19|20)\d\d)', text)
    return found[1] if found else ""


def _fields(entry: Entry) -> dict[str, Any]:
    return {
        f.name: entry.fields.get(f.name, None if f.default is dataclasses.MISSING else f.default)
        for f in dataclasses.fields(entry.cls)
        if f.metadata.get("configuration", True)
    }


def names(kind: str) -> list[str]:
    """The names of all "methods", "profiles" or "tasks" (with their variants)."""
    found = load()[kind]
    if kind != "tasks":
        return list(found)
    return [name for task, entry in found.items() for name in (task, *(f"{task}/{one}" for one in entry["variants"]))]


def show(found: Mapping[str, Any]) -> None:
    """Print methods, tasks with their variants and methods, and profiles, in the width of the terminal."""
    _print("methods", _methods(found))
    _print("tasks", _tasks(found))
    _print("profiles", found["profiles"].items())


def _methods(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, entry in found["methods"].items():
        yield name, entry["summary"]
        for other in entry["further"]:
            yield "", f"{' and '.join(other['kinds'])}: {other['summary']}"


def _tasks(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, entry in found["tasks"].items():
        fitting = [method for method, reasons in found["compatibility"].items() if reasons[name] is None]
        yield name, entry["summary"]
        yield "", f"variants: {', '.join(entry['variants'])}"
        yield "", f"methods: {', '.join(fitting)}"


def _print(title: str, rows: Iterable[tuple[str, str]]) -> None:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column()
    for name, text in rows:
        table.add_row(Text(name, style="bold"), Text(text))
    screen().print(table, "")
