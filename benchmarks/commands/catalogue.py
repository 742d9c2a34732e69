"""What the suite knows, as plain data from a cache: importing every plug-in (and torch) takes a second or two."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.cache import cache_folder
from benchmarks.records.formats import write_text
from benchmarks.run import profiles

ROOT = Path(__file__).parents[2]
SOURCES = ("maml/**/*.py", "baselines/**/*.py", "benchmarks/**/*.py", "benchmarks/**/*.toml")


def load() -> dict[str, Any]:
    """Methods, tasks, compatibility, profiles; read again only when a file of the suite has changed."""
    stamps = sorted((str(p), p.stat().st_mtime_ns, p.stat().st_size) for pattern in SOURCES for p in ROOT.glob(pattern))
    cache = cache_folder() / "catalogue" / f"{hashlib.sha256(repr(stamps).encode()).hexdigest()[:16]}.json"
    try:
        return json.loads(cache.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        pass
    from benchmarks import registry

    found = {**registry.describe(), "profiles": profiles.names()}
    cache.parent.mkdir(parents=True, exist_ok=True)
    for old in cache.parent.glob("*.json"):
        old.unlink(missing_ok=True)
    write_text(cache, json.dumps(found, default=list))
    return found


def show(found: Mapping[str, Any]) -> None:
    """Print it as tables."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for kind in ("methods", "tasks"):
        table = Table("name", "summary", title=kind, title_justify="left", box=None, title_style="bold")
        for name, entry in found[kind].items():
            variants = f" [{', '.join(entry['variants'])}]" if kind == "tasks" else ""
            table.add_row(name, entry["summary"] + variants.replace("[", "\\["))
            for other in entry.get("further", ()):
                table.add_row("", f"on {' and '.join(other['kinds'])}: {other['summary']}")
        console.print(table)
    names = list(found["tasks"])
    table = Table("method", *names, title="which fits which", title_justify="left", box=None, title_style="bold")
    for method, reasons in found["compatibility"].items():
        table.add_row(method, *("-" if reasons[name] else "yes" for name in names))
    console.print(table)
    table = Table("profile", "for", title="profiles", title_justify="left", box=None, title_style="bold")
    for name, about in found["profiles"].items():
        table.add_row(name, about)
    console.print(table)
