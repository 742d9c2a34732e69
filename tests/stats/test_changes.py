"""Changes of level: steps are found, and noise is not taken for a step."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.stats.changes import changes, pettitt


def noise(count: int, seed: int = 0, deviation: float = 0.02) -> np.ndarray:
    return np.random.default_rng(seed).lognormal(0, deviation, count)


def test_the_statistic_is_that_of_all_pairs() -> None:
    """K is the largest difference between how often a later value is above an earlier one and below it."""
    values = np.round(noise(30, deviation=1.0), 1)  # with ties
    u = [np.sign(values[:k, None] - values[None, k:]).sum() for k in range(1, 30)]
    at, p = pettitt(values)
    assert at == 1 + int(np.argmax(np.abs(u)))
    assert p == pytest.approx(min(1, 2 * np.exp(-6 * max(np.abs(u)) ** 2 / (30**3 + 30**2))))


@pytest.mark.parametrize("heavy", [False, True])
@pytest.mark.parametrize("count", [20, 50, 100])
def test_noise_is_rarely_taken_for_a_step(count: int, heavy: bool) -> None:
    random = np.random.default_rng(count)
    draw = (lambda: random.standard_t(2, count)) if heavy else (lambda: random.standard_normal(count))
    assert sum(bool(changes(np.exp(0.02 * draw()))) for _ in range(500)) <= 0.02 * 500


@pytest.mark.parametrize(("slower", "share"), [(1.05, 0.9), (1.1, 0.95)])
def test_a_step_is_found_where_it_is(slower: float, share: float) -> None:
    found = 0
    for seed in range(200):
        series = noise(50, seed)
        series[25:] *= slower
        at = [change.at for change in changes(series)]
        found += len(at) == 1 and abs(at[0] - 25) <= 3
    assert found >= share * 200


def test_two_steps_are_two_and_their_sizes_are_right() -> None:
    series = noise(90)
    series[30:] *= 1.2
    series[60:] /= 1.1
    first, second = changes(series)
    assert (abs(first.at - 30) <= 2, abs(second.at - 60) <= 2) == (True, True)
    assert (first.ratio, second.ratio) == pytest.approx((1.2, 1 / 1.1), rel=0.02)


def test_a_tiny_change_does_not_count_however_sure_it_is() -> None:
    series = noise(100, deviation=1e-4)
    series[50:] *= 1.005
    assert changes(series) == []
    assert len(changes(series, least=0.001)) == 1


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 2.0], [1.0] * 50])
def test_short_and_constant_series_have_no_change(values: list[float]) -> None:
    assert changes(values) == []
