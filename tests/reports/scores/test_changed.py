"""What changed between two stores: planted changes are told, equal runs are not."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from made_up_records import GLYPHS, MACHINE, SINUSOID, Maker, Parsed

from reports.results import load
from reports.scores.changed import Changed, changed


def store(folder: Path, levels: dict[str, float], seconds: float = 40.0, **changes) -> Path:
    make = Maker(folder)
    for seed in (0, 1):
        for label, level in levels.items():
            make.evaluation(label, GLYPHS, seed, regime="query", level=level)
            training = dataclasses.replace(make.training(label, GLYPHS, seed), seconds=seconds)
            make.store.write(make.header("fit", label, GLYPHS, seed, key=training.fit, training=training, **changes))
    return folder


def between(tmp_path: Path, now: Path, before: Path) -> Changed:
    return changed(load(now), load(before))


@pytest.fixture
def before(tmp_path: Path) -> Path:
    return store(tmp_path / "before", {"maml": 0.6, "fomaml": 0.7, "gone": 0.5})


def test_a_worse_score_a_new_run_and_slower_training_are_told(tmp_path: Path, before: Path) -> None:
    found = between(tmp_path, store(tmp_path / "now", {"maml": 0.3, "fomaml": 0.7, "new": 0.5}, 60.0), before)
    (score,) = found.scores.to_dict("records")
    assert (score["method"], score["verdict"], score["unit"]) == ("maml", "worse", "accuracy (%)")
    low, high = map(float, re.findall(r"-?[\d.]+", score["better by"])[1:])
    assert low < 100 * (0.3 - 0.6) + 5
    assert high < 0
    assert {(run["method"], run["status"]) for run in found.runs.to_dict("records")} == {
        ("new", "new"),
        ("gone", "gone"),
    }
    assert set(found.times["method"]) == {"maml", "fomaml"}
    assert list(found.times["ratio"]) == pytest.approx([1.5, 1.5])
    assert found.sentences == [
        "1 of 2 scores changed beyond the interval, 1 for the worse.",
        "Runs: 1 new, 1 gone.",
        "2 of 2 trainings took over 10 % longer.",
    ]


def test_equal_records_have_not_changed(tmp_path: Path, before: Path) -> None:
    found = between(tmp_path, store(tmp_path / "now", {"maml": 0.6, "fomaml": 0.7, "gone": 0.5}), before)
    assert (found.compared, len(found.scores), len(found.runs)) == (3, 0, 0)
    assert list(found.times["ratio"]) == pytest.approx([1.0] * 3)
    assert found.sentences[0] == "0 of 3 scores changed beyond the interval, 0 for the worse."


def test_times_of_another_machine_are_not_compared(tmp_path: Path, before: Path) -> None:
    other = dataclasses.replace(MACHINE, id="00000000")
    found = between(tmp_path, store(tmp_path / "now", {"maml": 0.6}, 400.0, machine=other), before)
    assert found.times.empty
    assert found.sentences[2].startswith("No training of both ran on the same machine")


def test_the_page_has_the_section_where_it_is_asked_for(tmp_path: Path, before: Path, command_line) -> None:
    now = store(tmp_path / "now", {"maml": 0.3, "fomaml": 0.7})
    command = ("report", "--store", now, "-o", tmp_path / "page.html")
    for against in ((), ("--against", before)):
        assert command_line(*command, *against).code == 0
        page = Parsed((tmp_path / "page.html").read_text(encoding="utf-8"))
        assert ("against" in page.ids) == bool(against)
        assert len(page.ids) == len(set(page.ids))
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "1 of 2 scores changed beyond the interval, 1 for the worse." in text


def test_a_store_with_nothing_in_common_is_a_mistake(tmp_path: Path, before: Path, command_line) -> None:
    Maker(tmp_path / "other").evaluation("recurrent", SINUSOID, level=0.4)
    answer = command_line("report", "--store", before, "--against", tmp_path / "other", "-o", tmp_path / "page.html")
    assert answer.code == 2
    assert answer.err == "metabench: now and before have no method with the same test (task, data, regime) in common\n"
