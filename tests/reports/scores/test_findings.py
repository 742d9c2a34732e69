"""The cards of the first screen: planted differences, ties and triples, and rows that can't be compared."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pandas as pd
import pytest
from made_up_records import GLYPHS, SINUSOID, Maker, Parsed, full_store, student

from benchmarks.records.store import Store
from reports import results
from reports.page.page import write_report
from reports.scores.findings import Finding, findings_of


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    full_store(folder)
    return folder


def paired(store: Path, test: str, regime: str) -> Finding:
    found = [one for regimes in findings_of(results.load(store)) for one in regimes]
    return next(one for one in found if one.test == test and one.regime == regime)


def test_planted_difference_is_found_and_planted_tie_is_not(tmp_path: Path) -> None:
    make = Maker(tmp_path, episodes=200)
    for seed in (0, 1):
        make.evaluation("good", GLYPHS, seed, regime="query", level=0.9)
        make.evaluation("bad", GLYPHS, seed, regime="query", level=0.6)
        make.evaluation("one", GLYPHS, seed, regime="support", level=0.7)
        make.evaluation("other", GLYPHS, seed, regime="support", level=0.7)
    finding = paired(tmp_path, GLYPHS.id, "query")
    assert (finding.verdict, finding.leader.name, finding.pair.second) == ("winner", "good", "bad")
    assert finding.headline == "good is better than every other at this budget, for these trained models"
    assert "for these trained models" in finding.sentence
    means = {}
    for record in Store(tmp_path).records("evaluation"):
        scores = Store(tmp_path).scores(record)["best/" + record.tests[0].regime + "/0"]
        means.setdefault(record.label, []).append(scores.mean(axis=1))
    expected = pd.Series(sum(means["good"]) / 2 - sum(means["bad"]) / 2)
    assert finding.pair.contrast.estimate == pytest.approx(expected.mean())
    assert finding.pair.adjusted.half_width == pytest.approx(student(200) * expected.sem())
    low, high = (100 * (expected.mean() + sign * student(200) * expected.sem()) for sign in (-1, 1))
    assert f"{100 * expected.mean():.2f} points (adjusted interval {low:+.2f} to {high:+.2f})" in finding.sentence
    tie = paired(tmp_path, GLYPHS.id, "support")
    assert tie.verdict == "tied"
    assert "can't be told apart" in tie.headline
    assert re.search(r"it would take about [\d,]+ episodes", tie.sentence)


def test_a_planted_non_transitive_triple_shares_groups(tmp_path: Path) -> None:
    make = Maker(tmp_path / "store", episodes=100)
    for seed in range(5):
        for label, level in (("high", 0.71), ("middle", 0.69), ("low", 0.66)):
            make.evaluation(label, GLYPHS, seed, regime="query", level=level)
    finding = paired(tmp_path / "store", GLYPHS.id, "query")
    shown = [(one.result.name, one.rank, one.groups) for one in finding.entries]
    assert shown == [("high", 1, "a"), ("middle", 1, "ab"), ("low", 2, "b")]
    assert finding.verdict == "tied"
    rows = Parsed(write_report(tmp_path / "store", tmp_path / "page.html").read_text()).rows
    found = [[cell.strip() for cell in row] for row in rows]
    for name, rank, groups in shown:
        assert [row for row in found if row[:3] == [name, str(rank), groups]]


def test_smaller_errors_are_better_and_the_oracle_does_not_compete(store: Path) -> None:
    finding = paired(store, SINUSOID.id, "none")
    assert finding.leader.name == "maml"
    assert (finding.pair.second, finding.pair.kind) == ("fomaml", "better")
    (oracle,) = [one for one in finding.entries if one.result.name == "oracle"]
    assert (oracle.rank, oracle.groups) == (None, "ceiling")


def test_under_trained_fit_gets_no_winner_but_the_order_is_said(store: Path) -> None:
    finding = paired(store, SINUSOID.id, "none")
    assert finding.pair.adjusted.excludes_zero
    assert finding.verdict == "starved"
    so_far = "maml has the best mean at this budget and is better than 2 of 3 others, for these trained models"
    assert finding.headline == f"No winner named: {so_far}"
    assert len(finding.comparison.beaten_by("maml")) == 2
    assert "finetune is under-trained" in finding.sentence
    assert "best" not in finding.sentence
    assert [(one.top, one.rank) for one in finding.entries] == 5 * [(False, None)]


def test_own_tests_and_full_tests_come_first(tmp_path: Path) -> None:
    make = Maker(tmp_path)
    task = dataclasses.replace(SINUSOID, fields={"shot": 10})
    for label in ("maml", "fomaml"):
        make.evaluation(label, task, level=0.4)
        make.evaluation(label, dataclasses.replace(task, id="sinusoid-v1/a", fields={"shot": 5}), level=0.4)
    make.evaluation("maml", dataclasses.replace(GLYPHS, id="a-task"), level=0.4)
    found = findings_of(results.load(tmp_path))
    assert [(one[0].test, one[0].own) for one in found] == [
        ("sinusoid-v1/k10", True),
        ("a-task", True),
        ("sinusoid-v1/a", False),
    ]


def test_one_method_alone(tmp_path: Path) -> None:
    Maker(tmp_path).evaluation("maml", SINUSOID, level=0.5)
    finding = paired(tmp_path, SINUSOID.id, "none")
    assert finding.verdict == "single"
    assert "Only maml" in finding.headline


def test_one_episode_has_no_interval(tmp_path: Path) -> None:
    make = Maker(tmp_path / "store", episodes=1)
    for label in ("maml", "fomaml"):
        make.evaluation(label, SINUSOID, level=0.5, steps=3)
    finding = paired(tmp_path / "store", SINUSOID.id, "none")
    assert finding.verdict == "tied"
    assert "no interval" in finding.sentence
    text = write_report(tmp_path / "store", tmp_path / "page.html").read_text()
    assert not re.search(r">[^<]*\bnan\b[^<]*<", text[: text.index("<script>")])


def test_scores_that_are_not_numbers_do_not_lead(tmp_path: Path) -> None:
    make = Maker(tmp_path / "store")
    make.evaluation("fine", SINUSOID, level=0.5)
    make.evaluation("broken", SINUSOID, level=float("nan"))
    finding = paired(tmp_path / "store", SINUSOID.id, "none")
    assert finding.leader.name == "fine"
    assert finding.verdict == "single"
    assert "not a number" in write_report(tmp_path / "store", tmp_path / "page.html").read_text()


@pytest.mark.fault("K2")
def test_two_stores_make_one_report(tmp_path: Path) -> None:
    Maker(tmp_path / "a").evaluation("maml", SINUSOID, level=0.4)
    Maker(tmp_path / "b").evaluation("fomaml", SINUSOID, level=0.9)
    finding = findings_of(results.load([tmp_path / "a", tmp_path / "b"]))[0][0]
    assert (finding.pair.first, finding.pair.second, finding.pair.contrast.episodes) == ("maml", "fomaml", 60)
