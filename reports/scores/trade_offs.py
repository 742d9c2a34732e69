"""Score against training seconds and examples, and against the number of test shots."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from benchmarks.stats import TestProtocol
from benchmarks.stats.comparison import MOST_EXAMPLES_RATIO
from reports import svg, words
from reports.panels import Panel, curves, far_apart, from_zero, mark, plain_numbers, points
from reports.results import Result, Results
from reports.style import Look
from reports.words import slug

#: part of the training record -> its title
COSTS = {
    "seconds": "training seconds",
    "examples": "training examples",
    "environment_steps": "environment steps in training",
}


def cost(result: Result, name: str) -> float:
    """A cost of training, mean over seeds; 0 for a method without training."""
    spent = [float(getattr(training, name)) for training in result.training]
    return sum(spent) / len(spent) if spent else 0.0


def front(costs: Sequence[float], worth: Sequence[float]) -> list[int]:
    """The Pareto front, cheapest first: indices for which none is as cheap and as good, and better in one of them."""
    order = sorted(range(len(costs)), key=lambda i: (costs[i], -worth[i]))
    kept: list[int] = []
    for index in order:
        last = kept[-1] if kept else None
        if last is None or worth[index] > worth[last] or (costs[index], worth[index]) == (costs[last], worth[last]):
            kept.append(index)
    return kept


def cost_panels(results: Results, looks: Mapping[str, Look]) -> list[Panel]:
    """A panel per kind of cost for each test that a method was trained for, in its leading column."""
    panels = []
    for column in results.compared:
        if column.protocol != results.leading(column.protocol.test) or not results.own(column.protocol.test):
            continue
        here = [result for row in column.rows if (result := results.of(row)).competes]
        if any(result.training for result in here):
            title = words.title(column.protocol, results.columns) + words.in_regime(column.protocol, results.columns)
            paid = [name for name in COSTS if _differ([cost(result, name) for result in here], name)]
            panels += [_cost_panel(title, column.protocol, results, here, name, looks) for name in paid]
    return panels


def _differ(costs: Sequence[float], name: str) -> bool:
    """Whether trained methods paid amounts that a figure tells apart: examples within a factor of 2 count as equal."""
    paid = [each for each in costs if each > 0]
    return bool(paid) and (name == "seconds" or max(paid) > MOST_EXAMPLES_RATIO * min(paid))


def _cost_panel(
    title: str, protocol: TestProtocol, results: Results, here: list[Result], name: str, looks: Mapping[str, Look]
) -> Panel:
    metric = here[0].metric
    frame = pd.concat([mark(result, cost(result, name)) for result in here], ignore_index=True)
    kept = front(list(frame["x"]), list(frame["value"] if here[0].higher_is_better else -frame["value"]))
    caption = f"Pareto front (dashed): {', '.join(frame['name'][kept])}."
    caption += " Linear up to the cheapest training, logarithmic from there." * far_apart(frame["x"])
    return Panel(
        slug(f"cost {words.title(protocol, results.columns)} {name}"),
        title,
        caption,
        f"{words.axis(metric)}, {title} · against {COSTS[name]}",
        frame,
        functools.partial(_draw_costs, looks=looks, kept=kept, xlabel=COSTS[name], ylabel=words.axis(metric)),
        looks,
    )


def _draw_costs(axes: Any, frame: pd.DataFrame, looks: Mapping[str, Look], kept: list[int], **titles: str) -> None:
    best = frame.iloc[kept]
    dashed = {"linestyle": (0, (3, 2)), "drawstyle": "steps-post"}
    axes.plot(best["x"], best["value"], color=svg.QUIET, linewidth=1, **dashed)
    points(axes, frame, looks)
    axes.set(**titles)
    from_zero(axes, frame["x"])


def shot_panels(results: Results, looks: Mapping[str, Look]) -> list[Panel]:
    """A panel for each task and regime that was tested with several numbers of shots."""
    groups: dict[TestProtocol, list[Result]] = {}
    for result in results.results:
        if result.competes:
            groups.setdefault(replace(result.column, shots=0), []).append(result)
    panels = []
    for place, here in groups.items():
        if len({result.column.shots for result in here}) > 1:
            title = words.title(place, [replace(column, shots=0) for column in results.columns])
            title += words.in_regime(here[0].column, results.columns)
            panels.append(_shot_panel(title, sorted(here, key=lambda one: one.column.shots), looks))
    return panels


def _shot_panel(title: str, here: list[Result], looks: Mapping[str, Look]) -> Panel:
    metric = here[0].metric
    return Panel(
        slug(f"shots {title}"),
        title,
        "The same fits with other numbers of support examples.",
        f"{words.axis(metric)}, {title}",
        pd.concat([mark(result, result.column.shots) for result in here]),
        functools.partial(_draw_shots, looks=looks, metric=metric),
        looks,
    )


def _draw_shots(axes: Any, frame: pd.DataFrame, looks: Mapping[str, Look], metric: str) -> None:
    curves(axes, frame.assign(low=float("nan")), looks, linewidth=1.4, marker="")
    points(axes, frame, looks)
    axes.set(xlabel="test shots", ylabel=words.axis(metric))
    axes.set_xticks(sorted(frame["x"].unique()))
    if metric == "squared error" and frame["value"].min() > 0:
        axes.set_yscale("log")
        plain_numbers(axes.yaxis)
