"""Figures of the cost benchmark: the ratio of the orders, memory, and implementations compared with each other."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from benchmarks.stats import timing
from reports import style, svg
from reports.cost import frames
from reports.panels import WIDTH, Panel, curves, plain_numbers
from reports.style import Look
from reports.words import count, slug

#: inches per implementation in a figure of times
ROW = 0.42
#: colour and marker of the orders where implementations have names on an axis
ORDERS = {"second": (svg.INK, "o"), "first": (svg.QUIET, "D")}

#: what a panel is about: one machine, device, backbone and meta-batch
PLACE = ["machine", "device", "backbone", "meta_batch"]


def ratio_panels(records: Sequence[frames.Record]) -> list[Panel]:
    """Time of second over first order against inner steps: a panel per backbone and device with at least two numbers of
    steps, ours bold."""
    return [_ratio_panel(place, group) for place, group in _by_steps(frames.ratios(records))]


def _by_steps(frame: pd.DataFrame) -> list[tuple[dict[str, Any], pd.DataFrame]]:
    """Place -> the rows there, where there are two numbers of inner steps."""
    groups = frame.groupby(PLACE, sort=False) if len(frame) else []
    return [(dict(zip(PLACE, place, strict=True)), g) for place, g in groups if g["inner_steps"].nunique() > 1]


def _ratio_panel(place: Mapping[str, Any], group: pd.DataFrame) -> Panel:
    title = f"{place['backbone']} · {count(place['meta_batch'], 'task')} · {place['device']}"
    caption = "Band: 95 %, bootstrap over rounds. Dotted: both readings of the paper's 33 %."
    if noisy := frames.noisy(group, "points"):
        caption += f" Hollow: {noisy}."
    looks, frame = looks_of(group["label"]), ratio_marks(group)
    frame = frame.sort_values("label", key=lambda labels: labels.map(list(looks).index), kind="stable")
    described = f"time of second over first order against inner steps, {title}"
    name, draw = slug(f"cost ratio {title} {place['machine']}"), functools.partial(_draw_ratios, looks=looks)
    return Panel(name, title, caption, described, frame, draw, looks)


def ratio_marks(ratios: pd.DataFrame) -> pd.DataFrame:
    """Ratios of times as marks: name, label, x (inner steps), value, low, high; hollow where timing was noisy."""
    marks = ratios.assign(name=ratios["label"], hollow=~ratios["stable"].astype(bool)).rename(
        columns={"inner_steps": "x", "time": "value"}
    )
    return marks.sort_values("x", kind="stable")[["name", "label", "x", "value", "low", "high", "hollow"]]


def _draw_ratios(axes: Any, frame: pd.DataFrame, looks: Mapping[str, Look]) -> None:
    others = frame["label"] != frames.OURS
    curves(axes, frame[others], looks, alpha=0.08, linewidth=1.1, markersize=4)
    curves(axes, frame[~others], looks, alpha=0.2, linewidth=2.2, markersize=6)
    ratio_axes(axes, frame)


def ratio_axes(axes: Any, frame: pd.DataFrame, room: float = 1.25) -> None:
    """Draw both readings of the paper's 33 % as dotted lines, and set axes that show every ratio.

    Bands of noisy timing may leave them. room: the upper end over the largest ratio."""
    for meaning, number in frames.READINGS.items():
        axes.axhline(number, color=svg.QUIET, linewidth=1, linestyle=(0, (1, 2)))
        note = {"fontsize": 7.5, "color": svg.QUIET, "ha": "right", "va": "bottom"}
        axes.text(0.995, number, f"33 % {meaning}", transform=axes.get_yaxis_transform(), **note)
    axes.set(xlabel="inner steps", ylabel="time, second over first order")
    axes.set_xticks(sorted(frame["x"].unique()))
    axes.set_ylim(min(0.9, frame["value"].min() / 1.1), max(1.6, frame["value"].max() * room))


def memory_panels(records: Sequence[frames.Record]) -> list[Panel]:
    """The peak of what a step allocates against inner steps, both orders of every implementation."""
    frame = frames.rows(records)
    if frame.empty:
        return []
    known = frame[(frame["status"] == "ok") & (frame["work"] == "meta-step") & frame["peak_bytes"].notna()]
    return [_memory_panel(place, group) for place, group in _by_steps(known)]


def _memory_panel(place: Mapping[str, Any], group: pd.DataFrame) -> Panel:
    title = f"{place['backbone']} · {count(place['meta_batch'], 'task')} · {place['device']}"
    looks = looks_of(group["label"])
    frame = group.assign(x=group["inner_steps"], value=group["peak_bytes"] / 2**20).sort_values("x", kind="stable")
    return Panel(
        slug(f"cost memory {title} {place['machine']}"),
        title,
        "Solid: second order; dashed: first. Peak of the allocations of a step.",
        f"peak memory of a step against inner steps, {title}",
        frame.sort_values("label", key=lambda labels: labels.map(list(looks).index), kind="stable")[
            ["label", "order", "x", "value"]
        ],
        functools.partial(_draw_memory, looks=looks),
        looks,
    )


def _draw_memory(axes: Any, frame: pd.DataFrame, looks: Mapping[str, Look]) -> None:
    for (label, order), line in frame.groupby(["label", "order"], sort=False):
        look, ours = looks[str(label)], label == frames.OURS
        style = {"linewidth": 2.2 if ours else 1.1, "marker": look.marker, "markersize": 6 if ours else 4}
        axes.plot(line["x"], line["value"], color=look.tone, linestyle="-" if order == "second" else "--", **style)
    axes.set_yscale("log")
    plain_numbers(axes.yaxis)
    axes.set(xlabel="inner steps", ylabel="peak of a step (MiB)")
    axes.set_xticks(sorted(frame["x"].unique()))


def time_panels(records: Sequence[frames.Record]) -> list[Panel]:
    """Milliseconds of every implementation: a panel per setting with at least two implementations, fastest first."""
    frame = frames.rows(records)
    timed = frame[frame["status"] == "ok"] if len(frame) else frame
    groups = timed.groupby(list(frames.SETTING), sort=False) if len(timed) else []
    return [
        _time_panel(dict(zip(frames.SETTING, place, strict=True)), group)
        for place, group in groups
        if group["label"].nunique() > 1
    ]


def _time_panel(place: Mapping[str, Any], group: pd.DataFrame) -> Panel:
    title = f"{frames.described(place)} · {place['device']}"
    slowest = group.groupby("label")["milliseconds"].max().sort_values()
    rounds = group[["label", "order", "samples_milliseconds"]].explode("samples_milliseconds")
    frame = rounds.rename(columns={"samples_milliseconds": "value"}).astype({"value": float})
    two = "Black: second order; grey: first. " if group["order"].nunique() > 1 else "For all the episodes together. "
    return Panel(
        slug(f"cost times {title} {place['machine']}"),
        title,
        f"{two}Median over rounds with its 95 % interval; logarithmic.",
        f"milliseconds by implementation, {title}",
        frame.sort_values("label", key=lambda labels: labels.map(list(slowest.index).index), kind="stable"),
        _draw_times,
        looks_of(group["label"]),
        size=(WIDTH, 0.75 + ROW * len(slowest)),
        left=max(1.1, 0.25 + 0.08 * max(map(len, slowest.index))),
    )


def _draw_times(axes: Any, frame: pd.DataFrame) -> None:
    import seaborn

    orders = [order for order in ORDERS if order in set(frame["order"])]
    colours, markers = zip(*(ORDERS[order] for order in orders), strict=True)
    look = {"palette": dict(zip(orders, colours, strict=True)), "markers": list(markers), "markersize": 5}
    what = {"x": "value", "y": "label", "hue": "order", "hue_order": orders, "dodge": 0.4 if len(orders) > 1 else False}
    how = {
        "estimator": "median",
        "errorbar": _interval,
        "linestyle": "none",
        "legend": False,
        "err_kws": {"linewidth": 1},
    }
    seaborn.pointplot(frame, **what, **look, **how, ax=axes)
    labels = list(frame["label"].unique())
    for (label, order), median in frame.groupby(["label", "order"])["value"].median().items():
        place = labels.index(label) + (0.4 * orders.index(order) - 0.2 if len(orders) > 1 else 0)
        note = {"fontsize": 7.5, "ha": "center", "va": "bottom", "color": svg.INK, "textcoords": "offset points"}
        axes.annotate(frames.milliseconds(median), (median, place), (0, 2.5), **note)
    axes.set_xscale("log")
    axes.set_xlim(frame["value"].min() / 1.6, frame["value"].max() * 1.6)
    plain_numbers(axes.xaxis)
    axes.grid(visible=False, axis="y")
    axes.set(xlabel="ms" if len(orders) == 1 else "ms per meta-step", ylabel="")


def _interval(samples: Sequence[float]) -> tuple[float, float]:
    found = timing.median(samples)
    return found.low, found.high


def looks_of(labels: Iterable[str]) -> dict[str, Look]:
    """The looks of implementations: ours first, then in the order of the known ones."""
    known = list(style.IMPLEMENTATIONS)

    def place(label: str) -> tuple[bool, int, str]:
        name = label.partition("/")[0]
        return label != frames.OURS, known.index(name) if name in known else len(known), label

    return {label: style.implementation(label) for label in sorted(set(labels), key=place)}
