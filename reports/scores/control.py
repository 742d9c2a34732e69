"""Control tasks on the page: returns against the environment steps that adaptation took, totals beside published ones,
paths before and after adaptation, and short films.

The names of the arrays that a task's `exhibit` left decide which picture is drawn (`reports.scores.exhibits`).
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from reports import published, svg, words
from reports.results import Result, Results
from reports.scores.exhibits import exhibited
from reports.scores.figures import HEIGHT, WIDTH, Panel, colours, far_apart, from_zero
from reports.style import Look
from reports.words import slug

PATH_ARRAYS = {"paths", "goals", "steps"}
FILM_ARRAYS = {"frames", "steps"}

#: rounding of totals that a paper prints with one decimal: the variance of a uniform error
ROUNDING = 0.1**2 / 12
#: at most so many frames of a film are shown, evenly, each for so many milliseconds: films are most of a page's size
FRAMES, FRAME_MILLISECONDS = 17, 150
#: the field that only tasks with simulated robots have
ROBOT_FIELD = "simulator"
#: the method whose strategy for bandits is learned
LEARNED = "rl2"


def adaptation_panels(results: Results, table: Mapping[str, Look]) -> list[Panel]:
    """For each control task with learners that adapt: return against the environment steps seen per task until then.

    Methods use different amounts in a step (RL^2 an episode, gradient steps many trajectories), so this is the axis on
    which they can be compared."""
    panels = []
    for column in results.columns:
        here = [result for result in results.results if result.column == column and result.metric == "return"]
        curves = {result.name: (result, _spent(result)) for result in here}
        if any(len(curve) > 1 for _, curve in curves.values()):
            panels.append(_adaptation_panel(words.title(column, results.columns), curves, table))
    return panels


def _spent(result: Result) -> pd.DataFrame:
    """environment_steps (mean over seeds), mean and half_width at every step whose record counts them."""
    counts: dict[int, list[float]] = {}
    for record in result.records:
        for row in record.get("summary") or ():
            if row.get("environment_steps") is not None:
                counts.setdefault(int(row["step"]), []).append(float(row["environment_steps"]))
    shared = [episodes for episodes, _ in result.by_step.values()]
    curve = result.curve(shared[0] if shared else np.empty(0))
    known = curve[curve["step"].isin(counts)]
    return known.assign(environment_steps=[float(np.mean(counts[int(step)])) for step in known["step"]])


def _adaptation_panel(
    title: str, curves: Mapping[str, tuple[Result, pd.DataFrame]], table: Mapping[str, Look]
) -> Panel:
    spent = [float(x) for _, curve in curves.values() for x in curve["environment_steps"] if x > 0]
    last = max(spent, default=1.0)

    def draw() -> svg.Drawing:
        with svg.drawing(slug(f"adaptation {title}"), WIDTH, HEIGHT) as (figure, axes):
            for result, curve in curves.values():
                look = table[result.label]
                mean, half = curve["mean"].to_numpy(), curve["half_width"].to_numpy()
                style = {"color": look.light, "linestyle": look.dash}
                if len(curve) > 1:
                    x = curve["environment_steps"].to_numpy()
                    axes.plot(x, mean, marker=look.marker, **style)
                    svg.band(axes, x, mean - half, mean + half, color=look.light, alpha=0.16)
                elif len(curve):  # without adaptation: a level to read the others against
                    axes.plot([0, last], [mean[0]] * 2, linewidth=1.2, marker=look.marker, markevery=[1], **style)
            from_zero(axes, spent)
            axes.set(xlabel="environment steps per task in adaptation", ylabel="return")
            return svg.render(figure, colours(table), f"return against environment steps of adaptation, {title}")

    caption = "Bands: 95 % over test tasks."
    caption += " Linear up to the first step, logarithmic from there." * far_apart(spent)
    return Panel(slug(f"adaptation {title}"), title, caption, draw, tuple(r.label for r, _ in curves.values()))


def steps_table(results: Results) -> pd.DataFrame:
    """Return after each number of steps (gradient steps; for RL^2, episodes of the trial) of learners that take some:
    method, task, then a column of ``mean ± half-width`` per step, and the environment steps per task and step."""
    rows = []
    for result in results.results:
        if result.metric != "return" or len(result.by_step) < 2:
            continue
        curve, spent = result.curve(next(iter(result.by_step.values()))[0]), _spent(result)
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
                "meta_training_environment_steps": _mean([one.get("environment_steps") for one in result.training]),
                "seeds": len(result.records),
            }
        )
    return pd.DataFrame(rows)


def totals_table(results: Results) -> pd.DataFrame:
    """Total rewards beside those that a paper prints as means over many instances, with a z-score per cell, and the
    regret, by how much they are below the Bayes optimum, where the records know it.

    z = (ours - published) / sqrt(SE_ours^2 + s^2 / n + rounding), with s the deviation between our test tasks, n the
    paper's number of instances, and the variance of rounding to one decimal: the paper prints no interval."""
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
                "z": _z(result, anchor.value, anchor.episodes or 1) if anchor else None,
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


def _z(result: Result, theirs: float, instances: int) -> float:
    means = result.row.values.mean(axis=(0, 2))
    variance = float(means.var(ddof=1)) if len(means) > 1 else math.nan
    return (result.interval.estimate - theirs) / math.sqrt(variance / len(means) + variance / instances + ROUNDING)


