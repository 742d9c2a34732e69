"""Across tasks: scores between floor and ceiling, their interquartile means, and performance profiles.

Only methods with a number on every task take part; the others are named (`benchmarks.stats.aggregate`)."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.stats import Aggregate, Column, TaskScores, aggregate, task_scores
from benchmarks.stats.contrasts import SEEDS_FOR_METHODS
from reports import words
from reports.panels import WIDTH, Panel
from reports.results import REGIMES, Results
from reports.scores.verdict_sentences import ABOUT
from reports.style import Look
from reports.words import slug


@dataclass(frozen=True, eq=False)
class Across:
    """The aggregate of one batch-norm regime (and of the tasks without batch-norm).

    regime: "none" where no task has batch-norm.
    left_out: methods and tasks that take no part, and why.
    under_trained: methods with an under-trained fit.
    """

    regime: str
    tasks: tuple[TaskScores, ...]
    found: Aggregate
    left_out: tuple[str, ...]
    under_trained: frozenset[str]

    @property
    def about(self) -> str:
        """The scope of the intervals."""
        return ABOUT[self.found.scope]


@dataclass(frozen=True, eq=False)
class Group:
    """Tasks that one learner can do all of. name: "" where the page has one group. across: None where nothing can be
    averaged. why: the reasons."""

    name: str
    across: Across | None
    why: tuple[str, ...] = ()


#: the fewest tasks of an aggregate
TASKS = 3
#: averaged separately: hardly any method is for both
GROUPS = {False: "Classification and regression", True: "Control"}


def groups(results: Results) -> list[Group]:
    """The aggregates over tests that a method was trained for: of labelled tasks, and of control."""
    own = [column for column in results.compared if results.own(column.protocol.test)]
    kinds = {control: [one for one in own if (one.task.kind == "control") == control] for control in GROUPS}
    return [
        Group(name if all(kinds.values()) else "", *_fullest(results, kinds[control]))
        for control, name in GROUPS.items()
        if kinds[control]
    ]


def _fullest(results: Results, own: Sequence[Column]) -> tuple[Across | None, tuple[str, ...]]:
    """The aggregate in the regime in which most methods have all tests; or None, and why."""
    regimes = [name for name in REGIMES if name in {column.protocol.regime for column in own}]
    regimes = [name for name in regimes if name != "none"] or regimes
    tried = [_gather(results, own, regime) for regime in regimes]
    why: tuple[str, ...] = ()
    # the fullest first: resampling is slow, and one regime is shown
    for one in sorted(tried, key=lambda one: (len(one.tasks), len(one.shared)), reverse=True):
        found = _across(results, one)
        if isinstance(found, Across):
            return found, ()
        why = why or found
    return None, why


@dataclass(frozen=True, eq=False)
class _Gathered:
    """The tasks of one regime. title: column -> title of its test."""

    regime: str
    tasks: list[TaskScores]
    left_out: list[str]
    title: Mapping[str, str]

    @property
    def shared(self) -> set[str]:
        """The methods that have every task."""
        return set.intersection(*(set(task.methods) for task in self.tasks)) if self.tasks else set()

    @property
    def lacking(self) -> list[str]:
        """``a, b: no number on x``: methods that lack a task, grouped by what they lack."""
        names = list(dict.fromkeys(name for task in self.tasks for name in task.methods))
        who_lacks: dict[tuple[str, ...], list[str]] = {}
        for name in names:
            lacks = tuple(task.name for task in self.tasks if name not in task.methods)
            who_lacks.setdefault(lacks, []).append(name)
        return [
            f"{', '.join(sorted(who))}: no number on {' or '.join(lacks)}" for lacks, who in who_lacks.items() if lacks
        ]


def _gather(results: Results, own: Sequence[Column], regime: str) -> _Gathered:
    lone = [column for column in own if len(column.learners) < 2 and column.protocol.regime in (regime, "none")]
    title = {str(column.protocol): words.title(column.protocol, results.columns) for column in own}
    tasks, refused = task_scores([column for column in own if column not in lone], regime)
    left_out = [f"{title[str(one.protocol)]}: only {words.count(len(one.learners), 'learner')} there" for one in lone]
    left_out += [f"{title[name]}: {why}" for name, why in refused.items()]
    named = [TaskScores(title[one.name], one.floor, one.ceiling, one.methods, one.metric) for one in tasks]
    return _Gathered(regime, named, left_out, title)


def _across(results: Results, here: _Gathered) -> Across | tuple[str, ...]:
    """The aggregate of one regime, or why there is none."""
    left_out = (*here.lacking, *here.left_out)
    if len(here.tasks) < TASKS:
        needed = f"an aggregate needs {TASKS} tasks with a floor, a ceiling and two learners; here {len(here.tasks)}"
        return (needed, *here.left_out)
    if len(here.shared) < 2:
        who = f"only {words.listed(sorted(here.shared))}" if here.shared else "no method"
        return (f"{who} has a result on every task", *left_out)
    if (seeds := min(task.seeds for task in here.tasks)) < SEEDS_FOR_METHODS:
        return (f"an aggregate needs {SEEDS_FOR_METHODS} training seeds; here {seeds}", *left_out)
    found = aggregate(here.tasks)
    shown = [one for one in results.results if here.title.get(str(one.column)) in found.tasks]
    under_trained = frozenset(one.name for one in shown if one.under_trained)
    return Across(here.regime, tuple(here.tasks), found, left_out, under_trained)


def across_table(across: Across) -> pd.DataFrame:
    """One row per method, best first: interquartile mean with its 95 % interval, and the normalised mean of each task.

    0 is the floor of a task and 1 its ceiling."""
    rows = []
    for name, interval in _ordered(across.found):
        rows.append(
            {
                "method": name,
                "interquartile_mean": interval.estimate,
                "low": interval.low,
                "high": interval.high,
                **{task.name: float(task.normalised(task.methods[name].mean(axis=1)).mean()) for task in across.tasks},
                "seeds": min(len(task.methods[name]) for task in across.tasks),
                "under_trained": name in across.under_trained,
            }
        )
    return pd.DataFrame(rows)


def _ordered(found: Aggregate) -> list:
    return sorted(found.interquartile_means.items(), key=lambda item: (-item[1].estimate, item[0]))


def across_panels(results: Results, across: Across, looks: Mapping[str, Look], group: str = "") -> list[Panel]:
    """The interquartile means with their intervals, and the performance profiles. group: added to names and titles."""
    of = f" · {group.lower()}" if group else ""
    label = {result.name: result.label for result in results.results}
    means = pd.DataFrame(
        [(name, label[name], one.estimate, one.low, one.high) for name, one in _ordered(across.found)],
        columns=["name", "label", "value", "low", "high"],
    )
    profile = across.found.profile.rename(columns={"method": "name", "score": "x", "share": "value"})
    profile = profile.assign(label=profile["name"].map(label), order=profile["name"].map(list(means["name"]).index))
    return [
        Panel(
            slug(f"across means {group}"),
            f"Interquartile mean{of}",
            f"Over {words.listed(across.found.tasks)}; bar: 95 %.",
            "interquartile mean of normalised scores, a line per method",
            means,
            functools.partial(_draw_means, looks=looks),
            looks,
            size=(WIDTH, 0.75 + 0.34 * len(means)),
            left=0.2 + 0.073 * int(means["name"].str.len().max()),
        ),
        Panel(
            slug(f"across profile {group}"),
            f"Performance profile{of}",
            "Runs are seeds × tasks; band: 95 %.",
            "share of runs above each normalised score, a line per method",
            profile.sort_values("order", kind="stable"),
            functools.partial(_draw_profile, looks=looks),
            looks,
        ),
    ]


def _draw_means(axes: Any, frame: pd.DataFrame, looks: Mapping[str, Look]) -> None:
    for row in frame.itertuples():
        look = looks[row.label]
        style = {"color": look.tone, "marker": look.marker, "linestyle": "none", "markersize": 7, "capsize": 3}
        bars = np.maximum([[row.value - row.low], [row.high - row.value]], 0)
        axes.errorbar([row.value], [row.Index], xerr=bars if np.isfinite(row.low) else None, elinewidth=2, **style)
    axes.set(xlabel="interquartile mean", ylim=(len(frame) - 0.4, -0.6))
    axes.set_yticks(range(len(frame)), frame["name"], fontsize=8.5)
    axes.grid(visible=False, axis="y")


def _draw_profile(axes: Any, frame: pd.DataFrame, looks: Mapping[str, Look]) -> None:
    for label, own in frame.groupby("label", sort=False):
        look = looks[str(label)]
        axes.plot(own["x"], own["value"], color=look.tone, linestyle=look.dash, drawstyle="steps-post")
        axes.fill_between(own["x"], own["low"], own["high"], step="post", color=look.tone, alpha=0.12, lw=0)
    axes.set(xlabel="normalised score τ", ylabel="share of runs above τ", xlim=(0, 1), ylim=(-0.03, 1.03))
