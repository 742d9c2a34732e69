"""The output of `metabench cost`: a table per setting, failures, and sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from rich.console import Console
from rich.text import Text

from reports import columns
from reports.cost.frames import (
    LEARNERS,
    SETTING,
    THROUGHPUTS,
    Record,
    described,
    milliseconds,
    overview,
    rows,
    sentences,
    throughput,
)
from reports.cost.learners import against_maml


def show(records: Sequence[Record], console: Console) -> None:
    """Print a table per setting, the ratios by inner steps, and the sentences."""
    frame = rows(records)
    for place, group in frame.groupby(list(SETTING), sort=False) if len(frame) else ():
        setting = dict(zip(SETTING, place, strict=True))
        console.print(Text(f"{described(setting)} ({setting['device']})", style="bold"))
        done = group[group["status"] == "ok"].sort_values(["order", "milliseconds"], ascending=[False, True])
        found = [(f"{row['label']}, {row['order']}", _texts(row)) for row in done.to_dict("records")]
        for table in columns.tables("implementation, order", found, console.width) if found else ():
            console.print(table, "")
        _untimed(group, console)
    for row in against_maml(records).to_dict("records"):
        where = f"{row['learner']}, {row['order']} {row['label']}, {described(row)} ({row['device']})"
        times = f" and {row['time']:.2f} times MAML's" if pd.notna(row["time"]) else ""
        console.print(Text(f"{where}: {milliseconds(row['milliseconds'])} ms{times}"))
    _untimed(rows(records, (LEARNERS,)), console)
    for work, unit in THROUGHPUTS.items():
        for row in throughput(records, work).to_dict("records"):
            speed = row.get("steps_per_second")
            told = f"{speed:,.0f} {unit}" if pd.notna(speed) else f"{row['status']}: {row['reason']}"
            console.print(Text(f"{row['task']}, {row['label']}: {told}"))
    for sentence in [*overview(records), *sentences(records)]:
        console.print(Text(sentence))


def _untimed(group: pd.DataFrame, console: Console) -> None:
    for row in group[group["status"] != "ok"].to_dict("records") if len(group) else ():
        named = "" if row.get("learner", "maml") == "maml" else f"{row['learner']} "
        told = f"{named}{row['order']} {row['label']}: {row['status']}: {row['reason']}"
        console.print(Text(told.strip(), "yellow"))


def _texts(row: Mapping[str, Any]) -> dict[str, str]:
    """The costs of a meta-step, or of the evaluation of the batch, by their titles."""
    return {
        "ms": "{} [{}, {}]".format(*(milliseconds(row[name]) for name in ("milliseconds", "low", "high"))),
        "compile s": _number(row["compile_seconds"], "{:.1f}"),
        "peak MiB": _number(row["peak_bytes"], "{:.2f}", 2**20),
        "MFLOP": _number(row["flops"], "{:.1f}", 1e6),
        "operations": _number(row["operations"], "{:.0f}"),
        "launches": _number(row["launches"], "{:.0f}"),
        "adapt ms/task": _number(row["adapt_milliseconds_per_task"], "{:.3g}"),
        "of ceiling": _number(row["share_of_ceiling"], "{:.0%}"),
        "gradient error": _number(row["gradient_error"], "{:.0e}"),
    }


def _number(value: Any, form: str, unit: float = 1) -> str:
    return form.format(value / unit) if pd.notna(value) else ""
