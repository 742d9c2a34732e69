"""What an encoder of tasks encodes: the numbers it makes of test tasks against the parameters of the tasks."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from reports import svg, words
from reports.panels import Panel
from reports.results import Result, Results
from reports.scores.exhibits import exhibited
from reports.style import Look
from reports.words import slug

ENCODING_ARRAYS = {"embedding", "parameters", "names", "steps"}
#: a marker for each number of an embedding
MARKERS = "o^sDvP*X"


def encoding_panels(results: Results, looks: Mapping[str, Look]) -> list[Panel]:
    """A panel per method and parameter that differs between tasks: the embedding after the last reported step."""
    return [
        _panel(result, arrays, words.title(result.column, results.columns), place, looks)
        for result, arrays in exhibited(results, ENCODING_ARRAYS)
        if result.column.model == "best"
        for place in np.flatnonzero(np.ptp(arrays["parameters"], axis=0) > 0).tolist()
    ]


def explained(embedding: np.ndarray, parameter: np.ndarray) -> float:
    """The share of the variance of a parameter ``[E]`` that a linear function of the embedding ``[E, z]`` explains on
    tasks that it was not fitted to (leave one out); 0 where it does worse than their mean."""
    features = np.column_stack([np.ones(len(embedding)), embedding - embedding.mean(0)])
    hat = features @ np.linalg.pinv(features)
    left_out = (parameter - hat @ parameter) / np.maximum(1 - np.diag(hat), 1e-9)
    apart = (parameter - parameter.mean()) * len(parameter) / (len(parameter) - 1)
    return max(0.0, 1 - float(np.sum(left_out**2) / np.sum(apart**2)))


def _panel(result: Result, arrays: Mapping[str, np.ndarray], test: str, place: int, looks: Mapping[str, Look]) -> Panel:
    embedding, parameter = arrays["embedding"][-1].astype(float), arrays["parameters"][:, place].astype(float)
    name, step = str(arrays["names"][place]), int(arrays["steps"][-1])
    columns = [
        pd.DataFrame({"name": f"number {number + 1}", "x": parameter, "value": values})
        for number, values in enumerate(embedding.T)
    ]
    share = words.percent(explained(embedding, parameter))
    return Panel(
        slug(f"encoding {test} {result.name} {name}"),
        f"{result.name}: {name}",
        f"{test}, {words.count(len(parameter), 'test task')} after {words.count(step, 'step')}, seed "
        f"{result.seeds[0]}. A linear function of the numbers explains {share} of the variance of {name} "
        "(each task left out in turn).",
        f"{test}: what {result.name} makes of tasks, against {name}",
        pd.concat(columns),
        functools.partial(_draw, look=looks[result.label], name=name),
        looks,
        size=(3.3, 2.8),
        above=0.42,
    )


def _draw(axes: Any, frame: pd.DataFrame, look: Look, name: str) -> None:
    for place, (number, own) in enumerate(frame.groupby("name", sort=False)):
        style = {"color": look.tone if place % 2 == 0 else svg.INK, "marker": MARKERS[place % len(MARKERS)]}
        axes.plot(own["x"], own["value"], linestyle="none", markersize=4.5, label=number, alpha=0.8, **style)
    axes.set(xlabel=name, ylabel="embedding")
    svg.legend_above(axes)
