"""Times a few steps of whichever checkout stands first on the path, and prints the shortest time of each as JSON.

Run as a script, ``python -P timed.py [names]`` with PYTHONPATH set to a checkout, so that base and head are timed by
the same code; of the checkout it uses the contract and the registry alone. A step that it hasn't is null.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: seconds of one timed block at least, and of all blocks of a step
BLOCK, TOTAL = 0.005, 0.4
WARM_UP = 3


def _workloads() -> Any:
    """The workloads of this checkout, whichever checkout is timed."""
    spec = importlib.util.spec_from_file_location("_gate_workloads", Path(__file__).parents[1] / "workloads.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.WORKLOADS


def _meta_step(method: str, backbone: str, tasks: int, inner_steps: int) -> Callable[[], Any]:
    from benchmarks import registry

    workload = _workloads()[backbone]
    fixed = workload.tasks(workload.episodes(tasks))
    fields = {"inner_lr": workload.inner_lr, "loss_scale": "mean", "training_queries": workload.queries}
    learner = registry.build_method(method, meta_batch=tasks, inner_steps=inner_steps, meta_lr=1e-6, **fields)
    stream = learner.fit(fixed, 0)
    return lambda: next(stream)


def _adaptation(backbone: str, tasks: int, steps: int) -> Callable[[], Any]:
    from benchmarks import registry
    from benchmarks.api import State
    from benchmarks.models import network_for

    workload = _workloads()[backbone]
    episodes = workload.episodes(tasks)
    fixed = workload.tasks(episodes)
    learner = registry.build_method("maml", inner_lr=workload.inner_lr, loss_scale="mean")
    state = State(parameters=network_for(fixed).initialise(0))

    def adapt() -> None:
        predictors = learner.adapt(state, episodes.support, fixed)
        for _ in range(steps + 1):
            next(predictors)

    return adapt


def _episodes(task: str, count: int) -> Callable[[], Any]:
    from benchmarks import registry

    tasks = registry.build_task(task)
    tasks.prepare()
    return lambda: tasks.episodes("train", range(count))


STEPS: dict[str, Callable[[], Callable[[], Any]]] = {
    "maml meta-step, mlp-40-40": lambda: _meta_step("maml", "mlp-40-40", 25, 5),
    "fomaml meta-step, mlp-40-40": lambda: _meta_step("fomaml", "mlp-40-40", 25, 5),
    "maml meta-step, conv4-64-strided": lambda: _meta_step("maml", "conv4-64-strided", 2, 1),
    "maml adaptation, mlp-40-40": lambda: _adaptation("mlp-40-40", 25, 10),
    "episodes, sinusoid": lambda: _episodes("sinusoid", 1000),
}


def shortest(step: Callable[[], Any], slower: float = 1.0) -> float:
    """Seconds of one step in the fastest block; ``slower`` makes each block last that many times as long, by more
    steps, which is a slowdown planted for the study of the gate."""
    for _ in range(WARM_UP):
        began = time.perf_counter()
        step()
        seconds = time.perf_counter() - began
    repeats = max(1, math.ceil(BLOCK / seconds))
    if slower != 1.0:
        repeats = max(repeats, 20)  # so that a share of the steps can be added
    planted = round(repeats * slower)
    best, end = math.inf, time.perf_counter() + TOTAL
    while time.perf_counter() < end or best == math.inf:
        began = time.perf_counter()
        for _ in range(planted):
            step()
        best = min(best, (time.perf_counter() - began) / repeats)
    return best


def main() -> None:
    import benchmarks

    wanted, here = os.environ["PYTHONPATH"], Path(benchmarks.__file__ or "").parents[1]
    if here != Path(wanted).resolve():
        sys.exit(f"timed.py: benchmarks is imported from {here}, not from {wanted}")
    import torch

    torch.set_num_threads(1)
    slower = float(os.environ.get("METABENCH_GATE_SLOWER", "1"))
    found: dict[str, float | None] = {}
    for name in sys.argv[1:] or STEPS:
        try:
            found[name] = shortest(STEPS[name](), slower)
        except Exception as error:
            print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr)
            found[name] = None
    print(json.dumps(found))


if __name__ == "__main__":
    main()
