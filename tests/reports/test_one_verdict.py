"""One verdict per pair: card, forest, matrix, table, sentence, claim, answer, terminal and `metabench compare` agree.

Scores are planted, so that each contradiction that a page once had would come back here."""

from __future__ import annotations

import dataclasses
import html
import io
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from made_up_records import GLYPHS, Maker
from rich.console import Console

from benchmarks.compare import stores
from benchmarks.records.record import Budget
from benchmarks.stats import Comparison
from reports import readme, style, terminal, words
from reports.cost.worth import worth_rows
from reports.page.answers import answers
from reports.page.page import write_report
from reports.results import Results, load
from reports.scores import claims, forest, heat, pairs
from reports.scores.findings import Finding, findings_of
from reports.scores.verdict_sentences import CHIPS, sentence

RUN = dataclasses.replace(GLYPHS, id="run-v1/far", name="run", kind="control", metric="return", equivalence_margin=5.0)
EPISODES = 40
OPPOSITE = {"behind": "ahead", "worse": "better", "no better": "non-inferior"}
#: kind -> (mean of FOMAML less MAML, its standard deviation, whether a fit is under-trained)
CASES: Mapping[str, tuple[float, float, bool]] = {
    "better": (12.0, 4.0, False),
    "equivalent": (1.0, 14.4, False),
    "non-inferior": (3.0, 20.0, False),
    "undecided": (3.0, 60.0, False),
    "ahead": (12.0, 4.0, True),
    "not comparable": (1.0, 14.4, True),
}


def planted(folder: Path, shift: float, spread: float, short: bool, exploding: bool = False) -> Results:
    """MAML, FOMAML and a method far behind, with differences of exactly this mean and deviation. exploding: one episode
    carries the mean of FOMAML."""
    make = Maker(folder, episodes=EPISODES)
    shape = np.random.default_rng(5).normal(size=EPISODES)
    shape = (shape - shape.mean()) / shape.std(ddof=1)
    hardness = np.random.default_rng(6).normal(100, 5, EPISODES)
    means = {"maml": hardness, "fomaml": hardness + shift + spread * shape, "late": hardness - 90 + shape}
    means["fomaml"][0] += 1e6 * exploding
    for label, values in means.items():
        make.scores = lambda *rest, own=values: [np.repeat(own[:, None], 2, 1)]  # type: ignore[method-assign]
        make.evaluation(label, RUN, under_trained=short and label == "maml")
    return load(folder)


def said(results: Results, folder: Path) -> dict[str, tuple[str, float, float]]:
    """Place -> the word for FOMAML against MAML, and the interval next to it (low, high)."""
    (column,) = results.compared
    judged = results.verdicts[column.protocol]
    assert isinstance(judged, Comparison)
    verdict = judged.of("fomaml", "maml")
    found = {"object": (verdict.word, verdict.shown.low, verdict.shown.high)}
    for row in pairs.pairs_table(results).itertuples():
        if (row.first, row.second) == ("fomaml", "maml"):
            found["table"] = (row.verdict, row.low, row.high)
    looks = style.looks(results.labels)
    (heat,), (drawn,) = pairs.heat_panels(results, looks), forest.forest_panels(results, looks)
    for row in heat.frame.itertuples():
        if (row.first, row.second) == ("fomaml", "maml"):
            found["matrix"] = (row.verdict, *found["table"][1:])
    for row in drawn.frame.itertuples():
        if row.name.startswith("fomaml against maml"):
            found["forest"] = (row.verdict, row.low, row.high)
            assert row.name == f"fomaml against maml: {row.verdict}"
    (line,) = stores.compare("fomaml", "maml", folder).to_dict("records")
    found["compare"] = (line["verdict"], line["low"], line["high"])
    (worth,) = worth_rows(results)
    mirrored = OPPOSITE.get(worth["verdict"], worth["verdict"])
    found["second order"] = (mirrored, -worth["advantage_high"], -worth["advantage_low"])
    return found


@pytest.mark.fault("V10")
@pytest.mark.parametrize("kind", CASES)
def test_all_places_say_the_same_of_a_pair(tmp_path: Path, kind: str) -> None:
    results = planted(tmp_path / "store", *CASES[kind])
    places = said(results, tmp_path / "store")
    word, low, high = places["object"]
    assert word == kind
    for place, (other, *ends) in places.items():
        assert other == word, place
        assert ends == pytest.approx([low, high]), place
    ((finding,),) = findings_of(results)
    assert finding.pair is not None
    told = sentence(finding.pair)
    assert finding.sentence.startswith(told)
    page = write_report(tmp_path / "store", tmp_path / "page.html").read_text(encoding="utf-8")
    console = Console(width=200, record=True, file=io.StringIO())
    terminal.show(tmp_path / "store", console, everything=True)
    shown = " ".join(console.export_text().split())
    assert told in " ".join(page.replace("&#39;", "'").split())
    assert told in shown
    for answer in answers(results):
        assert f"{answer.chip}. {answer.said}" in shown


