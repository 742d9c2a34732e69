"""Copies of records to commit or to send: without trained states, and without pictures that may not be passed on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks import registry
from benchmarks.records.store import Store

#: how the arrays of an exhibit that hold pictures end
PICTURES = "_images"


def keep(source: Store, target: Store) -> tuple[int, int]:
    """Copy every record; how many were copied, and how many of them without the pictures of their exhibits."""
    records, bare = source.records(), 0
    for digest in dict.fromkeys((record.get("evaluation") or {}).get("episodes_digest") for record in records):
        if digest is not None:
            target.write_episodes(source.episode_columns(digest) or {})
    for record in records:
        key = record["key"]
        arrays = source.arrays(key)
        if arrays and _withheld(record):
            shown = {name: array for name, array in arrays.items() if not name.endswith(PICTURES)}
            bare += shown.keys() != arrays.keys()
            arrays = shown
        target.write(record, source.score_columns(key), arrays)
    return len(records), bare


def _withheld(record: Mapping[str, Any]) -> bool:
    """Whether the task's pictures may not be passed on; those of an unknown task stay."""
    task = record.get("task")
    entry = registry.tasks().get(task["name"]) if isinstance(task, dict) else None
    return not getattr(getattr(entry, "cls", None), "redistributable", True)
