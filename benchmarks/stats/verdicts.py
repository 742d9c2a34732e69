"""The verdict on two methods: one object that page, terminal, claims and comparisons read.

All pairs of a column are one family. Holm's test over them decides better and worse. Two one-sided tests (the 90 %
interval within the task's margin) decide equivalent; its lower end within the margin decides non-inferior ("as good
as"). All other pairs are undecided: no evidence of a difference is not evidence of no difference. Where a few episodes
carry a mean, the pair is unstable, and the share of episodes won takes the place of the means in Holm's test. Where
training was too unequal, the pair is not comparable, and the verdict is not about the methods.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from benchmarks.stats.contrasts import Contrast, Interval, quantile
from benchmarks.stats.families import holm, interval_levels
from benchmarks.stats.power import Need, components, needed

#: "no better": the second is non-inferior
KINDS = ("better", "worse", "equivalent", "non-inferior", "no better", "undecided", "unstable", "not comparable")
#: kinds with a winner, and kinds that the 90 % interval decides
DECIDED, WITHIN_MARGIN = ("better", "worse"), ("equivalent", "non-inferior", "no better")
ALPHA = 0.05


@dataclass(frozen=True, eq=False)
class Verdict:
    """The comparison of two methods; positive differences favour the first.

    metric: of the task; it decides the unit
    contrast: the difference or log ratio, with its seeds and episodes
    scope, margin: of the verdict; the margin is on the scale of the contrast
    p, p_holm: two-sided p-values, alone and adjusted; of the share of episodes won for an unstable pair
    adjusted: the 95 % interval, adjusted for the family; it excludes zero if and only if Holm's test rejects
    starved: why training was too unequal for a verdict on the methods; empty if it was not
    rivals: pairs of the family that Holm's test doesn't separate, this one included
    """

    first: str
    second: str
    metric: str
    contrast: Contrast
    scope: str
    margin: float
    p: float
    p_holm: float
    adjusted: Interval
    starved: str = ""
    rivals: int = 1
    alpha: float = ALPHA

    @property
    def ahead(self) -> str:
        """The result of Holm's test on these scores: the first is "better", "worse", or "" (not separated)."""
        if not self.p_holm <= self.alpha:
            return ""
        return "better" if (self.contrast.wins if self.contrast.unstable else self.contrast).estimate > 0 else "worse"

    @cached_property
    def kind(self) -> str:
        """What the first is, compared with the second: one of `KINDS`."""
        if self.contrast.unstable:
            return "unstable"
        if self.starved:
            return "not comparable"
        return self.ahead or self._within_margin or "undecided"

    @property
    def _within_margin(self) -> str:
        if self.equivalent or self.as_good:
            return "equivalent" if self.equivalent else "non-inferior"
        return "no better" if self.tight.known and self.tight.high < self.margin else ""

    @property
    def word(self) -> str:
        """The kind as it is shown: "ahead" and "behind" replace better and worse where training was too unequal."""
        if self.kind == "not comparable":
            return {"better": "ahead", "worse": "behind"}.get(self.ahead, self.kind)
        return self.kind

    @property
    def outdone(self) -> bool:
        """Whether the second is behind in both ways: by a mean that a few of its own episodes carry, and by the share
        of episodes won. The first's mean is carried by none, and training was equal."""
        if self.kind != "unstable" or self.starved or self.contrast.carried[0]:
            return False
        return self.ahead == "better" and not self.contrast.estimate < 0

    @property
    def reason(self) -> str:
        """Why there is no verdict on the methods; empty where there is one."""
        return self.unstable or self.starved or ("" if self.adjusted.known else "no interval")

    @property
    def unstable(self) -> str:
        """Why the means have no verdict: "1 of 200 episodes carries 100 % of the mean of maml"; empty if they have."""
        sides = zip(self.contrast.carried, (self.first, self.second), strict=True)
        return " and ".join(f"{carried} of the mean of {name}" for carried, name in sides if carried)

    @property
    def tight(self) -> Interval:
        """The 90 % interval of this pair alone, which decides equivalence and non-inferiority."""
        return self.interval(level=1 - 2 * ALPHA)

    @property
    def equivalent(self) -> bool:
        """Whether the 90 % interval lies within the margin, also possible for a (small) significant difference."""
        return self.tight.within(self.margin)

    @property
    def as_good(self) -> bool:
        """Whether the lower end of the 90 % interval lies within the margin."""
        return self.tight.known and self.tight.low > -self.margin

    @property
    def shown(self) -> Interval:
        """The interval that decided: the 90 % one of an equivalent or non-inferior pair, else the adjusted one."""
        return self.tight if self.kind in WITHIN_MARGIN else self.adjusted

    def interval(self, scope: str | None = None, level: float = 0.95) -> Interval:
        """The unadjusted interval of this pair alone, in the verdict's scope or another."""
        return self.contrast.interval(scope or self.scope, level)

    @property
    def survives_new_classes(self) -> bool | None:
        """Whether the sign holds for other classes; None without classes or a significant sign."""
        if not self.ahead or self.contrast.unstable or "classes" not in self.contrast.scopes():
            return None
        return self.interval("classes").excludes_zero

    @property
    def need(self) -> Need | None:
        """The sample sizes that decide an undecided pair of this family; None if decided or unknown."""
        if self.kind not in ("undecided", "non-inferior", "no better") or self.scope not in self.contrast.scopes():
            return None
        membership = self.contrast.membership if self.scope == "classes" else None
        parts = components(self.contrast.values, membership)
        # methods that train nothing have one seed, and more episodes decide between them
        scope = "models" if self.scope == "methods" and not self.contrast.trained else self.scope
        return needed(self.contrast.estimate, self.margin, parts, scope, self.alpha / self.rivals)

    @property
    def mirrored(self) -> Verdict:
        """The same comparison seen from the second."""
        return dataclasses.replace(
            self,
            first=self.second,
            second=self.first,
            contrast=self.contrast.mirrored,
            adjusted=self.adjusted.mirrored,
        )

    def claim(self, as_good: bool = False) -> str:
        """What becomes of the claim that the first is better (or as good): "holds", "fails" or "undecided".

        "at this budget" follows where training was too unequal for a verdict on the methods."""
        side = {"ahead": "better", "behind": "worse"}.get(self.word, self.word)
        at_budget = " at this budget" if side != self.word else ""
        if side == "better" or (as_good and self.as_good and side in ("worse", "equivalent", "non-inferior")):
            return "holds" + at_budget
        return "fails" + at_budget if side == "worse" or (side == "equivalent" and not as_good) else "undecided"


