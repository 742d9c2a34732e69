"""The suite's own MAML and FOMAML, run as training runs them: through `MetaLearner.fit`.

Plans: "rule" is what a fit of the paper's length is given, the others are forced: "eager" with as many tasks per pass
as the rule has, "all" of them or "one"; "compiled"; and some that cost something else. Nothing is copied from the
method, so what is timed is what trains.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor

from benchmarks import registry
from benchmarks.api import Episodes, MetaLearner, Parameters, State
from benchmarks.cost.peers.adapter import META_LR, Adapter, Settings

#: how long a fit the rule is asked for: the paper's on Omniglot
META_STEPS = 60_000
#: by name, the words that force the plan; {all} is the number of tasks
PLANS = {
    "rule": "",
    "eager": "eager",
    "compiled": "compiled,tasks={all}",
    "all": "eager,tasks={all}",
    "one": "eager,tasks=1",
    "checkpointed": "eager,checkpointed",
}
#: those that only CUDA has
CUDA_PLANS = {
    "graph": "graph",
    "graph-tf32": "graph,tf32",
    "graph-bf16": "graph,bf16",
    "compiled-graph": "compiled-graph,tasks={all}",
}


class Implementation(Adapter):
    """MAML's registered method on a fixed batch of tasks."""

    plans: ClassVar[tuple[str, ...]] = tuple(PLANS)
    cuda_plans: ClassVar[tuple[str, ...]] = tuple(CUDA_PLANS)

    def __init__(self, plan: str = "rule") -> None:
        super().__init__(plan)
        self._facts: dict[str, Any] = {}
        self._words: dict[str, int] = {}
        self._planned: tuple[Any, Any] | None = None

    @classmethod
    def always_compiles(cls, plan: str) -> bool:
        return "compiled" in (PLANS | CUDA_PLANS)[plan]

    @property
    def compiles(self) -> bool:  # type: ignore[override]
        """Whether the first step did compile; known after it."""
        return bool(self._facts.get("compiled"))

    @property
    def is_program(self) -> bool:  # type: ignore[override]
        return bool(self._facts) and self._facts["mode"] != "eager"

    @property
    def reduced(self) -> bool:  # type: ignore[override]
        return bool(self._facts) and self._facts["precision"] != "float32"

    def facts(self) -> dict[str, Any]:
        facts = {name: value for name, value in self._facts.items() if name != "name"}
        return {"tasks_at_once": facts.get("tasks"), **facts}

    def in_one_thread(self) -> tuple[Adapter, int]:
        threads = int(self._facts.get("threads") or 1)
        if threads == 1:
            return self, 1
        alone = Implementation(self.plan)
        alone._words = {"tasks": self._facts["tasks"], "threads": 1}
        return alone, threads

    def meta_gradient(self, parameters: Parameters, episodes: Episodes, settings: Settings) -> Parameters:
        stream = self._stream(parameters, episodes, settings, self._uncompiled(episodes))
        return self.first_gradient(next(stream), parameters)

    def stepper(self, parameters: Parameters, episodes: Episodes, settings: Settings) -> Callable[[], Any]:
        stream = self._stream(parameters, episodes, settings, self._forced(episodes))
        return lambda: next(stream)

    def _stream(self, parameters: Parameters, episodes: Episodes, settings: Settings, forced: str) -> Iterator[State]:
        tasks = settings.workload.tasks(episodes)
        learner, self._facts = self._learner(episodes, settings).planned(tasks, META_STEPS, forced)
        self._planned = learner, tasks
        return learner.fit(tasks, 0, start=State(parameters=parameters))

    def peak_bytes(self) -> int | None:
        if self._planned is None:
            return None
        learner, tasks = self._planned
        held: int | None = learner.held_bytes(tasks)
        return held

    def _forced(self, episodes: Episodes) -> str:
        words = {**PLANS, **CUDA_PLANS}[self.plan].format(all=len(episodes.support)).split(",")
        kept = [word for word in words if word and word.partition("=")[0] not in self._words]
        return ",".join([*kept, *(f"{name}={number}" for name, number in self._words.items())])

    def _uncompiled(self, episodes: Episodes) -> str:
        """The plan as it is without torch's compiler, which translates the very function that the eager form calls. On
        CUDA the rule captures launches and compiles nothing."""
        words = self._forced(episodes).split(",")
        if self.plan == "rule" and episodes.query.x.device.type == "cpu":
            words.append("eager")
        without = {"compiled": "eager", "compiled-graph": "graph"}
        return ",".join(without.get(word, word) for word in words)

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
        )

    @torch.no_grad()
    def adapt(self, parameters: Parameters, episodes: Episodes, settings: Settings) -> Tensor:
        learner = self._learner(episodes, settings)
        tasks = settings.workload.tasks(episodes)
        learner, _ = learner.planned(tasks, 0, self._eager(episodes))
        count = len(episodes.support) if self.plan != "one" else 1
        state = State(parameters=parameters)
        outputs = []
        for first in range(0, len(episodes.support), count):
            predictors = learner.adapt(state, episodes.support[first : first + count], tasks)
            for _ in range(settings.inner_steps + 1):
                predictor = next(predictors)
            outputs.append(predictor(episodes.query.x[first : first + count])[0])
        return torch.cat(outputs)

    def _eager(self, episodes: Episodes) -> str:
        """The plan in its eager form, which is how tasks are adapted to at test."""
        words = [
            word for word in self._forced(episodes).split(",") if word.partition("=")[0] in ("tasks", "vmap", "loop")
        ]
        return ",".join(["eager", *words])
