"""Times a few steps of whichever checkout stands first on the path, and prints the shortest time of each as JSON.

Run as a script, ``python -P timed.py [names]`` with PYTHONPATH set to a checkout, so that base and head are timed by
the same code; of the checkout it uses the contract and the registry alone. A step that it hasn't is null.

Times are CPU time of the process, which has one thread: where nothing else runs it is wall time, and where something
does, time spent waiting for a core isn't counted. A step that only waits (for a file, say) would go unseen.
"""

from __future__ import annotations

import dataclasses
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
BLOCK, TOTAL = 0.005, 0.2
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


def _learner(method: str, needed: dict[str, Any], wanted: dict[str, Any], tasks: Any) -> Any:
    """A method of the checkout. needed: fields that decide how much work there is, so a checkout without one has no
    such step; wanted: fields that a checkout may lack."""
    from benchmarks import registry

    known = {field.name for field in dataclasses.fields(registry.method_entry(method).cls)}
    fields = needed | {name: value for name, value in wanted.items() if name in known}
    return eager(registry.build_method(method, **fields), tasks)


def eager(learner: Any, tasks: Any) -> Any:
    """The learner with an eager plan, whatever the rule would choose: to compile takes longer than to time. A checkout
    without plans has no others."""
    return learner.planned(tasks, 0, "eager")[0] if hasattr(learner, "planned") else learner


def _meta_step(method: str, backbone: str, tasks: int, inner_steps: int) -> Callable[[], Any]:
    workload = _workloads()[backbone]
    fixed = workload.tasks(workload.episodes(tasks))
    needed = {"meta_batch": tasks, "inner_steps": inner_steps, "training_queries": workload.queries}
    wanted = {"inner_lr": workload.inner_lr, "loss_scale": "mean", "meta_lr": 1e-6}
    stream = _learner(method, needed, wanted, fixed).fit(fixed, 0)
    return lambda: next(stream)


def _adaptation(backbone: str, tasks: int, steps: int) -> Callable[[], Any]:
    from benchmarks.api import State
    from benchmarks.models import network_for

    workload = _workloads()[backbone]
    episodes = workload.episodes(tasks)
    fixed = workload.tasks(episodes)
    learner = _learner("maml", {}, {"inner_lr": workload.inner_lr, "loss_scale": "mean"}, fixed)
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
    "maml meta-step, conv4-64-strided": lambda: _meta_step("maml", "conv4-64-strided", 1, 1),
    "maml adaptation, mlp-40-40": lambda: _adaptation("mlp-40-40", 25, 10),
    "episodes, sinusoid": lambda: _episodes("sinusoid", 1000),
}


def shortest(step: Callable[[], Any]) -> float:
    """Seconds of one step in the fastest block."""
    for _ in range(WARM_UP):
        began = time.process_time()
        step()
        seconds = time.process_time() - began
    repeats = max(1, math.ceil(BLOCK / max(seconds, 1e-9)))
    best, end = math.inf, time.process_time() + TOTAL
    while time.process_time() < end or best == math.inf:
        began = time.process_time()
        for _ in range(repeats):
            step()
        best = min(best, (time.process_time() - began) / repeats)
    return best


def slowed(step: Callable[[], Any], seconds: float, slower: float) -> Callable[[], Any]:
    """The step, which takes ``seconds``, and so many small operations after it that it lasts ``slower`` times as long:
    a slowdown planted for the study of the gate."""
    import torch

    small = torch.ones(8)
    count = round((slower - 1) * seconds / shortest(lambda: small + small))

    def both() -> None:
        step()
        for _ in range(count):
            small + small

    return both


def main() -> None:
    import benchmarks

    wanted, here = os.environ["PYTHONPATH"], Path(benchmarks.__file__ or "").parents[1]
    if here != Path(wanted).resolve():
        sys.exit(f"timed.py: benchmarks is imported from {here}, not from {wanted}")
    import torch

    torch.set_num_threads(1)
    slower = float(os.environ.get("METABENCH_GATE_SLOWER", "1"))
    seconds: dict[str, float | None] = {}
    planted: dict[str, float] = {}
    for name in sys.argv[1:] or STEPS:
        try:
            step = STEPS[name]()
            seconds[name] = best = shortest(step)
            if slower != 1.0:
                planted[name] = shortest(slowed(step, best, slower))
        except Exception as error:
            print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr)
            seconds[name] = None
    print(json.dumps({"seconds": seconds, "planted": planted}))


if __name__ == "__main__":
    main()
