"""The verdict on the ratios of some pairs of processes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from benchmarks.gate import decision
from benchmarks.gate.decision import decide

CALM = [1 + 0.0005 * each for each in range(-5, 5)]


@pytest.mark.parametrize(("count", "confidence"), [(5, 0.99), (6, 0.8)])
def test_the_interval_is_that_of_all_resamples(count: int, confidence: float) -> None:
    """The ends are samples if the number is odd; with six the drawn resamples come near to all 46,656."""
    ratios = np.random.default_rng(count).lognormal(0, 0.05, count)
    medians = np.median(list(itertools.product(np.log(ratios), repeat=count)), axis=1)
    ends = np.exp(np.quantile(medians, [(1 - confidence) / 2, (1 + confidence) / 2]))
    assert decision.interval(ratios, confidence) == pytest.approx(ends, rel=1e-12 if count % 2 else 0.005)


@pytest.mark.parametrize(
    ("ratios", "verdict", "final"),
    [
        ([1.0, 1.001, 0.998], "same", True),
        ([1.2, 1.22, 1.19], "slower", True),
        ([1.04, 1.07, 1.01], "cannot tell", False),
        ([1.015 * each for each in CALM], "same", True),  # a small change counts only beyond the threshold
        ([1.03 * each for each in CALM], "slower", True),
        (np.random.default_rng(0).lognormal(0, 0.2, 10).tolist(), "cannot tell", True),  # the last look
    ],
)
def test_verdicts_turn_round_with_the_sides(ratios: list[float], verdict: str, final: bool) -> None:
    found, turned = decide(ratios), decide([1 / ratio for ratio in ratios])
    assert (found.verdict, found.final) == (verdict, final)
    assert (turned.verdict, turned.final) == ("faster" if verdict == "slower" else verdict, final)
    products = (found.ratio * turned.ratio, found.low * turned.high, found.high * turned.low)
    assert products == pytest.approx((1, 1, 1), rel=1e-3)


def test_a_step_may_have_a_threshold_of_its_own_above_the_least_change() -> None:
    assert decide([1.03 * each for each in CALM], threshold=0.05).verdict == "same"
    assert decide([1.008 * each for each in CALM], threshold=0.001).verdict != "slower"
