"""The figures of costs on the committed pages, computed again from the samples in the records."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from page_figures import REFERENCE, Figures, Point, bands, joined, marks
from page_numbers import all_pairs, on_page, regimes_of, titles_of, unit
from scipy import stats
from test_page_costs import Costs, Row, over
from test_page_figures import own

from reports import style, words


class Both(Costs):
    """The costs of a store and the figures of its page."""

    def __init__(self, folder: Any) -> None:
        super().__init__(folder)
        self.figures = Figures(folder)

    def places(self, work: str = "meta-step") -> dict[tuple[str, int, str], list[Row]]:
        """Backbone, tasks and device -> what was timed there, those with two numbers of inner steps or more."""
        found: dict[tuple[str, int, str], list[Row]] = {}
        for row in self.timed:
            if row["place"][0] == work:
                found.setdefault((row["place"][1], row["place"][2], row["device"]), []).append(row)
        return {place: rows for place, rows in found.items() if len({row["place"][3] for row in rows}) > 1}

    def panel(self, prefix: str, title: str) -> Any:
        (name,) = [
            name for name in self.figures.named(f"{prefix}-") if name.startswith(words.slug(f"{prefix} {title}-"))
        ]
        assert self.figures.panels[name].title == title
        return self.figures.panels[name]


@pytest.fixture(scope="module", params=["quick"])
def costs(request: pytest.FixtureRequest) -> Both:
    found = Both(REFERENCE / request.param)
    if not found.rows:
        pytest.skip(f"reports/reference/{request.param} holds no costs")
    return found


def resampled(statistic: Callable[..., float], *samples: list[float]) -> tuple[float, np.ndarray]:
    """A statistic, and what it is in resamples of another bootstrap over rounds."""
    again = stats.bootstrap(
        samples, statistic, paired=True, vectorized=False, method="percentile", n_resamples=4000, rng=1
    )
    return statistic(*samples), again.bootstrap_distribution


def near(drawn: tuple[float, float, float], again: tuple[float, np.ndarray]) -> bool:
    """Whether a number is the same, and beyond the ends of its interval are as many resamples as should be: medians of
    few rounds jump from one value to the next, so the ends themselves may differ."""
    room = 1e-6 * drawn[0]
    shares = [
        np.mean(again[1] < end - room) - 0.01 <= level <= np.mean(again[1] <= end + room) + 0.01
        for end, level in zip(drawn[1:], (0.025, 0.975), strict=True)
    ]
    return math.isclose(drawn[0], again[0]) and all(shares)


def orders(rows: list[Row]) -> Iterator[tuple[str, int, Row, Row]]:
    """Implementation, inner steps, and its second and first order, where both were timed."""
    for label, steps in sorted({(row["label"], row["place"][3]) for row in rows}):
        here = {row["order"]: row for row in rows if (row["label"], row["place"][3]) == (label, steps)}
        if {"first", "second"} <= here.keys():
            yield label, steps, here["second"], here["first"]


def line_of(axes: Any, label: str) -> np.ndarray:
    """The points of the one line in the look of an implementation."""
    look = style.implementation(label)
    (line,) = [one for one in joined(axes) if (one.get_color(), one.get_marker()) == (look.light, look.marker)]
    return line.get_xydata()


def test_second_over_first_order_against_inner_steps(costs: Both) -> None:
    places = costs.places()
    assert len(costs.figures.named("cost-ratio-")) == len(places) > 0
    for (backbone, tasks, device), rows in places.items():
        panel = costs.panel("cost-ratio", f"{backbone} · {tasks} tasks · {device}")
        axes, found = panel.svg.figure.axes[0], list(orders(rows))
        unstable = sum(not (second["stable"] and first["stable"]) for _, _, second, first in found)
        said = f" {unstable} of {len(found)} points {'is' if unstable == 1 else 'are'} unstable: the machine did"
        assert (said in panel.caption) if unstable else "unstable" not in panel.caption
        assert set(panel.labels) == {label for label, *_ in found}
        for label in panel.labels:
            again = [
                (steps, resampled(over, second["samples_milliseconds"], first["samples_milliseconds"]))
                for name, steps, second, first in found
                if name == label
            ]
            np.testing.assert_allclose(line_of(axes, label), [(steps, ratio[0]) for steps, ratio in again])
            own = [band for colour, band in bands(axes) if colour == style.implementation(label).light]
            assert any(
                [x for x, _, _ in band] == [steps for steps, _ in again]
                and all(near((r[0], low, high), r) for (_, low, high), (_, r) in zip(band, again, strict=True))
                for band in own
            ), label
        flat = {text.get_text(): text.get_position()[1] for text in axes.texts}
        assert flat == {"33 % speed": 1.33, "33 % time saved": 1.5}
        levels = [line.get_ydata()[0] for line in joined(axes) if line.get_marker() == "None"]
        assert sorted(levels) == [1.33, 1.5]
        low, high = axes.get_ylim()
        assert all(low < y < high for line in joined(axes) for y in line.get_ydata())


def test_memory_against_inner_steps(costs: Both) -> None:
    places = {place: [row for row in rows if row["peak_bytes"] is not None] for place, rows in costs.places().items()}
    assert len(costs.figures.named("cost-memory-")) == len(places) > 0
    for (backbone, tasks, device), rows in places.items():
        panel = costs.panel("cost-memory", f"{backbone} · {tasks} tasks · {device}")
        axes = panel.svg.figure.axes[0]
        assert set(panel.labels) == {row["label"] for row in rows}
        expected: dict[tuple[str, str], list[tuple[int, float]]] = {}
        for row in sorted(rows, key=lambda row: row["place"][3]):
            expected.setdefault((row["label"], row["order"]), []).append((row["place"][3], row["peak_bytes"] / 2**20))
        drawn = [line for line in joined(axes) if len(line.get_xdata())]
        assert len(drawn) == len(expected)
        for (label, order), points in expected.items():
            look = style.implementation(label)
            (line,) = [
                line
                for line in drawn
                if (line.get_color(), line.get_marker()) == (look.light, look.marker)
                and (line.get_linestyle() == "-") == (order == "second")
            ]
            np.testing.assert_allclose(line.get_xydata(), points)
        low, high = axes.get_ylim()
        assert all(low < y < high for line in drawn for y in line.get_ydata())


def test_milliseconds_of_every_implementation(costs: Both) -> None:
    groups: dict[tuple[Any, str], list[Row]] = {}
    for row in costs.timed:
        groups.setdefault((row["place"], row["device"]), []).append(row)
    groups = {place: rows for place, rows in groups.items() if len({row["label"] for row in rows}) > 1}
    assert len(costs.figures.named("cost-bars-")) == len(groups) > 0
    for ((work, backbone, batch, steps), device), rows in groups.items():
        batched = f"{batch} {'episodes evaluated' if work == 'evaluation' else 'tasks'}"
        panel = costs.panel("cost-bars", f"{backbone}, {batched}, {steps} inner step{'s' * (steps > 1)} · {device}")
        axes = panel.svg.figure.axes[0]
        ticks = [text.get_text() for text in axes.get_yticklabels()]
        slowest = {row["label"]: max(r["milliseconds"] for r in rows if r["label"] == row["label"]) for row in rows}
        assert ticks == list(panel.labels) == sorted(slowest, key=lambda label: slowest[label])
        both = len({row["order"] for row in rows}) > 1
        bars = {(round(bar.get_y() + bar.get_height() / 2, 6)): bar for bar in axes.patches}
        ends = {round(point.y, 6): point for c in axes.containers if hasattr(c, "has_xerr") for point in marks(c)}
        told = {round(text.xy[1], 6): text.get_text() for text in axes.texts}
        assert len(bars) == len(ends) == len(told) == len(rows)
        for row in rows:
            at = round(ticks.index(row["label"]) + both * (-0.2 if row["order"] == "second" else 0.2), 6)
            again = resampled(lambda taken: float(np.median(taken)), row["samples_milliseconds"])
            point: Point = ends[at]
            assert near((point.x, point.left, point.right), again), row["label"]
            assert bars[at].get_width() == pytest.approx(again[0])
            assert told[at] == (f"{again[0]:.3g}" if again[0] < 999.5 else f"{again[0]:,.0f}")
            pale = bars[at].get_alpha() != 1.0
            assert pale == (both and row["order"] == "first")
            assert axes.get_xlim()[0] < point.left <= point.right < axes.get_xlim()[1]


def price(costs: Both, record: Row) -> tuple[float, np.ndarray] | None:
    """Of second over first order, at the network, steps and device of a method and the nearest number of tasks."""
    fields, backbone = record["method"]["fields"], record["method"]["facts"]["backbone"]
    here: dict[tuple[bool, int], list[Row]] = {}
    for row in costs.timed:
        work, network, tasks, steps = row["place"]
        same = (work, network, steps) == ("meta-step", backbone, fields["inner_steps"])
        if same and row["label"] == "ours/rule" and row["device"] == record["device"]:
            away = row["machine"] != record["machine"]["id"], abs(tasks - fields["meta_batch"])
            here.setdefault(away, []).append(row)
    both = {away: pairs for away, rows in here.items() if (pairs := list(orders(rows)))}
    if not both:
        return None
    ((_, _, second, first),) = both[min(both)]
    return resampled(over, second["samples_milliseconds"], first["samples_milliseconds"])


def test_what_second_order_brings_beside_its_price(costs: Both) -> None:
    store, expected = costs.figures.store, {}
    for title, test in titles_of(store).items():
        regime = regimes_of(store, test)[0]
        sides = {name: store.of(test, name, regime) for name in ("maml", "fomaml")}
        if test not in {store.test(r) for r in store.done if own(r)} or test[2] == "last" or not all(sides.values()):
            continue
        steps = {records[0]["method"]["fields"]["inner_steps"] for records in sides.values()}
        time = price(costs, sides["maml"][0])
        if len(steps) > 1 or time is None:
            continue
        pairs, metric = all_pairs(store, test, regime), unit(store, test)[0]
        (pair,) = [p for p in pairs.itertuples() if {p.first, p.second} == {"maml", "fomaml"}]
        sign = 1 if pair.first == "maml" else -1
        gain, *between = (on_page(sign * value, metric) for value in (pair.estimate, pair.low, pair.high))
        said = f"{title} ({words.REGIME_TITLES[regime]})" if regime != "none" else title
        note = f"{said}, {steps.pop()} step"
        expected.setdefault(metric, []).append((time, (gain, min(between), max(between)), note))
    assert costs.figures.named("cost-worth-") == {words.slug(f"cost worth {metric}") for metric in expected} != set()
    for metric, rows in expected.items():
        name = words.slug(f"cost worth {metric}")
        axes, points = costs.figures.axes(name), costs.figures.points(name)["maml"]
        axis = {"accuracy": "accuracy (%)", "squared error": "mean squared error"}.get(metric, metric)
        assert costs.figures.panels[name].title == f"Is second order worth it? · {axis}"
        notes = {" ".join(text.get_text().split()) for text in axes.texts}
        assert len(points) == len(rows) == len(notes)
        for point, (time, gain, note) in zip(points, sorted(rows, key=lambda row: (row[0][0], row[1])), strict=True):
            assert near((point.x, point.left, point.right), time)
            assert (point.y, point.low, point.high) == pytest.approx(gain)
            assert any(told.removesuffix("s") == note for told in notes)
        assert costs.figures.in_sight(name)
        frame = axes.get_window_extent()
        for text in axes.texts:
            box = text.get_window_extent()
            assert frame.x0 <= box.x0 < box.x1 <= frame.x1, "a name is cut"
            assert frame.y0 <= box.y0 < box.y1 <= frame.y1, "a name is cut"
