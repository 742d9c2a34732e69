"""Trust-region steps (Schulman et al., "Trust region policy optimization", ICML 2015) for what follows an inner loop.

MAML's outer update for control bounds the divergence of the *adapted* policies. The Fisher information of the initial
parameters theta is then J' F J, with the Fisher information F at the adapted parameters and J = d theta' / d theta, a
product of factors (I - rate H) that are symmetric. Each factor is one vector-Jacobian product of one inner step, and F
one product forwards and one backwards through the policy: no third derivatives, and no finite differences, which the
code of the MAML paper took to avoid them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.api import Parameters, Predictor
from benchmarks.environments import ActionSpace
from maml.inner_loop import GradientDescent, InnerLoop, Recorded, TaskLoss, detached, gradients_of

Product = Callable[[Tensor], Tensor]
#: parameters ``[T, ...]`` by name -> the policy that they make
PolicyOf = Callable[[Mapping[str, Tensor]], Predictor]


def every_one(name: str) -> bool:
    """All parameters take the inner steps."""
    return True


@dataclass(frozen=True)
class InnerSteps:
    """An inner loop that was taken on recorded data, with the graph of each step by itself.

    points: the parameters before each step and after the last one, ``[T, ...]`` by name, without a graph.
    graphs: parameters before and after each step, as if all took it, with its graph; none in first order, where
        Jacobians are left out.
    moves: which parameters took the steps; the others stayed."""

    points: Sequence[Parameters]
    graphs: Sequence[tuple[Parameters, Parameters]]
    moves: Callable[[str], bool] = every_one

    @property
    def adapted(self) -> Parameters:
        """The parameters after the last step."""
        return self.points[-1]

    def forwards(self, change: Mapping[str, Tensor]) -> Parameters:
        """The change of the adapted parameters, to first order, for a change of the initial ones ``[T, ...]``."""
        for before, after in self.graphs:
            moved = _pulled_back(before, after, change)
            change = {name: moved[name] if self.moves(name) else value for name, value in change.items()}
        return dict(change)

    def backwards(self, gradient: Mapping[str, Tensor], along: Sequence[Mapping[str, Tensor]] = ()) -> Parameters:
        """The gradient by the initial parameters ``[T, ...]`` of what has this gradient by the adapted ones.

        along: gradients by the parameters before each step, of what depends on those."""
        for number in reversed(range(len(self.points) - 1)):
            if self.graphs:
                gradient = self._through(*self.graphs[number], gradient)
            if along:
                gradient = {name: value + along[number][name] for name, value in gradient.items()}
        return dict(gradient)

    def _through(self, before: Parameters, after: Parameters, gradient: Mapping[str, Tensor]) -> Parameters:
        """Back through one step: what stayed passes its gradient on as it is."""
        moved = {n: value if self.moves(n) else torch.zeros_like(value) for n, value in gradient.items()}
        found = _pulled_back(before, after, moved)
        return {n: value if self.moves(n) else value + gradient[n] for n, value in found.items()}


def _pulled_back(before: Parameters, after: Parameters, vector: Mapping[str, Tensor]) -> Parameters:
    """The vector-Jacobian product of a step of all parameters. Its Jacobian is symmetric, so this is the product with
    it, too."""
    found = torch.autograd.grad(
        list(after.values()), list(before.values()), [vector[name] for name in after], retain_graph=True
    )
    return dict(zip(before, found, strict=True))


def take_steps(
    parameters: Mapping[str, Tensor],
    batches: Sequence[Any],
    predictor_of: PolicyOf,
    loss: TaskLoss,
    rates: Sequence[float],
    *,
    second_order: bool,
    moves: Callable[[str], bool] = every_one,
) -> InnerSteps:
    """One inner step for each of the batches; first order leaves the Jacobians out (they are the identity).

    moves: which parameters take the steps; the others stay."""
    inner = InnerLoop(lambda theta, step: predictor_of(theta), loss, GradientDescent(tuple(rates)), second_order)
    points, graphs = [detached(parameters)], []
    for number in range(len(batches)):
        before = {name: value.clone().requires_grad_() for name, value in points[-1].items()}
        after, _ = inner.step(before, {}, Recorded(batches), number)
        points.append({name: (value if moves(name) else before[name]).detach() for name, value in after.items()})
        if second_order:
            graphs.append((before, after))
    return InnerSteps(points, graphs, moves)


def fisher_product(
    distributions_of: Callable[[Any], Tensor], at: Any, weights: Tensor, actions: ActionSpace
) -> Callable[[Any], Any]:
    """The Fisher information at parameters, one tensor or tensors by name, as a function that multiplies with it.

    distributions_of: parameters -> ``[..., outputs]``. weights: of each distribution in the mean, ``[...]``."""
    plain = isinstance(at, Tensor)
    leaves = {name: value.detach().requires_grad_() for name, value in ({"": at} if plain else at).items()}
    with torch.enable_grad():
        present = distributions_of(leaves[""] if plain else leaves)
        # Forwards as twice backwards: what is pulled back is linear in the pull, so its own gradient is the same
        # everywhere. torch.func has both, and imports a second of torch's compiler for it.
        pull = torch.zeros_like(present, requires_grad=True)
        pulled = gradients_of((present * pull).sum(), leaves, graph=True)

    def product(change: Any) -> Any:
        changes = [change] if plain else [change[name] for name in leaves]
        moved, directions = zip(
            *(pair for pair in zip(pulled, changes, strict=True) if pair[0].requires_grad), strict=True
        )
        (forwards,) = torch.autograd.grad(moved, pull, directions, retain_graph=True)
        weighted = weights.unsqueeze(-1) * actions.metric(present.detach(), forwards)
        found = torch.autograd.grad(
            present, list(leaves.values()), weighted, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        return found[0] if plain else dict(zip(leaves, found, strict=True))

    return product


def conjugate_gradient(product: Product, target: Tensor, iterations: int = 10, tolerance: float = 1e-10) -> Tensor:
    """Solve ``product(x) = target`` for a symmetric positive definite product (Hestenes and Stiefel 1952)."""
    solution, residual = torch.zeros_like(target), target.clone()
    direction, size = residual.clone(), residual @ residual
    for _ in range(iterations):
        if float(size) < tolerance:
            break
        image = product(direction)
        length = size / (direction @ image)
        solution = solution + length * direction
        residual = residual - length * image
        size, before = residual @ residual, size
        direction = residual + (size / before) * direction
    return solution


@dataclass(frozen=True)
class Step:
    """Where a trust-region step led: parameters ``[p]``; loss and divergence there; whether a step was taken."""

    parameters: Tensor
    loss: float
    divergence: float
    accepted: bool


def trust_region_step(
    parameters: Tensor,
    loss: float,
    gradient: Tensor,
    product: Product,
    evaluate: Callable[[Tensor], tuple[float, float]],
    *,
    radius: float = 0.01,
    damping: float = 1e-5,
    iterations: int = 10,
    backtracks: int = 15,
    shrink: float = 0.8,
) -> Step:
    """Lower the loss within a divergence of ``radius``: a natural gradient, shortened until it keeps what it promises.

    parameters, gradient: ``[p]``, and the loss there. product: with the Hessian of the divergence. evaluate: loss and
    divergence at other parameters, on the same data. A step that is not accepted leaves the parameters as they were."""
    direction = conjugate_gradient(lambda vector: product(vector) + damping * vector, gradient, iterations)
    curvature = float(direction @ product(direction))
    if not curvature > 0:
        return Step(parameters, loss, 0.0, False)
    full = (2 * radius / curvature) ** 0.5 * direction
    for number in range(backtracks):
        candidate = parameters - shrink**number * full
        reached, divergence = evaluate(candidate)
        if reached < loss and divergence <= radius:
            return Step(candidate, reached, divergence, True)
    return Step(parameters, loss, 0.0, False)
