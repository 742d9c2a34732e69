"""The relative layer: base and head in two worktrees, timed in pairs of processes until every step is decided.

The two processes of a pair alternate, a block of a few milliseconds each. The speed of a shared machine changes by tens
of per cent within a second, so times of two processes that run one after the other say little about the code
(docs/performance.md has the numbers).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.gate import checkouts, timed
from benchmarks.gate.decision import LOOKS, REPEAT_LOOKS, THRESHOLD, Decision, decide, noise

#: seconds that a pair of processes may take
PAIR_SECONDS = 240.0
#: blocks of each side in a pair; even, so that each side is first equally often
ROUNDS = 50
#: smallest change that counts, by step, if it is not the default
THRESHOLDS: dict[str, float] = {}


@dataclass(frozen=True)
class Pair:
    """The times of a step in two alternating processes.

    ratio: the median, over rounds, of head's time over base's.
    seconds: head's time in its shortest block."""

    ratio: float
    seconds: float


#: names of steps -> the times of each in one pair of processes, None if a side lacks the step
Timer = Callable[[Sequence[str]], Mapping[str, Pair | None]]


@dataclass
class Series:
    """The pairs of one step, and the latest decision."""

    pairs: list[Pair] = field(default_factory=list)
    decision: Decision | None = None

    @property
    def open(self) -> bool:
        return self.decision is None or not self.decision.final


@dataclass(frozen=True)
class Finding:
    """The verdict on one step and how it was reached.

    noise: the spread of the pairs.
    repeated: the step was slower at first, and this is the second series of pairs.
    seconds: the time of head; None if it was not timed."""

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
    """Time pairs until every step is decided.

    A slower step is timed again from the start, and that verdict counts. The repeat takes all of its pairs, however
    long it lasts: a disturbance can be the same through the few pairs of an early look.

    seconds: in the first series no pair after the third begins later; open steps can't be told then."""

    def timed(steps: Sequence[str], looks: Sequence[int], until: float) -> dict[str, Series]:
        return _series(timer, steps, looks, until, thresholds, line)

    found = {step: _finding(step, each) for step, each in timed(names, LOOKS, time.monotonic() + seconds).items()}
    suspects = [step for step, finding in found.items() if finding.decision.verdict == "slower"]
    if suspects:
        line(f"slower, so timed again with {REPEAT_LOOKS[-1]} pairs: {'; '.join(suspects)}")
        again = timed(suspects, REPEAT_LOOKS, float("inf"))
        found |= {step: _finding(step, series, repeated=True) for step, series in again.items()}
    return list(found.values())


def _series(
    timer: Timer,
    names: Sequence[str],
    looks: Sequence[int],
    until: float,
    thresholds: Mapping[str, float],
    line: Callable[[str], None],
) -> dict[str, Series]:
    """Pairs of each step until it is decided, which may be after any number in ``looks``."""
    series = {name: Series() for name in names}
    for pair in range(1, looks[-1] + 1):
        asked = [name for name, each in series.items() if each.open]
        if not asked or (pair > looks[0] and time.monotonic() > until):
            break
        for name, seen in timer(asked).items():
            if seen is not None:
                series[name].pairs.append(seen)
        if pair in looks:
            line(f"{pair} pairs of processes")
            for name in asked:
                series[name].decision = _decide(series[name], thresholds.get(name, THRESHOLD))
    return series


def _decide(series: Series, threshold: float) -> Decision:
    if not series.pairs:
        nan = float("nan")
        return Decision("no baseline", nan, nan, nan, 0, True)
    return decide([pair.ratio for pair in series.pairs], threshold)


def _finding(step: str, series: Series, repeated: bool = False) -> Finding:
    assert series.decision is not None
    if not series.pairs:
        return Finding(step, series.decision, float("nan"), repeated)
    spread = noise([pair.ratio for pair in series.pairs])
    return Finding(step, series.decision, spread, repeated, statistics.median(pair.seconds for pair in series.pairs))


def time_pair(paths: Mapping[str, Path], names: Sequence[str]) -> dict[str, Pair | None]:
    """Time steps in a fresh pair of processes, with the code in ``paths`` ("base", "head")."""
    script = Path(timed.__file__)
    with (
        checkouts.Conversation(script, paths["base"], names, PAIR_SECONDS) as base,
        checkouts.Conversation(script, paths["head"], names, PAIR_SECONDS) as head,
    ):
        of_base, of_head = base.hear(), head.hear()
        blocks: dict[str, list[tuple[float, float]]] = {name: [] for name in names if of_base[name] and of_head[name]}
        for number in range(ROUNDS):
            for name, seen in blocks.items():
                asked = name, max(of_base[name], of_head[name])
                order = (head, base) if number % 2 else (base, head)
                took = {side: side.ask(*asked) for side in order}
                seen.append((took[base], took[head]))
    found: dict[str, Pair | None] = dict.fromkeys(names)
    for name, seen in blocks.items():
        found[name] = Pair(statistics.median(h / b for b, h in seen), min(h for _, h in seen))
    return found
