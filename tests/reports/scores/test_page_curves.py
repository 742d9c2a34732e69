"""The curves of the committed pages' figures, computed again from the committed records: scores against inner steps,
and validation scores against what training took."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from page_figures import REFERENCE, Figures, bands, joined, marks
from page_numbers import half_width, titles_of, unit

from reports import words

#: axis of a learning curve -> its title
TAKEN = {
    "step": "meta-steps",
    "examples": "training examples",
    "environment_steps": "environment steps",
    "seconds": "training seconds",
}


@pytest.fixture(scope="module", params=["quick", "standard"])
def drawn(request: pytest.FixtureRequest) -> Figures:
    return Figures(REFERENCE / request.param)


def test_scores_against_inner_steps(drawn: Figures) -> None:
    store, expected = drawn.store, set()
    for title, test in titles_of(store).items():
        here = [record for record in store.done if store.test(record) == test]
        regimes = {record["evaluation"]["regime"] for record in here}
        for regime in regimes:
            methods = {r["label"]: r for r in here if r["evaluation"]["regime"] in (regime, "none")}
            own = {r["label"] for r in here if r["evaluation"]["regime"] == regime}
            stepping = [name for name in own if len(methods[name]["summary"]) > 1]
            if not stepping:
                continue
            name = words.slug(f"steps {title} {regime}")
            expected.add(name)
            assert set(drawn.panels[name].labels) == set(methods)
            said = f" · {words.REGIME_TITLES[regime]}" if regimes != {"none"} else ""
            assert drawn.panels[name].title == title + said
            _curves(drawn, name, test, regime, methods, stepping)
    assert drawn.named("steps-") == expected


def _curves(drawn: Figures, name: str, test: Any, regime: str, methods: dict[str, Any], stepping: list[str]) -> None:
    """Every method of a figure: a curve with its band, or a level with its bar."""
    store, factor = drawn.store, unit(drawn.store, test)[1]
    steps_of = {label: [row["step"] for row in record["summary"]] for label, record in methods.items()}
    # the episodes that were scored at every step come first
    count = min(store.scores(test, label, regime, step).shape[1] for label in stepping for step in steps_of[label])
    assert drawn.panels[name].caption == f"Over {count:,} episodes scored at every step."
    lines, shades = drawn.lines(name), bands(drawn.axes(name))
    bars = [point for container in drawn.axes(name).containers for point in marks(container)]
    last = max(max(steps) for steps in steps_of.values())
    assert len(bars) == len(methods) - sum(len(steps) > 1 for steps in steps_of.values())
    for label, steps in steps_of.items():
        (line,) = lines[label]
        again = []
        for step in steps:
            episodes = factor * store.scores(test, label, regime, step)[:, :count].mean(axis=0)
            again.append((step, episodes.mean(), half_width(episodes)))
        if len(steps) > 1:
            np.testing.assert_allclose(line, [(step, mean) for step, mean, _ in again], err_msg=label)
            ends = [(step, mean - half, mean + half) for step, mean, half in again]
            own = [band for colour, band in shades if colour == drawn.looks[label].light and len(band) == len(ends)]
            assert any(np.allclose(band, ends) for band in own), label
        else:
            ((_, mean, half),) = again
            np.testing.assert_allclose(line, [(0, mean), (last, mean)], err_msg=label)
            assert any((p.x, p.low, p.high) == pytest.approx((last, mean - half, mean + half)) for p in bars), label


def test_learning_curves(drawn: Figures) -> None:
    fits: dict[str, dict[str, list[Any]]] = {}
    for record in drawn.store.records:
        if record["cell"] == "fit" and record["status"] == "ok" and record["training"]["curve"]:
            fits.setdefault(record["task"]["id"], {}).setdefault(record["label"], []).append(record)
    expected = set()
    for task, methods in fits.items():
        first = next(iter(methods.values()))[0]
        seen = "environment_steps" if first["task"]["kind"] == "control" else "examples"
        for axis in ("step", seen, "seconds"):
            name = words.slug(f"learning {task} {axis}")
            expected.add(name)
            assert drawn.panels[name].title == f"{task} · against {TAKEN[axis]}"
            assert set(drawn.panels[name].labels) == set(methods)
            _learning(drawn, name, axis, methods)
    assert drawn.named("learning-") == expected != set()


def _learning(drawn: Figures, name: str, axis: str, methods: dict[str, list[Any]]) -> None:
    """A thin line per fit, and one through the means over the seeds at the steps that all of them reached."""
    lines = drawn.lines(name)
    thin = [(line.get_color(), line.get_xydata()) for line in joined(drawn.axes(name)) if line.get_alpha() == 0.35]
    assert len(thin) == sum(len(records) for records in methods.values())
    for label, records in methods.items():
        factor = 100 if records[0]["task"]["metric"] == "accuracy" else 1
        runs = [
            {p["step"]: (p[axis], factor * p["score"]) for p in r["training"]["curve"] if p["score"] is not None}
            for r in records
        ]
        colour = drawn.looks[label].light
        for run in runs:
            points = list(run.values())
            same = [line for drawn_in, line in thin if drawn_in == colour and len(line) == len(points)]
            assert any(np.allclose(line, points) for line in same), label
        shared = sorted(set.intersection(*map(set, runs)))
        (bold,) = lines[label]
        np.testing.assert_allclose(bold, [np.mean([run[step] for run in runs], axis=0) for step in shared])
        (left, right), (low, high) = drawn.axes(name).get_xlim(), drawn.axes(name).get_ylim()
        assert all(left <= x <= right and low <= y <= high for x, y in bold)
