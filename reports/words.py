"""Units, decimals and titles, shared by page, terminal and figures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from benchmarks.records.record import Training
from benchmarks.stats import Interval, TestProtocol

#: metric -> (factor to the unit shown, decimals, unit after a mean, name of the axis)
METRICS: dict[str, tuple[float, int, str, str]] = {
    "accuracy": (100.0, 2, " %", "accuracy (%)"),
    "squared error": (1.0, 3, "", "mean squared error"),
    "return": (1.0, 2, "", "return"),
}

REGIME_TITLES = {
    "query": "batch-norm: query",
    "support": "batch-norm: support",
    "single": "batch-norm: single",
    "running": "batch-norm: running",
    "none": "no batch-norm",
}

REGIME_MEANINGS = {
    "query": "statistics of the query batch (transductive, as in the MAML paper's code)",
    "support": "statistics of the support set",
    "single": "statistics of the support set and one query at a time",
    "running": "statistics kept from meta-training",
    "none": "a predictor without batch-norm",
}

UNDER_TRAINED = "†"
MISSING = "–"
MINUS = "−"


def factor(metric: str) -> float:
    """The factor from a score to its unit on the page: 100 for accuracy, else 1."""
    return METRICS.get(metric, METRICS["return"])[0]


def axis(metric: str) -> str:
    """The name of the score axis, with its unit."""
    return METRICS[metric][3] if metric in METRICS else metric


def number(value: float, metric: str) -> str:
    """A score in its unit's decimals, without the unit."""
    if not math.isfinite(value):
        return "not a number"
    return fixed(value * factor(metric), METRICS.get(metric, METRICS["return"])[1])


def fixed(value: float, decimals: int = 3) -> str:
    """``0.381``; ``5.9e+20`` from a million on."""
    return minus(f"{value:.1e}" if abs(value) >= 1e6 else f"{value:.{decimals}f}")


def minus(text: str) -> str:
    """A number with a true minus."""
    return text.replace("-", MINUS)


def digits(value: float, count: int = 3) -> str:
    """A number in so many significant digits at most: ``0.0431``, ``94``, ``15,000``."""
    if not math.isfinite(value):
        return MISSING
    if value and not 1e-3 <= abs(value) < 1e6:
        return minus(f"{value:.1e}")
    return minus(f"{value:,.0f}" if abs(value) >= 10**count else f"{value:.{count}g}")


def plus_minus(interval: Interval, metric: str) -> str:
    """``91.30 ± 0.42``, or the mean alone where one episode gives no interval."""
    if not interval.known:
        return number(interval.estimate, metric)
    return f"{number(interval.estimate, metric)} ± {number(interval.half_width, metric)}"


def short(interval: Interval, metric: str) -> str:
    """Three significant digits of a mean, and as many decimals of its interval: ``94.0 ±0.7``, ``5.9e+20 ±1e+20``."""
    mean, half_width = (value * factor(metric) for value in (interval.estimate, interval.half_width))
    if not math.isfinite(mean):
        return "not a number"
    if mean and not 1e-4 <= abs(mean) < 1e6:
        return minus(f"{mean:.1e}" + (f" ±{half_width:.0e}" if interval.known else ""))
    decimals = max(0, 2 - math.floor(math.log10(abs(mean)))) if mean else 2
    told = minus(f"{mean:.{decimals}f}")
    return f"{told} ±{half_width:.{decimals}f}" if interval.known else told


def mean_with_unit(interval: Interval, metric: str) -> str:
    """``91.30 % ± 0.42``."""
    unit = METRICS.get(metric, METRICS["return"])[2]
    spread = f" ± {number(interval.half_width, metric)}" if interval.known else " (one episode: no interval)"
    if not math.isfinite(interval.estimate):
        return "not a number"
    return f"{number(interval.estimate, metric)}{unit}{spread}"


def published(value: float, half_width: float | None, metric: str) -> str:
    """A published number, with its interval if the source gives one."""
    return number(value, metric) + ("" if half_width is None else f" ± {number(half_width, metric)}")


def signed(value: float, metric: str) -> str:
    """A difference with its sign, a true minus."""
    text = number(abs(value), metric)
    return text if not math.isfinite(value) else (MINUS if value < 0 else "+") + text


