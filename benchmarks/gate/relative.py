"""The relative layer: base and head in two worktrees, timed in alternated processes until every step is decided."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.gate import checkouts, timed
from benchmarks.gate.decision import LOOKS, Decision, decide, noise

#: seconds that a process of `timed` may take
PROCESS_SECONDS = 120.0
#: smallest change that counts, where it is not the default of 2 %; None: the default
THRESHOLDS: dict[str, float] = {}

#: (side "base" or "head", names of steps) -> seconds of each, None where the side hasn't the step
Timer = Callable[[str, Sequence[str]], Mapping[str, float | None]]


@dataclass
class Series:
    """What the processes of both sides saw of one step, pair by pair; ``decision`` is the latest."""

    base: list[float] = field(default_factory=list)
    head: list[float] = field(default_factory=list)
    decision: Decision | None = None

    @property
    def open(self) -> bool:
        return self.decision is None or not self.decision.final


@dataclass(frozen=True)
class Finding:
    """The verdict on one step and how it was reached; noise is the spread of equal processes (of the base), seconds the
    time of head, None where it has none."""

    step: str
    decision: Decision
    noise: float
    repeated: bool = False
    seconds: float | None = None


def compare(
    timer: Timer,
    names: Sequence[str],
    seconds: float = float("inf"),
    thresholds: Mapping[str, float] = THRESHOLDS,
    line: Callable[[str], None] = lambda text: None,
) -> list[Finding]:
    """Time both sides until every step is decided; what is slower is timed once more from the start before it counts.

    seconds: no pair beyond the third is begun after so many (half of it the second time); what is open then can't be
    told."""
    end = time.monotonic() + seconds
    found = {step: _finding(step, series) for step, series in _alternate(timer, names, end, thresholds, line).items()}
    suspects = [step for step, finding in found.items() if finding.decision.verdict == "slower"]
    if suspects:
        line(f"slower, so timed once more: {'; '.join(suspects)}")
        again = _alternate(timer, suspects, time.monotonic() + seconds / 2, thresholds, line)
        found |= {step: _finding(step, series, repeated=True) for step, series in again.items()}
    return list(found.values())


def _alternate(
    timer: Timer, names: Sequence[str], end: float, thresholds: Mapping[str, float], line: Callable[[str], None]
) -> dict[str, Series]:
    series = {name: Series() for name in names}
    for pair in range(LOOKS[-1]):
        asked = [name for name, each in series.items() if each.open]
        if not asked or (pair >= LOOKS[0] and time.monotonic() > end):
            break
        # base first, then head first: a drift of the machine meets both
        for side in ("base", "head") if pair % 2 == 0 else ("head", "base"):
            for name, value in timer(side, asked).items():
                if value is not None:
                    getattr(series[name], side).append(value)
        if pair + 1 in LOOKS:
            line(f"{pair + 1} pairs of processes")
            for name in asked:
                series[name].decision = _decide(series[name], thresholds.get(name))
    return series


def _decide(series: Series, threshold: float | None) -> Decision:
    if not series.base or not series.head:
        nan = float("nan")
        return Decision("no baseline", nan, nan, nan, 0, True)
    pairs = min(len(series.base), len(series.head))
    arguments = () if threshold is None else (threshold,)
    return decide(series.base[:pairs], series.head[:pairs], *arguments)


def _finding(step: str, series: Series, repeated: bool = False) -> Finding:
    decision = series.decision or _decide(series, None)
    spread = noise(series.base) if series.base else float("nan")
    return Finding(step, decision, spread, repeated, statistics.median(series.head) if series.head else None)


def time_steps(checkout: Path, names: Sequence[str]) -> dict[str, float | None]:
    """What one fresh process sees of the code in ``checkout``: seconds per step by name."""
    found: dict[str, float | None] = checkouts.run_script(Path(timed.__file__), checkout, names, PROCESS_SECONDS)[
        "seconds"
    ]
    return found
