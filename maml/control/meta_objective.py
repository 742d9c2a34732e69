"""The objective of an outer step on control tasks: the adapted policies as a function of the initial parameters.

Everything is computed on recorded trajectories: those on which the inner steps were taken, and those of the adapted
policies. The loss of a task is minus the advantage of its adapted policy, weighted by probability ratios, so that its
values can be compared. Without inner steps it is the loss of one ordinary policy on all tasks together.

- ``clip`` bounds the ratios, and ``inner_penalty`` weighs the divergence of the policies before each inner step: the
  objective of Rothfuss et al., "ProMP: Proximal Meta-Policy Search", ICLR 2019, section 5.2.
- ``exploration`` weighs the term that MAML leaves out: the trajectories of the inner steps are drawn from the policy
  before them, so those after which a task went well should become more probable (Stadie et al., "Some considerations on
  learning to explore via meta-reinforcement learning", 2018: E-MAML). With 1 and log-likelihoods as the inner loss, the
  gradient is that of the mean return after steps on sampled trajectories, in units of the outer advantages.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.api import Diverged, Parameters, Predictor
from maml.control.policies import Acting, Policy
from maml.control.policy_gradient import (
    Experience,
    Surrogate,
    distributions,
    log_probabilities,
    mean_over_steps,
    surrogate_loss,
    weighted_loss,
)
from maml.control.trust_region import InnerSteps, PolicyOf, Product, every_one, fisher_product, take_steps
from maml.inner_loop import per_task


@dataclass(frozen=True)
class Part:
    """Some tasks of an iteration: the experience of each inner step and of the adapted policies.

    told: what the policy is told of each task, ``[T, p]``, or None. credit: how much better the adapted policy did than
    those of the other tasks, ``[T]``."""

    inner: Sequence[Experience]
    outer: Experience
    told: Tensor | None
    credit: Tensor

    def __len__(self) -> int:
        return len(self.credit)

    def __getitem__(self, tasks: slice) -> Part:
        told = None if self.told is None else self.told[tasks]
        return Part([seen[tasks] for seen in self.inner], self.outer[tasks], told, self.credit[tasks])


@dataclass(frozen=True)
class MetaObjective:
    """The loss of initial parameters ``[p]`` on what one iteration has recorded, a mean over its tasks.

    like: the parameters by name, for their shapes. rates, form: of the inner steps. second_order: differentiate through
    them. every: one in this many trajectories is used for the curvature. moves: which parameters take inner steps."""

    policy: Policy
    like: Mapping[str, Tensor]
    parts: Sequence[Part]
    rates: Sequence[float]
    form: Surrogate
    second_order: bool
    every: int = 1
    clip: float = math.inf
    inner_penalty: float = 0.0
    exploration: float = 0.0
    moves: Callable[[str], bool] = every_one

    def linearise(self, theta: Tensor) -> Linearised:
        """Loss and gradient; raises `Diverged` if they are not finite."""
        total, gradient, steps = 0.0, torch.zeros_like(theta), []
        for part in self.parts:
            loss, found, taken = self._gradient_of(part, unflat(theta, self.like))
            total += loss / self._tasks
            gradient += flat(found) / self._tasks
            steps.append(taken)
        if not (math.isfinite(total) and bool(torch.isfinite(gradient).all())):
            raise Diverged(f"the loss of the adapted policies is {total:g}, or its gradient is not finite")
        return Linearised(self, total, gradient, steps)

    def evaluate(self, theta: Tensor) -> tuple[float, float]:
        """The loss, and the divergence of the adapted policies from those that acted."""
        total, divergences = 0.0, 0.0
        for part in self.parts:
            taken = self._steps(part, unflat(theta, self.like), second_order=False)
            with torch.no_grad():
                loss, divergence = self._outer(part, taken.adapted)
                if self._looks_along:
                    loss = loss + sum(self._along(part, *pair) for pair in enumerate(taken.points[:-1]))
            total += float(loss.sum()) / self._tasks
            divergences += float(divergence.sum()) / self._tasks
        return total, divergences

    @property
    def _tasks(self) -> int:
        return sum(map(len, self.parts))

    @property
    def _looks_along(self) -> bool:
        return self.inner_penalty > 0 or self.exploration > 0

    def _gradient_of(self, part: Part, theta: Parameters) -> tuple[float, Parameters, InnerSteps]:
        """The summed loss of some tasks, its gradient by the initial parameters, ``[T, ...]``, and the steps taken."""
        taken = self._steps(part, theta, self.second_order)
        total, gradient = _with_gradient(lambda point: self._outer(part, point)[0], taken.adapted)
        along = []
        for number, point in enumerate(taken.points[:-1] if self._looks_along else ()):
            loss, found = _with_gradient(lambda leaves, n=number: self._along(part, n, leaves), point)  # type: ignore[misc]
            total += loss
            along.append(found)
        return total, taken.backwards(gradient, along), taken

    def _steps(self, part: Part, theta: Parameters, second_order: bool) -> InnerSteps:
        return self._taken(part, per_task(theta, len(part)), part.inner, self.rates, second_order)

    def _thinned(self, part: Part, taken: InnerSteps) -> InnerSteps:
        """The same steps, with Jacobians estimated on one in `every` trajectories."""
        if self.every == 1 or not taken.graphs:
            return taken
        graphs: list[tuple[Parameters, Parameters]] = []
        for number, (point, seen) in enumerate(zip(taken.points[:-1], part.inner, strict=True)):
            rate = self.rates[min(number, len(self.rates) - 1)]
            graphs += self._taken(part, point, (seen.thinned(self.every),), (rate,), True).graphs
        return InnerSteps(taken.points, graphs, self.moves)

    def _taken(
        self,
        part: Part,
        point: Parameters,
        batches: Sequence[Experience],
        rates: Sequence[float],
        second_order: bool,
    ) -> InnerSteps:
        def loss(predictor: Predictor, seen: Experience) -> Tensor:
            return surrogate_loss(predictor, seen, self.policy.actions, self.form)

        return take_steps(point, batches, self._acting(part), loss, rates, second_order=second_order, moves=self.moves)

    def _fisher(self, part: Part, adapted: Parameters) -> Callable[[Parameters], Parameters]:
        """The Fisher information of adapted parameters on a thinned set of trajectories, a mean over live steps."""
        seen, acting = part.outer.thinned(self.every).trajectories, self._acting(part)
        inputs, live = seen.inputs.flatten(1, 2), seen.live.flatten(1).to(seen.inputs.dtype)
        weights = live / live.sum(1, keepdim=True)
        return fisher_product(lambda point: acting(point)(inputs, None)[0], adapted, weights, self.policy.actions)

    def _acting(self, part: Part) -> PolicyOf:
        return lambda parameters: Acting(self.policy, parameters, part.told)

    def _outer(self, part: Part, adapted: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The loss of each adapted policy, and its divergence from the one that acted, ``[T]``."""
        seen, actions = part.outer.trajectories, self.policy.actions
        found = distributions(self._acting(part)(adapted), seen)
        loss = weighted_loss(actions.log_probability(found, seen.actions), part.outer, "likelihood-ratio", self.clip)
        return loss, mean_over_steps(actions.divergence(seen.distributions, found), seen)

    def _along(self, part: Part, number: int, point: Mapping[str, Tensor]) -> Tensor:
        """The terms that depend on the policies before an inner step, ``[T]``."""
        seen, actions = part.inner[number].trajectories, self.policy.actions
        predictor = self._acting(part)(point)
        loss = torch.zeros_like(part.credit)
        if self.inner_penalty:
            divergence = actions.divergence(seen.distributions, distributions(predictor, seen))
            loss = loss + self.inner_penalty * mean_over_steps(divergence, seen)
        if self.exploration:
            likelihood = log_probabilities(predictor, seen, actions) - seen.log_probabilities
            loss = loss - self.exploration * part.credit * likelihood.masked_fill(~seen.live, 0.0).flatten(1).sum(1)
        return loss