#: state of a column -> (mean of FOMAML less MAML, deviation, whether a fit is under-trained), what is bold
STATES: Mapping[str, tuple[tuple[float, float, bool], set[str]]] = {
    "winner": ((12.0, 4.0, False), {"fomaml"}),
    "tied": ((3.0, 60.0, False), {"maml", "fomaml"}),
    "starved": ((12.0, 4.0, True), set()),
    "unstable": ((12.0, 4.0, False), set()),
}


@pytest.mark.fault("V4", "V10")
@pytest.mark.parametrize("state", STATES)
def test_all_places_say_the_same_of_a_column(tmp_path: Path, state: str) -> None:
    """Bold, badge, headline, answer, terminal and README: one verdict, in the same words."""
    case, bold = STATES[state]
    results = planted(tmp_path / "store", *case, exploding=state == "unstable")
    ((finding,),) = findings_of(results)
    assert finding.verdict == state
    assert {entry.result.name for entry in finding.entries if entry.top} == bold
    lines = heat.heat(results).lines
    assert {line.name for line in lines if "bold" in str(terminal._heated(line.cells[0]).style)} == bold
    table = readme.table(results)
    assert f"| **Verdict** | {CHIPS[state]} |" in table
    assert finding.headline in readme.findings(results)
    assert set(re.findall(r"^\| (\S+) \| \*\*", table, re.MULTILINE)) == bold
    page = html.unescape(write_report(tmp_path / "store", tmp_path / "page.html").read_text(encoding="utf-8"))
    assert finding.headline in page
    assert f">{finding.chip}</span>" in page
    answer = answers(results)[0]
    words_of = finding.badge.partition(":")[0]
    for place in (finding.badge, finding.headline):
        assert words_of in place.lower()
    assert answer.chip == finding.chip == CHIPS[state]
    assert ("fomaml" in answer.said) == (state == "winner")
    for word in ("leads", "ahead", "is best"):
        assert word not in finding.headline + finding.badge + answer.said
    if state == "unstable":
        assert "unstable" in finding.sentence


@pytest.mark.fault("V10")
@pytest.mark.parametrize(
    ("kind", "outcome"),
    [
        ("better", "holds"),
        ("equivalent", "holds"),
        ("non-inferior", "holds"),
        ("undecided", "undecided"),
        ("ahead", "holds at this budget"),
        ("not comparable", "undecided"),
    ],
)
def test_a_claim_follows_from_the_verdict(tmp_path: Path, kind: str, outcome: str) -> None:
    results = planted(tmp_path, *CASES[kind])
    row = claims.claims_table(results).set_index("claim").loc[claims.FIRST_ORDER]
    assert row["outcome"] == outcome
    (column,) = results.compared
    verdict = results.verdicts[column.protocol].of("fomaml", "maml")  # type: ignore[union-attr]
    assert f"{EPISODES} episodes" in row["finding"]
    assert sentence(verdict).split(" (")[1].split(")")[0] in row["finding"], "the interval of the card"


@pytest.mark.fault("V10")
def test_equivalence_shows_the_interval_that_decided(tmp_path: Path) -> None:
    """The adjusted interval leaves the margin, the 90 % interval does not: the second is shown."""
    results = planted(tmp_path, *CASES["equivalent"])
    (column,) = results.compared
    verdict = results.verdicts[column.protocol].of("fomaml", "maml")  # type: ignore[union-attr]
    assert verdict.adjusted.high > verdict.margin > verdict.shown.high
    assert "90 % interval" in sentence(verdict)
    assert "adjusted" not in sentence(verdict)


@pytest.mark.fault("V10")
def test_as_good_is_non_inferiority(tmp_path: Path) -> None:
    """A lower end of -2.3 within the margin of 5 is as good, though the upper end lies far beyond it."""
    results = planted(tmp_path, *CASES["non-inferior"])
    (column,) = results.compared
    verdict = results.verdicts[column.protocol].of("fomaml", "maml")  # type: ignore[union-attr]
    assert -verdict.margin < verdict.shown.low < 0
    assert verdict.shown.high > verdict.margin
    assert "fomaml is as good as maml" in sentence(verdict)
    assert verdict.mirrored.kind == "no better"
    assert sentence(verdict.mirrored) == sentence(verdict)
    assert verdict.mirrored.claim() == "undecided"
    assert verdict.claim(as_good=True) == "holds"
    assert verdict.claim() == "undecided"


