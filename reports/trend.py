"""The history of the regression gate: its counts, its times on each machine, and changes of their level.

`metabench gate` appends a line for its counts and one per time to ``gate-history.jsonl`` next to the stores. Machines
differ by their fingerprint and are never compared.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.gate.history import FILE, Counted, Timing, timings
from benchmarks.gate.history import counts as counts_in
from benchmarks.stats.changes import changes
from reports import svg, words
from reports.panels import Panel

#: the columns of a history
COLUMNS = tuple(field.name for field in dataclasses.fields(Timing))


def history(stores: Iterable[Path]) -> pd.DataFrame:
    """The times of all histories next to these stores, oldest first."""
    return pd.DataFrame([vars(line) for file in _files(stores) for line in timings(file)], columns=list(COLUMNS))


def counted(stores: Iterable[Path]) -> Counted | None:
    """The latest line about counts in these histories; None without one."""
    found = sorted((line for file in _files(stores) for line in counts_in(file)), key=lambda line: line.when)
    return found[-1] if found else None


def counts_say(latest: Counted) -> str:
    """Whether the steps take as many operations as their committed counts say."""
    where, steps = latest.commit[:7], words.count(latest.steps, "step")
    if latest.changed:
        return f"{len(latest.changed)} of {steps} do other work than committed, at {where}: {latest.changed[0]}."
    take = "takes" if latest.steps == 1 else "take"
    return f"{steps} of training {take} as many operations as before ({where}, {latest.when[:10]})."


def compares(times: pd.DataFrame) -> bool:
    """Whether any step was timed twice on a machine."""
    return bool(times.duplicated(["machine", "cpu", "step"]).any())


def _files(stores: Iterable[Path]) -> dict[Path, None]:
    return dict.fromkeys(store.absolute().parent / FILE.name for store in stores)


def level_table(times: pd.DataFrame) -> pd.DataFrame:
    """A row per step and machine: the number of times, the latest level, and the change that led to it (None without
    one)."""
    rows = []
    for (machine, cpu, step), group in times.groupby(["machine", "cpu", "step"], sort=False):
        found = changes(group["seconds"].to_numpy())
        start = found[-1].at if found else 0
        last = group.iloc[start]
        rows.append(
            {
                "step": step,
                "machine": f"{cpu} ({machine})",
                "times": len(group),
                "milliseconds": 1e3 * float(group["seconds"].iloc[start:].median()),
                "changes": len(found),
                "latest_change": found[-1].ratio - 1 if found else None,
                "since_commit": str(last["commit"])[:10] if found else None,
                "since": str(last["when"])[:10] if found else None,
                "torch": str(group["torch"].iloc[-1]),
            }
        )
    return pd.DataFrame(rows)


def sentences(times: pd.DataFrame, latest: Counted | None = None) -> list[str]:
    """The counts; the latest change of each step's level, slower ones first; or how to begin a history."""
    if latest:
        untimed = sentences(times) if compares(times) else ["Times need a second run of `make gate`."]
        return [counts_say(latest), *untimed]
    if times.empty:
        return [
            "No regression history yet: `make gate` compares times and exact results with the commit before, and "
            f"appends to {FILE.name} next to the records."
        ]
    levels = level_table(times)
    moved = levels[levels["changes"] > 0].sort_values("latest_change", ascending=False)
    said = [
        f"{row.step} takes {abs(row.latest_change):.1%} {'more' if row.latest_change > 0 else 'less'} time since "
        f"{row.since_commit} ({row.since}), {row.machine}."
        for row in moved.itertuples()
    ]
    still = len(levels) - len(moved)
    return [*said, f"{still} of {words.count(len(levels), 'timed step')} never changed level."] if still else said


def trend_panels(times: pd.DataFrame) -> list[Panel]:
    """A panel per step and machine with at least two times: each time, and the level between changes as a line."""
    panels = []
    for (machine, cpu, step), group in times.groupby(["machine", "cpu", "step"], sort=False):
        if len(group) > 1:
            panels.append(_panel(str(machine), str(cpu), str(step), group["seconds"].to_numpy()))
    return panels


def _panel(machine: str, cpu: str, step: str, seconds: np.ndarray) -> Panel:
    found = changes(seconds)
    frame = pd.DataFrame({"x": range(1, len(seconds) + 1), "value": 1e3 * seconds})
    frame["level"] = [sum(change.at < x for change in found) for x in frame["x"]]
    said = "; ".join(f"{change.ratio - 1:+.1%} from run {change.at + 1} on" for change in found) or "no change of level"
    described = f"milliseconds by run of the gate, {step}, {cpu}"
    name, title = words.slug(f"trend {machine} {step}"), f"{step} · {cpu} ({machine})"
    return Panel(name, title, f"{said[0].upper()}{said[1:]}.", described, frame, _draw, {})


def _draw(axes: Any, frame: pd.DataFrame) -> None:
    axes.plot(frame["x"], frame["value"], "o", color=svg.QUIET, markersize=3.5)
    for _, level in frame.groupby("level"):
        ends = [level["x"].min() - 0.4, level["x"].max() + 0.4]
        axes.plot(ends, [level["value"].median()] * 2, color=svg.INK)
    axes.set(xlabel="run of the gate", ylabel="milliseconds", ylim=(0, 1.15 * float(frame["value"].max())))
    axes.xaxis.get_major_locator().set_params(integer=True)
