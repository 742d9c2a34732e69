"""Pairs, claims, published numbers and cost figures of the page: each number recomputed from the records."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import made_up_records as made_up
import numpy as np
import pandas as pd
import pytest
from made_up_records import GLYPHS, SINUSOID, Maker, Parsed
from scipy import stats

from benchmarks.records.store import Store
from reports import style
from reports.page.page import write_report
from reports.results import load
from reports.scores import claims, forest, layout, pairs, tables, trades


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    made_up.full_store(folder)
    return folder


def episode_means(store: Path, label: str, task: str, regime: str, step: int | None = None) -> np.ndarray:
    """The mean over seeds and queries of each episode, read from the store by nothing of the report."""
    reader, found = Store(store), []
    for record in reader.records("evaluation"):
        place = record["label"], record["task"]["id"], record["evaluation"]["regime"]
        if record["status"] == "ok" and place == (label, task, regime):
            frame = reader.scores(record["key"])
            chosen = frame[frame["step"] == (record["evaluation"]["headline_step"] if step is None else step)]
            found.append(chosen.astype({"score": float}).groupby("episode")["score"].mean())
    return np.mean(found, axis=0)


def test_every_pair_is_what_scipy_says_of_the_scores(store: Path) -> None:
    table = pairs.pairs_table(load(store))
    here = table[(table["task"] == GLYPHS["id"]) & (table["batch_norm"] == "query")]
    names = ["maml [tuned]", "maml", "nearest-neighbour"]
    assert [tuple(row) for row in here[["first", "second"]].to_numpy()] == list(itertools.combinations(names, 2))
    regimes = {"nearest-neighbour": "none"}
    scores = {name: episode_means(store, name, GLYPHS["id"], regimes.get(name, "query")) for name in names}
    p_values = []
    for row in here.itertuples():
        difference = scores[row.first] - scores[row.second]
        assert row.advantage == pytest.approx(100 * difference.mean())
        p_values.append(stats.ttest_1samp(difference, 0).pvalue)
        assert (row.low > 0 or row.high < 0) == (row.verdict in ("better", "worse"))
        plain = stats.t.ppf(1 - 0.05 / 3 / 2, len(difference) - 1) * stats.sem(difference)
        assert row.high == pytest.approx(100 * (difference.mean() + plain))
    smallest_first, below = np.argsort(p_values), 0.0
    for place, index in enumerate(smallest_first):
        below = max(below, min(1.0, (3 - place) * p_values[index]))
        assert here["p_holm"].iloc[index] == pytest.approx(below)


def test_errors_are_compared_by_the_ratio_of_their_means(store: Path) -> None:
    table = pairs.pairs_table(load(store))
    row = table[(table["first"] == "maml") & (table["second"] == "fomaml")].iloc[0]
    means = [episode_means(store, name, SINUSOID["id"], "none").mean() for name in ("maml", "fomaml")]
    assert row["unit"] == "factor"
    assert row["advantage"] == pytest.approx(means[1] / means[0])
    assert (row["low"] > 1) == (row["verdict"] == "better")


def test_a_pair_with_an_under_trained_fit_is_ahead_and_not_better(store: Path) -> None:
    table = pairs.pairs_table(load(store)).query("second == 'finetune' and task == 'sinusoid-v1/k10'")
    assert set(table["verdict"]) <= {"ahead", "behind", "equivalent", "undecided"}
    assert "ahead" in set(table["verdict"])


def test_a_matrix_is_antisymmetric_and_says_what_the_table_says(store: Path) -> None:
    results = load(store)
    for matrix in pairs.matrices(results):
        opposite = {"better": "worse", "worse": "better"}
        for i, row in enumerate(matrix.squares):
            assert row[i] is None
            for j, square in enumerate(row):
                if i != j:
                    mirrored = matrix.squares[j][i].verdict
                    assert square.verdict == opposite.get(mirrored, mirrored)


def test_the_claims_are_those_of_the_records(tmp_path: Path) -> None:
    make = Maker(tmp_path)
    kwargs = {"seed": 0, "steps": 6, "curve_episodes": 60}
    make.evaluation("maml", SINUSOID, level=3.0, slope=-2.5, **kwargs)
    make.evaluation("fomaml", SINUSOID, level=3.0, slope=-1.0, **kwargs)
    table = claims.claims_table(load(tmp_path)).set_index("claim")
    keys = {record["label"]: record["key"] for record in Store(tmp_path).records("evaluation")}
    as_good = table.loc["FOMAML is as good as MAML"]
    assert as_good["outcome"] == "fails"
    assert set(as_good["records"].split()) == set(keys.values())
    more = table.loc["MAML goes on improving with more steps"]
    assert (more["outcome"], more["records"]) == ("holds", keys["maml"])
    after, before = (episode_means(tmp_path, "maml", SINUSOID["id"], "none", step).mean() for step in (5, 1))
    assert f"a factor of {before / after:.3f}" in more["finding"]


@pytest.mark.parametrize(
    ("verdict", "within", "as_good", "expected"),
    [
        ("better", False, False, "holds"),
        ("better", False, True, "holds"),
        ("worse", False, True, "fails"),
        ("worse", True, True, "holds"),
        ("worse", True, False, "fails"),
        ("undecided", True, True, "holds"),
        ("undecided", True, False, "fails"),
        ("undecided", False, True, "undecided"),
        ("undecided", False, False, "undecided"),
    ],
)
def test_what_a_verdict_makes_of_a_claim(verdict: str, within: bool, as_good: bool, expected: str) -> None:
    assert claims.outcome(verdict, within, as_good) == expected


def test_an_unfinished_budget_is_never_called_reproduced(tmp_path: Path) -> None:
    make = Maker(tmp_path)
    omniglot = {**GLYPHS, "id": "omniglot-v1/5w1s", "name": "omniglot", "fields": {"shot": 1}}
    make.evaluation("maml", omniglot, regime="query", level=0.9)
    for frame in (tables.published_table(load(tmp_path)), tables.main_table(load(tmp_path))):
        assert list(frame["reproduced"]) == ["not the published budget"]
        assert "z" not in frame or frame["z"].isna().all()
    row = tables.published_table(load(tmp_path)).iloc[0]
    mean = 100 * episode_means(tmp_path, "maml", omniglot["id"], "query").mean()
    assert row["ours_minus_published"] == pytest.approx(mean - 98.7)
    assert "queries per class 1, here 10" in row["protocol_differs"]


def test_the_front_is_what_nobody_dominates() -> None:
    generator = np.random.default_rng(2)
    costs, worth = generator.integers(0, 6, 40).tolist(), generator.integers(0, 6, 40).tolist()
    kept = trades.front(costs, worth)
    points = list(zip(costs, worth, strict=True))
    assert len(set(points)) < len(points), "none are equal"
    free = [i for i, (c, w) in enumerate(points) if not any(d <= c and v >= w and (d, v) != (c, w) for d, v in points)]
    assert sorted(kept) == free


def test_files_of_a_table_hold_what_the_page_shows(store: Path) -> None:
    results = load(store)
    for table in layout.score_tables(results, style.looks(results.labels)):
        frame = table.frame
        lines = [line.strip("| ").split(" | ") for line in table.markdown().splitlines()]
        assert lines[0] == list(frame.columns)
        assert lines[2:] == frame.to_numpy().tolist()
        latex = table.latex().splitlines()
        assert len(latex) == len(frame) + 6
        assert all(line.count(" & ") == len(frame.columns) - 1 for line in latex[2:-2] if "&" in line)
        assert "±" not in table.latex()


def test_ranks_and_letters_of_the_table_are_those_of_the_pairs(store: Path) -> None:
    results = load(store)
    table, couples = tables.main_table(results), pairs.pairs_table(results)
    for row in table[table["batch_norm"] == "support"].itertuples():
        here = couples[(couples["task"] == row.task) & (couples["batch_norm"] == "support")]
        losses = ((here["second"] == row.method) & here["verdict"].isin(["better", "ahead"])).sum()
        losses += ((here["first"] == row.method) & here["verdict"].isin(["worse", "behind"])).sum()
        assert row.rank == 1 + losses
    letters = dict(table[table["batch_norm"] == "support"][["method", "letters"]].to_numpy())
    couples = couples[couples["batch_norm"] == "support"]
    here = couples[
        (couples["batch_norm"] == "support") & couples["first"].isin(letters) & couples["second"].isin(letters)
    ]
    for pair in here.itertuples():
        shared = bool(set(letters[pair.first]) & set(letters[pair.second]))
        assert shared == (pair.verdict in ("equivalent", "undecided"))


def test_no_two_numbers_of_different_versions_are_compared(tmp_path: Path) -> None:
    make = Maker(tmp_path / "store")
    for version in (1, 2):
        task = {**SINUSOID, "id": f"sinusoid-v{version}/k10", "version": version}
        for label, level in (("maml", 0.4), ("fomaml", 0.8)):
            make.evaluation(label, task, level=level)
    table = pairs.pairs_table(load(tmp_path / "store"))
    assert list(table["task"]) == ["sinusoid-v1/k10", "sinusoid-v2/k10"]
    assert Parsed(write_report(tmp_path / "store", tmp_path / "page.html").read_text()).open == []


@pytest.mark.parametrize("episodes", [1, 2])
def test_few_episodes_and_scores_that_are_no_numbers_still_make_a_page(tmp_path: Path, episodes: int) -> None:
    make = Maker(tmp_path / "store", episodes=episodes)
    for label, level in (("maml", 0.5), ("fomaml", 0.6), ("broken", math.nan)):
        make.evaluation(label, SINUSOID, level=level, steps=3)
    results = load(tmp_path / "store")
    table = pairs.pairs_table(results)
    assert set(table["first"]) | set(table["second"]) == {"maml", "fomaml"}
    assert table["low"].notna().all() == (episodes > 1)
    text = write_report(tmp_path / "store", tmp_path / "page.html").read_text()
    assert "not numbers" in text
    assert not pd.isna(claims.claims_table(results)["outcome"]).any()


def test_what_second_order_costs_stands_on_the_page_where_it_was_measured(tmp_path: Path) -> None:
    make = Maker(tmp_path / "store")
    make.evaluation("maml", SINUSOID, level=0.5)
    assert 'id="second-order"' not in write_report(tmp_path / "store", tmp_path / "page.html").read_text()
    noise = [1.0, 1.1, 1.2, 1.3, 1.4]
    rows = [
        {
            "order": order, "implementation": "ours",
            "label": "ours/rule", "status": "ok", "stable": True, "reason": "",
            "samples_milliseconds": [scale * one for one in noise], "peak_bytes": 4e6, "flops": 1e6, "operations": 100,
        }
        for order, scale in (("second", 3.0), ("first", 2.0))
    ]  # fmt: skip
    header = make.header("cost", "cost", SINUSOID, 0)
    make.store.write({**header, "setting": {"backbone": "mlp-40-40", "meta_batch": 25, "inner_steps": 1}, "rows": rows})
    text = write_report(tmp_path / "store", tmp_path / "page.html").read_text()
    assert 'id="second-order"' in text
    assert "First order is 1.50 times [1.50, 1.50] as fast as second order" in text
    assert any("1.50 [1.50, 1.50]" in row for row in Parsed(text).rows)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(1.3, 1.5, "holds"), (1.0, 1.1, "fails"), (2.0, 2.4, "fails"), (1.5, 1.9, "undecided"), (1.1, 1.3, "undecided")],
)
def test_what_a_ratio_of_times_makes_of_the_claim_of_33_percent(low: float, high: float, expected: str) -> None:
    assert claims.saved_outcome(low, high) == expected


def test_a_drawn_interval_leaves_zero_out_where_the_table_has_a_verdict(store: Path) -> None:
    results = load(store)
    table = pairs.pairs_table(results)
    panels, _ = forest.forest_panels(results, style.looks(results.labels))
    assert panels
    for panel in panels:
        axes = panel.svg.figure.axes[0]
        regime = panel.title.partition("batch-norm: ")[2] or "none"
        none = 1.0 if "sinusoid" in panel.name else 0.0
        drawn = sorted((s[0][0], s[1][0]) for c in axes.containers for s in c[2][0].get_segments())
        here = table[table["task"].map(lambda task, title=panel.title: title.startswith(task))]
        here = here[here["batch_norm"] == regime]
        assert drawn == [pytest.approx(pair) for pair in sorted(zip(here["low"], here["high"], strict=True))]
        sure = here["verdict"].isin(["better", "worse", "ahead", "behind"])
        assert sum(low > none or high < none for low, high in drawn) == sure.sum()
