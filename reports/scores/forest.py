"""Forest figures: the difference of each pair with the interval that decided, and the margin of equivalence.

An adjusted interval excludes zero if and only if Holm's test tells the pair apart; equivalent and non-inferior pairs
show their 90 % interval."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.stats import Comparison, TestProtocol, Verdict
from benchmarks.stats.verdicts import WITHIN_MARGIN
from reports import svg, words
from reports.panels import WIDTH, Panel
from reports.results import Results
from reports.scores.pairs import MARKS, REFERENCE, axis, chief, leading_columns, shown
from reports.style import Look
from reports.words import slug

ROW = 0.31

#: markers of the pairs without a winner (grey)
MARKERS = dict.fromkeys(MARKS, "o") | dict.fromkeys(WITHIN_MARGIN, "s")


def forest_panels(results: Results, looks: Mapping[str, Look]) -> list[Panel]:
    """A panel per leading column of the tests that a method was trained for."""
    return [_panel(results, protocol, judged, looks) for protocol, judged in leading_columns(results) if drawn(judged)]


def drawn(judged: Comparison) -> list[Verdict]:
    """The pairs drawn: those with the best mean or with the reference, where they have an interval."""
    return [pair for pair in chief(judged) if pair.shown.known]


def _panel(results: Results, protocol: TestProtocol, judged: Comparison, looks: Mapping[str, Look]) -> Panel:
    metric, kept = results.metric(protocol), drawn(judged)
    test = words.title(protocol, results.columns)
    title = test + words.in_regime(protocol, results.columns)
    margin = shown(kept[0].margin, metric)
    caption = f"Grey band: the margin of equivalence, {_margin(margin, metric)}."
    if len(kept) < len(judged.pairs):
        caption += f" {len(kept)} of {len(judged.pairs)} pairs: those with {judged.names[0]} or {REFERENCE}."
    rows = [
        (
            f"{pair.first} against {pair.second}: {pair.word}",
            pair.word,
            *(shown(value, metric) for value in (pair.contrast.estimate, pair.shown.low, pair.shown.high)),
        )
        for pair in kept
    ]
    return Panel(
        slug(f"forest {test} {protocol.regime}"),
        title,
        caption,
        f"pairwise differences with intervals, {title}",
        pd.DataFrame(rows, columns=["name", "verdict", "value", "low", "high"]),
        functools.partial(_draw, metric=metric, margin=margin),
        looks,
        size=(WIDTH, 0.65 + ROW * len(kept)),
        left=0.12,
    )


def _draw(axes: Any, frame: pd.DataFrame, metric: str, margin: float) -> None:
    axes.axvspan(1 / margin if metric == "squared error" else -margin, margin, color=svg.RULE, alpha=0.5, lw=0)
    axes.axvline(shown(0.0, metric), color=svg.QUIET, linewidth=1)
    style: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "fontsize": 8, "va": "center", "color": svg.INK}
    style["bbox"] = {"facecolor": svg.PAPER, "edgecolor": "none", "alpha": 0.7, "pad": 0.6}
    for place, name in enumerate(frame["name"]):
        axes.text(0.005, place - 0.16, name, **style)
    for word, some in frame.groupby("verdict", sort=False):
        look = {"color": svg.QUIET if word in MARKERS else svg.GOOD, "marker": MARKERS.get(str(word), "D")}
        bars = [some["value"] - some["low"], some["high"] - some["value"]]
        axes.errorbar(
            some["value"], some.index + 0.24, xerr=bars, linestyle="none", capsize=2.5, markersize=4.5, **look
        )
    axes.set(ylim=(len(frame) - 0.35, -0.55), yticks=[], xlabel=axis(metric))
    axes.grid(visible=False, axis="y")
    _scale(axes, metric, [*frame["low"], *frame["high"]], margin)


def _margin(margin: float, metric: str) -> str:
    if metric == "squared error":
        return f"a factor of {margin:.2f}"
    return words.count(margin, "point", "{:.2g}") if metric == "accuracy" else f"{margin:.2g}"


def _scale(axes: Any, metric: str, ends: Sequence[float], margin: float) -> None:
    """A logarithmic axis for factors; for differences, one that is linear around zero and logarithmic beyond."""
    from matplotlib.ticker import FixedLocator, NullLocator

    low, high = min(ends), max(ends)
    if metric == "squared error":
        axes.set_xscale("log")
        axes.set_xlim(min(low, 1 / margin) / 1.05, max(high, margin) * 1.05)
    else:
        wide = max(abs(low), abs(high), margin)
        linear = 10.0 ** math.floor(math.log10(max(wide / 30, margin, 1e-9)))
        axes.set_xscale("symlog", linthresh=linear, linscale=0.7)
        axes.set_xlim(1.3 * min(low, -margin), 1.1 * max(high, margin))
    start, end = axes.get_xlim()
    steps = np.outer(10.0 ** np.arange(-9, 10), [1, 2, 5]).ravel()
    fine = [
        one for one in ([*-steps[::-1], 0.0, *steps] if metric != "squared error" else steps) if start <= one <= end
    ]
    coarse = [one for one in fine if one == 0 or f"{abs(one):e}"[0] == "1"]
    ticks = fine if metric == "squared error" or len(coarse) < 3 else coarse
    if metric != "squared error":
        ticks = [one for one in ticks if one == 0 or abs(one) >= linear]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter("{x:g}")
