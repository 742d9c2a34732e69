"""Times steps of the checkout that stands first on the path, one block at a time, on request.

Run as a script, ``python -P timed.py [names]`` with PYTHONPATH set to a checkout: the same code times base and head,
and uses only the contract and the registry of the checkout. After a warm-up it prints one line of JSON: by step the
number of repeats in a block, null if the checkout lacks the step. Then it reads lines of JSON, [step, repeats], and
answers each with the seconds per step of such a block.

Times are CPU times of the process, which has one thread. On an idle machine that is wall time; on a busy one, waiting
for a core doesn't count. A step that only waits, for a file for example, is not seen.
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

#: least seconds of a timed block
BLOCK = 0.005
WARM_UP = 3


def _own(name: str) -> Any:
    """A module of the checkout that this file belongs to, not of the one that is timed; name: "cost/workloads"."""
    path = (Path(__file__).parents[1] / name).with_suffix(".py")
    spec = importlib.util.spec_from_file_location(f"_gate_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _learner(method: str, needed: dict[str, Any], wanted: dict[str, Any], tasks: Any) -> Any:
    """A method of the checkout.

    needed: fields that decide the amount of work; a checkout that lacks one lacks the step.
    wanted: fields that a checkout may lack."""
    from benchmarks import registry

    known = {field.name for field in dataclasses.fields(registry.method_entry(method).cls)}
    fields = needed | {name: value for name, value in wanted.items() if name in known}
    return eager(registry.build_method(method, **fields), tasks)


def eager(learner: Any, tasks: Any) -> Any:
    """The learner with an eager plan: compiling takes longer than timing. An old checkout has no plans."""
    return learner.planned(tasks, 0, "eager")[0] if hasattr(learner, "planned") else learner


def _meta_step(
    method: str, backbone: str, tasks: int, inner_steps: int, queries: int | None = None
) -> Callable[[], Any]:
    workload = _own("cost/workloads").WORKLOADS[backbone]
    if queries is not None:
        workload = dataclasses.replace(workload, queries=queries)
    fixed = workload.tasks(workload.episodes(tasks))
    needed = {"meta_batch": tasks, "inner_steps": inner_steps, "training_queries": workload.queries}
    wanted = {"inner_lr": workload.inner_lr, "loss_scale": "mean", "meta_lr": 1e-6}
    stream = _learner(method, needed, wanted, fixed).fit(fixed, 0)
    return lambda: next(stream)


def _adaptation(backbone: str, tasks: int, steps: int) -> Callable[[], Any]:
    from benchmarks.api import State
    from benchmarks.models import network_for

    workload = _own("cost/workloads").WORKLOADS[backbone]
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
    "maml meta-step, conv4-64-strided": lambda: _meta_step("maml", "conv4-64-strided", 1, 1, queries=3),
    "maml adaptation, mlp-40-40": lambda: _adaptation("mlp-40-40", 25, 10),
    "episodes, sinusoid": lambda: _episodes("sinusoid", 1000),
}


def repeats(step: Callable[[], Any]) -> int:
    """The number of steps in a block, after a warm-up."""
    for _ in range(WARM_UP):
        seconds = block(step, 1)
    return max(1, math.ceil(BLOCK / max(seconds, 1e-9)))


def block(step: Callable[[], Any], count: int) -> float:
    """Seconds per step in a block of ``count``."""
    began = time.process_time()
    for _ in range(count):
        step()
    return (time.process_time() - began) / count


def main() -> None:
    import benchmarks

    wanted, here = os.environ["PYTHONPATH"], Path(benchmarks.__file__ or "").parents[1]
    if here != Path(wanted).resolve():
        sys.exit(f"timed.py: benchmarks is imported from {here}, not from {wanted}")
    import torch

    torch.set_num_threads(1)
    _own("execution/memory").keep_freed_memory()
    steps: dict[str, Callable[[], Any]] = {}
    counts: dict[str, int | None] = {}
    for name in sys.argv[1:] or STEPS:
        try:
            step = STEPS[name]()
            counts[name], steps[name] = repeats(step), step
        except Exception as error:
            print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr)
            counts[name] = None
    print(json.dumps(counts), flush=True)
    for line in sys.stdin:
        name, count = json.loads(line)
        print(json.dumps(block(steps[name], count)), flush=True)


if __name__ == "__main__":
    main()
