"""Across tasks: normalised scores, interquartile means, profiles, and only complete rows."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats as reference

from benchmarks.errors import MetabenchError
from benchmarks.stats import TaskScores, aggregate, interquartile_mean


def task(name: str, *methods: str, seeds: int = 3, level: float = 0.6, episodes: int = 60, **changes) -> TaskScores:
    generator = np.random.default_rng(len(name))
    scores = {
        method: level + 0.1 * place + generator.normal(0, 0.1, (seeds, episodes))
        for place, method in enumerate(methods)
    }
    return TaskScores(name, **{"floor": 0.2, "ceiling": 1.0, "methods": scores, **changes})


def test_interquartile_mean_is_scipys_trimmed_mean() -> None:
    for count in (1, 2, 3, 4, 5, 8, 11, 30):
        values = np.random.default_rng(count).normal(size=(6, count))
        assert interquartile_mean(values) == pytest.approx(reference.trim_mean(values, 0.25, axis=1))


def test_floor_is_zero_and_ceiling_is_one() -> None:
    accuracy = task("a", "maml")
    assert accuracy.normalised(np.array([0.2, 0.6, 1.0])) == pytest.approx([0, 0.5, 1])
    errors = TaskScores("s", 4.0, 0.01, {"maml": np.ones((1, 5))}, "squared error")
    assert errors.normalised(np.array([4.0, 0.2, 0.01])) == pytest.approx([0, 0.5, 1])


def test_aggregate_is_the_mean_of_the_middle_runs() -> None:
    tasks = [task("a", "maml", "fomaml"), task("bb", "maml", "fomaml", level=0.5)]
    found = aggregate(tasks, resamples=200)
    runs = np.concatenate([(t.methods["maml"].mean(1) - 0.2) / 0.8 for t in tasks])
    one = found.interquartile_means["maml"]
    assert one.estimate == pytest.approx(reference.trim_mean(runs, 0.25))
    assert one.low < one.estimate < one.high
    assert found.scope == "models"
    assert aggregate(tasks, resamples=200).interquartile_means["maml"] == one


def test_bootstrap_interval_is_that_of_the_central_limit_theorem() -> None:
    values = np.random.default_rng(1).normal(0.6, 0.1, (1, 400))
    found = aggregate([TaskScores("a", 0.0, 1.0, {"m": values})], resamples=4000).interquartile_means["m"]
    half_width = 1.96 * values.std(ddof=1) / 20
    assert found.high - found.low == pytest.approx(2 * half_width, rel=0.06)


def test_seeds_are_drawn_too_where_there_are_enough() -> None:
    spread = np.linspace(-0.2, 0.2, 5)[:, None]
    steady, moving = (TaskScores("a", 0.0, 1.0, {"m": 0.5 + s + np.zeros((5, 50))}) for s in (0.0, spread))
    assert aggregate([moving]).scope == "methods"
    still = aggregate([steady], resamples=500).interquartile_means["m"]
    wide = aggregate([moving], resamples=500).interquartile_means["m"]
    assert still.high - still.low == pytest.approx(0)
    assert wide.high - wide.low > 0.1


def test_profile_is_the_share_of_runs_above() -> None:
    tasks = [task("a", "maml"), task("bb", "maml", level=0.5)]
    profile = aggregate(tasks, resamples=100, points=11).profile
    runs = [(t.methods["maml"].mean(1) - 0.2) / 0.8 for t in tasks]
    for row in profile.itertuples():
        assert row.share == pytest.approx(np.mean([(run > row.score).mean() for run in runs]))
        assert row.low <= row.share <= row.high
    assert (np.diff(profile["share"]) <= 0).all()


def test_only_complete_rows_and_what_is_missing_is_said() -> None:
    tasks = [task("a", "maml", "fomaml", "protonet"), task("bb", "maml", "fomaml"), task("ccc", "fomaml", "maml")]
    found = aggregate(tasks, resamples=50)
    assert found.methods == ("maml", "fomaml")
    assert found.missing == {"protonet": ("bb", "ccc")}
    assert set(found.profile["method"]) == {"maml", "fomaml"}
    single = aggregate([task("a", "maml", episodes=1)], resamples=20)
    assert not single.interquartile_means["maml"].known


def test_what_can_not_be_aggregated_is_one_line() -> None:
    cases: dict[str, Callable[[], object]] = {
        "maml lacks bb; fomaml lacks a": lambda: aggregate([task("a", "maml"), task("bb", "fomaml")]),
        "no task": lambda: aggregate([]),
        r"between 1\.0 and 1\.0": lambda: task("a", "maml", floor=1.0),
        "a, maml: the scores of 1 of 2": lambda: task("a", methods={"maml": np.array([[1.0, math.nan]])}),
        "different numbers": lambda: task("a", methods={"maml": np.ones((1, 2)), "fomaml": np.ones((1, 3))}),
    }
    for said, call in cases.items():
        with pytest.raises(MetabenchError, match=said):
            call()
