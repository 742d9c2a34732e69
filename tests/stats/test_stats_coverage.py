"""Every interval, by simulation: how often it covers the truth that was planted.

``python tests/stats/test_stats_coverage.py`` prints the table of docs/simulations.md (20 times as many repetitions).
"""

from __future__ import annotations

import functools
import math
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats as reference

from benchmarks.stats import Contrast, Membership, TaskScores, aggregate, compare, contrast, quantile

Generator = np.random.Generator
REPEATS = 400


def crossed(generator: Generator, seeds: int, episodes: int, seed: float, episode: float, both: float) -> np.ndarray:
    """Differences ``[seeds, episodes]`` with true mean 0 and these standard deviations of seed, episode and both."""
    of_seed, of_episode = generator.normal(0, seed, (seeds, 1)), generator.normal(0, episode, (1, episodes))
    return of_seed + of_episode + generator.normal(0, both, (seeds, episodes))


def covers(one: Contrast, scope: str, truth: float = 0.0) -> bool:
    found = one.interval(scope)
    return found.low <= truth <= found.high


def episodes_only(generator: Generator, episodes: int) -> bool:
    """Binomial accuracies on shared episodes: two models, 25 queries, a hardness that both meet."""
    hardness = np.clip(generator.normal(0.6, 0.1, episodes), 0, 1)
    first, second = (generator.binomial(25, hardness * scale, (1, episodes)) / 25 for scale in (1.0, 0.95))
    # the truth of these clipped normals, to four digits, is that of a large draw
    return covers(contrast(first, second), "models", 0.05 * 0.6)


def errors_ratio(generator: Generator, episodes: int) -> bool:
    """Squared errors with a long tail (log-normal episodes, exponential queries), ratio of means 1.3."""
    hardness = generator.lognormal(0, 1, episodes)
    first, second = (
        (level * hardness[:, None] * generator.exponential(1.0, (episodes, 20))).mean(1)[None] for level in (1.0, 1.3)
    )
    one = contrast(first, second, metric="squared error", higher_is_better=False)
    return covers(one, "models", math.log(1.3))


def over_seeds(generator: Generator, seeds: int, episodes: int, seed: float, scope: str) -> bool:
    """The truth is that of the methods: seeds are drawn again each time."""
    return covers(Contrast(crossed(generator, seeds, episodes, seed, 0.08, 0.04)), scope)


def nested_bootstrap(generator: Generator, seeds: int, episodes: int, seed: float) -> bool:
    """What is not done here: seeds resampled, and within each its own episodes."""
    values = crossed(generator, seeds, episodes, seed, 0.08, 0.04)
    rows = generator.integers(seeds, size=(500, seeds))
    columns = generator.integers(episodes, size=(500, seeds, episodes))
    low, high = np.quantile(values[rows[..., None], columns].mean((1, 2)), [0.025, 0.975])
    return bool(low <= 0 <= high)


WAY = 5


def class_effects(generator: Generator, count: int, classes: np.ndarray, effect: float) -> np.ndarray:
    """Each class makes its own queries easier or harder: the score of each class's queries, ``[episodes, way]``."""
    return generator.normal(0, effect, count)[classes]


def confusions(generator: Generator, count: int, classes: np.ndarray, effect: float) -> np.ndarray:
    """Each class has a pull: two classes of an episode confuse each other by the sum of their pulls, both ways."""
    pull = generator.normal(0, effect, count)[classes]
    return ((WAY - 2) * pull + pull.sum(1, keepdims=True)) / (WAY - 1)


def pairs(generator: Generator, count: int, classes: np.ndarray, effect: float) -> np.ndarray:
    """Only pairs of classes confuse each other; no class is harder than another by itself."""
    table = np.triu(generator.normal(0, effect * WAY, (count, count)), 1)
    table = table + table.T
    return table[classes[:, :, None], classes[:, None, :]].sum(2) / (WAY - 1)


World = Callable[[Generator, int, np.ndarray, float], np.ndarray]


def drawn(generator: Generator, world: World, count: int, episodes: int, effect: float) -> tuple[np.ndarray, ...]:
    """The classes of each episode and the scores of their queries, ``[episodes, way]``."""
    classes = generator.permuted(np.tile(np.arange(count), (episodes, 1)), axis=1)[:, :WAY]
    return classes, world(generator, count, classes, effect) + generator.normal(0, 0.15, classes.shape)


def over_classes(generator: Generator, *world: Any, scope: str = "classes") -> bool:
    """The truth is that of all classes there could be: effects are drawn again each time."""
    classes, own = drawn(generator, *world)
    return covers(Contrast(own.mean(1)[None], membership=Membership(classes)), scope)


def class_means(generator: Generator, *world: Any) -> bool:
    """What is not done here: a t interval over the mean of each class's own queries."""
    classes, own = drawn(generator, *world)
    means = np.bincount(classes.ravel(), own.ravel()) / np.bincount(classes.ravel())
    return bool(abs(means.mean()) <= quantile(len(means) - 1, 0.975) * means.std(ddof=1) / math.sqrt(len(means)))


def family(generator: Generator, levels: Iterable[float], what: str) -> bool:
    """All pairs of a column at once: no false verdict, or every drawn interval over its truth."""
    truth = np.array(list(levels))
    shared = generator.normal(0, 0.08, 200)
    noise = generator.normal(0, 0.06, (len(truth), 200))
    column = {str(i): (truth[i] + shared + noise[i])[None] for i in range(len(truth))}
    found = compare(column, margin=0.001)
    real = [truth[int(pair.first)] - truth[int(pair.second)] for pair in found.pairs]
    both = list(zip(found.pairs, real, strict=True))
    if what == "verdicts":
        return not any(pair.kind == "better" and real <= 0 for pair, real in both)
    return all(pair.adjusted.low <= real <= pair.adjusted.high for pair, real in both)


