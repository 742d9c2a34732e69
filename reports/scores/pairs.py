"""Pairwise differences: every pair of a column with its adjusted interval and its verdict."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

from benchmarks.stats import Comparison, Pair, TestProtocol
from reports import words
from reports.results import Results
from reports.scores.pair_sentences import pair_sentence

#: verdict -> what stands behind a difference in a matrix; one that is sure needs nothing
MARKS = {"equivalent": " =", "undecided": " ?"}


@dataclass(frozen=True)
class Square:
    """A cell of a matrix: the difference of row minus column, its verdict, and the whole sentence."""

    text: str
    verdict: str
    note: str


@dataclass(frozen=True)
class Matrix:
    """One column of the main table: who is what against whom, rows and columns in the order of the means."""

    title: str
    regime: str
    names: tuple[str, ...]
    labels: tuple[str, ...]
    squares: list[list[Square | None]]
    scope: str


def pairs_table(results: Results) -> pd.DataFrame:
    """One row per pair of each column: advantage of the first (points of accuracy, a factor of mean errors, or score
    units) with the adjusted interval that leaves zero (or 1) out if and only if the verdict is better or worse."""
    rows = []
    for protocol, judged in judged_columns(results):
        title = words.title(protocol, results.columns)
        metric = results.metric(protocol)
        for pair in judged.pairs:
            values = (pair.contrast.estimate, pair.adjusted.low, pair.adjusted.high)
            size, low, high = (shown(value, metric) for value in values)
            rows.append(
                {
                    "task": title,
                    "batch_norm": protocol.regime,
                    "first": pair.first,
                    "second": pair.second,
                    "verdict": verdict(judged, pair),
                    "advantage": size,
                    "low": low,
                    "high": high,
                    "unit": {"accuracy": "points", "squared error": "factor"}.get(metric, metric),
                    "p_holm": pair.p_holm,
                    "within_margin": pair.equivalent,
                    "survives_new_classes": pair.survives_new_classes,
                    "about": pair.scope,
                    "seeds": pair.contrast.seeds,
                    "episodes": pair.contrast.episodes,
                    "would_decide": str(need) if (need := judged.need(pair)) else None,
                }
            )
    return pd.DataFrame(rows)


def matrices(results: Results) -> list[Matrix]:
    """A matrix per column with at least two methods, in the order of the page."""
    found = []
    for protocol, judged in judged_columns(results):
        labels = {row.name: str(row.first["label"]) for column in results.compared for row in column.rows}
        metric = results.metric(protocol)
        squares = [[_square(judged, row, other, metric) for other in judged.names] for row in judged.names]
        title = words.title(protocol, results.columns)
        regime = "" if protocol.regime == "none" else words.REGIME_TITLES.get(protocol.regime, protocol.regime)
        named = tuple(labels[name] for name in judged.names)
        found.append(Matrix(title, regime, judged.names, named, squares, judged.scope))
    return found


def verdict(judged: Comparison, pair: Pair) -> str:
    """The word for it; where a fit of the pair is under-trained, "ahead" and "behind" for better and worse."""
    if {pair.first, pair.second} & set(judged.under_trained):
        return {"better": "ahead", "worse": "behind"}.get(pair.verdict, pair.verdict)
    return pair.verdict


def judged_columns(results: Results) -> list[tuple[TestProtocol, Comparison]]:
    """The columns in which there are pairs, in the order of the page."""
    found = [(column.protocol, results.verdicts[column.protocol]) for column in results.compared]
    return [(protocol, judged) for protocol, judged in found if isinstance(judged, Comparison) and judged.pairs]


def _square(judged: Comparison, row: str, other: str, metric: str) -> Square | None:
    if row == other or (row, other) in judged.unpaired or (other, row) in judged.unpaired:
        return None
    pair, word = judged.pair(row, other), judged.verdict(row, other)
    size = shown(pair.contrast.estimate if pair.first == row else -pair.contrast.estimate, metric)
    text = f"{size:.2f}×" if metric == "squared error" else f"{size:+.2f}".replace("-", "−")
    return Square(text + MARKS.get(word, ""), word, pair_sentence(pair, metric, judged.under_trained))


def shown(value: float, metric: str) -> float:
    """A difference on the scale of a contrast in the unit that is shown: a factor of errors, points of accuracy."""
    return math.exp(value) if metric == "squared error" else value * words.factor(metric)
