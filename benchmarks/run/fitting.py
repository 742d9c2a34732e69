"""Running a fit: the clock, the budget, validation, the best state and checkpoints.

What is in `Progress` is all that a fit needs to go on after it was killed: the learner's own state, the best state so
far, and what has been measured.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.api import Diverged, MetaLearner, State, TaskDistribution
from benchmarks.clock import Clock
from benchmarks.failed_adaptations import failed
from benchmarks.run.scoring import ConstantError, robust, scored

#: seconds of training between two checkpoints
CHECKPOINT_EVERY = 30.0
#: seconds between two lines of progress
REPORT_EVERY = 0.25


@dataclass
class Progress:
    """A fit so far: states, step times in seconds, losses, and one row of the learning curve per validation.

    validation_scores: of each validation its episodes, as selection counts them (`benchmarks.run.scoring.robust`)."""

    state: State | None = None
    best_state: State | None = None
    best: dict[str, Any] = field(default_factory=dict)
    curve: list[dict[str, Any]] = field(default_factory=list)
    validation_scores: list[list[float]] = field(default_factory=list)
    step_seconds: array[float] = field(default_factory=lambda: array("f"))
    losses: array[float] = field(default_factory=lambda: array("f"))
    seconds: float = 0.0
    stopped_by: str = "budget"
    #: the plan that it began with, as for the record, and the seconds that settling it took in all processes
    plan: dict[str, Any] = field(default_factory=dict)
    planning_seconds: float = 0.0

    def plain(self) -> dict[str, Any]:
        """Plain values that `torch.save` can write and `torch.load` reads back with ``weights_only=True``."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        values["state"] = self.state and vars(self.state.copy())
        values["best_state"] = self.best_state and vars(self.best_state)
        values["step_seconds"], values["losses"] = self.step_seconds.tolist(), self.losses.tolist()
        return values

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Progress:
        """The progress that `plain` wrote."""
        values = dict(plain)
        for name in ("state", "best_state"):
            values[name] = values[name] and State(**values[name])
        for name in ("step_seconds", "losses"):
            values[name] = array("f", values[name])
        return cls(**values)


def fit_config(learner: MetaLearner) -> dict[str, Any]:
    """The part of the configuration that a fit depends on: all but the fields of adaptation."""
    adaptation = adaptation_fields(learner)
    return {name: value for name, value in learner.config().items() if name not in adaptation}


def adaptation_fields(learner: MetaLearner) -> tuple[str, ...]:
    """The names of the fields that a fit does not depend on."""
    return tuple(field.name for field in dataclasses.fields(learner) if field.metadata.get("stage") == "adaptation")


def planned(
    learner: MetaLearner, tasks: TaskDistribution, meta_steps: int, forced: str, progress: Progress
) -> MetaLearner:
    """The learner with its plan settled: that of a fit which goes on, else what is forced or what the rule says."""
    clock = Clock(tasks.device)
    with clock:
        learner, plan = learner.planned(tasks, meta_steps, progress.plan.get("name") or forced)
    progress.plan = progress.plan or plan
    progress.planning_seconds += clock.total
    return learner


