"""The output of `metabench cost`: a table per setting, failures, and sentences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from reports.cost.frames import (
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


def show(records: Sequence[Record], console: Console) -> None:
    """Print a table per setting, the ratios by inner steps, and the sentences."""
    frame = rows(records)
    for place, group in frame.groupby(list(SETTING), sort=False) if len(frame) else ():
        setting = dict(zip(SETTING, place, strict=True))
        console.print(_table(f"{described(setting)} ({setting['device']})", group))
        for row in group[group["status"] != "ok"].to_dict("records"):
            console.print(Text(f"{row['order']} {row['label']}: {row['status']}: {row['reason']}".strip(), "yellow"))
    for work, unit in THROUGHPUTS.items():
        for row in throughput(records, work).to_dict("records"):
            speed = row.get("steps_per_second")
            told = f"{speed:,.0f} {unit}" if pd.notna(speed) else f"{row['status']}: {row['reason']}"
            console.print(Text(f"{row['task']}, {row['label']}: {told}"))
    for sentence in [*overview(records), *sentences(records)]:
        console.print(Text(sentence))


def _table(title: str, group: pd.DataFrame) -> Table:
    output = Table(title=title, title_justify="left", header_style="dim")
    for name in ("order", "implementation"):
        output.add_column(name)
    for name in (  # of a meta-step, or of the evaluation of the batch
        "ms",
        "compile s",
        "peak MiB",
        "MFLOP",
        "operations",
        "launches",
        "adapt ms/task",
        "of ceiling",
        "gradient",
    ):
        output.add_column(name, justify="right")
    for row in (
        group[group["status"] == "ok"]
        .sort_values(["order", "milliseconds"], ascending=[False, True])
        .to_dict("records")
    ):
        output.add_row(
            row["order"],
            row["label"],
            "{} [{}, {}]".format(*(milliseconds(row[name]) for name in ("milliseconds", "low", "high"))),
            _number(row["compile_seconds"], "{:.1f}"),
            _number(row["peak_bytes"], "{:.2f}", 2**20),
            _number(row["flops"], "{:.1f}", 1e6),
            _number(row["operations"], "{:.0f}"),
            _number(row["launches"], "{:.0f}"),
            _number(row["adapt_milliseconds_per_task"], "{:.3g}"),
            _number(row["share_of_ceiling"], "{:.0%}"),
            _number(row["gradient_error"], "{:.0e}"),
        )
    return output


def _number(value: Any, form: str, unit: float = 1) -> str:
    return form.format(value / unit) if pd.notna(value) else ""
