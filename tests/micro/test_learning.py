"""Micro-benchmarks of learning: meta-steps, inner steps, adaptation, and sampling of episodes."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks import registry
from benchmarks.api import State
from benchmarks.cost.workloads import WORKLOADS, FixedTasks
from benchmarks.models import network_for

#: backbone -> tasks of a meta-step
BATCHES = {"mlp-40-40": 25, "conv4-64-strided": 4}
each_backbone = pytest.mark.parametrize("backbone", BATCHES)


def fixed(backbone: str, device: str) -> FixedTasks:
    workload = WORKLOADS[backbone]
    return workload.tasks(workload.episodes(BATCHES[backbone], device=device))


def learner(method: str, backbone: str, **fields: Any) -> Any:
    workload = WORKLOADS[backbone]
    common: dict[str, Any] = {"inner_lr": workload.inner_lr, "loss_scale": "mean", "training_queries": workload.queries}
    return registry.build_method(method, meta_batch=BATCHES[backbone], **common, **fields)


@each_backbone
@pytest.mark.parametrize("inner_steps", [1, 5])
@pytest.mark.parametrize("method", ["maml", "fomaml"])
def test_meta_step(benchmark: Any, device: str, method: str, inner_steps: int, backbone: str) -> None:
    stream = learner(method, backbone, inner_steps=inner_steps, meta_lr=1e-6).fit(fixed(backbone, device), 0)
    state = benchmark(lambda: next(stream))
    assert state.step > 0


@each_backbone
@pytest.mark.parametrize("steps", [1, 10], ids=["inner-step", "adaptation"])
def test_adaptation(benchmark: Any, device: str, steps: int, backbone: str) -> None:
    tasks = fixed(backbone, device)
    state = State(parameters=network_for(tasks).initialise(0, device))
    method = learner("maml", backbone)

    def adapt() -> Any:
        predictors = method.adapt(state, tasks.data.support, tasks)
        for _ in range(steps + 1):
            predictor = next(predictors)
        return predictor

    output, _ = benchmark(adapt)(tasks.data.query.x)
    assert len(output) == BATCHES[backbone]


@pytest.mark.parametrize("task", ["sinusoid", "glyphs"])
def test_episode_sampling(benchmark: Any, device: str, task: str) -> None:
    tasks = registry.build_task(task, device=device)
    tasks.prepare()
    episodes = benchmark(lambda: tasks.episodes("train", range(100)))
    assert len(episodes.support) == 100
