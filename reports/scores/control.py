"""Control tasks on the page: returns against environment steps of adaptation, totals and published totals, paths before
and after adaptation, and short films (`reports.scores.exhibits` explains the arrays)."""

from __future__ import annotations

import base64
import functools
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.records.thinning import PICTURES_KEPT
from benchmarks.stats import Contrast
from reports import published, svg, words
from reports.panels import Panel, curves, far_apart, from_zero, levels, marks
from reports.results import Result, Results
from reports.scores.exhibits import exhibited
from reports.style import Look
from reports.words import slug

PATH_ARRAYS = {"paths", "goals", "steps"}
FILM_ARRAYS = {"frames", "steps"}

#: a field of tasks with simulated robots
ROBOT_FIELD = "simulator"
#: the method that learns a strategy for bandits
LEARNED = "rl2"


def adaptation_panels(results: Results, looks: Mapping[str, Look]) -> list[Panel]:
    """For each control task with learners that adapt: return against environment steps per task.

    Only this axis compares methods: a step of RL^2 is an episode, a gradient step takes many trajectories."""
    panels = []
    for column in results.columns:
        here = [result for result in results.results if result.column == column and result.metric == "return"]
        spent = {result: _spent(result) for result in here}
        if any(len(curve) > 1 for curve in spent.values()):
            frame = pd.concat([marks(result, curve, "environment_steps") for result, curve in spent.items()])
            panels.append(_adaptation_panel(words.title(column, results.columns), frame, looks))
    return panels


def _spent(result: Result) -> pd.DataFrame:
    """environment_steps (mean over seeds), mean and half_width at every step whose record counts them."""
    counts: dict[int, list[float]] = {}
    for tested in result.tested:
        for row in tested.test.summary:
            if row.environment_steps is not None:
                counts.setdefault(row.step, []).append(row.environment_steps)
    curve = result.curve(_fewest(result))
    known = curve[curve["step"].isin(counts)]
    return known.assign(environment_steps=[float(np.mean(counts[int(step)])) for step in known["step"]])


def _fewest(result: Result) -> int:
    """The episodes scored at the first step, which has no more than the others."""
    return next((scores.shape[1] for scores in result.by_step.values()), 0)


def _adaptation_panel(title: str, frame: pd.DataFrame, looks: Mapping[str, Look]) -> Panel:
    caption = "Bands: 95 % over test tasks."
    caption += " Linear up to the first step, logarithmic from there." * far_apart(_amounts(frame))
    described = f"return against environment steps of adaptation, {title}"
    draw = functools.partial(_draw_adaptation, looks=looks)
    return Panel(slug(f"adaptation {title}"), title, caption, described, frame, draw, looks)


def _amounts(frame: pd.DataFrame) -> list[float]:
    """The environment steps of the methods that adapt."""
    return list(frame.loc[~_flat(frame), "x"])


def _flat(frame: pd.DataFrame) -> pd.Series:
    return frame.groupby("name")["x"].transform("size") == 1


def _draw_adaptation(axes: Any, frame: pd.DataFrame, looks: Mapping[str, Look]) -> None:
    amounts, flat = _amounts(frame), _flat(frame)
    curves(axes, frame[~flat], looks)
    levels(axes, frame[flat], looks, max(amounts))
    from_zero(axes, amounts)
    axes.set(xlabel="environment steps per task in adaptation", ylabel="return")


def steps_table(results: Results) -> pd.DataFrame:
    """Return after each step (a gradient step; for RL^2 an episode of the trial): method, task, a column of
    ``mean ± half-width`` per step, and the environment steps per task and step."""
    rows = []
    for result in results.results:
        if result.metric != "return" or len(result.by_step) < 2:
            continue
        curve, spent = result.curve(_fewest(result)), _spent(result)
        cells = {
            f"after {int(row.step)}": words.published(float(row.mean), float(row.half_width), result.metric)
            for row in curve.itertuples()
        }
        taken = spent["environment_steps"].diff().dropna()
        rows.append(
            {
                "method": result.name,
                "task": words.title(result.column, results.columns),
                **cells,
                "environment_steps_each": float(taken.mean()) if len(taken) else None,
                "meta_training_environment_steps": _mean([one.environment_steps for one in result.training]),
                "seeds": len(result.tested),
            }
        )
    return pd.DataFrame(rows)


def test_tasks_table(results: Results) -> pd.DataFrame:
    """Return in each test task of a finite list (0: backward, 1: forward): a mean over both hides one that isn't
    learned. One row per method and test task: episodes, mean, 95 % half-width over them, and spread over seeds."""
    rows = []
    for result in results.results:
        strata = result.row.strata
        for number in np.unique(strata) if strata is not None else ():
            scores = result.row.values.mean(axis=2)[:, strata == number]
            interval = Contrast(scores).interval("models")
            rows.append(
                {
                    "method": result.name,
                    "task": words.title(result.column, results.columns),
                    "test_task": int(number),
                    "episodes": scores.shape[1],
                    "mean": interval.estimate,
                    "half_width_95": interval.half_width,
                    "seed_deviation": float(scores.mean(axis=1).std(ddof=1)) if len(scores) > 1 else None,
                }
            )
    return pd.DataFrame(rows)


