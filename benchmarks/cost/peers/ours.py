"""The suite's own learners, MAML and FOMAML first, run as in training: through `MetaLearner.fit`.

Plans: "rule" is the plan of a fit of the paper's length. The others are forced: "eager" with the rule's number of
tasks per pass, with "all" tasks or "one"; "compiled"; and some with another cost. No code of the method is copied here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from benchmarks.api import Episodes, Parameters, State
from benchmarks.cost import learners
from benchmarks.cost.peers.adapter import Adapter, Settings
from benchmarks.errors import Unavailable

#: length of the fit that the rule plans for: the paper's on Omniglot
META_STEPS = 60_000
#: stands for all tasks of the meta-batch
ALL = 0

#: the fields of `benchmarks.execution.plans.Plan` that a plan forces
Fields = Mapping[str, Any]
PLANS: dict[str, Fields] = {
    "rule": {},
    "eager": {"mode": "eager"},
    "compiled": {"mode": "compiled", "tasks": ALL},
    "all": {"mode": "eager", "tasks": ALL},
    "one": {"mode": "eager", "tasks": 1},
    "checkpointed": {"mode": "eager", "checkpointed": True},
}
CUDA_PLANS: dict[str, Fields] = {
    "graph": {"mode": "graph"},
    "graph-tf32": {"mode": "graph", "precision": "tf32"},
    "graph-bf16": {"mode": "graph", "precision": "bf16"},
    "compiled-graph": {"mode": "compiled-graph", "tasks": ALL},
}
#: modes of torch's compiler, and the modes that call the same function without it
UNCOMPILED = {"compiled": "eager", "compiled-graph": "graph"}


class Implementation(Adapter):
    """The registered learner on a fixed batch of tasks."""

    plans: ClassVar[tuple[str, ...]] = tuple(PLANS)
    cuda_plans: ClassVar[tuple[str, ...]] = tuple(CUDA_PLANS)
    learners: ClassVar[tuple[str, ...]] = tuple(learners.LEARNERS)

    def __init__(self, plan: str = "rule") -> None:
        super().__init__(plan)
        self.forced = {**PLANS, **CUDA_PLANS}[plan]
        self._facts: dict[str, Any] = {}
        self._planned: tuple[Any, Any] | None = None

    @classmethod
    def always_compiles(cls, plan: str) -> bool:
        return (PLANS | CUDA_PLANS)[plan].get("mode") in UNCOMPILED

    @property
    def compiles(self) -> bool:  # type: ignore[override]
        """Whether the first step compiled; known after it."""
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
        alone.forced = {**self.forced, "tasks": self._facts["tasks"], "threads": 1}
        return alone, threads

    def meta_gradient(self, parameters: Parameters, episodes: Episodes, settings: Settings) -> Parameters:
        stream = self._stream(parameters, episodes, settings, self.uncompiled(episodes.query.x.device.type))
        return self.first_gradient(next(stream), parameters)

    def stepper(self, parameters: Parameters, episodes: Episodes, settings: Settings) -> Callable[[], Any]:
        stream = self._stream(parameters, episodes, settings, self.forced)
        return lambda: next(stream)

    def _stream(
        self, parameters: Parameters, episodes: Episodes, settings: Settings, forced: Fields
    ) -> Iterator[State]:
        tasks = settings.workload.tasks(episodes)
        words = spelled(forced, len(episodes.support))
        chosen = learners.build(episodes, settings)
        if why := chosen.refuses(tasks):
            raise Unavailable(why)
        learner, self._facts = chosen.planned(tasks, META_STEPS, words)
        self._planned = learner, tasks
        return learner.fit(tasks, 0, start=State(parameters=learners.completed(parameters, episodes, settings)))

    def peak_bytes(self) -> int | None:
        if self._planned is None:
            return None
        learner, tasks = self._planned
        held: int | None = learner.held_bytes(tasks) if hasattr(learner, "held_bytes") else None
        return held

    def uncompiled(self, device: str) -> Fields:
        """The forced fields without torch's compiler, which translates the very function that the eager mode calls. On
        CUDA the rule captures launches and compiles nothing."""
        if self.plan == "rule" and device == "cpu":
            return {**self.forced, "mode": "eager"}
        return {name: UNCOMPILED.get(value, value) for name, value in self.forced.items()}

    @torch.no_grad()
    def adapt(self, parameters: Parameters, episodes: Episodes, settings: Settings) -> Tensor:
        """As at test: eager, in one pass, or task by task under the plan "one"."""
        tasks = settings.workload.tasks(episodes)
        count = 1 if self.plan == "one" else len(episodes.support)
        eager = {"mode": "eager"} | {name: value for name, value in self.forced.items() if name == "tasks"}
        learner, _ = learners.build(episodes, settings).planned(tasks, 0, spelled(eager, len(episodes.support)))
        state = State(parameters=learners.completed(parameters, episodes, settings))
        outputs = []
        for first in range(0, len(episodes.support), count):
            predictors = learner.adapt(state, episodes.support[first : first + count], tasks)
            for _ in range(settings.inner_steps + 1):
                predictor = next(predictors)
            outputs.append(predictor(episodes.query.x[first : first + count])[0])
        return torch.cat(outputs)


def spelled(fields: Fields, tasks: int) -> str:
    """The fields in the words of `benchmarks.execution.plans.parse`; tasks: in the meta-batch."""
    words = {"tasks": f"tasks={fields.get('tasks') or tasks}", "threads": f"threads={fields.get('threads')}"}
    return ",".join({**words, "checkpointed": "checkpointed"}.get(name, str(fields[name])) for name in fields)
