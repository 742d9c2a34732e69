"""All methods of a column of a table, compared in pairs (`benchmarks.stats.verdicts`)."""

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
from benchmarks.stats.contrasts import SCOPES, Contrast, checked, contrast, margin_on_scale
from benchmarks.stats.families import letters, ranks, top_group
from benchmarks.stats.verdicts import ALPHA, DECIDED, Unequal, Verdict, judge

#: verdicts on a column: better than every other; no single winner; no winner named, since a few episodes carry a mean
#: or training was too short or unequal; one method; none
STATES = ("winner", "tied", "unstable", "starved", "single", "none")
#: methods whose training differs by more than this factor in examples are not comparable
MOST_EXAMPLES_RATIO = 2.0


@dataclass(frozen=True, eq=False)
class Scores:
    """The scores of one method in a column: of each episode, ``[seeds, episodes]``, and the training seed of each row.

    trained: False for a method that trains nothing; its first row pairs with any seed of another
    under_trained: training stopped short, so the method takes part but no winner is named
    examples: seen in training (of control tasks: environment steps), mean over seeds; None where unknown
    reach: of an under-trained method, what more training could plausibly add, on the scale of contrasts

    Raises `MetabenchError` if seeds and rows differ in number.
    """

    values: np.ndarray
    seeds: tuple[int, ...] = ()
    trained: bool = True
    under_trained: bool = False
    examples: float | None = None
    reach: float = math.inf

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", np.atleast_2d(np.asarray(self.values, dtype=np.float64)))
        object.__setattr__(self, "seeds", tuple(self.seeds) or tuple(range(len(self.values))))
        if len(self.seeds) != len(self.values):
            raise MetabenchError(f"{len(self.seeds)} seeds are named for {len(self.values)} rows of scores")

    @property
    def mean(self) -> float:
        return float(self.values.mean())

    def badness(self, higher_is_better: bool) -> float:
        """The mean with the better smaller, infinite where it is not a number: to sort by."""
        mean = -self.mean if higher_is_better else self.mean
        return math.inf if math.isnan(mean) else mean

    def of_seeds(self, seeds: Sequence[int]) -> np.ndarray:
        """The rows of these seeds, in this order."""
        return self.values[[self.seeds.index(s) if self.trained or s in self.seeds else 0 for s in seeds]]


@dataclass(frozen=True, eq=False)
class Comparison:
    """All pairs of a column: comparable methods, best mean first, and each pair once, better mean first.

    left_out: method -> reason for leaving it out
    unpaired: pairs without a common seed, which can't be compared
    """

    names: tuple[str, ...]
    pairs: tuple[Verdict, ...]
    scope: str
    scores: Mapping[str, Scores]
    left_out: Mapping[str, str] = field(default_factory=dict)
    unpaired: tuple[tuple[str, str], ...] = ()

    @property
    def about_methods(self) -> bool:
        """Whether verdicts, ranks and groups are about the methods, and not only about these trained models."""
        return self.scope == "methods"

    @property
    def under_trained(self) -> tuple[str, ...]:
        return tuple(name for name in self.names if self.scores[name].under_trained)

    @cached_property
    def better(self) -> list[tuple[str, str]]:
        """Pairs (winner, loser) that Holm's test separates, unstable ones by the share of episodes won."""
        told = [pair for pair in self.pairs if pair.ahead]
        return [(p.first, p.second) if p.ahead == "better" else (p.second, p.first) for p in told]

    @cached_property
    def ranks(self) -> dict[str, int]:
        return ranks(self.names, self.better)

    @cached_property
    def letters(self) -> dict[str, str]:
        return letters(self.names, self.better)

    @property
    def ranking(self) -> tuple[Mapping[str, int], Mapping[str, str]]:
        """Ranks and letters where they are about the methods; empty below the seeds that this takes."""
        return (self.ranks, self.letters) if self.about_methods else ({}, {})

    @cached_property
    def top(self) -> list[str]:
        """The methods that no other is separated from upwards."""
        return top_group(self.ranks)

    @property
    def winner(self) -> str | None:
        """The method that is better than every other; None if there is none or one of its pairs has no verdict."""
        return next((name for name in self.names if len(self.beaten_by(name)) == len(self.names) - 1 > 0), None)

    def beaten_by(self, name: str) -> list[str]:
        """The methods that this one is better than, unstable ones that it outdoes included."""
        decided = [pair for pair in self.pairs if pair.kind in DECIDED or pair.outdone]
        losers = [(p.second, p.first) if p.kind == "worse" else (p.first, p.second) for p in decided]
        return [loser for winner, loser in losers if winner == name]

    @cached_property
    def state(self) -> str:
        """The verdict on the column, one of `STATES`: what the pairs of the best mean come to."""
        if len(self.names) < 2:
            return "single" if self.names else "none"
        if self.winner:
            return "winner"
        return "unstable" if self.unstable else "starved" if self.starved else "tied"

    @property
    def bold(self) -> list[str]:
        """The methods shown in bold: the top group; none where training or means allow no verdict."""
        return self.top if self.state in ("winner", "tied") else []

    @property
    def unstable(self) -> list[Verdict]:
        """The pairs of the best mean in which a few episodes carry a mean, but for rivals that are outdone all the
        same."""
        return [pair for pair in self._of_the_best if pair.kind == "unstable" and not pair.outdone]

    @property
    def starved(self) -> list[Verdict]:
        """The pairs of the best mean whose training was too unequal for a verdict."""
        return [pair for pair in self._of_the_best if pair.starved]

    @property
    def _of_the_best(self) -> list[Verdict]:
        return [pair for pair in self.pairs if self.names[0] in (pair.first, pair.second)]

    def pair(self, first: str, second: str) -> Verdict:
        """The verdict on two methods, in stored order; raises `MetabenchError` if there is none."""
        for pair in self.pairs:
            if {pair.first, pair.second} == {first, second}:
                return pair
        raise MetabenchError(f"no pair {first!r} and {second!r}; known: {', '.join(self.names)}")

    def of(self, first: str, second: str) -> Verdict:
        """The verdict on the first method compared with the second; raises `MetabenchError` if there is none."""
        pair = self.pair(first, second)
        return pair if pair.first == first else pair.mirrored


