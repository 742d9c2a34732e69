"""The meta-gradient of MAML under an execution plan, and the rule that chooses the plan.

Every form has the same loss and the same inner loop; `gradient_of` picks the form. docs/performance.md has the gains.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from benchmarks.api import Episodes, LabelledSet, MetabenchError, Parameters
from benchmarks.execution.compiled import Function, capture_function, compile_function
from benchmarks.execution.plans import Plan, rehearsed
from benchmarks.execution.precision import precision
from benchmarks.execution.threads import in_order
from benchmarks.models import Network, NetworkPredictor
from benchmarks.models.backbones import MLP, Conv4
from benchmarks.models.network import applied, last_layer
from benchmarks.models.parts import PREFIXES
from maml.inner_loop import InnerLoop, UpdateRule, detached, gradients_of, per_task
from maml.losses import supervised_loss

#: parameters without a task axis, support set and query set of T tasks -> loss and the gradient of each parameter
Gradient = Callable[[Parameters, LabelledSet, LabelledSet], tuple[Tensor, Sequence[Tensor]]]


@dataclass(frozen=True)
class QueryLoss:
    """The loss on the queries after the inner steps, which a meta-step differentiates.

    rule: of the inner steps on mean losses.
    fixed: names of the parameters that take no inner steps.
    regime: batch-norm regime of the queries; "": the network's default.
    weight: of the mean loss of each task in the sum.
    step_weights: of the loss after each inner step from the first on; empty: the loss after the last step alone.

    If the head alone takes steps, the support set is embedded once for all of them, by a body with a task axis of 1.
    """

    network: Network
    rule: UpdateRule
    inner_steps: int
    second_order: bool
    fixed: frozenset[str]
    regime: str
    weight: float
    step_weights: tuple[float, ...] = ()

    @property
    def inner(self) -> InnerLoop:
        """The inner loop; the support set always has its own statistics."""
        return InnerLoop(
            lambda theta, step: self.predictor(theta),
            supervised_loss,
            self.rule,
            self.second_order,
            adapted=lambda name: name not in self.fixed,
        )

    @property
    def head_only(self) -> bool:
        """Whether the last layer takes steps and the backbone none."""
        *body, head = self.network.layers
        moves = not self.fixed.issuperset(head) and not hasattr(self.rule, "observe")
        return moves and all(self.fixed.issuperset(layer) for layer in body)

    def steps(self, parameters: Parameters, support: LabelledSet) -> Iterator[Parameters]:
        """The parameters after 0, 1, 2 ... inner steps, with a task axis."""
        if not self.head_only:
            return self.inner.steps(per_task(parameters, len(support)), support)
        copies = {name: len(support) if name.startswith(PREFIXES) else 1 for name in parameters}
        theta = {name: value.expand(copies[name], *value.shape) for name, value in parameters.items()}
        embedded, _ = dataclasses.replace(self.predictor(theta), embed=True)(support.x)
        of_head = dataclasses.replace(self.inner, predictor_of=lambda theta, step: last_layer(theta))
        return of_head.steps(theta, LabelledSet(embedded, support.y))

    def predictor(
        self, theta: Mapping[str, Tensor], regime: str = "", support: Tensor | None = None
    ) -> NetworkPredictor:
        """What parameters ``[T, ...]`` predict under a batch-norm regime; support: the inputs of the support set."""
        return NetworkPredictor(self.network, theta, regime, support)

    def at(self, adapted: Mapping[str, Tensor], support: LabelledSet, query: LabelledSet) -> Tensor:
        """The weighted sum over tasks at adapted parameters ``[T, ...]``, a scalar."""
        predictor = self.predictor(adapted, self.regime, support.x)
        return self.weight * supervised_loss(predictor, query).sum()

    def gradient(
        self, parameters: Parameters, support: LabelledSet, query: LabelledSet
    ) -> tuple[Tensor, Sequence[Tensor]]:
        """The loss, and its gradient by the initial parameters through all inner steps."""
        leaves = {name: value.detach().requires_grad_() for name, value in parameters.items()}
        loss = self._along(self.steps(leaves, support), support, query)
        return loss.detach(), gradients_of(loss, leaves, graph=False)

    def _along(self, steps: Iterator[Parameters], support: LabelledSet, query: LabelledSet) -> Tensor:
        if not self.step_weights:
            return self.at(next(islice(steps, self.inner_steps, None)), support, query)
        after = islice(steps, 1, self.inner_steps + 1)
        weighted = zip(self.step_weights, after, strict=True)
        return torch.stack([weight * self.at(adapted, support, query) for weight, adapted in weighted]).sum()

    def checkpointed_gradient(
        self, parameters: Parameters, support: LabelledSet, query: LabelledSet
    ) -> tuple[Tensor, Sequence[Tensor]]:
        """The same with the graph of one inner step at a time.

        Forwards it keeps only the parameters and the rule's memory between steps. Backwards it takes each step again,
        for its vector-Jacobian product. Steps of the head alone have little to forget."""
        if self.head_only:
            return self.gradient(parameters, support, query)
        theta = detached(per_task(parameters, len(support)))
        forwards = dataclasses.replace(self.inner, second_order=False)
        between = [(theta, self.rule.start(theta))]
        for number in range(self.inner_steps):
            between.append(forwards.step(*between[-1], support, number))
        weights = self.step_weights or (*[0.0] * (self.inner_steps - 1), 1.0)
        loss, gradients = self._locally(between[-1][0], weights[-1], support, query)
        into = [torch.zeros_like(value) for value in between[-1][1].values()]
        for number in reversed(range(self.inner_steps)):
            theta, memory = map(_leaves, between[number])
            after, left = self.inner.step(theta, memory, support, number)
            gradients, into = _pulled_back((theta, memory), (after, left), (gradients, into))
            if number and (weight := weights[number - 1]):
                more, own = self._locally(theta, weight, support, query)
                loss, gradients = loss + more, list(torch._foreach_add(gradients, own))
        if into:
            theta = _leaves(between[0][0])
            gradients, _ = _pulled_back((theta, {}), (theta, self.rule.start(theta)), (gradients, into))
        return loss, [gradient.sum(0) for gradient in gradients]

    def _locally(
        self, theta: Parameters, weight: float, support: LabelledSet, query: LabelledSet
    ) -> tuple[Tensor, list[Tensor]]:
        """The weighted loss at parameters ``[T, ...]``, and its gradient by them alone."""
        leaves = _leaves(theta)
        loss = weight * self.at(leaves, support, query)
        return loss.detach(), list(gradients_of(loss, leaves, graph=False))


def _leaves(tensors: Mapping[str, Tensor]) -> Parameters:
    return {name: value.detach().requires_grad_(value.is_floating_point()) for name, value in tensors.items()}


Pair = tuple[Parameters, Parameters]


def _pulled_back(
    before: Pair, after: Pair, gradients: tuple[list[Tensor], list[Tensor]]
) -> tuple[list[Tensor], list[Tensor]]:
    """The vector-Jacobian product of a step from parameters and memory to parameters and memory."""
    pairs = zip([*after[0].values(), *after[1].values()], [*gradients[0], *gradients[1]], strict=True)
    kept = [(value, gradient) for value, gradient in pairs if value.requires_grad]
    inputs = [*before[0].values(), *before[1].values()]
    outputs, weights = zip(*kept, strict=True)
    found = torch.autograd.grad(outputs, inputs, weights, allow_unused=True, materialize_grads=True)
    count = len(before[0])
    return list(found[:count]), list(found[count:])


def gradient_of(objective: QueryLoss, plan: Plan) -> Gradient:
    """The objective's gradient, computed as the plan says. What is compiled or captured is kept for the process."""
    form = objective.checkpointed_gradient if plan.checkpointed else objective.gradient

    def gradient(parameters: Parameters, support: LabelledSet, query: LabelledSet) -> tuple[Tensor, Sequence[Tensor]]:
        if plan.precision == "float32" and support.x.device.type == "cpu":
            return form(parameters, support, query)
        with precision(plan.precision, support.x.device.type):
            return form(parameters, support, query)

    return _Fixed(objective, plan).gradient if plan.compiled or plan.captured else gradient


