"""Environment steps per second of several ways to do the same work, timed alternately in one process.

`control_steps` times simulators, `recurrent_steps` the training of recurrent policies. Rounds are in a new order each,
with as many threads as there are cores. The first entry is the suite's own.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from benchmarks.errors import MetabenchError, status_of
from benchmarks.machine import usable_cores, versions
from benchmarks.stats import timing

Progress = Callable[[dict[str, Any]], None]
Block = Callable[[], int]


@dataclass
class Entry:
    """One way to do the work. ``block`` does it once in all of its environments and returns the environment steps.

    facts: further values of its row.
    first_seconds: of the first block with its preparation, if that compiled it."""

    label: str
    environments: int
    block: Block
    status: str = "ok"
    reason: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    first_seconds: float | None = None
    steps: int = 0
    samples: list[float] = field(default_factory=list)

    def run(self) -> None:
        """Time one block. After an error the entry takes no further part."""
        if self.status != "ok":
            return
        try:
            began = time.perf_counter()
            self.steps = self.block()
            self.samples.append((time.perf_counter() - began) / self.steps)
        except Exception as error:
            self.status, self.reason = status_of(error)


def measure(
    name: str,
    task: str,
    entries: Callable[[int, contextlib.ExitStack], Iterable[Entry]],
    progress: Progress,
    rounds: int,
    threads: int | None,
) -> dict[str, Any]:
    """The rows as plain values; for jobs of `benchmarks.run.isolate`.

    name: of the work, for the progress.
    entries: makes them, given the number of threads and a stack that closes what they open.
    threads: None: as many as there are cores.

    A row holds label, environments, status, reason, steps of a block, seconds per step of every round, and steps per
    second with an interval. ``against_ours`` is its time per step divided by that of the first entry, with an interval
    over the rounds."""
    threads = threads or usable_cores() or 1
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with contextlib.ExitStack() as stack:
            compared = list(entries(threads, stack))
            order = np.random.default_rng(0)
            for number in range(rounds + 1):
                progress({"line": f"{name}: round {number} of {rounds}"})
                for position in order.permutation(len(compared)):
                    compared[position].run()
                if number == 0:  # the first blocks load libraries and models
                    for each in compared:
                        each.samples.clear()
    finally:
        torch.set_num_threads(before)
    if not compared[0].samples:
        raise MetabenchError(f"{compared[0].label}: {compared[0].reason}")
    rows = [_row(each, compared[0]) for each in compared]
    return {"task": task, "threads": threads, "rounds": rounds, "rows": rows, "versions": versions()}


def _row(each: Entry, ours: Entry) -> dict[str, Any]:
    facts = {"label": each.label, "environments": each.environments, "status": each.status, "reason": each.reason}
    unknown = ("steps_per_second", "low", "high", "spread", "stable", "against_ours", "compile_seconds")
    row = {**facts, **each.facts, "steps": each.steps, "seconds_per_step": each.samples, **dict.fromkeys(unknown)}
    if each.samples:
        speeds = [1 / seconds for seconds in each.samples]
        speed = timing.median(speeds)
        row["steps_per_second"], row["low"], row["high"] = speed.value, speed.low, speed.high
        row["spread"] = spread = timing.spread(speeds)
        row["stable"] = spread <= timing.SPREAD
        if each.first_seconds is not None:
            row["compile_seconds"] = max(0.0, each.first_seconds - each.steps / speed.value)
        slower = timing.ratio(each.samples, ours.samples)
        row["against_ours"] = [slower.value, slower.low, slower.high]
    return row


def lines(record: dict[str, Any]) -> Iterator[str]:
    """The record as a table for the terminal."""
    yield f"{record['task']}, {record['threads']} threads, {record['rounds']} rounds"
    yield f"{'':16}{'environments':>14}{'steps/s':>10}{'interval':>21}{'times slower than ours':>32}"
    for row in record["rows"]:
        if row["steps_per_second"] is None:
            yield f"{row['label']:16}{row['environments']:>14}  {row['status']}: {row['reason']}"
            continue
        ratio, low, high = row["against_ours"]
        span, slower = f"{row['low']:,.0f} to {row['high']:,.0f}", f"{ratio:.2f} ({low:.2f} to {high:.2f})"
        unstable = "" if row["stable"] else "  unstable"
        count, speed = row["environments"], f"{row['steps_per_second']:,.0f}"
        yield f"{row['label']:16}{count:>14}{speed:>10}{span:>21}{slower:>32}{unstable}"


def show(record: dict[str, Any]) -> None:
    """Print the table, then the record as JSON."""
    print("\n".join(lines(record)))
    print(json.dumps(record))


def tell(plain: dict[str, Any]) -> None:
    """Print the progress of a measurement."""
    print(plain["line"], flush=True)
