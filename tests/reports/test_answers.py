"""The answers of the first screen, on planted records."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_up_costs import costs
from made_up_records import GLYPHS, SINUSOID, Maker, Parsed, full_store

from benchmarks.records.record import Method, Task
from reports.page import answers as first_screen
from reports.page.answers import Answer
from reports.page.page import write_report
from reports.results import load
from reports.scores import claims


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Answer]:
    """A winner, a tie, an under-trained column and a method alone; costs of a CPU."""
    make = Maker(tmp_path_factory.mktemp("short") / "store", episodes=200)

    def column(name: str, levels: dict[str, float], short_of: str = "", task: Task = GLYPHS) -> None:
        for seed in (0, 1):
            for label, level in levels.items():
                under = label == short_of
                make.evaluation(label, dataclasses.replace(task, id=name), seed, level=level, under_trained=under)

    column("glyphs-v1/won", {"maml": 0.9, "fomaml": 0.6})
    column("glyphs-v1/tied", {"matching-nets": 0.7, "finetune": 0.7})
    column("glyphs-v1/short", {"maml": 0.5, "fomaml": 0.8}, "maml")
    column("glyphs-v1/alone", {"maml": 0.5})
    for name in ("glyphs-v1/alone", "glyphs-v1/floors"):
        make.evaluation("random", dataclasses.replace(GLYPHS, id=name), level=0.2, role="floor", fits=False)
    column("sinusoid-v1/near", {"maml": 0.5, "fomaml": 0.505}, "fomaml", SINUSOID)
    costs(make.store.path, gpu=False, cpu=True)
    return {answer.question: answer for answer in first_screen.answers(load(make.store.path))}


def test_winners_ties_and_tests_without_a_winner_are_counted(said: dict[str, Answer]) -> None:
    best = said["Which is best?"]
    assert (best.chip, best.verdict) == ("TOO EARLY", "starved"), "one winner of four does not stand for all"
    assert best.said == "maml on glyphs-v1/won; 5 without a winner."


def test_an_under_trained_pair_has_no_verdict(said: dict[str, Answer]) -> None:
    worth = said["Is second order worth it?"]
    assert worth.chip == "TOO EARLY"
    assert worth.said == "MAML against FOMAML: better on glyphs/won, too early on 2; takes 1.40–2.00 times as long."


def test_nothing_is_said_of_published_numbers_where_there_are_none(said: dict[str, Answer]) -> None:
    assert "Are published numbers reached?" not in said
    assert said["Did a change hurt?"].said == "No regression history yet: run `make gate`."


@pytest.mark.parametrize(
    ("verdicts", "chip"),
    [
        ({"better": 2, "undecided": 1}, "YES"),
        ({"worse": 1, "ahead": 1}, "NO"),
        ({"worse": 1, "ahead": 3}, "TOO EARLY"),
        ({"equivalent": 1, "undecided": 2, "ahead": 3}, "TOO EARLY"),
        ({"equivalent": 1}, "NO"),
        ({"better": 1, "worse": 1}, "DEPENDS"),
        ({"undecided": 2, "ahead": 1}, "UNDECIDED"),
        ({"ahead": 2, "not comparable": 1}, "TOO EARLY"),
    ],
)
def test_second_order_is_worth_it_where_a_verdict_says_so(verdicts: dict[str, int], chip: str) -> None:
    assert first_screen._worth_chip(Counter(verdicts))[0] == chip


@pytest.mark.parametrize("won", [1, 2, 3, 12])
def test_an_answer_has_few_words(tmp_path: Path, won: int) -> None:
    make = Maker(tmp_path, episodes=50)
    for number in range(won):
        for label, level in (("maml", 0.9), ("fomaml", 0.5)):
            make.evaluation(label, dataclasses.replace(GLYPHS, id=f"glyphs-v1/{number}"), level=level)
    for answer in first_screen.answers(load(tmp_path)):
        assert len(answer.said.split()) <= first_screen.LENGTH
        assert "maml" in answer.said or answer.question != "Which is best?"


def test_every_answer_leads_to_a_section(tmp_path: Path) -> None:
    full_store(tmp_path / "store")
    html = write_report(tmp_path / "store", tmp_path / "page.html").read_text(encoding="utf-8")
    ids = Parsed(html).ids
    answers = first_screen.answers(load(tmp_path / "store"))
    assert {answer.section for answer in answers} <= set(ids)
    for answer in answers:
        assert "</span> " + re.sub("`([^`]+)`", r"<code>\1</code>", answer.said) in html


def test_claims_are_counted(tmp_path: Path) -> None:
    full_store(tmp_path)
    table = claims.claims_table(load(tmp_path))
    for claim, told in claims.summary(table):
        outcomes = [outcome.split(" at ")[0] for outcome in table.loc[table["claim"] == claim, "outcome"]]
        counted = {part.split(" on ")[0]: int(part.split(" on ")[1].split(" ")[0]) for part in told.split(", ")}
        assert counted == {name: outcomes.count(name) for name in set(outcomes)}
        assert f" of {len(outcomes)} case" in told
    assert [claim for claim, _ in claims.summary(table)] == list(dict.fromkeys(table["claim"]))


@pytest.mark.fault("K5", "U5")
def test_older_code_is_shown_and_never_compared_with_newer(tmp_path: Path, command_line: Callable[..., Any]) -> None:
    make = Maker(tmp_path)
    for code, started, fields in (("a" * 16, "2031-01", {}), ("b" * 16, "2031-02", {"scale": 2.0})):
        method = Method("maml", {"inner_steps": 1, **fields}, {})
        make.evaluation("maml", SINUSOID, level=0.4, method=method, code=code, started=started)
    make.evaluation("fomaml", SINUSOID, level=0.9)
    results = load(tmp_path, older=True)
    assert {result.name for result in results.results} == {"maml", "maml (scale=2.0)", "fomaml"}
    (judged,) = results.verdicts.values()
    assert set(judged.names) == {"maml (scale=2.0)", "fomaml"}
    out = command_line("show", "--store", tmp_path, "--all").out
    assert re.search(r"^maml  ", out, re.MULTILINE)
    assert "None" not in out
