"""Implicit MAML: its meta-gradient against the exact one on quadratics, and what of the inner loop it keeps."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.api import Episodes, LabelledSet, MetabenchError, State
from benchmarks.execution.plans import Plan
from benchmarks.models import BACKBONES, Network, NetworkPredictor, network_for
from benchmarks.models.backbones import MLP
from benchmarks.registry import build_method, incompatible
from maml.implicit_maml import ImplicitLoss, ImplicitMAML, conjugate_gradient
from maml.inner_loop import per_task
from maml.losses import supervised_loss

LAMBDA = 2.0


def implicit(given: Any, tasks: Any, **fields: Any) -> ImplicitMAML:
    settings = {"inner_lr": 0.1, "inner_steps": 5, "meta_batch": len(tasks.data.support), "proximal": LAMBDA}
    return ImplicitMAML(**{**settings, **fields})


def loss_of(learner: ImplicitMAML, tasks: Any) -> ImplicitLoss:
    found = learner._objective(tasks, learner.inner_lr, Plan(3))
    assert isinstance(found, ImplicitLoss)
    return found


@pytest.fixture
def lines(given: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Linear regression in four features: every loss is a quadratic of the six numbers of weight and bias."""
    monkeypatch.setitem(BACKBONES, "identity", MLP(()))
    monkeypatch.setattr(MLP, "embedding_size", lambda self, shape: shape[0])
    generator = torch.Generator().manual_seed(3)
    x, y = (torch.randn(3, 12, size, generator=generator, dtype=torch.float64) for size in (4, 1))
    data = Episodes(LabelledSet(x[:, :6], y[:, :6]), LabelledSet(x[:, 6:], y[:, 6:]))
    tasks = given.waves()
    return tasks.replace(data=data, network="identity")


def theta_of(given: Any, tasks: Any) -> dict[str, Tensor]:
    found: dict[str, Tensor] = given.state(tasks).parameters
    return found


def exact(tasks: Any, theta: dict[str, Tensor]) -> Tensor:
    """The gradient of the mean query loss by theta = (weight, bias) through the exact minimiser, in closed form."""
    total = torch.zeros(5, dtype=torch.float64)
    start = torch.cat((theta["head.weight"].flatten(), theta["head.bias"]))
    for support, query in ((tasks.data.support[i : i + 1], tasks.data.query[i : i + 1]) for i in range(3)):
        x, q = (torch.cat((each.x[0], torch.ones(6, 1, dtype=torch.float64)), 1) for each in (support, query))
        hessian = 2 * x.T @ x / 6
        system = hessian + LAMBDA * torch.eye(5, dtype=torch.float64)
        phi = torch.linalg.solve(system, 2 * x.T @ support.y[0, :, 0] / 6 + LAMBDA * start)
        total += LAMBDA * torch.linalg.solve(system, 2 * q.T @ (q @ phi - query.y[0, :, 0]) / 6) / 3
    return total


def unrolled(learner: ImplicitMAML, tasks: Any, theta: dict[str, Tensor]) -> Tensor:
    """The same through the graph of proximal steps, written out."""
    network = network_for(tasks)
    leaves = {name: value.clone().requires_grad_() for name, value in theta.items()}
    start = phi = per_task(leaves, 3)
    moving = [name for name in theta if name not in learner.fixed(network)]
    for _ in range(learner.inner_steps):
        losses = supervised_loss(NetworkPredictor(network, phi), tasks.data.support)
        pull = sum((phi[name] - start[name]).square().sum() for name in moving)
        objective = losses.sum() + learner.proximal / 2 * pull
        found = torch.autograd.grad(objective, [phi[name] for name in moving], create_graph=True)
        phi = phi | {name: phi[name] - learner.inner_lr * each for name, each in zip(moving, found, strict=True)}
    loss = supervised_loss(NetworkPredictor(network, phi), tasks.data.query).mean()
    return torch.cat([each.flatten() for each in torch.autograd.grad(loss, list(leaves.values()))])


