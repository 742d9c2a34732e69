"""Verdicts as sentences. Every sentence says that it holds at this budget, and for which models or methods."""

from __future__ import annotations

import math

from benchmarks.stats.contrasts import SEEDS_FOR_METHODS, Interval
from benchmarks.stats.verdicts import Pair

#: scope -> what a verdict holds for
ABOUT = {
    "models": "for these trained models",
    "methods": "for the methods, over training seeds",
    "classes": "for these trained models, over classes",
}


def pair_sentence(pair: Pair, metric: str, under_trained: tuple[str, ...] = ()) -> str:
    """One sentence on a pair: verdict, size, interval and scope. It names no winner where a fit is under-trained."""
    size = size_of(pair, metric)
    about = f"at this budget, {about_of(pair)}"
    short = [name for name in (pair.first, pair.second) if name in under_trained]
    if short:
        names = " and ".join(short)
        return (
            f"{pair.first} against {pair.second}: {size}; no verdict, as {names} "
            f"{'is' if len(short) == 1 else 'are'} under-trained at this budget."
        )
    if pair.verdict in ("better", "worse"):
        winner, loser = (pair.first, pair.second) if pair.verdict == "better" else (pair.second, pair.first)
        but = f", but by less than the margin of {margin(pair.margin, metric)}" if pair.equivalent else ""
        return f"{winner} is better than {loser} by {size} {about}{but}.{_classes(pair)}"
    if pair.verdict == "equivalent":
        within = f"the difference of {size} is within the margin of {margin(pair.margin, metric)}"
        return f"{pair.first} and {pair.second} are equivalent {about}: {within}."
    if not pair.adjusted.known:
        return f"{pair.first} and {pair.second} can't be told apart: {_unknown(pair)}."
    return f"{pair.first} and {pair.second} can't be told apart {about}: {size}."


def about_of(pair: Pair) -> str:
    """The models or methods that the verdict of a pair holds for."""
    return ABOUT[pair.scope] if pair.contrast.trained or pair.scope != "methods" else "for methods that train nothing"


def size_of(pair: Pair, metric: str) -> str:
    """The size of a difference with its adjusted interval, seen from the larger side."""
    return f"{amount(pair.contrast.estimate, metric)} ({_interval(pair.adjusted, metric)})"


def amount(estimate: float, metric: str) -> str:
    """The size of a difference: points of accuracy, a ratio of mean errors, or score units."""
    if metric == "accuracy":
        return f"{100 * abs(estimate):.2f} points"
    if metric == "squared error":
        return f"a factor of {math.exp(abs(estimate)):.3f} in mean squared error"
    return f"{abs(estimate):.3g}"


def margin(limit: float, metric: str) -> str:
    """A margin on the scale of contrasts in the task's units."""
    if metric == "accuracy":
        return f"{100 * limit:.1f} points"
    return f"a factor of {math.exp(limit):.2f}" if metric == "squared error" else f"{limit:g}"


def _interval(interval: Interval, metric: str) -> str:
    return f"adjusted interval {ends(interval, metric)}" if interval.known else "no interval"


def ends(interval: Interval, metric: str) -> str:
    """``+0.12 to +1.48``: a known interval in the task's units, seen from the larger side."""
    low, high = (interval.low, interval.high) if interval.estimate >= 0 else (-interval.high, -interval.low)
    if metric == "accuracy":
        said = f"{100 * low:+.2f} to {100 * high:+.2f}"
    elif metric == "squared error":
        said = f"{math.exp(low):.3f} to {math.exp(high):.3f}"
    else:
        digits = decimals(high - low)
        said = f"{low:+.{digits}f} to {high:+.{digits}f}"
    return said.replace("-", "−")


def decimals(width: float) -> int:
    """The decimals that show three digits of an interval's width, the same at both ends."""
    return max(0, 3 - math.ceil(math.log10(width))) if width > 0 else 2


def _classes(pair: Pair) -> str:
    if pair.survives_new_classes is None:
        return ""
    return " It holds for other classes too." if pair.survives_new_classes else " It may not hold for other classes."


def _unknown(pair: Pair) -> str:
    if pair.contrast.episodes < 2:
        return "one shared episode gives no interval"
    if pair.scope == "methods":
        return f"{pair.contrast.seeds} shared seeds; {SEEDS_FOR_METHODS} are needed"
    return "there is no interval"
