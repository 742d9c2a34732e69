"""The error rate of every verdict rule, by simulation; docs/simulations.md states the bounds.

``python tests/stats/test_verdict_rates.py`` prints the table of docs/simulations.md (ten times as many repetitions).
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks.stats import Contrast, Scores, Verdict, compare

Generator = np.random.Generator
REPEATS = 300
MARGIN = 0.01


def scored(generator: Generator, shifts: np.ndarray, seeds: int, of_seed: float = 0.0) -> tuple[dict, np.ndarray]:
    """Accuracies ``[seeds, 200]`` of methods with these shifts, and the true mean of each trained model."""
    models = 0.6 + shifts[:, None] + generator.normal(0, of_seed, (len(shifts), seeds))
    shared = generator.normal(0, 0.1, 200)
    values = models[..., None] + shared + generator.normal(0, 0.06, (*models.shape, 200))
    return {str(number): own for number, own in enumerate(values)}, models.mean(1)


def said_better(verdict: Verdict) -> bool:
    return verdict.kind in ("better", "worse")


def eight_equal(generator: Generator, seeds: int) -> bool:
    """Eight equal methods whose seeds differ by 2 points: whether any is called better than another, as a method."""
    found = compare(scored(generator, np.zeros(8), seeds, 0.02)[0], margin=MARGIN)
    return bool(found.ranking[0]) and any(map(said_better, found.pairs))


def eight_trained(generator: Generator, seeds: int) -> bool:
    """Whether any of these trained models is called better than one that is as good or better."""
    columns, truth = scored(generator, np.zeros(8), seeds, 0.02)
    found = compare(columns, margin=MARGIN, scope="models")
    return any(
        (truth[int(pair.first)] - truth[int(pair.second)]) * (1 if pair.kind == "better" else -1) <= 0
        for pair in found.pairs
        if said_better(pair)
    )


def one_margin(generator: Generator, shift: float, kinds: tuple[str, ...]) -> bool:
    """Whether a method that differs by exactly one margin is called one of these."""
    columns, _ = scored(generator, np.array([shift, 0.0]), 1)
    return compare(columns, margin=MARGIN).of("0", "1").kind in kinds


def long_tails(generator: Generator) -> bool:
    """Equal methods whose errors have a mean and no variance: whether one is called better."""
    hardness = 1 + generator.pareto(1.5, 200)
    first, second = hardness * generator.exponential(1.0, (2, 200))
    found = compare({"A": first, "B": second}, metric="squared error", higher_is_better=False, margin=1.1)
    return said_better(found.pairs[0])


def two_strata(generator: Generator, known: bool) -> bool:
    """A method that learns one of two test tasks only: whether the interval of its gain misses the truth."""
    strata = np.arange(20) % 2
    gains = np.array([10.0, 120.0])[strata] + generator.normal(0, 8, 20)
    found = Contrast(gains[None], strata=strata if known else None).interval("models")
    return not found.low <= 65.0 <= found.high


def not_a_number(generator: Generator) -> bool:
    """One of five equal methods has episodes without a number: whether it is called as good, or any called better."""
    errors = generator.lognormal(0, 1, 200) * generator.exponential(1.0, (5, 200))
    errors[0, :3] = math.nan
    columns = {str(number): own for number, own in enumerate(errors)}
    found = compare(columns, metric="squared error", higher_is_better=False, margin=1.1)
    assert {pair.kind for pair in found.pairs if "0" in (pair.first, pair.second)} <= {"unstable"}
    return any(map(said_better, found.pairs)) or found.winner == "0"


def starved_rival(generator: Generator) -> bool:
    """A method far ahead of one with less than half of its examples: whether it is named the winner."""
    columns, _ = scored(generator, np.array([0.1, 0.0]), 1)
    sides = {name: Scores(own, examples=1000 if name == "0" else 480) for name, own in columns.items()}
    return compare(sides, margin=MARGIN).winner is not None


AS_GOOD = ("better", "equivalent", "non-inferior")
#: what is wrongly said -> (the trial, its arguments, the highest share that is right)
RATES: dict[str, tuple[Callable[..., bool], tuple, float]] = {
    "eight equal methods, 2 seeds: any better, as a method": (eight_equal, (2,), 0.0),
    "eight equal methods, 5 seeds: any better, as a method": (eight_equal, (5,), 0.05),
    "eight equal methods, 2 seeds: any better, of these trained models": (eight_trained, (2,), 0.05),
    "better by one margin: equivalent": (one_margin, (MARGIN, ("equivalent",)), 0.05),
    "worse by one margin: as good, equivalent or better": (one_margin, (-MARGIN, AS_GOOD), 0.06),
    "two equal methods, errors without a variance: better": (long_tails, (), 0.08),
    "two test tasks as strata, of which one is learned: interval misses": (two_strata, (True,), 0.08),
    "five equal methods, one with NaN: any better": (not_a_number, (), 0.05),
    "a rival with less than half of the examples: winner": (starved_rival, (), 0.0),
}


def rate(trial: Callable[..., bool], arguments: tuple, repeats: int) -> float:
    generator = np.random.default_rng(21)
    return sum(trial(generator, *arguments) for _ in range(repeats)) / repeats


@pytest.mark.fault("V4", "V6", "V8", "V10", "V11")
@pytest.mark.parametrize("case", RATES)
def test_a_verdict_is_wrong_as_rarely_as_the_documents_say(case: str) -> None:
    trial, arguments, most = RATES[case]
    # two standard errors of the simulation
    assert rate(trial, arguments, REPEATS) <= most + 2 * math.sqrt(most * (1 - most) / REPEATS)


@pytest.mark.fault("V8")
def test_ranks_of_two_seeds_would_nearly_always_be_wrong() -> None:
    generator = np.random.default_rng(22)
    columns = [compare(scored(generator, np.zeros(8), 2, 0.02)[0], margin=MARGIN) for _ in range(100)]
    assert sum(any(map(said_better, found.pairs)) for found in columns) >= 95
    assert all(found.ranking == ({}, {}) and not found.about_methods for found in columns)


@pytest.mark.fault("V6")
def test_two_directions_as_strata_turn_a_t_of_3_into_one_of_35() -> None:
    """MAML against tuned pretraining on half-cheetah-direction: forward nothing is learned."""
    strata = np.arange(12) % 2
    own = np.random.default_rng(3).normal(size=12)
    for half in (0, 1):
        own[strata == half] -= own[strata == half].mean()
    gains = (np.array([-2.0, 117.0])[strata] + 5.2 * own / own.std())[None]
    mixed, apart = (Contrast(gains, strata=given) for given in (None, strata))
    assert mixed.estimate / mixed.standard_error("models") == pytest.approx(3.2, abs=0.05)
    assert apart.estimate / apart.standard_error("models") == pytest.approx(34.7, abs=0.5)
    assert apart.degrees("models") in (8, 9, 10), "of 12 episodes in 2 strata"
    within = np.array([gains[0, strata == half].var(ddof=1) for half in (0, 1)])
    assert apart.standard_error("models") == pytest.approx(math.sqrt(within.sum() / 6) / 2)
    assert rate(two_strata, (False,), 100) == 0.0, "without strata the interval is far too wide"


@pytest.mark.fault("V6")
def test_strata_hold_through_comparison_and_seeds() -> None:
    strata, noise = np.arange(20) % 2, np.random.default_rng(4).normal(size=(2, 6, 20))
    columns = {"A": np.array([5.0, 120.0])[strata] + noise[0], "B": noise[1]}
    sides = {"metric": "return", "margin": 5.0, "scope": "models"}
    (plain,), (apart,) = (compare(columns, **sides, strata=own).pairs for own in (None, strata))
    assert apart.adjusted.half_width < plain.adjusted.half_width / 5
    assert apart.interval("methods").half_width < plain.interval("methods").half_width / 5
    few = compare({name: own[:, :2] for name, own in columns.items()}, **sides, strata=strata[:2]).pairs[0]
    assert few.interval().half_width > 100, "one episode of each says nothing about the spread within them"


def test_the_documents_state_these_rates() -> None:
    text = (Path(__file__).parents[2] / "docs" / "simulations.md").read_text(encoding="utf-8")
    stated = re.findall(r"^\| (.+) \| ([\d.]+) % \(at most ([\d.]+) %\) \|$", text, re.MULTILINE)
    assert [name for name, *_ in stated] == list(RATES)
    for name, found, most in stated:
        assert float(most) == pytest.approx(100 * RATES[name][2])
        assert float(found) <= float(most)


def main(repeats: int) -> None:
    print(f"| wrongly said | of {repeats:,} |\n| --- | --- |")
    for name, (trial, arguments, most) in RATES.items():
        print(f"| {name} | {100 * rate(trial, arguments, repeats):.1f} % (at most {100 * most:g} %) |", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10 * REPEATS)
