"""The sections of the page.

To add one: a line in `reports.page.contents`, a function that returns the values of its template (None without any),
and ``templates/NAME.html.j2``. Macros for tables, figures and legends are in ``templates/macros.html.j2``.
``report --figures`` writes the figures under the key "panels" as files.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from reports import trend, words
from reports.cost import frames
from reports.page import answers
from reports.panels import Panel
from reports.results import Results
from reports.scores import (
    across,
    cards,
    changed,
    claims,
    control,
    curves,
    encodings,
    exhibits,
    forest,
    heat,
    layout,
    pairs,
    published_figures,
    reproduced,
    tables,
    trade_offs,
)
from reports.scores.findings import findings_of
from reports.style import Look

Looks = Mapping[str, Look]
Context = Mapping[str, Any]


@dataclass(frozen=True)
class Section:
    """name: of its template, and its id on the page. link: its name in the navigation, "" on the first screen.
    title: its heading. build: the values of the template; None leaves the section out. folded: closed at first, unless
    the value "closed" says otherwise."""

    name: str
    link: str
    title: str
    build: Callable[[Results, Looks], Context | None]
    folded: bool = False


def in_short(results: Results, looks: Looks) -> Context | None:
    said = answers.answers(results)
    return {"answers": said} if said else None


def overview(results: Results, looks: Looks) -> Context | None:
    table = heat.heat(results)
    return {"heat": table} if table.tests else None


def findings(results: Results, looks: Looks) -> Context | None:
    """None for a store of costs alone."""
    if not results.records:
        return None
    return {"findings": findings_of(results)}


AGAINST = {"ours_minus_published": "{:+.2f}".format, "z": "{:+.1f}".format}


def published(results: Results, looks: Looks) -> Context | None:
    frame = reproduced.published_table(results)
    if frame.empty:
        return None
    table = _table("published.csv", "Published numbers", frame, AGAINST)
    panels = published_figures.published_panels(results, looks)
    return {"sentences": reproduced.sentences(results), "published": table, "panels": panels}


def score_tables(results: Results, looks: Looks) -> Context | None:
    """The tests that a method was trained for, and (folded) the further conditions."""
    if not results.results:
        return None
    own = {words.title(results.leading(test), results.columns) for test in results.tests if results.own(test)}
    tables_ = layout.score_tables(results, looks, linked=True)
    return {
        "tables": [one for one in tables_ if one.title in own],
        "further": [t for t in tables_ if t.title not in own],
    }


ACROSS = dict.fromkeys(("interquartile_mean", "low", "high"), "{:.3f}".format)


def across_tasks(results: Results, looks: Looks) -> Context | None:
    """None for a single test."""
    if sum(results.own(test) for test in results.tests) < 2:
        return None
    found = across.groups(results)
    several = sum(one.across is not None for one in found) > 1
    shown = [_across_group(results, looks, one, one.name if several else "") for one in found]
    return {
        "groups": shown,
        "closed": not any(one["panels"] for one in shown),
        "panels": [panel for one in shown for panel in one["panels"]],
    }


def _across_group(results: Results, looks: Looks, group: across.Group, name: str) -> dict[str, Any]:
    """The values of one group of tasks. name: added to its table and figures where there are several groups."""
    found, table, panels = group.across, None, []
    if found is not None:
        forms = ACROSS | dict.fromkeys(found.found.tasks, "{:.3f}".format)
        title = f"Across tasks {name}".strip()
        table = _table(f"{words.slug(f'across {name}')}.csv", title, across.across_table(found), forms)
        panels = across.across_panels(results, found, looks, name)
    return {"name": group.name, "across": found, "why": group.why, "table": table, "panels": panels}


def steps(results: Results, looks: Looks) -> Context | None:
    return _panels(curves.steps_panels(results, looks))


def shots(results: Results, looks: Looks) -> Context | None:
    return _panels(trade_offs.shot_panels(results, looks))


def learning(results: Results, looks: Looks) -> Context | None:
    panels = curves.learning_panels(results, looks)
    if not panels:
        return None
    answered = _table("equal.csv", "Validation scores from one curve", curves.answers_table(results), EQUAL)
    return {"panels": panels, "axes": _axes(panels), "answered": answered}


def _axes(panels: Sequence[Panel]) -> list[tuple[str, list[Panel]]]:
    """Panels by the axis that a switch chooses: what was seen in training, or seconds."""
    seconds = [panel for panel in panels if panel.name.endswith("-seconds")]
    seen = [panel for panel in panels if panel not in seconds]
    return [(name, group) for name, group in (("examples or environment steps", seen), ("seconds", seconds)) if group]


#: forms of the amounts that methods saw
EQUAL = dict.fromkeys(("equal_data", "best_after_data"), "{:,.0f}".format)


def training_cost(results: Results, looks: Looks) -> Context | None:
    """Against seconds, or against examples or environment steps."""
    panels = trade_offs.cost_panels(results, looks)
    return {"panels": panels, "axes": _axes(panels)[::-1]} if panels else None


def functions(results: Results, looks: Looks) -> Context | None:
    tests = exhibits.function_panels(results, looks)
    return {"tests": tests, "panels": [panel for panels in tests.values() for panel in panels]} if tests else None


def controlled(results: Results, looks: Looks) -> Context | None:
    """None without control tasks."""
    by_step, totals = control.steps_table(results), control.totals_table(results)
    each = control.test_tasks_table(results)
    adaptation, paths = control.adaptation_panels(results, looks), control.path_panels(results, looks)
    encoded = encodings.encoding_panels(results, looks)
    shown = {
        "encodings": encoded,
        "films": control.films(results),
        "unfilmed": control.unfilmed(results),
        "regrets": control.regret_sentences(results),
        "steps": _table("returns.csv", "Returns by step", by_step, RETURNS) if len(by_step) else None,
        "test_tasks": _table("test-tasks.csv", "Returns by test task", each, RETURNS) if len(each) else None,
        "totals": _table("totals.csv", "Totals and published totals", totals, RETURNS) if len(totals) else None,
    }
    if not any(shown.values()):
        return None
    return {**shown, "adaptation": adaptation, "paths": paths, "panels": adaptation + paths + encoded}


RETURNS = dict.fromkeys(("environment_steps_each", "meta_training_environment_steps"), "{:,.0f}".format) | {
    "z": "{:+.1f}".format,
    **dict.fromkeys(("regret", "bayes_optimum", "mean", "half_width_95", "seed_deviation"), "{:.2f}".format),
}


def episodes(results: Results, looks: Looks) -> Context | None:
    samples = exhibits.episode_samples(results, looks)
    return {"episodes": samples} if samples else None


PAIRS = {"advantage": words.fixed, "p_holm": "{:.2g}".format}


def pairwise(results: Results, looks: Looks) -> Context | None:
    frame = pairs.pairs_table(results)
    if frame.empty:
        return None
    leading = forest.forest_panels(results, looks)
    matrices = pairs.heat_panels(results, looks)
    return {
        "heat": matrices,
        "pairs": _table("pairs.csv", "Pairwise differences", pairs.with_intervals(frame), PAIRS),
        "leading": leading,
        "panels": leading + matrices,
    }


def claimed(results: Results, looks: Looks) -> Context | None:
    frame = claims.claims_table(results)
    table = _table("claims.csv", "Claims of the papers", frame)
    return {"claims": table, "summary": claims.summary(frame)} if len(frame) else None


def changes(results: Results, looks: Looks) -> Context:
    """The history of the regression gate, in a few sentences."""
    times = trend.history(results.stores)
    return {"sentences": trend.sentences(times, trend.counted(results.stores)), "known": not times.empty}


TIMES = {"before (ms)": "{:.3g}".format, "now (ms)": "{:.3g}".format, "ratio": "{:.2f}".format}


def against(other: Results) -> Callable[[Results, Looks], Context | None]:
    """The section of what changed since other records."""

    def build(results: Results, looks: Looks) -> Context | None:
        found = changed.changed(results, other)
        named = {"Scores": found.scores, "New and gone runs": found.runs, "Times of a meta-step": found.times}
        tables = [_table(f"{words.slug(name)}.csv", name, one, TIMES) for name, one in named.items() if len(one)]
        return {"other": words.listed([str(path) for path in other.stores]), "found": found, "tables": tables}

    return build


def method_cards(methods: cards.Described) -> Callable[[Results, Looks], Context | None]:
    """The section of method cards. methods: the registered ones."""

    def build(results: Results, looks: Looks) -> Context | None:
        if not results.records:
            return None
        found = cards.cards(results, heat.heat(results), methods)
        return {"cards": [one for one in found if one.lines], "others": [one for one in found if not one.lines]}

    return build


def task_sheets(tasks: cards.Described) -> Callable[[Results, Looks], Context | None]:
    """The data sheets of the tasks of the records. tasks: the registered ones."""

    def build(results: Results, looks: Looks) -> Context | None:
        found = cards.sheets(results, tasks)
        return {"sheets": found} if found else None

    return build


LEVELS = {"milliseconds": "{:.4g}".format, "latest_change": "{:+.1%}".format}


def timed(results: Results, looks: Looks) -> Context | None:
    """The gate's times over commits; None where no step was timed twice."""
    times = trend.history(results.stores)
    if not trend.compares(times):
        return None
    levels = _table("trend.csv", "Times of the regression gate", trend.level_table(times), LEVELS)
    return {"levels": levels, "panels": trend.trend_panels(times)}


