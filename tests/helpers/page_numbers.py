"""The numbers of a page computed again from the files of a store, with numpy and scipy and nothing of the report or of
`benchmarks.stats`; and a reader of the page's tables."""

from __future__ import annotations

import functools
import itertools
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from reports import results, words
from reports.page.page import render

REGIMES = ("query", "support", "running", "single", "none")


class Store:
    """records: the headers; tests: the evaluations by (task, shots, model)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        found = [json.loads(path.read_text()) for path in sorted((folder / "records").glob("*.json"))]
        self.records = [record for record in found if record["cell"] in ("fit", "evaluation")]
        self.done = [r for r in self.records if r["cell"] == "evaluation" and r["status"] == "ok"]
        self.frames: dict[str, pd.DataFrame] = {}

    def of(self, test: tuple[str, int, str], label: str, regime: str) -> list[dict[str, Any]]:
        """The evaluations of a method in a column, lowest seed first; a method without batch-norm is in every one."""
        here = [r for r in self.done if self.stands(r, test) and r["label"] == label]
        here = [r for r in here if r["evaluation"]["regime"] in (regime, "none")]
        return sorted(here, key=lambda r: r["seed"])

    @staticmethod
    def test(record: dict[str, Any]) -> tuple[str, int, str]:
        evaluation = record["evaluation"]
        return evaluation["task_id"], evaluation["shots"], evaluation.get("model") or "best"

    def stands(self, record: dict[str, Any], test: tuple[str, int, str]) -> bool:
        """Whether an evaluation is of a test; what has no training is its own best and last model."""
        return self.test(record) == test or (not record["training"] and self.test(record)[:2] == test[:2])

    def column(self, test: tuple[str, int, str], regime: str) -> list[dict[str, Any]]:
        """One evaluation per method of a column."""
        here = [r for r in self.done if self.stands(r, test) and r["evaluation"]["regime"] in (regime, "none")]
        return list({r["label"]: r for r in here}.values())

    def learners(self, test: tuple[str, int, str], regime: str) -> list[str]:
        """The methods that are compared, the best mean first."""
        here = [r for r in self.column(test, regime) if role(r) == "learner"]
        sign = -1 if here[0]["task"]["higher_is_better"] else 1
        names = [r["label"] for r in here]
        return sorted(names, key=lambda name: (sign * self.scores(test, name, regime).mean(), name))

    def scores(self, test: tuple[str, int, str], label: str, regime: str, step: int | None = None) -> np.ndarray:
        """The score of each episode, ``[seeds, episodes]``, at the headline step or another."""
        found = []
        for record in self.of(test, label, regime):
            key = record["key"]
            if key not in self.frames:
                self.frames[key] = pd.read_parquet(self.folder / "scores" / f"{key}.parquet").astype({"score": float})
            frame = self.frames[key]
            wanted = record["evaluation"]["headline_step"] if step is None else step
            found.append(frame[frame["step"] == wanted].groupby("episode")["score"].mean().to_numpy())
        return np.array(found)

    def classes(self, test: tuple[str, int, str]) -> np.ndarray | None:
        """Whether an episode holds a cluster of classes that share drawings, ``[episodes, clusters]``."""
        digest = next((r["evaluation"]["episodes_digest"] for r in self.done if self.test(r) == test), None)
        if digest is None:
            return None
        frame = pd.read_parquet(self.folder / "episodes" / f"{digest}.parquet")
        cluster = {number: number for number in frame["class"].unique()}
        for _, group in frame.groupby("item"):
            joined = {cluster[number] for number in group["class"]}
            if len(joined) > 1:
                cluster = {n: min(joined) if c in joined else c for n, c in cluster.items()}
        table = pd.crosstab(frame["episode"], frame["class"].map(cluster))
        return (table.to_numpy() > 0).astype(float)


def role(record: dict[str, Any]) -> str:
    """Of a method: learner, floor or ceiling."""
    return str(record["method"]["facts"].get("role", "learner"))


def half_width(episodes: np.ndarray, level: float = 0.95) -> float:
    """Of Student's interval of the mean of ``[episodes]``."""
    return float(stats.t.ppf(0.5 + level / 2, len(episodes) - 1) * stats.sem(episodes))


def difference(first: np.ndarray, second: np.ndarray, metric: str) -> np.ndarray:
    """By how much the first is better in each episode; errors as the linearised logarithm of the ratio of means."""
    if metric != "squared error":
        return (first - second).mean(axis=0)
    a, b = first.mean(), second.mean()
    return (second / b - first / a + np.log(b / a)).mean(axis=0)


