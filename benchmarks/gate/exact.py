"""The exact layer: counts of a few steps, the same on every machine, against committed ones.

Floating-point operations, dispatched operations and parameters must be equal, saved bytes within a tolerance. Counts
depend on the version of torch, so the baseline is keyed by it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from benchmarks import registry
from benchmarks.api import State
from benchmarks.cost import counting
from benchmarks.cost.workloads import WORKLOADS
from benchmarks.errors import MetabenchError
from benchmarks.models import network_for

FILE = Path(__file__).with_name("baseline.json")
#: saved bytes may differ by this share: an operation may keep another small tensor in another build
BYTES_TOLERANCE = 0.01
#: the counts, in the order of the messages
COUNTS = ("flops", "operations", "parameters", "saved_bytes")

Counts = dict[str, int]


@dataclass(frozen=True)
class Finding:
    """The verdict on one named step."""

    step: str
    verdict: Literal["same", "changed", "no baseline"]
    message: str = ""


def _meta_step(method: str, backbone: str, tasks: int, **fields: Any) -> Callable[[], tuple[counting.Step, int]]:
    """Returns a meta-step of a registered method, after a first one, and the number of its parameters."""

    def prepare() -> tuple[counting.Step, int]:
        workload = WORKLOADS[backbone]
        fixed = workload.tasks(workload.episodes(tasks))
        learner = registry.build_method(method, meta_batch=tasks, training_queries=workload.queries, **fields)
        stream = learner.fit(fixed, 0)
        state = next(stream)
        return (lambda: next(stream)), sum(value.numel() for value in state.parameters.values())

    return prepare


def _adaptation(method: str, backbone: str, tasks: int, steps: int) -> Callable[[], tuple[counting.Step, int]]:
    """Returns an adaptation to ``tasks`` tasks with ``steps`` inner steps, and the number of parameters."""

    def prepare() -> tuple[counting.Step, int]:
        workload = WORKLOADS[backbone]
        episodes = workload.episodes(tasks)
        fixed = workload.tasks(episodes)
        learner = registry.build_method(method, inner_lr=workload.inner_lr, loss_scale="mean")
        state = State(parameters=network_for(fixed).initialise(0))

        def adapt() -> None:
            predictors = learner.adapt(state, episodes.support, fixed)
            for _ in range(steps + 1):
                next(predictors)

        return adapt, sum(value.numel() for value in state.parameters.values())

    return prepare


#: the named steps; each returns a step and the number of parameters
STEPS: dict[str, Callable[[], tuple[counting.Step, int]]] = {
    "maml meta-step, mlp-40-40, 4 tasks, 5 inner steps": _meta_step("maml", "mlp-40-40", 4, inner_steps=5),
    "fomaml meta-step, mlp-40-40, 4 tasks, 5 inner steps": _meta_step("fomaml", "mlp-40-40", 4, inner_steps=5),
    "maml meta-step, conv4-64-strided, 2 tasks, 1 inner step": _meta_step("maml", "conv4-64-strided", 2),
    "fomaml meta-step, conv4-64-strided, 2 tasks, 1 inner step": _meta_step("fomaml", "conv4-64-strided", 2),
    "maml adaptation, conv4-64-strided, 1 task, 3 steps": _adaptation("maml", "conv4-64-strided", 1, 3),
    "matching-nets meta-step, conv4-64-strided, 2 tasks": _meta_step("matching-nets", "conv4-64-strided", 2),
}


def measure(names: Mapping[str, Callable[[], tuple[counting.Step, int]]] = STEPS) -> dict[str, Counts]:
    """The counts of every named step, in one thread: counters don't see another."""
    torch.set_num_threads(1)
    found = {}
    for name, prepare in names.items():
        step, parameters = prepare()
        found[name] = {
            "flops": counting.flops(step),
            "operations": counting.operations(step),
            "parameters": parameters,
            "saved_bytes": counting.saved_bytes(step),
        }
    return found


def torch_version() -> str:
    """The version that keys the baseline, without the part that names the device of the build."""
    return str(torch.__version__).partition("+")[0]


def read() -> dict[str, dict[str, Counts]]:
    """The committed counts in `FILE`: version of torch -> step -> counts; empty if there is no file."""
    try:
        found = json.loads(FILE.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise MetabenchError(f"{FILE} is not JSON: {error}") from None
    if not _is_nested(found, depth=3):
        raise MetabenchError(f"{FILE} does not hold counts by version of torch, step and name")
    return found  # type: ignore[no-any-return]


def _is_nested(value: Any, depth: int) -> bool:
    """Whether a value is dicts within each other, to this depth, that hold whole numbers."""
    if depth == 0:
        return isinstance(value, int)
    return isinstance(value, dict) and all(_is_nested(each, depth - 1) for each in value.values())


def accept(now: Mapping[str, Counts], version: str) -> None:
    """Make these counts the baseline of a version of torch, and keep those of other versions."""
    known = {**read(), version: dict(now)}
    FILE.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def compare(now: Mapping[str, Counts], known: Mapping[str, Mapping[str, Counts]], version: str) -> Iterator[Finding]:
    """One finding for each step that is measured or committed."""
    baseline = known.get(version)
    if baseline is None:
        versions = ", ".join(known) or "none"
        yield Finding("all steps", "no baseline", f"torch {version} has none (there are: {versions})")
        return
    for step, counts in now.items():
        before = baseline.get(step)
        if before is None:
            yield Finding(step, "no baseline", "a new step: accept it and commit it")
            continue
        changes = [f"{name} {before.get(name)} -> {counts[name]}" for name in COUNTS if _differs(name, before, counts)]
        yield Finding(step, "changed" if changes else "same", ", ".join(changes))
    for step in baseline.keys() - now.keys():
        yield Finding(step, "changed", "is in the baseline and is no longer measured")


def _differs(name: str, before: Mapping[str, int], now: Mapping[str, int]) -> bool:
    if name not in before:
        return True
    tolerance = BYTES_TOLERANCE * before[name] if name == "saved_bytes" else 0
    return abs(now[name] - before[name]) > tolerance
