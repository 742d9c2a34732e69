"""Verdicts on the differences in a column of a table.

All pairs of a column are one family. Holm's test over them decides better and worse. Two one-sided tests (the 90 %
interval within the task's margin) decide equivalent. All other pairs are undecided: no evidence of a difference is not
evidence of no difference. Where a few episodes carry a mean, the pair is unstable, and the share of episodes won takes
the place of the means in Holm's test.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from benchmarks.checks import check_known
from benchmarks.errors import MetabenchError
from benchmarks.stats.classes import Membership
from benchmarks.stats.contrasts import SCOPES, Contrast, Interval, checked, contrast, margin_on_scale, quantile
from benchmarks.stats.families import holm, interval_levels, letters, ranks
from benchmarks.stats.power import Need, components, needed

VERDICTS = ("better", "worse", "equivalent", "undecided", "unstable")
OPPOSITE = {"better": "worse", "worse": "better"}
ALPHA = 0.05


@dataclass(frozen=True, eq=False)
class Scores:
    """The scores of one method in a column: of each episode, ``[seeds, episodes]``, and the training seed of each row.

    trained: False for a method that trains nothing; its first row pairs with any seed of another
    under_trained: training stopped short, so the method takes part but no winner is named

    Raises `MetabenchError` if seeds and rows differ in number.
    """

    values: np.ndarray
    seeds: tuple[int, ...] = ()
    trained: bool = True
    under_trained: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", np.atleast_2d(np.asarray(self.values, dtype=np.float64)))
        object.__setattr__(self, "seeds", tuple(self.seeds) or tuple(range(len(self.values))))
        if len(self.seeds) != len(self.values):
            raise MetabenchError(f"{len(self.seeds)} seeds are named for {len(self.values)} rows of scores")

    @property
    def mean(self) -> float:
        return float(self.values.mean())

    def of_seeds(self, seeds: Sequence[int]) -> np.ndarray:
        """The rows of these seeds, in this order."""
        return self.values[[self.seeds.index(s) if self.trained or s in self.seeds else 0 for s in seeds]]


@dataclass(frozen=True, eq=False)
class Pair:
    """The comparison of two methods; positive differences favour the first.

    scope, margin: of the verdict; the margin is on the scale of the contrast
    p, p_holm: two-sided p-values, alone and adjusted
    adjusted: the interval to draw; it excludes zero if and only if the verdict is better or worse
    verdict: one of `VERDICTS`
    equivalent: whether the 90 % interval lies within the margin, also possible for a (small) significant difference
    robust: for an unstable pair, the verdict by the share of episodes won: "better", "worse" or "undecided"
    """

    first: str
    second: str
    contrast: Contrast
    scope: str
    margin: float
    p: float
    p_holm: float
    adjusted: Interval
    verdict: str
    equivalent: bool
    alpha: float = ALPHA
    robust: str = ""

    @property
    def unstable(self) -> str:
        """Why the means have no verdict: "1 of 200 episodes carries 100 % of the mean of maml"; empty if they have."""
        sides = zip(self.contrast.carried, (self.first, self.second), strict=True)
        return " and ".join(f"{carried} of the mean of {name}" for carried, name in sides if carried)

    def interval(self, scope: str | None = None, level: float = 0.95) -> Interval:
        """The unadjusted interval of this pair alone, in the verdict's scope or another."""
        return self.contrast.interval(scope or self.scope, level)

    @property
    def survives_new_classes(self) -> bool | None:
        """Whether the sign holds for other classes; None without classes or a significant sign."""
        if self.verdict not in OPPOSITE or "classes" not in self.contrast.scopes():
            return None
        return self.interval("classes").excludes_zero

    def need(self, comparisons: int = 1) -> Need | None:
        """The sample sizes that decide an undecided pair among this many comparisons; None if decided or unknown."""
        if self.verdict != "undecided" or self.scope not in self.contrast.scopes():
            return None
        membership = self.contrast.membership if self.scope == "classes" else None
        parts = components(self.contrast.values, membership)
        # methods that train nothing have one seed, and more episodes decide between them
        scope = "models" if self.scope == "methods" and not self.contrast.trained else self.scope
        return needed(self.contrast.estimate, self.margin, parts, scope, self.alpha / comparisons)


@dataclass(frozen=True, eq=False)
class Comparison:
    """All pairs of a column: comparable methods, best mean first, and each pair once, better mean first.

    left_out: method -> reason for leaving it out
    unpaired: pairs without a common seed, which can't be compared
    """

    names: tuple[str, ...]
    pairs: tuple[Pair, ...]
    scope: str
    scores: Mapping[str, Scores]
    left_out: Mapping[str, str] = field(default_factory=dict)
    unpaired: tuple[tuple[str, str], ...] = ()
    alpha: float = ALPHA

    @property
    def under_trained(self) -> tuple[str, ...]:
        return tuple(name for name in self.names if self.scores[name].under_trained)

    @cached_property
    def better(self) -> list[tuple[str, str]]:
        """Pairs (winner, loser) that Holm's test separates, unstable ones by the share of episodes won."""
        told = [(pair, pair.robust or pair.verdict) for pair in self.pairs]
        told = [(pair, verdict) for pair, verdict in told if verdict in OPPOSITE]
        return [(p.first, p.second) if verdict == "better" else (p.second, p.first) for p, verdict in told]

    @cached_property
    def ranks(self) -> dict[str, int]:
        return ranks(self.names, self.better)

    @cached_property
    def letters(self) -> dict[str, str]:
        return letters(self.names, self.better)

    @property
    def winner(self) -> str | None:
        """The method that is significantly better than every other; None if there is none, a fit is under-trained or a
        pair is unstable."""
        if len(self.names) < 2 or self.under_trained or any(pair.robust for pair in self.pairs):
            return None
        beaten = {name: sum(winner == name for winner, _ in self.better) for name in self.names}
        return next((name for name, count in beaten.items() if count == len(self.names) - 1), None)

    def pair(self, first: str, second: str) -> Pair:
        """The pair of two methods, in stored order; raises `MetabenchError` if there is none."""
        for pair in self.pairs:
            if {pair.first, pair.second} == {first, second}:
                return pair
        raise MetabenchError(f"no pair {first!r} and {second!r}; known: {', '.join(self.names)}")

    def verdict(self, first: str, second: str) -> str:
        """Verdict on the first method compared with the second: one of `VERDICTS`."""
        pair = self.pair(first, second)
        return pair.verdict if pair.first == first else OPPOSITE.get(pair.verdict, pair.verdict)

    def need(self, pair: Pair) -> Need | None:
        """The sample sizes that would decide an undecided pair, given the other open pairs."""
        open_pairs = sum(other.verdict not in OPPOSITE for other in self.pairs if not math.isnan(other.p))
        return pair.need(max(1, open_pairs))


