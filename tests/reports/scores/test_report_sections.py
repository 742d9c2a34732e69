"""Pairs, claims, published numbers and trade-offs, on planted records."""

from __future__ import annotations

import dataclasses
import itertools
import math
from pathlib import Path

import made_up_records as made_up
import numpy as np
import pandas as pd
import pytest
from made_up_costs import costs, record, row
from made_up_records import GLYPHS, SINUSOID, Maker, Parsed

from benchmarks.records.store import Store
from benchmarks.stats import Comparison
from reports import style
from reports.cost import frames, sections
from reports.page.page import write_report
from reports.results import load
from reports.scores import claims, layout, pairs, reproduced, tables, trade_offs
from reports.scores.findings import findings_of


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    made_up.full_store(folder)
    return folder


def episode_means(store: Path, label: str, regime: str, step: int) -> np.ndarray:
    """The mean over queries of each episode, of the one record of a method."""
    (record,) = (record for record in Store(store).records("evaluation") if record.label == label)
    return Store(store).scores(record)[f"best/{regime}/{step}"].mean(axis=1)


def test_a_pair_with_an_under_trained_fit_is_ahead_and_not_better(store: Path) -> None:
    table = pairs.pairs_table(load(store)).query("second == 'finetune' and task == 'sinusoid-v1/k10'")
    assert set(table["verdict"]) <= {"ahead", "behind", "not comparable"}
    assert "ahead" in set(table["verdict"])


def test_the_claims_are_those_of_the_records(tmp_path: Path) -> None:
    make = Maker(tmp_path)
    kwargs = {"seed": 0, "steps": 6, "curve_episodes": 60}
    make.evaluation("maml", SINUSOID, level=3.0, slope=-2.5, **kwargs)
    make.evaluation("fomaml", SINUSOID, level=3.0, slope=-1.0, **kwargs)
    table = claims.claims_table(load(tmp_path)).set_index("claim")
    keys = {record.label: record.key for record in Store(tmp_path).records("evaluation")}
    as_good = table.loc["FOMAML is as good as MAML"]
    assert as_good["outcome"] == "fails"
    assert set(as_good["records"].split()) == set(keys.values())
    more = table.loc["MAML goes on improving with more steps"]
    assert (more["outcome"], more["records"]) == ("holds", keys["maml"])
    after, before = (episode_means(tmp_path, "maml", "none", step).mean() for step in (5, 1))
    assert f"a factor of {before / after:.3f}" in more["finding"]


def test_an_unfinished_budget_is_never_called_reproduced(tmp_path: Path) -> None:
    make = Maker(tmp_path)
    omniglot = dataclasses.replace(GLYPHS, id="omniglot-v1/5w1s", name="omniglot", fields={"shot": 1})
    make.evaluation("maml", omniglot, regime="query", level=0.9)
    for frame in (reproduced.published_table(load(tmp_path)), tables.main_table(load(tmp_path))):
        assert list(frame["reproduced"]) == ["not at the published budget"]
        assert "z" not in frame or frame["z"].isna().all()
    row = reproduced.published_table(load(tmp_path)).iloc[0]
    mean = 100 * episode_means(tmp_path, "maml", "query", 0).mean()
    assert row["ours_minus_published"] == pytest.approx(mean - 98.7)
    assert "queries per class 1, here 10" in row["protocol_differs"]


def test_the_front_is_what_nobody_dominates() -> None:
    generator = np.random.default_rng(2)
    costs, worth = generator.integers(0, 6, 40).tolist(), generator.integers(0, 6, 40).tolist()
    kept = trade_offs.front(costs, worth)
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


def test_no_two_numbers_of_different_versions_are_compared(tmp_path: Path) -> None:
    make = Maker(tmp_path / "store")
    for version in (1, 2):
        task = dataclasses.replace(SINUSOID, id=f"sinusoid-v{version}/k10", version=version)
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
    rows = [row("second", "ours/rule", 3.0), row("first", "ours/rule", 2.0)]
    make.store.write(record("mlp-40-40", 25, 1, rows, gpu=False))
    text = write_report(tmp_path / "store", tmp_path / "page.html").read_text()
    assert 'id="second-order"' in text
    assert "First order is 1.50 times [1.50, 1.50] as fast as second order" in text
    assert any("1.50 [1.50, 1.50]" in row for row in Parsed(text).rows)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(1.3, 1.5, "holds"), (1.0, 1.1, "fails"), (2.0, 2.4, "fails"), (1.5, 1.9, "undecided"), (1.1, 1.3, "undecided")],
)
def test_what_a_ratio_of_times_makes_of_the_claim_of_33_percent(low: float, high: float, expected: str) -> None:
    assert frames.claim(low, high) == expected


def test_pairs_are_over_the_shared_seeds(tmp_path: Path) -> None:
    make = Maker(tmp_path)
    seeds = {"maml": (0, 1, 2), "fomaml": (0, 2), "finetune": (1,), "late": (2,)}
    for label, own in seeds.items():
        for seed in own:
            make.evaluation(label, SINUSOID, seed, level=0.4 + 0.3 * (seed == 1))
    make.evaluation("chance", SINUSOID, level=0.8, fits=False, role="learner")
    results = load(tmp_path)
    table = pairs.pairs_table(results)
    ((finding,),) = findings_of(results)
    assert finding.leader is not None
    leader = finding.leader.name
    (judged,) = results.verdicts.values()
    assert isinstance(judged, Comparison)
    found = {(row.first, row.second): judged.of(row.first, row.second).contrast.seeds for row in table.itertuples()}
    expected = {}
    for couple in itertools.combinations([*seeds, "chance"], 2):
        if not {pairs.REFERENCE, leader} & set(couple):
            continue
        shared = set.intersection(*(set(seeds[name]) for name in couple if name != "chance"))
        if shared:
            expected[couple if couple in found else couple[::-1]] = len(shared)
    assert found == expected


@pytest.mark.fault("V10")
def test_the_33_percent_are_counted_in_one_way(tmp_path: Path) -> None:
    costs(tmp_path / "store", gpu=False, cpu=True)
    Maker(tmp_path / "store").evaluation("maml", SINUSOID, level=0.5)
    results = load(tmp_path / "store")
    page = write_report(tmp_path / "store", tmp_path / "page.html").read_text(encoding="utf-8")
    table = claims.claims_table(results)
    outcomes = list(table.loc[table["claim"].str.contains("33 %"), "outcome"])
    told = [f"{word} at {outcomes.count(word)}" for word in frames.OUTCOMES if word in outcomes]
    assert f") {', '.join(told)} of {len(outcomes)} settings." in page
    (counted,) = [said for claim, said in claims.summary(table) if "33 %" in claim]
    assert counted == f"{', '.join(told).replace(' at ', ' on ')} of {len(outcomes)} cases"
    cost = sections.ratio_table(results.costs)
    assert cost is not None
    place = [header.title for header in cost.headers].index("33 %")
    ours = [row[place].text for row in cost.rows if row[0].text.startswith("ours")]
    assert sorted(ours) == sorted(outcomes)
