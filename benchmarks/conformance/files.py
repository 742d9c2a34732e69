"""A plug-in file from its import to its last method: what ``metabench check`` runs in a process of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks import registry
from benchmarks.api import TaskDistribution
from benchmarks.conformance.backbones import check_backbone, own_backbones
from benchmarks.conformance.findings import Finding, complaint, guarded, tried
from benchmarks.conformance.methods import check_method
from benchmarks.conformance.tasks import check_task
from benchmarks.conformance.watch import changes, settings
from benchmarks.errors import MetabenchError
from benchmarks.registry import Entry


def check_file(path: Path) -> Iterator[Finding]:
    """Import a file, and check all that it registers. Raises `MetabenchError` for a file that is no plug-in."""
    path = path.resolve()
    registry.discover()
    before = settings()
    yield tried("import")
    entries = registry.load_file(path)
    yield from guarded(_check_entries(entries, path), path)
    if names := changes(before, settings()):
        yield complaint(f"changes {names}: every method of the process would see that")


def _check_entries(entries: list[Entry], path: Path) -> Iterator[Finding]:
    tasks = [entry for entry in entries if issubclass(entry.cls, TaskDistribution)]
    for entry in tasks:
        yield from check_task(entry)
    for entry in entries:
        if entry not in tasks:
            yield from check_method(entry, [task.name for task in tasks])
    for own in own_backbones(path):
        yield from check_backbone(own)


def check_in_job(progress: Callable[[dict[str, Any]], None], path: str) -> dict[str, Any]:
    """The findings as plain data, or the refusal of a file that is no plug-in.

    The log names each attempt, for the case that the process ends in one."""
    found = []
    try:
        for finding in check_file(Path(path)):
            if finding.kind == "tried":
                print(f"tried: {finding}", flush=True)
            found.append(dataclasses.asdict(finding))
    except MetabenchError as error:
        return {"refused": str(error)}
    return {"findings": found}
