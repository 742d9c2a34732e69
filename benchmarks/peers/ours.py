"""The suite's own MAML and FOMAML, run as training runs them: through `MetaLearner.fit`.

A plan says how many tasks go through the network in one pass: "all" of them, "one", or as many as the "rule" of the
method says. Nothing is copied from the method, so what is timed is what trains.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor

from benchmarks import registry
from benchmarks.api import Episodes, MetaLearner, Parameters, State
from benchmarks.peers.adapter import META_LR, Adapter, Settings
from benchmarks.workloads import FixedTasks

#: 1 minus Adam's decay of the first moment: the share of the first meta-gradient that the moment holds after one step
_FIRST_SHARE = 1 - 0.9


class Implementation(Adapter):
    """MAML's registered method on a fixed batch of tasks."""

    plans: ClassVar[tuple[str, ...]] = ("rule", "all", "one")

    def __init__(self, plan: str = "rule") -> None:
        super().__init__(plan)
        self._tasks: FixedTasks | None = None

    def facts(self) -> dict[str, Any]:
        return {"tasks_at_once": max(self._tasks.passes) if self._tasks and self._tasks.passes else None}

    def meta_gradient(self, parameters: Parameters, episodes: Episodes, settings: Settings) -> Parameters:
        state = next(self._stream(parameters, episodes, settings))
        return {name: state.moments[f"{name}/exp_avg"] / _FIRST_SHARE for name in parameters}

    def stepper(self, parameters: Parameters, episodes: Episodes, settings: Settings) -> Callable[[], Any]:
        stream = self._stream(parameters, episodes, settings)
        return lambda: next(stream)

    def _stream(self, parameters: Parameters, episodes: Episodes, settings: Settings) -> Iterator[State]:
        self._tasks = settings.workload.tasks(episodes)
        learner = self._learner(episodes, settings)
        return learner.fit(self._tasks, 0, start=State(parameters=parameters))

    def _learner(self, episodes: Episodes, settings: Settings) -> MetaLearner:
        tasks = len(episodes.support)
        return registry.build_method(
            "maml" if settings.second_order else "fomaml",
            inner_lr=settings.workload.inner_lr,
            inner_steps=settings.inner_steps,
            test_steps=(settings.inner_steps,),
            meta_batch=tasks,
            meta_lr=META_LR,
            training_queries=settings.workload.queries,
            loss_scale="mean",
            adapt_normalisation=True,
            tasks_at_once={"rule": 0, "all": tasks, "one": 1}[self.plan],
        )

    @torch.no_grad()
    def adapt(self, parameters: Parameters, episodes: Episodes, settings: Settings) -> Tensor:
        learner = self._learner(episodes, settings)
        tasks = settings.workload.tasks(episodes)
        count = {"all": len(episodes.support), "one": 1}.get(self.plan) or self._at_once(len(episodes.support))
        state = State(parameters=parameters)
        outputs = []
        for first in range(0, len(episodes.support), count):
            predictors = learner.adapt(state, episodes.support[first : first + count], tasks)
            for _ in range(settings.inner_steps + 1):
                predictor = next(predictors)
            outputs.append(predictor(episodes.query.x[first : first + count])[0])
        return torch.cat(outputs)

    def _at_once(self, tasks: int) -> int:
        """What the rule came to in training; all where there was no training yet."""
        return max(self._tasks.passes) if self._tasks and self._tasks.passes else tasks
