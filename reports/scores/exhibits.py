"""Predictions on single episodes: functions before and after adaptation, and images with the predicted classes.

The arrays come from a task's `exhibit`, in the record of the lowest seed. Their names decide the kind of picture, so a
plug-in's task gets one too."""

from __future__ import annotations

import base64
import functools
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.records.thinning import EPISODES_KEPT
from reports import svg, words
from reports.panels import Panel
from reports.results import Result, Results
from reports.style import Look
from reports.words import slug

#: the arrays that each kind of picture needs
FUNCTION_ARRAYS = {"x", "truth", "predicted", "steps", "support_x", "support_y"}
IMAGE_ARRAYS = {"support_images", "support_labels", "query_images", "query_labels", "predicted", "steps"}

SHOWN_SUPPORT = 25
SHOWN_QUERIES = 10


@dataclass(frozen=True)
class Guess:
    """One method's predictions for the queries of an episode."""

    name: str
    look: Look
    setting: str
    labels: list[tuple[str, bool]]

    @property
    def correct(self) -> int:
        return sum(right for _, right in self.labels)


@dataclass(frozen=True)
class Sample:
    """An episode: pictures (data URIs) with their class letters, and all predictions."""

    title: str
    support: list[tuple[str, str]]
    queries: list[tuple[str, str]]
    guesses: list[Guess]


def exhibited(results: Results, needed: set[str]) -> Iterator[tuple[Result, Mapping[str, np.ndarray]]]:
    """The results with these arrays, each method once per test (in its first regime)."""
    seen = set()
    for result in results.results:
        if (result.column.test, result.name) in seen:
            continue
        arrays = _arrays(results, result)
        if needed <= set(arrays):
            seen.add((result.column.test, result.name))
            yield result, arrays


def _arrays(results: Results, result: Result) -> Mapping[str, np.ndarray]:
    """The arrays of the first seed that has some; they are of the first test of its evaluation."""
    for tested in result.tested:
        if "arrays" in tested.record.files and tested.test is tested.record.tests[0]:
            return results.arrays(tested.record) or {}
    return {}


def function_panels(results: Results, looks: Mapping[str, Look]) -> dict[str, list[Panel]]:
    """For each regression test that a method was trained for, a panel per method: f before and after adaptation.

    All methods show the exhibited episode with the largest range of f."""
    order = {words.title(column, results.columns): None for column in results.columns}
    found: dict[str, list[Panel]] = {}
    for result, arrays in exhibited(results, FUNCTION_ARRAYS):
        if not results.own(result.column.test):
            continue
        test = words.title(result.column, results.columns)
        found.setdefault(test, []).append(_function_panel(result, arrays, test, looks))
    return {test: found[test] for test in order if test in found}


def _function_panel(result: Result, arrays: Mapping[str, np.ndarray], test: str, looks: Mapping[str, Look]) -> Panel:
    episode = int(np.ptp(arrays["truth"], axis=-1).argmax())
    steps = [int(step) for step in arrays["steps"]]
    wanted = sorted({steps[0], _nearest(steps, 1), _nearest(steps, result.headline_steps[0])})
    lines = {"truth": (arrays["x"], arrays["truth"][episode])}
    for step in wanted:
        name = words.count(step, "step") if step else "before" if len(steps) > 1 else "prediction"
        lines[name] = arrays["x"], arrays["predicted"][steps.index(step), episode]
    lines["support"] = arrays["support_x"][episode].ravel(), arrays["support_y"][episode].ravel()
    frame = pd.concat([pd.DataFrame({"name": name, "x": x, "value": y}) for name, (x, y) in lines.items()])
    return Panel(
        slug(f"fit {test} {result.name}"),
        result.name,
        f"Test episode {episode}, seed {result.seeds[0]}.",
        f"{test}: {result.name} before and after adaptation",
        frame,
        functools.partial(_draw_function, look=looks[result.label]),
        looks,
        size=(3.3, 2.8),
        above=0.42,
    )


