"""Curves of scores: against inner steps at test, and of validation during meta-training."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from benchmarks.records.record import Task, Training
from benchmarks.stats import TestProtocol
from benchmarks.stats.comparison import MOST_EXAMPLES_RATIO
from reports import style, words
from reports.panels import Panel, curves, face, levels, log_if_wide, marks
from reports.results import Result, Results
from reports.style import Look
from reports.words import slug


def steps_panels(results: Results, looks: Mapping[str, Look]) -> list[Panel]:
    """A panel per test, in its leading column, in which a method takes inner steps."""
    panels = []
    for column in (results.leading(test) for test in results.tests):
        if column.model == "last":
            continue
        here = [result for result in results.results if result.column == column]
        if any(len(result.by_step) > 1 for result in here):
            without = [
                result
                for result in results.results
                if result.column.test == column.test and result.column.regime == "none" and column.regime != "none"
            ]
            panels.append(_steps_panel(column, here + without, results.columns, looks))
    return panels


def _steps_panel(
    column: TestProtocol, here: list[Result], columns: Sequence[TestProtocol], looks: Mapping[str, Look]
) -> Panel:
    episodes = min(v.shape[1] for result in here if len(result.by_step) > 1 for v in result.by_step.values())
    metric, test = here[0].metric, words.title(column, columns)
    title = test + words.in_regime(column, columns)
    return Panel(
        slug(f"steps {test} {column.regime}"),
        title,
        f"Over {words.count(episodes, 'episode')} scored at every step.",
        f"{words.axis(metric)} against inner steps, {title}",
        pd.concat([marks(result, result.curve(episodes), "step") for result in here]),
        functools.partial(_draw_steps, looks=looks, metric=metric),
        looks,
    )


def _draw_steps(axes: Any, frame: pd.DataFrame, looks: Mapping[str, Look], metric: str) -> None:
    last, flat = int(frame["x"].max()), frame.groupby("name")["x"].transform("size") == 1
    curves(axes, frame[~flat], looks)
    levels(axes, frame[flat], looks, last)
    axes.set(xlabel="inner steps at test", ylabel=words.axis(metric), xlim=(-0.15, last + 0.15 + 0.02 * last))
    axes.xaxis.get_major_locator().set_params(integer=True)
    log_if_wide(axes, frame["value"], metric)


#: label, task and training of a fit
Fit = tuple[str, Task, Training]

#: the amounts that training curves are drawn against
AMOUNTS = {
    "step": "meta-steps",
    "examples": "training examples",
    "environment_steps": "environment steps",
    "seconds": "training seconds",
}


def learning_panels(results: Results, looks: Mapping[str, Look]) -> list[Panel]:
    """For each training task, validation score against examples (environment steps), and then against seconds; tasks in
    the order of the page."""
    tasks: dict[str, list[Fit]] = {}
    for fit in fits_with_curves(results):
        tasks.setdefault(fit[1].id, []).append(fit)
    panels = []
    order = list(dict.fromkeys([*(column.task for column in results.columns), *sorted(tasks)]))
    for task, fits in sorted(tasks.items(), key=lambda one: order.index(one[0])):
        points, about = _validations(fits), fits[0][1]
        for amount in ("environment_steps" if about.kind == "control" else "examples", "seconds"):
            panels.append(_learning_panel(task, points, amount, about.metric, looks))
    return panels


def fits_with_curves(results: Results) -> list[Fit]:
    """Each fit that has a learning curve: from its own record, else from an evaluation's copy that is whole."""
    found: dict[str, Fit] = {}
    for record in sorted(results.records, key=lambda record: record.cell != "fit"):
        if record.ok and record.task and record.training and record.training.curve and "curve" not in record.thinned:
            found.setdefault(record.training.fit, (record.label, record.task, record.training))
    return list(found.values())


