"""Whether an under-trained method could still reach a better one."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from made_up_records import GLYPHS, Maker

from benchmarks.records.record import CurvePoint, Training
from benchmarks.stats import Scores, compare
from benchmarks.stats.reach import GAINS, reach


def fit(folder: Path, scores: list[float], share: float | None = 0.5, improving: bool = True) -> Training:
    """A fit of 100 meta-steps with these validations, evenly spaced."""
    training = Maker(folder).training("maml", GLYPHS, 0)
    step = 100 // len(scores)
    points = tuple(
        dataclasses.replace(training.curve[0], step=step * (number + 1), score=score, robust=score)
        for number, score in enumerate(scores)
    )
    assert isinstance(points[0], CurvePoint)
    return dataclasses.replace(training, meta_steps=100, share=share, still_improving=improving, curve=points)


def test_reach_is_ten_times_the_gain_of_the_last_quarter(tmp_path: Path) -> None:
    training = fit(tmp_path, [0.5, 0.6, 0.7, 0.72])
    assert reach(training, higher_is_better=True, ratio=False) == pytest.approx(GAINS * 0.02)
    errors = fit(tmp_path, [1.0, 0.5, 0.4, 0.2])
    assert reach(errors, higher_is_better=False, ratio=True) == pytest.approx(GAINS * math.log(2))


def test_a_fit_that_stands_still_reaches_nothing_and_a_short_one_anything(tmp_path: Path) -> None:
    assert reach(fit(tmp_path, [0.5, 0.6, 0.7, 0.72], improving=False), higher_is_better=True, ratio=False) == 0
    assert reach(fit(tmp_path, [0.5, 0.6, 0.7, 0.72], share=0.05), higher_is_better=True, ratio=False) == math.inf
    for share in (0.28, None):  # more than ten quarters to go; RL^2's published budget is unknown
        assert reach(fit(tmp_path, [0.5, 0.6, 0.7, 0.72], share=share), higher_is_better=True, ratio=False) == math.inf
    assert reach(fit(tmp_path, [0.5, 0.6, 0.7, 0.72], share=0.29), higher_is_better=True, ratio=False) < math.inf
    assert reach(fit(tmp_path, [0.5]), higher_is_better=True, ratio=False) == math.inf


@pytest.mark.fault("V4")
@pytest.mark.parametrize(("reach", "winner"), [(0.05, "a"), (0.5, None), (math.inf, None)])
def test_only_a_rival_out_of_reach_takes_no_crown_away(reach: float, winner: str | None) -> None:
    values = np.random.default_rng(0).normal(0.8, 0.05, (1, 200)).clip(0, 1)
    rival = Scores(values - 0.2, under_trained=True, reach=reach)
    found = compare({"a": Scores(values), "b": rival}, margin=0.01)
    assert found.winner == winner
    assert found.state == ("winner" if winner else "starved")


@pytest.mark.fault("V4")
def test_a_leader_that_saw_more_than_its_rival_is_no_winner_however_far_ahead() -> None:
    values = np.random.default_rng(0).normal(0.8, 0.05, (1, 200)).clip(0, 1)
    rival = Scores(values - 0.2, under_trained=True, reach=0.01, examples=1_000.0)
    assert compare({"a": Scores(values, examples=3_000.0), "b": rival}, margin=0.01).winner is None


@pytest.mark.fault("V4")
def test_training_that_could_only_widen_a_lead_takes_no_crown_away() -> None:
    """The leader is under-trained, the rival is not; one of the rival's episodes carries its mean."""
    errors = np.random.default_rng(0).lognormal(0, 0.3, (1, 200))
    exploded = 10 * errors
    exploded[0, 0] = 1e9
    scores = {"a": Scores(errors, under_trained=True, reach=math.inf), "b": Scores(exploded)}
    found = compare(scores, metric="squared error", higher_is_better=False, margin=1.1)
    assert (found.winner, found.pairs[0].kind) == ("a", "unstable")