@pytest.mark.fault("V7")
def test_rows_of_the_same_choice_and_scores_are_one_row(tmp_path: Path) -> None:
    make = Maker(tmp_path)
    draw = make.scores
    make.scores = lambda task, label, *rest: draw(task, label.split(" ")[0], *rest)  # type: ignore[method-assign]
    tuned = {"gittins": {}, "gittins [tuned]": {}, "ucb1": {}, "ucb1 [tuned]": {"scale": 2.0}, "thompson": {}}
    for label, fields in tuned.items():
        method = dataclasses.replace(make.header("fit", label, RUN, 0).method, fields=fields)
        make.evaluation(label, RUN, fits=False, method=method, level=8.0)
    results = load(tmp_path)
    (column,) = results.compared
    judged = results.verdicts[column.protocol]
    assert isinstance(judged, Comparison)
    assert set(judged.names) == {"gittins", "ucb1", "ucb1 [tuned]", "thompson"}, "other settings are another row"
    assert len(judged.pairs) == 6
    assert {result.name for result in results.results} == set(judged.names)


@pytest.mark.fault("V7")
def test_a_sweep_has_one_line_about_second_order(tmp_path: Path) -> None:
    make = Maker(tmp_path)
    for label in ("maml", "fomaml"):
        for rate in (0.01, 0.1, 1.0):
            method = dataclasses.replace(make.header("fit", label, RUN, 0).method, fields={"inner_steps": 1, "r": rate})
            make.evaluation(label, RUN, method=method, level=8.0)
    results = load(tmp_path)
    assert len(results.results) == 6
    assert len(worth_rows(results)) == 1
    said = next(one.said for one in answers(results) if one.question == "Is second order worth it?")
    assert said.startswith("MAML against FOMAML: equivalent on run/")


@pytest.mark.fault("V8")
@pytest.mark.parametrize("seeds", [2, 5])
def test_ranks_and_groups_take_five_seeds(tmp_path: Path, seeds: int) -> None:
    make = Maker(tmp_path / "store")
    for seed in range(seeds):
        for label, level in (("maml", 0.9), ("fomaml", 0.5)):
            make.evaluation(label, GLYPHS, seed, regime="query", level=level, budget=Budget(9, 9, 9, 9))
    results = load(tmp_path / "store")
    ((finding,),) = findings_of(results)
    page = write_report(tmp_path / "store", tmp_path / "page.html").read_text(encoding="utf-8")
    assert (">rank<" in page) == (seeds == 5)
    assert [entry.rank for entry in finding.entries] == ([1, 2] if seeds == 5 else [None, None])
    about = "for the methods, over training seeds" if seeds == 5 else "for these trained models"
    assert about in finding.headline
    assert about in finding.sentence
    assert words.axis("accuracy") in page
    assert "sd over seeds" in page


def after(folder: Path, examples: Mapping[str, int]) -> Finding:
    """The finding on a leader and a rival that were trained on these numbers of examples."""
    make = Maker(folder)
    for (label, seen), level in zip(examples.items(), (0.9, 0.6), strict=True):
        training = dataclasses.replace(make.training(label, GLYPHS, 0), examples=seen)
        make.evaluation(label, GLYPHS, regime="query", level=level, training=training)
    ((finding,),) = findings_of(load(folder))
    return finding


@pytest.mark.fault("V4")
def test_no_winner_over_a_rival_with_less_than_half_of_the_examples(tmp_path: Path) -> None:
    finding = after(tmp_path, {"nearest-neighbour-embedding": 128_000, "matching-nets": 48_000})
    assert finding.verdict == "starved"
    assert finding.headline.startswith("No winner named: nearest-neighbour-embedding has the best mean at this budget")
    assert "matching-nets trained on 48,000 examples and nearest-neighbour-embedding on 128,000" in finding.sentence
    assert finding.comparison is not None
    assert finding.comparison.winner is None


@pytest.mark.fault("V4")
def test_a_winner_with_fewer_examples_than_its_rival_is_named(tmp_path: Path) -> None:
    finding = after(tmp_path, {"prototypical-nets": 48_000, "recurrent": 1_920_000})
    assert finding.verdict == "winner"
    assert finding.comparison is not None
    assert finding.comparison.winner == "prototypical-nets"
