"""The figures across tasks, computed again: on made-up records, as the committed ones hold no method that has a number
on every task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up_records import GLYPHS, SINUSOID, Maker
from page_figures import Figures, bands, joined
from page_numbers import Store, role, titles_of, unit
from scipy import stats

from reports.page.page import render
from reports.results import load
from reports.scores import across

METHODS = {"maml": (0.4, 0.85), "fomaml": (0.7, 0.84), "finetune": (1.5, 0.6)}


@pytest.fixture(scope="module", params=[2, 5])
def drawn(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Figures:
    """Three methods on two tasks over 2 or 5 seeds, and one that lacks a task."""
    folder = tmp_path_factory.mktemp("across")
    make = Maker(folder)
    for seed in range(request.param):
        for number, (label, (error, accuracy)) in enumerate(METHODS.items()):
            moved = 0.05 * ((seed + number) % 3)
            make.evaluation(label, SINUSOID, seed, level=error + 3 * moved)
            make.evaluation(label, GLYPHS, seed, regime="query", level=accuracy - moved)
        make.evaluation("late", GLYPHS, seed, regime="query", level=0.5)
        make.evaluation("constant", SINUSOID, seed, level=4.0, role="floor")
        make.evaluation("oracle", SINUSOID, seed, level=0.1, role="ceiling")
        make.evaluation("chance", GLYPHS, seed, level=0.2, fits=False, role="floor")
    return Figures(folder)


def normalised(store: Store, draws: int) -> dict[str, list[np.ndarray]]:
    """Method -> task by task, the score of each run between floor and ceiling ``[draws, seeds]``; of resampled episodes
    (the same for all), and seeds where there are five; with 0 draws, of the records themselves."""
    found: dict[str, list[np.ndarray]] = {label: [] for label in METHODS}
    generator = np.random.default_rng(5)
    for test in titles_of(store).values():
        roles = {role(record): record["label"] for record in store.column(test, "query")}
        scale: Any = np.log if unit(store, test)[0] == "squared error" else np.asarray
        floor = scale(store.scores(test, roles["floor"], "query").mean())
        ceiling = scale(store.scores(test, roles["ceiling"], "query").mean()) if "ceiling" in roles else 1.0
        seeds, episodes = store.scores(test, "maml", "query").shape
        chosen = generator.integers(episodes, size=(draws, episodes)) if draws else np.arange(episodes)[None]
        again = np.arange(seeds)[None] if draws == 0 or seeds < 5 else generator.integers(seeds, size=(draws, seeds))
        for label in METHODS:
            means = store.scores(test, label, "query").T[chosen].mean(axis=1)
            found[label].append((scale(np.take_along_axis(means, again, axis=1)) - floor) / (ceiling - floor))
    return found


def interquartile(runs: list[np.ndarray]) -> np.ndarray:
    return np.asarray(stats.trim_mean(np.concatenate(runs, axis=1), 0.25, axis=1))


def test_interquartile_means_and_their_intervals(drawn: Figures) -> None:
    assert drawn.named("across-") == {"across-means", "across-profile"}
    panel, axes = drawn.panels["across-means"], drawn.axes("across-means")
    runs, resampled = normalised(drawn.store, 0), normalised(drawn.store, 3000)
    exact = {label: interquartile(runs[label])[0] for label in METHODS}
    order = sorted(METHODS, key=lambda label: -exact[label])
    assert list(panel.labels) == [text.get_text() for text in axes.get_yticklabels()] == order
    points = drawn.points("across-means")
    assert set(points) == set(METHODS)
    for place, label in enumerate(order):
        (point,) = points[label]
        assert (point.x, point.y) == pytest.approx((exact[label], place))
        ends = np.quantile(interquartile(resampled[label]), [0.025, 0.975])
        assert (point.left, point.right) == pytest.approx(ends, abs=0.12 * (ends[1] - ends[0]))
    assert panel.caption == "Over {} and {}; bar: 95 %.".format(*sorted(titles_of(drawn.store)))
    assert drawn.in_sight("across-means")
    assert "late: no number on sinusoid-v1/k10" in " ".join(drawn.page.text.split())


def test_control_is_averaged_apart(tmp_path: Path) -> None:
    """Hardly a method is for both, so complete rows over both kinds would be few or none."""
    make = Maker(tmp_path)
    control = {**GLYPHS, "kind": "control", "metric": "return", "data": None}
    for label, level in (("maml", 0.8), ("fomaml", 0.7), ("finetune", 0.6)):
        make.evaluation(label, GLYPHS, level=level)
        make.evaluation(label, SINUSOID, level=2 - level)
        for number in (1, 2):
            if (label, number) != ("finetune", 2):
                make.evaluation(label, {**control, "id": f"walk-v1/{number}"}, level=level)
    make.evaluation("constant", SINUSOID, level=4.0, role="floor")
    make.evaluation("oracle", SINUSOID, level=0.1, role="ceiling")
    for number in (1, 2):
        make.evaluation("random-policy", {**control, "id": f"walk-v1/{number}"}, level=0.1, role="floor")
        make.evaluation("oracle", {**control, "id": f"walk-v1/{number}"}, level=1.0, role="ceiling")
    labelled, controlled = across.groups(load(tmp_path))
    assert (labelled.name, controlled.name) == ("Classification and regression", "Control")
    assert labelled.across is not None
    assert controlled.across is not None
    assert set(labelled.across.found.methods) == {"maml", "fomaml", "finetune"}
    assert set(controlled.across.found.methods) == {"maml", "fomaml"}
    assert controlled.across.left_out == ("finetune: no number on walk-v1/2",)
    html = render(load(tmp_path))[0]
    assert all(
        f'<table id="{name}"' in html for name in ("across-classification-and-regression-csv", "across-control-csv")
    )


def test_one_method_alone_is_not_averaged(tmp_path: Path) -> None:
    make = Maker(tmp_path)
    for label, tasks in {"maml": (GLYPHS, SINUSOID), "one": (GLYPHS,), "two": (GLYPHS,), "three": (SINUSOID,)}.items():
        for task in tasks:
            make.evaluation(label, task, level=0.5)
    make.evaluation("constant", SINUSOID, level=4.0, role="floor")
    make.evaluation("oracle", SINUSOID, level=0.1, role="ceiling")
    (group,) = across.groups(load(tmp_path))
    assert group.across is None
    # those that lack the same are said together
    assert group.why[0] == "only maml has a result on every task"
    assert "one, two: no number on sinusoid-v1/k10" in group.why
    assert "three: no number on glyphs-v1/5w1s" in group.why


def test_performance_profiles(drawn: Figures) -> None:
    runs, resampled = normalised(drawn.store, 0), normalised(drawn.store, 2000)
    axes = drawn.axes("across-profile")
    lines = {line.get_color(): line for line in joined(axes)}
    shades = dict(bands(axes))
    assert len(lines) == len(shades) == len(METHODS)
    for label in METHODS:
        colour = drawn.looks[label].light
        grid, share = lines[colour].get_xydata().T
        assert (grid[0], grid[-1]) == (0, 1)
        above = np.mean([(task[:, :, None] > grid).mean(axis=1) for task in runs[label]], axis=0)[0]
        np.testing.assert_allclose(share, above)
        assert 0 < share.mean() < 1
        drawn_again = np.mean([(task[:, :, None] > grid).mean(axis=1) for task in resampled[label]], axis=0)
        low, high = np.quantile(drawn_again, [0.025, 0.975], axis=0)
        # the band falls in steps: its upper end still has the value before the step where its lower end has fallen
        x, lower, upper = shades[colour].T
        np.testing.assert_allclose(x, grid)
        assert np.abs(lower - low).mean() < 0.01
        assert np.abs(upper - np.roll(high, 1))[1:].mean() < 0.01
