"""Means that a few episodes carry: no verdict on them, and one by the share of episodes won that holds."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.errors import MetabenchError
from benchmarks.stats import compare, contrast
from benchmarks.stats.contrasts import instability

Generator = np.random.Generator
MARGIN = 1.1


def judged(first: np.ndarray, second: np.ndarray, metric: str = "squared error"):
    higher = metric != "squared error"
    comparison = compare({"A": first, "B": second}, metric=metric, higher_is_better=higher, margin=MARGIN)
    return comparison, comparison.pair("A", "B")


def won_by(comparison, pair) -> str | None:
    return {"better": pair.first, "worse": pair.second}.get(pair.ahead)


def paired_errors(generator: Generator, episodes: int, ratio: float) -> tuple[np.ndarray, np.ndarray]:
    """Errors of A and B on the same episodes, those of A by a factor lower in the middle."""
    hardness = generator.lognormal(0, 1, episodes)
    own = generator.lognormal(0, 0.5, (2, episodes))
    return hardness * own[0] / ratio, hardness * own[1]


@pytest.mark.fault("V1")
def test_an_episode_of_1e24_among_10000_decides_nothing() -> None:
    maml, finetune = paired_errors(np.random.default_rng(0), 10_000, 4.0)
    maml[4321] = 5.9e24
    comparison, pair = judged(maml, finetune)
    assert pair.kind == "unstable"
    assert pair.unstable == "1 of 10,000 episodes carries 100 % of the mean of A"
    assert not pair.adjusted.known
    assert not pair.interval().known
    assert won_by(comparison, pair) == "A"
    assert comparison.ranks == {"A": 1, "B": 2}
    assert comparison.winner is None
    share = contrast(maml, finetune, metric="squared error", higher_is_better=False).won()
    assert share.estimate == pytest.approx(np.mean(maml < finetune))
    assert 0.95 < share.low < share.estimate < share.high < 0.99
    # without the episode the means have a verdict again, for the same method
    _, without = judged(np.delete(maml, 4321), np.delete(finetune, 4321))
    assert {without.kind: without.first, "worse": without.second}[without.kind] == "A"


@pytest.mark.fault("V1")
@pytest.mark.parametrize("value", [1e4, 1e30, math.inf, math.nan])
def test_one_of_200_episodes_does_not_turn_a_verdict_round(value: float) -> None:
    generator = np.random.default_rng(1)
    second = generator.lognormal(0, 0.3, 200)
    first = second * np.where(np.arange(200) < 166, 0.5, 1.5)  # better in 83 %
    first[7] = value
    comparison, pair = judged(first, second)
    assert pair.kind == "unstable"
    assert pair.unstable.startswith("1 of 200 episodes carries")
    assert won_by(comparison, pair) == "A"
    assert comparison.better == [("A", "B")]


@pytest.mark.fault("V1")
def test_a_return_that_is_not_finite_loses_its_episode_alone() -> None:
    returns = np.random.default_rng(2).normal(10, 1, (2, 1, 40))
    returns[0] += 2
    returns[0, 0, 5] = math.nan
    comparison, pair = judged(*returns, metric="return")
    assert (pair.kind, won_by(comparison, pair)) == ("unstable", "A")


def test_several_exploding_episodes_are_refused_like_one() -> None:
    first, second = paired_errors(np.random.default_rng(3), 10_000, 1.0)
    first[:6] = 1e20  # a sixth of the mean each
    _, pair = judged(first, second)
    assert pair.unstable == "4 of 10,000 episodes carry 67 % of the mean of A"
    assert pair.ahead == ""


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([1.0] * 9 + [2.2], ""),
        ([1.0] * 9 + [2.5], "1 of 10 episodes carries 22 %"),
        ([1.0, 1.0, 3.9], ""),  # of three episodes, one may carry two thirds
        ([-1.0] * 19 + [40.0], "1 of 20 episodes carries 68 %"),
        ([0.0] * 5, ""),
        ([1.0, math.nan, math.inf] + [1.0] * 7, "2 of 10 episodes carry 100 %"),
    ],
)
def test_what_carries_a_mean(scores: list[float], expected: str) -> None:
    assert instability(np.array([scores])) == expected
    assert instability(np.array([scores, scores])) == expected


@pytest.mark.fault("V1")
@pytest.mark.parametrize(("exploding", "winner"), [("B", "A"), ("A", None)])
def test_a_rival_that_explodes_takes_no_crown_away(exploding: str, winner: str | None) -> None:
    """A is better in nine of ten episodes. Explosions of B change nothing; those of A do."""
    values = np.random.default_rng(0).lognormal(0, 0.3, (1, 400))
    scores = {"A": values, "B": values * np.where(np.arange(400) % 10, 1.5, 0.9)}
    scores = {name: one.copy() for name, one in scores.items()}
    scores[exploding][0, 7] = 1e9
    found, pair = judged(scores["A"], scores["B"])
    assert pair.kind == "unstable"
    assert (found.winner, found.state) == (winner, "winner" if winner else "unstable")


@pytest.mark.fault("V1")
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nor_does_one_without_a_number(value: float) -> None:
    values = np.random.default_rng(0).lognormal(0, 0.3, (1, 400))
    found, _ = judged(values, np.where(np.arange(400) == 7, value, 1.5 * values))
    assert found.winner == "A"


def test_accuracies_are_bounded_and_never_unstable() -> None:
    rare = np.zeros(200)
    rare[3] = 1.0
    assert not contrast(rare, np.zeros(200)).unstable
    with pytest.raises(MetabenchError, match="the scores of 1 of 200 episodes are not numbers"):
        contrast(np.where(rare > 0, np.nan, 0.0), rare)


@pytest.mark.parametrize(("episodes", "decided"), [(3, False), (5, False), (8, True)])
def test_a_share_won_of_few_episodes_is_as_uncertain_as_a_sign_test(episodes: int, decided: bool) -> None:
    one = contrast(np.ones(episodes), np.zeros(episodes), metric="return")
    assert one.won().estimate == 1.0
    assert (one.wins.p_value() <= 0.05) == decided == (2 * 0.5**episodes <= 0.01)


# --- by simulation ---

TRIALS = 400


def exploding(generator: Generator, episodes: int, ratio: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Log-normal errors, of which one in 10,000 explodes by a Pareto factor without a mean (up to 1e20 and above)."""
    pair = paired_errors(generator, episodes, ratio)
    return tuple(
        errors * np.where(generator.random(episodes) < 1e-4, 1e4 * (1 + generator.pareto(0.1, episodes)), 1.0)
        for errors in pair
    )  # type: ignore[return-value]


