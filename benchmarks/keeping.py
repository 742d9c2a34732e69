"""Copies of records to commit or to send: without trained states, and without pictures that may not be passed on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks import registry
from benchmarks.store import Store

#: how the arrays of an exhibit that hold pictures end
PICTURES = "_images"


def keep(source: Store, target: Store) -> tuple[int, int]:
    """Copy every record; how many were copied, and how many of them without the pictures of their exhibits."""
    records = source.records()
    source.copy([record["key"] for record in records], target)
    bare = 0
    for record in filter(_withheld, records):
        arrays = source.arrays(record["key"]) or {}
        shown = {name: array for name, array in arrays.items() if not name.endswith(PICTURES)}
        if shown.keys() != arrays.keys():
            target.write(record, source.scores(record["key"]), shown)
            bare += 1
    return len(records), bare


def _withheld(record: Mapping[str, Any]) -> bool:
    """Whether the task's pictures may not be passed on; those of an unknown task stay."""
    task = record.get("task")
    entry = registry.tasks().get(task["name"]) if isinstance(task, dict) else None
    return not getattr(getattr(entry, "cls", None), "redistributable", True)
