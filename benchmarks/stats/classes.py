"""How much of a difference is due to the classes that the test split happens to have.

An N-way episode holds N classes, and a class moves its score in two ways: its own queries are easy or hard, and it
draws away the queries of the others. A mean per class of the query sees the first only; where confusion is mutual the
two are about equal, and such an interval is about half as wide as it must be (tests/test_stats_coverage.py shows it).

So the episode is the unit and its classes are what it is made of: its score is ``mean + sum over its classes of
effect / N + noise`` (a multiple-membership model: Browne, Goldstein and Rasbash, "Multiple membership multiple
classification models", Statistical Modelling 1 (2001); the sum of effects is the Hajek projection of a U-statistic of
degree N). The two variances come from two quadratic forms of the centred scores by the method of moments, with their
exact expectations, so that 20 classes, nearly any two episodes of which share one, give no bias. Confusion of pairs,
which is no sum, makes the variance too large rather than too small, as it does the jackknife's (Efron and Stein, "The
jackknife estimate of variance", Annals of Statistics 9 (1981)).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ClassComponents:
    """Variances of an episode's score: of a class's effect, and of what is left; and of the mean over episodes."""

    classes: float
    rest: float
    variance_of_mean: float


class Membership:
    """The classes of each test episode.

    classes: ``[episodes, queries]``, the class of each query. clusters: class -> what it counts as; classes that are
    turned copies of one character, say, are no independent draws (`clusters_by_item`).
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
        # traces of the centred design; sums of squares of shares, of their Gram matrix, and of what centring removes
        self._concentration = float(total @ total) / self.episodes**2
        self._trace = float(share.power(2).sum()) - float(total @ total) / self.episodes
        #: the part of the classes' variance that is found in the variance over episodes
        self.share = self._trace / max(1, self.episodes - 1)
        self._squared = (
            float(gram.power(2).sum())
            - 2.0 * float(total @ (gram @ total)) / self.episodes
            + float(total @ total) ** 2 / self.episodes**2
        )

        self._determinant = self._squared * (self.episodes - 1) - self._trace**2
        tell = self._determinant > 1e-9 * self._squared * self.episodes
        #: whether the variance of classes can be told from that of episodes: some episodes share a class, some do not
        self.recurring = bool(tell and self._squared > 1e-12)
        #: whether anything can be said about other classes; not so where every episode holds all of them
        self.drawn = self.recurring or len(columns) == self.count

    def components(self, values: np.ndarray) -> ClassComponents:
        """values: ``[episodes]``. The variance of the mean is never below that over episodes alone."""
        centred = values - values.mean()
        by_class = np.asarray(self._share.T @ centred)
        between, total = float(by_class @ by_class), float(centred @ centred)
        classes, rest = 0.0, total / (self.episodes - 1)
        # without classes that come back in other episodes nothing can be told apart, and nothing needs to be
        if self.recurring:
            classes = max(0.0, (between * (self.episodes - 1) - total * self._trace) / self._determinant)
            rest = max(0.0, (total - classes * self._trace) / (self.episodes - 1))
        alone = total / (self.episodes - 1) / self.episodes
        return ClassComponents(classes, rest, max(classes * self._concentration + rest / self.episodes, alone))


def clusters_by_item(classes: np.ndarray, items: np.ndarray) -> dict[int, int]:
    """Class -> the least class that shares an item with it, directly or through others.

    Turned copies of a character are classes of their own but made of the same drawings, so they are one cluster."""
    names, numbers = np.unique(np.ravel(classes), return_inverse=True)
    shown, which = np.unique(np.ravel(items), return_inverse=True)
    edges = np.unique(numbers.astype(np.int64) * len(shown) + which)
    if len(edges) == len(shown):  # nothing is shared
        return {int(name): int(name) for name in names}
    from scipy import sparse
    from scipy.sparse import csgraph

    ends = edges // len(shown), len(names) + edges % len(shown)
    graph = sparse.coo_array((np.ones(len(edges)), ends), shape=(len(names) + len(shown),) * 2)
    _, component = csgraph.connected_components(graph, directed=False)
    least: dict[int, int] = {}
    return {int(name): least.setdefault(int(component[i]), int(name)) for i, name in enumerate(names)}
