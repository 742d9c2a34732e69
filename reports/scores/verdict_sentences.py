"""The wording of verdicts on pairs and on columns, for page, README, terminal and claims. Every sentence says that it
holds at this budget, and for which models or methods."""

from __future__ import annotations

import math

from benchmarks.stats.comparison import Comparison
from benchmarks.stats.contrasts import SEEDS_FOR_METHODS, Interval
from benchmarks.stats.verdicts import WITHIN_MARGIN, Verdict
from reports.words import listed

#: scope -> what a verdict holds for
ABOUT = {
    "models": "for these trained models",
    "methods": "for the methods, over training seeds",
    "classes": "for these trained models, over classes",
}
#: the same where no method is trained
UNTRAINED = {
    "models": "for methods that train nothing",
    "methods": "for methods that train nothing",
    "classes": "for methods that train nothing, over classes",
}

#: verdict on a column -> why no winner is named
UNNAMED = {"unstable": "a few episodes carry a mean", "starved": "short or unequal training"}
#: verdict on a column -> its badge on a card; headlines and answers begin with the same words
BADGES = {
    "winner": "better than every other",
    "tied": "no single winner",
    **{state: f"no winner named: {why}" for state, why in UNNAMED.items()},
    "single": "only one learner",
    "none": "no learner with a finite number",
}
#: verdict on a column -> its word in the overview
CHIPS = {
    "winner": "WINNER",
    "tied": "TIE",
    "unstable": "UNSTABLE",
    "starved": "TOO EARLY",
    "single": "ALONE",
    "none": "UNRANKED",
}
#: verdict on a column -> what its word means
CHIP_MEANINGS = {
    "winner": "one method is better than every other",
    "tied": "the best can't be told apart",
    "unstable": "a few episodes dominate a mean",
    "starved": UNNAMED["starved"],
}


def headline(comparison: Comparison | None) -> str:
    """The verdict on a column in one line; only "winner" says better, and no other word stands for a winner."""
    if comparison is None or comparison.state == "none":
        return "No finite number"
    first, state = comparison.names[0], comparison.state
    if state == "single":
        return f"Only {first} was measured"
    said = {
        "winner": f"{first} is better than every other at this budget",
        "tied": f"No single winner at this budget: {_top(comparison)}",
        "unstable": f"No winner named: {UNNAMED['unstable']}",
        "starved": f"No winner named: {first} has the best mean at this budget{_so_far(comparison)}",
    }
    return f"{said[state]}, {about(comparison)}"


def _so_far(comparison: Comparison) -> str:
    """How many others the best mean already beats, although no winner can be named; empty for none."""
    beaten, others = comparison.beaten_by(comparison.names[0]), len(comparison.names) - 1
    return f" and is better than {len(beaten)} of {others} others" if beaten else ""


def about(comparison: Comparison) -> str:
    """The models or methods that the verdict on a column holds for."""
    trained = any(scores.trained for scores in comparison.scores.values())
    return ABOUT[comparison.scope] if trained else UNTRAINED[comparison.scope]


def _top(comparison: Comparison) -> str:
    top = comparison.top
    return f"{listed(top)} can't be told apart" if len(top) > 1 else f"{top[0]} is not better than every other"


def sentence(verdict: Verdict) -> str:
    """One sentence on two methods: verdict, size, interval and scope, with the reason where there is no verdict."""
    if verdict.kind == "no better":
        return sentence(verdict.mirrored)
    first, second = verdict.first, verdict.second
    size, about = size_of(verdict), f"at this budget, {about_of(verdict)}"
    if verdict.word in ("better", "worse", "ahead", "behind"):
        leader, other = (first, second) if verdict.word in ("better", "ahead") else (second, first)
        if verdict.starved:
            return f"{leader} is ahead of {other} by {size} {about}. No verdict on the methods: {verdict.reason}."
        but = f", but by less than the margin of {margin(verdict)}" if verdict.equivalent else ""
        return f"{leader} is better than {other} by {size} {about}{but}.{_classes(verdict)}"
    if verdict.kind == "unstable":
        return f"{first} against {second}: unstable, since {verdict.reason}. {won(verdict)} {about}."
    if verdict.kind == "not comparable":
        return f"{first} against {second}: {size}. No verdict on the methods: {verdict.reason}."
    if not verdict.adjusted.known:
        return f"{first} and {second} can't be told apart: {_unknown(verdict)}."
    if verdict.kind == "equivalent":
        return f"{first} and {second} are equivalent {about}: {size} is within the margin of {margin(verdict)}."
    need = f" Undecided: it would take {verdict.need}." if verdict.need is not None else ""
    if verdict.kind == "non-inferior":
        return f"{first} is as good as {second} {about}: {size}, margin {margin(verdict)}; better is not shown.{need}"
    return f"{first} and {second} can't be told apart {about}: {size}.{need}"


def won(verdict: Verdict) -> str:
    """``A wins 83 % (78 to 88 %) of the episodes``, the side that wins more first."""
    ahead = verdict if verdict.contrast.won().estimate >= 0.5 else verdict.mirrored
    share = ahead.contrast.won(ahead.scope)
    between = f" ({100 * share.low:.0f} to {100 * share.high:.0f} %)" if share.known else ""
    return f"{ahead.first} wins {100 * share.estimate:.0f} %{between} of the episodes"


def about_of(verdict: Verdict) -> str:
    """The models or methods that a verdict holds for."""
    return (ABOUT if verdict.contrast.trained else UNTRAINED)[verdict.scope]


def size_of(verdict: Verdict) -> str:
    """The size of a difference with the interval that decided, seen from the larger side."""
    return f"{amount(verdict.contrast.estimate, verdict.metric)} ({_interval(verdict)})"


def amount(estimate: float, metric: str) -> str:
    """The size of a difference: points of accuracy, a ratio of mean errors, or score units."""
    if metric == "accuracy":
        return f"{100 * abs(estimate):.2f} points"
    if metric == "squared error":
        return f"a factor of {math.exp(abs(estimate)):.3f} in mean squared error"
    return f"{abs(estimate):.3g}"


def margin(verdict: Verdict) -> str:
    """The margin in the task's units."""
    if verdict.metric == "accuracy":
        return f"{100 * verdict.margin:.1f} points"
    return f"a factor of {math.exp(verdict.margin):.2f}" if verdict.metric == "squared error" else f"{verdict.margin:g}"


def _interval(verdict: Verdict) -> str:
    if not verdict.shown.known:
        return "no interval"
    name = "90 % interval" if verdict.kind in WITHIN_MARGIN else "adjusted interval"
    return f"{name} {ends(verdict.shown, verdict.metric)}"


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


def _classes(verdict: Verdict) -> str:
    if verdict.survives_new_classes is None:
        return ""
    return " It holds for other classes too." if verdict.survives_new_classes else " It may not hold for other classes."


def _unknown(verdict: Verdict) -> str:
    if verdict.contrast.episodes < 2:
        return "one shared episode gives no interval"
    if verdict.scope == "methods":
        return f"{verdict.contrast.seeds} shared seeds; {SEEDS_FOR_METHODS} are needed"
    return "there is no interval"