def count(value: float | None, what: str, form: str = "{:,.0f}") -> str:
    """``1 seed``, ``2 seeds``, ``1,000 meta-steps``."""
    return f"{form.format(value)} {what}{'' if value == 1 else 's'}"


def listed(names: Sequence[str]) -> str:
    """``a, b and c``."""
    return ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else "".join(names)


def spread(values: Iterable[float | int | None], form: str = "{:,.0f}") -> str:
    """One value, or ``lowest–highest``; a dash if there are none."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    if not known:
        return MISSING
    low, high = form.format(min(known)), form.format(max(known))
    return low if low == high else f"{low}–{high}"


def duration(seconds: float | None) -> str:
    """``42 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if seconds is None or not math.isfinite(seconds):
        return MISSING
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def percent(share: float | None) -> str:
    """A share in percent with two significant digits: ``0.83 %``, ``12 %``."""
    if share is None or not math.isfinite(share):
        return MISSING
    value = 100 * share
    return f"{value:.0f} %" if value >= 10 else f"{value:.2g} %"


def of_budgets(training: Iterable[Training]) -> str:
    """``0.8 % to 21 % of the published budget, 40 % of this suite's``; empty where fits have no budget."""
    shares: dict[str, list[float]] = {}
    for fit in training:
        if fit.share is not None:
            whose = "of the published budget" if fit.of_published else "of this suite's budget"
            shares.setdefault(whose, []).append(fit.share)
    ends = {whose: dict.fromkeys(map(percent, (min(some), max(some)))) for whose, some in shares.items()}
    return ", ".join(f"{' to '.join(both)} {whose}" for whose, both in sorted(ends.items()))


def grouped(value: int | str) -> str:
    """A whole number as in 60,000; a range of such numbers as it is."""
    return value if isinstance(value, str) else f"{value:,}"


def title(column: TestProtocol, columns: Iterable[TestProtocol]) -> str:
    """The test of a column in words; shots, queries, split and data only where they tell two columns apart."""
    same_task = [other for other in columns if other.task == column.task]
    parts = [column.task]
    if len({other.shots for other in same_task}) > 1:
        parts.append(column.support if column.control else f"{column.support or 'no-shot'} test")
    if len({other.queries for other in same_task}) > 1:
        parts.append(count(column.queries, "query").replace("querys", "queries"))
    if len({other.split for other in same_task}) > 1:
        parts.append(f"{column.split} split")
    if len({other.data for other in same_task}) > 1:
        parts.append(f"data {column.data[:8] or 'unknown'}")
    if column.model == "last":
        parts.append("last checkpoint")
    return ", ".join(parts)


def without_batch_norm(column: TestProtocol, columns: Iterable[TestProtocol]) -> bool:
    """Whether no method of this test has batch-norm, so that regimes need not be named."""
    return all(other.regime == "none" for other in columns if other.test == column.test)


def in_regime(column: TestProtocol, columns: Iterable[TestProtocol], form: str = " · {}") -> str:
    """The batch-norm regime of a column in this form; empty where no method of its test has batch-norm."""
    columns = list(columns)
    return "" if without_batch_norm(column, columns) else form.format(REGIME_TITLES.get(column.regime, column.regime))


def slug(text: str) -> str:
    """A name for files and ids: ``omniglot-v1/5w1s`` is ``omniglot-v1-5w1s``."""
    return "-".join("".join(character if character.isalnum() else " " for character in text.lower()).split())


#: characters that LaTeX treats specially
LATEX = {
    **{character: rf"\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    UNDER_TRAINED: r"$\dagger$",
    "−": "$-$",
    MISSING: "--",
}


def latex(text: str) -> str:
    """Text for LaTeX."""
    return "".join(LATEX.get(character, character) for character in text)


def pipe_table(titles: Iterable[str], numeric: Iterable[bool], rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown. numeric: whether each column is right-aligned."""
    lines = [titles, ("---:" if right else ":---" for right in numeric), *rows]
    return "\n".join("| " + " | ".join(text.replace("|", "\\|") for text in line) + " |" for line in lines)
