"""The gain of second order and its price: MAML against FOMAML, for stores with both and with costs."""

from __future__ import annotations

import functools
import itertools
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from benchmarks.errors import MetabenchError
from benchmarks.records.plain import whole
from benchmarks.stats import Comparison, Verdict
from reports import svg, words
from reports.cost import frames
from reports.panels import Panel, face
from reports.results import Result, Results
from reports.scores import layout
from reports.scores.pairs import shown
from reports.scores.verdict_sentences import sentence
from reports.style import Look
from reports.words import slug

#: the ratio of times, and the difference of scores, with their intervals
PRICE = ("time", "low", "high")
ADVANTAGE = ("advantage", "advantage_low", "advantage_high")


def worth_rows(results: Results) -> list[dict[str, Any]]:
    """MAML against FOMAML with as many inner steps, trained and tested alike, one row per column.

    Of several settings (a rate was swept, or tuned), the pair whose settings differ least counts, then the published
    one, then the one that validates best. test, steps, backbone, verdict; advantage in the unit shown with the interval
    that decided; leading: of the leading column; ``time``, ``low``, ``high``, ``memory``: the
    cost ratio for their network and steps (NaN: not measured)."""
    ratios = frames.ratios(results.costs)
    return [
        row
        for column in results.compared
        if isinstance(judged := results.verdicts[column.protocol], Comparison) and results.own(column.protocol.test)
        for row in _worth(results, column, judged, ratios)
    ]


def _worth(results: Results, column: Any, judged: Comparison, ratios: pd.DataFrame) -> Iterator[dict[str, Any]]:
    here = [result for row in column.rows if (result := results.of(row)).name in judged.names]
    sides = [[one for one in here if one.first.method.name == name] for name in ("maml", "fomaml")]
    for second, first in sorted(itertools.product(*sides), key=_unlike):
        if second.first.method.fields.get("inner_steps") != first.first.method.fields.get("inner_steps"):
            continue
        try:
            verdict = judged.of(second.name, first.name)
        except MetabenchError:  # no seed in common
            continue
        title = f"{words.title(column.protocol, results.columns)}{_regime(column.protocol.regime)}"
        yield {
            "test": title,
            "leading": column.protocol == results.leading(column.protocol.test),
            "metric": column.metric,
            "label": second.label,
            "steps": second.first.method.fields.get("inner_steps"),
            "hollow": second.under_trained or first.under_trained,
            "verdict": verdict.word,
            **_advantage(verdict),
            **(measured := _measured(second, ratios)),
            "sentence": f"{title}: {sentence(verdict)} {_price(measured)}",
        }
        return


def _unlike(sides: tuple[Result, ...]) -> tuple[int, bool, float]:
    """How little a MAML and a FOMAML row are a pair: settings that differ, chosen ones, bad validation."""
    second, first = (one.first.method.fields | one.first.test.chosen for one in sides)
    differing = sum(second.get(name) != first.get(name) for name in {*second, *first})
    fits = [fit.best_validation for one in sides for fit in one.training if fit.best_validation is not None]
    sign = -1 if sides[0].higher_is_better else 1
    return differing, sides[0].first.conditions.selection != "published", sign * sum(fits)


def _regime(regime: str) -> str:
    return "" if regime == "none" else f" ({words.REGIME_TITLES.get(regime, regime)})"


def _advantage(verdict: Verdict) -> dict[str, float]:
    """The advantage of second order in the unit shown: points of accuracy, or a factor of errors."""
    ends = verdict.contrast.estimate, verdict.shown.low, verdict.shown.high
    return dict(zip(ADVANTAGE, (shown(end, verdict.metric) for end in ends), strict=True))


def _measured(result: Result, ratios: pd.DataFrame) -> dict[str, Any]:
    """The cost ratio for a method's network and steps on its device: at the nearest meta-batch, on its own machine if
    possible."""
    facts, fields, record = result.first.method.facts, result.first.method.fields, result.first.record
    same = ratios[
        (ratios["label"] == frames.OURS)
        & (ratios["backbone"] == facts.get("backbone"))
        & (ratios["inner_steps"] == fields.get("inner_steps"))
        & (ratios["device"] == record.device)
    ]
    nothing = dict.fromkeys(("time", "low", "high", "memory"), float("nan"))
    if same.empty:
        place = {"inner_steps": fields.get("inner_steps"), "device": record.device}
        return {**nothing, "backbone": facts.get("backbone"), **place}
    away = (same["meta_batch"] - (whole(fields.get("meta_batch")) or 0)).abs()
    own = same["machine"] != (record.machine and record.machine.id)
    best = same.assign(own=own, away=away).sort_values(["own", "away"]).iloc[0]
    return {name: best[name] for name in (*nothing, "backbone", "inner_steps", "device")}


