"""A figure of the page: the frame that it shows, and the function that draws it. Each fits a phone."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from reports import svg, words
from reports.results import Result
from reports.style import Look

#: inches
WIDTH, HEIGHT = 4.6, 3.2

#: an axis of amounts that differ by more than this factor is logarithmic
WIDE = 12
#: a figure of more marks says no values under a pointer
MOST_TIPS = 600


@dataclass(frozen=True)
class Panel:
    """A figure with its caption.

    name: of its files.
    description: what a screen reader says.
    frame: a row per mark in the units shown; ``label`` names its look, ``x``, ``value``, ``low``, ``high`` where it is.
    draw: draws the frame into axes.
    looks: label -> look; colours of these looks follow the page.
    size: inches. above, left: see `svg.drawing`.
    """

    name: str
    title: str
    caption: str
    description: str
    frame: pd.DataFrame = field(repr=False)
    draw: Callable[[Any, pd.DataFrame], None] = field(repr=False)
    looks: Mapping[str, Look] = field(repr=False)
    size: tuple[float, float] = (WIDTH, HEIGHT)
    above: float = 0.1
    left: float = 0.78

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels shown, for the legend."""
        return tuple(self.frame["label"].unique()) if "label" in self.frame else ()

    @functools.cached_property
    def svg(self) -> svg.Drawing:
        """The figure, drawn on first use."""
        with svg.drawing(self.name, *self.size, self.above, self.left) as (figure, axes):
            self.draw(axes, self.frame)
            colours = {look.tone: look.variable for look in reversed(list(self.looks.values()))}
            return svg.render(figure, colours, self.description)

    @functools.cached_property
    def tips(self) -> str:
        """What the marks say under a pointer, as JSON: the titles of the axes, and of each mark its place in the SVG,
        name, value and amount; empty where the figure says it itself."""
        axes, marks = self.svg.figure.axes[0], _told(self.frame)
        if not marks:
            return ""
        places = svg.places(axes, [(mark[0], mark[1]) for mark in marks])
        told = [[*place, *mark[2:]] for place, mark in zip(places, marks, strict=True)]
        upright = "x" in self.frame
        titles = {"x": axes.get_xlabel() if upright else "", "y": axes.get_ylabel() if upright else axes.get_xlabel()}
        return json.dumps({**titles, "marks": told}, ensure_ascii=False, separators=(",", ":"))


def _told(frame: pd.DataFrame) -> list[tuple[Any, ...]]:
    """(x, y, name, value, amount) of each mark: of points in a plane, or of a row per name."""
    if "value" not in frame or len(frame) > MOST_TIPS or not {"x", "low", "half"} & {*frame}:
        return []
    if "label" not in frame and ("x" in frame or "name" not in frame):
        return []
    who = frame["name"] if "name" in frame else frame["label"]
    who = (
        who + ", " + frame["order"] + " order"
        if "x" in frame and frame.get("order", who).isin(("first", "second")).all()
        else who
    )
    frame = frame.assign(who=who, half=frame.get("half", math.nan))
    frame = frame.assign(**{end: frame.get(end, math.nan) for end in ("low", "high")})
    if "x" not in frame:
        rows = enumerate(frame.itertuples())
        return [(row.value, place, row.who, _value(row), "") for place, row in rows if math.isfinite(row.value)]
    means = frame.groupby(["who", "x"], sort=False)[["value", "low", "high", "half"]].mean().reset_index()
    means = means[np.isfinite(means["value"])]
    return [(row.x, row.value, row.who, _value(row), words.digits(row.x, 4)) for row in means.itertuples()]


def _value(row: Any) -> str:
    """``93.2 (92.1 to 94.0)``, or with ± where that is what the frame holds."""
    value = words.digits(row.value)
    if math.isfinite(row.low):
        return f"{value} ({words.digits(row.low)} to {words.digits(row.high)})"
    return f"{value} ± {words.digits(row.half)}" if math.isfinite(row.half) else value


def marks(result: Result, curve: pd.DataFrame, x: str) -> pd.DataFrame:
    """The marks of one result: name, label, x (that column of ``curve``), value, low, high, in the unit shown; hollow
    where it rests on an under-trained fit."""
    mean, half = (words.factor(result.metric) * curve[column] for column in ("mean", "half_width"))
    return pd.DataFrame(
        {
            "name": result.name,
            "label": result.label,
            "x": curve[x],
            "value": mean,
            "low": mean - half,
            "high": mean + half,
            "hollow": result.under_trained,
        }
    )


