"""Execution plans: all compute the same meta-gradient, are spelled, are picked by a rule, and stand in the record."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest
import torch

from benchmarks.api import MetabenchError, State
from benchmarks.cost.workloads import WORKLOADS
from benchmarks.execution import plans
from benchmarks.execution.compiled import turn_products
from benchmarks.execution.plans import Plan
from benchmarks.models import Network, network_for
from benchmarks.models.backbones import MLP
from maml.gradient import rule
from maml.maml import MAML

EAGER = [
    Plan(3, per_task="vmap"),
    Plan(3, per_task="loop"),
    Plan(3, checkpointed=True),
    Plan(2, checkpointed=True, per_task="vmap"),
    Plan(1),
    Plan(2),
    Plan(1, threads=2),
]


@pytest.mark.parametrize("kind", ["waves", "images", "images-pooled"])
def test_meta_gradients_of_eager_plans_agree(given: Any, kind: str) -> None:
    tasks = given.images(backbone="tiny-conv4", size=16) if kind == "images-pooled" else getattr(given, kind)()
    parameters = given.state(tasks).parameters
    # the layers of Conv4 are not for vmap; those of modules are, see tests/models/test_modules.py
    plans_here = [plan for plan in EAGER if plan.per_task != "vmap" or kind == "waves"]
    for steps, second_order in itertools.product((1, 3), (True, False)):
        learner = given.maml(tasks, inner_steps=steps, second_order=second_order, plan=Plan(3))
        expected = given.meta_gradient(learner, tasks, parameters)
        for plan in plans_here:
            found = given.meta_gradient(learner.replace(plan=plan), tasks, parameters)
            assert (found - expected).norm() <= 1e-10 * expected.norm(), f"{plan}, {steps} steps"


@pytest.mark.usefixtures("compiler")
def test_what_is_compiled_agrees_in_double_precision_and_resumes_bit_for_bit(given: Any) -> None:
    """Where rounding can't hide a mistake; `metabench cost` compares what it times in float32 only."""
    tasks = given.waves(tasks=2, backbone="tiny-mlp")
    learner, state = given.maml(tasks, meta_batch=2, plan=Plan(2)), given.state(tasks)
    compiled, facts = learner.planned(tasks, 1, "compiled")
    assert facts["compiled"]
    assert facts["name"] == "compiled,tasks=2,threads=1,float32,layers"
    expected, found = (given.meta_gradient(each, tasks, state.parameters) for each in (learner, compiled))
    assert found.dtype == torch.float64
    assert (found - expected).norm() <= 1e-12 * expected.norm()
    states = [each.copy() for each in itertools.islice(compiled.fit(tasks, 0, state), 4)]
    resumed = next(itertools.islice(compiled.fit(tasks, 0, states[1]), 1, None))
    assert all(torch.equal(value, states[3].parameters[name]) for name, value in resumed.parameters.items())


@pytest.mark.usefixtures("compiler")
def test_convolutions_in_first_order_compile_to_the_same(given: Any) -> None:
    tasks = given.images(tasks=2)
    learner = given.maml(tasks, meta_batch=2, inner_steps=1, second_order=False, plan=Plan(2))
    state = given.state(tasks)
    compiled, facts = learner.planned(tasks, 1, "compiled")
    assert facts["compiled"]
    expected, found = (given.meta_gradient(each, tasks, state.parameters) for each in (learner, compiled))
    assert (found - expected).norm() <= 1e-12 * expected.norm()


