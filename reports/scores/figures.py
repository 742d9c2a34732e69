"""The figures: score against inner steps, and learning curves. Each is one panel, so that a phone can show it."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.stats import TestProtocol, shared
from reports import svg, words
from reports.results import Record, Result, Results
from reports.style import Look
from reports.words import slug

WIDTH, HEIGHT = 4.6, 3.2

#: an axis of amounts that differ by more than this factor is logarithmic
WIDE = 12


@dataclass(frozen=True)
class Panel:
    """One figure: its file name, title, caption, how it is drawn, and the labels that it shows (for the legend)."""

    name: str
    title: str
    caption: str
    draw: Callable[[], svg.Drawing] = field(repr=False)
    labels: tuple[str, ...]

    @functools.cached_property
    def svg(self) -> svg.Drawing:
        """The figure, drawn when it is first asked for."""
        return self.draw()


def colours(table: Mapping[str, Look]) -> dict[str, str]:
    """Hex colour -> CSS variable, for `svg.render`."""
    return {look.light: look.variable for look in reversed(list(table.values()))}


def steps_panels(results: Results, table: Mapping[str, Look]) -> list[Panel]:
    """A panel per column in which some method takes inner steps."""
    panels = []
    for column in results.columns:
        here = [result for result in results.results if result.column == column]
        if any(len(result.by_step) > 1 for result in here):
            beside = [
                result
                for result in results.results
                if result.column.test == column.test and result.column.regime == "none" and column.regime != "none"
            ]
            panels.append(_steps_panel(column, here + beside, results.columns, table))
    return panels


def _steps_panel(
    column: TestProtocol, here: list[Result], columns: Sequence[TestProtocol], table: Mapping[str, Look]
) -> Panel:
    stepping = [known for result in here if len(result.by_step) > 1 for known, _ in result.by_step.values()]
    episodes = shared(stepping)
    metric = here[0].metric
    scale = words.factor(metric)
    name = slug(f"steps {words.title(column, columns)} {column.regime}")
    title = words.title(column, columns) + words.in_regime(column, columns)

    def draw() -> svg.Drawing:
        curves = [(result, result.curve(episodes)) for result in here]
        last = max(int(curve["step"].max()) for _, curve in curves if len(curve))
        with svg.drawing(name, WIDTH, HEIGHT) as (figure, axes):
            for result, curve in curves:
                look = table[result.label]
                flat = len(curve) == 1
                # a method without steps is a level, drawn through, so that curves can be read against it
                steps = np.array([0, last]) if flat else curve["step"].to_numpy()
                mean, half = (np.resize(curve[key].to_numpy() * scale, len(steps)) for key in ("mean", "half_width"))
                style = {"color": look.light, "linestyle": look.dash, "linewidth": 1.2 if flat else 1.8}
                axes.plot(steps, mean, marker=look.marker, markevery=[len(steps) - 1] if flat else None, **style)
                if flat:
                    axes.errorbar(steps[-1:], mean[-1:], half[-1:], color=look.light, elinewidth=1.2, capsize=2.5)
                else:
                    svg.band(axes, steps, mean - half, mean + half, color=look.light, alpha=0.16)
            axes.set(xlabel="inner steps at test", ylabel=words.axis(metric), xlim=(-0.15, last + 0.15 + 0.02 * last))
            axes.xaxis.get_major_locator().set_params(integer=True)
            _log_where_wide(axes, [curve["mean"].to_numpy() for _, curve in curves], metric)
            return svg.render(figure, colours(table), f"{words.axis(metric)} against inner steps, {title}")

    caption = f"Over {words.count(len(episodes), 'episode')} scored at every step."
    return Panel(
        name, title, caption, draw, tuple(result.label for result in {result.name: result for result in here}.values())
    )


def learning_panels(results: Results, table: Mapping[str, Look]) -> list[list[Panel]]:
    """For each training task, validation score against meta-steps, examples (environment steps) and seconds."""
    tasks: dict[str, dict[str, list[Record]]] = {}
    for record in fits_with_curves(results):
        tasks.setdefault(str(record["task"]["id"]), {}).setdefault(str(record["label"]), []).append(record)
    return [
        [_learning_panel(task, fits, table, *axis) for axis in _learning_axes(fits)]
        for task, fits in sorted(tasks.items())
    ]


def _learning_axes(fits: Mapping[str, list[Record]]) -> tuple[tuple[str, str], ...]:
    control = next(iter(fits.values()))[0]["task"].get("kind") == "control"
    seen = ("environment_steps", "environment steps") if control else ("examples", "training examples")
    return ("step", "meta-steps"), seen, ("seconds", "training seconds")


def fits_with_curves(results: Results) -> list[Record]:
    """One record per fit that has a learning curve: the fit's own, else an evaluation's copy of it."""
    found: dict[str, Record] = {}
    for record in sorted(results.records, key=lambda record: record["cell"] != "fit"):
        training = record.get("training") or {}
        if record["status"] == "ok" and training.get("curve"):
            found.setdefault(str(training.get("fit") or record["key"]), record)
    return list(found.values())


def _learning_panel(
    task: str, fits: Mapping[str, list[Record]], table: Mapping[str, Look], axis: str, axis_title: str
) -> Panel:
    metric = str(next(iter(fits.values()))[0]["task"]["metric"])
    name = slug(f"learning {task} {axis}")
    title = f"{task} · against {axis_title}"

    def draw() -> svg.Drawing:
        from matplotlib.ticker import EngFormatter

        levels: list[np.ndarray] = []
        with svg.drawing(name, WIDTH, HEIGHT) as (figure, axes):
            for label, records in fits.items():
                look = table[label]
                curves = _curves(records)
                for _, curve in curves.groupby("seed"):
                    axes.plot(curve[axis], curve["score"], color=look.light, linewidth=0.8, alpha=0.35)
                # where a seed stopped early the mean stops too, so that it is one over the same seeds all along
                everywhere = curves.groupby("step")["seed"].transform("size") == len(records)
                mean = curves[everywhere].groupby("step").mean()
                x = mean.index if axis == "step" else mean[axis]
                levels.append(mean["score"].to_numpy())
                every = max(1, len(mean) // 8)
                axes.plot(x, levels[-1], color=look.light, linestyle=look.dash, marker=look.marker, markevery=every)
            axes.set(xlabel=axis_title, ylabel=f"validation {words.axis(metric)}")
            axes.set_xlim(left=0)
            axes.xaxis.set_major_formatter(EngFormatter(sep="") if axes.get_xlim()[1] >= 10_000 else "{x:g}")
            axes.xaxis.get_major_locator().set_params(nbins=6)
            _log_where_wide(axes, [level / words.factor(metric) for level in levels], metric)
            return svg.render(figure, colours(table), f"validation {words.axis(metric)} against {axis_title}, {task}")

    return Panel(name, title, "", draw, tuple(fits))


def _curves(records: Sequence[Record]) -> pd.DataFrame:
    """seed, step, seconds, examples, environment_steps, score (in the unit shown); validations without a finite score
    are left out."""
    seen = ("examples", "environment_steps")
    rows = [
        (number, point["step"], point["seconds"], *(point.get(name, math.nan) for name in seen), point["score"])
        for number, record in enumerate(records)
        for point in record["training"]["curve"]
        if point.get("score") is not None
    ]
    frame = pd.DataFrame(rows, columns=["seed", "step", "seconds", *seen, "score"])
    return frame.assign(score=frame["score"] * words.factor(str(records[0]["task"]["metric"])))


def far_apart(amounts: Iterable[float]) -> bool:
    """Whether amounts, those of zero apart, need a logarithmic axis."""
    spent = [amount for amount in amounts if amount > 0]
    return bool(spent) and max(spent) > WIDE * min(spent)


def from_zero(axes: Any, amounts: Sequence[float]) -> None:
    """An x axis from zero on that shows all of these amounts; where they are far apart, linear up to the smallest and
    logarithmic from there."""
    from matplotlib.ticker import EngFormatter, FixedLocator

    spent = [amount for amount in amounts if amount > 0]
    first, last, wide = min(spent, default=1.0), max(spent, default=1.0), far_apart(amounts)
    if wide:
        axes.set_xscale("symlog", linthresh=first, linscale=0.5)
        steps = np.outer(10.0 ** np.arange(-9, 16), [1, 2, 5] if last < 100 * first else [1]).ravel()
        axes.xaxis.set_major_locator(FixedLocator([0.0, *steps[(steps >= first) & (steps <= 1.2 * last)]]))
    else:
        axes.xaxis.get_major_locator().set_params(nbins=6)
    axes.set_xlim(*((-0.08 * first, 1.2 * last) if wide else (-0.03 * last, 1.05 * last)))
    axes.xaxis.set_major_formatter(EngFormatter(sep="") if last >= 10_000 else "{x:g}")


def _log_where_wide(axes: Any, levels: Iterable[np.ndarray], metric: str) -> None:
    """A logarithmic axis for errors that span more than a factor of eight."""
    values = np.concatenate([level[np.isfinite(level)] for level in levels] or [np.array([])])
    if metric != "squared error" or not len(values) or values.min() <= 0 or values.max() < 8 * values.min():
        return
    axes.set_yscale("log")
    plain_numbers(axes.yaxis)


def plain_numbers(axis: Any) -> None:
    """A logarithmic axis that reads 1, 2, 5, 10 and so on; where there is no room for that, 1, 10, 100."""
    from matplotlib.ticker import LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    decades = {"x": 2.7, "y": 4.0}[axis.axis_name]
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 10**decades * low else (1,)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())
