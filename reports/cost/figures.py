"""Figures of the cost benchmark: the ratio of the orders, memory, and implementations beside each other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from reports import style, svg
from reports.cost import frames
from reports.scores.figures import HEIGHT, WIDTH, Panel, plain_numbers
from reports.words import slug

#: inches per implementation in a figure of bars
ROW = 0.42
#: how the orders are told apart
ORDERS: dict[str, dict[str, Any]] = {"second": {"linestyle": "-"}, "first": {"linestyle": (0, (3, 1.6))}}

#: what a panel is about: one machine, device, backbone and meta-batch
PLACE = ["machine", "device", "backbone", "meta_batch"]


def ratio_panels(records: Sequence[frames.Record]) -> list[Panel]:
    """Time of second over first order against inner steps, a panel per backbone and device with two numbers of steps
    or more: ours as a line with its band, the others thinner."""
    frame = frames.ratios(records)
    return [_ratio_panel(dict(zip(PLACE, place, strict=True)), group) for place, group in _by_steps(frame)]


def _by_steps(frame: pd.DataFrame) -> Iterable[tuple[Any, pd.DataFrame]]:
    if frame.empty:
        return []
    return [(p, g) for p, g in frame.groupby(PLACE, sort=False) if g["inner_steps"].nunique() > 1]


def _ratio_panel(place: dict[str, Any], group: pd.DataFrame) -> Panel:
    title = f"{place['backbone']} · {place['meta_batch']} tasks · {place['device']}"
    name = slug(f"cost ratio {title} {place['machine']}")
    labels = ordered(group["label"])

    def draw() -> svg.Drawing:
        with svg.drawing(name, WIDTH, HEIGHT) as (figure, axes):
            for meaning, number in frames.READINGS.items():
                axes.axhline(number, color=svg.QUIET, linewidth=1, linestyle=(0, (1, 2)))
                note = {"fontsize": 7.5, "color": svg.QUIET, "ha": "right", "va": "bottom"}
                axes.text(0.995, number, f"33 % {meaning}", transform=axes.get_yaxis_transform(), **note)
            for label in reversed(labels):
                line, look = group[group["label"] == label].sort_values("inner_steps"), style.implementation(label)
                ours = label == frames.OURS
                width = {"linewidth": 2.2 if ours else 1.1, "alpha": 1.0 if ours else 0.8}
                mark = {"marker": look.marker, "markersize": 6 if ours else 4}
                axes.plot(line["inner_steps"], line["time"], color=look.light, linestyle=look.dash, **width, **mark)
                shade = {"color": look.light, "alpha": 0.2 if ours else 0.08}
                svg.band(axes, line["inner_steps"], line["low"], line["high"], **shade)
            axes.set(xlabel="inner steps", ylabel="time, second over first order")
            axes.set_xticks(sorted(group["inner_steps"].unique()))
            # bands of a disturbed machine may reach anywhere; the lines are what is to be seen
            axes.set_ylim(min(0.9, group["time"].min() / 1.1), max(1.6, group["time"].max() * 1.25))
            return svg.render(figure, _colours(labels), f"time of second over first order against inner steps, {title}")

    caption = "Bands are 95 % intervals of the bootstrap over rounds. Dotted: what the paper's 33 % may mean."
    if disturbed := frames.disturbed(group, "points"):
        caption += f" {disturbed}."
    return Panel(name, title, caption, draw, tuple(labels))


def memory_panels(records: Sequence[frames.Record]) -> list[Panel]:
    """The peak of what a step allocates against inner steps, both orders of every implementation."""
    frame = frames.rows(records)
    if frame.empty:
        return []
    known = frame[(frame["status"] == "ok") & (frame["work"] == "meta-step") & frame["peak_bytes"].notna()]
    return [_memory_panel(dict(zip(PLACE, place, strict=True)), group) for place, group in _by_steps(known)]


def _memory_panel(place: dict[str, Any], group: pd.DataFrame) -> Panel:
    title = f"{place['backbone']} · {place['meta_batch']} tasks · {place['device']}"
    name = slug(f"cost memory {title} {place['machine']}")
    labels = ordered(group["label"])

    def draw() -> svg.Drawing:
        with svg.drawing(name, WIDTH, HEIGHT) as (figure, axes):
            for label in reversed(labels):
                look, ours = style.implementation(label), label == frames.OURS
                for order, dash in ORDERS.items():
                    line = group[(group["label"] == label) & (group["order"] == order)].sort_values("inner_steps")
                    width = {"linewidth": 2.2 if ours else 1.1, "marker": look.marker, "markersize": 6 if ours else 4}
                    axes.plot(line["inner_steps"], line["peak_bytes"] / 2**20, color=look.light, **dash, **width)
            axes.set_yscale("log")
            plain_numbers(axes.yaxis)
            axes.set(xlabel="inner steps", ylabel="peak of a step (MiB)")
            axes.set_xticks(sorted(group["inner_steps"].unique()))
            return svg.render(figure, _colours(labels), f"peak memory of a step against inner steps, {title}")

    caption = "Drawn through: second order; dashed: first. What a step holds at once beyond what was held before it."
    return Panel(name, title, caption, draw, tuple(labels))


def bar_panels(records: Sequence[frames.Record]) -> list[Panel]:
    """Milliseconds of every implementation, a panel per setting with two implementations or more."""
    frame = frames.rows(records)
    timed = frame[frame["status"] == "ok"] if len(frame) else frame
    groups = timed.groupby(list(frames.SETTING), sort=False) if len(timed) else []
    return [
        _bar_panel(dict(zip(frames.SETTING, place, strict=True)), group)
        for place, group in groups
        if group["label"].nunique() > 1
    ]


def _bar_panel(place: dict[str, Any], group: pd.DataFrame) -> Panel:
    title = f"{frames.described(place)} · {place['device']}"
    name = slug(f"cost bars {title} {place['machine']}")
    fastest = group.groupby("label")["milliseconds"].max().sort_values()
    labels = [str(label) for label in fastest.index]
    orders = [order for order in ORDERS if order in set(group["order"])]
    room = max(1.1, 0.25 + 0.08 * max(map(len, labels)))  # inches

    def draw() -> svg.Drawing:
        with svg.drawing(name, WIDTH, 0.75 + ROW * len(labels), left=room) as (figure, axes):
            least = group["low"].fillna(group["milliseconds"]).min()
            for place_of_label, label in enumerate(labels):
                look = style.implementation(label)
                for row in group[group["label"] == label].to_dict("records"):
                    shift = (orders.index(row["order"]) - (len(orders) - 1) / 2) * 0.4
                    at, height = place_of_label + shift, 0.8 / len(orders) - 0.04
                    shade = 1.0 if row["order"] == orders[0] else 0.5
                    axes.barh([at], [row["milliseconds"]], height, color=look.light, alpha=shade, linewidth=0)
                    ends = [[row["milliseconds"] - row["low"]], [row["high"] - row["milliseconds"]]]
                    if np.isfinite(ends).all():
                        axes.errorbar(
                            [row["milliseconds"]], [at], xerr=ends, color=svg.INK, elinewidth=0.8, capsize=1.5
                        )
                    text = {"fontsize": 7.5, "va": "center", "color": svg.INK}
                    axes.annotate(
                        frames.milliseconds(row["milliseconds"]),
                        (row["high"], at),
                        (5, 0),
                        textcoords="offset points",
                        **text,
                    )
            axes.set_xscale("log")
            axes.set_xlim(least / 2, group["high"].fillna(group["milliseconds"]).max() * 2.2)
            plain_numbers(axes.xaxis)
            axes.set_yticks(range(len(labels)), labels)
            axes.set_ylim(len(labels) - 0.5, -0.5)
            axes.grid(visible=False, axis="y")
            axes.set_xlabel("ms" if len(orders) == 1 else "ms per meta-step")
            return svg.render(figure, _colours(labels), f"milliseconds by implementation, {title}")

    caption = "Strong: second order; pale: first. " if len(orders) > 1 else "For all the episodes together. "
    return Panel(name, title, f"{caption}Logarithmic; bars end in 95 % intervals.", draw, tuple(labels))


def ordered(labels: Iterable[str]) -> list[str]:
    """Ours first, then in the order of the known implementations."""
    known = list(style.IMPLEMENTATIONS)

    def place(label: str) -> tuple[bool, int, str]:
        name = label.partition("/")[0]
        return label != frames.OURS, known.index(name) if name in known else len(known), label

    return sorted(set(labels), key=place)


def _colours(labels: Iterable[str]) -> dict[str, str]:
    return {look.light: look.variable for look in map(style.implementation, labels)}
