"""What a score costs: score against training seconds and examples, and against the number of test shots."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from benchmarks.stats import TestProtocol
from reports import svg, words
from reports.results import Result, Results
from reports.scores.figures import HEIGHT, WIDTH, Panel, colours, far_apart, from_zero, plain_numbers
from reports.style import Look
from reports.words import slug

#: what is paid -> (title, the part of the training record)
COSTS = {
    "seconds": "training seconds",
    "examples": "training examples",
    "environment_steps": "environment steps in training",
}


def cost(result: Result, name: str) -> float:
    """The mean over seeds of what the training took; 0 for a method that trains nothing."""
    spent = [float(training.get(name) or 0.0) for training in result.training]
    return sum(spent) / len(spent) if spent else 0.0


def front(costs: Sequence[float], worth: Sequence[float]) -> list[int]:
    """The indices that nobody dominates (as cheap and as good, and one of them better), the cheapest first."""
    order = sorted(range(len(costs)), key=lambda i: (costs[i], -worth[i]))
    kept: list[int] = []
    for index in order:
        last = kept[-1] if kept else None
        if last is None or worth[index] > worth[last] or (costs[index], worth[index]) == (costs[last], worth[last]):
            kept.append(index)
    return kept


def cost_panels(results: Results, table: Mapping[str, Look]) -> list[Panel]:
    """A panel per kind of cost for each test that somebody was trained for, in its leading column."""
    panels = []
    for column in results.compared:
        if column.protocol != results.leading(column.protocol.test) or not results.own(column.protocol.test):
            continue
        here = [result for row in column.rows if (result := results.of(row)).competes]
        if any(result.training for result in here):
            title = words.title(column.protocol, results.columns)
            regime = words.in_regime(column.protocol, results.columns)
            paid = [name for name in COSTS if any(cost(result, name) > 0 for result in here)]
            panels += [_cost_panel(title, regime, here, name, table) for name in paid]
    return panels


def _cost_panel(title: str, regime: str, here: list[Result], name: str, table: Mapping[str, Look]) -> Panel:
    metric, upwards = here[0].metric, here[0].higher_is_better
    costs = [cost(result, name) for result in here]
    means = [result.interval.estimate for result in here]
    kept = front(costs, means if upwards else [-mean for mean in means])
    described = f"{title}{regime} · against {COSTS[name]}"

    def fill(axes: Any) -> None:
        scale = words.factor(metric)
        axes.plot(
            [costs[i] for i in kept],
            [means[i] * scale for i in kept],
            color=svg.QUIET,
            linewidth=1,
            linestyle=(0, (3, 2)),
        )
        for result, spent in zip(here, costs, strict=True):
            _point(axes, spent, result, table)
        axes.set(xlabel=COSTS[name])
        from_zero(axes, costs)

    caption = f"Pareto front (dashed): {', '.join(here[i].name for i in kept)}."
    caption += " Linear up to the cheapest training, logarithmic from there." * far_apart(costs)
    return _panel(f"cost {title} {name}", described, caption, here, fill, table)


def shot_panels(results: Results, table: Mapping[str, Look]) -> list[Panel]:
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
            panels.append(_shot_panel(title, sorted(here, key=lambda one: one.column.shots), table))
    return panels


def _shot_panel(title: str, here: list[Result], table: Mapping[str, Look]) -> Panel:
    metric = here[0].metric
    names = dict.fromkeys(result.name for result in here)
    shots = sorted({result.column.shots for result in here})

    def fill(axes: Any) -> None:
        for name in names:
            line = [result for result in here if result.name == name]
            look = table[line[0].label]
            means = [result.interval.estimate * words.factor(metric) for result in line]
            style = {"color": look.light, "linestyle": look.dash, "linewidth": 1.4}
            axes.plot([result.column.shots for result in line], means, **style)
            for result in line:
                _point(axes, result.column.shots, result, table)
        axes.set(xlabel="test shots")
        axes.set_xticks(shots)
        if metric == "squared error" and min(result.interval.estimate for result in here) > 0:
            axes.set_yscale("log")
            plain_numbers(axes.yaxis)

    return _panel(f"shots {title}", title, "The same fits with other numbers of support examples.", here, fill, table)


def _point(axes: Any, x: float, result: Result, table: Mapping[str, Look]) -> None:
    look, scale = table[result.label], words.factor(result.metric)
    half = result.interval.half_width * scale if result.interval.known else None
    style = {"color": look.light, "marker": look.marker, "linestyle": "none", "markersize": 6, "capsize": 2}
    axes.errorbar([x], [result.interval.estimate * scale], half, **style)


def _panel(
    name: str,
    title: str,
    caption: str,
    here: list[Result],
    fill: Callable[[Any], None],
    table: Mapping[str, Look],
) -> Panel:
    metric = here[0].metric

    def draw() -> svg.Drawing:
        with svg.drawing(slug(name), WIDTH, HEIGHT) as (figure, axes):
            fill(axes)
            axes.set(ylabel=words.axis(metric))
            return svg.render(figure, colours(table), f"{words.axis(metric)}, {title}")

    return Panel(slug(name), title, caption, draw, tuple(dict.fromkeys(result.label for result in here)))