def across_tasks(generator: Generator) -> bool:
    """The interquartile mean of four tasks and three trained models, whose true means are known."""
    levels = generator.uniform(0.3, 0.9, (4, 3))
    tasks = []
    for number, level in enumerate(levels):
        shared = generator.normal(0, 0.1, (1, 150))
        scores = level[:, None] + shared + generator.normal(0, 0.1, (3, 150))
        tasks.append(TaskScores(str(number), 0.2, 1.0, {"one": scores}))
    found = aggregate(tasks, resamples=300, points=2).interquartile_means["one"]
    truth = reference.trim_mean(((levels - 0.2) / 0.8).ravel(), 0.25)
    return bool(found.low <= truth <= found.high)


#: what is simulated -> (the trial, its arguments, least and most coverage that is right)
CASES: dict[str, tuple[Callable[..., bool], tuple, tuple[float, float]]] = {
    "models: accuracy, 200 episodes": (episodes_only, (200,), (0.92, 0.98)),
    "models: accuracy, 20 episodes": (episodes_only, (20,), (0.92, 0.98)),
    "models: ratio of long-tailed errors, 200 episodes": (errors_ratio, (200,), (0.91, 0.98)),
    "methods: 5 seeds, seeds matter much": (over_seeds, (5, 200, 0.03, "methods"), (0.93, 0.995)),
    "methods: 5 seeds, seeds matter little": (over_seeds, (5, 200, 0.002, "methods"), (0.96, 1.0)),
    "methods: 10 seeds, as much as episodes": (over_seeds, (10, 200, 0.01, "methods"), (0.94, 1.0)),
    "classes: 20, their own queries": (over_classes, (class_effects, 20, 300, 0.1), (0.92, 0.99)),
    "classes: 20, mutual confusion": (over_classes, (confusions, 20, 300, 0.1), (0.92, 0.99)),
    "classes: 20, confusion of pairs": (over_classes, (pairs, 20, 300, 0.1), (0.94, 1.0)),
    "classes: 20, no class differs": (over_classes, (class_effects, 20, 300, 0.0), (0.94, 1.0)),
    "classes: 400, 200 episodes": (over_classes, (class_effects, 400, 200, 0.1), (0.92, 0.99)),
    "pairs: no false verdict, six equal methods": (family, ((0.0,) * 6, "verdicts"), (0.93, 1.0)),
    "pairs: no false verdict, three equal and three not": (family, ((0, 0, 0, 0.03, 0.06, 0.2), "verdicts"), (0.93, 1)),
    "pairs: all drawn intervals, six equal methods": (family, ((0.0,) * 6, "intervals"), (0.93, 1.0)),
    "pairs: all drawn intervals, three equal and three not": (
        family,
        ((0, 0, 0, 0.015, 0.03, 0.2), "intervals"),
        (0.91, 1.0),
    ),
    "pairs: all drawn intervals, two equal and four far apart (the worst case)": (
        family,
        ((0, 0, 0.2, 0.4, 0.6, 0.8), "intervals"),
        (0.88, 1.0),
    ),
    "tasks: interquartile mean of 4 tasks": (across_tasks, (), (0.9, 0.98)),
}
#: what is not done, and why: these are too narrow
TOO_NARROW: dict[str, tuple[Callable[..., bool], tuple, float]] = {
    "episodes only, 5 seeds that matter much, as if over methods": (over_seeds, (5, 200, 0.03, "models"), 0.7),
    "nested bootstrap, 3 seeds": (nested_bootstrap, (3, 100, 0.01), 0.88),
    "mean per class, mutual confusion": (class_means, (confusions, 20, 300, 0.1), 0.85),
    "episodes only, 20 classes, as if over classes": (
        functools.partial(over_classes, scope="models"),
        (class_effects, 20, 300, 0.1),
        0.8,
    ),
}


def coverage(trial: Callable[..., bool], arguments: tuple, repeats: int) -> float:
    generator = np.random.default_rng(20)
    return sum(trial(generator, *arguments) for _ in range(repeats)) / repeats


@pytest.mark.parametrize("case", CASES)
def test_interval_covers_what_it_says(case: str) -> None:
    trial, arguments, (least, most) = CASES[case]
    assert least <= coverage(trial, arguments, REPEATS) <= most


@pytest.mark.parametrize("case", TOO_NARROW)
def test_the_simpler_interval_does_not(case: str) -> None:
    trial, arguments, most = TOO_NARROW[case]
    assert coverage(trial, arguments, 100) <= most


def test_the_documented_numbers_are_those_of_the_simulations() -> None:
    text = (Path(__file__).parents[2] / "docs" / "simulations.md").read_text(encoding="utf-8")
    documented = {name: float(number) for name, number in re.findall(r"^\| (.+) \| ([\d.]+) % \|$", text, re.MULTILINE)}
    assert list(documented) == [*CASES, *TOO_NARROW]
    for name, (_, _, (least, most)) in CASES.items():
        assert 100 * least <= documented[name] <= 100 * most
    for name, (_, _, most) in TOO_NARROW.items():
        assert documented[name] <= 100 * most


def main(repeats: int) -> None:
    print(f"| interval (nominal 95 %) | covers, of {repeats:,} |\n| --- | --- |")
    for name, (trial, arguments, _) in {**CASES, **TOO_NARROW}.items():
        print(f"| {name} | {100 * coverage(trial, arguments, repeats):.1f} % |", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20 * REPEATS)