#: how the columns of the protocol table are shown
PROTOCOL: dict[str, Callable[[Any], str]] = {
    "mean": words.fixed,
    "half_width_95": words.fixed,
    "share_of_budget": words.percent,
    "training_seconds": "{:,.1f}".format,
    "examples_seen": "{:,.0f}".format,
    "inner_rate_mean_loss": "{:.3g}".format,
}


WHERE_UNTIMED = "The table of all variants says which, and why."


def failures(results: Results, looks: Looks) -> Context:
    untimed = frames.untimed(results.costs)
    under_trained = tables.under_trained_table(results)
    return {
        "failures": tables.failures_table(results).to_dict("records"),
        "results": results,
        "untimed": f"{words.count(sum(untimed.values()), 'variant')} of the cost benchmark without a time: "
        f"{', '.join(f'{count} {status}' for status, count in untimed.items())}. {WHERE_UNTIMED}"
        if untimed
        else "",
        "measured": bool(results.records),
        "under_trained": layout.frame_table("under-trained.csv", "Under-trained fits", under_trained, PROTOCOL)
        if len(under_trained)
        else None,
    }


def protocol(results: Results, looks: Looks) -> Context:
    main = tables.main_table(results)
    machines = tables.machines_table(results.measured)
    same = [name for name in machines if machines[name].astype(str).nunique() == 1 and len(machines) > 1]
    return {
        "csv": data_uri(main.convert_dtypes().to_csv(index=False).encode()) if len(main) else "",
        "common": {name: machines[name].iloc[0] for name in same if machines[name].iloc[0]},
        "machines": _table("machines.csv", "Machines and versions", machines.drop(columns=same)),
        "dirty": any(record.git and record.git.dirty for record in results.measured),
    }


def _panels(found: Sequence[Panel]) -> Context | None:
    return {"panels": list(found)} if found else None


def _table(name: str, title: str, frame: pd.DataFrame, forms: Mapping[str, Any] | None = None) -> layout.Table:
    """A frame as a table, without empty columns."""
    return layout.frame_table(name, title, frame.dropna(axis="columns", how="all"), forms or {})


def data_uri(content: bytes, media: str = "text/csv;charset=utf-8") -> str:
    return f"data:{media};base64,{base64.b64encode(content).decode()}"