def test_on_a_quadratic_it_is_the_exact_and_the_unrolled_gradient(lines: Any, given: Any) -> None:
    """Catches a missing proximal term, and a damped system of twice the size."""
    theta = theta_of(given, lines)
    learner = implicit(given, lines, inner_steps=120)
    found = given.meta_gradient(learner, lines, theta)
    torch.testing.assert_close(found, exact(lines, theta), rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(found, unrolled(learner, lines, theta), rtol=1e-8, atol=1e-10)
    halved = given.meta_gradient(learner.replace(cg_steps=1), lines, theta)
    assert (halved - found).norm() > 1e-3 * found.norm(), "one step of conjugate gradient is not exact here"


def test_a_strong_proximal_term_leaves_the_gradient_at_the_initialisation(lines: Any, given: Any) -> None:
    theta = theta_of(given, lines)
    found = given.meta_gradient(implicit(given, lines, proximal=1e9, inner_lr=1e-9), lines, theta)
    plain = unrolled(implicit(given, lines, inner_steps=1, inner_lr=0.0), lines, theta)
    torch.testing.assert_close(found, plain, rtol=1e-6, atol=1e-8)


SMALL = {"inner_lr": 0.02, "inner_steps": 150, "proximal": 6.0}


def test_with_steps_of_conjugate_gradient_it_approaches_the_unrolled_one(given: Any) -> None:
    """On a network, at the minimiser of the proximal loss."""
    tasks = given.waves(backbone="tiny-mlp")
    theta, learner = theta_of(given, tasks), implicit(given, tasks, **SMALL)
    truth = unrolled(learner, tasks, theta)
    gradients = [given.meta_gradient(learner.replace(cg_steps=steps), tasks, theta) for steps in (1, 3, 8)]
    errors = [float((found - truth).norm() / truth.norm()) for found in gradients]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 0.01
    assert errors[-1] < 1e-5
    first = given.meta_gradient(learner.replace(second_order=False), tasks, theta)
    assert (first - truth).norm() > errors[0] * truth.norm()


@dataclass(frozen=True)
class Half(ImplicitMAML):
    """Only the last layer takes inner steps."""

    def fixed(self, network: Network) -> frozenset[str]:
        return frozenset({"layer0.weight", "layer0.bias"})


def test_parameters_without_steps_get_the_mixed_derivatives(given: Any) -> None:
    """The solution, and with it the query loss, depends on them all the same."""
    tasks = given.waves(backbone="tiny-mlp")
    theta, learner = theta_of(given, tasks), Half(**vars(implicit(given, tasks, cg_steps=9, **SMALL)))
    found = given.meta_gradient(learner, tasks, theta)
    torch.testing.assert_close(found, unrolled(learner, tasks, theta), rtol=1e-6, atol=1e-8)


def test_without_the_linear_system_it_is_the_query_gradient_where_the_steps_ended(given: Any) -> None:
    tasks = given.waves()
    learner, theta = implicit(given, tasks, inner_lr=0.02, second_order=False), theta_of(given, tasks)
    ended = loss_of(learner, tasks).solution(theta, tasks.data.support)
    loss = supervised_loss(NetworkPredictor(network_for(tasks), ended), tasks.data.query).mean()
    expected = torch.cat([each.sum(0).flatten() for each in torch.autograd.grad(loss, list(ended.values()))])
    torch.testing.assert_close(given.meta_gradient(learner, tasks, theta), expected, rtol=1e-12, atol=1e-14)


def test_the_solution_is_stationary_with_more_steps(given: Any) -> None:
    tasks = given.waves(backbone="tiny-mlp")
    theta = theta_of(given, tasks)

    def left(steps: int) -> float:
        learner = implicit(given, tasks, **SMALL).replace(inner_steps=steps)
        phi = loss_of(learner, tasks).solution(theta, tasks.data.support)
        losses = supervised_loss(NetworkPredictor(network_for(tasks), phi), tasks.data.support)
        slopes = torch.autograd.grad(losses.sum(), list(phi.values()))
        pulled = [each + 6.0 * (phi[name] - theta[name]) for name, each in zip(phi, slopes, strict=True)]
        return float(torch.cat([each.detach().flatten() for each in pulled]).norm())

    assert left(150) < 1e-3 * left(30) < 1e-3 * left(1)


def peak_of_saved_tensors(learner: Any, tasks: Any, theta: dict[str, Tensor]) -> int:
    """The most numbers that graphs of a meta-step hold at a time."""
    alive, peak = 0, 0

    class Kept:
        def __init__(self, tensor: Tensor) -> None:
            self.tensor = tensor

    def pack(tensor: Tensor) -> Kept:
        nonlocal alive, peak
        kept, size = Kept(tensor.detach()), tensor.numel()
        alive += size
        peak = max(peak, alive)
        weakref.finalize(kept, freed, size)
        return kept

    def freed(size: int) -> None:
        nonlocal alive
        alive -= size

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept.tensor):
        next(learner.fit(tasks, 0, State(theta)))
    return peak


