"""Pairwise differences: every pair of a column with its adjusted interval and verdict, as a table and a heat map."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.stats import Comparison, TestProtocol, Verdict
from reports import svg, words
from reports.panels import WIDTH, Panel
from reports.results import Results
from reports.style import Look

#: verdict -> its mark in a heat map, in place of a number
MARKS = {
    "equivalent": "=",
    "non-inferior": "≥",
    "no better": "≤",
    "undecided": "?",
    "unstable": "!",
    "not comparable": "–",
}
SIGNS = "; ".join(f"{mark}: {word}" for word, mark in MARKS.items())
#: inches per row; more entries than that have no room for numbers
ROW, MOST = 0.24, 14


#: the method that every other is also compared with, next to the best
REFERENCE = "maml"


def chief(judged: Comparison) -> list[Verdict]:
    """The pairs with the best mean or with the reference."""
    return [pair for pair in judged.pairs if {pair.first, pair.second} & {judged.names[0], REFERENCE}]


def pairs_table(results: Results) -> pd.DataFrame:
    """One row per pair with the best or with the reference, of each leading column of a test that was trained for.

    Advantage of the first (points of accuracy, a factor of mean errors, or score units), and the interval that decided:
    adjusted for all pairs, or of 90 % (equivalent, non-inferior)."""
    rows = []
    for protocol, judged in leading_columns(results):
        title = words.title(protocol, results.columns) + words.in_regime(protocol, results.columns)
        metric = results.metric(protocol)
        for pair in chief(judged):
            values = (pair.contrast.estimate, pair.shown.low, pair.shown.high)
            size, low, high = (shown(value, metric) for value in values)
            rows.append(
                {
                    "task": title,
                    "first": pair.first,
                    "second": pair.second,
                    "verdict": pair.word,
                    "reason": pair.reason or None,
                    "advantage": size,
                    "low": low,
                    "high": high,
                    "unit": {"accuracy": "points", "squared error": "factor"}.get(metric, metric),
                    "p_holm": pair.p_holm,
                    "seeds": pair.contrast.seeds,
                    "would_decide": str(pair.need) if pair.need else None,
                }
            )
    return pd.DataFrame(rows)


def with_intervals(frame: pd.DataFrame) -> pd.DataFrame:
    """`pairs_table` as the page shows it: both ends and the unit in one column."""
    if frame.empty:
        return frame
    ends = frame["low"].map(words.fixed) + " to " + frame["high"].map(words.fixed) + " " + frame["unit"]
    found = frame.drop(columns=["high", "unit"]).rename(columns={"low": "interval"})
    return found.assign(interval=ends.where(frame["low"].notna()))


def heat_panels(results: Results, looks: Mapping[str, Look]) -> list[Panel]:
    """A heat map per leading column of a test that a method was trained for: every entry against those with a worse
    mean, coloured where the difference is real."""
    found = []
    for protocol, judged in leading_columns(results):
        metric, test = results.metric(protocol), words.title(protocol, results.columns)
        title = test + words.in_regime(protocol, results.columns)
        rows = [(pair.first, pair.second, shown(pair.contrast.estimate, metric), pair.word) for pair in judged.pairs]
        found.append(
            Panel(
                words.slug(f"heat {test} {protocol.regime}"),
                title,
                f"{axis(metric).capitalize()}. Green: real; {SIGNS}. Best mean first.",
                f"pairwise differences, {title}",
                pd.DataFrame(rows, columns=["first", "second", "value", "verdict"]),
                functools.partial(_draw_heat, names=judged.names, factors=metric == "squared error"),
                looks,
                size=(WIDTH, 0.75 + ROW * len(judged.names)),
                above=0.3,
                left=0.4 + 0.073 * max(map(len, judged.names)),
            )
        )
    return found


def _draw_heat(axes: Any, frame: pd.DataFrame, names: Sequence[str], factors: bool) -> None:
    import seaborn

    def square(column: str) -> pd.DataFrame:
        return frame.pivot(index="first", columns="second", values=column).reindex(index=names, columns=names)

    marks = frame["verdict"].map(MARKS).astype(object)
    size = np.log(frame["value"]) if factors else frame["value"]
    frame = frame.assign(real=size.where(marks.isna(), 0), said=marks.fillna(frame["value"].map(_brief)))
    said, real = square("said").astype(object).fillna(""), square("real").astype(float)
    palette = seaborn.light_palette(svg.GOOD, as_cmap=True)
    note = {
        "annot": said if len(names) <= MOST else None,
        "fmt": "",
        "annot_kws": {"fontsize": 6.5 if len(names) <= 9 else 4.5},
    }
    # as a picture where there is no room for numbers: forty methods are 1,600 squares
    lines = {"linewidths": 1, "linecolor": svg.PAPER, "rasterized": len(names) > MOST}
    seaborn.heatmap(real, vmin=0, cmap=palette, cbar=False, ax=axes, **lines, **note)
    numbered = [f"{place}  {name}" for place, name in enumerate(names, start=1)]
    axes.set_yticks(np.arange(len(names)) + 0.5, numbered, fontsize=8, rotation=0)
    axes.set_xticks(np.arange(len(names)) + 0.5, range(1, len(names) + 1), fontsize=8, rotation=0)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.set(xlabel="", ylabel="")


def _brief(value: float) -> str:
    return f"{value:.2g}" if abs(value) < 100 else f"{value:.0f}"


def axis(metric: str) -> str:
    """The name of an axis of differences."""
    if metric == "squared error":
        return "how many times smaller the first one's error is"
    return f"advantage of the first ({'points of accuracy' if metric == 'accuracy' else metric})"


def leading_columns(results: Results) -> list[tuple[TestProtocol, Comparison]]:
    """The leading columns, with pairs, of the tests that a method was trained for, in the order of the page."""
    own = [results.leading(test) for test in results.tests if results.own(test)]
    found = [(protocol, results.verdicts[protocol]) for protocol in own]
    return [(protocol, judged) for protocol, judged in found if isinstance(judged, Comparison) and judged.pairs]


def shown(value: float, metric: str) -> float:
    """A difference on the scale of contrasts in the unit shown: a factor of errors, points of accuracy."""
    return math.exp(value) if metric == "squared error" else value * words.factor(metric)
