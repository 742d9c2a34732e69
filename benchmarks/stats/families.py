"""Families of pairs: Holm's test, levels of drawn intervals, ranks and compact letter display."""

from __future__ import annotations

import string
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np

Name = TypeVar("Name", bound=Hashable)


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Adjusted p-values of Holm's step-down test; NaN (no test) stays NaN and does not count.

    The k-th smallest of m is multiplied by m - k + 1 and raised to its predecessor if below. Rejecting adjusted values
    of at most alpha keeps the chance of any false rejection at alpha. Holm, "A simple sequentially rejective multiple
    test procedure", Scandinavian Journal of Statistics 6 (1979)."""
    values = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full(values.shape, np.nan)
    known = np.flatnonzero(~np.isnan(values))
    order = known[np.argsort(values[known], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(factors * values[order]))
    return adjusted


def interval_levels(p_values: Sequence[float] | np.ndarray, alpha: float = 0.05) -> tuple[np.ndarray, np.ndarray]:
    """Confidence levels of each pair's drawn interval: for the end next to zero and for the far end.

    The drawn interval excludes zero if and only if Holm's test rejects. Both ends have Bonferroni's level 1 - alpha/m,
    with one exception. If Holm's test rejects a pair whose interval would include zero, the near end has the level 1 -
    alpha/(m - k + 1) that Holm's test grants to the k-th smallest p-value."""
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
    """Rank of each method: 1 + the number of significantly better ones. better: pairs (winner, loser).

    "Not significantly different" is not transitive, so ranks can be tied and leave gaps."""
    return {name: 1 + sum(loser == name for _, loser in better) for name in names}


def letters(names: Sequence[Name], different: Collection[tuple[Name, Name]]) -> dict[Name, str]:
    """Compact letter display: two methods share a letter if and only if they are not significantly different (pairs in
    either order). Names come best first; the first gets the letter a.

    Insertion and absorption (Piepho, "An algorithm for a letter-based representation of all-pairwise comparisons",
    Journal of Computational and Graphical Statistics 13 (2004)), without redundant letters."""
    apart = {frozenset(pair) for pair in different}
    groups: list[frozenset[Name]] = [frozenset(names)]
    for pair in sorted(apart, key=lambda pair: sorted(names.index(name) for name in pair)):
        split = [group - {name} for group in groups if pair <= group for name in pair]
        kept = [group for group in groups if not pair <= group]
        # a group within another adds no information
        for group in split:
            if not any(group <= other for other in kept):
                kept = [other for other in kept if not other <= group] + [group]
        groups = kept
    groups.sort(key=lambda group: sorted(names.index(name) for name in group))
    groups = _without_idle(groups)
    alphabet = string.ascii_letters
    marks = [alphabet[i] if i < len(alphabet) else f"({i + 1})" for i in range(len(groups))]
    return {name: "".join(mark for mark, group in zip(marks, groups, strict=True) if name in group) for name in names}


def _without_idle(groups: list[frozenset[Name]]) -> list[frozenset[Name]]:
    """Drop groups whose every pair (and every member) is in another group too."""
    kept = list(groups)
    for group in reversed(groups):
        others = [other for other in kept if other is not group]
        pairs = [{a, b} for a in group for b in group]
        if all(any(pair <= other for other in others) for pair in pairs):
            kept = others
    return kept


def top_group(ranked: Mapping[Name, int]) -> list[Name]:
    """Methods of rank 1: none is significantly better."""
    return [name for name, rank in ranked.items() if rank == 1]
