"""Where the cells of a run are computed: on this machine, on a Ray cluster, or by workers that SLURM starts.

`Place.parse` reads ``--executor``, `opened` makes the `benchmarks.run.isolate.Executor`. The order of cells, their
locks and records stay with the run that has the executor, but for SLURM, whose workers are runs of their own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from benchmarks.records import sharing
from benchmarks.run.executors.place import Needed, Place
from benchmarks.run.isolate import Executor, Local


@contextlib.contextmanager
def opened(place: Place, needed: Needed) -> Iterator[Executor]:
    """The executor of a run; nothing of it is left running at the end.

    Raises `MetabenchError` for a cluster that does not answer or does not share the store."""
    if place.here:
        yield Local(needed.jobs, place.gpus())
        return
    with sharing.held(needed.store) as sender:
        executor: Executor
        if place.kind == "ray":
            from benchmarks.run.executors.ray import Ray

            executor = Ray(place.address, needed, sender, place.numbers.get("per", 1))
        else:
            from benchmarks.run.executors.slurm import Slurm

            executor = Slurm(place.numbers.get("workers", 1), place.options, needed, sender)
        try:
            yield executor
        finally:
            executor.close()
