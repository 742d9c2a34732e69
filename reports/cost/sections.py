"""The cost benchmark on the page: is second order worth it, and how implementations compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from reports import style, words
from reports.cost import figures, frames
from reports.cost.worth import worth_panels, worth_rows, worth_table
from reports.results import Results
from reports.scores import layout
from reports.style import Look

#: column of `cost.rows` -> (header, explanation, unit, how it is shown)
COLUMNS: dict[str, tuple[str, str, float, str]] = {
    "compile_seconds": ("compile s", "preparation and the first step, less a usual step", 1, "{:.1f}"),
    "peak_bytes": (
        "peak MiB",
        "peak of the allocations of a step; in threads: of one, times their number",
        2**20,
        "{:.2f}",
    ),
    "flops": ("MFLOP", "floating-point operations of the work, counted on the plain loop", 1e6, "{:,.1f}"),
    "operations": ("operations", "ATen operations dispatched in a step", 1, "{:,.0f}"),
    "launches": ("launches", "CUDA kernels started in a step", 1, "{:,.0f}"),
    "adapt_milliseconds_per_task": ("adapt ms/task", "adapting to a task and predicting its queries", 1, "{:.3g}"),
    "share_of_ceiling": ("of ceiling", "share of what a large matrix product reaches on this device", 1, "{:.1%}"),
    "gradient_error": ("error", "relative difference from ours, in double precision", 1, "{:.0e}"),
}
#: facts of a setting, before the rest
FACTS = ("work", "backbone", "meta_batch", "inner_steps", "order", "implementation")


def second_order(results: Results, looks: Mapping[str, Look]) -> dict[str, Any] | None:
    """The price and the gain of second order; None without costs."""
    if frames.rows(results.costs).empty:
        return None
    worth = worth_rows(results)
    return {
        "overview": frames.overview(results.costs),
        "worth": [row["sentence"] for row in worth if row["leading"]],
        "worth_table": worth_table(worth) if worth else None,
        "sentences": frames.sentences(results.costs),
        "ratios": ratio_table(results.costs),
        "implementations": _legend(results.costs),
        "panels": worth_panels(worth, looks) + figures.ratio_panels(results.costs),
    }


def implementations(results: Results, looks: Mapping[str, Look]) -> dict[str, Any] | None:
    """All numbers of every variant, and the speed-ups."""
    frame = frames.rows(results.costs)
    speeds = {work: throughput_table(results.costs, work) for work in frames.THROUGHPUTS}
    if frame.empty and not any(speeds.values()):
        return None
    return {
        "throughput": speeds,
        "speedups": speedup_table(results.costs),
        "costs": full_table(frame) if len(frame) else None,
        "implementations": _legend(results.costs),
        "absent": sorted({f"{row.implementation}: {row.reason}" for row in _skipped(frame).itertuples()}),
        "panels": figures.time_panels(results.costs) + figures.memory_panels(results.costs),
    }


def _skipped(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[frame["status"] == "skipped"] if len(frame) else frame


def _legend(records: Sequence[frames.Record]) -> list[tuple[str, Look]]:
    frame = frames.rows(records)
    return [] if frame.empty else list(figures.looks_of(frame.loc[frame["status"] == "ok", "label"]).items())


def ratio_table(records: Sequence[frames.Record]) -> layout.Table | None:
    """Time and memory of second over first order, a row per setting and implementation."""
    frame = frames.ratios(records)
    if frame.empty:
        return None
    several = frame["machine"].nunique() > 1
    names = ("implementation", *(["machine"] if several else []), "device", "backbone")
    headers = [
        *(layout.Header(name, numeric=False) for name in names),
        *(layout.Header(name) for name in ("tasks", "inner steps", "time", "memory")),
        *(layout.Header(name, screen=True) for name in ("FLOPs", "operations")),
        layout.Header("33 %", f"the paper's {frames.PAPER}: {frames.MEANINGS}", False),
        layout.Header("stable", "no: noisy timing", False),
    ]
    rows = [
        [
            layout.Cell(row.label, row.label, look=style.implementation(row.label)),
            *([layout.Cell(row.machine, row.machine)] if several else []),
            layout.Cell(row.device, row.device),
            layout.Cell(row.backbone, row.backbone),
            layout.Cell(str(row.meta_batch), row.meta_batch),
            layout.Cell(str(row.inner_steps), row.inner_steps),
            layout.Cell(frames.interval(row.time, row.low, row.high), row.time),
            *(_cell(value, "{:.2f}") for value in (row.memory, row.flops, row.operations)),
            layout.Cell(told := frames.claim(row.low, row.high, row.stable), told),
            layout.Cell("yes" if row.stable else "no", str(row.stable)),
        ]
        for row in frame.itertuples()
    ]
    return layout.Table("second-order.csv", "Second order over first", headers, rows)


def speedup_table(records: Sequence[frames.Record]) -> layout.Table | None:
    """Times over ours: of learn2learn, and of the fastest of the others."""
    frame = frames.speedups(records)
    if frame.empty:
        return None
    headers = [
        *(layout.Header(name, numeric=name in ("batch", "inner steps")) for name in
          ("setting", "order", "device")),
        layout.Header("learn2learn", "time over ours; its inner loop is a Python loop over tasks"),
        layout.Header("fastest other", numeric=False),
        layout.Header("its time over ours"),
    ]  # fmt: skip
    rows = [
        [
            layout.Cell(said := frames.described(row), said),
            layout.Cell(row["order"], row["order"]),
            layout.Cell(row["device"], row["device"]),
            layout.Cell(frames.interval(row["peer"], row["low"], row["high"]), row["peer"])
            if pd.notna(row["peer"])
            else layout.Cell(words.MISSING),
            layout.Cell(row["fastest"], row["fastest"], look=style.implementation(row["fastest"])),
            layout.Cell(
                frames.interval(row["fastest_time"], row["fastest_low"], row["fastest_high"]), row["fastest_time"]
            ),
        ]
        for row in frame.to_dict("records")
    ]
    return layout.Table("implementations.csv", "Other implementations against ours", headers, rows)


def full_table(frame: pd.DataFrame) -> layout.Table:
    """Every column of every variant; one without a time says why."""
    columns = [name for name in COLUMNS if name in frame and frame[name].notna().any()]
    headers = [
        *(layout.Header(name.replace("_", " "), numeric=name in ("meta_batch", "inner_steps")) for name in FACTS),
        layout.Header("device", numeric=False),
        layout.Header("ms", "of a meta-step, or of the evaluation of all episodes, with its 95 % interval"),
        *(layout.Header(COLUMNS[name][0], COLUMNS[name][1]) for name in columns),
        layout.Header("status", "unstable: quartiles further apart than a tenth of the median", numeric=False),
    ]
    rows = [_full_row(row, columns) for row in frame[frame["status"] != "skipped"].to_dict("records")]
    return layout.Table("costs.csv", "Costs of every variant", headers, rows)


def throughput_table(records: Sequence[frames.Record], work: str) -> layout.Table | None:
    """Environment steps per second of all ways to do the work, a key of `frames.THROUGHPUTS`."""
    frame, unit = frames.throughput(records, work), frames.THROUGHPUTS[work]
    way = "way to step" if work == "environment" else "implementation"
    if frame.empty:
        return None
    headers = [
        *(layout.Header(name, numeric=False) for name in (way, "task")),
        *(layout.Header(name) for name in ("environments", "threads", unit)),
        layout.Header("times slower than ours", "over the suite's default, with its interval", descending=False),
        layout.Header("status", numeric=False),
    ]
    rows = []
    for row in frame.to_dict("records"):
        timed = row["status"] == "ok"
        said = ("ok" if row["stable"] else "unstable") if timed else f"{row['status']}: {row['reason']}"
        rows.append(
            [
                *(layout.Cell(str(row[name]), row[name]) for name in ("label", "task")),
                _cell(row.get("environments"), "{:,.0f}"),
                _cell(row["threads"], "{:,.0f}"),
                layout.Cell(
                    frames.interval(row["steps_per_second"], row["low"], row["high"], "{:,.0f}".format),
                    row["steps_per_second"],
                )
                if timed
                else layout.Cell(words.MISSING),
                layout.Cell(frames.interval(*row["against_ours"]), row["against_ours"][0])
                if timed
                else layout.Cell(words.MISSING),
                layout.Cell(said, said),
            ]
        )
    return layout.Table(f"{work}-costs.csv", unit.capitalize(), headers, rows)


def _full_row(row: Mapping[str, Any], columns: Sequence[str]) -> list[layout.Cell]:
    facts = [row["label"] if name == "implementation" else row[name] for name in FACTS]
    timed = row["status"] == "ok"
    said = ("ok" if row.get("stable") else "unstable") if timed else f"{row['status']}: {row['reason']}"
    return [
        *(layout.Cell(str(fact), fact) for fact in facts),
        layout.Cell(row["device"], row["device"]),
        layout.Cell(
            frames.interval(row["milliseconds"], row["low"], row["high"], frames.milliseconds), row["milliseconds"]
        )
        if timed and pd.notna(row["milliseconds"])
        else layout.Cell(words.MISSING),
        *(_cell(row[name], COLUMNS[name][3], COLUMNS[name][2]) for name in columns),
        layout.Cell(said, said),
    ]


def _cell(value: Any, form: str, unit: float = 1) -> layout.Cell:
    return layout.Cell(form.format(value / unit), value / unit) if pd.notna(value) else layout.Cell(words.MISSING)