def totals_table(results: Results) -> pd.DataFrame:
    """Total rewards and published means over many instances, with a z-score each, and the regret: the distance to the
    Bayes optimum, where the records hold it. The paper prints no interval; `reports.published.distance` has the z."""
    numbers, rows = published.load(), []
    for result in results.results:
        if result.column.model != "best" or result.metric != "return":
            continue
        anchor = next(
            (one for one in numbers if (one.method, one.task) == (result.label, result.column.task) and _total(one)),
            None,
        )
        optimum = _optimum(result)
        if anchor is None and optimum is None:
            continue
        rows.append(
            {
                "method": result.name,
                "task": words.title(result.column, results.columns),
                "ours": words.plus_minus(result.interval, result.metric),
                "published": anchor.value if anchor else None,
                "z": published.distance(anchor, published.ours(result.row)).z if anchor else None,
                "regret": None if optimum is None else optimum - result.interval.estimate,
                "bayes_optimum": optimum,
                "instances_there": anchor.episodes if anchor else None,
                "source": anchor.source if anchor else None,
            }
        )
    return pd.DataFrame(rows)


def _total(number: published.Published) -> bool:
    """Whether a published number is a mean return over a known number of instances."""
    return number.metric == "return" and bool(number.episodes)


def _optimum(result: Result) -> float | None:
    """The expected total of the best possible strategy, where the method's facts hold it."""
    value = result.first.method.facts.get("bayes_optimum")
    return None if value is None else float(value)


def regret_sentences(results: Results) -> list[str]:
    """The regret of RL^2, a sentence per bandit."""
    found = []
    for result in results.results:
        optimum = _optimum(result)
        if optimum is None or result.column.model != "best" or result.first.method.name != LEARNED:
            continue
        below = optimum - result.interval.estimate
        side = "below" if below >= 0 else "above (by chance)"
        earned, title = words.plus_minus(result.interval, result.metric), words.title(result.column, results.columns)
        optimal = f"the Bayes optimum of {optimum:.2f}"
        found.append(f"{result.name} earns {earned} on {title}, {abs(below):.2f} {side} {optimal}.")
    return found


def path_panels(results: Results, looks: Mapping[str, Look]) -> list[Panel]:
    """A panel per method: paths of an agent in the plane before and after adaptation, one per goal."""
    return [
        _path_panel(result, arrays, words.title(result.column, results.columns), looks)
        for result, arrays in exhibited(results, PATH_ARRAYS)
        if result.column.model == "best"
    ]


def _path_panel(result: Result, arrays: Mapping[str, np.ndarray], test: str, looks: Mapping[str, Look]) -> Panel:
    last, goals = int(arrays["steps"][-1]), arrays["goals"]
    paths = {f"after {words.count(last, 'step')}" if last else "paths": arrays["paths"][-1]}
    if len(arrays["steps"]) > 1:
        paths = {"before": arrays["paths"][0], **paths}
    frames = [
        pd.DataFrame({"name": name, "task": task, "x": path[:, 0], "value": path[:, 1]})
        for name, found in paths.items()
        for task, path in enumerate(found[:, 0])
    ]
    frames.append(pd.DataFrame({"name": "goals", "x": goals[:, 0], "value": goals[:, 1]}))
    return Panel(
        slug(f"paths {test} {result.name}"),
        result.name,
        f"{test}, one path in each of {words.count(len(goals), 'test task')}, seed {result.seeds[0]}",
        f"{test}: paths of {result.name} before and after adaptation",
        pd.concat(frames),
        functools.partial(_draw_paths, look=looks[result.label]),
        looks,
        size=(3.3, 3.3),
        above=0.42,
    )


def _draw_paths(axes: Any, frame: pd.DataFrame, look: Look) -> None:
    goals = frame[frame["name"] == "goals"]
    for (name, task), path in frame.groupby(["name", "task"], sort=False):
        style = {"color": look.tone, "linewidth": 1.8}
        if name == "before":
            style = {"color": svg.QUIET, "linewidth": 1.0, "linestyle": (0, (2, 1))}
        axes.plot(path["x"], path["value"], label=name if task == 0 else None, **style)
    axes.plot(goals["x"], goals["value"], linestyle="none", marker="*", markersize=11, color=svg.INK, label="goals")
    # an untrained policy may leave the axes
    room = 1.6 * float(goals[["x", "value"]].abs().to_numpy().max()) + 0.1
    axes.set(xlim=(-room, room), ylim=(-room, room), xlabel="x", ylabel="y", aspect="equal")
    svg.legend_above(axes)


def films(results: Results) -> list[Mapping[str, Any]]:
    """A filmstrip per method: frames of an episode before and after adaptation, one row each (data URI)."""
    found: list[Mapping[str, Any]] = []
    for result, arrays in exhibited(results, FILM_ARRAYS):
        if result.column.model != "best":
            continue
        steps, frames = [int(step) for step in arrays["steps"]], arrays["frames"]
        places = [0, len(steps) - 1] if len(steps) > 1 else [0]
        said = " and ".join(f"after {words.count(steps[place], 'step')}" for place in places)
        title = words.title(result.column, results.columns)
        strip = filmstrip([frames[place] for place in places])
        found.append({"title": result.name, "caption": f"{title}: {said}", "uri": strip})
    return found


def unfilmed(results: Results) -> str:
    """The tests with robots that lack a film, in one line; empty without any."""
    found: dict[str, bool] = {}
    filmed = {(result.column.test, result.name) for result, _ in exhibited(results, FILM_ARRAYS)}
    for result in results.results:
        if ROBOT_FIELD in result.first.task.fields and result.column.model == "best":
            title = words.title(result.column, results.columns)
            found[title] = found.get(title, False) or (result.column.test, result.name) in filmed
    missing = [title for title, there in found.items() if not there]
    if not missing:
        return ""
    return f"No film of {', '.join(missing)}: the machine of these records could not draw robots."


def filmstrip(films: Sequence[np.ndarray]) -> str:
    """Frames ``[F, H, W, 3]`` of uint8, a row per film, as one PNG picture (data URI)."""
    from PIL import Image

    rows = [
        np.concatenate(list(film[np.linspace(0, len(film) - 1, PICTURES_KEPT).astype(int)]), axis=1) for film in films
    ]
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(rows)).quantize(32).save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
