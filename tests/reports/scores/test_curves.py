"""Three questions from one training: at equal examples, at equal seconds, at its best."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from made_up_records import GLYPHS, Maker

from benchmarks.records.record import CurvePoint
from reports.results import load
from reports.scores.curves import answers_table

#: method -> examples and seconds of a validation, and its scores, one validation after the other
CURVES = {
    "maml": (100, 4.0, (0.2, 0.5, 0.8, 0.9)),
    "prototypical-nets": (100, 1.0, (0.6, 0.7, 0.65)),
    "snail": (60, 0.6, (0.4, 0.5, 0.6)),
    "recurrent": (40, 0.4, (0.1, 0.2, 0.3)),
    "siamese-nets": (400, 2.0, (0.5,)),
}


def test_each_question_is_answered_at_the_same_amount(tmp_path: Path) -> None:
    make = Maker(tmp_path, episodes=20)
    for label, (examples, seconds, scores) in CURVES.items():
        curve = tuple(
            CurvePoint(step, step * seconds, step * examples, 0, 1.0, score, 0.01)
            for step, score in enumerate(scores, start=1)
        )
        make.evaluation(label, GLYPHS, training=dataclasses.replace(make.training(label, GLYPHS, 0), curve=curve))
    table = answers_table(load(tmp_path)).set_index("method")
    # in all 400, 300, 180, 120 and 400 examples, and 16, 3, 1.8, 1.2 and 2 seconds
    assert set(table["equal_data"]) == {300}
    assert set(table["equal_seconds"]) == {2.0}
    last = {"maml": 80, "prototypical-nets": 65, "snail": 60}
    assert table["at_equal_data"].dropna().to_dict() == pytest.approx(last)
    # maml's first validation comes after 4 seconds
    last = {"prototypical-nets": 70, "snail": 60, "recurrent": 30, "siamese-nets": 50}
    assert table["at_equal_seconds"].dropna().to_dict() == pytest.approx(last)
    best = {"maml": 90, "prototypical-nets": 70, "snail": 60, "recurrent": 30, "siamese-nets": 50}
    assert table["at_best"].to_dict() == pytest.approx(best)
    assert table["best_after_data"]["prototypical-nets"] == 200