def face(hollow: Any) -> dict[str, str]:
    """The style of a mark: hollow for what is not to be trusted yet, an under-trained fit or a noisy timing."""
    return {"markerfacecolor": svg.PAPER} if hollow else {}


def mark(result: Result, x: float) -> pd.DataFrame:
    """The mark of a result at its headline step, at ``x``."""
    interval = result.interval
    curve = {"x": [x], "mean": [interval.estimate], "half_width": [interval.half_width]}
    return marks(result, pd.DataFrame(curve), "x")


def curves(axes: Any, frame: pd.DataFrame, looks: Mapping[str, Look], alpha: float = 0.16, **style: Any) -> None:
    """A line with its band for each name in a frame of marks; where only some are hollow, those lie on all lines."""
    mixed = []
    for (_, label), own in frame.groupby(["name", "label"], sort=False):
        look = looks[str(label)]
        drawn = {"color": look.tone, "linestyle": look.dash, "marker": look.marker, **style}
        axes.plot(own["x"], own["value"], **drawn, **face(own["hollow"].all()))
        svg.band(axes, own["x"], own["low"], own["high"], color=look.tone, alpha=alpha)
        if own["hollow"].nunique() > 1:
            mixed.append((own[own["hollow"]], {**drawn, "linestyle": "none", **face(True)}))
    for some, drawn in mixed:
        axes.plot(some["x"], some["value"], **drawn)


def levels(axes: Any, frame: pd.DataFrame, looks: Mapping[str, Look], last: float) -> None:
    """Marks as horizontal lines from 0 to ``last`` that end in a marker with its bar."""
    for row in frame.itertuples():
        look = looks[row.label]
        style = {"color": look.tone, "linestyle": look.dash, "linewidth": 1.2}
        half = [row.high - row.value]
        axes.errorbar([last], [row.value], half, color=look.tone, elinewidth=1.2, capsize=2.5)
        axes.plot([0, last], [row.value] * 2, marker=look.marker, markevery=[1], **style, **face(row.hollow))


def points(axes: Any, frame: pd.DataFrame, looks: Mapping[str, Look]) -> None:
    """Marks as points with vertical bars."""
    for row in frame.itertuples():
        look, known = looks[row.label], np.isfinite(row.low)
        style = {"color": look.tone, "marker": look.marker, "linestyle": "none", "markersize": 6, "capsize": 2}
        axes.errorbar([row.x], [row.value], [row.high - row.value] if known else None, **style, **face(row.hollow))


def far_apart(amounts: Iterable[float]) -> bool:
    """Whether amounts need a logarithmic axis; zeros don't count."""
    spent = [amount for amount in amounts if amount > 0]
    return bool(spent) and max(spent) > WIDE * min(spent)


def from_zero(axes: Any, amounts: Iterable[float]) -> None:
    """Set an x axis from zero that shows all of these amounts.

    Where they are far apart, it is linear up to the smallest and logarithmic from there."""
    from matplotlib.ticker import EngFormatter, FixedLocator

    spent = [amount for amount in amounts if amount > 0]
    first, last, wide = min(spent, default=1.0), max(spent, default=1.0), far_apart(spent)
    if wide:
        axes.set_xscale("symlog", linthresh=first, linscale=0.5)
        steps = np.outer(10.0 ** np.arange(-9, 16), [1, 2, 5] if last < 100 * first else [1]).ravel()
        axes.xaxis.set_major_locator(FixedLocator([0.0, *steps[(steps >= first) & (steps <= 1.2 * last)]]))
    else:
        axes.xaxis.get_major_locator().set_params(nbins=6)
    axes.set_xlim(*((-0.08 * first, 1.2 * last) if wide else (-0.03 * last, 1.05 * last)))
    axes.xaxis.set_major_formatter(EngFormatter(sep="") if last >= 10_000 else "{x:g}")


def log_if_wide(axes: Any, values: pd.Series, metric: str) -> None:
    """Set a logarithmic y axis for errors that span more than a factor of eight."""
    known = values[np.isfinite(values)]
    if metric != "squared error" or not len(known) or known.min() <= 0 or known.max() < 8 * known.min():
        return
    axes.set_yscale("log")
    plain_numbers(axes.yaxis)


def plain_numbers(axis: Any) -> None:
    """Label a logarithmic axis 1, 2, 5, 10 and so on, or 1, 10, 100 where there is no room."""
    from matplotlib.ticker import LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    decades = {"x": 2.7, "y": 4.0}[axis.axis_name]
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 10**decades * low else (1,)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())
