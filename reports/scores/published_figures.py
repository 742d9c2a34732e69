"""Published numbers and ours as dots: a panel per test, a line per method and number of inner steps."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.stats import Contrast
from reports import svg, words
from reports.panels import WIDTH, Panel
from reports.published import Reproduction
from reports.results import Result, Results
from reports.scores.reproduced import reproductions
from reports.style import Look

#: outcome -> colour of ours
COLOURS = {"agrees": svg.GOOD, "above": svg.INK, "below": svg.BAD, "not run": svg.QUIET}
ROW = 0.25


def published_panels(results: Results, looks: Mapping[str, Look]) -> list[Panel]:
    """Hollow: published; filled: ours, grey where training was too short to judge. Bars: 95 % intervals."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for result, found in reproductions(results).items():
        title = words.title(result.column, results.columns) + words.in_regime(result.column, results.columns)
        for one in found:
            rows.setdefault(title, []).append(_row(result, one, several=len(found) > 1))
    return [_panel(title, pd.DataFrame(lines), looks) for title, lines in rows.items()]


def _row(result: Result, one: Reproduction, several: bool) -> dict[str, Any]:
    assert one.mine is not None
    scale = words.factor(result.metric)
    mine = Contrast(result.by_step[one.mine.steps]).interval()
    shares = [fit.share for fit in result.training if fit.share is not None]
    steps = f", {words.count(one.published.steps, 'step')}" if several else ""
    share = f" ({words.percent(min(shares))})" if shares and min(shares) < 1 else ""
    half = math.nan if one.published.half_width is None else one.published.half_width * scale
    there = one.published.value * scale
    return {
        "name": f"{result.name}{steps}{share}",
        "outcome": one.outcome,
        "value": mine.estimate * scale,
        "low": mine.low * scale,
        "high": mine.high * scale,
        "published": there,
        "published_low": there - half,
        "published_high": there + half,
        "metric": result.metric,
    }


def _panel(title: str, frame: pd.DataFrame, looks: Mapping[str, Look]) -> Panel:
    return Panel(
        words.slug(f"published {title}"),
        title,
        "",
        f"published numbers (hollow) and ours (filled), {title}",
        frame,
        functools.partial(_draw, xlabel=words.axis(str(frame["metric"].iloc[0]))),
        looks,
        size=(WIDTH, 0.62 + ROW * len(frame)),
        left=0.3 + 0.068 * int(frame["name"].str.len().max()),
    )


def _draw(axes: Any, frame: pd.DataFrame, xlabel: str) -> None:
    for place, row in enumerate(frame.itertuples()):
        bar = None if np.isnan(row.published_low) else row.published_high - row.published
        style: dict[str, Any] = {"marker": "o", "capsize": 2, "elinewidth": 1.2, "linestyle": "none"}
        there = {"color": svg.QUIET, "markerfacecolor": svg.PAPER, "markersize": 6}
        axes.errorbar([row.published], [place - 0.14], xerr=bar, **style, **there)
        axes.errorbar(
            [row.value], [place + 0.14], xerr=row.high - row.value, color=COLOURS[row.outcome], markersize=5, **style
        )
    axes.set_yticks(range(len(frame)), frame["name"], fontsize=8)
    axes.set(ylim=(len(frame) - 0.4, -0.6), xlabel=xlabel)
    axes.grid(visible=False, axis="y")
