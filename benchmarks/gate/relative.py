"""The relative layer: base and head in two worktrees, timed in pairs of processes until every step is decided.

The two processes of a pair take turns, a block of a few milliseconds each. A shared machine becomes faster and slower
by tens of per cent within a second, so what two processes saw one after the other says little about the code
(docs/performance.md has the numbers).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.gate import checkouts, timed
from benchmarks.gate.decision import LOOKS, Decision, decide, noise

#: seconds that a pair of processes may take
PAIR_SECONDS = 240.0
#: blocks of each side in a pair, in turns; even, so that each side is as often the first
ROUNDS = 50
#: smallest change that counts, where it is not the default of 2 %; None: the default
THRESHOLDS: dict[str, float] = {}


@dataclass(frozen=True)
class Pair:
    """What two processes that took turns saw of a step. ratio: the median, over rounds, of head's time over base's;
    seconds: head's time in the shortest block."""

    ratio: float
    seconds: float


#: names of steps -> what one pair of processes saw of each, None where a side hasn't the step
Timer = Callable[[Sequence[str]], Mapping[str, Pair | None]]


@dataclass
class Series:
    """What the pairs of processes saw of one step; ``decision`` is the latest."""

    pairs: list[Pair] = field(default_factory=list)
    decision: Decision | None = None

    @property
    def open(self) -> bool:
        return self.decision is None or not self.decision.final


@dataclass(frozen=True)
class Finding:
    """The verdict on one step and how it was reached; noise is the spread of the pairs, seconds the time of head, None
    where it has none."""

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
    """Time pairs until every step is decided; what is slower is timed once more from the start before it counts.

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
        for name, seen in timer(asked).items():
            if seen is not None:
                series[name].pairs.append(seen)
        if pair + 1 in LOOKS:
            line(f"{pair + 1} pairs of processes")
            for name in asked:
                series[name].decision = _decide(series[name], thresholds.get(name))
    return series


def _decide(series: Series, threshold: float | None) -> Decision:
    if not series.pairs:
        nan = float("nan")
        return Decision("no baseline", nan, nan, nan, 0, True)
    arguments = () if threshold is None else (threshold,)
    return decide([pair.ratio for pair in series.pairs], *arguments)


def _finding(step: str, series: Series, repeated: bool = False) -> Finding:
    decision = series.decision or _decide(series, None)
    if not series.pairs:
        return Finding(step, decision, float("nan"), repeated)
    spread = noise([pair.ratio for pair in series.pairs])
    return Finding(step, decision, spread, repeated, statistics.median(pair.seconds for pair in series.pairs))


def time_pair(paths: Mapping[str, Path], names: Sequence[str], slower: float = 1.0) -> dict[str, Pair | None]:
    """What a fresh pair of processes sees of the code in ``paths`` ("base", "head"), by step.

    slower: head does planted work after every step, so that it lasts so many times as long."""
    script = Path(timed.__file__)
    with (
        checkouts.Conversation(script, paths["base"], names, PAIR_SECONDS) as base,
        checkouts.Conversation(script, paths["head"], names, PAIR_SECONDS, slower) as head,
    ):
        counts, of_head = base.hear(), head.hear()
        blocks: dict[str, list[tuple[float, float]]] = {name: [] for name in names if counts[name] and of_head[name]}
        for number in range(ROUNDS):
            for name, seen in blocks.items():
                asked = name, max(counts[name], of_head[name])
                order = (head, base) if number % 2 else (base, head)
                took = {side: side.ask(*asked) for side in order}
                seen.append((took[base], took[head]))
    found: dict[str, Pair | None] = dict.fromkeys(names)
    for name, seen in blocks.items():
        found[name] = Pair(statistics.median(h / b for b, h in seen), min(h for _, h in seen))
    return found
