"""The side of a cluster's node: one job, in a process of its own with limits, as at home. It knows no engine.

The node ends the job when the run that sent it is gone, or when its own parent is.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from multiprocessing import connection
from pathlib import Path
from typing import Any

from benchmarks.errors import MetabenchError
from benchmarks.machine import usable_cores, usable_memory
from benchmarks.records import sharing
from benchmarks.records.plain import content_key
from benchmarks.records.store import Store
from benchmarks.run import isolate
from benchmarks.run.isolate import POLL, SUITE, Job, Outcome, Process

#: seconds between two looks whether the sender is alive
WATCH = 5.0
#: the share of a node's memory that all cells together may take
MEMORY_SHARE = 0.8


def work(
    job: Job, threads: int, store: str, sender: str, name: str, device: str, variables: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    """Run a job here; yields ``{"begun": name}``, its reports as ``{"progress": ...}``, and ``{"outcome": ...}``.

    sender: the lock that the sending run holds. name: of this node, for records. variables: of the sender's
    environment. Raises `MetabenchError` where this node does not share the store."""
    os.environ.update({**variables, "METABENCH_NODE": name})
    sharing.check_shared(store, sender)
    threading.Thread(target=_end_with, args=(store, sender, os.getppid()), daemon=True).start()
    isolate.warm(SUITE)
    # a node that was given up may still be at work on the cell: no other begins before it has ended
    with Store(store).lock(content_key(["node", job.key])):
        yield {"begun": name}
        job = dataclasses.replace(job, memory_bytes=job.memory_bytes or _memory(threads))
        try:
            process = Process(job, threads)
        except (OSError, EOFError) as error:
            raise MetabenchError(f"its process could not be started: {type(error).__name__}: {error}") from None
        try:
            while (outcome := process.outcome()) is None:
                connection.wait(process.handles(), timeout=POLL)
                yield from ({"progress": report} for report in process.news())
        finally:
            process.kill()
            process.close()
        facts = {} if outcome.status == "ok" else _facts(device)
        yield {"outcome": dataclasses.replace(outcome, facts=facts)}


def _memory(threads: int) -> int | None:
    """The share of this node's memory, in bytes, for a job with its share of the cores."""
    usable = usable_memory()
    return None if usable is None else int(usable * MEMORY_SHARE * min(1.0, threads / (usable_cores() or 1)))


def _facts(device: str) -> Mapping[str, Any]:
    """The facts of this machine for the record of a failure."""
    with tempfile.TemporaryDirectory() as folder:
        job = Job("facts", ("benchmarks.run.worker:facts", {"device": device}), Path(folder) / "log", 60.0)
        found: Outcome = isolate.run([job], 1, lambda event: None, preload=SUITE)["facts"]
    return found.value or {"machine": None}


def _end_with(store: str, sender: str, parent: int) -> None:
    """End this process, and with it its jobs, when its parent changes or the sender's lock is free."""
    while os.getppid() == parent and sharing.is_held(store, sender):
        time.sleep(WATCH)
    os._exit(1)