@dataclass(frozen=True)
class Linearised:
    """An objective near some parameters: its loss and gradient ``[p]``, and the inner steps of each part."""

    objective: MetaObjective
    loss: float
    gradient: Tensor
    steps: Sequence[InnerSteps]

    def product(self) -> Product:
        """The Hessian of the divergence of the adapted policies where it is 0, as what multiplies a vector ``[p]``;
        estimated on one in `every` trajectories."""
        objective = self.objective
        factors = []
        for part, taken in zip(objective.parts, self.steps, strict=True):
            fisher = objective._fisher(part, taken.adapted)
            factors.append((len(part), objective._thinned(part, taken), fisher))

        def multiply(vector: Tensor) -> Tensor:
            change, total = unflat(vector, objective.like), torch.zeros_like(vector)
            for tasks, taken, fisher in factors:
                total += flat(taken.backwards(fisher(taken.forwards(per_task(change, tasks)))))
            return total / objective._tasks

        return multiply


def _with_gradient(loss, point: Mapping[str, Tensor]) -> tuple[float, Parameters]:  # type: ignore[no-untyped-def]
    """The sum of ``loss(point)`` and its gradient by name."""
    leaves = {name: value.detach().requires_grad_() for name, value in point.items()}
    total = loss(leaves).sum()
    found = torch.autograd.grad(total, list(leaves.values()))
    return float(total.detach()), dict(zip(leaves, found, strict=True))


def credits_of(outer: Experience) -> Tensor:
    """By how much the return of each task's adapted policy exceeds the mean of the others, ``[T]``, in the units of the
    outer loss: per step, and divided by the scale of the task's advantages."""
    returns = outer.trajectories.rewards.sum(-1).mean(1)
    tasks = len(returns)
    others = (returns.sum() - returns) / max(tasks - 1, 1)
    steps = outer.trajectories.live.sum((1, 2)) / outer.trajectories.live.shape[1]
    return (returns - others) / (steps * outer.scale)


def flat(tensors: Mapping[str, Tensor]) -> Tensor:
    """The sum over the tasks of tensors ``[T, ...]``, as one vector ``[p]``."""
    return torch.cat([value.sum(0).flatten() for value in tensors.values()])


def unflat(vector: Tensor, like: Mapping[str, Tensor]) -> Parameters:
    """Tensors in the shapes of others, from one vector ``[p]``."""
    pieces = vector.split([value.numel() for value in like.values()])
    return {name: piece.view(value.shape) for piece, (name, value) in zip(pieces, like.items(), strict=True)}
