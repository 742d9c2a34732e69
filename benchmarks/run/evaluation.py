"""Testing a learner: every checkpoint of its fit, under every batch-norm regime, on the same test episodes.

One adaptation serves all regimes, since a regime belongs to the predictor. Scores go into arrays that are made
beforehand, so memory does not grow with the episodes that have been adapted to.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from benchmarks.api import Episodes, MetaLearner, Predictor, State, TaskDistribution, in_regime, regimes_of
from benchmarks.clock import Clock
from benchmarks.failed_adaptations import failed
from benchmarks.records.record import StepSummary
from benchmarks.run.fitting import episodes_at_once
from benchmarks.run.scoring import ConstantError, scored
from benchmarks.run.selection import Choice

#: two-sided 95 % of the normal distribution
Z95 = 1.959963984540054
#: the first test episodes, scored after every inner step, for the curves
CURVE_EPISODES = 100
#: the curves go at least this far for learners that take steps on labelled sets
CURVE_STEPS = 10


@dataclass
class Tested:
    """The scores of a checkpoint in one regime: arrays ``[episodes, queries]`` by number of inner steps (of the first
    `CURVE_EPISODES` episodes only, where a step isn't reported).

    lost: by step whether an answer of the episode is not a number, bool ``[episodes]``.
    environment_steps: taken by then for all episodes together. seconds: of adapting to all of them."""

    choice: Choice
    reported_steps: tuple[int, ...]
    scores: dict[int, np.ndarray] = field(default_factory=dict)
    lost: dict[int, np.ndarray] = field(default_factory=dict)
    environment_steps: dict[int, int] = field(default_factory=dict)
    seconds: float = 0.0

    @np.errstate(invalid="ignore", over="ignore")
    def summary(self, constant_error: float | None = None) -> tuple[StepSummary, ...]:
        """Mean, standard error and 95 % half-width over episodes after each number of inner steps, and how many
        adaptations have failed; an episode's score is the mean over its queries. A record writes numbers that are not
        finite as None."""
        rows = []
        for step, values in sorted(self.scores.items()):
            scores = values.astype(np.float64).mean(1)
            count, mean = len(scores), float(scores.mean())
            deviation = float(scores.std(ddof=1)) if count > 1 else math.nan
            error = deviation / math.sqrt(count)
            taken = self.environment_steps[step] / count if step in self.environment_steps else None
            lost = int(failed(scores, self.lost[step], constant_error).sum())
            rows.append(StepSummary(step, mean, error, Z95 * error, count, deviation, taken, lost))
        return tuple(rows)


@dataclass
class Evaluated:
    """All tests of a learner, by checkpoint and regime. items: ``classes`` and ``items`` ``[episodes, queries]`` of the
    test examples, None where every example is a new draw. exhibit: arrays for the figures, of the first test.
    constant_error: of the best constant on the test, for regression."""

    tests: dict[tuple[str, str], Tested]
    items: dict[str, np.ndarray] | None
    exhibit: dict[str, np.ndarray]
    tasks_at_once: int
    constant_error: float | None = None


def regimes_for(
    learner: MetaLearner, state: State, tasks: TaskDistribution, wanted: Sequence[str] = ()
) -> tuple[str, ...]:
    """The regimes to test under: those of the learner's predictor that are wanted (all, if none is), else its first."""
    one = tasks.episodes("validation", [0])
    found = regimes_of(next(learner.adapt(state, one.support, tasks)))
    return tuple(regime for regime in found if not wanted or regime in wanted) or found[:1]


def evaluate(
    learner: MetaLearner,
    states: Mapping[str, State],
    choices: Mapping[tuple[str, str], Choice],
    tasks: TaskDistribution,
    test: Mapping[str, Any],
    report: Callable[[dict[str, Any]], None] = lambda news: None,
    exhibited: bool = True,
) -> Evaluated:
    """Every score on the test episodes.

    states: by checkpoint. choices: for each checkpoint and regime to be tested. test: split, episodes and shots.
    exhibited: whether arrays for the figures are made too."""
    tests = {where: _begin(learner, choice) for where, choice in choices.items()}
    at_once = min(episodes_at_once(tasks, regime) for _, regime in choices)
    items: dict[str, np.ndarray] = {}
    exhibit: dict[str, np.ndarray] = {}
    constant = ConstantError()
    for indices in _chunks(test["episodes"], at_once):
        episodes = tasks.episodes(test["split"], indices, shots=test["shots"])
        constant.add(tasks, episodes.query)
        for model, adapted, group in _groups(learner, choices):
            _score(adapted, states[model], tasks, episodes, indices, {r: tests[model, r] for r in group}, test)
        if getattr(episodes.query, "classes", None) is not None:
            for name in ("classes", "items"):
                values = getattr(episodes.query, name).cpu().numpy()
                _put(items, name, indices, values, test["episodes"])
        if exhibited and indices.start == 0:
            exhibit = _exhibit(learner, states, choices, tests, tasks, test)
        report({"step": indices.stop, "steps": test["episodes"], "loss": None, "left": None})
    for tested in tests.values():
        reached = tuple(step for step in tested.reported_steps if step in tested.scores)
        tested.reported_steps = reached or (max(tested.scores),)  # a learner may end before its first reported step
    return Evaluated(tests, items or None, exhibit, at_once, constant.value)


def _begin(learner: MetaLearner, choice: Choice) -> Tested:
    with_fields = learner.replace(**choice.fields)
    return Tested(choice, tuple(with_fields.reported_steps()) if choice.steps is None else (choice.steps,))


def _groups(
    learner: MetaLearner, choices: Mapping[tuple[str, str], Choice]
) -> Iterator[tuple[str, MetaLearner, list[str]]]:
    """The adaptations that are needed: checkpoint, learner with the chosen fields, and the regimes that share it."""
    groups: dict[tuple[str, str], tuple[Choice, list[str]]] = {}
    for (model, regime), choice in choices.items():
        groups.setdefault((model, repr(dict(choice.fields))), (choice, []))[1].append(regime)
    for (model, _), (choice, regimes) in groups.items():
        yield model, learner.replace(**choice.fields), regimes


def _score(
    learner: MetaLearner,
    state: State,
    tasks: TaskDistribution,
    episodes: Episodes,
    indices: range,
    tests: Mapping[str, Tested],
    test: Mapping[str, Any],
) -> None:
    """Adapt to these episodes once and score the predictors under each of the regimes of ``tests``."""
    headline = max(tested.reported_steps[-1] for tested in tests.values())
    reported = {regime: set(tested.reported_steps) for regime, tested in tests.items()}
    furthest = max(max(steps) for steps in reported.values())
    curve = indices.start < CURVE_EPISODES
    if furthest > 0 and tasks.kind != "control" and curve:  # in control each step costs new environment steps
        furthest = max(furthest, CURVE_STEPS)
    clock = Clock(tasks.device)
    for step, predictor in timed(learner.adapt(state, episodes.support, tasks), clock, headline, furthest):
        played = getattr(episodes.support, "environment_steps", None)
        for regime, tested in tests.items():
            if not curve and step not in reported[regime]:
                continue
            with torch.no_grad():
                scores, lost = scored(tasks, in_regime(predictor, regime), episodes.query)
            total = test["episodes"] if step in reported[regime] else min(CURVE_EPISODES, test["episodes"])
            _put(tested.scores, step, indices, scores, total)
            _put(tested.lost, step, indices, lost, total)
            if played is not None:
                tested.environment_steps[step] = tested.environment_steps.get(step, 0) + played
    for tested in tests.values():
        tested.seconds += clock.total


def _put(arrays: dict[Any, np.ndarray], name: Any, indices: range, values: np.ndarray, total: int) -> None:
    """Write rows ``indices`` of an array that is made when its first rows come."""
    if name not in arrays:
        arrays[name] = np.empty((total, *values.shape[1:]), values.dtype)
    arrays[name][indices.start : indices.stop] = values


def _exhibit(
    learner: MetaLearner,
    states: Mapping[str, State],
    choices: Mapping[tuple[str, str], Choice],
    tests: Mapping[tuple[str, str], Tested],
    tasks: TaskDistribution,
    test: Mapping[str, Any],
) -> dict[str, np.ndarray]:
    """The figures' arrays of the first test: what its predictors make of a few episodes, after 0, 1 and all steps."""
    (model, regime), choice = next(iter(choices.items()))
    count = min(tasks.exhibited, test["episodes"])
    episodes = tasks.episodes(test["split"], range(count), shots=test["shots"])
    steps = {0, 1, tests[model, regime].reported_steps[-1]}
    adapted = learner.replace(**choice.fields).adapt(states[model], episodes.support, tasks)
    predictors = enumerate(itertools.islice(adapted, max(steps) + 1))
    shown = {step: in_regime(predictor, regime) for step, predictor in predictors if step in steps}
    return tasks.exhibit(shown, episodes)


def _chunks(episodes: int, at_once: int) -> Iterator[range]:
    bounds = sorted({*range(0, episodes, at_once), min(CURVE_EPISODES, episodes), episodes})
    return (range(first, end) for first, end in itertools.pairwise(bounds))


def timed(predictors: Iterator[Predictor], clock: Clock, until: int, last: int) -> Iterator[tuple[int, Predictor]]:
    """Number the predictors from 0 to ``last`` (or to the learner's end), with the clock running up to ``until``."""
    for step in range(last + 1):
        with clock if step <= until else contextlib.nullcontext():
            predictor = next(predictors, None)
        if predictor is None:
            return
        yield step, predictor