def test_its_graphs_do_not_grow_with_the_inner_steps(given: Any) -> None:
    tasks = given.images()
    theta = theta_of(given, tasks)
    for learner, growth in ((implicit(given, tasks, plan=Plan(3)), 1.0), (given.maml(tasks, plan=Plan(3)), 2.0)):
        few, many = (peak_of_saved_tensors(learner.replace(inner_steps=steps), tasks, theta) for steps in (1, 4))
        assert few > 0
        assert many == few if growth == 1.0 else many > growth * few, (learner.name, few, many)


def test_a_step_of_conjugate_gradient_takes_one_product_with_the_hessian(
    given: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not one for each parameter tensor."""
    tasks, usual, calls = given.waves(), torch.autograd.grad, []
    theta = theta_of(given, tasks)
    monkeypatch.setattr(torch.autograd, "grad", lambda *given, **options: calls.append(1) or usual(*given, **options))
    counts = []
    for steps in (2, 5):
        calls.clear()
        next(implicit(given, tasks, cg_steps=steps).fit(tasks, 0, State(theta)))
        counts.append(len(calls))
    assert counts[1] == counts[0] + 3


def test_conjugate_gradient_is_exact_after_as_many_steps_as_dimensions() -> None:
    generator = torch.Generator().manual_seed(1)
    roots, target = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((4, 5, 5), (4, 5)))
    target[3] = 0
    systems = roots @ roots.mT + torch.eye(5)
    found = conjugate_gradient(lambda vector: torch.einsum("tij,tj->ti", systems, vector), target, 9)
    torch.testing.assert_close(found, torch.linalg.solve(systems, target), rtol=1e-8, atol=1e-10)


def test_a_search_ends_before_a_direction_without_positive_curvature() -> None:
    systems = torch.diag_embed(torch.tensor([[-1.0, -2.0], [1.0, -3.0], [1.0, 2.0]], dtype=torch.float64))
    target = torch.tensor([[1.0, 2.0], [2.0, 1.0], [2.0, 1.0]], dtype=torch.float64)
    found = conjugate_gradient(lambda vector: torch.einsum("tij,tj->ti", systems, vector), target, 5)
    torch.testing.assert_close(found[0], target[0])
    torch.testing.assert_close(found[1], 5.0 * target[1])
    torch.testing.assert_close(found[2], torch.tensor([2.0, 0.5], dtype=torch.float64))


@pytest.mark.parametrize("plan", [Plan(2, threads=2), Plan(3, checkpointed=True), Plan(1, per_task="vmap")], ids=str)
def test_every_plan_has_the_same_gradient(given: Any, plan: Plan) -> None:
    tasks = given.images()
    theta = theta_of(given, tasks)
    learner = implicit(given, tasks, inner_steps=2, cg_steps=2)
    expected, found = (given.meta_gradient(learner.replace(plan=each), tasks, theta) for each in (Plan(3), plan))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_at_test_there_is_no_proximal_term(given: Any) -> None:
    tasks = given.images()
    learner, state = implicit(given, tasks), given.state(tasks)
    plain = given.maml(tasks, inner_lr=learner.inner_lr, adapt_normalisation=True)
    pairs: Any = zip(*(each.adapt(state, tasks.data.support, tasks) for each in (learner, plain)), strict=False)
    for found, expected in islice(pairs, 4):
        assert all(torch.equal(found.parameters[name], value) for name, value in expected.parameters.items())


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("proximal", -1.0, "implicit-maml: proximal = -1.0 is not above 0"),
        ("proximal", 0.0, "implicit-maml: proximal = 0.0 is not above 0"),
        ("cg_steps", 0, "implicit-maml: cg_steps = 0 is not at least 1"),
    ],
)
def test_a_system_that_has_no_solution_is_refused(field: str, value: float, said: str) -> None:
    with pytest.raises(MetabenchError, match=f"^{said}$"):
        build_method("implicit-maml", **{field: value})
    assert "regression" in str(incompatible("implicit-maml", "navigation-2d"))