class _Fixed:
    """The gradient as programs for fixed shapes, one for each that occurs."""

    def __init__(self, objective: QueryLoss, plan: Plan) -> None:
        self.objective, self.plan = objective, plan
        self._programs: dict[object, Function] = {}

    def gradient(
        self, parameters: Parameters, support: LabelledSet, query: LabelledSet
    ) -> tuple[Tensor, Sequence[Tensor]]:
        with torch.no_grad():
            tensors = [value.contiguous() for value in parameters.values()]
            tensors += [value.contiguous() for value in (support.x, support.y, query.x, query.y)]
            shapes = tuple([(value.shape, value.dtype) for value in tensors])
            program = self._programs.get(shapes)
            if program is None:
                key = (self.objective, self.plan, tuple(parameters), shapes, support.x.device)
                if key not in _PROGRAMS:
                    _PROGRAMS[key] = self._program(tuple(parameters), [value.detach() for value in tensors])
                program = self._programs[shapes] = _PROGRAMS[key]
            loss, *gradients = program(*tensors)
        return loss, gradients

    def _program(self, names: Sequence[str], examples: Sequence[Tensor]) -> Function:
        eager = gradient_of(self.objective, dataclasses.replace(self.plan, mode="eager"))

        def flat(*tensors: Tensor) -> Sequence[Tensor]:
            parameters = dict(zip(names, tensors, strict=False))
            x, y, query_x, query_y = tensors[len(names) :]
            with torch.enable_grad():
                loss, gradients = eager(parameters, LabelledSet(x, y), LabelledSet(query_x, query_y))
            return [loss, *gradients]

        function: Function = compile_function(flat, examples) if self.plan.compiled else flat
        return capture_function(function, examples) if self.plan.captured else function