def test_products_turned_round_are_the_same() -> None:
    from torch.fx.experimental.proxy_tensor import make_fx

    def function(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        both = torch.bmm(a.transpose(1, 2), b.transpose(1, 2))
        used = torch.bmm(b, a).transpose(1, 2) + 1
        return both, used, torch.bmm(b, a).view(2, -1)

    a, b = torch.randn(2, 3, 4), torch.randn(2, 5, 3)
    module = make_fx(function)(a, b)
    turn_products(module)
    for found, expected in zip(module(a, b), function(a, b), strict=True):
        torch.testing.assert_close(found, expected)
    products = [node for node in module.graph.nodes if node.target is torch.ops.aten.bmm.default]
    transposed = [operand for node in products[:2] for operand in node.args if "transpose" in operand.name]
    assert len(transposed) == 2, "only the product whose transpose is used takes transposed operands"
    assert not module.graph.find_nodes(op="call_function", target=torch.ops.aten.view.default), "views fail on layouts"


def test_transposes_of_transposes_and_of_sums_of_products_go() -> None:
    from torch.fx.experimental.proxy_tensor import make_fx

    def function(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        twice = torch.bmm(a.transpose(1, 2).transpose(1, 2), c.transpose(1, 2))
        summed = torch.bmm(a.transpose(1, 2), b.transpose(1, 2)) + torch.bmm(a.transpose(1, 2), c)
        return twice, summed.transpose(1, 2)

    a, b, c = torch.randn(2, 3, 4), torch.randn(2, 4, 3), torch.randn(2, 3, 4)
    module = make_fx(function)(a, b, c)
    turn_products(module)
    for found, expected in zip(module(a, b, c), function(a, b, c), strict=True):
        torch.testing.assert_close(found, expected)
    operands = [
        [operand.name for operand in node.args]
        for node in module.graph.nodes
        if node.target is torch.ops.aten.bmm.default
    ]
    assert operands[0][0] == "a_1", "(a')' is a"
    assert operands[1] == ["b_1", "a_1"], "(a' b')' is b a"
    assert not any("transpose" in node.name for node in module.graph.find_nodes(op="output", sort=True)[0].args[0])


def test_a_plan_is_spelled_and_read_back() -> None:
    plan = Plan(4, "graph", "bf16", True, "vmap", 1)
    assert plans.parse(str(plan)) == dataclasses.asdict(plan)
    assert plans.settle(Plan(9, "compiled"), str(Plan(2)), "cpu") == Plan(2)
    assert plans.settle(Plan(9, "compiled"), "tasks=3", "cpu") == Plan(3, "compiled")
    assert plans.settle(Plan(9, "compiled"), "checkpointed", "cpu") == Plan(9, checkpointed=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fast", "unknown word 'fast' in the plan 'fast'; known: eager, compiled"),
        ("tasks=x", "unknown word 'tasks=x'"),
        ("tasks=0", "tasks = 0 is not at least 1"),
        ("eager,compiled", "eager and compiled exclude each other"),
        ("checkpointed,compiled", "checkpointed and compiled exclude each other"),
        ("compiled,threads=2", "threads=2 and compiled exclude each other"),
        ("graph", "graph needs a CUDA device, not 'cpu'"),
        ("eager,tf32", "tf32 needs a CUDA device, not 'cpu'"),
    ],
)
def test_a_plan_that_cannot_be_is_one_line(text: str, message: str) -> None:
    with pytest.raises(MetabenchError) as caught:
        plans.check_device(text, "cpu")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_rule_compiles_where_the_budget_repays_it() -> None:
    def plan(backbone: str, meta_steps: int, device: str = "cpu", examples: int = 80) -> tuple[Plan, str]:
        workload = WORKLOADS[backbone]
        network = network_for(workload.tasks(workload.episodes(1)))
        return rule(network, device, 25, 1, meta_steps, examples)

    assert plan("mlp-40-40", 70_000)[0] == Plan(25, "compiled")
    short, why = plan("mlp-40-40", 100)
    assert short == Plan(25)
    assert "100 meta-steps" in why
    images = Network(MLP((256, 128, 64, 64), normalised=True), (28, 28, 1), 5)
    assert rule(images, "cpu", 32, 1, 300, 10)[0] == Plan(32)
    assert rule(images, "cpu", 32, 1, 1_000, 10)[0] == Plan(16, "compiled")
    assert plan("conv4-64-strided", 70_000)[0] == Plan(1 if torch.get_num_threads() > 1 else 2)
    assert plan("conv4-64-strided", 70_000, examples=10)[0].tasks >= 8
    assert plan("conv4-64-strided", 70_000, examples=10_000)[0].tasks == 1
    assert plan("mlp-40-40", 100, "cuda")[0].mode == "graph"


def test_a_compiler_that_fails_leaves_the_eager_plan(given: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("no C++ compiler\nwas found")

    monkeypatch.setattr("maml.gradient.compile_function", fail)
    tasks = given.waves()
    learner, facts = given.maml(tasks).planned(tasks, 10**6)
    assert facts["why"] == "not compiled: RuntimeError: no C++ compiler was found"
    assert learner.plan == Plan(3)
    with pytest.raises(MetabenchError, match="plan 'compiled' fails here: RuntimeError: no C"):
        given.maml(tasks).planned(tasks, 10**6, "compiled")


def test_bf16_is_near_and_is_not_float32(given: Any) -> None:
    workload = WORKLOADS["mlp-40-40"]
    tasks = workload.tasks(workload.episodes(3))
    learner = MAML(inner_lr=0.05, meta_batch=3, training_queries=10, plan=Plan(3))
    parameters = network_for(tasks).initialise(0)
    exact = given.meta_gradient(learner, tasks, parameters)
    found = given.meta_gradient(learner.replace(plan=Plan(3, precision="bf16")), tasks, parameters)
    assert 1e-4 * exact.norm() < (found - exact).norm() < 0.1 * exact.norm()


def test_checkpointed_inner_steps_hold_less(given: Any) -> None:
    from benchmarks.cost import counting

    tasks = given.images(tasks=2, size=32, backbone="tiny-conv4")
    state = given.state(tasks)
    peaks = []
    for checkpointed in (False, True):
        learner = given.maml(tasks, meta_batch=2, inner_steps=8, plan=Plan(2, checkpointed=checkpointed))
        stream = learner.fit(tasks, 0, State(parameters=state.copy().parameters))
        next(stream)
        peaks.append(counting.peak_bytes(lambda stream=stream: next(stream), "cpu"))
    assert peaks[1] < 0.5 * peaks[0]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("words", ["eager", "graph", "graph,tf32"])
@pytest.mark.parametrize("backbone", ["mlp-40-40", "conv4-64-strided", "conv4-64"])
def test_meta_gradients_on_a_gpu_are_those_of_a_cpu(given: Any, backbone: str, words: str) -> None:
    workload = WORKLOADS[backbone]
    found = []
    for device, plan in (("cpu", "eager"), ("cuda", words)):
        tasks = workload.tasks(workload.episodes(2, torch.float64, device))
        parameters = {name: value.double() for name, value in network_for(tasks).initialise(0, device).items()}
        learner = MAML(inner_lr=0.05, meta_batch=2, training_queries=workload.queries, loss_scale="mean")
        planned, _ = learner.planned(tasks, 1, plan)
        found.append(given.meta_gradient(planned, tasks, parameters).cpu())
    assert (found[1] - found[0]).norm() <= 1e-10 * found[0].norm()
