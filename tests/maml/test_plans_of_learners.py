"""Execution plans of the learners with steps of their own: none changes what is learned."""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytest
import torch

from benchmarks.api import Parameters, State, TaskDistribution
from benchmarks.execution.compiled import trace
from benchmarks.execution.plans import Plan
from benchmarks.registry import build_method
from maml.maml import MAML

RULES = ("meta-learner-lstm", "learned-optimiser", "learned-rule")
#: learner -> fields that make it small, with steps that matter and stay stable
LEARNERS: dict[str, dict[str, Any]] = {
    "meta-sgd": {"inner_lr": 0.02},
    "cavia": {"context": 4, "inner_lr": 0.5, "film_layer": 2},
    "implicit-maml": {"inner_lr": 0.02, "cg_steps": 2},
    # after one meta-step both the order and the weights of the losses change
    "maml-plus-plus": {"inner_lr": 0.02, "multi_step_loss": 0.5, "first_order": 0.5, "anneal_over": 2},
    **{name: {"hidden": 3} for name in RULES[:2]},
    "learned-rule": {"backbone": "tiny-mlp"},
}
CASES = [
    *((name, "waves") for name in LEARNERS),
    *((name, "images") for name in ("cavia", "implicit-maml", "maml-plus-plus")),
]


def learner_on(tasks: TaskDistribution, name: str) -> MAML:
    own = {"meta_batch": 3, "inner_steps": 2, "test_steps": (2,), "clip": 0.0, **LEARNERS[name]}
    learner: MAML = build_method(name, tasks, plan=Plan(3), **own)
    return learner


def tasks_of(given: Any, kind: str) -> Any:
    images = {"backbone": "tiny-mlp-normalised", "size": 4}
    return given.images(**images) if kind == "images" else given.waves(backbone="tiny-mlp")


def start(given: Any, tasks: TaskDistribution, learner: MAML) -> Parameters:
    generator = torch.Generator().manual_seed(7)
    return {
        name: value.double() + 0.01 * torch.randn(value.shape, generator=generator, dtype=torch.float64)
        for name, value in learner.initial(tasks, 0).items()
    }


def agree(given: Any, tasks: TaskDistribution, one: MAML, other: MAML) -> None:
    """In the meta-gradient, and in parameters, statistics and losses after two meta-steps."""
    theta = start(given, tasks, one)
    expected, found = (given.meta_gradient(each, tasks, theta) for each in (one, other))
    assert (found - expected).norm() <= 1e-10 * expected.norm()
    *_, first = islice(one.fit(tasks, 0, State(theta)), 2)
    *_, second = islice(other.fit(tasks, 0, State(theta)), 2)
    assert second.loss == pytest.approx(first.loss, rel=1e-9)
    for part in ("parameters", "buffers"):
        for name, value in getattr(first, part).items():
            torch.testing.assert_close(getattr(second, part)[name], value, rtol=1e-6, atol=1e-8, msg=name)


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_batches_of_tasks_and_recomputed_steps_change_nothing(given: Any, name: str, kind: str) -> None:
    tasks = tasks_of(given, kind)
    learner = learner_on(tasks, name)
    for plan in (Plan(2), Plan(1, threads=2), Plan(3, checkpointed=True)):
        agree(given, tasks, learner, learner.replace(plan=plan))


#: on images tracing takes seconds
DEAR = [("implicit-maml", "images"), ("maml-plus-plus", "images")]


@pytest.mark.parametrize("compiles", [False, pytest.param(True, marks=pytest.mark.fuzz)], ids=["traced", "compiled"])
@pytest.mark.parametrize(
    ("name", "kind"), [pytest.param(*case, marks=[pytest.mark.fuzz] if case in DEAR else []) for case in CASES]
)
def test_the_compiled_program_changes_nothing(
    given: Any, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, name: str, kind: str, compiles: bool
) -> None:
    """Traced: the operations that the compiler gets, run one by one."""
    if compiles:
        request.getfixturevalue("compiler")
    else:
        monkeypatch.setattr("maml.gradient.compile_function", trace)
    tasks = tasks_of(given, kind)
    learner = learner_on(tasks, name)
    agree(given, tasks, learner, learner.replace(plan=Plan(3, mode="compiled")))
    planned, facts = learner.planned(tasks, 1, "compiled")
    assert (planned.plan, facts["compiled"]) == (Plan(3, mode="compiled"), True)
