"""The quality layer: base and head train a few learners with the same seeds and are tested on the same episodes. It
fails if a score drops beyond its paired interval.

Both are trained on this machine, since rounding differs between machines. With one thread equal code gives equal scores
bit for bit, so a difference is due to the change. `LEAST` allows for a change of rounding alone (docs/performance.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks.errors import MetabenchError
from benchmarks.gate import checkouts, smoke
from benchmarks.stats import contrast, margin_on_scale

Verdict = Literal["better", "same", "worse", "cannot tell", "no baseline"]

#: seconds that the training of one side may take
PROCESS_SECONDS = 300.0
CONFIDENCE = 0.99
#: a smaller difference never counts: in log(error) for squared errors, else in the metric's units
LEAST = {"squared error": 0.02, "accuracy": 0.01}

#: the output of `smoke`: run -> scores and the facts that pair them
Scores = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Finding:
    """The verdict on one run.

    advantage: the difference by which head is better, in the metric's units (for squared errors the logarithm of a
    ratio), with its interval low, high.
    means: of base and head."""

    run: str
    verdict: Verdict
    message: str = ""
    advantage: float = float("nan")
    low: float = float("nan")
    high: float = float("nan")
    means: tuple[float, float] = (float("nan"), float("nan"))


def train(paths: Mapping[str, Path]) -> dict[str, Scores]:
    """Run `smoke` on the checkouts of "base" and "head" at the same time.

    A base that fails has no scores; a head that fails raises `MetabenchError`."""
    with ThreadPoolExecutor(2) as pool:
        running = {side: pool.submit(_train, paths[side]) for side in ("base", "head")}
    found: dict[str, Scores] = {"head": running["head"].result()}
    try:
        found["base"] = running["base"].result()
    except MetabenchError as error:
        found["base"] = {run: {"error": str(error)} for run in smoke.RUNS}
    return found


def _train(checkout: Path) -> Scores:
    return checkouts.run_script(Path(smoke.__file__), checkout, [], PROCESS_SECONDS)


def compare(base: Scores, head: Scores) -> list[Finding]:
    """One finding per run of `smoke`."""
    return [_finding(run, base.get(run, {"error": "not there"}), head[run]) for run in head]


def _finding(run: str, base: Mapping[str, Any], head: Mapping[str, Any]) -> Finding:
    if "error" in base:
        return Finding(run, "no baseline", f"the base can't be scored: {base['error']}")
    if "error" in head:
        return Finding(run, "worse", f"can't be scored any more: {head['error']}")
    if (base["task"], base["episodes"]) != (head["task"], head["episodes"]):
        return Finding(run, "no baseline", f"the test episodes differ ({base['task']}, {head['task']})")
    before, now = np.array(base["scores"]), np.array(head["scores"])
    if before.shape != now.shape or not np.isfinite(before).all():
        return Finding(run, "no baseline", "the base has no such scores")
    if not np.isfinite(now).all():
        return Finding(run, "worse", "scores are not finite any more")
    return judge(run, before, now, head["metric"], head["higher_is_better"], head["margin"])


def judge(run: str, before: np.ndarray, now: np.ndarray, metric: str, higher_is_better: bool, margin: float) -> Finding:
    """The verdict on the scores ``[seeds, episodes]`` of base and head.

    Worse (or better): the 99 % interval over episodes excludes zero, and the difference is above the least that counts.
    Same: the interval lies within the task's equivalence margin, or within that least difference."""
    advantage = contrast(now, before, metric=metric, higher_is_better=higher_is_better)
    interval, least = advantage.interval(level=CONFIDENCE), LEAST.get(metric, 0.0)
    verdict: Verdict = "cannot tell"
    if interval.excludes_zero and abs(interval.estimate) > least:
        verdict = "better" if interval.estimate > 0 else "worse"
    elif interval.within(max(least, margin_on_scale(margin, metric))):
        verdict = "same"
    means = (float(before.mean()), float(now.mean()))
    return Finding(run, verdict, "", interval.estimate, interval.low, interval.high, means)
