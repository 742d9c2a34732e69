"""Implicit MAML: a meta-gradient from where the inner loop ends, not from its path.

Rajeswaran, Finn, Kakade and Levine, "Meta-Learning with Implicit Gradients", NeurIPS 2019. A task's parameters phi
minimise its support loss plus lambda/2 ||phi - theta||^2. So d phi/d theta = (I + H/lambda)^-1, with the Hessian H of
the support loss at phi. Conjugate gradient applies it to the query gradient: algorithm 2 of the paper. The memory does
not depend on the number of inner steps.

Deviations and choices:
- the released code (aravindr93/imaml_dev) takes the proximal term in one last step alone; here all steps have it;
- its linear system is (1 + damping) v + H v/(lambda + 10), about half the implicit gradient; here it is the paper's;
- where the curvature along a search direction is not positive, the search ends: lambda is too small for this task.
  Its first step then leaves the query gradient, which is first order;
- parameters without inner steps get their gradient through the inner solution, the mixed derivatives included;
- Adam's epsilon is 1e-8, not 1e-3; training tasks are fresh, not 200,000 that are drawn before;
- at test there is no proximal term, as in the commands of the code.

The meta-gradient does not see the path, so nothing keeps the curvature below what the inner rate bears: in long fits
the inner steps may diverge, and the fit ends.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, ClassVar

import torch
from torch import Tensor

from benchmarks.api import LabelledSet, Parameters, TaskDistribution, adaptation_field
from benchmarks.checks import check_fields
from benchmarks.execution.plans import Plan
from benchmarks.models import join, split
from benchmarks.origin import Origin, ours, paper
from benchmarks.registry import register_method
from maml.gradient import QueryLoss
from maml.inner_loop import UpdateRule, detached, gradients_of, per_task
from maml.losses import LossScale, supervised_loss
from maml.maml import MAML


@register_method("implicit-maml")
@dataclass(frozen=True)
class ImplicitMAML(MAML):
    """Learn an initialisation that the inner steps stay close to; the meta-gradient needs no path of the steps.

    proximal: the weight lambda of the squared distance to the initialisation, next to a mean loss.
    cg_steps: steps of conjugate gradient for a meta-step.
    second_order: solve the linear system; False takes the query gradient as it is, FOMAML with proximal steps.

    All other fields: see `maml.maml.MAML`.
    """

    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "omniglot/5w1s": {"meta_batch": 32},
        "sinusoid": {"inner_lr": 0.005, "test_steps": (1, 5, 10), "inner_steps": 10, "meta_batch": 25},
    }
    published_meta_steps: ClassVar[Mapping[str, int]] = {"omniglot/5w1s": 20_000}
    origins: ClassVar[Mapping[str, Origin]] = {
        "omniglot/5w1s": paper("imaml_dev, examples/README.md; one query per class is ours"),
        "sinusoid": ours(
            "proximal 2, inner_lr 0.005: best on 600 validation waves of 3 settings over 10,000 meta-steps (1 seed). "
            "Long fits end in nan: 3 of 5 seeds at meta-steps 7,900 to 9,500, one with a meta-gradient clipped at "
            "10 at 4,470, sooner with an inner_lr of 0.01 or 0.02; with a meta_lr of 0.0003 one learned little"
        ),
        "": ours("the paper's for Omniglot; untried"),
    }

    inner_lr: float = 0.1
    inner_steps: int = 16
    test_steps: tuple[int, ...] = adaptation_field((1, 16))
    loss_scale: LossScale = "mean"
    adapt_normalisation: bool = True
    proximal: float = 2.0
    cg_steps: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, "above 0", "proximal")
        check_fields(self, "at least 1", "cg_steps")

    def _objective(
        self, tasks: TaskDistribution, rate: float, plan: Plan | None, second_order: bool | None = None
    ) -> QueryLoss:
        explicit = super()._objective(tasks, rate, plan, second_order)
        return ImplicitLoss(**vars(explicit), proximal=self.proximal, cg_steps=self.cg_steps)

    def describe(self, tasks: TaskDistribution) -> dict[str, Any]:
        return super().describe(tasks) | {"proximal": self.proximal, "cg_steps": self.cg_steps}


@dataclass(frozen=True)
class Proximal:
    """A rule whose gradients have that of weight/2 ||phi - theta||^2 added; theta is where the steps began."""

    rule: UpdateRule
    weight: float

    def start(self, parameters: Mapping[str, Tensor]) -> Parameters:
        return self.rule.start(parameters) | join("start.", parameters)

    def step(
        self, memory: Parameters, values: Parameters, gradients: Parameters, losses: Tensor, number: int
    ) -> tuple[Parameters, Parameters]:
        start, others = split(memory, "start.")
        pulled = {name: gradients[name] + self.weight * (value - start[name]) for name, value in values.items()}
        stepped, others = self.rule.step(others, values, pulled, losses, number)
        return stepped, others | join("start.", start)


@dataclass(frozen=True)
class ImplicitLoss(QueryLoss):
    """The loss on the queries after proximal inner steps, differentiated where they end."""

    proximal: float = field(kw_only=True)
    cg_steps: int = field(kw_only=True)

    def gradient(
        self, parameters: Parameters, support: LabelledSet, query: LabelledSet
    ) -> tuple[Tensor, Sequence[Tensor]]:
        """The loss, and its gradient by the initial parameters; no step keeps a graph."""
        leaves = self.solution(parameters, support)
        loss = self.at(leaves, support, query)
        found = dict(zip(leaves, gradients_of(loss, leaves, graph=False), strict=True))
        if self.second_order:
            found = self._through_the_solution(leaves, support, found)
        return loss.detach(), [value.sum(0) for value in found.values()]

    #: nothing of the inner steps is kept that could be discarded
    checkpointed_gradient = gradient

    def solution(self, parameters: Parameters, support: LabelledSet) -> Parameters:
        """The leaves ``[T, ...]`` that the proximal steps lead to."""
        rule = Proximal(self.rule, self.proximal)
        inner = dataclasses.replace(self.inner, rule=rule, second_order=False)
        steps = inner.steps(per_task(detached(parameters), len(support)), support)
        solved = next(islice(steps, self.inner_steps, None))
        return {name: value.detach().requires_grad_() for name, value in solved.items()}

    def _through_the_solution(self, leaves: Parameters, support: LabelledSet, gradients: Parameters) -> Parameters:
        """(I + H/lambda)^-1 times the query gradient; for parameters without steps, their own gradient less the mixed
        derivatives times that.

        leaves: the inner solution. gradients: of the queries; all ``[T, ...]``."""
        moving = [name for name in leaves if self.inner.adapted(name)]
        losses = supervised_loss(self.predictor(leaves), support)
        slopes = gradients_of(losses.sum(), {name: leaves[name] for name in moving}, graph=True)

        def curvature(vector: Tensor) -> Parameters:
            """The second derivatives of the support loss, of all parameters by the moving ones, times a vector."""
            parts = zip(slopes, _unflat(vector, slopes), strict=True)
            pairs = [(slope, part) for slope, part in parts if slope.requires_grad]
            found = torch.autograd.grad(
                [slope for slope, _ in pairs],
                list(leaves.values()),
                [part for _, part in pairs],
                retain_graph=True,
                allow_unused=True,
                materialize_grads=True,
            )
            return {name: value / self.proximal for name, value in zip(leaves, found, strict=True)}

        def system(vector: Tensor) -> Tensor:
            bent = curvature(vector)
            return vector + _flat([bent[name] for name in moving])

        solved = conjugate_gradient(system, _flat([gradients[name] for name in moving]), self.cg_steps)
        through = dict(zip(moving, _unflat(solved, slopes), strict=True))
        if len(moving) == len(leaves):
            return through
        mixed = curvature(solved)
        return {name: through[name] if name in through else gradients[name] - mixed[name] for name in leaves}


def conjugate_gradient(product: Callable[[Tensor], Tensor], target: Tensor, steps: int) -> Tensor:
    """x ``[T, P]`` with product(x) = target, by Hestenes and Stiefel 1952, from x = 0; exact after P steps.

    product: a symmetric matrix for each of the T tasks, times ``[T, P]``. A task's search ends before a direction
    without positive curvature; the first of all directions, the target itself, is then its x."""
    x, residual, direction = torch.zeros_like(target), target, target
    length = _dot(residual, residual)
    searching = torch.ones_like(length, dtype=torch.bool)
    for number in range(steps):
        image = product(direction)
        curvature = _dot(direction, image)
        searching = searching & (curvature > 0)
        stays = torch.zeros_like(length) if number else torch.ones_like(length)
        size = torch.where(searching, length / curvature, stays)
        x = x + size * direction
        residual = residual - size * image
        before, length = length, _dot(residual, residual)
        direction = residual + torch.where(searching, length / before, 0.0) * direction
    return x


def _dot(one: Tensor, other: Tensor) -> Tensor:
    return (one * other).sum(1, keepdim=True)


def _flat(values: Sequence[Tensor]) -> Tensor:
    """Tensors ``[T, ...]`` next to one another, ``[T, P]``."""
    return torch.cat([value.flatten(1) for value in values], 1)


def _unflat(vector: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    parts = vector.split([value[0].numel() for value in like], 1)
    return [part.view_as(value) for part, value in zip(parts, like, strict=True)]
