"""Many pairs at once: Holm's step-down test, the levels of drawn intervals, ranks and letters."""

from __future__ import annotations

import string
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np

Name = TypeVar("Name", bound=Hashable)


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Adjusted p-values: a pair is rejected at level alpha if its own is at most alpha, and then the chance of any
    false rejection is at most alpha.

    The k-th smallest of m is multiplied with m - k + 1, and none is below one that is smaller before. NaN (no test)
    stays NaN and is not counted. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal
    of Statistics 6 (1979)."""
    values = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full(values.shape, np.nan)
    known = np.flatnonzero(~np.isnan(values))
    order = known[np.argsort(values[known], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(factors * values[order]))
    return adjusted


def interval_levels(p_values: Sequence[float] | np.ndarray, alpha: float = 0.05) -> tuple[np.ndarray, np.ndarray]:
    """The confidence levels of the two ends of each pair's drawn interval, the end next to zero and the far end, so
    that zero is outside if and only if Holm's test rejects.

    Both ends have the level 1 - alpha/m of Bonferroni, with one exception: a pair that Holm's test rejects and whose
    interval would reach over zero has its near end at the level 1 - alpha/(m - k + 1) that Holm's test grants the k-th
    smallest p-value."""
    values = np.asarray(p_values, dtype=np.float64)
    known = np.flatnonzero(~np.isnan(values))
    count = max(1, len(known))
    near, far = np.full(values.shape, 1 - alpha / count), np.full(values.shape, 1 - alpha / count)
    order = known[np.argsort(values[known], kind="stable")]
    rejected = holm(values)[order] <= alpha
    for place, pair in enumerate(order):
        if rejected[place] and values[pair] > alpha / count:
            near[pair] = 1 - alpha / (count - place)
    return near, far


def ranks(names: Iterable[Name], better: Collection[tuple[Name, Name]]) -> dict[Name, int]:
    """1 + the number of methods that are significantly better; better: pairs (winner, loser).

    "Can't be told apart" is not transitive, so ranks can be tied and can leave gaps."""
    return {name: 1 + sum(loser == name for _, loser in better) for name in names}


def letters(names: Sequence[Name], different: Collection[tuple[Name, Name]]) -> dict[Name, str]:
    """Compact letter display: two methods share a letter if and only if they are not significantly different.

    names: best first; the first has the letter a. different: the significant pairs, in either order. By insertion and
    absorption (Piepho, "An algorithm for a letter-based representation of all-pairwise comparisons", Journal of
    Computational and Graphical Statistics 13 (2004)); letters that tell nothing more are left out."""
    apart = {frozenset(pair) for pair in different}
    groups: list[frozenset[Name]] = [frozenset(names)]
    for pair in sorted(apart, key=lambda pair: sorted(names.index(name) for name in pair)):
        split = [group - {name} for group in groups if pair <= group for name in pair]
        kept = [group for group in groups if not pair <= group]
        # a group within another says nothing that the other does not say
        for group in split:
            if not any(group <= other for other in kept):
                kept = [other for other in kept if not other <= group] + [group]
        groups = kept
    groups.sort(key=lambda group: sorted(names.index(name) for name in group))
    return _lettered(names, _without_idle(groups))


def _without_idle(groups: list[frozenset[Name]]) -> list[frozenset[Name]]:
    """Groups without those whose every pair (and every member) is in another group too."""
    kept = list(groups)
    for group in reversed(groups):
        others = [other for other in kept if other is not group]
        pairs = [{a, b} for a in group for b in group]
        if all(any(pair <= other for other in others) for pair in pairs):
            kept = others
    return kept


def _lettered(names: Sequence[Name], groups: Sequence[frozenset[Name]]) -> dict[Name, str]:
    alphabet = string.ascii_letters
    marks = [alphabet[i] if i < len(alphabet) else f"({i + 1})" for i in range(len(groups))]
    return {name: "".join(mark for mark, group in zip(marks, groups, strict=True) if name in group) for name in names}


def top_group(ranked: Mapping[Name, int]) -> list[Name]:
    """The methods of rank 1: nobody is significantly better."""
    return [name for name, rank in ranked.items() if rank == 1]
