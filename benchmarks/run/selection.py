"""Choosing the adaptation fields and the number of inner steps of a learner on validation tasks."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.api import MetaLearner, State, TaskDistribution, in_regime
from benchmarks.run.scoring import ConstantError, robust, scored

#: every learner is tried after 0 to 10 inner steps, so that none is tuned more than the others
GRID_STEPS = 10


@dataclass(frozen=True)
class Choice:
    """Field values and a number of inner steps (None: the learner's own headline), picked from ``trials`` settings."""

    fields: Mapping[str, Any] = field(default_factory=dict)
    steps: int | None = None
    trials: int = 0

    @property
    def plain(self) -> dict[str, Any]:
        """The choice as a record holds it."""
        return {**self.fields, **({} if self.steps is None else {"steps": self.steps})}


def choose(
    learner: MetaLearner, state: State, tasks: TaskDistribution, episodes: int, regimes: Sequence[str]
) -> dict[str, Choice]:
    """For each batch-norm regime those of the learner's `settings` and the number of inner steps that score best on the
    first ``episodes`` validation tasks, by the robust score (`benchmarks.run.scoring.robust`): one task whose
    adaptation fails neither chooses a setting nor rules it out."""
    if (own := learner.choose(state, tasks, episodes)) is not None:
        return dict.fromkeys(regimes, Choice(own[0], None, own[1]))
    cut = tasks.episodes("validation", range(episodes))
    constant = ConstantError()
    constant.add(tasks, cut.query)
    best: dict[str, tuple[float, Choice]] = {regime: (-math.inf, Choice()) for regime in regimes}
    trials = 0
    for fields in settings(learner, tasks):
        adapted = learner.replace(**fields).adapt(state, cut.support, tasks)
        for step, predictor in enumerate(itertools.islice(adapted, GRID_STEPS + 1)):
            trials += 1
            for regime in regimes:
                scores, _ = scored(tasks, in_regime(predictor, regime), cut.query)
                score = float(robust(scores.astype(np.float64).mean(1), constant.value).mean())
                score = round(score if tasks.higher_is_better else -score, 12)  # equal accuracies stay equal
                if math.isfinite(score) and score > best[regime][0]:
                    best[regime] = score, Choice(fields, step)
    return {regime: dataclasses.replace(choice, trials=trials) for regime, (_, choice) in best.items()}


def settings(learner: MetaLearner, tasks: TaskDistribution) -> list[dict[str, Any]]:
    """The combinations of the learner's ``grid``, and before them its own values (no field) where the grid lacks a
    setting of the same facts: what is chosen validates at least as well as what is published."""
    found = [dict(zip(learner.grid, values, strict=True)) for values in itertools.product(*learner.grid.values())]
    own = learner.describe(tasks)
    known = any(learner.replace(**fields).describe(tasks) == own for fields in found)
    return found if known else [{}, *found]