class Unequal(NamedTuple):
    """Why two methods are not comparable; empty if they are.

    fewer: the one with too few examples, whose lead counts all the same. short: the under-trained ones, and what more
    training could add to each (`Scores.reach`), on the scale of contrasts."""

    reason: str = ""
    fewer: str = ""
    short: Mapping[str, float] = {}


def judge(
    couples: Sequence[tuple[str, str]],
    contrasts: Sequence[Contrast],
    metrics: Sequence[str],
    margins: Sequence[float],
    scope: str | None = None,
    starved: Sequence[Unequal] = (),
    alpha: float = ALPHA,
) -> list[Verdict]:
    """Verdicts of one family of pairs.

    margins: on the scale of the contrasts (`margin_on_scale`)
    scope: default: "methods" if every pair shares enough seeds, else "models"
    starved: for each pair, why it is not comparable"""
    if scope is None:
        scope = "methods" if contrasts and all("methods" in one.scopes() for one in contrasts) else "models"
    p_values = np.array([(c.wins if c.unstable else c).p_value(scope) for c in contrasts])
    adjusted = holm(p_values)
    rivals = max(1, int(np.count_nonzero(adjusted > alpha)))
    family = (couples, contrasts, metrics, margins, p_values, adjusted, *interval_levels(p_values, alpha))
    found = [
        Verdict(a, b, metric, one, scope, margin, p, p_holm, _drawn(one, scope, near, far), "", rivals, alpha)
        for (a, b), one, metric, margin, p, p_holm, near, far in zip(*family, strict=True)
    ]
    return [_with(pair, why) for pair, why in zip(found, starved or [Unequal()] * len(found), strict=True)]


def _with(pair: Verdict, why: Unequal) -> Verdict:
    """The verdict with the reason against it. None where the one behind can't reach the other with more training: it
    saw as many examples, and has stood still or is further behind than training could add."""
    ahead, behind = {"better": (pair.first, pair.second), "worse": (pair.second, pair.first)}.get(pair.ahead, ("", ""))
    gap = max(pair.adjusted.low, -pair.adjusted.high)
    settled = ahead and why.fewer in ("", ahead) and (behind not in why.short or gap > why.short[behind])
    return pair if settled or not why.reason else replace(pair, starved=why.reason)


def _drawn(one: Contrast, scope: str, near: float, far: float) -> Interval:
    """The interval with one level for its end next to zero and another for the far end."""
    plain = one.interval(scope, far)
    if near == far or not plain.known:
        return plain
    inner = quantile(one.degrees(scope), 0.5 + near / 2) * one.standard_error(scope)
    low = one.estimate - inner if one.estimate > 0 else plain.low
    high = one.estimate + inner if one.estimate < 0 else plain.high
    return Interval(one.estimate, low, high, far, scope)