def _draw_function(axes: Any, frame: pd.DataFrame, look: Look) -> None:
    """The truth, each prediction (the last one bold), and the support points."""
    lines = {str(name): (own["x"], own["value"]) for name, own in frame.groupby("name", sort=False)}
    truth, support = lines.pop("truth"), lines.pop("support")
    last = list(lines)[-1]
    axes.plot(*truth, color=svg.QUIET, linewidth=1.4, label="truth")
    for name, line in lines.items():
        thin = {"linewidth": 1.3, "linestyle": (0, (1, 1.5)) if name == "before" else (0, (4, 2)), "alpha": 0.8}
        axes.plot(*line, color=look.tone, label=name, **({"linewidth": 2.0} if name == last else thin))
    axes.plot(*support, label="support", linestyle="none", marker="^", markersize=6, color=svg.INK, zorder=5)
    axes.set(xlabel="x", ylim=_limits(truth[1].to_numpy()))
    svg.legend_above(axes)


def _limits(truth: np.ndarray) -> tuple[float, float]:
    """The range of the truth with some room; wild predictions leave the axes."""
    low, high = float(truth.min()), float(truth.max())
    room = max(high - low, 0.5)
    return low - 0.35 * room, high + 0.35 * room


def _nearest(steps: list[int], wanted: int) -> int:
    return min(steps, key=lambda step: (abs(step - wanted), step))


def episode_samples(results: Results, table: Mapping[str, Look]) -> list[Sample]:
    """The first test episodes of each image task with every method's predictions at its headline step."""
    tests: dict[str, list[tuple[Result, Mapping[str, np.ndarray]]]] = {}
    for result, arrays in exhibited(results, IMAGE_ARRAYS):
        tests.setdefault(words.title(result.column, results.columns), []).append((result, arrays))
    return [
        _sample(title, episode, shown, table)
        for title, shown in tests.items()
        for episode in range(min(EPISODES_KEPT, len(shown[0][1]["query_images"])))
    ]


def _sample(
    title: str, episode: int, shown: list[tuple[Result, Mapping[str, np.ndarray]]], table: Mapping[str, Look]
) -> Sample:
    arrays = shown[0][1]
    support, queries = arrays["support_labels"][episode], arrays["query_labels"][episode]
    order = np.argsort(support, kind="stable")[:SHOWN_SUPPORT]
    picked = _spread(queries, SHOWN_QUERIES)
    guesses = []
    for result, own in shown:
        if not np.array_equal(own["query_labels"][episode], queries):
            continue
        steps = [int(step) for step in own["steps"]]
        step = _nearest(steps, result.headline_steps[0])
        predicted = own["predicted"][steps.index(step), episode][picked]
        labels = [(letter(guess), bool(guess == true)) for guess, true in zip(predicted, queries[picked], strict=True)]
        guesses.append(Guess(result.name, table[result.label], _setting(result, step), labels))
    return Sample(
        f"{title}, test episode {episode}",
        [(picture(arrays["support_images"][episode][index]), letter(support[index])) for index in order],
        [(picture(arrays["query_images"][episode][index]), letter(queries[index])) for index in picked],
        guesses,
    )


def _setting(result: Result, step: int) -> str:
    """Inner steps and batch-norm regime of the predictions, where there are any."""
    parts = [words.count(step, "step")] if step else []
    return ", ".join(parts + [result.column.regime] * (result.column.regime != "none"))


def _spread(labels: np.ndarray, count: int) -> np.ndarray:
    """Indices of ``count`` queries, cycling through the classes."""
    turn = np.zeros(len(labels), dtype=int)
    for label in np.unique(labels):
        turn[labels == label] = np.arange((labels == label).sum())
    return np.lexsort((labels, turn))[:count]


def letter(label: int) -> str:
    """A, B, C ... for labels within an episode; a dash for none (-1)."""
    if label < 0:
        return words.MISSING
    return chr(ord("A") + int(label)) if 0 <= label < 26 else str(int(label))


def picture(pixels: np.ndarray) -> str:
    """An image ``[H, W]``, ``[H, W, 1]`` or ``[H, W, 3]`` of uint8 as a PNG data URI; colours reduced to a palette."""
    from PIL import Image

    pixels = np.asarray(pixels)
    image = Image.fromarray(pixels[..., 0] if pixels.ndim == 3 and pixels.shape[-1] == 1 else pixels)
    if image.mode == "RGB":
        image = image.quantize(64)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