def long_tailed(generator: Generator, episodes: int, ratio: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Errors of a Pareto law that has a mean and no variance (index 1.5), on shared episodes."""
    hardness = 1 + generator.pareto(1.5, episodes)
    own = generator.exponential(1.0, (2, episodes))
    return hardness * own[0] / ratio, hardness * own[1]


@pytest.mark.fault("V1")
@pytest.mark.parametrize(("world", "episodes"), [(exploding, 10_000), (exploding, 200), (long_tailed, 200)])
def test_equal_methods_with_exploding_tails_are_rarely_told_apart(world, episodes: int) -> None:
    """False verdicts of any kind on equal methods, nominal 5 %: 4.9 to 7.1 % of 1,500. The t-test of the ratio of means
    alone gives 74 % where one of 10,000 episodes explodes."""
    generator = np.random.default_rng(4)
    false = sum(bool(judged(*world(generator, episodes))[0].better) for _ in range(TRIALS))
    assert false / TRIALS <= 0.08


@pytest.mark.fault("V1")
def test_without_the_refusal_most_exploding_pairs_get_a_false_verdict() -> None:
    generator, false = np.random.default_rng(4), 0
    for _ in range(100):
        one = contrast(*exploding(generator, 10_000), metric="squared error", higher_is_better=False)
        false += abs(one.estimate) > 1.96 * one.standard_error("models")
    assert false > 60


@pytest.mark.fault("V1")
@pytest.mark.parametrize("world", [exploding, long_tailed])
@pytest.mark.parametrize("episodes", [20, 200, 2000])
def test_the_share_of_episodes_won_is_covered_under_any_tail(world, episodes: int) -> None:
    """Coverage of the 95 % interval of the share won, whose truth is one half: 94.3 to 96.1 % of 1,500."""
    generator, covered = np.random.default_rng(5), 0
    for _ in range(TRIALS):
        found = contrast(*world(generator, episodes), metric="squared error", higher_is_better=False).won()
        covered += found.low <= 0.5 <= found.high
    assert 0.92 <= covered / TRIALS <= 0.98


@pytest.mark.fault("V1")
def test_a_real_difference_is_found_in_spite_of_explosions() -> None:
    """Where the errors differ by a factor of 2 in the middle, all of 100 verdicts at 200 episodes are right."""
    generator = np.random.default_rng(6)
    found = [judged(*exploding(generator, 200, 2.0))[0].better for _ in range(100)]
    assert all(better == [("A", "B")] for better in found)