def compare(
    methods: Mapping[str, Scores | np.ndarray],
    *,
    metric: str = "accuracy",
    higher_is_better: bool = True,
    margin: float,
    membership: Membership | None = None,
    scope: str | None = None,
    alpha: float = ALPHA,
) -> Comparison:
    """Compare all methods of a column in pairs.

    methods: name -> scores per seed and episode, all on the same episodes
    metric, higher_is_better, margin: those of the task; membership: classes of each episode
    scope: default: "methods" if every pair shares enough seeds, else "models"
    alpha: level of Holm's test

    Methods whose accuracies are not finite are left out and listed. So are pairs without a common seed. Raises
    `MetabenchError` if the numbers of episodes differ or the scope is unknown."""
    given = {name: s if isinstance(s, Scores) else Scores(s) for name, s in methods.items()}
    widths = {name: s.values.shape[1] for name, s in given.items()}
    if len(set(widths.values())) > 1:
        counted = ", ".join(f"{name} {count}" for name, count in widths.items())
        raise MetabenchError(f"methods are compared on the same episodes, but have different numbers: {counted}")
    limit = margin_on_scale(margin, metric)
    left_out = {name: why for name, s in given.items() if (why := _unusable(name, s, metric))}
    usable = [name for name in given if name not in left_out]
    sign = -1.0 if higher_is_better else 1.0
    names = sorted(usable, key=lambda name: (sign * given[name].mean, name))
    every = list(itertools.combinations(names, 2))
    found = [paired_contrast(given[a], given[b], metric, higher_is_better, membership) for a, b in every]
    paired = {pair: one for pair, one in zip(every, found, strict=True) if one is not None}
    if scope is None:
        scope = "methods" if paired and all("methods" in one.scopes() for one in paired.values()) else "models"
    check_known("scope", scope, SCOPES)
    pairs = judge(list(paired), list(paired.values()), scope, limit, alpha)
    unpaired = tuple(pair for pair in every if pair not in paired)
    return Comparison(tuple(names), tuple(pairs), scope, given, left_out, unpaired, alpha)


def _unusable(name: str, scores: Scores, metric: str) -> str | None:
    try:
        values = checked(scores.values, name, metric)
    except MetabenchError as refusal:
        return str(refusal)
    if metric == "squared error" and (values.min() < 0 or values.mean() <= 0):
        return f"{name}: a mean error of {values.mean():g} has no ratio"
    return None


def paired_contrast(
    first: Scores, second: Scores, metric: str, higher_is_better: bool, membership: Membership | None = None
) -> Contrast | None:
    """The contrast of two methods over their common seeds; None if there are none."""
    trained = [set(scores.seeds) for scores in (first, second) if scores.trained]
    seeds = sorted(set.intersection(*trained) if trained else {*first.seeds, *second.seeds})
    if not seeds:
        return None
    task: dict[str, Any] = {"metric": metric, "higher_is_better": higher_is_better, "membership": membership}
    return contrast(first.of_seeds(seeds), second.of_seeds(seeds), **task, trained=bool(trained))


def judge(
    couples: Sequence[tuple[str, str]], contrasts: Sequence[Contrast], scope: str, margin: float, alpha: float = ALPHA
) -> list[Pair]:
    """Verdicts of one family of pairs; margin: on the scale of the contrasts (`margin_on_scale`)."""
    p_values = np.array([(c.wins if c.unstable else c).p_value(scope) for c in contrasts])
    family = (couples, contrasts, p_values, holm(p_values), *interval_levels(p_values, alpha))
    pairs = []
    for (first, second), one, p, adjusted, near, far in zip(*family, strict=True):
        equivalent = one.interval(scope, 1 - 2 * ALPHA).within(margin)
        ahead = "better" if (one.wins if one.unstable else one).estimate > 0 else "worse"
        found = ahead if adjusted <= alpha else "equivalent" if equivalent else "undecided"
        verdict, robust = ("unstable", found) if one.unstable else (found, "")
        drawn = _drawn(one, scope, near, far)
        pairs.append(Pair(first, second, one, scope, margin, p, adjusted, drawn, verdict, equivalent, alpha, robust))
    return pairs


def _drawn(one: Contrast, scope: str, near: float, far: float) -> Interval:
    """The interval with one level for its end next to zero and another for the far end."""
    plain = one.interval(scope, far)
    if near == far or not plain.known:
        return plain
    inner = quantile(one.degrees(scope), 0.5 + near / 2) * one.standard_error(scope)
    low = one.estimate - inner if one.estimate > 0 else plain.low
    high = one.estimate + inner if one.estimate < 0 else plain.high
    return Interval(one.estimate, low, high, far, scope)