def summed_gradient(
    gradient: Gradient, parameters: Parameters, passes: Iterable[Episodes], threads: int
) -> tuple[float, list[Tensor]]:
    """The loss and the gradient, summed over passes of some tasks each, in their order."""
    total: list[Tensor] = []
    losses: list[Tensor] = []
    for loss, part in in_order(lambda each: gradient(parameters, each.support, each.query), passes, threads):
        total = list(torch._foreach_add(total, list(part)) if total else part)
        losses.append(loss)
    return float(sum(losses[1:], losses[0])), total


def steps_in_threads(
    objective: QueryLoss, parameters: Parameters, support: LabelledSet, threads: int
) -> Iterator[Parameters]:
    """The parameters ``[T, ...]`` after 0, 1, 2 ... inner steps, each thread with tasks of its own.

    parameters: without a task axis."""
    size = len(support) if objective.head_only else -(-len(support) // threads)
    parts = [support[first : first + size] for first in range(0, len(support), size)]
    loops = [objective.steps(parameters, part) for part in parts]
    while True:
        thetas = list(in_order(lambda loop: next(loop), loops, threads))
        yield thetas[0] if len(thetas) == 1 else {name: torch.cat([t[name] for t in thetas]) for name in parameters}


def planned_gradient(
    objective_of: Callable[[Plan], QueryLoss],
    episodes_of: Callable[[slice], Episodes],
    initial: Callable[[], Parameters],
    sizes: tuple[int, int, int],
    device: str,
    forced: str,
) -> tuple[Plan, dict[str, Any]]:
    """The plan of the gradient, after one rehearsal where it compiles; and its facts, for the record.

    episodes_of: some tasks of a meta-batch. sizes: tasks of a meta-step, meta-steps to come, examples of a task.
    forced: words in place of the rule's; raises `MetabenchError` where the device or the network refuses them."""
    tasks, meta_steps, examples = sizes
    plain = objective_of(Plan(tasks))

    def rehearse(plan: Plan) -> None:
        gradient = gradient_of(objective_of(plan), plan)
        last = (tasks - 1) // plan.tasks * plan.tasks  # may be a smaller pass
        for first in {0, last}:
            episodes = episodes_of(slice(first, first + plan.tasks))
            # episodes in double precision are for parameters in double precision
            parameters = {name: value.to(episodes.support.x.dtype) for name, value in initial().items()}
            gradient(parameters, episodes.support, episodes.query)

    passes = 0 if plain.head_only else plain.inner_steps
    chosen, why = rule(plain.network, device, tasks, passes, meta_steps, examples)
    plan, facts = rehearsed(chosen, why, forced, device, rehearse)
    if (used := applied(plain.network, plan.per_task)).per_task != "layers":
        if plan.threads > 1:
            raise MetabenchError(f"plan {forced!r}: {plan.threads} threads would share one module")
        if plain.second_order and (missing := _missing_second_derivative(plain, episodes_of(slice(0, 1)), initial())):
            raise MetabenchError(f"the backbone has no second derivative; use first order, as fomaml does ({missing})")
        facts |= {"per_task": used.per_task, "per_task_why": used.why}
    return plan, facts


#: nodes of a graph that stand for a gradient that can't be differentiated
_DEAD_ENDS = ("torch::autograd::Error", "torch::autograd::NotImplemented")


def _missing_second_derivative(objective: QueryLoss, episodes: Episodes, parameters: Parameters) -> str:
    """Why the gradient of an inner step can't be differentiated, or ""; for a user's module.

    torch raises only where a dead end lies between the gradient and a leaf. Elsewhere it leaves terms out silently."""
    support, query = episodes.support, episodes.query
    theta = {name: value.to(support.x.dtype) for name, value in parameters.items()}
    leaves = _leaves(per_task(theta, len(support)))
    try:
        after, _ = objective.inner.step(leaves, objective.rule.start(leaves), support, 0)
        ahead: list[Any] = [value.grad_fn for value in after.values()]
        seen: set[Any] = {None}
        while ahead:
            if (node := ahead.pop()) in seen:
                continue
            if node.name() in _DEAD_ENDS:
                return "a layer's gradient is differentiable once only"
            seen.add(node)
            ahead += [following for following, _ in node.next_functions]
        objective.gradient(theta, support, query)
    except RuntimeError as error:
        return " ".join(f"{type(error).__name__}: {error}".split())[:200]
    return ""


def held_bytes(objective: QueryLoss, plan: Plan) -> int | None:
    """Peak memory of the last CUDA graph captured for this objective; None if there is none."""
    found = [program for key, program in _PROGRAMS.items() if key[:2] == (objective, plan)]
    return getattr(found[-1], "held_bytes", None) if found else None


#: programs by objective, plan, names and shapes; a process trains few methods, so none is thrown away
_PROGRAMS: dict[tuple[object, ...], Function] = {}


#: seconds that compiling saves per meta-step and network pass (inner steps and queries): for its operations, and for
#: each parameter of each task, whose gradients and updates it fuses; and its own seconds, once and per inner step.
#: Careful guesses: 0.0006 where 0.0008 was seen, 2 ns where 3 were (docs/performance.md).
SAVED_PER_PASS, SAVED_PER_PARAMETER = 0.0006, 2e-9
COMPILING, COMPILING_PER_PASS = 12.0, 4.0
#: parameters of all tasks of one compiled pass: their 16 MB fit the cache
CACHED_PARAMETERS = 4_000_000
#: input numbers that all simultaneous passes of a convolutional network may have on a CPU
CACHED_NUMBERS = 130_000


def rule(
    network: Network, device: str, tasks: int, inner_steps: int, meta_steps: int, examples: int
) -> tuple[Plan, str]:
    """The plan for the meta-steps to come, and the reason in words.

    tasks, inner_steps: of a meta-step. examples: support and queries of one task."""
    if device.startswith("cuda"):
        return Plan(tasks, mode="graph"), "launches are captured: a meta-step has many small ones"
    if isinstance(network.backbone, Conv4):
        threads = min(tasks, torch.get_num_threads())
        cached = CACHED_NUMBERS // (examples * math.prod(network.input_shape) * threads)
        at_once = max(1, min(cached, tasks // threads))
        return Plan(at_once, threads=threads), "as many tasks per pass as fit the cache, passes in threads"
    if not isinstance(network.backbone, MLP):
        return Plan(tasks), "not compiled: the gain for a module of torch on a CPU is unknown"
    parameters = sum(math.prod(shape) for _, shape in network.backbone.shapes(network.input_shape))
    saved = (SAVED_PER_PASS + SAVED_PER_PARAMETER * parameters * tasks) * (inner_steps + 1) * meta_steps
    spent = COMPILING + COMPILING_PER_PASS * inner_steps
    sums = f"{meta_steps} meta-steps save about {saved:.0f} s, compiling takes {spent:.0f} s"
    if saved < spent:
        return Plan(tasks), f"not compiled: {sums}"
    return Plan(min(tasks, max(1, CACHED_PARAMETERS // parameters)), mode="compiled"), f"compiled: {sums}"