def validation_scores(
    learner: MetaLearner, state: State, tasks: TaskDistribution, episodes: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each validation episode at the headline step, ``[episodes]``: its score, its robust score, and whether the
    adaptation has failed. The same episodes at every call."""
    found, constant = [], ConstantError()
    headline = learner.reported_steps()[-1]
    for first in range(0, episodes, chunk := episodes_at_once(tasks, "query")):
        cut = tasks.episodes("validation", range(first, min(first + chunk, episodes)))
        predictors = learner.adapt(state, cut.support, tasks)
        *_, predictor = itertools.islice(predictors, headline + 1)  # the last one of an adaptation that ends before
        found.append(scored(tasks, predictor, cut.query))
        constant.add(tasks, cut.query)
    scores = np.concatenate([scores.astype(np.float64).mean(1) for scores, _ in found])
    lost = np.concatenate([lost for _, lost in found])
    return scores, robust(scores, constant.value), failed(scores, lost, constant.value)


def episodes_at_once(tasks: TaskDistribution, regime: str) -> int:
    """How many episodes go through in one pass: few where a network's activations would leave the cache (CPU) or the
    memory (GPU)."""
    way = tasks.outputs if tasks.kind == "classification" else 1
    fields = tasks.config()
    queries, shot = fields.get("queries", 20), fields.get("shot", 10)
    examples = way * (shot + queries) if regime != "single" else way * queries * (way * shot + 1)
    numbers = examples * math.prod(tasks.input_shape)
    limit = 500_000 if tasks.device == "cpu" else 100_000_000
    return max(1, min(100, limit // max(numbers, 1)))


def train(
    learner: MetaLearner,
    tasks: TaskDistribution,
    seed: int,
    budget: Mapping[str, Any],
    progress: Progress,
    report: Callable[[dict[str, Any]], None],
    checkpoint: Callable[[Progress], None],
) -> Progress:
    """Train to the end of the budget, from where ``progress`` stands, or until validation has `stood_still`.

    budget: as in a record; ``patience`` only where a standstill ends training.
    The clock runs during meta-steps only: validation, reports and checkpoints don't count."""
    stream = learner.fit(tasks, seed, start=progress.state)
    steps, every = budget["meta_steps"], max(1, budget["meta_steps"] // budget["validations"])
    clock, saved, reported = Clock(tasks.device), time.monotonic(), 0.0
    step = progress.state.step if progress.state else 0
    while step < steps:
        if progress.seconds >= budget["seconds"]:
            progress.stopped_by = "seconds"
            break
        with clock:
            state = next(stream, None)
        if state is None:
            break
        step = state.step
        progress.state = state
        progress.seconds += clock.laps[-1]
        progress.step_seconds.append(clock.laps[-1])
        progress.losses.append(math.nan if state.loss is None else state.loss)
        if state.loss is not None and not math.isfinite(state.loss):
            raise Diverged(f"training loss is {state.loss} at meta-step {step}")
        now = time.monotonic()
        if step % every == 0 or step == steps:
            _validate(learner, tasks, budget["validation_episodes"], progress)
            if stood_still(progress, budget.get("patience", 1.0) * steps, tasks.higher_is_better):
                progress.stopped_by = "standstill"
                break
        if now - reported >= REPORT_EVERY:
            reported = now
            left = max(0.0, min((steps - step) * progress.seconds / step, budget["seconds"] - progress.seconds))
            report({"step": step, "steps": steps, "loss": state.loss, "left": left, "best": progress.best.get("score")})
        if now - saved >= CHECKPOINT_EVERY:
            checkpoint(progress)
            saved = time.monotonic()
    if progress.state is not None and (not progress.curve or progress.curve[-1]["step"] != step):
        _validate(learner, tasks, budget["validation_episodes"], progress)
    return progress


@np.errstate(invalid="ignore", over="ignore")
def _validate(learner: MetaLearner, tasks: TaskDistribution, episodes: int, progress: Progress) -> None:
    assert progress.state is not None
    state = progress.state
    scores, counted, lost = validation_scores(learner, state, tasks, episodes)
    score, worth = float(scores.mean()), float(counted.mean())
    row = {
        "step": state.step,
        "seconds": progress.seconds,
        "examples": state.examples,
        "environment_steps": state.environment_steps,
        "loss": float(np.mean(progress.losses[-100:])),
        "score": score if math.isfinite(score) else None,
        "standard_error": float(scores.std(ddof=1) / math.sqrt(len(scores))) if len(scores) > 1 else None,
        "robust": worth if math.isfinite(worth) else None,
        "failed": int(lost.sum()),
    }
    progress.curve.append(row)
    progress.validation_scores.append([float(value) for value in counted])
    best = progress.best.get("score")
    if math.isfinite(worth) and (best is None or (worth > best if tasks.higher_is_better else worth < best)):
        progress.best = {"step": state.step, "score": worth}
        progress.best_state = state.copy()


def stood_still(progress: Progress, meta_steps: float, higher_is_better: bool) -> bool:
    """Whether no state of the last ``meta_steps`` was the best, and validation is not `still_improving`."""
    reached = progress.state.step if progress.state else 0
    waited = reached - progress.best.get("step", reached)
    return waited >= meta_steps and not still_improving(progress, higher_is_better)


def still_improving(progress: Progress, higher_is_better: bool) -> bool:
    """Whether validation was better in the last quarter of training than in the quarter before, by more than twice the
    standard error of the difference, paired over the validation episodes (docs/protocol.md)."""
    steps = np.array([row["step"] for row in progress.curve])
    scores = np.array(progress.validation_scores)
    last = steps[-1] if len(steps) else 0
    late, before = steps > 0.75 * last, (steps > 0.5 * last) & (steps <= 0.75 * last)
    if not late.any() or not before.any():
        return True
    difference = scores[late].mean(0) - scores[before].mean(0)
    gain = difference.mean() if higher_is_better else -difference.mean()
    return bool(gain > 2 * difference.std(ddof=1) / math.sqrt(len(difference)))