def _validations(fits: Sequence[Fit]) -> pd.DataFrame:
    """A row per validation that all seeds of a method reached: label, seed, the amounts, value (in the unit shown), and
    hollow for an under-trained fit.

    Validations without a finite score are left out."""
    rows = [
        (
            *(label, number, *(getattr(point, name) for name in AMOUNTS)),
            *(point.score * words.factor(task.metric), training.under_trained),
        )
        for number, (label, task, training) in enumerate(fits)
        for point in training.curve
        if point.score is not None
    ]
    frame = pd.DataFrame(rows, columns=["label", "seed", *AMOUNTS, "value", "hollow"])
    reached = frame.groupby(["label", "step"])["seed"].transform("size")
    return frame[reached == frame.groupby("label")["seed"].transform("nunique")]


def _learning_panel(task: str, points: pd.DataFrame, amount: str, metric: str, looks: Mapping[str, Look]) -> Panel:
    against = AMOUNTS[amount]
    frame = points.assign(x=points.groupby(["label", "step"])[amount].transform("mean"))
    return Panel(
        slug(f"learning {task} {amount}"),
        task,
        "",
        f"validation {words.axis(metric)} against {against}, {task}",
        frame[["label", "seed", "x", "value", "hollow"]],
        functools.partial(_draw_learning, looks=looks, metric=metric, against=against),
        looks,
    )


def _draw_learning(axes: Any, frame: pd.DataFrame, looks: Mapping[str, Look], metric: str, against: str) -> None:
    import seaborn
    from matplotlib.ticker import EngFormatter

    every = max(1, int(frame.groupby("label")["x"].nunique().max()) // 8)
    how = {"errorbar": ("pi", 100), "markevery": every, "legend": False, "ax": axes}
    seaborn.lineplot(frame, x="x", y="value", hue="label", style="label", **style.mapped(looks), **how)
    short = {looks[label].tone for label in frame[frame["hollow"]]["label"].unique()}
    for line in axes.lines:
        if line.get_color() in short:
            line.set(markeredgecolor=line.get_color(), markeredgewidth=1, **face(True))
    axes.set(xlabel=against, ylabel=f"validation {words.axis(metric)}")
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(EngFormatter(sep="") if axes.get_xlim()[1] >= 10_000 else "{x:g}")
    axes.xaxis.get_major_locator().set_params(nbins=6)
    log_if_wide(axes, frame["value"], metric)


def answers_table(results: Results) -> pd.DataFrame:
    """Three questions from one training: the validation score at equal data (examples, or environment steps), at equal
    seconds, and at its best; mean over seeds, in the unit shown. One row per task and method.

    Equal is what half of the methods of a task saw. The last validation up to there counts; one before half of it does
    not, nor one beyond."""
    rows = []
    tasks: dict[str, list[Fit]] = {}
    for fit in fits_with_curves(results):
        tasks.setdefault(fit[1].id, []).append(fit)
    for task, fits in sorted(tasks.items()):
        about, means = fits[0][1], _validations(fits).groupby(["label", "step"])[[*AMOUNTS, "value"]].mean()
        amount = "environment_steps" if about.kind == "control" else "examples"
        equal = {name: _middle(means[name].groupby("label").max().tolist()) for name in (amount, "seconds")}
        for label, points in means.groupby("label"):
            row: dict[str, Any] = {"task": task, "method": label}
            for name, limit in equal.items():
                seen = points[points[name] <= limit]
                counts = len(seen) and MOST_EXAMPLES_RATIO * seen[name].iloc[-1] >= limit
                what = name if name == "seconds" else "data"
                row |= {f"at_equal_{what}": seen["value"].iloc[-1] if counts else None, f"equal_{what}": limit}
            best = points["value"].idxmax() if about.higher_is_better else points["value"].idxmin()
            rows.append({**row, "at_best": points["value"][best], "best_after_data": points[amount][best]})
    return pd.DataFrame(rows)


def _middle(values: list[float]) -> float:
    """The median, of an even number the lower one."""
    return sorted(values)[(len(values) - 1) // 2]