def _price(measured: Mapping[str, Any]) -> str:
    steps, device = words.count(measured["inner_steps"], "inner step"), measured["device"].partition(":")[0]
    where = f"{steps} on {measured['backbone']} on {frames.DEVICES.get(device, device)}"
    if pd.isna(measured["time"]):
        return f"The cost of second order at {where} was not measured."
    interval = frames.interval(measured["time"], measured["low"], measured["high"])
    memory = "" if pd.isna(measured["memory"]) else f" and {measured['memory']:.2f} times the memory"
    return f"At {where} a meta-step of second order takes {interval} times as long{memory}."


def worth_table(rows: Sequence[Mapping[str, Any]]) -> layout.Table:
    """`worth_rows` as a table."""
    frame = pd.DataFrame(rows)
    told = pd.DataFrame(
        {
            "test": frame["test"],
            "inner steps": frame["steps"],
            "backbone": frame["backbone"],
            "MAML is": frame["verdict"],
            "advantage": [
                frames.interval(row.advantage, row.advantage_low, row.advantage_high) for row in frame.itertuples()
            ],
            "unit": ["times smaller error" if m == "squared error" else words.axis(m) for m in frame["metric"]],
            "time": [frames.interval(r.time, r.low, r.high) if pd.notna(r.time) else None for r in frame.itertuples()],
            "memory": frame["memory"],
        }
    )
    return layout.frame_table("second-order-worth.csv", "MAML against FOMAML", told, {"memory": "{:.2f}".format})


def worth_panels(rows: Sequence[Mapping[str, Any]], looks: Mapping[str, Look]) -> list[Panel]:
    """Advantage of second order against its price in time: a panel per metric, a point per test and number of inner
    steps."""
    priced = [row for row in rows if row["leading"] and pd.notna(row["time"])]
    metrics = dict.fromkeys(str(row["metric"]) for row in priced)
    return [_worth_panel(metric, [row for row in priced if row["metric"] == metric], looks) for metric in metrics]


def _named(axes: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a name above every bar, within the axes and without overlap; extends the y axis."""
    left, most = axes.get_xlim()
    known: list[Any] = []
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.08 * len(rows) * (high - low))
    width = 0.99 * axes.get_window_extent().width
    for row in sorted(rows, key=lambda row: row["advantage_high"]):
        note = textwrap.fill(f"{row['test']}, {words.count(row['steps'], 'step')}", 44)
        text = {"fontsize": 7.5, "color": svg.INK, "ha": "center", "va": "bottom", "textcoords": "offset points"}
        label = axes.annotate(note, (row["time"], row["advantage_high"]), (0, 3), **text)
        box = label.get_window_extent()
        share = min(0.5, 1.35 * box.width / width / 2)  # a browser's own font may be that much wider
        label.xy = (min(max(row["time"], left + share * (most - left)), most - share * (most - left)), label.xy[1])
        while any(label.get_window_extent().overlaps(other) for other in known):
            label.xyann = (0, label.xyann[1] + 4)
        known.append(label.get_window_extent())


def _worth_panel(metric: str, rows: Sequence[Mapping[str, Any]], looks: Mapping[str, Look]) -> Panel:
    return Panel(
        slug(f"cost worth {metric}"),
        f"Is second order worth it? · {words.axis(metric)}",
        "Bars: 95 % intervals, adjusted over all pairs for the difference of scores. Hollow: under-trained.",
        f"advantage of MAML over FOMAML against its price, {metric}",
        pd.DataFrame(rows)[["test", "steps", "label", "hollow", *PRICE, *ADVANTAGE]],
        functools.partial(_draw, looks=looks, metric=metric),
        looks,
    )


def _draw(axes: Any, frame: pd.DataFrame, looks: Mapping[str, Look], metric: str) -> None:
    factor = metric == "squared error"
    axes.axhline(1.0 if factor else 0.0, color=svg.QUIET, linewidth=1)
    for row in frame.itertuples():
        look = looks[row.label]
        along = [[row.time - row.low], [row.high - row.time]]
        up = [[row.advantage - row.advantage_low], [row.advantage_high - row.advantage]]
        style_of = {"color": look.tone, "marker": look.marker, "linestyle": "none", "capsize": 2}
        axes.errorbar([row.time], [row.advantage], up, along, **style_of, **face(row.hollow))
    axes.set_xlim(min(0.9, frame["low"].min()), 1.1 * frame["high"].max())
    _named(axes, frame.to_dict("records"))
    advantage = "MAML's error, times smaller" if factor else f"MAML minus FOMAML, {words.axis(metric)}"
    axes.set(xlabel="time, second over first order", ylabel=advantage)
