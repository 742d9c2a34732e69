"""The figures of the committed pages, computed again from the committed records: scores against test shots and against
training cost, fits before and after adaptation, returns, paths, pairwise differences. Curves are in
tests/test_page_curves.py, costs of implementations in tests/test_page_cost_figures.py, what is across tasks in
tests/test_page_across.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from page_figures import REFERENCE, Figures, bands, joined, marks
from page_numbers import REGIMES, all_pairs, half_width, marked, on_page, regimes_of, role, titles_of, unit

from reports import words

Test = tuple[str, int, str]

#: beginnings of the names of all figures that a test computes again
CHECKED = (
    *("shots-", "cost-", "fit-", "forest-", "paths-", "adaptation-"),
    *("steps-", "learning-", "across-", "cost-worth-", "cost-ratio-", "cost-bars-", "cost-memory-"),
)
PAID = {
    "seconds": "training seconds",
    "examples": "training examples",
    "environment_steps": "environment steps in training",
}


@pytest.fixture(scope="module", params=["quick", "standard"])
def drawn(request: pytest.FixtureRequest) -> Figures:
    return Figures(REFERENCE / request.param)


def in_regime(drawn: Figures, test: Test, regime: str) -> str:
    """What a title says of the batch-norm regime: nothing where nobody has batch-norm."""
    plain = {r["evaluation"]["regime"] for r in drawn.store.done if drawn.store.test(r) == test} == {"none"}
    return "" if plain else f" · {words.REGIME_TITLES[regime]}"


def own(record: dict[str, Any]) -> bool:
    """Whether an evaluation is of the task that the method was trained for."""
    evaluation, shot = record["evaluation"], record["task"]["fields"].get("shot")
    trained_on = evaluation.get("trained_on") or evaluation["task_id"]
    return trained_on == evaluation["task_id"] and shot in (None, evaluation["shots"])


def own_tests(drawn: Figures) -> dict[str, Test]:
    """Title -> test, of those that a method was trained for."""
    found = {drawn.store.test(record) for record in drawn.store.done if own(record)}
    return {title: test for title, test in titles_of(drawn.store).items() if test in found and test[2] == "best"}


def interval(drawn: Figures, test: Test, label: str, regime: str) -> tuple[float, float, float]:
    """Mean and ends in the unit shown."""
    episodes = unit(drawn.store, test)[1] * drawn.store.scores(test, label, regime).mean(axis=0)
    return episodes.mean(), episodes.mean() - half_width(episodes), episodes.mean() + half_width(episodes)


def test_no_figure_is_left_out(drawn: Figures) -> None:
    assert {name for name in drawn.panels if not name.startswith(CHECKED)} == set()
    assert drawn.named("forest-")


def test_score_against_test_shots(drawn: Figures) -> None:
    groups: dict[str, dict[str, set[int]]] = {}
    where: dict[str, tuple[str, str, str]] = {}
    for record in drawn.store.done:
        task, shots, model = test = drawn.store.test(record)
        if role(record) == "learner":
            regime = record["evaluation"]["regime"]
            title = task + ", last model" * (model == "last") + in_regime(drawn, test, regime)
            where[title] = task, model, regime
            groups.setdefault(title, {}).setdefault(record["label"], set()).add(shots)
    expected = {title: found for title, found in groups.items() if len(set().union(*found.values())) > 1}
    assert drawn.named("shots-") == {words.slug(f"shots {title}") for title in expected}
    for title, methods in expected.items():
        name, (task, model, regime) = words.slug(f"shots {title}"), where[title]
        assert drawn.panels[name].title == title
        assert set(drawn.panels[name].labels) == set(methods)
        assert drawn.in_sight(name)
        points = drawn.points(name)
        assert set(points) == set(methods)
        lines = [(line.get_color(), line.get_xydata()) for line in joined(drawn.axes(name))]
        assert len(lines) == len(methods)
        for label, shots in methods.items():
            again = [(s, *interval(drawn, (task, s, model), label, regime)) for s in sorted(shots)]
            found = [(point.x, point.y, point.low, point.high) for point in points[label]]
            np.testing.assert_allclose(found, again, rtol=1e-9)
            colour, through = drawn.looks[label].light, np.array(again)[:, :2]
            assert any(c == colour and np.allclose(line, through) for c, line in lines), label


def test_score_against_training_cost_and_its_pareto_front(drawn: Figures) -> None:
    expected = set()
    for title, test in own_tests(drawn).items():
        regime = regimes_of(drawn.store, test)[0]
        names = drawn.store.learners(test, regime)
        spent = {
            what: {
                label: float(
                    np.mean([(r["training"] or {}).get(what) or 0 for r in drawn.store.of(test, label, regime)])
                )
                for label in names
            }
            for what in PAID
        }
        for what in (what for what in PAID if any(spent[what].values())):
            name = words.slug(f"cost {title} {what}")
            expected.add(name)
            _costs(drawn, name, spent[what], {label: interval(drawn, test, label, regime) for label in names}, test)
            assert drawn.panels[name].title == f"{title}{in_regime(drawn, test, regime)} · against {PAID[what]}"
    drawn_here = {name for name in drawn.named("cost-") if name.endswith(tuple(map(words.slug, PAID)))}
    assert drawn_here == expected != set()


def _costs(drawn: Figures, name: str, spent: dict[str, float], scores: dict[str, Any], test: Test) -> None:
    points = drawn.points(name)
    assert set(points) == set(spent)
    for label, (point,) in points.items():
        assert (point.x, point.y, point.low, point.high) == pytest.approx((spent[label], *scores[label])), label
    assert drawn.in_sight(name)
    sign = -1 if unit(drawn.store, test)[0] == "squared error" else 1
    worth = {label: sign * mean for label, (mean, _, _) in scores.items()}
    front = {
        label
        for label in spent
        if not any(
            spent[other] <= spent[label]
            and worth[other] >= worth[label]
            and (spent[other], worth[other]) != (spent[label], worth[label])
            for other in spent
        )
    }
    caption = drawn.panels[name].caption
    told = caption.removeprefix("Pareto front (dashed): ").partition(".")[0].split(", ")
    assert sorted(told) == sorted(front)
    (dashed,) = joined(drawn.axes(name))
    again = sorted((spent[label], scores[label][0]) for label in front)
    np.testing.assert_allclose(sorted(map(tuple, dashed.get_xydata())), again)
    assert ("logarithmic" in caption) == (drawn.axes(name).get_xscale() != "linear")


def arrays_of(drawn: Figures, record: dict[str, Any]) -> dict[str, np.ndarray]:
    """The arrays of the lowest seed that has some."""
    place = drawn.store.test(record), record["label"], record["evaluation"]["regime"]
    same = [r for r in drawn.store.done if (drawn.store.test(r), r["label"], r["evaluation"]["regime"]) == place]
    key = min((r for r in same if (r.get("files") or {}).get("arrays")), key=lambda r: r["seed"], default=record)["key"]
    path = drawn.store.folder / "arrays" / f"{key}.npz"
    if not path.is_file():
        return {}
    with np.load(path) as file:
        return dict(file)


def exhibits(drawn: Figures, needed: str) -> dict[tuple[str, str], tuple[dict[str, Any], dict[str, np.ndarray]]]:
    """Title and method -> the evaluation of the lowest seed and its arrays, where those hold the needed one."""
    titles = {test: title for title, test in titles_of(drawn.store).items()}
    found = {}
    for record in sorted(drawn.store.done, key=lambda r: (REGIMES.index(r["evaluation"]["regime"]), r["seed"])):
        place = titles[drawn.store.test(record)], record["label"]
        if place not in found and needed in (arrays := arrays_of(drawn, record)):
            found[place] = record, arrays
    return found


def test_fits_before_and_after_adaptation(drawn: Figures) -> None:
    shown = exhibits(drawn, "truth")
    assert drawn.named("fit-") == {words.slug(f"fit {title} {label}") for title, label in shown}
    for (title, label), (record, arrays) in shown.items():
        panel = drawn.panels[words.slug(f"fit {title} {label}")]
        episode = max(range(len(arrays["truth"])), key=lambda e: float(np.ptp(arrays["truth"][e])))
        assert (panel.title, panel.caption) == (label, f"Test episode {episode}, seed {record['seed']}.")
        steps = [int(step) for step in arrays["steps"]]
        curves = {step: arrays["predicted"][place][episode] for place, step in enumerate(steps)}
        after = {f"{n} step{'s' * (n > 1)}": n for n in (1, record["evaluation"]["headline_step"]) if n}
        again = {"before": 0, **after} if len(steps) > 1 else {"prediction": 0}
        expected = {name: (arrays["x"], curves[step]) for name, step in again.items()}
        expected["truth"] = arrays["x"], arrays["truth"][episode]
        expected["support"] = arrays["support_x"][episode], arrays["support_y"][episode]
        axes = panel.svg.figure.axes[0]
        lines = {line.get_label(): line for line in axes.lines}
        assert set(lines) == set(expected) == {text.get_text() for text in axes.get_legend().get_texts()}
        for name, (x, y) in expected.items():
            np.testing.assert_array_equal(lines[name].get_xdata(), x)
            np.testing.assert_array_equal(lines[name].get_ydata(), y)
        assert all(lines[name].get_color() == drawn.looks[label].light for name in again)
        low, high = axes.get_ylim()
        assert low < arrays["truth"][episode].min() < arrays["truth"][episode].max() < high


def test_paths_before_and_after_adaptation(drawn: Figures) -> None:
    shown = {place: found for place, found in exhibits(drawn, "paths").items() if "last model" not in place[0]}
    assert drawn.named("paths-") == {words.slug(f"paths {title} {label}") for title, label in shown}
    for (title, label), (record, arrays) in shown.items():
        panel = drawn.panels[words.slug(f"paths {title} {label}")]
        count, last = len(arrays["goals"]), int(arrays["steps"][-1])
        said = f"{title}, one path in each of {count} test tasks, seed {record['seed']}"
        assert (panel.title, panel.caption) == (label, said)
        axes = panel.svg.figure.axes[0]
        named = {text.get_text() for text in axes.get_legend().get_texts()}
        after = f"after {last} step{'s' * (last > 1)}" if last else "paths"
        assert named == {"goals", after, *(["before"] if last else [])}
        colour = drawn.looks[label].light
        paths = [line.get_xydata() for line in joined(axes) if line.get_color() == colour]
        np.testing.assert_array_equal(paths, arrays["paths"][-1][:, 0])
        before = [line.get_xydata() for line in joined(axes) if line.get_color() != colour]
        np.testing.assert_array_equal(before, arrays["paths"][0][:, 0] if last else np.empty((0,)))
        (goals,) = [line for line in axes.lines if line.get_label() == "goals"]
        np.testing.assert_array_equal(goals.get_xydata(), arrays["goals"])
        assert min(*axes.get_xlim(), *axes.get_ylim()) < arrays["goals"].min()
        assert max(*axes.get_xlim(), *axes.get_ylim()) > arrays["goals"].max()


def test_pairwise_differences(drawn: Figures) -> None:
    expected = set()
    for title, test in own_tests(drawn).items():
        for regime in regimes_of(drawn.store, test):
            if len(drawn.store.learners(test, regime)) > 1:
                name = words.slug(f"forest {title} {regime}")
                expected.add(name)
                _forest(drawn, name, test, regime)
                assert drawn.panels[name].title == title + in_regime(drawn, test, regime)
    assert drawn.named("forest-") == expected


def _forest(drawn: Figures, name: str, test: Test, regime: str) -> None:
    store, axes = drawn.store, drawn.axes(name)
    pairs, metric = all_pairs(store, test, regime), unit(store, test)[0]
    names = store.learners(test, regime)
    under = {label for label in names if marked(store, test, label, regime)}
    caption = drawn.panels[name].caption
    shown = pairs
    if len(pairs) > 28:
        near = pairs["first"].map(names.index) + 1 == pairs["second"].map(names.index)
        shown = pairs[near | (pairs["first"] == names[0])]
        assert f" {len(shown)} of {len(pairs)} pairs" in caption
    points = sorted((point.y, point, c) for c in axes.containers for point in marks(c))
    assert len(points) == len(shown) == len(axes.texts)
    for (_, point, container), text, pair in zip(points, axes.texts, shown.itertuples(), strict=True):
        ahead = pair.verdict == "better" and {pair.first, pair.second} & under
        assert text.get_text() == f"{pair.first} against {pair.second}: {'ahead' if ahead else pair.verdict}"
        again = [on_page(value, metric) for value in (pair.estimate, pair.low, pair.high)]
        assert (point.x, point.left, point.right) == pytest.approx(again, rel=1e-9, abs=1e-12)
        assert text.get_position()[1] < point.y < text.get_position()[1] + 1, "beside another pair's name"
        assert container.lines[0].get_marker() == {"equivalent": "s", "undecided": "o"}.get(pair.verdict, "D")
    assert drawn.in_sight(name)
    margin = on_page(
        store.column(test, regime)[0]["task"]["equivalence_margin"], "" if metric == "squared error" else metric
    )
    inverse = 1 / margin if metric == "squared error" else -margin
    (band,) = axes.patches
    assert (band.get_x(), band.get_x() + band.get_width()) == pytest.approx((inverse, margin))
    told = {"squared error": f"a factor of {margin:.2f}", "accuracy": f"{margin:.2g} point{'s' * (margin != 1)}"}
    assert caption.startswith(f"Grey band: the margin of equivalence, {told.get(metric, f'{margin:.2g}')}.")
    none = 1.0 if metric == "squared error" else 0.0
    assert [list(line.get_xdata()) for line in joined(axes)] == [[none, none]]


def test_returns_against_the_environment_steps_of_adaptation(drawn: Figures) -> None:
    store, expected = drawn.store, set()
    for title, test in titles_of(store).items():
        here = [r for r in store.done if store.test(r) == test]
        if here[0]["task"]["kind"] != "control" or all(len(r["summary"]) < 2 for r in here):
            continue
        name = words.slug(f"adaptation {title}")
        expected.add(name)
        curves = {label: _returns(drawn, test, label) for label in dict.fromkeys(r["label"] for r in here)}
        last = max(curve["spent"].max() for curve in curves.values())
        lines, bands = drawn.lines(name), _bands(drawn, name)
        assert set(lines) == set(curves)
        for label, curve in curves.items():
            (line,) = lines[label]
            if len(curve) > 1:
                np.testing.assert_allclose(line, curve[["spent", "mean"]])
                ends = curve.assign(low=curve["mean"] - curve["half"], high=curve["mean"] + curve["half"])
                assert any(len(b) == len(ends) and np.allclose(b, ends[["spent", "low", "high"]]) for b in bands[label])
            else:
                np.testing.assert_allclose(line, [[0, curve["mean"][0]], [last, curve["mean"][0]]])
        axes = drawn.axes(name)
        assert axes.get_xlim()[0] < 0 < last < axes.get_xlim()[1]
        assert ("logarithmic" in drawn.panels[name].caption) == (axes.get_xscale() != "linear")
        assert drawn.panels[name].title == title
    assert drawn.named("adaptation-") == expected


def _returns(drawn: Figures, test: Test, label: str) -> pd.DataFrame:
    """spent, mean and half per step, over the episodes that were scored at step 0."""
    records = [r for r in drawn.store.of(test, label, "none") if drawn.store.test(r) == test]
    steps = [one["step"] for one in records[0]["summary"]]
    count = drawn.store.scores(test, label, "none", steps[0]).shape[1]
    rows = []
    for place, step in enumerate(steps):
        episodes = drawn.store.scores(test, label, "none", step)[:, :count].mean(axis=0)
        spent = np.mean([r["summary"][place]["environment_steps"] for r in records])
        rows.append({"spent": spent, "mean": episodes.mean(), "half": half_width(episodes)})
    return pd.DataFrame(rows)


def _bands(drawn: Figures, name: str) -> dict[str, list[np.ndarray]]:
    """The bands of every method, those of methods in the same colour together."""
    found = bands(drawn.axes(name))
    return {
        label: [band for colour, band in found if colour == drawn.looks[label].light]
        for label in drawn.panels[name].labels
    }