def _optimum(result: Result) -> float | None:
    """The expected total of the best strategy there is, where the method's facts know it."""
    value = (result.first["method"].get("facts") or {}).get("bayes_optimum")
    return None if value is None else float(value)


def regret_sentences(results: Results) -> list[str]:
    """How far a learned strategy stays behind the best there is, a sentence per bandit that RL^2 was trained for."""
    found = []
    for result in results.results:
        optimum = _optimum(result)
        if optimum is None or result.column.model != "best" or result.first["method"]["name"] != LEARNED:
            continue
        below = optimum - result.interval.estimate
        side = "below" if below >= 0 else "above, which only chance can bring about,"
        earned, title = words.plus_minus(result.interval, result.metric), words.title(result.column, results.columns)
        optimal = f"the Bayes optimum of {optimum:.2f}"
        found.append(f"{result.name} earns {earned} on {title}, {abs(below):.2f} {side} {optimal}.")
    return found


def path_panels(results: Results, table: Mapping[str, Look]) -> list[Panel]:
    """A panel per method: the path of an agent in the plane before and after adaptation, one for each goal."""
    return [
        _path_panel(result, arrays, words.title(result.column, results.columns), table)
        for result, arrays in exhibited(results, PATH_ARRAYS)
        if result.column.model == "best"
    ]


def _path_panel(result: Result, arrays: Mapping[str, np.ndarray], test: str, table: Mapping[str, Look]) -> Panel:
    look, steps = table[result.label], [int(step) for step in arrays["steps"]]
    shown: list[tuple[int, str, dict[str, Any]]] = []
    if len(steps) > 1:
        shown.append((0, "before", {"color": svg.QUIET, "linewidth": 1.0, "linestyle": (0, (2, 1))}))
    last = len(steps) - 1
    after = f"after {words.count(steps[last], 'step')}" if steps[last] else "paths"
    shown.append((last, after, {"color": look.light, "linewidth": 1.8}))
    goals = arrays["goals"]

    def draw() -> svg.Drawing:
        with svg.drawing(slug(f"paths {test} {result.name}"), 3.3, 3.3, above=0.42) as (figure, axes):
            for place, name, style in shown:
                for task, path in enumerate(arrays["paths"][place][:, 0]):
                    axes.plot(path[:, 0], path[:, 1], label=name if task == 0 else None, **style)
            axes.plot(
                goals[:, 0], goals[:, 1], linestyle="none", marker="*", markersize=11, color=svg.INK, label="goals"
            )
            # a policy that knows nothing wanders off: what leaves the frame is not shown
            room = 1.6 * float(np.abs(goals).max()) + 0.1
            axes.set(xlim=(-room, room), ylim=(-room, room), xlabel="x", ylabel="y", aspect="equal")
            axes.legend(fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=3, handlelength=1.8, columnspacing=1)
            return svg.render(figure, colours(table), f"{test}: paths of {result.name} before and after adaptation")

    caption = f"{test}, one path in each of {words.count(len(goals), 'test task')}, seed {result.seeds[0]}"
    return Panel(slug(f"paths {test} {result.name}"), result.name, caption, draw, (result.label,))


def films(results: Results) -> list[Mapping[str, Any]]:
    """A film per method: frames before and after adaptation beside each other, as an animated picture (data URI)."""
    found: list[Mapping[str, Any]] = []
    for result, arrays in exhibited(results, FILM_ARRAYS):
        if result.column.model != "best":
            continue
        steps, frames = [int(step) for step in arrays["steps"]], arrays["frames"]
        places = [0, len(steps) - 1] if len(steps) > 1 else [0]
        said = " and ".join(f"after {words.count(steps[place], 'step')}" for place in places)
        beside = np.concatenate([frames[place] for place in places], axis=-2)
        title = words.title(result.column, results.columns)
        found.append(
            {"title": result.name, "caption": f"{title}: {said}", "uri": film(beside[:: -(-len(beside) // FRAMES)])}
        )
    return found


def unfilmed(results: Results) -> str:
    """The tests with robots of which there is no film, in one line; empty where there is none."""
    found: dict[str, bool] = {}
    filmed = {(result.column.test, result.name) for result, _ in exhibited(results, FILM_ARRAYS)}
    for result in results.results:
        if ROBOT_FIELD in (result.first["task"].get("fields") or {}) and result.column.model == "best":
            title = words.title(result.column, results.columns)
            found[title] = found.get(title, False) or (result.column.test, result.name) in filmed
    missing = [title for title, there in found.items() if not there]
    if not missing:
        return ""
    return f"No film of {', '.join(missing)}: nothing could draw robots where these records were made."


def film(frames: np.ndarray) -> str:
    """Frames ``[F, H, W, 3]`` of uint8 as an animated GIF, a data URI."""
    from PIL import Image

    pictures = [Image.fromarray(frame).quantize(32) for frame in frames]
    buffer = io.BytesIO()
    pictures[0].save(
        buffer, "GIF", save_all=True, append_images=pictures[1:], duration=FRAME_MILLISECONDS, loop=0, optimize=True
    )
    return f"data:image/gif;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
