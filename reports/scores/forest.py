"""Forest figures: the difference of each pair with its adjusted interval, beside the margin within which two methods
are called equivalent. An interval leaves zero out if and only if the verdict is better or worse."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.stats import Comparison, Pair, TestProtocol
from reports import svg, words
from reports.results import Results
from reports.scores.figures import WIDTH, Panel, colours
from reports.scores.pairs import judged_columns, shown, verdict
from reports.style import Look
from reports.words import slug

#: more pairs than that are not all drawn
MOST = 28
ROW = 0.31

#: colours of the page (light), which stand for its variables
SURE, OPEN = "#1b7f4d", svg.QUIET
MARKERS = {"equivalent": "s", "undecided": "o"}


def forest_panels(results: Results, table: Mapping[str, Look]) -> tuple[list[Panel], list[Panel]]:
    """A panel per column of the tests that somebody was trained for: the leading columns, and the others."""
    leading: list[Panel] = []
    further: list[Panel] = []
    for protocol, judged in judged_columns(results):
        if results.own(protocol.test) and drawn(judged):
            panels = leading if protocol == results.leading(protocol.test) else further
            panels.append(_panel(results, protocol, judged, table))
    return leading, further


def drawn(judged: Comparison) -> list[Pair]:
    """The pairs that are drawn, the better mean first: all of them, or (of more than `MOST`) those with the best mean
    and those of neighbours in the order of the means."""
    known = [pair for pair in judged.pairs if pair.adjusted.known]
    if len(known) <= MOST:
        return known
    place = {name: number for number, name in enumerate(judged.names)}
    return [p for p in known if place[p.first] == 0 or abs(place[p.first] - place[p.second]) == 1]


def _panel(results: Results, protocol: TestProtocol, judged: Comparison, table: Mapping[str, Look]) -> Panel:
    metric, kept = results.metric(protocol), drawn(judged)
    test = words.title(protocol, results.columns)
    regime = "" if protocol.regime == "none" else f" · {words.REGIME_TITLES.get(protocol.regime, protocol.regime)}"
    margin = shown(kept[0].margin, metric)
    none = shown(0.0, metric)
    ends = [shown(end, metric) for pair in kept for end in (pair.adjusted.low, pair.adjusted.high)]
    name = slug(f"forest {test} {protocol.regime}")

    def draw() -> svg.Drawing:
        with svg.drawing(name, WIDTH, 0.65 + ROW * len(kept), left=0.12) as (figure, axes):
            axes.axvspan(1 / margin if metric == "squared error" else -margin, margin, color=svg.RULE, alpha=0.5, lw=0)
            axes.axvline(none, color=svg.QUIET, linewidth=1)
            words_of = [verdict(judged, pair) for pair in kept]
            for place, (pair, word) in enumerate(zip(kept, words_of, strict=True)):
                label = {"transform": axes.get_yaxis_transform(), "fontsize": 8, "va": "center", "color": svg.INK}
                label["bbox"] = {"facecolor": svg.PAPER, "edgecolor": "none", "alpha": 0.7, "pad": 0.6}
                axes.text(0.005, place - 0.16, f"{pair.first} against {pair.second}: {word}", **label)
            for word in dict.fromkeys(words_of):
                places = np.flatnonzero(np.array(words_of) == word)
                some = [kept[place] for place in places]
                size, low, high = np.array(
                    [[shown(v, metric) for v in (p.contrast.estimate, p.adjusted.low, p.adjusted.high)] for p in some]
                ).T
                style = {
                    "color": OPEN if word in MARKERS else SURE,
                    "marker": MARKERS.get(word, "D"),
                    "markersize": 4.5,
                }
                axes.errorbar(
                    size, places + 0.24, xerr=[size - low, high - size], linestyle="none", capsize=2.5, **style
                )
            axes.set(ylim=(len(kept) - 0.35, -0.55), yticks=[])
            axes.grid(visible=False, axis="y")
            _scale(axes, metric, ends, margin)
            axes.set_xlabel(_axis(metric))
            return svg.render(
                figure,
                {**colours(table), SURE: "--good"},
                f"pairwise differences with adjusted intervals, {test}{regime}",
            )

    caption = f"Grey band: the margin of equivalence, {_margin(margin, metric)}."
    if len(kept) < len(judged.pairs):
        caption += f" {len(kept)} of {len(judged.pairs)} pairs: those with the best mean and those of neighbours."
    return Panel(name, f"{test}{regime}", caption, draw, ())


def _axis(metric: str) -> str:
    if metric == "squared error":
        return "how many times smaller the first one's error is"
    return f"advantage of the first ({'points of accuracy' if metric == 'accuracy' else metric})"


def _margin(margin: float, metric: str) -> str:
    if metric == "squared error":
        return f"a factor of {margin:.2f}"
    return words.count(margin, "point", "{:.2g}") if metric == "accuracy" else f"{margin:.2g}"


def _scale(axes: Any, metric: str, ends: Sequence[float], margin: float) -> None:
    """Factors on a logarithmic axis; differences that span more than two decades of the smallest on one that is linear
    around zero and logarithmic beyond."""
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