def compare(
    methods: Mapping[str, Scores | np.ndarray],
    *,
    metric: str = "accuracy",
    higher_is_better: bool = True,
    margin: float,
    membership: Membership | None = None,
    strata: np.ndarray | None = None,
    scope: str | None = None,
    alpha: float = ALPHA,
) -> Comparison:
    """Compare all methods of a column in pairs.

    methods: name -> scores per seed and episode, all on the same episodes
    metric, higher_is_better, margin: those of the task; membership: classes of each episode
    strata: the test task of each episode, where there is a finite list of them
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
    names = sorted(usable, key=lambda name: (given[name].badness(higher_is_better), name))
    every = list(itertools.combinations(names, 2))
    found = [paired_contrast(given[a], given[b], metric, higher_is_better, membership, strata) for a, b in every]
    paired = {pair: one for pair, one in zip(every, found, strict=True) if one is not None}
    if scope is not None:
        check_known("scope", scope, SCOPES)
    reasons = [starved({name: given[name] for name in pair}, metric) for pair in paired]
    same = [metric] * len(paired), [limit] * len(paired)
    pairs = judge(list(paired), list(paired.values()), *same, scope=scope, starved=reasons, alpha=alpha)
    held = pairs[0].scope if pairs else scope or "models"
    unpaired = tuple(pair for pair in every if pair not in paired)
    return Comparison(tuple(names), tuple(pairs), held, given, left_out, unpaired)


def starved(sides: Mapping[str, Scores], metric: str) -> Unequal:
    """Why two methods are not comparable: one is under-trained, or one saw more than twice the other's examples."""
    trained, seen = short(sides), unequal(sides, metric)
    return Unequal(trained.reason or seen.reason, seen.fewer, trained.short)


def short(sides: Mapping[str, Scores]) -> Unequal:
    """Which methods are under-trained."""
    reach = {name: scores.reach for name, scores in sides.items() if scores.under_trained}
    return Unequal(
        f"{' and '.join(reach)} {'is' if len(reach) == 1 else 'are'} under-trained" if reach else "", "", reach
    )


def unequal(sides: Mapping[str, Scores], metric: str) -> Unequal:
    """How much two methods saw, where one saw more than `MOST_EXAMPLES_RATIO` times the other's examples."""
    known = sorted((scores.examples, name) for name, scores in sides.items() if scores.examples)
    if len(known) < 2 or known[1][0] <= MOST_EXAMPLES_RATIO * known[0][0]:
        return Unequal()
    (less, starving), (more, fed) = known
    what = "environment steps" if metric == "return" else "examples"
    return Unequal(f"{starving} trained on {less:,.0f} {what} and {fed} on {more:,.0f}", starving)


def _unusable(name: str, scores: Scores, metric: str) -> str | None:
    try:
        values = checked(scores.values, name, metric)
    except MetabenchError as refusal:
        return str(refusal)
    if metric == "squared error" and (values.min() < 0 or values.mean() <= 0):
        return f"{name}: a mean error of {values.mean():g} has no ratio"
    return None


def paired_contrast(
    first: Scores,
    second: Scores,
    metric: str,
    higher_is_better: bool,
    membership: Membership | None = None,
    strata: np.ndarray | None = None,
) -> Contrast | None:
    """The contrast of two methods over their common seeds; None if there are none."""
    trained = [set(scores.seeds) for scores in (first, second) if scores.trained]
    seeds = sorted(set.intersection(*trained) if trained else {*first.seeds, *second.seeds})
    if not seeds:
        return None
    task: dict[str, Any] = {"metric": metric, "higher_is_better": higher_is_better, "membership": membership}
    return contrast(first.of_seeds(seeds), second.of_seeds(seeds), **task, trained=bool(trained), strata=strata)
