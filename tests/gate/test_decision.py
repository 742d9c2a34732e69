"""The verdict on the ratios of some pairs of processes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from benchmarks.gate import decision
from benchmarks.gate.decision import decide


@pytest.mark.parametrize(("count", "confidence"), [(3, 0.99), (5, 0.99), (7, 0.99), (6, 0.8)])
def test_the_interval_is_that_of_all_resamples(count: int, confidence: float) -> None:
    """Of odd numbers the ends are samples, so equal; of six drawn ones come near to all 46,656."""
    ratios = np.random.default_rng(count).lognormal(0, 0.05, count)
    medians = np.median(list(itertools.product(np.log(ratios), repeat=count)), axis=1)
    ends = np.exp(np.quantile(medians, [(1 - confidence) / 2, (1 + confidence) / 2]))
    assert decision.interval(ratios, confidence) == pytest.approx(ends, rel=1e-12 if count % 2 else 0.005)


def test_the_location_is_the_median() -> None:
    assert decision.location([1.3, 1.0, 1.1]) == pytest.approx(1.1)
    assert decision.location([0.5, 4.0, 1.0, 2.0]) == pytest.approx(2**0.5)
    assert decision.noise([1.01, 1.0, 0.99, 1.01]) == pytest.approx(1.4826 * 0.005, rel=0.02)


def test_the_verdict_turns_round_with_the_sides() -> None:
    ratios = [1.2, 1.22, 1.19]
    slower, faster = decide(ratios), decide([1 / ratio for ratio in ratios])
    assert (slower.verdict, faster.verdict) == ("slower", "faster")
    assert slower.ratio * faster.ratio == pytest.approx(1)
    assert (slower.low * faster.high, slower.high * faster.low) == pytest.approx((1, 1))


def test_three_pairs_are_final_only_where_it_is_plain() -> None:
    assert decide([1.0, 1.001, 0.998]).verdict == "same"
    unclear = decide([1.04, 1.07, 1.01])
    assert (unclear.verdict, unclear.final) == ("cannot tell", False)


def test_at_the_last_look_a_small_change_counts_only_beyond_the_threshold() -> None:
    calm = [1 + 0.0005 * each for each in range(-5, 5)]
    by = lambda factor: [factor * each for each in calm]  # noqa: E731
    assert decide(by(1.015)).verdict == "same"
    assert decide(by(1.03)).verdict == "slower"
    assert decide(by(1.03), threshold=0.05).verdict == "same"
    # a threshold below the least change that is believed is that least change
    assert decide(by(1.008), threshold=0.001).verdict != "slower"


def test_the_final_look_is_final() -> None:
    found = decide(np.random.default_rng(0).lognormal(0, 0.2, 10))
    assert (found.verdict, found.final) == ("cannot tell", True)
