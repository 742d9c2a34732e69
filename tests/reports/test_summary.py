"""The summary of a CI job: at most 40 lines of Markdown with the answers, the overview and what failed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import made_up_records as made_up

from reports import words
from reports.page.answers import answers
from reports.results import load
from reports.scores import heat


def test_a_summary_has_answers_scores_and_failures(command_line, tmp_path: Path) -> None:
    made_up.full_store(tmp_path / "store")
    answer = command_line("report", "--summary", "--store", tmp_path / "store", "-o", tmp_path / "page.html")
    assert answer.code == 0
    assert not (tmp_path / "page.html").exists()
    results = load(tmp_path / "store")
    for one in answers(results):
        assert f"- {one.question} **{one.chip}** {one.said}" in answer.out
    for line in heat.heat(results, further=False).lines:
        for cell in line.cells:
            assert cell.result is None or words.short(cell.result.interval, cell.result.metric) in answer.out
    assert "- error: RuntimeError: <b>planted</b> (matching-nets on sinusoid-v1/k10 (fit, seeds 0, 1))" in answer.out
    assert "skipped" not in answer.out


def test_a_summary_of_many_tests_methods_and_failures_has_at_most_40_lines(command_line, tmp_path: Path) -> None:
    make = made_up.Maker(tmp_path)
    for number in range(12):
        task = dataclasses.replace(made_up.GLYPHS, id=f"glyphs-v1/{number}")
        for method in range(25):
            make.evaluation(f"method-{method}", task, level=0.03 * method)
            make.evaluation(f"own-{method}", task, level=0.03 * method, fits=False)
        make.evaluation("chance", task, level=0.2, fits=False, role="floor")
        make.unfinished("maml", task, "error", f"planted {number}\nand more")
    out = command_line("report", "--summary", "--store", tmp_path).out
    assert len(out.splitlines()) <= 40
    assert "- 7 further failures" in out
    assert "Left out: 4 tests and 33 rows" in out


def test_a_summary_without_an_evaluation_says_what_failed(command_line, tmp_path: Path) -> None:
    made_up.Maker(tmp_path).unfinished("maml", made_up.GLYPHS, "error", "planted")
    answer = command_line("report", "--summary", "--store", tmp_path)
    assert answer.code == 0
    assert "- error: planted (maml on glyphs-v1/5w1s (fit, seed 0))" in answer.out
