"""Every mark of a figure is in its frame, and the frames hold what `benchmarks.stats` computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from page_reader import REFERENCE, held, made

from benchmarks.records.store import Store
from benchmarks.stats import Contrast, Row, at_step, timing
from benchmarks.stats.verdicts import WITHIN_MARGIN
from reports import words
from reports.panels import Panel
from reports.scores import pairs

every_store = pytest.mark.parametrize("store", ["quick", "standard", "gpu"])
scored_stores = pytest.mark.parametrize("store", ["quick", "standard"])


def drawn(axes: Any) -> list[tuple[str, np.ndarray]]:
    """(colour, points ``[n, 2]``) of each line, bar and band in the units of the data."""
    from matplotlib.collections import LineCollection, PolyCollection, QuadMesh
    from matplotlib.colors import to_hex
    from matplotlib.patches import Polygon

    found = [(one.get_color(), one.get_xydata()) for one in axes.lines if one.get_transform() == axes.transData]
    found += [(one.get_facecolor(), one.get_xy()) for one in axes.patches if isinstance(one, Polygon)]
    for one in axes.collections:
        if isinstance(one, LineCollection):
            found += [(one.get_color()[0], segment) for segment in one.get_segments()]
        elif isinstance(one, PolyCollection):
            found += [(one.get_facecolor()[0], path.vertices) for path in one.get_paths()]
        else:
            assert isinstance(one, QuadMesh)
    return [(to_hex(colour), points[np.isfinite(points).all(axis=1)]) for colour, points in found]


#: figures with names along the y axis
FLAT = ("forest-", "across-means", "cost-times-", "published-")
#: figures whose marks are statistics of the rows of their frame
SUMMARISED = ("learning-", "cost-times-", "trend-")


def summaries(panel: Panel) -> list[float]:
    """The marks of a figure that are statistics of rows of its frame."""
    if panel.name.startswith("learning-"):
        return list(panel.frame.groupby(["label", "x"])["value"].mean())
    if panel.name.startswith("cost-times-"):
        rounds = [timing.median(list(group)) for _, group in panel.frame.groupby(["label", "order"])["value"]]
        return [number for one in rounds for number in (one.value, one.low, one.high)]
    return []


@every_store
def test_every_mark_of_a_figure_is_in_its_frame_and_the_other_way_round(store: str) -> None:
    for panel in made(store).panels.values():
        if panel.name.startswith("heat-"):
            continue
        axes, flat = panel.svg.figure.axes[0], panel.name.startswith(FLAT)
        numbers = panel.frame.select_dtypes("number").to_numpy(dtype=float).ravel()
        known = np.array([0.0, *numbers, *summaries(panel)])
        marks = drawn(axes)
        assert marks, panel.name
        seen = np.concatenate([points[:, 0] if flat else points.ravel() for _, points in marks])
        assert held(seen, known), panel.name
        columns_ = [name for name in ("value", "low", "high", "advantage", "time") if name in panel.frame]
        wanted = panel.frame[columns_].to_numpy(dtype=float).ravel()
        wanted = np.array(summaries(panel)) if panel.name.startswith(SUMMARISED) else wanted
        assert held(wanted[np.isfinite(wanted)], seen), panel.name
        assert_colours(panel, marks, flat)
        if not panel.name.startswith(("fit-", "paths-", "cost-ratio-")):
            assert_in_sight(panel, axes, flat)


def assert_colours(panel: Panel, marks: list[tuple[str, np.ndarray]], flat: bool) -> None:
    """What is drawn in the colour of one label alone is of that label."""
    labels: dict[str, list[str]] = {}
    for label in panel.labels:
        labels.setdefault(panel.looks[label].light, []).append(label)
    if panel.name.startswith("cost-times-"):
        return
    assert set(labels) <= {colour for colour, _ in marks}, panel.name
    for colour, points in marks:
        if colour in labels:
            own = panel.frame[panel.frame["label"].isin(labels[colour])]
            known = np.array([0.0, *own.select_dtypes("number").to_numpy(dtype=float).ravel()])
            if panel.name.startswith("learning-"):
                known = np.append(known, own.groupby(["label", "x"])["value"].mean())
            levels = {*panel.frame.get("x", [])}  # a level ends where the others do
            assert held(points[:, 0] if flat else points[:, 1], known), (panel.name, colour)
            assert flat or held(points[:, 0], np.array([*known, *levels])), (panel.name, colour)


def assert_in_sight(panel: Panel, axes: Any, flat: bool) -> None:
    """Every mark lies within the axes."""
    limits = sorted(axes.get_xlim() if flat else axes.get_ylim())
    values = panel.frame["advantage" if "advantage" in panel.frame else "value"]
    assert limits[0] <= values.min() <= values.max() <= limits[1], panel.name


@scored_stores
def test_heat_maps_and_forests_show_the_table_of_pairs(store: str) -> None:
    this = made(store)
    table = pairs.pairs_table(this.results)
    for protocol, _ in pairs.leading_columns(this.results):
        task, regime = this.title(protocol), protocol.regime
        group = table[table["task"] == task + words.in_regime(protocol, this.results.columns)]
        heat = this.panels[words.slug(f"heat {task} {regime}")]
        drawn_ = heat.frame.set_index(["first", "second"]).loc[list(zip(group["first"], group["second"], strict=True))]
        assert list(drawn_["value"]) == list(group["advantage"])
        assert list(drawn_["verdict"]) == list(group["verdict"])
        texts = sorted(text.get_text() for text in heat.svg.figure.axes[0].texts)
        marks = pairs.MARKS
        numbers = sorted(text for text in texts if text not in ("", *marks.values()))
        decided = [row for row in heat.frame.itertuples() if row.verdict not in marks]
        if len({*group["first"], *group["second"]}) > pairs.MOST:
            assert texts == []
        else:
            counted = [(heat.frame["verdict"] == word).sum() for word in marks]
            assert [texts.count(mark) for mark in marks.values()] == counted
            assert len(numbers) == len(decided)
            assert all(any(float(n) == pytest.approx(row.value, rel=0.06) for n in numbers) for row in decided)
        if forest := this.panels.get(words.slug(f"forest {task} {regime}")):
            rows = {f"{row.first} against {row.second}: {row.verdict}": row for row in group.itertuples()}
            for mark in forest.frame.itertuples():
                row = rows[mark.name]
                assert (mark.value, mark.low, mark.high) == (row.advantage, row.low, row.high)
                none = 1.0 if row.unit == "factor" else 0.0
                separated = mark.low > none or mark.high < none
                assert separated == (mark.verdict not in marks) or mark.verdict in WITHIN_MARGIN


@scored_stores
def test_marks_of_scores_are_what_the_statistics_say(store: str) -> None:
    this = made(store)
    read = Store(REFERENCE / store, read_only=True)
    scores = {r.key: read.scores(r) for r in this.results.records if r.cell == "evaluation" and r.ok}
    for panel in this.panels.values():
        headline = panel.name.startswith("shots-") or (panel.name.startswith("cost-") and "name" in panel.frame)
        if headline and not panel.name.startswith("cost-ratio"):
            known = {(row.method, row.mean, row.half_width_95) for row in this.main.itertuples()}
            for mark in panel.frame.itertuples():
                assert any(
                    (mark.value, mark.high - mark.value) == pytest.approx((mean, half))
                    for name, mean, half in known
                    if name == mark.name
                ), panel.name
        if panel.name.startswith(("steps-", "adaptation-")):
            assert_curves(panel, list(this.rows.values()), scores)


def assert_curves(panel: Panel, rows: list[Row], scores: dict[str, Any]) -> None:
    """Each mark is Student's interval over the first episodes at one step of the row of its name."""
    for name, own in panel.frame.groupby("name"):
        expected = []
        for row in (row for row in rows if row.name == name):
            for step in (summary.step for summary in row.first.test.summary):
                found = [at_step(tested, scores[tested.record.key], step) for tested in row.tested]
                fewest = min(len(values) for values in found)
                for count in {fewest, min(fewest, first_episodes(panel, row))}:
                    means = np.stack([values[:count].mean(axis=1, dtype=float) for values in found])
                    strata = None if row.strata is None else row.strata[: means.shape[1]]
                    interval = Contrast(means, strata=strata).interval("models")
                    expected.append(words.factor(row.first.task.metric) * np.array([interval.estimate, interval.low]))
        for mark in own.itertuples():
            assert any(np.allclose((mark.value, mark.low), one, equal_nan=True) for one in expected), (panel.name, name)


def first_episodes(panel: Panel, row: Row) -> int:
    """The episodes that all curves of a figure are over."""
    count = panel.caption.removeprefix("Over ").partition(" ")[0].replace(",", "")
    return int(count) if count.isdigit() else row.first.conditions.curve_episodes


@scored_stores
def test_fits_and_paths_are_the_arrays_of_the_records(store: str) -> None:
    this = made(store)
    arrays = [a for r in this.results.records if "arrays" in r.files and (a := this.results.arrays(r))]
    known = {name: [a for a in arrays if name in a] for name in ("truth", "paths")}
    for panel in this.panels.values():
        for prefix, name in (("fit-", "truth"), ("paths-", "paths")):
            if panel.name.startswith(prefix):
                values = panel.frame["value"].dropna().to_numpy(dtype=float)
                assert any(
                    held(values, np.concatenate([np.ravel(v).astype(float) for v in a.values()])) for a in known[name]
                )
