"""What second order costs, from the records of `metabench cost`: tables, ratios with intervals, and sentences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmarks.errors import MetabenchError
from benchmarks.stats import timing

Record = Mapping[str, Any]

#: what Finn et al. (2017, section 5.2) report of leaving the second derivatives out
PAPER = "roughly 33 %"

#: the implementation that sentences are about: the suite's own, under the plan that it trains with
OURS = "ours/rule"

#: what tells two settings apart, in the order of the tables; machine and device never mix
SETTING = ("machine", "device", "backbone", "meta_batch", "inner_steps")

#: columns of the terminal's tables, which a setting without a single measured variant lacks
SHOWN = (
    *("milliseconds", "low", "high", "compile_seconds", "peak_bytes", "flops", "operations"),
    *("adapt_milliseconds_per_task", "share_of_ceiling", "gradient_error"),
)


def load(paths: Path | str | Iterable[Path | str]) -> list[Record]:
    """The cost records of one store or several, oldest first; raises `MetabenchError` where there are none."""
    from benchmarks.store import Store

    folders = [Path(paths)] if isinstance(paths, (str, Path)) else [Path(path) for path in paths]
    found = {record["key"]: record for folder in folders for record in Store(folder).records("cost")}
    if not found:
        raise MetabenchError(f"no costs in {', '.join(map(str, folders))}: run `metabench cost` first")
    return sorted(found.values(), key=lambda record: (str(record["finished"]), record["key"]))


def rows(records: Sequence[Record]) -> pd.DataFrame:
    """One row per variant: setting, order, implementation, status, and every number of it.

    Where a setting was measured more than once on a machine, the newest record counts."""
    newest: dict[tuple[Any, ...], Record] = {}
    for record in records:
        newest[_place(record)] = record
    found = [
        {**dict(zip(SETTING, place, strict=True)), **row}
        for place, record in newest.items()
        for row in (record["rows"] or _unmeasured(record))
    ]
    frame = pd.DataFrame(found)
    frame = frame.reindex(columns=list(dict.fromkeys([*frame.columns, *SHOWN])))
    return frame.sort_values(list(SETTING), kind="stable", ignore_index=True) if found else frame


def _place(record: Record) -> tuple[Any, ...]:
    setting = record["setting"]
    own = (setting["backbone"], setting["meta_batch"], setting["inner_steps"])
    return record["machine"]["id"], record["device"], *own


def _unmeasured(record: Record) -> list[dict[str, Any]]:
    """The row of a setting whose process was ended: out of memory is a result."""
    facts = {"order": "", "implementation": "", "label": "all", "status": record["status"]}
    return [{**facts, "reason": record["reason"], "samples_milliseconds": []}]


def ratios(records: Sequence[Record]) -> pd.DataFrame:
    """Second over first order, one row per setting and implementation that has both.

    Columns: those of `SETTING`, ``label``, ``time`` with its bootstrap interval ``low`` and ``high`` (both orders were
    timed in the same rounds), ``stable``, and ``memory``, ``flops``, ``operations``, NaN where they are not counted."""
    frame = rows(records)
    found = []
    timed = frame[frame["status"] == "ok"] if len(frame) else frame
    groups = timed.groupby([*SETTING, "label"], sort=False) if len(timed) else ()
    for place, group in groups:
        orders = {row["order"]: row for row in group.to_dict("records")}
        if {"first", "second"} - orders.keys():
            continue
        second, first = orders["second"], orders["first"]
        time = timing.ratio(second["samples_milliseconds"], first["samples_milliseconds"])
        counts = {
            name: _over(second[column], first[column])
            for name, column in (("memory", "peak_bytes"), ("flops", "flops"), ("operations", "operations"))
        }
        found.append(
            {
                **dict(zip((*SETTING, "label"), place, strict=True)),
                "time": time.value,
                "low": time.low,
                "high": time.high,
                "stable": bool(second["stable"]) and bool(first["stable"]),
                **counts,
            }
        )
    columns = [*SETTING, "label", "time", "low", "high", "stable", "memory", "flops", "operations"]
    return pd.DataFrame(found, columns=columns)


def ratio_table(records: Sequence[Record]) -> pd.DataFrame:
    """The time ratio second/first as text with its interval: a row per machine, device, backbone, meta-batch and
    implementation, a column per number of inner steps."""
    frame = ratios(records)
    if frame.empty:
        return frame
    frame["text"] = [f"{row.time:.2f} [{row.low:.2f}, {row.high:.2f}]" for row in frame.itertuples()]
    index = [*SETTING[:-1], "label"]
    return frame.pivot(index=index, columns="inner_steps", values="text").fillna("")


def _over(second: Any, first: Any) -> float:
    known = pd.notna(second) and pd.notna(first) and first
    return float(second) / float(first) if known else float("nan")


def sentences(records: Sequence[Record], label: str = OURS) -> list[str]:
    """What leaving the second derivatives out saves, a sentence per setting, beside what the paper says."""
    return [_sentence(row) for row in ratios(records).to_dict("records") if row["label"] == label]


def _sentence(row: Mapping[str, Any]) -> str:
    steps = f"{row['inner_steps']} inner step{'s' if row['inner_steps'] > 1 else ''}"
    memory = ""
    if pd.notna(row["memory"]):
        saved = 100 * (1 - 1 / row["memory"])
        memory = f" and takes {abs(saved):.0f} % {'less' if saved >= 0 else 'more'} memory"
    interval = f"[{row['low']:.2f}, {row['high']:.2f}]"
    speed = f"First order is {row['time']:.2f} times {interval} as fast as second order"
    where = f"at {steps} on {row['backbone']} ({row['meta_batch']} tasks, {row['device']})"
    unstable = "" if row["stable"] else " (unstable: the machine did something else as well)"
    return f"{speed}{memory} {where}{unstable}; the paper: {PAPER}."


def against(records: Sequence[Record], label: str = OURS) -> pd.DataFrame:
    """How many times as long every implementation takes as ours on the same order, with intervals; and whether it is
    the fastest of the others, which stands beside any speed-up over a slower one."""
    frame = rows(records)
    timed = frame[frame["status"] == "ok"] if len(frame) else frame
    found = []
    for place, group in timed.groupby([*SETTING, "order"], sort=False) if len(timed) else ():
        samples = dict(zip(group["label"], group["samples_milliseconds"], strict=True))
        others = (
            {name: timing.ratio(values, samples[label]) for name, values in samples.items() if name != label}
            if (label in samples)
            else {}
        )
        foreign = {name: each.value for name, each in others.items() if not name.startswith("ours")}
        fastest = min(foreign, key=lambda name: foreign[name], default=None)
        for name, each in others.items():
            own = {"label": name, "time": each.value, "low": each.low, "high": each.high, "fastest": name == fastest}
            found.append({**dict(zip((*SETTING, "order"), place, strict=True)), **own})
    return pd.DataFrame(found, columns=[*SETTING, "order", "label", "time", "low", "high", "fastest"])


def show(records: Sequence[Record], console: Console) -> None:
    """Print a table per setting, the ratios by inner steps, and the sentences."""
    frame = rows(records)
    for place, group in frame.groupby(list(SETTING), sort=False):
        _, device, backbone, meta_batch, steps = place
        console.print(_table(f"{backbone}, {meta_batch} tasks, inner steps: {steps} ({device})", group))
        for row in group[group["status"] != "ok"].to_dict("records"):
            console.print(Text(f"{row['order']} {row['label']}: {row['status']}: {row['reason']}".strip(), "yellow"))
    for sentence in sentences(records):
        console.print(Text(sentence))


def _table(title: str, group: pd.DataFrame) -> Table:
    output = Table(title=title, title_justify="left", header_style="dim")
    for name in ("order", "implementation"):
        output.add_column(name)
    for name in (
        "ms per meta-step",
        "compile s",
        "peak MiB",
        "MFLOP",
        "operations",
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
            f"{row['milliseconds']:.3g} [{row['low']:.3g}, {row['high']:.3g}]",
            _number(row["compile_seconds"], "{:.1f}"),
            _number(row["peak_bytes"], "{:.2f}", 2**20),
            _number(row["flops"], "{:.1f}", 1e6),
            _number(row["operations"], "{:.0f}"),
            _number(row["adapt_milliseconds_per_task"], "{:.3g}"),
            _number(row["share_of_ceiling"], "{:.0%}"),
            _number(row["gradient_error"], "{:.0e}"),
        )
    return output


def _number(value: Any, form: str, unit: float = 1) -> str:
    return form.format(value / unit) if pd.notna(value) else ""
