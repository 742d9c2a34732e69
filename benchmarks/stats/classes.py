"""Uncertainty of a difference that comes from the classes of the test split.

An N-way episode holds N classes. A class affects its score in two ways: its own queries are easy or hard, and it
attracts queries of other classes. A mean per class of the query sees only the first. With mutual confusion both are
about equal, and such an interval is about half as wide as it should be (tests/stats/test_stats_coverage.py).

So the episode is the unit, and its score is ``mean + sum over its classes of effect / N + noise``. This is a
multiple-membership model (Browne, Goldstein and Rasbash, "Multiple membership multiple classification models",
Statistical Modelling 1 (2001)). The sum of effects is the Hajek projection of a U-statistic of degree N. The method of
moments estimates both variances from two quadratic forms of the centred scores, with exact expectations. So 20 classes
cause no bias, although almost any two episodes then share one. Confusion between pairs of classes is not a sum of
effects. It makes the variance too large rather than too small, as in the jackknife (Efron and Stein, "The jackknife
estimate of variance", Annals of Statistics 9 (1981)).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ClassComponents:
    """Variances of an episode's score: of a class's effect, of the remainder, and of the mean over episodes."""

    classes: float
    rest: float
    variance_of_mean: float


class Membership:
    """The classes of each test episode, from the class of each query, ``[episodes, queries]``.

    clusters: class -> cluster; rotated copies of one character, for example, are not independent (`clusters_by_item`)
    """

    def __init__(self, classes: np.ndarray, clusters: dict[int, int] | None = None) -> None:
        from scipy import sparse

        classes = np.asarray(classes)
        if clusters is not None:
            known = np.array(sorted(clusters))
            counts_as = np.array([clusters[number] for number in known.tolist()])
            classes = counts_as[np.searchsorted(known, classes)]
        self.episodes = int(classes.shape[0])
        names, numbers = np.unique(classes, return_inverse=True)
        self.count = len(names)
        rows = np.repeat(np.arange(self.episodes), classes.shape[1])
        present = np.unique(rows * self.count + numbers.reshape(-1))
        rows, columns = np.divmod(present, self.count)
        way = np.bincount(rows, minlength=self.episodes)
        share = sparse.csr_array((1.0 / way[rows], (rows, columns)), shape=(self.episodes, self.count))
        gram = (share.T @ share).tocsr()
        total = np.asarray(share.sum(axis=0)).reshape(-1)
        self._share = share
        # traces of the centred design: sums of squares of shares and of their Gram matrix, less the part removed by
        # centring
        self._concentration = float(total @ total) / self.episodes**2
        self._trace = float(share.power(2).sum()) - float(total @ total) / self.episodes
        #: share of the class variance that appears in the variance over episodes
        self.share = self._trace / max(1, self.episodes - 1)
        self._squared = (
            float(gram.power(2).sum())
            - 2.0 * float(total @ (gram @ total)) / self.episodes
            + float(total @ total) ** 2 / self.episodes**2
        )
        self._determinant = self._squared * (self.episodes - 1) - self._trace**2
        tell = self._determinant > 1e-9 * self._squared * self.episodes
        #: whether the class variance is identifiable: some episodes share a class, others don't
        self.recurring = bool(tell and self._squared > 1e-12)
        #: whether other classes can be inferred about; not if every episode holds all classes
        self.drawn = self.recurring or len(columns) == self.count

    def components(self, values: np.ndarray) -> ClassComponents:
        """Variance components of values ``[episodes]``. The variance of the mean is at least that over episodes
        alone."""
        centred = values - values.mean()
        by_class = np.asarray(self._share.T @ centred)
        between, total = float(by_class @ by_class), float(centred @ centred)
        classes, rest = 0.0, total / (self.episodes - 1)
        # without recurring classes nothing can be separated, and nothing needs to be
        if self.recurring:
            classes = max(0.0, (between * (self.episodes - 1) - total * self._trace) / self._determinant)
            rest = max(0.0, (total - classes * self._trace) / (self.episodes - 1))
        alone = total / (self.episodes - 1) / self.episodes
        return ClassComponents(classes, rest, max(classes * self._concentration + rest / self.episodes, alone))


def clusters_by_item(classes: np.ndarray, items: np.ndarray) -> dict[int, int]:
    """Map each class to the smallest class that shares an item with it, directly or through others.

    Rotated copies of a character are separate classes made of the same drawings, so they form one cluster."""
    names, numbers = np.unique(np.ravel(classes), return_inverse=True)
    shown, which = np.unique(np.ravel(items), return_inverse=True)
    edges = np.unique(numbers.astype(np.int64) * len(shown) + which)
    if len(edges) == len(shown):  # no item is shared
        return {int(name): int(name) for name in names}
    from scipy import sparse
    from scipy.sparse import csgraph

    ends = edges // len(shown), len(names) + edges % len(shown)
    graph = sparse.coo_array((np.ones(len(edges)), ends), shape=(len(names) + len(shown),) * 2)
    _, component = csgraph.connected_components(graph, directed=False)
    least: dict[int, int] = {}
    return {int(name): least.setdefault(int(component[i]), int(name)) for i, name in enumerate(names)}