def class_interval(values: np.ndarray, holds: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Over other classes: variances of classes and of the rest from two quadratic forms with dense matrices."""
    count = len(values)
    weights = holds / holds.sum(axis=1, keepdims=True)
    centre = np.eye(count) - 1 / count
    gram, centred = weights @ weights.T, values - values.mean()
    design = [[np.trace(gram @ centre @ gram @ centre), np.trace(gram @ centre)], [np.trace(gram @ centre), count - 1]]
    classes, _ = np.linalg.solve(design, [centred @ gram @ centred, centred @ centred])
    classes = max(0.0, classes)
    rest = max(0.0, (centred @ centred - classes * np.trace(gram @ centre)) / (count - 1))
    variance = max(classes * (weights.sum(axis=0) ** 2).sum() / count**2 + rest / count, values.var(ddof=1) / count)
    reach = stats.t.ppf(0.5 + level / 2, holds.shape[1] - 1) * np.sqrt(variance)
    return values.mean() - reach, values.mean() + reach


def family(differences: list[np.ndarray]) -> pd.DataFrame:
    """Holm's test over pairs: estimate, p, p_holm, low, high (the drawn interval), apart."""
    p = np.array([stats.ttest_1samp(values, 0).pvalue if values.any() else 1.0 for values in differences])
    order, count, below = np.argsort(p, kind="stable"), len(p), 0.0
    rows: list[dict[str, float]] = [{} for _ in p]
    for place, index in enumerate(order):
        values = differences[index]
        below = max(below, min(1.0, (count - place) * p[index]))
        estimate, wide = values.mean(), half_width(values, 1 - 0.05 / count)
        near = half_width(values, 1 - 0.05 / (count - place)) if below <= 0.05 < count * p[index] else wide
        low, high = (estimate - near, estimate + wide) if estimate > 0 else (estimate - wide, estimate + near)
        rows[index] = {"estimate": estimate, "p_holm": below, "low": low, "high": high, "apart": below <= 0.05}
    return pd.DataFrame(rows, columns=["estimate", "p_holm", "low", "high", "apart"])


def paired(
    store: Store, test: tuple[str, int, str], regime: str, couple: tuple[str, str]
) -> tuple[np.ndarray, np.ndarray] | None:
    """The scores of two methods over the training seeds that both have; what trains nothing stands beside any seed."""
    records = [store.of(test, label, regime) for label in couple]
    seeds = [[record["seed"] for record in own] for own in records]
    trained = [set(own) for own, found in zip(seeds, records, strict=True) if any(r["training"] for r in found)]
    shared = sorted(set.intersection(*trained) if trained else {*seeds[0], *seeds[1]})
    if not shared:
        return None
    rows = [[own.index(seed) if seed in own else 0 for seed in shared] for own in seeds]
    return store.scores(test, couple[0], regime)[rows[0]], store.scores(test, couple[1], regime)[rows[1]]


def all_pairs(store: Store, test: tuple[str, int, str], regime: str) -> pd.DataFrame:
    """Every pair of a column with its verdict, the better mean first: columns of `family`, first, second, verdict."""
    names, column = store.learners(test, regime), store.column(test, regime)
    metric, margin = column[0]["task"]["metric"], column[0]["task"]["equivalence_margin"]
    limit = np.log(margin) if metric == "squared error" else margin
    sides = {couple: paired(store, test, regime, couple) for couple in itertools.combinations(names, 2)}
    couples = [couple for couple, both in sides.items() if both is not None]
    differences = [difference(*both, metric) for both in sides.values() if both is not None]
    frame = family(differences).assign(first=[a for a, _ in couples], second=[b for _, b in couples])
    within = [abs(d.mean()) + half_width(d, 0.9) < limit for d in differences]
    open_ = np.where(within, "equivalent", "undecided")
    return frame.assign(verdict=np.where(frame["apart"], "better", open_), values=differences, within=within)


def titles_of(store: Store) -> dict[str, tuple[str, int, str]]:
    """Title on the page -> task and shots."""
    found = sorted({store.test(record) for record in store.done})
    shots_of = {task: {shots for other, shots, _ in found if other == task} for task, _, _ in found}
    titles = {}
    for task, shots, model in found:
        title = f"{task}, {shots}-shot test" if len(shots_of[task]) > 1 else task
        titles[title + ", last model" * (model == "last")] = (task, shots, model)
    return titles


def regimes_of(store: Store, test: tuple[str, int, str]) -> list[str]:
    """The columns of a test that are compared, the one with most methods first."""
    found = {r["evaluation"]["regime"] for r in store.done if store.test(r) == test}
    kept = [name for name in REGIMES if name in found and (name != "none" or found == {"none"})]
    return sorted(kept, key=lambda name: -len(store.column(test, name)))


def unit(store: Store, test: tuple[str, int, str]) -> tuple[str, float, int]:
    """Metric, factor to what is shown, decimals."""
    metric = next(r["task"]["metric"] for r in store.done if store.test(r) == test)
    return metric, 100.0 if metric == "accuracy" else 1.0, 3 if metric == "squared error" else 2


def heading(store: Store, test: tuple[str, int, str], regime: str) -> str:
    """Of a column of scores: its regime, or what is measured where nobody in the test has batch-norm."""
    if {r["evaluation"]["regime"] for r in store.done if store.test(r) == test} != {"none"}:
        return words.REGIME_TITLES[regime]
    metric = unit(store, test)[0]
    return {"accuracy": "accuracy (%)", "squared error": "mean squared error"}.get(metric, metric)


def shown(store: Store, test: tuple[str, int, str], label: str, regime: str) -> str:
    _, factor, decimals = unit(store, test)
    episodes = factor * store.scores(test, label, regime).mean(axis=0)
    return f"{episodes.mean():.{decimals}f} ± {half_width(episodes):.{decimals}f}"


def short(record: dict[str, Any]) -> bool:
    """Whether the fit is under-trained: short of the published budget, and improving or below a tenth of it."""
    training = record["training"]
    if not training:
        return False
    share, improving = training["share"], training["still_improving"]
    return improving if share is None else share < 1 and (improving or share < 0.1)


def marked(store: Store, test: tuple[str, int, str], label: str, regime: str) -> bool:
    return any(short(record) for record in store.of(test, label, regime))


def on_page(value: float, metric: str) -> float:
    return np.exp(value) if metric == "squared error" else 100 * value if metric == "accuracy" else value


def digits_between(low: float, high: float) -> int:
    """The decimals of a return's interval: as many as show three digits of what lies between its ends."""
    return next(digits for digits in range(9) if (high - low) * 10**digits > 100)


class Page(HTMLParser):
    """tables: id (or class) -> rows of cells, each (text, data-value), several under one class in their order; cards:
    the text of each; text: what can be read outside of figures."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[list[tuple[str, str]]]]] = {}
        self.cards: list[str] = []
        self.text = ""
        self._rows: list[list[tuple[str, str]]] | None = None
        self._cell: list[str] | None = None
        self._value = ""
        self._silent: list[str] = []
        self._card = False
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        if tag in ("svg", "style", "script", "head"):
            self._silent.append(tag)
        elif tag == "article":
            self.cards.append("")
            self._card = True
        elif tag == "table":
            self._rows = []
            self.tables.setdefault(given.get("id") or given.get("class") or "", []).append(self._rows)
        elif tag == "tr" and self._rows is not None:
            self._rows.append([])
        elif tag in ("td", "th") and self._rows is not None:
            self._cell, self._value = [], given.get("data-value") or ""

    def handle_endtag(self, tag: str) -> None:
        if self._silent and self._silent[-1] == tag:
            self._silent.pop()
        elif tag == "article":
            self._card = False
        elif tag == "table":
            self._rows = None
        elif tag in ("td", "th") and self._rows is not None and self._cell is not None:
            self._rows[-1].append(("".join(self._cell).strip(), self._value))
            self._cell = None

    def handle_data(self, text: str) -> None:
        if self._silent:
            return
        self.text += text
        if self._card:
            self.cards[-1] += text
        if self._cell is not None:
            self._cell.append(text)

    def frame(self, name: str) -> pd.DataFrame:
        """A table with headings: the text of each cell."""
        head, *rows = self.tables[name][0]
        return pd.DataFrame([[text for text, _ in row] for row in rows], columns=[text for text, _ in head])

    def values(self, name: str) -> pd.DataFrame:
        """The same with the values that it is sorted by, empty strings as NaN and numbers as numbers."""
        head, *rows = self.tables[name][0]
        frame = pd.DataFrame([[value for _, value in row] for row in rows], columns=[text for text, _ in head])
        return frame.apply(lambda column: pd.to_numeric(column, errors="coerce").where(column != "", np.nan))


@functools.cache
def rendered(folder: Path) -> tuple[Page, list]:
    """The page of a store, and its figures; made once for all tests."""
    html, panels = render(results.load(folder))
    return Page(html), panels
