"""Machine, versions, data of each task, other libraries, and what would spoil a measurement."""

from __future__ import annotations

import os
from pathlib import Path

from rich.table import Table

from benchmarks import machine, registry
from benchmarks.cache import cache_folder
from benchmarks.commands.console import screen
from benchmarks.commands.run import prepare_one
from benchmarks.errors import MetabenchError, Unavailable
from benchmarks.images.data import CollectedTasks, is_decoded
from benchmarks.records import sharing
from benchmarks.records.store import Store


def examine(store: Path | None = None) -> None:
    """Print the table. Looking at data downloads and decodes nothing. store: one whose locks are tried."""
    import torch

    os.environ["METABENCH_OFFLINE"] = "1"
    found = machine.fingerprint("cuda" if torch.cuda.is_available() else "cpu") | machine.versions()
    found |= {name: "not installed (make peers)" for name in machine.PEERS if name not in found}
    found |= {name: _data(name) for name in registry.tasks()}
    table = Table(box=None, show_header=False)
    for name, value in found.items():
        table.add_row(name, str(value))
    table.add_row("METABENCH_DATA", os.environ.get("METABENCH_DATA") or "not set")
    table.add_row("cache", str(cache_folder()))
    if store is not None:
        with sharing.held(Store(store)):
            table.add_row("locks", f"hold between processes in {store}; `--executor` looks whether machines share them")
    screen(160).print(table)
    if hasattr(os, "getloadavg") and (load := os.getloadavg()[0]) > 0.5 * (os.cpu_count() or 1):
        note = f"note: the machine is busy (load {load:.1f}): scores are unaffected, times are not"
        screen(160).print(note, style="yellow")


def _data(name: str) -> str:
    try:
        tasks = registry.build_task(name)
        if isinstance(tasks, CollectedTasks):
            todo = f"found, neither decoded nor checked yet: metabench prepare -t {name}"
            return "decoded" if is_decoded(tasks.collection) else todo
        prepare_one(name)
    except Unavailable as reason:
        return f"missing: {reason}"
    except MetabenchError as error:
        return f"broken: {error}"
    return "ready"
