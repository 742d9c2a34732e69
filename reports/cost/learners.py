"""The cost of a meta-step of each learner next to MAML's, and how far the orders' meta-gradients agree."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from benchmarks.stats import timing
from reports import style, svg, words
from reports.cost import frames
from reports.panels import Panel, plain_numbers
from reports.results import Results
from reports.scores import layout
from reports.style import Look
from reports.words import slug

#: columns of `against_maml` that are ratios of counts -> the column of a row
COUNTS = {"memory": "peak_bytes", "flops": "flops"}
#: the work of the records of `benchmarks.cost.gradient_agreement`
AGREEMENT = "agreement"
#: column -> line style and meaning, in the order of the caption
LINES = {
    "cosine": ("-", "cosine of first and second order"),
    "between_batches": (":", "cosine of second-order gradients on two batches of tasks"),
    "norm_ratio": ("--", "norm of first over second order"),
}


def against_maml(records: Sequence[frames.Record]) -> pd.DataFrame:
    """One row per timed learner, order and implementation.

    Columns: those of `frames.SETTING`, ``learner``, ``order``, ``label``, ``milliseconds``, then over MAML in the same
    implementation ``time`` with its interval ``low`` and ``high``, ``memory`` and ``flops``, over FOMAML
    ``over_first``, and over ours with the same learner ``over_ours``; NaN where one is missing."""
    frame = frames.rows(records, (frames.LEARNERS,))
    timed = frame[frame["status"] == "ok"] if len(frame) else frame
    found = []
    for _, group in timed.groupby(list(frames.SETTING), sort=False) if len(timed) else ():
        known = {(row["learner"], row["order"], row["label"]): row for row in group.to_dict("records")}
        for (learner, order, label), row in known.items():
            maml = known.get(("maml", "second", label))
            over = _times(row, maml)
            found.append(
                {
                    **{name: row[name] for name in (*frames.SETTING, "learner", "order", "label", "milliseconds")},
                    **dict(zip(("time", "low", "high"), over, strict=True)),
                    **{name: _over(row, maml, column) for name, column in COUNTS.items()},
                    "over_first": _over(row, known.get(("maml", "first", label)), "milliseconds"),
                    "over_ours": _over(row, known.get((learner, order, frames.OURS)), "milliseconds"),
                }
            )
    return pd.DataFrame(found)


def _times(row: Mapping[str, Any], other: Mapping[str, Any] | None) -> tuple[float, float, float]:
    if other is None:
        return (float("nan"),) * 3
    found = timing.ratio(row["samples_milliseconds"], other["samples_milliseconds"])
    return found.value, found.low, found.high


def _over(row: Mapping[str, Any], other: Mapping[str, Any] | None, column: str) -> float:
    known = other is not None and pd.notna(row[column]) and pd.notna(other[column]) and other[column]
    return float(row[column]) / float(other[column]) if other is not None and known else float("nan")


def learner_costs(results: Results, looks: Mapping[str, Look]) -> dict[str, Any] | None:
    """The table of `against_maml`; None without such costs."""
    frame = against_maml(results.costs)
    return None if frame.empty else {"costs": learner_table(frame)}


def learner_table(frame: pd.DataFrame) -> layout.Table:
    """`against_maml` as a table."""
    headers = [
        *(layout.Header(name, numeric=False) for name in ("learner", "order", "setting", "implementation", "device")),
        layout.Header("ms", "of a meta-step"),
        layout.Header("time / MAML", "in the same implementation, with its 95 % interval"),
        layout.Header("time / FOMAML"),
        layout.Header("memory / MAML", "peak of the allocations of a step"),
        layout.Header("FLOPs / MAML"),
        layout.Header("time / ours", "of the same learner"),
    ]
    rows = [
        [
            *(layout.Cell(str(row[name]), row[name]) for name in ("learner", "order")),
            layout.Cell(said := frames.described(row), said),
            layout.Cell(row["label"], row["label"], look=style.implementation(row["label"])),
            layout.Cell(row["device"], row["device"]),
            layout.Cell(frames.milliseconds(row["milliseconds"]), row["milliseconds"]),
            layout.Cell(frames.interval(row["time"], row["low"], row["high"]), row["time"])
            if pd.notna(row["time"])
            else layout.Cell(words.MISSING),
            *(_ratio(row[name]) for name in ("over_first", "memory", "flops", "over_ours")),
        ]
        for row in frame.to_dict("records")
    ]
    return layout.Table("learner-costs.csv", "Meta-steps of the learners", headers, rows)


def _ratio(value: float) -> layout.Cell:
    return layout.Cell(f"{value:.2f}", value) if pd.notna(value) else layout.Cell(words.MISSING)


def agreement(results: Results, looks: Mapping[str, Look]) -> dict[str, Any] | None:
    """A panel per task; None without such records."""
    frame = frames.throughput(results.costs, AGREEMENT)
    frame = frame[frame["status"] == "ok"] if len(frame) else frame
    panels = [_panel(str(task), group) for task, group in frame.groupby("task", sort=False)] if len(frame) else []
    if not panels:
        return None
    return {"panels": panels, "legend": list(panels[0].looks.items())}


def _panel(task: str, group: pd.DataFrame) -> Panel:
    marks = group.melt(["inner_steps", "step", "meta_batch"], list(LINES), var_name="line", value_name="value")
    marks = marks.assign(label=marks["inner_steps"].map(lambda steps: words.count(int(steps), "inner step")))
    looks = {label: _look(place) for place, label in enumerate(marks["label"].unique())}
    meta_batch = int(group["meta_batch"].iloc[0])
    return Panel(
        slug(f"agreement {task}"),
        f"{task} · {meta_batch} tasks per meta-step",
        f"{'; '.join(f'{_dash(dash)}: {meaning}' for dash, meaning in LINES.values())}. One seed.",
        f"agreement of first- and second-order meta-gradients along training, {task}",
        marks[["label", "line", "step", "value"]].rename(columns={"step": "x"}),
        functools.partial(_draw, looks=looks),
        looks,
    )


def _dash(dash: str) -> str:
    return {"-": "Solid", ":": "dotted", "--": "dashed"}[dash]


def _look(place: int) -> Look:
    light, dark = style.COLOURS[place]
    return Look(place, light, dark, style.MARKERS[place], "-", "cost")


def _draw(axes: Any, frame: pd.DataFrame, looks: Mapping[str, Look]) -> None:
    for (label, line), own in frame.groupby(["label", "line"], sort=False):
        axes.plot(own["x"], own["value"], color=looks[str(label)].light, linestyle=LINES[str(line)][0], linewidth=1.4)
    axes.axhline(1.0, color=svg.QUIET, linewidth=0.8)
    axes.set_xscale("log")
    plain_numbers(axes.xaxis)
    axes.set(xlabel="meta-steps", ylabel="cosine, and ratio of norms")
    axes.set_ylim(min(-0.1, frame["value"].min()), 1.1 * max(1.0, frame["value"].max()))
